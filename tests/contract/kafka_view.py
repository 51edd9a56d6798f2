"""The contract of every ``KafkaView``, run against ``FakeKafka`` and against the reader of a real cluster.

A subclass defines the fixture ``cluster``: ``FakeKafka`` itself, or a real cluster with the same controls and a
``view``. The contract has no leader elections: a single broker elects no second leader, so ``FakeKafka.truncate``
and ``set_leader_epoch`` have no counterpart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaException

from airflow_provider_offsets.core.live import LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, TopicMissing

FOR_EVER = {"retention.ms": "-1"}
"""Keeps a broker from deleting records of 1970."""


def position(topic: str, *offsets: int) -> Position:
    return Position({TopicPartition(topic, number): offset for number, offset in enumerate(offsets)})


class KafkaViewContract:
    """Subclass it as ``Test…`` and define the fixtures ``cluster``, ``view``, ``brief_view``, ``topic`` and ``group``.

    ``brief_view`` gives up after a few seconds: a real reader waits for an answer that never comes.
    """

    def test_a_new_topic_is_empty(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 3)

        live = view.live_topics([topic])

        assert (live.begin, live.end) == (position(topic, 0, 0, 0), position(topic, 0, 0, 0))

    def test_records_move_the_end_of_their_partition_only(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 3)
        cluster.append(topic, 0, 7)
        cluster.append(topic, 2, 5)

        live = view.live_topics([topic])

        assert (live.begin, live.end) == (position(topic, 0, 0, 0), position(topic, 7, 0, 5))

    def test_added_partitions_come_after_the_old_ones(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 3)
        cluster.append(topic, 1, 4)
        before = view.live_topics([topic])

        cluster.add_partitions(topic, 5)
        cluster.append(topic, 4, 2)

        after = view.live_topics([topic])
        assert before.end == position(topic, 0, 4, 0)
        assert after.end == position(topic, 0, 4, 0, 0, 2)
        assert after.identity == before.identity

    def test_deleted_records_move_the_begin(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 2)
        cluster.append(topic, 0, 10)

        cluster.delete_records_before(topic, 0, 6)

        live = view.live_topics([topic])
        assert (live.begin, live.end) == (position(topic, 6, 0), position(topic, 10, 0))

    def test_a_topic_that_was_made_again_has_another_id(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 2)
        before = view.live_topics([topic]).identity

        cluster.recreate_topic(topic, 2)

        after = view.live_topics([topic]).identity
        assert after.cluster_id == before.cluster_id
        assert after.topic_ids[topic] != before.topic_ids[topic]

    def test_an_open_transaction_ends_what_committed_readers_see(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1)
        cluster.append(topic, 0, 3)
        cluster.begin_transaction(topic, 0)
        cluster.append(topic, 0, 2)

        def ends() -> tuple[Position, Position]:
            return view.live_topics([topic]).end, view.live_topics([topic], read_committed=True).end

        assert ends() == (position(topic, 5), position(topic, 3))
        cluster.end_transaction(topic, 0)
        # 3 records, 2 in the transaction, and its marker.
        assert ends() == (position(topic, 6), position(topic, 6))

    def test_several_topics_at_once(self, cluster: Any, view: Any, topic: str) -> None:
        other = f"{topic}-other"
        cluster.create_topic(topic, 1)
        cluster.create_topic(other, 2)
        cluster.append(other, 1, 3)

        live = view.live_topics([other, topic, other])

        assert isinstance(live, LiveTopics)
        assert [each.name for each in live.topics] == [other, topic]
        assert live.end == position(topic, 0).updated(position(other, 0, 3))

    def test_offsets_at_a_time(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 2, **FOR_EVER)
        cluster.append(topic, 0, 4, timestamp_ms=1_000)
        cluster.append(topic, 0, 3, timestamp_ms=2_000)
        first, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)

        assert view.offsets_at([topic], 0) == {first: 0, empty: None}
        assert view.offsets_at([topic], 1_000) == {first: 0, empty: None}
        assert view.offsets_at([topic], 1_001) == {first: 4, empty: None}
        assert view.offsets_at([topic], 2_000) == {first: 4, empty: None}
        assert view.offsets_at([topic], 2_001) == {first: None, empty: None}

    def test_offsets_at_a_time_within_an_open_transaction(self, cluster: Any, view: Any, topic: str) -> None:
        """A consumer with ``read_committed`` cannot start there yet."""
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 3, timestamp_ms=1_000)
        cluster.begin_transaction(topic, 0)
        cluster.append(topic, 0, 2, timestamp_ms=2_000)
        key = TopicPartition(topic, 0)

        def found() -> tuple[int | None, int | None]:
            return tuple(view.offsets_at([topic], 1_500, read_committed=each)[key] for each in (False, True))

        assert view.offsets_at([topic], 1_000, read_committed=True) == {key: 0}
        assert found() == (3, None)
        cluster.end_transaction(topic, 0)
        assert found() == (3, 3)

    def test_offsets_at_a_time_before_what_retention_left(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 4, timestamp_ms=1_000)
        cluster.append(topic, 0, 4, timestamp_ms=2_000)
        cluster.delete_records_before(topic, 0, 6)

        assert view.offsets_at([topic], 500) == {TopicPartition(topic, 0): 6}

    def test_a_time_before_1970_is_refused(self, cluster: Any, view: Any, topic: str) -> None:
        """Kafka would read -1 and -2 as *latest* and *earliest*."""
        cluster.create_topic(topic, 1)
        with pytest.raises(InputRefused, match="Timestamp -1 is not valid"):
            view.offsets_at([topic], -1)

    def test_the_time_of_the_first_record_at_an_offset(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 3, **FOR_EVER)
        cluster.append(topic, 0, 4, timestamp_ms=1_000)
        cluster.append(topic, 0, 3, timestamp_ms=2_000)
        cluster.append(topic, 1, 2, timestamp_ms=3_000)
        first, second, empty = (TopicPartition(topic, number) for number in range(3))

        def times(*offsets: int) -> dict[TopicPartition, int | None]:
            return dict(view.record_times(position(topic, *offsets)))

        assert times(0, 0, 0) == {first: 1_000, second: 3_000, empty: None}
        assert times(3, 1, 0) == {first: 1_000, second: 3_000, empty: None}
        assert times(4, 2, 0) == {first: 2_000, second: None, empty: None}
        assert view.record_times(Position()) == {}

    def test_the_time_of_the_first_record_that_retention_left(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 4, timestamp_ms=1_000)
        cluster.append(topic, 0, 4, timestamp_ms=2_000)
        cluster.delete_records_before(topic, 0, 6)

        assert view.record_times(position(topic, 2)) == {TopicPartition(topic, 0): 2_000}

    def test_the_time_of_a_record_in_a_partition_that_is_gone(self, cluster: Any, brief_view: Any, topic: str) -> None:
        """The topic was recreated with fewer partitions since somebody looked."""
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 1, timestamp_ms=1_000)

        assert brief_view.record_times(position(topic, 0, 0)) == {TopicPartition(topic, 0): 1_000}

    def test_a_marker_at_the_end_is_no_record(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.begin_transaction(topic, 0)
        cluster.append(topic, 0, 2, timestamp_ms=1_000)
        cluster.end_transaction(topic, 0)

        assert view.record_times(position(topic, 1)) == {TopicPartition(topic, 0): 1_000}
        assert view.record_times(position(topic, 2)) == {TopicPartition(topic, 0): None}

    def test_how_long_records_are_kept(self, cluster: Any, view: Any, topic: str) -> None:
        other = f"{topic}-other"
        cluster.create_topic(topic, 1)
        config = {"retention.ms": "60000", "retention.bytes": "1000", "cleanup.policy": "compact"}
        cluster.create_topic(other, 1, **config, **{"message.timestamp.type": "LogAppendTime"})

        assert view.settings([topic, other]) == {
            topic: TopicSettings("delete", 7 * 24 * 3_600_000, -1, "CreateTime"),
            other: TopicSettings("compact", 60_000, 1_000, "LogAppendTime"),
        }

    def test_a_missing_commit_is_left_out(self, cluster: Any, view: Any, topic: str, group: str) -> None:
        cluster.create_topic(topic, 3)
        cluster.append(topic, 0, 9)
        cluster.commit(group, {TopicPartition(topic, 0): 5, TopicPartition(topic, 2): 0})

        stored = view.committed(group, [topic])

        assert dict(stored) == {TopicPartition(topic, 0): 5, TopicPartition(topic, 2): 0}

    def test_a_group_that_never_was_has_committed_nothing(
        self, cluster: Any, view: Any, topic: str, group: str
    ) -> None:
        cluster.create_topic(topic, 1)

        assert view.committed(group, [topic]) == Position()

    def test_commits_of_other_topics_are_left_out(self, cluster: Any, view: Any, topic: str, group: str) -> None:
        other = f"{topic}-other"
        cluster.create_topic(topic, 1)
        cluster.create_topic(other, 1)
        cluster.commit(group, {TopicPartition(topic, 0): 0, TopicPartition(other, 0): 0})

        assert view.committed(group, [topic]) == position(topic, 0)

    def test_a_later_commit_replaces_its_partition_only_and_may_go_back(
        self, cluster: Any, view: Any, topic: str, group: str
    ) -> None:
        cluster.create_topic(topic, 2)
        cluster.append(topic, 0, 9)
        cluster.commit(group, {TopicPartition(topic, 0): 7, TopicPartition(topic, 1): 0})
        cluster.commit(group, {TopicPartition(topic, 0): 2})

        assert view.committed(group, [topic]) == position(topic, 2, 0)

    def test_a_partition_that_is_new_has_no_commit(self, cluster: Any, view: Any, topic: str, group: str) -> None:
        cluster.create_topic(topic, 1)
        cluster.commit(group, {TopicPartition(topic, 0): 0})
        cluster.add_partitions(topic, 2)

        assert view.committed(group, [topic]) == position(topic, 0)

    def test_commits_stay_where_retention_has_passed_them(
        self, cluster: Any, view: Any, topic: str, group: str
    ) -> None:
        """A committed offset may lie before the earliest retained offset, and after the end of the log."""
        cluster.create_topic(topic, 2, **FOR_EVER)
        cluster.append(topic, 0, 9)
        cluster.commit(group, {TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 99})
        cluster.delete_records_before(topic, 0, 9)

        assert view.committed(group, [topic]) == position(topic, 2, 99)

    def test_commits_go_with_their_topic(self, cluster: Any, view: Any, topic: str, group: str) -> None:
        """The recreated topic has no committed offsets in any partition; another topic of the group keeps its own."""
        other = f"{topic}-other"
        for name in (topic, other):
            cluster.create_topic(name, 2)
            cluster.append(name, 0, 5)
        cluster.commit(group, position(topic, 4, 0).updated(position(other, 3, 0)))

        cluster.recreate_topic(topic, 2)

        assert view.committed(group, [topic]) == Position()
        assert view.committed(group, [topic, other]) == position(other, 3, 0)
        cluster.commit(group, {TopicPartition(topic, 1): 0})
        assert view.committed(group, [topic]) == Position({TopicPartition(topic, 1): 0})

    def test_a_group_that_was_deleted_has_committed_nothing(
        self, cluster: Any, view: Any, topic: str, group: str
    ) -> None:
        """A group whose commits have expired has none either: the broker answers the same."""
        cluster.create_topic(topic, 1)
        cluster.commit(group, {TopicPartition(topic, 0): 0})

        cluster.delete_group(group)

        assert view.committed(group, [topic]) == Position()
        with pytest.raises((ValueError, KafkaException)):
            cluster.delete_group(group)

    def test_a_recreated_topic_begins_at_0(self, cluster: Any, view: Any, topic: str) -> None:
        """Only the topic id tells it from the previous topic."""
        cluster.create_topic(topic, 3, **FOR_EVER)
        cluster.append(topic, 0, 9)
        cluster.delete_records_before(topic, 0, 4)

        cluster.recreate_topic(topic, 2)

        live = view.live_topics([topic])
        assert (live.begin, live.end) == (position(topic, 0, 0), position(topic, 0, 0))
        assert [each.leader_epoch for each in live.partitions.values()] == [0, 0]

    def test_no_leader_changes_by_what_is_done_to_a_log(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 4)
        cluster.delete_records_before(topic, 0, 2)
        cluster.begin_transaction(topic, 0)
        cluster.append(topic, 0, 1)
        cluster.end_transaction(topic, 0)
        cluster.add_partitions(topic, 2)

        assert [each.leader_epoch for each in view.live_topics([topic]).partitions.values()] == [0, 0]

    def test_all_records_are_deleted(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 4, timestamp_ms=1_000)
        cluster.delete_records_before(topic, 0, 4)

        live, key = view.live_topics([topic]), TopicPartition(topic, 0)
        assert (live.begin, live.end) == (position(topic, 4), position(topic, 4))
        assert view.offsets_at([topic], 0) == {key: None}
        assert view.record_times(position(topic, 0)) == {key: None}

    def test_what_is_deleted_does_not_come_back(self, cluster: Any, view: Any, topic: str) -> None:
        cluster.create_topic(topic, 1, **FOR_EVER)
        cluster.append(topic, 0, 9)
        cluster.delete_records_before(topic, 0, 6)
        cluster.delete_records_before(topic, 0, 3)

        assert view.live_topics([topic]).begin == position(topic, 6)

    @pytest.mark.parametrize(
        ("what", "change"),
        [
            ("records past the end are deleted", lambda cluster, topic: cluster.delete_records_before(topic, 0, 5)),
            ("fewer partitions", lambda cluster, topic: cluster.add_partitions(topic, 1)),
            ("as many partitions as there are", lambda cluster, topic: cluster.add_partitions(topic, 2)),
            ("a topic of a name that is taken", lambda cluster, topic: cluster.create_topic(topic, 2)),
        ],
    )
    def test_no_cluster_does_that(
        self, what: str, change: Callable[[Any, str], None], cluster: Any, view: Any, topic: str
    ) -> None:
        cluster.create_topic(topic, 2)
        cluster.append(topic, 0, 4)
        before = view.live_topics([topic])

        with pytest.raises((ValueError, KafkaException)):
            change(cluster, topic)

        assert view.live_topics([topic]) == before

    def test_all_missing_topics_are_named(self, cluster: Any, view: Any, topic: str, group: str) -> None:
        cluster.create_topic(topic, 1)
        asked = [f"{topic}-b", topic, f"{topic}-a"]
        questions = (
            lambda: view.live_topics(asked),
            lambda: view.offsets_at(asked, 0),
            lambda: view.committed(group, asked),
            lambda: view.settings(asked),
        )
        for question in questions:
            with pytest.raises(TopicMissing, match=f"'{topic}-a', '{topic}-b'") as caught:
                question()
            assert f"'{topic}'" not in str(caught.value)

    @pytest.mark.parametrize("topics", [[], "orders"], ids=["none", "a text instead of a list"])
    def test_no_topics_are_refused(self, view: Any, topics: Any) -> None:
        with pytest.raises(InputRefused, match="at least one topic"):
            view.live_topics(topics)
