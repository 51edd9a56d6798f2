"""Freeze the boundaries of a data interval, plan its replay, and audit what was replayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.boundary import Boundary, BoundaryBy, Found, OnOpen, draw_boundary
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.replay import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.core.replay_audit import ReplayAudit, audit_replay
from airflow_provider_offsets.core.replay_plan import Asked, CutTopic, plan_replay
from airflow_provider_offsets.errors import InputRefused, NoHistory
from airflow_provider_offsets.operations.keeping import keep_version
from airflow_provider_offsets.operations.sources import WorldSources
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.boundaries import FrozenBoundaries
from airflow_provider_offsets.stores.control import REPLAY_PLAN, Control

REPLAY_AUDIT = "replay_audit"


@dataclass(frozen=True)
class Waiting:
    """The interval ends where nothing is yet, and the run is to wait for it."""

    reason: str


def make_replay_plan(
    world: World,
    interval: Interval,
    policy: BackfillPolicy,
    *,
    attempt_key: str,
    accept_lost: Mapping[str, int] | None = None,
    now_ms: int,
) -> ReplayPlan | Waiting:
    """Give the plan of a replay of one interval, and record it as the newest one of the operation.

    The boundaries are frozen first, so that a try that is killed finds them again. A try of the same attempt is given
    the plan that the first one has recorded, unless that one had problems.

    :param attempt_key: what all tries of one attempt have in common, and the next attempt does not.
    :param accept_lost: how many offsets may be deleted by retention, by topic.
    :raises InputRefused: an interval that ends before it begins, or that has not begun; a topic whose records have no
        time; an untouched pipeline.
    :raises NoHistory: cut by batch time, and the history begins after the interval.
    """
    recorded = recorded_replay_plan(world)
    is_mine = recorded is not None and (recorded.attempt_key, recorded.interval) == (attempt_key, interval)
    if recorded is not None and is_mine and not recorded.problems:
        return recorded
    _require_sense(world, interval, now_ms)
    live = world.live_topics()
    start = _look(world, interval.start_ms, policy, live, now_ms)
    end = _look(world, interval.end_ms, policy, live, now_ms)
    if any(
        offset > there.end
        for key, there in live.partitions.items()
        for offset in (start.offsets[key], end.offsets[key])
    ):
        # Kafka was asked after that look, so what it answered may lie beyond the ends that were seen.
        live = world.live_topics()
    if policy.on_open is OnOpen.WAIT and (still_open := _still_open(world, interval.end_ms, end, live)):
        return Waiting(
            f"nothing at or after {moment_text(interval.end_ms)} yet in {len(still_open)} of {len(live.partitions)}"
            f" partitions: {', '.join(map(str, still_open[:5]))}"
        )
    asked = Asked(
        pipeline=world.pipeline.name,
        operation=world.operation,
        attempt=1 if recorded is None else recorded.attempt + (not is_mine),
        attempt_key=attempt_key,
        interval=interval,
        application=world.pipeline.job.application,
        application_version=keep_version(world.pipeline.job).digest,
        accept_lost={**world.pipeline.policy.accept_lost, **(accept_lost or {})},
    )
    plan = plan_replay(
        asked,
        {topic.name: _cut(world, interval, topic.name, start, end, live) for topic in live.topics},
        live,
        world.kafka.settings(world.pipeline.topics),
        policy,
        read_committed=world.pipeline.read_committed,
        notes=tuple(_times_of_topics(world, interval, policy, start, live)),
    )
    world.control.record_replay_plan(world.operation, plan)
    return plan


def recorded_replay_plan(world: World) -> ReplayPlan | None:
    """Give the newest plan of a replay of the operation, or None."""
    return world.control.replay_plan(world.operation)


def audit_recorded_replay(control: Control, plan: ReplayPlan) -> ReplayAudit:
    """Give the audit of what the drivers of a replay have recorded."""
    return audit_replay(plan, control.all_replayed(plan.run_id))


def replay_audits(control: Control, prefix: str = "") -> dict[str, ReplayAudit]:
    """Give the audit of the newest attempt of each operation whose id begins with ``prefix``, as it stands now.

    What was found clean is not looked at again: a long backfill has many intervals.
    """
    found = {}
    for operation in control.operations(prefix):
        planned, audited = operation.steps.get(REPLAY_PLAN), operation.steps.get(REPLAY_AUDIT)
        if planned is None:
            continue
        audit = None if audited is None else codec.loads(ReplayAudit, audited)
        if audit is None or not audit.is_clean or codec.dumps(audit.run_id) not in planned:
            audit = audit_recorded_replay(control, codec.loads(ReplayPlan, planned))
        found[operation.id] = audit
    return found


def _require_sense(world: World, interval: Interval, now_ms: int) -> None:
    if not world.pipeline.tracked:
        raise InputRefused(
            seen=f"pipeline {world.pipeline.name!r} is not tracked",
            expected="a program with TrackedStream: one that knows nothing of this provider cannot be given a range",
            do="add its three lines, and set 'tracked: true'",
        )
    if interval.end_ms <= interval.start_ms:
        raise InputRefused(
            seen=f"the interval from {interval}", expected="an end after its start", do="exchange 'from' and 'to'"
        )
    if interval.start_ms >= now_ms:
        raise InputRefused(
            seen=f"the interval from {interval}, and it is {moment_text(now_ms)}",
            expected="an interval that has begun",
            do="run it when it has",
        )


def _look(world: World, instant_ms: int, policy: BackfillPolicy, live: LiveTopics, now_ms: int) -> Found:
    """Where an instant lies now. In the future all is open, whatever the clocks of producers say."""
    at_ms = instant_ms + policy.late_s * 1000
    if policy.by is BoundaryBy.BATCH_TIME:
        offsets, open_ = _by_batch_time(world, at_ms, live)
    else:
        answers = world.kafka.offsets_at(world.pipeline.topics, at_ms, read_committed=world.pipeline.read_committed)
        open_ = {key for key in live.partitions if answers.get(key) is None}
        offsets = {key: there.end for key, there in live.partitions.items()}
        offsets |= {key: answer for key, answer in answers.items() if answer is not None}
    if at_ms > now_ms:
        open_ = set(live.partitions)
    return Found(offsets, open_, policy.by, policy.late_s)


def _by_batch_time(
    world: World, at_ms: int, live: LiveTopics
) -> tuple[Mapping[TopicPartition, int], set[TopicPartition]]:
    """Where the live job stood at a time, by its history."""
    stream = world.pipeline.stream
    newest = next(world.store.newest_first(stream), None)
    if newest is None:
        raise NoHistory(
            seen=f"no batch of {world.pipeline.name!r} in its history",
            expected="batches, to know which records were read when",
            do="cut by record time (backfill.by: record-time), or run the job first",
        )
    past = WorldSources(world, Position()).as_of(at_ms - 1) if at_ms else None
    first = next(world.store.oldest_first(stream))
    position = (first.start or Position()) if past is None else past.position
    is_open = newest.row_time_ms is None or newest.row_time_ms < at_ms
    return {key: position.get(key, 0) for key in live.partitions}, set(live.partitions) if is_open else set()


def _still_open(world: World, instant_ms: int, found: Found, live: LiveTopics) -> list[TopicPartition]:
    """The partitions that a run waits for: not those of a topic that is cut at that instant, or after it, already."""
    names = {
        topic.name
        for topic in live.topics
        if (frozen := FrozenBoundaries(world.store, world.pipeline.name, topic)).at(instant_ms) is not None
        or frozen.around(instant_ms)[1] is not None
    }
    return sorted(key for key in found.open if key.topic not in names)


def _cut(world: World, interval: Interval, name: str, start: Found, end: Found, live: LiveTopics) -> CutTopic:
    topic = next(each for each in live.topics if each.name == name)
    frozen = FrozenBoundaries(world.store, world.pipeline.name, topic)

    def freeze(instant_ms: int, found: Found) -> Boundary:
        return frozen.freeze(instant_ms, lambda before, after: draw_boundary(topic, instant_ms, found, before, after))

    begin = freeze(interval.start_ms, start)
    return CutTopic(begin, freeze(interval.end_ms, end), frozen.around(interval.start_ms)[0])


def _times_of_topics(
    world: World, interval: Interval, policy: BackfillPolicy, start: Found, live: LiveTopics
) -> Iterator[str]:
    """What is to be said of topics with nothing at or after the start of the interval.

    :raises InputRefused: the latter, of all partitions of a topic: no interval of time would ever have a record.
    """
    if policy.by is not BoundaryBy.RECORD_TIME:
        return
    for topic in live.topics:
        lasts = {
            TopicPartition(topic.name, number): each.end - 1
            for number, each in enumerate(topic.partitions)
            if each.end > each.begin
        }
        if not lasts or any(key not in start.open for key in lasts):
            continue
        times = world.kafka.record_times(Position(lasts))
        if not any(each is None or each >= 0 for each in times.values()):
            raise InputRefused(
                seen=f"the last records of topic {topic.name!r} have no time, or this user may not read them",
                expected="records with a time, to know which are of the interval",
                do="cut by the time of the live job's batches (backfill.by: batch-time), or grant READ on the topic",
            )
        known = [each for each in times.values() if each is not None]
        if known:
            yield f"{topic.name}: its newest record is of {moment_text(max(known))}, before the interval"
