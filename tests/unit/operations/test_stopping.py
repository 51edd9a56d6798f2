"""A stop is reported when it is verified; an unknown state does not count as stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, Epoch, ProcessIdentity
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.errors import LeaseHeld, NothingToRecover, StateChanged, StopTimedOut, TakenOver
from airflow_provider_offsets.operations import stopping
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S, close_and_reconcile, release_lease, take_lease
from airflow_provider_offsets.operations.recovering import begin_recovery, find_death
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from tests.unit.operations import steps
from tests.unit.operations.lab import ELSEWHERE, HERE, Crash, Driver, Lab


def test_a_job_that_runs_stops_between_two_batches(lab: Lab) -> None:
    steps.start(lab)

    stopped = steps.stop(lab)

    assert stopped == StopResult(1, "stopped", last_batch_id=0)
    assert lab.record.phase is Phase.STOPPED
    stop = lab.record.stop
    assert stop is not None
    assert (stop.operation, stop.reason, stop.stage) == ("op", "upgrade", None)
    assert lab.signalled == []


def test_the_batch_that_comes_after_the_request_does_not_begin(lab: Lab) -> None:
    """The driver checks for a request between two batches, and finds it before the next one at the latest."""
    steps.start(lab)
    lab.driver.obeys = False
    lab.feed(10)

    stopped = steps.stop(lab)

    assert stopped == StopResult(1, "stopped", last_batch_id=0)
    assert [batch.batch_id for batch in lab.batches] == [0]
    assert lab.epoch.cuts == ()


def test_a_job_that_never_ran_is_no_error(lab: Lab) -> None:
    assert steps.stop(lab) == StopResult(0, "never started")


ENDS = [how for how in EndedHow if how is not EndedHow.CANCELLED]
"""How a driver, or the operation that closes its epoch, may end it."""


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_is_over_is_no_error_and_is_no_recovery_s_any_more(how: EndedHow, lab: Lab) -> None:
    steps.start(lab)
    lab.driver.end(how, "words")

    assert steps.stop(lab) == StopResult(1, f"already {how.value}", 0, "words")

    lab.clock.now += 2 * LEASE_TIMEOUT_S
    assert find_death(lab.control) is None, "it is meant to stay stopped, also when the operation is long gone"
    with pytest.raises(NothingToRecover, match="'op' asked epoch 1 to stop"):
        begin_recovery(lab.session("recovery/00000001"), 1, "run", lab.pipeline.recovery)


def test_a_task_that_is_run_again_after_the_submit_does_not_stop_the_new_job(lab: Lab) -> None:
    steps.start(lab, operation="op")

    assert steps.stop(lab, operation="op") == StopResult(1, "restarted by this operation")
    assert lab.record.stop is None
    assert lab.driver.is_alive


def test_a_task_that_is_killed_after_it_asked_and_run_again_waits_on(lab: Lab) -> None:
    steps.start(lab)
    asked = ask_to_stop(lab.session(), reason="upgrade")
    assert isinstance(asked, Epoch)

    assert steps.stop(lab) == StopResult(1, "stopped", last_batch_id=0)


class TestLaunching:
    """A job that has not claimed yet can be stopped too: its driver may wait in a queue for hours (A17)."""

    def test_a_launch_that_nobody_claimed_is_cancelled_for_ever(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.feed(50)
        steps.launch(lab, "shift:-30", "A")

        stopped = steps.stop(lab, "B", take_over=True)

        assert (stopped.epoch, stopped.how) == (2, "cancelled")
        assert "cancelled by 'B' before it was claimed" in stopped.message
        lab.tick()
        assert lab.alive == set(), "its driver came to its turn, claimed nothing, and ended"
        assert len(lab.batches) == 1
        assert lab.record.phase is Phase.STOPPED, "an answered stop stays a stop"

    def test_the_first_launch_of_a_pipeline_too(self, lab: Lab) -> None:
        steps.launch(lab, operation="A")

        assert steps.stop(lab, "B", take_over=True).how == "cancelled"
        assert lab.session().observe().stored is None

    def test_the_plan_of_the_later_operation_is_what_runs(self, lab: Lab) -> None:
        steps.rest(lab)
        steps.launch(lab, "shift:-30", "A")
        late = lab.driver
        steps.stop(lab, "B", take_over=True)

        started = steps.submit(lab, steps.apply(lab, "shift:-10", "B"), "B")
        late.tick()

        assert started.start == lab.at(90, 90)
        assert not late.is_alive
        assert (lab.record.epoch, lab.epoch.claim.operation) == (3, "B")
        announced = [(each.number, each.is_cancelled) for each in lab.control.epochs()]
        assert announced == [(1, False), (2, True), (3, False)]

    def test_one_that_is_claimed_in_this_very_moment_is_asked_to_stop(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.rest(lab)
        steps.launch(lab, operation="A")
        take_lease(lab.session("B"), take_over=True)
        lab.interpose(monkeypatch, lambda: lab.interpose(monkeypatch, lab.driver._claim))

        stopped = steps.stop(lab, "B")

        assert (stopped.epoch, stopped.how) == (2, "stopped")
        assert lab.alive == set()


def test_a_driver_that_is_seen_to_be_gone_is_closed(lab: Lab) -> None:
    steps.start(lab)
    lab.driver.die()

    stopped = steps.stop(lab)

    assert stopped.how == "already died"
    assert lab.epoch.ended is not None
    assert lab.epoch.ended.how is EndedHow.DIED
    assert f"pid 100 on {HERE} is gone" in stopped.message


def claim_elsewhere(driver: Driver) -> None:
    """Claim from a machine that cannot be observed from here. A driver there may be disconnected, and still write."""
    driver.lab.alive.discard(driver.process)
    driver.process = replace(driver.process, host=ELSEWHERE)
    driver._claim()


@pytest.fixture
def elsewhere(lab: Lab) -> ProcessIdentity:
    lab.on_launch = claim_elsewhere
    steps.launch(lab, operation="first")
    return lab.driver.process


def test_a_driver_elsewhere_is_never_taken_for_dead(elsewhere: ProcessIdentity, lab: Lab) -> None:
    with pytest.raises(StopTimedOut, match=r"Epoch 1 of 'delay_alerts' did not stop; its last heartbeat is None"):
        steps.stop(lab, take_over=True)

    assert lab.record.phase is Phase.RUNNING
    assert lab.epoch.ended is None
    assert lab.record.stop is not None, "it may wake up"


def test_a_driver_elsewhere_is_not_signalled(elsewhere: ProcessIdentity, lab: Lab) -> None:
    said: list[str] = []
    asked = ask_to_stop(lab.session(), reason="", take_over=True)
    assert isinstance(asked, Epoch)

    with pytest.raises(StopTimedOut):
        await_stop(lab.session(), asked, StopPolicy(5, 5, 5), report=said.append)

    assert lab.signalled == []
    assert said == [f"pid 100 on {ELSEWHERE} cannot be signalled from here"] * 2
    assert lab.record.stop is not None
    assert lab.record.stop.stage is None, "what was not sent is not noted"


def test_the_first_recorded_end_is_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver acknowledged, and exited a moment later."""
    steps.start(lab)
    lab.clock.on_tick = lambda: None
    asked = ask_to_stop(lab.session(), reason="")
    assert isinstance(asked, Epoch)
    lab.driver.end(EndedHow.STOPPED)

    assert await_stop(lab.session(), asked, lab.stop).how == "stopped"


