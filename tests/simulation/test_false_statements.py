"""A person states that the machine of a driver is gone, and ends its epoch. The driver lives, and wakes up later."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation import actors
from tests.simulation.actors import Run
from tests.simulation.scheduler import Point
from tests.simulation.script import Side, Stage, at, stage

ELSEWHERE = "worker-2"


def stopped_in_vain(s: Stage) -> None:
    """Try to stop the job from a machine that does not see its driver."""
    failed = s.to_end(s.start("stop", actors.stop_only, host=ELSEWHERE))
    assert "StopTimedOut" in failed.failure
    assert "airflow offsets end orders --epoch 1" in failed.failure
    assert not s.actor("driver-1").is_gone


def end(s: Stage, epoch: int = 1) -> Run:
    """End an epoch by a statement."""
    return s.to_end(s.start("end", actors.state_dead(epoch), host=ELSEWHERE))


def restart(s: Stage, name: str) -> Run:
    """Start the job from a machine that does not see the old driver."""
    return s.to_end(s.start(name, actors.restart(take_over=True), host=ELSEWHERE))


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_tracked_driver_between_two_batches_is_fenced(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("checkpoint", "create offsets/2", by="driver-1"))
        s.hang("driver-1", 100_000.0)
        stopped_in_vain(s)
        assert end(s).failure == ""

        assert restart(s, "A").failure == ""
        s.append(3)
        s.run(for_s=60.0)
        s.hang("driver-1", 0.0)
        s.run(for_s=60.0)
        assert s.actor("driver-1").is_gone
        assert [each.record.offset for each in s.world.sink.writes] == list(range(12))
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "sink"])
def test_a_tracked_driver_in_its_batch_writes_it_in_parallel_and_is_fenced(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.hang("driver-1", 100_000.0)
        assert end(s).failure == ""

        recovered = s.start("R", actors.recover(looks=2), host=ELSEWHERE)
        assert s.to_end(recovered).failure == ""
        s.run(for_s=60.0)
        s.hang("driver-1", 0.0)
        s.append(3)
        s.run(for_s=60.0)
        assert s.actor("driver-1").is_gone
        written = [each.record.offset for each in s.world.sink.writes]
        assert sorted(set(written)) == list(range(12))
        assert [written.count(offset) for offset in (6, 7, 8)] == [2, 2, 2]
        assert s.verdict() == "", "what was written twice is announced"


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_command_dies_between_two_effects_and_is_run_again(number: int, side: Side) -> None:
    with stage("process", records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.hang("driver-1", 100_000.0)
        ended = s.start("end", actors.state_dead(1), host=ELSEWHERE)
        assert s.run("end", until=_swaps(number, side))
        s.kill("end.end")
        assert s.to_end(ended).failure == ""

        assert restart(s, "A").failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert s.has_written("orders", 12)
        assert s.verdict() == ""


def _swaps(number: int, side: Side) -> Callable[[Point], bool]:
    return at("store", "swap pipeline", side, by="end.end", number=number)


def test_a_driver_that_shows_life_meanwhile_keeps_its_epoch() -> None:
    with stage("process", records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", by="driver-1"))
        s.hang("driver-1", 300.0)
        stopped_in_vain(s)
        ended = s.start("end", actors.state_dead(1), host=ELSEWHERE)
        assert s.run("end", until=_swaps(1, Side.AFTER))
        s.hang("driver-1", 0.0)
        s.run("driver-1", for_s=60.0)
        assert s.to_end(ended).failure == ""
        assert s.actor("driver-1").is_gone

        assert restart(s, "A").failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == list(range(12))
        assert s.verdict() == ""


@pytest.mark.parametrize("mode", ["process", "untracked"])
def test_another_operation_starts_the_job_before_the_effect(mode: str) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        ended = s.start("end", actors.state_dead(1), host=ELSEWHERE)
        assert s.run("end", until=_swaps(1, Side.BEFORE))
        assert s.to_end(s.start("A", actors.restart()), "A", "driver").failure == ""
        assert s.to_end(ended, "end", "driver").failure != ""
        assert not s.actor("driver-2").is_gone
        s.append(3)
        s.run(for_s=60.0)
        assert s.verdict() == ""
