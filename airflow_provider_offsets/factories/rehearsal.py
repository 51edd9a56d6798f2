"""The rehearsal DAG: plan a restart against the live topics without changing anything."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import REASON, START_FORMS, new_dag
from airflow_provider_offsets.operators import PlanRestartOperator

DOC = """### Rehearsal of `{name}`

Plans a restart while the job runs. It checks what a maintenance checks: topics, offsets, stores, files and modes.
Nothing is stopped or moved. The run fails if a restart would lose or skip records, or is impossible. Set
`schedules.rehearsal` to learn that before the job is down.
"""


def rehearsal_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``rehearsal__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``schedules.rehearsal`` is the
        schedule.
    :param retries: retries of the plan; a plan with problems fails at once.
    :param dag: further arguments of ``DAG``; an ``on_failure_callback`` serves as the alert.
    """
    start = Param(pipeline.start, type="string", minLength=1, title="Start", description=START_FORMS)
    own = {"schedule": pipeline.schedules.rehearsal, "params": {"reason": REASON, "start": start}}
    with new_dag("rehearsal", pipeline, DOC, retries=retries, **{**own, **dag}) as made:
        PlanRestartOperator(task_id="plan", pipeline=pipeline, start="{{ params.start }}")
    return made
