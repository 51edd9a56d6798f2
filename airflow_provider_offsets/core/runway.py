"""How long a job may stay stopped before Kafka deletes what it has not read.

Kafka deletes whole segments, the oldest first, and by time only one whose *newest* record is older than
``retention.ms``. So the first unread record is there at least until its own time plus ``retention.ms``; how much longer
depends on the records that share its segment, and on when the broker looks (every five minutes by default).

By size it deletes the oldest segment once the others hold ``retention.bytes``. Nobody tells how many records that is:
if anything was deleted before, then about as many as are there now, or more, and the rate of the last hour says how
long that lasts. If nothing was, or nothing came in that hour, it is *unknown*.

Clocks: Kafka compares the time in the record (its producer's, unless ``message.timestamp.type`` says otherwise) with
the broker's clock. Here it is compared with the clock of whoever asks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from airflow_provider_offsets.core.live import LivePartition, LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition

RATE_S = 3_600
"""The rate is that of the last hour."""


class RunwayKind(enum.Enum):
    """How a runway is known."""

    AT_LEAST = "at least"
    """By time: Kafka deletes it no earlier."""
    ABOUT = "about"
    """By size, at the rate of the last hour and with records as long as those before: an estimate."""
    UNLIMITED = "unlimited"
    """Nothing deletes it."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RetentionLook:
    """What Kafka said of how long it keeps records, at one moment."""

    at_ms: int
    settings: dict[str, TopicSettings | None]
    """None for a topic whose settings this user may not see."""
    record_times: dict[TopicPartition, int | None]
    """The time of the first record that is not read yet; None if there is none. What could not be asked is left out."""
    hour_ago: dict[TopicPartition, int | None] = field(default_factory=dict)
    """The first offset whose record is of the last hour; None if none is."""
    outliving: dict[TopicPartition, int | None] = field(default_factory=dict)
    """The first offset whose record is still kept at the end of the window; None if none is."""
    window_s: int = 0


@dataclass(frozen=True)
class PartitionRunway:
    """How long the first unread record of one partition is kept."""

    topic: str
    partition: int
    kind: RunwayKind
    seconds: int | None
    """None where it is unlimited or unknown."""
    why: str
    at_risk: int | None = 0
    """So many unread offsets are known to be at risk within the window; None if they cannot be counted, because they
    are still to come."""

    def __str__(self) -> str:
        length = "" if self.seconds is None else f" {duration(self.seconds)}"
        return f"{self.kind.value}{length} ({self.topic}[{self.partition}]: {self.why})"


@dataclass(frozen=True)
class Runway:
    """How long the first unread records are kept, partition by partition."""

    at_ms: int
    """When Kafka was asked, by the clock of who asked."""
    window_s: int
    """How long the job is to stay stopped; 0 if nobody said."""
    partitions: tuple[PartitionRunway, ...]

    @property
    def least(self) -> PartitionRunway | None:
        """The shortest one that is known; None if all are unlimited or unknown."""
        known = [each for each in self.partitions if each.seconds is not None]
        return min(known, key=lambda each: each.seconds or 0, default=None)

    @property
    def unknown(self) -> tuple[PartitionRunway, ...]:
        """The partitions of which nobody can say."""
        return tuple(each for each in self.partitions if each.kind is RunwayKind.UNKNOWN)

    @property
    def summary(self) -> str:
        """The least one and what is not known, in a line."""
        said = [] if self.least is None else [str(self.least)]
        if self.unknown:
            first = self.unknown[0]
            where = f"{first.topic}[{first.partition}]: {first.why}"
            said.append(f"unknown for {len(self.unknown):,} partition(s) ({where})")
        return "; ".join(said) or (f"unlimited ({self.partitions[0].why})" if self.partitions else "no partitions")


def runway_of(start: Position, live: LiveTopics, look: RetentionLook) -> Runway:
    """Give how long the first unread record of each partition is kept.

    :param start: the next offset to read of each partition; one that is left out is looked at from its first record.
    """
    partitions = tuple(
        _Partition(each, start.get(each, there.begin), there, look).runway() for each, there in live.partitions.items()
    )
    return Runway(look.at_ms, look.window_s, partitions)


def outliving_ms(settings: TopicSettings, at_ms: int, window_s: int) -> int:
    """Give the time from which on records are still there after the window, by ``retention.ms``."""
    return at_ms + window_s * 1000 - settings.retention_ms


