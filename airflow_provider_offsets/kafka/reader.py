"""Reads a real cluster through confluent_kafka's AdminClient.

Two things of that client shape the code. An admin call gives one future per topic or partition, and the interpreter
may crash when it ends while some are pending: so all of them are waited for before the first error is raised. And a
broker that has just been given a partition answers *not leader* for some milliseconds: so such an answer is asked
again until the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked

# The package re-exports them without saying so in the form that mypy asks for.
from confluent_kafka.admin import OffsetSpec, TopicDescription  # type: ignore[attr-defined]

from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import (
    InputRefused,
    KafkaError,
    KafkaUnreachable,
    PartitionUnavailable,
)
from airflow_provider_offsets.kafka.view import checked_time, distinct_topics, topics_missing

if TYPE_CHECKING:
    from confluent_kafka import Node
    from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo  # type: ignore[attr-defined]

Key = TypeVar("Key")
Value = TypeVar("Value")

PAUSE_S = 0.1
"""Between two tries of a partition that has no leader just now: elections take from milliseconds to seconds."""
GRACE_S = 2.0
"""How much later than the client's own time limit its answer may come in before it is not waited for any more."""

EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # no annotation there
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # no annotation there

SILENCE = {
    Code._ALL_BROKERS_DOWN,
    Code._RESOLVE,
    Code._SSL,
    Code._AUTHENTICATION,
    Code._TIMED_OUT,
    Code._TIMED_OUT_QUEUE,
    Code._TRANSPORT,
    Code._WAIT_COORD,
    Code.BROKER_NOT_AVAILABLE,
    Code.COORDINATOR_LOAD_IN_PROGRESS,
    Code.COORDINATOR_NOT_AVAILABLE,
    Code.NETWORK_EXCEPTION,
    Code.REQUEST_TIMED_OUT,
}
UNSETTLED = {
    Code._UNKNOWN_PARTITION,
    Code.FENCED_LEADER_EPOCH,
    Code.KAFKA_STORAGE_ERROR,
    Code.LEADER_NOT_AVAILABLE,
    Code.NOT_LEADER_FOR_PARTITION,
    Code.OFFSET_NOT_AVAILABLE,
    Code.REPLICA_NOT_AVAILABLE,
    Code.UNKNOWN_LEADER_EPOCH,
    # Of a topic that was described a moment ago: this broker has not heard of it yet. If it was deleted meanwhile,
    # the next try's description says so.
    Code.UNKNOWN_TOPIC_OR_PART,
}


