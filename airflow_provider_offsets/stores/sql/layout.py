"""SQL tables of an offset store, and the conversion of batches to rows. No connection in here."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores import rules

METADATA = sa.MetaData()
# Byte order on PostgreSQL too, whose default depends on the database's language.
_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _table_of_batches(name: str) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        sa.Column("group_id", _NAME, primary_key=True),
        sa.Column("row_time_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        # Pipelines on different topics of one group choose row times independently.
        sa.Column("topics", _NAME, primary_key=True, comment="sorted, with commas between them"),
        sa.Column("query_id", sa.Text),
        sa.Column("batch_id", sa.BigInteger),
        sa.Column("batch_time_ms", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger),
        sa.Column("start_offsets", sa.Text, comment="Spark's JSON; null where the start is not known"),
        sa.Column("end_offsets", sa.Text, nullable=False),
    )


BATCHES = _table_of_batches("offsets_batches")
"""The history."""
PREPARED = _table_of_batches("offsets_prepared")
"""Facts of batches that are not in the history: they are about to start, have started, or were interrupted."""
CONTROL = sa.Table(
    "offsets_control",
    METADATA,
    sa.Column("pipeline", _NAME, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def topics_of(batch: Batch) -> str:
    """Return the topics of a batch in the form of the column."""
    return ",".join(batch.end.topics)


def row_of(stream: Stream, batch: Batch) -> dict[str, Any]:
    """Return the row of a batch that has its row time.

    :param stream: group of the row.
    :param batch: the batch, with its row time.
    """
    return {
        "group_id": stream.group_id,
        "row_time_ms": batch.row_time_ms,
        "topics": topics_of(batch),
        "query_id": batch.query_id,
        "batch_id": batch.batch_id,
        "batch_time_ms": batch.batch_time_ms,
        "epoch": batch.epoch,
        "start_offsets": None if batch.start is None else batch.start.to_json(),
        "end_offsets": batch.end.to_json(),
    }


def batch_of(table: sa.Table, row: sa.Row[Any]) -> Batch:
    """Return the batch of a row of ``table``.

    :param table: the table that the row was read from.
    :param row: a row with all columns of the table.
    :raises StoreDataError: the offsets cannot be read.
    """
    return Batch(
        end=_position(table, row, "end_offsets"),
        batch_time_ms=row.batch_time_ms,
        batch_id=row.batch_id,
        query_id=row.query_id,
        epoch=row.epoch,
        start=None if row.start_offsets is None else _position(table, row, "start_offsets"),
        row_time_ms=row.row_time_ms,
    )


def _position(table: sa.Table, row: sa.Row[Any], column: str) -> Position:
    text = row._mapping[column]
    try:
        position = Position.from_json(text)
        if beyond := rules.too_great(position):
            raise ValueError(f"{beyond[0]} is at more than {LAST_OFFSET}")
        return position
    except ValueError as error:
        raise StoreDataError(
            seen=f"table {table.name!r}, row {row.group_id!r} {row.row_time_ms}, column {column!r}: {text!r} ({error})",
            expected='offsets as Spark writes them, such as {"flights":{"0":123}}',
            do="find out who changed the row; correct or delete it by hand",
        ) from error
