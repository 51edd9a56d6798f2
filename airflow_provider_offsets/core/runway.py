"""Runway: how long a job may stay stopped before Kafka deletes records that the job has not read.

Kafka deletes whole segments, the oldest first. By time, Kafka deletes a segment only if its *newest* record is older
than ``retention.ms``. So the first unread record stays at least until its own timestamp plus ``retention.ms``. How much
longer depends on the records in its segment, and on the broker's check interval (five minutes by default).

By size, Kafka deletes the oldest segment once the others hold ``retention.bytes``. Kafka does not report how many
records that is. If records were deleted before, the limit is about as many records as the log holds now, or more. The
rate of the last hour then shows how long that lasts. If nothing was deleted yet, or no record arrived in that hour, the
runway is *unknown*.

Clocks: Kafka compares the timestamp in the record with the broker's clock. The timestamp is the producer's, unless
``message.timestamp.type`` is ``LogAppendTime``. This module compares it with the clock of its caller.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from airflow_provider_offsets.core.live import LivePartition, LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition

RATE_S = 3_600
"""The rate is measured over the last hour."""


class RunwayKind(enum.Enum):
    """Certainty of a runway."""

    AT_LEAST = "at least"
    """By time: Kafka deletes the record no earlier."""
    ABOUT = "about"
    """By size: an estimate from the rate of the last hour, assuming records of the same size as before."""
    UNLIMITED = "unlimited"
    """Kafka never deletes the record."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RetentionObservation:
    """Retention settings and record times of the topics at one moment."""

    at_ms: int
    settings: dict[str, TopicSettings | None]
    """None for a topic whose settings this user may not read."""
    record_times: dict[TopicPartition, int | None]
    """Timestamp of the first unread record; None if every record was read. Partitions that could not be read are
    missing."""
    hour_ago: dict[TopicPartition, int | None] = field(default_factory=dict)
    """First offset whose record is at most one hour old, or None if every record is older."""
    outliving: dict[TopicPartition, int | None] = field(default_factory=dict)
    """First offset whose record is still retained when the window ends, or None if every record will be deleted."""
    window_s: int = 0


@dataclass(frozen=True)
class PartitionRunway:
    """Time for which the first unread record of one partition is retained."""

    topic: str
    partition: int
    kind: RunwayKind
    seconds: int | None
    """None if the runway is unlimited or unknown."""
    why: str
    at_risk: int | None = 0
    """Unread offsets that are at risk within the window; None if the number is unknown because they are not written
    yet."""

    def __str__(self) -> str:
        length = "" if self.seconds is None else f" {duration(self.seconds)}"
        return f"{self.kind.value}{length} ({self.topic}[{self.partition}]: {self.why})"


@dataclass(frozen=True)
class Runway:
    """Times for which the first unread records are retained, partition by partition."""

    at_ms: int
    """Time of the requests to Kafka, by the caller's clock."""
    window_s: int
    """Time for which the job is to stay stopped; 0 if unknown."""
    partitions: tuple[PartitionRunway, ...]

    @property
    def least(self) -> PartitionRunway | None:
        """The shortest known runway; None if all are unlimited or unknown."""
        known = [each for each in self.partitions if each.seconds is not None]
        return min(known, key=lambda each: each.seconds or 0, default=None)

    @property
    def unknown(self) -> tuple[PartitionRunway, ...]:
        """The partitions whose runway is unknown."""
        return tuple(each for each in self.partitions if each.kind is RunwayKind.UNKNOWN)

    @property
    def summary(self) -> str:
        """The shortest runway, and the number of unknown ones, in one line."""
        said = [] if self.least is None else [str(self.least)]
        if self.unknown:
            first = self.unknown[0]
            where = f"{first.topic}[{first.partition}]: {first.why}"
            said.append(f"unknown for {len(self.unknown):,} partition(s) ({where})")
        return "; ".join(said) or (f"unlimited ({self.partitions[0].why})" if self.partitions else "no partitions")


