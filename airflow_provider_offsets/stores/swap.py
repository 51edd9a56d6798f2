"""Put a seeded checkpoint in the place of another one, for a job whose program names the place itself."""

from __future__ import annotations

import os
from pathlib import Path

from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import CheckpointError
from airflow_provider_offsets.stores.checkpoint import LocalCheckpoint, last_entry, read_state, seed


def swap_in(location: str, *, tag: str, query_id: str, last_batch_id: int, start: Position) -> int:
    """Put a checkpoint that goes on at ``start`` at ``location``, and give the id of its next batch.

    It is written whole as ``<location>-seeded-<tag>``; then what is there is moved to ``<location>-before-<tag>``,
    where it stays; then the seeded one takes its place. A swap that was cut off is finished by the same call, between
    the two moves too, when there is nothing at ``location``.

    A driver that still runs on the old one dies before its next batch: the ids of the seeded entries come after every
    id that was ever named, beginning with the one that it would write next (``CONCURRENT_STREAM_LOG_UPDATE``).

    :raises CheckpointError: the old one holds state, or cannot be moved.
    """
    place, before, seeded = (Path(location + ending) for ending in ("", f"-before-{tag}", f"-seeded-{tag}"))
    next_batch_id = max(last_batch_id, 0) + 2
    if _goes_on_at(place, query_id, next_batch_id, start):
        return next_batch_id
    old = LocalCheckpoint(str(before if before.exists() else place))
    if old.names("state"):
        raise CheckpointError(
            seen=f"{location} holds state that belongs to its offsets",
            expected="a stateless query",
            do="start from 'committed' with its partitions as they are",
        )
    seed(
        LocalCheckpoint(str(seeded)),
        query_id=query_id,
        last_batch_id=last_batch_id,
        start=start,
        like=last_entry(old),
    )
    if place.exists() and not any(place.iterdir()):
        place.rmdir()
    if place.exists():
        _move(place, before)
    _move(seeded, place)
    return next_batch_id


def _goes_on_at(place: Path, query_id: str, next_batch_id: int, start: Position) -> bool:
    state = read_state(LocalCheckpoint(str(place)))
    return state is not None and (state.query_id, state.committed_batch_id + 1, state.committed) == (
        query_id,
        next_batch_id,
        start,
    )


def _move(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        raise CheckpointError(
            seen=f"{source} cannot be moved to {target}: {error}",
            expected="a folder that this user may rename",
            do="grant write access to the folder above the checkpoint, and run the task again",
        ) from error
