"""Freeze the boundaries of a data interval, plan its replay, and audit the replay.

A plan has these steps, in this order:

1. Read the end offsets of the topics, then the offsets at both timestamps, then the earliest retained offsets. A
   partition without a record at or after a timestamp gets its end offset as the boundary. That end is older than
   Kafka's answer, so no later record is below it. A record that is still retained after the answer, and lies below it,
   was certainly older than the timestamp.
2. Freeze both boundaries in each topic. Boundaries never change: a later operation gets the boundaries that the first
   one has frozen.
3. Read the topics again if a boundary of another operation includes more than was read in step 1.
4. Record the plan as the plan of the newest attempt, and fence the shards of earlier attempts.

If a task dies in between, its retry finds the boundaries that are already frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.boundaries import FrozenBoundaries
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.committer import shared_scratch, takes_committer
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LiveTopic, LiveTopics
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.replay.attempt import ReplayRecord, next_attempt_number, replay_of
from airflow_provider_offsets.core.replay.audit import OtherReplay, ReplayAudit, audit_replay, may_overlap
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen, StaleObservation, TopicObservation
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.core.replay.plan import Asked, CutTopic, plan_replay
from airflow_provider_offsets.errors import InputRefused, NoHistory, PartitionUnavailable, StoreDataError
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.sources import CLOCKS_DIFFER_MS, SessionSources
from airflow_provider_offsets.operations.versions import keep_version

MOST_TRIES = 5
"""How often the topics are read until they show every partition that a frozen boundary names."""


@dataclass(frozen=True)
class Waiting:
    """The result for an interval whose end has no record yet, if the run waits for one."""

    reason: str


@dataclass(frozen=True)
class Observed:
    """The topics of a pipeline, and the offsets of an interval's two timestamps in them."""

    live: LiveTopics
    start: Mapping[str, TopicObservation]
    """By topic name."""
    end: Mapping[str, TopicObservation]


@dataclass(frozen=True)
class _Answer:
    """The offsets of one timestamp in the partitions of all topics."""

    instant_ms: int
    policy: BackfillPolicy
    offsets: Mapping[TopicPartition, int]
    open: frozenset[TopicPartition]


def make_replay_plan(
    session: Session,
    interval: Interval,
    policy: BackfillPolicy,
    *,
    attempt_key: str,
    accept_lost: Mapping[str, int] | None = None,
    now_ms: int,
) -> ReplayPlan | Waiting:
    """Return the plan of a replay of one interval, recorded as the plan of the operation's newest attempt.

    A try of the same attempt gets the plan that its first try has recorded, unless that plan had problems.

    :param session: the session of the operation.
    :param interval: the data interval.
    :param policy: how the interval is divided.
    :param attempt_key: the same for all tries of one attempt, and different for other attempts.
    :param accept_lost: accepted number of offsets deleted by retention, by topic.
    :param now_ms: current time.
    :returns: the plan, or why the run has to wait.
    :raises InputRefused: an interval that ends before it begins or has not started; a topic whose records have no
        timestamp; an untracked pipeline.
    :raises NoHistory: boundaries by batch time, and the history begins after the interval.
    :raises Fenced: a later attempt was already planned.
    :raises ConcurrentAttempt: another attempt was planned meanwhile. Retriable.
    :raises PartitionUnavailable: the cluster does not show a partition that a boundary names. Retriable.
    :raises PipelineRenamed: the pipeline has another name now.
    """
    pipeline = session.control.record()
    control = ReplayControl(session.store, session.pipeline.name)
    record = control.replay(session.operation)
    plan = _recorded(control, record, attempt_key, interval)
    if plan is None:
        problems = tuple(_shared_scratch(session, pipeline))
        made = _new_plan(session, interval, policy, record, attempt_key, accept_lost or {}, now_ms, problems)
        if isinstance(made, Waiting):
            return made
        plan = control.record_plan(session.operation, made)
    control.supersede_earlier(session.operation, at_ms=clock.now_ms())
    return plan


def recorded_replay_plan(session: Session) -> ReplayPlan | None:
    """Return the plan of the newest attempt of the operation's replay, or None before the first attempt."""
    return ReplayControl(session.store, session.pipeline.name).newest_plan(session.operation)


def audit_recorded_replay(control: ReplayControl, plan: ReplayPlan, *, counts_live: bool = False) -> ReplayAudit:
    """Return the audit of what the drivers of an attempt have recorded.

    The audit names other attempts, of any interval, that replayed the same records. Of two such attempts, the audit
    that runs later names the other.

    :param control: the records of the pipeline's replays.
    :param plan: the plan of the attempt.
    :param counts_live: whether Spark counted rows that the live job wrote.
    """
    return _audited(control, plan, [record for _, record in control.replays()], counts_live=counts_live)


