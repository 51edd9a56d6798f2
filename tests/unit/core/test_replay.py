"""Shards of a replay: they tile the interval, and have about the same size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition, ranges_between
from airflow_provider_offsets.core.replay.model import Shard, cut_shards


def position(**topics: list[int]) -> Position:
    return Position(
        {
            TopicPartition(topic, number): offset
            for topic, offsets in topics.items()
            for number, offset in enumerate(offsets)
        }
    )


@pytest.mark.parametrize(
    ("begin", "end", "per_shard", "max_shards", "counts"),
    [
        pytest.param([0], [10], 10, 9, [10], id="one that is just full"),
        pytest.param([0], [11], 10, 9, [6, 5], id="equal ones, rather than a full one and a crumb"),
        pytest.param([0], [100], 10, 4, [25, 25, 25, 25], id="greater ones, rather than too many"),
        pytest.param([5, 0], [5, 3], 10, 9, [3], id="nothing of a partition without records"),
        pytest.param([5], [5], 10, 9, [], id="none at all"),
        pytest.param([0, 0, 0], [4, 4, 4], 6, 9, [6, 6], id="a partition in two shards"),
    ],
)
def test_shards_are_about_equal(
    begin: list[int], end: list[int], per_shard: int, max_shards: int, counts: list[int]
) -> None:
    shards = cut_shards(position(t=begin), position(t=end), records_per_shard=per_shard, max_shards=max_shards)

    assert [shard.record_count for shard in shards] == counts
    assert [shard.number for shard in shards] == list(range(len(counts)))


def test_a_partition_that_is_new_at_the_end_begins_at_0() -> None:
    [shard] = cut_shards(position(t=[4]), position(t=[5, 2]), records_per_shard=10, max_shards=10)

    assert shard == Shard(0, (OffsetRange("t", 0, 4, 5), OffsetRange("t", 1, 0, 2)))


spans = st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10_000)), min_size=1, max_size=30)


@given(spans=spans, per_shard=st.integers(1, 5_000), max_shards=st.integers(1, 50))
def test_shards_tile_the_interval(spans: list[tuple[int, int]], per_shard: int, max_shards: int) -> None:
    begin, end = position(t=[at for at, _ in spans]), position(t=[at + count for at, count in spans])

    shards = cut_shards(begin, end, records_per_shard=per_shard, max_shards=max_shards)

    reached = dict(begin)
    for shard in shards:
        assert len({(each.topic, each.partition) for each in shard.ranges}) == len(shard.ranges)
        for each in shard.ranges:
            assert each.start == reached[TopicPartition(each.topic, each.partition)] < each.end
            reached[TopicPartition(each.topic, each.partition)] = each.end
    assert reached == dict(end)
    counts = [shard.record_count for shard in shards]
    assert len(counts) <= max_shards
    assert max(counts, default=0) - min(counts, default=0) <= 1
    assert len(counts) == 1 or all(count <= max(per_shard, -(-sum(counts) // max_shards)) for count in counts)
    assert sum(len(shard.ranges) for shard in shards) <= len(ranges_between(begin, end)) + len(shards)
