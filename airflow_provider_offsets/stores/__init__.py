"""Stores of offsets, opened from a URL.

``open_store(url)`` opens a store of history and control records, ``open_positions(url)`` a store of the positions that
a job keeps. Client libraries are imported when a store is opened: a DAG file that names a store imports none.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.stores.clients import client_missing
from airflow_provider_offsets.stores.protocols import OffsetStore

if TYPE_CHECKING:
    from airflow_provider_offsets.stores.zookeeper.store import ZooKeeperStore

__all__ = ["open_positions", "open_store"]

_FORMS = """\
sqlite:////absolute/path.db
postgresql://user:password@host:5432/database
hbase://thrift-host:9090/table"""


def open_store(url: str) -> OffsetStore:
    """Return the store at the URL. Nothing is created, and no connection is opened before the first call.

    Forms of the URL: ``sqlite:////absolute/path.db``, ``postgresql://user:password@host:5432/database`` and
    ``hbase://thrift-host:9090/table``. Options for HBase's Thrift server: ``?transport=framed`` (or ``http``),
    ``protocol=compact``, ``tls=true`` and ``ca=/path/of/authority.pem``.

    :raises InputRefused: the URL has another form.
    :raises StoreClientMissing: this Python lacks the store's client library.
    """
    scheme = url.partition(":")[0]
    if scheme == "hbase":
        return _hbase(url)
    if scheme in ("sqlite", "postgresql", "postgresql+psycopg"):
        return _sql(url)
    raise InputRefused(
        # The rest of the URL is not shown: it may hold a password.
        seen=f"the store URL begins with {scheme[:40]!r}",
        expected="one of " + " · ".join(_FORMS.splitlines()),
        do="correct the URL; a store in memory is for tests and is made with MemoryStore(); ZooKeeper keeps positions"
        " only: name its connection in offsets_in",
    )


def open_positions(url: str) -> OffsetStore | ZooKeeperStore:
    """Return the position store at the URL. Nothing is created, and no connection is opened before the first call.

    Forms of the URL: ``zookeeper://user:password@host:2181,host2:2181/chroot``, and those of ``open_store``.

    :raises InputRefused: the URL has another form.
    :raises StoreClientMissing: this Python lacks the store's client library.
    """
    return _zookeeper(url) if url.startswith("zookeeper:") else open_store(url)


def _sql(url: str) -> OffsetStore:
    try:
        from airflow_provider_offsets.stores.sql.store import SqlStore
    except ModuleNotFoundError as error:
        raise client_missing("SQLAlchemy>=2.0.40,<3", "SQLite and PostgreSQL") from error
    return SqlStore(url)


def _hbase(url: str) -> OffsetStore:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # such as a '[' of IPv6 without its ']'
        parts = urllib.parse.urlsplit("")
    table = urllib.parse.unquote(parts.path[1:])
    try:
        port = 9090 if parts.port is None else parts.port
    except ValueError:
        port = 0
    plain = not (parts.username or parts.password or parts.fragment)
    if not (parts.hostname and port and table and plain):
        raise InputRefused(
            seen=f"an HBase store URL with host {parts.hostname!r}, port {port or 'unreadable'} and table {table!r}",
            expected="hbase://thrift-host:9090/table, without user, password or fragment",
            do="correct the URL; the port is that of HBase's Thrift server",
        )
    from airflow_provider_offsets.stores.hbase.store import HBaseStore
    from airflow_provider_offsets.stores.hbase.transport import parse_options

    return HBaseStore(parts.hostname, port, table, parse_options(parts.query))


def _zookeeper(url: str) -> ZooKeeperStore:
    from airflow_provider_offsets.stores.zookeeper.layout import parse_url

    address = parse_url(url)
    try:
        from airflow_provider_offsets.stores.zookeeper.store import ZooKeeperStore
    except ModuleNotFoundError as error:
        raise client_missing("kazoo>=2.10,<3", "ZooKeeper") from error
    return ZooKeeperStore(address)
