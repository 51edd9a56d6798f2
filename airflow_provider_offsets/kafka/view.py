"""Interface for reading a Kafka cluster, and the errors that its implementations share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from airflow_provider_offsets.core.live import LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, TopicMissing


class KafkaView(Protocol):
    """Read access to a cluster that leaves no trace in the cluster.

    Every method may raise ``TopicMissing`` (names all missing topics), ``PartitionUnavailable`` and
    ``KafkaUnreachable`` (both retriable). ``InputRefused`` is raised for arguments that make no sense.
    """

    def live_topics(self, topics: Sequence[str], *, read_committed: bool = False) -> LiveTopics:
        """Return the topics with their ids, partitions, and earliest and end offsets.

        The offsets of different partitions may be of different moments. The earliest offset of a partition is read
        before its end, so ``begin <= end`` holds even if retention deletes records meanwhile.

        :param topics: names of the topics.
        :param read_committed: return the *last stable offset* as the end. A consumer of that isolation level stops
            there, which is the start of the oldest open transaction.
        """
        ...

    def offsets_at(
        self, topics: Sequence[str], timestamp_ms: int, *, read_committed: bool = False
    ) -> dict[TopicPartition, int | None]:
        """Return the first offset of each partition whose record has that timestamp or a later one.

        Kafka compares the timestamp in the record, which the producer may set: a later offset may have an earlier
        timestamp.

        :param topics: names of the topics.
        :param timestamp_ms: milliseconds since 1970, from 0 up.
        :param read_committed: ignore records after the last stable offset.
        :returns: offset per partition; None if no record is that recent.
        """
        ...

    def record_times(self, position: Position) -> dict[TopicPartition, int | None]:
        """Return the timestamp (ms) of the first record at or after each offset, or None if there is no such record.

        If retention has deleted the record at the offset, the first retained record after the offset counts. A
        partition is omitted if this user may not read its records, or if reading took too long.
        """
        ...

    def settings(self, topics: Sequence[str]) -> dict[str, TopicSettings | None]:
        """Return the retention settings of each topic, or None for a topic whose settings this user may not read."""
        ...

    def committed(self, group_id: str, topics: Sequence[str]) -> Position:
        """Return the committed offsets of the group in these topics.

        A partition without a commit is omitted: a missing commit means neither offset 0 nor the latest. Only the
        partitions that the topics have now are read, so a commit that outlived its partition is not returned.

        :param group_id: id of the consumer group.
        :param topics: names of the topics.
        """
        ...


def distinct_topics(topics: Sequence[str]) -> tuple[str, ...]:
    """Return the topics in their order, without duplicates.

    :raises InputRefused: the list is empty, or a string was passed instead of a list of names.
    """
    if isinstance(topics, str) or not topics:
        raise InputRefused(
            seen=f"topics is {topics!r}",
            expected="a list with at least one topic name",
            do="name the topics of the pipeline",
        )
    return tuple(dict.fromkeys(topics))


def checked_time(timestamp_ms: int) -> int:
    """Return ``timestamp_ms`` unchanged.

    :raises InputRefused: the timestamp is negative. Kafka's protocol reads -1 as *latest* and -2 as *earliest*.
    """
    if timestamp_ms < 0:
        raise InputRefused(
            seen=f"timestamp {timestamp_ms} is not valid",
            expected="milliseconds since 1970, 0 or more",
            do="correct the time; to start from the first offset, use 'earliest'",
        )
    return timestamp_ms


def topics_missing(missing: Iterable[str], cluster: str) -> TopicMissing:
    """Return the error that names all missing topics.

    :param missing: names of the missing topics.
    :param cluster: bootstrap servers of the cluster that was read, or empty.
    """
    names = ", ".join(repr(name) for name in sorted(missing))
    return TopicMissing(
        seen=f"topic(s) {names} are not in Kafka{cluster and f' at {cluster}'}",
        expected="every topic of the pipeline, in this cluster",
        do="correct the topic names or the Kafka connection. Nothing was created",
    )
