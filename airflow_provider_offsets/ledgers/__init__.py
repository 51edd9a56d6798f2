"""Readers of what a sink says about itself: the log of a table format, of Spark's file sinks, or a batch table.

Each reader reads metadata only; of a table next to a batch table, it counts the rows. No reader writes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.ledgers import batch_table, delta, files, iceberg

_READERS: dict[SinkFormat, Callable[[str], Ledger]] = {
    SinkFormat.DELTA: delta.read,
    SinkFormat.ICEBERG: iceberg.read,
    SinkFormat.FILES: files.read,
}


def read_ledger(sink: Sink, url: str | None = None) -> Ledger:
    """Read which batches the metadata of a sink names, and which rows were removed after that.

    :param sink: the sink of a pipeline.
    :param url: SQLAlchemy URL of the database of a batch table; other formats have none.
    :returns: the ledger, in the order of the writes.
    :raises LedgerUnreadable: the metadata cannot be read, such as that of a folder that is no Delta table.
    :raises InputRefused: a batch table has no URL, or the location contains a password.
    """
    if sink.format is not SinkFormat.BATCH_TABLE:
        _require_no_password(sink.location)
        return _READERS[sink.format](sink.location)
    if not url:
        raise InputRefused(
            seen=f"the database of batch table {sink.batch_table!r} has no URL",
            expected=f"a connection {sink.conn_id!r} to a database that SQLAlchemy opens",
            do="correct that connection",
        )
    return batch_table.read(url, sink.batch_table, sink.table)


def _require_no_password(location: str) -> None:
    """Check that messages may quote a location.

    :raises InputRefused: it contains a password.
    """
    parts = urlsplit(location)
    if parts.password is not None:
        raise InputRefused(
            seen=f"the location of the sink, {parts.scheme}://…, contains a password",
            expected="the plain URL of a folder",
            do="pass credentials in the environment of the library of that file system",
        )
