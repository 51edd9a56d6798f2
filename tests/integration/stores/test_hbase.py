"""The contract over a real HBase, and the Cloudera row layout byte for byte."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from thriftpy2.thrift import TClient

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import ProcessIdentity, Recorded
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import ClaimLaunch, LaunchEpoch, RecordBatch, StartBatch, TakeLease
from airflow_provider_offsets.core.record.model import EpochLaunch, StartedBatch
from airflow_provider_offsets.errors import StoreDataError, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores.hbase import client as hbase_client
from airflow_provider_offsets.stores.hbase import layout
from airflow_provider_offsets.stores.hbase import store as module
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from tests.contract.store_contract import NOW_MS, StoreContract, batch, count_round_trips, ids, position
from tests.integration.stores.conftest import Crash, Proxy

DRIVER = ProcessIdentity("worker-1", "boot", 1, 7)


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def stream(group: str) -> Stream:
    return Stream(group, ("t",))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the Thrift calls that are made from now on, by name."""
    made: list[str] = []
    call = TClient._req

    def counted(client: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        made.append(name)
        return call(client, name, *args, **kwargs)

    monkeypatch.setattr(TClient, "_req", counted)
    return made


def put_many(raw: Any, table: str, stream: Stream, batches: list[Batch]) -> None:
    """Record batches as the store does, many in one call."""
    with (
        raw.table(table).batch(batch_size=2000) as offsets,
        raw.table(f"{table}_batches").batch(batch_size=500) as facts,
    ):
        for each in batches:
            key = f"t:{stream.group_id}:{each.batch_time_ms}".encode()
            offsets.put(key, layout.cells_of(each.end, "t"))
            facts.put(key, {b"batch:json": codec.dumps(each.at_row(each.batch_time_ms)).encode()})


class TestHBase(StoreContract):
    SWAPS_ARE_ATOMIC = False
    ROWS = 10_000

    @pytest.fixture
    def fill(self, raw: Any, created: str) -> Callable[[Stream, list[Batch]], None]:
        return lambda stream, batches: put_many(raw, created, stream, batches)


# The Cloudera row layout


def cells(raw: Any, table: str, group: str) -> dict[bytes, dict[bytes, bytes]]:
    return {key: row for key, row in raw.table(table).scan() if f":{group}:".encode() in key}


def test_the_tables_hold_these_bytes_and_no_others(store: HBaseStore, raw: Any, created: str, group: str) -> None:
    both = Stream(f"{group}:live", ("flights", "delays"))
    start = Position({TopicPartition("flights", 0): 0, TopicPartition("delays", 0): 5})
    end = Position(
        {TopicPartition("flights", 0): 123, TopicPartition("flights", 11): 7, TopicPartition("delays", 0): 5}
    )
    store.append(both, Batch(end, NOW_MS, 42, "q-1", 3, start))
    facts = (
        b'{"batch_id":42,"batch_time_ms":1760000000000,"end":{"delays":{"0":5},"flights":{"0":123,"11":7}},"epoch":3,'
        b'"query_id":"q-1","row_time_ms":1760000000000,"start":{"delays":{"0":5},"flights":{"0":0}}}'
    )
    flights, delays = (f"{topic}:{group}:live:1760000000000".encode() for topic in ("flights", "delays"))
    assert cells(raw, created, group) == {
        flights: {b"offsets:0": b"123", b"offsets:11": b"7"},
        delays: {b"offsets:0": b"5"},
    }
    assert cells(raw, f"{created}_batches", group) == {flights: {b"batch:json": facts}, delays: {b"batch:json": facts}}


def test_a_control_text_is_one_cell(store: HBaseStore, raw: Any, created: str, group: str) -> None:
    store.check_and_put(group, "epoch/00000004", None, '{"who":"é"}')
    row = raw.table(f"{created}_control").row(f"{group}:epoch/00000004".encode())
    assert row == {b"control:value": '{"who":"é"}'.encode()}


def test_the_empty_text_is_created_once_too(store: HBaseStore, group: str) -> None:
    """HBase treats an empty value as a missing cell: stored as is, two claims of the empty text would succeed."""
    empty = module._control_value("")
    key = f"{group}:note".encode()
    won = [store._client.check_and_put(store._control, key, b"control:value", None, empty) for _ in range(2)]
    assert won == [True, False]


def test_the_table_of_offsets_has_one_family_and_no_time_to_live(raw: Any, created: str) -> None:
    families = raw.table(created).families()
    assert list(families) == [b"offsets"]
    assert families[b"offsets"]["time_to_live"] == 2**31 - 1


def test_rows_in_the_cloudera_layout_of_another_job_are_read(
    store: HBaseStore, raw: Any, created: str, stream: Stream
) -> None:
    offsets = raw.table(created)
    for number in (1, 2):
        cell = {b"offsets:0": b"%d" % number, b"offsets:1": b"%d" % (number * 10)}
        offsets.put(f"t:{stream.group_id}:{NOW_MS + number}".encode(), cell)
    newest = Batch(position({0: 2, 1: 20}), NOW_MS + 2, row_time_ms=NOW_MS + 2)
    assert next(store.newest_first(stream)) == newest
    assert store.position(stream) == newest.end
    assert store.append(stream, batch(7, time_ms=NOW_MS)).row_time_ms == NOW_MS + 3
    assert ids(store.oldest_first(stream)) == [None, None, 7]


def test_a_job_with_the_cloudera_layout_counts_our_partitions(
    store: HBaseStore, raw: Any, created: str, stream: Stream
) -> None:
    """Its own code takes the newest row between 't:g:<now>' and 't:g:0', and counts that row's cells."""
    store.append(stream, Batch(position({0: 5, 1: 6, 2: 7}), NOW_MS, 1, "q", 1, position({0: 0, 1: 0, 2: 0})))
    start, stop = f"t:{stream.group_id}:{NOW_MS + 1}".encode(), f"t:{stream.group_id}:0".encode()
    [(_, row)] = raw.table(created).scan(start, stop, reverse=True, limit=1)
    assert [int(row[f"offsets:{number}".encode()]) for number in range(len(row))] == [5, 6, 7]


def test_topics_that_such_jobs_recorded_one_by_one(store: HBaseStore, raw: Any, created: str, group: str) -> None:
    raw.table(created).put(f"t:{group}:{NOW_MS}".encode(), {b"offsets:0": b"1"})
    raw.table(created).put(f"t:{group}:{NOW_MS + 5}".encode(), {b"offsets:0": b"2"})
    raw.table(created).put(f"u:{group}:{NOW_MS}".encode(), {b"offsets:0": b"3"})
    both = Stream(group, ("t", "u"))
    assert store.position(both) == Position({TopicPartition("t", 0): 2, TopicPartition("u", 0): 3})
    assert [each.end.topics for each in store.oldest_first(both)] == [("t", "u"), ("t",)]


# Costs


def test_the_newest_of_ten_thousand_rows_is_one_row(
    store: HBaseStore, raw: Any, created: str, stream: Stream, calls: list[str]
) -> None:
    put_many(raw, created, stream, [batch(number) for number in range(10_000)])
    store.position(stream)
    calls.clear()
    assert store.position(stream) == position({0: 100_000})
    assert calls == ["scannerOpenWithScan", "scannerGetList", "scannerClose", "getRowsWithColumns"]
    calls.clear()
    assert store.prepared(stream, NOW_MS + 9_990_000) == batch(9_990).at_row(NOW_MS + 9_990_000)
    assert calls == ["getRowsWithColumns"]
    calls.clear()
    assert store.append(stream, batch(10_000)).batch_id == 10_000
    assert len(calls) == 5, calls
    calls.clear()
    assert len(list(store.newest_first(stream))) == 10_001
    assert len(calls) < 120, "pages grow"


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("process", ["checkAndPut facts", "checkAndPut text", "checkAndPut text", "mutateRows"]),
        ("sink", ["checkAndPut text", "checkAndPut facts", "checkAndPut text", "mutateRows"]),
    ],
)
def test_a_batch_costs_four_round_trips(store: HBaseStore, calls: list[str], way: str, expected: list[str]) -> None:
    count_round_trips(store, way, calls)
    assert calls == [each.split()[0] for each in expected]


