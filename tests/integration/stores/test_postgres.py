"""The contract over a real PostgreSQL: a private server that stops with the tests."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import StateChanged, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.sql import store as sql_store
from airflow_provider_offsets.stores.sql.layout import BATCHES, row_of
from airflow_provider_offsets.stores.sql.store import SqlStore
from tests.contract.position_contract import AtomicPositionContract
from tests.contract.store_contract import NOW_MS, StoreContract, batch, count_round_trips
from tests.integration.postgres_server import PASSWORD, new_database, running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Yield the URL of a server, without a database."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """Return an empty database for this test alone; it is deleted with the server."""
    return new_database(server)


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    made = SqlStore(url)
    made.create()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_url(server: str) -> str:
    """Return one database for the contract, whose tests use groups and pipelines of their own."""
    return new_database(server)


class InOneDatabase:
    """One database for a contract, whose tests use groups and pipelines of their own."""

    @pytest.fixture
    def store(self, shared_url: str) -> Iterator[SqlStore]:
        made = SqlStore(shared_url)
        made.create()
        yield made
        made.close()


class TestPostgres(InOneDatabase, StoreContract):
    ROWS = 10_000

    @pytest.fixture
    def fill(self, store: SqlStore) -> Callable[[Stream, list[Batch]], None]:
        def insert(stream: Stream, batches: list[Batch]) -> None:
            rows = [row_of(stream, each.at_row(each.batch_time_ms)) for each in batches]
            with store._transaction() as connection:
                connection.execute(BATCHES.insert(), rows)

        return insert


class TestPostgresPositions(InOneDatabase, AtomicPositionContract):
    pass


STREAM = Stream("g", ("t",))


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
def any_default(request: pytest.FixtureRequest, store: SqlStore, url: str) -> None:
    """Set the default isolation of the database, which a person may have changed."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = sa.make_url(url).database
        connection.execute(f"alter database {name} set default_transaction_isolation = '{request.param}'")
    store._engine.dispose()


@pytest.mark.parametrize("way", ["process", "sink"])
def test_a_batch_costs_two_transactions(store: SqlStore, way: str) -> None:
    started: list[None] = []
    store.get("p", "n")
    sa.event.listen(store._engine, "begin", lambda connection: started.append(None))
    count_round_trips(store, way, started)
    assert len(started) == 2


def until_it_waits_for_a_lock(writer: threading.Thread, connection: psycopg.Connection[Any]) -> None:
    while not connection.execute("select 1 from pg_stat_activity where wait_event_type = 'Lock'").fetchone():
        assert writer.is_alive(), "it has waited for nothing"
        connection.execute("select pg_sleep(0.01), pg_stat_clear_snapshot()")


@pytest.mark.usefixtures("any_default")
def test_a_swap_waits_for_another_one_and_then_loses(store: SqlStore, url: str) -> None:
    """Under READ COMMITTED the conditional UPDATE compares again once the other transaction has ended."""
    store.check_and_put("p", "pipeline", None, "1")
    row = batch(1).at_row(NOW_MS)
    answers: list[bool] = []

    def swap() -> None:
        answers.append(store.swap("p", "pipeline", "1", "mine", stream=STREAM, prepare=row, append=row))

    waiting = threading.Thread(target=swap)
    with psycopg.connect(url) as connection, connection.transaction():
        connection.execute("update offsets_control set value = 'theirs' where pipeline = 'p'")
        waiting.start()
        until_it_waits_for_a_lock(waiting, connection)
    waiting.join()
    assert answers == [False]
    assert store.get("p", "pipeline") == "theirs"
    assert store.prepared(STREAM, NOW_MS) is None
    assert store.position(STREAM) is None


@pytest.mark.usefixtures("any_default")
def test_a_write_waits_for_another_one_and_then_loses(
    store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, told = SqlStore(url), list[Exception]()

    def write_too() -> None:
        try:
            second.write(STREAM, Position({TopicPartition("t", 0): 2}), expected=None)
        except StateChanged as error:
            told.append(error)

    waiting = threading.Thread(target=write_too)

    def append(*arguments: Any) -> None:
        monkeypatch.undo()
        waiting.start()
        with psycopg.connect(url, autocommit=True) as connection:
            until_it_waits_for_a_lock(waiting, connection)
        sql_store._append(*arguments)

    monkeypatch.setattr(sql_store, "_append", append)
    store.write(STREAM, Position({TopicPartition("t", 0): 1}), expected=None)
    waiting.join()

    assert len(told) == 1
    assert store.position(STREAM) == Position({TopicPartition("t", 0): 1})
    second.close()


def test_missing_tables_are_not_made(url: str) -> None:
    store = SqlStore(url)
    with pytest.raises(
        StoreLayoutError, match=r"No table 'offsets_batches'.*\.stores create postgresql://offsets@"
    ) as bad:
        store.append(STREAM, batch(1))
    assert PASSWORD not in str(bad.value)
    store.close()


def test_a_table_that_went_away(store: SqlStore, url: str) -> None:
    store.append(STREAM, batch(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop table offsets_batches")
    with pytest.raises(StoreLayoutError, match="No table 'offsets_batches'"):
        store.append(STREAM, batch(2))


def test_a_wrong_password_is_in_no_error(url: str) -> None:
    store = open_store(url.replace(PASSWORD, "wrong-secret"))
    with pytest.raises(StoreUnreachable, match="password authentication failed") as refused:
        store.get("p", "n")
    assert "wrong-secret" not in f"{refused.value} {refused.value.__cause__}"
    store.close()


def test_a_database_that_is_not_there(server: str) -> None:
    store = open_store(f"{server}/mistyped")
    with pytest.raises(StoreUnreachable, match='database "mistyped" does not exist'):
        store.position(STREAM)
    store.close()


def test_connections_that_the_server_closed_are_opened_again(store: SqlStore, url: str) -> None:
    store.append(STREAM, batch(1))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    assert store.append(STREAM, batch(2)).batch_id == 2


def test_two_processes_append_to_one_history(store: SqlStore, url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=append_batches, args=(url, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = list(store.oldest_first(STREAM))
    assert sorted(each.batch_id or 0 for each in rows) == [*range(25), *range(100, 125)]
    assert [each.row_time_ms for each in rows] == list(range(NOW_MS, NOW_MS + 50))


def append_batches(url: str, first: int) -> None:
    store = SqlStore(url)
    for number in range(first, first + 25):
        store.append(STREAM, batch(number, time_ms=NOW_MS))
    store.close()
