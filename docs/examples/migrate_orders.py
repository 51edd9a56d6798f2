"""Migrate the schema of the sink while the job is stopped, once the job has caught up."""

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param, chain

import airflow_provider_offsets as offsets

orders = offsets.load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]
params = {"reason": Param("schema 2.1", type="string"), "approve": Param(False, type="boolean")}

with DAG("migrate_orders", schedule=None, max_active_runs=1, params=params, default_args={"retries": 2}):
    chain(
        offsets.OffsetsReachedSensor(task_id="has_caught_up", pipeline=orders, deferrable=True),
        offsets.PreflightOperator(task_id="preflight", pipeline=orders),
        offsets.SnapshotOffsetsOperator(task_id="snapshot_before", pipeline=orders, moment="before"),
        offsets.PlanRestartOperator(task_id="plan", pipeline=orders),
        offsets.ApproveRestartOperator(task_id="approve", plan_task_id="plan"),
        offsets.StopStreamingJobOperator(task_id="stop", pipeline=orders),
        BashOperator(task_id="migrate_schema", bash_command="alembic upgrade head"),
        offsets.PlanRestartOperator(task_id="replan", pipeline=orders),
        offsets.ApplyOffsetsOperator(task_id="apply", pipeline=orders),
        offsets.SubmitStreamingJobOperator(task_id="submit", pipeline=orders),
        offsets.WatchStreamingJobOperator(task_id="watch", pipeline=orders, deferrable=True),
        offsets.AuditOffsetsOperator(task_id="audit", pipeline=orders),
    )
