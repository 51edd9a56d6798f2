"""Plan a restart, and keep the plan with its operation."""

from __future__ import annotations

from airflow_provider_offsets.core.plan import RestartPlan, RestartPolicy, plan_restart
from airflow_provider_offsets.core.selector import parse_selector
from airflow_provider_offsets.operations.world import World

PLAN = "plan"


def make_plan(world: World, start: str, policy: RestartPolicy) -> RestartPlan:
    """Give the plan of a restart, and record it as the newest one of the operation. Nothing else is changed.

    An operation that has started its epoch already gives the plan that it was started by: planning again would
    describe the job that runs now.

    :param start: a selector, such as ``committed`` or ``snapshot:<id>``.
    :raises SelectorError: ``start`` cannot be read.
    """
    if world.started_epoch() is not None:
        planned = recorded_plan(world)
        if planned is not None:
            return planned
    seen = world.observe()
    wanted = parse_selector(start, world.control.snapshot).choose(seen)
    plan = plan_restart(wanted, seen, policy, selector=start)
    world.control.record_step(world.operation, PLAN, plan)
    return plan


def recorded_plan(world: World) -> RestartPlan | None:
    """Give the newest plan of the operation, or None."""
    return world.control.step(world.operation, PLAN, RestartPlan)
