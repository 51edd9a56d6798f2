"""Parts of Airflow that differ between the versions on which the unit tests run."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS, AIRFLOW_V_3_3_PLUS

if AIRFLOW_V_3_2_PLUS:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization
else:
    from airflow.models.dagbag import DagBag
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

__all__ = ["DagSerialization", "dag_bag", "no_object"]


def dag_bag(location: Path) -> DagBag:
    """Return the DAGs of a file or folder. Airflow before 3.3 adds its examples, if it is not told otherwise."""
    return DagBag(str(location), **({} if AIRFLOW_V_3_3_PLUS else {"include_examples": False}))


def no_object(words: str) -> str:
    """Return what is said of a connection whose extra is no JSON object. Airflow 3.1 itself takes it for missing."""
    return words if AIRFLOW_V_3_2_PLUS else "does not exist"
