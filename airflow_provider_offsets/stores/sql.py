"""Offsets in SQLite or PostgreSQL, through SQLAlchemy Core.

``offsets_batches`` holds the history, one row per processed batch; ``offsets_control`` one row per control text.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import (
    InputRefused,
    StoreError,
    StoreLayoutError,
    StoreUnreachable,
)
from airflow_provider_offsets.stores import history, rules
from airflow_provider_offsets.stores.clients import client_missing
from airflow_provider_offsets.stores.paging import FIRST_PAGE, LARGEST_PAGE, next_page
from airflow_provider_offsets.stores.sql_layout import BATCHES, CONTROL, METADATA, batch_of, row_of

_LOCK_WAIT_S = 30
_Read = Callable[[sa.Select[Any]], list[Batch]]


class SqlStore:
    """Positions, history and control in one database. Safe to share between threads.

    SQLite serialises writers of one machine by a file lock, which network file systems do not keep: for drivers on
    other hosts use PostgreSQL.

    :param url: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/database``.
    """

    kind = "sql"

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._file = Path(self._url.database or "") if self._url.drivername == "sqlite" else None
        self._engine = _engine(self._url, self._file)
        self._layout_seen = False

    def __repr__(self) -> str:
        return f"SqlStore({self._shown!r})"

    def create(self) -> None:
        """Create what is missing of the two tables, and of SQLite's file. Its folder has to be there."""
        if self._file is not None:
            self._create_file(self._file)
        with self._errors(), self._engine.begin() as connection:
            METADATA.create_all(connection)
        self._check_layout()

    def close(self) -> None:
        """Let go of connections. The store may be used again: it opens new ones."""
        self._engine.dispose()

    def position(self, stream: Stream) -> Position | None:
        """Give where each topic of the stream ends in the newest batch that names it."""
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add a row that ends at ``position``: compared and added in one transaction that no other writer of the group
        overlaps. Whole or not at all."""
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        with self._transaction(writes=True) as connection:
            _lock_stream(connection, stream)
            read = functools.partial(_read, connection)
            stored = history.position_in(stream, lambda each: next(_newest_first(each, None, read), None))
            if rules.is_to_be_written(stored, position, expected):
                row = history.written_row(position, _newest_time(connection, stream))
                connection.execute(BATCHES.insert().values(row_of(stream, row)))

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Record a batch in one transaction that no other appender of the stream overlaps."""
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        with self._transaction(writes=True) as connection:
            _lock_stream(connection, stream)
            if batch.batch_id is not None:
                recorded = connection.execute(_by_identity(stream, batch.query_id, batch.batch_id)).first()
                if recorded is not None:
                    return rules.recorded_once(batch_of(recorded), batch)
            placed = history.place(batch, _newest_time(connection, stream))
            connection.execute(BATCHES.insert().values(row_of(stream, placed)))
            return placed

    def find(self, stream: Stream, query_id: str, batch_id: int, batch_time_ms: int) -> Batch | None:
        """Give the batch of that identity, or None: one look into an index."""
        query = _by_identity(rules.check_stream(stream), query_id, batch_id)
        with self._transaction() as connection:
            found = connection.execute(query.where(BATCHES.c.row_time_ms >= batch_time_ms)).first()
        return None if found is None else batch_of(found)

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches from the newest backwards; no transaction is open between two of them."""
        return _newest_first(stream, until_ms, self._page)

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches in the order of recording; no transaction is open between two of them."""
        stream = rules.check_stream(stream)
        until = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
        size = FIRST_PAGE
        while True:
            query = sa.select(BATCHES).where(_of(stream), BATCHES.c.row_time_ms.between(since_ms, until))
            page = self._page(query.order_by(BATCHES.c.row_time_ms).limit(size))
            yield from (batch for batch in page if rules.is_of(stream, batch))
            if len(page) < size:
                return
            since_ms = history.row_time_of(page[-1]) + 1
            size = next_page(size, len(page[-1].end))

    def get(self, pipeline: str, name: str) -> str | None:
        """Give the text, or None."""
        with self._transaction() as connection:
            return connection.scalar(sa.select(CONTROL.c.value).where(_cell(pipeline, name)))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text by one conditional statement, which says whether it found a row to change."""
        cell = _cell(pipeline, name)
        rules.check_value(value)
        with self._transaction(writes=True) as connection:
            if expected is None:
                added = _insert_if_missing(connection, {"pipeline": pipeline, "name": name, "value": value})
                # Not the count of rows, which psycopg does not tell of an INSERT here: it is -1.
                return connection.execute(added.returning(CONTROL.c.name)).first() is not None
            changed = CONTROL.update().where(cell, CONTROL.c.value == expected).values(value=value)
            return connection.execute(changed).rowcount == 1

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Give names and texts, sorted by name; no transaction is open between two of them."""
        mine = CONTROL.c.pipeline == rules.check_pipeline(pipeline)
        query = sa.select(CONTROL.c.name, CONTROL.c.value).where(mine).order_by(CONTROL.c.name).limit(LARGEST_PAGE)
        after = CONTROL.c.name >= prefix
        while True:
            with self._transaction() as connection:
                page = connection.execute(query.where(after)).all()
            for name, value in page:
                # Sorted by bytes, all names with the prefix stand together, from the prefix itself on.
                if not name.startswith(prefix):
                    return
                yield name, value
            if len(page) < LARGEST_PAGE:
                return
            after = CONTROL.c.name > page[-1].name

    def _page(self, query: sa.Select[Any]) -> list[Batch]:
        with self._transaction() as connection:
            return _read(connection, query)

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[sa.Connection]:
        if not self._layout_seen or (self._file is not None and not self._file.exists()):
            self._check_layout()
        with self._errors(), self._engine.execution_options(offsets_writes=writes).begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the database's errors into ours. The layout is looked at again: a table may have gone meanwhile."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            if self._layout_seen:
                self._check_layout()
            raise self._problem(error) from error

    def _problem(self, error: exc.SQLAlchemyError) -> StoreError:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if self._url.password:
            cause = cause.replace(str(self._url.password), "***")
        if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
            return StoreUnreachable(
                seen=f"{self._shown}: {cause}",
                expected="a database that answers and lets this user in",
                do="see that it is up and that host, user and password are right, then try again",
            )
        return StoreLayoutError(
            seen=f"{self._shown}: {cause}",
            expected="a database with the tables offsets_batches and offsets_control of this provider",
            do=f"give a database of its own, and create them with: {self._create_command}",
        )

    def _check_layout(self) -> None:
        """Say nothing if both tables are there with our columns."""
        self._layout_seen = False
        if self._file is not None and not self._file.exists():
            raise StoreLayoutError(
                seen=f"no file {str(self._file)!r}",
                expected="the SQLite file of an offset store; a new one would read as a first start",
                do=f"correct the path, or create the store with: {self._create_command}",
            )
        with self._errors(), self._engine.connect() as connection:
            inspector = sa.inspect(connection)
            found = {
                table.name: {column["name"] for column in inspector.get_columns(table.name)}
                for table in METADATA.sorted_tables
                if inspector.has_table(table.name)
            }
        for table in METADATA.sorted_tables:
            self._check_table(table, found.get(table.name))
        self._layout_seen = True

    def _check_table(self, table: sa.Table, columns: set[str] | None) -> None:
        expected = {column.name for column in table.columns}
        if columns is None:
            raise StoreLayoutError(
                seen=f"no table {table.name!r} in {self._shown}",
                expected="the tables of an offset store",
                do=f"correct the URL, or create the store with: {self._create_command}",
            )
        if columns != expected:
            raise StoreLayoutError(
                seen=f"table {table.name!r} in {self._shown} has the columns {sorted(columns)}",
                expected=f"the columns {sorted(expected)}",
                do="it is another program's table: give this store a database or a schema of its own",
            )

    def _create_file(self, file: Path) -> None:
        if not file.parent.is_dir():
            raise StoreLayoutError(
                seen=f"no folder {str(file.parent)!r}",
                expected="the folder in which the SQLite file is to stand",
                do="correct the path, or create the folder",
            )
        with contextlib.closing(sqlite3.connect(file, timeout=_LOCK_WAIT_S)) as connection, self._sqlite_errors():
            # Readers go on while a batch is recorded. The mode stays with the file.
            connection.execute("PRAGMA journal_mode=WAL")

    @contextlib.contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._problem(exc.DatabaseError(None, None, error)) from error

    @property
    def _shown(self) -> str:
        """The URL as people wrote it, with ``***`` for the password."""
        return _short_name(self._url).render_as_string(hide_password=True)

    @property
    def _create_command(self) -> str:
        url = self._url
        # URL.set() takes a password of None for "leave it as it is".
        bare = sa.URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database, url.query)
        return f"python -m airflow_provider_offsets.stores create {bare.render_as_string()}"


