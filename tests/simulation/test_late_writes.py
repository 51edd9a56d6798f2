"""A write to an untracked job's own store that arrives after another operation has started the job."""

from __future__ import annotations

import pytest

from tests.simulation.script import at, stage


@pytest.mark.parametrize("start", ["shift:+3", "shift:-3"])
def test_an_apply_that_writes_late_to_the_jobs_own_store_moves_no_job_that_runs(start: str) -> None:
    """A hangs before its write; B resumes, and its driver dies before it has stored anything."""
    with stage("dstream", position_store="zookeeper", records=6) as s:
        s.first_start()
        s.append(6)
        s.first_stop()
        s.append(6)
        a = s.restart("A", start, accept_skipped=100, take_over=True)
        assert s.run("A", until=at("store", "zk write", by="A.apply~1"))
        s.hang("A.apply~1", 200.0)
        b = s.restart("B", take_over=True)
        assert s.run("B", "driver", until=at("sink", "", by="driver-2"))
        s.run("A.apply~1", for_s=250.0)
        s.kill("driver-2")
        s.to_end(a)
        s.to_end(b)
        assert s.verdict() == ""
        assert any("written late" in each for each in s.notes)