def test_a_control_text_costs_one_round_trip(store: HBaseStore, group: str, calls: list[str]) -> None:
    store.get(group, "heartbeat")
    calls.clear()
    store.check_and_put(group, "heartbeat", None, "1")
    assert calls == ["checkAndPut"]


def test_a_neighbour_of_a_thousand_rows_is_jumped_over(
    store: HBaseStore, raw: Any, created: str, calls: list[str]
) -> None:
    group = f"g-{uuid.uuid4().hex[:8]}"
    mine = Stream(group, ("t",))
    for tail in ("17", "176", "1760000000"):
        put_many(raw, created, Stream(f"{group}:{tail}", ("t",)), [batch(number) for number in range(1000)])
    store.append(mine, batch(1))
    calls.clear()
    assert ids(store.newest_first(mine)) == [1]
    assert len(calls) < 30, calls
    calls.clear()
    assert ids(store.oldest_first(mine)) == [1]
    assert len(calls) < 30, calls


# Batches that a crash left partly written


@pytest.mark.parametrize("writes", range(7))
def test_a_batch_whose_driver_died_in_any_place(
    store: HBaseStore,
    other: HBaseStore,
    crash_at: Callable[[HBaseStore, int], None],
    raw: Any,
    created: str,
    group: str,
    writes: int,
) -> None:
    """The writes are facts of two topics, begin, record and two rows. The next driver relies on the text alone."""
    both = Stream(group, ("t", "u"))
    first = other.append(both, batch(1, topics="tu"))
    other.check_and_put(group, "pipeline", None, "1")
    died = batch(2, topics="tu", epoch=1).at_row(NOW_MS + 2000)
    crash_at(store, writes)
    with contextlib.suppress(Crash):
        store.swap(group, "pipeline", "1", "started", stream=both, prepare=died)
        store.swap(group, "pipeline", "started", "recorded", stream=both, append=died)
    text = other.get(group, "pipeline")
    assert text == {0: "1", 1: "1", 2: "1", 3: "started", 4: "recorded", 5: "recorded", 6: "recorded"}[writes]
    is_whole = writes == 6
    assert list(other.oldest_first(both)) == [first, *([died] if is_whole else [])]
    assert list(other.newest_first(Stream(group, ("t",)), until_ms=NOW_MS + 1999)) == [first]
    assert other.position(both) == (died if is_whole else first).end
    if text != "1":
        assert other.prepared(both, NOW_MS + 2000) == died
    if text == "recorded":
        assert other.append(both, died) == died
        assert list(other.oldest_first(both)) == [first, died]
        return
    # The next epoch runs the batch again, at a time of its own. The dead epoch's row is never written.
    again = batch(2, topics="tu", epoch=2).at_row(NOW_MS + 2001)
    assert other.swap(group, "pipeline", text, "2", stream=both, prepare=again)
    assert other.swap(group, "pipeline", "2", "3", stream=both, append=again)
    assert list(other.oldest_first(both)) == [first, again]
    assert len(cells(raw, created, group)) == 4


