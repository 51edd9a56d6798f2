"""Neighbouring intervals share no record and leave no gap, in whatever order their boundaries are frozen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.boundary import Boundary, BoundaryBy, Found, draw_boundary
from airflow_provider_offsets.core.live import LivePartition, LiveTopic
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.stores.boundaries import FrozenBoundaries
from airflow_provider_offsets.stores.memory import MemoryStore

TOPIC = "flights"


def topic(*ends: int, begin: int = 0) -> LiveTopic:
    return LiveTopic(TOPIC, "id-1", tuple(LivePartition(min(begin, end), end) for end in ends))


def found(*offsets: int, open_: tuple[int, ...] = ()) -> Found:
    return Found(
        {TopicPartition(TOPIC, number): offset for number, offset in enumerate(offsets)},
        {TopicPartition(TOPIC, number) for number in open_},
        BoundaryBy.RECORD_TIME,
    )


def frozen(instant_ms: int, *offsets: int) -> Boundary:
    return Boundary(TOPIC, instant_ms, offsets, (0,) * len(offsets))


@pytest.mark.parametrize(
    ("seen", "before", "after", "offsets", "closed"),
    [
        pytest.param(found(5, 7), None, None, (5, 7), (), id="alone: as found"),
        pytest.param(found(5, 7), frozen(1, 6, 6), None, (6, 7), (), id="never below the one before"),
        pytest.param(found(5, 7), None, frozen(9, 4, 9), (4, 7), (), id="never above the one after"),
        pytest.param(found(9, 9, open_=(0, 1)), None, None, (9, 9), (0, 1), id="nothing there yet: the log's end"),
        pytest.param(found(9, 9, open_=(0,)), None, frozen(9, 9, 9), (9, 9), (), id="below a frozen one none is open"),
        pytest.param(found(5, 7), None, frozen(9, 5), (5, 0), (), id="new since the one after was frozen: from 0"),
        pytest.param(found(5, 7), frozen(1, 5), None, (5, 7), (), id="new since the one before was frozen"),
    ],
)
def test_a_boundary_lies_between_its_neighbours(
    seen: Found, before: Boundary | None, after: Boundary | None, offsets: tuple[int, ...], closed: tuple[int, ...]
) -> None:
    drawn = draw_boundary(topic(9, 9), 5, seen, before, after)

    assert (drawn.offsets, drawn.closed) == (offsets, closed)


@pytest.mark.parametrize(
    ("offset", "begin", "by", "unsure"),
    [
        pytest.param(10, 10, BoundaryBy.RECORD_TIME, True, id="cut at the first record that retention left"),
        pytest.param(11, 10, BoundaryBy.RECORD_TIME, False, id="one record before it is there, and older"),
        pytest.param(0, 0, BoundaryBy.RECORD_TIME, False, id="nothing was ever deleted"),
        pytest.param(10, 10, BoundaryBy.BATCH_TIME, False, id="the history knows what was read when"),
    ],
)
def test_a_boundary_knows_where_retention_hides_the_times(
    offset: int, begin: int, by: BoundaryBy, unsure: bool
) -> None:
    assert Boundary(TOPIC, 5, (offset,), (begin,), by=by).is_unsure(0) is unsure


@dataclass
class Log:
    """One partition: the times of its records, and how many retention has deleted."""

    times: list[int] = field(default_factory=list)
    begin: int = 0

    def at(self, time: int) -> int | None:
        """Kafka's answer: the first record of that time or later."""
        left = range(self.begin, len(self.times))
        return next((offset for offset in left if self.times[offset] >= time), None)


def look(logs: list[Log], time: int) -> Found:
    answers = {TopicPartition(TOPIC, number): log.at(time) for number, log in enumerate(logs)}
    ends = {TopicPartition(TOPIC, number): len(log.times) for number, log in enumerate(logs)}
    return Found(
        {key: ends[key] if answer is None else answer for key, answer in answers.items()},
        {key for key, answer in answers.items() if answer is None},
        BoundaryBy.RECORD_TIME,
    )


def live(logs: list[Log]) -> LiveTopic:
    return LiveTopic(TOPIC, "id-1", tuple(LivePartition(log.begin, len(log.times)) for log in logs))


