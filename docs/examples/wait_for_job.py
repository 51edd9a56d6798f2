"""Start a report once the job has processed every record that is in the topic now."""

from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

from airflow_provider_offsets import OffsetsReachedSensor, StreamingJobSensor, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("report_orders", schedule="@daily", catchup=False):
    chain(
        StreamingJobSensor(task_id="is_running", pipeline=orders, state="running", deferrable=True),
        OffsetsReachedSensor(task_id="has_caught_up", pipeline=orders, offsets="end", deferrable=True),
        BashOperator(task_id="report", bash_command="report-orders"),
    )
