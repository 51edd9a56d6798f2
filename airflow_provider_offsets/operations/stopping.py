"""Stop a running job between two batches, and make sure that it did."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import Ended, EndedHow, Epoch, StopRequest
from airflow_provider_offsets.core.pipeline import StopLadder
from airflow_provider_offsets.errors import StopTimedOut
from airflow_provider_offsets.jobs.marker import place_marker
from airflow_provider_offsets.jobs.process import is_alive, signal_group
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.control import Control

POLL_S = 0.25


def now_ms() -> int:
    """Give the time for the records, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


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
    if over is not None:
        return result_of(epoch, over, already=True)
    marker = world.pipeline.stop.marker
    if marker and not epoch.claim.tracked:
        place_marker(marker, f"stop: {world.operation} {reason}".rstrip())
    return epoch


def end_if_over(control: Control, epoch: Epoch, *, at_ms: int, signalled: signal.Signals | None = None) -> Ended | None:
    """Give how an epoch ended; None while it runs, or while nobody can tell.

    A driver that is gone without a word is closed here, but only if its process can be seen from this machine to be
    gone: unknown is not dead. An untouched program never says a word: if it was asked to stop, it stopped.

    :param signalled: what was sent to it; then it did not die by itself.
    """
    if is_alive(epoch.holder) is not False:
        return control.ended(epoch.number)
    how, after = EndedHow.DIED, ""
    if not epoch.claim.tracked and control.stop_request(epoch.number) is not None:
        how, after = EndedHow.STOPPED, " after it was asked to stop"
    if signalled is not None:
        how, after = EndedHow.KILLED, f" after {signalled.name}"
    gone = f"pid {epoch.holder.pid} on {epoch.holder.host} is gone{after}"
    return control.end(epoch.number, Ended(how, at_ms, message=gone))


def await_stop(
    world: World, epoch: Epoch, ladder: StopLadder, *, say: Callable[[str], None] = lambda line: None
) -> StopResult:
    """Wait until the job is at rest, taking each rung of ``ladder`` that is allowed, and give how it came to rest.

    :param say: told what is being waited for, every ten seconds.
    :raises StopTimedOut: it did not come to rest. The request stands: a job that wakes up later still stops.
    """
    tracked, marker = epoch.claim.tracked, ladder.marker
    graceful = "its acknowledgement" if tracked else f"it to end on its marker {marker}"
    rungs: list[tuple[str, int | None, signal.Signals | None]] = [
        (graceful, ladder.graceful_timeout_s if tracked or marker else None, None),
        ("it to end on SIGTERM", ladder.signal_timeout_s, signal.SIGTERM),
        ("it to end on SIGKILL", ladder.kill_timeout_s, signal.SIGKILL),
    ]
    for awaited, timeout_s, number in rungs:
        if timeout_s is None:
            continue
        if number is not None and not signal_group(epoch.holder, number):
            say(f"pid {epoch.holder.pid} on {epoch.holder.host} cannot be signalled from here")
            continue
        ended = _wait(world.control, epoch, timeout_s, awaited, number, say)
        if ended is not None:
            return result_of(epoch, ended)
    heartbeat = world.control.heartbeat(epoch.number)
    raise StopTimedOut(
        seen=f"epoch {epoch.number} of {world.pipeline.name!r} did not come to rest; last sign of life: {heartbeat}",
        expected=f"an acknowledgement within {ladder.graceful_timeout_s} s, or a later rung of the ladder to help",
        do="raise stop.graceful_timeout_s above the longest batch, or allow stop.signal_timeout_s (replays its batch)",
    )


def result_of(epoch: Epoch, ended: Ended, *, already: bool = False) -> StopResult:
    """Give the result of an epoch that is over; ``already``: it was over before anybody asked."""
    how = f"already {ended.how.value}" if already else ended.how.value
    return StopResult(epoch.number, how, ended.last_batch_id, ended.message)


def _wait(
    control: Control,
    epoch: Epoch,
    timeout_s: int,
    awaited: str,
    signalled: signal.Signals | None,
    say: Callable[[str], None],
) -> Ended | None:
    began = time.monotonic()
    said_s = 0
    while (waited_s := time.monotonic() - began) < timeout_s:
        ended = end_if_over(control, epoch, at_ms=now_ms(), signalled=signalled)
        if ended is not None:
            return ended
        if waited_s >= said_s + 10:
            said_s = int(waited_s)
            say(f"waited {said_s} s of {timeout_s} s for {awaited}")
        time.sleep(POLL_S)
    return None
