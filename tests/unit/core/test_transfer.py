"""What a copy would do, as a table: what is written, what exists, and what prevents the copy."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.transfer import plan_transfer
from tests.unit.core.observations import IDENTITY, TOPIC, at, live

SKIP, MISSING = ProblemKind.SKIP, ProblemKind.PARTITION_MISSING


@dataclass(frozen=True)
class Case:
    """One copy, and its expected result."""

    why: str
    brought: Position
    now: Position | None
    problems: tuple[ProblemKind, ...] = ()
    replay: int = 0
    skipped: int = 0
    changed: int = 2
    accept: dict[str, int] = field(default_factory=dict)
    live: LiveTopics | None = None
    identity: TopicIdentity | None = None


CASES = [
    Case("an empty store: nothing is passed over in it, whatever comes", at(50, 60), None),
    Case("it is there already", at(50, 60), at(50, 60), changed=0),
    Case("back: the job reads again, which is allowed", at(40, 60), at(50, 60), replay=10, changed=1),
    Case("forward: the target says that this was not read", at(50, 63), at(40, 60), (SKIP,), skipped=13),
    Case("forward, accepted by topic and count", at(50, 63), at(40, 60), skipped=13, accept={TOPIC: 13}),
    Case("forward by one more than accepted", at(50, 64), at(40, 60), (SKIP,), skipped=14, accept={TOPIC: 13}),
    Case("accepted for another topic", at(50, 60), at(40, 60), (SKIP,), skipped=10, changed=1, accept={"other": 13}),
    Case("back in one does not pay for forward in another", at(30, 63), at(40, 60), (SKIP,), replay=10, skipped=3),
    Case("a partition that the target does not name yet begins at 0 there", at(50, 0), at(50), changed=1),
    Case(
        "a new one of which something was read: a job on the target would begin at 0",
        at(50, 7),
        at(50),
        (SKIP,),
        skipped=7,
        changed=1,
    ),
    Case("a topic that the target does not name at all is new there", at(5, 6, topic="u").updated(at(1)), at(1)),
    Case("half a position: the target has a partition that is not brought", at(50), at(50, 60), (MISSING,), changed=1),
    Case("half a position: a hole below the greatest partition", at(50, None, 60), None, (MISSING,)),
    Case("past the end of the log", at(50, 101), None, (ProblemKind.OFFSET_PAST_END,), live=live((0, 100), (0, 100))),
    Case(
        "at the end of the log, and before what retention has left: a plan's to judge",
        at(100, 1),
        None,
        live=live((0, 100), (5, 100)),
    ),
    Case(
        "a partition that the cluster does not have", at(1, 1), None, (ProblemKind.PARTITIONS_GONE,), live=live((0, 9))
    ),
    Case("exported from this cluster and topic", at(1, 1), None, live=live((0, 9), (0, 9)), identity=IDENTITY),
    Case(
        "exported from another cluster",
        at(1, 1),
        None,
        (ProblemKind.WRONG_CLUSTER,),
        live=live((0, 9), (0, 9), cluster_id="c2"),
        identity=IDENTITY,
    ),
    Case(
        "the topic was recreated since the export",
        at(1, 1),
        None,
        (ProblemKind.TOPIC_RECREATED,),
        live=live((0, 9), (0, 9), topic_id="id-9"),
        identity=IDENTITY,
    ),
    Case("another cluster, and nobody asked it: it cannot be known", at(1, 1), None, identity=TopicIdentity("c2", {})),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_what_a_copy_would_do(case: Case) -> None:
    made = plan_transfer(
        "g", case.brought, case.now, accept_skipped=case.accept, live=case.live, identity=case.identity
    )

    assert tuple(each.kind for each in made.problems) == case.problems
    assert (made.replay, made.skipped, made.changed) == (case.replay, case.skipped, case.changed)
    assert (made.now, made.after) == (case.now, case.brought)


def test_the_way_out_can_be_copied_from_the_message() -> None:
    [problem] = plan_transfer("g", at(50, 63), at(40, 60)).problems

    assert "'--accept-skipped flights=13'" in problem.message


def test_a_partition_number_without_bounds_takes_no_time() -> None:
    """A damaged file may name any partition number."""
    [problem] = plan_transfer("g", Position({TopicPartition(TOPIC, 2**31 - 1): 1}), None).problems

    assert "flights[0]" in problem.message


offsets = st.one_of(st.none(), st.integers(0, 5))
positions = st.builds(at, st.integers(0, 5), offsets, offsets)


@given(positions, st.one_of(st.none(), positions))
def test_every_partition_is_a_row_and_nothing_goes_forward_unsaid(brought: Position, now: Position | None) -> None:
    made = plan_transfer("g", brought, now)

    assert {row.key for row in made.rows} == {*brought, *(now or ())}
    assert (made.skipped > 0) is (SKIP in {each.kind for each in made.problems})
    for row in made.rows:
        if row.now is not None and row.after is not None:
            assert row.skipped - row.replay == row.after - row.now