class KafkaReader:
    """Reads topics, offsets and commits of one cluster; see ``KafkaView`` for what each method gives.

    The number of requests does not grow with the partitions: ``live_topics`` makes 4 calls, ``offsets_at`` and
    ``committed`` 2 (a call for offsets is one request to each broker that leads some of them).

    Not to be shared between threads that close the client. It is not closed here: who made it owns it.

    :param admin: such as ``KafkaAdminClientHook(kafka_config_id=…).get_conn`` gives (an attribute, without a call).
    :param timeout_s: for each method as a whole, tries for a partition without leader included.
    :param bootstrap_servers: for messages only; the client does not tell its own.
    """

    def __init__(self, admin: AdminClient, timeout_s: float = 30.0, *, bootstrap_servers: str = "") -> None:
        self._admin = admin
        self._timeout_s = timeout_s
        self._where = bootstrap_servers

    def live_topics(self, topics: Sequence[str], *, read_committed: bool = False) -> LiveTopics:
        names = distinct_topics(topics)
        return self._settled(lambda deadline: self._live_topics(names, read_committed, deadline))

    def offsets_at(self, topics: Sequence[str], timestamp_ms: int) -> dict[TopicPartition, int | None]:
        names, spec = distinct_topics(topics), OffsetSpec.for_timestamp(checked_time(timestamp_ms))

        def look(deadline: float) -> dict[TopicPartition, int | None]:
            found = self._list_offsets(_partitions(self._describe(names, deadline)), spec, deadline)
            return {key: None if each.offset < 0 else each.offset for key, each in sorted(found.items())}

        return self._settled(look)

    def committed(self, group_id: str, topics: Sequence[str]) -> Position:
        names = distinct_topics(topics)
        if not group_id:
            raise InputRefused(seen="an empty group id", expected="a consumer group", do="name the group")
        deadline = time.monotonic() + self._timeout_s
        # A mistyped topic would read as "nothing committed", so the topics are looked at first.
        self._describe(names, deadline)
        # All that the group has, not only today's partitions: a commit of a partition that is gone is worth knowing.
        futures = self._call(
            lambda timeout: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group_id)], request_timeout=timeout
            ),
            deadline,
        )
        answer = self._results(futures, deadline)[group_id]
        if isinstance(answer, KafkaException):
            raise self._refusal(answer, f"consumer group {group_id!r}")
        commits = [each for each in answer.topic_partitions or () if each.topic in names]
        if refused := [each for each in commits if each.error is not None]:
            raise self._refusal(KafkaException(refused[0].error), f"{refused[0].topic}[{refused[0].partition}]")
        return Position(
            {TopicPartition(each.topic, each.partition): each.offset for each in commits if each.offset >= 0}
        )

    def _live_topics(self, names: tuple[str, ...], read_committed: bool, deadline: float) -> LiveTopics:
        cluster_id = self._cluster_id(deadline)
        topics = self._describe(names, deadline)
        partitions = _partitions(topics)
        # One after the other: asked together, retention could move a begin beyond an end that was answered before.
        begin = self._list_offsets(partitions, EARLIEST, deadline)
        end = self._list_offsets(partitions, LATEST, deadline, read_committed=read_committed)

        def live(topic: TopicDescription) -> LiveTopic:
            keys = [TopicPartition(topic.name, number) for number in range(len(topic.partitions))]
            offsets = (LivePartition(begin[key].offset, end[key].offset, end[key].leader_epoch) for key in keys)
            return LiveTopic(topic.name, _topic_id(topic), tuple(offsets))

        return LiveTopics(cluster_id, tuple(live(topic) for topic in topics))

    def _cluster_id(self, deadline: float) -> str:
        future = self._call(lambda timeout: self._admin.describe_cluster(request_timeout=timeout), deadline)
        answer = self._results({"cluster": future}, deadline)["cluster"]
        if isinstance(answer, KafkaException):
            raise self._refusal(answer, "the cluster's id")
        return str(answer.cluster_id)

    def _describe(self, names: tuple[str, ...], deadline: float) -> list[TopicDescription]:
        futures = self._call(
            lambda timeout: self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout),
            deadline,
        )
        answers: dict[str, Any] = self._results(futures, deadline)
        refused = {name: answer for name, answer in answers.items() if isinstance(answer, KafkaException)}
        missing = [name for name, answer in refused.items() if _code(answer) == Code.UNKNOWN_TOPIC_OR_PART]
        if missing:
            raise topics_missing(missing, self._where)
        for name, answer in refused.items():
            raise self._refusal(answer, f"topic {name!r}")
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
        futures = self._call(
            lambda timeout: self._admin.list_offsets(
                {Asked(*partition): spec for partition in partitions},
                isolation_level=isolation,
                request_timeout=timeout,
            ),
            deadline,
        )
        answers: dict[Any, Any] = self._results(futures, deadline)
        refused = {key: answer for key, answer in answers.items() if isinstance(answer, KafkaException)}
        unsettled = [f"{key.topic}[{key.partition}]" for key, answer in refused.items() if _code(answer) in UNSETTLED]
        if unsettled:
            raise _unavailable(unsettled, ", ".join(sorted({answer.args[0].name() for answer in refused.values()})))
        for key, answer in refused.items():
            raise self._refusal(answer, f"{key.topic}[{key.partition}]")
        return {TopicPartition(key.topic, key.partition): answer for key, answer in answers.items()}

    def _settled(self, look: Callable[[float], Value]) -> Value:
        """Look, and look again while a partition has no leader, until the deadline."""
        deadline = time.monotonic() + self._timeout_s
        unsettled: PartitionUnavailable | None = None
        while True:
            try:
                return look(deadline)
            except PartitionUnavailable as error:
                unsettled = error
            except KafkaUnreachable as error:
                # The time ran out in the middle of another try: what the tries before it saw says more.
                raise (unsettled or error) from None
            if time.monotonic() + PAUSE_S >= deadline:
                raise unsettled
            time.sleep(PAUSE_S)

    def _call(self, call: Callable[[float], Value], deadline: float) -> Value:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise self._unreachable("the time was used up before the last question")
        try:
            return call(left_s)
        except KafkaException as error:
            raise self._refusal(error, "the request") from error

    def _results(self, futures: Mapping[Key, Future[Any]], deadline: float) -> dict[Key, Any]:
        """Wait for all answers; give each one, or the ``KafkaException`` that came in its place.

        :raises KafkaUnreachable: no broker answered.
        """
        answers = {key: self._result(future, deadline) for key, future in futures.items()}
        for answer in answers.values():
            if isinstance(answer, KafkaException) and _code(answer) in SILENCE:
                raise self._unreachable(answer.args[0].str()) from answer
        return answers

    def _result(self, future: Future[Any], deadline: float) -> Any:
        try:
            return future.result(timeout=max(0.0, deadline - time.monotonic()) + GRACE_S)
        except KafkaException as error:
            return error
        except FutureTimeout as error:
            raise self._unreachable("the client itself gave no answer") from error

    def _unreachable(self, detail: str) -> KafkaUnreachable:
        return KafkaUnreachable(
            seen=f"no answer from Kafka{self._where and f' at {self._where}'} within {self._timeout_s:g} s ({detail})",
            expected="a broker that answers",
            do="check that the brokers run, and bootstrap.servers and the security settings of the Kafka connection",
        )

    def _refusal(self, error: KafkaException, what: str) -> KafkaError:
        if _code(error) in SILENCE:
            return self._unreachable(error.args[0].str())
        refused = KafkaError(
            seen=f"Kafka refused to tell about {what}: {error.args[0].name()} ({error.args[0].str()})",
            expected="leave to describe the cluster, its topics and the group",
            do="grant DESCRIBE on them to the user of the Kafka connection, or correct the name",
        )
        refused.__cause__ = error
        return refused


