"""A DStream job like the slide deck's behaves as ``docs/dstream.md`` says, without this product.

The three cases of a start, the stop by SIGTERM in the middle of a backlog, and a batch that fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import happybase
import pytest

from airflow_provider_offsets.core.pipeline import StopPolicy
from stack import maven
from tests.e2e.conftest import endpoint
from tests.e2e.dstream_lab import TABLE, DStreamLab
from tests.e2e.lab import DEADLINE_S, Lab

BY_SIGNAL = StopPolicy(signal_timeout_s=60)
ENDED_BY_SIGTERM = 128 + 15  # the exit code of a JVM that has run its shutdown hooks


@pytest.fixture
def make_dstream(make_lab: Callable[..., Lab]) -> Callable[..., DStreamLab]:
    """Return a function that makes a lab of the job, with a topic of two partitions."""
    if not maven.is_current("dstream"):
        words = "jobs/dstream is not built as it is now: python3 -m stack jars dstream"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    servers = {"thrift": endpoint("hbase", "thrift"), "zookeeper": endpoint("hbase", "zookeeper")}
    host, _, port = servers["thrift"].partition(":")
    with closing(happybase.Connection(host, int(port))) as connection:
        if TABLE.encode() not in connection.tables():
            connection.create_table(TABLE, {"offsets": {}})

    def make(**settings: Any) -> DStreamLab:
        lab = make_lab(kind=DStreamLab, partitions=2, stop_policy=BY_SIGNAL, **servers, **settings)
        assert isinstance(lab, DStreamLab)
        return lab

    return make


def stop_in_a_backlog(lab: DStreamLab) -> None:
    """Start for the first time: nothing is stored, so the job begins at the earliest record.

    Then stop it in the backlog.
    """
    lab.records_per_s = 40
    lab.produce(1_000, 0, 1)
    lab.start()
    lab.wait_for_batches(3)

    assert lab.stop() == ENDED_BY_SIGTERM

    read = set(lab.evidence())
    assert read == {(partition, offset) for partition, end in lab.ends.items() for offset in range(end)}
    assert lab.lost, "it stopped before the end of the backlog, or there was nothing to see"
    assert lab.batches()[-1].stem == lab.planned()[-1], "each batch that was planned is finished"
    assert lab.read_again == 0


def grow_and_start_again(lab: DStreamLab) -> None:
    """Start in the third case: a new partition with records in it, and new records in the old ones."""
    lab.records_per_s = 10_000
    lab.grow(3)
    lab.produce(50, 0, 1, 2)
    lab.start()
    lab.wait_until_read()


def test_hbase_loses_and_repeats_nothing_over_a_stop_and_growth(make_dstream: Callable[..., DStreamLab]) -> None:
    lab = make_dstream(keeps="hbase", strategy="subscribe")
    for neighbour in (lab.topic, f"{lab.group}:0", f"{lab.group}:1790", f"{lab.group}2"):
        lab.put_row(neighbour, 1_999_999_999_999, 700)

    stop_in_a_backlog(lab)
    when_stopped = lab.stored_in_hbase()
    assert when_stopped[-1] == lab.ends
    assert when_stopped == sorted(when_stopped, key=lambda row: row[0]), "each row is a batch further"
    grow_and_start_again(lab)
    assert lab.stop() == ENDED_BY_SIGTERM

    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.stored_in_hbase()[-1] == {0: 1_050, 1: 1_050, 2: 50}


def test_zookeeper_loses_and_repeats_nothing_over_a_stop_and_growth(make_dstream: Callable[..., DStreamLab]) -> None:
    lab = make_dstream(keeps="zookeeper", strategy="assign")

    stop_in_a_backlog(lab)
    assert lab.stored_in_zookeeper() == lab.ends
    grow_and_start_again(lab)
    assert lab.stop() == ENDED_BY_SIGTERM

    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.stored_in_zookeeper() == {0: 1_050, 1: 1_050, 2: 50}


def test_kafka_repeats_the_batches_that_were_not_committed(make_dstream: Callable[..., DStreamLab]) -> None:
    lab = make_dstream(keeps="kafka,hbase", strategy="subscribe-pattern")

    stop_in_a_backlog(lab)
    batches, committed = lab.stored_in_hbase(), lab.stored_in_kafka()
    assert batches[-1] == lab.ends, "HBase beside it has the truth"
    assert committed in batches[:-1], "the end of an earlier batch: the commit of the last one was never sent"
    behind = sum(lab.ends[partition] - committed[partition] for partition in lab.ends)
    grow_and_start_again(lab)
    assert lab.stop() == ENDED_BY_SIGTERM

    assert lab.lost == set()
    assert lab.read_again == behind


def test_no_batch_is_run_after_one_that_failed(make_dstream: Callable[..., DStreamLab]) -> None:
    lab = make_dstream(keeps="hbase", batch_ms=100, records_per_s=100)
    lab.produce(1_000, 0, 1)
    # A folder at the path of its file fails a batch: here every fifth. While the first batches are slow, others wait
    # behind the failing one, and could be written.
    now_ms = time.time_ns() // 1_000_000
    in_the_way = [lab.home / f"{at_ms}.tsv" for at_ms in range(now_ms - now_ms % 500, now_ms + DEADLINE_S * 1_000, 500)]
    for folder in in_the_way:
        folder.mkdir()
    lab.start()

    assert lab.exit_code() == 1
    stored = lab.stored_in_hbase()
    assert (stored[-1] if stored else {}) == lab.ends

    for folder in in_the_way:
        folder.rmdir()
    lab.records_per_s = 10_000
    lab.start()
    lab.wait_until_read()
    assert lab.lost == set()
    assert lab.read_again == 0
