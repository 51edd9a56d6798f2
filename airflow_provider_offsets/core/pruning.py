"""What may be removed of what is kept: by the pipeline's policy, and never what a restart may still need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.known import evidence, first_at_rest
from airflow_provider_offsets.core.snapshot import AT_REST, Snapshot

DAY_MS = 86_400_000


@dataclass(frozen=True)
class KeepPolicy:
    """How much is kept of what piles up. What is not named is kept for ever."""

    snapshots: int | None = None
    """So many of the newest snapshots, however old."""
    days: int | None = None
    """All snapshots of so many days, however many."""
    checkpoints: int | None = None
    """So many of the newest checkpoints, the one that is in use among them."""
    versions: int | None = None
    """So many of the newest versions of the program, the one that runs among them."""

    @property
    def prunes_snapshots(self) -> bool:
        """Say whether any snapshot may be removed."""
        return self.snapshots is not None or self.days is not None


@dataclass(frozen=True)
class Prunable:
    """What may go, the oldest first."""

    snapshots: tuple[str, ...] = ()
    """Their ids."""
    checkpoints: tuple[str, ...] = ()
    """Their locations."""
    versions: tuple[str, ...] = ()
    """Their digests."""
    retained: tuple[str, ...] = ()
    """What the policy does not keep and what stays all the same, and why, in words."""


def prunable_snapshots(
    snapshots: Iterable[Snapshot], epochs: Sequence[Epoch], policy: KeepPolicy, *, at_ms: int, is_tracked: bool
) -> tuple[Snapshot, ...]:
    """Return the snapshots that the policy does not keep, the oldest first.

    One is kept if either limit keeps it. Kept whatever the policy says: what a person gave a label; the newest one
    that a job could be started from; what alone knows where a partition stood or which topic its offsets are of; what
    the audit of an untouched job goes by; and what knows of a leader epoch that no kept one knows of, as long as the
    epoch lasts in which it was taken.

    :param snapshots: all that are whole.
    :param epochs: all, the oldest first.
    """
    if not policy.prunes_snapshots:
        return ()
    newest = sorted(snapshots, key=lambda each: (each.taken_ms, each.id), reverse=True)
    alone = evidence(newest, epochs)
    good = next((each for each in newest if _is_good(each, epochs)), None)
    started = {epoch.claim.operation for epoch in epochs}
    claimed_ms = epochs[-1].claimed_at_ms if epochs else 0
    first_rests = {each.id for each in first_at_rest(newest).values()}

    def is_kept(place: int, each: Snapshot) -> bool:
        is_of_epoch = each.operation in started or each.taken_ms > claimed_ms or each.id in first_rests
        is_evidence = not is_tracked and each.moment == AT_REST and is_of_epoch
        is_needed = each.label or each is good or each.id in alone or is_evidence or _knows_more(each, good, epochs)
        is_young = policy.days is not None and each.taken_ms > at_ms - policy.days * DAY_MS
        return bool(is_needed) or place < (policy.snapshots or 0) or is_young

    return tuple(each for place, each in enumerate(newest) if not is_kept(place, each))[::-1]


def beyond_newest(kept: Sequence[str], count: int | None) -> tuple[str, ...]:
    """Return what is not among the newest ``count`` of ``kept``, the oldest first; nothing if there is no such limit.

    The newest two always stay: what runs or ran last, and what was before it.
    """
    return () if count is None else tuple(kept[: -max(count, 2)])


def _is_good(snapshot: Snapshot, epochs: Sequence[Epoch]) -> bool:
    """Whether a job could be started from it: it has a position, and that is of the topics that the job reads."""
    return bool(snapshot.position) and (not epochs or snapshot.seen.live.identity == epochs[-1].claim.identity)


def _knows_more(snapshot: Snapshot, good: Snapshot | None, epochs: Sequence[Epoch]) -> bool:
    """Whether it has a greater leader epoch of some partition: a plan tells by that that a log was truncated since."""
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
