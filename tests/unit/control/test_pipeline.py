"""What processes share beside the record: launches with their outcomes, attempts, operations, snapshots.

These tests use the store in memory; the stores' own contract shows that the others do the same compare-and-set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import (
    Claim,
    Cut,
    CutOff,
    Ended,
    EndedHow,
    Heartbeat,
    Operation,
    ProcessIdentity,
    Recorded,
    RecordedMove,
)
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.record.events import (
    CancelLaunch,
    ClaimLaunch,
    CloseDead,
    Event,
    LaunchEpoch,
    Reconcile,
    RecordBatch,
    Rename,
    StartBatch,
    TakeLease,
)
from airflow_provider_offsets.core.record.model import EpochLaunch, PipelineRecord, StartedBatch
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import PipelineRenamed, SnapshotNotFound, StoreDataError, StoreUnreachable
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.observations import IDENTITY, STREAM, TOPIC, at, live, running

ONE = ProcessIdentity("worker-1", "boot", 1, 7)
NAME, OP = "delay_alerts", "op"
ROW_TIME_MS = 1_760_000_000_000


class UnreliableStore(MemoryStore):
    """A store that loses answers to a compare-and-set, before or after it was done, as often as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[str] = []

    def swap(self, *arguments: Any, **options: Any) -> bool:
        """Swap, and lose the answer if the test says so."""
        loss = self.losses.pop(0) if self.losses else ""
        was_set = super().swap(*arguments, **options) if loss != "before" else False
        if loss:
            raise StoreUnreachable(seen="no answer", expected="an answer", do="start the server")
        return was_set


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def control(store: UnreliableStore) -> Control:
    made = Control(store, NAME)
    made.cell.create()
    return made


def claim(number: int = 1, tag: str = "tag-1") -> Claim:
    return Claim(number, OP, tag, "/checkpoint", at(0, 0), IDENTITY, STREAM)


def batch(batch_id: int) -> Batch:
    """Return the batch that reads ten records of the first of two partitions."""
    start, end = at(10 * batch_id, 0), at(10 * batch_id + 10, 0)
    row_time_ms = ROW_TIME_MS + batch_id
    return Batch(end, row_time_ms, batch_id, "query", 1, start, row_time_ms)


def snapshot(name: str = "op#before") -> Snapshot:
    operation, _, label = name.partition("#")
    there = running(live((0, 100), (0, 100)), at(40, 60))
    return Snapshot(name, operation, label, "why", "2026-01-01T00:00:00Z", there).sealed()


def do(control: Control, *events: Event) -> PipelineRecord:
    """Apply events, one after the other."""
    cell = control.cell
    return [cell.change(event) for event in events][-1]


def launch(control: Control, number: int = 1, tag: str = "tag-1") -> PipelineRecord:
    """Record a launch as an operation does: its claim first."""
    control.keep_claim(claim(number, tag))
    taken = do(control, TakeLease(OP, 0, 0))
    return do(control, LaunchEpoch(OP, taken.generation, EpochLaunch(number, tag, OP, "plan", "/checkpoint"), 0))


def claimed(control: Control, number: int = 1, tag: str = "tag-1") -> PipelineRecord:
    """Record a launch that a driver claims."""
    launch(control, number, tag)
    return do(control, ClaimLaunch(tag, ONE, 5))


def died(control: Control) -> PipelineRecord:
    """Close the newest epoch as dead, account for it, and store its outcome, as an operation does."""
    closed = do(control, TakeLease(OP, 9, 0), CloseDead(OP, ONE, Ended(EndedHow.DIED, 9)))
    started = closed.started
    cut = None if started is None else CutOff(started.batch_id, started.query_id, started.row_time_ms, started.count)
    stopped = do(control, Reconcile(OP, closed.generation, 9, None, cut))
    control.keep_epoch(control.newest_launch(stopped))
    return stopped


def begin(control: Control, batch_id: int, tag: str = "tag-1") -> None:
    facts = batch(batch_id)
    started = StartedBatch(batch_id, "query", facts.batch_time_ms, "run", facts.row_time_ms)
    control.cell.change(StartBatch(tag, ONE, started), stream=STREAM, prepare=facts)


def record(control: Control, batch_id: int, tag: str = "tag-1") -> None:
    facts = batch(batch_id)
    recorded = Recorded(1, tag, batch_id, "query", facts.row_time_ms)
    control.cell.change(RecordBatch(tag, ONE, "run", recorded), stream=STREAM, append=facts)


