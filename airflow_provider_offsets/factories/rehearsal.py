"""The rehearsal DAG: plan a restart against the live topics without changing anything."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import (
    ACCEPT_LOST,
    ACCEPT_SKIPPED,
    ACCEPTED,
    REASON,
    START_FORMS,
    new_dag,
)
from airflow_provider_offsets.factories.schedules import FIRST_DAY, schedule_of
from airflow_provider_offsets.operators import PlanRestartOperator, PreflightOperator

DOC = """### Rehearsal of `{name}`

Checks and plans a restart while the job runs, as a maintenance does: topics, offsets, stores, files, modes, packages.
Nothing is stopped or moved. The run fails if a restart would lose or skip records, or is impossible. Set
`schedules.rehearsal` to learn that before the job is down.
"""


def rehearsal_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``rehearsal__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``schedules.rehearsal`` is the
        schedule.
    :param retries: retries of the plan; a plan with problems fails at once.
    :param dag: further arguments of ``DAG``; an ``on_failure_callback`` serves as the alert.
    :raises InputRefused: ``schedules.rehearsal`` is malformed.
    """
    start = Param(pipeline.start, type="string", minLength=1, title="Start", description=START_FORMS)
    own = {
        "schedule": schedule_of("schedules.rehearsal", pipeline.schedules.rehearsal),
        "start_date": FIRST_DAY,
        "params": {"reason": REASON, "start": start, "accept_lost": ACCEPT_LOST, "accept_skipped": ACCEPT_SKIPPED},
    }
    with new_dag("rehearsal", pipeline, DOC, retries=retries, **{**own, **dag}) as made:
        chain(
            PreflightOperator(task_id="preflight", pipeline=pipeline),
            PlanRestartOperator(task_id="plan", pipeline=pipeline, start="{{ params.start }}", **ACCEPTED),
        )
    return made
