"""Check every hour that the job could be started again, while it runs."""

from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_offsets import PreflightOperator, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("check_orders", schedule="@hourly", catchup=False):
    PreflightOperator(task_id="preflight", pipeline=orders)
