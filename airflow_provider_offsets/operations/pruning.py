"""Remove what the pipeline's ``keep`` does not retain: snapshots, old checkpoints, old versions of the program.

The first step only finds prunable items, so that a person can check them. Each item is then removed separately, so the
next run continues after a killed one. Epochs, operations and the history are never removed, because the audit needs
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_offsets.checkpoint.files import REMOVED, open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.location import above, resolved
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.pruning import Prunable, beyond_newest, prunable_snapshots
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.operations.versions import forget_version, is_kept, kept_since_ms

TAG = re.compile(r"(before-)?[0-9a-f]{16}")
"""What follows the first checkpoint's name and ``-``: the fingerprint of a plan."""


def find_prunable(control: Control, pipeline: StreamingPipeline, *, at_ms: int, named: Sequence[str] = ()) -> Prunable:
    """Return what the pipeline's ``keep`` does not retain. Nothing is changed.

    :param control: control records of the pipeline.
    :param pipeline: the pipeline.
    :param at_ms: current time.
    :param named: ids of snapshots to remove in any case.
    """
    launched = list(control.epochs())
    # A launch that no driver claimed has used nothing, but its plan may have moved a checkpoint aside.
    epochs = [epoch for epoch in launched if epoch.holder is not None]
    # A named snapshot is going to be removed: it is no reason to remove another one that knows the same.
    others = [each for each in control.snapshots() if each.id not in named]
    snapshots = prunable_snapshots(others, epochs, pipeline.keep, at_ms=at_ms, is_tracked=pipeline.tracked)
    checkpoints = [(each, _why_not(epochs, each)) for each in _left_checkpoints(pipeline, epochs, launched)]
    return Prunable(
        snapshots=tuple(dict.fromkeys([*(each.id for each in snapshots), *named])),
        checkpoints=tuple(each for each, why_not in checkpoints if not why_not),
        versions=tuple(_left_versions(pipeline, epochs)),
        retained=tuple(f"{each}: {why_not}" for each, why_not in checkpoints if why_not),
    )


def remove(
    control: Control,
    pipeline: StreamingPipeline,
    found: Prunable,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Prunable:
    """Remove the prunable items one by one, and return what was removed.

    An item that cannot be removed is retained, and the others are still removed.

    :param control: control records of the pipeline.
    :param pipeline: the pipeline.
    :param found: the prunable items.
    :param report: called with a line for each removed item.
    """
    acts: dict[str, Callable[[str], None]] = {
        "snapshots": control.remove_snapshot,
        "checkpoints": lambda location: open_checkpoint(location).remove(),
        "versions": lambda version: forget_version(pipeline.job, version),
    }
    gone: dict[str, tuple[str, ...]] = {}
    retained = list(found.retained)
    for kind, act in acts.items():
        gone[kind] = ()
        for each in getattr(found, kind):
            try:
                act(each)
            except (OffsetsError, OSError) as error:
                if isinstance(error, OffsetsError) and error.retriable:
                    raise
                retained.append(f"{each}: {error}")
                continue
            gone[kind] = (*gone[kind], each)
            report(f"removed {kind.removesuffix('s')} {each}")
    return Prunable(**gone, retained=tuple(retained))


def _left_checkpoints(pipeline: StreamingPipeline, epochs: Sequence[Epoch], launched: Sequence[Epoch]) -> Iterator[str]:
    """Yield the existing checkpoints beyond the newest ones that are ours by name, the oldest first.

    A tracked job has the checkpoints of its epochs. An untracked job always runs on the first checkpoint; its older
    ones were moved aside, under the fingerprint of the plan that did so. A seeded checkpoint that no epoch has used is
    not included, because a job may be about to start from it.
    """
    first = resolved(pipeline.job.checkpoint)
    if not first or not epochs or pipeline.keep.checkpoints is None:
        return
    if pipeline.tracked:
        used = list(dict.fromkeys(resolved(each.claim.checkpoint) for each in reversed(epochs)))[::-1]
    else:
        used = [*(f"{first}-before-{epoch.claim.plan}" for epoch in launched), first]
    folder, _ = above(first)
    names = set(open_checkpoint(folder).names(""))
    there = [each for each in used if each == first or not names.isdisjoint(_names_of(each))]
    for each in beyond_newest(there, pipeline.keep.checkpoints):
        tag = each.removeprefix(f"{first}-")
        if tag != each and TAG.fullmatch(tag) and not names.isdisjoint(_names_of(each)):
            yield each


def _names_of(location: str) -> set[str]:
    """Return the names of a checkpoint in its parent directory, before and during its removal."""
    own = location.rpartition("/")[2]
    return {own, f"{own}{REMOVED}"}


def _why_not(epochs: Sequence[Epoch], location: str) -> str:
    """Return why a checkpoint is retained; empty if it may be removed."""
    folder = open_checkpoint(location)
    if not folder.moves:
        return "no folder can be moved aside there"
    if not folder.exists():
        return ""  # it was moved aside, but its removal was interrupted
    used_by = [epoch for epoch in epochs if resolved(epoch.claim.checkpoint) == location]
    open_ends = [epoch.number for epoch in used_by if epoch.ended is None]
    if open_ends:
        return f"epoch {open_ends[0]} ran on it, and its end is not recorded"
    try:
        state = read_state(folder)
    except OffsetsError as error:
        return error.seen
    if used_by:
        return "another job has gone on there" if _went_on(state, used_by) else ""
    return "" if state is not None and state.closed_by is not None else "it was not closed by a restart"


def _went_on(state: CheckpointState | None, epochs: Sequence[Epoch]) -> bool:
    """Return whether a checkpoint has batches after the one that the last of ``epochs`` may have had in flight."""
    known = [
        each
        for epoch in epochs
        for each in (epoch.last_batch_id, epoch.claim.last_planned_batch_id, *(cut.batch_id for cut in epoch.cuts))
        if each is not None
    ]
    return state is not None and state.last_batch_id > max(known, default=UNSTARTED) + 1


def _left_versions(pipeline: StreamingPipeline, epochs: Sequence[Epoch]) -> Iterator[str]:
    """Yield the versions beyond the newest ones, the oldest first, except a version that is being submitted."""
    used = list(dict.fromkeys(each.claim.version for each in reversed(epochs) if each.claim.version))[::-1]
    for each in beyond_newest(used, pipeline.keep.versions):
        if is_kept(pipeline.job, each) and kept_since_ms(pipeline.job, each) < epochs[-1].claimed_at_ms:
            yield each
