"""Where offsets are kept. ``open_store(url)`` gives the history and the control of a pipeline from one URL,
``open_positions(url)`` the positions that a job keeps, in whichever store.

Client libraries are imported when a store is opened and not before: a DAG file that names a store imports none.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.stores.clients import client_missing
from airflow_provider_offsets.stores.protocols import OffsetStore

if TYPE_CHECKING:
    from airflow_provider_offsets.stores.zookeeper import ZooKeeperStore

__all__ = ["open_positions", "open_store"]

_FORMS = """\
sqlite:////absolute/path.db
postgresql://user:password@host:5432/database
hbase://thrift-host:9090/table"""


def open_store(url: str) -> OffsetStore:
    """Give the store that the URL names. Nothing is created, and no connection is made before the first call.

    ``sqlite:////absolute/path.db``, ``postgresql://user:password@host:5432/database`` or
    ``hbase://thrift-host:9090/table``, with ``?transport=framed`` (or ``http``), ``protocol=compact``, ``tls=true`` and
    ``ca=/path/of/authority.pem`` where the Thrift server is set up so.

    :raises InputRefused: none of these.
    :raises StoreClientMissing: this Python lacks the store's client library.
    """
    scheme = url.partition(":")[0]
    if scheme == "hbase":
        return _hbase(url)
    if scheme in ("sqlite", "postgresql", "postgresql+psycopg"):
        return _sql(url)
    raise InputRefused(
        # What follows the scheme is not shown: it may hold a password.
        seen=f"a store URL that begins with {scheme[:40]!r}",
        expected="one of " + " · ".join(_FORMS.splitlines()),
        do="correct the URL; a store in memory is for tests and is made with MemoryStore(); ZooKeeper keeps positions"
        " only: name its connection in offsets_in",
    )


def open_positions(url: str) -> OffsetStore | ZooKeeperStore:
    """Give the store of positions that the URL names. Nothing is created, and no connection is made before the first
    call.

    ``zookeeper://user:password@host:2181,host2:2181/chroot``, or one of ``open_store``.

    :raises InputRefused: none of these.
    :raises StoreClientMissing: this Python lacks the store's client library.
    """
    return _zookeeper(url) if url.startswith("zookeeper:") else open_store(url)


def _sql(url: str) -> OffsetStore:
    try:
        from airflow_provider_offsets.stores.sql import SqlStore
    except ModuleNotFoundError as error:
        raise client_missing("SQLAlchemy>=2.0.40,<3", "SQLite and PostgreSQL") from error
    return SqlStore(url)


def _hbase(url: str) -> OffsetStore:
    parts = urllib.parse.urlsplit(url)
    table = urllib.parse.unquote(parts.path[1:])
    try:
        port = parts.port or 9090
    except ValueError:
        port = 0
    plain = not (parts.username or parts.password or parts.fragment)
    if not (parts.hostname and port and table and plain):
        raise InputRefused(
            seen=f"an HBase store URL with host {parts.hostname!r}, port {port or 'unreadable'} and table {table!r}",
            expected="hbase://thrift-host:9090/table, without user, password or fragment",
            do="correct the URL; the port is that of HBase's Thrift server",
        )
    from airflow_provider_offsets.stores.hbase import HBaseStore
    from airflow_provider_offsets.stores.hbase_transport import parse_options

    return HBaseStore(parts.hostname, port, table, parse_options(parts.query))


def _zookeeper(url: str) -> ZooKeeperStore:
    from airflow_provider_offsets.stores.zookeeper_layout import parse_url

    address = parse_url(url)
    try:
        from airflow_provider_offsets.stores.zookeeper import ZooKeeperStore
    except ModuleNotFoundError as error:
        raise client_missing("kazoo>=2.10,<3", "ZooKeeper") from error
    return ZooKeeperStore(address)
