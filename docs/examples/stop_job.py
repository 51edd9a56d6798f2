"""Stop the job between two batches, and store the position of the stopped job."""

from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_offsets import SnapshotOffsetsOperator, StopStreamingJobOperator, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("stop_orders", schedule=None):
    stop = StopStreamingJobOperator(task_id="stop", pipeline=orders, deferrable=True)
    stop >> SnapshotOffsetsOperator(task_id="snapshot_stopped", pipeline=orders, moment="stopped")
