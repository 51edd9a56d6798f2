"""Proof that a history's ranges tile: per partition, what was read once, replayed, skipped or lost.

Rule (Spark's documentation on storing offsets yourself): the end of the existing offsets matches the beginning of the
next batch. In the official history each claimed epoch begins at the start of its launch, and its batches tile from
there. A place where the ranges do not tile is a discontinuity. It is explained if the launch of the epoch that begins
there announced it, and unexplained otherwise.

Offsets are counted one by one, as they were read. An offset counts as replayed each time it is read after the first
time, whatever jumps led there. An offset that a jump passed over counts as skipped or lost only while no batch reads
it.

The audit is one pass, in the order of recording. Memory grows with the number of holes and of listed discontinuities,
not with the number of batches. Counts are exact even if not everything is listed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from airflow_provider_offsets.core.audit.report import (
    LISTED,
    AuditReport,
    Discontinuity,
    DiscontinuityKind,
    PartitionAudit,
    first_listed,
)
from airflow_provider_offsets.core.audit.window import AuditWindow, Measure
from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.epoch import Claim, Cut, Epoch, Recorded
from airflow_provider_offsets.core.offset_set import OffsetSet
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition

START_CLUE = (
    "epoch {} starts elsewhere than the rows before it end, and its plan did not announce it: rows are missing or"
    " changed, or a position was moved by hand"
)

ROW_CLUE = (
    "epoch {} starts at another offset than its first row: rows are missing or changed, or a position was moved by hand"
)


class _Progress:
    """Progress of a walk through a history, relative to a window. It never goes back."""

    def __init__(self, window: AuditWindow) -> None:
        self._window = window
        self.is_inside = window.since is None
        """Whether what is found counts."""
        self.is_past = False
        """Whether the window has ended."""

    def go_to(self, measure: Measure, place: int | None) -> None:
        """Advance to a place in one measure; do nothing if the row has no place in that measure."""
        if place is None:
            return
        since, until = self._window.since, self._window.until
        if since is not None and since.measure is measure:
            self.is_inside = self.is_inside or place >= since.value
        if until is not None and until.measure is measure:
            self.is_past = self.is_past or place > until.value


class _Jump(NamedTuple):
    """Reading that continues at another offset than the current position."""

    epoch: int | None
    explanation: str
    clue: str = ""
    lost: int = 0
    """Number of passed-over offsets that were accepted as lost; the others are skipped."""


class _Hole(NamedTuple):
    """Offsets that the last jump over them has passed over, and that no batch has read since."""

    start: int
    end: int
    kind: DiscontinuityKind
    jump: _Jump
    number: int | None
    """Number in the order of findings; None if the hole lies before the window."""


class _Holes:
    """Holes of one partition, sorted and without overlaps."""

    def __init__(self) -> None:
        self._holes: list[_Hole] = []
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[_Hole]:
        return iter(self._holes)

    def close(self, start: int, end: int) -> None:
        """Remove ``[start, end)`` from the holes."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end, lo=first)
        parts = [
            each._replace(start=low, end=high)
            for each in self._holes[first:last]
            for low, high in ((each.start, min(each.end, start)), (max(each.start, end), each.end))
            if low < high
        ]
        self._put(first, last, parts)

    def open(self, hole: _Hole) -> None:
        """Add a hole where there is none."""
        index = bisect_left(self._starts, hole.start)
        self._put(index, index, [hole])

    def _put(self, first: int, last: int, holes: list[_Hole]) -> None:
        """Replace the holes from ``first`` to ``last``, and their edges, which the searches need as plain lists."""
        self._holes[first:last] = holes
        self._starts[first:last] = [each.start for each in holes]
        self._ends[first:last] = [each.end for each in holes]


