"""A job is watched after its submit, and rolled back if it is unhealthy: the two operators, as the DAG runs them."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.health import Verdict
from airflow_provider_offsets.core.pipeline import RollbackPolicy, StreamingPipeline
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.errors import DriverSilent, InputRefused
from airflow_provider_offsets.factories import maintenance_dag
from airflow_provider_offsets.operations import health, rolling_back
from airflow_provider_offsets.operations.applying import Applied
from airflow_provider_offsets.operations.job_state import end_of
from airflow_provider_offsets.operations.lease import take_lease
from airflow_provider_offsets.operations.recovering import begin_recovery
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher, Started, submit_job
from airflow_provider_offsets.operators import RollBackOperator, WatchStreamingJobOperator, base, watch
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.triggers.streaming_job import EpochEndedTrigger
from tests.unit.conftest import Connect
from tests.unit.operations import steps
from tests.unit.operations.lab import Driver, Lab

POLICY = RollbackPolicy(watch_s=60, stall_s=120, automatic=True)


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, spark_submit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("offsets_default", "offsets", extra={"url": "postgresql://offsets@db.example/offsets"})
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker.example:9092"})
    connect("spark_default", "spark", host="local[2]")
    lab.more["rollback"] = POLICY
    deploy(lab, "version 1")

    @contextmanager
    def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
        yield Session(pipeline, operation, lab.store, lab.kafka)

    for module in (base, watch):
        monkeypatch.setattr(module, "open_session", open_session)
    for speaker in (PipelineOperator, SparkSubmitHook):
        monkeypatch.setattr(speaker, "log", logging.getLogger("airflow.task"))
    monkeypatch.setattr(rolling_back, "submit_job", with_the_lab_s_reader)


def with_the_lab_s_reader(session: Session, applied: Applied, launcher: Launcher, **more: Any) -> Started:
    build = launcher.build_command
    read = replace(launcher, build_command=lambda conf: [*build(conf), conf["spark.offsets.settings.file"]])
    return submit_job(session, applied, read, **more)


def deploy(lab: Lab, text: str) -> None:
    Path(lab.pipeline.job.application).write_text(text)


def upgraded(lab: Lab) -> None:
    """Run a maintenance that starts another version, and wait until that has read all records."""
    steps.start(lab, operation="first")
    lab.feed(50)
    steps.stop(lab)
    deploy(lab, "version 2")
    steps.submit(lab, steps.apply(lab))
    lab.tick()


def make(kind: type[Any], lab: Lab, **more: Any) -> Any:
    return kind(task_id="task", pipeline=lab.pipeline, operation="op", reason="upgrade", **more)


def stand_still(lab: Lab) -> None:
    """Keep the driver alive and its heartbeat running, without a finished batch."""
    lab.clock.on_tick = lab.driver._idle


class TestWatch:
    def test_an_idle_job_with_nothing_to_read_is_healthy(self, lab: Lab) -> None:
        upgraded(lab)
        began_s = lab.clock.now

        given = make(WatchStreamingJobOperator, lab).execute({})

        assert (given["epoch"], given["health"], given["rule"], given["warnings"]) == (2, "healthy", "ok", [])
        assert 60 <= lab.clock.now - began_s < 80
        assert json.loads(json.dumps(given)) == given
        record = lab.control.record()
        assert record is not None
        assert record.good == 2, "a later rollback may go back to it"

    def test_one_that_reads_on_is_healthy(self, lab: Lab) -> None:
        upgraded(lab)
        tick = lab.clock.on_tick

        def feed_and_tick() -> None:
            lab.feed(1)
            tick()

        lab.clock.on_tick = feed_and_tick

        assert "offsets read" in make(WatchStreamingJobOperator, lab).execute({})["reason"]

    def test_a_failing_job_is_reported_at_once_and_left_as_it_is(self, lab: Lab) -> None:
        upgraded(lab)
        began_s = lab.clock.now

        def fail() -> None:
            if lab.driver.is_alive and lab.clock.now > began_s + 5:
                lab.driver.end(EndedHow.FAILED, "ValueError: third batch")

        lab.clock.on_tick = fail
        with pytest.raises(AirflowFailException, match=r"JobUnhealthy: Epoch 2.*dead.*ValueError: third batch"):
            make(WatchStreamingJobOperator, lab).execute({})

        assert lab.clock.now - began_s < 10, "the end of a driver is not waited for until the next sample"
        record = lab.control.record()
        assert record is not None
        assert (record.epoch, record.lease) == (2, None)

    def test_a_job_without_progress_is_reported_after_stall_s(self, lab: Lab) -> None:
        upgraded(lab)
        began_s = lab.clock.now
        stand_still(lab)
        lab.feed(10)

        with pytest.raises(AirflowFailException, match=r"stop, no batch for 120 s while records wait"):
            make(WatchStreamingJobOperator, lab).execute({})

        assert 120 <= lab.clock.now - began_s < 140
        verdict = lab.control.step("op", "health of epoch 2", Verdict)
        assert verdict is not None
        assert verdict.rule.value == "stop"

    def test_one_that_somebody_stops_is_not_judged(self, lab: Lab) -> None:
        upgraded(lab)
        tick = lab.clock.on_tick

        def stop_once() -> None:
            lab.clock.on_tick = tick
            steps.stop(lab, "by hand")

        lab.clock.on_tick = lambda: (end_of(lab.control, 2) or stop_once(), tick())[1]

        given = make(WatchStreamingJobOperator, lab).execute({})

        assert (given["health"], given["reason"]) == (
            "over",
            "operation 'by hand' stopped the job, or started a newer epoch",
        )
        record = lab.control.record()
        assert record is not None
        assert record.good == 0

    def test_one_that_went_back_unannounced(self, lab: Lab) -> None:
        upgraded(lab)
        newest = next(lab.store.newest_first(lab.pipeline.stream))
        back = replace(newest, batch_id=77, start=lab.at(120, 150), end=lab.at(160, 160), batch_time_ms=9000)
        lab.driver.record(lab.driver.begin(back))

        with pytest.raises(AirflowFailException, match=r"rewind, went back.*flights\[0\] 120\.\.150"):
            make(WatchStreamingJobOperator, lab).execute({})

    def test_an_operation_that_started_nothing(self, lab: Lab) -> None:
        with pytest.raises(AirflowFailException, match="StateChanged: Operation 'op' has started no epoch"):
            make(WatchStreamingJobOperator, lab).execute({})

    def test_the_time_is_spent_in_the_triggerer(self, lab: Lab) -> None:
        """Each time the task is created again, with its saved state."""
        upgraded(lab)
        resume: Callable[[Any], Any] = lambda operator: operator.execute({})  # noqa: E731
        given, triggers = None, []

        while given is None:
            try:
                given = resume(make(WatchStreamingJobOperator, lab, deferrable=True))
            except TaskDeferred as deferred:
                triggers.append(deferred.trigger)
                lab.clock.now += deferred.trigger.serialize()[1]["timeout_s"]
                lab.tick()
                resume = functools.partial(_resumed, kept=json.loads(json.dumps(deferred.kwargs)))

        assert given["health"] == "healthy"
        assert len(triggers) == 4
        assert {type(each) for each in triggers} == {EpochEndedTrigger}
        assert {each.serialize()[1]["epoch"] for each in triggers} == {2}

    def test_a_window_that_airflow_dropped_is_begun_again_without_the_triggerer(self, lab: Lab) -> None:
        """``airflow dags test`` of Airflow 3.3.2 resumes a task with the event alone."""
        upgraded(lab)
        operator = make(WatchStreamingJobOperator, lab, deferrable=True)
        with pytest.raises(TaskDeferred):
            operator.execute({})

        given = operator.execute_complete({}, {"status": "timeout"})

        assert given["health"] == "healthy"


def _resumed(operator: WatchStreamingJobOperator, kept: dict[str, str]) -> dict[str, Any]:
    return operator.execute_complete({}, {"status": "timeout"}, **kept)


class TestRollBack:
    def test_it_brings_back_what_ran_and_fails_with_the_reason(self, lab: Lab) -> None:
        upgraded(lab)
        lab.driver.end(EndedHow.FAILED, "ValueError: third batch")
        with pytest.raises(AirflowFailException):
            make(WatchStreamingJobOperator, lab).execute({})

        with pytest.raises(AirflowFailException) as failed:
            make(RollBackOperator, lab).execute({})

        words = str(failed.value)
        assert words.startswith("RolledBack: Operation 'op' was undone, dead, the driver is failed: ValueError: third")
        assert "The version of epoch 1 (" in words
        assert 'runs again, as epoch 3, from {"flights":{"0":100,"1":100}}; 100 offsets are replayed' in words
        assert "Outputs of the undone version remain: flights[0] 100..150, flights[1] 100..150" in words
        [program] = [word for word in lab.commands[-1] if word.endswith("job.py")]
        assert Path(program).read_text() == "version 1"

        with pytest.raises(AirflowFailException) as again:
            make(RollBackOperator, lab).execute({})
        assert str(again.value) == words
        assert len(lab.drivers) == 3

    def test_where_that_is_what_the_run_is_for_it_succeeds(self, lab: Lab) -> None:
        upgraded(lab)

        given = make(RollBackOperator, lab, fails=False).execute({})

        assert json.loads(json.dumps(given)) == given
        assert (given["why"], given["epoch"], given["replay"]) == ("upgrade", 3, 100)

    def test_as_a_task_of_a_run_it_does_what_the_pipeline_allows(self, lab: Lab) -> None:
        upgraded(lab)
        lab.driver.end(EndedHow.FAILED, "ValueError: third batch")
        lab.more["rollback"] = replace(POLICY, automatic=False)

        with pytest.raises(AirflowSkipException, match=r"third batch; .* because rollback.automatic is off"):
            make(RollBackOperator, lab, automatic=True).execute({})
        assert len(lab.drivers) == 2

        lab.more["rollback"] = POLICY
        with pytest.raises(AirflowFailException, match=r"RolledBack: .*epoch 2 failed: ValueError: third batch"):
            make(RollBackOperator, lab, automatic=True).execute({})
        assert len(lab.drivers) == 3

    @pytest.mark.parametrize("before", ["nothing was submitted", "the job is healthy"])
    def test_as_a_task_of_a_run_it_leaves_alone_what_nothing_speaks_against(self, before: str, lab: Lab) -> None:
        """Airflow runs this task too if a task before the submit failed, or if the watch could not observe the job."""
        if before == "nothing was submitted":
            steps.start(lab, operation="first")
        else:
            upgraded(lab)
        drivers = len(lab.drivers)

        with pytest.raises(AirflowSkipException, match="no job of this operation is known to be unhealthy"):
            make(RollBackOperator, lab, automatic=True).execute({})

        assert len(lab.drivers) == drivers
        assert lab.driver.is_alive

    @pytest.mark.parametrize(
        ("states", "runs"),
        [
            ({"submit": "upstream_failed", "watch": "upstream_failed"}, False),
            ({"submit": "upstream_failed"}, False),
            ({}, False),
            ({"submit": "failed", "watch": "upstream_failed"}, True),
            ({"submit": "success", "watch": "failed"}, True),
        ],
    )
    def test_as_a_task_of_a_run_it_opens_nothing_unless_submit_or_watch_have_failed_themselves(
        self, states: dict[str, str], runs: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow's ONE_FAILED counts *upstream_failed*: without a store connection, this task failed too."""
        opened: list[str] = []

        def open_session(pipeline: StreamingPipeline, operation: str) -> Any:
            opened.append(operation)
            raise InputRefused(seen="connection 'offsets_default' does not exist", expected="one", do="create it")

        monkeypatch.setattr(base, "open_session", open_session)
        undo: Any = maintenance_dag(lab.pipeline).get_task("roll_back")
        ti = SimpleNamespace(get_task_states=lambda **asked: {asked["run_ids"][0]: states} if states else {})

        with pytest.raises(AirflowFailException if runs else AirflowSkipException):
            undo.execute({"ti": ti, "run_id": "r"})

        assert bool(opened) is runs

    @pytest.mark.parametrize("before", ["somebody stopped it", "somebody took it over", "its recovery has started"])
    def test_as_a_task_of_a_run_it_leaves_alone_what_another_operation_has_in_hand(self, before: str, lab: Lab) -> None:
        upgraded(lab)
        if before == "somebody stopped it":
            steps.stop(lab, "by hand")
        elif before == "somebody took it over":
            take_lease(lab.session("by hand"), take_over=True)
        else:
            lab.driver.end(EndedHow.FAILED, "ValueError: third batch")
            begin_recovery(lab.session(recovery_of(2)), 2, "run", RecoveryPolicy())
        by = recovery_of(2) if "recovery" in before else "by hand"

        with pytest.raises(AirflowSkipException, match=f"{by!r} has taken the pipeline over"):
            make(RollBackOperator, lab, automatic=True).execute({})

        assert len(lab.drivers) == 2

    def test_a_start_without_a_batch_is_unhealthy_until_its_driver_reports(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab, operation="first")
        steps.stop(lab)
        with monkeypatch.context() as deaf:
            deaf.setattr(Driver, "_batch_or_idle", lambda driver: None)
            with pytest.raises(DriverSilent):
                steps.submit(lab, steps.apply(lab))

        assert (
            health.why_unhealthy(lab.session()) == "epoch 2 has neither processed a batch nor reported that it is idle"
        )
        lab.tick()
        assert health.why_unhealthy(lab.session()) == ""

    def test_one_that_stood_idle_and_is_in_its_first_batch_now_is_not_bad(self, lab: Lab) -> None:
        """The watch could not observe the job, whose first batch takes long."""
        steps.start(lab, operation="first")
        steps.stop(lab)
        assert steps.submit(lab, steps.apply(lab)).how == "idle"
        lab.driver.begin(Batch(lab.at(110, 110), 1001, 1, "query-1", 2, lab.at(100, 100)))
        record = lab.control.record()
        assert record is not None
        assert not record.idle

        assert health.why_unhealthy(lab.session()) == ""

    def test_a_first_start_is_refused(self, lab: Lab) -> None:
        steps.start(lab, operation="op")

        with pytest.raises(AirflowFailException, match=r"RollbackRefused.*there is no previous version"):
            make(RollBackOperator, lab).execute({})

        assert health.why_unhealthy(lab.session()) == ""
