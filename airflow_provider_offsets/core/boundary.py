"""Frozen boundaries: where the partitions of a topic are cut at one instant, once and for all.

What is frozen is not an interval but its two ends. Both neighbours of an instant use one stored boundary, and so does
every retry: so intervals share no record and leave no gap, in whatever order they run. Kafka's answer for a time moves
(late records, retention, compaction), which is why it is asked once.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from airflow_provider_offsets.core.live import LiveTopic
from airflow_provider_offsets.core.position import TopicPartition


class BoundaryBy(enum.Enum):
    """Which time cuts a topic."""

    RECORD_TIME = "record-time"
    """The time in the record: of its producer, or of the broker (``message.timestamp.type``)."""
    BATCH_TIME = "batch-time"
    """When the live job read the record, by our history: for topics whose record times cannot be trusted."""


class OnOpen(enum.Enum):
    """What a run does whose interval ends where no record is yet."""

    CLOSE = "close"
    """It cuts at the end of the log. What is written there later belongs to the next interval, whatever its time."""
    WAIT = "wait"
    """It waits until each partition has a record at or after that instant."""


@dataclass(frozen=True)
class Boundary:
    """Where one topic is cut at one instant: records before the offset are before the instant."""

    topic: str
    instant_ms: int
    offsets: tuple[int, ...]
    """Of each partition. One that is not here did not exist when the topic was cut: its records, whatever their time,
    are after the instant."""
    begins: tuple[int, ...]
    """Where the log of each partition began then."""
    closed: tuple[int, ...] = ()
    """The partitions that had no record at or after the instant, and were cut at the end of the log."""
    by: BoundaryBy = BoundaryBy.RECORD_TIME
    late_s: int = 0
    """How late a record may be and still be counted to before the instant: the topic is cut so much later."""

    def offset(self, partition: int) -> int:
        """Give where one partition is cut."""
        return self.offsets[partition] if partition < len(self.offsets) else 0

    def is_unsure(self, partition: int) -> bool:
        """Say whether records after the instant may have been deleted by retention before the topic was cut: it is cut
        at the first record that was left, and nobody knows the times of those before it."""
        is_at_begin = partition < len(self.offsets) and 0 < self.offsets[partition] == self.begins[partition]
        return is_at_begin and self.by is BoundaryBy.RECORD_TIME


@dataclass(frozen=True)
class BoundaryIndex:
    """The instants at which a topic is cut, and which of its cells holds each boundary. It changes by compare-and-set
    only, which is what orders the boundaries that are drawn at the same time."""

    cells: dict[str, str] = field(default_factory=dict)
    """By the instant in milliseconds, as text."""

    def around(self, instant_ms: int) -> tuple[int | None, int | None]:
        """Give the nearest instants before and after one, or None."""
        instants = [int(each) for each in self.cells]
        before = max((each for each in instants if each < instant_ms), default=None)
        return before, min((each for each in instants if each > instant_ms), default=None)


@dataclass(frozen=True)
class Found:
    """What was seen of one instant before its boundary is drawn."""

    offsets: Mapping[TopicPartition, int]
    """Where it lies in each partition; the end of what there is, where nothing is at or after it."""
    open: Collection[TopicPartition]
    """The partitions where nothing is at or after it."""
    by: BoundaryBy
    late_s: int = 0


def draw_boundary(
    topic: LiveTopic, instant_ms: int, found: Found, before: Boundary | None, after: Boundary | None
) -> Boundary:
    """Give the boundary of a topic at an instant: as found, and between its frozen neighbours.

    Nothing is open below a frozen neighbour: what comes is after that one.
    """
    offsets, closed = [], []
    for number in range(len(topic.partitions)):
        key = TopicPartition(topic.name, number)
        offset = max(found.offsets.get(key, 0), 0 if before is None else before.offset(number))
        offsets.append(offset if after is None else min(offset, after.offset(number)))
        if key in found.open and after is None:
            closed.append(number)
    return Boundary(
        topic=topic.name,
        instant_ms=instant_ms,
        offsets=tuple(offsets),
        begins=tuple(each.begin for each in topic.partitions),
        closed=tuple(closed),
        by=found.by,
        late_s=found.late_s,
    )
