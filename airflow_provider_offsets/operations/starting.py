"""Detect whether a job that was started makes progress."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_offsets import clock
from airflow_provider_offsets.checkpoint.swap import read_in_place
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.model import PipelineRecord
from airflow_provider_offsets.core.snapshot import CHECKPOINT
from airflow_provider_offsets.operations.applying import Applied
from airflow_provider_offsets.operations.lease import is_running
from airflow_provider_offsets.operations.session import Session

STARTUP_S = 15
"""Seconds after which an untracked job with nothing to read counts as idle: it cannot acknowledge that itself."""


@dataclass(frozen=True)
class FirstSign:
    """The first evidence that a job makes progress."""

    how: str
    batch_id: int | None = None


def first_sign(session: Session, record: PipelineRecord, epoch: Epoch, applied: Applied) -> FirstSign | None:
    """Return the first sign of progress: a finished batch, or that the job is idle; None without such a sign.

    For a tracked job, the sign is a recorded batch or the driver's acknowledgement that it is idle. For an untracked
    job, the sign is a batch committed in its checkpoint, or a position after its start.

    :param session: the session of the operation.
    :param record: the record as last read.
    :param epoch: an epoch that this operation launched.
    :param applied: the applied plan.
    """
    if not session.pipeline.tracked:
        return _untracked_sign(session, epoch, applied) or _untracked_idle(session, epoch)
    if epoch.last_batch_id is not None:
        return FirstSign(f"processed batch {epoch.last_batch_id}", epoch.last_batch_id)
    is_newest = record.launch is not None and record.launch.tag == epoch.claim.tag
    return FirstSign("idle") if is_newest and record.idle else None


def has_output(session: Session, epoch: Epoch, applied: Applied) -> bool:
    """Return whether an epoch has processed anything.

    :param session: the session of the operation.
    :param epoch: the epoch of the launch.
    :param applied: the plan that the launch belongs to.
    """
    if session.pipeline.tracked:
        return epoch.last_batch_id is not None
    return _untracked_sign(session, epoch, applied) is not None


def _untracked_sign(session: Session, epoch: Epoch, applied: Applied) -> FirstSign | None:
    if session.pipeline.authoritative == CHECKPOINT:
        state = read_in_place(applied.checkpoint)
        if state is None or applied.next_batch_id is None or state.committed_batch_id < applied.next_batch_id:
            return None
        return FirstSign(f"committed batch {state.committed_batch_id}", state.committed_batch_id)
    position = session.kept_in[session.pipeline.authoritative].position(session.pipeline.stream)
    if position is None or all(epoch.claim.start.get(partition) == offset for partition, offset in position.items()):
        return None
    return FirstSign(f"moved its position in {session.pipeline.authoritative}")


def _untracked_idle(session: Session, epoch: Epoch) -> FirstSign | None:
    has_lived = clock.now_ms() >= epoch.claimed_at_ms + STARTUP_S * 1000
    if epoch.holder is None or not has_lived or not is_running(epoch):
        return None
    end = session.live_topics().end
    return FirstSign(f"runs for {STARTUP_S} s, with nothing to read") if _within(end, epoch.claim.start) else None


def _within(position: Position, start: Position) -> bool:
    return all(start.get(partition, 0) == offset for partition, offset in position.items())
