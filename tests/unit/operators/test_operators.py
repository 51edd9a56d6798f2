"""The operators: thin shells that observe, plan, apply and record, and push the outcome to XCom."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
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
from airflow_provider_offsets.core.pipeline import StopPolicy, StreamingPipeline
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.errors import (
    CheckpointError,
    Fenced,
    KafkaUnreachable,
    PartitionUnavailable,
    SnapshotNotFound,
    StoreDataError,
    StoreUnreachable,
    TopicMissing,
)
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operators import (
    ApplyOffsetsOperator,
    AuditOffsetsOperator,
    BeginRecoveryOperator,
    PlanRestartOperator,
    PruneOffsetsOperator,
    SnapshotOffsetsOperator,
    StopStreamingJobOperator,
    SubmitStreamingJobOperator,
    base,
    stop,
)
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.triggers.streaming_job import EpochEndedTrigger
from tests.unit.conftest import Connect
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab

PASSWORDS = ("db-hunter2", "sasl-hunter2")
OPERATORS = (
    SnapshotOffsetsOperator,
    PlanRestartOperator,
    StopStreamingJobOperator,
    ApplyOffsetsOperator,
    SubmitStreamingJobOperator,
    AuditOffsetsOperator,
)
STEPS = (*OPERATORS[:3], PlanRestartOperator, *OPERATORS[3:])
"""A maintenance: it plans while the job runs, and again once the job is stopped."""


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, spark_submit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up Airflow's connections, with the lab behind them."""
    Path(lab.pipeline.job.application).write_text("")
    db_password, sasl_password = PASSWORDS
    url = "postgresql://offsets@db.example/offsets"
    connect("offsets_default", "offsets", password=db_password, extra={"url": url})
    security = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "me"}
    kafka = {"bootstrap.servers": "broker.example:9092", **security, "sasl.password": sasl_password}
    connect("kafka_default", "kafka", extra=kafka)
    connect("spark_default", "spark", host="local[2]")

    @contextmanager
    def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
        yield Session(pipeline, operation, lab.store, lab.kafka)

    for module in (base, stop):
        monkeypatch.setattr(module, "open_session", open_session)
    # Airflow's own loggers bypass Python's logging; here every message goes to caplog.
    for speaker in (PipelineOperator, SparkSubmitHook):
        monkeypatch.setattr(speaker, "log", logging.getLogger("airflow.task"))
    monkeypatch.setattr("airflow_provider_offsets.operators.submit.submit_job", submitted_with_the_lab_s_reader())


def submitted_with_the_lab_s_reader() -> Any:
    """Return a ``submit_job`` whose command ends with the path of the settings, where the lab's driver finds it."""
    from airflow_provider_offsets.operations import submitting

    real = submitting.submit_job

    def submit_job(session: Session, applied: Any, launcher: Any, **more: Any) -> Any:
        def command(conf: Any) -> list[str]:
            return [*launcher.build_command(conf), conf["spark.offsets.settings.file"]]

        return real(session, applied, replace(launcher, build_command=command), **more)

    return submit_job


def make(kind: type[Any], lab: Lab, operation: str = "op", **more: Any) -> Any:
    return kind(task_id="task", pipeline=lab.pipeline, operation=operation, reason="upgrade", **more)


def run(kind: type[Any], lab: Lab, operation: str = "op", *, attempt: int = 1, **more: Any) -> Any:
    return make(kind, lab, operation, **more).execute(context(attempt))


def context(attempt: int = 1) -> Any:
    """Return what Airflow passes to a task: the same for all tries of one attempt."""
    return {"ti": SimpleNamespace(max_tries=2 * attempt), "dag_run": SimpleNamespace(start_date="2026-11-01")}


def test_a_run_that_is_run_again_with_another_start_is_refused_before_the_stop(lab: Lab) -> None:
    """``TriggerDagRunOperator(reset_dag_run=True)``: the run has started the job from another place already."""
    steps.start(lab)
    lab.feed(50)
    for kind in STEPS:
        run(kind, lab)
    epochs = list(Session(lab.pipeline, "op", lab.store, lab.kafka).control.epochs())

    with pytest.raises(AirflowFailException, match=r"'shift:-30' was given.*from 'committed' already.*a new run"):
        run(PlanRestartOperator, lab, attempt=2, start="shift:-30")

    assert run(PlanRestartOperator, lab, attempt=2)["selector"] == "committed", "the same start is an attempt"
    assert list(Session(lab.pipeline, "op", lab.store, lab.kafka).control.epochs()) == epochs


