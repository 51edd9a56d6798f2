"""The record in its cell: one swap for each event, whatever happens to its answer, and whoever else acts."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import Ended, EndedHow, ProcessIdentity, Recorded, StopStage
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import (
    AskToStop,
    CancelLaunch,
    ClaimLaunch,
    CloseDead,
    EndEpoch,
    EndWrite,
    Event,
    GoIdle,
    LaunchEpoch,
    MarkGood,
    NoteMove,
    NoteStopStage,
    Reconcile,
    RecordBatch,
    ReleaseLease,
    Rename,
    RenewLease,
    StartBatch,
    TakeLease,
    TakeToRecover,
)
from airflow_provider_offsets.core.record.model import RECORD, EpochLaunch, Phase, PipelineRecord, StartedBatch
from airflow_provider_offsets.errors import (
    Fenced,
    LeaseHeld,
    RecordRestored,
    StateChanged,
    StopRequested,
    StoreDataError,
    StoreUnreachable,
    TakenOver,
)
from airflow_provider_offsets.stores.memory import MemoryStore

NAME, OP, OTHER = "orders", "maintenance/1", "maintenance/2"
DRIVER = ProcessIdentity("worker-1", "boot", 1, 7)
STREAM = Stream("g", ("t",))
ROW_TIME_MS = 1_760_000_000_000
BATCH = Batch(
    end=Position({TopicPartition("t", 0): 10}),
    batch_time_ms=ROW_TIME_MS,
    batch_id=0,
    query_id="q",
    epoch=1,
    start=Position({TopicPartition("t", 0): 0}),
    row_time_ms=ROW_TIME_MS,
)
AWAY = StoreUnreachable(seen="no answer", expected="an answer", do="start the server")

TAKE = TakeLease(OP, 0, 60_000)
LAUNCH = LaunchEpoch(OP, 1, EpochLaunch(1, "tag", OP, "plan", "/checkpoint"), 0)
CLAIM = ClaimLaunch("tag", DRIVER, 1)
BEGIN = StartBatch("tag", DRIVER, StartedBatch(0, "q", ROW_TIME_MS, "run", ROW_TIME_MS, "digest"))
RECORD_IT = RecordBatch("tag", DRIVER, "run", Recorded(1, "tag", 0, "q", ROW_TIME_MS, "digest"))
IDLE = GoIdle("tag", DRIVER)
ASK = AskToStop(OTHER, "upgrade", 2)
STAGE = NoteStopStage(OTHER, StopStage("SIGTERM", False, 3))
CLOSE = CloseDead(OP, DRIVER, Ended(EndedHow.DIED, 4))
END = EndEpoch("tag", DRIVER, Ended(EndedHow.FAILED, 4))
RUNNING: list[Event] = [TAKE, LAUNCH, CLAIM]
NEXT: list[Event] = [ReleaseLease(OP), TakeLease(OTHER, 2, 60_000)]
"""The operation that stops what the one before has launched."""


class UnreliableStore(MemoryStore):
    """A store that loses answers, and lets others act between what an actor reads and what it swaps."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.is_away = False
        """Whether reads get no answer."""
        self.next_swaps: list[Callable[[Callable[[], bool]], bool]] = []
        """The outcomes of the next swaps; each function gets the swap itself."""

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text, if the store answers."""
        self.reads += 1
        if self.is_away:
            raise AWAY
        return super().get(pipeline, name)

    def swap(self, *arguments: Any, **options: Any) -> bool:
        """Swap as the next of ``next_swaps`` says."""
        fate = self.next_swaps.pop(0) if self.next_swaps else _swap_at_once
        return fate(lambda: super(UnreliableStore, self).swap(*arguments, **options))


def _swap_at_once(swap: Callable[[], bool]) -> bool:
    return swap()


def lose_before(swap: Callable[[], bool]) -> bool:
    """Lose the request: nothing is done."""
    raise AWAY


def lose_after(swap: Callable[[], bool]) -> bool:
    """Lose the answer: everything is done."""
    swap()
    raise AWAY


def after(act: Callable[[], object]) -> Callable[[Callable[[], bool]], bool]:
    """Call somebody else before the swap arrives."""

    def fate(swap: Callable[[], bool]) -> bool:
        act()
        return swap()

    return fate


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def cell(store: UnreliableStore) -> RecordCell:
    made = RecordCell(store, NAME)
    made.create()
    return made


def now(store: MemoryStore) -> PipelineRecord:
    found = RecordCell(store, NAME).read()
    assert found is not None
    return found


def do(cell: RecordCell, *events: Event) -> PipelineRecord:
    """Apply events, one after the other."""
    return [cell.change(event) for event in events][-1]


def other(store: MemoryStore, *events: Event) -> PipelineRecord:
    """Apply events of another actor."""
    return do(RecordCell(store, NAME), *events)


BEFORE: dict[type, tuple[list[Event], Event]] = {
    TakeLease: ([], TAKE),
    RenewLease: ([TAKE], RenewLease(OP, 5)),
    TakeToRecover: ([*RUNNING, ReleaseLease(OP), END], TakeToRecover("recovery/1", 1, 5, 60_000)),
    AskToStop: ([*RUNNING, *NEXT], ASK),
    NoteStopStage: ([*RUNNING, *NEXT, ASK], STAGE),
    CancelLaunch: ([TAKE, LAUNCH], CancelLaunch(OP, 5)),
    CloseDead: (RUNNING, CLOSE),
    Reconcile: ([*RUNNING, CLOSE], Reconcile(OP, 4, 5)),
    NoteMove: ([TAKE], NoteMove(OP, "plan", 5)),
    EndWrite: ([TAKE, NoteMove(OP, "plan", 5, "token")], EndWrite("token", is_written=True)),
    LaunchEpoch: ([TAKE], LAUNCH),
    ReleaseLease: (RUNNING, ReleaseLease(OP)),
    Rename: ([TAKE], Rename(OP, "orders-2")),
    MarkGood: (RUNNING, MarkGood(1)),
    ClaimLaunch: ([TAKE, LAUNCH], CLAIM),
    StartBatch: (RUNNING, BEGIN),
    RecordBatch: ([*RUNNING, BEGIN], RECORD_IT),
    GoIdle: (RUNNING, IDLE),
    EndEpoch: (RUNNING, END),
}
"""For each kind of event: the preceding events, and one of its kind."""

EVENTS = pytest.mark.parametrize(("before", "event"), BEFORE.values(), ids=[kind.__name__ for kind in BEFORE])
LOST = pytest.mark.parametrize("lose", [lose_before, lose_after])


def test_the_table_has_all_events() -> None:
    assert set(BEFORE) == set(typing.get_args(Event))


class TestLostAnswers:
    @EVENTS
    @LOST
    def test_an_event_happens_once(
        self, before: list[Event], event: Event, lose: Any, store: UnreliableStore, cell: RecordCell
    ) -> None:
        was = do(cell, *before) if before else now(store)
        store.next_swaps = [lose]

        changed = cell.change(event)

        assert changed == now(store)
        assert changed.version == was.version + 1

    @EVENTS
    @LOST
    def test_an_event_that_is_repeated_later_happens_once(
        self, before: list[Event], event: Event, lose: Any, store: UnreliableStore, cell: RecordCell
    ) -> None:
        """The store becomes unreachable after the lost answer, and the caller repeats the call."""
        was = do(cell, *before) if before else now(store)
        store.next_swaps, store.is_away = [lose], True
        with pytest.raises(StoreUnreachable):
            cell.change(event)
        store.is_away = False

        cell.change(event)

        assert now(store).version == was.version + 1

    @EVENTS
    def test_a_request_that_was_delayed_counts_as_its_repetition(
        self, before: list[Event], event: Event, store: UnreliableStore, cell: RecordCell
    ) -> None:
        """The first request is still on its way when the record is read, and arrives before the second one."""
        was = do(cell, *before) if before else now(store)
        late: list[Callable[[], bool]] = []

        def delay(swap: Callable[[], bool]) -> bool:
            late.append(swap)
            raise AWAY

        store.next_swaps = [delay, after(lambda: late[0]())]

        cell.change(event)

        assert now(store).version == was.version + 1

    @LOST
    def test_another_event_after_it_is_not_taken_for_done(
        self, lose: Any, store: UnreliableStore, cell: RecordCell
    ) -> None:
        """A driver that gave up on an unreachable store still ends its epoch."""
        do(cell, *RUNNING)
        store.next_swaps, store.is_away = [lose], True
        with pytest.raises(StoreUnreachable):
            cell.change(BEGIN)
        store.is_away = False

        cell.change(END)

        assert now(store).phase is Phase.ENDED

    def test_the_end_of_an_epoch_is_recorded_once_even_if_the_clock_advanced(
        self, store: UnreliableStore, cell: RecordCell
    ) -> None:
        do(cell, *RUNNING)
        store.next_swaps, store.is_away = [lose_after], True
        with pytest.raises(StoreUnreachable):
            cell.change(END)
        store.is_away = False

        cell.change(replace(END, ended=replace(END.ended, at_ms=99)))

        assert now(store).ended == END.ended

    def test_a_store_that_answers_reads_only_is_not_asked_for_ever(
        self, store: UnreliableStore, cell: RecordCell
    ) -> None:
        store.next_swaps = [lose_before, lose_before]

        with pytest.raises(StoreUnreachable):
            cell.change(TAKE)

    @LOST
    def test_the_creation_of_a_record(self, lose: Any, store: UnreliableStore) -> None:
        """``MemoryStore.check_and_put`` is a swap."""
        store.next_swaps = [lose]
        cell = RecordCell(store, NAME)
        if lose is lose_before:
            with pytest.raises(StoreUnreachable):
                cell.create()

        created = cell.create()

        assert cell.create() == created == now(store)


class TestBatches:
    def test_the_row_comes_with_the_record(self, store: UnreliableStore, cell: RecordCell) -> None:
        do(cell, *RUNNING)
        cell.change(BEGIN, stream=STREAM, prepare=BATCH)
        assert store.prepared(STREAM, ROW_TIME_MS) == BATCH
        assert store.position(STREAM) is None, "a started batch is no history"

        cell.change(RECORD_IT, stream=STREAM, append=BATCH)

        assert list(store.newest_first(STREAM)) == [BATCH]

    def test_a_row_that_is_missing_is_written_by_whoever_repeats_the_event(
        self, store: UnreliableStore, cell: RecordCell
    ) -> None:
        """HBase can leave this state: the text was set, and the driver's connection broke before the row."""
        do(cell, *RUNNING, BEGIN)
        other(store, RECORD_IT)

        for _ in range(2):
            cell.change(RECORD_IT, stream=STREAM, append=BATCH)

        assert list(store.newest_first(STREAM)) == [BATCH]

    def test_a_fenced_driver_leaves_no_row(self, store: UnreliableStore, cell: RecordCell) -> None:
        do(cell, *RUNNING, BEGIN)
        other(store, CLOSE)

        with pytest.raises(Fenced):
            cell.change(RECORD_IT, stream=STREAM, append=BATCH)

        assert store.position(STREAM) is None


