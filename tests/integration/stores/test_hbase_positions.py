"""Positions that are written to HBase from outside, and positions that HBase deletes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import PositionExpired, StateChanged, StoreDataError
from airflow_provider_offsets.stores.hbase import layout
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from airflow_provider_offsets.stores.protocols import ExpiringPositions
from tests.contract.position_contract import AtomicPositionContract, numbered
from tests.contract.store_contract import NOW_MS, batch, ids
from tests.integration.stores.conftest import Crash

DAY_S = 86_400
TTL_S = 30 * DAY_S
ONE, TWO, THREE = (numbered("t", n, n).updated(numbered("u", 10 * n)) for n in (1, 2, 3))


@pytest.fixture
def both() -> Stream:
    return Stream(f"g-{uuid.uuid4().hex[:8]}", ("t", "u"))


def rows(raw: Any, table: str, stream: Stream) -> dict[bytes, dict[bytes, bytes]]:
    """Return every row of the group, in the table as it is."""
    return {key: cells for key, cells in raw.table(table).scan() if f":{stream.group_id}".encode() in key}


class TestHBasePositions(AtomicPositionContract):
    pass


def test_a_write_is_a_row_in_the_cloudera_layout_and_a_receipt(
    store: HBaseStore, raw: Any, created: str, both: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now_ms", lambda: NOW_MS)
    store.write(both, ONE, expected=None)
    store.write(both, TWO, expected=ONE)
    assert rows(raw, created, both) == {
        f"t:{both.group_id}:{NOW_MS}".encode(): {b"offsets:0": b"1", b"offsets:1": b"1"},
        f"u:{both.group_id}:{NOW_MS}".encode(): {b"offsets:0": b"10"},
        f"t:{both.group_id}:{NOW_MS + 1}".encode(): {b"offsets:0": b"2", b"offsets:1": b"2"},
        f"u:{both.group_id}:{NOW_MS + 1}".encode(): {b"offsets:0": b"20"},
    }
    assert rows(raw, f"{created}_batches", both) == {}
    receipt = b"%d written" % (NOW_MS + 1)
    assert rows(raw, f"{created}_control", both) == {f":written:{both.group_id}".encode(): {b"control:value": receipt}}


def test_a_write_follows_a_row_that_a_faster_clock_wrote(store: HBaseStore, raw: Any, both: Stream) -> None:
    ahead_ms = time.time_ns() // 10**6 + 3_600_000
    store.append(both, Batch(ONE, ahead_ms, 1, "q", 1, Position()))
    store.write(both, TWO, expected=ONE)
    assert store.position(both) == TWO
    assert next(store.newest_first(both)).row_time_ms == ahead_ms + 1


@pytest.mark.parametrize("writes", range(4))
def test_a_write_that_was_cut_off_is_finished_by_repeating_it(
    store: HBaseStore,
    other: HBaseStore,
    crash_at: Callable[[HBaseStore, int], None],
    both: Stream,
    writes: int,
) -> None:
    other.write(both, ONE, expected=None)
    crash_at(store, writes)
    with pytest.raises(Crash):
        store.write(both, TWO, expected=ONE)
    stored = other.position(both)
    assert stored == {0: ONE, 1: ONE, 2: ONE.updated(numbered("t", 2, 2)), 3: TWO}[writes]
    other.write(both, TWO, expected=ONE)
    assert other.position(both) == TWO
    other.write(both, THREE, expected=TWO)
    assert other.position(both) == THREE


@pytest.mark.parametrize("writes", range(4))
def test_another_write_may_follow_one_that_was_cut_off(
    store: HBaseStore,
    other: HBaseStore,
    crash_at: Callable[[HBaseStore, int], None],
    both: Stream,
    writes: int,
) -> None:
    crash_at(store, writes)
    with pytest.raises(Crash):
        store.write(both, ONE, expected=None)
    stored = other.position(both)
    if writes == 2:
        with pytest.raises(StateChanged):
            other.write(both, TWO, expected=None)
    other.write(both, TWO, expected=stored)
    assert other.position(both) == TWO


def test_a_write_that_was_overtaken_says_so(
    store: HBaseStore, other: HBaseStore, both: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower writer has its claim and no row yet: its rows sort before those of the other."""
    store.write(both, ONE, expected=None)
    put = store._client.put_rows
    overtaken = iter([True])

    def slow(*args: Any) -> None:
        if next(overtaken, False):
            other.write(both, THREE, expected=ONE)
        put(*args)

    monkeypatch.setattr(store._client, "put_rows", slow)
    with pytest.raises(StateChanged, match="overtook"):
        store.write(both, TWO, expected=ONE)
    assert store.position(both) == THREE
    assert [each.end for each in store.newest_first(both)] == [THREE, TWO, ONE]


