"""The contract over HBase's calls in memory: their number, and what a failure in any of them leaves."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import ProcessIdentity, Recorded
from airflow_provider_offsets.core.record.events import ClaimLaunch, LaunchEpoch, RecordBatch, StartBatch, TakeLease
from airflow_provider_offsets.core.record.model import EpochLaunch, StartedBatch
from airflow_provider_offsets.errors import StoreUnreachable
from airflow_provider_offsets.stores.hbase import client as hbase_client
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from tests.contract.fake_hbase import FakeHBase
from tests.contract.position_contract import AtomicPositionContract
from tests.contract.store_contract import NOW_MS, StoreContract, batch, count_round_trips

STREAM = Stream("g", ("t",))
DRIVER = ProcessIdentity("worker-1", "boot", 1, 7)
ROW = batch(1).at_row(NOW_MS)


@pytest.fixture
def server() -> FakeHBase:
    return FakeHBase()


@pytest.fixture
def store(server: FakeHBase) -> HBaseStore:
    return server.store()


class TestHBase(StoreContract):
    SWAPS_ARE_ATOMIC = False


class TestHBasePositions(AtomicPositionContract):
    pass


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("process", ["checkAndPut facts", "checkAndPut text", "checkAndPut text", "mutateRows"]),
        ("sink", ["checkAndPut text", "checkAndPut facts", "checkAndPut text", "mutateRows"]),
    ],
)
def test_a_batch_costs_four_round_trips(server: FakeHBase, store: HBaseStore, way: str, expected: list[str]) -> None:
    count_round_trips(store, way, server.calls)
    assert server.calls == [each.split()[0] for each in expected]


def test_a_control_text_costs_one_round_trip(server: FakeHBase, store: HBaseStore) -> None:
    server.calls.clear()
    assert store.check_and_put("p", "heartbeat", None, "1")
    assert server.calls == ["checkAndPut"]


def test_a_table_with_a_time_to_live_says_when_the_newest_row_is_deleted(server: FakeHBase, store: HBaseStore) -> None:
    assert store.expires(STREAM) == ""
    server.time_to_live_s["stream_offsets"] = 2_592_000
    rule = "HBase deletes each row of 'stream_offsets' 2592000 s after it was written"
    assert store.expires(STREAM) == rule

    store.append(STREAM, ROW)

    assert store.expires(STREAM) == f"{rule}, the newest of group 'g' at 2025-11-08T08:53:20+00:00"


def claimed(store: HBaseStore) -> RecordCell:
    """Return the record of a pipeline whose first launch was claimed."""
    cell = RecordCell(store, f"p-{uuid.uuid4().hex[:8]}")
    cell.create()
    cell.change(TakeLease("op", 0, 0))
    cell.change(LaunchEpoch("op", 1, EpochLaunch(1, "tag", "op", "plan", "/checkpoint"), 0))
    cell.change(ClaimLaunch("tag", DRIVER, 0))
    return cell


def run_batch(cell: RecordCell) -> None:
    """Begin and record one batch."""
    cell.change(StartBatch("tag", DRIVER, StartedBatch(1, "q", NOW_MS, "run", NOW_MS)), stream=STREAM, prepare=ROW)
    cell.change(RecordBatch("tag", DRIVER, "run", Recorded(1, "tag", 1, "q", NOW_MS)), stream=STREAM, append=ROW)


@pytest.mark.parametrize("is_done", [False, True], ids=["the request", "the answer"])
@pytest.mark.parametrize("number", range(4))
def test_a_connection_that_breaks_in_any_call_of_a_batch(
    server: FakeHBase, store: HBaseStore, number: int, is_done: bool
) -> None:
    cell = claimed(store)
    break_at(server, number, is_done)

    run_batch(cell)

    assert list(store.newest_first(STREAM)) == [ROW]
    there = cell.read()
    assert there is not None
    assert there.version == 5, "each event is one swap"


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(4))
def test_a_driver_that_dies_in_any_call_of_a_batch(
    server: FakeHBase, store: HBaseStore, number: int, is_done: bool
) -> None:
    """The history holds the batch once its rows are there. If the record names it before, anybody can write them."""
    cell = claimed(store)

    class Death(BaseException):
        """SIGKILL, as an exception."""

    break_at(server, number, is_done, Death)
    with pytest.raises(Death):
        run_batch(cell)

    other = server.store()
    there = RecordCell(other, cell._pipeline).read()
    assert there is not None
    is_recorded = there.recorded is not None and there.recorded.batch_id == 1
    assert is_recorded == (number == 3 or (number == 2 and is_done))
    assert list(other.newest_first(STREAM)) == ([ROW] if (number, is_done) == (3, True) else [])
    if there.started is not None or is_recorded:
        assert other.prepared(STREAM, NOW_MS) == ROW
    if is_recorded:
        other.append(STREAM, ROW)
        assert list(other.newest_first(STREAM)) == [ROW]


def break_at(server: FakeHBase, number: int, is_done: bool, error: type[BaseException] = ConnectionError) -> None:
    """Make the call of that number fail once: before it is done, or after."""
    left = iter([False] * number + [True])

    def around(name: str, call: Callable[[], Any]) -> Any:
        if not next(left, False):
            return call()
        if is_done:
            call()
        raise error

    server.around = around


def test_a_compare_and_set_is_not_sent_twice(server: FakeHBase, store: HBaseStore) -> None:
    break_at(server, 0, True)
    server.calls.clear()
    with pytest.raises(StoreUnreachable):
        store.check_and_put("p", "n", None, "mine")
    assert server.calls == ["checkAndPut"]
    assert store.get("p", "n") == "mine"


def test_a_connection_that_was_idle_is_not_used_for_one(
    server: FakeHBase, store: HBaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = clock.monotonic_s()
    for later_s, connections in ((hbase_client.IDLE_S - 1, 1), (2 * hbase_client.IDLE_S, 2)):
        monkeypatch.setattr(clock, "monotonic_s", lambda later_s=later_s: now_s + later_s)
        assert store.check_and_put("p", str(later_s), None, "x")
        assert server.connections == connections


def test_facts_are_replaced_by_no_swap_that_has_lost(server: FakeHBase, store: HBaseStore) -> None:
    """Two actors read the batch that Spark committed, one after the other; the first one's request arrives late."""
    store.swap("p", "pipeline", None, "2", stream=STREAM, prepare=ROW)
    early = Batch(ROW.end, ROW.batch_time_ms, 1, "q", 1, None, NOW_MS)
    assert not store.swap("p", "pipeline", None, "1", stream=STREAM, prepare=early)
    assert store.prepared(STREAM, NOW_MS) == ROW