class TestTwoActors:
    def test_a_swap_that_lost_is_computed_again(self, store: UnreliableStore, cell: RecordCell) -> None:
        do(cell, *RUNNING)
        store.next_swaps = [after(lambda: other(store, ReleaseLease(OP), TakeLease(OTHER, 5, 60_000)))]

        changed = cell.change(IDLE)

        assert changed == now(store)
        assert changed.idle
        assert changed.lease is not None
        assert changed.lease.operation == OTHER

    def test_a_stop_request_is_seen_by_the_swap_that_begins_a_batch(
        self, store: UnreliableStore, cell: RecordCell
    ) -> None:
        do(cell, *RUNNING)
        store.next_swaps = [after(lambda: other(store, *NEXT, ASK))]

        with pytest.raises(StopRequested):
            cell.change(BEGIN, stream=STREAM, prepare=BATCH)

        assert now(store).started is None

    def test_what_is_kept_of_the_record_makes_no_refusal(self, store: UnreliableStore, cell: RecordCell) -> None:
        """The other operation has ended since this one saw its lease."""
        other(store, TakeLease(OTHER, 0, 60_000))
        with pytest.raises(LeaseHeld):
            cell.change(TakeLease(OP, 1, 60_000))
        other(store, ReleaseLease(OTHER))

        taken = cell.change(TakeLease(OP, 2, 60_000))

        assert taken.lease is not None
        assert taken.lease.operation == OP

    def test_what_is_kept_of_the_record_does_not_make_an_event_done(
        self, store: UnreliableStore, cell: RecordCell
    ) -> None:
        """An idle driver that reports so again learns that it was fenced meanwhile."""
        do(cell, *RUNNING, IDLE)
        other(store, TakeLease(OTHER, 0, 0, take_over=True), replace(CLOSE, operation=OTHER))

        with pytest.raises(Fenced):
            cell.change(IDLE)

    def test_the_error_of_a_takeover_names_the_new_holder(self, store: UnreliableStore, cell: RecordCell) -> None:
        do(cell, *RUNNING)
        other(store, TakeLease(OTHER, 5, 60_000, take_over=True))

        with pytest.raises(TakenOver, match=OTHER):
            cell.change(replace(ASK, operation=OP))

    def test_they_take_turns(self, store: UnreliableStore, cell: RecordCell) -> None:
        operation, driver = RecordCell(store, NAME), RecordCell(store, NAME)
        do(operation, TAKE, LAUNCH)
        do(driver, CLAIM, BEGIN)
        do(operation, *NEXT, ASK)
        do(driver, RECORD_IT)
        with pytest.raises(StopRequested):
            driver.change(replace(BEGIN, batch=replace(BEGIN.batch, batch_id=1)))
        do(driver, END)

        assert do(operation, Reconcile(OTHER, now(store).generation, 9)).phase is Phase.STOPPED

    def test_who_swaps_again_does_not_read(self, store: UnreliableStore, cell: RecordCell) -> None:
        do(cell, *RUNNING)
        store.reads = 0

        do(cell, BEGIN, RECORD_IT, IDLE)

        assert store.reads == 0


