"""A version that fails on its third batch, and the rollback to the previous version."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.operators import RollBackOperator, WatchStreamingJobOperator
from tests.e2e.lab import JOB, Lab, wait_for


def test_a_job_that_fails_on_its_third_batch_is_rolled_back(lab: Lab) -> None:
    application = lab.home / "job.py"
    lab.application = str(application)
    application.write_text(JOB.read_text())
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    assert lab.act(WatchStreamingJobOperator, lab.epoch.claim.operation)["health"] == "healthy"
    lab.produce(10, 0, 1, 2)
    lab.wait_until_idle()
    stood = lab.observe().stored

    # The new version has the same file name. Two batches succeed, and the third one fails after it has written.
    application.write_text(f"{JOB.read_text()}\n# version 2\n")
    lab.faults({"epoch": 2, "batch": 3, "at": "after", "do": "fail"})
    operation = lab.operation()
    lab.plan(operation)
    lab.stop(operation)
    lab.snapshot(operation, "stopped")
    lab.produce(10, 0, 1, 2)
    lab.plan(operation)
    lab.apply(operation)
    assert lab.submit(operation)["epoch"] == 2
    lab.wait_until_idle()
    lab.produce(10, 0, 1, 2)
    lab.wait_until_idle()
    assert lab.lost == set(), "two batches are read"
    lab.produce(10, 0, 1, 2)
    lab.wait_until_gone()

    with pytest.raises(AirflowFailException, match=r"JobUnhealthy: Epoch 2.*failed: .*the job's own mistake"):
        lab.act(WatchStreamingJobOperator, operation)
    with pytest.raises(AirflowFailException, match=r"RolledBack: .*the job's own mistake") as failed:
        lab.act(RollBackOperator, operation)

    words = str(failed.value)
    assert f"The version of epoch 1 ({lab.epoch.claim.version[:12]}) runs again, as epoch 3" in words
    assert "60 offsets are replayed" in words
    for partition in range(3):
        assert f"{lab.topic}[{partition}] 30..50" in words, "two batches are finished"
        assert f"{lab.topic}[{partition}] 50..60" in words, "and the third one is there, though nobody recorded it"
    first, bad, back = lab.control.epochs()
    assert back.claim.version == first.claim.version != bad.claim.version
    assert back.claim.operation == f"{operation}#rollback"
    assert back.claim.start == stood
    kept = lab.home / "checkpoint.logs" / "applications" / first.claim.application_digest / "job.py"
    assert kept.read_text() == JOB.read_text()
    [driver] = lab.processes("python")
    assert str(kept) in Path(f"/proc/{driver}/cmdline").read_text().split("\0"), "what runs is the copy"

    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()
    wait_for(lambda: lab.read_again == 90, "what the bad version has read to be read again")
    ended = lab.ended(2)
    assert ended is not None
    assert ended.how is EndedHow.FAILED
    assert lab.lost == set()
    audit = lab.audit()
    assert (audit["lost"], audit["skipped"], audit["unexplained"]) == (0, 0, 0)
    assert (audit["replayed"], audit["replayed_at_most"]) == (60, 30)
    with pytest.raises(AirflowFailException) as again:
        lab.act(RollBackOperator, operation)
    assert str(again.value) == words, "the task that is cleared says the same, and does nothing"
    assert lab.epoch.number == 3
