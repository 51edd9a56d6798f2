"""Airflow sensors that wait for a job or for offsets."""

from airflow_provider_offsets.sensors.job_died import JobDiedSensor
from airflow_provider_offsets.sensors.offsets_reached import OffsetsReachedSensor
from airflow_provider_offsets.sensors.retention_runway import RetentionRunwaySensor
from airflow_provider_offsets.sensors.streaming_job import StreamingJobSensor

__all__ = ["JobDiedSensor", "OffsetsReachedSensor", "RetentionRunwaySensor", "StreamingJobSensor"]