def test_a_maintenance_from_end_to_end(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """Every value is JSON, and no secret is in a value, a log, an argument list or a cell of the control store."""
    steps.start(lab)
    lab.feed(50)
    given: dict[str, Any] = {}
    with caplog.at_level(logging.DEBUG):
        for kind in STEPS:
            more = {"start": "shift:-30"} if kind is PlanRestartOperator else {}
            given[kind.__name__] = run(kind, lab, **more)
            if kind is SubmitStreamingJobOperator:
                lab.tick()  # the first batch of a seeded checkpoint has no records

    given_twice = json.loads(json.dumps(given))
    assert given_twice == given, "an XCom comes back as it was"
    assert given["SnapshotOffsetsOperator"]["id"] == "op#snapshot"
    assert given["SnapshotOffsetsOperator"]["position"] == {"flights": {"0": 100, "1": 100}}
    plan = given["PlanRestartOperator"]
    assert (plan["form"], plan["replay"], plan["lost"], plan["skipped"]) == ("reposition", 60, 0, 0)
    assert plan["start"] == {"flights": {"0": 70, "1": 70}}
    assert plan["markdown"].count("|") > 20, "a table in Markdown"
    assert given["StopStreamingJobOperator"] | {"stopped_since": ""} == {
        "epoch": 1,
        "how": "stopped",
        "last_batch_id": 0,
        "stopped_since": "",
    }
    assert given["ApplyOffsetsOperator"]["fingerprint"] == plan["fingerprint"]
    submitted = given["SubmitStreamingJobOperator"]
    assert (submitted["epoch"], submitted["start"]) == (2, plan["start"])
    assert submitted["how"].startswith("processed batch")
    audit = given["AuditOffsetsOperator"]
    assert (audit["lost"], audit["unexplained"], audit["replayed"]) == (0, 0, 60)
    assert f"Plan {plan['fingerprint']} of delay_alerts" in caplog.text, "the plan's table is in the task's log"
    assert "Spark-Submit cmd" in caplog.text, "the test of the test: the Spark provider's words are looked into too"
    cells = dict(lab.store.scan(lab.pipeline.name, ""))
    for secret in PASSWORDS:
        for place in (given, caplog.text, lab.commands, lab.environments, cells):
            assert secret not in json.dumps(place, default=str)
    secrets = lab.driver.settings.secrets
    assert PASSWORDS[0] in secrets.store_url, "the test of the test: the driver has them"
    assert PASSWORDS[1] in secrets.kafka_options["kafka.sasl.jaas.config"]


def test_each_task_run_again_gives_the_same(lab: Lab) -> None:
    steps.start(lab)
    for kind in OPERATORS[:2]:
        assert run(kind, lab) == run(kind, lab)
    run(StopStreamingJobOperator, lab)
    run(PlanRestartOperator, lab)
    for kind in OPERATORS[3:]:
        assert run(kind, lab) == run(kind, lab)
    assert len(list(lab.control.epochs())) == 2


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (KafkaUnreachable, True),
        (PartitionUnavailable, True),
        (StoreUnreachable, True),
        (TopicMissing, False),
        (StoreDataError, False),
        (CheckpointError, False),
        (SnapshotNotFound, False),
        (Fenced, False),
    ],
)
def test_a_retriable_error_is_retried(error: Any, retried: bool, lab: Lab) -> None:
    lab.kafka.fail_with(error(seen="this", expected="that", do="mend it"))

    with pytest.raises(error if retried else AirflowFailException) as failed:
        run(SnapshotOffsetsOperator, lab)

    words = "This. Expected that. Mend it."
    assert str(failed.value) == (words if retried else f"{error.__name__}: {words}")


