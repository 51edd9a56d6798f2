"""One writer: submits that race, and tasks that are killed while they submit or stop."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_offsets.backends.detached import Launch
from airflow_provider_offsets.backends.process import signal_group
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.operations.recovering import begin_recovery
from airflow_provider_offsets.operations.submitting import LAUNCHED
from airflow_provider_offsets.operators import StopStreamingJobOperator, SubmitStreamingJobOperator
from tests.e2e.lab import Lab, wait_for


def test_two_operations_submit_at_once(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    first = lab.prepare()
    with pytest.raises(AirflowFailException, match=f"LeaseHeld: (.|\n)*operation '{first}' acted"):
        lab.prepare(take_over=False)
    second = lab.prepare()

    with ThreadPoolExecutor() as pool:
        submits = {operation: pool.submit(lab.submit, operation) for operation in (first, second)}

    with pytest.raises(AirflowFailException, match="TakenOver"):
        submits[first].result()
    assert submits[second].result()["epoch"] == 1
    assert [epoch.claim.operation for epoch in lab.control.epochs()] == [second]
    assert len(lab.processes("python")) == 1
    lab.wait_until_read()
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_killed_tasks_leave_no_twin(lab: Lab) -> None:
    # Killed between the launch and its record: nobody knows the driver. The retry launches another; one claims.
    lab.produce(20, 0, 1, 2)
    operation = lab.prepare()
    lab.kill(lab.task(SubmitStreamingJobOperator, operation), "record_step", "before", step=LAUNCHED)
    wait_for(lambda: lab.processes("java"), "the orphan")
    assert lab.control.step(operation, LAUNCHED, Launch) is None
    assert lab.submit(operation)["epoch"] == 1
    wait_for(lambda: len(lab.processes("java")) == 1, "the driver that lost to be gone")
    lab.wait_until_read()

    # A stop that is killed right after its request: the retry joins the request.
    operation = lab.operation()
    lab.plan(operation)
    lab.kill(lab.task(StopStreamingJobOperator, operation), "change", "after", step="AskToStop")
    assert lab.stop(operation)["how"].removeprefix("already ") == "stopped"
    assert lab.record.stop.operation == operation

    # Killed after the record: the retry adopts the driver.
    lab.plan(operation)
    lab.apply(operation)
    lab.kill(lab.task(SubmitStreamingJobOperator, operation), "record_step", "after", step=LAUNCHED)
    launched = lab.control.step(operation, LAUNCHED, Launch)
    assert lab.submit(operation)["epoch"] == 2
    assert lab.epoch.claim.tag == launched.id
    assert lab.stop(operation)["how"] == "restarted by this operation"
    assert lab.submit(operation)["epoch"] == 2

    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert len(lab.processes("python")) == 1
    assert len(list(lab.control.epochs())) == 2
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_a_maintenance_that_comes_in_the_middle_of_a_recovery_goes_first(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    signal_group(lab.epoch.holder, signal.SIGKILL)
    lab.wait_until_gone()
    lab.produce(20, 0, 1, 2)
    recovery, maintenance = recovery_of(1), lab.operation()
    with open_session(lab.pipeline, recovery) as session:
        session.control.open_operation(Operation(recovery, "recovery", "test"))
        begin_recovery(session, 1, "run", RecoveryPolicy())
    lab.plan(recovery)
    lab.apply(recovery)

    with ThreadPoolExecutor() as pool:
        submit = pool.submit(lab.submit, recovery)
        wait_for(lambda: lab.processes("java"), "the recovered driver to start")
        lab.plan(maintenance)
        assert lab.stop(maintenance)["how"] == "cancelled", "its launch is not claimed yet"
        with pytest.raises(AirflowSkipException, match="TakenOver"):
            submit.result()

    wait_for(lambda: not lab.processes("java"), "the driver of the cancelled launch to be gone")
    assert lab.evidence_of(2) == set(), "it ended before its first batch"
    lab.plan(maintenance)
    lab.apply(maintenance)
    assert lab.submit(maintenance)["epoch"] == 3
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0
