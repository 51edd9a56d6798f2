"""Bounded replay of one data interval: its ranges, its shards, and what the drivers have read.

Counts are of offsets. On plain topics that is the number of records. If a topic has offsets without a record
(compacted, or with transactions), it is an upper bound, and the plan names such topics.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between
from airflow_provider_offsets.core.problem import Problem
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen


@dataclass(frozen=True)
class BackfillPolicy:
    """Policy of how the intervals of a pipeline are cut and replayed."""

    interval: str = "@daily"
    """The data intervals: a cron expression, one of Airflow's presets, or a duration such as ``PT6H``."""
    automatic: bool = False
    """Whether each interval is replayed automatically once it has ended. If False, only by hand and by Airflow's
    backfills."""
    since: str = ""
    """The first timestamp of automatic runs: intervals between it and now are caught up. Empty: only future
    intervals."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0
    """Seconds by which a record may be late and still count to its interval: boundaries are taken for a time that much
    later."""
    on_open: OnOpen = OnOpen.CLOSE
    records_per_shard: int = 1_000_000
    max_shards: int = 100
    parallel_shards: int = 2
    """Maximum of one run; a pool limits the shards of all runs."""
    pool: str = ""
    """Airflow pool of the shards' slots; the default pool if empty."""
    yield_to_live: bool = True
    """Whether no further shard starts while the live job falls behind."""


@dataclass(frozen=True)
class Interval:
    """Data interval: the records of ``[start, end)``, by the time that the pipeline's policy selects."""

    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        return f"{moment_text(self.start_ms)} to {moment_text(self.end_ms)}"


@dataclass(frozen=True)
class Shard:
    """Ranges that one Spark job of a replay reads: at most one of each partition, none of them empty."""

    number: int
    """From 0, in the order of the ranges."""
    ranges: tuple[OffsetRange, ...]

    @property
    def record_count(self) -> int:
        """Number of offsets in the ranges."""
        return sum(each.count for each in self.ranges)


@dataclass(frozen=True)
class OpenBoundary:
    """Partition without a record at or after the end of the interval when that boundary was frozen.

    The boundary was put at the end of the log. Records written later belong to the next interval, whatever their
    timestamp.
    """

    topic: str
    partition: int
    closed_at: int


@dataclass(frozen=True)
class ReplayPlan:
    """Plan of a replay of one data interval. Pure data; recorded under its operation before anything is read."""

    pipeline: str
    operation: str
    run_id: str
    """Run id for sinks: another one for each attempt at the interval, the same for all tries of an attempt."""
    attempt: int
    """From 1. Reprocessing or clearing makes a new attempt; an automatic retry does not."""
    attempt_key: str
    """Key that the tries of one attempt share."""
    interval: Interval
    begin: Position
    """The frozen boundary at the start of the interval."""
    end: Position
    """The frozen boundary at the end of the interval."""
    shards: tuple[Shard, ...]
    application: str
    """The program that replays: the pipeline's own, or another version in the same folder."""
    application_version: str
    """The digest of that program and its command."""
    open_boundaries: tuple[OpenBoundary, ...] = ()
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Id of each topic when the boundaries were frozen: a recreated topic has another one."""
    upper_bounds: tuple[str, ...] = ()
    """The topics whose counts are upper bounds: they have offsets without a record."""
    deleted: tuple[OffsetRange, ...] = ()
    """Ranges of the interval that retention has deleted: accepted by name, or a problem."""
    deleted_before: tuple[OffsetRange, ...] = ()
    """Ranges deleted by retention before the interval's start was frozen: how much of them is in the interval is
    unknown."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks for a reader of the plan that are no reason to refuse it."""

    @property
    def records_expected(self) -> int:
        """Number of records that the shards read; an upper bound unless :attr:`is_exact`."""
        return sum(shard.record_count for shard in self.shards)

    @property
    def is_exact(self) -> bool:
        """Whether the counts are of records, and no upper bounds."""
        return not self.upper_bounds


@dataclass(frozen=True)
class Replayed:
    """Records that the driver of one shard has read, recorded once its output is complete."""

    run_id: str
    shard: int
    ranges: tuple[OffsetRange, ...]
    records_read: int
    records_expected: int
    application_version: str = ""
    log: str = ""
    """Path of the driver's log."""
    elapsed_ms: int = 0
    """Run time of the program, without Spark's start."""
    counted_apart: bool = False
    """Whether the driver read the ranges once more to count, because the program's own actions read fewer records. (Its
    sink knew the batch already, it has offsets without a record, or it reads without SQL.)"""


def replay_run_id(operation: str, application_version: str, attempt: int) -> str:
    """Return the run id of one attempt, for people and sinks.

    :param operation: id of the operation.
    :param application_version: digest of the program and its command.
    :param attempt: number of the attempt, from 1.
    """
    return f"{operation}#{application_version[:12]}#{attempt}"


def attempt_number(run_id: str) -> int:
    """Return the number of the attempt in a run id. Attempts at one replay have ascending numbers.

    :raises ValueError: the text is no result of ``replay_run_id``.
    """
    number = run_id.rpartition("#")[2]
    if run_id.count("#") < 2 or not number.isdecimal():
        raise ValueError(f"{run_id!r} is no run id")
    return int(number)


def cut_shards(begin: Position, end: Position, *, records_per_shard: int, max_shards: int) -> tuple[Shard, ...]:
    """Return shards that tile ``[begin, end)``, equal in size to within one record.

    Makes one pass over the partitions, and adds at most one range per shard: a partition is cut where a shard is full.

    :param begin: first offset of each partition; 0 for a partition that it lacks.
    :param end: the offset after the last one of each partition.
    :param records_per_shard: intended size of a shard.
    :param max_shards: maximum number of shards; with more records, the shards are larger.
    """
    ranges = [each for each in ranges_between(begin, end) if each.count]
    total = sum(each.count for each in ranges)
    count = min(max_shards, -(-total // records_per_shard))
    shards: list[list[OffsetRange]] = [[] for _ in range(count)]
    number, room = -1, 0
    for each in ranges:
        at = each.start
        while at < each.end:
            if not room:
                number += 1
                room = total // count + (number < total % count)
            until = min(each.end, at + room)
            shards[number].append(OffsetRange(each.topic, each.partition, at, until))
            room -= until - at
            at = until
    return tuple(Shard(number, tuple(of_shard)) for number, of_shard in enumerate(shards))
