"""A stop is reported when it is verified; unknown is not dead."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from airflow_provider_offsets.core.epoch import Ended, EndedHow, Epoch
from airflow_provider_offsets.core.pipeline import StopLadder
from airflow_provider_offsets.errors import StopTimedOut
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop, end_if_over
from tests.unit.operations import steps
from tests.unit.operations.lab import ELSEWHERE, HERE, Lab


def test_a_job_that_runs_stops_between_two_batches(lab: Lab) -> None:
    steps.start(lab)

    stopped = steps.stop(lab)

    assert stopped == StopResult(1, "stopped", last_batch_id=0)
    assert lab.control.stop_request(1).reason == "upgrade"  # type: ignore[union-attr]
    assert lab.signalled == []


def test_a_job_that_never_ran_is_no_error(lab: Lab) -> None:
    assert steps.stop(lab) == StopResult(0, "never started")


@pytest.mark.parametrize("how", list(EndedHow))
def test_a_job_that_is_at_rest_is_no_error(how: EndedHow, lab: Lab) -> None:
    steps.start(lab)
    lab.driver.end(how, "words")

    assert steps.stop(lab) == StopResult(1, f"already {how.value}", 0, "words")
    request = lab.control.stop_request(1)
    assert request is not None, "it is meant to stay at rest: its recovery leaves it alone"
    assert request.operation == "op"


def test_a_task_that_is_run_again_after_the_submit_does_not_stop_the_new_job(lab: Lab) -> None:
    steps.start(lab, operation="op")

    assert steps.stop(lab, operation="op") == StopResult(1, "restarted by this operation")
    assert lab.control.stop_request(1) is None
    assert lab.driver.is_alive


def test_a_driver_that_is_seen_to_be_gone_is_closed(lab: Lab) -> None:
    steps.start(lab)
    lab.driver.die()

    stopped = steps.stop(lab)

    assert stopped.how == "already died"
    assert lab.control.ended(1).how is EndedHow.DIED  # type: ignore[union-attr]
    assert f"pid 100 on {HERE} is gone" in stopped.message


def test_a_driver_elsewhere_is_never_taken_for_dead(lab: Lab) -> None:
    """Nobody here can see its process: it may be cut off, and go on writing."""
    steps.start(lab)
    epoch = lab.control.newest_epoch()
    assert epoch is not None
    far = replace(epoch, holder=replace(epoch.holder, host=ELSEWHERE))
    lab.driver.die()

    assert end_if_over(lab.control, far, at_ms=1) is None
    with pytest.raises(StopTimedOut, match=r"epoch 1 of 'delay_alerts' did not come to rest; last sign of life"):
        await_stop(lab.world(), far, lab.stop)
    assert lab.control.ended(1) is None


def test_the_word_of_whoever_ended_it_first_stands(lab: Lab) -> None:
    """The driver acknowledged, and was gone a moment later."""
    steps.start(lab)
    epoch = lab.control.newest_epoch()
    assert epoch is not None
    lab.driver.end(EndedHow.STOPPED)

    found = end_if_over(lab.control, epoch, at_ms=1)

    assert found is not None
    assert found.how is EndedHow.STOPPED


def deaf(lab: Lab) -> Epoch:
    steps.start(lab)
    lab.driver.obeys = False
    lab.feed(10)
    asked = ask_to_stop(lab.world(), reason="", at_ms=1)
    assert isinstance(asked, Epoch)
    return asked


def test_no_answer_in_time_is_an_error_and_the_request_stands(lab: Lab) -> None:
    epoch = deaf(lab)

    with pytest.raises(StopTimedOut, match=r"an acknowledgement within 10 s.*allow stop\.signal_timeout_s"):
        await_stop(lab.world(), epoch, lab.stop)

    assert lab.control.stop_request(1) is not None
    assert lab.driver.is_alive
    assert lab.signalled == [], "a rung that has no time is not allowed"
    assert lab.control.ended(1) is None
    lab.driver.obeys = True
    lab.tick()
    assert lab.control.ended(1).how is EndedHow.STOPPED, "a job that wakes up later still stops"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("why", "ladder", "dies_on", "sent"),
    [
        ("SIGTERM helps", StopLadder(5, 5, 5), signal.SIGTERM, [signal.SIGTERM]),
        ("SIGTERM does not, SIGKILL does", StopLadder(5, 5, 5), signal.SIGKILL, [signal.SIGTERM, signal.SIGKILL]),
        ("SIGKILL alone is allowed", StopLadder(5, None, 5), signal.SIGKILL, [signal.SIGKILL]),
    ],
)
def test_each_rung_that_is_allowed_is_taken_in_order(
    why: str, ladder: StopLadder, dies_on: signal.Signals, sent: list[signal.Signals], lab: Lab
) -> None:
    epoch = deaf(lab)

    def machine() -> None:
        if dies_on in lab.signalled:
            lab.driver.die()

    lab.clock.on_tick = machine

    stopped = await_stop(lab.world(), epoch, ladder)

    assert lab.signalled == sent
    assert stopped.how == EndedHow.KILLED.value
    assert lab.control.ended(1).how is EndedHow.KILLED  # type: ignore[union-attr]


def test_a_ladder_that_does_not_help_is_a_timeout(lab: Lab) -> None:
    epoch = deaf(lab)

    with pytest.raises(StopTimedOut):
        await_stop(lab.world(), epoch, StopLadder(5, 5, 5))

    assert lab.signalled == [signal.SIGTERM, signal.SIGKILL]


def test_a_driver_elsewhere_is_not_signalled(lab: Lab) -> None:
    epoch = deaf(lab)
    far = replace(epoch, holder=replace(epoch.holder, host=ELSEWHERE))
    said: list[str] = []

    with pytest.raises(StopTimedOut):
        await_stop(lab.world(), far, StopLadder(5, 5, 5), say=said.append)

    assert lab.signalled == []
    assert said == [f"pid 100 on {ELSEWHERE} cannot be signalled from here"] * 2


def test_what_is_waited_for_is_said(lab: Lab) -> None:
    epoch, said = deaf(lab), []

    with pytest.raises(StopTimedOut):
        await_stop(lab.world(), epoch, StopLadder(25), say=said.append)

    assert said == ["waited 10 s of 25 s for its acknowledgement", "waited 20 s of 25 s for its acknowledgement"]


def test_two_operations_that_stop_at_once_share_one_stop(lab: Lab) -> None:
    steps.start(lab)
    for operation in ("one", "two"):
        ask_to_stop(lab.world(operation), reason=operation, at_ms=1)

    assert steps.stop(lab, "two").how == "stopped"
    assert lab.control.stop_request(1).operation == "one"  # type: ignore[union-attr]


def test_an_epoch_that_was_closed_for_good_stays_closed(lab: Lab) -> None:
    steps.start(lab)
    lab.control.end(1, Ended(EndedHow.KILLED, 1))

    assert steps.stop(lab).how == "already killed"