class TestRestoredStores:
    @pytest.fixture
    def newest(self, store: UnreliableStore, cell: RecordCell) -> PipelineRecord:
        return do(cell, *RUNNING, BEGIN)

    @pytest.mark.parametrize(
        ("why", "change"),
        [
            ("an older version", lambda record: replace(record, version=record.version - 1)),
            ("another incarnation", lambda record: replace(record, incarnation="new", version=99)),
            ("the same version by another swap", lambda record: replace(record, token="another")),
        ],
    )
    def test_a_record_that_went_back_is_refused(
        self, why: str, change: Any, store: UnreliableStore, cell: RecordCell, newest: PipelineRecord
    ) -> None:
        restored = codec.dumps(change(newest))
        assert store.check_and_put(NAME, RECORD, codec.dumps(newest), restored)

        with pytest.raises(RecordRestored, match=f"version {newest.version}"):
            cell.change(RECORD_IT, stream=STREAM, append=BATCH)
        with pytest.raises(RecordRestored):
            cell.read()

        assert store.get(NAME, RECORD) == restored
        assert store.position(STREAM) is None

    def test_a_record_that_is_gone_is_refused(
        self, store: UnreliableStore, cell: RecordCell, newest: PipelineRecord
    ) -> None:
        store._control.clear()

        with pytest.raises(RecordRestored, match="'orders' is now gone"):
            cell.change(RECORD_IT)
        assert store.get(NAME, RECORD) is None

    def test_an_actor_that_has_seen_no_record_finds_none(self, store: UnreliableStore) -> None:
        cell = RecordCell(store, NAME)

        assert cell.read() is None
        with pytest.raises(StateChanged, match="'orders' has no record"):
            cell.change(TAKE)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"version":"1"}'])
    def test_a_cell_that_somebody_else_wrote_is_named(self, text: str, store: UnreliableStore) -> None:
        store.check_and_put(NAME, RECORD, None, text)

        with pytest.raises(StoreDataError, match="'pipeline' of pipeline 'orders'"):
            RecordCell(store, NAME).read()
