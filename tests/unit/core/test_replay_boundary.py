"""A boundary lies between its neighbours, and names what can no longer be known."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.replay.boundary import (
    Boundary,
    BoundaryBy,
    Frozen,
    StaleObservation,
    TopicBoundaries,
    TopicObservation,
    freeze,
)

INSTANT_MS = 5


def observation(*offsets: int, open_: tuple[int, ...] = ()) -> TopicObservation:
    return TopicObservation(INSTANT_MS, offsets, (0,) * len(offsets), frozenset(open_))


def frozen(instant_ms: int, *offsets: int) -> Boundary:
    return Boundary("flights", instant_ms, offsets, (0,) * len(offsets))


def record(*boundaries: Boundary | None) -> TopicBoundaries:
    known = [each for each in boundaries if each is not None]
    return TopicBoundaries(
        {str(each.instant_ms): each.digest for each in known}, max((len(each.offsets) for each in known), default=0)
    )


@pytest.mark.parametrize(
    ("seen", "before", "after", "offsets", "closed"),
    [
        pytest.param(observation(5, 7), None, None, (5, 7), (), id="alone: as seen"),
        pytest.param(observation(5, 7), frozen(1, 6, 6), None, (6, 7), (), id="never below the boundary before"),
        pytest.param(observation(5, 7), None, frozen(9, 4, 9), (4, 7), (), id="never above the boundary after"),
        pytest.param(observation(5, 7), frozen(1, 6, 6), frozen(9, 6, 6), (6, 6), (), id="nothing left between them"),
        pytest.param(
            observation(9, 9, open_=(0, 1)), None, None, (9, 9), (0, 1), id="no record yet: the end of the log"
        ),
        pytest.param(
            observation(9, 9, open_=(0,)), None, frozen(9, 9, 9), (9, 9), (), id="nothing is open below another one"
        ),
        pytest.param(observation(5, 7), None, frozen(9, 5), (5, 0), (), id="a partition newer than the boundary after"),
        pytest.param(
            observation(5, 7), frozen(1, 5), None, (5, 7), (), id="a partition newer than the boundary before"
        ),
    ],
)
def test_a_boundary_lies_between_its_neighbours(
    seen: TopicObservation,
    before: Boundary | None,
    after: Boundary | None,
    offsets: tuple[int, ...],
    closed: tuple[int, ...],
) -> None:
    made = freeze(record(before, after), "flights", seen, before, after)

    assert isinstance(made, Frozen)
    assert (made.boundary.offsets, made.boundary.closed) == (offsets, closed)
    assert made.boundaries.digest(INSTANT_MS) == made.boundary.digest
    assert made.boundaries.digests.items() >= record(before, after).digests.items(), "and what was frozen stays"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(frozen(1, 5, 10), None, id="the boundary before: this one would be below it"),
        pytest.param(None, frozen(9, 5, 10), id="the boundary after: records between would have no interval"),
    ],
)
def test_an_observation_without_a_known_partition_is_stale(before: Boundary | None, after: Boundary | None) -> None:
    assert freeze(record(before, after), "flights", observation(5), before, after) == StaleObservation(2)


def test_an_observation_is_stale_even_if_its_neighbours_are_older() -> None:
    """The boundary that names the partition is not a neighbour: its own neighbours are monotonic all the same."""
    far = frozen(1, 0, 3)

    assert freeze(record(far, frozen(2, 4)), "flights", observation(5), frozen(2, 4), None) == StaleObservation(2)


@pytest.mark.parametrize(
    ("offset", "begin", "by", "unsure"),
    [
        pytest.param(10, 10, BoundaryBy.RECORD_TIME, True, id="the first record that retention left"),
        pytest.param(10, 12, BoundaryBy.RECORD_TIME, True, id="retention went on while Kafka was asked"),
        pytest.param(11, 10, BoundaryBy.RECORD_TIME, False, id="one record below is retained, and older"),
        pytest.param(0, 0, BoundaryBy.RECORD_TIME, False, id="nothing was ever deleted"),
        pytest.param(10, 10, BoundaryBy.BATCH_TIME, False, id="the history knows what was read when"),
    ],
)
def test_a_boundary_knows_where_retention_hides_the_times(
    offset: int, begin: int, by: BoundaryBy, unsure: bool
) -> None:
    assert Boundary("flights", INSTANT_MS, (offset,), (begin,), by=by).is_unsure(0) is unsure


@pytest.mark.parametrize(
    ("later", "is_before"),
    [
        pytest.param(frozen(9, 5, 7), True, id="the same"),
        pytest.param(frozen(9, 5, 7, 1), True, id="with a new partition"),
        pytest.param(frozen(9, 5), False, id="without a partition that had records"),
        pytest.param(frozen(9, 4, 9), False, id="below in one partition"),
    ],
)
def test_boundaries_that_contradict_each_other_are_recognised(later: Boundary, is_before: bool) -> None:
    assert frozen(1, 5, 7).is_before(later) is is_before
