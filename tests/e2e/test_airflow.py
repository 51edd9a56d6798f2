"""The demo, and what people do to a DAG run in Airflow: kill its tasks, clear them, run it dry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import stack
from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.factories import load_pipelines
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.testing import FakeKafka
from demo import TOPIC, check, fresh
from demo.airflow_api import UNFINISHED, Airflow
from demo.progress import Progress, wait_for
from demo.story import OUTPUT
from tests.e2e.untracked_lab import committed_records

ROOT = Path(__file__).parents[2]
PIPELINE = "delay_alerts"
DEMO_DEADLINE_S = 3_600
RUN_DEADLINE_S = 900
KILLING_DEADLINE_S = 3_600
"""Only failing tests wait this long: a busy machine is no failure."""
CHECKS = ("preflight", "snapshot_before", "plan")
ACTS = (*CHECKS, "stop", "snapshot_stopped", "replan", "apply", "submit", "watch", "audit")
UNDO = ("roll_back", "audit_rollback")


def run_demo(store: str) -> str:
    """Run the demo as a person would, and return its output."""
    command = [sys.executable, "-m", "demo", "--store", store]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEMO_DEADLINE_S, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def assert_leakproof(printed: str) -> None:
    """Check that the last line is the verdict, and covers all flights."""
    verdict = printed.strip().splitlines()[-1]
    assert verdict.startswith("verdict: lost=0 duplicated=0 unexplained=0 replayed=5000 records=336776 downtime_s=")
    assert verdict.endswith(" sink=proven")


@pytest.fixture(scope="module")
def demo() -> str:
    """Return the output of the demo, run once for this module; the stack and the job stay up."""
    return run_demo("sqlite")


@pytest.fixture
def airflow(demo: str) -> Iterator[Airflow]:
    """Yield the maintenance DAG of the demo's pipeline, after ending a run that an earlier test left behind."""
    made = Airflow(stack.endpoints()["airflow"]["url"], f"maintenance__{PIPELINE}")
    fresh.end_earlier_runs(made, Progress())
    yield made
    made.close()


def store_url() -> str:
    """Return the URL of the store that the stack's Airflow uses."""
    connection = json.loads(stack.endpoints()["airflow"]["env"]["AIRFLOW_CONN_OFFSETS_DEFAULT"])
    return str(connection["extra"]["url"])


def epochs() -> list[Epoch]:
    """Return all epochs of the demo's pipeline."""
    store = open_store(store_url())
    try:
        return list(Control(store, PIPELINE).epochs())
    finally:
        store.close()


def living() -> list[Epoch]:
    """Return the epochs whose driver is alive."""
    return [epoch for epoch in epochs() if is_alive(epoch.holder)]


def run_to_end(airflow: Airflow, params: dict[str, Any], look: Callable[[str], None] | None = None) -> str:
    """Trigger a run, poll it, and return its id once it has ended. A test that looks at its tasks polls often."""
    run_id = f"test-{uuid.uuid4().hex[:8]}"
    airflow.trigger(run_id, {"reason": "a test", **params})
    deadline = time.monotonic() + RUN_DEADLINE_S
    while airflow.state(run_id) in UNFINISHED:
        assert time.monotonic() < deadline, airflow.tasks(run_id)
        if look is not None:
            look(run_id)
        time.sleep(0.5 if look is None else 0.05)
    return run_id


def test_demo_loses_nothing_through_two_maintenances(demo: str) -> None:
    assert_leakproof(demo)


def test_demo_loses_nothing_with_its_offsets_in_hbase() -> None:
    assert_leakproof(run_demo("hbase"))


def test_runs_whose_every_task_is_killed_once_end_the_same(airflow: Airflow) -> None:
    """A task that ended before the test saw it running is killed in a later run."""
    killed: set[str] = set()
    deadline = time.monotonic() + KILLING_DEADLINE_S
    while killed != set(ACTS):
        assert time.monotonic() < deadline, f"never seen running: {set(ACTS) - killed}"
        killed |= _run_killing(airflow, set(ACTS) - killed)


def _run_killing(airflow: Airflow, victims: set[str]) -> set[str]:
    """Rewind by ten records, kill the first try of each victim, and return the tasks that Airflow retried."""
    before, hit = epochs()[-1].number, set[str]()

    def kill_first_tries(run_id: str) -> None:
        for name, task in airflow.tasks(run_id).items():
            is_first = name in victims and task["state"] == "running" and task["try_number"] == 1 and task["pid"]
            if is_first and name not in hit and _kill(task["pid"]):
                hit.add(name)

    run_id = run_to_end(airflow, {"start": "shift:-10"}, kill_first_tries)

    assert airflow.state(run_id) == "success", airflow.log_tail(run_id, "submit")
    assert [epoch.number for epoch in living()] == [before + 1]
    audit = airflow.result(run_id, "audit")
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert airflow.result(run_id, "replan")["replay"] == 50
    tasks = airflow.tasks(run_id)
    return {name for name in hit if tasks[name]["try_number"] > 1}