def replay_audits(control: ReplayControl, prefix: str = "") -> dict[str, ReplayAudit]:
    """Return the current audit of the newest attempt of each operation whose id begins with ``prefix``.

    A stored clean audit is reused, because a long backfill has many intervals.

    :param control: the records of the pipeline's replays.
    :param prefix: beginning of the operation ids; empty for all operations.
    :returns: audit per operation id.
    """
    replays = dict(control.replays())
    audits = {}
    for operation, record in replays.items():
        if not operation.startswith(prefix):
            continue
        kept = control.audit(record.newest.run_id)
        if kept is None or not kept.is_clean:
            kept = _audited(control, control.plan(record.newest), list(replays.values()))
        audits[operation] = kept
    return audits


def _recorded(
    control: ReplayControl, record: ReplayRecord | None, attempt_key: str, interval: Interval
) -> ReplayPlan | None:
    if record is None or record.newest.has_problems or not record.newest.is_of(attempt_key, interval):
        return None
    return control.plan(record.newest)


def _audited(
    control: ReplayControl, plan: ReplayPlan, replays: list[ReplayRecord], *, counts_live: bool = False
) -> ReplayAudit:
    others = [each for record in replays for each in record.attempts if may_overlap(plan, each)]
    return audit_replay(
        plan,
        control.shards(plan.run_id),
        [OtherReplay(control.plan(each), control.shards(each.run_id)) for each in others],
        counts_live=counts_live,
    )


def _new_plan(
    session: Session,
    interval: Interval,
    policy: BackfillPolicy,
    record: ReplayRecord | None,
    attempt_key: str,
    accept_lost: Mapping[str, int],
    now_ms: int,
    problems: tuple[Problem, ...],
) -> ReplayPlan | Waiting:
    _require_sense(session, interval, policy, now_ms)
    cut = _cut(session, interval, policy, now_ms)
    if isinstance(cut, Waiting):
        return cut
    observed, cuts = cut
    asked = Asked(
        pipeline=session.pipeline.name,
        operation=replay_of(session.operation),
        attempt=next_attempt_number(record, attempt_key, interval),
        attempt_key=attempt_key,
        interval=interval,
        application=session.pipeline.job.application,
        application_version=keep_version(session.pipeline.job).digest,
        accept_lost={**session.pipeline.policy.accept_lost, **accept_lost},
    )
    return plan_replay(
        asked,
        cuts,
        observed.live,
        session.kafka.settings(session.pipeline.topics),
        policy,
        read_committed=session.pipeline.read_committed,
        notes=tuple(_times_of_topics(session, policy, observed)),
        problems=problems,
    )


def _shared_scratch(session: Session, record: PipelineRecord | None) -> Iterator[Problem]:
    """Yield why a replay might lose files that it writes to one folder with another shard or with the live job.

    The replay's driver checks the settings once more, because the program itself may change them.
    """
    conf, name = session.pipeline.job.conf, session.pipeline.name
    if not takes_committer(conf):
        if why := shared_scratch(conf):
            yield Problem(
                ProblemKind.SHARED_SCRATCH,
                f"job.conf of {name!r} sets {why}: two jobs that write files to one folder may remove each other's open"
                " files. Remove the setting from job.conf, and restart the job",
            )
        return
    if record is None or record.phase not in (Phase.LAUNCHING, Phase.RUNNING):
        return
    claim = session.control.newest_launch(record).claim
    if not claim.scratch:
        yield Problem(
            ProblemKind.SHARED_SCRATCH,
            f"epoch {claim.number} of {name!r} writes files with another committer than a replay: it was launched by an"
            " earlier release, or before job.conf changed. Files that both write to one folder may end up in a wrong"
            f" place. Restart the job once with the DAG maintenance__{name}",
        )


def _cut(
    session: Session, interval: Interval, policy: BackfillPolicy, now_ms: int
) -> tuple[Observed, dict[str, CutTopic]] | Waiting:
    """Return the topics with their boundaries, which are frozen now unless they already were.

    :raises PartitionUnavailable: the cluster does not show a partition that it has shown before.
    """
    seen = ""
    for _ in range(MOST_TRIES):
        observed = _observe(session, interval, policy, now_ms)
        if observed is None:
            continue
        _require_past_times(session, policy, observed, now_ms)
        if policy.on_open is OnOpen.WAIT and (still_open := _still_open(session, observed)):
            return Waiting(
                f"nothing at or after {moment_text(interval.end_ms)} yet in {len(still_open)} of"
                f" {len(observed.live.partitions)} partitions: {first_few(still_open)}"
            )
        cuts = _freeze(session, observed)
        if cuts is not None and (live := _covering(session, cuts, observed.live)) is not None:
            return replace(observed, live=live), cuts
        seen = ", ".join(f"{len(each.partitions)} partitions of {each.name!r}" for each in observed.live.topics)
    raise PartitionUnavailable(
        seen=f"the cluster showed {seen or 'other topics each time'} in {MOST_TRIES} observations",
        expected="every partition that was seen before, because Kafka never removes one",
        do="wait until all brokers know of the new partitions, and run the task again",
    )


