"""Transfer a position to a store: read the position, and write either exactly what was planned, or nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from airflow_provider_offsets.checkpoint.positions import CheckpointPositions, Swap
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import RecordedMove
from airflow_provider_offsets.core.known import known_batch
from airflow_provider_offsets.core.location import plain_path
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import EndWrite
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.core.transfer import Transfer
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported, PlanRefused, StateChanged, StoreInUse
from airflow_provider_offsets.operations.lease import keep_lease, release_lease, require_lease, take_lease
from airflow_provider_offsets.operations.moving import keep_move, note_move
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.protocols import (
    CheckedWrites,
    OffsetStore,
    PositionStore,
    WritablePositionStore,
)
from airflow_provider_offsets.stores.rules import check_position, check_stream

TAG = "import-"
"""Begin of the name of a move by a command."""

ENDED = "-ended"
"""End of the name under which a move is recorded whose position has become the pipeline's."""


def read_position(source: PositionStore, stream: Stream) -> Position:
    """Return the position in a store.

    :param source: the store to read.
    :param stream: group and topics of the position.
    :raises InputRefused: the store has no position, which differs from offset 0: there is nothing to transfer.
    """
    position = source.position(stream)
    if not position:
        raise InputRefused(
            seen=f"group {stream.group_id!r} has nothing stored in the {source.kind} store for {list(stream.topics)!r}",
            expected="a stored position",
            do="correct the store, the group or the topics",
        )
    return position


def carry_out(target: PositionStore, stream: Stream, transfer: Transfer) -> None:
    """Write what was planned. Safe to repeat: nothing happens if the store already has the planned position.

    :param target: the store to write.
    :param stream: group and topics of the position.
    :param transfer: the planned transfer, with the position before and after it.
    :raises PlanRefused: the transfer has problems.
    :raises ModeUnsupported: the store is read-only.
    :raises StateChanged: the target has another position than when the transfer was planned.
    :raises StoreInUse: a running job uses the store.
    """
    if transfer.problems:
        raise PlanRefused(transfer.problems)
    target_store = writable(target)
    if transfer.changed:
        target_store.write(stream, transfer.after, expected=transfer.now)


def check_write(target: PositionStore, stream: Stream, transfer: Transfer) -> None:
    """Raise what the store would say to a planned write. Nothing is written.

    :param target: the store to write.
    :param stream: group and topics of the position.
    :param transfer: the planned transfer. One with problems is not asked for.
    :raises ModeUnsupported: the store is read-only.
    :raises OffsetsError: the store would refuse the position.
    """
    store = writable(target)
    if transfer.problems or not transfer.changed:
        return
    check_position(check_stream(stream), transfer.after)
    if isinstance(store, CheckedWrites):
        store.check_write(stream, transfer.after, expected=transfer.now)


def writable(target: PositionStore) -> WritablePositionStore:
    """Return the store as a writable store.

    :raises ModeUnsupported: the store is read-only.
    """
    if not isinstance(target, WritablePositionStore):
        raise ModeUnsupported(
            seen=f"the target is a {target.kind} store, which cannot be written",
            expected="a target that can be written",
            do="name another target",
        )
    return target


def finish_interrupted(target: PositionStore) -> None:
    """Finish a write to a checkpoint that was interrupted when nothing was at its location. Its job must be stopped."""
    if isinstance(target, CheckpointPositions):
        target.finish_swap()


Write = Callable[[PositionStore, Stream, Transfer], None]
"""Carries out one transfer to a store."""


@contextmanager
def stopped_pipeline(session: Session, *, take_over: bool = False) -> Iterator[Write]:
    """Hold the lease of a pipeline whose job is stopped, so that no operation starts it during writes to its stores.

    A running job writes its position with every batch, and would silently overwrite the new one.

    :param session: the session of the operation that writes.
    :param take_over: take the lease from an operation that acted recently.
    :returns: the function that writes; it raises TakenOver once another operation has the lease.
    :raises StoreInUse: the job runs or may be running.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    """
    before = session.cell.read()
    if before is not None:
        _require_stopped(session, before)
    record = take_lease(session, take_over=take_over)
    try:
        _require_stopped(session, record)
        yield partial(_write_held, session)
    finally:
        release_lease(session)