def test_a_submit_that_is_killed_after_its_launch_makes_no_twin(airflow: Airflow) -> None:
    killed: list[int] = []

    def kill_after_launch(run_id: str) -> None:
        task = airflow.tasks(run_id)["submit"]
        if not killed and task["state"] == "running" and task["pid"] and _has_launched(run_id) and _kill(task["pid"]):
            killed.append(task["pid"])

    deadline = time.monotonic() + KILLING_DEADLINE_S
    while not killed:
        assert time.monotonic() < deadline, "never seen between its launch and its end"
        before = epochs()[-1].number
        run_id = run_to_end(airflow, {}, kill_after_launch)

    assert airflow.state(run_id) == "success", airflow.log_tail(run_id, "submit")
    assert [epoch.number for epoch in living()] == [before + 1]
    audit = airflow.result(run_id, "audit")
    assert (audit["lost"], audit["unexplained"]) == (0, 0)


@pytest.fixture
def archive(airflow: Airflow) -> Iterator[Airflow]:
    """Yield the maintenance DAG of the job that archives the same topic."""
    made = Airflow(airflow.url, "maintenance__archive_flights")
    yield made
    made.close()


def test_an_untracked_job_goes_through_the_same_dag(archive: Airflow) -> None:
    """The archive job of the same topic is started, and then rewound by a hundred records per partition."""
    archive.unpause()
    readings = sum(ends_of_topic().values())

    first = run_to_end(archive, {})
    assert archive.state(first) == "success", archive.log_tail(first, "submit")
    wait_until_archived(readings)
    rewound = run_to_end(archive, {"start": "shift:-100"})

    assert archive.state(rewound) == "success", archive.log_tail(rewound, "submit")
    plan, audit = archive.result(rewound, "replan"), archive.result(rewound, "audit")
    assert (plan["form"], plan["replay"]) == ("reposition", 500)
    assert (audit["lost"], audit["replayed"], audit["unexplained"]) == (0, 500, 0)
    wait_until_archived(readings + 500)
    assert Counter(archived().values()) == {1: readings - 500, 2: 500}
    run_to_end(archive, {"window_s": 400, "dry_run": False}, lambda run_id: end_once_stopped(archive, run_id))


def wait_until_archived(readings: int) -> None:
    """Wait until the archive has this many readings; each check takes a second of processor time."""
    wait_for("the archive", lambda: archived().total() >= readings, limit_s=RUN_DEADLINE_S, every_s=5)


def archived() -> Counter[tuple[int, int]]:
    """Return how often each record is in the archive."""
    return committed_records(ROOT / ".stack" / "demo" / "archive" / "output")


def end_once_stopped(archive: Airflow, run_id: str) -> None:
    """Leave the job stopped, so that other tests have the processor."""
    if archive.tasks(run_id)["snapshot_stopped"]["state"] == "success":
        archive.end_run(run_id)


def test_a_dry_run_touches_nothing(airflow: Airflow) -> None:
    before = living()

    run_id = run_to_end(airflow, {"dry_run": True, "start": "earliest"})

    assert airflow.state(run_id) == "success"
    states = {name: task["state"] for name, task in airflow.tasks(run_id).items()}
    assert states["plan"] == "success"
    assert {states[name] for name in (*set(ACTS).difference(CHECKS), *UNDO)} == {"skipped"}
    assert living() == before


def test_a_plan_that_would_skip_leaves_the_job_running(airflow: Airflow) -> None:
    before = living()

    run_id = run_to_end(airflow, {"start": "shift:5"})

    assert airflow.state(run_id) == "failed"
    assert airflow.tasks(run_id)["plan"]["try_number"] == 1, "no retry makes a refused plan valid"
    assert "skip" in airflow.log_tail(run_id, "plan", 200)
    assert airflow.tasks(run_id)["roll_back"]["state"] == "skipped", "nothing was started that could be undone"
    assert living() == before


def test_a_snapshot_that_a_person_has_named_is_where_a_restart_begins(airflow: Airflow) -> None:
    """The DAG takes and prunes it beside the running job, and a dry run plans from it."""
    snapshots = Airflow(airflow.url, f"snapshots__{PIPELINE}")
    snapshots.unpause()
    before, label = living(), f"label-{uuid.uuid4().hex[:8]}"

    taken = run_to_end(snapshots, {"label": label})
    planned = run_to_end(airflow, {"start": f"snapshot:{label}", "dry_run": True})

    assert snapshots.state(taken) == "success", snapshots.log_tail(taken, "snapshot")
    assert snapshots.result(taken, "prune") == {"snapshots": [], "checkpoints": [], "versions": [], "retained": []}
    plan = airflow.result(planned, "plan")
    assert (plan["start"], plan["replay"]) == (snapshots.result(taken, "snapshot")["position"], 0)
    assert living() == before
    snapshots.close()


