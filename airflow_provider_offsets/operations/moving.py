"""Record the move of an untracked job's position in its own store, before the position is moved."""

from __future__ import annotations

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.core.epoch import RecordedMove
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import NoteMove
from airflow_provider_offsets.core.snapshot import Observation
from airflow_provider_offsets.operations.session import Session


def keep_move(
    session: Session,
    seen: Observation,
    fingerprint: str,
    kept: Position | None,
    to: Position,
    left_at: Position | None,
) -> RecordedMove:
    """Write the move to the control store, and return it. ``note_move`` makes it the pipeline's move.

    :param session: the session of the operation that moves.
    :param seen: the pipeline before the move.
    :param fingerprint: identifies the move.
    :param kept: the position in the store before the move; None if nothing is stored.
    :param to: the position in the store after the move.
    :param left_at: where the job had stopped, if a command has moved its position since, or does so now.
    """
    moved = RecordedMove(
        session.operation,
        fingerprint,
        seen.stored,
        kept,
        to,
        in_flight=seen.in_flight,
        checkpoint=session.opens,
        left_at=left_at,
    )
    session.control.keep_move(moved)
    return moved


def note_move(session: Session, fingerprint: str, token: str = "") -> None:
    """Name a kept move in the pipeline's record.

    :param session: the session of the operation that moves.
    :param fingerprint: identifies the move.
    :param token: identifies the write that follows; empty if none follows, or if it writes a checkpoint.
    """
    writer = machine().this_process() if token else None
    session.cell.change(NoteMove(session.operation, fingerprint, clock.now_ms(), token, writer))
