"""The content of HBase, read with happybase alone: rows in Cloudera's row layout, and no other cell."""

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from urllib.parse import urlsplit

from demo import PIPELINE, TOPIC

_KEY = re.compile(rb"[^:]+:.+:[0-9]{13}", re.DOTALL)
_CELL = re.compile(rb"offsets:[0-9]+")
_VALUE = re.compile(rb"[0-9]+")
OURS = f"{TOPIC}:{PIPELINE}:".encode()

Row = tuple[bytes, Mapping[bytes, bytes]]


def read_rows(url: str) -> list[Row]:
    """Return all rows of the store's offsets table in key order, with all cells of all families."""
    import happybase

    parts = urlsplit(url)
    with closing(happybase.Connection(parts.hostname, parts.port or 9090)) as connection:
        return list(connection.table(parts.path[1:]).scan())


def foreign(rows: Iterable[Row]) -> list[str]:
    """Return what differs from Cloudera's row layout.

    Keys are ``<topic>:<group>:<13 digits>``, cells are ``offsets:<partition>``, and values are text.
    """
    found = []
    for key, cells in rows:
        if not _KEY.fullmatch(key):
            found.append(f"row {key!r}")
        found += [
            f"row {key!r}, cell {cell!r} = {value!r}"
            for cell, value in cells.items()
            if not (_CELL.fullmatch(cell) and _VALUE.fullmatch(value))
        ]
    return found


def of_demo(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the demo's topic and group, the newest last."""
    return [(key, cells) for key, cells in rows if re.fullmatch(re.escape(OURS) + rb"[0-9]{13}", key)]


def offsets(row: Row) -> dict[int, int]:
    """Return the offsets of a row in Cloudera's row layout, by partition."""
    return {int(cell.removeprefix(b"offsets:")): int(value) for cell, value in row[1].items()}
