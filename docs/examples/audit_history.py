"""Prove every night that the history has no gap. A failed run is the alert."""

from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_offsets import AuditOffsetsOperator, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("audit_orders", schedule="0 3 * * *", catchup=False):
    AuditOffsetsOperator(task_id="audit", pipeline=orders)