def _observe(session: Session, interval: Interval, policy: BackfillPolicy, now_ms: int) -> Observed | None:
    """Return the current offsets of both ends of an interval.

    None if a topic was recreated meanwhile, or shows fewer partitions than before.
    """
    ends = session.live_topics()
    answers = [_answer(session, each, policy, ends, now_ms) for each in (interval.start_ms, interval.end_ms)]
    live = session.live_topics()
    if not _covers(live, {topic.name: len(topic.partitions) for topic in ends.topics}):
        return None
    if live.identity != ends.identity:
        return None
    return Observed(live, *({topic.name: _topic_observation(topic, each) for topic in live.topics} for each in answers))


def _covers(live: LiveTopics, partitions: Mapping[str, int]) -> bool:
    return all(len(topic.partitions) >= partitions[topic.name] for topic in live.topics)


def _answer(session: Session, instant_ms: int, policy: BackfillPolicy, ends: LiveTopics, now_ms: int) -> _Answer:
    """Return the current offsets of a timestamp. All partitions are open if the timestamp is in the future."""
    at_ms = instant_ms + policy.late_s * 1000
    if policy.by is BoundaryBy.BATCH_TIME:
        offsets, is_open = _by_batch_time(session, at_ms, ends)
        open_ = set(offsets) if is_open else set()
    else:
        found = session.kafka.offsets_at(session.pipeline.topics, at_ms, read_committed=session.pipeline.read_committed)
        asked = {key: found[key] for key in ends.partitions if key in found}
        open_ = {key for key, offset in asked.items() if offset is None}
        offsets = {key: ends.partitions[key].end if offset is None else offset for key, offset in asked.items()}
    return _Answer(instant_ms, policy, offsets, frozenset(offsets if at_ms > now_ms else open_))


def _by_batch_time(session: Session, at_ms: int, ends: LiveTopics) -> tuple[dict[TopicPartition, int], bool]:
    """Return the live job's position at a time by its history, and whether the job has yet to reach that time."""
    stream = session.pipeline.stream
    newest = next(session.store.newest_first(stream), None)
    if newest is None:
        raise NoHistory(
            seen=f"the history of {session.pipeline.name!r} has no batch",
            expected="batches, whose times show when each record was read",
            do="set backfill.by to record-time, or run the job first",
        )
    past = SessionSources(session, Position()).as_of(at_ms - 1) if at_ms else None
    first = next(session.store.oldest_first(stream))
    position = (first.start or Position()) if past is None else past.position
    is_open = newest.row_time_ms is None or newest.row_time_ms < at_ms
    return {key: position.get(key, 0) for key in ends.partitions}, is_open


def _topic_observation(topic: LiveTopic, answer: _Answer) -> TopicObservation:
    """Return the offsets of a timestamp in those partitions of a topic that existed when Kafka was asked."""
    keys = [TopicPartition(topic.name, number) for number in range(len(topic.partitions))]
    known = list(takewhile(lambda key: key in answer.offsets, keys))
    return TopicObservation(
        instant_ms=answer.instant_ms,
        offsets=tuple(answer.offsets[key] for key in known),
        begins=tuple(topic.partitions[key.partition].begin for key in known),
        open=frozenset(key.partition for key in known if key in answer.open),
        by=answer.policy.by,
        late_s=answer.policy.late_s,
    )


def _still_open(session: Session, observed: Observed) -> list[TopicPartition]:
    """Return the partitions that a run waits for; none of a topic with a boundary at or after that timestamp."""
    return [
        TopicPartition(topic.name, number)
        for topic in observed.live.topics
        if not _boundaries(session, topic).is_closed(observed.end[topic.name].instant_ms)
        for number in sorted(observed.end[topic.name].open)
    ]


def _freeze(session: Session, observed: Observed) -> dict[str, CutTopic] | None:
    """Return the boundaries of all topics; None if a frozen boundary has more partitions than were read."""
    cuts = {}
    for topic in observed.live.topics:
        frozen, start = _boundaries(session, topic), observed.start[topic.name]
        begin, end = frozen.freeze(start), frozen.freeze(observed.end[topic.name])
        if isinstance(begin, StaleObservation) or isinstance(end, StaleObservation):
            return None
        cuts[topic.name] = _in_order(session, CutTopic(begin, end, frozen.before(start.instant_ms)))
    return cuts


def _boundaries(session: Session, topic: LiveTopic) -> FrozenBoundaries:
    return FrozenBoundaries(session.store, session.pipeline.name, topic)