class TestRefusals:
    @pytest.mark.parametrize(
        ("kind", "more", "words"),
        [
            (ApplyOffsetsOperator, {}, "StateChanged: Operation 'op' has no plan"),
            (SubmitStreamingJobOperator, {}, "StateChanged: Operation 'op' has applied no plan"),
            (PlanRestartOperator, {"start": "comitted"}, "SelectorError: Start selector 'comitted'"),
            (PlanRestartOperator, {"start": "snapshot:none"}, "SnapshotNotFound: No snapshot 'none'"),
            (PlanRestartOperator, {"start": 'offsets:{"flights":{"0":900}}'}, "PlanRefused: 1 problem"),
        ],
    )
    def test_in_words_at_once_and_nothing_is_touched(
        self, kind: type[Any], more: dict[str, Any], words: str, lab: Lab
    ) -> None:
        with pytest.raises(AirflowFailException) as failed:
            run(kind, lab, **more)

        assert str(failed.value).startswith(words)
        assert lab.drivers == []
        assert not Path(lab.pipeline.job.checkpoint).exists()

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"window_s": "tomorrow"}, "InputRefused: window_s is 'tomorrow'"),
            ({"accept_lost": "flights"}, "InputRefused: accept_lost has 'flights'"),
            ({"accept_skipped": {"flights": "many"}}, "InputRefused: accept_skipped has 'flights': 'many'"),
        ],
    )
    def test_a_run_that_cannot_be_read(self, more: dict[str, Any], words: str, lab: Lab) -> None:
        with pytest.raises(AirflowFailException) as failed:
            run(PlanRestartOperator, lab, **more)

        assert str(failed.value).startswith(words)

    @pytest.mark.parametrize(("accepted", "refused"), [("flights:29", True), ("flights:30", False)])
    def test_a_run_accepts_by_count(self, accepted: str, refused: bool, lab: Lab) -> None:
        """One more offset than the accepted count is refused."""
        steps.rest(lab)
        lab.feed(60)
        chosen = {"start": f"offsets:{lab.at(130, 100).to_json()}", "accept_skipped": accepted}
        if not refused:
            assert run(PlanRestartOperator, lab, **chosen)["skipped"] == 30
            return
        with pytest.raises(AirflowFailException, match=r"30 offsets of 'flights' would be skipped .* 29 are accepted"):
            run(PlanRestartOperator, lab, **chosen)

    def test_a_window_that_outlasts_retention(self, lab: Lab) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.ms": "600000"})

        assert run(PlanRestartOperator, lab, window_s="0")["problems"] == []
        with pytest.raises(AirflowFailException, match=r"PlanRefused: .*window longer than the runway"):
            run(PlanRestartOperator, lab, window_s="900")

    def test_a_refused_plan_is_shown_all_the_same(self, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException):
            run(PlanRestartOperator, lab, start='offsets:{"flights":{"0":900}}')

        assert "PROBLEM – offset past the end" in caplog.text

    def test_the_plan_refuses_what_the_submit_would(self, lab: Lab, connect: Connect) -> None:
        """The plan refuses it while the job still runs, and not after it was stopped."""
        connect("spark_default", "spark", host="sc://spark.example")

        with pytest.raises(AirflowFailException, match=r"ModeUnsupported.*Spark Connect"):
            run(PlanRestartOperator, lab)

    def test_an_audit_with_a_hole_fails_and_shows_it(self, lab: Lab) -> None:
        steps.start(lab)
        hole = Batch(lab.at(100, 150), 9000, 9, "query-1", 1, lab.at(100, 110))
        lab.store.append(lab.pipeline.stream, hole)

        with pytest.raises(AirflowFailException, match=r"(?s)AuditFailed: 10 offsets in 1 places.*UNEXPLAINED"):
            run(AuditOffsetsOperator, lab)

    def test_a_stop_that_times_out(self, lab: Lab) -> None:
        steps.start(lab)
        lab.clock.on_tick = lambda: None

        with pytest.raises(AirflowFailException, match="StopTimedOut"):
            run(StopStreamingJobOperator, lab)

    def test_one_that_another_operation_has_in_hand_is_refused_with_a_way_out(self, lab: Lab) -> None:
        steps.start(lab)
        run(StopStreamingJobOperator, lab, "other")

        with pytest.raises(AirflowFailException, match=r"LeaseHeld: .*'other' acted 0 s ago.*take_over"):
            run(StopStreamingJobOperator, lab)
        with pytest.raises(AirflowFailException, match="LeaseHeld"):
            run(StopStreamingJobOperator, lab, take_over="False")
        run(StopStreamingJobOperator, lab, take_over="True")

    def test_one_that_was_taken_over_fails_and_touches_nothing(self, lab: Lab) -> None:
        steps.start(lab)
        run(StopStreamingJobOperator, lab)
        run(PlanRestartOperator, lab)
        run(StopStreamingJobOperator, lab, "other", take_over=True)
        cells = dict(lab.store.scan(lab.pipeline.name, ""))

        with pytest.raises(AirflowFailException, match=r"TakenOver: .*leased to 'other'"):
            run(ApplyOffsetsOperator, lab)

        assert dict(lab.store.scan(lab.pipeline.name, "")) == cells


