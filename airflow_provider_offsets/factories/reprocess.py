"""The reprocess DAG: the live job reads known data once more, with a fixed program if needed."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import (
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
**application** names one. What it reads again is counted in the plan before anything is stopped, and in the audit
afterwards.

`snapshot_before → plan → approve → stop → snapshot_stopped → replan → apply → submit → watch → audit`

If `submit` or `watch` fails and `rollback.automatic` of the pipeline is on, `roll_back` brings back the version and the
previous position, `audit_rollback` counts what is read again, and the run fails with the reason.

The version that is named here is for this run: the next maintenance starts what `job.application` says. Records that
were read before are given to the sink again: it has to take them for the same, by `(topic, partition, offset)`.
"""


def reprocess_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``reprocess__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``.
    """
    restart = Restart(pipeline, "{{ params.start }}", application="{{ params.application or '' }}")
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
        "approve": approve_param(pipeline),
        "take_over": TAKE_OVER,
        "dry_run": DRY_RUN,
    }
