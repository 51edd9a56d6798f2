"""A DAG file that makes the DAGs of each pipeline in ``pipelines.yaml``."""

from collections.abc import Callable
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from airflow_provider_offsets import (
    StreamingPipeline,
    backfill_dag,
    backfill_then_live_dag,
    load_pipelines,
    maintenance_dag,
    recovery_dag,
    rehearsal_dag,
    reprocess_dag,
    snapshots_dag,
)


def swap_in(run_id: str) -> None:
    print(f"The replay {run_id} is complete.")


def deploy() -> None:
    BashOperator(task_id="deploy", bash_command="make deploy")


FACTORIES: tuple[Callable[[StreamingPipeline], DAG], ...] = (
    recovery_dag,
    rehearsal_dag,
    reprocess_dag,
    snapshots_dag,
)


def make_dags(file: Path) -> list[DAG]:
    made = []
    for name, pipeline in load_pipelines(file).items():
        made += [factory(pipeline) for factory in FACTORIES]
        made.append(maintenance_dag(pipeline, window=deploy, retries=5, tags=[name]))
        if pipeline.tracked:
            made.append(backfill_dag(pipeline, after_audit=swap_in, max_active_runs=1))
            made.append(backfill_then_live_dag(pipeline))
    return made


for dag in make_dags(Path(__file__).parents[2] / "dags" / "pipelines.yaml"):
    globals()[dag.dag_id] = dag