def test_a_version_that_fails_on_its_third_batch_is_rolled_back(airflow: Airflow) -> None:
    """A run of the reprocess DAG deploys the version; the records that it reads came while the job was stopped."""
    job = ROOT / "jobs" / f"{PIPELINE}.py"
    bad = job.with_name(f"{PIPELINE}_fails.py")
    reprocess = Airflow(airflow.url, f"reprocess__{PIPELINE}")
    reprocess.unpause()
    ends, before = ends_of_topic(), audited()
    good, fed = living(), list[int]()

    def feed_once_stopped(run_id: str) -> None:
        if not fed and reprocess.tasks(run_id)["stop"]["state"] == "success":
            fed.append(feed(200))

    bad.write_text(failing_on_its_third_batch(job.read_text()))
    try:
        run_id = run_to_end(reprocess, {"start": "committed", "application": bad.name}, feed_once_stopped)
    finally:
        bad.unlink()

    assert reprocess.state(run_id) == "failed"
    states = {name: task["state"] for name, task in reprocess.tasks(run_id).items()}
    assert (states["submit"], states["watch"], states["audit"]) == ("success", "failed", "upstream_failed")
    assert (states["roll_back"], states["audit_rollback"]) == ("failed", "success")
    words = reprocess.log_tail(run_id, "roll_back")
    assert "RolledBack: " in words
    assert "the third batch" in words, "the reason is the job's own"
    assert "Outputs of the undone version remain" in words
    assert reprocess.tasks(run_id)["roll_back"]["try_number"] == 1

    *_, undone, back = epochs()
    assert [epoch.number for epoch in living()] == [back.number]
    assert back.claim.version == good[0].claim.version != undone.claim.version
    assert back.claim.operation == f"reprocess__{PIPELINE}/{run_id}#rollback"
    said = reprocess.result(run_id, "audit_rollback")
    assert (said["lost"], said["unexplained"], said["skipped"]) == (0, 0, 0)

    # Two batches of 40 in each of the five partitions are replayed; whether the third one is cannot be known.
    wait_for("the records to be read", lambda: len(readings_since(ends)) == 5 * 200, limit_s=RUN_DEADLINE_S)
    wait_for("the batch that read them to be recorded", lambda: audited().records == before.records + 1400, limit_s=60)
    after = audited()
    assert after.unexplained == ()
    assert (after.lost, after.skipped) == (before.lost, before.skipped) == (0, 0)
    assert after.replayed - before.replayed == 400
    assert after.replayed_at_most - before.replayed_at_most == 200
    again = Counter(tuple(numbers) for numbers in readings_since(ends).values())
    assert again == {(undone.number, back.number): 600, (back.number,): 400}
    reprocess.close()


def failing_on_its_third_batch(program: str) -> str:
    """Return a version of the demo's program that reads 200 records a batch, and fails after its third batch."""
    called = "write(batch, batch_id, stream=stream, output=chosen.output)"
    assert program.count(called) == 1
    made = program.replace('default="20000"', 'default="200"').replace(called, f"fail_third({called})")
    fail = """
CALLS = []


def fail_third(written):
    CALLS.append(written)
    if len(CALLS) == 3:
        raise ValueError("the third batch")


def main()"""
    return made.replace("\ndef main()", fail)


def feed(count: int) -> int:
    """Write this many records to each partition of the topic, and return their total."""
    producer = Producer({"bootstrap.servers": stack.endpoints()["kafka"]["bootstrap_servers"]})
    for partition in ends_of_topic():
        for number in range(count):
            producer.produce(TOPIC, json.dumps({"carrier": "UA", "flight": number}), partition=partition)
        producer.poll(0)
    assert producer.flush(RUN_DEADLINE_S) == 0
    return count


def ends_of_topic() -> dict[int, int]:
    """Return the end of each partition of the demo's topic."""
    with open_clients({"bootstrap.servers": stack.endpoints()["kafka"]["bootstrap_servers"]}) as clients:
        return KafkaReader(clients).live_topics((TOPIC,)).end.of_topic(TOPIC)


def readings_since(ends: dict[int, int]) -> dict[tuple[int, int], list[int]]:
    """Return the epochs that read each record after ``ends``, by the evidence that the job keeps."""
    found: dict[tuple[int, int], list[int]] = {}
    for (_, partition), readings in check.read_evidence(OUTPUT).items():
        found |= {(partition, offset): by for offset, by in readings.items() if offset >= ends[partition]}
    return found


def audited() -> AuditReport:
    """Return the audit of the demo's job. The audit does not query Kafka."""
    store = open_store(store_url())
    try:
        pipeline = load_pipelines(ROOT / "dags" / "pipelines.yaml")[PIPELINE]
        return audit_history(Session(pipeline, "test", store, FakeKafka()))
    finally:
        store.close()


def _has_launched(run_id: str) -> bool:
    store = open_store(store_url())
    try:
        operation = Control(store, PIPELINE).operation(f"maintenance__{PIPELINE}/{run_id}")
        return operation is not None and "launched" in operation.steps
    finally:
        store.close()


def _kill(pid: int) -> bool:
    """Kill a task's process, but only if it descends from the stack's Airflow, whatever the API answered."""
    [leader] = stack.endpoints()["airflow"]["processes"].values()
    if leader["pid"] not in _ancestors(pid):
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found
