"""Kafka cluster in memory that can be read like a real one, and changed as a test needs.

Example::

    kafka = FakeKafka()
    kafka.create_topic("orders", partitions=3)
    kafka.append("orders", 0, count=100)
    kafka.live_topics(["orders"]).end          # {"orders":{"0":100,"1":0,"2":0}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.kafka.view import checked_time, distinct_topics, topics_missing


@dataclass(frozen=True)
class _Run:
    """Records that were appended together."""

    start: int
    end: int
    timestamp_ms: int


@dataclass
class _Partition:
    begin: int = 0
    end: int = 0
    open_since: int | None = None
    """Start of the open transaction."""
    leader_epoch: int = 0
    runs: list[_Run] = field(default_factory=list)

    @property
    def stable_end(self) -> int:
        return self.end if self.open_since is None else self.open_since

    def append(self, count: int, timestamp_ms: int) -> None:
        self.runs.append(_Run(self.end, self.end + count, timestamp_ms))
        self.end += count

    def at(self, timestamp_ms: int) -> int | None:
        late = (run for run in self.runs if run.timestamp_ms >= timestamp_ms and run.end > max(run.start, self.begin))
        return next((max(run.start, self.begin) for run in late), None)

    def time_at(self, offset: int) -> int | None:
        offset = max(offset, self.begin)
        return next((run.timestamp_ms for run in self.runs if run.end > offset), None)


@dataclass
class _Topic:
    topic_id: str
    partitions: list[_Partition]
    config: dict[str, str]


class FakeKafka:
    """``KafkaView`` in memory. Everything happens at the request of a test: there is no clock and no retention.

    :param cluster_id: two fakes with different ids are two clusters.
    """

    def __init__(self, cluster_id: str = "fake-cluster") -> None:
        self._cluster_id = cluster_id
        self._topics: dict[str, _Topic] = {}
        self._commits: dict[str, Position] = {}
        self._created = 0
        self._error: Exception | None = None

    def live_topics(self, topics: Sequence[str], *, read_committed: bool = False) -> LiveTopics:
        """Return the topics with their ids, partitions, and earliest and end offsets.

        :param topics: names of the topics; duplicates count once.
        :param read_committed: end each partition at the start of its open transaction.
        :raises TopicMissing: a topic does not exist.
        """

        def live(partition: _Partition) -> LivePartition:
            end = partition.stable_end if read_committed else partition.end
            return LivePartition(partition.begin, end, partition.leader_epoch)

        asked = self._asked(topics)
        return LiveTopics(
            self._cluster_id,
            tuple(LiveTopic(name, each.topic_id, tuple(map(live, each.partitions))) for name, each in asked.items()),
        )

    def offsets_at(
        self, topics: Sequence[str], timestamp_ms: int, *, read_committed: bool = False
    ) -> dict[TopicPartition, int | None]:
        """Return the first offset of each partition whose record has that timestamp or a later one.

        :param topics: names of the topics; duplicates count once.
        :param timestamp_ms: milliseconds since 1970, from 0 up.
        :param read_committed: ignore records from the start of an open transaction on.
        :returns: offset per partition; None if no record is that recent.
        :raises InputRefused: the timestamp is negative.
        :raises TopicMissing: a topic does not exist.
        """
        checked_time(timestamp_ms)

        def at(partition: _Partition) -> int | None:
            found = partition.at(timestamp_ms)
            return None if read_committed and found is not None and found >= partition.stable_end else found

        return {
            TopicPartition(name, number): at(partition)
            for name, topic in sorted(self._asked(topics).items())
            for number, partition in enumerate(topic.partitions)
        }

    def record_times(self, position: Position) -> dict[TopicPartition, int | None]:
        """Return the timestamp (ms) of the first record at or after each offset, or None if there is no such record.

        A partition that is gone is omitted. A real reader waits for it until its time is up.

        :raises TopicMissing: a topic of the position does not exist.
        """
        asked = self._asked(position.topics) if position else {}
        there = {each: asked[each.topic].partitions[each.partition : each.partition + 1] for each in position}
        return {each: found[0].time_at(position[each]) for each, found in there.items() if found}

    def settings(self, topics: Sequence[str]) -> dict[str, TopicSettings | None]:
        """Return the retention settings of each topic, with Kafka's defaults for settings that were not set.

        :raises TopicMissing: a topic does not exist.
        """
        return {
            name: TopicSettings(
                cleanup_policy=topic.config.get("cleanup.policy", "delete"),
                retention_ms=int(topic.config.get("retention.ms", TopicSettings.retention_ms)),
                retention_bytes=int(topic.config.get("retention.bytes", TopicSettings.retention_bytes)),
                timestamp_type=topic.config.get("message.timestamp.type", TopicSettings.timestamp_type),
            )
            for name, topic in self._asked(topics).items()
        }

    def committed(self, group_id: str, topics: Sequence[str]) -> Position:
        """Return the committed offsets of the group in these topics, without partitions that have no commit.

        :param group_id: the consumer group; one without commits has an empty position.
        :param topics: names of the topics.
        :raises InputRefused: the group id is empty.
        :raises TopicMissing: a topic does not exist.
        """
        asked = self._asked(topics)
        if not group_id:
            raise InputRefused(seen="the group id is empty", expected="the id of a consumer group", do="name the group")
        stored = self._commits.get(group_id, Position())
        return Position({partition: offset for partition, offset in stored.items() if partition.topic in asked})

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        """Create an empty topic.

        :param name: name of the topic.
        :param partitions: number of partitions.
        :param config: settings such as ``**{"retention.ms": "3600000"}``. They delete nothing here.
        :raises ValueError: a topic of that name exists.
        """
        if name in self._topics:
            raise ValueError(f"topic {name!r} exists already; recreate_topic deletes it and creates it again")
        self._created += 1
        self._topics[name] = _Topic(f"fake-topic-id-{self._created}", [_Partition() for _ in range(partitions)], config)

    def delete_topic(self, name: str) -> None:
        """Delete a topic, and the commits of groups in it, as a broker does.

        :raises KeyError: the topic does not exist.
        """
        del self._topics[name]
        for group, stored in self._commits.items():
            self._commits[group] = Position({key: offset for key, offset in stored.items() if key.topic != name})

    def recreate_topic(self, name: str, partitions: int) -> None:
        """Delete a topic and create one of the same name, which has another id and begins at 0.

        :param name: name of the topic.
        :param partitions: number of partitions of the new topic, which has no settings of the old one.
        :raises KeyError: the topic does not exist.
        """
        self.delete_topic(name)
        self.create_topic(name, partitions)

    def add_partitions(self, topic: str, total: int) -> None:
        """Increase the number of partitions of a topic.

        :param topic: name of the topic.
        :param total: number of partitions afterwards, as Kafka counts them.
        :raises ValueError: ``total`` is not greater than the present number.
        """
        have = self._topics[topic].partitions
        if total <= len(have):
            raise ValueError(f"topic {topic!r} has {len(have)} partitions already; Kafka never removes any")
        have.extend(_Partition() for _ in range(total - len(have)))

    def append(self, topic: str, partition: int, count: int, *, timestamp_ms: int = 0) -> None:
        """Append records with one timestamp.

        :param topic: name of the topic.
        :param partition: number of the partition.
        :param count: number of records.
        :param timestamp_ms: timestamp of each record, in milliseconds since 1970.
        """
        self._topics[topic].partitions[partition].append(count, timestamp_ms)

    def begin_transaction(self, topic: str, partition: int) -> None:
        """Start a transaction: readers of committed records stop here until it ends.

        :param topic: name of the topic.
        :param partition: number of the partition.
        """
        found = self._topics[topic].partitions[partition]
        found.open_since = found.end

    def end_transaction(self, topic: str, partition: int) -> None:
        """End the transaction. Its marker takes an offset, as in a real log.

        :param topic: name of the topic.
        :param partition: number of the partition.
        """
        found = self._topics[topic].partitions[partition]
        found.open_since = None
        found.end += 1

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before an offset, as retention does.

        :param topic: name of the topic.
        :param partition: number of the partition.
        :param offset: the new earliest retained offset. An offset that was deleted before changes nothing.
        :raises ValueError: the offset is past the end.
        """
        found = self._topics[topic].partitions[partition]
        if offset > found.end:
            raise ValueError(f"{topic}[{partition}] ends at {found.end}, so nothing is deleted up to {offset}")
        found.begin = max(found.begin, offset)

    def truncate(self, topic: str, partition: int, end: int, *, leader_epoch: int) -> None:
        """Delete the records at and after ``end``, and set a new leader epoch, as an unclean election does.

        :param topic: name of the topic.
        :param partition: number of the partition.
        :param end: the new end of the log.
        :param leader_epoch: the new leader epoch, greater than the present one.
        :raises ValueError: ``end`` is outside of the log, or the leader epoch does not increase.
        """
        found = self._topics[topic].partitions[partition]
        if not found.begin <= end <= found.end or leader_epoch <= found.leader_epoch:
            raise ValueError(f"{topic}[{partition}] is {found.begin}..{found.end} under leader {found.leader_epoch}")
        runs = (_Run(run.start, min(run.end, end), run.timestamp_ms) for run in found.runs)
        found.runs = [run for run in runs if run.start < run.end]
        found.end, found.leader_epoch = end, leader_epoch

    def set_config(self, topic: str, **config: str) -> None:
        """Change some settings of a topic.

        :param topic: name of the topic.
        :param config: the settings to change, by Kafka's names; the others are kept.
        """
        self._topics[topic].config.update(config)

    def set_leader_epoch(self, topic: str, partition: int, leader_epoch: int) -> None:
        """Set the leader epoch of a partition.

        Each election adds one. A smaller epoch occurs only in a cluster that was restored from an earlier state.

        :param topic: name of the topic.
        :param partition: number of the partition.
        :param leader_epoch: the new leader epoch.
        """
        self._topics[topic].partitions[partition].leader_epoch = leader_epoch

    def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets for a group; commits in other partitions are kept.

        :param group_id: the consumer group, which is created by its first commit.
        :param offsets: the next offset to read, by partition.
        """
        self._commits[group_id] = self._commits.get(group_id, Position()).updated(offsets)

    def delete_group(self, group_id: str) -> None:
        """Delete a group with all its commits. Expired commits look the same.

        :raises ValueError: the group does not exist.
        """
        if self._commits.pop(group_id, None) is None:
            raise ValueError(f"there is no group {group_id!r}")

    def fail_with(self, error: Exception | None) -> None:
        """Raise this error in every reading method from now on; None ends that."""
        self._error = error

    def _asked(self, topics: Sequence[str]) -> dict[str, _Topic]:
        names = distinct_topics(topics)
        if self._error is not None:
            raise self._error
        if missing := [name for name in names if name not in self._topics]:
            raise topics_missing(missing, "")
        return {name: self._topics[name] for name in names}