def test_rows_that_only_one_topic_has_are_completed_by_whoever_reads_the_record(
    store: HBaseStore, raw: Any, created: str, group: str
) -> None:
    """HBase may execute half of one call that writes two rows."""
    both, done = Stream(group, ("t", "u")), batch(1, topics="tu").at_row(NOW_MS)
    store.swap(group, "pipeline", None, "1", stream=both, prepare=done)
    raw.table(created).put(f"t:{group}:{NOW_MS}".encode(), {b"offsets:0": b"20"})
    assert store.position(both) is None
    assert list(store.newest_first(Stream(group, ("t",)))) == []
    store.append(both, done)
    assert list(store.newest_first(both)) == [done]


def test_facts_of_a_fenced_driver_that_come_late(store: HBaseStore, other: HBaseStore, stream: Stream) -> None:
    """The fenced driver relies on the text that it read last.

    Its late facts do not replace facts of the next epoch. Where there are none, its own facts harm nobody.
    """
    pipeline = stream.group_id
    store.check_and_put(pipeline, "pipeline", None, "1")
    other.check_and_put(pipeline, "pipeline", "1", "2")
    new = batch(1, epoch=2).at_row(NOW_MS + 1)
    other.swap(pipeline, "pipeline", "2", "3", stream=stream, prepare=new)
    for at_ms in (NOW_MS, NOW_MS + 1):
        late = batch(1, epoch=1).at_row(at_ms)
        assert not store.swap(pipeline, "pipeline", "1", "4", stream=stream, prepare=late, append=late)
    assert store.prepared(stream, NOW_MS + 1) == new
    assert list(store.newest_first(stream)) == []
    in_its_place = batch(2, epoch=2).at_row(NOW_MS)
    assert other.swap(pipeline, "pipeline", "3", "5", stream=stream, prepare=in_its_place)
    assert store.prepared(stream, NOW_MS) == in_its_place


