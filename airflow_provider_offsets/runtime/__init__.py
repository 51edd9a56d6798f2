"""Inside the Spark driver: read from the plan, track each batch, obey a stop, hold the fence. Never imports Airflow."""

from airflow_provider_offsets.runtime.tracked_stream import TrackedStream

__all__ = ["TrackedStream"]
