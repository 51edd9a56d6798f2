"""Laws of the plan, over random states."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPolicy
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.snapshot import Observation
from tests.unit.core.observations import TOPIC, at, checkpoint, epoch, live, processed, seen

offsets = st.integers(0, 30)
positions = st.lists(st.none() | offsets, max_size=5).map(lambda given: at(*given))
lives = st.lists(st.tuples(offsets, offsets).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=4).map(
    lambda ranges: live(*ranges)
)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    stood, there = draw(positions), draw(lives)
    return seen(
        there,
        checkpoint=draw(st.none() | positions.map(checkpoint)),
        processed=draw(st.none() | st.just(processed(stood, epoch=draw(st.sampled_from([None, 1]))))),
        epoch=draw(st.none() | positions.map(epoch)),
    )


@given(positions, observations())
def test_counts_lead_from_the_stored_offset_to_the_start(wanted: Position, session: Observation) -> None:
    for row in plan_restart(wanted, session).rows:
        assert min(row.replay, row.skipped, row.lost) >= 0
        if row.stored is not None:
            assert row.start == row.stored - row.replay + row.skipped + row.lost
            assert not (row.replay and (row.skipped or row.lost))


@settings(max_examples=300)  # about a third of the plans have no problems
@given(positions, observations())
def test_without_problems_nothing_is_lost_or_skipped(wanted: Position, session: Observation) -> None:
    plan = plan_restart(wanted, session)

    assert plan.problems or (plan.lost, plan.skipped) == (0, 0)


@settings(max_examples=300)
@given(positions, observations(), offsets, offsets)
def test_no_more_is_lost_or_skipped_than_is_accepted(
    wanted: Position, session: Observation, accept_lost: int, accept_skipped: int
) -> None:
    plan = plan_restart(wanted, session, RestartPolicy({TOPIC: accept_lost}, {TOPIC: accept_skipped}))

    assert plan.problems or (plan.lost + plan.unreplayable <= accept_lost and plan.skipped <= accept_skipped)


@settings(max_examples=300)
@given(positions, observations())
def test_without_problems_every_start_can_be_read(wanted: Position, session: Observation) -> None:
    plan = plan_restart(wanted, session)

    assert plan.problems or all(row.begin <= row.start <= row.end for row in plan.rows)


@given(positions, observations())
def test_no_start_lies_before_what_retention_left(wanted: Position, session: Observation) -> None:
    """Plans with problems are included: Spark dies of a missing start, so no plan ever contains one."""
    assert all(row.begin <= row.start for row in plan_restart(wanted, session).rows)


@given(positions, observations())
def test_the_same_observation_has_the_same_plan(wanted: Position, session: Observation) -> None:
    first, second = plan_restart(wanted, session), plan_restart(wanted, session)

    assert (first, first.fingerprint) == (second, second.fingerprint)


@given(positions, observations())
def test_every_partition_has_one_row_in_order(wanted: Position, session: Observation) -> None:
    """``startingOffsets`` must name every partition, and no other."""
    assert [row.key for row in plan_restart(wanted, session).rows] == sorted(session.live.partitions)


@given(positions, observations(), st.lists(offsets, min_size=1, max_size=3))
def test_more_partitions_change_no_old_row(wanted: Position, session: Observation, ends: list[int]) -> None:
    [topic] = session.live.topics
    old = tuple((each.begin, each.end) for each in topic.partitions)
    grown = live(*old, *((0, end) for end in ends))

    before = plan_restart(wanted, session)
    after = plan_restart(wanted, _with_live(session, grown))

    assert after.rows[: len(before.rows)] == before.rows


@given(lives, st.lists(offsets, min_size=1, max_size=3))
def test_a_new_partition_starts_at_0_whatever_the_form(there: LiveTopics, ends: list[int]) -> None:
    stood = there.end
    [topic] = there.topics
    old = tuple((each.begin, each.end) for each in topic.partitions)
    grown = live(*old, *((0, end) for end in ends))
    session = seen(grown, checkpoint=checkpoint(stood), processed=processed(stood), epoch=epoch(there.begin))

    plan = plan_restart(stood, session)

    assert [row.start for row in plan.rows[len(old) :]] == [0] * len(ends)
    assert (plan.problems, plan.replay, plan.form) == ((), 0, RestartForm.RESUME)


@given(observations())
def test_a_plan_that_starts_where_it_ended_reads_nothing_twice(session: Observation) -> None:
    """A restart is a fixed point: a plan without problems, planned again from its end, replays nothing."""
    first = plan_restart(session.stored or Position(), session)
    assume(not first.problems)
    stopped = seen(session.live, checkpoint=checkpoint(first.start), epoch=epoch(first.start, 2))

    second = plan_restart(stopped.stored or Position(), stopped)

    assert (second.start, second.form, second.problems) == (first.start, RestartForm.RESUME, ())
    assert second.replay == 0


@given(positions, observations())
def test_a_plan_right_after_its_own_apply_replays_nothing(wanted: Position, session: Observation) -> None:
    """Whatever was chosen, accepted and counted, a replay is counted once."""
    first = plan_restart(wanted, session, RestartPolicy({TOPIC: 1_000}, {TOPIC: 1_000}))
    assume(not first.problems)
    applied = seen(session.live, checkpoint=checkpoint(first.start), epoch=epoch(first.start, session.epoch_number + 1))

    second = plan_restart(applied.stored or Position(), applied)

    assert (second.start, second.form, second.problems) == (first.start, RestartForm.RESUME, ())
    assert (second.replay, second.skipped, second.lost, second.unreplayable) == (0, 0, 0, 0)


def _with_live(session: Observation, there: LiveTopics) -> Observation:
    return replace(session, live=there)
