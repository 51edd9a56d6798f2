"""Reader of a real cluster through the clients of confluent_kafka.

A broker that has just become the leader of a partition answers *not leader* for some milliseconds. So requests with
such an answer are retried until the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, IsolationLevel, KafkaException, TopicCollection
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked

# confluent_kafka re-exports these names without the explicit form that mypy requires.
from confluent_kafka.admin import ConfigResource, OffsetSpec, TopicDescription  # type: ignore[attr-defined]

from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, KafkaUnreachable, PartitionUnavailable
from airflow_provider_offsets.kafka.calls import PAUSE_S, AdminCalls, Clients, code_of
from airflow_provider_offsets.kafka.view import checked_time, distinct_topics, topics_missing

if TYPE_CHECKING:
    from confluent_kafka import Node
    from confluent_kafka.admin import ConfigEntry, ListOffsetsResultInfo  # type: ignore[attr-defined]

Value = TypeVar("Value")

EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the function has no annotation
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the function has no annotation

DENIED = {Code.CLUSTER_AUTHORIZATION_FAILED, Code.TOPIC_AUTHORIZATION_FAILED}

TRANSIENT = {
    Code._UNKNOWN_PARTITION,
    Code.FENCED_LEADER_EPOCH,
    Code.KAFKA_STORAGE_ERROR,
    Code.LEADER_NOT_AVAILABLE,
    Code.NOT_LEADER_FOR_PARTITION,
    Code.OFFSET_NOT_AVAILABLE,
    Code.REPLICA_NOT_AVAILABLE,
    Code.UNKNOWN_LEADER_EPOCH,
    # The topic was described a moment ago, so this broker does not know it yet. If the topic was deleted meanwhile, the
    # description of the next attempt reports that.
    Code.UNKNOWN_TOPIC_OR_PART,
}


class KafkaReader:
    """Reader of topics, offsets and commits of one cluster; ``KafkaView`` documents the methods.

    The number of calls does not grow with the number of partitions: ``live_topics`` makes 4 calls, ``offsets_at`` and
    ``committed`` 2, ``settings`` 1. A call for offsets is one request to each broker that leads one of the partitions.
    ``committed`` also connects a consumer first. ``record_times`` reads a record of each partition, some kilobytes at a
    time.

    :param clients: such as ``open_clients`` yields. The code that opened the clients closes them.
    :param timeout_s: time limit of each method as a whole, including retries for a partition without a leader.
    """

    def __init__(self, clients: Clients, timeout_s: float = 30.0) -> None:
        self._calls = AdminCalls(clients, timeout_s)

    def live_topics(self, topics: Sequence[str], *, read_committed: bool = False) -> LiveTopics:
        """Return the topics with their ids, partitions, and earliest and end offsets.

        :param topics: names of the topics; duplicates count once.
        :param read_committed: return the last stable offset as the end.
        :raises TopicMissing: topics do not exist in the cluster.
        :raises PartitionUnavailable: a partition had no leader within the time limit. Retriable.
        :raises KafkaUnreachable: no broker answered. Retriable.
        """
        names = distinct_topics(topics)
        return self._until_available(lambda deadline: self._live_topics(names, read_committed, deadline))

    def offsets_at(
        self, topics: Sequence[str], timestamp_ms: int, *, read_committed: bool = False
    ) -> dict[TopicPartition, int | None]:
        """Return the first offset of each partition whose record has that timestamp or a later one.

        :param topics: names of the topics; duplicates count once.
        :param timestamp_ms: milliseconds since 1970, from 0 up.
        :param read_committed: ignore records after the last stable offset.
        :returns: offset per partition; None if no record is that recent.
        :raises InputRefused: the timestamp is negative.
        :raises TopicMissing: topics do not exist in the cluster.
        :raises PartitionUnavailable: a partition had no leader within the time limit. Retriable.
        """
        names, spec = distinct_topics(topics), OffsetSpec.for_timestamp(checked_time(timestamp_ms))

        def ask(deadline: float) -> dict[TopicPartition, int | None]:
            partitions = _partitions(self._describe(names, deadline))
            found = self._list_offsets(partitions, spec, deadline, read_committed=read_committed)
            return {key: None if each.offset < 0 else each.offset for key, each in sorted(found.items())}

        return self._until_available(ask)

    def record_times(self, position: Position) -> dict[TopicPartition, int | None]:
        """Return the timestamp (ms) of the first record at or after each offset, or None if there is no such record.

        A partition is omitted if this user may not read its records, if reading took too long, or if the record has no
        timestamp (message format 0).
        """
        if not position:
            return {}
        found = self._calls.first_records(position, self._calls.deadline())
        times = {key: None if record is None else record.timestamp() for key, record in found.items()}
        return {
            key: None if time is None else time[1]
            for key, time in sorted(times.items())
            if time is None or time[0] != TIMESTAMP_NOT_AVAILABLE
        }

    def settings(self, topics: Sequence[str]) -> dict[str, TopicSettings | None]:
        """Return the retention settings of each topic, or None for a topic whose settings this user may not read.

        :raises TopicMissing: topics do not exist in the cluster.
        """
        names, deadline = distinct_topics(topics), self._calls.deadline()
        asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        answers: dict[Any, Any] = self._calls.ask(
            lambda timeout: self._calls.admin.describe_configs(asked, request_timeout=timeout), deadline
        )
        refused = {key.name: answer for key, answer in answers.items() if isinstance(answer, KafkaException)}
        missing = [name for name, answer in refused.items() if code_of(answer) == Code.UNKNOWN_TOPIC_OR_PART]
        if missing:
            raise topics_missing(missing, self._calls.where)
        for name, answer in refused.items():
            if code_of(answer) not in DENIED:
                raise self._calls.refusal(answer, f"the settings of topic {name!r}")
        return {key.name: None if key.name in refused else _settings(answer) for key, answer in answers.items()}

    def committed(self, group_id: str, topics: Sequence[str]) -> Position:
        """Return the committed offsets of the group in these topics, without partitions that have no commit.

        :param group_id: the consumer group.
        :param topics: names of the topics; duplicates count once.
        :raises InputRefused: the group id is empty.
        :raises TopicMissing: topics do not exist in the cluster.
        """
        names = distinct_topics(topics)
        if not group_id:
            raise InputRefused(seen="the group id is empty", expected="the id of a consumer group", do="name the group")
        deadline = self._calls.deadline()
        # A mistyped topic would read as "nothing committed", so the topics are described first.
        partitions = [key for topic in self._describe(names, deadline) for key in _keys(topic)]
        commits = self._calls.commits(group_id, partitions, deadline)
        return Position({partition: commit.offset for partition, commit in commits.items()})

    def _live_topics(self, names: tuple[str, ...], read_committed: bool, deadline: float) -> LiveTopics:
        cluster_id = self._cluster_id(deadline)
        topics = self._describe(names, deadline)
        partitions = _partitions(topics)
        # Two calls in this order: at once, retention could move the earliest offset beyond an end that was read before.
        begin = self._list_offsets(partitions, EARLIEST, deadline)
        end = self._list_offsets(partitions, LATEST, deadline, read_committed=read_committed)

        def live(topic: TopicDescription) -> LiveTopic:
            offsets = (LivePartition(begin[key].offset, end[key].offset, end[key].leader_epoch) for key in _keys(topic))
            return LiveTopic(topic.name, _topic_id(topic), tuple(offsets))

        return LiveTopics(cluster_id, tuple(live(topic) for topic in topics))

    def _cluster_id(self, deadline: float) -> str:
        answer = self._calls.ask(
            lambda timeout: {"cluster": self._calls.admin.describe_cluster(request_timeout=timeout)}, deadline
        )["cluster"]
        if isinstance(answer, KafkaException):
            raise self._calls.refusal(answer, "the cluster's id")
        return str(answer.cluster_id)

    def _describe(self, names: tuple[str, ...], deadline: float) -> list[TopicDescription]:
        answers: dict[str, Any] = self._calls.ask(
            lambda timeout: self._calls.admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout),
            deadline,
        )
        refused = {name: answer for name, answer in answers.items() if isinstance(answer, KafkaException)}
        missing = [name for name, answer in refused.items() if code_of(answer) == Code.UNKNOWN_TOPIC_OR_PART]
        if missing:
            raise topics_missing(missing, self._calls.where)
        for name, answer in refused.items():
            raise self._calls.refusal(answer, f"topic {name!r}")
        return [answers[name] for name in names]

    def _list_offsets(
        self,
        partitions: Sequence[TopicPartition],
        spec: OffsetSpec,
        deadline: float,
        *,
        read_committed: bool = False,
    ) -> dict[TopicPartition, ListOffsetsResultInfo]:
        isolation = IsolationLevel.READ_COMMITTED if read_committed else IsolationLevel.READ_UNCOMMITTED
        answers: dict[Any, Any] = self._calls.ask(
            lambda timeout: self._calls.admin.list_offsets(
                {Asked(*partition): spec for partition in partitions},
                isolation_level=isolation,
                request_timeout=timeout,
            ),
            deadline,
        )
        refused = {key: answer for key, answer in answers.items() if isinstance(answer, KafkaException)}
        unavailable = [
            f"{key.topic}[{key.partition}]" for key, answer in refused.items() if code_of(answer) in TRANSIENT
        ]
        if unavailable:
            raise _unavailable(unavailable, ", ".join(sorted({answer.args[0].name() for answer in refused.values()})))
        for key, answer in refused.items():
            raise self._calls.refusal(answer, f"{key.topic}[{key.partition}]")
        return {TopicPartition(key.topic, key.partition): answer for key, answer in answers.items()}

    def _until_available(self, ask: Callable[[float], Value]) -> Value:
        """Return the result of ``ask``, retrying until the deadline while a partition has no leader."""
        deadline = self._calls.deadline()
        unavailable: PartitionUnavailable | None = None
        while True:
            try:
                return ask(deadline)
            except PartitionUnavailable as error:
                unavailable = error
            except KafkaUnreachable as error:
                # The time ran out during a retry: the error of the previous attempt is more precise.
                raise (unavailable or error) from None
            if time.monotonic() + PAUSE_S >= deadline:
                raise unavailable
            time.sleep(PAUSE_S)


def _settings(found: Mapping[str, ConfigEntry]) -> TopicSettings:
    return TopicSettings(
        cleanup_policy=str(found["cleanup.policy"].value or ""),
        retention_ms=int(str(found["retention.ms"].value)),
        retention_bytes=int(str(found["retention.bytes"].value)),
        timestamp_type=str(found["message.timestamp.type"].value),
    )


def _topic_id(topic: TopicDescription) -> str:
    """Return the topic id as Kafka's own tools print it: librdkafka uses the other Base64 alphabet."""
    return str(topic.topic_id).replace("+", "-").replace("/", "_")


def _partitions(topics: Sequence[TopicDescription]) -> list[TopicPartition]:
    """Return every partition of the topics.

    :raises PartitionUnavailable: a partition has no leader; a request for its offsets would wait in vain.
    """
    # TopicPartitionInfo declares that a leader always exists; librdkafka returns None where the broker says -1.
    leaders: dict[str, Node | None] = {
        f"{topic.name}[{each.id}]": each.leader for topic in topics for each in topic.partitions
    }
    leaderless = [partition for partition, leader in leaders.items() if leader is None]
    if leaderless:
        raise _unavailable(leaderless, "no leader")
    return [key for topic in topics for key in _keys(topic)]


def _keys(topic: TopicDescription) -> list[TopicPartition]:
    return [TopicPartition(topic.name, number) for number in range(len(topic.partitions))]


def _unavailable(partitions: Sequence[str], detail: str) -> PartitionUnavailable:
    return PartitionUnavailable(
        seen=f"{first_few(sorted(partitions))} cannot be read at the moment ({detail})",
        expected="a leader for every partition",
        do="wait for the brokers that hold them, then try again",
    )
