"""A job leaves its checkpoint, and somebody who knows no record of it still uses that checkpoint."""

from __future__ import annotations

import re

import pytest

from tests.simulation import actors
from tests.simulation.script import Side, Stage, at, stage

FORWARD = "shift:+2"


def offsets_written(s: Stage) -> list[int]:
    return [each.record.offset for each in s.world.sink.writes]


@pytest.mark.parametrize("start", ["shift:-3", FORWARD])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_job_from_before_it_was_tracked_still_runs(mode: str, start: str) -> None:
    with stage(mode, records=6) as s:
        legacy = s.world.start_untracked("legacy")
        s.run("legacy", for_s=30.0)
        if start == FORWARD:
            s.append(3)
        moved = s.to_end(s.restart("A", start, accept_skipped=2), "A", "driver")
        s.append(6)
        s.run(for_s=120.0)
        assert moved.failure == ""
        assert legacy.is_gone
        again = [3, 4, 5] if start == "shift:-3" else []
        left_out = [6, 7] if start == FORWARD else []
        end = 15 if start == FORWARD else 12
        assert sorted(offsets_written(s)) == sorted([each for each in range(end) if each not in left_out] + again)
        assert s.verdict() == ""


@pytest.mark.parametrize("is_launched", [False, True], ids=["before the launch", "after it"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_that_job_commits_its_batch_after_its_checkpoint_was_closed(mode: str, is_launched: bool) -> None:
    with stage(mode, records=6, limit=6) as s:
        legacy = s.world.start_untracked("legacy")
        s.run("legacy", for_s=30.0)
        s.append(6)
        assert s.run("legacy", until=at("checkpoint", "create commits/", by="legacy"))
        moved = s.restart("A", "shift:-3")
        assert s.run("A", until=at("kafka", "live_topics", by="A.submit"))
        if is_launched:
            s.hang("legacy", 60.0)
        else:
            s.run("legacy", for_s=30.0)
        s.to_end(moved)
        s.run(for_s=100.0)
        s.append(3)
        s.run(for_s=100.0)
        assert moved.failure == ""
        assert legacy.is_gone
        assert s.verdict() == ""


def test_a_batch_that_is_planned_between_the_plan_and_the_close_is_planned_around() -> None:
    with stage("process", records=6) as s:
        legacy = s.world.start_untracked("legacy")
        s.run("legacy", for_s=30.0)
        refused = s.restart("A", "shift:-3")
        assert s.run("A", until=at("checkpoint", "create metadata", Side.AFTER, by="A.apply"))
        s.append(3)
        s.run("legacy", for_s=30.0)
        s.to_end(refused)
        assert "StateChanged" in refused.failure
        assert s.to_end(s.restart("A", "shift:-3", attempt="2", take_over=True)).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert legacy.is_gone
        assert sorted(offsets_written(s)) == sorted([*range(12), 6, 7, 8])
        assert s.verdict() == ""


@pytest.mark.parametrize("side", list(Side))
def test_the_task_dies_where_it_closes_the_checkpoint(side: Side) -> None:
    with stage("process", records=6) as s:
        s.first_start()
        a = s.restart("A", "shift:-3")
        assert s.run("A", "driver", until=at("checkpoint", "create offsets/2", side, by="A.apply", number=2))
        s.kill("A.apply")
        assert s.to_end(a).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert offsets_written(s) == [*range(6), *range(3, 9)]
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_job_that_is_started_by_hand_on_it_does_not_start(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.to_end(s.restart("A", "shift:-3"))
        by_hand = s.world.start_untracked("by hand")
        s.append(6)
        s.run(for_s=60.0)
        assert by_hand.is_gone
        assert "has left this checkpoint" in str(by_hand.error)
        assert offsets_written(s) == [*range(6), *range(3, 12)]
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_rollback_goes_on_from_what_was_closed(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.to_end(s.start("A", actors.undone(actors.restart("shift:-3"))))
        s.append(3)
        s.run(for_s=60.0)
        assert s.job_runs
        assert s.verdict() == ""


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_the_control_store_is_lost_after_the_job_was_moved(mode: str, is_running: bool) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.to_end(s.restart("A", "shift:-3"))
        s.append(6)
        s.run(for_s=60.0)
        if not is_running:
            s.first_stop()
        before = offsets_written(s)
        s.world.lose_control_store()
        refused = s.to_end(s.restart("B"))
        assert "StateLost" in refused.failure
        assert "was closed by 'A'" in refused.failure
        assert "StateLost" in s.to_end(s.start("stop", actors.stop_only)).failure
        s.run(for_s=60.0)
        assert not s.job_runs
        assert offsets_written(s) == before

        named = re.search(r"set job.checkpoint to (\S+[^\s.])", refused.failure)
        assert named is not None
        s.world.checkpoint = named[1]
        assert s.to_end(s.restart("C")).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert offsets_written(s) == [*before, 12, 13, 14]


def test_of_the_checkpoints_of_a_lost_store_the_old_one_is_gone_too() -> None:
    with stage("process", records=6) as s:
        s.first_start()
        s.to_end(s.restart("A", "shift:-3"))
        s.run(for_s=60.0)
        s.first_stop()
        s.world.lose_control_store()
        s.world.files.remove_tree(s.world.checkpoint)
        refused = s.to_end(s.restart("B"))
        assert "StateLost" in refused.failure
        assert "a restart has moved its job to" in refused.failure


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_of_the_checkpoints_of_a_lost_store_one_was_seeded_for_a_restart_that_died(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        a = s.restart("A", "shift:-3")
        assert s.run("A", "driver", until=at("checkpoint", "create metadata", Side.AFTER, by="A.apply"))
        s.give_up(a)
        assert s.to_end(s.restart("B", take_over=True)).failure == ""
        s.append(6)
        s.run(for_s=60.0)
        s.first_stop()
        s.world.lose_control_store()
        s.append(3)
        assert s.to_end(s.restart("C")).failure == ""
        s.run(for_s=60.0)
        assert offsets_written(s) == [*range(15)]
