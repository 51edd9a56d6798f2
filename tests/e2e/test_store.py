"""Faults of the store: its rows have the time of a clock ahead of the driver's, and the store becomes unreachable."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import CloseDead, TakeLease
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.stores import open_store
from tests.e2e.conftest import endpoint
from tests.e2e.lab import Lab, wait_for
from tests.e2e.proxy import Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Yield a proxy before HBase that can be cut."""
    made = Proxy(endpoint("hbase", "thrift"))
    yield made
    made.close()


def test_clock_of_the_driver_is_behind(make_lab: Callable[..., Lab], hbase_url: str) -> None:
    lab = make_lab(store_url=hbase_url)
    stream = lab.pipeline.stream
    lab.produce(20, 0, 1, 2)
    five_minutes_ahead = time.time_ns() // 1_000_000 + 300_000
    there = Position.from_plain({lab.topic: {"0": 10, "1": 10, "2": 10}})
    lab.store.append(stream, Batch(end=there, batch_time_ms=five_minutes_ahead))

    lab.maintain()
    lab.produce(10, 0, 1, 2)
    lab.wait_until_idle()
    rows = list(lab.store.oldest_first(stream))
    assert rows[0].row_time_ms == five_minutes_ahead
    assert all(earlier.row_time_ms < later.row_time_ms for earlier, later in pairwise(rows))
    assert all(earlier.end == later.start for earlier, later in pairwise(rows))
    assert all(row.batch_time_ms < five_minutes_ahead for row in rows[1:])
    assert rows[-1].end == lab.observe().live.end

    restarted = lab.maintain()
    assert restarted["how"] == "idle"
    lab.produce(10, 0, 1, 2)
    lab.wait_until_idle()
    assert set(lab.evidence()) == {(number, offset) for number in range(3) for offset in range(10, 40)}
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_store_goes_away_under_a_driver(
    proxy: Proxy, make_lab: Callable[..., Lab], hbase_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "Settings", functools.partial(Settings, store_retry_timeout_s=30.0))
    lab = make_lab(store_url=f"hbase://127.0.0.1:{proxy.port}/{hbase_url.rpartition('/')[2]}")
    lab.produce(20, 0, 1, 2)
    log = Path(lab.maintain()["log"])

    # Unreachable for a moment while a batch runs: the driver retries, records the batch, and continues.
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    proxy.cut()
    lab.go()
    wait_for(lambda: "Retrying in" in log.read_text(), "the driver to notice")
    proxy.open()
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.read_again == 0

    # Unreachable beyond the retry timeout: the driver ends, and leaves the running batch unrecorded.
    stored = lab.observe().stored
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    in_flight = lab.started
    proxy.cut()
    lab.go()
    wait_for(lambda: not lab.processes("python"), "the driver to end")
    proxy.open()
    assert "StoreUnreachable" in log.read_text()
    assert lab.observe().stored == stored
    assert lab.started == in_flight
    assert lab.ended(1) is None

    cut_off = lab.started_batch.record_count
    restarted = lab.maintain()
    assert restarted["stopped"]["how"] == "already died"
    assert restarted["plan"]["replay_at_most"] == cut_off
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == cut_off
    assert lab.audit()["replayed_at_most"] == cut_off

    # Unreachable for a driver that somebody else takes for dead: it resumes, is fenced, and records nothing.
    zombie = lab.epoch
    lab.fault("wait", "after")
    lab.produce(20, 0, 1, 2)
    lab.happened("wait")
    in_flight, in_flight_batch = lab.started, lab.started_batch
    log = Path(restarted["log"])
    newest = next(lab.store.newest_first(lab.pipeline.stream))
    proxy.cut()
    lab.go()
    wait_for(lambda: "Retrying in" in log.read_text(), "the zombie to notice")
    with closing(open_store(hbase_url)) as direct:
        cell = Control(direct, lab.topic).cell
        cell.change(TakeLease("other", clock.now_ms(), 0, take_over=True))
        cell.change(CloseDead("other", zombie.holder, Ended(EndedHow.DIED, clock.now_ms())))
    proxy.open()
    wait_for(lambda: not is_alive(zombie.holder), "the zombie to end")
    assert "Fenced" in log.read_text()
    assert lab.started == in_flight
    assert next(lab.store.newest_first(lab.pipeline.stream)) == newest

    again = lab.maintain()
    assert lab.epoch.number == 3
    assert again["plan"]["replay_at_most"] == in_flight_batch.record_count
    lab.wait_until_read()
    lab.wait_until_idle()
    assert lab.lost == set()
    assert lab.read_again == cut_off + again["plan"]["replay_at_most"]
    assert lab.audit()["unexplained"] == 0
