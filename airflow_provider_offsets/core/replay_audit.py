"""The proof that a replay has read its interval: shards tile it, and each has read what was expected of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_provider_offsets.core.position import OffsetRange, TopicPartition
from airflow_provider_offsets.core.replay import Interval, OpenBoundary, Replayed, ReplayPlan, Shard


@dataclass(frozen=True)
class ReplayAudit:
    """What is known of one attempt at an interval."""

    run_id: str
    interval: Interval
    shards: int
    shards_done: int
    records_expected: int
    records_read: int
    upper_bounds: tuple[str, ...] = ()
    open_boundaries: tuple[OpenBoundary, ...] = ()
    findings: tuple[str, ...] = ()
    """What speaks against it. None: each record of the interval was given to the program."""
    counted_apart: tuple[int, ...] = ()
    """The shards whose program read fewer by itself, and that were counted in a pass of their own."""

    @property
    def is_clean(self) -> bool:
        """Say whether nothing speaks against it."""
        return not self.findings


def audit_replay(plan: ReplayPlan, replayed: Iterable[Replayed]) -> ReplayAudit:
    """Give the audit of an attempt from what its drivers have recorded."""
    done = {each.shard: each for each in replayed if each.run_id == plan.run_id}
    return ReplayAudit(
        run_id=plan.run_id,
        interval=plan.interval,
        shards=len(plan.shards),
        shards_done=len(done),
        records_expected=plan.records_expected,
        records_read=sum(each.records_read for each in done.values()),
        upper_bounds=plan.upper_bounds,
        open_boundaries=plan.open_boundaries,
        counted_apart=tuple(number for number, each in sorted(done.items()) if each.counted_apart),
        findings=(
            *_holes(plan),
            *(found for shard in plan.shards for found in _shard(plan, shard, done.get(shard.number))),
        ),
    )


def _holes(plan: ReplayPlan) -> Iterator[str]:
    """Whether the ranges of the shards, and what was accepted as deleted, are the interval: no gap, no overlap."""
    pieces: dict[TopicPartition, list[OffsetRange]] = {}
    for each in (*plan.deleted, *(each for shard in plan.shards for each in shard.ranges)):
        pieces.setdefault(TopicPartition(each.topic, each.partition), []).append(each)
    for key, end in plan.end.items():
        at = plan.begin.get(key, 0)
        for piece in sorted(pieces.get(key, ())):
            if piece.start != at:
                yield f"{key}: the shards go on at {piece.start} where {at} is due"
            at = piece.end
        if at != end:
            yield f"{key}: the shards end at {at}, the interval at {end}"


def _shard(plan: ReplayPlan, shard: Shard, done: Replayed | None) -> Iterator[str]:
    if done is None:
        yield f"shard {shard.number}: no driver has recorded that it is finished ({shard.record_count:,} offsets)"
        return
    if done.ranges != shard.ranges:
        yield f"shard {shard.number}: finished {_listed(done.ranges)}, planned {_listed(shard.ranges)}"
    least = sum(each.count for each in shard.ranges if each.topic not in plan.upper_bounds)
    if not least <= done.records_read <= shard.record_count:
        expected = f"{shard.record_count:,}" if least == shard.record_count else f"{least:,} to {shard.record_count:,}"
        yield f"shard {shard.number}: read {done.records_read:,} records, expected {expected}"


def _listed(ranges: Iterable[OffsetRange]) -> str:
    return ", ".join(map(str, ranges)) or "nothing"


@dataclass(frozen=True)
class BackfillTotal:
    """How far all replays of a pipeline are, counting the newest attempt at each interval."""

    intervals: int
    intervals_done: int
    shards: int
    shards_done: int
    records_expected: int
    records_read: int

    def __str__(self) -> str:
        return (
            f"{self.intervals_done:,} of {self.intervals:,} intervals, {self.shards_done:,} of {self.shards:,} shards,"
            f" {self.records_read:,} of {self.records_expected:,} records"
        )


def total_of(audits: Iterable[ReplayAudit]) -> BackfillTotal:
    """Give the total of the audits of many runs, as they stand now."""
    found = list(audits)
    return BackfillTotal(
        intervals=len(found),
        intervals_done=sum(each.is_clean for each in found),
        shards=sum(each.shards for each in found),
        shards_done=sum(each.shards_done for each in found),
        records_expected=sum(each.records_expected for each in found),
        records_read=sum(each.records_read for each in found),
    )
