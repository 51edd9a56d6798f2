"""Plan a restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.core.plan import RestartPlan
from airflow_provider_offsets.errors import PlanRefused
from airflow_provider_offsets.hooks.spark import SparkJobHook
from airflow_provider_offsets.hooks.world import driver_secrets
from airflow_provider_offsets.operations.planning import make_plan, recorded_comparison
from airflow_provider_offsets.operations.shipping import runtime_zip
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import MARKDOWN, plan_json, plan_report, stores_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World


class PlanRestartOperator(PipelineOperator):
    """Shows what a restart would do, partition by partition, and fails if it would lose or skip anything.

    Topics, stored offsets and the job are only looked at. What the submit will need is made ready or refused here,
    while the job still runs.

    :param start: where to start, as in ``committed`` or ``as-of:2026-11-01T00:00Z | earliest``; the pipeline's own
        start by default. All forms are in ``core/selector.py``.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "start")

    def __init__(self, *, start: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = self.pipeline.start if start is None else start

    def act(self, world: World, context: Context) -> dict[str, Any]:
        """Give the plan's summary, its rows, and ``markdown``."""
        spark = SparkJobHook(world.pipeline)
        spark.check(driver_secrets(world.pipeline).store_url)
        if world.pipeline.tracked:
            runtime_zip(Path(world.pipeline.job.folder_for_logs))
        plan = make_plan(world, self.start, world.pipeline.policy)
        comparison = recorded_comparison(world)
        if comparison is not None:
            self.log.info("\n%s", stores_report(comparison))
        self.log.info("\n%s", plan_report(plan))
        if plan.problems:
            raise PlanRefused(plan.problems)
        return plan_summary(plan)


def plan_summary(plan: RestartPlan) -> dict[str, Any]:
    """Give the whole plan as JSON values, and as ``markdown``."""
    return {**plan_json(plan), "markdown": plan_report(plan, MARKDOWN)}
