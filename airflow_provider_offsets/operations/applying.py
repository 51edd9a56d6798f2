"""Apply a plan: make the checkpoint that the job starts from, if the world is still as the plan saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_offsets.core.plan import Preconditions, RestartForm, RestartPlan
from airflow_provider_offsets.core.snapshot import Observation
from airflow_provider_offsets.errors import PlanRefused, WorldChanged
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.checkpoint import LocalCheckpoint, close, last_entry, read_state, seed

APPLIED = "applied"


@dataclass(frozen=True)
class Applied:
    """A plan that was applied, and the checkpoint that the job is to start from."""

    plan: RestartPlan
    checkpoint: str


def apply_plan(world: World, plan: RestartPlan) -> Applied:
    """Make ``plan`` ready for the submit, record that, and give it.

    Repeating it gives the same. Killed in between, it is finished by the next try: seeding comes first, in a folder
    that carries the plan's fingerprint and that nothing reads yet; then the old checkpoint is closed; then the step
    is recorded. Stored offsets are not touched: the new epoch's own record says where it begins.

    :raises PlanRefused: the plan has problems.
    :raises WorldChanged: the job runs, or something that the plan stands on has changed; the message names each.
    """
    if plan.problems:
        raise PlanRefused(plan.problems)
    done = recorded_application(world)
    if done is not None and world.started_epoch() is not None:
        return done
    seen = world.observe()
    _require_rest(seen)
    _require_unchanged(plan, seen, world.operation)
    applied = Applied(plan, _prepare_checkpoint(world, plan))
    world.control.record_step(world.operation, APPLIED, applied)
    return applied


def recorded_application(world: World) -> Applied | None:
    """Give the plan that the operation applied last, or None."""
    return world.control.step(world.operation, APPLIED, Applied)


def _require_rest(seen: Observation) -> None:
    if seen.epoch is not None and seen.ended is None:
        raise WorldChanged(
            seen=f"epoch {seen.epoch.number} of {seen.pipeline!r} runs, or nobody knows that it does not",
            expected="the job at rest",
            do="stop it with StopStreamingJobOperator",
        )


def _require_unchanged(plan: RestartPlan, seen: Observation, operation: str) -> None:
    now = Preconditions.of(seen)
    if now.closed_by == operation:
        now = replace(now, closed_by=plan.seen.closed_by)
    if changes := plan.seen.changes(now):
        raise WorldChanged(
            seen=f"since plan {plan.fingerprint}: {'; '.join(changes)}",
            expected="the world as the plan saw it",
            do="plan again",
        )


def _prepare_checkpoint(world: World, plan: RestartPlan) -> str:
    base = world.pipeline.job.checkpoint
    if plan.form is RestartForm.RESUME:
        assert plan.seen.checkpoint is not None
        return plan.seen.checkpoint
    if plan.form is RestartForm.FRESH and read_state(LocalCheckpoint(base)) is None:
        return base
    beside = f"{base.rstrip('/')}-{plan.fingerprint}"
    if plan.form is RestartForm.REPOSITION:
        old = LocalCheckpoint(plan.seen.checkpoint or base)
        assert plan.query_id is not None
        seed(
            LocalCheckpoint(beside),
            query_id=plan.query_id,
            last_batch_id=plan.last_batch_id,
            start=plan.start,
            like=last_entry(old),
        )
        close(old, world.operation)
    return beside
