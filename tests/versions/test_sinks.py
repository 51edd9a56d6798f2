"""The programs of ``jobs/sinks`` through a cut-off batch, a rewind, a backfill and a fresh start.

After each step, the sink is read without the product and compared with the topic. The table in docs/sinks.md
shows the result. ``make sinks`` runs this file; ``make test`` does not, because it needs table formats and a second
Spark.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka.admin import NewTopic
from deltalake import DeltaTable

from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.sink.audit import SinkFindingKind, SinkVerdict
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from stack import jars, maven
from stack.sparks import SPARKS, Installation
from tests.e2e import sink_lab
from tests.e2e.lab import Lab
from tests.e2e.sink_lab import LabSink, Record, SinkLab, in_topic
from tests.integration.postgres_server import new_database, running_postgres

EXTENSIONS = {
    "newest": "io.delta.sql.DeltaSparkSessionExtension",
    "4.1": "io.delta.sql.DeltaSparkSessionExtension,org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}
CONF = {
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",  # 50 by default, each a task of every batch
    # The library that reads the tables of these tests reads no deletion vectors.
    "spark.databricks.delta.properties.defaults.enableDeletionVectors": "false",
}
CATALOG = {
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.lake.type": "hadoop",
}
OLD = Installation("4.1")
TRIED_AGAIN, REWIND, SHARDS, SHARD_TRIED_AGAIN, AFRESH = STEPS = (
    "a batch that is tried again",
    "a rewind",
    "shards in parallel",
    "a shard that is tried again",
    "a fresh start",
)
ASKED_FOR = frozenset({REWIND, SHARDS, AFRESH})
"""Steps in which a person asked for records to be read again."""
CONSTANT = "delta, constant application id"
TWICE = {
    "files": frozenset(STEPS),
    "files, by batch": ASKED_FOR,
    "jdbc": ASKED_FOR,
    "jdbc, upsert": frozenset[str](),
    "kafka": frozenset(STEPS),
    "delta": ASKED_FOR,
    "delta, merge": frozenset[str](),
    CONSTANT: frozenset({REWIND}),
    "iceberg": ASKED_FOR,
    "iceberg, merge": frozenset[str](),
}
"""The steps in which each sink has the records that are read again once more."""
PROVEN = {"delta", "delta, merge", "iceberg", "iceberg, merge"}
"""The sinks whose metadata names each batch. ``tests/e2e/test_batch_table.py`` audits that of a table of batches."""


@pytest.fixture
def lab(make_lab: Callable[..., Lab], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab on the Spark that the test's parameter names: ``4.1`` or ``newest``."""
    is_old = request.param == "4.1"
    connector, tables = (SPARKS["4.1"].jars, "tables-4.1") if is_old else ("spark", "tables")
    if not (maven.is_current(connector) and maven.is_current(tables) and (OLD.is_current or not is_old)):
        words = (
            f"the jars {tables!r}, or Spark {SPARKS[OLD.spark].version}, are not installed as they are now: make sinks"
        )
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    lab = make_lab(jars=",".join(map(str, [*jars(connector), *jars(tables)])))
    lab.conf = {**CONF, "spark.sql.extensions": EXTENSIONS[request.param]}
    if is_old:
        # Iceberg has no release for a newer Spark.
        lab.conf |= {**CATALOG, "spark.sql.catalog.lake.warehouse": str(lab.home / "lake")}
        monkeypatch.setenv("PATH", str(OLD.bin), prepend=os.pathsep)
        for name in ("SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
            monkeypatch.delenv(name, raising=False)
    return lab


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a PostgreSQL, whose password programs find in their environment."""
    with running_postgres() as server:
        monkeypatch.setenv("PGPASSWORD", urlsplit(server).password or "")
        yield server


@pytest.fixture
def output_topic(lab: Lab) -> Iterator[str]:
    """Yield an empty topic."""
    topic = f"{lab.topic}-output"
    [each.result() for each in lab.admin.create_topics([NewTopic(topic, 1, 1)]).values()]
    yield topic
    [each.result() for each in lab.admin.delete_topics([topic]).values()]


@pytest.fixture
def tested(lab: Lab, request: pytest.FixtureRequest) -> SinkLab:
    """Return the lab with all programs whose sinks exist for its Spark."""
    chosen = _tables(lab)
    if "spark.sql.catalog.lake" in lab.conf:
        chosen |= _iceberg(lab)
    else:
        chosen |= _others(lab, request.getfixturevalue("url"), request.getfixturevalue("output_topic"))
    programs = [[str(sink_lab.PROGRAMS / program), *arguments] for program, arguments, _ in chosen.values()]
    lab.application = str(sink_lab.PROGRAM)
    lab.arguments = (str(Path(__file__).with_name("all_sinks.py")), json.dumps(programs))
    return SinkLab(lab, {name: sink for name, (_, _, sink) in chosen.items()})


Chosen = dict[str, tuple[str | Path, list[str], LabSink]]
"""Program, arguments and sink, by name of the sink."""


def _tables(lab: Lab) -> Chosen:
    constant_app = Path(__file__).with_name("constant_app.py")
    return {
        "delta": ("delta.py", ["--table", f"{lab.home}/appended"], _delta(lab.home / "appended")),
        "delta, merge": ("delta.py", ["--table", f"{lab.home}/merged", "--merge"], _delta(lab.home / "merged")),
        CONSTANT: (constant_app, [f"{lab.home}/constant"], _delta(lab.home / "constant")),
    }


def _delta(folder: Path) -> LabSink:
    return LabSink(lambda: sink_lab.in_delta(folder), Sink(SinkFormat.DELTA, str(folder)))


def _iceberg(lab: Lab) -> Chosen:
    def tested(name: str) -> LabSink:
        folder = lab.home / "lake" / "flights" / name
        return LabSink(lambda: sink_lab.in_iceberg(folder), Sink(SinkFormat.ICEBERG, str(folder)))

    return {
        "iceberg": ("iceberg.py", ["--table", "lake.flights.appended"], tested("appended")),
        "iceberg, merge": ("iceberg.py", ["--table", "lake.flights.merged", "--merge"], tested("merged")),
    }


def _others(lab: Lab, server: str, topic: str) -> Chosen:
    plain, by_batch = lab.home / "plain", lab.home / "by-batch"
    to = ["--bootstrap-servers", lab.bootstrap, "--output-topic", topic]
    appended, upserted = new_database(server), new_database(server)

    def shown(url: str) -> str:
        return url.replace(f":{urlsplit(server).password}@", "@")

    return {
        "files": ("files.py", ["--folder", str(plain)], LabSink(lambda: sink_lab.in_files(plain))),
        "files, by batch": (
            "files.py",
            ["--folder", str(by_batch), "--by-batch"],
            LabSink(lambda: sink_lab.in_files(by_batch)),
        ),
        "jdbc": ("jdbc.py", ["--url", shown(appended)], LabSink(lambda: sink_lab.in_postgres(appended))),
        "jdbc, upsert": (
            "jdbc.py",
            ["--url", shown(upserted), "--upsert"],
            LabSink(lambda: sink_lab.in_postgres(upserted)),
        ),
        "kafka": ("kafka.py", to, LabSink(lambda: sink_lab.in_output_topic(lab.bootstrap, topic))),
    }


DELETE = """
import json, sys
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
for name, value in json.loads(sys.argv[1]).items():
    builder = builder.config(name, value)
builder.getOrCreate().sql("DELETE FROM lake.flights.appended WHERE " + sys.argv[2])
"""


def delete_by_hand(lab: Lab, tested: SinkLab) -> None:
    """Delete a record from each table that only appends, and check that the audit finds it."""
    gone = Record(lab.topic, 0, 3)
    where = f"partition = {gone.partition} AND offset = {gone.offset}"
    for name in ("delta", "iceberg"):
        sink = tested.sinks.get(name)
        if sink is None:
            continue
        sink.dropped[gone] += sink.held()[gone]
        if name == "delta":
            DeltaTable(lab.home / "appended").delete(where)
        else:
            conf = json.dumps({**lab.conf, "spark.jars": lab.jars})
            subprocess.run([OLD.bin / "python", "-c", DELETE, conf, where], check=True)
        report = tested.audit(name)
        found = [(each.kind, each.rows) for each in report.findings if each.kind is SinkFindingKind.REMOVED]
        assert report.verdict is SinkVerdict.NOT_PROVEN, report
        assert found == [(SinkFindingKind.REMOVED, sink.dropped[gone])]


@pytest.mark.parametrize("lab", ["newest", "4.1"], indirect=True)
def test_what_each_sink_holds(lab: Lab, tested: SinkLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(step: str) -> list[str]:
        return [name for name in tested.sinks if step in TWICE[name]]

    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    tested.check("first start")

    cut_off = tested.kill_after_the_write()
    assert sum(each.count for each in cut_off) > 0
    tested.read_again(cut_off, twice(TRIED_AGAIN))
    assert lab.maintain()["plan"]["form"] == "resume"
    lab.wait_until_idle()
    tested.check(TRIED_AGAIN)

    # Another batch is cut off right before the rewind, which reads it again under another batch id.
    cut_off = tested.kill_after_the_write()
    rewound = lab.maintain("shift:-7")["plan"]
    assert (rewound["form"], rewound["replay"]) == ("reposition", 21)
    back = [OffsetRange(lab.topic, row["partition"], row["start"], row["stored"]) for row in rewound["rows"]]
    tested.read_again([*back, *cut_off], twice(REWIND))
    lab.wait_until_idle()
    tested.check(REWIND)
    for name in PROVEN & tested.sinks.keys():
        report = tested.audit(name)
        assert (report.verdict, report.lost, report.not_recorded) == (SinkVerdict.PROVEN, 0, 0), (name, report)
    delete_by_hand(lab, tested)
    tested.check("a record that is deleted by hand")

    for interval in range(3):
        begin, killed = 10 * interval, 1 if interval == 1 else None
        first, second = (
            tuple(OffsetRange(lab.topic, number, start, start + 5) for number in range(3))
            for start in (begin, begin + 5)
        )
        tested.read_again([*first, *second], twice(SHARDS))
        tested.read_again(second if killed else (), twice(SHARD_TRIED_AGAIN))
        tested.replay(interval, first, second, killed=killed)
    lab.wait_until_idle()
    tested.check(f"{SHARDS}, {SHARD_TRIED_AGAIN}")

    # A person starts the job again with nothing but the offsets.
    known = set(in_topic(lab))
    start = {lab.topic: {str(number): 10 for number in range(3)}}
    plan = tested.start_afresh(monkeypatch, f"offsets:{json.dumps(start)}")["plan"]
    lab.produce(20, 0, 1, 2)
    lab.wait_until_idle()
    again = [OffsetRange(row["topic"], row["partition"], 10, row["end"]) for row in plan["rows"]]
    assert sum(each.count for each in again) == len(known) - 30
    tested.read_again(again, twice(AFRESH))
    tested.sinks[CONSTANT].dropped.update(set(in_topic(lab)) - known)
    tested.check(AFRESH)
    dropped = tested.audit(CONSTANT)
    assert (dropped.verdict, dropped.batches) == (SinkVerdict.REFUTED, 0)
    assert dropped.lost > 0
    assert any("batch ids begin again at 0" in note and "txnAppId" in note for note in plan["notes"]), plan["notes"]
