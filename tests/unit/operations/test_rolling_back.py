"""Rollback of an operation: the previous version and position, and a list of what the bad version wrote."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.audit.report import DiscontinuityKind
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.record.events import MarkGood
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPolicy
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED, Observation
from airflow_provider_offsets.errors import DriverDied, Fenced, RollbackRefused, StopTimedOut, TakenOver
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.job_state import end_of
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S
from airflow_provider_offsets.operations.planning import make_plan, recorded_plan
from airflow_provider_offsets.operations.recovering import as_it_ran, begin_recovery
from airflow_provider_offsets.operations.rolling_back import Output, Rollback, roll_back, why_no_way_back
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher, submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, SECRETS, TOPIC, Crash, Driver, Fuse, Lab, Moment, install, kills
from tests.unit.operations.test_crash import anonymous, checkpoints

KINDS = {"tracked": (), "in its checkpoint": ("checkpoint",), "elsewhere": ("elsewhere",)}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    def lab(offsets_in: tuple[str, ...] = ()) -> Lab:
        folder = tmp_path / "lab"
        made = Lab(folder, offsets_in=offsets_in)
        made.wipe()
        deploy(made, "version 1")
        return install(made, monkeypatch)

    return lab


@pytest.fixture
def lab(make: Callable[..., Lab]) -> Lab:
    return make()


def deploy(lab: Lab, text: str) -> None:
    Path(lab.pipeline.job.application).write_text(text)


def run_until_idle(lab: Lab) -> None:
    for _ in range(4):
        lab.tick()


def run_well(lab: Lab) -> None:
    """Run the previous version until it has read 100 records of each partition."""
    steps.start(lab, operation="first")
    run_until_idle(lab)
    lab.feed(50)


def upgrade(
    lab: Lab, start: str = "committed", operation: str = "op", *, when_stopped: Callable[[], None] = lambda: None
) -> None:
    """Run the maintenance ``op``: it stops the job, and starts another version of it."""
    steps.stop(lab, operation)
    lab.session(operation).take_snapshot(WHEN_STOPPED, reason="", taken_at="2026-01-01T00:00:00Z")
    when_stopped()
    deploy(lab, "version 2")
    steps.submit(lab, steps.apply(lab, start, operation), operation)


def fail(lab: Lab) -> None:
    """Make the bad version read 50 more records of each partition, and exit."""
    run_until_idle(lab)
    lab.driver.end(EndedHow.FAILED, "ValueError: third batch") if lab.pipeline.tracked else lab.driver.die()


def undo(lab: Lab, operation: str = "op") -> Rollback:
    def launcher_of(pipeline: StreamingPipeline) -> Launcher:
        return Launcher(lambda conf: [Path(pipeline.job.application).read_text(), *lab.command(conf)], SECRETS)

    return roll_back(lab.session(operation), launcher_of, reason="unhealthy")


def ran(lab: Lab) -> str:
    """Return the program that was launched last."""
    return next(word for word in lab.commands[-1] if word.startswith("version"))


@pytest.mark.parametrize("offsets_in", KINDS.values(), ids=KINDS)
def test_version_and_position_of_before_run_again(offsets_in: tuple[str, ...], make: Callable[..., Lab]) -> None:
    lab = make(offsets_in)
    run_well(lab)
    upgrade(lab)
    fail(lab)

    done = undo(lab)

    assert ran(lab) == "version 1"
    assert done.start == lab.at(100, 100)
    assert (done.epoch, done.target, done.undone, done.replay) == (3, 1, (2,), 100)
    assert done.output == Output((OffsetRange(TOPIC, 0, 100, 150), OffsetRange(TOPIC, 1, 100, 150)))
    run_until_idle(lab)
    assert lab.session().observe().stored == lab.at(150, 150)
    report = audit_history(lab.session("audit"))
    assert (report.lost, report.skipped, report.unexplained) == (0, 0, ())
    assert report.replayed == 100
    replays = [each for each in report.discontinuities if each.kind is DiscontinuityKind.REPLAY]
    assert {each.explanation for each in replays} == {"announced by op#rollback"}
    assert undo(lab) == done, "done again it changes nothing"
    assert len(lab.drivers) == 3


def test_each_check_observes_the_session_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second observation of one check could see another state, and the refusal would mix both."""
    run_well(lab)
    upgrade(lab)
    run_until_idle(lab)
    observed: list[str] = []
    observe = Session.observe

    def counted(session: Session) -> Observation:
        observed.append("planned" if recorded_plan(session) is not None else lab.record.phase.value)
        return observe(session)

    monkeypatch.setattr(Session, "observe", counted)
    undo(lab)

    assert observed[:4] == ["running", "stopped", "stopped", "planned"], "check, snapshot and plan"


