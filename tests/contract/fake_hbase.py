"""A fake HBase in memory, behind the few Thrift calls that the store makes: a test can count and break each of them.

The store's contract runs on the fake (``tests/unit/stores/test_hbase.py``) and on a real HBase
(``tests/integration/stores/test_hbase.py``), so both behave the same.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable
from typing import Any

from airflow_provider_offsets.stores.hbase.store import HBaseStore

Cells = dict[bytes, bytes]
WRITTEN_MS = 1_760_000_000_000
"""Time stamp of every cell."""


class FakeHBase:
    """Tables that outlive their connections. Calls run one at a time, and each call is atomic."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """The names of the calls that changed or read rows, as Thrift has them."""
        self.around: Callable[[str, Callable[[], Any]], Any] = lambda name, call: call()
        """Executes a call. A test may make it raise before or after the call, as a broken connection does."""
        self.connections = 0
        self.time_to_live_s: dict[str, int] = {}
        """The time to live of tables whose rows expire, as Thrift reports it. The fake itself deletes no row."""
        self._lock = threading.RLock()
        self._tables: dict[bytes, _Table] = {}

    def store(self, table: str = "stream_offsets") -> HBaseStore:
        """Return a store with its own connection, whose tables exist."""
        made = HBaseStore("fake", 9090, table, self)  # type: ignore[arg-type]
        made.create()
        return made

    @property
    def query(self) -> str:
        """The query part of a store's URL: the transport settings."""
        return ""

    def connect(self, host: str, port: int, *, timeout_s: float) -> _Connection:
        """Return a connection."""
        self.connections += 1
        return _Connection(self)

    def rows(self, table: str) -> dict[bytes, Cells]:
        """Return all rows of a table."""
        return self._tables[table.encode()].rows

    def do(self, name: str, call: Callable[[], Any]) -> Any:
        """Do one call."""
        with self._lock:
            self.calls.append(name)
            return self.around(name, call)

    def check_and_put(self, table: bytes, key: bytes, column: bytes, expected: bytes | None, value: bytes) -> bool:
        """Set a cell if it holds the expected value. HBase treats an empty value as a missing cell."""
        there = self._tables[table].rows.get(key, {}).get(column)
        if (there or None) != (expected or None):
            return False
        self._tables[table].put(key, {column: value})
        return True


class _Table:
    def __init__(self, family: str) -> None:
        self.family = family
        self.rows: dict[bytes, Cells] = {}
        self.keys: list[bytes] = []

    def put(self, key: bytes, cells: Cells) -> None:
        if key not in self.rows:
            bisect.insort(self.keys, key)
        self.rows[key] = {**self.rows.get(key, {}), **cells}

    def scan(self, first: bytes, stop: bytes, reverse: bool, limit: int) -> list[bytes]:
        """Return up to ``limit`` keys from ``first`` up to but not including ``stop``."""
        if reverse:
            begin, end = bisect.bisect_right(self.keys, stop), bisect.bisect_right(self.keys, first)
            return self.keys[max(begin, end - limit) : end][::-1]
        begin, end = bisect.bisect_left(self.keys, first), bisect.bisect_left(self.keys, stop)
        return self.keys[begin : min(end, begin + limit)]


class _Connection:
    """The part of ``happybase.Connection`` that the store uses."""

    def __init__(self, server: FakeHBase) -> None:
        self.server = server
        self.client = _Client(server)

    def tables(self) -> list[bytes]:
        return list(self.server._tables)

    def create_table(self, name: str, families: dict[str, dict[str, Any]]) -> None:
        [family] = families
        self.server._tables[name.encode()] = _Table(family)

    def table(self, name: str) -> _Rows:
        return _Rows(self, name.encode())

    def close(self) -> None:
        """Do nothing: no connection is open."""


class _Client:
    """The calls for which happybase has no method, by their Thrift names."""

    def __init__(self, server: FakeHBase) -> None:
        self._server = server

    def checkAndPut(
        self, table: bytes, key: bytes, column: bytes, expected: bytes | None, mutation: Any, attributes: Any
    ) -> bool:
        def call() -> bool:
            assert mutation.column == column
            return self._server.check_and_put(table, key, column, expected, mutation.value)

        return bool(self._server.do("checkAndPut", call))

    def mutateRows(self, table: bytes, rows: Any, attributes: Any) -> None:
        def call() -> None:
            for each in rows:
                cells = {mutation.column: mutation.value for mutation in each.mutations}
                self._server._tables[table].put(each.row, cells)

        self._server.do("mutateRows", call)


class _Rows:
    """The part of ``happybase.Table`` that the store uses."""

    def __init__(self, connection: _Connection, name: bytes) -> None:
        self.connection = connection
        self.name = name

    @property
    def _table(self) -> _Table:
        return self.connection.server._tables[self.name]

    def families(self) -> dict[bytes, dict[str, int]]:
        seconds = self.connection.server.time_to_live_s.get(self.name.decode(), 2**31 - 1)
        return {self._table.family.encode(): {"time_to_live": seconds}}

    def row(self, key: bytes, include_timestamp: bool = False) -> dict[bytes, Any]:
        cells = dict(self.connection.server.do("getRowWithColumns", lambda: self._table.rows.get(key, {})))
        return {name: (value, WRITTEN_MS) for name, value in cells.items()} if include_timestamp else cells

    def rows(self, keys: Iterable[bytes]) -> list[tuple[bytes, Cells]]:
        def call() -> list[tuple[bytes, Cells]]:
            return [(key, dict(self._table.rows[key])) for key in keys if key in self._table.rows]

        found: list[tuple[bytes, Cells]] = self.connection.server.do("getRowsWithColumns", call)
        return found

    def scan(
        self, first: bytes, stop: bytes, *, limit: int, batch_size: int, reverse: bool, filter: str | None
    ) -> list[tuple[bytes, Cells]]:
        def call() -> list[tuple[bytes, Cells]]:
            keys = self._table.scan(first, stop, reverse, limit)
            cut = None if filter is None else 1
            return [(key, dict(list(self._table.rows[key].items())[:cut])) for key in keys]

        found: list[tuple[bytes, Cells]] = self.connection.server.do("scan", call)
        return found