@pytest.fixture
def deaf(lab: Lab) -> Epoch:
    """Return a driver that is alive, reads nothing, and does not check for requests."""
    steps.start(lab)
    lab.driver.obeys = False
    asked = ask_to_stop(lab.session(), reason="")
    assert isinstance(asked, Epoch)
    return asked


def test_no_answer_in_time_is_an_error_and_the_request_stays_pending(deaf: Epoch, lab: Lab) -> None:
    with pytest.raises(StopTimedOut, match=r"an acknowledgement within 10 s.*allow stop\.signal_timeout_s"):
        await_stop(lab.session(), deaf, lab.stop)

    assert lab.driver.is_alive
    assert lab.signalled == [], "a stage that has no time is not allowed"
    assert lab.record.phase is Phase.RUNNING
    lab.driver.obeys = True
    lab.tick()
    assert lab.record.ended is not None
    assert lab.record.ended.how is EndedHow.STOPPED, "a job that wakes up later still stops"


@pytest.mark.parametrize(
    ("why", "policy", "dies_on", "sent"),
    [
        ("SIGTERM helps", StopPolicy(5, 5, 5), signal.SIGTERM, [signal.SIGTERM]),
        ("SIGTERM does not, SIGKILL does", StopPolicy(5, 5, 5), signal.SIGKILL, [signal.SIGTERM, signal.SIGKILL]),
        ("SIGKILL alone is allowed", StopPolicy(5, None, 5), signal.SIGKILL, [signal.SIGKILL]),
    ],
)
def test_each_allowed_stage_is_recorded_and_then_carried_out_in_order(
    why: str,
    policy: StopPolicy,
    dies_on: signal.Signals,
    sent: list[signal.Signals],
    deaf: Epoch,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[str] = []

    def signal_group(process: ProcessIdentity, number: signal.Signals) -> bool:
        stop = lab.record.stop
        noted.append(stop.stage.name if stop is not None and stop.stage is not None else "nothing")
        return lab.signal_group(process, number)

    def drivers() -> None:
        if dies_on in lab.signalled:
            lab.driver.die()

    monkeypatch.setattr(lab.machine, "signal_group", signal_group)
    lab.clock.on_tick = drivers

    stopped = await_stop(lab.session(), deaf, policy)

    assert lab.signalled == sent
    assert noted == [number.name for number in sent], "nobody is forced without a note of it"
    assert (stopped.how, stopped.message) == ("killed", f"pid 100 on {HERE} is gone after {dies_on.name}")


def test_a_task_that_is_killed_after_it_forced_the_job_and_run_again_knows(
    deaf: Epoch, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(process: ProcessIdentity, number: signal.Signals) -> bool:
        lab.driver.die()
        raise Crash("after the signal")

    with monkeypatch.context() as patch:
        patch.setattr(lab.machine, "signal_group", killed)
        with pytest.raises(Crash):
            await_stop(lab.session(), deaf, StopPolicy(5, 5))

    assert steps.stop(lab).how == "already killed"


def test_what_was_cut_off_by_force_is_named(lab: Lab) -> None:
    """The request comes while a batch runs, and the batch does not end in time."""
    steps.start(lab)
    lab.feed(10)
    batch = lab.driver.plan()
    assert batch is not None
    lab.driver.begin(batch)
    lab.stop = StopPolicy(5, 5)
    lab.clock.on_tick = lambda: lab.driver.die() if lab.signalled else None

    stopped = steps.stop(lab)

    assert (stopped.how, stopped.last_batch_id) == ("killed", 0)
    assert [(cut.batch_id, sum(each.count for each in cut.ranges)) for cut in lab.epoch.cuts] == [(1, 20)]
    assert steps.plan(lab).replay_at_most == 20


def test_a_batch_that_runs_when_the_request_comes_is_finished_and_recorded(lab: Lab) -> None:
    steps.start(lab)
    lab.feed(10)
    driver = lab.driver
    batch = driver.plan()
    assert batch is not None
    placed = driver.begin(batch)

    def finishes() -> None:
        driver.record(placed)
        driver.commit(batch)
        lab.clock.on_tick = lab.tick

    lab.clock.on_tick = finishes

    assert steps.stop(lab) == StopResult(1, "stopped", last_batch_id=1)
    assert lab.epoch.cuts == ()


def test_stages_that_do_not_help_are_a_timeout(deaf: Epoch, lab: Lab) -> None:
    with pytest.raises(StopTimedOut):
        await_stop(lab.session(), deaf, StopPolicy(5, 5, 5))

    assert lab.signalled == [signal.SIGTERM, signal.SIGKILL]


def test_what_is_waited_for_is_said(deaf: Epoch, lab: Lab) -> None:
    said: list[str] = []

    with pytest.raises(StopTimedOut):
        await_stop(lab.session(), deaf, StopPolicy(25), report=said.append)

    assert said == ["waited 10 s of 25 s for its acknowledgement", "waited 20 s of 25 s for its acknowledgement"]


class TestTwoOperations:
    def test_the_second_one_is_refused_while_the_first_one_waits(self, deaf: Epoch, lab: Lab) -> None:
        with pytest.raises(LeaseHeld, match=r"operation 'op' acted \d+ s ago.*set take_over"):
            ask_to_stop(lab.session("other"), reason="")

        assert lab.holder == "op"

    def test_however_long_it_waits(self, deaf: Epoch, lab: Lab) -> None:
        """Its lease does not age while it waits for a batch of an hour."""
        refused: list[float] = []

        def other_asks() -> None:
            if refused and lab.clock.now < refused[-1] + 1:
                return
            with pytest.raises(LeaseHeld):
                ask_to_stop(lab.session("other"), reason="")
            refused.append(lab.clock.now)

        lab.clock.on_tick = other_asks
        with pytest.raises(StopTimedOut):
            await_stop(lab.session(), deaf, StopPolicy(3 * LEASE_TIMEOUT_S))

        assert refused[-1] - refused[0] > 2 * LEASE_TIMEOUT_S

    def test_one_that_takes_over_owns_the_request_and_the_first_one_ends(self, deaf: Epoch, lab: Lab) -> None:
        asked = ask_to_stop(lab.session("other"), reason="mine", take_over=True)

        assert isinstance(asked, Epoch)
        assert lab.record.stop is not None
        assert lab.record.stop.operation == "other", "so only the second one may launch"
        with pytest.raises(TakenOver):
            await_stop(lab.session("op"), deaf, lab.stop)
        lab.driver.obeys = True
        assert await_stop(lab.session("other"), asked, lab.stop).how == "stopped"

    def test_one_that_was_taken_over_signals_nobody(self, deaf: Epoch, lab: Lab) -> None:
        def other_takes_over() -> None:
            take_lease(lab.session("other"), take_over=True)

        lab.clock.on_tick = other_takes_over

        with pytest.raises(TakenOver):
            await_stop(lab.session("op"), deaf, StopPolicy(5, 5, 5))

        assert lab.signalled == []

    def test_one_that_was_taken_over_right_before_a_stage_signals_nobody(
        self, deaf: Epoch, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab.interpose(monkeypatch, lambda: take_lease(lab.session("other"), take_over=True))

        with pytest.raises(TakenOver):
            await_stop(lab.session("op"), deaf, StopPolicy(5, 5, 5))

        assert lab.signalled == []


def test_an_epoch_that_was_closed_for_good_stays_closed(lab: Lab) -> None:
    """Its driver was taken for dead and killed; its epoch stays closed whatever the driver reports later."""
    steps.start(lab)
    take_lease(lab.session())
    zombie = lab.driver
    lab.alive.discard(zombie.process)
    close_and_reconcile(lab.session())

    zombie.end(EndedHow.FAILED, "late words")

    assert steps.stop(lab).how == "already died"


def test_a_retry_does_not_take_the_pipeline_back_from_who_took_it_over(lab: Lab) -> None:
    """``take_over`` is a field of the form: it applies to every try, and two runs must not take turns for ever."""
    steps.start(lab)
    steps.stop(lab, "mine", take_over=True)
    steps.stop(lab, "theirs", take_over=True)

    with pytest.raises(TakenOver, match="theirs"):
        steps.stop(lab, "mine", take_over=True)


class TestLateTry:
    """A try was suspended before it took the lease. Others acted on the job meanwhile."""

    def suspended(self, lab: Lab, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
        """Run ``meanwhile`` right before the next try takes the lease."""

        def late(*arguments: Any, **options: Any) -> PipelineRecord:
            monkeypatch.setattr(stopping, "take_lease", take_lease)
            meanwhile()
            return take_lease(*arguments, **options)

        monkeypatch.setattr(stopping, "take_lease", late)

    @pytest.mark.parametrize("take_over", [False, True])
    def test_it_does_not_stop_the_job_of_a_later_operation(
        self, take_over: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def others() -> None:
            steps.start(lab, operation="mine")
            lab.tick()
            steps.start(lab, operation="later")

        steps.start(lab)
        self.suspended(lab, monkeypatch, others)

        with pytest.raises(TakenOver, match="'later' has launched epoch 3"):
            steps.stop(lab, "mine", take_over=take_over)

        assert lab.record.phase is Phase.RUNNING
        assert (lab.record.stop, lab.record.lease) == (None, None)

    @pytest.mark.parametrize("take_over", [False, True])
    def test_nor_if_its_run_was_given_up_before_any_try_held_the_lease(
        self, take_over: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        self.suspended(lab, monkeypatch, lambda: void(steps.start(lab, operation="later")))

        with pytest.raises(TakenOver, match="'later' has launched epoch 2"):
            steps.stop(lab, "mine", take_over=take_over)

        assert lab.record.phase is Phase.RUNNING
        assert (lab.record.stop, lab.record.lease) == (None, None)

    def test_nor_the_job_of_its_own_operation(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        self.suspended(lab, monkeypatch, lambda: void(steps.start(lab, operation="mine")))

        assert steps.stop(lab, "mine").how == "restarted by this operation"
        assert (lab.record.phase, lab.record.stop) == (Phase.RUNNING, None)

    @pytest.mark.parametrize("call", ["before it stops anything", "after its request"])
    def test_nor_a_launch_of_its_own_operation_once_it_holds_the_lease(
        self, call: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its run went on with another try. The check of the epoch and the change of the record are one swap."""
        calls = iter([call == "before it stops anything", call == "after its request"])

        def late(*arguments: Any, **options: Any) -> PipelineRecord:
            if next(calls, False):
                monkeypatch.setattr(stopping, "close_and_reconcile", close_and_reconcile)
                lab.driver.end(EndedHow.STOPPED)
                steps.start(lab, operation="mine")
                take_lease(lab.session("mine"))  # as until the first sign of the job
            return close_and_reconcile(*arguments, **options)

        steps.start(lab)
        monkeypatch.setattr(stopping, "close_and_reconcile", late)

        with pytest.raises(StateChanged, match=r"Epoch 2 of .* was launched during the stop of 1"):
            steps.stop(lab, "mine")

        assert (lab.record.epoch, lab.record.phase, lab.record.stop) == (2, Phase.RUNNING, None)

    def test_nor_does_it_take_the_lease_once_another_operation_has_stopped_the_job(self, lab: Lab) -> None:
        steps.start(lab)
        steps.stop(lab, "mine")
        steps.stop(lab, "later", take_over=True)
        release_lease(lab.session("later"))

        with pytest.raises(TakenOver, match="'later' has asked epoch 1 to stop"):
            steps.stop(lab, "mine")

        assert lab.record.lease is None

    def test_a_retry_may_stop_a_job_that_was_stopped_before_it_held_the_lease(self, lab: Lab) -> None:
        """It was killed between the lease and its own request."""
        steps.start(lab)
        steps.stop(lab, "earlier")
        release_lease(lab.session("earlier"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stopping, "close_and_reconcile", crash)
            with pytest.raises(Crash):
                steps.stop(lab, "mine")

        assert steps.stop(lab, "mine").how == "already stopped"


def crash(session: Session, **options: object) -> PipelineRecord:
    raise Crash


def void(result: object) -> None:
    """Ignore a result."""