def runway_of(start: Position, live: LiveTopics, observed: RetentionObservation) -> Runway:
    """Return how long the first unread record of each partition is retained.

    :param start: the next offset to read of each partition. A missing partition starts at its earliest retained offset.
    :param live: the topics with their offsets.
    :param observed: settings and record times of the same topics.
    """
    partitions = tuple(
        _Partition(each, start.get(each, there.begin), there, observed).runway()
        for each, there in live.partitions.items()
    )
    return Runway(observed.at_ms, observed.window_s, partitions)


def outliving_ms(settings: TopicSettings, at_ms: int, window_s: int) -> int:
    """Return the timestamp (ms) before which ``retention.ms`` will have deleted records when the window ends.

    :param settings: settings of the topic.
    :param at_ms: start of the window.
    :param window_s: length of the window.
    """
    return at_ms + window_s * 1000 - settings.retention_ms


def duration(seconds: int) -> str:
    """Return a duration in its two greatest units: ``6 d 23 h``, ``2 h 5 min``, ``45 s``."""
    units = (("d", seconds // 86_400), ("h", seconds // 3_600 % 24), ("min", seconds // 60 % 60), ("s", seconds % 60))
    first = next((index for index, (_, count) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count:,} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"


@dataclass(frozen=True)
class _Partition:
    key: TopicPartition
    start: int
    live: LivePartition
    observed: RetentionObservation

    def runway(self) -> PartitionRunway:
        settings = self.observed.settings.get(self.key.topic)
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
        """Return the shorter runway, or an unknown one if either is unknown. The counts at risk are kept."""
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
        if self.start < self.live.end and self.key not in self.observed.record_times:
            return self._made(RunwayKind.UNKNOWN, None, "its first unread record could not be read")
        time_ms = self.observed.record_times.get(self.key)
        at_risk = self._at_risk_by_time(settings)
        if time_ms is None:
            why = f"nothing is unread, and what comes is kept that long: {said}"
            return self._made(RunwayKind.AT_LEAST, settings.retention_ms // 1000, why, at_risk)
        left_ms = max(0, time_ms + settings.retention_ms - self.observed.at_ms)
        return self._made(RunwayKind.AT_LEAST, left_ms // 1000, f"{said}, {settings.timestamp_type}", at_risk)

    def _at_risk_by_time(self, settings: TopicSettings) -> int | None:
        window_s = self.observed.window_s
        if not window_s:
            return 0
        if outliving_ms(settings, self.observed.at_ms, window_s) > self.observed.at_ms:
            return None  # includes records that are not written yet
        outliving = self.observed.outliving.get(self.key)
        return max(0, (self.live.end if outliving is None else outliving) - self.start)

    def _by_size(self, settings: TopicSettings) -> PartitionRunway:
        said = f"retention.bytes={settings.retention_bytes}"
        hour_ago = self.observed.hour_ago.get(self.key)
        grown = 0 if hour_ago is None else self.live.end - hour_ago
        if self.live.begin == 0:
            why = f"{said} has deleted nothing yet, so the number of records that fit is unknown"
            return self._made(RunwayKind.UNKNOWN, None, why)
        if grown <= 0:
            why = f"{said}, and no record of the last hour gives a rate"
            return self._made(RunwayKind.UNKNOWN, None, why)
        before = self.start - self.live.begin
        at_risk = max(0, -(-grown * self.observed.window_s // RATE_S) - before) if self.observed.window_s else 0
        why = f"or longer: {said}, {grown:,} offsets in the last hour"
        return self._made(RunwayKind.ABOUT, before * RATE_S // grown, why, at_risk)

    def _made(self, kind: RunwayKind, seconds: int | None, why: str, at_risk: int | None = 0) -> PartitionRunway:
        return PartitionRunway(self.key.topic, self.key.partition, kind, seconds, why, at_risk)
