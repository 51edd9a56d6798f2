"""Transfer a position to a store: read the position, and write either exactly what was planned, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.transfer import Transfer
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported, PlanRefused, StoreInUse
from airflow_provider_offsets.operations.lease import keep_lease, release_lease, take_lease
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.protocols import PositionStore, WritablePositionStore


def read_position(source: PositionStore, stream: Stream) -> Position:
    """Return the position in a store.

    :raises InputRefused: the store has no position, which differs from offset 0: there is nothing to transfer.
    """
    position = source.position(stream)
    if not position:
        raise InputRefused(
            seen=f"group {stream.group_id!r} has nothing stored in the {source.kind} store for {list(stream.topics)!r}",
            expected="a position",
            do="correct the store, the group or the topics",
        )
    return position


def carry_out(target: PositionStore, stream: Stream, transfer: Transfer) -> None:
    """Write what was planned. Safe to repeat: nothing happens if the store already has the planned position.

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


def writable(target: PositionStore) -> WritablePositionStore:
    """Return the store as a writable store.

    :raises ModeUnsupported: the store is read-only.
    """
    if not isinstance(target, WritablePositionStore):
        raise ModeUnsupported(
            seen=f"a {target.kind} store as the target",
            expected="a store that can be written",
            do="name another one",
        )
    return target


@contextmanager
def stopped(session: Session, *, take_over: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the lease of a pipeline whose job is stopped, so that no operation starts it during writes to its stores.

    A running job writes its position with every batch, and would silently overwrite the new one.

    :param session: the session of the operation that writes.
    :param take_over: take the lease from an operation that acted recently.
    :returns: a function that must be called before each write; it raises TakenOver once another operation has the
        lease.
    :raises StoreInUse: the job runs or may be running.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    """
    before = session.cell.read()
    if before is not None:
        _require_stopped(session, before)
    record = take_lease(session, take_over=take_over)
    try:
        _require_stopped(session, record)
        yield lambda: _require_mine(session)
    finally:
        release_lease(session)


def _require_mine(session: Session) -> None:
    record = session.cell.read()
    assert record is not None, "whoever holds a lease has created the record"
    keep_lease(session, record)


def _require_stopped(session: Session, record: PipelineRecord) -> None:
    if record.phase is not Phase.STOPPED:
        raise StoreInUse(
            seen=f"epoch {record.epoch} of pipeline {session.pipeline.name!r} is {record.phase.value}: its job may run",
            expected="a stopped job",
            do=f"stop it first, by the task 'stop' of maintenance__{session.pipeline.name}",
        )