def _write_held(session: Session, target: PositionStore, stream: Stream, transfer: Transfer) -> None:
    """Carry out a transfer under the lease.

    The position of an untracked job is in a store that has no lease. This operation may hang before the write, and
    another one may start the job meanwhile. So the record names the move before the store changes, as for the move of a
    plan. Until the write has ended, every plan uses the position before it.

    :raises TakenOver: another operation took the pipeline over. If the write was late, the next plan reports it.
    :raises InputRefused: a tracked job has run, and the store is its history or its checkpoint.
    """
    _require_mine(session)
    if transfer.problems:
        raise PlanRefused(transfer.problems)
    store = writable(target)
    _require_unrecorded(session, store, stream)
    if not _is_the_jobs_own(session, store, stream, transfer):
        if transfer.changed:
            _put(session, store, stream, transfer, tag=_new_tag(), require_mine=partial(_require_mine, session))
        return
    if transfer.changed:
        moved = _write_own(session, store, stream, transfer)
    elif (interrupted := _interrupted(session, transfer)) is not None:
        moved = interrupted
    else:
        return
    _note_end(session, moved)


def _require_unrecorded(session: Session, target: PositionStore, stream: Stream) -> None:
    """Raise if the write would have no effect, because the pipeline's record has the position of its tracked job.

    :raises InputRefused: the target is the history or the checkpoint of that job.
    """
    epoch = session.claimed_epoch() if session.pipeline.tracked else None
    if epoch is None:
        return
    if isinstance(target, CheckpointPositions):
        own = {plain_path(each) for each in (session.pipeline.job.checkpoint, epoch.claim.checkpoint)}
        is_own = plain_path(target.location) in own
    else:
        is_own = stream.group_id == session.pipeline.group_id and _has_record_of(session, target)
    if is_own:
        name = session.pipeline.name
        raise InputRefused(
            seen=f"the {target.kind} store belongs to {name!r}, whose record has the position of its tracked job",
            expected="a store from which a job starts",
            do=f"name the start in the DAG reprocess__{name}, as in 'offsets:…'",
        )


def _has_record_of(session: Session, target: PositionStore) -> bool:
    """Check whether a store has the pipeline's record. The same store may have several URLs and connections."""
    own = session.cell.read()
    found = RecordCell(target, session.pipeline.name).read() if isinstance(target, OffsetStore) else None
    return own is not None and found is not None and found.incarnation == own.incarnation


def _is_the_jobs_own(session: Session, target: PositionStore, stream: Stream, transfer: Transfer) -> bool:
    """Check whether the target may be the store that an untracked job starts from.

    A store has several names, so the stored position decides: a store with another position is another one.
    """
    pipeline = session.pipeline
    if isinstance(target, CheckpointPositions):
        return plain_path(target.location) == session.opens
    if not session.keeps_position_elsewhere or stream.group_id != pipeline.group_id:
        return False
    return session.kept_in[pipeline.authoritative].position(stream) == transfer.now


def _write_own(session: Session, store: WritablePositionStore, stream: Stream, transfer: Transfer) -> RecordedMove:
    """Record the move, write, record that the write has ended, and return the move."""
    seen = session.observe()
    kept = seen.kept[0].position
    topics = {*session.pipeline.topics, *(kept or Position()).topics}
    brought = Position({key: offset for key, offset in transfer.after.items() if key.topic in topics})
    left_at = seen.stored if seen.left_at is None else seen.left_at
    moved = keep_move(session, seen, _new_tag(), kept, (kept or Position()).updated(brought), left_at)
    token = "" if isinstance(store, CheckpointPositions) else uuid.uuid4().hex
    note_move(session, moved.fingerprint, token)
    try:
        _put(
            session,
            store,
            stream,
            transfer,
            tag=moved.fingerprint,
            require_mine=lambda: _require_intent(session, moved),
        )
    except (StateChanged, StoreInUse):
        session.cell.change(EndWrite(token, is_written=False))
        raise
    require_lease(session, session.cell.change(EndWrite(token, is_written=True)))
    return moved


