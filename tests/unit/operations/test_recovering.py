"""A job that died is noticed, started again so many times, and then left to a person."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_offsets.core.epoch import Ended, EndedHow, StopRequest
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.errors import DriverDied, RecoveryGivenUp, WorldChanged
from airflow_provider_offsets.operations.recovering import DeathWatch, begin_recovery, find_death
from airflow_provider_offsets.stores.control import Control
from tests.unit.operations import steps
from tests.unit.operations.lab import ELSEWHERE, Crash, Lab

POLICY = RecoveryPolicy(tries=2, within_s=60)
NOW_MS = 1_000_000


def recover(lab: Lab, epoch: int, run: str, at_ms: int = NOW_MS) -> int:
    return begin_recovery(lab.world(recovery_of(epoch)), epoch, run, POLICY, at_ms=at_ms)


class TestDeath:
    def test_a_job_that_lives_or_never_ran_is_not_dead(self, lab: Lab) -> None:
        assert find_death(lab.control, at_ms=1) is None
        steps.start(lab)
        assert find_death(lab.control, at_ms=1) is None

    def test_one_whose_process_is_gone_is_dead_and_fenced_at_once(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()

        death = find_death(lab.control, at_ms=1)

        assert death is not None
        assert (death.epoch, death.how) == (1, "died")
        assert lab.control.ended(1) is not None, "if that was a mistake, the driver ends before its next batch"

    @pytest.mark.parametrize(
        ("how", "is_dead", "reason"),
        [
            (EndedHow.FAILED, True, "the query failed and the driver said so"),
            (EndedHow.STOPPED, False, "somebody stopped it"),
            (EndedHow.KILLED, False, "somebody stopped it the hard way"),
            (EndedHow.FENCED, False, "another epoch has the word"),
            (EndedHow.FINISHED, False, "a bounded query has nothing more to do"),
        ],
    )
    def test_what_an_end_means(self, how: EndedHow, is_dead: bool, reason: str, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(how, "words")

        assert (find_death(lab.control, at_ms=1) is not None) is is_dead, reason

    def test_a_driver_elsewhere_that_is_silent_is_unknown(self, lab: Lab) -> None:
        steps.start(lab)
        epoch = lab.control.epoch(1)
        assert epoch is not None
        lab.driver.process = replace(epoch.holder, host=ELSEWHERE)
        text = lab.store.get(lab.pipeline.name, "epoch/00000001") or ""
        lab.store.check_and_put(lab.pipeline.name, "epoch/00000001", text, text.replace(epoch.holder.host, ELSEWHERE))
        lab.alive.clear()

        assert find_death(lab.control, at_ms=1) is None

    def test_a_dead_job_that_a_maintenance_has_taken_over_is_left_alone(self, lab: Lab) -> None:
        """Started in the middle of the maintenance's window it would read what nobody may read yet."""
        steps.start(lab)
        lab.driver.die()
        steps.stop(lab, operation="maintenance")

        assert find_death(lab.control, at_ms=1) is None

    def test_a_death_has_to_last(self, lab: Lab) -> None:
        watch = DeathWatch(30, 0)
        steps.start(lab, operation="first")
        lab.driver.die()
        assert watch.look(lab.control) is None
        lab.clock.now += 29
        assert watch.look(lab.control) is None
        steps.start(lab, operation="retried")
        lab.driver.die()
        lab.clock.now += 2
        assert watch.look(lab.control) is None, "another epoch died, just now"
        lab.clock.now += 30
        found = watch.look(lab.control)
        assert found is not None
        assert found.epoch == 2

    def test_one_that_died_with_its_submit_is_left_to_that_for_a_while(self, lab: Lab) -> None:
        """A container took driver and task with it: Airflow tries the task again once it has missed its heartbeats."""
        watch = DeathWatch(30, 180)
        die_with_submit(lab, "maintenance")
        since = lab.clock.now

        assert watch.look(lab.control) is None
        lab.clock.now = since + 179
        assert watch.look(lab.control) is None, "the submit may be tried again"
        lab.clock.now = since + 180
        found = watch.look(lab.control)
        assert found is not None
        assert found.in_submit

    def test_a_submit_that_has_failed_is_not_waited_for(self, lab: Lab) -> None:
        """No retry of Airflow's can help: the one thing that can is a recovery."""
        applied = steps.apply(lab, operation="maintenance")
        lab.clock.on_tick = lambda: claim_and_die(lab)
        with pytest.raises(DriverDied):
            steps.submit(lab, applied, "maintenance")

        death = find_death(lab.control, at_ms=1)

        assert death is not None
        assert not death.in_submit

    def test_one_that_failed_is_another_than_the_one_that_is_tried_by_hand(self, lab: Lab) -> None:
        applied = steps.apply(lab, operation="maintenance")
        lab.clock.on_tick = lambda: claim_and_die(lab)
        with pytest.raises(DriverDied):
            steps.submit(lab, applied, "maintenance")
        die_with_submit(lab, "maintenance")

        death = find_death(lab.control, at_ms=1)

        assert death is not None
        assert (death.epoch, death.in_submit) == (2, True)


def claim_and_die(lab: Lab) -> None:
    """Let a driver claim its epoch and be gone before its first batch."""
    lab.driver.tick()
    lab.driver.die()


