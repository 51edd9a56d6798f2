"""The operator that plans a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.backends.shipping import runtime_zip
from airflow_provider_offsets.connections import make_launcher
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.restart.accepted import read_counts, read_seconds
from airflow_provider_offsets.core.restart.model import RestartPlan
from airflow_provider_offsets.errors import PlanRefused
from airflow_provider_offsets.operations.planning import make_plan, recorded_comparison
from airflow_provider_offsets.operations.rolling_back import why_no_way_back
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import MARKDOWN, plan_json, plan_report, stores_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class PlanRestartOperator(PipelineOperator):
    """Operator that shows what a restart would do by partition, and fails if it would lose or skip records.

    This operator only reads topics, stored offsets and the state of the job. It checks here what the submit will need,
    while the job still runs.

    :param pipeline: the pipeline.
    :param start: where to start, such as ``committed`` or ``as-of:2026-11-01T00:00Z | earliest``; the pipeline's own
        start by default. ``core/selectors`` has all forms.
    :param window_s: seconds for which the job will stay stopped; 0 if it is already stopped or will not stay stopped.
        The plan is refused if Kafka would delete unread records within that time.
    :param accept_lost: highest accepted number of lost offsets, by topic: ``{"flights": 3}``, or as text ``flights:3,
        orders:10`` or JSON. Replaces the pipeline's own number for these topics.
    :param accept_skipped: the same for offsets that are skipped on purpose.
    """

    template_fields: Sequence[str] = (
        *PipelineOperator.template_fields,
        "start",
        "window_s",
        "accept_lost",
        "accept_skipped",
    )

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        start: str | None = None,
        window_s: int | str = 0,
        accept_lost: Mapping[str, int] | str = "",
        accept_skipped: Mapping[str, int] | str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.start = pipeline.start if start is None else start
        self.window_s = window_s
        self.accept_lost = accept_lost
        self.accept_skipped = accept_skipped

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Plan the restart, and check what the submit will need.

        :returns: the plan as JSON values, with its rows, and ``markdown``.
        :raises PlanRefused: the plan has problems, such as lost or skipped records.
        :raises SelectorError: ``start`` is malformed, or names something that does not exist.
        :raises InputRefused: ``window_s`` or an accepted count is malformed, or a file for the submit does not exist.
        :raises ModeUnsupported: the job could not be submitted in its mode.
        :raises StateLost: the pipeline has a history but no record, or another pipeline owns what it uses.
        """
        window_s = read_seconds(self.window_s, "window_s")
        policy = session.pipeline.policy.accepting(
            read_counts(self.accept_lost, "accept_lost"), read_counts(self.accept_skipped, "accept_skipped")
        )
        make_launcher(session.pipeline, self.executor)  # raises now what the submit would raise once the job is stopped
        if session.pipeline.tracked:
            runtime_zip(Path(session.pipeline.job.folder_for_logs))
        plan = make_plan(session, self.start, policy, window_s=window_s)
        comparison = recorded_comparison(session)
        if comparison is not None:
            self.log.info("\n%s", stores_report(comparison))
        self.log.info("\n%s", plan_report(plan))
        why = why_no_way_back(session)
        way = f"not possible, because {why}" if why else "possible, to the version that runs now"
        self.log.info("Rollback of this restart: %s", way)
        if plan.problems:
            raise PlanRefused(plan.problems)
        return plan_summary(plan)


def plan_summary(plan: RestartPlan) -> dict[str, Any]:
    """Return the whole plan as JSON values, and as ``markdown``."""
    return {**plan_json(plan), "markdown": plan_report(plan, MARKDOWN)}
