"""Pipelines whose entry in ``pipelines.yaml`` was edited: the job opens another checkpoint, or reads other topics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from tests.simulation import product
from tests.simulation.script import Stage, stage


def edit(s: Stage, **changes: Any) -> None:
    """Change keys of the pipeline's entry."""
    s.world.kind = replace(s.world.kind, **changes)


def counts(s: Stage) -> tuple[int, int, int]:
    """Return what the audit finds: lost, replayed and unexplained offsets."""
    with s.sim.quietly():
        found = product.audit_of(s.world)
    return found["lost"], found["replayed"], found["unexplained_count"]


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
