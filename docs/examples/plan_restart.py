"""Plan a restart at another position, and let a person approve the plan. Nothing is stopped."""

from pathlib import Path

from airflow.sdk import DAG, Param

from airflow_provider_offsets import ApproveRestartOperator, PlanRestartOperator, load_pipelines

orders = load_pipelines(Path(__file__).with_name("pipelines.yaml"))["orders"]
params = {"start": Param("shift:-10", type="string"), "approve": Param(True, type="boolean")}

with DAG("plan_orders", schedule=None, params=params):
    plan = PlanRestartOperator(task_id="plan", pipeline=orders, start="{{ params.start }}")
    plan >> ApproveRestartOperator(task_id="approve", plan_task_id="plan")
