"""One maintenance DAG for each pipeline of ``pipelines.yaml``."""

from pathlib import Path

from airflow_provider_offsets.factories import load_pipelines, maintenance_dag

for pipeline in load_pipelines(Path(__file__).with_name("pipelines.yaml")).values():
    dag = maintenance_dag(pipeline)
    globals()[dag.dag_id] = dag
