"""Somebody changed a store, a checkpoint or the description between two runs: another store, an older copy, a topic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from airflow_provider_offsets.core.position import Position, TopicPartition
from tests.simulation import actors, product
from tests.simulation.scheduler import Side
from tests.simulation.script import Stage, at, stage
from tests.simulation.test_edited_pipelines import copy_checkpoint, edit

COPY = "sim://backup/orders"


def counts(s: Stage) -> dict[str, int]:
    """Return what the audit finds."""
    with s.sim.quietly():
        found = product.audit_of(s.world)
    names = ("lost", "skipped", "replayed", "replayed_at_most", "unexplained_count")
    return {name: found[name] for name in names if found[name]}


def offsets(s: Stage) -> list[int]:
    """Return the offsets that were written, in order."""
    return [each.record.offset for each in s.world.sink.writes]


@contextmanager
def described(**changes: Any) -> Iterator[None]:
    """Change the pipeline's entry, and not its program."""
    before = product.World.pipeline.fget  # type: ignore[attr-defined]
    changed = property(lambda world: replace(before(world), **changes))
    with mock.patch.object(product.World, "pipeline", changed):
        yield


def test_the_first_start_of_an_untracked_job_counts_from_where_it_stood() -> None:
    for start, counted in (("shift:-3", {"replayed": 3}), ("shift:3", {"skipped": 3}), ("committed", {})):
        with stage("untracked") as s:
            s.world.start_untracked("by hand")
            s.run("by hand", for_s=40.0)
            s.kill("by hand")
            s.append(6)
            assert s.to_end(s.restart("A", start, accept_skipped=3)).failure == ""
            s.run(for_s=60.0)
            assert counts(s) == counted


@pytest.mark.parametrize("stale", [4, 14], ids=["behind", "ahead"])
@pytest.mark.parametrize("is_stopped", [True, False], ids=["stopped", "killed"])
@pytest.mark.parametrize("mode", ["dstream", "untracked", "process"])
def test_another_store_is_no_position_of_the_last_epoch(mode: str, is_stopped: bool, stale: int) -> None:
    with stage(mode, position_store="zookeeper" if mode == "dstream" else "", records=12) as s:
        s.first_start()
        s.run(for_s=60.0)
        if is_stopped:
            s.first_stop()
        else:
            s.kill("driver-1")
        edit(s, mode="dstream", position_store="kafka")
        former, s.world.positions = s.world.positions, product.PositionStore(s.sim, "kafka")
        s.world.positions.stored = Position({TopicPartition("orders", 0): stale})
        with described(offsets_in=("group",)), kept_in(group=s.world.positions):
            s.append(3)
            a = s.to_end(s.restart("A", take_over=True))
            store = {"dstream": "zk", "untracked": "checkpoint", "process": "history"}[mode]
            assert f"group is not the store {store!r} in which epoch 1 kept its offsets" in a.failure
            assert f"group has orders[0] {stale}" in a.failure
            knows = is_stopped or mode == "process"
            assert f"orders[0] was at {'12' if knows else 'least at 0'}" in a.failure
        listed = ("group", "zk") if mode == "dstream" else ("group",)
        with described(offsets_in=listed), kept_in(group=s.world.positions, zk=former):
            start = 'offsets:{"orders":{"0":12}} | committed'
            b = s.to_end(s.restart("B", start, take_over=True, accept_skipped=12))
            assert b.failure == ""
            s.run(for_s=60.0)
            assert offsets(s) == [*range(15)]
            is_counted = knows or mode == "dstream"
            assert counts(s).get("skipped", 0) == (0 if is_counted else 12)


@contextmanager
def kept_in(**stores: product.PositionStore) -> Iterator[None]:
    """Open these position stores instead of the world's own."""
    with mock.patch.object(product.World, "kept_in", property(lambda _: stores)):
        yield


def restore_backup(s: Stage) -> None:
    """Put an older copy of the checkpoint in its place, as from a backup."""
    s.world.files.remove_tree(product.CHECKPOINT)
    copy_checkpoint(s, COPY, product.CHECKPOINT)


def remove_logs(s: Stage) -> None:
    """Remove both logs of the checkpoint, and nothing else of it."""
    for log in ("offsets", "commits"):
        s.world.files.folders[f"{product.CHECKPOINT}/{log}"].clear()