@dataclass
class _Cursor:
    """Current position in one partition, and what was read of it."""

    start: int
    position: int
    batches: int = 0
    read: OffsetSet = field(default_factory=OffsetSet)
    holes: _Holes = field(default_factory=_Holes)
    back: _Jump | None = None
    """The last jump back, which explains what is replayed from there on."""
    replay: tuple[int | None, Discontinuity] | None = None
    """The replay that ends at the position. Its number in the order of findings is None while it lies before the
    window."""
    is_taken: bool = False
    """Whether the position is the end of a row without a start."""


@dataclass
class _Findings:
    """Final findings: counted completely, listed up to a limit."""

    listed: dict[int, Discontinuity] = field(default_factory=dict)
    """By number, in the order in which they were found."""
    offsets: Counter[DiscontinuityKind] = field(default_factory=Counter)
    places: Counter[bool] = field(default_factory=Counter)
    """Number of explained (True) and of unexplained (False) discontinuities."""
    unexplained_offsets: int = 0
    _numbers: int = 0

    def number(self) -> int:
        """Return the next number in the order of findings."""
        self._numbers += 1
        return self._numbers

    def add(self, found: Discontinuity) -> int:
        """Add a discontinuity, and return its number."""
        number = self.number()
        if self.places[found.is_explained] < LISTED:
            self.listed[number] = found
        self.places[found.is_explained] += 1
        self.count(found.kind, found.range.count, is_explained=found.is_explained)
        return number

    def extend(self, number: int, found: Discontinuity, more: int) -> None:
        """Extend an added discontinuity by ``more`` offsets."""
        if (there := self.listed.get(number)) is not None:
            self.listed[number] = replace(there, range=replace(there.range, end=there.range.end + more))
        self.count(found.kind, more, is_explained=found.is_explained)

    def count(self, kind: DiscontinuityKind, offsets: int, *, is_explained: bool) -> None:
        """Add to the count of a kind."""
        self.offsets[kind] += offsets
        self.unexplained_offsets += 0 if is_explained else offsets

    def completed(self, holes: Iterable[tuple[TopicPartition, _Hole]]) -> tuple[Discontinuity, ...]:
        """Count the remaining holes, and return the listed discontinuities in the order of findings."""
        found = [(number, 0, each) for number, each in self.listed.items()]
        listed: Counter[bool] = Counter()
        inside = [(each.number, each.start, key, each) for key, each in holes if each.number is not None]
        # A hole that was partly read consists of several pieces with one number.
        for number, start, key, hole in sorted(inside, key=lambda each: each[:2]):
            is_explained = bool(hole.jump.explanation)
            self.places[is_explained] += 1
            self.count(hole.kind, hole.end - start, is_explained=is_explained)
            if listed[is_explained] < LISTED:
                listed[is_explained] += 1
                found.append((number, start, _discontinuity(hole.kind, key, start, hole.end, hole.jump)))
        return tuple(first_listed(each for _, _, each in sorted(found, key=lambda each: each[:2])))


class _Epochs:
    """Upcoming epochs, the oldest first."""

    def __init__(self, epochs: Iterable[Epoch]) -> None:
        self._coming = iter(epochs)
        self._ahead: deque[Epoch] = deque()
        """Epochs that were read ahead and not taken yet."""

    def find(self, number: int) -> Epoch | None:
        """Return the epoch of a number without taking it, or None if no upcoming epoch has the number."""
        for each in self._look_ahead():
            if each.number >= number:
                return each if each.number == number else None
        return None

    def next(self) -> Epoch | None:
        """Return the next epoch without taking it, or None if there is none."""
        return self._ahead[0] if self._ahead else next(self._look_ahead(), None)

    def take(self, up_to: int | None = None) -> Iterator[Epoch]:
        """Take and yield the epochs up to and including a number; None: all."""
        while (each := self.next()) is not None and (up_to is None or each.number <= up_to):
            yield self._ahead.popleft()

    def _look_ahead(self) -> Iterator[Epoch]:
        yield from tuple(self._ahead)
        for each in self._coming:
            self._ahead.append(each)
            yield each