def _parse(url: str) -> sa.URL:
    forms = "sqlite:////absolute/path.db or postgresql://user:password@host:5432/database"
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        # The text may hold a password, and so may the error: neither is shown.
        raise InputRefused(seen="a store URL that cannot be read", expected=forms, do="correct the URL") from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        return parsed
    raise InputRefused(
        seen=f"store URL {parsed.render_as_string(hide_password=True)!r}",
        expected=forms,
        do="give one of these; a store in memory is for tests and is made with MemoryStore()",
    )


def _short_name(url: sa.URL) -> sa.URL:
    return url.set(drivername=url.get_backend_name())


def _engine(url: sa.URL, file: Path | None) -> sa.Engine:
    try:
        engine = sa.create_engine(url, creator=_opener(file)) if file else sa.create_engine(url, pool_pre_ping=True)
    except ImportError as error:
        raise client_missing("psycopg[binary]", "PostgreSQL") from error
    if file is not None:
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _opener(file: Path) -> Any:
    """Give a function that opens the file, and never makes one: a mistyped path must not read as a first start."""
    uri = f"file:{urllib.parse.quote(str(file.absolute()))}?mode=rw"

    def open_file() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)

    return open_file


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin as a writer where one writes: a reader that becomes one later can fail where a writer would wait."""
    writes = connection.get_execution_options().get("offsets_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lock_stream(connection: sa.Connection, stream: Stream) -> None:
    """Let one appender of a group in at a time, so that the newest row is still the newest when ours is placed.

    SQLite's ``BEGIN IMMEDIATE`` has done it already.
    """
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(stream.group_id, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def _newest_first(stream: Stream, until_ms: int | None, read: _Read) -> Iterator[Batch]:
    stream = rules.check_stream(stream)
    bound: int = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
    size = FIRST_PAGE
    while True:
        query = sa.select(BATCHES).where(_of(stream), BATCHES.c.row_time_ms <= bound)
        page = read(query.order_by(BATCHES.c.row_time_ms.desc()).limit(size))
        yield from (batch for batch in page if rules.is_of(stream, batch))
        if len(page) < size:
            return
        bound = history.row_time_of(page[-1]) - 1
        size = next_page(size, len(page[-1].end))


def _read(connection: sa.Connection, query: sa.Select[Any]) -> list[Batch]:
    return [batch_of(row) for row in connection.execute(query)]


def _newest_time(connection: sa.Connection, stream: Stream) -> int | None:
    newest: int | None = connection.scalar(sa.select(sa.func.max(BATCHES.c.row_time_ms)).where(_of(stream)))
    return newest


def _insert_if_missing(connection: sa.Connection, values: dict[str, str]) -> sa.Insert:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(CONTROL).values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(CONTROL).values(values).on_conflict_do_nothing()


def _of(stream: Stream) -> sa.ColumnElement[bool]:
    return BATCHES.c.group_id == stream.group_id


def _by_identity(stream: Stream, query_id: str | None, batch_id: int) -> sa.Select[Any]:
    return sa.select(BATCHES).where(
        _of(stream), BATCHES.c.query_id.is_not_distinct_from(query_id), BATCHES.c.batch_id == batch_id
    )


def _cell(pipeline: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(CONTROL.c.pipeline == rules.check_pipeline(pipeline), CONTROL.c.name == rules.check_name(name))
