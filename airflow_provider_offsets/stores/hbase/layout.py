"""Cloudera row layout in HBase as bytes: keys, cells, and their valid content. No connection in here.

A key is ``<TOPIC>:<GROUP>:<13 digits>``. Topics contain no colon and the time always has 13 digits, but groups may
contain colons: rows of ``g:10`` sort among those of ``g``. So a key belongs to a group only if the whole key matches. A
scan that meets the row of a neighbour (another group) skips all rows of that neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_provider_offsets.core.limits import LAST_OFFSET, LAST_PARTITION, TIME_DIGITS
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import StoreDataError

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")
_COLUMN = re.compile(rb"offsets:(0|[1-9][0-9]{0,9})")
Cells = Mapping[bytes, bytes]


def prefix(topic: str, group_id: str) -> bytes:
    """Return the prefix of all keys of a topic and a group; groups that begin with this one and ':' have it too.

    :param topic: name of the topic.
    :param group_id: id of the consumer group.
    """
    return f"{topic}:{group_id}:".encode()


def key(row_prefix: bytes, time_ms: int) -> bytes:
    """Return the key of one row. Keys sort by time.

    :param row_prefix: from :func:`prefix`.
    :param time_ms: time of the row, in milliseconds since 1970.
    """
    return row_prefix + _digits(time_ms)


def time_of(row_prefix: bytes, row_key: bytes) -> int | None:
    """Return the time of a row, or None if the key is a neighbour's.

    :param row_prefix: from :func:`prefix`.
    :param row_key: key of the row.
    :returns: milliseconds since 1970, or None.
    """
    tail = row_key[len(row_prefix) :]
    return int(tail) if len(tail) == TIME_DIGITS and tail.isdigit() and row_key.startswith(row_prefix) else None


def check_neighbour(table: str, row_prefix: bytes, row_key: bytes) -> None:
    """Check that a key under the prefix without a time of this group can be a neighbour's.

    :param table: for the message.
    :param row_prefix: prefix of this group's keys, from :func:`prefix`.
    :param row_key: key without a time of this group.
    :raises StoreDataError: the last part of the key is no time, so no writer of the layout wrote the row.
    """
    if b":" not in row_key[len(row_prefix) :]:
        raise StoreDataError(
            seen=f"table {table!r}, row {_text(row_key)!r}",
            expected=f"a key that ends in ':' and {TIME_DIGITS} digits of milliseconds",
            do="find out who wrote the row, and move or delete it in the HBase shell",
        )


def time_before(row_prefix: bytes, neighbour: bytes) -> int:
    """Return the last time whose key sorts before a neighbour's key, and before all rows of that neighbour.

    The next time's key sorts after all of them. So a backward scan continues here, and a forward scan one millisecond
    later.

    :param row_prefix: from :func:`prefix`.
    :param neighbour: key of a row whose group id begins with this group id and ``:``.
    """
    tail = neighbour[len(row_prefix) :]
    digits = tail[: len(tail) - len(tail.lstrip(b"0123456789"))][:TIME_DIGITS]
    follower = tail[len(digits) : len(digits) + 1]
    if len(digits) == TIME_DIGITS:
        return int(digits)
    if follower > b"9":
        return int(digits.ljust(TIME_DIGITS, b"9"))
    return int(digits.ljust(TIME_DIGITS, b"0")) - 1


def cells_of(position: Position, topic: str) -> dict[bytes, bytes]:
    """Return the cells of one topic: qualifier is the partition, value the offset, both as text.

    :param position: the offsets of all topics.
    :param topic: name of the topic.
    """
    return {b"offsets:%d" % partition: b"%d" % offset for partition, offset in position.of_topic(topic).items()}


def position_of(table: str, topic: str, row_key: bytes, cells: Cells) -> Position:
    """Return the offsets in a row.

    :param table: for the message.
    :param topic: topic of the row.
    :param row_key: for the message.
    :param cells: cells of the row, by column.
    :raises StoreDataError: the row has a cell that is not in the layout.
    """
    offsets = {_partition(table, row_key, cell): _offset(table, row_key, cell, value) for cell, value in cells.items()}
    return Position({TopicPartition(topic, partition): offset for partition, offset in offsets.items()})


def _partition(table: str, row_key: bytes, column: bytes) -> int:
    found = _COLUMN.fullmatch(column)
    if found is None or int(found[1]) > LAST_PARTITION:
        raise bad_cell(
            table, row_key, column, None, "only cells 'offsets:<partition number>', because readers count the cells"
        )
    return int(found[1])


def _offset(table: str, row_key: bytes, column: bytes, value: bytes) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > LAST_OFFSET:
        raise bad_cell(table, row_key, column, value, f"an offset as decimal text, from 0 to {LAST_OFFSET}")
    return int(value)


def bad_cell(table: str, row_key: bytes, column: bytes, value: bytes | None, expected: str) -> StoreDataError:
    """Return the error that names table, row, column and value.

    :param table: name of the table.
    :param row_key: key of the row.
    :param column: family and qualifier of the cell.
    :param value: content of the cell; None if the cell itself is wrong.
    :param expected: valid content, for the message.
    """
    held = "" if value is None else f", value {_text(value)!r}"
    return StoreDataError(
        seen=f"table {table!r}, row {_text(row_key)!r}, column {_text(column)!r}{held}",
        expected=expected,
        do="find out who wrote the cell, and correct or delete it in the HBase shell",
    )


def _text(raw: bytes) -> str:
    return raw[:200].decode(errors="backslashreplace")


def _digits(time_ms: int) -> bytes:
    return b"%0*d" % (TIME_DIGITS, time_ms)
