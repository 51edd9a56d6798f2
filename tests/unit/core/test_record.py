"""The pipeline's record: which event is possible in which state, and what no sequence of events can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import (
    CutOff,
    Ended,
    EndedHow,
    ProcessIdentity,
    Recorded,
    RowsWritten,
    StopRequest,
    StopStage,
)
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
    RenewLease,
    StartBatch,
    TakeLease,
    TakeToRecover,
)
from airflow_provider_offsets.core.record.model import (
    Already,
    EpochLaunch,
    Lease,
    Next,
    Outcome,
    Phase,
    PipelineRecord,
    Refusal,
    Refused,
    StartedBatch,
)
from airflow_provider_offsets.core.record.transition import transition

HOUR_MS = 3_600_000
NEW = PipelineRecord("incarnation-1")
ONE, OTHER = ProcessIdentity("host-1", "boot", 1, 7), ProcessIdentity("host-2", "boot", 2, 7)
BATCH = StartedBatch(0, "query", 1_000, "run-1", 1_000, "digest-0")
RECORDED = Recorded(1, "tag-1", 0, "query", 1_000, "digest-0")
STOPPED, DIED = Ended(EndedHow.STOPPED, 9), Ended(EndedHow.DIED, 9)


def launch(epoch: int, operation: str = "a") -> EpochLaunch:
    return EpochLaunch(epoch, f"tag-{epoch}", operation, "plan", "/checkpoint")


def after(record: PipelineRecord, *events: Event) -> PipelineRecord:
    """Return the record after events that are all possible."""
    for event in events:
        outcome = transition(record, event)
        assert isinstance(outcome, Next), f"{event} gave {outcome}"
        record = outcome.record
    return record


def launching(record: PipelineRecord = NEW, operation: str = "a") -> PipelineRecord:
    taken = after(record, TakeLease(operation, 1, HOUR_MS, take_over=True))
    return after(taken, LaunchEpoch(operation, taken.generation, launch(taken.epoch + 1, operation), 2))


LAUNCHING = launching()
RUNNING = after(LAUNCHING, ClaimLaunch("tag-1", ONE, 3))
STARTED = after(RUNNING, StartBatch("tag-1", ONE, BATCH))
RAN = after(STARTED, RecordBatch("tag-1", ONE, "run-1", RECORDED))
ASKED = after(RAN, TakeLease("b", 4, HOUR_MS), AskToStop("b", "upgrade", 5))
ENDED = after(ASKED, EndEpoch("tag-1", ONE, STOPPED))
CUT = after(
    STARTED, TakeLease("b", 4, HOUR_MS, take_over=True), CloseDead("b", ONE, DIED)
)  # the driver died in the middle of its first batch
TAKEN_BACK = after(ENDED, Reconcile("b", ENDED.generation, 6), ReleaseLease("b"), TakeLease("a", 7, HOUR_MS))


@pytest.mark.parametrize(
    ("record", "event", "why"),
    [
        pytest.param(LAUNCHING, TakeLease("b", 2, HOUR_MS), Refusal.LEASE_HELD, id="politeness: a acted a moment ago"),
        pytest.param(
            LAUNCHING,
            TakeLease("b", 2, HOUR_MS, take_over=True, holder="c"),
            Refusal.LEASE_HELD,
            id="b takes over c and not a",
        ),
        pytest.param(NEW, AskToStop("b", "", 1), Refusal.LEASE_LOST, id="only the lease holder asks to stop"),
        pytest.param(RUNNING, AskToStop("a", "", 4), Refusal.STATE_CHANGED, id="a late try does not stop its own job"),
        pytest.param(
            after(RUNNING, EndEpoch("tag-1", ONE, DIED)),
            AskToStop("a", "", 4),
            Refusal.STATE_CHANGED,
            id="nor keep a recovery from it once it has died",
        ),
        pytest.param(
            LAUNCHING, RenewLease("b", 3), Refusal.LEASE_LOST, id="a lease that was taken over is not renewed"
        ),
        pytest.param(LAUNCHING, CancelLaunch("b", 1), Refusal.LEASE_LOST, id="only the lease holder cancels"),
        pytest.param(RAN, CloseDead("b", ONE, DIED), Refusal.LEASE_LOST, id="only the lease holder closes the dead"),
        pytest.param(
            LAUNCHING, AskToStop("a", "", 1), Refusal.STATE_CHANGED, id="a launch is cancelled, not asked to stop"
        ),
        pytest.param(
            after(LAUNCHING, CancelLaunch("a", 3)),
            ClaimLaunch("tag-1", ONE, 4),
            Refusal.CANCELLED,
            id="a cancelled launch can never be claimed (A17)",
        ),
        pytest.param(
            launching(after(LAUNCHING, CancelLaunch("a", 3))),
            ClaimLaunch("tag-1", ONE, 4),
            Refusal.FENCED,
            id="nor after the next launch",
        ),
        pytest.param(RUNNING, ClaimLaunch("tag-1", OTHER, 4), Refusal.FENCED, id="of two processes one claims"),
        pytest.param(RUNNING, ClaimLaunch("tag-2", ONE, 4), Refusal.FENCED, id="the tag is compared, not the number"),
        pytest.param(
            ASKED,
            StartBatch("tag-1", ONE, replace(BATCH, batch_id=1)),
            Refusal.STOP_REQUESTED,
            id="a stop comes before the next batch",
        ),
        pytest.param(
            CUT,
            RecordBatch("tag-1", ONE, "run-1", RECORDED),
            Refusal.FENCED,
            id="a driver taken for dead records nothing",
        ),
        pytest.param(
            ENDED,
            StartBatch("tag-1", ONE, replace(BATCH, batch_id=1)),
            Refusal.FENCED,
            id="nothing begins after the end",
        ),
        pytest.param(
            RUNNING,
            RecordBatch("tag-1", ONE, "run-1", RECORDED),
            Refusal.STATE_CHANGED,
            id="what did not begin is not recorded",
        ),
        pytest.param(
            STARTED,
            RecordBatch("tag-1", ONE, "run-2", RECORDED),
            Refusal.STATE_CHANGED,
            id="what another run began is not this run's to record (A10)",
        ),
        pytest.param(
            RAN, Reconcile("a", RAN.generation, 1), Refusal.LEASE_LOST, id="the first batch has ended a's lease"
        ),
        pytest.param(
            ASKED, Reconcile("b", ASKED.generation, 1), Refusal.STATE_CHANGED, id="a running epoch is not reconciled"
        ),
        pytest.param(
            ENDED,
            Reconcile("b", ENDED.generation - 1, 1),
            Refusal.STATE_CHANGED,
            id="the checkpoint was read before the epoch ended",
        ),
        pytest.param(
            ENDED,
            LaunchEpoch("b", ENDED.generation, launch(2, "b"), 1),
            Refusal.STATE_CHANGED,
            id="nothing is launched before the epoch is reconciled",
        ),
        pytest.param(
            after(NEW, TakeLease("a", 1, HOUR_MS)),
            LaunchEpoch("a", 0, launch(1), 1),
            Refusal.STATE_CHANGED,
            id="a plan of another generation is stale",
        ),
        pytest.param(
            ASKED,
            TakeToRecover("recovery/1", 1, 9, HOUR_MS),
            Refusal.NOT_TO_RECOVER,
            id="an answered stop stays a stop",
        ),
        pytest.param(
            TAKEN_BACK,
            LaunchEpoch("a", TAKEN_BACK.generation, launch(2), 8),
            Refusal.STOPPED_SINCE,
            id="nor does the operation that launched it start it again",
        ),
        pytest.param(
            STARTED,
            TakeToRecover("recovery/1", 1, 9, HOUR_MS),
            Refusal.NOT_TO_RECOVER,
            id="the submit that launched it acted a moment ago",
        ),
        pytest.param(
            LAUNCHING, TakeToRecover("recovery/1", 1, 9 * HOUR_MS, 1), Refusal.NOT_TO_RECOVER, id="nobody has run yet"
        ),
        pytest.param(
            RUNNING, NoteMove("a", "plan", 1), Refusal.STATE_CHANGED, id="no store is moved while its job may run"
        ),
    ],
)
def test_refused(record: PipelineRecord, event: Event, why: Refusal) -> None:
    outcome = transition(record, event)

    assert isinstance(outcome, Refused)
    assert outcome.why is why
    assert outcome.detail


@pytest.mark.parametrize(
    ("record", "event"),
    [
        pytest.param(RUNNING, ClaimLaunch("tag-1", ONE, 4), id="claim"),
        pytest.param(STARTED, StartBatch("tag-1", ONE, BATCH), id="begin, by the same run"),
        pytest.param(RAN, RecordBatch("tag-1", ONE, "run-1", RECORDED), id="record"),
        pytest.param(after(RUNNING, GoIdle("tag-1", ONE)), GoIdle("tag-1", ONE), id="idle"),
        pytest.param(ENDED, EndEpoch("tag-1", ONE, STOPPED), id="end"),
        pytest.param(CUT, EndEpoch("tag-1", ONE, STOPPED), id="end, after somebody else closed the epoch"),
        pytest.param(ASKED, AskToStop("b", "upgrade", 5), id="ask to stop"),
        pytest.param(CUT, CloseDead("b", ONE, DIED), id="close"),
        pytest.param(after(LAUNCHING, CancelLaunch("a", 3)), CancelLaunch("a", 4), id="cancel"),
        pytest.param(LAUNCHING, LaunchEpoch("a", 0, launch(1), 2), id="launch, by its tag"),
        pytest.param(after(NEW, TakeLease("a", 1, 1), NoteMove("a", "p", 1)), NoteMove("a", "p", 1), id="intend"),
        pytest.param(ENDED, NoteStopStage("b", StopStage("SIGTERM", False, 1)), id="a stage of what has ended"),
        pytest.param(after(RAN, MarkGood(1)), MarkGood(1), id="mark good"),
        pytest.param(RAN, RenewLease("a", 9), id="renew a lease that the first batch has ended: it is not taken again"),
    ],
)
def test_what_has_happened_is_said_so_and_not_refused(record: PipelineRecord, event: Event) -> None:
    """A lost answer does not fail a healthy driver."""
    assert transition(record, event) == Already()


def test_who_asks_last_owns_the_stop_request() -> None:
    """It may launch afterwards, and the stage that was reached stays noted."""
    staged = after(ASKED, NoteStopStage("b", StopStage("SIGTERM", False, 5)))
    asked = after(staged, TakeLease("c", 6, HOUR_MS, take_over=True), AskToStop("c", "mine", 7))

    assert asked.stop == StopRequest("c", "mine", 7, StopStage("SIGTERM", False, 5))
    ended = after(asked, EndEpoch("tag-1", ONE, STOPPED))
    stopped = after(ended, Reconcile("c", ended.generation, 8))
    assert after(stopped, LaunchEpoch("c", stopped.generation, launch(2, "c"), 9)).stop is None


class TestPosition:
    def test_a_claim_moves_the_position_and_a_cancelled_launch_does_not(self) -> None:
        stopped = after(ENDED, Reconcile("b", ENDED.generation, 6))
        second = after(stopped, LaunchEpoch("b", stopped.generation, launch(2, "b"), 7))

        assert second.recorded == RECORDED
        assert after(second, CancelLaunch("b", 8)).recorded == RECORDED
        assert after(second, ClaimLaunch("tag-2", OTHER, 8)).recorded == Recorded(2, "tag-2")

    def test_a_batch_that_spark_committed_is_recorded_by_whoever_reconciles(self) -> None:
        found = after(CUT, Reconcile("b", CUT.generation, 6, recorded=RECORDED))

        assert (found.recorded, found.started, found.cuts) == (RECORDED, None, ())

    def test_a_batch_that_was_cut_off_is_named(self) -> None:
        cut = CutOff(0, "query", 1_000)
        found = after(CUT, Reconcile("b", CUT.generation, 6, cut=cut))

        assert (found.started, found.cuts, found.recorded) == (None, (cut,), Recorded(1, "tag-1"))

    def test_a_row_is_never_placed_before_one_that_is_in_use(self) -> None:
        stopped = after(ENDED, Reconcile("b", ENDED.generation, 6))
        found = after(stopped, LaunchEpoch("b", stopped.generation, launch(2, "b"), 7, newest_row_time_ms=5_000))

        assert found.last_row_time_ms == 5_000
        assert stopped.last_row_time_ms == 1_000
        older = after(stopped, LaunchEpoch("b", stopped.generation, launch(2, "b"), 7, newest_row_time_ms=500))
        assert older.last_row_time_ms == 1_000

    def test_an_intent_outlives_a_cancelled_launch_and_ends_with_the_claim(self) -> None:
        moved = after(NEW, TakeLease("a", 1, 1), NoteMove("a", "plan", 1))
        going = after(moved, LaunchEpoch("a", moved.generation, launch(1), 2))

        assert after(going, CancelLaunch("a", 3)).intent == moved.intent
        assert after(going, ClaimLaunch("tag-1", ONE, 3)).intent is None


class TestWrites:
    """The start of an untracked job is written to a store that knows no lease."""

    NOTED = after(NEW, TakeLease("a", 1, 1), NoteMove("a", "plan", 1, "write"))

    def test_a_write_while_no_job_could_read_it_is_over(self) -> None:
        assert [each.token for each in self.NOTED.writes] == ["write"]
        assert after(self.NOTED, EndWrite("write", is_written=True)).writes == ()

    def test_a_write_after_another_operation_launched_stays_named(self) -> None:
        taken = after(self.NOTED, TakeLease("b", 2, 1, take_over=True))
        going = after(taken, LaunchEpoch("b", taken.generation, launch(1, "b"), 2))
        running = after(going, ClaimLaunch("tag-1", ONE, 3))

        for record in (going, running):
            written = after(record, EndWrite("write", is_written=True))
            assert [(each.token, each.met) for each in written.writes] == [("write", 1)]
            assert transition(written, EndWrite("write", is_written=True)) == Already()
            assert after(record, EndWrite("write", is_written=False)).writes == (), "it found something else"

    def test_a_plan_that_accounts_for_it_clears_it_with_the_claim(self) -> None:
        going = after(
            self.NOTED, LaunchEpoch("a", self.NOTED.generation, replace(launch(1), accounts_for=("write",)), 2)
        )

        assert after(going, CancelLaunch("a", 3)).writes == self.NOTED.writes
        assert after(going, ClaimLaunch("tag-1", ONE, 3)).writes == ()


class TestRuns:
    """A program that calls ``run`` again in one epoch: what the earlier run may have written counts."""

    def test_the_same_batch_started_by_two_runs_counts_twice(self) -> None:
        again = after(STARTED, StartBatch("tag-1", ONE, replace(BATCH, run="run-2")))
        done = after(again, RecordBatch("tag-1", ONE, "run-2", RECORDED))

        assert again.started is not None
        assert again.started.count == 2
        assert done.cuts == (CutOff(0, "query", 1_000, 1),)

    def test_a_batch_that_was_never_planned_does_not_count(self) -> None:
        ahead = after(RUNNING, StartBatch("tag-1", ONE, StartedBatch(0, "query", 1_000, "run-1")))
        again = after(ahead, StartBatch("tag-1", ONE, replace(BATCH, run="run-2"), again=False))

        assert after(again, RecordBatch("tag-1", ONE, "run-2", RECORDED)).cuts == ()

    def test_a_batch_that_another_one_follows_is_cut_off(self) -> None:
        following = replace(BATCH, batch_id=1, run="run-2", row_time_ms=1_001)
        assert after(STARTED, StartBatch("tag-1", ONE, following)).cuts == (CutOff(0, "query", 1_000, 1),)

    def test_runs_that_fail_for_ever_leave_one_entry(self) -> None:
        record = STARTED
        for number in range(100):
            record = after(record, StartBatch("tag-1", ONE, replace(BATCH, run=f"again-{number}")))

        assert len(codec.dumps(record)) < 2_000
        assert record.started is not None
        assert record.started.count == 101


class TestRowsWritten:
    """What the batches of an epoch wrote, as Spark counted it."""

    @pytest.mark.parametrize(
        ("why", "rows", "is_empty", "written"),
        [
            ("Spark counted the rows", 5, False, RowsWritten(batches=1, rows=5)),
            ("nothing to read, nothing written", 0, False, RowsWritten(batches=1)),
            ("a write without a row", 0, True, RowsWritten(batches=1, empty=1, last_empty=0)),
            ("no write that Spark saw", None, True, RowsWritten(uncounted=1, empty=1, last_empty=0)),
            ("a sink that does not count", None, False, RowsWritten(uncounted=1)),
        ],
    )
    def test_one_batch(self, why: str, rows: int | None, is_empty: bool, written: RowsWritten) -> None:
        event = RecordBatch("tag-1", ONE, "run-1", RECORDED, rows_written=rows, is_empty=is_empty)

        assert after(STARTED, event).written == written

    def test_they_add_up_and_a_repeated_call_adds_nothing(self) -> None:
        first = RecordBatch("tag-1", ONE, "run-1", RECORDED, rows_written=5)
        following = replace(BATCH, batch_id=1, row_time_ms=1_001)
        second = replace(first, recorded=replace(RECORDED, batch_id=1, row_time_ms=1_001), rows_written=7)
        done = after(STARTED, first, StartBatch("tag-1", ONE, following), second)

        assert done.written == RowsWritten(batches=2, rows=12)
        assert transition(done, second) == Already()

    def test_a_batch_that_an_operation_recorded_has_no_count(self) -> None:
        """Spark committed it, and the driver died before it recorded what it wrote."""
        assert after(CUT, Reconcile("b", CUT.generation, 6, RECORDED)).written == RowsWritten(uncounted=1)
        assert after(CUT, Reconcile("b", CUT.generation, 6)).written == RowsWritten()

    def test_the_next_launch_counts_from_0(self) -> None:
        counted = after(STARTED, RecordBatch("tag-1", ONE, "run-1", RECORDED, rows_written=5))
        stopped = after(counted, EndEpoch("tag-1", ONE, STOPPED), TakeLease("b", 4, HOUR_MS))
        stopped = after(stopped, Reconcile("b", stopped.generation, 6))

        assert stopped.written.rows == 5, "until then, for the epoch that is kept"
        assert launching(stopped, "b").written == RowsWritten()

    def test_a_record_of_an_earlier_commit_has_no_counts(self) -> None:
        plain = json.loads(codec.dumps(RAN))
        del plain["written"]

        assert codec.loads(PipelineRecord, json.dumps(plain)) == replace(RAN, written=RowsWritten())


class TestLease:
    def test_the_first_batch_or_idle_ends_the_launcher_s_lease(self) -> None:
        assert STARTED.lease == Lease("a", 2)
        assert RAN.lease is None
        assert after(RUNNING, GoIdle("tag-1", ONE)).lease is None

    def test_a_batch_does_not_end_the_lease_of_who_stops_the_job(self) -> None:
        asked = after(STARTED, TakeLease("b", 4, HOUR_MS, take_over=True), AskToStop("b", "", 4))
        recorded = after(asked, RecordBatch("tag-1", ONE, "run-1", RECORDED))

        assert recorded.lease is not None
        assert recorded.lease.operation == "b"

    def test_it_may_be_taken_without_asking_once_it_is_old(self) -> None:
        assert after(LAUNCHING, TakeLease("b", 2 + HOUR_MS, HOUR_MS)).lease == Lease("b", 2 + HOUR_MS)

    def test_an_operation_that_waits_keeps_it_young(self) -> None:
        renewed = after(LAUNCHING, RenewLease("a", HOUR_MS))
        assert isinstance(transition(renewed, TakeLease("b", 2 + HOUR_MS, HOUR_MS)), Refused)
        assert renewed.generation == LAUNCHING.generation, "its own plan is not stale by that"

    def test_a_clock_that_is_behind_makes_no_lease_old(self) -> None:
        assert isinstance(transition(LAUNCHING, TakeLease("b", 2 - HOUR_MS, HOUR_MS)), Refused)

    def test_a_recovery_takes_what_died_after_its_start(self) -> None:
        found = after(RAN, TakeToRecover("recovery/1", 1, 9, HOUR_MS))
        assert found.lease == Lease("recovery/1", 9)

    def test_a_recovery_that_died_itself_is_followed_by_the_next_one(self) -> None:
        first = after(RAN, TakeToRecover("recovery/1", 1, 9, HOUR_MS))
        assert after(first, TakeToRecover("recovery/2", 1, 9, HOUR_MS)).lease == Lease("recovery/2", 9)

    def test_it_is_given_back_by_its_holder_only(self) -> None:
        """An operation that released it and got no answer then finds the lease of the next one: no error."""
        assert after(LAUNCHING, ReleaseLease("a")).lease is None
        assert transition(LAUNCHING, ReleaseLease("b")) == Already()


OPERATIONS, PROCESSES, TAGS = ("a", "b", "recovery/1"), (ONE, OTHER), ("tag-1", "tag-2", "tag-3")


@st.composite
def events(draw: st.DrawFn, record: PipelineRecord) -> Event:
    """Return any event of any actor, with arguments that are right, stale or wrong."""
    operation, holder, tag = (
        draw(st.sampled_from(OPERATIONS)),
        draw(st.sampled_from(PROCESSES)),
        draw(st.sampled_from(TAGS)),
    )
    generation = record.generation - draw(st.sampled_from([0, 0, 0, 1]))
    batch_id, run = draw(st.integers(0, 3)), draw(st.sampled_from(["run-1", "run-2"]))
    row_time_ms = record.last_row_time_ms + 1
    recorded = Recorded(record.epoch, tag, batch_id, "query", row_time_ms, "digest")
    number = record.epoch + draw(st.sampled_from([1, 1, 1, 0, 2]))
    choices: list[Callable[[], Event]] = [
        lambda: TakeLease(operation, draw(st.integers(0, 10)), 5, draw(st.booleans())),
        lambda: RenewLease(operation, 6),
        lambda: TakeToRecover(operation, record.epoch, 5, 5),
        lambda: AskToStop(operation, "", 1),
        lambda: NoteStopStage(operation, StopStage("SIGTERM", draw(st.booleans()), 1)),
        lambda: CancelLaunch(operation, 1),
        lambda: CloseDead(operation, holder, DIED),
        lambda: Reconcile(operation, generation, 1, draw(st.sampled_from([None, recorded]))),
        lambda: NoteMove(operation, "plan", 1),
        lambda: NoteMove(operation, "plan", 1, draw(st.sampled_from(["write-1", "write-2"]))),
        lambda: EndWrite(draw(st.sampled_from(["write-1", "write-2"])), draw(st.booleans())),
        lambda: LaunchEpoch(operation, generation, launch(number, operation), 1),
        lambda: ReleaseLease(operation),
        lambda: MarkGood(record.epoch),
        lambda: ClaimLaunch(tag, holder, 1),
        lambda: StartBatch(tag, holder, StartedBatch(batch_id, "query", 1, run, row_time_ms, "digest")),
        lambda: RecordBatch(
            tag,
            holder,
            run,
            replace(recorded, row_time_ms=record.last_row_time_ms),
            rows_written=draw(st.sampled_from([None, 0, 5])),
            is_empty=draw(st.booleans()),
        ),
        lambda: GoIdle(tag, holder),
        lambda: EndEpoch(tag, holder, STOPPED),
    ]
    return draw(st.sampled_from(choices))()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_laws_of_every_sequence(data: st.DataObject) -> None:
    record = NEW
    for _ in range(data.draw(st.integers(1, 40))):
        event = data.draw(events(record))
        outcome: Outcome = transition(record, event)
        if not isinstance(outcome, Next):
            continue
        next_ = outcome.record
        assert next_.version == record.version + 1, "no text ever comes back"
        assert next_.generation >= record.generation
        if (next_.phase, next_.lease and next_.lease.operation) != (
            record.phase,
            record.lease and record.lease.operation,
        ):
            assert next_.generation > record.generation, "a plan that was made before is stale"
        assert next_.epoch - record.epoch in (0, 1)
        assert next_.last_row_time_ms >= record.last_row_time_ms
        if record.stop is not None and not isinstance(event, LaunchEpoch):
            assert next_.stop is not None, "an answered stop stays a stop until the next launch"
            assert next_.started == record.started or next_.started is None or not isinstance(event, StartBatch)
        if next_.started != record.started and next_.started is not None:
            assert record.phase is Phase.RUNNING, "only a running epoch begins a batch"
        if next_.recorded != record.recorded:
            assert isinstance(event, ClaimLaunch | RecordBatch | Reconcile)
        now, before = next_.written, record.written
        if isinstance(event, LaunchEpoch):
            assert now == RowsWritten(), "a launch counts from 0"
        else:
            is_batch = isinstance(event, RecordBatch) or (isinstance(event, Reconcile) and event.recorded is not None)
            assert now.batches + now.uncounted == before.batches + before.uncounted + is_batch, "each batch once"
            assert now.rows >= before.rows
        assert (next_.phase is Phase.RUNNING) <= (next_.holder is not None)
        assert codec.loads(PipelineRecord, codec.dumps(next_)) == next_
        record = next_


@pytest.mark.parametrize(
    ("holder", "operation", "is_allowed"),
    [
        pytest.param("a", "a@2", True, id="a run that was cleared goes on from its first attempt"),
        pytest.param("a@2", "a@3", True, id="and from its second one"),
        pytest.param("a@2", "a", False, id="a late task of an earlier attempt disturbs nobody"),
        pytest.param("a#v1#1", "a#v2#2", True, id="a replay was planned again"),
        pytest.param("a#v1#1", "a#v1#1@2", True, id="only its stop was cleared"),
        pytest.param("a#v1#1@2", "a#v1#2", True, id="and then the plan of its replay"),
        pytest.param("a#v1#2", "a#v1#1@2", False, id="a late task of the replay before"),
        pytest.param("a#v1#1", "b#v1#2", False, id="the replay of another run"),
        pytest.param("a", "a#v1", False, id="something else of that name"),
        pytest.param("a", "b@2", False, id="another run asks"),
    ],
)
def test_a_later_attempt_of_a_run_takes_the_lease_of_an_earlier_one(
    holder: str, operation: str, is_allowed: bool
) -> None:
    taken = transition(NEW, TakeLease(holder, 1, HOUR_MS, take_over=True))
    assert isinstance(taken, Next)
    assert isinstance(transition(taken.record, TakeLease(operation, 2, HOUR_MS)), Next) is is_allowed


def test_a_late_try_of_an_earlier_attempt_takes_nothing_from_the_job_of_a_later_one() -> None:
    launched = replace(RAN, lease=None, launch=replace(RAN.launch, operation="a@2"))  # type: ignore[type-var]
    assert isinstance(transition(launched, TakeLease("a", 1, 0, take_over=True)), Refused)
    assert isinstance(transition(launched, TakeLease("a@2", 1, 0)), Next)
    assert isinstance(transition(launched, TakeLease("b", 1, 0)), Next)
    replayed = replace(RAN, lease=None, launch=replace(RAN.launch, operation="a#v2#2"))  # type: ignore[type-var]
    assert isinstance(transition(replayed, TakeLease("a#v1#1", 1, 0, take_over=True)), Refused)
