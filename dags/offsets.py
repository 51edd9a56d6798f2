"""The DAGs of each pipeline in ``pipelines.yaml``."""

from pathlib import Path

from airflow_provider_offsets import (
    backfill_dag,
    backfill_then_live_dag,
    load_pipelines,
    maintenance_dag,
    recovery_dag,
    rehearsal_dag,
    reprocess_dag,
    snapshots_dag,
)

for pipeline in load_pipelines(Path(__file__).with_name("pipelines.yaml")).values():
    for make in (maintenance_dag, reprocess_dag, recovery_dag, rehearsal_dag, snapshots_dag):
        dag = make(pipeline, retries=5)  # two to three minutes: enough for a restart of Kafka, HBase or Spark
        globals()[dag.dag_id] = dag
    for make in (backfill_dag, backfill_then_live_dag) if pipeline.tracked else ():
        dag = make(pipeline)
        globals()[dag.dag_id] = dag
