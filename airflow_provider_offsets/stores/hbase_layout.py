"""The deck's rows in HBase as bytes: keys, cells, and what may stand in them. No connection in here.

A key is ``<TOPIC>:<GROUP>:<13 digits>``. Topics hold no colon and the time is always 13 digits, but groups may hold
colons: rows of ``g:10`` sort among those of ``g``. So a key belongs to a group if the whole of it matches, and a scan
that meets a neighbour's row jumps over all rows of that neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores.rules import LAST_OFFSET

LAST_PARTITION = 2**31 - 1
"""The greatest number of a partition that Kafka can have."""

_DIGITS = 13
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")
_COLUMN = re.compile(rb"offsets:(0|[1-9][0-9]{0,9})")
Cells = Mapping[bytes, bytes]


def prefix(topic: str, group_id: str) -> bytes:
    """Return what all keys of a topic and a group begin with; so do keys of groups that begin with this one and ':'."""
    return f"{topic}:{group_id}:".encode()


def key(row_prefix: bytes, time_ms: int) -> bytes:
    """Return the key of one row. Keys sort as their times do."""
    return row_prefix + _digits(time_ms)


def time_of(row_prefix: bytes, row_key: bytes) -> int | None:
    """Return the time of a row, or None if the key is a neighbour's."""
    tail = row_key[len(row_prefix) :]
    return int(tail) if len(tail) == _DIGITS and tail.isdigit() and row_key.startswith(row_prefix) else None


def check_neighbour(table: str, row_prefix: bytes, row_key: bytes) -> None:
    """Return if a key under the prefix that has no time of ours can be a neighbour's.

    :raises StoreDataError: its last part is no time, and it is no other group's either: no writer of the layout's.
    """
    if b":" not in row_key[len(row_prefix) :]:
        raise StoreDataError(
            seen=f"table {table!r}, row {_text(row_key)!r}",
            expected=f"a key that ends in ':' and {_DIGITS} digits of milliseconds",
            do="find out who wrote the row; move or delete it in the HBase shell",
        )


def time_before(row_prefix: bytes, neighbour: bytes) -> int:
    """Return the last time whose key would sort before a neighbour's, and before all rows of that neighbour.

    The next time's key sorts behind all of them: so a scan backwards goes on here, and one forwards at one more.
    """
    tail = neighbour[len(row_prefix) :]
    digits = tail[: len(tail) - len(tail.lstrip(b"0123456789"))][:_DIGITS]
    follower = tail[len(digits) : len(digits) + 1]
    if len(digits) == _DIGITS:
        return int(digits)
    if follower > b"9":
        return int(digits.ljust(_DIGITS, b"9"))
    return int(digits.ljust(_DIGITS, b"0")) - 1


def cells_of(position: Position, topic: str) -> dict[bytes, bytes]:
    """Return the deck's cells of one topic: qualifier is the partition, value the offset, both as text."""
    return {b"offsets:%d" % partition: b"%d" % offset for partition, offset in position.of_topic(topic).items()}


def position_of(table: str, topic: str, row_key: bytes, cells: Cells) -> Position:
    """Return the offsets of a deck row.

    :raises StoreDataError: a cell that the deck's layout does not have.
    """
    offsets = {_partition(table, row_key, cell): _offset(table, row_key, cell, value) for cell, value in cells.items()}
    return Position({TopicPartition(topic, partition): offset for partition, offset in offsets.items()})


def _partition(table: str, row_key: bytes, column: bytes) -> int:
    found = _COLUMN.fullmatch(column)
    if found is None or int(found[1]) > LAST_PARTITION:
        raise bad_cell(table, row_key, column, None, "only cells 'offsets:<partition number>': readers count them")
    return int(found[1])


def _offset(table: str, row_key: bytes, column: bytes, value: bytes) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > LAST_OFFSET:
        raise bad_cell(table, row_key, column, value, f"an offset as decimal text, from 0 to {LAST_OFFSET}")
    return int(value)


def bad_cell(table: str, row_key: bytes, column: bytes, value: bytes | None, expected: str) -> StoreDataError:
    """Return the error that names table, row, column and value."""
    held = "" if value is None else f", value {_text(value)!r}"
    return StoreDataError(
        seen=f"table {table!r}, row {_text(row_key)!r}, column {_text(column)!r}{held}",
        expected=expected,
        do="find out who wrote the cell; mend or delete it in the HBase shell",
    )


def _text(raw: bytes) -> str:
    return raw[:200].decode(errors="backslashreplace")


def _digits(time_ms: int) -> bytes:
    return b"%0*d" % (_DIGITS, time_ms)
