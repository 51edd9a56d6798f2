"""DAGs made from pipelines: from ``pipelines.yaml``, or from ``StreamingPipeline`` in Python."""

from airflow_provider_offsets.factories.maintenance import maintenance_dag
from airflow_provider_offsets.factories.pipelines import load_pipelines

__all__ = ["load_pipelines", "maintenance_dag"]
