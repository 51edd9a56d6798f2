"""One pipeline on the real stack: its topic, its store, its job and its evidence, driven by the operators."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

import stack
from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, Epoch
from airflow_provider_offsets.core.pipeline import RollbackPolicy, SparkJob, StopPolicy, StreamingPipeline, Subscription
from airflow_provider_offsets.core.record.model import PipelineRecord, StartedBatch
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.core.snapshot import Observation
from airflow_provider_offsets.operators import (
    ApplyOffsetsOperator,
    AuditOffsetsOperator,
    PlanRestartOperator,
    SnapshotOffsetsOperator,
    StopStreamingJobOperator,
    SubmitStreamingJobOperator,
)
from airflow_provider_offsets.stores import open_store

JOB = Path(__file__).with_name("evidence_job.py")
DEADLINE_S = 300
"""Only a failing test waits this long: a busy machine is no failure."""


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return what ``condition`` returns once it is true; fail with ``what`` after the deadline."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {deadline_s} s for {what}"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Task:
    """One operator with its arguments, which another process can execute."""

    operator: type
    settings: dict[str, Any]


def act(task: Task) -> Any:
    """Execute one operator the way its Airflow task would, and return what it would push to XCom."""
    run = SimpleNamespace(max_tries=0, start_date=None)
    return task.operator(task_id="task", **task.settings).execute({"params": {}, "ti": run, "dag_run": run})


def _act_and_die(task: Task, at: str, when: str, step: str | None) -> None:
    owner = RecordCell if at == "change" else Control
    method = getattr(owner, at)

    def dying(*arguments: Any, **settings: Any) -> Any:
        dies = step is None or step in (*arguments, *(type(each).__name__ for each in arguments))
        if dies and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        given = method(*arguments, **settings)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return given

    setattr(owner, at, dying)
    act(task)


@dataclass
class Lab:
    """A topic with its pipeline and store. ``home`` is a new folder."""

    home: Path
    bootstrap: str
    store_url: str
    topic: str = field(default_factory=lambda: f"e2e-{uuid.uuid4().hex[:8]}")
    subscription: Subscription = Subscription.SUBSCRIBE
    application: str = str(JOB)
    arguments: tuple[str, ...] = ()
    """Arguments of the application, after ``home``."""
    jars: str = field(default_factory=lambda: ",".join(map(str, stack.jars("spark"))))
    stop_policy: StopPolicy = field(default_factory=lambda: StopPolicy(graceful_timeout_s=DEADLINE_S))
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    rollback: RollbackPolicy = field(default_factory=lambda: RollbackPolicy(watch_s=2, stall_s=DEADLINE_S))
    operations: int = 0
    checkpoint: str = ""
    """Location of the checkpoint, if not in ``home``."""
    conf: dict[str, str] = field(default_factory=dict)
    """Settings of Spark, in addition to those of every lab."""
    sink: Sink | None = None
    """The sink that the pipeline names."""

    def __post_init__(self) -> None:
        self._open = contextlib.ExitStack()
        self.admin = self._open.enter_context(AdminClient({"bootstrap.servers": self.bootstrap}))
        self.producer = Producer({"bootstrap.servers": self.bootstrap, "topic.metadata.refresh.interval.ms": 500})
        self.produced: Counter[int] = Counter()
        self.store = open_store(self.store_url)
        self.faults()

    @property
    def pipeline(self) -> StreamingPipeline:
        """The pipeline as the operators get it."""
        return StreamingPipeline(
            name=self.topic,
            topics=(self.topic,),
            subscription=self.subscription,
            stop=self.stop_policy,
            start_timeout_s=DEADLINE_S,
            policy=self.policy,
            rollback=self.rollback,
            job=self.job,
            sink=self.sink,
        )

    @property
    def job(self) -> SparkJob:
        """The job: its program, and how it is submitted."""
        return SparkJob(
            application=self.application,
            checkpoint=self.checkpoint or str(self.home / "checkpoint"),
            log_dir=str(self.home / "checkpoint.logs"),
            arguments=(str(self.home), *self.arguments),
            jars=self.jars,
            conf={
                "spark.ui.enabled": "false",
                "spark.sql.shuffle.partitions": "2",
                "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
                **self.conf,
            },
        )

    @property
    def control(self) -> Control:
        """The control store of the pipeline."""
        return Control(self.store, self.topic)

    @property
    def record(self) -> PipelineRecord:
        """The pipeline's record."""
        record = self.control.record()
        assert record is not None
        return record

    @property
    def epoch(self) -> Epoch:
        """The newest epoch."""
        return self.control.newest_launch(self.record)

    def ended(self, number: int) -> Ended | None:
        """Return how an epoch ended, or None while its end is unknown."""
        return next(epoch.ended for epoch in self.control.epochs() if epoch.number == number)

    def create_topic(self, partitions: int = 3) -> None:
        """Create the topic, and wait until the broker leads each partition of it."""
        [each.result() for each in self.admin.create_topics([NewTopic(self.topic, partitions, 1)]).values()]
        self._wait_for_partitions(partitions)

    def grow(self, total: int) -> None:
        """Add partitions, and wait until the producer knows them."""
        [each.result() for each in self.admin.create_partitions([NewPartitions(self.topic, total)]).values()]
        self._wait_for_partitions(total)

    def _wait_for_partitions(self, total: int) -> None:
        def led() -> bool:
            seen = self.producer.list_topics(self.topic, DEADLINE_S).topics[self.topic].partitions.values()
            return [each.error for each in seen] == [None] * total

        wait_for(led, f"{total} partitions of {self.topic}")

    def produce(self, per_partition: int, *partitions: int) -> None:
        """Produce this many records to each of the partitions, and wait until all are acknowledged."""
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        for partition in partitions:
            for _ in range(per_partition):
                self.producer.produce(self.topic, partition=partition, value=b"{}", on_delivery=delivered)
                self.produced[partition] += 1
            self.producer.poll(0)
        assert (self.producer.flush(DEADLINE_S), refused) == (0, [])

    def faults(self, *faults: dict[str, Any]) -> None:
        """Set the faults that the job has from now on; none by default."""
        for trace in (*self.home.glob("*.happened"), self.home / "go"):
            trace.unlink(missing_ok=True)
        draft = self.home / "faults.new"
        draft.write_text(json.dumps(faults))
        draft.replace(self.home / "faults.json")

    def fault(self, do: str, at: str) -> None:
        """Set the only fault of the job: in its newest epoch, in the next batch."""
        self.faults({"epoch": self.epoch.number, "batch": None, "at": at, "do": do})

    def happened(self, what: str) -> None:
        """Wait until a fault has happened."""
        wait_for((self.home / f"{what}.happened").exists, f"the fault {what!r}")

    def wait_until_gone(self) -> None:
        """Wait until the newest epoch's driver has exited."""
        holder = self.epoch.holder
        wait_for(lambda: not is_alive(holder), "the driver to be gone")

    def wait_until_idle(self) -> None:
        """Wait until the newest epoch's driver reports that it is idle, at the end of its topic."""
        wait_for(lambda: self.record.idle and self._is_at_end(), "the driver to be idle at the end")

    def _is_at_end(self) -> bool:
        seen = self.observe()
        return seen.stored == seen.live.end

    def go(self) -> None:
        """Make a waiting batch continue."""
        (self.home / "go").touch()

    def operation(self) -> str:
        """Return the id of a new operation, whose steps the test runs one by one."""
        self.operations += 1
        return f"{self.topic}/run-{self.operations}"

    def act(self, operator: type, operation: str, **settings: Any) -> Any:
        """Execute one operator the way its task would, and return what it would push to XCom."""
        return act(self.task(operator, operation, **settings))

    def task(self, operator: type, operation: str, **settings: Any) -> Task:
        """Return one operator with its arguments, to be executed in any process."""
        return Task(operator, {"pipeline": self.pipeline, "operation": operation, "reason": "test", **settings})

    def observe(self) -> Observation:
        """Observe the pipeline as a plan does."""
        with open_session(self.pipeline, "looking") as session:
            return session.observe()

    def standing(self) -> dict[str, Any]:
        """Return everything that a refusal must not change: epochs, record (except its lease), history, checkpoints."""
        record = self.control.record()
        lease = {"lease": None, "version": 0, "token": "", "generation": 0}
        return {
            "record": None if record is None else codec.plain(replace(record, **lease)),  # type: ignore[arg-type]
            "cells": [cell for prefix in ("epoch/", "launch/") for cell in self.store.scan(self.topic, prefix)],
            "history": list(self.store.oldest_first(self.pipeline.stream)),
            "checkpoints": self.checkpoint_files(),
        }

    def checkpoint_files(self) -> dict[str, str]:
        """Return the text of every file of every checkpoint, without Spark's checksums and temporary files."""
        folders = [each for each in self.home.glob("checkpoint*") if each.suffix != ".logs"]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
        return {str(file.relative_to(self.home)): file.read_text() for file in files}

    def plan(self, operation: str, start: str = "committed") -> Any:
        """Plan."""
        return self.act(PlanRestartOperator, operation, start=start)

    def stop(self, operation: str, *, take_over: bool = True) -> Any:
        """Stop the job, and take over: a test may leave operations behind that do not continue."""
        return self.act(StopStreamingJobOperator, operation, take_over=take_over)

    def snapshot(self, operation: str, moment: str = "snapshot") -> Any:
        """Snapshot."""
        return self.act(SnapshotOffsetsOperator, operation, moment=moment)

    def apply(self, operation: str) -> Any:
        """Apply."""
        return self.act(ApplyOffsetsOperator, operation)

    def submit(self, operation: str) -> Any:
        """Submit."""
        return self.act(SubmitStreamingJobOperator, operation)

    def audit(self) -> Any:
        """Audit."""
        return self.act(AuditOffsetsOperator, f"{self.topic}/audit")

    def maintain(self, start: str = "committed", *, when_stopped: Callable[[], None] = lambda: None) -> Any:
        """Run the steps of the maintenance DAG in order, and return the result of the submit with the plan."""
        operation = self.operation()
        self.snapshot(operation, "before")
        self.plan(operation, start)
        stopped = self.stop(operation)
        self.snapshot(operation, "stopped")
        when_stopped()
        plan = self.plan(operation, start)
        self.apply(operation)
        return {**self.submit(operation), "plan": plan, "stopped": stopped}

    def prepare(self, start: str = "committed", *, take_over: bool = True) -> str:
        """Stop the job, plan and apply its restart, and return the operation, which is ready to submit."""
        operation = self.operation()
        self.stop(operation, take_over=take_over)
        self.plan(operation, start)
        self.apply(operation)
        return operation

    def processes(self, program: str) -> list[int]:
        """Return the processes of this lab's job or of a kept copy that run a program; ``python`` runs the drivers."""
        found, name = [], Path(self.application).name
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                argv = file.read_bytes().decode().split("\0")
                if program in Path(argv[0]).name and name in map(os.path.basename, argv) and str(self.home) in argv:
                    found.append(int(file.parent.name))
        return found

    def kill(self, task: Task, at: str, when: str, *, step: str | None = None) -> None:
        """Execute a task in a process that dies *before* or *after* a call of the control store's method ``at``.

        With ``change`` as the method, the process dies at a change of the record.

        :param step: only the call with this among its arguments, or an event of this name.
        """
        process = multiprocessing.get_context("spawn").Process(target=_act_and_die, args=(task, at, when, step))
        process.start()
        process.join(DEADLINE_S)
        assert process.exitcode == -signal.SIGKILL

    def evidence(self) -> Counter[tuple[int, int]]:
        """Return how often each (partition, offset) was read."""
        path = self.home / "evidence.db"
        if not path.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(path, timeout=DEADLINE_S)) as database:
            # The job creates the file first and its table a moment later.
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'").fetchone():
                return Counter()
            rows = database.execute("SELECT partition, offset, count(*) FROM evidence GROUP BY 1, 2").fetchall()
        return Counter({(partition, offset): count for partition, offset, count in rows})

    def wait_until_read(self) -> None:
        """Wait until every record has evidence."""
        expected = sum(self.produced.values())
        wait_for(lambda: len(self.evidence()) >= expected, f"{expected} records in the evidence")

    def evidence_of(self, epoch: int) -> set[tuple[int, int]]:
        """Return what the job read in one epoch."""
        database = sqlite3.connect(self.home / "evidence.db", timeout=DEADLINE_S)
        rows = database.execute("SELECT partition, offset FROM evidence WHERE epoch = ?", (epoch,)).fetchall()
        database.close()
        return set(rows)

    @property
    def started(self) -> StartedBatch:
        """The batch that the newest epoch has started and not recorded."""
        started = self.record.started
        assert started is not None
        return started

    @property
    def started_batch(self) -> Batch:
        """What the started batch was about to read."""
        batch = self.store.prepared(self.pipeline.stream, self.started.row_time_ms or 0)
        assert batch is not None
        return batch

    @property
    def lost(self) -> set[tuple[int, int]]:
        """The records without evidence."""
        there = {(partition, offset) for partition, count in self.produced.items() for offset in range(count)}
        return there - set(self.evidence())

    @property
    def read_again(self) -> int:
        """The readings of each record after the first one."""
        return sum(count - 1 for count in self.evidence().values())

    def close(self) -> None:
        """Kill the drivers of this lab, and of no other."""
        for pid in self.processes("java") + self.processes("python"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes("java") + self.processes("python"), "the drivers to be gone")
        with self._open:
            self.delete_topic()
            self.store.close()

    def delete_topic(self) -> None:
        """Delete the topic, and wait until the cluster no longer lists it."""
        [each.result() for each in self.admin.delete_topics([self.topic]).values()]
        wait_for(lambda: self.topic not in self.admin.list_topics(timeout=DEADLINE_S).topics, "the topic to be gone")
        self.produced.clear()

    def delete_records(self, partition: int, before: int) -> None:
        """Delete the records before this offset, as retention does."""
        deleted = self.admin.delete_records([TopicPartition(self.topic, partition, before)])
        [each.result() for each in deleted.values()]


def connections(bootstrap: str, store_url: str) -> dict[str, str]:
    """Return the environment variables that define the connections of a lab."""
    made = {
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap}},
        "SPARK_DEFAULT": {"conn_type": "spark", "host": "local[2]"},
        "OFFSETS_DEFAULT": {"conn_type": "offsets", "extra": {"url": store_url}},
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in made.items()}
