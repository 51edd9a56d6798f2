"""The Airflow connection type ``offsets``: the URL of an offset store."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from airflow.sdk import BaseHook

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import InputRefused, OffsetsError
from airflow_provider_offsets.hooks.connection import find_connection, read_extra
from airflow_provider_offsets.stores import open_positions, open_store

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.stores.protocols import OffsetStore


class OffsetsHook(BaseHook):
    """Hook that opens the offset store of a connection.

    The connection's extra has ``url``: ``hbase://host:9090/table``, ``sqlite:////absolute/file.db`` or
    ``postgresql://user@host:5432/database``. A store that keeps positions only has ``zookeeper://host:2181/chroot``. A
    password belongs in the connection's password field, where Airflow masks it.

    :param offsets_conn_id: an ``offsets`` connection. If empty, the hook opens a SQLite file in ``AIRFLOW_HOME``, which
        it creates on first use. That file holds the control records of an untracked job without a store of its own.
    """

    conn_name_attr = "offsets_conn_id"
    default_conn_name = "offsets_default"
    conn_type = "offsets"
    hook_name = "Offset store"

    def __init__(self, offsets_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = offsets_conn_id  # Airflow passes it under the name in ``conn_name_attr``

    def get_conn(self) -> OffsetStore:
        """Return the open store. The caller closes it.

        :raises StoreError: the store is unreachable, or its tables do not exist.
        """
        store = open_store(self.url)
        if not self.conn_id:
            store.create()
        return store

    @property
    def url(self) -> str:
        """URL of the store, with its password: do not log it."""
        return store_url(find_connection(self.conn_id)) if self.conn_id else embedded_url()

    def test_connection(self) -> tuple[bool, str]:
        """Open the store and check that its tables exist, for the *Test* button of the connection form."""
        try:
            if self.url.startswith("zookeeper:"):
                with closing(open_positions(self.url)) as positions:
                    positions.position(Stream("connection-test", ("connection-test",)))
                return True, "ZooKeeper responds, and the chroot exists."
            with closing(self.get_conn()) as store:
                next(iter(store.scan("connection-test", "")), None)
        except OffsetsError as error:
            return False, str(error)
        except Exception as error:  # the page shows what this returns, and nothing of an error
            return False, f"The store of {self.conn_id!r} was opened, and failed: {type(error).__name__}: {error}"
        return True, "The store responds, and its tables exist."


def embedded_url() -> str:
    """Return the store URL of pipelines without a store connection: a SQLite file in ``AIRFLOW_HOME``."""
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()  # as Airflow itself resolves it
    return f"sqlite:///{home.resolve() / 'offsets.db'}"


def store_url(connection: Connection) -> str:
    """Return the store URL of an ``offsets`` connection, with the connection's login and password if the URL has none.

    :raises InputRefused: the connection has no URL, or its extra has another key.
    """
    extra = read_extra(connection)
    url: Any = extra.get("url")
    if not isinstance(url, str) or not url:
        raise InputRefused(
            seen=f"connection {connection.conn_id!r} has no 'url' in its extra",
            expected="hbase://host:9090/table, sqlite:////absolute/file.db, postgresql://user@host:5432/database or"
            " zookeeper://host:2181/chroot",
            do="fill in 'Store URL' in the connection form",
        )
    if unknown := sorted(set(extra) - {"url"}):
        raise InputRefused(
            seen=f"the extra of connection {connection.conn_id!r} has {unknown[0]!r}",
            expected="only 'url'; user and password are fields of the connection",
            do="remove it, or correct its spelling",
        )
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputRefused(
            seen=f"the URL of connection {connection.conn_id!r} cannot be read: {error}",
            expected="a URL such as hbase://host:9090/table",
            do="correct the URL; an address of IPv6 has its ']' before the port",
        ) from None  # the URL may have a password
    user, at, host = parts.netloc.rpartition("@")
    is_login_alone = bool(connection.login) and not connection.password and url.startswith("postgresql")
    if parts.password or not (connection.password or (is_login_alone and not at)):
        return url
    user = user or quote(connection.login or "", safe="")
    secret = f":{quote(connection.password, safe='')}" if connection.password else ""
    netloc = f"{user}{secret}@{host}"
    return urlunsplit(parts._replace(netloc=netloc))
