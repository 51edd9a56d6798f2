"""Drivers that have lost the word: their checkpoint was closed, or a newer epoch was claimed, while they run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.jobs.process import is_alive, this_process
from airflow_provider_offsets.stores.checkpoint import close, open_checkpoint
from tests.e2e.lab import Lab, wait_for


def test_drivers_that_lost_the_word(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()

    # The checkpoint is closed under the running driver: it dies before its next batch.
    close(open_checkpoint(lab.epoch.claim.checkpoint), "by-hand")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_gone()
    ended = lab.control.ended(1)
    assert ended.how is EndedHow.FAILED
    assert "CONCURRENT_STREAM_LOG_UPDATE" in ended.message
    assert sum(lab.evidence().values()) == 60

    restarted = lab.maintain()
    assert restarted["plan"]["form"] == "reposition"
    lab.wait_until_read()
    lab.wait_until_idle()

    # A newer epoch is claimed while a batch runs: it is not recorded, and no other batch begins.
    fenced = lab.epoch
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    unrecorded = lab.begun
    lab.produce(20, 0, 1, 2)
    newest = next(lab.store.newest_first(lab.pipeline.stream))
    nobody = replace(this_process(), start_ticks=0)
    claim = replace(fenced.claim, number=3, operation="by-hand", launch="by-hand", start=newest.end, announced=())
    lab.control.claim_epoch(claim, nobody, at_ms=0, after_row_time_ms=newest.row_time_ms)
    lab.go()
    wait_for(lambda: not is_alive(fenced.holder), "the fenced driver to be gone")
    assert lab.control.ended(2).how is EndedHow.FENCED
    assert lab.control.begun(2) == unrecorded
    assert next(lab.store.newest_first(lab.pipeline.stream)) == newest

    # The next epoch reads that batch again, and says so before.
    cut_off = sum(each.count for each in unrecorded.ranges)
    restarted = lab.maintain()
    assert restarted["stopped"]["how"] == "already died"
    assert restarted["plan"]["replay_at_most"] == cut_off
    lab.wait_until_read()
    lab.wait_until_idle()
    audit = lab.audit()
    assert lab.lost == set()
    assert lab.read_again == cut_off
    assert audit["replayed_at_most"] == cut_off

    # What the fenced one might still write is ignored by readers, and named by the audit.
    stored = lab.observe().stored
    late = Batch(
        start=unrecorded_start(unrecorded.ranges),
        end=stored,
        batch_time_ms=newest.batch_time_ms,
        batch_id=unrecorded.batch_id + 1000,
        query_id=unrecorded.query_id,
        epoch=2,
    )
    lab.store.append(lab.pipeline.stream, late)
    assert next(lab.store.newest_first(lab.pipeline.stream)).batch_id == late.batch_id
    assert lab.observe().processed.batch_id != late.batch_id
    assert lab.observe().stored == stored
    with pytest.raises(AirflowFailException, match=f"overlapping writers.*batch {late.batch_id} was recorded after"):
        lab.audit()


def unrecorded_start(ranges) -> Position:
    """Give the position at which a batch begins."""
    return Position({TopicPartition(each.topic, each.partition): each.start for each in ranges})