def duration(seconds: int) -> str:
    """Give a length of time in its two greatest units: ``6 d 23 h``, ``2 h 5 min``, ``45 s``."""
    units = (("d", seconds // 86_400), ("h", seconds // 3_600 % 24), ("min", seconds // 60 % 60), ("s", seconds % 60))
    first = next((index for index, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count:,} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"


@dataclass(frozen=True)
class _Partition:
    key: TopicPartition
    start: int
    live: LivePartition
    look: RetentionLook

    def runway(self) -> PartitionRunway:
        settings = self.look.settings.get(self.key.topic)
        if settings is None:
            return self._made(RunwayKind.UNKNOWN, None, "this user may not see the settings of the topic")
        if not settings.deletes:
            kept = "compaction leaves the last record of each key" if settings.is_compacted else "nothing is deleted"
            return self._made(RunwayKind.UNLIMITED, None, f"cleanup.policy={settings.cleanup_policy}: {kept}")
        by_time = self._by_time(settings) if settings.retention_ms >= 0 else None
        by_size = self._by_size(settings) if settings.retention_bytes >= 0 else None
        if by_time is None or by_size is None:
            found = by_time or by_size
            assert found is not None, "or else nothing would be deleted"
            return found
        return self._both(by_time, by_size)

    def _both(self, by_time: PartitionRunway, by_size: PartitionRunway) -> PartitionRunway:
        """The shorter one; where one of them is unknown, both are, and what is at risk by the other one stays so."""
        risks = [each.at_risk for each in (by_time, by_size) if each.at_risk is not None]
        at_risk = max(risks) if len(risks) == 2 else None
        if by_time.seconds is None or by_size.seconds is None:
            known, other = (by_time, by_size) if by_size.seconds is None else (by_size, by_time)
            limit = "" if known.seconds is None else f"; otherwise {known.kind.value} {duration(known.seconds)}"
            return self._made(RunwayKind.UNKNOWN, None, f"{other.why}{limit}", at_risk)
        shorter = min(by_time, by_size, key=lambda each: each.seconds or 0)
        return self._made(RunwayKind.ABOUT, shorter.seconds, shorter.why, at_risk)

    def _by_time(self, settings: TopicSettings) -> PartitionRunway:
        said = f"retention.ms={settings.retention_ms}"
        if self.start < self.live.end and self.key not in self.look.record_times:
            return self._made(RunwayKind.UNKNOWN, None, "its first unread record could not be read")
        time_ms = self.look.record_times.get(self.key)
        at_risk = self._at_risk_by_time(settings)
        if time_ms is None:
            why = f"nothing is unread, and what comes is kept that long: {said}"
            return self._made(RunwayKind.AT_LEAST, settings.retention_ms // 1000, why, at_risk)
        left_ms = max(0, time_ms + settings.retention_ms - self.look.at_ms)
        return self._made(RunwayKind.AT_LEAST, left_ms // 1000, f"{said}, {settings.timestamp_type}", at_risk)

    def _at_risk_by_time(self, settings: TopicSettings) -> int | None:
        window_s = self.look.window_s
        if not window_s:
            return 0
        if outliving_ms(settings, self.look.at_ms, window_s) > self.look.at_ms:
            return None  # records that are still to come, too
        outliving = self.look.outliving.get(self.key)
        return max(0, (self.live.end if outliving is None else outliving) - self.start)

    def _by_size(self, settings: TopicSettings) -> PartitionRunway:
        said = f"retention.bytes={settings.retention_bytes}"
        hour_ago = self.look.hour_ago.get(self.key)
        grown = 0 if hour_ago is None else self.live.end - hour_ago
        if self.live.begin == 0:
            why = f"{said} has deleted nothing yet, so nobody knows how many records that is"
            return self._made(RunwayKind.UNKNOWN, None, why)
        if grown <= 0:
            why = f"{said}, and no record of the last hour gives a rate"
            return self._made(RunwayKind.UNKNOWN, None, why)
        before = self.start - self.live.begin
        at_risk = max(0, -(-grown * self.look.window_s // RATE_S) - before) if self.look.window_s else 0
        why = f"or longer: {said}, {grown:,} offsets in the last hour"
        return self._made(RunwayKind.ABOUT, before * RATE_S // grown, why, at_risk)

    def _made(self, kind: RunwayKind, seconds: int | None, why: str, at_risk: int | None = 0) -> PartitionRunway:
        return PartitionRunway(self.key.topic, self.key.partition, kind, seconds, why, at_risk)
