"""Stop a running job between two batches, and make sure that it did."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import Ended, EndedHow, Epoch, StopRequest, StopRung
from airflow_provider_offsets.core.pipeline import StopLadder
from airflow_provider_offsets.errors import StopTimedOut
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.control import Control

POLL_S = 0.25


@dataclass(frozen=True)
class StopResult:
    """How the job came to rest."""

    epoch: int
    """0 if it never ran."""
    how: str
    last_batch_id: int | None = None
    message: str = ""


def ask_to_stop(world: World, *, reason: str, at_ms: int) -> StopResult | Epoch:
    """Ask the newest epoch to stop: give its result if it is over already, otherwise the epoch to wait for.

    A job that does not run is no error: *never started*, *already ended*, and *started by this very operation* (which
    is past its stop, and whose job is not to be stopped by a task that is run again).
    """
    epoch = world.control.newest_epoch()
    if epoch is None:
        return StopResult(0, "never started")
    if epoch.claim.operation == world.operation:
        return StopResult(epoch.number, "restarted by this operation")
    over = end_if_over(world.control, epoch, at_ms=at_ms)
    # Of one that is dead already too: it is meant to stay so, and is no longer for its recovery to start.
    world.control.request_stop(epoch.number, StopRequest(world.operation, reason, at_ms))
    if world.control.epoch(epoch.number + 1) is not None:  # claimed meanwhile, by a driver that saw no request yet
        return ask_to_stop(world, reason=reason, at_ms=at_ms)
    if over is not None:
        return result_of(epoch, over, already=True)
    marker = world.pipeline.stop.marker
    if marker and not epoch.claim.tracked:
        machine().place_marker(marker, f"stop: {world.operation} {reason}".rstrip())
    return epoch


def end_if_over(control: Control, epoch: Epoch, *, at_ms: int) -> Ended | None:
    """Give how an epoch ended; None while it runs, or while nobody can tell.

    A driver that is gone without a word is closed here, but only if it can be seen from this machine to be gone:
    unknown is not dead. An untouched program never says a word: if it was asked to stop and went, it stopped.
    """
    if is_running(epoch) is not False:
        return control.ended(epoch.number)
    how, after = EndedHow.DIED, ""
    if not epoch.claim.tracked and control.stop_request(epoch.number) is not None:
        how, after = EndedHow.STOPPED, " after it was asked to stop"
    if (rung := control.stop_rung(epoch.number)) is not None:
        how, after = EndedHow.STOPPED if rung.is_request else EndedHow.KILLED, f" after {rung.name}"
    gone = f"pid {epoch.holder.pid} on {epoch.holder.host} is gone{after}"
    return control.end(epoch.number, Ended(how, at_ms, message=gone))


def is_running(epoch: Epoch) -> bool | None:
    """Say whether the job of an epoch lives; None if nobody can tell from here.

    What holds the epoch of an untouched job is spark-submit: its program may outlive it for a moment. What runs on
    YARN outlives the driver; it is asked for last, and what does not answer counts as alive.
    """
    has_process, yarn = _has_process(epoch), epoch.claim.yarn
    if has_process is not False or yarn is None:
        return has_process
    return bool(machine().left_on_yarn(yarn))


def _has_process(epoch: Epoch) -> bool | None:
    return machine().is_alive(epoch.holder) if epoch.claim.tracked else machine().is_session_alive(epoch.holder)


@dataclass(frozen=True)
class _Rung:
    awaited: str
    timeout_s: int | None
    name: str = ""
    """Empty for the first rung, which sends nothing."""
    signal: signal.Signals | None = None
    """None for the kill on YARN."""
    is_request: bool = False


def _rungs(epoch: Epoch, ladder: StopLadder) -> list[_Rung]:
    tracked, marker = epoch.claim.tracked, ladder.marker
    graceful = "its acknowledgement" if tracked else f"it to end on its marker {marker}"
    rungs = [
        _Rung(graceful, ladder.graceful_timeout_s if tracked or marker else None),
        _Rung("it to end on SIGTERM", ladder.signal_timeout_s, "SIGTERM", signal.SIGTERM, not tracked and not marker),
        _Rung("its containers to be gone", ladder.cluster_timeout_s, "a kill on YARN"),
        _Rung("it to end on SIGKILL", ladder.kill_timeout_s, "SIGKILL", signal.SIGKILL),
    ]
    return [rung for rung in rungs if rung.timeout_s is not None]


def await_stop(
    world: World, epoch: Epoch, ladder: StopLadder, *, say: Callable[[str], None] = lambda line: None
) -> StopResult:
    """Wait until the job is at rest, taking each rung of ``ladder`` that is allowed, and give how it came to rest.

    :param say: told what is being waited for, every ten seconds.
    :raises StopTimedOut: it did not come to rest. The request stands: a job that wakes up later still stops.
    """
    for rung in _rungs(epoch, ladder):
        if hindrance := _hindrance(epoch, rung):
            say(hindrance)
        else:
            _take(world.control, epoch, rung, say)
        ended = end_if_over(world.control, epoch, at_ms=clock.now_ms())
        if ended is not None:
            return result_of(epoch, ended)
    yarn = epoch.claim.yarn
    left = machine().left_on_yarn(yarn) if yarn is not None and _has_process(epoch) is False else ""
    life = left or f"last sign of life: {world.control.heartbeat(epoch.number)}"
    raise StopTimedOut(
        seen=f"epoch {epoch.number} of {world.pipeline.name!r} did not come to rest; {life}",
        expected=f"an acknowledgement within {ladder.graceful_timeout_s} s, or a later rung of the ladder to help",
        do="raise stop.graceful_timeout_s above the longest batch, or allow stop.signal_timeout_s (replays its batch)",
    )


def _hindrance(epoch: Epoch, rung: _Rung) -> str:
    """Why a rung cannot be taken, for people; empty if it can."""
    if rung.signal is not None and not _has_process(epoch):
        return f"pid {epoch.holder.pid} on {epoch.holder.host} cannot be signalled from here"
    if rung.name and rung.signal is None and epoch.claim.yarn is None:
        return f"epoch {epoch.number} was started without a tag for YARN: its application is not known"
    return ""


def result_of(epoch: Epoch, ended: Ended, *, already: bool = False) -> StopResult:
    """Give the result of an epoch that is over; ``already``: it was over before anybody asked."""
    how = f"already {ended.how.value}" if already else ended.how.value
    return StopResult(epoch.number, how, ended.last_batch_id, ended.message)


def _take(control: Control, epoch: Epoch, rung: _Rung, say: Callable[[str], None]) -> None:
    """Take a rung, and wait until the job is at rest or the time is over. What went wrong is tried again."""
    _note(control, epoch, rung)
    _send(epoch, rung)
    began = clock.monotonic_s()
    said_s = 0
    jvm_is_gone = False
    while (waited_s := clock.monotonic_s() - began) < (rung.timeout_s or 0):
        if end_if_over(control, epoch, at_ms=clock.now_ms()) is not None:
            return
        if rung.signal is not None and not jvm_is_gone and machine().is_alive(epoch.holder) is False:
            jvm_is_gone = True
            machine().signal_leader(epoch.holder, rung.signal)
        if waited_s >= said_s + 10:
            said_s = int(waited_s)
            trouble = _send(epoch, rung) if rung.signal is None else ""
            say(f"waited {said_s} s of {rung.timeout_s} s for {rung.awaited}{trouble and f'; {trouble}'}")
        clock.sleep(POLL_S)


def _note(control: Control, epoch: Epoch, rung: _Rung) -> None:
    """Note that a rung is taken. A request takes no place of a force."""
    noted = control.stop_rung(epoch.number)
    was_forced = noted is not None and not noted.is_request
    if rung.name and not (rung.is_request and was_forced):
        control.note_stop_rung(epoch.number, StopRung(rung.name, rung.is_request, clock.now_ms()))


def _send(epoch: Epoch, rung: _Rung) -> str:
    """Send a job what a rung is made of, and give what went wrong, if anybody can say."""
    if rung.signal is None:
        return machine().kill_on_yarn(epoch.claim.yarn) if rung.name and epoch.claim.yarn is not None else ""
    if epoch.claim.tracked:
        machine().signal_group(epoch.holder, rung.signal)
    elif rung.signal is signal.SIGTERM:
        machine().signal_leader(epoch.holder, rung.signal)
    else:
        machine().signal_session(epoch.holder, rung.signal)
    return ""
