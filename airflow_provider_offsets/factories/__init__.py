"""DAG factories for pipelines from ``pipelines.yaml``, or from ``StreamingPipeline`` in Python."""

from airflow_provider_offsets.factories.backfill import backfill_dag, backfill_then_live_dag
from airflow_provider_offsets.factories.maintenance import maintenance_dag
from airflow_provider_offsets.factories.pipelines import load_pipelines
from airflow_provider_offsets.factories.recovery import recovery_dag
from airflow_provider_offsets.factories.rehearsal import rehearsal_dag
from airflow_provider_offsets.factories.reprocess import reprocess_dag
from airflow_provider_offsets.factories.snapshots import snapshots_dag

__all__ = [
    "backfill_dag",
    "backfill_then_live_dag",
    "load_pipelines",
    "maintenance_dag",
    "recovery_dag",
    "rehearsal_dag",
    "reprocess_dag",
    "snapshots_dag",
]
