"""What this package asks of a Kafka cluster, and the errors that every answer shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from airflow_provider_offsets.core.live import LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, TopicMissing


class KafkaView(Protocol):
    """Reads a cluster and leaves no trace in it.

    Every method may raise ``TopicMissing`` (names all that are missing), ``PartitionUnavailable`` and
    ``KafkaUnreachable`` (both retriable), and ``InputRefused`` for a question that makes no sense.
    """

    def live_topics(self, topics: Sequence[str], *, read_committed: bool = False) -> LiveTopics:
        """Give the topics with their identity, partitions, and first and last offsets.

        The offsets are those of one moment per partition, not of one moment in all; each begin was asked before its
        end, so ``begin <= end`` holds whatever retention does meanwhile.

        :param read_committed: take the *last stable offset* as the end, which is where a consumer of that isolation
            level has to stop: the start of the oldest transaction that is still open.
        """
        ...

    def offsets_at(
        self, topics: Sequence[str], timestamp_ms: int, *, read_committed: bool = False
    ) -> dict[TopicPartition, int | None]:
        """Give the first offset of each partition whose record is of that time or later; None if there is none.

        Kafka goes by the time in the record, which the producer may set: later offsets may be of earlier times.

        :param read_committed: look no further than the last stable offset.
        """
        ...

    def record_times(self, position: Position) -> dict[TopicPartition, int | None]:
        """Give the time of the first record at or after each offset, in milliseconds since 1970; None if there is none.

        Where retention has deleted that record, the first one that is left counts. A partition that could not be read
        (this user may not, or it took too long) is left out.
        """
        ...

    def settings(self, topics: Sequence[str]) -> dict[str, TopicSettings | None]:
        """Give how long the records of each topic are kept; None for one whose settings this user may not see."""
        ...

    def committed(self, group_id: str, topics: Sequence[str]) -> Position:
        """Give what the group has committed in these topics.

        A partition without a commit is left out: it is neither offset 0 nor the latest. The partitions that the topics
        have now are asked for, no others: a commit that outlived its partition is not seen.
        """
        ...


def distinct_topics(topics: Sequence[str]) -> tuple[str, ...]:
    """Give the topics once each, in their order.

    :raises InputRefused: there is none, or a text was passed where a list of names belongs.
    """
    if isinstance(topics, str) or not topics:
        raise InputRefused(
            seen=f"topics {topics!r}",
            expected="a list with at least one topic name",
            do="name the topics of the pipeline",
        )
    return tuple(dict.fromkeys(topics))


def checked_time(timestamp_ms: int) -> int:
    """Give the time back.

    :raises InputRefused: it is negative. Kafka's protocol takes -1 for *latest* and -2 for *earliest*.
    """
    if timestamp_ms < 0:
        raise InputRefused(
            seen=f"timestamp {timestamp_ms}",
            expected="milliseconds since 1970, from 0 up",
            do="correct the time; to start from the first offset, use 'earliest'",
        )
    return timestamp_ms


def topics_missing(missing: Iterable[str], cluster: str) -> TopicMissing:
    """Give the error that names all missing topics; ``cluster`` says where they were looked for, or is empty."""
    names = ", ".join(repr(name) for name in sorted(missing))
    return TopicMissing(
        seen=f"topic(s) {names} are not in Kafka{cluster and f' at {cluster}'}",
        expected="every topic of the pipeline, in this cluster",
        do="correct the topic names or the Kafka connection; nothing is created here",
    )
