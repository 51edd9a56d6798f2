"""Plan a restart, and keep the plan with its operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.choosing import weigh
from airflow_provider_offsets.core.compare import Comparison, compare_stores, settle
from airflow_provider_offsets.core.plan import (
    Problem,
    ProblemKind,
    RestartForm,
    RestartPlan,
    RestartPolicy,
    plan_restart,
    with_runway,
)
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.core.selector_text import parse_start
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.operations.lease import require_unknown
from airflow_provider_offsets.operations.retention import measure_runway
from airflow_provider_offsets.operations.sources import WorldSources
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.protocols import LeaderEpochs
from airflow_provider_offsets.stores.swap import can_be_seeded

PLAN = "plan"
COMPARISON = "comparison"


def make_plan(world: World, start: str, policy: RestartPolicy, *, window_s: int = 0) -> RestartPlan:
    """Give the plan of a restart, and record it as the newest one of the operation. Nothing else is changed.

    An operation that has launched its epoch already returns the plan of that launch: planning again would
    describe the job that runs now.

    :param start: selectors, such as ``committed`` or ``as-of:2026-11-01T00:00Z | earliest``.
    :param window_s: how long the job is to stay stopped; longer than Kafka keeps what is unread is a problem.
    :raises SelectorError: ``start`` cannot be read, or names what is not there.
    """
    if world.has_launched():
        planned = recorded_plan(world)
        if planned is not None:
            return planned
    plan, seen = draft_plan(world, start, policy, window_s=window_s)
    world.control.record_step(world.operation, COMPARISON, compare_stores(seen))
    world.control.record_step(world.operation, PLAN, plan)
    return plan


def draft_plan(
    world: World, start: str, policy: RestartPolicy, *, window_s: int = 0
) -> tuple[RestartPlan, Observation]:
    """Give the plan of a restart, and what it was made from. Nothing is changed, and nothing recorded of it.

    :raises SelectorError: ``start`` cannot be read, or names what is not there.
    :raises StateLost: the pipeline has a history and no record: it was renamed, or the control store was lost.
    """
    asked = parse_start(start)
    if world.control.record() is None:
        require_unknown(world)
    seen = world.observe()
    sources = WorldSources(world, stands=settle(seen, policy.on_conflict)[0])
    chosen = asked.choose(seen, sources)
    ends = seen.live.end
    if any(each.offset > ends.get(partition, each.offset) for partition, each in chosen.items()):
        # Kafka was asked after that look, so what it answered may lie beyond the ends that were seen.
        seen = replace(seen, live=world.live_topics())
    choice = weigh(asked, chosen, seen, policy.on_conflict)
    known = known_leader_epochs(world, seen)
    plan = plan_restart(
        choice.wanted,
        seen,
        policy,
        selector=start,
        chosen_by=choice.chosen_by,
        known_leader_epochs=known,
        named=choice.named,
    )
    plan = replace(plan, problems=(*choice.problems, *plan.problems, *_place_problems(world, plan)))
    settings = world.kafka.settings(world.pipeline.topics)
    runway = measure_runway(world.kafka, plan.start, seen.live, settings, at_ms=clock.now_ms(), window_s=window_s)
    return with_runway(plan, runway, settings, policy, read_committed=world.pipeline.read_committed), seen


def known_leader_epochs(world: World, seen: Observation) -> dict[TopicPartition, int]:
    """Give the greatest leader epoch of each partition that anybody noted since the newest epoch began: at its submit,
    in a snapshot, or in a store that keeps them with its offsets. What was noted before that, the start has settled."""
    noted = [] if seen.epoch is None else [seen.epoch.claim.leader_epochs]
    noted += [
        snapshot.seen.live.leader_epochs
        for snapshot in world.control.snapshots()
        if snapshot.seen.epoch_number == seen.epoch_number
    ]
    found = [
        (TopicPartition(topic, number), epoch)
        for epochs in noted
        for topic, of_topic in epochs.items()
        for number, epoch in enumerate(of_topic)
        if epoch is not None
    ]
    for store in world.kept_in.values():
        if isinstance(store, LeaderEpochs):
            found += store.leader_epochs(world.pipeline.stream).items()
    return dict(sorted(found))  # of one partition the greatest comes last, and stays


def _place_problems(world: World, plan: RestartPlan) -> Iterator[Problem]:
    """Whether an untouched job's checkpoint can be exchanged where it is: told while the job still runs."""
    location = world.pipeline.job.checkpoint
    if plan.ruling == CHECKPOINT and plan.form is not RestartForm.RESUME and not can_be_seeded(location):
        yield Problem(
            ProblemKind.CHECKPOINT_STAYS,
            f"{plan.form_reason}, and {location} is where no folder can be moved in one step; start from 'committed'"
            " with its partitions as they are, keep the checkpoint on HDFS, or let the program name a new one and"
            " describe it as a new pipeline",
        )


def recorded_plan(world: World) -> RestartPlan | None:
    """Give the newest plan of the operation, or None."""
    return world.control.step(world.operation, PLAN, RestartPlan)


def recorded_comparison(world: World) -> Comparison | None:
    """Give what the newest plan of the operation saw in the pipeline's stores, or None."""
    return world.control.step(world.operation, COMPARISON, Comparison)
