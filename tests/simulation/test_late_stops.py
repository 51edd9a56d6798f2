"""A stop task is suspended before it takes the lease, and its run is given up. A later operation is at work then."""

from __future__ import annotations

import pytest

from tests.simulation import actors
from tests.simulation.script import Stage, at, stage


def suspended(s: Stage) -> None:
    """Suspend the stop task of A, which takes over, between its first read of the record and the lease."""
    s.first_start()
    a = s.start("A", actors.take_over_and_stop)
    assert s.run("A", until=at("store", "swap pipeline", by="A.stop"))
    s.hang("A.stop", 3000.0)
    assert a.actor is not None
    s.sim.kill_process(a.actor.process)
    a.is_over = True


@pytest.mark.parametrize("task", ["B.replan", "B.apply", "B.submit"])
@pytest.mark.parametrize("mode", ["process", "sink", "untracked"])
def test_it_does_not_take_over_an_operation_that_it_has_not_seen(mode: str, task: str) -> None:
    with stage(mode, records=6) as s:
        suspended(s)
        b = s.restart("B", take_over=True)
        assert s.run("B", "driver", until=at("store", "get pipeline", by=task))
        s.hang("A.stop", 0.0)
        s.run("A.stop", for_s=10.0)
        assert "LeaseHeld" in repr(s.actor("A.stop").error)
        assert s.to_end(b).failure == ""
        s.append(3)
        s.run(for_s=60.0)
        assert s.job_runs
        assert s.has_written("orders", 9)
        assert s.verdict() == ""
