"""Stop the job, if it runs, and start it where it stopped, or where a person says."""

from pathlib import Path

from airflow.sdk import DAG, Param, chain

import airflow_provider_offsets as offsets

orders = offsets.load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]

with DAG("restart_orders", schedule=None, params={"start": Param("committed", type="string")}):
    chain(
        offsets.StopStreamingJobOperator(task_id="stop", pipeline=orders),
        offsets.PlanRestartOperator(task_id="plan", pipeline=orders, start="{{ params.start }}"),
        offsets.ApplyOffsetsOperator(task_id="apply", pipeline=orders),
        offsets.SubmitStreamingJobOperator(task_id="submit", pipeline=orders),
        offsets.WatchStreamingJobOperator(task_id="watch", pipeline=orders, deferrable=True),
    )
