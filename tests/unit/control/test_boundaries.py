"""Neighbouring intervals share no record and leave no gap, in whatever order their boundaries are frozen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.control.boundaries import FrozenBoundaries
from airflow_provider_offsets.core.live import LivePartition, LiveTopic
from airflow_provider_offsets.core.replay.boundary import Boundary, StaleObservation, TopicObservation
from airflow_provider_offsets.errors import StoreDataError, StoreUnreachable
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.stepping import Fault, Stepped, Task

TOPIC = "flights"


def topic(partitions: int = 1, topic_id: str = "id-1") -> LiveTopic:
    return LiveTopic(TOPIC, topic_id, (LivePartition(0, 99),) * partitions)


def observation(instant_ms: int, *offsets: int) -> TopicObservation:
    return TopicObservation(instant_ms, offsets, (0,) * len(offsets))


def offsets(found: Boundary | StaleObservation | None) -> tuple[int, ...]:
    assert isinstance(found, Boundary), found
    return found.offsets


@dataclass
class Log:
    """One partition: the times of its records, and how many of them retention has deleted."""

    times: list[int] = field(default_factory=list)
    begin: int = 0

    def at(self, time: int) -> int | None:
        """Return Kafka's answer: the first record of that time or later."""
        left = range(self.begin, len(self.times))
        return next((offset for offset in left if self.times[offset] >= time), None)


def looked(logs: list[Log], time: int) -> TopicObservation:
    answers = [log.at(time) for log in logs]
    return TopicObservation(
        time,
        tuple(len(log.times) if at is None else at for log, at in zip(logs, answers, strict=True)),
        tuple(log.begin for log in logs),
        frozenset(number for number, at in enumerate(answers) if at is None),
    )


@dataclass
class Story:
    """A topic that grows, ages and gets late records, while its boundaries are frozen at any moment."""

    store: MemoryStore = field(default_factory=MemoryStore)
    logs: list[Log] = field(default_factory=lambda: [Log()])
    looks: dict[int, TopicObservation] = field(default_factory=dict)

    def write(self, which: int, time: int) -> None:
        self.logs[which % len(self.logs)].times.append(time)

    def retain(self, which: int, count: int) -> None:
        log = self.logs[which % len(self.logs)]
        log.begin = min(len(log.times), log.begin + count)

    def grow(self, _: int, __: int) -> None:
        if len(self.logs) < 3:
            self.logs.append(Log())

    def observation(self, number: int, _: int) -> None:
        """Observe an instant, and freeze it only later."""
        self.looks[number] = looked(self.logs, number * 10)

    def freeze(self, number: int, _: int = 0) -> None:
        seen = self.looks.get(number) or looked(self.logs, number * 10)
        if isinstance(self.boundaries.freeze(seen), StaleObservation):
            assert isinstance(self.boundaries.freeze(looked(self.logs, number * 10)), Boundary)

    @property
    def boundaries(self) -> FrozenBoundaries:
        return FrozenBoundaries(self.store, "p", topic(len(self.logs)))

    def cut(self, number: int) -> list[int]:
        """Return the offset of each partition at an instant."""
        boundary = self.boundaries.at(number * 10)
        assert boundary is not None
        return [boundary.offset(partition) for partition in range(len(self.logs))]


happenings = st.tuples(
    st.sampled_from(["write"] * 4 + ["retain", "grow", "observation", "freeze"]), st.integers(0, 6), st.integers(0, 60)
)


@given(st.lists(happenings, max_size=40), st.permutations(range(7)))
def test_intervals_tile_in_whatever_order_they_run(events: list[tuple[str, int, int]], order: list[int]) -> None:
    """For the intervals between 0, 10, … 60: each record between the first and the last boundary is in one of them."""
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
    logs, boundaries = [Log([3, 12, 12, 19, 20, 31])], FrozenBoundaries(MemoryStore(), "p", topic())

    cut = {at: offsets(boundaries.freeze(looked(logs, at))) for at in (20, 0, 30, 10)}

    assert cut == {0: (0,), 10: (1,), 20: (4,), 30: (5,)}