@dataclass
class Story:
    """A topic that grows, ages and gets late records, while its boundaries are frozen at any moment."""

    store: MemoryStore = field(default_factory=MemoryStore)
    logs: list[Log] = field(default_factory=lambda: [Log()])
    looks: dict[int, Found] = field(default_factory=dict)

    def write(self, which: int, time: int) -> None:
        self.logs[which % len(self.logs)].times.append(time)

    def retain(self, which: int, count: int) -> None:
        log = self.logs[which % len(self.logs)]
        log.begin = min(len(log.times), log.begin + count)

    def grow(self, _: int, __: int) -> None:
        if len(self.logs) < 3:
            self.logs.append(Log())

    def look(self, number: int, _: int) -> None:
        """See an instant, and be slow: it is frozen only later."""
        self.looks[number] = look(self.logs, number * 10)

    def freeze(self, number: int, _: int = 0) -> None:
        at, seen = live(self.logs), self.looks.get(number) or look(self.logs, number * 10)
        self.boundaries.freeze(number * 10, lambda *around: draw_boundary(at, number * 10, seen, *around))

    @property
    def boundaries(self) -> FrozenBoundaries:
        return FrozenBoundaries(self.store, "p", live(self.logs))

    def cut(self, number: int) -> list[int]:
        """Where each partition is cut at an instant."""
        boundary = self.boundaries.at(number * 10)
        assert boundary is not None
        return [boundary.offset(partition) for partition in range(len(self.logs))]


happenings = st.tuples(
    st.sampled_from(["write"] * 4 + ["retain", "grow", "look", "freeze"]), st.integers(0, 6), st.integers(0, 60)
)


@given(st.lists(happenings, max_size=40), st.permutations(range(7)))
def test_intervals_tile_in_whatever_order_they_run(events: list[tuple[str, int, int]], order: list[int]) -> None:
    """The intervals between 0, 10, … 60: each record between the first and the last boundary is in one of them."""
    story = Story()
    for kind, which, amount in events:
        getattr(story, kind)(which, amount)
    for number in order:
        story.freeze(number)

    cuts = [story.cut(number) for number in range(7)]
    read: Counter[tuple[int, int]] = Counter()
    for begins, ends in pairwise(cuts):
        for partition, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            assert begin <= end <= len(story.logs[partition].times)
            read.update((partition, offset) for offset in range(begin, end))

    between = {
        (at, offset)
        for at, (first, last) in enumerate(zip(cuts[0], cuts[-1], strict=True))
        for offset in range(first, last)
    }
    assert read == Counter(between)


def test_a_record_is_cut_by_its_time_where_the_log_is_in_order() -> None:
    logs, store = [Log([3, 12, 12, 19, 20, 31])], MemoryStore()
    boundaries = FrozenBoundaries(store, "p", live(logs))

    cut = [
        boundaries.freeze(at, lambda before, after, at=at: draw_boundary(live(logs), at, look(logs, at), before, after))
        for at in (20, 0, 30, 10)
    ]

    assert [each.offset(0) for each in sorted(cut, key=lambda each: each.instant_ms)] == [0, 1, 4, 5]


def test_what_is_frozen_stays() -> None:
    store, logs = MemoryStore(), [Log([5, 15])]
    boundaries = FrozenBoundaries(store, "p", live(logs))
    boundaries.freeze(10, lambda *_: draw_boundary(live(logs), 10, look(logs, 10), None, None))
    logs[0].begin = 2

    again = boundaries.freeze(10, lambda *_: pytest.fail("it is frozen already"))

    assert again.offsets == (1,)


def test_two_that_freeze_at_once_see_each_other() -> None:
    """The second one has drawn beside no neighbour when the first one gets its boundary in: it draws anew."""
    store, at = MemoryStore(), topic(9)
    one, other = FrozenBoundaries(store, "p", at), FrozenBoundaries(store, "p", at)
    drawn = []

    def draw(before: Boundary | None, after: Boundary | None) -> Boundary:
        drawn.append(before)
        if before is None:
            other.freeze(10, lambda *around: draw_boundary(at, 10, found(7), *around))
        return draw_boundary(at, 20, found(5), before, after)

    assert one.freeze(20, draw).offsets == (7,)
    assert [each and each.instant_ms for each in drawn] == [None, 10]


def test_a_freezing_that_is_killed_before_the_index_leaves_nothing() -> None:
    class Killed(MemoryStore):
        def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
            if name.startswith("boundaries/"):
                raise KeyboardInterrupt
            return super().check_and_put(pipeline, name, expected, value)

    store, at = Killed(), topic(9)
    boundaries = FrozenBoundaries(store, "p", at)

    with pytest.raises(KeyboardInterrupt):
        boundaries.freeze(10, lambda *around: draw_boundary(at, 10, found(7), *around))

    assert boundaries.at(10) is None
    assert boundaries.around(11) == (None, None)


def test_a_topic_that_was_made_again_has_no_boundaries() -> None:
    store, at = MemoryStore(), topic(9)
    FrozenBoundaries(store, "p", at).freeze(10, lambda *around: draw_boundary(at, 10, found(7), *around))

    assert FrozenBoundaries(store, "p", LiveTopic(TOPIC, "id-2", at.partitions)).at(10) is None
