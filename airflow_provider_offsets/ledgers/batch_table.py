"""A batch table: one row for each batch, which the program writes in the transaction of the batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.core.sink.ledger import Ledger, Removed, Unnamed
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import named, refusals

if TYPE_CHECKING:
    import sqlalchemy as sa

_NAME = re.compile(r"(?:(?P<schema>[A-Za-z_][\w$]*)\.)?(?P<table>[A-Za-z_][\w$]*)", re.ASCII)


def read(url: str, batch_table: str, table: str = "") -> Ledger:
    """Read the ledger that a batch table is.

    :param url: SQLAlchemy URL of the database.
    :param batch_table: its name, with or without a schema. Its columns are ``batch_key`` and ``rows``.
    :param table: name of the table that the batches are appended to. Its rows are counted, if it is given.
    :returns: the ledger, in the order of query and batch ids: the table has no time.
    :raises LedgerUnreadable: no driver, no such database, table or column, no access, or rows that are no numbers.
    """
    batches, counted = _read(url, _parts(batch_table), _parts(table) if table else None)
    written, unnamed, total = [], [], 0
    for key, count in batches:
        rows = _rows(batch_table, key, count)
        total += rows or 0
        write = named.by_key(key, f"{batch_table}: {key}", rows)
        if write is None:
            unnamed.append(Unnamed(f"{batch_table}: {key}"))
        else:
            written.append(write)
    written.sort(key=lambda each: (*named.identity(each)[:3], each.place))
    missing = 0 if counted is None else total - counted
    return Ledger(
        tuple(written),
        (Removed(table, f"{counted} rows of {total} are there", missing),) if missing > 0 else (),
        tuple(sorted(unnamed, key=lambda each: each.place)),
    )


def _parts(name: str) -> tuple[str | None, str]:
    """Return schema and name of a table.

    :raises LedgerUnreadable: it is no name of a table.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise LedgerUnreadable(
            seen=f"{name!r} is no name of a table",
            expected="<table> or <schema>.<table>, of ASCII letters, digits, '_' and '$'",
            do="correct batch_table or table of the sink",
        )
    return found["schema"], found["table"]


def _rows(batch_table: str, key: object, count: Any) -> int | None:
    """Return the number of rows of a batch.

    :raises LedgerUnreadable: it is no number.
    """
    if count is None:
        return None
    try:
        rows = int(count)
    except (ValueError, TypeError):
        rows = -1
    if rows < 0 or rows != count:
        raise LedgerUnreadable(
            seen=f"{batch_table} has {count!r} as the rows of {key!r}",
            expected="an integer that is not negative",
            do="correct the row, or the program that wrote it",
        )
    return rows


def _read(
    url: str, batch_table: tuple[str | None, str], table: tuple[str | None, str] | None
) -> tuple[list[tuple[Any, Any]], int | None]:
    """Return the rows of the batch table, and then the number of rows of the table.

    The order matters: a batch that commits between the two statements may only make the count larger.

    :raises LedgerUnreadable: see ``read``.
    """
    try:
        import sqlalchemy as sa
    except ImportError as error:
        raise refusals.library_missing("databases", None, error) from error
    from sqlalchemy import exc

    try:
        parsed = sa.make_url(url)
        engine = sa.create_engine(parsed)
    except exc.ArgumentError as error:
        raise LedgerUnreadable(
            seen="the database of the batch table has a URL that SQLAlchemy cannot parse",
            expected="a connection such as postgresql://user@host:5432/database",
            do="correct conn_id of the sink, or that connection",
        ) from error
    except ImportError as error:
        extra = "postgres" if parsed.drivername.startswith("postgresql") else None
        raise refusals.library_missing(f"databases of {parsed.drivername}", extra, error) from error
    where = parsed.render_as_string(hide_password=True)
    _require_file(parsed)
    try:
        with engine.connect() as connection:
            columns = sa.table(batch_table[1], sa.column("batch_key"), sa.column("rows"), schema=batch_table[0])
            batches = [tuple(row) for row in connection.execute(sa.select(columns.c.batch_key, columns.c.rows))]
            count = None
            if table is not None:
                query = sa.select(sa.func.count()).select_from(sa.table(table[1], schema=table[0]))
                count = int(connection.scalar(query) or 0)
    except exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerUnreadable(
            seen=f"the batch table {batch_table[1]!r} of {where} cannot be read: {refusals.first_line(cause)}",
            expected="a database that answers, and a table with the columns batch_key and rows that this user may read",
            do="correct conn_id, batch_table or table of the sink, or grant SELECT",
        ) from error
    finally:
        engine.dispose()
    return batches, count


def _require_file(url: sa.URL) -> None:
    """Check that the file of a SQLite database exists: SQLite would create it.

    :raises LedgerUnreadable: it does not.
    """
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise LedgerUnreadable(
            seen=f"there is no SQLite database at {url.database}",
            expected="the file of the database to which the job writes",
            do="correct conn_id of the sink",
        )
