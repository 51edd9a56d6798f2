"""Store the position of the job under a name, for example before a deploy."""

from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_provider_offsets import SnapshotOffsetsOperator, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("snapshot_orders", schedule=None, params={"label": Param("before-2.1", type="string")}):
    SnapshotOffsetsOperator(task_id="snapshot", pipeline=orders, snapshot_label="{{ params.label }}")
