"""Airflow's own backfill over six days of flights, beside the live job.

A shard is killed, and a day is replayed again with a changed program. In the end the table holds what an independent
reader of the topic computes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import stack
from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories import load_pipelines
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores import open_store
from demo import fresh
from demo.airflow_api import UNFINISHED, Airflow
from demo.backfill_command import create_backfill
from demo.feed import Flight, read_flights
from demo.progress import Progress, wait_for

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("backfill_job.py")
LIMIT_S = 900
"""Only a failing test waits this long: a busy machine is no failure."""
DAYS = [f"2013-01-{day:02}" for day in range(1, 7)]
FIXED = "2013-01-03"
PARTITIONS = 3
PER_SHARD = 900
"""Some of the six days have more flights, and therefore two shards."""

DAG_FILE = """\
from airflow_provider_offsets.factories import backfill_dag, backfill_then_live_dag, load_pipelines, maintenance_dag

[pipeline] = load_pipelines("{file}").values()
maintenance = maintenance_dag(pipeline)
backfill = backfill_dag(pipeline)
backfill_then_live = backfill_then_live_dag(pipeline)
"""


class Row(NamedTuple):
    """One row of the table."""

    flight: str
    is_late: bool
    run_id: str


class Place:
    """A pipeline of its own in the stack's Airflow: topic, program, folder and DAG file."""

    def __init__(self, airflow: dict[str, Any], bootstrap: str) -> None:
        self.name = f"times-{uuid.uuid4().hex[:8]}"
        self.env = airflow["env"]
        self.url = airflow["url"]
        self.store_url = json.loads(self.env["AIRFLOW_CONN_OFFSETS_DEFAULT"])["extra"]["url"]
        self.bootstrap = bootstrap
        self._open = ExitStack()
        self.home = ROOT / ".stack" / "e2e" / self.name
        self.dags = ROOT / "dags" / "e2e"
        for folder in (self.home / "jobs", self.dags):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(JOB, self.home / "jobs" / "times.py")
        (self.home / "pipelines.yaml").write_text(json.dumps({"pipelines": {self.name: self._entry()}}))
        (self.dags / f"{self.name}.py").write_text(DAG_FILE.format(file=self.home / "pipelines.yaml"))

    def _entry(self) -> dict[str, Any]:
        return {
            "topics": [self.name],
            "job": {
                "application": "jobs/times.py",
                "arguments": [str(self.home)],
                "checkpoint": "checkpoint",
                "log_dir": "logs",
                "jars": list(map(str, stack.jars("spark"))),
                "conf": {
                    "spark.ui.enabled": False,
                    "spark.sql.shuffle.partitions": 2,
                    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
                },
            },
            "start_timeout_s": LIMIT_S,
            "start": "earliest",
            "rollback": {"watch_s": 2, "stall_s": LIMIT_S},
            "backfill": {"records_per_shard": PER_SHARD, "parallel_shards": 1},
        }

    @property
    def pipeline(self) -> StreamingPipeline:
        return load_pipelines(self.home / "pipelines.yaml")[self.name]

    def dag(self, kind: str) -> Airflow:
        """Return one unpaused DAG of the pipeline, once Airflow has parsed it."""
        made = Airflow(self.url, f"{kind}__{self.name}")
        self._open.callback(made.close)
        wait_for(f"DAG {made.dag_id} in Airflow", made.is_known, limit_s=LIMIT_S)
        made.unpause()
        return made

    def change_program(self) -> str:
        """Deploy a version that calls fewer flights late, and return its name."""
        text = JOB.read_text().replace("LATE_MINUTES = 15", "LATE_MINUTES = 60")
        assert text != JOB.read_text()
        (self.home / "jobs" / "times_2.py").write_text(text)
        return "times_2.py"

    def feed(self, flights: list[Flight]) -> None:
        """Write flights, each with its time, and wait until all are acknowledged."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        lost: list[Any] = []
        for flight in flights:
            producer.produce(
                self.name,
                key=flight.tail_number,
                value=flight.value,
                timestamp=flight.scheduled_ms,
                on_delivery=lambda error, _: lost.append(error) if error else None,
            )
            producer.poll(0)
        assert (producer.flush(LIMIT_S), lost) == (0, [])

    def table(self) -> dict[tuple[int, int], Row]:
        if not (self.home / "times.db").exists():
            return {}
        with closing(sqlite3.connect(self.home / "times.db", timeout=60)) as database:
            rows = database.execute("SELECT partition, offset, flight, is_late, run_id FROM times").fetchall()
        return {(row[0], row[1]): Row(row[2], bool(row[3]), row[4]) for row in rows}

    def records(self, fixed: Container[str]) -> dict[tuple[int, int], tuple[str, Row]]:
        """Read the topic with Kafka's own client, and return the day and the expected row of each record.

        :param fixed: the days that the changed program has read.
        """
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False})
        partitions = [TopicPartition(self.name, number, 0) for number in range(PARTITIONS)]
        total = sum(consumer.get_watermark_offsets(each)[1] for each in partitions)
        consumer.assign(partitions)
        found: dict[tuple[int, int], tuple[str, Row]] = {}
        while len(found) < total:
            for message in consumer.consume(1000, timeout=10):
                assert message.error() is None
                found[message.partition(), message.offset()] = owed(message, fixed)
        consumer.close()
        return found

    def audit_of_live_job(self) -> AuditReport:
        with (
            closing(open_store(self.store_url)) as store,
            open_clients({"bootstrap.servers": self.bootstrap}) as clients,
        ):
            return audit_history(Session(self.pipeline, "test", store, KafkaReader(clients)))

    def living_shards(self, runs: Iterable[str]) -> list[int]:
        """Return the drivers that replay now, by their process."""
        with closing(open_store(self.store_url)) as store:
            control = ReplayControl(store, self.name)
            shards = [each for run_id in runs for each in control.shards_of(f"backfill__{self.name}/{run_id}")]
            drivers = [record.driver for _, _, record in shards]
            return [each.pid for each in drivers if each is not None and is_alive(each)]

    @contextmanager
    def control(self) -> Iterator[Control]:
        """Yield the control store of the pipeline."""
        with closing(open_store(self.store_url)) as store:
            yield Control(store, self.name)

    def close(self) -> None:
        """Stop the live job, and remove the DAGs."""
        self._open.close()
        with self.control() as control:
            record = control.record()
        holder = None if record is None else record.holder
        if holder is not None and is_alive(holder):
            os.killpg(os.getpgid(holder.pid), signal.SIGKILL)
        (self.dags / f"{self.name}.py").unlink(missing_ok=True)


def owed(message: Message, fixed: Container[str]) -> tuple[str, Row]:
    """Return the day of a record, and its expected row."""
    kind, time_ms = message.timestamp()
    assert kind == TIMESTAMP_CREATE_TIME
    day, flight = day_of(time_ms), json.loads(message.value())
    late_minutes = 60 if day in fixed else 15
    is_late = flight["dep_delay"] is not None and flight["dep_delay"] >= late_minutes
    return day, Row(f"{flight['carrier']}{flight['flight']}", is_late, "")


def day_of(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Yield the pipeline with an empty topic, before its live job is started."""
    if "airflow" not in stack.endpoints():
        done = subprocess.run([sys.executable, "-m", "stack", "up", "kafka", "airflow"], cwd=ROOT, check=False)
        assert done.returncode == 0
    fresh.stop_earlier_jobs(Progress())  # of another test, which would take processor time from this one
    up = stack.endpoints()
    made = Place(up["airflow"], up["kafka"]["bootstrap_servers"])
    fresh.create_store(made.store_url)
    admin = AdminClient({"bootstrap.servers": made.bootstrap, "log_level": 4})
    config = {"retention.ms": "-1", "segment.ms": str(20 * 365 * 24 * 3600 * 1000)}
    admin.create_topics([NewTopic(made.name, PARTITIONS, 1, config=config)])[made.name].result(timeout=120)
    yield made
    made.close()
    admin.delete_topics([made.name])[made.name].result(timeout=120)


