"""Offsets in an untracked job's own store that an operation may have written after it had lost the lease.

The start of such a job is written to a store that knows no lease. A task may hang between recording its intent and that
write, while another operation takes the pipeline over and starts the job. When the task continues, the store may still
have what the write expects. So each write stays in the record as a ``PendingWrite`` until its caller knows that it has
ended. The store may have the offsets of a pending write without any sign that the job reached them by itself. Then they
are not the job's position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_offsets.core.epoch import RecordedMove
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.model import PendingWrite
from airflow_provider_offsets.core.snapshot import LateWrite, Observation, Snapshot

Pending = tuple[PendingWrite, RecordedMove]
"""A pending write, with what it writes."""


def written_offsets(moved: RecordedMove, position: Position | None) -> Position:
    """Return the offsets of ``position`` that a move has changed, or may have changed.

    :param moved: the move, with the position before it and the position that it writes.
    :param position: the position in the store now; None for none.
    """
    before = moved.kept or Position()
    return Position(
        {
            partition: offset
            for partition, offset in (position or Position()).items()
            if moved.to.get(partition) == offset != before.get(partition)
        }
    )


def late_writes(seen: Observation, pending: Iterable[Pending], snapshots: Sequence[Snapshot]) -> tuple[LateWrite, ...]:
    """Return the pending writes whose offsets the job's own store has.

    :param seen: an observation of an untracked job that keeps its position in a store of its own.
    :param pending: the pending writes of the record, each with its move.
    :param snapshots: all complete snapshots of the pipeline, in any order.
    """
    position = seen.kept[0].position
    found = []
    for write, moved in pending:
        written = written_offsets(moved, position)
        if seen.moved is not None:
            # No job has run since the newest move was recorded, so its position is the one before the move.
            if written and moved.explains(position):
                found.append(LateWrite(write.token, write.operation, Position()))
            continue
        doubtful = {key: offset for key, offset in written.items() if not _is_of_the_job(key, moved, seen, snapshots)}
        if _can_not_have_come(write, moved, seen):
            continue
        doubtful |= {key: offset for key, offset in (position or {}).items() if _may_begin(key, write, moved, seen)}
        if doubtful:
            found.append(LateWrite(write.token, write.operation, Position(doubtful)))
    return tuple(found)


def _is_of_the_job(
    partition: TopicPartition, moved: RecordedMove, seen: Observation, snapshots: Sequence[Snapshot]
) -> bool:
    """Check whether something shows that the job reached ``moved.to`` by itself, or started there."""
    start = None if seen.epoch is None else seen.epoch.claim.start.get(partition)
    if start == moved.to[partition]:
        return True
    before_move = None if moved.kept is None else moved.kept.get(partition)
    one_row_before = None if seen.kept[0].before is None else seen.kept[0].before.get(partition)
    if one_row_before not in (None, before_move):
        return True  # the previous row is of the job, so a write that expects another offset has not arrived since
    own = (each.position.get(partition) for each in snapshots if each.seen.epoch_number == seen.epoch_number)
    return any(offset not in (None, before_move, start) for offset in own)


def _may_begin(partition: TopicPartition, write: PendingWrite, moved: RecordedMove, seen: Observation) -> bool:
    """Check whether the job of the newest epoch may have started at a greater offset than its launch has.

    That happens if a write arrived between the launch and the moment when the job read its start. The records in
    between are then not read.
    """
    start = None if seen.epoch is None else seen.epoch.claim.start.get(partition)
    is_met = seen.epoch is not None and write.met == seen.epoch.number
    return is_met and start is not None and moved.to.get(partition, start) > start


def _can_not_have_come(write: PendingWrite, moved: RecordedMove, seen: Observation) -> bool:
    """Check whether the newest epoch started beyond what the write expects: offsets only grow in an epoch."""
    if seen.epoch is None or seen.epoch.number <= write.epoch:
        return False
    expected = moved.kept or Position()
    return any(offset > expected.get(partition, 0) for partition, offset in seen.epoch.claim.start.items())
