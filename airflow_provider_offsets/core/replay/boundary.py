"""Boundaries: the offset of each partition of a topic at one timestamp, frozen once.

The two ends of an interval are frozen, not the interval. Two neighbouring intervals use the same stored boundary, and
so does every retry. So intervals share no record and leave no gap, in whatever order they run. Kafka's answer for a
timestamp changes over time (late records, retention, compaction), so Kafka is asked once.

Three rules hold for the boundaries of one topic, whoever freezes them and in whatever order:

- A boundary never changes.
- The offset of a partition at a later timestamp is greater or equal.
- A partition that a boundary does not name has offset 0 there: the partition did not exist when the boundary was
  frozen. So a new partition begins at 0 in exactly one of several adjacent intervals.

:func:`freeze` is the only function that adds a boundary. The function is pure; ``control.boundaries`` stores the result
by compare-and-set.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core import codec


class BoundaryBy(enum.Enum):
    """Kind of time that determines the boundary of a topic."""

    RECORD_TIME = "record-time"
    """The timestamp in the record: of its producer, or of the broker (``message.timestamp.type``)."""
    BATCH_TIME = "batch-time"
    """The time at which the live job read the record, by the history: for topics whose timestamps cannot be trusted."""


class OnOpen(enum.Enum):
    """Behaviour of a run whose interval ends later than the newest record."""

    CLOSE = "close"
    """Put the boundary at the end of the log. Records written later belong to the next interval, whatever their
    timestamp."""
    WAIT = "wait"
    """Wait until each partition has a record at or after the end of the interval."""


@dataclass(frozen=True)
class TopicObservation:
    """Offsets of one topic at a timestamp, as one run observed them."""

    instant_ms: int
    offsets: tuple[int, ...]
    """Per partition, the first record at or after the timestamp, or the end of the log if there is none."""
    begins: tuple[int, ...]
    """The earliest retained offset, read after ``offsets``. A record below it that is still retained is certainly older
    than the timestamp."""
    open: frozenset[int] = frozenset()
    """The partitions without a record at or after the timestamp."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0


@dataclass(frozen=True)
class Boundary:
    """Offsets of one topic at one timestamp: records below the offset are before the timestamp."""

    topic: str
    instant_ms: int
    offsets: tuple[int, ...]
    """The offset of each partition. A missing partition did not exist: all its records count as after the timestamp."""
    begins: tuple[int, ...]
    """The earliest retained offset of each partition when the boundary was frozen."""
    closed: tuple[int, ...] = ()
    """The partitions without a record at or after the timestamp: their boundary is the end of the log."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0
    """Seconds by which a record may be late and still count as before the timestamp: Kafka was asked for a time that
    much later."""

    @property
    def digest(self) -> str:
        """Digest of the content, used as its name."""
        return hashlib.sha256(codec.dumps(self).encode()).hexdigest()[:16]

    def offset(self, partition: int) -> int:
        """Return the offset of one partition."""
        return self.offsets[partition] if partition < len(self.offsets) else 0

    def is_unsure(self, partition: int) -> bool:
        """Check whether retention may have deleted records at or after the timestamp before the boundary was frozen.

        In that case no record below the boundary was left whose timestamp could be read.
        """
        if self.by is not BoundaryBy.RECORD_TIME or partition >= len(self.offsets):
            return False
        return 0 < self.offsets[partition] <= self.begins[partition]

    def is_before(self, later: Boundary) -> bool:
        """Check whether no partition has a smaller offset at ``later``."""
        count = max(len(self.offsets), len(later.offsets))
        return all(self.offset(number) <= later.offset(number) for number in range(count))


@dataclass(frozen=True)
class TopicBoundaries:
    """Record of one topic: its frozen timestamps, changed by compare-and-set only.

    The boundaries themselves may be large (10,000 partitions), so each is an immutable value that its digest names.
    """

    digests: dict[str, str] = field(default_factory=dict)
    """Digest of each boundary by its timestamp (ms, as text)."""
    partitions: int = 0
    """The greatest number of partitions that a boundary names."""

    def digest(self, instant_ms: int) -> str | None:
        """Return the digest of the boundary at a timestamp, or None if none is frozen."""
        return self.digests.get(str(instant_ms))

    def around(self, instant_ms: int) -> tuple[int | None, int | None]:
        """Return the nearest frozen timestamps before and after a timestamp; None for each that does not exist."""
        instants = [int(each) for each in self.digests]
        before = max((each for each in instants if each < instant_ms), default=None)
        return before, min((each for each in instants if each > instant_ms), default=None)


@dataclass(frozen=True)
class Frozen:
    """A boundary, and the record of its topic with the boundary added."""

    boundaries: TopicBoundaries
    boundary: Boundary


@dataclass(frozen=True)
class StaleObservation:
    """Result for an observation older than a frozen boundary: the topic has partitions that the observation lacks.

    A boundary from this observation would put those partitions at 0, below the boundary of an earlier timestamp.
    """

    partitions: int
    """Number of partitions that an observation must name."""


def freeze(
    boundaries: TopicBoundaries,
    topic: str,
    observation: TopicObservation,
    before: Boundary | None,
    after: Boundary | None,
) -> Frozen | StaleObservation:
    """Return the boundary of a topic at a timestamp that is not frozen yet: as observed, and between its neighbours.

    :param boundaries: the record of the topic.
    :param topic: name of the topic.
    :param observation: the offsets of the topic at the timestamp.
    :param before: the nearest boundary before the timestamp, by ``boundaries``.
    :param after: the nearest boundary after the timestamp.
    :returns: the boundary with the changed record, or :class:`StaleObservation` if the observation has to be repeated.
    """
    if len(observation.offsets) < boundaries.partitions:
        return StaleObservation(boundaries.partitions)
    offsets = [max(seen, 0 if before is None else before.offset(at)) for at, seen in enumerate(observation.offsets)]
    if after is not None:
        offsets = [min(offset, after.offset(at)) for at, offset in enumerate(offsets)]
    boundary = Boundary(
        topic=topic,
        instant_ms=observation.instant_ms,
        offsets=tuple(offsets),
        begins=observation.begins,
        # Nothing is open below a frozen neighbour: later records are after that neighbour.
        closed=tuple(sorted(observation.open)) if after is None else (),
        by=observation.by,
        late_s=observation.late_s,
    )
    return Frozen(
        replace(
            boundaries,
            digests={**boundaries.digests, str(observation.instant_ms): boundary.digest},
            partitions=max(boundaries.partitions, len(offsets)),
        ),
        boundary,
    )
