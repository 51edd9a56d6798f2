"""``airflow offsets audit`` over a SQLite store, as a person calls it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_offsets.control.owners import claim_resources, owners_of
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Batch, Stream, digest_of
from airflow_provider_offsets.core.epoch import Claim, Ended, EndedHow
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import (
    ClaimLaunch,
    EndEpoch,
    LaunchEpoch,
    Reconcile,
    ReleaseLease,
    TakeLease,
)
from airflow_provider_offsets.core.record.model import EpochLaunch, Phase
from airflow_provider_offsets.core.sink.key import BatchKey
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.sql.store import SqlStore
from tests.unit.cli.test_commands import run
from tests.unit.core.observations import HOLDER

STREAM = Stream("p", ("t",))


def begin_epoch(store: SqlStore, pipeline: str) -> None:
    """Make a driver claim epoch 1 of a pipeline, and stop it."""
    control = Control(store, pipeline)
    start = Position({TopicPartition("t", 0): 0})
    control.keep_claim(Claim(1, "first", "tag", "/checkpoint", start, TopicIdentity("cluster", {"t": "id"}), STREAM))
    control.cell.create()
    ended = Ended(EndedHow.STOPPED, 1)
    for event in (
        TakeLease("first", 1, 0),
        LaunchEpoch("first", 1, EpochLaunch(1, "tag", "first", "plan", "/checkpoint"), 1),
        ClaimLaunch("tag", HOLDER, 1),
        EndEpoch("tag", HOLDER, ended),
        Reconcile("first", 4, 1),
        ReleaseLease("first"),
    ):
        control.cell.change(event)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    """Yield a store with three batches of a pipeline whose Kafka does not answer: an audit does not need Kafka."""
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
    begin_epoch(store, "p")
    for number in range(3):
        start, end = (Position({TopicPartition("t", 0): offset}) for offset in (number * 10, number * 10 + 10))
        time_ms = 1_000 * (number + 1)
        store.append(STREAM, Batch(end, time_ms, number, "query", 1, start, time_ms))
    yield store
    store.close()


def test_an_audit_of_what_tiles_ends_with_0(history: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "-p", "p") == 0
    assert "nothing was lost, skipped or replayed" in capsys.readouterr().out

    assert run("audit", "-p", "p", "--since", "batch:1", "--until", "1970-01-01T00:00:02Z", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batches"], found["records"], found["unexplained"]) == (1, 10, 0)


def test_an_audit_with_a_hole_ends_with_1_and_shows_it(history: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(sqlite3.connect(str(history._file))) as database, database:
        database.execute("DELETE FROM offsets_batches WHERE batch_id = 1")

    assert run("audit", "-p", "p") == 1
    printed = capsys.readouterr()
    assert "UNEXPLAINED: batch 1 is missing" in printed.out
    assert "lost=10" in printed.out
    assert "10 offsets in 1 place(s) without an explanation" in printed.err

    assert run("audit", "-p", "p", "-o", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["lost"], found["replayed"], found["skipped"], found["unexplained"]) == (10, 0, 0, 10)
    [hole] = found["discontinuities"]
    assert (hole["kind"], hole["count"], hole["explained"], hole["clue"]) == ("loss", 10, False, "batch 1 is missing")

    assert run("audit", "-p", "p", "--until", "batch:0") == 0, "the hole lies after the window"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (("--since", "epoch:3"), "has no epoch:3"),
        (("--since", "epoch:1", "--until", "epoch:4"), "has no epoch:4"),
        (("--since", "epoch:3", "--until", "batch:1200"), "has no epoch:3"),
        (("--until", "epoch:0"), "has no epoch:0"),
        (("--since", "batch:99"), "has no batch in batch:99"),
        (("--since", "batch:2", "--until", "batch:1"), "has no batch in batch:2 to batch:1"),
        (("--since", "2030-01-01T00:00Z"), "has no batch in 2030-01-01T00:00:00Z"),
        (("--until", "1970-01-01T00:00Z"), "has no batch in 1970-01-01T00:00:00Z"),
        (("--since", "2026-11-01T00:00"), "it has no time zone"),
        (("--since", "\u00a0epoch:1"), "a no-break space (U+00A0) at its start"),
        (("--since", "batch:1_0"), "'1_0' is no number"),
    ],
)
def test_an_audit_of_nothing_is_refused(
    bounds: tuple[str, ...], words: str, history: SqlStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", "-p", "p", *bounds) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("when", ["2026-11-01T00:00", "batch:x", "yesterday"])
def test_a_bound_that_cannot_be_read_is_quoted(
    when: str, history: SqlStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", "-p", "p", "--since", when) == 2
    assert f"--since is {when!r}" in capsys.readouterr().err


class TestSink:
    """The program of ``p`` writes one row per batch into the table ``batches``, and its rows into ``orders``."""

    @pytest.fixture
    def sink(self, history: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
        file = tmp_path / "pipelines.yaml"
        named = "sink: {format: batch_table, conn_id: warehouse, batch_table: batches, table: orders}"
        file.write_text(f"{file.read_text()}    {named}\n")
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": f"{tmp_path}/sink.db"}))
        with contextlib.closing(sqlite3.connect(tmp_path / "sink.db", isolation_level=None)) as database:
            database.execute("CREATE TABLE orders (partition INTEGER, offset INTEGER)")
            database.execute("CREATE TABLE batches (batch_key TEXT, rows INTEGER)")
            database.executemany("INSERT INTO orders VALUES (0, ?)", [(offset,) for offset in range(30)])
            for row in history.oldest_first(STREAM):
                key = BatchKey("p", "query", row.batch_id or 0, digest_of(row))
                database.execute("INSERT INTO batches VALUES (?, 10)", (str(key),))
            yield database

    def test_every_batch_is_there(self, sink: sqlite3.Connection, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("audit", "-p", "p", "--sink") == 0
        printed = capsys.readouterr().out
        assert "Sink batch_table batches: proven." in printed
        assert "3 batches are in the history and in the sink: 30 records read, 30 rows written." in printed

        assert run("audit", "-p", "p", "--sink", "-o", "json") == 0
        found = json.loads(capsys.readouterr().out)["sink"]
        assert (found["verdict"], found["batches"], found["rows"]) == ("proven", 3, 30)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            pytest.param(
                "DELETE FROM batches WHERE batch_key LIKE 'p:query:2:%'",
                ("Sink batch_table batches: refuted.", "output lost", "batch 2 of query query", "output_lost=1"),
                id="the batch was read, and its output is not there",
            ),
            pytest.param(
                "INSERT INTO batches VALUES ('p:query:3:0123456789abcdef', 5)",
                ("refuted", "not recorded", "batch 3 of query query", "not_recorded=1"),
                id="the batch is there, and nobody recorded it",
            ),
            pytest.param(
                "INSERT INTO batches SELECT * FROM batches WHERE batch_key LIKE 'p:query:1:%'",
                ("refuted", "twice=1", "UNEXPLAINED"),
                id="the batch is there twice, and was started once",
            ),
            pytest.param(
                "DELETE FROM orders WHERE offset = 7",
                ("not proven", "removed", "rows were removed after they had been written", "29"),
                id="a row was deleted by hand",
            ),
            pytest.param(
                "DROP TABLE batches",
                ("not proven", "batches", "batch_key"),
                id="the table of batches is gone",
            ),
        ],
    )
    def test_a_difference_ends_with_1_and_is_named(
        self, change: str, said: tuple[str, ...], sink: sqlite3.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sink.execute(change)
        assert run("audit", "-p", "p", "--sink") == 1
        printed = capsys.readouterr()
        assert [words for words in said if words not in printed.out] == []
        assert "the sink is" in printed.err

    def test_without_the_option_it_is_not_read(
        self, sink: sqlite3.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sink.execute("DROP TABLE batches")
        assert run("audit", "-p", "p") == 0
        assert "not read; --sink reads it" in capsys.readouterr().out

    def test_it_is_compared_with_the_whole_history(
        self, sink: sqlite3.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("audit", "-p", "p", "--sink", "--since", "batch:1") == 2
        assert "the sink is compared with the whole history" in capsys.readouterr().err

    def test_a_pipeline_without_a_sink_says_so(self, history: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("audit", "-p", "p", "--sink") == 1
        assert "the pipeline names no sink" in capsys.readouterr().out


class TestRename:
    """A pipeline that is called ``q`` in pipelines.yaml now, and ``p`` in its control store."""

    @pytest.fixture
    def renamed(self, history: SqlStore, tmp_path: Path) -> SqlStore:
        file = tmp_path / "pipelines.yaml"
        file.write_text(file.read_text().replace("  p:\n", "  q:\n    group_id: p\n"))
        return history

    def test_it_is_refused_with_a_way_out_that_works(
        self, renamed: SqlStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("audit", "-p", "q") == 1
        assert "run 'airflow offsets rename OLD q'" in capsys.readouterr().err

        assert run("rename", "p", "q") == 0
        assert "this is a dry run" in capsys.readouterr().out
        assert run("rename", "p", "q", "--apply") == 0
        assert "The pipeline 'p' is 'q' now" in capsys.readouterr().out
        assert run("audit", "-p", "q") == 0
        assert run("rename", "p", "q", "--apply", "-o", "json") == 0, "done again it changes nothing"

    def test_the_group_under_which_the_history_is_kept_stays(
        self, renamed: SqlStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "pipelines.yaml"
        file.write_text(file.read_text().replace("    group_id: p\n", ""))

        assert run("rename", "p", "q", "--apply") == 2

        assert "Add group_id: p to the pipeline 'q'" in capsys.readouterr().err
        assert Control(renamed, "q").record() is None

    def test_an_unknown_name_is_quoted(self, renamed: SqlStore, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("rename", "x", "q") == 2
        assert "No pipeline 'x' is in the control store of 'q'" in capsys.readouterr().err


def test_what_a_pipeline_owns_is_released_for_another_one(
    history: SqlStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pipelines.yaml"
    file.write_text(file.read_text().replace("  p:\n", "  q:\n    group_id: p\n"))
    claim_resources(history, "p", ["checkpoint /checkpoint"])

    assert run("audit", "-p", "q") == 1
    assert "run 'airflow offsets rename p q'" in capsys.readouterr().err
    assert run("release", "p", "q") == 0
    assert "would release:\n- checkpoint /checkpoint\nNothing was changed" in capsys.readouterr().out
    assert run("release", "p", "q", "--apply") == 0
    assert "has released:\n- checkpoint /checkpoint" in capsys.readouterr().out
    assert run("release", "p", "q") == 0
    assert "owns nothing that 'q' uses" in capsys.readouterr().out
    assert owners_of(history, ["checkpoint /checkpoint"]) == {}


class TestEnd:
    """The driver of epoch 1 ran on a host that is not this one."""

    @pytest.fixture
    def unknown(self, history: SqlStore) -> Control:
        control = Control(history, "q")
        claim = Control(history, "p").claim(1, "tag")
        control.keep_claim(claim)
        control.cell.create()
        launch = EpochLaunch(1, "tag", "first", "plan", "/checkpoint", tracked=False)
        for event in (
            TakeLease("first", 1, 0),
            LaunchEpoch("first", 1, launch, 1),
            ClaimLaunch("tag", HOLDER, 1),
            ReleaseLease("first"),
        ):
            control.cell.change(event)
        return control

    @pytest.fixture(autouse=True)
    def renamed(self, unknown: Control, tmp_path: Path) -> None:
        file = tmp_path / "pipelines.yaml"
        file.write_text(
            file.read_text().replace("  p:\n", "  q:\n    tracked: false\n    stop: {signal_timeout_s: 1}\n")
            + "    offsets_in: [store]\n"
        )

    def test_a_dry_run_warns_and_changes_nothing(self, unknown: Control, capsys: pytest.CaptureFixture[str]) -> None:
        before = unknown.record()

        assert run("end", "q", "--epoch", "1") == 0

        out = capsys.readouterr().out
        assert "Epoch 1 of 'q' would be closed. Its driver, pid 1 on host, cannot be observed from here." in out
        assert "WARNING – Verify on its machine that the driver does not run." in out
        assert "nothing fences it" in out
        assert "Nothing was changed: this is a dry run." in out
        assert unknown.record() == before

    def test_it_is_applied_once_and_repeated(self, unknown: Control, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(2):
            assert run("end", "q", "--epoch", "1", "--apply", "--reason", "sold") == 0
            stated = "a person stated that pid 1 on host does not run: sold"
            assert f"Epoch 1 of 'q' has ended: died, {stated}." in capsys.readouterr().out
        assert run("end", "q", "--epoch", "1", "-o", "json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["epoch"], found["done"], found["ended"]["how"]) == (1, True, "died")
        record = unknown.record()
        assert record is not None
        assert (record.phase, record.lease) == (Phase.STOPPED, None)

    def test_another_epoch_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("end", "q", "--epoch", "2", "--apply") == 2
        assert "the newest one of pipeline 'q' is epoch 1" in capsys.readouterr().err
