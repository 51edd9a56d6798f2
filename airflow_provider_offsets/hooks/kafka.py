"""Clients of a Kafka cluster from an Airflow connection."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.connection import find_connection, read_extra

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.kafka.calls import Clients


_ALIASES = (("bootstrap.servers", "metadata.broker.list"), ("sasl.mechanism", "sasl.mechanisms"))
"""Names of one property in librdkafka, which takes the last one."""


def kafka_settings(connection: Connection) -> dict[str, Any]:
    """Return the properties of librdkafka in a ``kafka`` connection.

    :raises InputRefused: the extra names no brokers, or a value is no text, number or boolean.
    """
    conn_id, settings = connection.conn_id, read_extra(connection)
    if not settings.get("bootstrap.servers") and not settings.get("metadata.broker.list"):
        address = ":".join(str(each) for each in (connection.host, connection.port) if each)
        similar = difflib.get_close_matches("bootstrap.servers", settings, n=1)
        where = f"the host field {address!r}" if address else f"the key {similar[0]!r}" if similar else "neither"
        raise InputRefused(
            seen=f"Kafka connection {conn_id!r} has no 'bootstrap.servers' in its extra, and has {where}",
            expected='the brokers in the extra, because host and port are not used: {"bootstrap.servers": "host:9092"}',
            do="correct the extra of the connection",
        )
    for one, other in _ALIASES:
        if settings.get(one, settings.get(other)) != settings.get(other, settings.get(one)):
            raise InputRefused(
                seen=f"Kafka connection {conn_id!r} has {one!r} and {other!r}, two names of one property",
                expected="one of them",
                do="remove the wrong one from the extra of the connection",
            )
    for key, value in settings.items():
        if not isinstance(value, str if key in _ALIASES[0] else str | int | float):
            raise InputRefused(
                seen=f"{key!r} of Kafka connection {conn_id!r} is a {type(value).__name__}",
                expected="text, a number or a boolean; several values are one text with commas: 'one:9092,two:9092'",
                do="correct the extra of the connection",
            )
    return settings


@contextmanager
def open_kafka(kafka_conn_id: str, connection: Connection | None = None) -> Iterator[Clients]:
    """Yield the clients of a connection, and close them on exit.

    The Kafka provider's own hook reads the connection, so its callbacks and cloud logins work here too.

    :param kafka_conn_id: a ``kafka`` connection.
    :param connection: the connection itself, if it is already loaded: a triggerer may load it in its own thread only.
    :raises InputRefused: there is no such connection, or the client does not accept its properties.
    """
    from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook

    from airflow_provider_offsets.kafka.calls import open_clients

    found = find_connection(kafka_conn_id) if connection is None else connection
    kafka_settings(found)

    class SettingsHook(KafkaBaseHook):
        """Hook that returns the client settings. The provider's hooks would create a client that nobody closes."""

        @classmethod
        def get_connection(cls, conn_id: str) -> Connection:
            return found

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    hook = SettingsHook(kafka_config_id=kafka_conn_id)  # type: ignore[no-untyped-call]  # no annotation there
    try:
        settings = hook.get_conn
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise InputRefused(
            seen=f"Kafka connection {kafka_conn_id!r} cannot be used: {error}",
            expected="properties of librdkafka, and callbacks that [apache_kafka] callback_allowlist names",
            do="correct the extra of the connection, or the allowlist",
        ) from error
    with open_clients(settings) as clients:
        yield clients