def _put(
    session: Session,
    store: WritablePositionStore,
    stream: Stream,
    transfer: Transfer,
    *,
    tag: str,
    require_mine: Callable[[], None],
) -> None:
    if isinstance(store, CheckpointPositions):
        swap = Swap(tag, require_mine, lambda: _completed(session))
        store.write(stream, transfer.after, expected=transfer.now, swap=swap)
    else:
        store.write(stream, transfer.after, expected=transfer.now)


def _completed(session: Session) -> tuple[str, int]:
    """Return query id and greatest batch id of the job, for a checkpoint that is written where none is."""
    seen = session.observe()
    known = known_batch(seen, session.control.snapshots(), session.control.epochs())
    ids = (seen.completed_batch_id, None if known is None else known.completed_id)
    newest = seen.newest_checkpoint
    query_id = str(uuid.uuid4()) if newest is None else newest.query_id
    return query_id, max((each for each in ids if each is not None), default=UNSTARTED)


def _interrupted(session: Session, transfer: Transfer) -> RecordedMove | None:
    """Return the recorded move of an earlier call that wrote the same, and did not record the end of its write."""
    record = session.cell.read()
    if record is None or record.intent is None:
        return None
    if not record.intent.plan.startswith(TAG) or record.intent.plan.endswith(ENDED):
        return None
    moved = session.control.move(record.intent.plan)
    return moved if transfer.after.items() <= moved.to.items() else None


def _note_end(session: Session, moved: RecordedMove) -> None:
    """Record that the pipeline's position is the written one.

    The in-flight offsets of its last epoch stay known, and so does the position before: the next launch announces what
    the command has skipped and rewound.
    """
    kept = session.observe().kept[0].position
    is_own = kept is not None and all(moved.to.get(key) == offset for key, offset in kept.items())
    position = moved.to if is_own else moved.stood
    # The command does not name a topic that was taken out of the pipeline, whatever the store has of it.
    topics = session.pipeline.topics
    others = {key: at for key, at in (moved.stood or Position()).items() if key.topic not in topics}
    ended = replace(
        moved,
        operation=session.operation,
        fingerprint=f"{moved.fingerprint}{ENDED}",
        stood=position if position is None else position.updated(others),
        kept=None,
        to=position or Position(),
    )
    session.control.keep_move(ended)
    note_move(session, ended.fingerprint)


def _new_tag() -> str:
    return f"{TAG}{uuid.uuid4().hex[:12]}"


def _require_intent(session: Session, moved: RecordedMove) -> None:
    """Raise unless the operation holds the lease and the record names this move."""
    record = session.cell.read()
    assert record is not None, "it named the move"
    keep_lease(session, record)
    if record.intent is None or record.intent.plan != moved.fingerprint:
        raise StateChanged(
            seen="the record names another move",
            expected=f"the move {moved.fingerprint}",
            do="run the command again",
        )


def _require_mine(session: Session) -> None:
    record = session.cell.read()
    assert record is not None, "whoever holds a lease has created the record"
    keep_lease(session, record)


def _require_stopped(session: Session, record: PipelineRecord) -> None:
    if record.phase is not Phase.STOPPED:
        raise StoreInUse(
            seen=f"epoch {record.epoch} of pipeline {session.pipeline.name!r} is {record.phase.value}: its job may run",
            expected="a stopped job",
            do=f"run the task 'stop' of maintenance__{session.pipeline.name} first",
        )
