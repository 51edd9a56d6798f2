"""What an untracked job reads again or passes over is in its audit, whoever has moved it: first starts, commands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_offsets.core.position import Position, TopicPartition
from tests.simulation import actors, product
from tests.simulation.script import Side, Stage, at, stage
from tests.simulation.test_cli_writes import importing, written
from tests.simulation.test_edited_pipelines import counts

MODES = {"untracked": "", "dstream": "zookeeper"}
BOTH = ("orders", "returns")


def ran_before(s: Stage, end: int) -> None:
    """Run the job on the first records, before this provider knows it, and stop it between two batches."""
    if s.kind.mode == "dstream":
        s.world.positions.stored = Position({TopicPartition("orders", 0): end})
        s.world.sink._add(s.world.kafka.records("orders", 0, 0, end), 0, "", 0, "")
        return
    legacy = s.world.start_untracked("legacy")
    s.run("legacy", for_s=60.0)
    s.sim.kill_process(legacy.process)


def skipped(s: Stage) -> list[tuple[int, int]]:
    with s.sim.quietly():
        found = product.audit_of(s.world)["discontinuities"]
    return [(each["range"]["start"], each["range"]["end"]) for each in found if each["kind"] == "skip"]


@pytest.mark.parametrize("start", ["committed", "shift:-2"])
def test_a_batch_that_was_cut_off_before_the_first_start(start: str) -> None:
    with stage("untracked", records=9) as s:
        s.world.run_before(1)
        assert s.to_end(s.restart("A", start)).failure == ""
        s.run(for_s=60.0)
        assert written(s) == [*range(6), *range(3 if start == "committed" else 1, 9)]
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("start", "replayed", "gaps"), [("shift:-2", 2, []), ("shift:+2", 0, [(6, 8)])])
def test_the_first_start_is_elsewhere(mode: str, start: str, replayed: int, gaps: list[tuple[int, int]]) -> None:
    with stage(mode, records=6, position_store=MODES[mode]) as s:
        ran_before(s, 6)
        s.append(6)
        assert s.to_end(s.restart("A", start, accept_skipped=2)).failure == ""
        s.run(for_s=60.0)
        assert (counts(s), skipped(s)) == ((0, replayed, 0), gaps)
        assert s.verdict() == ""


@pytest.mark.parametrize("has_run", [False, True], ids=["first start", "later start"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("offset", "replayed", "gaps"), [(3, 3, []), (9, 0, [(6, 9)])])
def test_a_command_has_moved_it(
    mode: str, has_run: bool, offset: int, replayed: int, gaps: list[tuple[int, int]]
) -> None:
    with stage(mode, records=6, position_store=MODES[mode]) as s:
        if has_run:
            s.first_start()
            s.kill("driver-1")
            s.to_end(s.start("stop", actors.take_over_and_stop))
        else:
            ran_before(s, 6)
        s.append(6)
        assert s.to_end(s.start("cli", importing(s, offset))).failure == ""
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert written(s) == [*range(6), *range(offset, 12)]
        assert (counts(s), skipped(s)) == ((0, replayed, 0), gaps)
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", MODES)
def test_two_commands_and_a_restart_have_moved_it(mode: str) -> None:
    with stage(mode, records=6, position_store=MODES[mode]) as s:
        s.first_start()
        s.kill("driver-1")
        s.to_end(s.start("stop", actors.take_over_and_stop))
        s.append(6)
        for number, offset in enumerate((3, 9)):
            assert s.to_end(s.start(f"cli-{number}", importing(s, offset))).failure == ""
        assert s.to_end(s.restart("A", "shift:-1", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert written(s) == [*range(6), *range(8, 12)]
        assert (counts(s), skipped(s)) == ((0, 0, 0), [(6, 8)])
        assert s.verdict() == ""


@pytest.mark.parametrize("offset", [3, 9, 15])
def test_a_command_has_moved_it_since_its_launch_failed(offset: int) -> None:
    """The submit task that failed is cleared after the command."""
    with stage("untracked", records=12) as s:
        s.first_start()
        s.run(for_s=60.0)
        s.append(6)
        a = s.restart("A", take_over=True)
        assert s.run("A", "driver", until=at("machine", "spawn", Side.AFTER))
        s.run("driver-2", until=at("store", "swap pipeline", Side.AFTER, by="driver-2"))
        s.kill("driver-2")
        s.to_end(a)
        assert s.to_end(s.start("cli", importing(s, offset))).failure == ""
        assert "StateChanged" in s.to_end(s.start("A", actors.submit_only)).failure
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert written(s)[-1] == 17
        assert s.verdict() == ""


def test_a_topic_is_put_back_that_no_snapshot_of_the_stopped_job_has() -> None:
    """The topic is taken out before the maintenance that stops the job. The store is asked for the other one only."""
    with stage("dstream", topics=BOTH, limit=12, position_store="zookeeper") as s:
        s.append(6, "returns")
        s.first_start()
        s.world.kind = replace(s.world.kind, topics=("orders",))
        assert s.to_end(s.restart("A")).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        s.world.kind = replace(s.world.kind, topics=BOTH)
        s.append(3, "returns")
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("returns", 9)
        assert counts(s) == (0, 0, 0)
        assert s.verdict() == ""


def test_a_partition_was_added_while_its_topic_was_out_of_the_pipeline() -> None:
    """Two launches follow that read it: only the first one shows where the epoch before has stopped."""
    with stage("dstream", topics=BOTH, limit=12, position_store="zookeeper") as s:
        s.first_start()
        s.world.kind = replace(s.world.kind, topics=("returns",))
        assert s.to_end(s.restart("A")).failure == ""
        s.world.kafka.cluster.add_partitions("orders", 2)
        s.append(3, "orders", 1)
        s.world.kind = replace(s.world.kind, topics=BOTH)
        for name in "BC":
            assert s.to_end(s.restart(name, take_over=True)).failure == ""
            s.run(for_s=60.0)
        assert counts(s) == (0, 0, 0)
        assert s.verdict() == ""


def test_a_topic_is_out_of_the_pipeline_only_for_the_snapshot_of_the_stopped_job() -> None:
    with stage("dstream", topics=BOTH, limit=12, position_store="zookeeper") as s:
        s.append(6, "returns")
        s.first_start()
        a = s.restart("A")
        assert s.run("A", "driver", until=at("store", "zk position", by="A.when_stopped"))
        s.kill("A.when_stopped")
        s.world.kind = replace(s.world.kind, topics=("orders",))
        assert s.run("A", until=at("store", "zk position", by="A.replan"))
        s.kill("A.replan")
        s.world.kind = replace(s.world.kind, topics=BOTH)
        assert s.to_end(a).failure == ""
        s.append(3, "returns")
        s.run(for_s=60.0)
        assert s.has_written("returns", 9)
        assert counts(s) == (0, 0, 0)
        assert s.verdict() == ""


@pytest.mark.parametrize("start", ["shift:-3", "shift:+2"])
def test_a_topic_is_put_back_between_a_move_and_the_start(start: str) -> None:
    """The move knows nothing of the topic, and is the move of the other one nevertheless."""
    with stage("dstream", topics=BOTH, limit=12, position_store="zookeeper") as s:
        s.append(6, "returns")
        s.first_start()
        s.append(2)
        s.world.kind = replace(s.world.kind, topics=("orders",))
        a = s.restart("A", start, accept_skipped=2)
        assert s.run("A", "driver", until=at("machine", "spawn"))
        s.give_up(a)
        s.world.kind = replace(s.world.kind, topics=BOTH)
        s.append(3)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("orders", 11)
        assert counts(s) == (0, 0, 0)
        assert s.verdict() == ""
