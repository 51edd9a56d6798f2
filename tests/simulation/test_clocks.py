"""The clocks of two hosts differ by an hour. Snapshots have the times of different hosts."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from tests.simulation import actors
from tests.simulation.script import Side, Stage, at, stage

HOUR_MS = 3_600_000


def prune(s: Stage) -> tuple[str, ...]:
    """Remove what a policy does not retain that keeps one snapshot, and return the removed snapshots."""
    pipeline = replace(s.world.pipeline, keep=KeepPolicy(snapshots=1))
    control = Control(s.world.inner, s.world.name)
    with s.sim.quietly():
        return remove(control, pipeline, find_prunable(control, pipeline, at_ms=s.sim.now_ms())).snapshots


def test_an_operation_is_at_work_whose_snapshot_is_older_than_the_claim_by_the_clock_of_the_driver() -> None:
    """Its snapshot of the stopped job alone shows what was in flight."""
    with stage("untracked", kill_timeout_s=10) as s:
        s.sim.host("worker-1").offset_ms = HOUR_MS
        s.first_start()
        s.sim.host("worker-1").offset_ms = 0
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        s.first_stop()
        a = s.restart("A", take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.to_end(s.start("S", actors.snapshot_only), "S")
        assert "A#stopped" not in prune(s)
        s.to_end(a)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(9), *range(6, 9)]
        assert s.verdict() == ""


def test_an_earlier_snapshot_seems_to_be_the_newest_one() -> None:
    """The position was moved back by hand. It is still after the one that the earlier snapshot has."""
    with stage("dstream", position_store="zookeeper", kill_timeout_s=10) as s:
        s.first_start()
        s.sim.host("worker-2").offset_ms = HOUR_MS
        s.to_end(s.start("S", actors.snapshot_only, host="worker-2"))
        s.append(3)
        s.run(for_s=30.0)
        s.first_stop()
        s.world.positions.stored = Position({TopicPartition("orders", 0): 7})
        refused = s.to_end(s.restart("A", take_over=True))
        assert "orders[0] was at 9 according to snapshot pause#stopped" in refused.failure
        assert s.to_end(s.restart("B", 'offsets:{"orders":{"0":9}} | committed', take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=30.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert s.verdict() == ""