class _Walk:
    """State of one pass."""

    def __init__(
        self, epochs: Iterable[Epoch], since: Position, recorded: Recorded | None, window: AuditWindow
    ) -> None:
        self._recorded = recorded
        self.cursors = {partition: _Cursor(offset, offset) for partition, offset in since.items()}
        self.findings = _Findings()
        self.batches = self.records = self.cloudera_rows = 0
        self._topics = set(since.topics)
        self._window = window
        self._progress = _Progress(window)
        self._coming = _Epochs(epochs)
        self._epoch: Epoch | None = None
        """The newest epoch that has started."""
        self._last: Batch | None = None
        """The last row that the job continues from."""
        self._untold: Claim | None = None
        """The launch of the newest epoch if the history has no row of it: that of an untracked job."""
        self._cut_off: dict[TopicPartition, OffsetRange] = {}
        """What the batch that was cut off last may have read, until the next launch."""

    def read(self, batch: Batch) -> None:
        """Process the next row."""
        progress = self._progress
        progress.go_to(Measure.TIME, batch.batch_time_ms if batch.row_time_ms is None else batch.row_time_ms)
        if progress.is_past:
            return
        if batch.start is None:
            self._without_start(batch)
        elif foreign := self._foreign(batch):
            self._stray(DiscontinuityKind.OVERLAP, batch.ranges, batch.epoch, foreign)
        else:
            self._official(batch)

    def finish(self) -> None:
        """Process the epochs after the last row."""
        for each in self._coming.take():
            if not _is_void(each):
                self._progress.go_to(Measure.TIME, each.claimed_at_ms)
            self._begin(each, has_rows=False)

    def _official(self, batch: Batch) -> None:
        self._progress.go_to(Measure.BATCH, batch.batch_id)
        for epoch in self._coming.take(up_to=batch.epoch):
            self._begin(epoch, has_rows=epoch.number == batch.epoch)
        if self._progress.is_past:
            return
        if self._progress.is_inside:
            self.batches += 1
            self.records += batch.record_count
        for each in batch.ranges:
            self._range(each, batch)
        self._topics.update(batch.end.topics)
        self._last = batch
        if self._is_changed(batch):
            clue = f"batch {batch.batch_id} is recorded with other offsets than its row has"
            self._stray(DiscontinuityKind.CHANGED, batch.ranges, batch.epoch, clue)

    def _is_changed(self, batch: Batch) -> bool:
        """Check whether this is the newest batch of the pipeline's record, with other offsets than recorded.

        No later row could reveal such a change.
        """
        recorded = self._recorded
        if recorded is None or (recorded.epoch, recorded.row_time_ms) != (batch.epoch, batch.row_time_ms):
            return False
        return recorded.digest != digest_of(batch)

    def _without_start(self, batch: Batch) -> None:
        """Process a row in the Cloudera layout as it is, or as written by hand if a tracked epoch writes the rows."""
        coming = self._coming.next()
        if self._epoch is None or not self._epoch.claim.tracked or (coming is not None and not coming.claim.tracked):
            for partition, offset in batch.end.items():
                # The start of its batch is unknown: a rewind to any earlier place counts as a replay.
                taken = self.cursors[partition] = _Cursor(offset, offset, is_taken=True)
                taken.read.add(0, offset)
            self.batches += self._progress.is_inside
            self.cloudera_rows += self._progress.is_inside
            self._topics.update(batch.end.topics)
            self._last = batch
            return
        stood = {partition: cursor.position for partition, cursor in self.cursors.items()}
        pairs = ((key, sorted((stood.get(key, 0), offset))) for key, offset in batch.end.items())
        ranges = [OffsetRange(*key, *pair) for key, pair in pairs]
        self._stray(DiscontinuityKind.MOVED, ranges, None, "a row without a batch; the job did not continue from it")

    def _foreign(self, batch: Batch) -> str:
        """Return why the writer of this row was not the active epoch, or an empty string if it was."""
        named = f"batch {batch.batch_id} names epoch {batch.epoch}"
        if batch.epoch is None:
            return f"batch {batch.batch_id} names no epoch"
        if self._epoch is not None and batch.epoch == self._epoch.number:
            return ""
        if self._epoch is not None and batch.epoch < self._epoch.number:
            return f"batch {batch.batch_id} was recorded after epoch {self._epoch.number} had been claimed"
        epoch = self._coming.find(batch.epoch)
        if epoch is None:
            return f"{named}, which the control store does not have"
        return f"{named}, which no driver claimed" if _is_void(epoch) else ""

    def _stray(self, kind: DiscontinuityKind, ranges: Iterable[OffsetRange], epoch: int | None, clue: str) -> None:
        """Report the ranges of a row."""
        for each in ranges if self._progress.is_inside else ():
            if each.count:
                self.findings.add(Discontinuity(kind, each, epoch, "", clue))

    def _begin(self, epoch: Epoch, *, has_rows: bool) -> None:
        """Process an epoch, whether or not it has recorded a batch."""
        if not _is_void(epoch):
            self._progress.go_to(Measure.EPOCH, epoch.number)
            if not self._progress.is_past:
                self._start(epoch.claim, is_untold=not (epoch.claim.tracked or has_rows))
                self._epoch = epoch
            self._cut_off = {}
        for cut in epoch.cuts:
            if epoch.last_batch_id is None or cut.batch_id > epoch.last_batch_id:
                self._cut_off.update({TopicPartition(each.topic, each.partition): each for each in cut.ranges})
            self._cut(epoch, cut)

    def _start(self, claim: Claim, *, is_untold: bool) -> None:
        """Move to the start of a launch."""
        if self._untold is not None:
            self._read_untold(self._untold, claim)
        announced = {(each.topic, each.partition, each.start): each for each in claim.announced}
        stood = claim.stood or Position()
        for key, start in claim.start.items():
            cursor = self._cursor(key, start)
            if is_untold and cursor.is_taken:
                continue  # the rows without a start continue: they are what this epoch has read
            cursor.is_taken = False
            self._read_cut_off(key, cursor, stood.get(key, 0), claim.number)
            silent = _Jump(claim.number, "", START_CLUE.format(claim.number))
            here = announced.get((*key, start))
            if here is not None and self._epoch is not None:
                self._stand(key, cursor, stood.get(key), silent)
            jump = silent if here is None else _Jump(claim.number, f"announced by {claim.operation}", lost=here.lost)
            if start != cursor.position:
                self._jump(key, cursor, start, jump)
        self._topics.update(claim.start.topics)
        self._untold = claim if is_untold else None

    def _read_cut_off(self, key: TopicPartition, cursor: _Cursor, stood: int, epoch: int) -> None:
        """Process what the cut-off batch has read, if the pipeline was known to stand after it.

        Spark had committed the batch, and a snapshot saw that. The checkpoint was gone before the batch was recorded.
        """
        cut_off = self._cut_off.get(key)
        if cut_off is not None and cut_off.start <= cursor.position < (end := min(cut_off.end, stood)):
            self._read(key, cursor, end, epoch)

    def _stand(self, key: TopicPartition, cursor: _Cursor, stood: int | None, jump: _Jump) -> None:
        """Move to the pipeline's position when a launch was planned: its plan explains only the jump from there."""
        if stood is None or stood == cursor.position:
            return
        if stood > cursor.position:
            self._jump(key, cursor, stood, jump)
        elif self._progress.is_inside:
            self.findings.add(_discontinuity(DiscontinuityKind.JUMP, key, stood, cursor.position, jump))

    def _read_untold(self, untold: Claim, later: Claim) -> None:
        """Process the offsets of an epoch without rows, up to the pipeline's position when the next one was planned.

        It has read a new partition of its topics from 0.
        """
        stood = later.start if later.stood is None else later.stood
        new = {key: 0 for key in stood if key not in untold.start and key.topic in untold.start.topics}
        for key, start in {**untold.start, **new}.items():
            cursor, end = self._cursor(key, start), stood.get(key, start)
            if not cursor.is_taken and start < end:
                self._read(key, cursor, end, untold.number)

    def _cut(self, epoch: Epoch, cut: Cut) -> None:
        places = {Measure.EPOCH: epoch.number, Measure.BATCH: cut.batch_id}
        if epoch.ended is not None:
            places[Measure.TIME] = epoch.ended.at_ms
        if not self._window.holds(places):
            return
        named = (
            f"batch {cut.batch_id} of epoch {epoch.number} was started and not recorded"
            if cut.batch_id >= 0
            else f"epoch {epoch.number} may have started a batch that it did not record"
        )
        why = f" ({cut.why})" if cut.why else ""
        for start in range(1, cut.count + 1):
            explanation = named + (f", start {start} of {cut.count}" if cut.count > 1 else "") + why
            for each in cut.ranges:
                if each.count:
                    self.findings.add(Discontinuity(DiscontinuityKind.CUT_OFF, each, epoch.number, explanation))

    def _range(self, each: OffsetRange, batch: Batch) -> None:
        key = TopicPartition(each.topic, each.partition)
        cursor = self._cursor(key, each.start)
        if each.start != cursor.position:
            self._jump(key, cursor, each.start, _Jump(batch.epoch, "", self._clue(batch)))
        if self._progress.is_inside:
            if not cursor.batches and self._window.since is not None:
                cursor.start = each.start
            cursor.batches += 1
        self._read(key, cursor, each.end, batch.epoch)

    def _cursor(self, key: TopicPartition, start: int) -> _Cursor:
        """Return the cursor of a partition. A new partition of a known topic begins at 0."""
        if key not in self.cursors:
            begin = 0 if key.topic in self._topics else start
            self.cursors[key] = _Cursor(begin, begin)
        return self.cursors[key]

    def _jump(self, key: TopicPartition, cursor: _Cursor, to: int, jump: _Jump) -> None:
        """Continue at another offset."""
        stood, cursor.position, cursor.replay = cursor.position, to, None
        if to < stood:
            cursor.back = jump
            if not jump.explanation and self._progress.is_inside:
                for low, high in cursor.read.missing(to, stood):
                    self.findings.add(_discontinuity(DiscontinuityKind.JUMP, key, low, high, jump))
            return
        cursor.holes.close(stood, to)
        for low, high, kind in _passed_over(cursor.read, stood, to, jump):
            number = self.findings.number() if self._progress.is_inside else None
            cursor.holes.open(_Hole(low, high, kind, jump, number))

    def _read(self, key: TopicPartition, cursor: _Cursor, end: int, epoch: int | None) -> None:
        """Read from the position on."""
        cursor.holes.close(cursor.position, end)
        for low, high in cursor.read.within(cursor.position, end):
            self._read_again(key, cursor, low, high, epoch)
        cursor.read.add(cursor.position, end)
        cursor.position = end

    def _read_again(self, key: TopicPartition, cursor: _Cursor, low: int, high: int, epoch: int | None) -> None:
        """Report a replayed range. Adjacent replayed ranges are one replay, whatever the number of batches."""
        number, found = cursor.replay or (None, None)
        if found is not None and found.range.end == low:
            found = replace(found, range=replace(found.range, end=high))
        else:
            back = cursor.back or _Jump(epoch, "")
            number, found = None, _discontinuity(DiscontinuityKind.REPLAY, key, low, high, back._replace(epoch=epoch))
        if number is not None:
            self.findings.extend(number, found, high - low)
        elif self._progress.is_inside:
            # Of a replay that began before the window, only the part in the window counts.
            found = replace(found, range=replace(found.range, start=low))
            number = self.findings.add(found)
        cursor.replay = number, found

    def _clue(self, batch: Batch) -> str:
        """Return a probable cause of a jump before ``batch``: batches of one query tile, with consecutive ids."""
        last = self._last
        is_same_query = last is not None and last.query_id == batch.query_id
        if last is not None and is_same_query and (missing := _ids_between(last.batch_id, batch.batch_id)):
            return f"batch {missing} is missing"
        if last is None or last.epoch != batch.epoch:
            return ROW_CLUE.format(batch.epoch)
        return f"batch {last.batch_id} or {batch.batch_id} is a changed row" if is_same_query else ""


