"""Parts of Airflow that differ between the versions on which the unit tests run."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS

if AIRFLOW_V_3_2_PLUS:
    from airflow.serialization.serialized_objects import DagSerialization
else:
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

__all__ = ["DagSerialization", "no_object"]


def no_object(words: str) -> str:
    """Return what is said of a connection whose extra is no JSON object. Airflow 3.1 itself takes it for missing."""
    return words if AIRFLOW_V_3_2_PLUS else "does not exist"
