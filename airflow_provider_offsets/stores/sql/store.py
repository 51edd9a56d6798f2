"""Offsets in SQLite or PostgreSQL, through SQLAlchemy Core.

``offsets_batches`` holds the history, one row per processed batch. ``offsets_prepared`` holds the facts of batches that
are not in the history. ``offsets_control`` has one row per control record. A swap changes all three in one transaction.
The transaction starts with the conditional ``UPDATE`` of the control record; if that changes no row, nothing else is
done.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import InputRefused, OffsetsError, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores import history, rules
from airflow_provider_offsets.stores.clients import client_missing
from airflow_provider_offsets.stores.paging import FIRST_PAGE, LARGEST_PAGE, next_page
from airflow_provider_offsets.stores.sql.layout import BATCHES, CONTROL, METADATA, PREPARED, batch_of, row_of, topics_of

_LOCK_WAIT_S = 30
_Read = Callable[[sa.Select[Any], Mapping[str, Any]], list[Batch]]


# Statements are built once: SQLAlchemy takes longer to build one than SQLite to execute it.
_OWNER = sa.bindparam("owner", type_=sa.Text)
_TIME = sa.bindparam("row_time_ms", type_=sa.BigInteger)
_TOPICS = sa.bindparam("topics", type_=sa.Text)
_SIZE = sa.bindparam("size", type_=sa.Integer)

_IS_CELL = sa.and_(CONTROL.c.pipeline == _OWNER, CONTROL.c.name == sa.bindparam("cell"))
_GET = sa.select(CONTROL.c.value).where(_IS_CELL)
_SET = (
    CONTROL.update()
    .where(_IS_CELL, CONTROL.c.value == sa.bindparam("expected"))
    .values(value=sa.bindparam("new", type_=sa.Text))
)
_SCAN = (
    sa.select(CONTROL.c.name, CONTROL.c.value)
    .where(CONTROL.c.pipeline == _OWNER)
    .order_by(CONTROL.c.name)
    .limit(LARGEST_PAGE)
)
_SCAN_FROM = _SCAN.where(CONTROL.c.name >= sa.bindparam("cell"))
_SCAN_AFTER = _SCAN.where(CONTROL.c.name > sa.bindparam("cell"))

_AT_TIME = {
    table: sa.select(table).where(table.c.group_id == _OWNER, table.c.row_time_ms == _TIME)
    for table in (BATCHES, PREPARED)
}
_NEWEST_TIMES = [
    sa.select(sa.func.max(table.c.row_time_ms)).where(table.c.group_id == _OWNER) for table in (BATCHES, PREPARED)
]
_ROW = _AT_TIME[BATCHES].where(BATCHES.c.topics == _TOPICS)
_PREPARE = PREPARED.insert()
_FORGET = PREPARED.delete().where(
    PREPARED.c.group_id == _OWNER, PREPARED.c.row_time_ms == _TIME, PREPARED.c.topics == _TOPICS
)

_PLACE = (BATCHES.c.row_time_ms, BATCHES.c.topics)
"""Sort order of the rows of a group."""
_THERE = sa.tuple_(_TIME, _TOPICS)
_OF_GROUP = sa.select(BATCHES).where(BATCHES.c.group_id == _OWNER).limit(_SIZE)
_NEWEST = _OF_GROUP.order_by(*(column.desc() for column in _PLACE))
_NEWEST_UNTIL = _NEWEST.where(BATCHES.c.row_time_ms <= _TIME)
_NEWEST_BEFORE = _NEWEST.where(sa.tuple_(*_PLACE) < _THERE)
_OLDEST = _OF_GROUP.order_by(*_PLACE).where(BATCHES.c.row_time_ms <= sa.bindparam("until", type_=sa.BigInteger))
_OLDEST_SINCE = _OLDEST.where(BATCHES.c.row_time_ms >= _TIME)
_OLDEST_AFTER = _OLDEST.where(sa.tuple_(*_PLACE) > _THERE)


class SqlStore:
    """Store of positions, history and control records in one database. Safe to share between threads.

    SQLite serialises the writers of one machine by a file lock, which network file systems do not support. Use
    PostgreSQL for drivers on other hosts.

    :param url: ``sqlite:////absolute/path.db`` or ``postgresql://user:password@host/database``.
    """

    kind = "sql"

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._file = Path(self._url.database or "") if self._url.drivername == "sqlite" else None
        self._engine = _engine(self._url, self._file)
        self._layout_seen = False
        self._inode: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"SqlStore({self._shown!r})"

    def create(self) -> None:
        """Create the missing tables, and SQLite's file. The folder of the file must exist."""
        if self._file is not None:
            self._create_file(self._file)
        with self._errors(), self._begin() as connection:
            METADATA.create_all(connection)
        self._check_layout()

    def close(self) -> None:
        """Close connections. The store may be used again: the next call opens new ones."""
        self._engine.dispose()

    def position(self, stream: Stream) -> Position | None:
        """Return the end offsets of each topic of the stream in the newest batch that names the topic."""
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add a row that ends at ``position``, in one transaction that no other writer of the group overlaps.

        :param position: the offsets to write.
        :param expected: the position that must be stored now; None for nothing.
        """
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        with self._transaction() as connection:
            _lock_stream(connection, stream)
            read = functools.partial(_read, connection)
            stored = history.position_in(stream, lambda each: next(_newest_first(each, None, read), None))
            if rules.is_to_be_written(stored, position, expected):
                _append(connection, stream, history.written_row(position, _newest_time(connection, stream)))

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Add the row of a batch in one transaction.

        A batch without a row time is placed after the newest row of its group; other such calls wait.
        """
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        with self._transaction() as connection:
            if batch.row_time_ms is None:
                _lock_stream(connection, stream)
                batch = history.place(batch, _newest_time(connection, stream))
            return _append(connection, stream, batch)

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches, the newest first. No transaction is open between two of them."""
        return _newest_first(stream, until_ms, self._page)

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches in the order of recording. No transaction is open between two of them."""
        stream = rules.check_stream(stream)
        until = LAST_TIME_MS if until_ms is None else until_ms
        query, since, size = _OLDEST_SINCE, {"row_time_ms": since_ms}, FIRST_PAGE
        while True:
            page = self._page(query, {"owner": stream.group_id, "until": until, **since, "size": size})
            yield from (batch for batch in page if rules.is_of(stream, batch))
            if len(page) < size:
                return
            query, since, size = _OLDEST_AFTER, _place_of(page[-1]), next_page(size, len(page[-1].end))

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text of a control record, or None."""
        cell = {"owner": rules.check_pipeline(pipeline), "cell": rules.check_name(name)}
        with self._reading() as connection:
            return connection.scalar(_GET, cell)

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text by one conditional statement, whose row count shows whether it was set."""
        return self.swap(pipeline, name, expected, value)

    def swap(
        self,
        pipeline: str,
        name: str,
        expected: str | None,
        value: str,
        *,
        stream: Stream | None = None,
        prepare: Batch | None = None,
        append: Batch | None = None,
    ) -> bool:
        """Set the text with the facts and the row that belong to it, in one transaction."""
        rules.check_pipeline(pipeline)
        rules.check_name(name)
        rules.check_value(value)
        facts, row = rules.placed(stream, prepare), rules.placed(stream, append)
        with self._transaction() as connection:
            if not _set(connection, pipeline, name, expected, value):
                return False
            if facts is not None:
                _prepare(connection, *facts)
            if row is not None:
                _append(connection, *row)
            return True

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are stored under a row time, or None.

        The history is read last: an append between the two statements moves the facts there.
        """
        stream = rules.check_stream(stream)
        with self._reading() as connection:
            return _kept(connection, PREPARED, stream, row_time_ms) or _recorded(connection, stream, row_time_ms)

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield names and texts, sorted by name. No transaction is open between two of them."""
        query, since = _SCAN_FROM, {"owner": rules.check_pipeline(pipeline), "cell": prefix}
        while True:
            with self._reading() as connection:
                page = connection.execute(query, since).all()
            for name, value in page:
                # In byte order all names with the prefix are adjacent, beginning with the prefix itself.
                if not name.startswith(prefix):
                    return
                yield name, value
            if len(page) < LARGEST_PAGE:
                return
            query, since = _SCAN_AFTER, {**since, "cell": page[-1].name}

    def _page(self, query: sa.Select[Any], values: Mapping[str, Any]) -> list[Batch]:
        with self._reading() as connection:
            return _read(connection, query, values)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for statements that read. No caller needs two of them to see the same moment."""
        self._require_layout()
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        self._require_layout()
        with self._errors(), self._begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """Begin as a writer: in SQLite, a reader that becomes a writer may fail instead of waiting."""
        with self._engine.begin() as connection:
            if self._file is not None:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    def _require_layout(self) -> None:
        """Check the layout before the first statement, and again once another file is in the place of SQLite's file.

        An open connection would go on with the file that was replaced, for example by a backup of it.
        """
        if self._file is not None and self._inode != _inode_of(self._file):
            self._engine.dispose()
            self._layout_seen = False
        if not self._layout_seen:
            self._check_layout()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert the database's errors. The layout is checked again, because a table may have been dropped."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            if self._layout_seen:
                self._check_layout()
            raise self._problem(error) from error

    def _problem(self, error: exc.SQLAlchemyError) -> OffsetsError:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if self._url.password:
            cause = cause.replace(str(self._url.password), "***")
        if isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)):
            return StoreUnreachable(
                seen=f"{self._shown}: {cause}",
                expected="a database that answers and lets this user in",
                do="check that the database runs, and check host, user and password, then try again",
            )
        if self._url.query and isinstance(error, exc.DBAPIError) and error.statement is None:  # no connection yet
            return InputRefused(
                seen=f"{self._shown}: {cause}",
                expected="after the '?' of the store URL, options that PostgreSQL's client has",
                do="remove the option, or correct it",
            )
        return StoreLayoutError(
            seen=f"{self._shown}: {cause}",
            expected=f"a database with the tables {', '.join(METADATA.tables)} of this provider",
            do=f"use a database of its own, and create the tables with `{self._create_command}`",
        )

    def _check_layout(self) -> None:
        """Check that all tables exist with our columns."""
        self._layout_seen = False
        self._inode = None if self._file is None else _inode_of(self._file)
        if self._file is not None and not self._file.exists():
            raise StoreLayoutError(
                seen=f"no file {str(self._file)!r} exists",
                expected="the SQLite file of an offset store, because a new file would look like a first start",
                do=f"correct the path, or create the store with `{self._create_command}`",
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
                seen=f"no table {table.name!r} is in {self._shown}",
                expected="the tables of an offset store",
                do=f"correct the URL, or create the store with `{self._create_command}`",
            )
        if columns != expected:
            raise StoreLayoutError(
                seen=f"table {table.name!r} in {self._shown} has the columns {sorted(columns)}",
                expected=f"the columns {sorted(expected)}",
                do="use a database or a schema of its own for this store, because the table belongs to another program",
            )

    def _create_file(self, file: Path) -> None:
        if not file.parent.is_dir():
            raise StoreLayoutError(
                seen=f"no folder {str(file.parent)!r} exists",
                expected="the folder of the SQLite file",
                do="correct the path, or create the folder",
            )
        with contextlib.closing(sqlite3.connect(file, timeout=_LOCK_WAIT_S)) as connection, self._sqlite_errors():
            # WAL lets readers continue while a batch is recorded. The mode stays with the file.
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
        # URL.set() reads a password of None as "unchanged".
        bare = sa.URL.create(url.get_backend_name(), url.username, None, url.host, url.port, url.database, url.query)
        return f"python -m airflow_provider_offsets.stores create {bare.render_as_string()}"


def _parse(url: str) -> sa.URL:
    forms = "sqlite:////absolute/path.db or postgresql://user:password@host:5432/database"
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        # The text may hold a password, and so may the error: neither is shown.
        raise InputRefused(seen="the store URL cannot be read", expected=forms, do="correct the URL") from None
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    is_file = parsed.drivername == "sqlite" and parsed.database not in (None, "", ":memory:")
    if is_file and not Path(str(parsed.database)).is_absolute():
        raise InputRefused(
            seen=f"store URL {parsed.render_as_string()!r} names a relative path",
            expected="sqlite:////absolute/path.db with four slashes, which does not depend on the working directory",
            do="write the whole path",
        )
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        return parsed
    raise InputRefused(
        seen=f"store URL {parsed.render_as_string(hide_password=True)!r} is not supported",
        expected=forms,
        do="use one of these; a store in memory is only for tests: MemoryStore()",
    )


def _short_name(url: sa.URL) -> sa.URL:
    return url.set(drivername=url.get_backend_name())


def _engine(url: sa.URL, file: Path | None) -> sa.Engine:
    if file is not None:
        return sa.create_engine(url, creator=_opener(file))
    try:
        # Whatever the default of the database: a statement that has waited for a lock has to see what its holder wrote.
        return sa.create_engine(url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ImportError as error:
        raise client_missing("psycopg[binary]", "PostgreSQL") from error


def _inode_of(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, which no other file has while this one is open; None without a file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _opener(file: Path) -> Any:
    """Return a function that opens the file and never creates it: a mistyped path must not read as a first start."""
    uri = f"file:{urllib.parse.quote(str(file.absolute()))}?mode=rw"

    def open_file() -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)

    return open_file


def _lock_stream(connection: sa.Connection, stream: Stream) -> None:
    """Serialise the appenders of a group, so that the newest row is still the newest when ours is placed.

    SQLite's ``BEGIN IMMEDIATE`` does that already.
    """
    if connection.dialect.name == "postgresql":
        key = sa.func.hashtextextended(stream.group_id, 0)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def _newest_first(stream: Stream, until_ms: int | None, read: _Read) -> Iterator[Batch]:
    stream = rules.check_stream(stream)
    query, until, size = _NEWEST_UNTIL, {"row_time_ms": LAST_TIME_MS if until_ms is None else until_ms}, FIRST_PAGE
    while True:
        page = read(query, {"owner": stream.group_id, **until, "size": size})
        yield from (batch for batch in page if rules.is_of(stream, batch))
        if len(page) < size:
            return
        query, until, size = _NEWEST_BEFORE, _place_of(page[-1]), next_page(size, len(page[-1].end))


def _place_of(batch: Batch) -> dict[str, Any]:
    return {"row_time_ms": history.row_time_of(batch), "topics": topics_of(batch)}


def _read(connection: sa.Connection, query: sa.Select[Any], values: Mapping[str, Any]) -> list[Batch]:
    return [batch_of(BATCHES, row) for row in connection.execute(query, values)]


def _newest_time(connection: sa.Connection, stream: Stream) -> int | None:
    """Return the greatest row time of a group that is in use, by a row or by facts."""
    newest = [connection.scalar(query, {"owner": stream.group_id}) for query in _NEWEST_TIMES]
    return max((each for each in newest if each is not None), default=None)


def _set(connection: sa.Connection, pipeline: str, name: str, expected: str | None, value: str) -> bool:
    """Set a control text if it is ``expected``, and return whether it was set."""
    if expected is None:
        return _insert_if_missing(connection, CONTROL, {"pipeline": pipeline, "name": name, "value": value})
    changed = connection.execute(_SET, {"owner": pipeline, "cell": name, "expected": expected, "new": value})
    return changed.rowcount == 1


def _prepare(connection: sa.Connection, stream: Stream, batch: Batch) -> None:
    """Store the facts of a batch. The control text was set before, so other writers of the pipeline wait."""
    row_time_ms = history.row_time_of(batch)
    recorded = _recorded(connection, stream, row_time_ms)
    if recorded is not None:
        rules.recorded_once(recorded, batch)
        return
    rules.prepared_once(_kept(connection, PREPARED, stream, row_time_ms), batch)
    connection.execute(_FORGET, _key_of(stream, batch))
    connection.execute(_PREPARE, row_of(stream, batch))


def _append(connection: sa.Connection, stream: Stream, batch: Batch) -> Batch:
    """Add the row of a batch to the history, and delete its stored facts."""
    kept = _kept(connection, PREPARED, stream, history.row_time_of(batch))
    added = batch if kept is None else rules.recorded_once(kept, batch)
    if not _insert_if_missing(connection, BATCHES, row_of(stream, added)):
        there = connection.execute(_ROW, _key_of(stream, batch)).one()
        return rules.recorded_once(batch_of(BATCHES, there), batch)
    connection.execute(_FORGET, _key_of(stream, added))
    return added


def _recorded(connection: sa.Connection, stream: Stream, row_time_ms: int) -> Batch | None:
    """Return the batch that the history has at a time, or None for a row that no batch wrote."""
    found = _kept(connection, BATCHES, stream, row_time_ms)
    return None if found is None or found.batch_id is None else found


def _kept(connection: sa.Connection, table: sa.Table, stream: Stream, row_time_ms: int) -> Batch | None:
    values = {"owner": stream.group_id, "row_time_ms": row_time_ms}
    found = (batch_of(table, row) for row in connection.execute(_AT_TIME[table], values))
    return next((batch for batch in found if rules.is_of(stream, batch)), None)


def _insert_if_missing(connection: sa.Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row if its key is free, and return whether it was inserted."""
    # Not rowcount, which is -1 in psycopg for an INSERT like this.
    return connection.execute(_insertion(connection.dialect.name, table), values).first() is not None


@functools.cache
def _insertion(dialect_name: str, table: sa.Table) -> Any:
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing().returning(*table.primary_key)


def _key_of(stream: Stream, batch: Batch) -> dict[str, Any]:
    return {"owner": stream.group_id, **_place_of(batch)}