@pytest.mark.parametrize("change", [restore_backup, remove_logs])
def test_an_older_state_of_a_checkpoint_is_no_position(change: Any) -> None:
    """A file sink takes records under a batch id that it knows for old ones: they would be lost."""
    with stage("untracked", file_sink=True) as s:
        s.first_start()
        copy_checkpoint(s, product.CHECKPOINT, COPY)
        s.append(6)
        s.run(for_s=60.0)
        s.to_end(s.start("look", actors.snapshot_only))
        s.kill("driver-1")
        change(s)
        s.append(6)
        edit(s, limit=100)
        a = s.to_end(s.restart("A", take_over=True))
        assert "checkpoint was moved back, or restored from an older copy" in a.failure
        assert "orders[0] was at least at 12 according to snapshot look" in a.failure
        again = 'offsets:{"orders":{"0":6}} | committed'
        assert s.to_end(s.restart("B", again, take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert offsets(s) == [*range(12), *range(6, 18)]
        assert counts(s) == {"replayed": 6, "replayed_at_most": 6}


def test_a_position_that_was_moved_back_is_no_position() -> None:
    with stage("dstream", position_store="zookeeper", records=12) as s:
        s.first_start()
        s.run(for_s=60.0)
        s.to_end(s.start("look", actors.snapshot_only))
        s.kill("driver-1")
        s.world.positions.stored = Position({TopicPartition("orders", 0): 4})
        s.append(3)
        a = s.to_end(s.restart("A", take_over=True))
        assert "zk was moved back, or restored from an older copy" in a.failure
        again = 'offsets:{"orders":{"0":4}} | committed'
        assert s.to_end(s.restart("B", again, take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert offsets(s) == [*range(12), *range(4, 15)]
        assert counts(s)["replayed"] == 8
        assert "unexplained_count" not in counts(s)


@pytest.mark.parametrize("file_sink", [False, True], ids=["any sink", "file sink"])
@pytest.mark.parametrize("where", [("checkpoint", "create commits/"), ("sink", "")], ids=["committed", "written"])
def test_a_started_batch_is_not_in_an_older_copy_of_its_checkpoint(where: tuple[str, str], file_sink: bool) -> None:
    with stage("sink", file_sink=file_sink) as s:
        s.first_start()
        copy_checkpoint(s, product.CHECKPOINT, COPY)
        s.append(3)
        s.run(for_s=30.0)
        s.append(3)
        assert s.run("driver-1", until=at(*where, Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        restore_backup(s)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert offsets(s) == [*range(12), *range(9, 12)]
        assert counts(s) == {"replayed_at_most": 3}


@pytest.mark.parametrize("start", ["committed", "shift:-2"])
def test_a_topic_that_only_the_program_knows_is_refused_by_name(start: str) -> None:
    with stage("untracked", topics=("orders", "returns")) as s:
        s.append(6, "returns")
        s.world.start_untracked("by hand")
        s.run("by hand", for_s=60.0)
        s.kill("by hand")
        with described(topics=("orders",)):
            a = s.to_end(s.restart("A", start))
            assert "has offsets of returns, which the pipeline does not list" in a.failure
        assert len(s.world.sink.writes) == 12


@pytest.mark.parametrize("snapshot", [False, True], ids=["no snapshot", "a snapshot"])
def test_an_offsets_file_that_was_removed_is_refused_by_name(snapshot: bool) -> None:
    """Spark would run the batch again, and then fail."""
    with stage("untracked", records=12) as s:
        s.first_start()
        s.run(for_s=60.0)
        if snapshot:
            s.to_end(s.start("look", actors.snapshot_only))
        s.kill("driver-1")
        s.world.files.folders[f"{product.CHECKPOINT}/offsets"].pop("4", None)
        newest = max(s.world.files.folders[f"{product.CHECKPOINT}/offsets"], key=int)
        commits = s.world.files.folders[f"{product.CHECKPOINT}/commits"]
        if max(map(int, commits)) == int(newest):
            s.world.files.folders[f"{product.CHECKPOINT}/offsets"].pop(newest)
        a = s.to_end(s.restart("A", take_over=True))
        assert "is its newest plan" in a.failure
        assert offsets(s) == [*range(12)]
