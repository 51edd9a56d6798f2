"""Batch tables, beyond the contract: other rows, and what a person may name wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_offsets.core.sink.ledger import Unnamed
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import batch_table
from tests.unit.ledgers.sinks import BatchTableSink, made


@pytest.fixture
def sink(tmp_path: Path) -> BatchTableSink:
    made_sink = made("batch_table", tmp_path)
    assert isinstance(made_sink, BatchTableSink)
    assert made_sink.url is not None
    return made_sink


def test_a_key_of_another_program_is_unnamed_and_its_rows_count(sink: BatchTableSink) -> None:
    sink.execute("INSERT INTO batches VALUES ('load of monday', 4)")

    ledger = batch_table.read(str(sink.url), "batches", "output")

    assert ledger.unnamed == (Unnamed("batches: load of monday"),)
    assert [(each.place, each.rows) for each in ledger.removed] == [("output", 4)]


def test_rows_that_are_not_counted_are_unknown(sink: BatchTableSink) -> None:
    sink.execute("UPDATE batches SET rows = NULL")

    ledger = batch_table.read(str(sink.url), "batches", "output")

    assert [each.rows for each in ledger.written] == [None, None]
    assert ledger.removed == ()


def test_more_rows_than_the_batches_wrote_are_no_removal(sink: BatchTableSink) -> None:
    sink.execute("INSERT INTO output VALUES (9)")

    assert batch_table.read(str(sink.url), "batches", "output").removed == ()


def test_without_a_table_nothing_is_counted(sink: BatchTableSink) -> None:
    sink.remove()

    assert batch_table.read(str(sink.url), "batches").removed == ()


def test_a_batch_that_is_there_twice_is_named_twice(sink: BatchTableSink) -> None:
    sink.put(1, 2)

    assert [each.batch_id for each in batch_table.read(str(sink.url), "batches").written] == [0, 1, 1]


def test_batches_are_in_the_order_of_their_ids_whatever_the_order_of_the_rows(sink: BatchTableSink) -> None:
    sink.put(10, 1)
    sink.put(2, 1)

    assert [each.batch_id for each in batch_table.read(str(sink.url), "batches").written] == [0, 1, 2, 10]


@pytest.mark.parametrize("name", ["main.batches", "batches"])
def test_a_schema_may_be_named(sink: BatchTableSink, name: str) -> None:
    assert len(batch_table.read(str(sink.url), name, "main.output").written) == 2


def test_a_name_that_a_database_reserves_is_quoted(sink: BatchTableSink) -> None:
    sink.execute('ALTER TABLE batches RENAME TO "order"')

    assert len(batch_table.read(str(sink.url), "order").written) == 2


@pytest.mark.parametrize("name", ["batches; DROP TABLE output", 'batches"', "a.b.c", "", "täble", ".batches", "1st"])
def test_what_is_no_name_of_a_table_is_refused(sink: BatchTableSink, name: str) -> None:
    with pytest.raises(LedgerUnreadable, match="is no name of a table"):
        batch_table.read(str(sink.url), name)


@pytest.mark.parametrize(
    ("reason", "change", "words"),
    [
        ("no such table", "DROP TABLE batches", "batches"),
        ("no such column", "ALTER TABLE batches RENAME COLUMN batch_key TO id", "batch_key"),
        ("no column of rows", "ALTER TABLE batches DROP COLUMN rows", "rows"),
        ("the counted table is gone", "DROP TABLE output", "output"),
        ("rows are text", "UPDATE batches SET rows = 'many'", "'many'"),
        ("rows are negative", "UPDATE batches SET rows = -1", "-1"),
        ("rows are a fraction", "UPDATE batches SET rows = 1.5", "1.5"),
    ],
)
def test_a_table_of_another_form_is_refused(sink: BatchTableSink, reason: str, change: str, words: str) -> None:
    sink.execute(change)

    with pytest.raises(LedgerUnreadable) as raised:
        batch_table.read(str(sink.url), "batches", "output")

    assert words in raised.value.seen, reason


@pytest.mark.parametrize(
    ("reason", "url", "words"),
    [
        ("no URL", "s3cret", "cannot parse"),
        ("an unknown database", "nosuch://u:s3cret@host/db", "cannot parse"),
        ("no answer", "postgresql+psycopg://u:s3cret@127.0.0.1:1/db?connect_timeout=2", "127.0.0.1"),
        ("SQLite in memory has no batches", "sqlite://", "no SQLite database"),
    ],
)
def test_a_database_that_cannot_be_read_is_refused_without_its_password(reason: str, url: str, words: str) -> None:
    with pytest.raises(LedgerUnreadable) as raised:
        batch_table.read(url, "batches")

    assert words in str(raised.value), reason
    assert "s3cret" not in str(raised.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> Callable[[], None]:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr("sqlalchemy.create_engine", missing)

    with pytest.raises(LedgerUnreadable, match=r"airflow-provider-offsets\[postgres\]"):
        batch_table.read("postgresql+psycopg://host/db", "batches")
