"""The files of ``docs/examples`` run in Airflow (``dag.test``), with a store in SQLite, Kafka and the job in memory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.utils.db import initdb

from airflow_provider_offsets import connections
from airflow_provider_offsets.backends.driver_probe import ANSWER
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.preflight import Driver as Seen
from airflow_provider_offsets.kafka import reader
from airflow_provider_offsets.operators import submit
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.triggers import streaming_job
from tests.unit.airflow_versions import dag_bag
from tests.unit.conftest import Connect
from tests.unit.operations.lab import TOPIC, Driver, Lab, install
from tests.unit.operators.test_operators import submitted_with_the_lab_s_reader

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
Program = Callable[[str, str], None]
Run = Callable[..., dict[str, Any]]
SEEN = Seen("4.2.0", "4.2.0", "3.11.2 (/usr/bin/python3)", "spark-sql-kafka-0-10_2.13-4.2.0.jar", {})

pytestmark = [
    pytest.mark.in_airflow,
    # Airflow's API server, which ``dag.test`` runs in the process, imports an old name of its test client.
    pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated"),
]


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    """Create the tables of Airflow in the home of the unit tests."""
    initdb()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Yield a lab whose store is a SQLite file, which each task opens as in production."""
    folder = tmp_path / "lab"
    folder.mkdir()
    store = open_store(f"sqlite:///{tmp_path}/offsets.db")
    store.create()
    made = install(Lab(folder, store=store), monkeypatch)  # type: ignore[arg-type]  # the lab's own is in memory
    yield made
    store.close()


@pytest.fixture
def program(spark_submit: Path) -> Callable[[str, str], None]:
    """Return a function that puts a shell script on the PATH, in place of one that a user has there."""

    def put(name: str, script: str) -> None:
        file = spark_submit.with_name(name)
        file.write_text(f"#!/bin/sh -e\n{script}\n")
        file.chmod(0o755)

    return put


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect the tasks with the lab. Its spark-submit answers a preflight, and its drivers are in memory."""
    program("spark-submit", f"echo '{ANSWER}{codec.dumps(SEEN)}'")
    connect("offsets_default", "offsets", extra={"url": f"sqlite:///{tmp_path}/offsets.db"})
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker.example:9092"})
    connect("spark_default", "spark", host="local[2]")

    @contextmanager
    def no_clients(kafka_conn_id: str) -> Iterator[None]:
        yield

    async def sleep(seconds: float) -> None:
        lab.clock.sleep(seconds)

    monkeypatch.setattr(connections, "open_kafka", no_clients)
    monkeypatch.setattr(reader, "KafkaReader", lambda clients: lab.kafka)
    monkeypatch.setattr(submit, "submit_job", submitted_with_the_lab_s_reader())
    monkeypatch.setattr(streaming_job, "asyncio", SimpleNamespace(to_thread=asyncio.to_thread, sleep=sleep))


@pytest.fixture
def run(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Yield a function that runs an example beside a ``pipelines.yaml`` for the lab.

    It returns what each task gave, or the state of each task if the run failed.
    """
    folder = tmp_path / "dags"
    folder.mkdir()
    file = yaml.safe_load((EXAMPLES / "pipelines.yaml").read_text())
    job = {"application": lab.pipeline.job.application, "checkpoint": lab.pipeline.job.checkpoint}
    file["pipelines"]["orders"] |= {"topics": [TOPIC], "job": job}
    (folder / "pipelines.yaml").write_text(yaml.safe_dump(file))
    Path(lab.pipeline.job.application).write_text("")
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(folder))

    def run_example(example: str, *, fails: bool = False, **conf: Any) -> dict[str, Any]:
        for old in folder.glob("*.py"):
            old.unlink()
        shutil.copy(EXAMPLES / example, folder)
        [dag] = dag_bag(folder / example).dags.values()
        for task in dag.tasks:
            task.retries = 0  # Airflow would wait for minutes before it runs a failed task again
        ended = dag.test(run_conf=conf)
        tasks = ended.get_task_instances()
        states = {each.task_id: str(each.state) for each in tasks}
        assert ended.state == ("failed" if fails else "success"), states
        return states if fails else {each.task_id: each.xcom_pull(task_ids=each.task_id) for each in tasks}

    yield run_example
    shutil.rmtree(folder)  # no two files may describe a pipeline of one name


@pytest.fixture
def control(lab: Lab) -> Control:
    """Return the control records of the pipeline in the examples."""
    return Control(lab.store, "orders")


