"""A job that died is detected, started again a limited number of times, and then left to a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.errors import (
    DriverDied,
    DriverSilent,
    LeaseHeld,
    NothingToRecover,
    RecoveryGivenUp,
    TakenOver,
)
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S, take_lease
from airflow_provider_offsets.operations.recovering import (
    DeathWatch,
    SilenceWatch,
    as_it_ran,
    begin_recovery,
    find_death,
)
from airflow_provider_offsets.operations.stopping import ask_to_stop
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, Crash, Driver, Lab

POLICY = RecoveryPolicy(tries=2, within_s=60)


def recover(lab: Lab, epoch: int, run: str = "run-1", policy: RecoveryPolicy = POLICY) -> int:
    """Begin a recovery, as the DAG's first task does."""
    return begin_recovery(lab.session(recovery_of(epoch)), epoch, run, policy)


def restart(lab: Lab, epoch: int) -> int:
    """Finish a recovery that was started; return the epoch that runs then."""
    operation = recovery_of(epoch)
    return steps.submit(lab, steps.apply(lab, operation=operation), operation).epoch


def record_of(lab: Lab) -> PipelineRecord:
    record = lab.control.record()
    assert record is not None
    return record


def fail_to_claim(lab: Lab, operation: str) -> None:
    """Submit a job whose driver exits before it claims its launch."""
    lab.on_launch = lambda driver: driver.die("SyntaxError")
    with pytest.raises(DriverDied):
        steps.submit(lab, steps.apply(lab, operation=operation), operation)
    lab.on_launch = lambda driver: None


def claim_and_die(lab: Lab) -> None:
    """Make a driver claim its launch and exit before its first batch."""
    lab.driver.tick()
    lab.driver.die()


def die_with_submit(lab: Lab, operation: str) -> None:
    """Make a driver claim its launch, and kill it together with the task that waits for it."""
    take_lease(lab.session(operation))
    applied = steps.apply(lab, operation=operation)

    def kill_both() -> None:
        claim_and_die(lab)
        raise Crash

    lab.clock.on_tick = kill_both
    with pytest.raises(Crash):
        steps.submit(lab, applied, operation)
    lab.clock.on_tick = lab.tick


def die_in_submit(lab: Lab, operation: str) -> None:
    """Make a driver claim its launch and die, and run the submit until it reports that."""
    take_lease(lab.session(operation))
    applied = steps.apply(lab, operation=operation)
    lab.clock.on_tick = lambda: claim_and_die(lab)
    with pytest.raises(DriverDied):
        steps.submit(lab, applied, operation)
    lab.clock.on_tick = lab.tick


