"""Ask Kafka how long it retains what a job has not read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.live import LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.runway import RATE_S, RetentionObservation, Runway, outliving_ms, runway_of
from airflow_provider_offsets.errors import RunwayUnknown
from airflow_provider_offsets.kafka.view import KafkaView


class WatchState(enum.Enum):
    """Result of one check of a stopped job's retention runway."""

    LONG = "long"
    SHORT = "short"
    """Shorter than requested."""
    OVER = "over"
    """Nothing to watch: the job runs again, or no record is ever deleted."""


@dataclass(frozen=True)
class Watched:
    """One check."""

    state: WatchState
    summary: str
    runway_s: int | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The values that a task returns."""
        return {"runway_s": self.runway_s, "summary": self.summary}


@dataclass(frozen=True)
class RunwayWatch:
    """A watch of a stopped job's runway, with everything that a process without the checkpoint needs."""

    start: Position
    """Position of the job."""
    topics: tuple[str, ...]
    read_committed: bool
    epoch: int
    """Newest epoch that a driver had claimed when the watch began; a newer one means that the job runs again."""
    at_least_s: int

    def observe(self, control: Control, kafka: KafkaView, *, at_ms: int) -> Watched:
        """Check once.

        :param control: the control store of the pipeline.
        :param kafka: the cluster of the topics.
        :param at_ms: the current time, in milliseconds since 1970.
        :returns: what was observed: whether the job runs again, and the shortest runway.
        :raises RunwayUnknown: it cannot be determined how long a partition is retained.
        """
        record = control.record()
        recorded = None if record is None else record.recorded
        if recorded is not None and recorded.epoch > self.epoch:
            return Watched(WatchState.OVER, f"the job runs again: epoch {recorded.epoch}")
        settings = kafka.settings(self.topics)
        live = kafka.live_topics(self.topics, read_committed=self.read_committed)
        runway = measure_runway(kafka, self.start, live, settings, at_ms=at_ms)
        least = runway.least
        if least is not None and least.seconds is not None and least.seconds < self.at_least_s:
            return Watched(WatchState.SHORT, runway.summary, least.seconds)
        if runway.unknown:
            raise RunwayUnknown(
                seen=f"the runway of pipeline {control.pipeline!r} is unknown: {runway.summary}",
                expected="a known runway for every partition",
                do="grant DESCRIBE_CONFIGS and READ on the topics to the user of the Kafka connection. Where"
                " retention.bytes is the reason, watch the job by other means",
            )
        if least is None:
            return Watched(WatchState.OVER, runway.summary)
        return Watched(WatchState.LONG, runway.summary, least.seconds)


def measure_runway(
    kafka: KafkaView,
    start: Position,
    live: LiveTopics,
    settings: dict[str, TopicSettings | None],
    *,
    at_ms: int,
    window_s: int = 0,
) -> Runway:
    """Return how long the first record at or after ``start`` is retained, by partition. Kafka is only read.

    :param kafka: reader of the cluster.
    :param start: position of the job.
    :param live: the pipeline's topics.
    :param settings: current settings of these topics.
    :param at_ms: current time.
    :param window_s: seconds for which the job will stay stopped; records that Kafka deletes within that time are
        counted.
    """
    timed = {name for name, each in settings.items() if each is not None and each.deletes and each.retention_ms >= 0}
    sized = [name for name, each in settings.items() if each is not None and each.deletes and each.retention_bytes >= 0]
    unread = {
        partition: start.get(partition, there.begin)
        for partition, there in live.partitions.items()
        if partition.topic in timed and start.get(partition, there.begin) < there.end
    }
    return runway_of(
        start,
        live,
        RetentionObservation(
            at_ms=at_ms,
            settings=settings,
            record_times=kafka.record_times(Position(unread)),
            hour_ago=kafka.offsets_at(sized, max(0, at_ms - RATE_S * 1000)) if sized else {},
            outliving=_outliving(kafka, settings, timed, at_ms, window_s),
            window_s=window_s,
        ),
    )


def _outliving(
    kafka: KafkaView, settings: dict[str, TopicSettings | None], timed: set[str], at_ms: int, window_s: int
) -> dict[TopicPartition, int | None]:
    """Return per partition the first offset that outlives the window, with one request per retention time.

    Nothing is returned for topics where even future records would not outlive the window.
    """
    topics_by_time: dict[int, list[str]] = {}
    for name, each in settings.items():
        if window_s and each is not None and name in timed:
            topics_by_time.setdefault(max(0, outliving_ms(each, at_ms, window_s)), []).append(name)
    return {
        partition: offset
        for time_ms, topics in topics_by_time.items()
        if time_ms <= at_ms
        for partition, offset in kafka.offsets_at(topics, time_ms).items()
    }