class TestEpochs:
    def test_without_a_launch_there_is_none(self, control: Control) -> None:
        assert list(control.epochs()) == []
        assert control.claimed_epoch(control.record()) is None
        assert control.claimed_epoch(None) is None

    def test_without_a_record_there_is_none(self, store: UnreliableStore) -> None:
        fresh = Control(store, NAME)
        assert fresh.record() is None
        assert list(fresh.epochs()) == []

    def test_a_launch_that_nobody_has_claimed(self, control: Control) -> None:
        launched = launch(control)

        [epoch] = control.epochs()
        assert (epoch.claim, epoch.holder, epoch.ended) == (claim(), None, None)
        assert control.claimed_epoch(launched) is None, "the pipeline does not stand at its start yet"

    def test_the_epoch_that_runs(self, control: Control) -> None:
        running = claimed(control)

        [epoch] = control.epochs()
        assert (epoch.number, epoch.holder, epoch.claimed_at_ms, epoch.last_batch_id) == (1, ONE, 5, None)
        assert control.claimed_epoch(running) == epoch
        assert control.kept_epoch(1) is None

    def test_its_last_batch_is_the_recorded_one(self, control: Control) -> None:
        claimed(control)
        for batch_id in (0, 1):
            begin(control, batch_id)
            record(control, batch_id)
        begin(control, 2)

        [epoch] = control.epochs()
        assert epoch.last_batch_id == 1

    def test_what_became_of_an_epoch_stays_after_the_next_launch(self, control: Control) -> None:
        claimed(control)
        begin(control, 0)
        record(control, 0)
        begin(control, 1)
        stopped = died(control)
        before = control.newest_launch(stopped)

        launched = launch(control, 2, "tag-2")

        first, second = control.epochs()
        assert first == before == control.kept_epoch(1)
        assert (first.last_batch_id, first.ended) == (0, Ended(EndedHow.DIED, 9))
        assert first.cuts == (Cut(1, "query", 1, "", (OffsetRange(TOPIC, 0, 10, 20),)),), "what it was about to read"
        assert (second.number, second.cuts, second.last_batch_id) == (2, (), None)
        assert control.claimed_epoch(launched) == first, "until the second one is claimed"
        assert control.claimed_epoch(do(control, ClaimLaunch("tag-2", ONE, 6))) == replace(
            second, holder=ONE, claimed_at_ms=6
        )

    def test_a_cancelled_launch_is_one_that_nobody_claimed(self, control: Control) -> None:
        claimed(control)
        died(control)
        launch(control, 2, "tag-2")
        cancelled = do(control, CancelLaunch(OP, 10))

        assert [each.is_cancelled for each in control.epochs()] == [False, True]
        assert control.claimed_epoch(cancelled) == control.kept_epoch(1)

    def test_they_come_in_the_order_of_their_numbers(self, control: Control) -> None:
        """Past 9 and 99 too, where names would sort as text."""
        for number in range(1, 102):
            claimed(control, number, f"tag-{number}")
            died(control)

        assert [epoch.number for epoch in control.epochs()] == list(range(1, 102))

    def test_the_summary_of_the_newest_epoch_is_returned_once(self, control: Control) -> None:
        """An operation stores it before it launches the next epoch, and may die in between."""
        claimed(control)
        died(control)

        assert [epoch.number for epoch in control.epochs()] == [1]

    def test_keeping_again_changes_nothing(self, control: Control) -> None:
        claimed(control)
        first = control.newest_launch(died(control))
        control.keep_epoch(replace(first, claimed_at_ms=99))
        control.keep_claim(replace(claim(), plan="another"))

        assert control.kept_epoch(1) == first
        assert control.claim(1, "tag-1") == claim()

    def test_launches_of_one_number_are_distinguished_by_their_tags(self, control: Control) -> None:
        """Two operations may plan the same epoch; one of them launches it."""
        control.keep_claim(claim(1, "tag-2"))
        launch(control, 1, "tag-1")

        assert [epoch.claim.tag for epoch in control.epochs()] == ["tag-1"]
        assert control.claim(1, "tag-2").tag == "tag-2"

    def test_pipelines_do_not_see_each_other(self, store: UnreliableStore, control: Control) -> None:
        claimed(control)

        for name in (f"{NAME}.two", NAME[:-1]):
            assert list(Control(store, name).epochs()) == []

    def test_a_pipeline_that_was_renamed_says_so(self, control: Control) -> None:
        do(control, TakeLease(OP, 0, 0), Rename(OP, "alerts"))

        with pytest.raises(PipelineRenamed, match="'alerts'"):
            control.record()


