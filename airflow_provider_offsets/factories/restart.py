"""Shared parts of a pipeline's DAGs: the empty DAG, the fields of the trigger form, and the tasks of a restart."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, Param, TriggerRule, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.selectors.parse import FALLBACK, FORMS
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.operators import (
    ApplyOffsetsOperator,
    ApproveRestartOperator,
    AuditOffsetsOperator,
    PlanRestartOperator,
    PreflightOperator,
    RollBackOperator,
    SnapshotOffsetsOperator,
    StopStreamingJobOperator,
    SubmitStreamingJobOperator,
    WatchStreamingJobOperator,
)
from airflow_provider_offsets.operators.base import OPERATION, fail_at_once

START_FORMS = f"{FORMS}. Separate alternatives by '{FALLBACK}': the first one that names an offset is used."

REASON = Param(
    None,
    type=["null", "string"],
    title="Reason",
    description="Why you trigger the run. The reason is stored with each change that the run makes.",
)
TAKE_OVER = Param(
    False,
    type="boolean",
    title="Take over",
    description="Take the pipeline over from an operation that acted recently. Its next act is then refused.",
)
ACCEPT_LOST = Param(
    None,
    type=["null", "string"],
    title="Accepted as lost",
    description="How many offsets may be lost because retention deleted their records: flights:3, orders:10.",
)
ACCEPT_SKIPPED = Param(
    None,
    type=["null", "string"],
    title="Accepted as skipped",
    description="How many unread offsets the start may skip on purpose: flights:3, orders:10.",
)
ACCEPTED: dict[str, str] = {
    "accept_lost": "{{ params.get('accept_lost') or '' }}",
    "accept_skipped": "{{ params.get('accept_skipped') or '' }}",
}
"""What a run accepts, as its form says."""
DRY_RUN = Param(
    False, type="boolean", title="Dry run", description="End after the plan. Nothing is stopped or changed."
)


class _Step(TypedDict):
    """Arguments that all steps of an operation share."""

    pipeline: StreamingPipeline
    operation: str


@dataclass(frozen=True)
class Restart:
    """One restart of a pipeline's job. The texts are templates, which Airflow renders for each run."""

    pipeline: StreamingPipeline
    start: str
    """As for ``PlanRestartOperator``."""
    accept_lost: str = ""
    """As for ``PlanRestartOperator``."""
    accept_skipped: str = ""
    """As for ``PlanRestartOperator``."""
    application: str = ""
    """The version to start; the pipeline's own if empty."""
    operation: str = OPERATION
    """Id of the operation to which all tasks of the restart belong."""

    @property
    def step(self) -> _Step:
        """Arguments of each of its tasks."""
        return {"pipeline": self.pipeline, "operation": self.operation}

    def plan(self, task_id: str) -> PlanRestartOperator:
        """Return a task that plans this restart."""
        return PlanRestartOperator(
            task_id=task_id,
            start=self.start,
            accept_lost=self.accept_lost,
            accept_skipped=self.accept_skipped,
            application=self.application,
            **self.step,
        )


def new_dag(kind: str, pipeline: StreamingPipeline, doc: str, *, retries: int, **dag: Any) -> DAG:
    """Return an empty DAG ``<kind>__<pipeline>`` with one run at a time, without a schedule by default.

    :param kind: first part of the DAG id, and a tag.
    :param pipeline: the pipeline that the DAG is for.
    :param doc: Markdown documentation of the DAG, with ``{name}`` for the pipeline.
    :param retries: retries of every task.
    :param dag: further arguments of ``DAG``.
    """
    return DAG(
        **{
            "dag_id": f"{kind}__{pipeline.name}",
            "schedule": None,
            "catchup": False,
            "max_active_runs": 1,
            "doc_md": doc.format(name=pipeline.name),
            "tags": ["offsets", kind, pipeline.name],
            # 5 s, 10 s, 20 s, …: a restarted service needs time to become available.
            "default_args": {
                "retries": retries,
                "retry_delay": timedelta(seconds=5),
                # Before 3.2, Airflow takes a bool, and doubles the delay. Since then, True would be a factor of 1.
                "retry_exponential_backoff": 2 if AIRFLOW_V_3_2_PLUS else True,
                "pre_execute": refuse_unknown_params,
            },
            **dag,
        }
    )


def refuse_unknown_params(context: Any) -> None:
    """Raise in the first task if a run was triggered with a param that its DAG does not have: Airflow ignores it.

    :param context: Airflow's task context.
    :raises AirflowFailException: there is such a param, for example ``strat`` instead of ``start``.
    """
    known = set(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - known)
    if not unknown or context["task"].upstream_task_ids:
        return
    with fail_at_once():
        like = difflib.get_close_matches(unknown[0], known, n=1)
        raise InputRefused(
            seen=f"the run was triggered with {', '.join(map(repr, unknown))}",
            expected=f"only {', '.join(sorted(known))}",
            do="correct the name, and trigger a new run" + (f"; {like[0]!r} is similar" if like else ""),
        )


def approve_param(pipeline: StreamingPipeline) -> Param:
    """Return the form field that makes a run wait for approval."""
    return Param(
        pipeline.approve,
        type="boolean",
        title="Approve the plan",
        description="Wait for a person to approve the plan before anything is stopped.",
    )


def planned_and_stopped(restart: Restart) -> list[BaseOperator]:
    """Return the tasks that check and plan a restart while the job runs, and then stop the job."""
    return [
        PreflightOperator(task_id="preflight", application=restart.application, **restart.step),
        SnapshotOffsetsOperator(task_id="snapshot_before", moment="before", **restart.step),
        restart.plan("plan"),
        ShortCircuitOperator(task_id="continue_unless_dry_run", python_callable=is_no_dry_run),
        ApproveRestartOperator(task_id="approve"),
        StopStreamingJobOperator(task_id="stop", **restart.step),
        SnapshotOffsetsOperator(task_id="snapshot_stopped", moment=WHEN_STOPPED, **restart.step),
    ]


def restarted(restart: Restart, *, rolls_back: bool = True) -> list[BaseOperator]:
    """Return the tasks that start a stopped job, watch it for a while, and audit it.

    Beside these tasks, ``roll_back`` undoes the operation if the submit or the watch fails, and ``audit_rollback``
    follows it. The ``audit`` task does not run then, so the DAG run fails whatever these two tasks do.

    :param restart: the restart.
    :param rolls_back: False if the started version is the one that ran before.
    """
    step = restart.step
    submit = SubmitStreamingJobOperator(task_id="submit", application=restart.application, **step)
    watch = WatchStreamingJobOperator(task_id="watch", deferrable=True, **step)
    if rolls_back:
        chain(
            [submit, watch],
            RollBackOperator(task_id="roll_back", automatic=True, trigger_rule=TriggerRule.ONE_FAILED, **step),
            AuditOffsetsOperator(task_id="audit_rollback", trigger_rule=TriggerRule.ALL_FAILED, **step),
        )
    return [
        restart.plan("replan"),
        ApplyOffsetsOperator(task_id="apply", **step),
        submit,
        watch,
        AuditOffsetsOperator(task_id="audit", **step),
    ]


def is_no_dry_run(**context: Any) -> bool:
    """Return whether the run continues after the plan."""
    return not context["params"]["dry_run"]
