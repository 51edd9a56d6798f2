"""A rollback whose task is suspended, and which other operations do not wait for."""

from __future__ import annotations

import pytest

from tests.simulation import product
from tests.simulation.actors import Run
from tests.simulation.product import record_of
from tests.simulation.script import Stage, at, stage

MODES = ["process", "sink", "untracked"]


def roll_back(run: Run) -> None:
    run.task("roll_back", lambda: product.task_roll_back(run.world, "A"))


def suspended(s: Stage) -> Run:
    """Return the rollback of A, suspended once it knows what to go back to."""
    s.first_start()
    assert s.to_end(s.restart("A")).failure == ""
    s.append(6)
    s.run(for_s=60.0)
    run = s.start("A", roll_back)
    assert s.run("A", until=at("store", "swap pipeline", by="A.roll_back~1"))
    s.hang("A.roll_back~1", 3000.0)
    return run


def runs_on(s: Stage) -> None:
    """Run a later operation, wake the rollback up, and check that it leaves the job alone."""
    assert s.to_end(s.restart("B", take_over=True)).failure == ""
    s.append(6)
    s.run(for_s=60.0)
    epoch = record_of(s.world)["epoch"]
    s.run(for_s=4000.0)
    assert "TakenOver" in repr(s.actor("A.roll_back~1").error)
    assert record_of(s.world)["epoch"] == epoch
    assert s.job_runs
    assert s.verdict() == ""


@pytest.mark.parametrize("mode", MODES)
def test_its_retry_has_rolled_back_and_a_later_run_has_deployed_again(mode: str) -> None:
    with stage(mode, records=6) as s:
        assert s.to_end(suspended(s)).failure == ""
        s.run(for_s=60.0)
        runs_on(s)


@pytest.mark.parametrize("mode", MODES)
def test_its_run_was_given_up_and_a_later_run_has_deployed(mode: str) -> None:
    with stage(mode, records=6) as s:
        run = suspended(s)
        s.sim.kill_process(run.actor.process)
        run.is_over = True
        runs_on(s)
