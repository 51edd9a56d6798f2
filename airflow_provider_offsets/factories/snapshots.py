"""The snapshots DAG: store the pipeline's position on a schedule, and prune what the policy does not retain."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param

from airflow_provider_offsets.core.pipeline import NAME, StreamingPipeline
from airflow_provider_offsets.factories.restart import REASON, new_dag
from airflow_provider_offsets.factories.schedules import FIRST_DAY, schedule_of
from airflow_provider_offsets.operators import PruneOffsetsOperator, SnapshotOffsetsOperator

DOC = """### Snapshots of `{name}`

Stores the position of the job, running or stopped. Nothing is stopped or moved. Then removes the snapshots, old
checkpoints and old versions of the program that `keep` of the pipeline does not retain. The log names each of them.

`snapshot → prune`

With a **label**, you can start from the snapshot by name (`snapshot:<label>`). It stays until a person removes it.
"""


def snapshots_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``snapshots__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``schedules.snapshots`` is the
        schedule.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``.
    :raises InputRefused: ``schedules.snapshots`` is malformed.
    """
    label = Param(
        None,
        type=["null", "string"],
        pattern=f"^{NAME.pattern}$",
        title="Label",
        description="A unique name for this snapshot. A labelled snapshot is kept until you remove it.",
    )
    own = {
        "schedule": schedule_of("schedules.snapshots", pipeline.schedules.snapshots),
        "start_date": FIRST_DAY,
        "params": {"reason": REASON, "label": label},
    }
    with new_dag("snapshots", pipeline, DOC, retries=retries, **{**own, **dag}) as made:
        snapshot = SnapshotOffsetsOperator(
            task_id="snapshot", pipeline=pipeline, snapshot_label="{{ params.get('label') or '' }}"
        )
        snapshot >> PruneOffsetsOperator(task_id="prune", pipeline=pipeline)
    return made