class TestRecovery:
    """A recovery that has nothing to do, or that a person took the job from, causes no alert."""

    def begin(self, lab: Lab) -> Any:
        begin = make(BeginRecoveryOperator, lab, recovery_of(1), epoch="1")
        return begin.execute({**context(), "run_id": "run-1"})

    def test_a_recovery_from_end_to_end(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()

        assert self.begin(lab) == {"epoch": 1, "tries": 1}
        for kind in (SnapshotOffsetsOperator, PlanRestartOperator, ApplyOffsetsOperator):
            run(kind, lab, recovery_of(1))
        assert run(SubmitStreamingJobOperator, lab, recovery_of(1))["epoch"] == 2

    def test_with_nothing_to_recover_it_is_skipped(self, lab: Lab) -> None:
        steps.start(lab)

        with pytest.raises(AirflowSkipException, match="NothingToRecover: The job of epoch 1"):
            self.begin(lab)

    def test_taken_over_it_is_skipped(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        self.begin(lab)
        run(PlanRestartOperator, lab, recovery_of(1))
        run(StopStreamingJobOperator, lab, "maintenance", take_over=True)

        with pytest.raises(AirflowSkipException, match=r"TakenOver: .*leased to 'maintenance'"):
            run(ApplyOffsetsOperator, lab, recovery_of(1))

    def test_given_up_it_fails(self, lab: Lab) -> None:
        lab.more["recovery"] = RecoveryPolicy(tries=0)
        steps.start(lab)
        lab.driver.die()

        with pytest.raises(AirflowFailException, match="RecoveryGivenUp"):
            self.begin(lab)


def test_a_task_that_is_cleared_stops_the_job_again_and_one_that_is_retried_does_not(lab: Lab) -> None:
    """Under one run id, a clear makes a new attempt, with a plan and a launch of its own."""

    def maintain(attempt: int) -> int:
        for kind in STEPS[1:6]:
            given = run(kind, lab, attempt=attempt)
        return int(given["epoch"])

    steps.start(lab)

    assert [maintain(attempt) for attempt in (1, 1, 2)] == [2, 2, 3]


class TestPrune:
    def test_what_is_removed_is_in_the_log_and_in_the_result(self, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
        steps.start(lab)
        for number in range(3):
            lab.clock.now += 86_400
            run(SnapshotOffsetsOperator, lab, f"hourly-{number}")
        run(SnapshotOffsetsOperator, lab, "named", snapshot_label="before-2.1")
        lab.more["keep"] = KeepPolicy(snapshots=1)

        with caplog.at_level(logging.INFO):
            given = run(PruneOffsetsOperator, lab, "prune")

        assert json.loads(json.dumps(given)) == given
        gone = [f"hourly-{number}#snapshot" for number in range(3)]
        assert given == {"snapshots": gone, "checkpoints": [], "versions": [], "retained": []}
        assert all(f"removed snapshot {each}" in caplog.text for each in gone)
        assert run(PruneOffsetsOperator, lab, "prune")["snapshots"] == []
        assert lab.control.named_snapshot("before-2.1").label == "before-2.1"

    def test_without_a_policy_nothing_is(self, lab: Lab) -> None:
        steps.start(lab)
        run(SnapshotOffsetsOperator, lab)

        assert run(PruneOffsetsOperator, lab, "prune") == {
            "snapshots": [],
            "checkpoints": [],
            "versions": [],
            "retained": [],
        }


class TestDeferrable:
    def deferred(self, lab: Lab) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as deferred:
            run(StopStreamingJobOperator, lab, deferrable=True)
        return deferred.value

    def test_it_waits_in_the_triggerer(self, lab: Lab) -> None:
        steps.start(lab)

        deferred = self.deferred(lab)

        assert isinstance(deferred.trigger, EpochEndedTrigger)
        _, arguments = deferred.trigger.serialize()
        assert arguments == {
            "store_conn_id": "offsets_default",
            "pipeline": "delay_alerts",
            "timeout_s": 10,
            "epoch": 1,
        }
        assert deferred.method_name == "execute_complete"
        assert deferred.timeout.total_seconds() > 10, "Airflow's own timeout comes after ours, which has words"
        record = lab.control.record()
        assert record is not None
        assert record.stop is not None, "asked before it waits"

    def test_it_takes_up_again_once_the_job_ended(self, lab: Lab) -> None:
        steps.start(lab)
        self.deferred(lab)
        lab.tick()

        stop = make(StopStreamingJobOperator, lab, deferrable=True)
        given = stop.execute_complete(context(), {"status": "ended", "how": "stopped"})

        assert (given["epoch"], given["last_batch_id"]) == (1, 0)
        assert "stopped" in given["how"]

    @pytest.mark.parametrize(
        ("event", "waited_s"), [({"status": "timeout", "message": ""}, 0), ({"status": "error", "message": "gone"}, 10)]
    )
    def test_after_the_graceful_stage_the_next_one_follows(
        self, event: dict[str, Any], waited_s: int, lab: Lab
    ) -> None:
        """A triggerer that cannot read the store has not waited, and the job must not be killed early for that."""
        lab.stop = StopPolicy(10, 5)
        steps.start(lab)
        lab.driver.obeys = False
        self.deferred(lab)
        lab.clock.on_tick = lambda: lab.driver.die() if lab.signalled else None
        began_s = lab.clock.now

        given = make(StopStreamingJobOperator, lab, deferrable=True).execute_complete(context(), event)

        assert given["how"] == "killed"
        assert waited_s <= lab.clock.now - began_s < waited_s + 1

    def test_without_a_further_stop_stage_it_fails_at_once(self, lab: Lab) -> None:
        steps.start(lab)
        self.deferred(lab)
        lab.clock.on_tick = lambda: None
        began_s = lab.clock.now

        with pytest.raises(AirflowFailException, match=r"StopTimedOut.*an acknowledgement within 10 s"):
            make(StopStreamingJobOperator, lab, deferrable=True).execute_complete(context(), {"status": "timeout"})

        assert lab.clock.now == began_s

    def test_a_stopped_job_is_not_waited_for(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(EndedHow.STOPPED)

        assert run(StopStreamingJobOperator, lab, deferrable=True)["how"] == "already stopped"


@pytest.mark.parametrize("kind", OPERATORS)
def test_what_a_run_can_say_is_a_template(kind: type[Any], lab: Lab) -> None:
    own = {
        PlanRestartOperator: {"start", "window_s", "accept_lost", "accept_skipped"},
        SnapshotOffsetsOperator: {"snapshot_label"},
        StopStreamingJobOperator: {"take_over"},
    }
    expected = {"operation", "reason", "application"} | own.get(kind, set())

    assert set(kind.template_fields) == expected
    operator = kind(task_id="task", pipeline=lab.pipeline)
    operator.render_template_fields(
        {"dag": type("Dag", (), {"dag_id": "maintenance__x"}), "run_id": "manual__1", "params": {"reason": "upgrade"}}
    )
    assert (operator.operation, operator.reason) == ("maintenance__x/manual__1", "upgrade")


def test_the_store_is_closed_though_the_act_fails(lab: Lab, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_offsets.connections import open_session

    closed: list[bool] = []
    monkeypatch.setattr("airflow_provider_offsets.hooks.offsets.open_store", lambda url: lab.store)
    monkeypatch.setattr(lab.store, "close", lambda: closed.append(True))
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "127.0.0.1:1"})

    def fail_in_it() -> None:
        with open_session(lab.pipeline, "op") as session:
            assert session.operation == "op"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_it()

    assert closed == [True]
