"""An untracked job: stopped by a marker or a signal, moved in its own offset store, and audited.

The audit uses the job's epochs and snapshots.
"""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_offsets.checkpoint import swap
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.audit.report import AuditReport, DiscontinuityKind
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.restart.model import RestartForm
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED
from airflow_provider_offsets.errors import (
    CheckpointError,
    DriverSilent,
    PlanRefused,
    StateChanged,
    StopTimedOut,
    TakenOver,
)
from airflow_provider_offsets.operations import applying
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import close_and_reconcile, release_lease, take_lease
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.operations.stopping import StopResult
from airflow_provider_offsets.reports import audit_report
from tests.unit.operations.lab import Crash, Lab, install
from tests.unit.operations.steps import apply, launch, launch_applied, plan, start, stop, submit
from tests.unit.operations.test_crash import checkpoints

KINDS = [pytest.param(("checkpoint",), id="in its checkpoint"), pytest.param(("elsewhere",), id="elsewhere")]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda offsets_in, **more: install(Lab(tmp_path, offsets_in=offsets_in, **more), monkeypatch)


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, make: Any) -> Lab:
    made: Lab = make(request.param)
    return made


def rest(lab: Lab, operation: str = "second") -> StopResult:
    """Stop, and take the snapshot that the DAG takes then."""
    stopped = stop(lab, operation)
    lab.session(operation).take_snapshot(WHEN_STOPPED, reason="", taken_at="2026-01-01T00:00:00Z")
    return stopped


def read(lab: Lab) -> None:
    for _ in range(3):
        lab.tick()


def die_in_the_first_batch(lab: Lab, start: str = "committed", *, operation: str) -> None:
    """Launch the job, and make it die in a batch before it has stored its position."""
    launch_applied(lab, apply(lab, start, operation), operation)
    lab.driver.tick()
    if lab.offsets_in == ("checkpoint",):
        lab.stalls = True
        lab.driver.tick()
    lab.driver.die()
    lab.stalls = False


def move_by_hand(lab: Lab, to: int) -> None:
    """Move the position of a job whose position is 100."""
    if lab.offsets_in == ("checkpoint",):
        root = Path(lab.pipeline.job.checkpoint)
        for entry in (root / "offsets").iterdir():
            entry.write_text(entry.read_text().replace("100", str(to)))
    else:
        lab.kept.offsets = lab.at(to, to)


def prune(lab: Lab) -> None:
    """Prune all snapshots that need not be retained."""
    pipeline = replace(lab.pipeline, keep=KeepPolicy(snapshots=1))
    remove(lab.control, pipeline, find_prunable(lab.control, pipeline, at_ms=lab.clock.now_ms()))


def audited(lab: Lab) -> AuditReport:
    return audit_history(lab.session("audit"))


def test_the_first_start_begins_where_the_topic_begins(lab: Lab) -> None:
    lab.kafka.delete_records_before("flights", 0, 40)

    started = start(lab)

    assert started.start == lab.at(40, 0)
    read(lab)
    assert lab.session().observe().stored == lab.at(100, 100)
    assert lab.driver.settings.claim.tracked is False


