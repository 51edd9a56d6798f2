"""Pruning: what may be removed, because the policy does not retain it and no restart may still need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.known import evidence, first_when_stopped
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED, Snapshot

DAY_MS = 86_400_000


@dataclass(frozen=True)
class KeepPolicy:
    """Limits of what is retained. Without a limit everything is retained for ever."""

    snapshots: int | None = None
    """Number of newest snapshots to retain, however old."""
    days: int | None = None
    """Days for which all snapshots are retained, however many."""
    checkpoints: int | None = None
    """Number of newest checkpoints to retain, including the one in use."""
    versions: int | None = None
    """Number of newest versions of the program to retain, including the running one."""

    @property
    def prunes_snapshots(self) -> bool:
        """Whether any snapshot may be removed."""
        return self.snapshots is not None or self.days is not None


@dataclass(frozen=True)
class Prunable:
    """Objects that may be removed, the oldest first."""

    snapshots: tuple[str, ...] = ()
    """Ids of snapshots."""
    checkpoints: tuple[str, ...] = ()
    """Locations of checkpoints."""
    versions: tuple[str, ...] = ()
    """Digests of versions."""
    retained: tuple[str, ...] = ()
    """Objects that are retained although the policy does not require it, each with the reason, as text."""


def prunable_snapshots(
    snapshots: Iterable[Snapshot], epochs: Sequence[Epoch], policy: KeepPolicy, *, at_ms: int, is_tracked: bool
) -> tuple[Snapshot, ...]:
    """Return the snapshots that the policy does not retain, the oldest first.

    A snapshot is retained if either limit retains it. These are always retained:

    - snapshots that a person labelled;
    - the newest snapshot that a job could be started from;
    - the only evidence of a partition's position, or of the topic that its offsets belong to;
    - snapshots that the audit of an untracked job depends on, also after the job became tracked;
    - snapshots of the current epoch with a leader epoch that no other retained snapshot knows.

    :param snapshots: all complete snapshots.
    :param epochs: all epochs, the oldest first.
    :param policy: how many snapshots, and of how many days, are retained.
    :param at_ms: the time from which days are counted back.
    :param is_tracked: whether the job of the pipeline is tracked. Only the audit of untracked epochs depends on
        snapshots.
    """
    if not policy.prunes_snapshots:
        return ()
    newest = sorted(snapshots, key=lambda each: (each.taken_ms, each.id), reverse=True)
    alone = evidence(newest, epochs)
    good = next((each for each in newest if _is_good(each, epochs)), None)
    started = {epoch.claim.operation for epoch in epochs}
    newest_epoch = epochs[-1].number if epochs else 0
    first_stops = {each.id for each in first_when_stopped(newest).values()}
    untracked = {epoch.number for epoch in epochs if not epoch.claim.tracked}

    def is_kept(place: int, each: Snapshot) -> bool:
        is_of_epoch = each.operation in started or each.id in first_stops
        is_of_epoch = is_of_epoch or each.seen.epoch_number >= newest_epoch  # its operation may be about to launch
        is_of_untracked = not is_tracked or each.seen.epoch_number in untracked
        is_evidence = is_of_untracked and each.moment == WHEN_STOPPED and is_of_epoch
        is_needed = each.label or each is good or each.id in alone or is_evidence or _knows_more(each, good, epochs)
        is_young = policy.days is not None and each.taken_ms > at_ms - policy.days * DAY_MS
        return bool(is_needed) or place < (policy.snapshots or 0) or is_young

    return tuple(each for place, each in enumerate(newest) if not is_kept(place, each))[::-1]


def beyond_newest(kept: Sequence[str], count: int | None) -> tuple[str, ...]:
    """Return what is not among the newest ``count`` of ``kept``, the oldest first; nothing if ``count`` is None.

    The newest two are always retained: the current or last one, and its predecessor.

    :param kept: the oldest first.
    :param count: how many to retain; fewer than 2 count as 2, and None retains all.
    """
    return () if count is None else tuple(kept[: -max(count, 2)])


def _is_good(snapshot: Snapshot, epochs: Sequence[Epoch]) -> bool:
    """Check whether a job could be started from it: it has a position, of the topics that the job reads."""
    return bool(snapshot.position) and (not epochs or snapshot.seen.live.identity == epochs[-1].claim.identity)


def _knows_more(snapshot: Snapshot, good: Snapshot | None, epochs: Sequence[Epoch]) -> bool:
    """Check whether it has a greater leader epoch of some partition: a plan needs that to detect a truncated log."""
    if good is None or not epochs or snapshot.seen.epoch_number != epochs[-1].number:
        return False
    known = good.seen.live.leader_epochs
    return any(
        epoch is not None and epoch > _at(known.get(topic, ()), number)
        for topic, of_topic in snapshot.seen.live.leader_epochs.items()
        for number, epoch in enumerate(of_topic)
    )


def _at(epochs: Sequence[int | None], number: int) -> int:
    known = epochs[number] if number < len(epochs) else None
    return -1 if known is None else known