def _in_order(session: Session, cut: CutTopic) -> CutTopic:
    if cut.begin.is_before(cut.end):
        return cut
    raise StoreDataError(
        seen=f"the boundaries of {cut.begin.topic!r} at {moment_text(cut.begin.instant_ms)} and"
        f" {moment_text(cut.end.instant_ms)}, pipeline {session.pipeline.name!r}, contradict each other",
        expected="for each partition, an offset at the later time that is not smaller",
        do="find out who else writes to the control table, which only this provider may write",
    )


def _covering(session: Session, cuts: Mapping[str, CutTopic], live: LiveTopics) -> LiveTopics | None:
    """Return the current topics, read again if another operation's frozen boundaries include more than ``live``.

    None if the cluster still shows fewer partitions than a boundary names.
    """
    named = {name: max(len(cut.begin.offsets), len(cut.end.offsets)) for name, cut in cuts.items()}
    is_past = any(cuts[key.topic].end.offset(key.partition) > there.end for key, there in live.partitions.items())
    if _covers(live, named) and not is_past:
        return live
    again = session.live_topics()
    return again if again.identity == live.identity and _covers(again, named) else None


def _require_sense(session: Session, interval: Interval, policy: BackfillPolicy, now_ms: int) -> None:
    if not session.pipeline.tracked:
        raise InputRefused(
            seen=f"pipeline {session.pipeline.name!r} is not tracked",
            expected="a program with TrackedStream, because only that program can be given a range",
            do="add the three lines of TrackedStream to the program, and set 'tracked: true'",
        )
    if interval.end_ms <= interval.start_ms:
        raise InputRefused(
            seen=f"the interval ends before its start: {interval}",
            expected="an end after the start",
            do="exchange 'from' and 'to'",
        )
    if interval.start_ms >= now_ms:
        raise InputRefused(
            seen=f"the interval {interval} has not started at {moment_text(now_ms)}",
            expected="an interval that has started",
            do="run the backfill when the interval has started",
        )
    if policy.on_open is OnOpen.CLOSE and interval.end_ms > now_ms + CLOCKS_DIFFER_MS:
        raise InputRefused(
            seen=f"the interval {interval} has not ended at {moment_text(now_ms)}",
            expected="an interval that has ended: its end would be frozen at the end of the log, and intervals until"
            " then would have no records",
            do="correct 'to', or set on_open to wait",
        )


def _require_past_times(session: Session, policy: BackfillPolicy, observed: Observed, now_ms: int) -> None:
    """Refuse a topic whose records behind the interval are of the future, by the clock of a producer.

    Kafka names the first record at or after a time. So such a record, and all after it, would be in no interval that
    has ended.

    :raises InputRefused: the first record after the interval is of the future.
    """
    if policy.by is not BoundaryBy.RECORD_TIME:
        return
    after = {
        TopicPartition(topic.name, number): offset
        for topic in observed.live.topics
        for number, offset in enumerate(observed.end[topic.name].offsets)
        if number not in observed.end[topic.name].open and offset < topic.partitions[number].end
    }
    times = session.kafka.record_times(Position(after))
    last_ms = now_ms + CLOCKS_DIFFER_MS
    future = [(key, at_ms) for key, at_ms in times.items() if at_ms is not None and at_ms > last_ms]
    if future:
        key, at_ms = future[0]
        more = f", as {len(future) - 1} more partition(s) have" if len(future) > 1 else ""
        raise InputRefused(
            seen=f"{key} has at offset {after[key]} a record of {at_ms} ms since 1970{more}, and it is"
            f" {moment_text(now_ms)}",
            expected="records of the past, because that record and all after it count as later than the interval",
            do="divide the records by the times of the live job's batches: set backfill.by to batch-time",
        )


def _times_of_topics(session: Session, policy: BackfillPolicy, observed: Observed) -> Iterator[str]:
    """Yield a note on each topic without a record at or after the start of the interval.

    :raises InputRefused: the records of a topic have no timestamp, so no interval would ever have a record.
    """
    if policy.by is not BoundaryBy.RECORD_TIME:
        return
    for topic in observed.live.topics:
        start = observed.start[topic.name]
        lasts = {
            TopicPartition(topic.name, number): each.end - 1
            for number, each in enumerate(topic.partitions[: len(start.offsets)])
            if each.end > each.begin
        }
        if not lasts or any(key.partition not in start.open for key in lasts):
            continue
        times = session.kafka.record_times(Position(lasts))
        if not any(each is None or each >= 0 for each in times.values()):
            raise InputRefused(
                seen=f"the last records of topic {topic.name!r} have no time, or this user may not read them",
                expected="records with a time, which shows whether they belong to the interval",
                do="set backfill.by to batch-time, or grant READ on the topic",
            )
        known = [each for each in times.values() if each is not None]
        if known:
            yield f"{topic.name}: its newest record is of {moment_text(max(known))}, before the interval"