def test_what_is_frozen_stays() -> None:
    boundaries = FrozenBoundaries(MemoryStore(), "p", topic())
    boundaries.freeze(observation(10, 1))

    assert offsets(boundaries.freeze(observation(10, 2))) == (1,)
    assert offsets(boundaries.at(10)) == (1,)


def test_a_frozen_boundary_is_found_by_a_stale_observation() -> None:
    store = MemoryStore()
    FrozenBoundaries(store, "p", topic(2)).freeze(observation(10, 1, 4))

    assert offsets(FrozenBoundaries(store, "p", topic(1)).freeze(observation(10, 2))) == (1, 4)
    assert FrozenBoundaries(store, "p", topic(1)).freeze(observation(20, 2)) == StaleObservation(2)


class TestTwoAtOnce:
    """A second writer comes between any two steps of the first one."""

    def writers(self, store: MemoryStore, mine: TopicObservation, other: TopicObservation) -> tuple[Task, Task]:
        boundaries = FrozenBoundaries(Stepped(store), "p", topic(len(mine.offsets)))
        return Task("one", lambda: boundaries.freeze(mine)), Task("other", lambda: boundaries.freeze(other))

    @pytest.mark.parametrize("steps", range(4))
    def test_of_one_instant_there_is_one_boundary(self, steps: int) -> None:
        one, other = self.writers(MemoryStore(), observation(10, 5), observation(10, 7))
        for _ in range(steps):
            one.step()
        if one.is_over:
            assert (offsets(one.result), offsets(other.finish())) == ((5,), (5,))
        else:
            assert (offsets(other.finish()), offsets(one.finish())) == ((7,), (7,))

    @pytest.mark.parametrize("steps", range(3))
    def test_the_later_instant_is_computed_again_beside_the_earlier_one(self, steps: int) -> None:
        one, other = self.writers(MemoryStore(), observation(20, 5), observation(10, 7))
        for _ in range(steps):
            one.step()

        assert offsets(other.finish()) == (7,)
        assert offsets(one.finish()) == (7,)

    @pytest.mark.parametrize("steps", range(3))
    def test_an_observation_becomes_stale_while_it_is_frozen(self, steps: int) -> None:
        store = MemoryStore()
        old = FrozenBoundaries(Stepped(store), "p", topic(1))
        one = Task("one", lambda: old.freeze(observation(20, 5)))
        for _ in range(steps):
            one.step()
        FrozenBoundaries(store, "p", topic(2)).freeze(observation(10, 5, 10))

        assert one.finish() == StaleObservation(2)

    @pytest.mark.parametrize("fault", Fault)
    @pytest.mark.parametrize("steps", range(3))
    def test_a_lost_answer_changes_nothing_when_the_call_is_repeated(self, steps: int, fault: Fault) -> None:
        store = MemoryStore()
        boundaries = FrozenBoundaries(Stepped(store), "p", topic())
        one = Task("one", lambda: boundaries.freeze(observation(10, 5)))
        for _ in range(steps):
            one.step()
        one.step(fault)

        assert isinstance(one.error, StoreUnreachable)
        was_frozen = (steps, fault) == (2, Fault.LOST_ANSWER)
        boundaries.freeze(observation(20, 3))
        assert offsets(boundaries.freeze(observation(10, 5))) == ((5,) if was_frozen else (3,))
        assert offsets(boundaries.at(20)) == ((5,) if was_frozen else (3,))


def test_a_topic_that_was_created_again_has_no_boundaries() -> None:
    store = MemoryStore()
    FrozenBoundaries(store, "p", topic()).freeze(observation(10, 7))

    assert FrozenBoundaries(store, "p", topic(topic_id="id-2")).at(10) is None


@pytest.mark.parametrize("cell", ["boundaries/flights/id-1", "boundary/flights/id-1/"])
def test_what_somebody_else_wrote_there_is_refused_by_name(cell: str) -> None:
    store = MemoryStore()
    boundaries = FrozenBoundaries(store, "p", topic())
    boundaries.freeze(observation(10, 7))
    [(name, text)] = store.scan("p", cell)
    assert store.check_and_put("p", name, text, "[]")

    with pytest.raises(StoreDataError, match="flights/id-1"):
        boundaries.freeze(observation(20, 9))