def audit(
    pipeline: str,
    batches: Iterable[Batch],
    epochs: Iterable[Epoch],
    *,
    since: Position | None = None,
    read_before: Position | None = None,
    recorded: Recorded | None = None,
    window: AuditWindow | None = None,
) -> AuditReport:
    """Return the audit of a history. Everything is read once, one row at a time.

    :param pipeline: name of the pipeline, for the report.
    :param batches: all rows, in the order of the history. Rows of an epoch that ``epochs`` lacks count as those of a
        foreign writer. So read the epochs first, and no row after what their record knows.
    :param epochs: all launches with their results, the oldest first. Unclaimed launches announce nothing.
    :param since: required start of the first epoch; None accepts its own start. A partition that it lacks has to begin
        at 0 if its topic is named.
    :param read_before: the job's position before the first epoch: everything before it counts as read.
    :param recorded: the newest batch by the pipeline's record; None if unknown.
    :param window: the part to report; None for all.
    """
    window = window or AuditWindow()
    walk = _Walk(epochs, since or Position(), recorded, window)
    for partition, offset in (read_before or Position()).items():
        if partition in walk.cursors:
            walk.cursors[partition].read.add(0, offset)
    for batch in batches:
        walk.read(batch)
    walk.finish()
    cursors = sorted(walk.cursors.items())
    findings = walk.findings
    discontinuities = findings.completed((key, hole) for key, cursor in cursors for hole in cursor.holes)
    return AuditReport(
        pipeline,
        tuple(
            PartitionAudit(*partition, cursor.start, cursor.position, cursor.batches)
            for partition, cursor in cursors
            if cursor.batches or window.since is None
        ),
        discontinuities,
        walk.batches,
        walk.records,
        walk.cloudera_rows,
        lost=findings.offsets[DiscontinuityKind.LOSS],
        skipped=findings.offsets[DiscontinuityKind.SKIP],
        replayed=findings.offsets[DiscontinuityKind.REPLAY],
        replayed_at_most=findings.offsets[DiscontinuityKind.CUT_OFF],
        unexplained_count=findings.unexplained_offsets,
        unexplained_places=findings.places[False],
        unlisted=sum(findings.places.values()) - len(discontinuities),
    )


