"""Observe a job through its pipeline's record. Nothing is changed here: only the lease holder closes an epoch.

Unknown is not dead.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Ended
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.operations.lease import is_running, seen_end
from airflow_provider_offsets.operations.session import recorded_batch
from airflow_provider_offsets.stores.protocols import OffsetStore


class JobState(enum.Enum):
    """State of a job."""

    NEVER_STARTED = "never started"
    LAUNCHING = "launching"
    """Launched, and no driver has claimed the launch yet."""
    RUNNING = "running"
    """Its process is alive, or its heartbeat has increased between two checks."""
    ENDED = "ended"
    """Its driver has ended, and its last batch is not reconciled yet."""
    STOPPED = "stopped"
    """The job does not run, and its last batch is reconciled."""
    DEAD = "dead"
    """Its process has exited, but its epoch is still open."""
    UNKNOWN = "unknown"
    """Its process is not visible from here, and its heartbeat has not increased since the last check."""


@dataclass(frozen=True)
class JobObservation:
    """Result of one check of a job; the next check needs its ``beat``."""

    state: JobState
    epoch: int
    """Number of the newest launch; 0 before the first one."""
    beat: int | None = None
    detail: str = ""

    def is_in(self, state: JobState) -> bool:
        """Return whether the job is in a state. A stopped job has also ended."""
        return self.state is state or (state is JobState.ENDED and self.state is JobState.STOPPED)


def observe_job(control: Control, before: JobObservation | None = None) -> JobObservation:
    """Return the state of a pipeline's job. Costs one read, unless the process has exited or runs elsewhere.

    :param control: control records of the pipeline.
    :param before: result of the previous check. A heartbeat that has increased since then shows life on any host.
        Clocks of two hosts are never compared.
    """
    record = control.record()
    if record is None or record.launch is None:
        return JobObservation(JobState.NEVER_STARTED, 0)
    if record.phase is Phase.LAUNCHING:
        return JobObservation(JobState.LAUNCHING, record.epoch, detail=f"launched by {record.launch.operation!r}")
    if record.phase is not Phase.RUNNING:
        state = JobState.ENDED if record.phase is Phase.ENDED else JobState.STOPPED
        return JobObservation(state, record.epoch, detail="" if record.ended is None else _words(record.ended))
    assert record.holder is not None
    detail = f"pid {record.holder.pid} on {record.holder.host}"
    alive = has_job(control, record)
    if alive is not None:
        return JobObservation(JobState.RUNNING if alive else JobState.DEAD, record.epoch, detail=detail)
    heartbeat = control.heartbeat(record.epoch)
    beat = None if heartbeat is None else heartbeat.beat
    grew = before is not None and before.epoch == record.epoch and beat is not None and beat > (before.beat or 0)
    return JobObservation(JobState.RUNNING if grew else JobState.UNKNOWN, record.epoch, beat, detail)


def has_job(control: Control, record: PipelineRecord) -> bool | None:
    """Return whether the job of a running epoch is alive; None if that cannot be determined from here.

    :param control: control records of the pipeline.
    :param record: in phase RUNNING.
    """
    assert record.holder is not None
    assert record.launch is not None
    sees = machine().is_alive if record.launch.tracked else machine().is_session_alive
    has_process = sees(record.holder)
    # The claim shows whether the job may still run on YARN. It is needed only if the process has exited.
    return is_running(control.newest_launch(record)) if has_process is False else has_process


def end_of(control: Control, number: int) -> Ended | None:
    """Return how an epoch ended, by the record or by its process if visible from here, else None.

    :param control: the control store of the pipeline.
    :param number: number of the epoch.
    """
    record = control.record()
    if record is None or record.epoch < number:
        return None
    if record.epoch > number:
        kept = control.kept_epoch(number)
        return None if kept is None else kept.ended
    if record.phase is Phase.RUNNING and has_job(control, record) is False:
        return seen_end(record, control.newest_launch(record))
    return record.ended


def _words(ended: Ended) -> str:
    return f"{ended.how.value} {ended.message}".strip()


def behind(control: Control, store: OffsetStore, stream: Stream, target: Position) -> dict[TopicPartition, int]:
    """Return the number of unprocessed offsets for each partition that has not reached ``target``.

    :param control: control records of a tracked pipeline.
    :param store: the store that contains these records.
    :param stream: group and topics of the pipeline.
    :param target: the position to reach.
    """
    return short_of(_position(control, store, stream), target)


def _position(control: Control, store: OffsetStore, stream: Stream) -> Position:
    """Return a tracked pipeline's position: by its record, or by the rows of jobs before its first claim."""
    record = control.record()
    recorded = None if record is None else record.recorded
    if recorded is None:
        return store.position(stream) or Position()
    claim = control.claim(recorded.epoch, recorded.tag)
    batch = recorded_batch(store, claim.stream, recorded)
    return claim.start if batch is None else claim.start.updated(batch.end)


def short_of(reached: Position, target: Position) -> dict[TopicPartition, int]:
    """Return the number of offsets between ``reached`` and ``target``, for each partition that has not reached it.

    :param reached: the position of the job; a missing partition counts as 0.
    :param target: the position to reach.
    """
    missing = {partition: offset - reached.get(partition, 0) for partition, offset in target.items()}
    return {partition: count for partition, count in missing.items() if count > 0}
