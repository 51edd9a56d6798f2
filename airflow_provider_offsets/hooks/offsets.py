"""The connection type ``offsets``: a URL that says where offsets are kept."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from airflow.sdk import BaseHook

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import InputRefused, OffsetsError
from airflow_provider_offsets.stores import open_positions, open_store

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.stores.protocols import OffsetStore


class OffsetsHook(BaseHook):
    """Opens the offset store of a connection.

    The connection's extra has ``url``: ``hbase://host:9090/table``, ``sqlite:////absolute/file.db`` or
    ``postgresql://user@host:5432/database``; of a store that keeps positions only, ``zookeeper://host:2181/chroot``. A
    password goes into the connection's password field, where Airflow masks it.

    :param conn_id: an ``offsets`` connection; empty for a SQLite file in Airflow's own folder, which is made when it
        is first opened: there an untouched job without a store of its own has its control cells.
    """

    conn_name_attr = "offsets_conn_id"
    default_conn_name = "offsets_default"
    conn_type = "offsets"
    hook_name = "Offset store"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    def get_conn(self) -> OffsetStore:
        """Give the open store. The caller closes it.

        :raises StoreError: it is unreachable, or its tables are not there.
        """
        store = open_store(self.url)
        if not self.conn_id:
            store.create()
        return store

    @property
    def url(self) -> str:
        """The store's URL, with its password: not to be logged."""
        return store_url(self.get_connection(self.conn_id)) if self.conn_id else embedded_url()

    def test_connection(self) -> tuple[bool, str]:
        """Open the store and look for its tables; the button *Test* of the connection form."""
        try:
            if self.url.startswith("zookeeper:"):
                with closing(open_positions(self.url)) as positions:
                    positions.position(Stream("connection-test", ("connection-test",)))
                return True, "ZooKeeper answers and the chroot is there."
            with closing(self.get_conn()) as store:
                next(iter(store.scan("connection-test", "")), None)
        except OffsetsError as error:
            return False, str(error)
        return True, "The store answers and its tables are there."


def embedded_url() -> str:
    """Give the URL of the store of pipelines that name none: a file in Airflow's own folder."""
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()  # as Airflow itself finds it
    return f"sqlite:///{home.resolve() / 'offsets.db'}"


def store_url(connection: Connection) -> str:
    """Give the store's URL of an ``offsets`` connection, its login and password put in where the URL has none.

    :raises InputRefused: the connection has no URL.
    """
    url: Any = connection.extra_dejson.get("url")
    if not isinstance(url, str) or not url:
        raise InputRefused(
            seen=f"connection {connection.conn_id!r} has no 'url' in its extra",
            expected="hbase://host:9090/table, sqlite:////absolute/file.db, postgresql://user@host:5432/database or"
            " zookeeper://host:2181/chroot",
            do="fill in 'Store URL' in the connection form",
        )
    parts = urlsplit(url)
    if not connection.password or parts.password:
        return url
    user, _, host = parts.netloc.rpartition("@")
    user = user or quote(connection.login or "", safe="")
    netloc = f"{user}:{quote(connection.password, safe='')}@{host}"
    return urlunsplit(parts._replace(netloc=netloc))