def _is_void(epoch: Epoch) -> bool:
    """Check whether no driver claimed a launch: then its start and its announcements are void."""
    return epoch.holder is None or epoch.is_cancelled


def _ids_between(last: int | None, following: int | None) -> str:
    """Return the batch ids that are missing between two rows, or an empty string."""
    if last is None or following is None or following - last < 2:
        return ""
    return f"{last + 1}" if following - last == 2 else f"{last + 1} to {following - 1}"


def _passed_over(read: OffsetSet, start: int, end: int, jump: _Jump) -> Iterator[tuple[int, int, DiscontinuityKind]]:
    """Yield what a jump from ``start`` to ``end`` passes over. If a plan announced it, earlier reads leave no gap."""
    if not jump.explanation:
        yield from ((low, high, DiscontinuityKind.LOSS) for low, high in read.missing(start, end))
        yield from ((low, high, DiscontinuityKind.JUMP) for low, high in read.within(start, end))
        return
    accepted = jump.lost
    for low, high in read.missing(start, end):
        lost_to = min(low + accepted, high)
        accepted -= lost_to - low
        if low < lost_to:
            yield low, lost_to, DiscontinuityKind.LOSS
        if lost_to < high:
            yield lost_to, high, DiscontinuityKind.SKIP


def _discontinuity(kind: DiscontinuityKind, key: TopicPartition, start: int, end: int, jump: _Jump) -> Discontinuity:
    return Discontinuity(kind, OffsetRange(*key, start, end), jump.epoch, jump.explanation, jump.clue)
