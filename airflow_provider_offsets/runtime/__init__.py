"""Code that runs inside the Spark driver: read the planned offsets, track each batch, obey stop requests and fencing.

This package never imports Airflow.
"""

from airflow_provider_offsets.runtime.tracked_stream import TrackedStream

__all__ = ["TrackedStream"]
