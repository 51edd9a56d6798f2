"""What a plan is made from besides the world of the moment."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.plan import ProblemKind
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import PartitionUnavailable
from airflow_provider_offsets.operations.planning import known_leader_epochs
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab

FIRST = TopicPartition(TOPIC, 0)


def kinds(lab: Lab, start: str = "committed") -> list[ProblemKind]:
    return [problem.kind for problem in steps.plan(lab, start).problems]


class TestLeaderEpochs:
    def test_the_submit_notes_them(self, lab: Lab) -> None:
        lab.kafka.set_leader_epoch(TOPIC, 0, 7)
        steps.rest(lab)
        assert kinds(lab) == []

        lab.kafka.set_leader_epoch(TOPIC, 0, 6)

        assert kinds(lab) == [ProblemKind.LEADER_EPOCH_BACK]
        assert kinds(lab, "shift:-10") == [], "a start further back reads again what may have been replaced"

    def test_a_snapshot_notes_what_came_after_the_submit(self, lab: Lab) -> None:
        steps.start(lab)
        lab.kafka.set_leader_epoch(TOPIC, 0, 9)
        lab.world("yesterday").take_snapshot("before", reason="", taken_at="")
        lab.kafka.set_leader_epoch(TOPIC, 0, 8)
        lab.world("today").take_snapshot("before", reason="", taken_at="")

        assert kinds(lab) == [ProblemKind.LEADER_EPOCH_BACK], "the snapshot of today hides nothing"

    def test_a_new_start_settles_it(self, lab: Lab) -> None:
        lab.kafka.set_leader_epoch(TOPIC, 0, 9)
        steps.start(lab)
        lab.world("yesterday").take_snapshot("before", reason="", taken_at="")
        steps.stop(lab, "op")
        lab.kafka.set_leader_epoch(TOPIC, 0, 8)
        steps.submit(lab, steps.apply(lab, "shift:-10"))

        assert kinds(lab) == []
        seen = lab.world("look").observe()
        assert known_leader_epochs(lab.world("look"), seen) == {FIRST: 8, TopicPartition(TOPIC, 1): 0}


def test_a_partition_without_leader_is_no_plan_but_an_error_that_passes(lab: Lab) -> None:
    lab.kafka.fail_with(
        PartitionUnavailable(seen="flights[1] cannot be asked (no leader)", expected="a leader", do="wait for it")
    )

    with pytest.raises(PartitionUnavailable, match=r"flights\[1\].* · expected: a leader · do this: wait") as caught:
        steps.plan(lab)

    assert caught.value.retriable
