"""Laws of the audit: over random histories its counts equal a count offset by offset."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.core.audit.report import AuditReport, DiscontinuityKind
from airflow_provider_offsets.core.audit.walk import audit
from airflow_provider_offsets.core.audit.window import AuditWindow, Bound
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Announced, Cut, Ended, EndedHow, Epoch
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from tests.unit.core.observations import QUERY, TOPIC, epoch

Happened = Epoch | Batch
"""A launch, or a row of the history."""


@dataclass
class History:
    """What happened, in order, and which rows were written by others."""

    happened: list[Happened] = field(default_factory=list)
    foreign: list[Batch] = field(default_factory=list)

    @property
    def rows(self) -> list[Batch]:
        return [each for each in self.happened if isinstance(each, Batch)]

    @property
    def epochs(self) -> list[Epoch]:
        return [each for each in self.happened if isinstance(each, Epoch)]

    def until(self, number: int) -> History:
        """Return the history up to the last row of an epoch."""
        later = [each for each in self.epochs if each.number > number]
        kept = self.happened[: self.happened.index(later[0])] if later else self.happened
        return History(kept, [each for each in self.foreign if each in kept])


@dataclass
class Offsets:
    """One partition, offset by offset."""

    position: int
    readings: Counter[int] = field(default_factory=Counter)
    passed_over: dict[int, tuple[DiscontinuityKind, bool]] = field(default_factory=dict)
    """Offsets that nobody has read since a jump over them, with whether that jump was announced."""
    is_back_explained: bool = False


class BruteForce:
    """Counts offset by offset, without any notion of ranges."""

    def __init__(self, history: History) -> None:
        self.partitions: dict[int, Offsets] = {}
        self.totals: Counter[DiscontinuityKind] = Counter()
        self.unexplained = 0
        self.records = 0
        for each in history.happened:
            if isinstance(each, Epoch):
                self._begin(each)
            elif each in history.foreign:
                self._found(DiscontinuityKind.OVERLAP, each.record_count, is_explained=False)
            else:
                self._read(each)
        for offsets in self.partitions.values():
            for kind, is_explained in offsets.passed_over.values():
                self._found(kind, 1, is_explained=is_explained)

    def _found(self, kind: DiscontinuityKind, count: int, *, is_explained: bool) -> None:
        self.totals[kind] += count
        self.unexplained += 0 if is_explained else count

    def _offsets(self, partition: int, start: int, *, is_topic_known: bool) -> Offsets:
        return self.partitions.setdefault(partition, Offsets(0 if is_topic_known else start))

    def _begin(self, launched: Epoch) -> None:
        for each in launched.cuts:
            count = each.count * sum(there.count for there in each.ranges)
            self._found(DiscontinuityKind.CUT_OFF, count, is_explained=True)
        if launched.holder is None:
            return
        announced = {(each.partition, each.start): each.lost for each in launched.claim.announced}
        is_first, stood = not self.partitions, launched.claim.stood or Position()
        for key, start in launched.claim.start.items():
            offsets = self._offsets(key.partition, start, is_topic_known=not is_first)
            lost = announced.get((key.partition, start))
            if lost is not None and not is_first:
                self._stand(offsets, stood.get(key, offsets.position))
            self._jump(offsets, start, lost or 0, is_explained=lost is not None)

    def _stand(self, offsets: Offsets, stood: int) -> None:
        if stood < offsets.position:
            self._found(DiscontinuityKind.JUMP, offsets.position - stood, is_explained=False)
        else:
            self._jump(offsets, stood, 0, is_explained=False)

    def _read(self, batch: Batch) -> None:
        for each in batch.ranges:
            offsets = self._offsets(each.partition, each.start, is_topic_known=True)
            self._jump(offsets, each.start, 0, is_explained=False)
            for offset in range(each.start, each.end):
                offsets.passed_over.pop(offset, None)
                if offsets.readings[offset]:
                    self._found(DiscontinuityKind.REPLAY, 1, is_explained=offsets.is_back_explained)
                offsets.readings[offset] += 1
                self.records += 1
            offsets.position = each.end

    def _jump(self, offsets: Offsets, to: int, lost: int, *, is_explained: bool) -> None:
        if to < offsets.position:
            offsets.is_back_explained = is_explained
            if not is_explained:
                unread = sum(1 for offset in range(to, offsets.position) if not offsets.readings[offset])
                self._found(DiscontinuityKind.JUMP, unread, is_explained=False)
        for offset in range(offsets.position, to):
            offsets.passed_over.pop(offset, None)
            if offsets.readings[offset]:
                if not is_explained:
                    offsets.passed_over[offset] = (DiscontinuityKind.JUMP, False)
            elif is_explained and lost == 0:
                offsets.passed_over[offset] = (DiscontinuityKind.SKIP, True)
            else:
                offsets.passed_over[offset] = (DiscontinuityKind.LOSS, is_explained)
                lost -= is_explained
        offsets.position = to


@dataclass(frozen=True)
class Weather:
    """How often each event may happen, in percent."""

    moves: int = 60
    """A launch begins elsewhere in a partition."""
    silent: int = 25
    """A plan does not announce where its launch begins."""
    missing: int = 8
    """A row is missing in the history."""
    foreign: int = 8
    """A row of another writer follows."""


CALM = Weather(0, 0, 0, 0)
HONEST = Weather(60, 0, 0, 0)
STORM = Weather()
ALONE = replace(STORM, foreign=0)


@dataclass
class Author:
    """Draws the events of a history, one after the other."""

    draw: st.DrawFn
    weather: Weather
    history: History = field(default_factory=History)
    position: dict[int, int] = field(default_factory=dict)
    """The position of the job."""

    def chance(self, percent: int) -> bool:
        return percent > 0 and self.draw(st.integers(1, 100)) <= percent

    def count(self, most: int) -> int:
        return self.draw(st.integers(0, most))

    def row(self, end: dict[int, int], start: dict[int, int], number: int) -> Batch:
        made = len(self.history.happened)
        return Batch(_position(end), made, made, QUERY, number, _position(start), made)

    def live(self, number: int, *, is_last: bool) -> None:
        """Append one launch."""
        stood = dict(self.position)
        if number > 1 and self.chance(20):
            self.position[len(self.position)] = 0
        begin, announced = dict(self.position), []
        for partition in self.position:
            begin[partition], said = self.moved(partition, self.position[partition])
            announced += said
        is_void = number > 1 and self.chance(20)
        launched = epoch(_position(begin), number, tuple(announced))
        launched = replace(launched, claim=replace(launched.claim, stood=_position(stood)))
        if is_void:
            launched = replace(launched, holder=None, ended=None if is_last else Ended(EndedHow.CANCELLED, 1))
        place = len(self.history.happened)
        self.history.happened.append(launched)
        if is_void:
            return
        self.position = begin
        for _ in range(self.count(3)):
            self.batch(number)
        # The batch that was cut off is the one after the last.
        self.history.happened[place] = replace(launched, cuts=tuple(self.cuts(self.position)))

    def moved(self, partition: int, stood: int) -> tuple[int, list[Announced]]:
        """Return where a launch begins in one partition, and what its plan announces about it."""
        start = max(0, stood + self.draw(st.integers(-15, 12))) if self.chance(self.weather.moves) else stood
        if self.chance(self.weather.silent):
            # A plan that names another start explains nothing.
            return start, [Announced(TOPIC, partition, start + 1)] * self.count(1)
        return start, [Announced(TOPIC, partition, start, lost=self.count(8))] * (start != stood)

    def cuts(self, begin: dict[int, int]) -> list[Cut]:
        ranges = (OffsetRange(TOPIC, *place, place[1] + self.count(5)) for place in begin.items())
        return [Cut(9, QUERY, 1 + self.count(2), "", tuple(ranges))] * self.count(1)

    def batch(self, number: int) -> None:
        """Append one batch, which may be missing in the history, or be followed by a row of another writer."""
        start = dict(self.position)
        if self.chance(10):
            self.position[len(self.position)] = 0
        end = {partition: stood + self.count(8) for partition, stood in self.position.items()}
        self.position = dict(end)
        if self.chance(self.weather.missing):
            return
        self.history.happened.append(self.row(end, start, number))
        if self.chance(self.weather.foreign):
            self.foreign(number)

    def foreign(self, number: int) -> None:
        void = [each.number for each in self.history.epochs if each.holder is None]
        names = self.draw(st.sampled_from([*range(1, number), *void, 99]))
        later = {partition: stood + self.count(4) for partition, stood in self.position.items()}
        row = self.row(later, dict(self.position), names)
        self.history.happened.append(row)
        self.history.foreign.append(row)


def _position(offsets: dict[int, int]) -> Position:
    return Position({TopicPartition(TOPIC, number): offset for number, offset in offsets.items()})


@st.composite
def histories(draw: st.DrawFn, weather: Weather = STORM) -> History:
    author = Author(draw, weather)
    author.position = {number: draw(st.integers(0, 20)) for number in range(draw(st.integers(1, 2)))}
    launches = draw(st.integers(1, 6))
    for number in range(1, launches + 1):
        author.live(number, is_last=number == launches)
    return author.history


def audited(history: History, **more: Any) -> AuditReport:
    return audit("flights", history.rows, history.epochs, **more)


def totals(found: AuditReport) -> dict[str, int]:
    names = ("batches", "records", "lost", "skipped", "replayed", "replayed_at_most", "unexplained_count")
    return {name: getattr(found, name) for name in names}


@settings(max_examples=300)
@given(histories())
def test_law_it_counts_what_a_count_of_each_offset_counts(history: History) -> None:
    found, counted = audited(history), BruteForce(history)
    for kind, offsets in counted.totals.items():
        event(f"{kind.value}: {'some' if offsets else 'none'}")

    assert totals(found) == {
        "batches": len(history.rows) - len(history.foreign),
        "records": counted.records,
        "lost": counted.totals[DiscontinuityKind.LOSS],
        "skipped": counted.totals[DiscontinuityKind.SKIP],
        "replayed": counted.totals[DiscontinuityKind.REPLAY],
        "replayed_at_most": counted.totals[DiscontinuityKind.CUT_OFF],
        "unexplained_count": counted.unexplained,
    }
    assert bool(found.unexplained_places) == bool(found.unexplained_count)
    assert {each.partition: each.end for each in found.partitions} == {
        number: offsets.position for number, offsets in counted.partitions.items()
    }


@given(histories())
def test_law_what_is_listed_covers_each_offset_as_often_as_it_is_counted(history: History) -> None:
    """An offset that was read n times is in n - 1 replays.

    A lost or skipped offset is in exactly one place, and was read by nobody.
    """
    found, counted = audited(history), BruteForce(history)

    listed: dict[DiscontinuityKind, Counter[tuple[int, int]]] = defaultdict(Counter)
    for each in found.discontinuities:
        listed[each.kind].update((each.range.partition, offset) for offset in range(each.range.start, each.range.end))

    for number, offsets in counted.partitions.items():
        for offset in range(max([*offsets.readings, *offsets.passed_over], default=0) + 1):
            read = offsets.readings[offset]
            never = listed[DiscontinuityKind.LOSS][number, offset] + listed[DiscontinuityKind.SKIP][number, offset]
            assert listed[DiscontinuityKind.REPLAY][number, offset] == max(0, read - 1)
            assert never == (read == 0 and offset in offsets.passed_over)
    for kind, count in counted.totals.items():
        assert listed[kind].total() == count
    assert sum(each.range.count for each in found.unexplained) == found.unexplained_count


@given(histories(HONEST))
def test_law_nothing_that_plans_announced_is_an_alarm(history: History) -> None:
    """Neither interrupted batches, cancelled launches nor new partitions raise an alarm."""
    found = audited(history)

    assert (found.unexplained_places, found.unexplained_count) == (0, 0)


@given(histories(ALONE), st.integers(1, 5))
def test_law_a_window_splits_what_is_read_again(history: History, number: int) -> None:
    """A window up to an epoch reports what was known then; with the rest it counts each replay once."""
    until, since = Bound.read(f"epoch:{number}"), Bound.read(f"epoch:{number + 1}")

    whole = totals(audited(history))
    first = totals(audited(history, window=AuditWindow(until=until)))
    rest = totals(audited(history, window=AuditWindow(since=since)))

    assert first == totals(audited(history.until(number)))
    for name in ("batches", "records", "replayed", "replayed_at_most"):
        assert first[name] + rest[name] == whole[name]


@given(histories(CALM))
def test_law_what_tiles_is_silent(history: History) -> None:
    found = audited(history)

    assert {each.kind for each in found.discontinuities} <= {DiscontinuityKind.CUT_OFF}
    assert found.records == sum(each.record_count for each in history.rows)


@given(histories(CALM), st.data())
def test_law_no_batch_can_be_taken_out_unseen(history: History, data: st.DataObject) -> None:
    """The very last batch is an exception until the next launch, which begins where that batch ended."""
    if not history.rows:
        return
    taken, last = data.draw(st.sampled_from(history.rows)), history.rows[-1]
    number = max(each.number for each in history.epochs) + 1
    kept = [each for each in history.happened if each is not taken]

    found = audited(History([*kept, epoch(last.end, number)]))

    assert (found.lost, found.unexplained_count, found.replayed) == (taken.record_count, taken.record_count, 0)
