"""Tell whether a job runs. Unknown is not dead."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.operations.stopping import is_running
from airflow_provider_offsets.operations.world import newest_batch
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import HistoryStore


class JobState(enum.Enum):
    """What can be said of a job."""

    NEVER_STARTED = "never started"
    RUNNING = "running"
    """Its process was seen, or its heartbeat grew between two looks."""
    ENDED = "ended"
    """Its epoch was closed."""
    DEAD = "dead"
    """Its process was seen to be gone, and its epoch is not closed."""
    UNKNOWN = "unknown"
    """Its process cannot be seen from here, and its heartbeat did not grow since the last look, if there was one."""


@dataclass(frozen=True)
class JobLook:
    """One look at a job; the next look needs ``beat`` of this one."""

    state: JobState
    epoch: int
    beat: int | None = None
    detail: str = ""


def look(control: Control, before: JobLook | None = None) -> JobLook:
    """Give the state of the newest epoch's job.

    :param before: the look before; a heartbeat that grew since then is life, wherever the driver is. Clocks of two
        hosts are never compared.
    """
    epoch = control.newest_epoch()
    if epoch is None:
        return JobLook(JobState.NEVER_STARTED, 0)
    alive = is_running(epoch)
    ended = control.ended(epoch.number)
    if ended is not None:
        return JobLook(JobState.ENDED, epoch.number, detail=f"{ended.how.value} {ended.message}".strip())
    heartbeat = control.heartbeat(epoch.number)
    beat = None if heartbeat is None else heartbeat.beat
    grew = before is not None and before.epoch == epoch.number and beat is not None and beat > (before.beat or 0)
    if alive is None:
        state = JobState.RUNNING if grew else JobState.UNKNOWN
    else:
        state = JobState.RUNNING if alive else JobState.DEAD
    return JobLook(state, epoch.number, beat, f"pid {epoch.holder.pid} on {epoch.holder.host}")


def behind(control: Control, history: HistoryStore, stream: Stream, target: Position) -> dict[TopicPartition, int]:
    """Give, for each partition that has not reached ``target``, the offsets that are still to be processed."""
    epoch = control.newest_epoch()
    newest = newest_batch(history, stream, epoch)
    reached = Position() if epoch is None else epoch.claim.start
    if newest is not None and (epoch is None or newest.epoch == epoch.number):
        reached = reached.updated(newest.end)
    return short_of(reached, target)


def short_of(reached: Position, target: Position) -> dict[TopicPartition, int]:
    """Give, for each partition of ``target`` that ``reached`` has not come to, the offsets in between."""
    missing = {partition: offset - reached.get(partition, 0) for partition, offset in target.items()}
    return {partition: count for partition, count in missing.items() if count > 0}