def test_no_batch_id_is_used_again_if_the_checkpoint_is_gone(make: Callable[..., Lab]) -> None:
    """A sink that identifies a batch by its id drops new records under an id that it has."""
    lab = make(KINDS["in its checkpoint"])
    run_well(lab)
    upgrade(lab)
    lab.driver.die()
    stopped = lab.control.snapshot(f"op#{WHEN_STOPPED}").seen.checkpoint
    shutil.rmtree(lab.pipeline.job.checkpoint)

    undo(lab)

    plan = recorded_plan(lab.session("op#rollback"))
    assert stopped is not None
    assert plan is not None
    assert (plan.form, plan.last_batch_id) == (RestartForm.REPOSITION, stopped.committed_batch_id)


def test_a_bad_version_that_still_runs_is_stopped_first(lab: Lab) -> None:
    run_well(lab)
    upgrade(lab)
    bad = lab.driver

    undo(lab)

    assert not bad.is_alive
    ended = end_of(lab.control, 2)
    assert ended is not None
    assert ended.how is EndedHow.STOPPED


def test_one_that_does_not_stop_is_not_replaced_until_it_does(lab: Lab) -> None:
    run_well(lab)
    upgrade(lab)
    bad = lab.driver
    bad.obeys = False
    lab.clock.on_tick = lambda: None

    with pytest.raises(StopTimedOut):
        undo(lab)
    bad.obeys = True
    lab.clock.on_tick = lab.tick

    assert undo(lab).epoch == 3