def _code(error: KafkaException) -> int:
    return int(error.args[0].code())


def _topic_id(topic: TopicDescription) -> str:
    """Give the id as Kafka's own tools print it: librdkafka has the other alphabet of Base64."""
    return str(topic.topic_id).replace("+", "-").replace("/", "_")


def _partitions(topics: Sequence[TopicDescription]) -> list[TopicPartition]:
    """Give every partition.

    :raises PartitionUnavailable: one has no leader. Asked for its offsets, the client would wait for one in vain.
    """
    # TopicPartitionInfo declares that a leader is always there; librdkafka gives None where the broker says -1.
    leaders: dict[str, Node | None] = {
        f"{topic.name}[{each.id}]": each.leader for topic in topics for each in topic.partitions
    }
    leaderless = [partition for partition, leader in leaders.items() if leader is None]
    if leaderless:
        raise _unavailable(leaderless, "no leader")
    return [TopicPartition(topic.name, number) for topic in topics for number in range(len(topic.partitions))]


def _unavailable(partitions: Sequence[str], detail: str) -> PartitionUnavailable:
    shown = ", ".join(sorted(partitions)[:10]) + (f" and {len(partitions) - 10} more" if len(partitions) > 10 else "")
    return PartitionUnavailable(
        seen=f"{shown} cannot be asked just now ({detail})",
        expected="a leader for every partition",
        do="wait for the brokers that hold them, then try again",
    )
