"""The contract over SQLite, and what only a database file can do wrong."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.errors import StoreDataError, StoreError, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores.sql import store as sql
from airflow_provider_offsets.stores.sql.layout import BATCHES, PREPARED, row_of
from airflow_provider_offsets.stores.sql.store import SqlStore
from tests.contract.position_contract import AtomicPositionContract
from tests.contract.store_contract import NOW_MS, StoreContract, batch, count_round_trips, ids, position
from tests.unit.stores.appender import append_batches

STREAM = Stream("g", ("t",))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/offsets.db"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    made = SqlStore(url)
    made.create()
    yield made
    made.close()


def fill_rows(store: SqlStore) -> Callable[[Stream, list[Batch]], None]:
    def insert(stream: Stream, batches: list[Batch]) -> None:
        rows = [row_of(stream, each.at_row(each.batch_time_ms)) for each in batches]
        with store._transaction() as connection:
            connection.execute(BATCHES.insert(), rows)

    return insert


class TestSqlite(StoreContract):
    @pytest.fixture
    def fill(self, store: SqlStore) -> Callable[[Stream, list[Batch]], None]:
        return fill_rows(store)


class TestSqlitePositions(AtomicPositionContract):
    pass


def test_the_newest_of_ten_thousand_rows_is_one_row(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_rows(store)(STREAM, [batch(number) for number in range(10_000)])
    store.position(STREAM)
    fetched: list[int] = []
    page = store._page

    def counted(query: sa.Select[Any], values: Mapping[str, Any]) -> list[Batch]:
        rows = page(query, values)
        fetched.append(len(rows))
        return rows

    monkeypatch.setattr(store, "_page", counted)
    assert store.position(STREAM) == position({0: 100_000})
    assert fetched == [1]
    assert len(list(store.newest_first(STREAM))) == 10_000
    assert len(fetched) < 30


@pytest.fixture
def transactions(store: SqlStore) -> list[None]:
    """Return a list with one entry for each transaction that begins from now on."""
    store.get("p", "n")
    started: list[None] = []
    sa.event.listen(store._engine, "begin", lambda connection: started.append(None))
    return started


@pytest.mark.parametrize("way", ["process", "sink"])
def test_a_batch_costs_two_transactions(way: str, store: SqlStore, transactions: list[None]) -> None:
    count_round_trips(store, way, transactions)
    assert len(transactions) == 2


def test_a_swap_that_fails_in_its_middle_changes_nothing(store: SqlStore, tmp_path: Path) -> None:
    store.check_and_put("p", "pipeline", None, "1")
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection, connection:
        connection.execute("create trigger t before insert on offsets_batches begin select raise(abort, 'full'); end")
    row = batch(1).at_row(NOW_MS)
    with pytest.raises(StoreError, match="full"):
        store.swap("p", "pipeline", "1", "2", stream=STREAM, prepare=row, append=row)
    assert store.get("p", "pipeline") == "1"
    assert store.prepared(STREAM, NOW_MS) is None


def test_facts_are_kept_once(store: SqlStore, tmp_path: Path) -> None:
    """A recorded batch leaves the table of unrecorded ones, which holds the current and the interrupted batches."""
    cut_off, done = batch(1).at_row(NOW_MS), batch(2).at_row(NOW_MS + 1)
    store.swap("p", "pipeline", None, "1", stream=STREAM, prepare=cut_off)
    store.swap("p", "pipeline", "1", "2", stream=STREAM, prepare=done)
    store.swap("p", "pipeline", "2", "3", stream=STREAM, append=done)
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection:
        kept = connection.execute("select row_time_ms from offsets_prepared").fetchall()
    assert kept == [(NOW_MS,)]


def test_facts_are_found_while_an_append_moves_them(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL shows each statement what was committed before it: the row may arrive between two statements."""
    facts = batch(1).at_row(NOW_MS)
    store.swap("p", "pipeline", None, "1", stream=STREAM, prepare=facts)
    read, tables = sql._kept, []

    def append_after_first(connection: sa.Connection, table: sa.Table, stream: Stream, row_time_ms: int) -> Any:
        found = read(connection, table, stream, row_time_ms)
        tables.append(table.name)
        if len(tables) == 1:
            connection.execute(BATCHES.insert().values(row_of(stream, facts)))
            connection.execute(PREPARED.delete())
        return found

    monkeypatch.setattr(sql, "_kept", append_after_first)
    assert store.prepared(STREAM, NOW_MS) == facts


