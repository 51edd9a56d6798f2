"""The key of an output, and the writer options that carry it into a table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.core.sink.key import parse_key
from airflow_provider_offsets.core.sink.output import Output, output_of_batch, output_of_shard
from airflow_provider_offsets.errors import InputRefused
from tests.unit.core.observations import at

BATCH = Batch(at(20, 20), 1_000, batch_id=7, query_id="query-1", epoch=2, start=at(10, 10))
RUN = "backfill__orders/scheduled__2026-11-01T00:00:00+00:00#ab12#1"
SHARD = Shard(3, (OffsetRange("flights", 0, 5, 25), OffsetRange("flights", 1, 0, 10)))
LIVE, REPLAY = output_of_batch("orders", BATCH), output_of_shard("orders", RUN, SHARD)


@pytest.mark.parametrize(
    ("why", "output", "format_name", "options"),
    [
        (
            "Delta absorbs a batch that is tried again, by query and batch id",
            LIVE,
            "delta",
            {"txnAppId": "query-1", "txnVersion": "7", "userMetadata": {"offsets.batch": str(LIVE.key)}},
        ),
        (
            "each shard is an application of its own, because shards run in any order",
            REPLAY,
            "delta",
            {"txnAppId": f"{RUN}/3", "txnVersion": "0", "userMetadata": {"offsets.batch": str(REPLAY.key)}},
        ),
        ("Iceberg has the key in the snapshot", LIVE, "iceberg", {"snapshot-property.offsets.batch": str(LIVE.key)}),
        ("also in a replay", REPLAY, "iceberg", {"snapshot-property.offsets.batch": str(REPLAY.key)}),
        ("Spark ignores the case", LIVE, "Iceberg", {"snapshot-property.offsets.batch": str(LIVE.key)}),
    ],
)
def test_the_options_of_a_format(why: str, output: Output, format_name: str, options: dict[str, object]) -> None:
    found: dict[str, object] = dict(output.write_options(format_name))
    if isinstance(text := found.get("userMetadata"), str):
        found["userMetadata"] = json.loads(text)

    assert found == options


@pytest.mark.parametrize("format_name", ["parquet", "jdbc", "hudi", ""])
def test_a_format_without_such_options_is_refused_with_the_way_out(format_name: str) -> None:
    with pytest.raises(InputRefused, match="'delta' or 'iceberg'") as refused:
        LIVE.write_options(format_name)

    assert repr(format_name) in str(refused.value)
    assert "stream.batch_key" in str(refused.value)


@pytest.mark.parametrize("output", [LIVE, REPLAY])
def test_a_key_is_read_back_from_its_text(output: Output) -> None:
    assert parse_key(str(output.key)) == output.key


offsets = st.tuples(st.integers(0, 3), st.integers(0, 3))
batches = st.builds(
    lambda batch_id, query, start, read, epoch, time_ms: Batch(
        end=at(*(low + more for low, more in zip(start, read, strict=True))),
        batch_time_ms=time_ms,
        batch_id=batch_id,
        query_id=query,
        epoch=epoch,
        start=at(*start),
    ),
    st.integers(0, 2),
    st.sampled_from(["query-1", "query-2"]),
    offsets,
    offsets,
    st.integers(1, 2),
    st.integers(0, 1),
)
ranges = st.builds(lambda start, count: OffsetRange("flights", 0, start, start + count), *[st.integers(0, 3)] * 2)
shards = st.builds(lambda number, found: Shard(number, tuple(found)), st.integers(0, 2), st.lists(ranges, max_size=2))
outputs = st.builds(output_of_batch, st.sampled_from(["a", "b"]), batches) | st.builds(
    output_of_shard, st.sampled_from(["a", "b"]), st.sampled_from(["dag/1#v#1", "dag/1#v#2"]), shards
)


@given(batches, batches)
def test_only_the_same_batch_with_the_same_offsets_has_the_same_key(one: Batch, other: Batch) -> None:
    """Whatever the epoch that runs it, and the time at which it runs."""
    is_same = one.is_same_batch(other) and one.has_same_offsets(other)

    assert (output_of_batch("a", one) == output_of_batch("a", other)) == is_same


@given(batches, st.integers(1, 9), st.integers(0, 9))
def test_a_batch_that_is_tried_again_keeps_its_key(batch: Batch, epoch: int, time_ms: int) -> None:
    again = replace(batch, epoch=epoch, batch_time_ms=time_ms, row_time_ms=time_ms)

    assert output_of_batch("a", again) == output_of_batch("a", batch)


@given(shards, shards)
def test_shards_with_other_ranges_have_other_keys(one: Shard, other: Shard) -> None:
    assert (output_of_shard("a", RUN, one) == output_of_shard("a", RUN, other)) == (one == other)


@given(outputs, outputs)
def test_delta_never_takes_one_output_for_another(one: Output, other: Output) -> None:
    """A pair of application and version stands for one output of one query, and a version is never below 0.

    A pipeline keeps its queries when it is renamed.
    """
    first, second = (
        (options["txnAppId"], int(options["txnVersion"]))
        for options in (one.write_options("delta"), other.write_options("delta"))
    )

    assert first[1] >= 0 <= second[1]
    if first == second:
        assert replace(one.key, digest="", pipeline="") == replace(other.key, digest="", pipeline="")
        assert one.is_replay == other.is_replay
