"""Swap of a checkpoint for a seeded one at the same location, for a job whose program names that location.

A driver that still waits on the old checkpoint fails with ``CONCURRENT_STREAM_LOG_UPDATE``. Its next file,
``offsets/<last + 1>``, exists in the closed folder and in the seeded one. In between there is no folder to write
to. Two kinds of drivers are not fenced, so the job must be verified to be stopped. A driver in the middle of batch
``last + 1`` may commit it into the seeded folder and continue there. A driver that tracks its progress
asynchronously has ids with gaps.

A caller that hangs in ``swap_in`` may be superseded, and its successor may put another seeded checkpoint there.
So the checkpoint is checked before and after it is moved aside. If it is not the closed old one, it is put back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import batch_ids, committed_entry, read_entry, read_query_id, read_state
from airflow_provider_offsets.checkpoint.seed import close, next_batch_id, require_micro_batches, seed, seeded_entry
from airflow_provider_offsets.core.location import above, resolved
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import CheckpointError, StateChanged, StoreDenied

FINGERPRINT = re.compile("[0-9a-f]{16}")
"""Fingerprint of a plan."""


def swap_in(
    location: str,
    *,
    tag: str,
    query_id: str,
    last_batch_id: int,
    start: Position,
    like: str = "",
    require_lease: Callable[[], None] = lambda: None,
) -> int:
    """Put a checkpoint that continues at ``start`` at ``location``, and return the id of the first batch with records.

    The seeded checkpoint is written completely as ``<location>-seeded-<tag>``. Then the old one is closed, and renamed
    to ``<location>-before-<tag>``, where it stays. Then the seeded one is renamed to ``location``. In an object store,
    which cannot rename folders, the seeded one is written at ``location`` itself if nothing is there.

    Repeating the call finishes an interrupted swap. After an interruption there is one of these states:

    - a part of the seeded folder, which nobody reads;
    - the old checkpoint in its place, closed;
    - nothing at ``location``, between the two renames (see ``cut_off_swap``);
    - the seeded checkpoint in its place.

    :param location: of the checkpoint.
    :param tag: name of this swap, the same when the call is repeated.
    :param query_id: id of the query.
    :param last_batch_id: the greatest batch id that the old checkpoint has committed. The next id goes to a batch
        without records: a file sink may already have taken a planned batch of that id.
    :param start: the offsets to continue from.
    :param like: location of the checkpoint whose batch metadata and other sources are copied; empty for the one at
        ``location``.
    :param require_lease: called before the old one is closed, again before it is moved aside, and before a seeded one
        is put where nothing is; raises if the caller was superseded. Whoever takes over after the second call finds a
        closed checkpoint, and does not resume it.
    :raises CheckpointError: the old checkpoint holds state, or is in an object store.
    :raises StateChanged: a batch was planned after ``last_batch_id`` was read, another checkpoint was put there, or
        something appeared at ``location`` between the two renames. Nothing there is changed.
    """
    place = open_checkpoint(location)
    following = next_batch_id(last_batch_id)
    if not place.moves:
        return _put_where_nothing_is(place, query_id, last_batch_id, start, like, require_lease)
    seeded, before = (open_checkpoint(f"{resolved(location)}-{kind}-{tag}") for kind in ("seeded", "before"))
    if before.exists():
        if seeded.exists():
            _require_moved(before, location, is_old=_is_closed(before))
            seeded.move_to(location)
        return following
    _require_whole(location, except_for=tag)
    old = read_state(place)
    if old is not None and _goes_on_at(old, query_id, following, start):
        return following
    _require_movable(place, old)
    newest_id = last_batch_id + 1 if old is None else max(old.last_batch_id, last_batch_id + 1)
    _require_no_later_batch(place, last_batch_id, newest_id, except_for=None)
    model = open_checkpoint(like) if like else place
    seed(
        seeded,
        query_id=query_id,
        last_batch_id=last_batch_id,
        start=start,
        like=committed_entry(model),
        sources_in=model,
    )
    if place.exists():
        require_lease()
        _close_after(place, last_batch_id, newest_id, tag)
        _move_aside(place, old, before, require_lease)
    else:
        require_lease()
    seeded.move_to(location)
    return following


def check_swap(location: str, start: Position) -> None:
    """Raise what :func:`swap_in` would raise for the checkpoint at a location. Nothing is written.

    :param location: of a checkpoint that exists.
    :param start: the offsets to continue from.
    :raises CheckpointError: as ``swap_in``.
    """
    place = open_checkpoint(location)
    if not place.moves:
        raise _not_in_one_step(place)
    _require_movable(place, read_state(place))
    seeded_entry(start, committed_entry(place))


def _move_aside(
    place: CheckpointFolder, old: CheckpointState | None, before: CheckpointFolder, require_lease: Callable[[], None]
) -> None:
    """Rename the closed old checkpoint to ``before``, and check before and after that it is the old one."""
    location = place.location
    if not _is_old(place, old):
        raise _another_one(location)
    require_lease()
    place.move_to(before.location)
    _require_moved(before, location, is_old=_is_old(before, old))


def cut_off_swap(location: str) -> str | None:
    """Return the tag of a swap that was interrupted between its two renames, or None.

    In that state nothing is at ``location``, which would read as a first start.
    """
    place = open_checkpoint(location)
    if not place.moves or place.exists():
        return None
    base = resolved(location)
    folder, name = above(location)
    for each in open_checkpoint(folder).names(""):
        tag = each.removeprefix(f"{name}-before-")
        if tag != each and open_checkpoint(f"{base}-seeded-{tag}").exists():
            return tag
    return None


def left_by_restarts(location: str) -> list[str]:
    """Return the checkpoints ``<location>-<fingerprint>``, to which restarts have moved a tracked job.

    Returns nothing if this user may not list the folder above.
    """
    base = resolved(location)
    folder, name = above(location)
    names: list[str] = []
    with suppress(StoreDenied):
        names = open_checkpoint(folder).names("")
    tags = sorted(each.removeprefix(f"{name}-") for each in names if each.startswith(f"{name}-"))
    found = [f"{base}-{tag}" for tag in tags if FINGERPRINT.fullmatch(tag)]
    return [each for each in found if read_query_id(open_checkpoint(each)) is not None]


def seeded_beside(location: str, tag: str) -> str:
    """Return the location of a swap's seeded checkpoint until it is renamed.

    :param location: the checkpoint that is replaced.
    :param tag: identifies the swap.
    """
    return f"{resolved(location)}-seeded-{tag}"


def discard_swap(location: str, tag: str) -> None:
    """Remove the seeded checkpoint of a swap that was refused while the old checkpoint is in its place.

    :param location: the checkpoint that was to be replaced.
    :param tag: identifies the swap.
    """
    if open_checkpoint(location).exists():
        open_checkpoint(seeded_beside(location, tag)).remove()


def finish_swap(location: str, tag: str) -> None:
    """Finish a swap that was interrupted between its two renames.

    :param location: the checkpoint that is replaced.
    :param tag: identifies the swap; the interrupted swap of another tag is left alone.
    :raises StateChanged: something exists at ``location`` by now.
    """
    if cut_off_swap(location) == tag:
        open_checkpoint(seeded_beside(location, tag)).move_to(location)


def read_in_place(location: str) -> CheckpointState | None:
    """Return the state of the checkpoint at ``location``, or None if no query has started there.

    :raises CheckpointError: the checkpoint cannot be read, or is of a query in real-time mode. Also if nothing is there
        because a swap was interrupted between its two renames.
    """
    place = open_checkpoint(location)
    state = read_state(place)
    if state is not None:
        require_micro_batches(place)
        return state
    tag = cut_off_swap(location)
    if tag is not None:
        raise CheckpointError(
            seen=f"{location} does not exist: the exchange for the checkpoint {tag!r} was interrupted",
            expected="the old checkpoint, or the seeded one in its place",
            do="run the same apply task, or the same copy, again, which finishes the exchange",
        )
    return read_state(place)  # a swap may have been finished since the first read


def can_be_seeded(location: str) -> bool:
    """Check whether a seeded checkpoint can be put at ``location``: not if one exists there in an object store."""
    place = open_checkpoint(location)
    return place.moves or not place.exists()


def _put_where_nothing_is(
    place: CheckpointFolder,
    query_id: str,
    last_batch_id: int,
    start: Position,
    like: str,
    require_lease: Callable[[], None],
) -> int:
    """Seed a checkpoint at its final location. An interrupted one has no ``metadata`` yet, and is finished."""
    following = next_batch_id(last_batch_id)
    there_id = read_query_id(place)
    if there_id is not None:
        state = read_state(place)
        if there_id == query_id and state is not None and _goes_on_at(state, query_id, following, start):
            return following
        raise _not_in_one_step(place)
    model = open_checkpoint(like) if like else None
    require_lease()
    return seed(
        place,
        query_id=query_id,
        last_batch_id=last_batch_id,
        start=start,
        like=None if model is None else committed_entry(model),
        sources_in=model,
    )


def _not_in_one_step(place: CheckpointFolder) -> CheckpointError:
    return CheckpointError(
        seen=f"the checkpoint {place.location} is to be exchanged for a seeded one",
        expected="a file system that moves a folder in one step: a local disk or HDFS",
        do="copy the position to a new checkpoint, and use that checkpoint in the program",
    )


def _require_whole(location: str, *, except_for: str) -> None:
    tag = cut_off_swap(location)
    if tag is not None and tag != except_for:
        raise StateChanged(
            seen=f"{location} does not exist: the swap {tag!r} was interrupted between its two moves",
            expected="one swap at a time",
            do=f"finish it by moving {resolved(location)}-seeded-{tag} there, and plan again",
        )


def _goes_on_at(state: CheckpointState, query_id: str, following: int, start: Position) -> bool:
    is_there = (state.query_id, state.committed_batch_id + 2, state.committed) == (query_id, following, start)
    return is_there and state.planned == start and state.closed_by is None


def _require_movable(place: CheckpointFolder, old: CheckpointState | None) -> None:
    if old is not None and old.stateful:
        raise CheckpointError(
            seen=f"{place.location} holds state that belongs to its offsets",
            expected="a stateless query",
            do="start from 'committed' with the partitions unchanged",
        )


def _is_old(folder: CheckpointFolder, old: CheckpointState | None) -> bool:
    """Check whether a folder is the checkpoint that was read as ``old``, closed since, and not a replacement."""
    now = read_state(folder)
    if now is None or old is None:
        return now is old and _is_closed(folder)
    same = (now.query_id, now.committed_batch_id, now.committed) == (
        old.query_id,
        old.committed_batch_id,
        old.committed,
    )
    return same and _is_closed(folder)


def _is_closed(folder: CheckpointFolder) -> bool:
    """Check whether the newest entry is a closing one. A checkpoint without entries counts as closed."""
    planned_ids = batch_ids(folder, "offsets")
    newest = read_entry(folder, planned_ids[-1]) if planned_ids else None
    return newest is None or newest.closed_by is not None


def _require_moved(before: CheckpointFolder, location: str, *, is_old: bool) -> None:
    """Put back what was moved aside, and raise, unless it is the old checkpoint."""
    if not is_old:
        before.move_to(location)
        raise _another_one(location)


def _another_one(location: str) -> StateChanged:
    return StateChanged(
        seen=f"{location} was replaced by another checkpoint in the meantime",
        expected="the checkpoint that was closed",
        do="No action needed if another operation has taken the pipeline over. Otherwise plan again.",
    )


def _close_after(place: CheckpointFolder, last_batch_id: int, newest_id: int, tag: str) -> None:
    """Close the old checkpoint, if no batch was planned after ``last_batch_id`` was read.

    That is checked before closing too: an entry planted after a planned batch would hide that batch from Spark for
    ever. The location may also hold the seeded checkpoint with a running job, put there by another try of the same
    task.
    """
    _require_no_later_batch(place, last_batch_id, newest_id, except_for=None)
    planted_id = close(place, tag)
    _require_no_later_batch(place, last_batch_id, newest_id, except_for=planted_id)


def _require_no_later_batch(
    place: CheckpointFolder, last_batch_id: int, newest_id: int, *, except_for: int | None
) -> None:
    newest = max((each for each in batch_ids(place, "offsets") if each != except_for), default=UNSTARTED)
    planted = read_entry(place, newest) if except_for is None and newest > newest_id else None
    is_closed = planted is not None and planted.closed_by is not None  # by an earlier try of this call
    if (newest > newest_id and not is_closed) or max(batch_ids(place, "commits"), default=UNSTARTED) > last_batch_id:
        raise StateChanged(
            seen=f"{place.location} has batch {newest}, and its last batch was {last_batch_id}",
            expected="no driver on the checkpoint",
            do="stop the job, and plan again",
        )
