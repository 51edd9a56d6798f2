"""Bring a position into a store: read, and write what was planned, or nothing."""

from __future__ import annotations

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.transfer import Transfer
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported, PlanRefused, StoreInUse
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import PositionStore, WritablePositionStore


def read_position(source: PositionStore, stream: Stream) -> Position:
    """Give what a store says.

    :raises InputRefused: it says nothing, which is not offset 0: there is nothing to bring anywhere.
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
    """Write what was planned. Where it is there already nothing is done, so it may be repeated.

    :raises PlanRefused: something speaks against it.
    :raises ModeUnsupported: the store can only be read.
    :raises WorldChanged: the target does not say any more what it said when that was planned.
    :raises StoreInUse: a running job holds it.
    """
    if transfer.problems:
        raise PlanRefused(transfer.problems)
    target_store = writable(target)
    if transfer.changed:
        target_store.write(stream, transfer.after, expected=transfer.now)


def writable(target: PositionStore) -> WritablePositionStore:
    """Give the store as one that can be written.

    :raises ModeUnsupported: it cannot.
    """
    if not isinstance(target, WritablePositionStore):
        raise ModeUnsupported(
            seen=f"a {target.kind} store as the target",
            expected="a store that can be written",
            do="name another one",
        )
    return target


def require_rest(control: Control) -> None:
    """Say nothing if the newest epoch of the pipeline has ended, or there is none.

    A store that its job writes with every batch would be set back by it at once, and nobody would see it.

    :raises StoreInUse: the job runs, as far as anybody knows.
    """
    epoch = control.newest_epoch()
    if epoch is not None and control.ended(epoch.number) is None:
        raise StoreInUse(
            seen=f"epoch {epoch.number} of pipeline {control.pipeline!r} has not ended, so its job may run",
            expected="a job at rest",
            do=f"stop it first, by the task 'stop' of maintenance__{control.pipeline}",
        )
