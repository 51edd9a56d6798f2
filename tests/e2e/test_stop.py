"""Stopping a job: between two batches, immediately when it is idle, and by a signal where that is allowed."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.snapshot import Observation
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.runtime.settings import Settings
from tests.e2e.lab import DEADLINE_S, Lab, wait_for


def test_stop_while_a_batch_runs_and_while_idle(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.produce(20, 0, 1, 2)
    # Only the driver checks for a request, before it begins the next batch.
    with monkeypatch.context() as changed:
        changed.setattr(submitting, "Settings", functools.partial(Settings, poll_interval_s=60.0))
        lab.maintain()

    lab.fault("wait", "before")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    running, stored = lab.started, lab.observe().stored
    lab.produce(20, 0, 1, 2)  # for the batch after the running one

    # It does not stop in time: nothing is lost by that, and the request remains.
    lab.stop_policy = StopPolicy(graceful_timeout_s=2)
    with pytest.raises(AirflowFailException, match="StopTimedOut"):
        lab.stop(lab.operation())
    assert is_alive(lab.epoch.holder)
    assert lab.ended(1) is None
    assert lab.observe().stored == stored

    # The running batch finishes and is recorded; the next one never begins.
    lab.stop_policy = StopPolicy(graceful_timeout_s=DEADLINE_S)
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(lab.stop, lab.operation())
        lab.go()
        stopped = stopping.result()
    rest = lab.observe()
    assert stopped["how"].removeprefix("already ") == "stopped"
    assert stopped["last_batch_id"] == running.batch_id
    assert processed_id(rest) == running.batch_id
    assert rest.ended is not None
    assert rest.cut is None
    assert rest.checkpoint is not None
    assert rest.checkpoint.planned_batch_id == running.batch_id + 1, "planned, and never started"
    read = lab.evidence()
    assert set(read) == {(p, o) for (_, p), end in (rest.stored or {}).items() for o in range(end)}
    assert lab.lost, "the batch after it would have read the rest"

    # A stop of a stopped job is no error. The stop request names the operation that asked last; nothing else changes.
    operation, standing = lab.operation(), lab.standing()
    assert lab.stop(operation)["how"] == "already stopped"
    after = lab.standing()
    assert after["record"].pop("stop")["operation"] == operation
    assert standing["record"].pop("stop")["operation"] != operation
    assert after == standing

    # It continues at its position.
    resumed = lab.maintain()
    assert resumed["plan"]["form"] == "resume"
    assert resumed["plan"]["replay_at_most"] == 0
    lab.wait_until_read()

    # An idle job stops without a batch, and starts again with nothing to read.
    lab.wait_until_idle()
    last = processed_id(lab.observe())
    idle = lab.maintain()
    assert idle["stopped"]["how"] == "stopped"
    assert idle["stopped"]["last_batch_id"] == last
    assert idle["plan"]["form"] == "resume"
    assert idle["how"] == "idle"
    assert processed_id(lab.observe()) == last

    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_signal_cuts_a_batch_off_and_that_is_counted(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    cut_off = lab.started_batch.record_count
    lab.stop_policy = StopPolicy(graceful_timeout_s=1, signal_timeout_s=DEADLINE_S)

    restarted = lab.maintain()

    assert restarted["stopped"]["how"] == "killed"
    assert "SIGTERM" in lab.ended(1).message
    assert restarted["plan"]["replay_at_most"] == cut_off > 0
    lab.wait_until_read()
    wait_for(lambda: lab.read_again, "the batch that was cut off to be read again")
    lab.wait_until_idle()
    audit = lab.audit()
    assert lab.lost == set()
    assert lab.read_again == cut_off
    assert audit["replayed_at_most"] == cut_off
    assert audit["unexplained"] == 0


def processed_id(seen: Observation) -> int | None:
    """Return the id of the last processed batch."""
    return None if seen.processed is None else seen.processed.batch_id