class TestDeath:
    def test_a_job_that_lives_or_never_ran_is_not_dead(self, lab: Lab) -> None:
        assert find_death(lab.control) is None
        steps.start(lab)
        assert find_death(lab.control) is None

    def test_one_whose_process_is_gone_is_dead_and_nobody_closes_it_by_looking(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        cells = dict(lab.store.scan(NAME, ""))

        death = find_death(lab.control)

        assert death is not None
        assert (death.epoch, death.how) == (1, "died")
        assert death.message == f"pid {lab.driver.process.pid} on worker-1 is gone"
        assert dict(lab.store.scan(NAME, "")) == cells

    @pytest.mark.parametrize(
        ("how", "is_dead", "reason"),
        [
            (EndedHow.FAILED, True, "the query failed and the driver said so"),
            (EndedHow.STOPPED, False, "somebody stopped it"),
            (EndedHow.KILLED, False, "somebody stopped it the hard way"),
            (EndedHow.FENCED, False, "another epoch is the active one"),
            (EndedHow.FINISHED, False, "a bounded query has nothing more to do"),
        ],
    )
    def test_what_an_end_means(self, how: EndedHow, is_dead: bool, reason: str, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(how, "words")

        assert (find_death(lab.control) is not None) is is_dead, reason
        if not is_dead:
            with pytest.raises(NothingToRecover):
                recover(lab, 1)

    def test_a_driver_elsewhere_that_is_silent_is_unknown(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        lab.driver.die()
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)

        assert find_death(lab.control) is None

    def test_a_dead_job_that_a_maintenance_has_taken_over_is_left_alone(self, lab: Lab) -> None:
        """A start in the maintenance window would read what nobody may read yet."""
        steps.start(lab)
        lab.driver.die()
        steps.stop(lab, operation="maintenance")
        lab.clock.now += 10 * LEASE_TIMEOUT_S

        assert find_death(lab.control) is None, "however long the window is"

    def test_a_death_has_to_last(self, lab: Lab) -> None:
        watch = DeathWatch(30, LEASE_TIMEOUT_S)
        steps.start(lab, operation="first")
        lab.driver.die()
        assert watch.observe(lab.control) is None
        lab.clock.now += 29
        assert watch.observe(lab.control) is None
        steps.stop(lab, operation="again")
        steps.submit(lab, steps.apply(lab, operation="again"), "again")
        lab.driver.die()
        lab.clock.now += 2
        assert watch.observe(lab.control) is None, "another epoch died, just now"
        lab.clock.now += 30
        found = watch.observe(lab.control)
        assert found is not None
        assert found.epoch == 2

    def test_one_that_died_with_its_submit_is_left_to_that_for_a_while(self, lab: Lab) -> None:
        """A container stopped with driver and task: Airflow runs the task again once it has missed its heartbeats."""
        die_with_submit(lab, "maintenance")
        lease = record_of(lab).lease
        assert lease is not None
        since_s = lease.acted_at_ms / 1000

        lab.clock.now = since_s + 179
        assert find_death(lab.control, lease_timeout_s=180) is None, "the submit may be run again"
        lab.clock.now = since_s + 180
        assert find_death(lab.control, lease_timeout_s=180) is not None

    @pytest.mark.parametrize("ends", ["before its claim", "after its claim"])
    def test_a_submit_that_failed_for_good_is_not_waited_for(self, ends: str, lab: Lab) -> None:
        """No retry of Airflow can help. A launch that nobody claimed has changed nothing, though."""
        take_lease(lab.session("maintenance"))
        if ends == "before its claim":
            fail_to_claim(lab, "maintenance")
        else:
            die_in_submit(lab, "maintenance")

        death = find_death(lab.control)

        assert record_of(lab).lease is None
        if ends == "before its claim":
            assert death is None, "the pipeline is as stopped as it was"
        else:
            assert death is not None
            assert recover(lab, death.epoch) == 1
            assert restart(lab, death.epoch) == 2

    def test_the_recorded_end_is_reported(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(EndedHow.FAILED, "OutOfMemoryError")

        death = find_death(lab.control)

        assert death is not None
        assert (death.how, death.message) == ("failed", "OutOfMemoryError")

    def test_a_silent_job_is_checked_unless_a_stop_was_requested(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)
        lab.clock.on_tick = lambda: None

        def is_silent() -> bool:
            watch = SilenceWatch(30)
            watch.observe(lab.control)
            lab.clock.sleep(31)
            return watch.observe(lab.control)

        assert is_silent()
        ask_to_stop(lab.session("maintenance"), reason="")
        assert not is_silent()


class TestBegin:
    def test_it_accounts_for_the_last_batch_and_the_job_goes_on(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(10)
        lab.driver.die()

        assert recover(lab, 1) == 1

        record = record_of(lab)
        assert record.phase is Phase.STOPPED
        assert record.ended is not None
        assert record.ended.how is EndedHow.DIED
        assert restart(lab, 1) == 2
        assert find_death(lab.control) is None
        assert record_of(lab).lease is None

    @pytest.mark.parametrize("killed_after", range(1, 6))
    def test_a_recovery_that_is_killed_and_retried_begins_once(self, killed_after: int, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        lab.fuse.at, lab.fuse.after = killed_after, True
        try:
            with lab.fuse.lit():
                recover(lab, 1)
        except Crash:
            pass

        assert recover(lab, 1) == 1
        assert restart(lab, 1) == 2
        assert len(list(lab.control.epochs())) == 2

    def test_a_driver_that_only_another_machine_sees_is_closed_on_its_word(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The triggerer or another worker saw that the process had exited, and that is final."""
        steps.start(lab)
        lab.driver.die()
        with monkeypatch.context() as patch:
            patch.setattr(lab.machine, "is_alive", lambda process: None)
            assert recover(lab, 1) == 1

        record = record_of(lab)
        assert (record.phase, record.ended and record.ended.how) == (Phase.STOPPED, EndedHow.DIED)
        assert record.ended is not None
        assert "was seen to be gone" in record.ended.message

    def test_one_that_lives_is_left_alone_whatever_somebody_saw(self, lab: Lab) -> None:
        steps.start(lab)
        record = record_of(lab)

        with pytest.raises(NothingToRecover, match="epoch 1 of 'delay_alerts' is not dead"):
            recover(lab, 1)

        assert record_of(lab) == record

    def test_somebody_else_was_faster(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        steps.stop(lab, operation="maintenance")
        steps.submit(lab, steps.apply(lab, operation="maintenance"), "maintenance")

        with pytest.raises(NothingToRecover, match="epoch 2 of 'delay_alerts' is not dead"):
            recover(lab, 1)
        lab.driver.die()
        with pytest.raises(NothingToRecover):
            recover(lab, 1)

    def test_a_recovery_that_has_started_its_epoch_may_be_run_again(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)
        restart(lab, 1)

        assert recover(lab, 1) == 1
        assert lab.driver.is_alive
        assert len(lab.drivers) == 2

    def test_a_recovery_whose_driver_never_claimed_begins_again(self, lab: Lab) -> None:
        """The death is still open: an unclaimed launch has not changed it."""
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)
        fail_to_claim(lab, recovery_of(1))

        death = find_death(lab.control)

        assert death is not None
        assert (death.epoch, death.how) == (1, "died")
        assert recover(lab, 1, "run-2") == 2
        assert restart(lab, 1) == 3, "the launch that nobody claimed is cancelled, and has its number"

    def test_one_that_launched_and_was_killed_is_waited_for(self, lab: Lab) -> None:
        """Its driver may be slow, and its submit may be run again."""
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)
        applied = steps.apply(lab, operation=recovery_of(1))

        def killed(driver: Driver) -> None:
            raise Crash

        lab.on_launch = killed
        with pytest.raises(Crash):
            steps.submit(lab, applied, recovery_of(1))

        assert record_of(lab).phase is Phase.LAUNCHING
        assert find_death(lab.control) is None
        with pytest.raises(NothingToRecover, match="'recovery/00000001' is at work on it"):
            recover(lab, 1, "run-2")
        lab.clock.now += LEASE_TIMEOUT_S
        assert find_death(lab.control) is not None
        assert recover(lab, 1, "run-2") == 2


class TestPersons:
    """A person works on a job that died, before or while it is recovered."""

    def test_a_stop_before_the_recovery_begins(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        steps.stop(lab, operation="maintenance")

        with pytest.raises(NothingToRecover, match="'maintenance' asked epoch 1 to stop"):
            recover(lab, 1)

    @pytest.mark.parametrize("when", ["before its plan is applied", "before its launch", "before its driver claims"])
    def test_a_maintenance_that_takes_over_ends_it(self, when: str, lab: Lab) -> None:
        """However far the recovery was: it is told about the takeover, and the maintenance prevails."""
        recovery = recovery_of(1)
        steps.start(lab)
        lab.feed(10)
        lab.driver.die()
        recover(lab, 1)
        plan = steps.plan(lab, operation=recovery)
        if when != "before its plan is applied":
            applied = steps.apply(lab, operation=recovery)

        def take_over() -> None:
            lab.on_launch = lambda driver: None
            assert ask_to_stop(lab.session("maintenance"), reason="upgrade", take_over=True)

        def go_on() -> None:
            if when == "before its plan is applied":
                steps.apply(lab, operation=recovery)
            else:
                steps.submit(lab, applied, recovery)

        if when == "before its driver claims":
            lab.on_launch = lambda driver: take_over()
        else:
            take_over()

        with pytest.raises(TakenOver, match="'maintenance'"):
            go_on()

        assert plan.problems == ()
        lab.tick()
        assert not lab.alive or not lab.driver.epoch, "a launch that was cancelled is never claimed"
        assert find_death(lab.control) is None
        started = steps.submit(lab, steps.apply(lab, operation="maintenance"), "maintenance")
        assert started.start == lab.at(100, 100)

    def test_one_that_would_not_take_over_is_refused_with_a_way_out(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)

        with pytest.raises(LeaseHeld, match=r"'recovery/00000001' acted 0 s ago.*set take_over"):
            steps.stop(lab, operation="maintenance")

    def test_a_stop_of_what_it_has_started(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)
        restart(lab, 1)

        assert steps.stop(lab, operation="maintenance").how == "stopped"

        assert find_death(lab.control) is None


class TestTries:
    def test_a_task_that_is_tried_again_counts_once(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(EndedHow.FAILED)

        assert [recover(lab, 1) for _ in range(5)] == [1] * 5

    def test_after_so_many_tries_it_gives_up_and_stays_so(self, lab: Lab) -> None:
        """Each try starts an epoch that dies at once: the tries are counted over all of them."""
        steps.start(lab)
        for epoch in (1, 2):
            lab.driver.die()
            recover(lab, epoch, f"run-{epoch}")
            restart(lab, epoch)
        lab.driver.end(EndedHow.FAILED, "ValueError: no such column")

        with pytest.raises(RecoveryGivenUp, match=r"2 times within 60 s; epoch 3 failed: ValueError: no such column"):
            recover(lab, 3, "run-3")

        assert find_death(lab.control) is None, "nobody tries again by itself"
        assert record_of(lab).lease is None, "a person need not take anything over"
        lab.clock.now += 61
        with pytest.raises(RecoveryGivenUp):
            recover(lab, 3, "run-3")

        steps.stop(lab, operation="maintenance")
        steps.submit(lab, steps.apply(lab, operation="maintenance"), "maintenance")
        lab.driver.die()
        death = find_death(lab.control)
        assert death is not None, "a person has started it: it is watched again"
        assert death.epoch == 4

    def test_a_job_that_never_gets_as_far_as_a_claim_is_given_up_too(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        for run in ("run-1", "run-2"):
            recover(lab, 1, run)
            fail_to_claim(lab, recovery_of(1))

        with pytest.raises(RecoveryGivenUp, match="epoch 1 died"):
            recover(lab, 1, "run-3")
        assert find_death(lab.control) is None

    def test_a_job_that_dies_before_its_first_batch_is_given_up_too(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        for epoch in (1, 2):
            recover(lab, epoch, f"run-{epoch}")
            die_in_submit(lab, recovery_of(epoch))
            death = find_death(lab.control)
            assert death is not None
            assert death.epoch == epoch + 1

        with pytest.raises(RecoveryGivenUp):
            recover(lab, 3, "run-3")

    def test_one_that_is_silent_is_left_running_and_adopted(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        lab.driver.die()
        recover(lab, 1)
        applied = steps.apply(lab, operation=recovery_of(1))
        with monkeypatch.context() as slow:
            slow.setattr(Driver, "_batch_or_idle", lambda driver: None)
            with pytest.raises(DriverSilent):
                steps.submit(lab, applied, recovery_of(1))

        assert find_death(lab.control) is None
        assert steps.submit(lab, applied, recovery_of(1)).epoch == 2
        assert len(lab.drivers) == 2

    def test_old_tries_are_forgotten(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        made: list[int] = []
        for each in range(4):
            made.append(recover(lab, 1, f"run-{each}"))
            lab.clock.now += 61

        assert made == [1, 2, 3, 4]


def test_any_operation_that_is_no_recovery_starts_what_is_deployed(lab: Lab) -> None:
    steps.start(lab)
    session = lab.session("next")

    assert as_it_ran(session) is session


def test_a_process_of_another_boot_is_dead(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine was restarted: no process of an earlier boot is alive."""
    steps.start(lab)
    was: Callable[[ProcessIdentity], bool | None] = lab.machine.is_alive
    monkeypatch.setattr(lab.machine, "is_alive", lambda process: was(replace(process, boot_id="boot-2")))

    assert find_death(lab.control) is not None
