"""From a Kafka connection to the clients of its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.kafka.calls import Clients


@contextmanager
def open_kafka(kafka_conn_id: str, connection: Connection | None = None) -> Iterator[Clients]:
    """Give the clients of a connection, and close them in the end.

    The Kafka provider's own hook reads the connection, so its callbacks and cloud logins work as there.

    :param connection: that connection, where it was asked for already: a triggerer may do so in its own thread only.
    """
    from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

    from airflow_provider_offsets.kafka.calls import open_clients

    class SettingsHook(KafkaBaseHook):
        """Gives the settings themselves: the provider's hooks make one client of them, which nobody closes."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return super().get_connection(conn_id) if connection is None else connection

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    hook = SettingsHook(kafka_config_id=kafka_conn_id)  # type: ignore[no-untyped-call]  # no annotation there
    with open_clients(hook.get_conn) as clients:
        yield clients
