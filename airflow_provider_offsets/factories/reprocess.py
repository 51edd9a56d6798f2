"""The reprocess DAG: the live job reads known data once more, with a fixed program if needed."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import (
    ACCEPT_LOST,
    ACCEPT_SKIPPED,
    ACCEPTED,
    DRY_RUN,
    REASON,
    START_FORMS,
    TAKE_OVER,
    Restart,
    approve_param,
    new_dag,
    planned_and_stopped,
    restarted,
)

DOC = """### Reprocess of `{name}`

Stops the job between two batches, rewinds it to **start**, and starts it there, with another version of its program if
**application** names one. The plan counts the replayed records before anything is stopped, and the audit counts them
afterwards.

`preflight → snapshot_before → plan → approve → stop → snapshot_stopped → replan → apply → submit → watch → audit`

If `submit` or `watch` fails and `rollback.automatic` of the pipeline is on, `roll_back` restores the previous version
and position, `audit_rollback` counts the replayed records, and the run fails with the reason.

The version applies to this run only: the next maintenance starts `job.application` again. The sink receives records
again. It has to recognize a known record by `(topic, partition, offset)`.
"""


def reprocess_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``reprocess__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``.
    """
    restart = Restart(pipeline, "{{ params.start }}", application="{{ params.application or '' }}", **ACCEPTED)
    with new_dag("reprocess", pipeline, DOC, retries=retries, **{"params": _params(pipeline), **dag}) as made:
        chain(*planned_and_stopped(restart), *restarted(restart))
    return made


def _params(pipeline: StreamingPipeline) -> dict[str, Param]:
    return {
        "reason": REASON,
        "start": Param(type="string", minLength=1, title="Start", description=START_FORMS),
        "application": Param(
            None,
            type=["null", "string"],
            title="Application",
            description="Another version of the program, in the folder of job.application.",
        ),
        "accept_lost": ACCEPT_LOST,
        "accept_skipped": ACCEPT_SKIPPED,
        "approve": approve_param(pipeline),
        "take_over": TAKE_OVER,
        "dry_run": DRY_RUN,
    }
