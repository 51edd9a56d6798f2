"""A program stops its own query, as a handler of SIGTERM or a listener does. Spark reports no error."""

from __future__ import annotations

import pytest

from tests.simulation import actors
from tests.simulation.product import record_of
from tests.simulation.script import Side, at, stage
from tests.simulation.spark import QueryStopped


@pytest.mark.parametrize("side", list(Side), ids=["before its output", "after its output"])
@pytest.mark.parametrize("mode", ["process", "sink"])
def test_its_batch_is_cut_off(mode: str, side: Side) -> None:
    with stage(mode, records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("sink", "", side, by="driver-1"))
        s.fail("driver-1", QueryStopped())
        s.run(for_s=30.0)
        assert not s.job_runs
        assert record_of(s.world)["ended"]["how"] == "finished"
        assert s.to_end(s.restart("A")).failure == ""
        s.run(for_s=60.0)
        assert s.has_written("orders", 9)
        assert s.verdict() == ""


def test_a_query_without_a_batch_is_not_started_again() -> None:
    with stage("sink", records=6) as s:
        s.first_start()
        s.append(3)
        assert s.run("driver-1", until=at("checkpoint", "create offsets/", by="driver-1"))
        s.fail("driver-1", QueryStopped())
        s.run(for_s=30.0)
        assert not s.job_runs
        assert s.to_end(s.start("stop", actors.stop_only)).failure == ""
        assert s.to_end(s.restart("A", take_over=True)).failure == ""
        s.run(for_s=60.0)
        assert [each.record.offset for each in s.world.sink.writes] == [*range(9)]
        assert s.verdict() == ""