def test_it_goes_on_where_it_stood_and_new_partitions_begin_at_0(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    lab.kafka.add_partitions("flights", 3)
    lab.feed(7, 2)

    started = submit(lab, apply(lab, operation="second"), "second")

    assert started.start == lab.at(100, 100, 0)
    read(lab)
    assert lab.session().observe().stored == lab.at(100, 100, 7)
    report = audited(lab)
    assert (report.lost, report.replayed, report.unexplained) == (0, 0, ())


@pytest.mark.parametrize("wanted", ["committed", "shift:-30"])
def test_a_start_that_is_gone_before_the_launch_is_no_first_start(wanted: str, lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    applied = apply(lab, wanted, "second")
    lab.kept.offsets = None
    shutil.rmtree(lab.folder / "checkpoint", ignore_errors=True)

    with pytest.raises((StateChanged, CheckpointError), match=r"has no offset of flights|does not exist"):
        submit(lab, applied, "second")

    assert len(lab.drivers) == 1, "nothing was launched"


def test_a_rewind_is_announced_and_explained(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)

    submit(lab, apply(lab, "shift:-30", "second"), "second")

    read(lab)
    report = audited(lab)
    assert (report.lost, report.replayed, report.unexplained) == (0, 60, ())


def test_an_audit_without_a_history_says_what_it_goes_by(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    submit(lab, apply(lab, operation="second"), "second")

    shown = audit_report(audited(lab))

    assert shown.startswith("Audit of delay_alerts: 2 epochs, 200 records read.")
    assert "keeps no history, so neither its batches nor the interval of a backfill can be audited" in shown


def test_a_marker_ends_it_and_is_gone_before_the_next_start(lab: Lab) -> None:
    start(lab)
    marker = Path(lab.pipeline.stop.marker)

    stopped = stop(lab, "second")

    assert (stopped.how, lab.alive) == (EndedHow.STOPPED.value, set())
    assert marker.read_text() == "stop: second upgrade"
    assert lab.signalled == []
    submit(lab, apply(lab, operation="second"), "second")
    assert not marker.exists()
    read(lab)
    assert lab.driver.is_alive


def test_without_a_marker_the_first_stage_is_sigterm(make: Any) -> None:
    lab = make(("checkpoint",), stop=StopPolicy(graceful_timeout_s=1000, signal_timeout_s=5))
    lab.stop = StopPolicy(graceful_timeout_s=1000, signal_timeout_s=5)
    start(lab)
    before_s = lab.clock.now

    with pytest.raises(StopTimedOut):
        stop(lab, "second")

    assert lab.signalled == [signal.SIGTERM]
    assert lab.clock.now - before_s < 10, "nobody waits for an acknowledgement that cannot come"


def leave_on(lab: Lab, number: signal.Signals) -> None:
    """Make the job exit on this signal."""
    lab.clock.on_tick = lambda: lab.driver.die() if number in lab.signalled else None


@pytest.mark.parametrize(
    ("why", "marker", "goes_on", "how", "after"),
    [
        ("SIGTERM is its way to stop", False, signal.SIGTERM, EndedHow.STOPPED, "SIGTERM"),
        ("it was to go on its marker, and did not", True, signal.SIGTERM, EndedHow.KILLED, "SIGTERM"),
        ("it did not go on SIGTERM", False, signal.SIGKILL, EndedHow.KILLED, "SIGKILL"),
    ],
)
def test_what_went_by_itself_was_not_killed(
    why: str, marker: bool, goes_on: signal.Signals, how: EndedHow, after: str, make: Any
) -> None:
    lab = make(("elsewhere",))
    lab.stop = StopPolicy(5, 5, 5, marker=lab.stop.marker if marker else "")
    start(lab)
    lab.stalls = True
    leave_on(lab, goes_on)

    stopped = stop(lab, "second")

    assert (stopped.how, stopped.message) == (how.value, f"pid 100 on worker-1 is gone after {after}")


def test_what_its_jvm_leaves_gets_the_signal_once_the_jvm_is_gone(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make(("elsewhere",))
    lab.stop = StopPolicy(signal_timeout_s=5)
    start(lab)
    leave_on(lab, signal.SIGTERM)
    left: list[int] = []

    def signal_leader(leader: Any, number: signal.Signals) -> bool:
        (lab.signalled if lab.is_alive(leader) else left).append(number)
        return True

    monkeypatch.setattr(lab.machine, "signal_leader", signal_leader)
    monkeypatch.setattr(lab.machine, "is_session_alive", lambda leader: not left)

    assert stop(lab, "second").how == EndedHow.STOPPED.value
    assert (lab.signalled, left) == ([signal.SIGTERM], [signal.SIGTERM])


def test_a_task_that_is_run_again_knows_what_the_one_before_it_sent(make: Any) -> None:
    """The previous try killed the job by force, and was killed before it saw the job exit."""
    lab = make(("elsewhere",))
    lab.stop = StopPolicy(5, 5, 5)
    start(lab)
    with pytest.raises(StopTimedOut):
        stop(lab, "second")
    lab.driver.die()

    assert stop(lab, "second").how == "already killed"


def test_a_request_does_not_take_the_place_of_a_force(make: Any) -> None:
    lab = make(("elsewhere",))
    lab.stop = StopPolicy(5, 5, 5)
    start(lab)
    with pytest.raises(StopTimedOut):
        stop(lab, "second")
    lab.signalled.clear()
    leave_on(lab, signal.SIGTERM)

    assert stop(lab, "second").how == EndedHow.KILLED.value, "SIGKILL was sent to it before, and may have come late"


def test_what_no_log_tells_is_not_said_of_a_batch(make: Any) -> None:
    lab = make(("elsewhere",))
    lab.stop = StopPolicy(signal_timeout_s=5)
    start(lab)
    read(lab)
    lab.feed(50)
    leave_on(lab, signal.SIGTERM)
    lab.stalls = True
    rest(lab)
    lab.stalls = False
    lab.clock.on_tick = lab.tick

    submit(lab, apply(lab, operation="second"), "second")
    read(lab)

    report = audited(lab)
    found = [each for each in report.discontinuities if each.kind is DiscontinuityKind.CUT_OFF]
    assert {each.explanation for each in found} == {"epoch 1 may have started a batch that it did not record"}
    assert report.replayed_at_most == 100


def test_a_job_that_dies_by_itself_is_not_said_to_have_stopped(lab: Lab) -> None:
    start(lab)
    lab.driver.die()

    assert stop(lab, "second").how == f"already {EndedHow.DIED.value}"


def test_what_a_stop_cut_off_is_counted_before_and_after(make: Any) -> None:
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    lab.feed(50)
    lab.stalls = True
    read(lab)
    rest(lab)
    lab.stalls = False

    planned = plan(lab, operation="second")
    submit(lab, apply(lab, operation="second"), "second")
    read(lab)

    assert planned.replay_at_most == 100
    assert planned.replay == 0
    [cut_off] = {each.explanation for each in audited(lab).discontinuities}
    assert cut_off == "batch 2 of epoch 1 was started and not recorded"
    assert audited(lab).replayed_at_most == 100
    assert audited(lab).unexplained == ()


def test_all_that_a_job_with_asynchronous_progress_could_have_read_is_counted(make: Any) -> None:
    """The log of its progress holds the position at its last write, and the job's output may be further."""
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    root = Path(lab.pipeline.job.checkpoint)
    for name in ("offsets/2", "commits/2"):  # Spark writes every third entry, say
        (root / name.replace("2", "4")).write_text((root / name.replace("2", "1")).read_text())
    lab.feed(50)
    rest(lab)

    planned = plan(lab, operation="second")
    submit(lab, apply(lab, operation="second"), "second")
    read(lab)

    assert planned.replay_at_most == 100
    assert (audited(lab).lost, audited(lab).unexplained, audited(lab).replayed_at_most) == (0, (), 100)


def test_a_rewound_job_that_was_never_started_keeps_its_position(lab: Lab) -> None:
    """Otherwise the next plan would rewind from the rewound position, and announce half of the replayed records."""
    start(lab)
    read(lab)
    rest(lab)
    apply(lab, "shift:-30", "second")

    stop(lab, "third", take_over=True)
    again = apply(lab, "shift:-30", "third")

    assert again.plan.start == lab.at(70, 70)
    assert again.plan.replay == 60
    submit(lab, again, "third")
    read(lab)
    report = audited(lab)
    assert (report.lost, report.replayed, report.unexplained) == (0, 60, ())


def test_a_job_that_was_run_by_hand_has_the_position_that_it_reached(lab: Lab) -> None:
    """A recorded move is believed only while the store has the position that the move wrote."""
    start(lab)
    read(lab)
    rest(lab)
    apply(lab, "shift:-30", "second")
    lab.feed(11)
    lab.alive.add(lab.driver.process)
    Path(lab.pipeline.stop.marker).unlink()
    for _ in range(2):  # the batch without records that a seeded checkpoint has planned, and the next one
        lab.driver.tick()

    assert lab.session().observe().stored == lab.at(111, 111)


def test_a_position_that_was_moved_back_by_hand_is_not_taken(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    move_by_hand(lab, 90)

    with pytest.raises(PlanRefused, match="was moved back, or restored from an older copy"):
        apply(lab, operation="second")


def test_one_that_was_moved_forward_by_hand_is_unexplained(lab: Lab) -> None:
    """The operation that stopped the job saw one position. The next finds another, and starts the job there."""
    start(lab)
    read(lab)
    rest(lab)
    release_lease(lab.session("second"))
    lab.feed(50)
    move_by_hand(lab, 120)

    rest(lab, "third")
    submit(lab, apply(lab, operation="third"), "third")
    read(lab)

    prune(lab)
    assert {each.kind for each in audited(lab).unexplained} == {DiscontinuityKind.LOSS}
    assert audited(lab).unexplained_count == 2 * 20


def test_what_was_run_by_hand_between_two_operations_is_read(make: Any) -> None:
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    release_lease(lab.session("second"))
    lab.feed(50)
    lab.alive.add(lab.driver.process)
    Path(lab.pipeline.stop.marker).unlink()
    lab.driver.tick()
    lab.driver.die()

    rest(lab, "third")
    submit(lab, apply(lab, operation="third"), "third")
    read(lab)

    report = audited(lab)
    assert (report.lost, report.replayed, report.unexplained) == (0, 0, ())


def test_a_plan_is_applied_to_the_state_that_it_saw(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    planned = plan(lab, "shift:-30", "second")
    lab.feed(5)
    lab.alive.add(lab.driver.process)
    Path(lab.pipeline.stop.marker).unlink()
    lab.driver.tick()

    with pytest.raises(StateChanged, match="stored was"):
        applying.apply_plan(lab.session("second"), planned)


def test_a_stored_position_that_is_gone_is_no_first_start(make: Any) -> None:
    lab = make(("elsewhere",))
    start(lab)
    read(lab)
    rest(lab)
    lab.kept.offsets = None

    [problem] = plan(lab, operation="second").problems

    assert problem.kind is ProblemKind.POSITION_GONE
    assert plan(lab, "earliest", "third").problems == ()


def test_another_operation_goes_on_in_the_middle_of_a_swap(make: Any) -> None:
    """The operation that began the swap may never return.

    The next one finishes it, and starts where the job's output ends.
    """
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    applied = apply(lab, "shift:-30", "second")
    shutil.move(applied.checkpoint, f"{applied.checkpoint}-seeded-{applied.plan.fingerprint}")

    before = plan(lab, operation="third")
    stop(lab, "third", take_over=True)
    state = read_state(open_checkpoint(applied.checkpoint))
    after = plan(lab, operation="third")

    assert state is not None
    assert state.committed == lab.at(70, 70), "the swap is finished"
    assert [(each.problems, each.start, each.replay) for each in (before, after)] == [((), lab.at(100, 100), 0)] * 2
    with pytest.raises(TakenOver):
        applying.apply_plan(lab.session("second"), applied.plan)


@pytest.mark.parametrize("hangs_in", ["seed", "close"])
@pytest.mark.parametrize("start_of_third", ["committed", "shift:-10"])
def test_an_apply_that_wakes_up_after_it_was_taken_over_exchanges_no_checkpoint(
    start_of_third: str, hangs_in: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs before or after it closes the old checkpoint. The third operation's job dies before it has read."""
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    act = getattr(swap, hangs_in)

    def hung(*arguments: Any, **more: Any) -> Any:
        done = act(*arguments, **more)
        monkeypatch.setattr(swap, hangs_in, act)
        stop(lab, "third", take_over=True)
        lab.session("third").take_snapshot(WHEN_STOPPED, reason="", taken_at="2026-01-02T00:00:00Z")
        launch_applied(lab, apply(lab, start_of_third, "third"), "third")
        if start_of_third == "committed":
            lab.driver.tick()
        lab.driver.die()
        return done

    planned = plan(lab, "shift:-30", "second")
    monkeypatch.setattr(swap, hangs_in, hung)
    with pytest.raises((TakenOver, StateChanged)):
        applying.apply_plan(lab.session("second"), planned)
    stop(lab, "fourth", take_over=True)
    lab.session("fourth").take_snapshot(WHEN_STOPPED, reason="", taken_at="2026-01-03T00:00:00Z")

    assert lab.session("fourth").observe().stored == lab.at(100, 100)
    submit(lab, apply(lab, operation="fourth"), "fourth")
    read(lab)
    assert (audited(lab).lost, audited(lab).replayed, audited(lab).unexplained) == (0, 0, ())


def test_a_try_that_wakes_up_after_another_plan_of_its_operation_moves_nothing(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tries hold the lease, and only the move that the record names shows the job's former position.

    After another move the job would seem to be where it was moved to, and no plan would count what lies between.
    """
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    seed = swap.seed

    def hung(*arguments: Any, **more: Any) -> Any:
        done = seed(*arguments, **more)
        monkeypatch.setattr(swap, "seed", killed)
        with pytest.raises(Crash):
            apply(lab, "shift:-10", "second")
        return done

    def killed(*arguments: Any, **more: Any) -> Any:
        raise Crash("before the move")

    monkeypatch.setattr(swap, "seed", hung)
    with suppress(StateChanged):
        apply(lab, "shift:-30", "second")

    assert lab.session().observe().stored == lab.at(100, 100)


def test_what_somebody_removed_in_the_middle_of_a_swap_is_no_first_start(make: Any) -> None:
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    applied = apply(lab, "shift:-30", "second")
    for left in (applied.checkpoint, f"{applied.checkpoint}-before-{applied.plan.fingerprint}"):
        shutil.rmtree(left)

    with pytest.raises(CheckpointError, match=r"operation .second. was moving"):
        plan(lab, "earliest", "third")


@pytest.mark.parametrize("spell", ["file://{}/checkpoint", "{}//checkpoint/"])
def test_another_spelling_of_its_checkpoint_is_the_same_checkpoint(
    spell: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The apply task is killed after the swap. Its next try does not close the checkpoint that the job starts from."""
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)
    lab.checkpoint = spell.format(lab.folder)
    made = plan(lab, "shift:-30", "second")
    move = applying._move

    def killed(*arguments: Any) -> None:
        move(*arguments)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(applying, "_move", killed)
        with pytest.raises(Crash):
            applying.apply_plan(lab.session("second"), made)
    assert lab.session("second").observe().left is None
    applied = applying.apply_plan(lab.session("second"), made)
    submit(lab, applied, "second")
    read(lab)

    assert made.stood == lab.at(100, 100)
    assert lab.session("second").observe().stored == lab.at(100, 100)
    assert (audited(lab).lost, audited(lab).replayed, audited(lab).unexplained) == (0, 60, ())


def test_the_state_of_a_job_that_was_tracked_is_not_left_behind(make: Any) -> None:
    """Its driver was killed between the record of a batch and Spark's commit; it opens another checkpoint now."""
    lab = make(())
    start(lab)
    read(lab)
    lab.feed(10)
    recorded = lab.driver.plan()
    lab.driver.record(lab.driver.begin(recorded))
    lab.driver.die()
    (Path(lab.pipeline.job.checkpoint) / "state" / "0").mkdir(parents=True)
    lab.offsets_in, lab.checkpoint = ("checkpoint",), str(lab.folder / "another")
    lab.more |= {"tracked": False, "offsets_in": lab.offsets_in}
    lab.stop = replace(lab.stop, marker=str(lab.folder / "stop"))
    stop(lab, "second")

    made = plan(lab, operation="second")

    assert made.start == lab.at(110, 110)
    assert [each.kind for each in made.problems] == [ProblemKind.STATEFUL_REPOSITION]


@pytest.fixture
def in_object_store(make: Any) -> Iterator[Lab]:
    place = f"/{uuid.uuid4().hex}"
    yield make(("checkpoint",), checkpoint=f"memory:/{place}/checkpoint")
    fsspec.filesystem("memory").rm(place, recursive=True)


def test_in_an_object_store_it_is_started_and_goes_on(in_object_store: Lab) -> None:
    lab = in_object_store
    lab.kafka.delete_records_before("flights", 0, 40)

    started = start(lab)
    read(lab)
    rest(lab)
    lab.feed(10)
    resumed = apply(lab, operation="second")
    submit(lab, resumed, "second")
    read(lab)

    assert started.start == lab.at(40, 0)
    assert resumed.plan.form is RestartForm.RESUME
    assert lab.session().observe().stored == lab.at(110, 110)
    report = audited(lab)
    assert (report.lost, report.replayed, report.unexplained) == (0, 0, ())


def test_in_an_object_store_it_is_not_moved_and_the_plan_says_so_while_it_runs(in_object_store: Lab) -> None:
    lab = in_object_store
    start(lab)
    read(lab)

    [problem] = plan(lab, "shift:-30", "second").problems

    assert problem.kind is ProblemKind.CHECKPOINT_STAYS
    assert lab.driver.is_alive
    with pytest.raises(PlanRefused):
        apply(lab, "shift:-30", "second")
    assert lab.session().observe().stored == lab.at(100, 100)


def test_the_old_checkpoint_stays_beside_the_seeded_one(make: Any) -> None:
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    rest(lab)

    applied = apply(lab, "shift:-30", "second")

    assert applied.plan.form is RestartForm.REPOSITION
    old = read_state(open_checkpoint(f"{applied.checkpoint}-before-{applied.plan.fingerprint}"))
    assert old is not None
    assert old.committed == lab.at(100, 100)
    new = read_state(open_checkpoint(applied.checkpoint))
    assert new is not None
    assert new.query_id == old.query_id
    assert new.last_batch_id > old.last_batch_id, "a sink that knows batches by their ids sees new ones"


def test_a_job_with_nothing_to_read_is_started_once_it_has_lived_for_a_while(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)

    applied, began_s = apply(lab, operation="second"), lab.clock.now
    started = submit(lab, applied, "second")

    assert started.how == "runs for 15 s, with nothing to read"
    assert lab.clock.now - began_s >= 15


def test_a_start_ends_the_lease(lab: Lab) -> None:
    """The program does not know of the lease, so the submit releases it."""
    start(lab)

    assert lab.holder == ""


def test_a_launch_that_was_cancelled_never_becomes_the_program(lab: Lab) -> None:
    """The process that claims is the one that becomes spark-submit: if it is refused, it exits (A17)."""
    start(lab)
    read(lab)
    rest(lab)
    launch(lab, "shift:-30", "second")

    assert stop(lab, "third", take_over=True).how == EndedHow.CANCELLED.value

    read(lab)
    assert lab.alive == set()
    assert lab.session().observe().stored == lab.at(100, 100), "it stands where its output ends, whatever was moved"


def test_a_move_is_recorded_before_the_store_is_changed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a task killed in between leaves a rewound store, which the next plan takes for the position."""
    start(lab)
    read(lab)
    rest(lab)
    noted: list[str] = []

    def look(*arguments: Any, **more: Any) -> Any:
        intent = lab.record.intent
        noted.append("" if intent is None else intent.operation)
        raise Crash("before the move")

    monkeypatch.setattr(lab.kept, "write", look)
    monkeypatch.setattr(applying, "swap_in", look)
    with pytest.raises(Crash):
        apply(lab, "shift:-30", "second")

    assert noted == ["second"]
    assert lab.session().observe().stored == lab.at(100, 100)


def test_an_operation_that_was_taken_over_moves_nothing(lab: Lab) -> None:
    start(lab)
    read(lab)
    rest(lab)
    planned = plan(lab, "shift:-30", "second")
    take_lease(lab.session("third"), take_over=True)
    before = checkpoints(lab.folder), lab.kept.offsets

    with pytest.raises(TakenOver):
        applying.apply_plan(lab.session("second"), planned)

    assert (checkpoints(lab.folder), lab.kept.offsets) == before
    assert lab.record.intent is None


def test_a_job_that_has_records_to_read_and_reads_none_is_not_started(make: Any) -> None:
    lab = make(("checkpoint",), stalls=True)

    with pytest.raises(DriverSilent):
        start(lab)


def test_what_was_in_flight_when_an_operation_planned_again_is_in_the_audit(lab: Lab) -> None:
    """The operation's snapshot of the stopped job is older than its first launch.

    The second launch was cancelled, unclaimed.
    """
    start(lab)
    read(lab)
    rest(lab)
    lab.feed(7)
    die_in_the_first_batch(lab, operation="second")
    launch_applied(lab, apply(lab, operation="second"), "second")
    lab.driver.die()
    close_and_reconcile(lab.session("second"))

    submit(lab, apply(lab, operation="second"), "second")
    read(lab)

    report = audited(lab)
    assert (report.lost, report.replayed, report.replayed_at_most, report.unexplained) == (0, 0, 14, ())


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "taken for running"])
@pytest.mark.parametrize("is_recreated", [False, True], ids=["same topic", "recreated topic"])
def test_a_batch_that_started_twice_and_was_never_stored_may_be_replayed_twice(
    is_recreated: bool, is_noticed: bool, lab: Lab
) -> None:
    """The ends of a recreated topic show nothing of what was read of the old one."""
    start(lab)
    read(lab)
    rest(lab)
    lab.kafka.add_partitions("flights", 3)
    lab.feed(7, 2)
    die_in_the_first_batch(lab, operation="second")
    stop(lab, "third", take_over=True)
    rest(lab, "third")
    die_in_the_first_batch(lab, operation="third")

    if is_recreated:
        lab.kafka.recreate_topic("flights", 4)
    if is_noticed:
        stop(lab, "fourth", take_over=True)

    report = audited(lab)
    assert (report.lost, report.replayed, report.replayed_at_most, report.unexplained) == (0, 0, 7, ())
    [cut_off] = report.discontinuities
    assert (cut_off.kind, cut_off.range) == (DiscontinuityKind.CUT_OFF, OffsetRange("flights", 2, 0, 7))


def test_a_plan_counts_what_a_running_job_may_have_read_of_a_new_partition(lab: Lab) -> None:
    """The job's checkpoint names the partition once a batch of it is committed."""
    start(lab)
    read(lab)
    rest(lab)
    lab.kafka.add_partitions("flights", 3)
    lab.feed(7, 2)
    launch_applied(lab, apply(lab, operation="second"), "second")
    lab.driver.tick()

    assert lab.session("third").observe().in_flight == (OffsetRange("flights", 2, 0, 7),)
    assert plan(lab, operation="third").replay_at_most == 7


def test_what_a_rewound_job_wrote_of_a_topic_that_is_gone_is_bounded_by_what_was_read(make: Any) -> None:
    lab = make(("elsewhere",))
    start(lab)
    read(lab)
    rest(lab)
    die_in_the_first_batch(lab, "shift:-30", operation="second")

    lab.kafka.recreate_topic("flights", 1)
    stop(lab, "third", take_over=True)

    assert (audited(lab).replayed, audited(lab).replayed_at_most, audited(lab).unexplained) == (0, 60, ())


def test_a_plan_counts_what_a_job_with_asynchronous_progress_may_have_read_of_a_new_partition(make: Any) -> None:
    lab = make(("checkpoint",))
    start(lab)
    read(lab)
    root = Path(lab.pipeline.job.checkpoint)
    for name in ("offsets/2", "commits/2"):  # Spark writes every third entry, say
        (root / name.replace("2", "4")).write_text((root / name.replace("2", "1")).read_text())
    rest(lab)
    lab.kafka.add_partitions("flights", 3)
    lab.feed(7, 2)
    die_in_the_first_batch(lab, operation="second")
    stop(lab, "third", take_over=True)

    assert plan(lab, operation="third").replay_at_most == 7


def test_what_was_read_of_a_partition_that_no_record_names_is_counted_once_the_position_is_gone(make: Any) -> None:
    """It was new after the last launch and the last snapshot, so it looks like a partition that nobody has read."""
    lab = make(("elsewhere",))
    start(lab)
    read(lab)
    lab.kafka.add_partitions("flights", 3)
    lab.feed(7, 2)
    read(lab)
    lab.driver.die()
    lab.kept.offsets = None
    rest(lab)

    assert OffsetRange("flights", 2, 0, 7) in lab.session("second").observe().in_flight
    submit(lab, apply(lab, "earliest", "second"), "second")
    read(lab)
    found = {each.range for each in audited(lab).discontinuities if each.kind is DiscontinuityKind.CUT_OFF}
    assert OffsetRange("flights", 2, 0, 7) in found


def test_a_second_store_that_is_further_tells_where_a_job_stopped_whose_checkpoint_is_gone(make: Any) -> None:
    """The job was killed after its output and before Spark's commit.

    An earlier snapshot of the stopped job uses the checkpoint.
    """
    lab = make(("checkpoint", "elsewhere"))
    start(lab)
    read(lab)
    lab.feed(10)
    lab.kept.offsets = lab.at(110, 110)
    lab.driver.die()
    rest(lab)
    shutil.rmtree(lab.pipeline.job.checkpoint)
    stop(lab, "third", take_over=True)
    rest(lab, "third")

    submit(lab, apply(lab, f"offsets:{lab.at(110, 110).to_json()}", "third"), "third")
    read(lab)

    assert (audited(lab).lost, audited(lab).replayed, audited(lab).unexplained) == (0, 0, ())