def test_a_write_follows_facts_whose_row_is_missing(store: SqlStore) -> None:
    ahead = batch(1).at_row(LAST_TIME_MS - 1)
    store.swap("p", "pipeline", None, "1", stream=STREAM, prepare=ahead)
    store.write(STREAM, position({0: 5}), expected=None)
    assert next(store.newest_first(STREAM)).row_time_ms == LAST_TIME_MS


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "mistyped.db"
    store = SqlStore(f"sqlite:///{file}")
    calls: list[Callable[[], object]] = [
        lambda: store.position(STREAM),
        lambda: store.get("p", "n"),
        lambda: store.append(STREAM, batch(1)),
    ]
    for call in calls:
        with pytest.raises(StoreLayoutError, match=r"No file .*mistyped\.db.*\.stores create sqlite:///.*mistyped\.db"):
            call()
    assert not file.exists()


def test_a_file_that_went_away_is_not_made_again(store: SqlStore, tmp_path: Path) -> None:
    store.append(STREAM, batch(1))
    for file in tmp_path.glob("offsets.db*"):
        file.unlink()
    with pytest.raises(StoreLayoutError, match="No file"):
        store.append(STREAM, batch(2))
    assert not (tmp_path / "offsets.db").exists()


def test_a_file_that_another_one_replaces_is_not_used_any_more(store: SqlStore, url: str, tmp_path: Path) -> None:
    """A person restores a backup by a rename, while a driver has connections open."""
    assert store.check_and_put("p", "n", None, "1")
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection:
        connection.execute(f"vacuum into '{tmp_path}/backup.db'")
    assert store.check_and_put("p", "n", "1", "2")
    (tmp_path / "backup.db").rename(tmp_path / "offsets.db")
    for rest in ("offsets.db-wal", "offsets.db-shm"):
        (tmp_path / rest).unlink(missing_ok=True)

    assert not store.check_and_put("p", "n", "2", "3"), "the driver is told"
    assert store.get("p", "n") == "1"
    assert store.check_and_put("p", "n", "1", "4")
    with contextlib.closing(SqlStore(url)) as other:
        assert other.get("p", "n") == "4"


def test_create_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreLayoutError, match=r"No folder .*/nowhere"):
        SqlStore(f"sqlite:///{tmp_path}/nowhere/offsets.db").create()


def test_a_database_without_our_tables(tmp_path: Path, url: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection:
        connection.execute("create table other (x)")
    with (
        contextlib.closing(SqlStore(url)) as store,
        pytest.raises(StoreLayoutError, match=r"No table 'offsets_batches'.*\.stores create sqlite"),
    ):
        store.position(STREAM)


def test_a_table_that_went_away(store: SqlStore, tmp_path: Path) -> None:
    store.append(STREAM, batch(1))
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection:
        connection.execute("drop table offsets_batches")
    with pytest.raises(StoreLayoutError, match="No table 'offsets_batches'"):
        store.append(STREAM, batch(2))


def test_a_table_of_another_program(tmp_path: Path, url: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection:
        connection.execute("create table offsets_control (pipeline text, setting text)")
        connection.execute("create table offsets_batches (x)")
    calls: list[Callable[[SqlStore], object]] = [SqlStore.create, lambda store: store.get("p", "n")]
    for call in calls:
        with (
            contextlib.closing(SqlStore(url)) as store,
            pytest.raises(StoreLayoutError, match=r"has the columns \['x'\]"),
        ):
            call(store)


def test_a_file_that_is_no_database(tmp_path: Path, url: str) -> None:
    (tmp_path / "offsets.db").write_text("pipelines: []\n" * 100)
    calls: list[Callable[[SqlStore], object]] = [SqlStore.create, lambda store: store.get("p", "n")]
    for call in calls:
        with contextlib.closing(SqlStore(url)) as store, pytest.raises(StoreLayoutError, match="not a database"):
            call(store)


def test_a_row_that_no_writer_of_ours_wrote(store: SqlStore, tmp_path: Path) -> None:
    store.append(STREAM, batch(1))
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db")) as connection, connection:
        connection.execute('update offsets_batches set end_offsets = \'{"t":{"0":-2}}\'')
    with pytest.raises(StoreDataError, match=r"'offsets_batches', row 'g' 1760000001000, column 'end_offsets'.*-2"):
        store.position(STREAM)


def test_a_writer_waits_and_then_says_so(store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_LOCK_WAIT_S", 0)
    other = SqlStore(f"sqlite:///{tmp_path}/offsets.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "offsets.db", isolation_level=None)) as connection:
        connection.execute("begin immediate")
        assert ids(other.newest_first(STREAM)) == [], "readers go on"
        with pytest.raises(StoreUnreachable, match="locked"):
            other.append(STREAM, batch(1))
        connection.execute("rollback")
    other.append(STREAM, batch(1))
    other.close()


def test_two_processes_append_to_one_history(store: SqlStore, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_batches, args=(url, STREAM, first, NOW_MS)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = list(store.oldest_first(STREAM))
    assert sorted(each.batch_id or 0 for each in rows) == [*range(25), *range(100, 125)]
    assert [each.row_time_ms for each in rows] == list(range(NOW_MS, NOW_MS + 50))
