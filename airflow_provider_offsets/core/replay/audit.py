"""Proof that a replay has read its interval: the shards tile it, and each has read what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.position import OffsetRange, TopicPartition
from airflow_provider_offsets.core.replay.attempt import ReplayAttempt
from airflow_provider_offsets.core.replay.model import Interval, OpenBoundary, ReplayPlan, Shard
from airflow_provider_offsets.core.replay.shard import ShardPhase, ShardRecord, digest_of_ranges


@dataclass(frozen=True)
class AlsoReplayed:
    """Records of the interval that another attempt has passed to the program too."""

    run_id: str
    """Run id of the other attempt."""
    interval: Interval
    records: int
    """An upper bound if offsets have no record, or if the other attempt was interrupted."""

    def __str__(self) -> str:
        return f"{self.records:,} records also by {self.run_id!r}, {self.interval}"


@dataclass(frozen=True)
class OtherReplay:
    """Another attempt with an overlapping interval: its plan, and the records of its shards by number."""

    plan: ReplayPlan
    shards: Mapping[int, ShardRecord]


@dataclass(frozen=True)
class ReplayAudit:
    """Audit of one attempt at an interval."""

    run_id: str
    interval: Interval
    shards: int
    shards_done: int
    records_expected: int
    records_read: int
    upper_bounds: tuple[str, ...] = ()
    open_boundaries: tuple[OpenBoundary, ...] = ()
    findings: tuple[str, ...] = ()
    """Faults. Empty: each record of the interval was passed to the program."""
    counted_apart: tuple[int, ...] = ()
    """The shards whose program read fewer records by itself, and that were counted in a separate pass."""
    cut_off: tuple[int, ...] = ()
    """The shards whose program was called, interrupted, and called again. Some of their records may have been written
    before, under the same run id and batch id."""
    also_replayed: tuple[AlsoReplayed, ...] = ()
    rows_written: int | None = None
    """Number of rows that Spark says the shards wrote, as far as it counted them; None if it counted none."""
    warnings: tuple[str, ...] = ()
    """Shards that read records and wrote nothing, as far as Spark saw. A program may filter all records of a shard."""

    @property
    def is_clean(self) -> bool:
        """Whether each record of the interval was passed to the program."""
        return not self.findings


def may_overlap(plan: ReplayPlan, attempt: ReplayAttempt) -> bool:
    """Check whether another attempt may read records that ``plan`` reads: its time and a topic overlap.

    :param plan: the plan of one attempt.
    :param attempt: another attempt, of any interval.
    """
    is_other = attempt.run_id != plan.run_id and not attempt.has_problems
    first_ms = max(plan.interval.start_ms, attempt.interval.start_ms)
    last_ms = min(plan.interval.end_ms, attempt.interval.end_ms)
    return is_other and first_ms < last_ms and not plan.topic_ids.items().isdisjoint(attempt.topic_ids.items())


def audit_replay(
    plan: ReplayPlan,
    shards: Mapping[int, ShardRecord],
    others: Iterable[OtherReplay] = (),
    *,
    counts_live: bool = False,
) -> ReplayAudit:
    """Return the audit of an attempt from the records of its drivers.

    :param plan: the plan of the attempt.
    :param shards: the records of its shards, by number.
    :param others: the other attempts that may have read records of the interval.
    :param counts_live: whether Spark counted rows that the live job wrote.
    """
    done = {number: each for number, each in shards.items() if each.phase is ShardPhase.REPLAYED}
    also = [(each.plan, _common(plan, each)) for each in others]
    return ReplayAudit(
        run_id=plan.run_id,
        interval=plan.interval,
        shards=len(plan.shards),
        shards_done=len(done),
        records_expected=plan.records_expected,
        records_read=sum(_read(each) for each in done.values()),
        upper_bounds=plan.upper_bounds,
        open_boundaries=plan.open_boundaries,
        counted_apart=tuple(
            number for number, each in sorted(done.items()) if each.read is not None and each.read.counted_apart
        ),
        cut_off=tuple(number for number, each in sorted(shards.items()) if each.started > 1),
        also_replayed=tuple(AlsoReplayed(each.run_id, each.interval, count) for each, count in also if count),
        rows_written=_rows_written(done.values()),
        warnings=tuple(_empty(done, counts_live)),
        findings=(
            *_holes(plan),
            *(found for shard in plan.shards for found in _shard(plan, shard, done.get(shard.number))),
        ),
    )


def _holes(plan: ReplayPlan) -> Iterator[str]:
    """Yield where the ranges of the shards, with those accepted as deleted, leave a gap or overlap in the interval."""
    pieces: dict[TopicPartition, list[OffsetRange]] = {}
    for each in (*plan.deleted, *(each for shard in plan.shards for each in shard.ranges)):
        pieces.setdefault(TopicPartition(each.topic, each.partition), []).append(each)
    for key, end in plan.end.items():
        at = plan.begin.get(key, 0)
        for piece in sorted(pieces.get(key, ())):
            if piece.start != at:
                yield f"{key}: the next shard starts at {piece.start}, expected {at}"
            at = piece.end
        if at != end:
            yield f"{key}: the shards end at {at}, the interval at {end}"


def _shard(plan: ReplayPlan, shard: Shard, done: ShardRecord | None) -> Iterator[str]:
    if done is None:
        yield f"shard {shard.number}: no driver has recorded that it is finished ({shard.record_count:,} offsets)"
        return
    if done.ranges != digest_of_ranges(shard.ranges):
        yield f"shard {shard.number}: finished other ranges than the planned ones, {_listed(shard.ranges)}"
    least = sum(each.count for each in shard.ranges if each.topic not in plan.upper_bounds)
    if not least <= _read(done) <= shard.record_count:
        expected = f"{shard.record_count:,}" if least == shard.record_count else f"{least:,} to {shard.record_count:,}"
        yield f"shard {shard.number}: read {_read(done):,} records, expected {expected}"


def _read(done: ShardRecord) -> int:
    return 0 if done.read is None else done.read.records_read


def _rows_written(done: Iterable[ShardRecord]) -> int | None:
    counted = [each.read.rows_written for each in done if each.read is not None]
    known = [rows for rows in counted if rows is not None]
    return sum(known) if known else None


def _empty(done: Mapping[int, ShardRecord], counts_live: bool) -> Iterator[str]:
    """Yield the warning about shards that read records and wrote nothing, if Spark counts rows of this program."""
    empty = [number for number, each in sorted(done.items()) if each.read is not None and each.read.is_empty]
    is_counted = _rows_written(done.values()) is not None
    if empty and (is_counted or counts_live):
        which = f"shard {empty[0]}" if len(empty) == 1 else f"{len(empty):,} shards"
        last = "" if len(empty) == 1 else f"; the last one is shard {empty[-1]}"
        live = "" if is_counted else ", but it counts the rows that the live job writes"
        yield f"{which} read records and Spark saw no row written{live}{last}"


def _common(plan: ReplayPlan, other: OtherReplay) -> int:
    """Return the number of offsets of a plan that started shards of another one have too."""
    mine: dict[TopicPartition, list[OffsetRange]] = {}
    for each in (each for shard in plan.shards for each in shard.ranges):
        mine.setdefault(TopicPartition(each.topic, each.partition), []).append(each)
    started = [shard for shard in other.plan.shards if (record := other.shards.get(shard.number)) and record.started]
    return sum(
        max(0, min(each.end, own.end) - max(each.start, own.start))
        for shard in started
        for each in shard.ranges
        if plan.topic_ids.get(each.topic) == other.plan.topic_ids.get(each.topic)
        for own in mine.get(TopicPartition(each.topic, each.partition), ())
    )


def _listed(ranges: Iterable[OffsetRange]) -> str:
    return ", ".join(map(str, ranges)) or "nothing"


@dataclass(frozen=True)
class BackfillTotal:
    """Progress of all replays of a pipeline, counting the newest attempt at each interval."""

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
    """Return the current total of the audits of many runs."""
    found = list(audits)
    return BackfillTotal(
        intervals=len(found),
        intervals_done=sum(each.is_clean for each in found),
        shards=sum(each.shards for each in found),
        shards_done=sum(each.shards_done for each in found),
        records_expected=sum(each.records_expected for each in found),
        records_read=sum(each.records_read for each in found),
    )
