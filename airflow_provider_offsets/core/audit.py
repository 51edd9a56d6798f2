"""The proof that a history's ranges tile: per partition, what was read once, read again, skipped or lost.

Rule (Spark's documentation on storing offsets yourself): the end of the existing offsets matches the beginning of the
next batch. Each place where it does not is a discontinuity. It is explained if the epoch that begins there announced
it (a plan said so before anything moved), and unexplained otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition


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


@dataclass(frozen=True)
class Discontinuity:
    """One place where the ranges of a partition do not tile."""

    kind: DiscontinuityKind
    range: OffsetRange
    epoch: int | None
    explanation: str
    """Which operation announced it; empty if nothing did."""

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
    """The audit of a history: ``lost`` is 0, or records leaked."""

    pipeline: str
    partitions: tuple[PartitionAudit, ...]
    discontinuities: tuple[Discontinuity, ...]
    batches: int
    records: int
    """Offsets read, counted as often as they were read."""
    deck_rows: int = 0
    """Rows that tell no start (written by a job without this provider): taken as they are."""
    by_epochs: bool = False
    """Whether it goes by epochs, each as one batch: an untouched job keeps no history that could tell its batches."""

    @property
    def lost(self) -> int:
        """Offsets that were never read though nobody chose so, accepted loss included."""
        return self._count(DiscontinuityKind.LOSS)

    @property
    def skipped(self) -> int:
        """Offsets that were left out by choice."""
        return self._count(DiscontinuityKind.SKIP)

    @property
    def replayed(self) -> int:
        """Offsets that were read again by whole batches, explained or not."""
        return self._count(DiscontinuityKind.REPLAY)

    @property
    def replayed_at_most(self) -> int:
        """Offsets of batches that were cut off and run again: read twice at most."""
        return self._count(DiscontinuityKind.CUT_OFF)

    @property
    def unexplained(self) -> tuple[Discontinuity, ...]:
        """The discontinuities that no operation announced."""
        return tuple(each for each in self.discontinuities if not each.is_explained)

    @property
    def unexplained_count(self) -> int:
        """Offsets in them."""
        return sum(each.range.count for each in self.unexplained)

    def _count(self, kind: DiscontinuityKind) -> int:
        return sum(each.range.count for each in self.discontinuities if each.kind is kind)


@dataclass
class _Cursor:
    start: int
    end: int
    batches: int = 0
    furthest: int = 0
    """The greatest end so far: what lies before it was read."""
    replay: int | None = None
    """Which of the discontinuities is the replay that goes on here."""
    epoch: int | None = None
    """Which epoch read last."""

    def __post_init__(self) -> None:
        self.furthest = max(self.furthest, self.end)


@dataclass
class _Walk:
    """The state of one pass: a cursor for each partition, so memory does not grow with the history."""

    epochs: Mapping[int, Epoch]
    cursors: dict[TopicPartition, _Cursor] = field(default_factory=dict)
    found: list[Discontinuity] = field(default_factory=list)

    def read(self, each: OffsetRange, epoch: int | None) -> None:
        cursor = self.cursors.setdefault(TopicPartition(each.topic, each.partition), _Cursor(each.start, each.start))
        # A plan announces where its epoch begins, and nothing that the epoch does later.
        announced = self._announced(each, epoch) if epoch != cursor.epoch else None
        if each.start < cursor.end:
            cursor.replay = len(self.found)
            self._note(DiscontinuityKind.REPLAY, each, each.start, min(cursor.furthest, each.end), epoch, announced)
        elif each.start > cursor.end:
            cursor.replay = None
            # A plan that goes forward again to where a rewind had begun leaves out what was read before the rewind.
            read = min(cursor.furthest, each.start) if announced else cursor.end
            self._gap(each, read, epoch, announced)
        elif cursor.replay is not None:
            self._replay_on(cursor.replay, min(cursor.furthest, each.end))
        cursor.end = each.end
        cursor.furthest = max(cursor.furthest, each.end)
        cursor.replay = cursor.replay if each.end < cursor.furthest else None
        cursor.epoch = epoch
        cursor.batches += 1

    def _replay_on(self, index: int, end: int) -> None:
        """Let a replay reach as far as the batch that follows without a gap: it is one replay, however many batches."""
        begun = self.found[index]
        self.found[index] = replace(begun, range=replace(begun.range, end=end))

    def _gap(self, each: OffsetRange, missing_from: int, epoch: int | None, announced: tuple[str, int] | None) -> None:
        lost = min(announced[1], each.start - missing_from) if announced else each.start - missing_from
        if lost:
            self._note(DiscontinuityKind.LOSS, each, missing_from, missing_from + lost, epoch, announced)
        if missing_from + lost < each.start:
            self._note(DiscontinuityKind.SKIP, each, missing_from + lost, each.start, epoch, announced)

    def _note(
        self,
        kind: DiscontinuityKind,
        at: OffsetRange,
        start: int,
        end: int,
        epoch: int | None,
        announced: tuple[str, int] | None,
    ) -> None:
        explanation = f"announced by {announced[0]}" if announced else ""
        self.found.append(Discontinuity(kind, OffsetRange(at.topic, at.partition, start, end), epoch, explanation))

    def _announced(self, at: OffsetRange, epoch: int | None) -> tuple[str, int] | None:
        """Give the operation that announced a jump to the start of ``at``, and the loss it accepted there."""
        claimed = self.epochs.get(epoch) if epoch is not None else None
        for each in claimed.claim.announced if claimed else ():
            if (each.topic, each.partition, each.start) == (at.topic, at.partition, at.start):
                return claimed.claim.operation if claimed else "", each.lost
        return None


def audit(
    pipeline: str,
    batches: Iterable[Batch],
    epochs: Iterable[Epoch],
    *,
    cut_off: Mapping[int, BegunBatch] | None = None,
    since: Position | None = None,
) -> AuditReport:
    """Give the audit of a history.

    :param batches: in the order of the history; read once, one at a time.
    :param epochs: all that the batches name.
    :param cut_off: by epoch, the batch that it began and never recorded.
    :param since: where the first batch has to begin; None takes its own start. A partition that it does not name
        has to begin at 0 if its topic is named.
    """
    walk = _Walk({epoch.number: epoch for epoch in epochs})
    for partition, offset in (since or Position()).items():
        walk.cursors[partition] = _Cursor(offset, offset)
    known_topics = set((since or Position()).topics)
    count = records = deck_rows = 0
    for batch in batches:
        count += 1
        records += batch.record_count
        if batch.start is None:
            deck_rows += 1
            for partition, offset in batch.end.items():
                walk.cursors[partition] = _Cursor(offset, offset)
        for each in batch.ranges:
            key = TopicPartition(each.topic, each.partition)
            if each.topic in known_topics and key not in walk.cursors:
                walk.cursors[key] = _Cursor(0, 0)
            walk.read(each, batch.epoch)
        known_topics.update(batch.end.topics)
    for number, begun in sorted((cut_off or {}).items()):
        named = f"ended in batch {begun.batch_id}" if begun.batch_id >= 0 else "may have ended in a batch: no log tells"
        explanation = f"epoch {number} {named}"
        walk.found.extend(
            Discontinuity(DiscontinuityKind.CUT_OFF, each, number, explanation) for each in begun.ranges if each.count
        )
    partitions = tuple(
        PartitionAudit(*partition, cursor.start, cursor.end, cursor.batches)
        for partition, cursor in sorted(walk.cursors.items())
    )
    return AuditReport(pipeline, partitions, tuple(walk.found), count, records, deck_rows)
