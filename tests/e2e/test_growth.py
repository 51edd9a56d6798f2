"""A topic that grows, in the three situations that stock Spark does not handle.

``test_simulated_spark.py`` shows what Spark does there without the product: it dies at a start that lacks a partition,
reads a new partition from 0 unannounced, and never reads it under ``assign``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import happybase

from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.pipeline import Subscription
from tests.e2e.lab import Lab, wait_for


def test_reposition_over_growth_announces_what_new_partitions_replay(lab: Lab) -> None:
    """Take a snapshot with three partitions, grow the topic, read the new partitions, and go back to the snapshot."""
    lab.produce(100, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    snapshot = lab.snapshot(f"{lab.topic}/by-hand")
    lab.produce(50, 0, 1, 2)
    lab.maintain(when_stopped=lambda: (lab.grow(5), lab.produce(40, 3, 4)))
    lab.wait_until_read()
    back = lab.maintain(f"snapshot:{snapshot['id']}")
    lab.produce(10, 0, 1, 2, 3, 4)
    lab.wait_until_read()

    plan = back["plan"]
    assert plan["form"] == "reposition"
    assert plan["replay"] == 3 * 50 + 2 * 40
    assert lab.lost == set()
    assert lab.read_again == plan["replay"]
    assert lab.audit()["unexplained"] == 0


def test_going_back_in_time_over_growth_reads_what_was_made_since_from_0(lab: Lab) -> None:
    """Both our history and Kafka's record times are used.

    The fallback would skip new partitions, and is not applied.
    """
    lab.produce(100, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    lab.wait_until_idle()
    then_ms = time.time_ns() // 1_000_000
    wait_for(lambda: time.time_ns() // 1_000_000 > then_ms, "the next millisecond")
    lab.grow(4)
    lab.produce(50, 0, 1, 2, 3)
    lab.wait_until_read()
    lab.wait_until_idle()
    then = moment_text(then_ms)
    when_stopped = {"0": 100, "1": 100, "2": 100, "3": 0}

    by_records = lab.plan(lab.operation(), f"timestamp:{then}")
    back = lab.maintain(f"as-of:{then} | latest")
    lab.produce(10, 0, 1, 2, 3)
    lab.wait_until_read()

    assert by_records["start"] == back["plan"]["start"] == {lab.topic: when_stopped}
    assert by_records["replay"] == back["plan"]["replay"] == 4 * 50
    assert lab.lost == set()
    assert lab.read_again == back["plan"]["replay"]
    assert lab.audit()["unexplained"] == 0


def test_first_start_from_a_stored_position_names_the_new_partitions(
    make_lab: Callable[..., Lab], hbase_url: str
) -> None:
    """A job in the Cloudera row layout has left a row for three partitions, and then the topic has grown."""
    lab = make_lab(store_url=hbase_url)
    lab.produce(100, 0, 1, 2)
    server = urlsplit(hbase_url)
    connection = happybase.Connection(server.hostname, server.port)
    table = connection.table(hbase_url.rpartition("/")[2])
    key = f"{lab.topic}:{lab.topic}:1700000000000".encode()
    table.put(key, {f"offsets:{number}".encode(): b"60" for number in range(3)})
    connection.close()
    lab.grow(5)
    lab.produce(40, 3, 4)

    started = lab.maintain()

    assert started["plan"]["form"] == "fresh"
    lab.produce(10, 0, 1, 2, 3, 4)
    expected = {(p, o) for p in range(3) for o in range(60, 110)} | {(p, o) for p in (3, 4) for o in range(50)}
    wait_for(lambda: len(lab.evidence()) >= len(expected), "all records after the stored position")
    assert set(lab.evidence()) == expected
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_assign_gets_the_new_partitions(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(subscription=Subscription.ASSIGN)
    lab.produce(100, 0, 1, 2)
    lab.maintain()
    lab.wait_until_read()
    lab.maintain(when_stopped=lambda: (lab.grow(5), lab.produce(40, 3, 4)))
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()

    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0
