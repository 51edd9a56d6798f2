"""Remove what the pipeline's ``keep`` does not keep: snapshots, checkpoints that were left, versions of the program.

What is removed is first found, so that a person can see it; and each thing is removed by itself, so a run that was
killed is finished by the next one. Epochs, operations and the history stay: they are the record that the audit reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.pruning import Superfluous, superfluous, superfluous_snapshots
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.operations.keeping import forget_version, is_kept, kept_since_ms
from airflow_provider_offsets.stores.checkpoint import open_checkpoint, read_state
from airflow_provider_offsets.stores.checkpoint_files import REMOVED
from airflow_provider_offsets.stores.control import Control

TAG = re.compile(r"(before-)?[0-9a-f]{16}")
"""What a name has after that of the first checkpoint and ``-``: the fingerprint of a plan."""


def find_superfluous(
    control: Control, pipeline: StreamingPipeline, *, at_ms: int, named: Sequence[str] = ()
) -> Superfluous:
    """Give what the pipeline's ``keep`` does not keep. Nothing is changed.

    :param named: ids of snapshots that a person wants to be removed, whatever keeps them.
    """
    epochs = list(control.epochs())
    snapshots = superfluous_snapshots(
        control.snapshots(), epochs, pipeline.keep, at_ms=at_ms, is_tracked=pipeline.tracked
    )
    checkpoints = [
        (each, _why_not(control, pipeline, epochs, each)) for each in _left_checkpoints(control, pipeline, epochs)
    ]
    return Superfluous(
        snapshots=tuple(dict.fromkeys([*(each.id for each in snapshots), *named])),
        checkpoints=tuple(each for each, why_not in checkpoints if not why_not),
        versions=tuple(_left_versions(pipeline, epochs)),
        spared=tuple(f"{each}: {why_not}" for each, why_not in checkpoints if why_not),
    )


def remove(
    control: Control,
    pipeline: StreamingPipeline,
    found: Superfluous,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Superfluous:
    """Remove what was found, one by one, and give what is gone.

    What cannot be removed is spared, and does not keep the rest from going.

    :param say: told of each thing that is removed.
    """
    acts: dict[str, Callable[[str], None]] = {
        "snapshots": control.remove_snapshot,
        "checkpoints": lambda location: open_checkpoint(location).remove(),
        "versions": lambda version: forget_version(pipeline.job, version),
    }
    gone: dict[str, tuple[str, ...]] = {}
    spared = list(found.spared)
    for kind, act in acts.items():
        gone[kind] = ()
        for each in getattr(found, kind):
            try:
                act(each)
            except (OffsetsError, OSError) as error:
                if isinstance(error, OffsetsError) and error.retriable:
                    raise
                spared.append(f"{each}: {error}")
                continue
            gone[kind] = (*gone[kind], each)
            say(f"removed {kind.removesuffix('s')} {each}")
    return Superfluous(**gone, spared=tuple(spared))


def _left_checkpoints(control: Control, pipeline: StreamingPipeline, epochs: Sequence[Epoch]) -> Iterator[str]:
    """The checkpoints beyond the newest ones that are there, by name ours, the oldest first.

    Those of a tracked job are what its epochs ran on. An untouched job always runs on the first one, and has old ones
    moved aside, under the fingerprint of the plan that did it. What a plan has seeded and no epoch ran on is not among
    them: it may be about to be started from.
    """
    first = pipeline.job.checkpoint.rstrip("/")
    if not first or not epochs:
        return
    if pipeline.tracked:
        used = list(dict.fromkeys(each.claim.checkpoint.rstrip("/") for each in reversed(epochs)))[::-1]
    else:
        moves = (control.moved(epoch.number) for epoch in epochs)
        used = [*(f"{first}-before-{moved.fingerprint}" for moved in moves if moved is not None), first]
    candidates = superfluous(used, pipeline.keep.checkpoints)
    above = first.rpartition("/")[0] or "/"
    names = set(open_checkpoint(above).names("")) if candidates else set()
    for each in candidates:
        own, tag = each.rpartition("/")[2], each.removeprefix(f"{first}-")
        if tag != each and TAG.fullmatch(tag) and not {own, f"{own}{REMOVED}"}.isdisjoint(names):
            yield each


def _why_not(control: Control, pipeline: StreamingPipeline, epochs: Sequence[Epoch], location: str) -> str:
    """Why a checkpoint stays, in words; empty if it may go."""
    folder = open_checkpoint(location)
    if not folder.moves:
        return "no folder can be moved aside there"
    if not folder.exists():
        return ""  # it was moved aside, and then its removal was cut off
    open_ends = [
        epoch.number
        for epoch in epochs
        if epoch.claim.checkpoint.rstrip("/") == location and control.ended(epoch.number) is None
    ]
    if open_ends:
        return f"epoch {open_ends[0]} ran on it, and nobody has seen its end"
    try:
        state = read_state(folder)
    except OffsetsError as error:
        return error.seen
    return "" if state is not None and state.closed_by is not None else "it was not closed by a restart"


def _left_versions(pipeline: StreamingPipeline, epochs: Sequence[Epoch]) -> Iterator[str]:
    """The versions beyond the newest ones, the oldest first; not one that was submitted since the newest epoch."""
    used = list(dict.fromkeys(each.claim.version for each in reversed(epochs) if each.claim.version))[::-1]
    for each in superfluous(used, pipeline.keep.versions):
        if is_kept(pipeline.job, each) and kept_since_ms(pipeline.job, each) < epochs[-1].claimed_at_ms:
            yield each
