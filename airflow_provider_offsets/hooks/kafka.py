"""Clients of a Kafka cluster from an Airflow connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.kafka.calls import Clients


@contextmanager
def open_kafka(kafka_conn_id: str, connection: Connection | None = None) -> Iterator[Clients]:
    """Yield the clients of a connection, and close them on exit.

    The Kafka provider's own hook reads the connection, so its callbacks and cloud logins work here too.

    :param kafka_conn_id: a ``kafka`` connection.
    :param connection: the connection itself, if it is already loaded: a triggerer may load it in its own thread only.
    """
    from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

    from airflow_provider_offsets.kafka.calls import open_clients

    class SettingsHook(KafkaBaseHook):
        """Hook that returns the client settings. The provider's hooks would create a client that nobody closes."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return super().get_connection(conn_id) if connection is None else connection

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    hook = SettingsHook(kafka_config_id=kafka_conn_id)  # type: ignore[no-untyped-call]  # no annotation there
    with open_clients(hook.get_conn) as clients:
        yield clients
