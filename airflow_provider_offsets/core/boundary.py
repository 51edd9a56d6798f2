"""Boundaries: the offset of each partition of a topic at one instant, frozen once.

The two ends of an interval are frozen, not the interval. Both neighbours of an instant use one stored boundary, and so
does every retry, so intervals share no record and leave no gap, in whatever order they run. Kafka's answer for a time
moves (late records, retention, compaction), which is why Kafka is asked once.

Three facts hold for the boundaries of one topic, whoever freezes them and in whatever order:

- A boundary never changes.
- Of each partition, a later instant has the same offset or a greater one.
- A partition that a boundary does not name has offset 0 there: the partition did not exist when it was frozen. So a new
  partition begins at 0 in exactly one of the intervals that tile the time.

:func:`freeze` is the one function that adds a boundary. It is pure; ``stores.boundaries`` swaps what it returns.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core import codec


class BoundaryBy(enum.Enum):
    """Which time decides where the boundary of a topic is."""

    RECORD_TIME = "record-time"
    """The time in the record: of its producer, or of the broker (``message.timestamp.type``)."""
    BATCH_TIME = "batch-time"
    """When the live job read the record, by the history: for topics whose record times cannot be trusted."""


class OnOpen(enum.Enum):
    """What a run does whose interval ends where no record is yet."""

    CLOSE = "close"
    """Put the boundary at the end of the log. What is written there later belongs to the next interval, whatever its
    time."""
    WAIT = "wait"
    """Wait until each partition has a record at or after that instant."""


@dataclass(frozen=True)
class TopicLook:
    """Where an instant is in each partition of one topic, as one run has seen it."""

    instant_ms: int
    offsets: tuple[int, ...]
    """The first record at or after the instant; the end of the log where there is none."""
    begins: tuple[int, ...]
    """The earliest retained offset, read after ``offsets``: a record below that is still retained is surely older than
    the instant."""
    open: frozenset[int] = frozenset()
    """The partitions without a record at or after the instant."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0


@dataclass(frozen=True)
class Boundary:
    """The offsets of one topic at one instant: records below the offset are before the instant."""

    topic: str
    instant_ms: int
    offsets: tuple[int, ...]
    """Of each partition. A partition that is missing did not exist: its records, whatever their time, are after the
    instant."""
    begins: tuple[int, ...]
    """The earliest retained offset of each partition when the boundary was frozen."""
    closed: tuple[int, ...] = ()
    """The partitions without a record at or after the instant: their boundary is the end of the log."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0
    """How late a record may be and still count as before the instant: Kafka was asked for a time so much later."""

    @property
    def digest(self) -> str:
        """Name of its content."""
        return hashlib.sha256(codec.dumps(self).encode()).hexdigest()[:16]

    def offset(self, partition: int) -> int:
        """Return the offset of one partition."""
        return self.offsets[partition] if partition < len(self.offsets) else 0

    def is_unsure(self, partition: int) -> bool:
        """Return whether retention may have deleted records at or after the instant before the boundary was frozen.

        Then no record below the boundary was left to show the time of.
        """
        if self.by is not BoundaryBy.RECORD_TIME or partition >= len(self.offsets):
            return False
        return 0 < self.offsets[partition] <= self.begins[partition]

    def is_before(self, later: Boundary) -> bool:
        """Return whether no partition has a smaller offset at ``later``."""
        count = max(len(self.offsets), len(later.offsets))
        return all(self.offset(number) <= later.offset(number) for number in range(count))


@dataclass(frozen=True)
class TopicBoundaries:
    """The record of one topic: its frozen instants, changed by compare-and-set only.

    The boundaries themselves may be large (10,000 partitions), so each is an immutable cell that its digest names.
    """

    digests: dict[str, str] = field(default_factory=dict)
    """Digest of the boundary by its instant (ms, as text)."""
    partitions: int = 0
    """The greatest number of partitions that a boundary names."""

    def digest(self, instant_ms: int) -> str | None:
        """Return the digest of the boundary at an instant, or None if none is frozen."""
        return self.digests.get(str(instant_ms))

    def around(self, instant_ms: int) -> tuple[int | None, int | None]:
        """Return the nearest frozen instants before and after an instant, or None."""
        instants = [int(each) for each in self.digests]
        before = max((each for each in instants if each < instant_ms), default=None)
        return before, min((each for each in instants if each > instant_ms), default=None)


@dataclass(frozen=True)
class Frozen:
    """A boundary, and the record of its topic with it."""

    boundaries: TopicBoundaries
    boundary: Boundary


@dataclass(frozen=True)
class StaleLook:
    """The look is older than a frozen boundary: the topic has partitions that the look does not name.

    A boundary from this look would leave them at 0, below the boundary of an earlier instant.
    """

    partitions: int
    """How many partitions a look has to name."""


def freeze(
    boundaries: TopicBoundaries, topic: str, look: TopicLook, before: Boundary | None, after: Boundary | None
) -> Frozen | StaleLook:
    """Return the boundary of a topic at an instant that is not frozen yet: as seen, and between its neighbours.

    :param boundaries: the record of the topic.
    :param before: the nearest boundary before the instant, by ``boundaries``.
    :param after: the nearest boundary after it.
    """
    if len(look.offsets) < boundaries.partitions:
        return StaleLook(boundaries.partitions)
    offsets = [max(seen, 0 if before is None else before.offset(at)) for at, seen in enumerate(look.offsets)]
    if after is not None:
        offsets = [min(offset, after.offset(at)) for at, offset in enumerate(offsets)]
    boundary = Boundary(
        topic=topic,
        instant_ms=look.instant_ms,
        offsets=tuple(offsets),
        begins=look.begins,
        # Below a frozen neighbour nothing is open: what is written later is after that neighbour.
        closed=tuple(sorted(look.open)) if after is None else (),
        by=look.by,
        late_s=look.late_s,
    )
    return Frozen(
        replace(
            boundaries,
            digests={**boundaries.digests, str(look.instant_ms): boundary.digest},
            partitions=max(boundaries.partitions, len(offsets)),
        ),
        boundary,
    )
