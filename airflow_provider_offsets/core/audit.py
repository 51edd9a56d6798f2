"""The proof that a history's ranges tile: per partition, what was read once, read again, skipped or lost.

Rule (Spark's documentation on storing offsets yourself): the end of the existing offsets matches the beginning of the
next batch. Each place where it does not is a discontinuity. It is explained if the epoch that begins there announced
it (a plan said so before anything moved), and unexplained otherwise.

One pass, in the order of recording: a cursor for each partition, two epochs and a bounded list of what was found, so
memory does not grow with the history. Counts are exact, however much of what they count is listed.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Announced, BegunBatch, Epoch, is_zombie
from airflow_provider_offsets.core.moments import moment_text, read_moment
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition

LISTED = 1_000
"""How many explained and how many unexplained discontinuities a report lists."""


class DiscontinuityKind(enum.Enum):
    """What is wrong with the tiling at one place."""

    REPLAY = "replay"
    """A range was read again."""
    SKIP = "skip"
    """A range was left out by choice, and a plan said so."""
    LOSS = "loss"
    """A range was not read: unexplained, or deleted by retention and accepted."""
    CUT_OFF = "cut off"
    """A batch was begun by an epoch that ended in its middle: its output may be there in part, and it was run again."""
    OVERLAP = "overlapping writers"
    """A batch was recorded by an epoch after a newer one had been claimed. Nobody goes on from it, and its output is
    there beside that of the newer one."""
    CHANGED = "changed row"
    """The row of a batch has other offsets than were noted before it ran."""
    MOVED = "moved by hand"
    """A row without a batch was written into the history of a job that has epochs. Nobody goes by it."""


@dataclass(frozen=True)
class Discontinuity:
    """One place where the ranges of a partition do not tile."""

    kind: DiscontinuityKind
    range: OffsetRange
    epoch: int | None
    explanation: str
    """Which operation announced it; empty if nothing did."""
    clue: str = ""
    """What it looks like, if nothing announced it."""

    @property
    def is_explained(self) -> bool:
        """Say whether an operation announced it."""
        return bool(self.explanation)


@dataclass(frozen=True)
class PartitionAudit:
    """What the history says of one partition. Counts are of offsets."""

    topic: str
    partition: int
    start: int
    end: int
    batches: int


@dataclass(frozen=True)
class AuditReport:
    """The audit of a history: ``lost`` is 0, or records leaked. All counts but the first two are of offsets."""

    pipeline: str
    partitions: tuple[PartitionAudit, ...]
    discontinuities: tuple[Discontinuity, ...]
    """The first ``LISTED`` that are explained, and as many that are not."""
    batches: int
    records: int
    """Offsets read, counted as often as they were read."""
    deck_rows: int = 0
    """Rows that tell no start (written by a job without this provider): taken as they are."""
    by_epochs: bool = False
    """Whether it goes by epochs, each as one batch: an untouched job keeps no history that could tell its batches."""
    lost: int = 0
    """Never read though nobody chose so, accepted loss included."""
    skipped: int = 0
    """Left out by choice."""
    replayed: int = 0
    """Read again by whole batches, explained or not."""
    replayed_at_most: int = 0
    """Of batches that were cut off and run again: read twice at most."""
    unexplained_count: int = 0
    """In discontinuities that nothing explains."""
    unexplained_places: int = 0
    """How many these are."""
    unlisted: int = 0
    """How many discontinuities are counted and not listed."""

    @property
    def unexplained(self) -> tuple[Discontinuity, ...]:
        """The discontinuities that no operation announced, as far as they are listed."""
        return tuple(each for each in self.discontinuities if not each.is_explained)


class Measure(enum.Enum):
    """What a bound of a window counts in."""

    TIME = "time"
    BATCH = "batch"
    EPOCH = "epoch"


@dataclass(frozen=True)
class Bound:
    """One end of a window: a time in milliseconds, a batch id or an epoch. It belongs to the window."""

    measure: Measure
    value: int

    def __str__(self) -> str:
        return moment_text(self.value) if self.measure is Measure.TIME else f"{self.measure.value}:{self.value}"

    @classmethod
    def read(cls, text: str) -> Bound:
        """Give the bound of ``2026-11-01T00:00Z``, ``batch:12`` or ``epoch:3``.

        :raises ValueError: another form, or a time without a zone.
        """
        word, _, rest = text.strip().partition(":")
        for measure in (Measure.BATCH, Measure.EPOCH):
            if word == measure.value:
                if not (rest.isascii() and rest.isdecimal()):
                    raise ValueError(f"{rest!r} is no number")
                return cls(measure, int(rest))
        return cls(Measure.TIME, read_moment(text))

    def place_of(self, batch: Batch) -> int:
        """Give where a batch lies in this measure; before everything if it has no place there."""
        row_time_ms = batch.batch_time_ms if batch.row_time_ms is None else batch.row_time_ms
        place = {Measure.TIME: row_time_ms, Measure.BATCH: batch.batch_id, Measure.EPOCH: batch.epoch}[self.measure]
        return -1 if place is None else place


@dataclass(frozen=True)
class Window:
    """Which part of a history an audit tells of.

    The rows before it are read all the same: what they have read decides what is read again in it.
    """

    since: Bound | None = None
    until: Bound | None = None

    def is_after(self, batch: Batch) -> bool:
        """Say whether it begins after ``batch``."""
        return self.since is not None and self.since.place_of(batch) < self.since.value

    def is_before(self, batch: Batch) -> bool:
        """Say whether it is over before ``batch``."""
        return self.until is not None and self.until.place_of(batch) > self.until.value


@dataclass(frozen=True)
class Note:
    """The batch that an epoch noted last, before it ran, and what the history has of it."""

    epoch: int
    begun: BegunBatch
    recorded: Batch | None
    is_over: bool
    """The epoch has ended: what it has not recorded is cut off, and no longer in its middle."""

    @property
    def is_recorded(self) -> bool:
        """Say whether the epoch recorded this batch itself."""
        return self.recorded is not None and self.recorded.epoch == self.epoch

    def changed(self) -> Iterator[OffsetRange]:
        """Give where the row says something else than was noted. A note without ranges says nothing."""
        assert self.recorded is not None
        there = {(each.topic, each.partition): each for each in self.recorded.ranges}
        for noted in self.begun.ranges:
            row = there.pop((noted.topic, noted.partition), replace(noted, end=noted.start))
            yield from (_between(noted, *pair) for pair in ((noted.start, row.start), (noted.end, row.end)))
        yield from there.values() if self.begun.ranges else ()


@dataclass(frozen=True)
class _Replay:
    found: Discontinuity
    number: int | None
    """Of the finding that it is; None while it lies before the window."""


@dataclass
class _Cursor:
    start: int
    end: int
    batches: int = 0
    furthest: int = 0
    """The greatest end so far: what lies before it was read."""
    replay: _Replay | None = None
    """The replay that goes on here."""

    def __post_init__(self) -> None:
        self.furthest = max(self.furthest, self.end)


@dataclass
class _Findings:
    """What was found: counted in full, listed up to a limit."""

    listed: dict[int, Discontinuity] = field(default_factory=dict)
    """By their number, in the order in which they were found."""
    offsets: Counter[DiscontinuityKind] = field(default_factory=Counter)
    places: Counter[bool] = field(default_factory=Counter)
    """How many are explained, and how many are not."""
    unexplained_offsets: int = 0

    def add(self, found: Discontinuity) -> int:
        """Take a discontinuity, and give its number."""
        number = self.places.total()
        if self.places[found.is_explained] < LISTED:
            self.listed[number] = found
        self.places[found.is_explained] += 1
        self._count(found, found.range.count)
        return number

    def extend(self, number: int, found: Discontinuity, more: int) -> None:
        """Let a discontinuity that was taken reach further by so many offsets."""
        if (there := self.listed.get(number)) is not None:
            self.listed[number] = replace(there, range=replace(there.range, end=there.range.end + more))
        self._count(found, more)

    def _count(self, found: Discontinuity, offsets: int) -> None:
        self.offsets[found.kind] += offsets
        self.unexplained_offsets += 0 if found.is_explained else offsets


class _Epochs:
    """The epochs beside the rows: the newest one that was claimed before a row, and what is announced."""

    def __init__(self, epochs: Iterable[Epoch]) -> None:
        self._coming = iter(epochs)
        self._next = next(self._coming, None)
        self.newest: Epoch | None = None
        self._announced: dict[TopicPartition, tuple[Announced, str]] = {}

    def go_to(self, batch: Batch) -> None:
        """Come to the epoch that had the word when ``batch`` was recorded."""
        while self._next is not None and _had_begun(self._next, batch):
            self.newest, self._next = self._next, next(self._coming, None)
            for each in self.newest.claim.announced:
                self._announce(each, self.newest.claim.operation)

    def take(self, partition: TopicPartition, start: int) -> tuple[str, int] | None:
        """Give the operation that announced that an epoch begins at ``start``, and the loss that it accepted there.

        A plan announces where its epoch begins, and nothing that the epoch does later: so it is taken once. That of an
        epoch which ended before its first batch stands: the next one begins where that one stood.
        """
        announced, operation = self._announced.pop(partition, (None, ""))
        return (operation, announced.lost) if announced is not None and announced.start == start else None

    def _announce(self, each: Announced, operation: str) -> None:
        key = TopicPartition(each.topic, each.partition)
        before, earlier = self._announced.get(key, (None, ""))
        if before is not None and earlier != operation and before.start <= each.start:
            each = replace(each, lost=each.lost + before.lost)
        self._announced[key] = (each, operation)


class _Walk:
    """The state of one pass."""

    def __init__(self, epochs: Iterable[Epoch], since: Position, window: Window) -> None:
        self.epochs = _Epochs(epochs)
        self.cursors = {partition: _Cursor(offset, offset) for partition, offset in since.items()}
        self.findings = _Findings()
        self.batches = self.records = self.deck_rows = 0
        self._known_topics = set(since.topics)
        self._window = window
        self._last: Batch | None = None

    def read(self, batch: Batch) -> None:
        """Take the next row."""
        self.epochs.go_to(batch)
        if self._window.is_before(batch):
            return
        counts = not self._window.is_after(batch)
        if is_zombie(batch, self.epochs.newest):
            self._stray(batch) if counts else None
            return
        self.batches += counts
        self.records += batch.record_count if counts else 0
        if batch.start is None:
            self.deck_rows += counts
            self.cursors |= {partition: _Cursor(offset, offset) for partition, offset in batch.end.items()}
        for each in batch.ranges:
            self._range(each, batch, counts)
        self._known_topics.update(batch.end.topics)
        self._last = batch

    def note(self, note: Note) -> None:
        """Take the batch that an epoch noted last."""
        begun = note.begun
        there = note.recorded or Batch(Position(), begun.batch_time_ms, begun.batch_id, begun.query_id, note.epoch)
        if self._window.is_after(there) or self._window.is_before(there):
            return
        if note.is_recorded:
            clue = f"batch {begun.batch_id} was noted with other offsets before it ran"
            found = [Discontinuity(DiscontinuityKind.CHANGED, each, note.epoch, "", clue) for each in note.changed()]
        elif note.is_over:
            named = (
                f"ended in batch {begun.batch_id}" if begun.batch_id >= 0 else "may have ended in a batch: no log tells"
            )
            explanation = f"epoch {note.epoch} {named}"
            found = [Discontinuity(DiscontinuityKind.CUT_OFF, each, note.epoch, explanation) for each in begun.ranges]
        else:
            found = []
        for each in found:
            if each.range.count:
                self.findings.add(each)

    def _range(self, each: OffsetRange, batch: Batch, counts: bool) -> None:
        key = TopicPartition(each.topic, each.partition)
        begin = 0 if each.topic in self._known_topics else each.start
        cursor = self.cursors.setdefault(key, _Cursor(begin, begin))
        if counts and not cursor.batches and self._window.since is not None:
            cursor.start = each.start
        announced = self.epochs.take(key, each.start)
        if each.start < cursor.end:
            found = self._found(
                DiscontinuityKind.REPLAY, each, each.start, min(cursor.furthest, each.end), batch, announced
            )
            cursor.replay = _Replay(found, self.findings.add(found) if counts else None)
        elif each.start > cursor.end:
            cursor.replay = None
            # A plan that goes forward again to where a rewind had begun leaves out what was read before the rewind.
            read = min(cursor.furthest, each.start) if announced else cursor.end
            for found in self._gap(each, read, batch, announced) if counts else ():
                self.findings.add(found)
        elif cursor.replay is not None and counts:
            cursor.replay = self._replay_on(cursor.replay, each, min(cursor.furthest, each.end))
        cursor.end = each.end
        cursor.furthest = max(cursor.furthest, each.end)
        cursor.replay = cursor.replay if each.end < cursor.furthest else None
        cursor.batches += counts

    def _replay_on(self, replay: _Replay, each: OffsetRange, end: int) -> _Replay:
        """Let a replay reach as far as the batch that follows without a gap: it is one replay, however many batches.
        Of one that began before the window, what is read in it counts."""
        if replay.number is None:
            found = replace(replay.found, range=replace(each, end=end))
            return _Replay(found, self.findings.add(found))
        self.findings.extend(replay.number, replay.found, end - each.start)
        return replay

    def _gap(
        self, each: OffsetRange, missing_from: int, batch: Batch, announced: tuple[str, int] | None
    ) -> Iterator[Discontinuity]:
        lost_to = min(missing_from + announced[1], each.start) if announced else each.start
        if missing_from < lost_to:
            yield self._found(DiscontinuityKind.LOSS, each, missing_from, lost_to, batch, announced)
        if lost_to < each.start:
            yield self._found(DiscontinuityKind.SKIP, each, lost_to, each.start, batch, announced)

    def _found(
        self,
        kind: DiscontinuityKind,
        at: OffsetRange,
        start: int,
        end: int,
        batch: Batch,
        announced: tuple[str, int] | None,
    ) -> Discontinuity:
        there = replace(at, start=start, end=end)
        if announced:
            return Discontinuity(kind, there, batch.epoch, f"announced by {announced[0]}")
        return Discontinuity(kind, there, batch.epoch, "", self._clue(batch))

    def _clue(self, batch: Batch) -> str:
        """What a jump before ``batch`` looks like. Spark's batches of one epoch have ids without a gap, and tile."""
        last = self._last
        if last is None:
            return ""
        if last.epoch != batch.epoch:
            return (
                f"epoch {batch.epoch} begins elsewhere than epoch {last.epoch} ended, and its plan did not say so:"
                " rows are missing, or a position was moved by hand"
            )
        if last.batch_id is None or batch.batch_id is None or last.query_id != batch.query_id:
            return ""
        missing = batch.batch_id - last.batch_id - 1
        if missing > 0:
            ids = f"{last.batch_id + 1}" if missing == 1 else f"{last.batch_id + 1} to {batch.batch_id - 1}"
            return f"batch {ids} is missing"
        return f"batch {last.batch_id} or {batch.batch_id} is a changed row" if missing == 0 else ""

    def _stray(self, batch: Batch) -> None:
        """A row that no reader goes by: another epoch had the word when it was written."""
        newest = self.epochs.newest
        assert newest is not None
        if batch.start is not None:
            kind, ranges = DiscontinuityKind.OVERLAP, batch.ranges
            clue = f"batch {batch.batch_id} was recorded after epoch {newest.number} had been claimed"
        else:
            stood = {partition: cursor.end for partition, cursor in self.cursors.items()}
            ranges = tuple(
                _between(OffsetRange(*key, 0, 0), stood.get(key, 0), offset) for key, offset in batch.end.items()
            )
            kind, clue = DiscontinuityKind.MOVED, "a row of no batch; the job did not go by it"
        for each in ranges:
            if each.count:
                self.findings.add(Discontinuity(kind, each, batch.epoch, "", clue))