@pytest.fixture
def running(run: Run, lab: Lab) -> Driver:
    """Return the driver of a job that has read 100 records of each partition. An example has started it."""
    run("restart_job.py")
    return lab.driver


def test_take_snapshot(run: Run, running: Driver, control: Control) -> None:
    taken = run("take_snapshot.py", label="before-2.2")["snapshot"]

    assert taken["position"] == {TOPIC: {"0": 100, "1": 100}}
    assert control.named_snapshot("before-2.2").id == taken["id"]


def test_check_start(run: Run, running: Driver, program: Program) -> None:
    findings = run("check_start.py")["preflight"]["findings"]
    assert "Kafka connector" in [each["subject"] for each in findings]

    program("spark-submit", f"echo '{ANSWER}{codec.dumps(replace(SEEN, connector=''))}'")

    assert run("check_start.py", fails=True) == {"preflight": "failed"}
    assert running.is_alive


def test_plan_restart(run: Run, running: Driver, control: Control) -> None:
    given = run("plan_restart.py", start="shift:-30", approve=False)

    assert (given["plan"]["form"], given["plan"]["replay"]) == ("reposition", 60)
    record = control.record()
    assert record is not None
    assert (record.epoch, record.stop, running.is_alive) == (1, None, True), "the plan is not carried out"


def test_stop_job(run: Run, running: Driver, control: Control) -> None:
    given = run("stop_job.py")

    assert not running.is_alive
    assert [epoch.ended.how for epoch in control.epochs() if epoch.ended] == [EndedHow.STOPPED]
    assert given["snapshot_stopped"]["position"] == {TOPIC: {"0": 100, "1": 100}}


def test_restart_job(run: Run, running: Driver, lab: Lab) -> None:
    lab.feed(50)

    given = run("restart_job.py", start="shift:-30")

    assert not running.is_alive
    assert (given["submit"]["epoch"], given["submit"]["start"]) == (2, {TOPIC: {"0": 70, "1": 70}})
    assert given["watch"]["health"] == "healthy"


def test_audit_history(run: Run, running: Driver, lab: Lab) -> None:
    audit = run("audit_history.py")["audit"]
    assert (audit["records"], audit["lost"], audit["unexplained"]) == (200, 0, 0)

    hole = Batch(lab.at(100, 150), 9000, 9, "query-1", 1, lab.at(100, 110))
    lab.store.append(Stream("orders", (TOPIC,)), hole)

    assert run("audit_history.py", fails=True) == {"audit": "failed"}


def test_wait_for_job(run: Run, running: Driver, lab: Lab, program: Program, tmp_path: Path) -> None:
    """The report sees the records that were in the topic when the run began, and the job had not read."""
    lab.feed(50)
    program("report-orders", f"touch {tmp_path}/reported")

    given = run("wait_for_job.py")

    assert given["has_caught_up"]["status"] == "reached"
    assert lab.store.position(Stream("orders", (TOPIC,))) == lab.at(150, 150)
    assert (tmp_path / "reported").exists()


class TestMigrateOrders:
    def test_the_schema_is_migrated_while_no_job_runs(
        self, run: Run, running: Driver, lab: Lab, program: Program, tmp_path: Path
    ) -> None:
        lab.feed(50)
        migrated, seen = tmp_path / "migrated", []
        program("alembic", f'test "$*" = "upgrade head"\ntouch {migrated}')
        end = running.end
        running.end = lambda how: (seen.append(("stopped", migrated.exists())), end(how))  # type: ignore[method-assign,assign,func-returns-value]
        lab.on_launch = lambda driver: seen.append(("started", migrated.exists()))

        given = run("migrate_orders.py", approve=False)

        assert seen == [("stopped", False), ("started", True)]
        assert (given["stop"]["epoch"], given["submit"]["epoch"]) == (1, 2)
        assert given["replan"]["form"] == "resume"
        audit = given["audit"]
        assert (audit["records"], audit["lost"], audit["replayed"], audit["unexplained"]) == (300, 0, 0, 0)

    def test_a_migration_that_fails_starts_nothing(
        self, run: Run, running: Driver, control: Control, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program("alembic", "exit 1")

        states = run("migrate_orders.py", fails=True, approve=False)

        assert (states["stop"], states["migrate_schema"], states["submit"]) == ("success", "failed", "upstream_failed")
        record = control.record()
        assert record is not None
        assert (record.epoch, running.is_alive) == (1, False)


def test_each_example_has_a_test() -> None:
    tests = Path(__file__).read_text()

    assert [each.name for each in EXAMPLES.glob("*.py") if f'run("{each.name}"' not in tests] == []
