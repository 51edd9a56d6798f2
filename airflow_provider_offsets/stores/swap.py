"""Put a seeded checkpoint in the place of another one, for a job whose program names the place itself."""

from __future__ import annotations

from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import CheckpointError, WorldChanged
from airflow_provider_offsets.stores.checkpoint import (
    CheckpointFolder,
    batch_ids,
    close,
    next_batch_id,
    open_checkpoint,
    read_entry,
    read_state,
    seed,
)


def swap_in(location: str, *, tag: str, query_id: str, last_batch_id: int, start: Position) -> int:
    """Put a checkpoint that goes on at ``start`` at ``location``; give what ``seed`` gives.

    It is written whole as ``<location>-seeded-<tag>``. Then what is at ``location`` is closed, and moved to
    ``<location>-before-<tag>``, where it stays. Then the seeded one takes its place.

    A swap that was cut off is finished by the same call. What it leaves, step by step: a part of the seeded folder,
    that nothing reads; the old checkpoint, closed, in its place; nothing at ``location``, between the two moves
    (``cut_off_swap`` finds that out); the seeded one in its place.

    A driver that still waits on the old one dies with ``CONCURRENT_STREAM_LOG_UPDATE``: what it writes next,
    ``offsets/<last + 1>``, is in the closed folder and in the seeded one; and in between there is no folder to write
    to. Two are not fenced, so the job has to be seen gone: one in the middle of batch ``last + 1`` may commit it into
    the seeded folder and go on there; one that tracks its progress asynchronously has ids with gaps.

    :param last_batch_id: the greatest batch id that the old checkpoint has committed. One that is planned after it is
        given to a batch without records: a file sink may have taken it, or not.
    :raises CheckpointError: the old one holds state, or is on a file system that cannot move a folder in one step.
    :raises WorldChanged: a batch was planned since ``last_batch_id`` was read, or something appeared at ``location``
        between the two moves; what is there is left as it is.
    """
    place, seeded, before = _three(location, tag)
    following = next_batch_id(last_batch_id)
    if before.exists():
        if seeded.exists():
            seeded.move_to(location)
        return following
    _require_whole(location, except_for=tag)
    old = read_state(place)
    if old is not None and _goes_on_at(old, query_id, following, start):
        return following
    _require_movable(place, old)
    at_rest = None if old is None else read_entry(place, old.committed_batch_id)
    seed(
        seeded,
        query_id=query_id,
        last_batch_id=last_batch_id,
        start=start,
        like=at_rest,
        sources_in=place,
    )
    if place.exists():
        _close_after(place, last_batch_id, tag)
        place.move_to(before.location)
    seeded.move_to(location)
    return following


def cut_off_swap(location: str) -> str | None:
    """Give the tag of a swap that was cut off between its two moves, or None.

    Then there is nothing at ``location``, which would read as a first start.
    """
    place = open_checkpoint(location)
    if not place.moves or place.exists():
        return None
    base = location.rstrip("/")
    above, _, name = base.rpartition("/")
    for each in open_checkpoint(above or "/").names(""):
        tag = each.removeprefix(f"{name}-before-")
        if tag != each and open_checkpoint(f"{base}-seeded-{tag}").exists():
            return tag
    return None


def _three(location: str, tag: str) -> tuple[CheckpointFolder, CheckpointFolder, CheckpointFolder]:
    base = location.rstrip("/")
    place = open_checkpoint(location)
    if not place.moves:
        raise CheckpointError(
            seen=f"the checkpoint {location} is to be exchanged for a seeded one",
            expected="a file system that moves a folder in one step: a local disk or HDFS",
            do="copy the position to a new checkpoint beside it, and let the program name that one",
        )
    return place, open_checkpoint(f"{base}-seeded-{tag}"), open_checkpoint(f"{base}-before-{tag}")


def _require_whole(location: str, *, except_for: str) -> None:
    tag = cut_off_swap(location)
    if tag is not None and tag != except_for:
        raise WorldChanged(
            seen=f"nothing at {location}: the swap {tag!r} was cut off between its two moves",
            expected="one swap at a time",
            do=f"finish it by moving {location.rstrip('/')}-seeded-{tag} there, and plan again",
        )


def _goes_on_at(state: CheckpointState, query_id: str, following: int, start: Position) -> bool:
    is_there = (state.query_id, state.committed_batch_id + 2, state.committed) == (query_id, following, start)
    return is_there and state.planned == start and state.closed_by is None


def _require_movable(place: CheckpointFolder, old: CheckpointState | None) -> None:
    if old is not None and old.stateful:
        raise CheckpointError(
            seen=f"{place.location} holds state that belongs to its offsets",
            expected="a stateless query",
            do="start from 'committed' with its partitions as they are",
        )


def _close_after(place: CheckpointFolder, last_batch_id: int, tag: str) -> None:
    planted_id = close(place, tag)
    newest = max((each for each in batch_ids(place, "offsets") if each != planted_id), default=UNSTARTED)
    if newest > last_batch_id + 1 or max(batch_ids(place, "commits"), default=UNSTARTED) > last_batch_id:
        raise WorldChanged(
            seen=f"{place.location} has batch {newest}, and batch {last_batch_id} was its last one",
            expected="no driver on it",
            do="stop the job, and plan again",
        )
