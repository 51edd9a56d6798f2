"""What an operation on a pipeline needs, made from the pipeline's Airflow connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import BaseHook

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.hooks.kafka import open_kafka
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.hooks.positions import open_kept
from airflow_provider_offsets.hooks.spark import SparkJobHook
from airflow_provider_offsets.kafka.java_options import spark_kafka_options
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher
from airflow_provider_offsets.runtime.settings import Secrets


@contextmanager
def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
    """Yield the session of one operation on a pipeline, and close its stores and its Kafka clients on exit.

    :param pipeline: names the connections of its stores and of Kafka.
    :param operation: id of the operation.
    """
    from airflow_provider_offsets.kafka.reader import KafkaReader

    store = OffsetsHook(pipeline.store_conn_id).get_conn()
    try:
        with open_kafka(pipeline.kafka_conn_id) as clients, open_kept(pipeline) as kept_in:
            yield Session(pipeline, operation, store, KafkaReader(clients), kept_in)
    finally:
        store.close()


def make_launcher(pipeline: StreamingPipeline) -> Launcher:
    """Return the launcher of a pipeline's job, after checking that the job can be launched.

    :raises ModeUnsupported: the job cannot be submitted in its mode.
    :raises InputRefused: a file for the submit does not exist, or a connection lacks a value.
    """
    spark, secrets = SparkJobHook(pipeline), driver_secrets(pipeline)
    spark.check(secrets.store_url)
    return Launcher(spark.command, secrets, spark.resource_manager)


def driver_secrets(pipeline: StreamingPipeline) -> Secrets:
    """Return the connection values that the driver of a pipeline needs."""
    kafka = BaseHook.get_connection(pipeline.kafka_conn_id)
    options = spark_kafka_options(kafka.extra_dejson)
    if pipeline.read_committed:
        options["kafka.isolation.level"] = "read_committed"
    return Secrets(OffsetsHook(pipeline.store_conn_id).url, options)
