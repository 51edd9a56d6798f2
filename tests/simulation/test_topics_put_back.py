"""A position or a batch id is known by a record that is not the newest one: topics put back, checkpoints gone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.simulation import actors, product
from tests.simulation.actors import Run
from tests.simulation.script import Side, Stage, at, stage
from tests.simulation.test_cli_writes import importing

BOTH = ("orders", "returns")


def read_topics(s: Stage, *topics: str) -> None:
    """Change the topics of the pipeline's entry."""
    s.world.kind = replace(s.world.kind, topics=topics)


def advised(run: Run) -> str:
    """Return the start that a refused run names."""
    named = re.search(r"start from '(offsets:[^']*)'", run.failure)
    assert named is not None, run.failure
    return named[1]


def launch_without_a_batch(s: Stage, start: str, skipped: int, driver: str = "driver-2") -> None:
    """Start the job elsewhere, and kill its driver when it has claimed its launch."""
    moved = s.restart(f"R.{driver}", start, accept_skipped=skipped, take_over=True)
    assert s.run("R", "driver", until=at("machine", "spawn", Side.AFTER))
    s.run(driver, until=at("store", "swap pipeline", Side.AFTER, by=driver))
    s.kill(driver)
    s.give_up(moved)


@pytest.mark.parametrize(("start", "skipped", "position"), [("shift:-3", 0, 3), ("shift:+3", 3, 9)])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_it_goes_on_where_a_launch_had_moved_it(mode: str, start: str, skipped: int, position: int) -> None:
    with stage(mode, topics=BOTH, limit=12) as s:
        s.append(6, "returns")
        s.first_start()
        s.append(6)
        s.append(6, "returns")
        launch_without_a_batch(s, start, skipped)
        read_topics(s, "orders")
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        read_topics(s, *BOTH)
        refused = s.to_end(s.restart("B", take_over=True))
        assert f'offsets:{{"returns":{{"0":{position}}}}} | committed' == advised(refused)
        assert s.to_end(s.restart("C", advised(refused), take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.verdict() == ""


@pytest.mark.parametrize(
    ("mode", "is_gone"),
    [*((mode, is_gone) for mode in ("process", "sink", "untracked") for is_gone in (True, False)), ("dstream", False)],
)
def test_its_part_of_a_batch_that_was_cut_off_is_named(mode: str, is_gone: bool) -> None:
    with stage(mode, topics=BOTH, limit=12, position_store="zookeeper" if mode == "dstream" else "") as s:
        s.append(6, "returns")
        s.first_start()
        s.append(3)
        s.append(3, "returns")
        assert s.run("driver-1", until=at("sink", "", Side.AFTER, by="driver-1", number=2))
        s.kill("driver-1")
        if is_gone:
            s.remove_checkpoints()
        read_topics(s, "orders")
        a = s.to_end(s.restart("A"))
        if a.failure:
            assert s.to_end(s.restart("A", advised(a), attempt="2", take_over=True)).failure == ""
        s.run(for_s=60.0)
        read_topics(s, *BOTH)
        b = s.to_end(s.restart("B", take_over=True))
        if b.failure:
            assert s.to_end(s.restart("C", advised(b), take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("returns", 9)
        assert s.verdict() == ""


def test_another_store_has_not_moved_since_a_rewind_that_was_launched_twice() -> None:
    with stage("untracked", records=12, limit=6, writes_beside=True) as s:
        s.first_start()
        for number, start in enumerate(("shift:-9", "committed"), 2):
            launch_without_a_batch(s, start, 0, f"driver-{number}")
        s.to_end(s.start("pause", actors.take_over_and_stop))
        s.append(6)
        s.remove_checkpoints()
        refused = s.to_end(s.restart("A", take_over=True))
        assert "was at least at 3 according to the launch" in refused.failure
        assert s.to_end(s.restart("B", advised(refused), take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.verdict() == ""


@pytest.mark.parametrize("is_retried", [True, False], ids=["retried", "given up"])
def test_the_first_batch_is_cut_off_and_its_checkpoint_is_gone(is_retried: bool) -> None:
    with stage("sink", file_sink=True) as s:
        first = s.restart("first")
        assert s.run("first", "driver-1", until=at("sink", "", Side.AFTER, by="driver-1"))
        s.kill("driver-1")
        if is_retried:
            s.to_end(first)
        else:
            s.give_up(first)
        s.remove_checkpoints()
        s.append(6)
        s.world.kind = replace(s.world.kind, limit=9)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("orders", 12)
        assert s.verdict() == ""


def test_an_untracked_job_whose_checkpoint_is_gone_is_rolled_back() -> None:
    with stage("untracked", file_sink=True) as s:
        s.first_start()
        a = s.restart("A")
        s.append(3)
        assert s.run("A", "driver-1", until=at("machine", "spawn", Side.AFTER))
        s.kill("driver-2")
        s.remove_checkpoints()
        s.give_up(a)
        s.to_end(s.start("A", actors.undone(actors.submit_only)))
        s.run(for_s=60.0)
        assert s.has_written("orders", 9)
        assert s.verdict() == ""


def test_a_topic_is_put_back_when_the_job_becomes_tracked() -> None:
    """The launch in between did not list the topic, so only the start of the tracked job shows what was read of it."""
    with stage("dstream", position_store="zookeeper", topics=BOTH, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        read_topics(s, "orders")
        s.append(2)
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=30.0)
        s.world.kind = replace(s.world.kind, mode="process", position_store="", writes_beside=True, topics=BOTH)
        refused = s.to_end(s.restart("B", take_over=True))
        assert s.to_end(s.restart("C", advised(refused), take_over=True)).failure == ""
        s.run(for_s=30.0)
        assert s.verdict() == ""


def test_a_topic_is_put_back_after_a_command_has_moved_the_others() -> None:
    with stage("dstream", position_store="zookeeper", topics=BOTH, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        read_topics(s, "orders")
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.to_end(s.start("pause", actors.take_over_and_stop))
        assert s.to_end(s.start("cli", importing(s, 3))).failure == ""
        read_topics(s, *BOTH)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.run(for_s=30.0)
        with s.sim.quietly():
            audit = product.audit_of(s.world)
        assert (audit["lost"], audit["unexplained_count"]) == (0, 0)
        assert s.verdict() == ""


STORES = {"untracked": "", "dstream": "zookeeper"}
"""Modes of untracked jobs, each with the store of its position: none is the checkpoint."""


def put_back_as_advised(s: Stage) -> None:
    """Read both topics again: restart the job, as a refusal advises if there is one."""
    read_topics(s, *BOTH)
    put_back = s.to_end(s.restart("put back", take_over=True))
    if put_back.failure:
        assert s.to_end(s.restart("as advised", advised(put_back), take_over=True)).failure == ""
    s.run(for_s=30.0)


def written_of_returns(s: Stage) -> list[int]:
    return [each.record.offset for each in s.world.sink.writes if each.record.topic == "returns"]


@pytest.mark.parametrize("between", [1, 2])
@pytest.mark.parametrize(("offset", "replayed", "skipped"), [(1, 3, 0), (6, 0, 2)])
@pytest.mark.parametrize("mode", STORES)
def test_a_command_had_moved_a_topic_before_it_was_taken_out(
    mode: str, offset: int, replayed: int, skipped: int, between: int
) -> None:
    """No launch in between reads the topic, so the launch that puts it back announces the move."""
    with stage(mode, position_store=STORES[mode], topics=BOTH, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        s.first_stop()
        s.append(4, "returns")
        assert s.to_end(s.start("cli", importing(s, offset, topic="returns"))).failure == ""
        read_topics(s, "orders")
        for number in range(between):
            assert s.to_end(s.restart(f"A{number}", take_over=True)).failure == ""
            s.run(for_s=30.0)
        put_back_as_advised(s)
        assert written_of_returns(s) == [*range(4), *range(offset, 8)]
        with s.sim.quietly():
            audit = product.audit_of(s.world)
        assert (audit["lost"], audit["unexplained_count"]) == (0, 0)
        assert (audit["replayed"], audit["skipped"]) == (replayed, skipped)
        assert s.verdict() == ""


@pytest.mark.parametrize("between", ["a launch", "a move", "a move and a launch", "a command"])
@pytest.mark.parametrize("start", ["shift:-3", "shift:+3"])
@pytest.mark.parametrize("mode", STORES)
def test_a_restart_was_given_up_after_it_had_moved_a_topic_that_was_taken_out_then(
    mode: str, start: str, between: str
) -> None:
    """No job has started at the offset of that restart, so the topic stands where it was before."""
    with stage(mode, position_store=STORES[mode], topics=BOTH, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        s.append(4)
        s.append(4, "returns")
        s.run(for_s=30.0)
        s.first_stop()
        s.append(4)
        s.append(4, "returns")
        a = s.restart("A", start, accept_skipped=100, take_over=True)
        assert s.run("A", until=at("machine", "spawn"))
        s.give_up(a)
        read_topics(s, "orders")
        if "move" in between:
            b = s.restart("B", "shift:-2", take_over=True)
            assert s.run("B", until=at("machine", "spawn"))
            s.give_up(b)
        if between == "a command":
            s.to_end(s.start("stop", actors.take_over_and_stop))
            assert s.to_end(s.start("cli", importing(s, 10))).failure == ""
        if "launch" in between:
            assert s.to_end(s.restart("C", take_over=True)).failure == ""
            s.run(for_s=30.0)
        put_back_as_advised(s)
        assert written_of_returns(s) == [*range(12)]
        with s.sim.quietly():
            audit = product.audit_of(s.world)
        assert (audit["lost"], audit["replayed"], audit["unexplained_count"]) == (0, 0, 0)
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "untracked"])
def test_a_topic_is_taken_out_of_a_pipeline_with_two_stores(mode: str) -> None:
    """One store still has its offsets, and the other one is asked for the topics of the pipeline only: no conflict."""
    with stage(mode, topics=BOTH, writes_beside=True, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        read_topics(s, "orders")
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        put_back_as_advised(s)
        assert written_of_returns(s) == [*range(4)]
        assert s.verdict() == ""


def test_a_topic_is_put_back_whose_last_epoch_had_another_store() -> None:
    """The store has an offset of the time before that epoch, and no launch since then has read the topic."""
    with stage("dstream", position_store="zookeeper", topics=BOTH, kill_timeout_s=10) as s:
        s.append(4, "returns")
        s.first_start()
        s.world.kind = replace(s.world.kind, mode="process", position_store="", writes_beside=True)
        refused = s.to_end(s.restart("A", take_over=True))
        assert s.to_end(s.restart("B", advised(refused), take_over=True)).failure == ""
        s.append(4, "returns")
        s.world.kind = replace(s.world.kind, writes_beside=False)
        assert s.to_end(s.restart("C", take_over=True)).failure == ""
        s.append(4, "returns")
        s.run(for_s=30.0)
        s.world.kind = replace(s.world.kind, mode="dstream", position_store="zookeeper", topics=("orders",))
        assert s.to_end(s.restart("D", take_over=True)).failure == ""
        read_topics(s, *BOTH)
        refused = s.to_end(s.restart("E", take_over=True))
        assert "zk has another offset than the known one of 1 partition(s)" in refused.failure
        assert advised(refused) == 'offsets:{"returns":{"0":12}} | committed'
        assert s.to_end(s.restart("F", advised(refused), take_over=True)).failure == ""
        s.append(2, "returns")
        s.run(for_s=30.0)
        assert written_of_returns(s) == [*range(14)]
        assert s.verdict() == ""