def test_a_write_does_not_take_the_place_of_a_batch_that_a_crash_left_half_written(
    store: HBaseStore, other: HBaseStore, crash_at: Callable[[HBaseStore, int], None], both: Stream
) -> None:
    """A row at the time of the batch's facts would be read as that batch's row, and differ from the facts."""
    ahead_ms = time.time_ns() // 10**6 + 3_600_000
    crash_at(store, 2)
    with pytest.raises(Crash):
        store.append(both, Batch(ONE, ahead_ms, 1, "q", 1, Position()))
    other.write(both, TWO, expected=None)
    assert other.position(both) == TWO
    assert next(other.newest_first(both)).row_time_ms == ahead_ms + 1


def test_a_receipt_that_cannot_be_read(store: HBaseStore, raw: Any, created: str, both: Stream) -> None:
    raw.table(f"{created}_control").put(f":written:{both.group_id}".encode(), {b"control:value": b"yesterday"})
    with pytest.raises(StoreDataError, match=rf"Table '{created}_control', row ':written:.*'yesterday'"):
        store.write(both, ONE, expected=None)
    assert store.position(both) is None


def test_no_pipeline_sees_the_receipts(store: HBaseStore, both: Stream) -> None:
    store.write(both, ONE, expected=None)
    for pipeline in ("written", "w", "0"):
        assert list(store.scan(pipeline, "")) == []


# A table whose rows expire


@pytest.fixture(scope="module")
def expiring(thrift: tuple[str, int], raw: Any, table: str) -> str:
    """Return the Cloudera table, whose rows expire after 30 days."""
    name = f"{table}_expiring"
    raw.create_table(name, {"offsets": {"time_to_live": TTL_S}})
    store = HBaseStore(*thrift, name)
    store.create()
    store.close()
    return name


@pytest.fixture
def mortal(thrift: tuple[str, int], expiring: str) -> Iterator[HBaseStore]:
    made = HBaseStore(*thrift, expiring)
    yield made
    made.close()


def record(raw: Any, table: str, stream: Stream, each: Batch, *, days_ago: float) -> None:
    """Record a batch as the store did this many days ago: HBase counts from the time stamp of the cell."""
    at_ms = time.time_ns() // 10**6 - int(days_ago * DAY_S * 1000)
    placed = each.at_row(at_ms)
    for topic in each.end.topics:
        key = f"{topic}:{stream.group_id}:{at_ms}".encode()
        raw.table(f"{table}_batches").put(key, {b"batch:json": codec.dumps(placed).encode()}, timestamp=at_ms)
        raw.table(table).put(key, layout.cells_of(each.end, topic), timestamp=at_ms)


def test_a_table_that_keeps_its_rows(store: HBaseStore, both: Stream) -> None:
    assert isinstance(store, ExpiringPositions)
    assert store.expires(both) == ""


