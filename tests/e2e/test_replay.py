"""Replays on real Spark: bounded, exact and counted, without any effect on the live job beside them."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import is_session_alive
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.claim import replay_batch_id
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.core.replay.shard import ShardPhase, ShardRecord
from airflow_provider_offsets.errors import ShardFailed
from airflow_provider_offsets.operators import ReplayOffsetsOperator
from tests.e2e.lab import DEADLINE_S, Lab, Task, act, wait_for

JOB = str(Path(__file__).with_name("replay_job.py"))


class Replays:
    """What the tests do with a lab's shards."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.operation = f"{lab.topic}/run-1"

    def run_id(self, attempt: int = 1) -> str:
        return f"{self.operation}#abc#{attempt}"

    def task(self, *ranges: tuple[int, int, int], number: int = 0, attempt: int = 1) -> Task:
        shard = Shard(number, tuple(OffsetRange(self.lab.topic, *each) for each in ranges))
        settings = {"shard": codec.plain(shard), "run_id": self.run_id(attempt)}
        return self.lab.task(ReplayOffsetsOperator, self.operation, **settings)

    def replay(self, *ranges: tuple[int, int, int], number: int = 0, attempt: int = 1) -> Any:
        task = self.task(*ranges, number=number, attempt=attempt)
        return task.operator(task_id="replay", **task.settings).execute({"params": {}})

    def record(self, number: int = 0, attempt: int = 1) -> ShardRecord:
        return ReplayControl(self.lab.store, self.lab.pipeline.name).shard(self.run_id(attempt), number)

    def evidence(self) -> Counter[tuple[int, int, int, str]]:
        """Return how often each partition and offset was read, by batch id and run id; the live job has no run id."""
        path = self.lab.home / "evidence.db"
        if not path.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(path, timeout=DEADLINE_S)) as database:
            rows = database.execute("SELECT partition, offset, batch_id, run_id FROM evidence").fetchall()
        return Counter(rows)

    def read_by(self, run_id: str) -> Counter[tuple[int, int]]:
        return Counter((row[0], row[1]) for row in self.evidence().elements() if row[3] == run_id)


def expected(*ranges: tuple[int, int, int]) -> Counter[tuple[int, int]]:
    return Counter((partition, offset) for partition, start, end in ranges for offset in range(start, end))


def rows_of(record: ShardRecord) -> tuple[int | None, bool]:
    """Return the rows that Spark says a shard wrote, and whether it saw none."""
    assert record.read is not None
    return record.read.rows_written, record.read.is_empty


@pytest.fixture
def lab(make_lab) -> Lab:
    lab = make_lab(application=JOB)
    lab.produce(100, 0, 1, 2)
    return lab


def test_the_live_program_replays_a_shard_beside_the_live_job(lab: Lab) -> None:
    replays = Replays(lab)
    lab.arguments = ("files",)
    lab.maintain()
    lab.wait_until_read()
    lab.wait_until_idle()
    before = lab.standing()
    audit = lab.audit()
    assert (audit["rows_written"], audit["warnings"]) == (300, []), "Spark counts the rows of the Parquet files"
    shard = ((0, 10, 60), (2, 99, 100))

    done = replays.replay(*shard)

    assert replays.read_by(replays.run_id()) == expected(*shard)
    assert {row[2] for row in replays.evidence() if row[3]} == {replay_batch_id(replays.run_id(), 0)}
    assert (done["records_read"], done["records_expected"], done["counted_apart"]) == (51, 51, False)
    assert rows_of(replays.record()) == (51, False)
    assert lab.standing() == before, "epochs, history and checkpoint of the live job are as they were"
    assert lab.processes("python"), "the live job runs"

    # A second run under the same run id is skipped; under another one it is executed.
    assert replays.replay(*shard) == done
    assert replays.read_by(replays.run_id()) == expected(*shard)
    replays.replay(*shard, attempt=2)
    assert replays.read_by(replays.run_id(2)) == expected(*shard)
    assert lab.audit()["unexplained"] == 0
    assert list(lab.home.rglob("*.settings.json")) == []


def test_a_driver_that_dies_is_followed_by_another_with_the_same_ids(lab: Lab) -> None:
    replays = Replays(lab)
    (lab.home / "kill").touch()
    with pytest.raises(ShardFailed, match="try 1 died"):
        replays.replay((0, 0, 10))

    replays.replay((0, 0, 10))

    written = replays.evidence()
    assert set(written.values()) == {2}, "it died after it wrote: replayed, and an upsert has it once"
    assert len({row[2:] for row in written}) == 1, "one batch id and one run id"


