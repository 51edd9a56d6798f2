"""``airflow offsets audit`` over a SQLite store, as a person calls it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.sql import SqlStore
from tests.unit.cli.test_commands import run


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlStore:
    """Give a store with three batches of a pipeline whose Kafka does not answer: an audit has nothing to ask there."""
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": "127.0.0.1:1"}}
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    job = "{application: job.py, checkpoint: /checkpoint}"
    (tmp_path / "pipelines.yaml").write_text(
        f"pipelines:\n  p:\n    topics: [t]\n    store_conn_id: store\n    job: {job}\n"
    )
    url = f"sqlite:///{tmp_path}/offsets.db"
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps({"conn_type": "offsets", "extra": {"url": url}}))
    store = open_store(url)
    assert isinstance(store, SqlStore)
    store.create()
    for number in range(3):
        start, end = (Position({TopicPartition("t", 0): offset}) for offset in (number * 10, number * 10 + 10))
        store.append(Stream("p", ("t",)), Batch(end, 1_000 * (number + 1), number, "query", 1, start))
    return store


def test_an_audit_of_what_tiles_ends_with_0(history: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "-p", "p") == 0
    assert "Every range begins where the one before it ends." in capsys.readouterr().out

    assert run("audit", "-p", "p", "--since", "batch:1", "--until", "1970-01-01T00:00:02Z", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batches"], found["records"], found["unexplained"]) == (1, 10, 0)


def test_an_audit_with_a_hole_ends_with_1_and_shows_it(history: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(str(history._file)) as database:
        database.execute("DELETE FROM offsets_batches WHERE batch_id = 1")

    assert run("audit", "-p", "p") == 1
    printed = capsys.readouterr()
    assert "UNEXPLAINED: batch 1 is missing" in printed.out
    assert "lost=10" in printed.out
    assert "10 offsets in 1 place(s) with no explanation" in printed.err

    assert run("audit", "-p", "p", "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["lost"], found["replayed"], found["skipped"], found["unexplained"]) == (10, 0, 0, 10)
    [hole] = found["discontinuities"]
    assert (hole["kind"], hole["count"], hole["explained"], hole["clue"]) == ("loss", 10, False, "batch 1 is missing")

    assert run("audit", "-p", "p", "--until", "batch:0") == 0, "the hole lies after the window"


@pytest.mark.parametrize("when", ["2026-11-01T00:00", "batch:x", "yesterday"])
def test_a_bound_that_cannot_be_read_is_quoted(
    when: str, history: SqlStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", "-p", "p", "--since", when) == 2
    assert f"--since {when!r}" in capsys.readouterr().err
