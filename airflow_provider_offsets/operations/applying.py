"""Apply a plan: make the checkpoint that the job starts from, if the world is still as the plan saw it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from airflow_provider_offsets.core.epoch import Moved
from airflow_provider_offsets.core.plan import Preconditions, RestartForm, RestartPlan
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import ModeUnsupported, PlanRefused, WorldChanged
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.checkpoint import close, committed_entry, open_checkpoint, read_state, seed
from airflow_provider_offsets.stores.protocols import PositionStore, WritablePositionStore
from airflow_provider_offsets.stores.swap import swap_in

APPLIED = "applied"


@dataclass(frozen=True)
class Applied:
    """A plan that was applied, and the checkpoint that the job is to start from."""

    plan: RestartPlan
    checkpoint: str
    """Empty for a job that keeps its offsets elsewhere."""
    next_batch_id: int | None = None
    """The id of the job's first batch, if its checkpoint tells."""


def apply_plan(world: World, plan: RestartPlan) -> Applied:
    """Make ``plan`` ready for the submit, record that, and give it.

    Repeating it gives the same. Killed in between, it is finished by the next try: seeding comes first, in a folder
    that carries the plan's fingerprint and that nothing reads yet; then the old checkpoint is closed; then the step
    is recorded. Stored offsets of a tracked job are not touched: the new epoch's own record says where it begins.

    An untouched job starts where its own store says, so that is moved; and before it, a record is made of where the
    job stands. It goes on standing there until it is started, whoever plans next.

    :raises PlanRefused: the plan has problems.
    :raises WorldChanged: the job runs, or something that the plan stands on has changed; the message names each.
    """
    if plan.problems:
        raise PlanRefused(plan.problems)
    done = recorded_application(world)
    if done is not None and world.started_epoch() is not None:
        return done
    if world.pipeline.tracked:
        _require_world(world, plan)
        applied = Applied(plan, _prepare_checkpoint(world, plan))
    else:
        _note_move(world, plan)
        applied = _move(world, plan)
    world.control.record_step(world.operation, APPLIED, applied)
    return applied


def recorded_application(world: World) -> Applied | None:
    """Give the plan that the operation applied last, or None."""
    return world.control.step(world.operation, APPLIED, Applied)


def _require_world(world: World, plan: RestartPlan) -> None:
    seen = world.observe()
    _require_rest(seen)
    _require_unchanged(plan, seen, world.operation)


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


def _note_move(world: World, plan: RestartPlan) -> None:
    """Record what is about to be moved, if the world is as the plan saw it; or find that this very move has begun."""
    number = plan.seen.epoch + 1
    begun = world.control.moved(number)
    if begun is not None and begun.fingerprint == plan.fingerprint:
        return
    _require_world(world, plan)
    if plan.form is not RestartForm.RESUME:
        moved = Moved(world.operation, plan.fingerprint, plan.seen.stored, plan.kept, plan.start)
        world.control.note_move(number, moved)


def _move(world: World, plan: RestartPlan) -> Applied:
    """Move an untouched job in the store that it starts from. Done again, it changes nothing."""
    pipeline = world.pipeline
    if pipeline.ruling != CHECKPOINT:
        if plan.form is RestartForm.WRITE:
            _writable(pipeline.ruling, world.kept_in).write(pipeline.stream, plan.start, expected=plan.kept)
        return Applied(plan, "")
    location = pipeline.job.checkpoint
    if plan.form is RestartForm.RESUME:
        return Applied(plan, location, plan.last_batch_id + 1)
    next_batch_id = swap_in(
        location,
        tag=plan.fingerprint,
        query_id=plan.query_id or str(uuid.uuid5(uuid.NAMESPACE_OID, plan.fingerprint)),
        last_batch_id=plan.last_batch_id,
        start=plan.start,
    )
    return Applied(plan, location, next_batch_id)


def _writable(name: str, kept_in: Mapping[str, PositionStore]) -> WritablePositionStore:
    store = kept_in[name]
    if not isinstance(store, WritablePositionStore):
        raise ModeUnsupported(
            seen=f"{name!r} ({store.kind}) cannot be written",
            expected="a store that the job's start can be written to",
            do="name another one first in offsets_in",
        )
    return store


def _prepare_checkpoint(world: World, plan: RestartPlan) -> str:
    base = world.pipeline.job.checkpoint
    if plan.form is RestartForm.RESUME:
        assert plan.seen.checkpoint is not None
        return plan.seen.checkpoint
    if plan.form is RestartForm.FRESH and read_state(open_checkpoint(base)) is None:
        return base
    beside = f"{base.rstrip('/')}-{plan.fingerprint}"
    if plan.form is RestartForm.REPOSITION:
        old = open_checkpoint(plan.seen.checkpoint or base)
        assert plan.query_id is not None
        seed(
            open_checkpoint(beside),
            query_id=plan.query_id,
            last_batch_id=plan.last_batch_id,
            start=plan.start,
            like=committed_entry(old),
            sources_in=old,
        )
        close(old, world.operation)
    return beside