def test_facts_are_not_replaced_by_a_swap_that_has_lost(store: HBaseStore, other: HBaseStore, stream: Stream) -> None:
    """Two actors read the batch that Spark committed, one after the other; the first one's request arrives late."""
    pipeline = stream.group_id
    recorded = batch(1).at_row(NOW_MS)
    assert other.swap(pipeline, "pipeline", None, "2", stream=stream, prepare=recorded)
    early = Batch(position({0: 11}), NOW_MS + 1000, 1, "q", 1, position({0: 10}), NOW_MS)
    assert not store.swap(pipeline, "pipeline", None, "1", stream=stream, prepare=early)
    assert store.prepared(stream, NOW_MS) == recorded


def test_a_row_time_whose_facts_are_taken_is_not_used_again(
    store: HBaseStore, other: HBaseStore, crash_at: Callable[[HBaseStore, int], None], stream: Stream
) -> None:
    crash_at(store, 1)
    with pytest.raises(Crash):
        store.append(stream, batch(1, time_ms=NOW_MS))
    assert other.append(stream, batch(2, time_ms=NOW_MS)).row_time_ms == NOW_MS + 1


# Rows of others


@pytest.mark.parametrize(
    ("column", "value"),
    [(b"offsets:0", b"12a"), (b"offsets:0", b"-2"), (b"offsets:count", b"3")],
    ids=["not a number", "negative", "not a partition"],
)
def test_a_cloudera_row_that_cannot_be_read(
    store: HBaseStore, raw: Any, created: str, stream: Stream, column: bytes, value: bytes
) -> None:
    key = f"t:{stream.group_id}:{NOW_MS}"
    raw.table(created).put(key.encode(), {column: value})
    with pytest.raises(StoreDataError) as bad:
        store.position(stream)
    assert created in bad.value.seen
    assert key in bad.value.seen
    assert column.decode() in bad.value.seen


def test_a_cloudera_row_that_differs_from_its_facts(store: HBaseStore, raw: Any, created: str, stream: Stream) -> None:
    store.append(stream, batch(1))
    raw.table(created).put(f"t:{stream.group_id}:{NOW_MS + 1000}".encode(), {b"offsets:0": b"21"})
    with pytest.raises(StoreDataError, match=r'"0":21.*"0":20'):
        store.position(stream)


@pytest.mark.parametrize("cell", [b"{", b"[]", json.dumps({"end": {"t": {"0": -2}}}).encode(), b"\xff"])
def test_facts_that_cannot_be_read(store: HBaseStore, raw: Any, created: str, stream: Stream, cell: bytes) -> None:
    store.append(stream, batch(1))
    raw.table(f"{created}_batches").put(f"t:{stream.group_id}:{NOW_MS + 1000}".encode(), {b"batch:json": cell})
    with pytest.raises(StoreDataError, match=f"Table '{created}_batches', row .*column 'batch:json'"):
        store.position(stream)


def test_a_table_that_is_not_there(thrift: tuple[str, int], table: str, raw: Any) -> None:
    store = HBaseStore(*thrift, f"{table}_mistyped")
    calls: list[Callable[[], object]] = [
        lambda: store.get("p", "n"),
        lambda: store.append(Stream("g", ("t",)), batch(1)),
    ]
    for call in calls:
        with pytest.raises(
            StoreLayoutError, match=rf"has no table '{table}_mistyped'.*\.stores create hbase://.*_mistyped"
        ):
            call()
    assert f"{table}_mistyped".encode() not in raw.tables()
    store.close()


def test_a_table_that_went_away(thrift: tuple[str, int], table: str, raw: Any) -> None:
    store = HBaseStore(*thrift, f"{table}_gone")
    store.create()
    raw.delete_table(f"{table}_gone_batches", disable=True)
    with pytest.raises(StoreLayoutError, match=f"has no table '{table}_gone_batches'"):
        store.append(Stream("g", ("t",)), batch(1))
    store.create()
    store.append(Stream("g", ("t",)), batch(1))
    raw.disable_table(f"{table}_gone")
    with pytest.raises(StoreLayoutError, match="TableNotEnabled"):
        store.position(Stream("g", ("t",)))
    store.close()


def test_a_table_of_another_program(thrift: tuple[str, int], table: str, raw: Any) -> None:
    raw.create_table(f"{table}_foreign", {"cf": {}})
    store = HBaseStore(*thrift, f"{table}_foreign")
    calls: list[Callable[[], object]] = [store.create, lambda: store.get("p", "n")]
    for call in calls:
        with pytest.raises(StoreLayoutError, match=r"_foreign' in HBase .* families \['cf'\].*family 'offsets'"):
            call()
    store.close()