def test_killed_tasks_and_a_superseded_driver(lab: Lab) -> None:
    replays = Replays(lab)
    (lab.home / "hold").touch()
    tasks = [_in_a_process(replays.task((0, 0, 10)))]
    wait_for((lab.home / "hold.happened").exists, "the driver to have written")
    orphan = replays.record()
    assert orphan.driver is not None
    os.kill(tasks[0].pid, signal.SIGKILL)
    tasks[0].join(DEADLINE_S)
    assert is_session_alive(orphan.driver), "the driver outlives a task that is killed"

    # The next try of the task launches no second driver.
    adopting = _in_a_process(replays.task((0, 0, 10)))
    (lab.home / "hold").unlink()
    adopting.join(DEADLINE_S)
    assert adopting.exitcode == 0
    assert replays.record().started == 1
    assert replays.read_by(replays.run_id()) == expected((0, 0, 10))

    # A driver of an earlier attempt is stopped before the next attempt begins, and records nothing.
    (lab.home / "hold.happened").unlink()
    (lab.home / "hold").touch()
    left = _in_a_process(replays.task((1, 0, 10), number=1))
    wait_for((lab.home / "hold.happened").exists, "the driver to have written")
    os.kill(left.pid, signal.SIGKILL)
    left.join(DEADLINE_S)
    old = replays.record(1).driver
    assert old is not None
    cleared = _in_a_process(replays.task((1, 0, 10), number=1, attempt=2))
    wait_for(lambda: replays.record(1, attempt=2).driver, "the driver of the new attempt")
    assert not is_session_alive(old)
    (lab.home / "hold").unlink()
    cleared.join(DEADLINE_S)
    assert cleared.exitcode == 0
    assert replays.record(1).phase is ShardPhase.SUPERSEDED
    assert replays.record(1, attempt=2).read.records_read == 10


def test_a_task_that_is_ended_ends_its_driver(lab: Lab) -> None:
    replays = Replays(lab)
    (lab.home / "hold").touch()
    task = replays.task((0, 0, 10))
    operator = task.operator(task_id="replay", **task.settings)
    failed: list[BaseException] = []

    def execute() -> None:
        try:
            operator.execute({"params": {}})
        except BaseException as error:
            failed.append(error)

    running = threading.Thread(target=execute)
    running.start()
    wait_for((lab.home / "hold.happened").exists, "the driver to have written")
    operator.on_kill()
    running.join(DEADLINE_S)

    [error] = failed
    assert isinstance(error, ShardFailed)
    assert lab.processes("python") == lab.processes("java") == []
    assert replays.record().read is None


def test_transforms_that_keep_state_are_refused(lab: Lab) -> None:
    lab.arguments = ("stateful",)
    replays = Replays(lab)
    with pytest.raises(AirflowFailException, match=r"InputRefused(.|\n)*Deduplicate between read_kafka"):
        replays.replay((0, 0, 10))
    assert replays.evidence() == {}


def test_what_is_counted(lab: Lab) -> None:
    replays = Replays(lab)
    # An action that reads one record before the real work does not hide the others.
    lab.arguments = ("peek",)
    done = replays.replay((0, 0, 50), (1, 0, 50))
    assert (done["records_read"], done["counted_apart"]) == (100, False)

    assert rows_of(replays.record()) == (None, True), "Spark does not see SQLite"

    # A sink that knows the batch reads nothing: the driver counts.
    lab.arguments = ("known",)
    (lab.home / "kill").touch()
    with pytest.raises(ShardFailed):
        replays.replay((0, 0, 50), number=1)
    done = replays.replay((0, 0, 50), number=1)
    assert (done["records_read"], done["counted_apart"]) == (50, True)

    # With a sink of Spark's own the replay has its own function.
    lab.arguments = ("sink",)
    done = replays.replay((2, 0, 50), number=2)
    assert (done["records_read"], done["counted_apart"]) == (50, False)
    assert replays.read_by(replays.run_id()) == expected((0, 0, 50), (1, 0, 50), (2, 0, 50)) + expected((0, 0, 50))

    # Records that retention deletes while the shard runs are reported.
    lab.arguments = ()
    lab.delete_records(0, 20)
    with pytest.raises(ShardFailed, match=r"OffsetOutOfRange|data loss|aged out|failOnDataLoss"):
        replays.replay((0, 0, 50), number=3)


def test_a_shadow_table_is_swapped_in(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Path(__file__).parents[2] / "jobs"
    monkeypatch.syspath_prepend(str(jobs))
    import shadow_table

    output = lab.home / "shadow.db"
    for delay in (30, 5, 90, None) * 5:
        lab.producer.produce(lab.topic, json.dumps({"dep_delay": delay}).encode(), partition=0)
    assert lab.producer.flush(DEADLINE_S) == 0
    # The output of a program with a bug: every flight, each of them late.
    shadow_table.create(output)
    wrong = [(lab.topic, 0, offset, "", 0.0, "late") for offset in range(90, 120)]
    shadow_table.write_live(output, wrong)
    job = replace(
        lab.pipeline.job, application=str(jobs / "shadow_delay_alerts.py"), arguments=("--output", str(output))
    )
    replays = Replays(lab)
    task = replays.task((0, 100, 115))
    task.settings["pipeline"] = replace(lab.pipeline, job=job)

    def alerts() -> dict[int, str]:
        with contextlib.closing(sqlite3.connect(output)) as database:
            return dict(database.execute("SELECT offset, verdict FROM alerts").fetchall())

    done = act(task)
    assert (done["records_read"], alerts()) == (15, {row[2]: "late" for row in wrong})

    assert shadow_table.swap(output, replays.run_id()) == 8
    right = {offset: "late" for offset in (*range(90, 100), *range(115, 120))}
    right |= {offset: ("late", "", "very late", "")[offset % 4] for offset in range(100, 115)}
    assert alerts() == {offset: verdict for offset, verdict in right.items() if verdict}


def _in_a_process(task: Task) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=act, args=(task,))
    process.start()
    return process
