"""Pipelines whose entry in ``pipelines.yaml`` was edited: the job opens another checkpoint, or reads other topics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from tests.simulation import product
from tests.simulation.script import Side, Stage, at, stage
from tests.simulation.test_cli_writes import importing


def edit(s: Stage, **changes: Any) -> None:
    """Change keys of the pipeline's entry."""
    s.world.kind = replace(s.world.kind, **changes)


def counts(s: Stage) -> tuple[int, int, int]:
    """Return what the audit finds: lost, replayed and unexplained offsets."""
    with s.sim.quietly():
        found = product.audit_of(s.world)
    return found["lost"], found["replayed"], found["unexplained_count"]


def cut_off(s: Stage) -> list[tuple[int, int]]:
    """Return the ranges that the audit names as cut off."""
    with s.sim.quietly():
        found = product.audit_of(s.world)["discontinuities"]
    return [(each["range"]["start"], each["range"]["end"]) for each in found if each["kind"] == "cut off"]


@pytest.mark.parametrize("mode", ["process", "untracked"])
def test_topics_are_replaced(mode: str) -> None:
    with stage(mode, topics=("orders", "returns"), records=6) as s:
        edit(s, topics=("orders",))
        s.first_start()
        s.append(4, "returns")
        if mode == "process":
            # Another job, which records ends only, reads the other topic under the same group id meanwhile.
            other = Stream(s.world.group_id, ("returns",))
            s.world.inner.append(other, Batch(Position({TopicPartition("returns", 0): 4}), s.sim.now_ms()))
        s.append(3)
        s.first_stop()
        edit(s, topics=("returns",))
        assert counts(s) == (0, 0, 0)
        start = 'offsets:{"returns":{"0":0}}'
        s.to_end(s.restart("A", f"{start} | committed", take_over=True))
        s.append(4, "returns")
        s.run(for_s=60.0)
        assert s.has_written("orders", 6)
        assert s.has_written("returns", 8)
        assert counts(s) == (0, 0, 0)


MOVED = "sim://ck/moved"


def copy_checkpoint(s: Stage, source: str, target: str) -> None:
    """Copy a checkpoint folder, as a person does."""
    folders = s.world.files.folders
    for name in [each for each in folders if each.startswith(f"{source}/") or each == source]:
        folders[target + name[len(source) :]] = dict(folders[name])


def run_by_hand(s: Stage, location: str) -> None:
    """Run the program by hand on a checkpoint until it has nothing to read."""
    spark = s.world._spark()
    spark.source = {"startingOffsets": "earliest"}
    engine = spark.engine(location, None)

    def program() -> None:
        while engine.trigger():
            pass

    actor = s.sim.spawn("by-hand", program, host="worker-2")
    s.run("by-hand", for_s=30.0)
    assert actor.is_gone


@pytest.mark.parametrize("file_sink", [False, True], ids=["any sink", "file sink"])
def test_an_untracked_job_opens_another_checkpoint(file_sink: bool) -> None:
    with stage("untracked", file_sink=file_sink) as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        s.world.checkpoint = MOVED
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        with s.sim.quietly():
            left = read_state(s.world.files.open(product.CHECKPOINT))
        assert left is not None
        assert left.closed_by == "A"
        assert s.verdict() == ""


def test_the_folder_of_an_untracked_job_was_moved() -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        copy_checkpoint(s, product.CHECKPOINT, MOVED)
        s.remove_checkpoints()
        s.world.checkpoint = MOVED
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert s.verdict() == ""