def run_of(airflow: Airflow, run_id: str) -> None:
    wait_for(f"run {run_id} to end", lambda: airflow.state(run_id) not in UNFINISHED, limit_s=LIMIT_S)
    assert airflow.state(run_id) == "success", f"{run_id}: {airflow.tasks(run_id)}"


@pytest.fixture(scope="module")
def by_day() -> dict[str, list[Flight]]:
    """Return the flights of the first days of 2013."""
    found: dict[str, list[Flight]] = {}
    for flight in read_flights()[:8_000]:
        found.setdefault(day_of(flight.scheduled_ms), []).append(flight)
    return found


def test_six_days_beside_the_live_job_and_then_live_from_there(place: Place, by_day: dict[str, list[Flight]]) -> None:
    """One sequence of steps, in this order."""
    backfill_six_days(place, by_day)
    go_on_live_where_a_replay_ended(place, by_day)


def backfill_six_days(place: Place, by_day: dict[str, list[Flight]]) -> None:
    next_day = by_day["2013-01-07"]
    place.feed([flight for day in DAYS for flight in by_day[day]] + next_day[:300])
    live, backfill = place.dag("maintenance"), place.dag("backfill")
    live.trigger("start", {"reason": "the live job"})
    run_of(live, "start")
    total = sum(len(by_day[day]) for day in DAYS) + 300
    wait_for("the live job to read all there is", lambda: len(place.table()) == total, limit_s=LIMIT_S)

    # Shards wait while this file exists, so that one is certainly running when it is killed.
    hold = place.home / "hold"
    hold.touch()
    create_backfill(backfill, place.env, DAYS[0], DAYS[-1])
    runs = {run["logical_date"][:10]: run["dag_run_id"] for run in backfill.runs()}
    assert sorted(runs) == DAYS
    wait_for("a shard of each of two runs", lambda: len(place.living_shards(runs.values())) == 2, limit_s=LIMIT_S)
    os.kill(place.living_shards(runs.values())[0], signal.SIGKILL)
    hold.unlink()
    place.feed(next_day[300:])
    for run_id in runs.values():
        run_of(backfill, run_id)

    tries = [
        task["try_number"]
        for run_id in runs.values()
        for task in backfill.all_tasks(run_id)
        if task["task_id"] == "replay"
    ]
    shards = sum(-(-len(by_day[day]) // PER_SHARD) for day in DAYS)
    assert shards > len(DAYS), "the test of the test: some day has two"
    assert Counter(tries) == {1: shards - 1, 2: 1}, "only the shard that was killed was tried again"
    first_ids = {day: backfill.result(run_id, "audit_backfill")["run_id"] for day, run_id in runs.items()}
    assert runs_in(place) == {**Counter({first_ids[day]: len(by_day[day]) for day in DAYS}), "": len(next_day)}

    version = place.change_program()
    conf = json.dumps({"application": version})
    create_backfill(backfill, place.env, FIXED, FIXED, "--dag-run-conf", conf)
    wait_for(
        "the day to begin again",
        lambda: backfill.tasks(runs[FIXED])["plan_backfill"]["try_number"] == 2,
        limit_s=LIMIT_S,
    )
    run_of(backfill, runs[FIXED])

    audits = {day: backfill.result(run_id, "audit_backfill") for day, run_id in runs.items()}
    assert audits[FIXED]["run_id"] != first_ids[FIXED]
    for day, audit in audits.items():
        assert audit["records_read"] == audit["records_expected"] == len(by_day[day])
        assert audit["findings"] == []
    assert audits[FIXED]["total"]["intervals_done"] == 6
    assert audits[FIXED]["total"]["records_read"] == sum(len(by_day[day]) for day in DAYS)
    expected = {
        where: row._replace(run_id=audits[day]["run_id"] if day in audits else "")
        for where, (day, row) in place.records([FIXED]).items()
    }
    assert place.table() == expected
    live_audit = place.audit_of_live_job()
    assert (live_audit.lost, live_audit.replayed, live_audit.unexplained_count) == (0, 0, 0)
    assert live_audit.records == len(expected)


def runs_in(place: Place) -> dict[str, int]:
    """Return how many rows each run was the last to write."""
    return dict(Counter(row.run_id for row in place.table().values()))


def go_on_live_where_a_replay_ended(place: Place, by_day: dict[str, list[Flight]]) -> None:
    """Replay all since day 5 with the changed program, beside the old one, and start it at the boundary."""
    dag, before = place.dag("backfill_then_live"), len(place.table())
    hold = place.home / "hold"
    hold.touch()

    dag.trigger("again", {"from": "2013-01-05T00:00Z", "application": place.change_program(), "reason": "a test"})
    wait_for("the plan", lambda: dag.tasks("again")["plan_backfill"]["state"] == "success", limit_s=LIMIT_S)
    place.feed(by_day["2013-01-08"][:100])
    wait_for("the old version to read them", lambda: len(place.table()) == before + 100, limit_s=LIMIT_S)
    hold.unlink()
    run_of(dag, "again")
    place.feed(by_day["2013-01-08"][100:150])
    wait_for("the new version to read on", lambda: len(place.table()) == before + 150, limit_s=LIMIT_S)

    replay, plan = dag.result("again", "audit_backfill"), dag.result("again", "replan")
    with place.control() as control:
        epoch = control.claimed_epoch(control.record())
    assert epoch is not None
    ends = epoch.claim.start.of_topic(place.name)
    assert sum(ends.values()) == before, "it begins where the log ended when the replay was planned"
    assert replay["records_read"] == sum(len(by_day[f"2013-01-{day:02}"]) for day in (5, 6, 7))
    assert plan["replay"] == 100
    audit = place.audit_of_live_job()
    assert (audit.lost, audit.skipped, audit.replayed, audit.unexplained_count) == (0, 0, 100, 0)
    since = [f"2013-01-{day:02}" for day in (5, 6, 7, 8)]
    rows = place.table()
    for where, (day, row) in place.records([FIXED, *since]).items():
        partition, offset = where
        by_replay = day in since and offset < ends[partition]
        assert rows[where].is_late == row.is_late, (where, day)
        assert (rows[where].run_id == replay["run_id"]) is by_replay, (where, day)
