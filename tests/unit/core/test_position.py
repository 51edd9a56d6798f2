"""Positions, ranges and batches."""

from __future__ import annotations

import json

import pytest

from airflow_provider_offsets.core.batch import Batch, next_row_time_ms
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition, ranges_between
from tests.unit.core.observations import QUERY, TOPIC, at


def test_json_is_what_spark_writes_with_partitions_in_the_order_of_their_numbers() -> None:
    position = Position({TopicPartition("b", number): number for number in (10, 9, 2)}).updated(at(7, topic="a"))

    assert position.to_json() == '{"a":{"0":7},"b":{"2":2,"9":9,"10":10}}'
    assert Position.from_json(position.to_json()) == position
    assert list(json.loads(position.to_json())["b"]) == ["2", "9", "10"]


def test_equal_positions_are_one_key_however_they_were_made() -> None:
    forth = Position([(TopicPartition("a", 0), 1), (TopicPartition("a", 1), 2)])
    back = Position([(TopicPartition("a", 1), 2), (TopicPartition("a", 0), 1)])

    assert {forth, back} == {forth}
    assert forth != dict(forth)


@pytest.mark.parametrize("sentinel", [-1, -2])
def test_sentinels_of_spark_are_not_offsets(sentinel: int) -> None:
    with pytest.raises(ValueError, match="offsets begin at 0"):
        at(sentinel)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":{"0":100,"0":900}}',
        '{"a":{"0":1},"a":{"0":2}}',
        '{"a":{"0":1,"00":2}}',
        '{"a":{"\u0660":1}}',
        "[" * 99_999,
    ],
    ids=["a partition", "a topic", "another spelling", "other digits", "too deep"],
)
def test_json_names_each_partition_once_and_in_one_way(text: str) -> None:
    with pytest.raises(ValueError, match=r"appears twice|expected a whole number|too deeply"):
        Position.from_json(text)


def test_updated_leaves_the_old_one_alone() -> None:
    old = at(1, 2)

    assert old.updated(at(None, 5, 6)) == at(1, 5, 6)
    assert old == at(1, 2)


def test_topics_and_their_partitions() -> None:
    position = at(3, None, 5, topic="b").updated(at(1, topic="a"))

    assert position.topics == ("a", "b")
    assert position.of_topic("b") == {0: 3, 2: 5}
    assert position.of_topic("c") == {}


def test_a_partition_without_start_begins_at_0() -> None:
    assert ranges_between(at(5), at(9, 4)) == (OffsetRange(TOPIC, 0, 5, 9), OffsetRange(TOPIC, 1, 0, 4))


@pytest.mark.parametrize(("start", "end"), [(5, 4), (-1, 4)])
def test_a_range_goes_forward_from_0(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="0 <= start <= end"):
        OffsetRange(TOPIC, 0, start, end)


def test_a_batch_counts_what_it_read() -> None:
    assert Batch(at(9, 4), 1, 0, QUERY, 1, at(5, 4)).record_count == 4
    assert Batch(at(9, 4), 1).ranges == ()


def test_a_batch_is_the_same_by_query_and_id() -> None:
    one = Batch(at(9), 1, 3, QUERY, 1)

    assert one.is_same_batch(Batch(at(8), 2, 3, QUERY, 2))
    assert not one.is_same_batch(Batch(at(9), 1, 3, "query-2", 1))
    assert not one.is_same_batch(Batch(at(9), 1, 4, QUERY, 1))
    assert not Batch(at(9), 1).is_same_batch(Batch(at(9), 1)), "rows in the Cloudera layout have no identity"


@pytest.mark.parametrize(
    ("why", "batch_time", "newest", "expected"),
    [
        ("the first row", 100, None, 100),
        ("time went on", 100, 90, 100),
        ("two batches of one millisecond", 100, 100, 101),
        ("a clock that went back 50 s", 100, 50_100, 50_101),
    ],
)
def test_a_row_comes_after_the_newest(why: str, batch_time: int, newest: int | None, expected: int) -> None:
    assert next_row_time_ms(batch_time, newest) == expected, why


def test_live_topics_are_seen_by_partition() -> None:
    topics = LiveTopics(
        "cluster-1",
        (LiveTopic("b", "id-b", (LivePartition(1, 2),)), LiveTopic("a", "id-a", (LivePartition(3, 4),) * 2)),
    )

    assert [str(key) for key in topics.partitions] == ["a[0]", "a[1]", "b[0]"]
    assert topics.begin == at(3, 3, topic="a").updated(at(1, topic="b"))
    assert topics.end == at(4, 4, topic="a").updated(at(2, topic="b"))
    assert topics.identity.topic_ids == {"a": "id-a", "b": "id-b"}
