"""A bounded replay of one data interval: what is read, in which shards, and what the drivers say they have read.

Counts are of offsets. On plain topics that is records; where a topic has offsets without a record (compacted, or with
transactions) it is an upper bound, and the plan says of which topics.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_offsets.core.boundary import BoundaryBy, OnOpen
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.plan import Problem
from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between


@dataclass(frozen=True)
class BackfillPolicy:
    """How the intervals of a pipeline are cut and replayed."""

    interval: str = "@daily"
    """The data intervals: a cron expression, one of Airflow's presets, or a length such as ``PT6H``."""
    automatic: bool = False
    """Whether each interval is replayed by itself once it is over. If not, only by hand and by Airflow's backfills."""
    since: str = ""
    """The first instant of automatic runs: those between it and now are caught up. Empty: only what comes."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0
    """How late a record may be and still be counted to its interval: topics are cut so much later."""
    on_open: OnOpen = OnOpen.CLOSE
    records_per_shard: int = 1_000_000
    max_shards: int = 100
    parallel_shards: int = 2
    """Of one run; a pool bounds those of all runs."""
    pool: str = ""
    """Airflow's pool that the shards take their slots of; its default one if empty."""
    mind_live: bool = True
    """Whether no further shard is begun while the live job falls behind."""


@dataclass(frozen=True)
class Interval:
    """A data interval: the records of ``[start, end)``, by the time that the pipeline goes by."""

    start_ms: int
    end_ms: int

    def __str__(self) -> str:
        return f"{moment_text(self.start_ms)} to {moment_text(self.end_ms)}"


@dataclass(frozen=True)
class Shard:
    """What one Spark job of a replay reads: at most one range of each partition, none of them empty."""

    number: int
    """From 0, in the order of the ranges."""
    ranges: tuple[OffsetRange, ...]

    @property
    def record_count(self) -> int:
        """How many offsets its ranges hold."""
        return sum(each.count for each in self.ranges)


@dataclass(frozen=True)
class OpenBoundary:
    """A partition with no record at or after the end of the interval when that boundary was frozen: it was closed at
    the end of the log, and what is written there later belongs to the next interval, whatever its time."""

    topic: str
    partition: int
    closed_at: int


@dataclass(frozen=True)
class ReplayPlan:
    """What a replay of one data interval reads. Pure data; recorded under its operation before anything is read."""

    pipeline: str
    operation: str
    run_id: str
    """What sinks are given: another one for each attempt at the interval, the same for all tries of an attempt."""
    attempt: int
    """From 1: reprocessed or cleared is another one, tried again by itself is not."""
    attempt_key: str
    """By which tries of one attempt know each other."""
    interval: Interval
    begin: Position
    """The frozen boundary at the start of the interval."""
    end: Position
    """The frozen boundary at its end."""
    shards: tuple[Shard, ...]
    application: str
    """The program that replays: the pipeline's own, or another version in its folder."""
    application_version: str
    """The digest of that program and its command."""
    open_boundaries: tuple[OpenBoundary, ...] = ()
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Id of each topic when the boundaries were frozen: a recreated topic has another one."""
    upper_bounds: tuple[str, ...] = ()
    """The topics whose counts are upper bounds: they have offsets without a record."""
    deleted: tuple[OffsetRange, ...] = ()
    """Of the interval, and deleted by retention: accepted by name, or a problem."""
    deleted_before: tuple[OffsetRange, ...] = ()
    """Deleted by retention before the interval's start was frozen: nobody knows how much of it is of the interval."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of the plan should know, and what does not speak against it."""

    @property
    def records_expected(self) -> int:
        """How many records the shards read; at most, if not :attr:`is_exact`."""
        return sum(shard.record_count for shard in self.shards)

    @property
    def is_exact(self) -> bool:
        """Whether the counts are of records, and no upper bounds."""
        return not self.upper_bounds


@dataclass(frozen=True)
class Replayed:
    """What the driver of one shard has read, once its output is finished."""

    run_id: str
    shard: int
    ranges: tuple[OffsetRange, ...]
    records_read: int
    records_expected: int
    application_version: str = ""
    log: str = ""
    """Path of the driver's log."""
    elapsed_ms: int = 0
    """How long the program ran, Spark's start left out."""
    counted_apart: bool = False
    """Whether the program's own actions read fewer (its sink knew the batch already, it has offsets without a record,
    or it reads without SQL), so that the driver has read the ranges once more, to count."""


def replay_run_id(operation: str, application_version: str, attempt: int) -> str:
    """Return the run id of one attempt, for people and sinks alike: operation, program and number of the attempt."""
    return f"{operation}#{application_version[:12]}#{attempt}"


def attempt_number(run_id: str) -> int:
    """Return the number of the attempt that a run id names. Attempts at one replay are numbered upwards.

    :raises ValueError: it is not what ``replay_run_id`` returns.
    """
    number = run_id.rpartition("#")[2]
    if run_id.count("#") < 2 or not number.isdecimal():
        raise ValueError(f"{run_id!r} is no run id")
    return int(number)


def cut_shards(begin: Position, end: Position, *, records_per_shard: int, max_shards: int) -> tuple[Shard, ...]:
    """Return shards of equal size, to one record, that tile ``[begin, end)``.

    One pass over the partitions, and at most one range more for each shard: a partition is cut where a shard is full.
    Shards grow beyond ``records_per_shard`` rather than in number beyond ``max_shards``.
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
