"""The recovery DAG: restart a dead job from its position, and fail the run, as an alert, if that does not help."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED
from airflow_provider_offsets.factories.restart import Restart, new_dag, restarted
from airflow_provider_offsets.factories.schedules import FIRST_DAY, schedule_of
from airflow_provider_offsets.operators import BeginRecoveryOperator, SnapshotOffsetsOperator
from airflow_provider_offsets.sensors import JobDiedSensor

DOC = """### Recovery of `{name}`

Waits in the triggerer until the job is dead, and restarts it at its position. A job is dead if its driver reported a
failure, or if the triggerer or a worker sees that its process is gone. Unknown is not dead. A job with a stop request
is not restarted.

`await_death → begin_recovery → snapshot_stopped → replan → apply → submit → watch → audit`

After `recovery.tries` restarts within `recovery.within_s`, the run fails, which is the alert. No recovery follows until
a person has started the job with `maintenance__{name}`. With `schedules.recovery: "@continuous"`, the next watch begins
when one has ended.
"""

EPOCH = "{{ ti.xcom_pull(task_ids='await_death')['epoch'] }}"
OPERATION = "recovery/{{ '%08d' | format(ti.xcom_pull(task_ids='await_death')['epoch']) }}"
"""The operation belongs to the epoch that died, not to the DAG run: two runs recover from one death only once."""


def recovery_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``recovery__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``schedules.recovery`` is the
        schedule.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``; an ``on_failure_callback`` is called when the recovery gives up.
    :raises InputRefused: ``schedules.recovery`` is malformed.
    """
    schedule = {"schedule": schedule_of("schedules.recovery", pipeline.schedules.recovery), "start_date": FIRST_DAY}
    with new_dag("recovery", pipeline, DOC, retries=retries, **{**schedule, **dag}) as made:
        await_death = JobDiedSensor(task_id="await_death", pipeline=pipeline, deferrable=True)
        restart = Restart(pipeline, start="committed", operation=OPERATION)
        begin = BeginRecoveryOperator(task_id="begin_recovery", epoch=EPOCH, **restart.step)
        when_stopped = SnapshotOffsetsOperator(task_id="snapshot_stopped", moment=WHEN_STOPPED, **restart.step)
        chain(await_death, begin, when_stopped, *restarted(restart, rolls_back=False))
    return made
