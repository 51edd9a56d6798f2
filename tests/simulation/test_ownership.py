"""A pipeline's name changes in pipelines.yaml: nothing is started beside its job, and its position stays known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.operations.renaming import release
from tests.simulation import actors
from tests.simulation.actors import Run
from tests.simulation.script import Stage, stage

NEW = "alerts"
ASIDE = f"airflow offsets rename orders {NEW}"


def rename(s: Stage) -> Run:
    """Rename the pipeline from its first name to its current one."""
    s.sim.sleep(3600.0)
    return s.to_end(s.start("rename", actors.rename_from("orders")))


@pytest.mark.parametrize("start", ["committed", "shift:-3", 'offsets:{"orders":{"0":0}}'])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("untracked", {}),
        ("dstream", {"position_store": "zookeeper"}),
        ("process", {"records": 0}),
        ("sink", {"records": 0}),
    ],
    ids=["checkpoint", "zookeeper", "tracked without a batch", "sink without a batch"],
)
def test_no_second_job_is_started_under_a_new_name(mode: str, kind: dict[str, Any], start: str) -> None:
    with stage(mode, **kind) as s:
        s.first_start()
        s.world.name = NEW
        refused = s.to_end(s.restart("A", start))
        assert "StateLost" in refused.failure
        assert ASIDE in refused.failure
        assert [each.name for each in s.sim.actors if each.is_driver and not each.is_gone] == ["driver-1"]
        assert "StoreInUse" in rename(s).failure

        s.world.name = "orders"
        s.first_stop()
        s.world.name = NEW
        assert rename(s).failure == ""
        again = s.to_end(s.restart("B"))
        assert again.failure == ""
        s.append(6)
        s.run(for_s=60.0)
        assert s.verdict() == ""


def test_a_known_position_is_not_forgotten_under_a_new_name() -> None:
    with stage("untracked") as s:
        s.first_start()
        s.first_stop()
        s.append(3)
        s.remove_checkpoints()
        s.world.name = NEW
        refused = s.to_end(s.restart("A", "committed | latest"))
        assert ASIDE in refused.failure

        assert rename(s).failure == ""
        known = s.to_end(s.restart("B", "committed | latest"))
        assert "PlanRefused" in known.failure or known.failure == ""
        s.run(for_s=60.0)
        assert s.verdict() == ""


def test_a_topic_that_becomes_a_pipeline_of_its_own_needs_another_group() -> None:
    with stage("process", topics=("orders", "returns")) as s:
        s.append(6, "returns")
        s.first_start()
        s.first_stop()
        s.world.kind = replace(s.world.kind, topics=("returns",))
        s.world.name, s.world.checkpoint = "returns", "sim://ck/returns"
        s.sim.sleep(3600.0)
        s.to_end(
            s.start("release", lambda run: run.task("release", lambda: release(s.world.session(run.name), "orders")))
        )
        start = 'offsets:{"returns":{"0":6}} | committed'
        refused = s.to_end(s.restart("A", start))
        assert "give this one another group_id" in refused.failure

        s.world.group_id = "returns"
        assert s.to_end(s.restart("B", start)).failure == ""
        s.append(3, "returns")
        s.run(for_s=60.0)
        assert len(s.world.sink.writes) == 15
