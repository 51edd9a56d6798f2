"""Look-up of Airflow connections. What is missing or malformed is our own error, which Airflow does not retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.strict_json import read_json
from airflow_provider_offsets.errors import InputRefused

if TYPE_CHECKING:
    from airflow.sdk import Connection

_SECRET = ("password", "secret", "token", "jaas", "pem", "private", "key")
"""Parts of the names of values that may have any character."""


def find_connection(conn_id: str) -> Connection:
    """Return an Airflow connection.

    :raises InputRefused: there is no such connection, or it cannot be read.
    """
    with _as_input(conn_id):
        return BaseHook.get_connection(conn_id)


async def await_connection(conn_id: str) -> Connection:
    """Return an Airflow connection in a triggerer, whose own thread has to ask for it.

    :raises InputRefused: as ``find_connection``.
    """
    with _as_input(conn_id):
        return await BaseHook.aget_connection(conn_id)


def read_extra(connection: Connection) -> dict[str, Any]:
    """Return the extra of a connection.

    :raises InputRefused: it is no JSON object, has a key twice, or has a hidden character.
    """
    given: Any = connection.extra or "{}"
    try:
        extra = read_json(given, may_hide=True) if isinstance(given, str) else given
        if not isinstance(extra, dict):
            raise ValueError(f"it is a {type(extra).__name__}")
        for key, value in extra.items():
            if hidden := hidden_character(key) or (_is_shown(key, value) and hidden_character(value)):
                raise ValueError(f"{key!r} has {hidden.partition(' after ')[0]}")  # not the text, which may be a URL
    except ValueError as error:
        raise InputRefused(
            seen=f"the extra of connection {connection.conn_id!r} cannot be read: {error}",
            expected="a JSON object with each key once, and without hidden characters",
            do="correct the extra of the connection",
        ) from None
    return extra


def _is_shown(key: str, value: Any) -> bool:
    """Check whether a value is text that a message may show, and neither a secret nor a certificate."""
    return isinstance(value, str) and not any(word in key.lower() for word in _SECRET)


@contextmanager
def _as_input(conn_id: str) -> Iterator[None]:
    try:
        yield
    except (AirflowNotFoundException, AirflowRuntimeError) as error:
        if isinstance(error, AirflowRuntimeError) and error.error.error != ErrorType.CONNECTION_NOT_FOUND:
            raise
        raise InputRefused(
            seen=f"connection {conn_id!r} does not exist, or Airflow cannot read it",
            expected="an Airflow connection of this id, which the process that runs this can see",
            do="create the connection, or correct the id; 'airflow connections list' shows all connections",
        ) from error
    except (TypeError, ValueError) as error:
        raise InputRefused(
            seen=f"connection {conn_id!r} cannot be read ({type(error).__name__})",
            expected="a connection as Airflow stores it, or as JSON or a URI in its environment variable",
            do="correct the connection",
        ) from None