def test_a_move_of_an_untracked_job_is_kept_once(control: Control) -> None:
    moved = RecordedMove(OP, "fingerprint", at(1, 2), at(1, 2), at(3, 4))
    control.keep_move(moved)
    control.keep_move(replace(moved, operation="another"))

    assert control.move("fingerprint") == moved


class TestAttempts:
    def test_the_first_one_is_one(self, control: Control) -> None:
        assert control.attempt("dag/run") == 1
        assert control.begin_attempt("dag/run", "key") == 1
        assert control.attempt("dag/run") == 1

    def test_a_retry_is_the_same_and_a_clear_is_a_new_one(self, control: Control) -> None:
        numbers = [control.begin_attempt("dag/run", key) for key in ("a", "a", "b", "b", "c")]

        assert numbers == [1, 1, 2, 2, 3]
        assert control.attempt("dag/run") == 3
        assert control.attempt("dag/other") == 1

    def test_of_many_at_once_each_gets_its_own(self, control: Control) -> None:
        numbers = in_threads(lambda number: control.begin_attempt("dag/run", str(number)))

        assert sorted(numbers) == list(range(1, 9))


class TestSignsOfLife:
    def test_the_newest_one_is_there(self, control: Control) -> None:
        assert control.heartbeat(1) is None
        for beat in (1, 2, 2):
            control.beat(1, Heartbeat(beat, 5, 3))

        assert control.heartbeat(1) == Heartbeat(2, 5, 3)
        assert control.heartbeat(2) is None


@pytest.mark.parametrize("loss", ["before", "after"])
@pytest.mark.parametrize(
    ("what", "write", "read"),
    [
        ("a claim", lambda it: it.keep_claim(claim()), lambda it: it.claim(1, "tag-1") == claim()),
        ("an attempt", lambda it: it.begin_attempt("run", "key"), lambda it: it.attempt("run") == 1),
        ("a heartbeat", lambda it: it.beat(1, Heartbeat(1, 5)), lambda it: it.heartbeat(1) == Heartbeat(1, 5)),
        (
            "an operation",
            lambda it: it.open_operation(Operation(OP, "maintenance", "upgrade")),
            lambda it: it.operation(OP) is not None,
        ),
        ("a snapshot", lambda it: it.keep_snapshot(snapshot()), lambda it: it.snapshot("op#before") == snapshot()),
    ],
)
class TestLostAnswers:
    def test_one_is_made_up_for_by_reading(
        self, what: str, write: Any, read: Any, loss: str, store: UnreliableStore, control: Control
    ) -> None:
        store.losses = [loss]

        write(control)

        assert read(control)

    def test_a_store_that_is_away_is_no_success(
        self, what: str, write: Any, read: Any, loss: str, store: UnreliableStore, control: Control
    ) -> None:
        store.losses = ["before", "before"]
        with pytest.raises(StoreUnreachable):
            write(control)
        store.losses = [loss]

        write(control)

        assert read(control)


def test_a_lost_answer_to_a_step_does_not_lose_it(store: UnreliableStore, control: Control) -> None:
    control.open_operation(Operation(OP, "maintenance", ""))
    store.losses = ["after"]
    control.record_step(OP, "plan", at(1, 2))
    store.losses = ["before"]
    control.record_step(OP, "stopped", at(3, 4))

    assert control.step(OP, "plan", Position) == at(1, 2)
    assert control.step(OP, "stopped", Position) == at(3, 4)


