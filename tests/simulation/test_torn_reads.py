"""What an operation reads is of one moment: positions and record, checked topics and started job, plan and launch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation import actors, product
from tests.simulation.history import AS_A_NEW_ONE
from tests.simulation.script import Side, Stage, at, stage


def _wake(s: Stage, name: str) -> None:
    """End the hang of an actor, and let it act."""
    s.actor(name).wake_s = s.sim.now_s
    s.run(name, for_s=10.0)


@pytest.mark.parametrize("mode", ["process", "sink", "untracked", "dstream"])
def test_a_topic_that_is_recreated_before_the_driver_reads_it_is_reported(mode: str) -> None:
    with stage(mode, position_store="zookeeper" if mode == "dstream" else "", records=6) as s:
        s.first_start()
        s.first_stop()
        a = s.restart("A", take_over=True)
        assert s.run("A", until=at("machine", "spawn", Side.AFTER))
        s.recreate("orders", 1)
        s.append(20)
        s.to_end(a)
        assert "'orders' was recreated during the start" in a.failure
        assert AS_A_NEW_ONE in a.failure, "the way out"


def test_a_snapshot_that_hangs_between_positions_and_record_is_of_one_moment() -> None:
    with stage("dstream", position_store="zookeeper", records=6) as s:
        s.first_start()
        a = s.restart("A")
        assert s.run("A", "driver-1", until=at("store", "zk position", Side.AFTER, by="A.when_stopped~1"))
        s.hang("A.when_stopped~1", 5000.0)
        s.sim.kill_process(a.actor.process)  # a person marks the run failed
        a.is_over = True
        s.to_end(s.restart("B", take_over=True))
        s.append(6)
        s.run(for_s=60)
        c = s.restart("C")
        assert s.run("C", "driver", until=at("store", "get attempt/C", Side.BEFORE, by="C.when_stopped~1"))
        s.hang("C.when_stopped~1", 20.0)
        _wake(s, "A.when_stopped~1")  # its positions are those before epoch 2, which has run and ended meanwhile
        s.to_end(c)
        s.append(3)
        s.run(for_s=60)
        assert not s.verdict()


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_what_only_a_snapshot_knows_to_be_in_flight_is_in_the_audit(mode: str) -> None:
    with stage(mode, records=12) as s:
        s.world.run_before(2)
        s.to_end(s.start("observer", actors.snapshot_only))
        s.remove_checkpoints()
        s.to_end(s.restart("A", 'offsets:{"orders":{"0":6}} | committed'))
        s.run(for_s=60)
        assert not s.verdict()


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_so_is_what_the_checkpoint_of_one_topic_does_not_know(mode: str) -> None:
    """The checkpoint is removed, and a person runs the job on one of its topics, in a new checkpoint."""
    with stage(mode, topics=("orders", "returns"), records=12, limit=6) as s:
        s.append(12, "returns")
        kind = s.world.kind
        s.world.run_before(2)
        s.to_end(s.start("observer", actors.stop_and_look))
        s.remove_checkpoints()
        s.world.kind = replace(kind, topics=("orders",))
        s.world.run_before(1)
        s.world.kind = kind
        s.to_end(s.restart("A", 'offsets:{"returns":{"0":6}} | committed', take_over=True))
        s.run(for_s=60)
        with s.sim.quietly():
            audit = product.audit_of(s.world)
        assert audit["replayed_at_most"] == 6 + 3, "orders 6..12 by the checkpoint, and returns 6..9 by the snapshot"
