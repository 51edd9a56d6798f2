"""From a pipeline's connections to the world that its operations work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import BaseHook

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.kafka.java_options import spark_kafka_options
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.runtime.settings import Secrets


@contextmanager
def open_world(pipeline: StreamingPipeline, operation: str) -> Iterator[World]:
    """Give the world of one operation on a pipeline, and close its store in the end.

    The Kafka provider's own admin hook makes the client, so a connection's callbacks and cloud logins work as there.
    """
    from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook

    from airflow_provider_offsets.kafka.reader import KafkaReader

    store = OffsetsHook(pipeline.store_conn_id).get_conn()
    try:
        admin = KafkaAdminClientHook(kafka_config_id=pipeline.kafka_conn_id).get_conn
        servers = BaseHook.get_connection(pipeline.kafka_conn_id).extra_dejson.get("bootstrap.servers", "")
        yield World(pipeline, operation, store, KafkaReader(admin, bootstrap_servers=servers))
    finally:
        store.close()


def driver_secrets(pipeline: StreamingPipeline) -> Secrets:
    """Give what the driver of a pipeline needs of its connections."""
    kafka = BaseHook.get_connection(pipeline.kafka_conn_id)
    return Secrets(OffsetsHook(pipeline.store_conn_id).url, spark_kafka_options(kafka.extra_dejson))
