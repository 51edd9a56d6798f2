"""Thrift connection to HBase, shared by the threads of a process, with the errors of this package."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.errors import StoreError, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores.clients import client_missing
from airflow_provider_offsets.stores.hbase.transport import Transport

T = TypeVar("T")
Row = tuple[bytes, dict[bytes, bytes]]
_FOR_EVER_S = 2**31 - 1
IDLE_S = 30
"""A connection that was idle for longer is not used for a compare-and-set. The server closes an idle connection after
60 s, and then it would be unknown whether a compare-and-set on it was executed."""


class HBaseClient:
    """The few calls that the store uses. The first call opens the connection.

    happybase's connections are not safe between threads, so a lock serialises the calls.

    :param host: of the Thrift server.
    :param port: of the Thrift server.
    :param transport: the settings of the Thrift server.
    :param families: the tables, and the column family that each must have.
    :param create_command: the command that creates the tables, for messages.
    :param timeout_s: how long the server may be silent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        transport: Transport,
        *,
        families: Mapping[str, str],
        create_command: str,
        timeout_s: float,
    ) -> None:
        try:
            import happybase  # noqa: F401  # its import makes the module of Thrift's types below
        except ModuleNotFoundError as error:
            raise client_missing("happybase>=1.3,<2", "HBase") from error
        from thriftpy2.protocol.cybin import ProtocolError  # type: ignore[attr-defined]
        from thriftpy2.thrift import TApplicationException, TException

        # happybase generates this module from its Hbase.thrift when it is imported: no file of that name exists.
        thrift = importlib.import_module("Hbase_thrift")
        self._mutation = thrift.Mutation
        self._row_mutations = thrift.BatchMutation
        self._exists = thrift.AlreadyExists
        self._refused = (thrift.IOError, thrift.IllegalArgument, TApplicationException)
        # ProtocolError is no TException: bytes that are no Thrift message, as from a server of another kind.
        self._broken = (TException, ProtocolError, OSError, EOFError)
        self._connect: Callable[[], Any] = functools.partial(transport.connect, host, port, timeout_s=timeout_s)
        self._where = f"HBase by Thrift at {host}:{port}"
        self._transport = transport
        self._families = families
        self._create_command = create_command
        self._lock = threading.RLock()
        self._connection: Any = None
        self._answered_s = 0.0
        """When the server answered last."""
        self._layout_seen = False

    def create_tables(self) -> None:
        """Create the tables that are missing, each with its one family."""
        missing = set(self._families) - self._call(_tables)
        for table in sorted(missing):
            self._call(functools.partial(self._create_table, table))
        self._check_layout()

    def row(self, table: str, key: bytes) -> dict[bytes, bytes]:
        """Return the cells of one row, of all its families; empty if the row does not exist.

        :param table: name of the table.
        :param key: key of the row.
        """
        return self._on_table(table, lambda rows: dict(rows.row(key)))

    def rows(self, table: str, keys: Collection[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """Return the cells of several rows in one call, without rows that do not exist.

        :param table: name of the table.
        :param keys: keys of the rows.
        """
        return self._on_table(table, lambda rows: dict(rows.rows(list(keys)))) if keys else {}

    def page(
        self, table: str, first: bytes, stop: bytes, size: int, *, backwards: bool = False, keys_only: bool = False
    ) -> list[Row]:
        """Return up to ``size`` rows from ``first`` on, before ``stop``. No scanner stays open.

        :param table: name of the table.
        :param first: key of the first row, which is included.
        :param stop: key at which the page ends, which is excluded.
        :param size: maximum number of rows.
        :param backwards: read in descending order of keys, from ``first`` down.
        :param keys_only: read only the first cell of each row.
        """
        cut = "FirstKeyOnlyFilter()" if keys_only else None
        options = {"limit": size, "batch_size": size, "reverse": backwards, "filter": cut}
        return self._on_table(table, lambda rows: list(rows.scan(first, stop, **options)))

    def written_ms(self, table: str, key: bytes) -> int | None:
        """Return the server's time (ms) of the oldest cell of one row: the family's TTL counts from there.

        :param table: name of the table.
        :param key: key of the row.
        :returns: milliseconds since 1970; None if the row does not exist.
        """
        cells = self._on_table(table, lambda rows: dict(rows.row(key, include_timestamp=True)))
        return min((written_ms for _, written_ms in cells.values()), default=None)

    def time_to_live_s(self, table: str) -> int | None:
        """Return the TTL of the table's family in seconds, or None if its cells never expire."""
        families = self._on_table(table, lambda rows: dict(rows.families()))
        seconds = int(families[self._families[table].encode()]["time_to_live"])
        return None if seconds == _FOR_EVER_S else seconds

    def put_rows(self, table: str, rows: Mapping[bytes, Mapping[bytes, bytes]]) -> None:
        """Write rows in one call, each of them atomically.

        :param table: name of the table.
        :param rows: cells by column, for each row key.
        """
        changes = [
            self._row_mutations(row=key, mutations=[self._mutation(column=name, value=value) for name, value in each])
            for key, each in ((key, cells.items()) for key, cells in rows.items())
        ]
        self._on_table(table, lambda there: there.connection.client.mutateRows(there.name, changes, {}))

    def check_and_put(self, table: str, key: bytes, column: bytes, expected: bytes | None, value: bytes) -> bool:
        """Set one cell atomically, and return whether it was set.

        Never retried here: if only the answer to the first call was lost, the second call would return False.

        :param table: name of the table.
        :param key: key of the row.
        :param column: family and qualifier, as ``family:qualifier``.
        :param expected: value that the cell must have now; None if the cell must not exist.
        :param value: value to set.
        :raises StoreUnreachable: no answer arrived; the cell may have been set.
        """
        mutation = self._mutation(column=column, value=value)

        def set_cell(rows: Any) -> bool:
            return bool(rows.connection.client.checkAndPut(rows.name, key, column, expected, mutation, {}))

        return self._on_table(table, set_cell, attempts=1)

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        with self._lock:
            self._drop()

    def _on_table(self, table: str, call: Callable[[Any], T], *, attempts: int = 2) -> T:
        with self._lock:
            if not self._layout_seen:
                self._check_layout()
            return self._call(lambda connection: call(connection.table(table)), attempts=attempts)

    def _call(self, call: Callable[[Any], T], *, attempts: int = 2) -> T:
        """Make one call. After a broken connection, open a new one and call again, if ``attempts`` allows it."""
        with self._lock:
            if attempts == 1 and clock.monotonic_s() - self._answered_s > IDLE_S:
                self._drop()
            for attempts_left in range(attempts - 1, -1, -1):
                try:
                    if self._connection is None:
                        self._connection = self._connect()
                    answer = call(self._connection)
                    self._answered_s = clock.monotonic_s()
                    return answer
                except self._refused as error:
                    raise self._refusal(error) from error
                except self._broken as error:
                    self._drop()
                    if not attempts_left:
                        raise self._unreachable(error) from error
        raise AssertionError("the loop above returns or raises")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_layout(self) -> None:
        """Check that every table exists with its family."""
        self._layout_seen = False
        present = self._call(_tables)
        for table, family in self._families.items():
            if table not in present:
                raise self._wrong_layout(f"{self._where} has no table {table!r}", f"table {table!r}")
            found = self._call(functools.partial(_families, table))
            if family not in found:
                raise self._wrong_layout(
                    f"table {table!r} in {self._where} has the families {sorted(found)}", f"a family {family!r} in it"
                )
        self._layout_seen = True

    def _wrong_layout(self, seen: str, expected: str) -> StoreLayoutError:
        return StoreLayoutError(
            seen=seen,
            expected=expected,
            do=f"correct the table's name, or create the store under a free name with `{self._create_command}`",
        )

    def _create_table(self, table: str, connection: Any) -> None:
        # Another process may create the table at the same time; its families are checked afterwards anyway.
        with contextlib.suppress(self._exists):
            connection.create_table(table, {self._families[table]: {"max_versions": 1}})

    def _refusal(self, error: Any) -> StoreError:
        """Return the error for a refused call: a missing table or family, or another trouble of the server."""
        if self._layout_seen:
            self._check_layout()
        reason = _first_line(error)
        if "TableNotEnabledException" in reason:
            return self._wrong_layout(f"{self._where}: {reason}", "tables that are enabled")
        return StoreUnreachable(
            seen=f"{self._where} answered: {reason}",
            expected="the call to succeed",
            do="read the logs of the Thrift server and the region servers, and try again",
        )

    def _unreachable(self, error: BaseException) -> StoreUnreachable:
        return StoreUnreachable(
            seen=f"{self._where} does not answer: {_first_line(error)}",
            expected=f"HBase's Thrift server ({self._transport})",
            do="check that the server is up, and that host, port and these settings match it, and try again",
        )


def _tables(connection: Any) -> set[str]:
    return {name.decode() for name in connection.tables()}


def _families(table: str, connection: Any) -> set[str]:
    return {name.decode() for name in connection.table(table).families()}


def _first_line(error: Any) -> str:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    text = message.decode(errors="backslashreplace") if isinstance(message, bytes) else str(message)
    # thriftpy2 reports that it could not connect, but not why, such as an untrusted certificate.
    cause = error.__context__ if isinstance(error, BaseException) else None
    why = f" ({cause})" if isinstance(cause, OSError) else ""
    return text.strip().splitlines()[0][:300] + why
