"""Drivers whose checkpoint or epoch is closed while they run, and which are fenced."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends import machine
from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.seed import close
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.operations.submitting import LAUNCHED
from airflow_provider_offsets.operators import SubmitStreamingJobOperator
from tests.e2e.lab import Lab, wait_for


class Liar(machine.LocalMachine):
    """A machine that reports every driver as dead."""

    def is_alive(self, process: object) -> bool:  # type: ignore[override]
        """Return that a process has exited, whatever it is."""
        return False


def test_a_driver_whose_checkpoint_was_closed(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()

    close(open_checkpoint(lab.epoch.claim.checkpoint), "by-hand")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_gone()
    ended = lab.ended(1)
    assert ended is not None
    assert ended.how is EndedHow.FAILED
    assert "CONCURRENT_STREAM_LOG_UPDATE" in ended.message
    assert sum(lab.evidence().values()) == 60

    restarted = lab.maintain()
    assert restarted["plan"]["form"] == "reposition"
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert (lab.lost, lab.read_again, audit["unexplained"]) == (set(), 0, 0)


def test_a_driver_that_is_taken_for_dead_in_its_batch(lab: Lab) -> None:
    """Its batch is neither recorded nor committed, and no other batch starts.

    The next epoch names the batch before it reads.
    """
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    fenced = lab.epoch
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    cut_off = lab.started_batch
    lab.produce(20, 0, 1, 2)
    newest = next(lab.store.newest_first(lab.pipeline.stream))

    operation = lab.operation()
    with machine.installed(Liar()):
        assert lab.stop(operation)["how"] == "already died"
    lab.go()
    wait_for(lambda: not is_alive(fenced.holder), "the fenced driver to be gone")
    assert next(lab.store.newest_first(lab.pipeline.stream)) == newest
    assert [(each.batch_id, each.count) for each in lab.epoch.cuts] == [(cut_off.batch_id, 1)]
    seen = lab.observe()
    assert seen.checkpoint is not None
    assert seen.checkpoint.planned_batch_id == cut_off.batch_id

    plan = lab.plan(operation)
    assert plan["replay_at_most"] == cut_off.record_count > 0
    lab.apply(operation)
    assert lab.submit(operation)["epoch"] == 2
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert (lab.lost, lab.read_again) == (set(), cut_off.record_count)
    assert (audit["replayed_at_most"], audit["unexplained"]) == (cut_off.record_count, 0)


def test_a_launch_that_was_cancelled_is_claimed_by_nobody(lab: Lab) -> None:
    """Its driver starts late, out of a queue or on a slow machine."""
    lab.produce(20, 0, 1, 2)
    operation = lab.prepare()
    lab.kill(lab.task(SubmitStreamingJobOperator, operation), "record_step", "after", step=LAUNCHED)

    other = lab.prepare()
    wait_for(lambda: not lab.processes("java"), "the driver of the cancelled launch to be gone")
    assert lab.evidence() == {}
    with pytest.raises(AirflowFailException, match="TakenOver"):
        lab.submit(operation)
    assert lab.submit(other)["epoch"] == 2
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert (lab.lost, lab.read_again, audit["unexplained"]) == (set(), 0, 0)
    assert [(epoch.number, epoch.is_cancelled) for epoch in lab.control.epochs()] == [(1, True), (2, False)]


def test_a_job_that_was_started_by_hand_on_the_checkpoint_is_noticed(lab: Lab) -> None:
    """Between the plan and the start, another job that does not know the record has run a batch there."""
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    operation = lab.prepare()
    files = open_checkpoint(lab.epoch.claim.checkpoint)
    last = max(int(name) for name in files.names("offsets") if name.isdecimal())
    entry = files.text(f"offsets/{last}")
    assert entry is not None
    files.create(f"offsets/{last + 1}", entry)
    files.create(f"commits/{last + 1}", "v1\n{}")

    planned = rf"checkpoint .* is {last + 1}\. .*{last}, as planned for epoch 2"
    with pytest.raises(AirflowFailException, match=planned):
        lab.submit(operation)
    assert lab.lost == set()
