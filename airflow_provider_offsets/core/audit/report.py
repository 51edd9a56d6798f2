"""Result of an audit: discontinuities and counts per partition."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_provider_offsets.core.position import OffsetRange

LISTED = 1_000
"""Maximum number of explained, and of unexplained, discontinuities that a report lists."""


class DiscontinuityKind(enum.Enum):
    """Kind of a fault in the ranges at one place."""

    REPLAY = "replay"
    """A range was replayed."""
    SKIP = "skip"
    """A range was never read: a restart plan skipped it by choice."""
    LOSS = "loss"
    """A range was never read: no plan announced it, or retention deleted it and a plan accepted that."""
    CUT_OFF = "cut off"
    """A batch was started and not recorded: its output may exist, in part or completely. Listed once for each start."""
    JUMP = "jump"
    """Reading continued elsewhere and no plan announced it. The jump neither lost nor replayed the range: rows are
    missing, changed or out of order."""
    CHANGED = "changed row"
    """The row of the newest batch has other offsets than the pipeline's record."""
    OVERLAP = "overlapping writers"
    """A batch was recorded by a writer that was not the active epoch. The job does not continue from it, and its output
    exists beside that of the active epoch."""
    MOVED = "moved by hand"
    """A row without a batch was written into the history of a job with epochs. The job does not continue from it."""


@dataclass(frozen=True)
class Discontinuity:
    """One place where the ranges of a partition do not tile."""

    kind: DiscontinuityKind
    range: OffsetRange
    epoch: int | None
    explanation: str
    """The operation that announced it; empty if none did."""
    clue: str = ""
    """A probable cause, if no operation announced the discontinuity."""

    @property
    def is_explained(self) -> bool:
        """Whether a restart plan announced this discontinuity."""
        return bool(self.explanation)


@dataclass(frozen=True)
class PartitionAudit:
    """History of one partition. Counts are of offsets."""

    topic: str
    partition: int
    start: int
    end: int
    batches: int


@dataclass(frozen=True)
class AuditReport:
    """Audit of a history: records leaked unless ``lost`` is 0. All counts but the first two are of offsets."""

    pipeline: str
    partitions: tuple[PartitionAudit, ...]
    discontinuities: tuple[Discontinuity, ...]
    """The first ``LISTED`` explained ones, and the first ``LISTED`` unexplained ones."""
    batches: int
    records: int
    """Offsets read, counted as often as they were read."""
    cloudera_rows: int = 0
    """Rows without a start offset, which a job without this provider wrote: accepted as they are."""
    by_epochs: bool = False
    """Whether the audit treats each epoch as one batch: an untracked job keeps no history of its batches."""
    lost: int = 0
    """Offsets never read that nobody chose to skip, including accepted loss."""
    skipped: int = 0
    """Offsets never read by choice."""
    replayed: int = 0
    """Offsets that recorded batches replayed, explained or not."""
    replayed_at_most: int = 0
    """Offsets of batches that were started and not recorded, once for each start: an upper bound of duplicated
    output."""
    unexplained_count: int = 0
    """Offsets in discontinuities that no operation announced."""
    unexplained_places: int = 0
    """Number of these discontinuities."""
    unlisted: int = 0
    """Number of discontinuities that are counted and not listed."""
    rows_written: int | None = None
    """Number of rows that Spark says the batches wrote, as far as it counted them; None if it counted none."""
    uncounted_batches: int = 0
    """Number of batches whose rows Spark did not count."""
    warnings: tuple[str, ...] = ()
    """Batches that read records and wrote nothing, as far as Spark saw. A program may filter all records of a
    batch."""

    @property
    def unexplained(self) -> tuple[Discontinuity, ...]:
        """The listed discontinuities that no operation announced."""
        return tuple(each for each in self.discontinuities if not each.is_explained)


def first_listed(found: Iterable[Discontinuity]) -> Iterator[Discontinuity]:
    """Yield the first explained and the first unexplained discontinuities."""
    listed: Counter[bool] = Counter()
    for each in found:
        if listed[each.is_explained] < LISTED:
            listed[each.is_explained] += 1
            yield each