def test_when_a_row_is_deleted(mortal: HBaseStore, raw: Any, expiring: str, both: Stream) -> None:
    rule = f"HBase deletes each row of '{expiring}' 2592000 s after it was written"
    assert mortal.expires(both) == rule
    raw.table(expiring).put(f"t:{both.group_id}:{NOW_MS}".encode(), {b"offsets:0": b"1"})
    [(_, (_, newer_ms))] = raw.table(expiring).row(f"t:{both.group_id}:{NOW_MS}", include_timestamp=True).items()
    raw.table(expiring).put(f"u:{both.group_id}:{NOW_MS}".encode(), {b"offsets:0": b"1"}, timestamp=newer_ms - 5000)
    at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(newer_ms // 1000 - 5 + TTL_S))
    assert mortal.expires(both) == f"{rule}, the newest of group '{both.group_id}' at {at}", "the first one to go"


def test_expired_rows_are_no_first_start(mortal: HBaseStore, raw: Any, expiring: str, both: Stream) -> None:
    record(raw, expiring, both, batch(1, topics="tu"), days_ago=32)
    record(raw, expiring, both, batch(2, topics="tu"), days_ago=31)
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 32 * DAY_S))
    for call in (lambda: mortal.position(both), lambda: next(mortal.newest_first(both), None)):
        with pytest.raises(
            PositionExpired, match=rf"'{expiring}' has .* '{both.group_id}'.*2592000 s.*_batches' .* {day}T"
        ):
            call()
    assert mortal.position(Stream(f"{both.group_id}:1", both.topics)) is None, "another group's facts say nothing"
    assert list(mortal.oldest_first(both)) == []


def test_the_position_of_a_snapshot_takes_the_place_of_expired_rows(
    mortal: HBaseStore, raw: Any, expiring: str, both: Stream
) -> None:
    record(raw, expiring, both, batch(1, topics="tu"), days_ago=31)
    mortal.write(both, ONE, expected=None)
    assert mortal.position(both) == ONE
    assert mortal.append(both, batch(2, topics="tu")).batch_id == 2


def test_deleting_what_else_is_known_makes_a_first_start(
    mortal: HBaseStore, raw: Any, expiring: str, both: Stream
) -> None:
    record(raw, expiring, both, batch(1, topics="t"), days_ago=31)
    for key in rows(raw, f"{expiring}_batches", both):
        raw.table(f"{expiring}_batches").delete(key)
    assert mortal.position(both) is None


def test_a_position_whose_older_rows_have_expired(mortal: HBaseStore, raw: Any, expiring: str, both: Stream) -> None:
    record(raw, expiring, both, batch(1, topics="tu"), days_ago=31)
    record(raw, expiring, both, batch(2, topics="tu"), days_ago=29)
    assert ids(mortal.newest_first(both)) == [2]
    assert mortal.position(both) == batch(2, topics="tu").end


def test_a_first_batch_that_was_half_written_is_a_first_start(
    mortal: HBaseStore,
    crash_at: Callable[[HBaseStore, int], None],
    thrift: tuple[str, int],
    expiring: str,
    both: Stream,
) -> None:
    crash_at(mortal, 2)
    with pytest.raises(Crash):
        mortal.append(both, batch(1, time_ms=time.time_ns() // 10**6, topics="tu"))
    other = HBaseStore(*thrift, expiring)
    assert other.position(both) is None
    other.close()


def test_a_batch_that_was_cut_off_hides_no_expired_rows(
    mortal: HBaseStore, raw: Any, expiring: str, both: Stream
) -> None:
    """A job that was idle for 31 days began a batch, and died in it.

    Its rows are expired, but this is no first start.
    """
    record(raw, expiring, both, batch(1, topics="tu"), days_ago=31)
    started = batch(2, topics="tu").at_row(time.time_ns() // 10**6)
    assert mortal.swap(both.group_id, "pipeline", None, "started", stream=both, prepare=started)
    with pytest.raises(PositionExpired):
        mortal.position(both)


def test_facts_alone_say_nothing_where_rows_are_kept(store: HBaseStore, raw: Any, created: str, both: Stream) -> None:
    raw.table(f"{created}_batches").put(
        f"t:{both.group_id}:{NOW_MS}".encode(), {b"batch:json": codec.dumps(batch(1)).encode()}
    )
    assert store.position(both) is None
    assert store.position(Stream(both.group_id, ("u",))) is None
    store.write(both, ONE, expected=None)
    assert store.position(both) == ONE