def test_create_adds_to_an_existing_cloudera_table(thrift: tuple[str, int], table: str, raw: Any) -> None:
    raw.create_table(f"{table}_cloudera", {"offsets": {"time_to_live": 2_592_000}})
    raw.table(f"{table}_cloudera").put(f"t:g:{NOW_MS}".encode(), {b"offsets:0": b"5"})
    store = HBaseStore(*thrift, f"{table}_cloudera")
    store.create()
    assert store.position(Stream("g", ("t",))) == position({0: 5})
    store.close()


# Connections


def test_a_broken_connection_is_opened_again_once(proxy: Proxy, created: str, stream: Stream) -> None:
    store = HBaseStore(*proxy.address, created)
    store.append(stream, batch(1))
    proxy.cut()
    assert ids(store.newest_first(stream)) == [1]
    proxy.cut()
    assert store.prepared(stream, NOW_MS + 1000) is not None
    assert proxy.connections == 3
    proxy.stop()
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:.* does not answer"):
        store.position(stream)
    store.close()


def test_a_compare_and_set_goes_over_no_connection_that_was_idle(
    proxy: Proxy, created: str, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server closes the connection after a minute, and nobody would know whether the compare-and-set was done."""
    store = HBaseStore(*proxy.address, created)
    store.append(stream, batch(1))
    now_s = clock.monotonic_s()
    proxy.cut()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s + hbase_client.IDLE_S + 1)
    assert store.check_and_put("p", stream.group_id, None, "x")
    assert store.check_and_put("p", stream.group_id, "x", "y")
    assert proxy.connections == 2
    store.close()


@pytest.mark.parametrize("lost", ["the request", "the answer"])
def test_a_compare_and_set_without_an_answer_is_not_sent_twice(
    proxy: Proxy, store: HBaseStore, created: str, stream: Stream, lost: str, calls: list[str]
) -> None:
    """A second request would find its own text, and report that it did not write it."""
    losing = HBaseStore(*proxy.address, created)
    assert losing.get("p", stream.group_id) is None
    if lost == "the request":
        proxy.cut()
    else:
        proxy.swallow_after = b"checkAndPut"
    calls.clear()
    with pytest.raises(StoreUnreachable):
        losing.check_and_put("p", stream.group_id, None, "mine")
    assert calls == ["checkAndPut"]
    assert store.get("p", stream.group_id) == (None if lost == "the request" else "mine")
    losing.close()


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("lost", ["the request", "the answer"])
def test_a_driver_whose_connection_breaks_in_any_call_of_a_batch(
    proxy: Proxy, store: HBaseStore, created: str, stream: Stream, number: int, lost: str
) -> None:
    """The driver reads its record again and continues, and the batch is stored once; the user notices nothing."""
    losing = HBaseStore(*proxy.address, created)
    write, left = losing._client._on_table, iter([False] * number + [True])
    row = batch(1).at_row(NOW_MS)
    cell = claimed(losing, stream.group_id)

    def break_at(*args: Any, **options: Any) -> Any:
        if next(left, False):
            if lost == "the request":
                proxy.cut()
            else:
                proxy.swallow_after = b"checkAndPut" if number < 3 else b"mutateRows"
        return write(*args, **options)

    losing._client._on_table = break_at  # type: ignore[method-assign]
    cell.change(StartBatch("tag", DRIVER, StartedBatch(1, "q", NOW_MS, "run", NOW_MS)), stream=stream, prepare=row)
    recorded = cell.change(
        RecordBatch("tag", DRIVER, "run", Recorded(1, "tag", 1, "q", NOW_MS)), stream=stream, append=row
    )
    assert next(left, None) is None, "it broke"
    assert RecordCell(store, stream.group_id).read() == recorded
    assert recorded.version == 5, "each event is one swap"
    assert list(store.newest_first(stream)) == [row]
    losing.close()


def claimed(store: HBaseStore, pipeline: str) -> RecordCell:
    """Return the record of a pipeline whose first launch was claimed."""
    cell = RecordCell(store, pipeline)
    cell.create()
    cell.change(TakeLease("op", 0, 0))
    cell.change(LaunchEpoch("op", 1, EpochLaunch(1, "tag", "op", "plan", "/checkpoint"), 0))
    cell.change(ClaimLaunch("tag", DRIVER, 0))
    return cell