def test_an_older_copy_of_the_folder_is_no_position() -> None:
    with stage("untracked", file_sink=True) as s:
        s.first_start()
        copy_checkpoint(s, product.CHECKPOINT, MOVED)
        s.append(6)
        s.run(for_s=60.0)
        s.first_stop()
        s.append(3)
        for location in (product.CHECKPOINT, f"{product.CHECKPOINT}/"):
            for folder in [each for each in s.world.files.folders if each.startswith(location)]:
                if not folder.startswith(MOVED):
                    s.world.files.folders.pop(folder, None)
        s.world.checkpoint = MOVED
        a = s.to_end(s.restart("A", take_over=True))
        assert "orders[0] was at 12 according to snapshot" in a.failure
        assert s.to_end(s.restart("B", 'offsets:{"orders":{"0":12}} | committed', take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(18)]
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize(("offset", "again"), [(9, 0), (6, 3)], ids=["what it opens", "what it opened"])
def test_a_job_that_was_run_by_hand_on_the_other_checkpoint_is_refused(offset: int, again: int) -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        copy_checkpoint(s, product.CHECKPOINT, MOVED)
        run_by_hand(s, MOVED)
        s.world.checkpoint = MOVED
        a = s.to_end(s.restart("A", take_over=True))
        assert "orders[0] 9 and 6" in a.failure
        start = f'offsets:{{"orders":{{"0":{offset}}}}} | committed'
        assert start in a.failure
        assert s.to_end(s.restart("B", start, accept_skipped=3, take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        offsets = [each.record.offset for each in s.world.sink.writes]
        assert sorted(offsets) == sorted([*range(12), *range(9 - again, 9)])


@pytest.mark.parametrize("is_gone", [False, True], ids=["seeded checkpoint", "seeded checkpoint gone"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_tracked_job_that_was_repositioned_is_untracked(mode: str, is_gone: bool) -> None:
    with stage(mode, file_sink=True) as s:
        s.first_start()
        s.to_end(s.restart("A", "shift:-3"))
        s.append(6)
        s.run(for_s=60.0)
        s.first_stop()
        s.append(3)
        if is_gone:
            for location in s.world.files.checkpoints(f"{product.CHECKPOINT}-"):
                s.world.files.remove_tree(location)
        edit(s, mode="untracked")
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        offsets = [each.record.offset for each in s.world.sink.writes]
        assert sorted(offsets) == sorted([*range(18), *range(3, 6)])
        assert counts(s) == (0, 3, 0)


def test_the_checkpoint_is_named_as_before_again() -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.world.checkpoint = MOVED
        s.append(3)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        s.world.checkpoint = product.CHECKPOINT
        s.append(3)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(15)]
        assert s.verdict() == ""


def test_a_batch_that_was_planned_with_fewer_topics_is_left() -> None:
    with stage("untracked", topics=("orders", "returns")) as s:
        s.append(6, "returns")
        s.first_start()
        s.first_stop()
        s.append(3)
        edit(s, topics=("orders",))
        run_by_hand(s, product.CHECKPOINT)
        edit(s, topics=("orders", "returns"))
        s.append(3, "returns")
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("orders", 9)
        assert s.has_written("returns", 9)
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["process", "untracked"])
def test_another_group_id_is_refused_by_name(mode: str) -> None:
    with stage(mode) as s:
        s.first_start()
        s.append(3)
        s.run(for_s=30.0)
        s.first_stop()
        s.world.group_id = "other"
        assert counts(s) == (0, 0, 0)
        a = s.to_end(s.restart("A", take_over=True))
        assert "group_id: orders" in a.failure
        s.world.group_id = "orders"
        s.append(3)
        s.to_end(s.restart("B", take_over=True))
        assert s.verdict() == ""


@pytest.mark.parametrize("third", ["sim://ck/third", product.CHECKPOINT], ids=["a third one", "the former one"])
def test_another_checkpoint_is_named_between_the_move_and_the_start(third: str) -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        copy_checkpoint(s, product.CHECKPOINT, MOVED)
        s.world.checkpoint = MOVED
        a = s.restart("A", "shift:-3", take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.give_up(a)
        s.world.checkpoint = third
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert s.verdict() == ""


def test_an_older_copy_is_named_between_a_rewind_and_the_start() -> None:
    with stage("untracked", records=3) as s:
        s.first_start()
        copy_checkpoint(s, product.CHECKPOINT, MOVED)
        s.append(3)
        s.run(for_s=30.0)
        s.first_stop()
        a = s.restart("A", "shift:-2", take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.give_up(a)
        s.world.checkpoint = MOVED
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(9)]
        assert s.verdict() == ""


@pytest.mark.parametrize("until", [("machine", "spawn"), ("checkpoint", "move to sim://ck/orders-before")])
@pytest.mark.parametrize("has_copy", [False, True], ids=["nothing there", "a copy there"])
def test_the_checkpoint_is_changed_while_the_job_is_moved(until: tuple[str, str], has_copy: bool) -> None:
    """Each task reads ``pipelines.yaml`` again. Airflow tries the task again that was killed."""
    with stage("untracked") as s:
        s.first_start()
        if has_copy:
            copy_checkpoint(s, product.CHECKPOINT, MOVED)
        s.append(3)
        s.run(for_s=30.0)
        s.first_stop()
        a = s.restart("A", "shift:-3", take_over=True)
        assert s.run("A", until=at(*until))
        s.kill("A.")
        s.world.checkpoint = MOVED
        assert "The job opens 'sim://ck/moved'" in s.to_end(a).failure
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert s.verdict() == ""


@pytest.mark.parametrize("then", ["process", "sink"])
def test_what_an_untracked_epoch_had_in_flight_stays_counted_once_the_job_is_tracked(then: str) -> None:
    with stage("untracked") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        assert s.to_end(s.restart("A")).failure == ""
        s.run(for_s=60.0)
        s.first_stop()
        edit(s, mode=then)
        s.append(3)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert sorted(each.record.offset for each in s.world.sink.writes) == sorted([*range(12), *range(6, 9)])
        assert cut_off(s) == [(6, 9)]
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize("then", ["process", "sink"])
def test_a_partition_that_was_new_to_an_untracked_epoch_counts_as_read_once_the_job_is_tracked(then: str) -> None:
    with stage("untracked") as s:
        s.first_start()
        s.world.kafka.cluster.add_partitions("orders", 2)
        s.append(3, "orders", 1)
        s.run(for_s=60.0)
        s.first_stop()
        edit(s, mode=then)
        s.append(3, "orders", 1)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert len(s.world.sink.writes) == 12
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_batch_that_a_tracked_epoch_ran_twice_stays_counted_once_the_job_is_untracked(mode: str) -> None:
    with stage(mode, runs_again=True, limit=8) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.fail("driver-1", RuntimeError("the sink is away"))
        s.run(for_s=60.0)
        s.first_stop()
        edit(s, mode="untracked", runs_again=False)
        s.append(3)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert sorted(each.record.offset for each in s.world.sink.writes) == sorted([*range(12), *range(6, 9)])
        assert cut_off(s) == [(6, 9)]
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize("start", ["committed", "shift:-3"])
@pytest.mark.parametrize("then", ["untracked", "process", "sink"])
def test_a_tracked_job_that_was_killed_before_a_commit_is_untracked(then: str, start: str) -> None:
    """It has recorded a batch that Spark would run again in the same checkpoint. Later it may be tracked again."""
    with stage("process") as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("checkpoint", "create commits/", by="driver-1"))
        s.kill("driver-1")
        edit(s, mode="untracked")
        s.append(3)
        assert s.to_end(s.restart("A", start, take_over=True)).failure == ""
        s.run(for_s=60.0)
        s.first_stop()
        edit(s, mode=then)
        s.append(3)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        again = [6, 7, 8] if start != "committed" else []
        assert sorted(each.record.offset for each in s.world.sink.writes) == sorted([*range(15), *again])
        assert counts(s) == (0, len(again), 0)


@pytest.mark.parametrize("start", ["shift:-3", "shift:+3"])
@pytest.mark.parametrize("then", ["process", "sink"])
def test_a_restart_of_an_untracked_job_was_given_up_after_it_had_moved_the_checkpoint(then: str, start: str) -> None:
    """Once the job is tracked, its position is still the one before the move."""
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(6)
        a = s.restart("A", start, accept_skipped=10, take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.give_up(a)
        edit(s, mode=then)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize("start", ["shift:-3", "shift:+3"])
def test_it_was_given_up_after_it_had_moved_another_store(start: str) -> None:
    with stage("dstream", position_store="zookeeper") as s:
        s.first_start()
        s.first_stop()
        s.append(6)
        a = s.restart("A", start, accept_skipped=10, take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.give_up(a)
        edit(s, mode="process", position_store="", writes_beside=True)
        there = 'offsets:{"orders":{"0":6}} | committed'
        assert there in s.to_end(s.restart("B", take_over=True)).failure
        assert s.to_end(s.restart("C", there, take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(12)]
        assert counts(s) == (0, 0, 0)


@pytest.mark.parametrize(("offset", "skipped", "replayed"), [(3, 0, 3), (9, 3, 0)])
@pytest.mark.parametrize("then", ["process", "sink"])
def test_what_a_command_has_moved_is_announced_by_the_first_tracked_launch(
    then: str, offset: int, skipped: int, replayed: int
) -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(6)
        assert s.to_end(s.start("cli", importing(s, offset))).failure == ""
        edit(s, mode=then)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(6), *range(offset, 12)]
        with s.sim.quietly():
            found = product.audit_of(s.world)
        assert (found["skipped"], found["replayed"], found["unexplained_count"]) == (skipped, replayed, 0)


@pytest.mark.parametrize("is_known", [True, False], ids=["started by this provider", "started by hand"])
def test_what_a_job_with_another_store_had_in_flight_is_cut_off_once_it_is_tracked(is_known: bool) -> None:
    with stage("dstream", position_store="zookeeper") as s:
        if is_known:
            s.first_start()
        else:
            s.sim.spawn("driver-1", s.world._dstream_program, host="worker-1", is_driver=True)
            s.run("driver-1", for_s=30.0)
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        edit(s, mode="process", position_store="", writes_beside=True)
        there = 'offsets:{"orders":{"0":6}} | committed'
        assert there in s.to_end(s.restart("A", take_over=True)).failure
        assert s.to_end(s.restart("B", there, take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(9), *range(6, 9)]
        assert cut_off(s) == [(6, 9)]
        assert counts(s) == (0, 0, 0)


def test_so_is_what_its_last_launch_had_in_flight_at_its_start() -> None:
    """The store is still where the launch began, so the first tracked start is not refused."""
    with stage("dstream", position_store="zookeeper") as s:
        s.first_start()
        s.first_stop()
        assert s.to_end(s.start("cli", importing(s, 5))).failure == ""
        s.append(5)
        a = s.restart("A", take_over=True)
        assert s.run(until=at("sink", "", Side.AFTER, by="driver-2"))
        s.kill("driver-2")
        s.to_end(a)
        edit(s, mode="process", position_store="", writes_beside=True)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(6), *range(5, 8), *range(5, 11)]
        assert cut_off(s) == [(5, 11)]
        assert counts(s) == (0, 1, 0)


@pytest.mark.parametrize("then", ["process", "sink"])
def test_so_is_a_partition_that_only_this_job_knows(then: str) -> None:
    """A partition was added while the job ran. No snapshot and no launch names it, and the pipeline lacks the store."""
    with stage("dstream", position_store="zookeeper", kill_timeout_s=10) as s:
        s.first_start()
        s.world.kafka.cluster.add_partitions("orders", 2)
        s.append(3, "orders", 1)
        s.run(for_s=60.0)
        edit(s, mode=then, position_store="")
        there = 'offsets:{"orders":{"0":0}} | committed'
        assert there in s.to_end(s.restart("A", take_over=True)).failure
        assert s.to_end(s.restart("B", there, take_over=True)).failure == ""
        s.run(for_s=60.0)
        written = sorted((each.record.partition, each.record.offset) for each in s.world.sink.writes)
        assert written == sorted(2 * [*((0, offset) for offset in range(6)), *((1, offset) for offset in range(3))])
        assert cut_off(s) == [(0, 6), (0, 3)]
        assert counts(s) == (0, 0, 0)


def test_a_snapshot_of_the_stopped_job_that_lacked_its_store_shows_no_position() -> None:
    """The entry is edited and edited back, with a stop between: the launch then announces the rewind as before."""
    with stage("dstream", position_store="zookeeper", kill_timeout_s=10) as s:
        s.first_start()
        edit(s, mode="process", position_store="")
        s.first_stop()
        edit(s, mode="dstream", position_store="zookeeper")
        assert s.to_end(s.restart("A", "shift:-3", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(6), *range(3, 6)]
        assert counts(s) == (0, 3, 0)


def test_so_is_what_it_read_in_the_range_of_an_older_batch() -> None:
    """The checkpoint still plans a batch of the time before that job, which ends where the job has read to."""
    with stage("process", position_store="", writes_beside=True, kill_timeout_s=10) as s:
        s.first_start()
        s.append(2)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.kill("driver-1")
        edit(s, mode="dstream", position_store="zookeeper", writes_beside=False)
        assert s.to_end(s.restart("A", "shift:-2", take_over=True)).failure == ""
        s.run(for_s=60.0)
        edit(s, mode="process", position_store="")
        there = 'offsets:{"orders":{"0":4}} | committed'
        assert there in s.to_end(s.restart("B", take_over=True)).failure
        assert s.to_end(s.restart("C", there, take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert sorted(each.record.offset for each in s.world.sink.writes) == sorted(
            [*range(6), *range(4, 8), *range(4, 8)]
        )
        assert (4, 8) in cut_off(s)
        assert counts(s) == (0, 2, 0)
