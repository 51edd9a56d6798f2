"""Plan of a replay, from the frozen boundaries of its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LiveTopics, TopicSettings
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.replay.boundary import Boundary
from airflow_provider_offsets.core.replay.model import (
    BackfillPolicy,
    Interval,
    OpenBoundary,
    ReplayPlan,
    cut_shards,
    replay_run_id,
)


@dataclass(frozen=True)
class Asked:
    """Request for a replay: the interval, the operation and the program."""

    pipeline: str
    operation: str
    attempt: int
    attempt_key: str
    interval: Interval
    application: str
    application_version: str
    accept_lost: Mapping[str, int]


@dataclass(frozen=True)
class CutTopic:
    """Boundaries of an interval in one topic."""

    begin: Boundary
    end: Boundary
    below: Boundary | None = None
    """The nearest frozen boundary before ``begin``."""

    def before_begin(self, partition: int) -> OffsetRange | None:
        """Return what was deleted before ``begin`` was frozen and may be in the interval, or None.

        An upper bound: records below a certain boundary are older than the interval, all others may be in it.
        """
        if not self.begin.is_unsure(partition):
            return None
        start, below = self.begin.offset(partition), self.below
        least = 0 if below is None or below.is_unsure(partition) else below.offset(partition)
        return OffsetRange(self.begin.topic, partition, least, start) if least < start else None


def plan_replay(
    asked: Asked,
    cuts: Mapping[str, CutTopic],
    live: LiveTopics,
    settings: Mapping[str, TopicSettings | None],
    policy: BackfillPolicy,
    *,
    read_committed: bool = False,
    notes: tuple[str, ...] = (),
    problems: tuple[Problem, ...] = (),
) -> ReplayPlan:
    """Return the plan of a replay between frozen boundaries, in linear time.

    :param asked: the request.
    :param cuts: the boundaries by topic, for every partition of ``live``.
    :param live: the live topics, to count what retention has deleted of the interval.
    :param settings: retention settings of each topic; None for a topic whose settings this user may not read.
    :param policy: how intervals are cut into shards.
    :param read_committed: whether the program reads committed records only.
    :param notes: notes to begin with.
    :param problems: problems to begin with.
    """
    begin, end = _position(cuts, live, "begin"), _position(cuts, live, "end")
    deleted = tuple(
        OffsetRange(*key, begin[key], min(end[key], there.begin))
        for key, there in live.partitions.items()
        if begin[key] < min(end[key], there.begin)
    )
    before = tuple(
        found for key in live.partitions if (found := cuts[key.topic].before_begin(key.partition)) is not None
    )
    readable = begin.updated({TopicPartition(each.topic, each.partition): each.end for each in deleted})
    shards = cut_shards(readable, end, records_per_shard=policy.records_per_shard, max_shards=policy.max_shards)
    compacted = [topic for topic, found in settings.items() if found is not None and found.is_compacted]
    return ReplayPlan(
        pipeline=asked.pipeline,
        operation=asked.operation,
        run_id=replay_run_id(asked.operation, asked.application_version, asked.attempt),
        attempt=asked.attempt,
        attempt_key=asked.attempt_key,
        interval=asked.interval,
        begin=begin,
        end=end,
        shards=shards,
        application=asked.application,
        application_version=asked.application_version,
        open_boundaries=tuple(
            OpenBoundary(topic, number, cut.end.offset(number))
            for topic, cut in cuts.items()
            for number in cut.end.closed
        ),
        topic_ids=live.identity.topic_ids,
        upper_bounds=tuple(sorted(settings) if read_committed else sorted(compacted)),
        deleted=deleted,
        deleted_before=before,
        problems=(*problems, *_lost((*deleted, *before), asked.accept_lost), *_past_end(end, live)),
        notes=(
            *notes,
            *_notes(cuts, live, policy),
            *([] if shards else ["no record in the interval: nothing to read"]),
        ),
    )


def _position(cuts: Mapping[str, CutTopic], live: LiveTopics, which: str) -> Position:
    ends: dict[str, Boundary] = {topic: getattr(cut, which) for topic, cut in cuts.items()}
    return Position({key: ends[key.topic].offset(key.partition) for key in live.partitions})


def _lost(ranges: tuple[OffsetRange, ...], accepted: Mapping[str, int]) -> Iterator[Problem]:
    for topic in sorted({each.topic for each in ranges}):
        mine = [each for each in ranges if each.topic == topic]
        count = sum(each.count for each in mine)
        if count > accepted.get(topic, 0):
            yield Problem(
                ProblemKind.LOSS,
                f"retention has deleted {count} offsets of {topic!r} that belong or may belong to the interval"
                f" ({first_few(mine)}), and {accepted.get(topic, 0)} are accepted. Begin later, or set accept_lost="
                f"{topic}:{count} to accept that they are not replayed",
            )


def _past_end(end: Position, live: LiveTopics) -> Iterator[Problem]:
    past = [f"{key} {end[key]} > {there.end}" for key, there in live.partitions.items() if end[key] > there.end]
    if past:
        yield Problem(
            ProblemKind.OFFSET_PAST_END,
            f"the interval was frozen beyond the end of the log ({first_few(past)}): the log was truncated since then,"
            " and its records differ from those that were read. Replay by hand, from offsets that you have checked",
        )


def _notes(cuts: Mapping[str, CutTopic], live: LiveTopics, policy: BackfillPolicy) -> Iterator[str]:
    later = [key for key in live.partitions if key.partition >= len(cuts[key.topic].end.offsets)]
    if later:
        yield f"{first_few(later)}: not there yet when the end of the interval was frozen; none expected"
    empty = [key for key in live.partitions if cuts[key.topic].end.offset(key.partition) == 0 and key not in later]
    if empty:
        yield f"{first_few(empty)}: without a record up to the end of the interval, or not there yet; none expected"
    closed = [f"{topic}[{number}]" for topic, cut in cuts.items() for number in cut.end.closed]
    if closed:
        yield (
            f"{first_few(closed)}: no record yet at or after the end of the interval, so closed at the end of the log;"
            " what is written there later is of the next interval"
        )
    for boundary in (each for cut in cuts.values() for each in (cut.begin, cut.end)):
        if (boundary.by, boundary.late_s) != (policy.by, policy.late_s):
            yield (
                f"{boundary.topic} at {moment_text(boundary.instant_ms)} was frozen by {boundary.by.value} with late_s="
                f"{boundary.late_s}, and stays so"
            )