def audit(
    pipeline: str,
    batches: Iterable[Batch],
    epochs: Iterable[Epoch],
    *,
    notes: Iterable[Note] = (),
    since: Position | None = None,
    window: Window | None = None,
) -> AuditReport:
    """Give the audit of a history. Everything is read once, one at a time.

    :param batches: in the order of the history, with those that no reader goes by.
    :param epochs: all that the batches name, the oldest first.
    :param notes: of each epoch that has begun a batch.
    :param since: where the first batch has to begin; None takes its own start. A partition that it does not name
        has to begin at 0 if its topic is named.
    :param window: the part that is told of; None: all.
    """
    window = window or Window()
    walk = _Walk(epochs, since or Position(), window)
    for batch in batches:
        walk.read(batch)
    for note in notes:
        walk.note(note)
    partitions = tuple(
        PartitionAudit(*partition, cursor.start, cursor.end, cursor.batches)
        for partition, cursor in sorted(walk.cursors.items())
        if cursor.batches or window.since is None
    )
    findings = walk.findings
    return AuditReport(
        pipeline,
        partitions,
        tuple(found for _, found in sorted(findings.listed.items())),
        walk.batches,
        walk.records,
        walk.deck_rows,
        lost=findings.offsets[DiscontinuityKind.LOSS],
        skipped=findings.offsets[DiscontinuityKind.SKIP],
        replayed=findings.offsets[DiscontinuityKind.REPLAY],
        replayed_at_most=findings.offsets[DiscontinuityKind.CUT_OFF],
        unexplained_count=findings.unexplained_offsets,
        unexplained_places=findings.places[False],
        unlisted=findings.places.total() - len(findings.listed),
    )


def _had_begun(epoch: Epoch, batch: Batch) -> bool:
    """Say whether an epoch had been claimed when a batch was recorded; by its own epoch if the row has no place."""
    if batch.row_time_ms is None:
        return batch.epoch is not None and epoch.number <= batch.epoch
    return epoch.after_row_time_ms is None or batch.row_time_ms > epoch.after_row_time_ms


def _between(at: OffsetRange, one: int, other: int) -> OffsetRange:
    return replace(at, start=min(one, other), end=max(one, other))
