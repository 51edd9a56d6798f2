"""Calls of confluent_kafka's AdminClient, with their answers awaited and their errors in this package's words.

An admin call gives one future per topic, partition or group, and the interpreter may crash when it ends while some are
pending: so all of them are waited for before the first error is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import KafkaError as Code

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import KafkaError, KafkaUnreachable

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

Key = TypeVar("Key")
Value = TypeVar("Value")

GRACE_S = 2.0
"""How much later than the client's own time limit its answer may come in before it is not waited for any more."""

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


class Commit(NamedTuple):
    """What a consumer group has committed of one partition."""

    offset: int
    leader_epoch: int | None
    """Of the last record before the offset, if the committer knew it."""
    metadata: str | None
    """The committer's own words."""


class AdminCalls:
    """Asks one cluster.

    :param timeout_s: for messages: how long the caller gives a method of its own as a whole.
    """

    def __init__(self, admin: AdminClient, timeout_s: float, bootstrap_servers: str) -> None:
        self.admin = admin
        self.timeout_s = timeout_s
        self.where = bootstrap_servers

    def deadline(self) -> float:
        """Give the moment, by the monotonic clock, at which a method that begins now has used up its time."""
        return time.monotonic() + self.timeout_s

    def ask(self, call: Callable[[float], Mapping[Key, Future[Any]]], deadline: float) -> dict[Key, Any]:
        """Wait for all answers; give each one, or the ``KafkaException`` that came in its place.

        :param call: gets the seconds that are left.
        :raises KafkaUnreachable: no broker answered.
        """
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise self.unreachable("the time was used up before the last question")
        try:
            futures = call(left_s)
        except KafkaException as error:
            raise self.refusal(error, "the request") from error
        answers = {key: self._result(future, deadline) for key, future in futures.items()}
        for answer in answers.values():
            if isinstance(answer, KafkaException) and code_of(answer) in SILENCE:
                raise self.unreachable(answer.args[0].str()) from answer
        return answers

    def commits(self, group_id: str, deadline: float) -> dict[TopicPartition, Commit]:
        """Give all that the group has committed; not only in today's partitions: a commit of one that is gone is worth
        knowing. A partition without a commit is left out."""
        answer = self.ask(
            lambda timeout: self.admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group_id)], request_timeout=timeout
            ),
            deadline,
        )[group_id]
        if isinstance(answer, KafkaException):
            raise self.refusal(answer, f"consumer group {group_id!r}")
        found = answer.topic_partitions or ()
        if refused := [each for each in found if each.error is not None]:
            raise self.refusal(KafkaException(refused[0].error), f"{refused[0].topic}[{refused[0].partition}]")
        return {
            TopicPartition(each.topic, each.partition): Commit(each.offset, each.leader_epoch, each.metadata)
            for each in found
            if each.offset >= 0
        }

    def unreachable(self, detail: str) -> KafkaUnreachable:
        """Give the error for a cluster that does not answer."""
        return KafkaUnreachable(
            seen=f"no answer from Kafka{self.where and f' at {self.where}'} within {self.timeout_s:g} s ({detail})",
            expected="a broker that answers",
            do="check that the brokers run, and bootstrap.servers and the security settings of the Kafka connection",
        )

    def refusal(self, error: KafkaException, what: str) -> KafkaError:
        """Give the error for a question that the cluster refused; the cause is chained."""
        if code_of(error) in SILENCE:
            return self.unreachable(error.args[0].str())
        refused = KafkaError(
            seen=f"Kafka refused to tell about {what}: {error.args[0].name()} ({error.args[0].str()})",
            expected="leave to describe the cluster, its topics and the group",
            do="grant DESCRIBE on them to the user of the Kafka connection, or correct the name",
        )
        refused.__cause__ = error
        return refused

    def _result(self, future: Future[Any], deadline: float) -> Any:
        try:
            return future.result(timeout=max(0.0, deadline - time.monotonic()) + GRACE_S)
        except KafkaException as error:
            return error
        except FutureTimeout as error:
            raise self.unreachable("the client itself gave no answer") from error


def code_of(error: KafkaException) -> int:
    """Give the number of the error in Kafka's protocol, or librdkafka's own below 0."""
    return int(error.args[0].code())
