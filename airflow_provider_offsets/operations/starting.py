"""Tell whether a job that was started has got anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import DriverState, Epoch
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import CHECKPOINT
from airflow_provider_offsets.operations.applying import Applied
from airflow_provider_offsets.operations.stopping import is_running
from airflow_provider_offsets.operations.world import World, newest_batch
from airflow_provider_offsets.stores.swap import read_in_place

SETTLE_S = 15
"""How long an untouched job that has nothing to read must have lived: it has no way to say that it stands idle."""


@dataclass(frozen=True)
class FirstSign:
    """What shows that a job got somewhere."""

    how: str
    batch_id: int | None = None


def first_sign(world: World, epoch: Epoch, applied: Applied) -> FirstSign | None:
    """Give the first thing that an epoch finished, or None.

    Of a tracked job that is a batch in the history; of an untouched one a batch that its checkpoint has committed, or
    that its position has left its start.
    """
    if world.pipeline.tracked:
        newest = newest_batch(world.store, world.pipeline.stream, epoch)
        if newest is None or newest.epoch != epoch.number:
            return None
        return FirstSign(f"processed batch {newest.batch_id}", newest.batch_id)
    if world.pipeline.ruling == CHECKPOINT:
        state = read_in_place(applied.checkpoint)
        if state is None or applied.next_batch_id is None or state.committed_batch_id < applied.next_batch_id:
            return None
        return FirstSign(f"committed batch {state.committed_batch_id}", state.committed_batch_id)
    position = world.kept_in[world.pipeline.ruling].position(world.pipeline.stream)
    if position is None or all(epoch.claim.start.get(partition) == offset for partition, offset in position.items()):
        return None
    return FirstSign(f"moved its position in {world.pipeline.ruling}")


def stands_idle(world: World, epoch: Epoch) -> FirstSign | None:
    """Say whether a job stands at its start with nothing to read, as far as can be known; None if not."""
    start = epoch.claim.start
    if world.pipeline.tracked:
        heartbeat = world.control.heartbeat(epoch.number)
        if heartbeat is None or heartbeat.state is not DriverState.IDLE or heartbeat.position is None:
            return None
        return FirstSign("idle", heartbeat.last_batch_id) if _within(heartbeat.position, start) else None
    if not is_running(epoch) or clock.now_ms() < epoch.claimed_at_ms + SETTLE_S * 1000:
        return None
    end = world.live_topics().end
    return FirstSign(f"runs for {SETTLE_S} s, with nothing to read") if _within(end, start) else None


def _within(position: Position, start: Position) -> bool:
    return all(start.get(partition, 0) == offset for partition, offset in position.items())
