"""What an operation on a pipeline needs, made from the pipeline's Airflow connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.connection import find_connection
from airflow_provider_offsets.hooks.kafka import kafka_settings, open_kafka
from airflow_provider_offsets.hooks.offsets import OffsetsHook, store_url
from airflow_provider_offsets.hooks.positions import open_kept
from airflow_provider_offsets.hooks.spark import SparkJobHook
from airflow_provider_offsets.kafka.java_options import spark_kafka_options
from airflow_provider_offsets.operations.preflight import Probes
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


def make_launcher(pipeline: StreamingPipeline, executor: str | None = None) -> Launcher:
    """Return the launcher of a pipeline's job, after checking that the job can be launched.

    :param pipeline: the pipeline.
    :param executor: the executor that the task names; None for Airflow's default.
    :raises ModeUnsupported: the job cannot be submitted in its mode.
    :raises InputRefused: a file for the submit does not exist, or a connection lacks a value.
    """
    spark, secrets = SparkJobHook(pipeline), driver_secrets(pipeline)
    spark.check(secrets.store_url, executor)
    return Launcher(spark.command, secrets, spark.resource_manager)


def preflight_probes(pipeline: StreamingPipeline, executor: str | None = None) -> Probes:
    """Return what a preflight of a pipeline asks outside of its session.

    :param pipeline: the pipeline.
    :param executor: as for :func:`make_launcher`.
    :raises InputRefused: a connection does not exist, or lacks a value.
    """
    spark, secrets = SparkJobHook(pipeline), driver_secrets(pipeline)
    return Probes(
        check_mode=lambda: spark.check(secrets.store_url, executor),
        driver_command=spark.preflight_command,
        store_url=secrets.store_url,
        read_ledger=ledger_reader(pipeline),
    )


def driver_secrets(pipeline: StreamingPipeline) -> Secrets:
    """Return the connection values that the driver of a pipeline needs."""
    options = spark_kafka_options(kafka_settings(find_connection(pipeline.kafka_conn_id)))
    if pipeline.read_committed:
        options["kafka.isolation.level"] = "read_committed"
    return Secrets(OffsetsHook(pipeline.store_conn_id).url, options)


def ledger_reader(pipeline: StreamingPipeline) -> Callable[[Sink], Ledger]:
    """Return the function that reads the metadata of a pipeline's sink."""

    def read(sink: Sink) -> Ledger:
        from airflow_provider_offsets.ledgers import read_ledger

        return read_ledger(sink, sink_url(pipeline))

    return read


def sink_url(pipeline: StreamingPipeline) -> str:
    """Return the SQLAlchemy URL of the database of a pipeline's batch table, or an empty text for any other sink.

    :raises InputRefused: the connection is of a type whose URL is not known.
    """
    if pipeline.sink is None or not pipeline.sink.conn_id:
        return ""
    connection = find_connection(pipeline.sink.conn_id)
    if connection.conn_type == "offsets":
        return store_url(connection)
    if connection.conn_type == "sqlite":
        if not (connection.host or "").startswith("/"):
            raise InputRefused(
                seen=f"connection {connection.conn_id!r} names the file {connection.host!r}",
                expected="the whole path of a SQLite file, which does not depend on the working directory",
                do="correct the host of the connection",
            )
        return f"sqlite:///{connection.host}"
    if connection.conn_type in ("postgres", "postgresql"):
        import sqlalchemy as sa

        url = sa.URL.create(
            "postgresql",
            connection.login,
            connection.password,
            connection.host,
            connection.port,
            connection.schema,
        )
        return url.render_as_string(hide_password=False)
    raise InputRefused(
        seen=f"connection {connection.conn_id!r} has the type {connection.conn_type!r}",
        expected="postgres, sqlite, or offsets with a URL of SQLite or PostgreSQL",
        do="correct 'sink.conn_id' of the pipeline",
    )