def die_with_submit(lab: Lab, operation: str) -> None:
    """Let a driver claim its epoch, and kill it together with the task that waits for it."""
    applied = steps.apply(lab, operation=operation)

    def kill_both() -> None:
        claim_and_die(lab)
        raise Crash

    lab.clock.on_tick = kill_both
    with pytest.raises(Crash):
        steps.submit(lab, applied, operation)


class TestStopInTheMiddle:
    """A person stops a job that died, while its recovery is under way."""

    def test_before_it_has_begun(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        steps.stop(lab, operation="maintenance")

        with pytest.raises(WorldChanged, match="'maintenance' has asked epoch 1 of 'delay_alerts' to stop"):
            recover(lab, 1, "run-1")

    def test_before_its_driver_has_claimed(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(10)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        recover(lab, 1, "run-1")
        applied = steps.apply(lab, operation=recovery_of(1))
        assert steps.stop(lab, operation="maintenance").how == "already died"

        with pytest.raises(DriverDied, match="epoch 2 stopped"):
            steps.submit(lab, applied, recovery_of(1))

        request = lab.control.stop_request(2)
        assert request is not None
        assert request.operation == "maintenance"
        started = steps.start(lab, operation="maintenance")
        assert (started.epoch, started.start) == (3, lab.at(100, 100))

    def test_between_its_claim_and_its_look_for_requests(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """The driver dies there: what it has not handed on holds all the same."""
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        recover(lab, 1, "run-1")
        applied = steps.apply(lab, operation=recovery_of(1))
        steps.stop(lab, operation="maintenance")
        monkeypatch.setattr(Control, "hand_on_stop", lambda control, claim: lab.driver.die())
        with pytest.raises(DriverDied):
            steps.submit(lab, applied, recovery_of(1))

        assert lab.control.stop_request(2) is None
        assert find_death(lab.control, at_ms=1) is None
        with pytest.raises(WorldChanged, match="'maintenance' has asked epoch 2"):
            recover(lab, 2, "run-2")

    def test_after_its_driver_has_claimed(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """The claim came after the look for the newest epoch, and before the request."""
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        recover(lab, 1, "run-1")
        applied = steps.apply(lab, operation=recovery_of(1))
        request_stop = Control.request_stop

        def request_late(control: Control, number: int, request: StopRequest) -> StopRequest:
            monkeypatch.setattr(Control, "request_stop", request_stop)
            steps.submit(lab, applied, recovery_of(1))
            return request_stop(control, number, request)

        monkeypatch.setattr(Control, "request_stop", request_late)

        stopped = steps.stop(lab, operation="maintenance")

        assert (stopped.epoch, stopped.how) == (2, "stopped")


class TestTries:
    def test_a_recovery_goes_on_where_the_job_stands(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(10)
        lab.driver.die()
        find_death(lab.control, at_ms=1)

        assert recover(lab, 1, "run-1") == 1
        started = steps.start(lab, operation=recovery_of(1))

        assert started.epoch == 2
        assert find_death(lab.control, at_ms=1) is None

    def test_a_task_that_is_tried_again_counts_once(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(EndedHow.FAILED)

        assert [recover(lab, 1, "run-1") for _ in range(5)] == [1] * 5

    def test_after_so_many_tries_it_gives_up_and_stays_so(self, lab: Lab) -> None:
        """Each try starts an epoch that dies at once: the tries are counted over all of them."""
        steps.start(lab)
        for epoch in (1, 2):
            lab.driver.die()
            assert find_death(lab.control, at_ms=1) is not None
            recover(lab, epoch, f"run-{epoch}")
            steps.start(lab, operation=recovery_of(epoch))
        lab.driver.end(EndedHow.FAILED, "ValueError: no such column")

        with pytest.raises(RecoveryGivenUp, match=r"2 times within 60 s; epoch 3 failed: ValueError: no such column"):
            recover(lab, 3, "run-3")
        assert find_death(lab.control, at_ms=1) is None, "nobody tries again by itself"

        steps.start(lab, operation="maintenance")
        lab.driver.die()
        death = find_death(lab.control, at_ms=1)
        assert death is not None, "a person has started it: it is watched again"
        assert death.epoch == 4

    def test_a_job_that_never_gets_as_far_as_an_epoch_is_given_up_too(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        recover(lab, 1, "run-1")
        recover(lab, 1, "run-2")

        with pytest.raises(RecoveryGivenUp):
            recover(lab, 1, "run-3")

    def test_old_tries_are_forgotten(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)

        assert [recover(lab, 1, f"run-{each}", at_ms=NOW_MS + each * 61_000) for each in range(4)] == [1, 2, 3, 4]

    def test_somebody_else_was_faster(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        steps.start(lab, operation="maintenance")

        with pytest.raises(WorldChanged, match="epoch 2 of 'delay_alerts', claimed since epoch 1 died"):
            recover(lab, 1, "run-1")

    def test_a_recovery_that_has_started_its_epoch_may_be_run_again(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        find_death(lab.control, at_ms=1)
        recover(lab, 1, "run-1")
        steps.start(lab, operation=recovery_of(1))

        assert recover(lab, 1, "run-1") == 1


def test_the_end_that_stands_is_told(lab: Lab) -> None:
    steps.start(lab)
    lab.control.end(1, Ended(EndedHow.FAILED, 1, message="OutOfMemoryError"))
    lab.driver.die()

    death = find_death(lab.control, at_ms=2)

    assert death is not None
    assert (death.how, death.message) == ("failed", "OutOfMemoryError")