def in_threads(call: Callable[[int], Any]) -> list[Any]:
    """Call the function in eight threads at once, and return the results."""
    together, answers = threading.Barrier(8), []

    def run(number: int) -> None:
        together.wait()
        answers.append(call(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class TestOperations:
    def test_steps_come_back_as_they_were(self, control: Control) -> None:
        control.open_operation(Operation("dag/run:1", "maintenance", "upgrade"))
        batch = Batch(at(10, 20), 1000, 4, "query", 1, at(0, 0))
        control.record_step("dag/run:1", "applied", batch)
        control.record_step("dag/run:1", "stopped", Ended(EndedHow.STOPPED, 6))

        assert control.step("dag/run:1", "applied", Batch) == batch
        assert control.step("dag/run:1", "stopped", Ended) == Ended(EndedHow.STOPPED, 6)
        assert control.step("dag/run:1", "other", Batch) is None
        assert control.step("other", "applied", Batch) is None

    def test_an_operation_that_is_opened_again_is_unchanged(self, control: Control) -> None:
        """Every task opens it, and a retry must not lose the steps."""
        first = control.open_operation(Operation("op", "maintenance", "upgrade"))
        control.record_step("op", "plan", at(1, 2))

        again = control.open_operation(Operation("op", "maintenance", "another reason"))

        assert (again.reason, sorted(again.steps)) == (first.reason, ["plan"])
        assert [each.id for each in control.operations()] == ["op"]

    def test_a_later_result_takes_the_place(self, control: Control) -> None:
        control.open_operation(Operation("op", "maintenance", ""))
        for position in (at(1, 2), at(3, 4)):
            control.record_step("op", "plan", position)

        assert control.step("op", "plan", Position) == at(3, 4)

    def test_steps_that_two_tasks_record_at_once_are_both_kept(self, control: Control) -> None:
        control.open_operation(Operation("op", "maintenance", ""))
        steps = [f"step-{number}" for number in range(8)]
        in_threads(lambda number: control.record_step("op", steps[number], at(number, number)))

        assert sorted(control.operation("op").steps) == steps  # type: ignore[union-attr]

    def test_a_step_of_an_operation_that_nobody_opened_is_refused(self, control: Control) -> None:
        with pytest.raises(StoreDataError, match="operation/op"):
            control.record_step("op", "plan", at(1, 2))


class TestSnapshots:
    def test_the_first_snapshot_under_an_id_is_kept(self, control: Control) -> None:
        first = control.keep_snapshot(snapshot())
        later = replace(snapshot(), reason="a retry").sealed()

        assert control.keep_snapshot(later) == first == control.snapshot("op#before")
        assert first.position[TopicPartition("flights", 0)] == 40

    def test_one_that_is_not_there_names_those_that_are(self, control: Control) -> None:
        for name in ("a#before", "b#before", "c#before", "d#before"):
            control.keep_snapshot(snapshot(name))

        with pytest.raises(SnapshotNotFound, match=r"'x'.*Expected one of \['b#before', 'c#before', 'd#before'\]"):
            control.snapshot("x")

    def test_without_any_it_says_so(self, control: Control) -> None:
        with pytest.raises(SnapshotNotFound, match="none at all"):
            control.snapshot("x")

    def test_one_that_was_changed_by_hand_is_refused(self, store: MemoryStore, control: Control) -> None:
        control.keep_snapshot(snapshot())
        text = store.get(NAME, "snapshot/op#before")
        assert text is not None
        store.check_and_put(NAME, "snapshot/op#before", text, text.replace('"why"', '"because"'))

        with pytest.raises(StoreDataError, match="does not match its checksum"):
            control.snapshot("op#before")


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("not JSON", "garbage"),
        ("empty", ""),
        ("JSON of another shape", "[1,2]"),
        ("a field is missing", '{"holder":{}}'),
        ("a number is text", '{"beat":"1","number":"1","incarnation":1}'),
    ],
)
@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("pipeline", lambda control: control.record()),
        ("pipeline", lambda control: list(control.epochs())),
        ("launch/00000001/tag", lambda control: control.claim(1, "tag")),
        ("move/plan", lambda control: control.move("plan")),
        ("epoch/00000001", lambda control: control.kept_epoch(1)),
        ("epoch/00000001", lambda control: list(control.kept_epochs())),
        ("heartbeat/00000001", lambda control: control.heartbeat(1)),
        ("attempt/run", lambda control: control.attempt("run")),
        ("attempt/run", lambda control: control.begin_attempt("run", "key")),
        ("operation/op", lambda control: control.operation("op")),
        ("operation/op", lambda control: control.step("op", "plan", Position)),
        ("snapshot/op", lambda control: control.snapshot("op")),
    ],
)
def test_a_cell_that_somebody_else_wrote_is_named(
    why: str, text: str, cell: str, read: Any, store: UnreliableStore
) -> None:
    store.check_and_put(NAME, cell, None, text)

    with pytest.raises(StoreDataError, match=f"Control cell '{cell}' of pipeline 'delay_alerts'"):
        read(Control(store, NAME))


def test_a_step_that_is_not_what_it_should_be_is_named(control: Control) -> None:
    control.open_operation(Operation("op", "maintenance", ""))
    control.record_step("op", "plan", at(1, 2))

    with pytest.raises(StoreDataError, match="operation/op#plan"):
        control.step("op", "plan", Batch)
