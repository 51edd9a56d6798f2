"""What an operation on a pipeline needs, made from the pipeline's Airflow connections."""

from __future__ import annotations

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.hooks.session import driver_secrets
from airflow_provider_offsets.hooks.spark import SparkJobHook
from airflow_provider_offsets.operations.submitting import Launcher


def make_launcher(pipeline: StreamingPipeline) -> Launcher:
    """Return the launcher of a pipeline's job, after checking that the job can be launched.

    :raises ModeUnsupported: the job cannot be submitted in its mode.
    :raises InputRefused: a file for the submit does not exist, or a connection lacks a value.
    """
    spark, secrets = SparkJobHook(pipeline), driver_secrets(pipeline)
    spark.check(secrets.store_url)
    return Launcher(spark.command, secrets, spark.resource_manager)