@pytest.mark.parametrize("offsets_in", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("start", ["committed", "shift:-30"])
def test_a_version_that_never_claimed_its_launch(
    start: str, offsets_in: tuple[str, ...], make: Callable[..., Lab]
) -> None:
    """The submit died: the checkpoint is seeded and the old one closed, or the store is moved; nothing has run."""
    lab = make(offsets_in)
    run_well(lab)
    run_until_idle(lab)
    stood = lab.session().observe().stored
    lab.on_launch = lambda driver: driver.die("SyntaxError")
    with pytest.raises(DriverDied):
        upgrade(lab, start)
    lab.on_launch = lambda driver: None

    done = undo(lab)

    assert ran(lab) == "version 1"
    assert (done.epoch, done.target, done.undone, done.start) == (3, 1, (), stood), "the launch was cancelled"
    assert (done.replay, done.output) == (0, Output())
    lab.feed(10)
    run_until_idle(lab)
    report = audit_history(lab.session("audit"))
    assert (report.lost, report.skipped, report.replayed, report.unexplained) == (0, 0, 0, ())


def test_a_driver_of_the_bad_version_that_would_claim_late_never_does(lab: Lab) -> None:
    """The task died after the launch: its driver is slow, and its launch is cancelled."""
    run_well(lab)

    def launched(driver: Driver) -> None:
        if len(lab.drivers) == 2:
            raise Crash

    lab.on_launch = launched
    with pytest.raises(Crash):
        upgrade(lab)
    orphan = lab.driver

    done = undo(lab)

    assert (done.epoch, done.undone) == (3, ())
    assert not orphan.epoch
    assert not orphan.is_alive
    assert ran(lab) == "version 1"
    run_until_idle(lab)
    assert audit_history(lab.session("audit")).unexplained == ()


def test_what_a_rewind_had_not_read_again_is_no_skip(lab: Lab) -> None:
    """A reprocess from an earlier point dies at once: the previous version has read all that, and continues."""
    run_well(lab)

    def claims_and_fails(driver: Driver) -> None:
        driver._claim()
        driver.end(EndedHow.FAILED, "ValueError")

    lab.on_launch = claims_and_fails
    with pytest.raises(DriverDied):
        upgrade(lab, "shift:-80")
    lab.on_launch = lambda driver: None

    done = undo(lab)

    assert (done.start, done.undone) == (lab.at(100, 100), (2,)), "the previous version reads what was fed since"
    run_until_idle(lab)
    report = audit_history(lab.session("audit"))
    assert (report.lost, report.skipped, report.unexplained, report.replayed) == (0, 0, (), 0)


def test_a_partition_that_was_made_since_begins_at_0(lab: Lab) -> None:
    def grow() -> None:
        lab.kafka.add_partitions(TOPIC, 3)
        lab.feed(7, 2)

    run_well(lab)
    upgrade(lab, when_stopped=grow)
    fail(lab)

    done = undo(lab)

    assert done.start == lab.at(100, 100, 0)
    assert done.replay == 107
    run_until_idle(lab)
    assert audit_history(lab.session("audit")).unexplained == ()


def test_run_again_after_its_rollback_it_can_be_rolled_back_again(lab: Lab) -> None:
    """Somebody clears the run; the second version fails again."""
    run_well(lab)
    upgrade(lab)
    fail(lab)
    first = undo(lab)
    run_until_idle(lab)
    lab.feed(20)
    upgrade(lab, operation="op@2")
    fail(lab)

    second = undo(lab, "op@2")

    assert (first.epoch, second.epoch, second.target, second.undone) == (3, 5, 3, (4,))
    assert second.start == lab.at(150, 150)
    assert ran(lab) == "version 1"
    run_until_idle(lab)
    report = audit_history(lab.session("audit"))
    assert (report.lost, report.unexplained) == (0, ())


class TestClearedRun:
    """A run whose version fails is cleared, and deploys it once more."""

    def test_every_attempt_is_undone(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        lab.feed(20)
        upgrade(lab, "shift:-80", operation="op@2")
        fail(lab)
        assert why_no_way_back(lab.session("op@2")) == ""

        done = undo(lab, "op@2")

        assert (done.epoch, done.target, done.undone) == (4, 1, (2, 3))
        assert done.start == lab.at(100, 100), "where the job stood before the first attempt"
        assert ran(lab) == "version 1"
        assert done.output.finished == tuple(OffsetRange(TOPIC, each, 70, 170) for each in (0, 1))
        run_until_idle(lab)
        report = audit_history(lab.session("audit"))
        assert (report.lost, report.skipped, report.unexplained) == (0, 0, ())

    def test_what_it_skipped_was_not_output(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        lab.feed(40)
        steps.stop(lab, "op@2")
        skipping = RestartPolicy(accept_skipped={TOPIC: 60})
        session = lab.session("op@2")
        steps.submit(lab, apply_plan(session, make_plan(session, "shift:+30", skipping)), "op@2")
        fail(lab)

        done = undo(lab, "op@2")

        parts = [(100, 150), (180, 190)]
        assert done.output.finished == tuple(OffsetRange(TOPIC, each, *part) for each in (0, 1) for part in parts)
        run_until_idle(lab)
        assert audit_history(lab.session("audit")).unexplained == ()

    def test_one_that_was_found_good_is_what_it_goes_back_to(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        run_until_idle(lab)
        lab.session().cell.change(MarkGood(2))
        lab.feed(20)
        upgrade(lab, operation="op@2")
        fail(lab)

        done = undo(lab, "op@2")

        assert (done.target, done.undone, done.start) == (2, (3,), lab.at(150, 150))

    @pytest.mark.parametrize(("deployed", "undone"), [("version 2", (2, 3, 4)), ("version 3", (4,))])
    def test_nor_does_it_go_back_to_a_recovery_of_its_version(
        self, deployed: str, undone: tuple[int, ...], lab: Lab
    ) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        deploy(lab, deployed)
        begin_recovery(lab.session(recovery_of(2)), 2, "run", RecoveryPolicy())
        steps.submit(lab, steps.apply(lab, operation=recovery_of(2)), recovery_of(2))
        fail(lab)
        upgrade(lab, operation="op@2")
        fail(lab)

        assert undo(lab, "op@2").undone == undone

    def test_another_run_between_its_attempts_is_not_undone(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        run_until_idle(lab)
        deploy(lab, "version 3")
        steps.start(lab, operation="other")
        run_until_idle(lab)
        upgrade(lab, operation="op@2")
        fail(lab)

        done = undo(lab, "op@2")

        assert (done.target, done.undone) == (3, (4,))


@pytest.mark.parametrize(
    ("good", "version", "reason"),
    [
        (0, "version 2", "none was ever found good: the newest one"),
        (1, "version 1", "version 2 was left running, and was never found good"),
        (2, "version 2", "it is the newest good one"),
        (3, "version 2", "the one that is undone does not count, however good"),
    ],
)
def test_it_goes_back_to_the_newest_good_version(good: int, version: str, reason: str, lab: Lab) -> None:
    run_well(lab)
    upgrade(lab, operation="earlier")
    run_until_idle(lab)
    lab.feed(10)
    steps.stop(lab, "op")
    deploy(lab, "version 3")
    steps.submit(lab, steps.apply(lab), "op")
    for number in range(1, good + 1):
        lab.session().cell.change(MarkGood(number))
    assert why_no_way_back(lab.session("op")) == ""

    done = undo(lab)

    assert ran(lab) == version, reason
    assert done.start == lab.at(150, 150), "whichever version it is, from where the job stood before the operation"


class TestRecovery:
    """A rolled-back job dies later, and its recovery starts it again automatically."""

    def recover(self, lab: Lab, dead: int) -> str:
        operation = recovery_of(dead)
        begin_recovery(lab.session(operation), dead, "run", RecoveryPolicy())
        applied = steps.apply(lab, operation=operation)
        session = as_it_ran(lab.session(operation))
        application = Path(session.pipeline.job.application)
        submit_job(session, applied, Launcher(lambda conf: [application.read_text(), *lab.command(conf)], SECRETS))
        return ran(lab)

    @pytest.mark.parametrize("bad", ["ran", "never claimed"])
    def test_it_does_not_start_what_was_undone(self, bad: str, lab: Lab) -> None:
        run_well(lab)
        if bad == "ran":
            upgrade(lab)
            fail(lab)
        else:
            lab.on_launch = lambda driver: driver.die("SyntaxError")
            with pytest.raises(DriverDied):
                upgrade(lab)
            lab.on_launch = lambda driver: None
        back = undo(lab)
        run_until_idle(lab)
        lab.driver.die()

        assert self.recover(lab, back.epoch) == "version 1"

        lab.driver.die()
        assert self.recover(lab, back.epoch + 1) == "version 1", "nor does the recovery of the recovery"

    def test_what_was_deployed_since_is_started(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        back = undo(lab)
        run_until_idle(lab)
        lab.driver.die()
        deploy(lab, "version 3")

        assert self.recover(lab, back.epoch) == "version 3"

    def test_nor_does_it_start_the_copy_in_another_way_than_it_ran(self, make: Callable[..., Lab]) -> None:
        lab = make(KINDS["in its checkpoint"])
        run_well(lab)
        upgrade(lab)
        fail(lab)
        back = undo(lab)
        run_until_idle(lab)
        lab.driver.die()
        lab.offsets_in, lab.more = (), {}

        with pytest.raises(
            RollbackRefused, match=r"epoch 3 ran with 'tracked: false'.*Start the program that you want"
        ):
            self.recover(lab, back.epoch)

    def test_any_other_operation_starts_what_is_deployed(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        undo(lab)

        session = lab.session("next")
        assert as_it_ran(session) is session


class TestRefused:
    def refuse(self, lab: Lab, kind: type[Exception] = RollbackRefused) -> str:
        """Return the message of a refusal, after a check that nothing has changed."""
        cells = dict(lab.store.scan(lab.pipeline.name, ""))
        drivers, files = len(lab.drivers), checkpoints(lab.folder)
        with pytest.raises(kind) as refused:
            undo(lab)
        after = {name: text for name, text in lab.store.scan(lab.pipeline.name, "") if name != "operation/op#rollback"}
        assert (after, len(lab.drivers), checkpoints(lab.folder)) == (cells, drivers, files)
        return str(refused.value)

    def test_no_batch_was_started(self, lab: Lab) -> None:
        """The operation's plan was refused: the job runs as before."""
        run_well(lab)
        steps.plan(lab)

        assert "it has applied no plan" in self.refuse(lab)
        assert lab.driver.is_alive

    def test_the_first_start(self, lab: Lab) -> None:
        upgrade(lab)
        fail(lab)

        assert "there is no previous version" in self.refuse(lab)

    def test_an_older_release_kept_nothing(self, lab: Lab) -> None:
        run_well(lab)
        [epoch] = lab.control.epochs()
        name = f"launch/00000001/{epoch.claim.tag}"
        forgotten = codec.dumps(replace(epoch.claim, version=""))
        lab.store.check_and_put(NAME, name, lab.store.get(NAME, name), forgotten)
        upgrade(lab)

        assert "kept no copy" in self.refuse(lab)
        assert lab.driver.is_alive, "unhealthy is better than nothing"

    def test_the_bytes_are_gone(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        for copy in (lab.folder / "logs").rglob("applications/*/job.py"):
            copy.unlink()

        assert "job.py is gone" in self.refuse(lab)
        assert lab.driver.is_alive

    @pytest.mark.parametrize(
        ("offsets_in", "changes", "seen"),
        [
            (("checkpoint",), {"offsets_in": (), "more": {}}, "epoch 1 ran with 'tracked: false'"),
            (
                ("elsewhere",),
                {"more": {"tracked": False, "offsets_in": ("checkpoint", "elsewhere")}},
                "epoch 1 kept its offsets in 'elsewhere'",
            ),
            (("checkpoint",), {"checkpoint": "sub/other"}, "epoch 1 ran on the checkpoint"),
        ],
        ids=["tracked", "offsets_in", "checkpoint"],
    )
    def test_the_previous_program_would_run_in_another_way_than_it_did(
        self, offsets_in: tuple[str, ...], changes: dict[str, Any], seen: str, make: Callable[..., Lab]
    ) -> None:
        """An untracked program in a tracked pipeline would run without an epoch, and nobody would record its batches.

        One that starts from another store than the pipeline would read again what it has read, without a count.
        """
        lab = make(offsets_in)
        run_well(lab)
        for name, value in changes.items():
            setattr(lab, name, str(lab.folder / value) if name == "checkpoint" else value)
        lab.on_launch = lambda driver: driver.die("SyntaxError")
        with pytest.raises(DriverDied):
            upgrade(lab, f"offsets:{lab.at(100, 100).to_json()}")
        lab.on_launch = lambda driver: None

        words = self.refuse(lab)

        assert seen in words
        assert "Nothing was changed" in words
        assert seen in why_no_way_back(lab.session())

    def test_the_previous_program_would_read_other_topics(
        self, make: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An untracked program reads a topic that is not in its checkpoint from the beginning, without a count."""
        lab, described = make(KINDS["in its checkpoint"]), Lab.pipeline.fget
        assert described is not None
        lab.kafka.create_topic("more", partitions=1)
        both = property(lambda lab: replace(described(lab), topics=(TOPIC, "more")))
        with monkeypatch.context() as patch:
            patch.setattr(Lab, "pipeline", both)
            lab.on_launch = Driver._claim
            steps.stop(lab, "first")
            steps.launch_applied(lab, steps.apply(lab, operation="first"), "first")
        lab.driver.die()
        lab.on_launch = lambda driver: driver.die("SyntaxError")
        lab.clock.now += 10 * LEASE_TIMEOUT_S
        with pytest.raises(DriverDied):
            upgrade(lab, "earliest")
        lab.on_launch = lambda driver: None

        assert "epoch 1 read the topics ['flights', 'more']" in self.refuse(lab)

    def test_retention_has_deleted_what_would_be_read_again(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        run_until_idle(lab)
        lab.kafka.delete_records_before(TOPIC, 0, 120)

        words = self.refuse(lab)

        assert "loss: 20 offsets" in words
        assert "Nothing was changed" in words
        assert lab.driver.is_alive

    def test_retention_during_the_stop(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        run_until_idle(lab)
        tick = lab.clock.on_tick

        def stop_and_delete() -> None:
            tick()
            lab.kafka.delete_records_before(TOPIC, 0, 120)

        lab.clock.on_tick = stop_and_delete
        with pytest.raises(RollbackRefused, match=r"loss: 20 offsets.*The job is stopped"):
            undo(lab)

        assert lab.alive == set()

    def test_the_topic_was_made_again(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        lab.kafka.delete_topic(TOPIC)
        lab.kafka.create_topic(TOPIC, partitions=2)
        lab.feed(200)

        assert "topic recreated" in self.refuse(lab)

    def test_somebody_else_has_started_the_job_since(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        begin_recovery(lab.session(recovery_of(2)), 2, "run", RecoveryPolicy())
        steps.submit(lab, steps.apply(lab, operation=recovery_of(2)), recovery_of(2))

        refused = self.refuse(lab, Fenced)
        assert "'recovery/00000002' has started or stopped the job" in refused
        assert "deploy the previous version" in refused, "the bad version runs again: somebody has to act"
        assert "snapshot:op#stopped" in refused
        assert lab.driver.is_alive

    def test_somebody_else_is_about_to_start_the_job(self, lab: Lab) -> None:
        run_well(lab)
        upgrade(lab)
        fail(lab)
        begin_recovery(lab.session(recovery_of(2)), 2, "run", RecoveryPolicy())

        assert "'recovery/00000002' has started or stopped the job" in self.refuse(lab, Fenced)

    def test_somebody_else_has_stopped_the_job_since(self, lab: Lab) -> None:
        """The rollback does not start a job that somebody else works on."""
        run_well(lab)
        upgrade(lab)
        steps.stop(lab, "by hand")
        lab.clock.now += 10 * LEASE_TIMEOUT_S

        assert "'by hand' has started or stopped the job" in self.refuse(lab, Fenced)

    def test_somebody_takes_it_over_in_the_middle(self, lab: Lab) -> None:
        """The rollback ends, and the other operation's changes prevail."""
        run_well(lab)
        upgrade(lab)
        fail(lab)
        lab.on_launch = lambda driver: steps.stop(lab, "by hand", take_over=True) and None

        with pytest.raises(TakenOver, match="'by hand'"):
            undo(lab)

        assert not lab.driver.epoch
        with pytest.raises(Fenced, match="'by hand'"):
            undo(lab)


def test_whether_there_is_a_way_back_is_known_beforehand(lab: Lab) -> None:
    assert why_no_way_back(lab.session()) == "there is no previous version"
    run_well(lab)
    assert why_no_way_back(lab.session()) == ""
    for copy in (lab.folder / "logs").rglob("applications/*/job.py"):
        copy.write_text("somebody's")
    assert "is not what was kept" in why_no_way_back(lab.session())


def end_state(lab: Lab) -> dict[str, Any]:
    done = lab.control.step("op#rollback", "rolled back", Rollback)
    operation = lab.control.operation("op#rollback")
    assert operation is not None
    return {
        "epochs": [anonymous(epoch) for epoch in lab.control.epochs()],
        "ended": [epoch.ended and epoch.ended.how for epoch in lab.control.epochs()],
        "batches": list(lab.store.oldest_first(lab.pipeline.stream)),
        "checkpoints": checkpoints(lab.folder),
        "kept elsewhere": lab.kept.offsets,
        "done": done and replace(done, log=""),
        "steps": sorted(operation.steps),
        "drivers that live": len(lab.alive),
        "audit": audit_history(lab.session("audit")),
    }


@pytest.mark.sweep
@pytest.mark.parametrize("offsets_in", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("bad", ["runs", "failed", "never claimed"])
def test_killed_at_any_write_and_run_again_it_ends_the_same(
    bad: str,
    offsets_in: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a kill leaves an orphan, it claims before its twin in one run, and after it in another."""

    def before_the_rollback() -> Moment:
        with monkeypatch.context() as patch:
            lab = Lab(tmp_path / "lab", offsets_in=offsets_in)
            lab.wipe()
            deploy(lab, "version 1")
            install(lab, patch)
            run_well(lab)
            if bad == "never claimed":
                lab.on_launch = lambda driver: driver.die("SyntaxError")
                with pytest.raises(DriverDied):
                    upgrade(lab)
                lab.on_launch = lambda driver: None
            else:
                upgrade(lab)
                fail(lab) if bad == "failed" else run_until_idle(lab)
            assert not lab.had_two_drivers, "up to here, it does not matter which driver acts first"
            return Moment(lab)

    def attempt(k: int, after: bool = False, newest_first: bool = False) -> tuple[dict[str, Any], Fuse, Lab]:
        with monkeypatch.context() as patch:
            lab = install(moment.copy(), patch)
            lab.newest_first = newest_first
            fuse = lab.fuse = Fuse(k, after, state=None if k else lab.state)
            try:
                with fuse.lit():
                    undo(lab)
            except Crash:
                undo(lab)
            run_until_idle(lab)
            return end_state(lab), fuse, lab

    moment = before_the_rollback()
    expected, undisturbed, _ = attempt(0)
    assert expected["drivers that live"] == 1
    assert expected["done"] is not None
    assert undisturbed.writes >= 8, "opening, stop, snapshot, output, plan, apply, launch, the record of each"
    orphans = 0
    for k, after in kills(undisturbed):
        state, fuse, lab = attempt(k, after)
        assert fuse.is_blown
        assert state == expected, f"killed {'after' if after else 'before'} write {k}"
        if lab.had_two_drivers:
            orphans += 1
            state, _, _ = attempt(k, after, newest_first=True)
            assert state == expected, f"killed at write {k}, and the orphan claims last"
    assert orphans == 1, "a kill between the launch and its record, and no other, leaves an orphan"
