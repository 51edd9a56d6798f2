"""Kafka clients of one cluster, and calls that wait for all answers and raise the errors of this package.

Four properties of confluent_kafka shape the code:

- An admin call returns one future per topic, partition or group. The interpreter may crash if it exits while futures
  are pending. So all futures are awaited before the first error is raised.
- An admin client that is garbage-collected in its own thread aborts the process (confluent-kafka-python, pull request
  2131). So the code that opens the clients also closes them, in the thread that uses them.
- ``AdminClient.list_consumer_group_offsets`` **kills the process** (SIGSEGV) when a broker answers that it is not the
  group's coordinator. Brokers answer so after a restart, and while the first group of a cluster is created (librdkafka,
  issue 5040: ``rd_kafka_handle_OffsetFetch`` uses the consumer group of a client that has none). So a consumer that
  subscribes to nothing reads the commits: such a consumer never joins the group.
- A consumer retries while the coordinator is unknown, and reports the reason only in its event queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked
from confluent_kafka.admin import AdminClient

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import InputRefused, KafkaError, KafkaUnreachable

Key = TypeVar("Key")
Value = TypeVar("Value")

GRACE_S = 2.0
"""Extra time after the client's own timeout before an answer is abandoned."""
PAUSE_S = 0.1
"""Pause between two attempts while leaders are being elected: an election takes from milliseconds to seconds."""
LOOKING = "airflow-provider-offsets"
"""Group id of a client that only reads records. Kafka requires one; the client neither joins nor creates the group."""
ROUND_S = 1.0
"""Time for which a consumer searches for a coordinator before its event queue is read."""

READING = {
    "enable.auto.commit": False,
    # "read_committed" would wait for the end of open transactions and return the same offsets.
    "isolation.level": "read_uncommitted",
    # One record per partition is enough: report the end of a partition that has none, and fetch as little as possible.
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.message.max.bytes": 16_384,
    "queued.min.messages": 1,
}
"""Settings of a consumer that reads without leaving a trace in the cluster."""

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
    Code.NOT_COORDINATOR,
    Code.REQUEST_TIMED_OUT,
}


class Commit(NamedTuple):
    """Committed offset of a consumer group in one partition."""

    offset: int
    leader_epoch: int | None
    """Leader epoch of the last record before the offset, or None if the committer did not know the epoch."""
    metadata: str | None
    """Text that the committer stored with the offset."""


class Clients(NamedTuple):
    """Clients for the requests to one cluster."""

    admin: AdminClient
    consumer: Callable[[str], Consumer]
    """Creates a client with this group id. The caller closes the client."""
    bootstrap_servers: str = ""
    """For messages only: the clients do not expose their own setting."""


@contextmanager
def open_clients(settings: Mapping[str, Any]) -> Iterator[Clients]:
    """Yield the clients of one cluster, and close the admin client at the end.

    The clients cannot be used after the end of the context.

    :param settings: properties of librdkafka; the values may be callbacks.
    :raises InputRefused: the client does not accept a property.
    """

    def consumer(group_id: str) -> Consumer:
        with _as_input():
            return Consumer({**settings, **READING, "group.id": group_id})

    with _as_input():
        client = AdminClient(dict(settings))
    with client as admin:
        yield Clients(admin, consumer, str(settings.get("bootstrap.servers", "")))


@contextmanager
def _as_input() -> Iterator[None]:
    """Convert the refusal of a property, which no retry can help, to an error of this package."""
    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise InputRefused(
            seen=f"the Kafka client does not accept the connection: {reason}",
            expected="properties of librdkafka with valid values",
            do="correct the extra of the Kafka connection",
        ) from error


class AdminCalls:
    """Requests to one cluster.

    :param clients: such as :func:`open_clients` yields.
    :param timeout_s: time limit of one method of the caller as a whole; also quoted in messages.
    """

    def __init__(self, clients: Clients, timeout_s: float) -> None:
        self.admin = clients.admin
        self.timeout_s = timeout_s
        self.where = clients.bootstrap_servers
        self._consumer = clients.consumer

    def deadline(self) -> float:
        """Return the time, on the monotonic clock, at which a method that starts now times out."""
        return time.monotonic() + self.timeout_s

    def ask(self, call: Callable[[float], Mapping[Key, Future[Any]]], deadline: float) -> dict[Key, Any]:
        """Wait for all answers and return each, or the ``KafkaException`` that replaced the answer.

        :param call: starts the request; its argument is the remaining time in seconds.
        :param deadline: from :meth:`deadline`.
        :raises KafkaUnreachable: no broker answered before the deadline.
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

    def commits(
        self, group_id: str, partitions: Sequence[TopicPartition], deadline: float
    ) -> dict[TopicPartition, Commit]:
        """Return what the group has committed in these partitions, without the partitions that have no commit.

        Asks the group's coordinator, and retries until the deadline while the group has none.

        :param group_id: id of the consumer group.
        :param partitions: the partitions to look up.
        :param deadline: from :meth:`deadline`.
        :raises KafkaUnreachable: no coordinator answered before the deadline.
        :raises KafkaError: the coordinator refused the request.
        :raises InputRefused: the group id begins with a space: librdkafka's consumer would read the commits of the
            group without it.
        """
        if group_id[:1].isspace():
            raise InputRefused(
                seen=f"consumer group {group_id!r} begins with a space, which the Kafka client cuts off",
                expected="a group whose commits can be read",
                do="let the job use another group id, or keep its offsets in another store",
            )
        seen = "no time was left to ask the coordinator of the group"
        with closing(self._consumer(group_id)) as consumer:
            while (left_s := deadline - time.monotonic()) > 0:
                try:
                    found = consumer.committed([Asked(*each) for each in partitions], timeout=min(left_s, ROUND_S))
                except KafkaException as error:
                    refused = _met(consumer, error)
                else:
                    return self._committed(found)
                if code_of(refused) not in SILENCE:
                    raise self.refusal(refused, f"consumer group {group_id!r}")
                seen = refused.args[0].str()
                if code_of(refused) != Code._TIMED_OUT:
                    time.sleep(PAUSE_S)
        raise self.unreachable(seen)

    def first_records(
        self, position: Mapping[TopicPartition, int], deadline: float
    ) -> dict[TopicPartition, Message | None]:
        """Return the first record at or after each offset, or None for a partition without such a record.

        The consumer is assigned its partitions, so it joins no group.

        :param position: the offset of each partition from which to read.
        :param deadline: from :meth:`deadline`.
        :returns: the records, without partitions that this user may not read or that did not answer before the
            deadline.
        """
        found: dict[TopicPartition, Message | None] = {}
        refused: set[TopicPartition] = set()
        with closing(self._consumer(LOOKING)) as consumer:
            consumer.assign([Asked(*each, offset) for each, offset in position.items()])
            while len(found) + len(refused) < len(position) and (left_s := deadline - time.monotonic()) > 0:
                for message in consumer.consume(len(position), timeout=min(left_s, ROUND_S)):
                    error = message.error()
                    code = None if error is None else error.code()
                    key = TopicPartition(message.topic() or "", message.partition() or 0)
                    if key not in position or key in found:
                        continue  # An error of the coordinator search does not prevent reading.
                    if code is None or code == Code._PARTITION_EOF:
                        found[key] = message if code is None else None
                        consumer.pause([Asked(*key)])
                    elif code == Code.TOPIC_AUTHORIZATION_FAILED:
                        refused |= {each for each in position if each.topic == key.topic}
        return found

    def _committed(self, found: Sequence[Asked]) -> dict[TopicPartition, Commit]:
        if refused := [each for each in found if each.error is not None]:
            raise self.refusal(KafkaException(refused[0].error), f"{refused[0].topic}[{refused[0].partition}]")
        return {
            TopicPartition(each.topic, each.partition): Commit(each.offset, each.leader_epoch, each.metadata)
            for each in found
            if each.offset >= 0
        }

    def unreachable(self, detail: str) -> KafkaUnreachable:
        """Return the error for a cluster that does not answer."""
        return KafkaUnreachable(
            seen=f"no answer from Kafka{self.where and f' at {self.where}'} within {self.timeout_s:g} s ({detail})",
            expected="a broker that answers",
            do="check the brokers, and bootstrap.servers and the security settings of the Kafka connection",
        )

    def refusal(self, error: KafkaException, what: str) -> KafkaError:
        """Return the error for a request that the cluster refused, with ``error`` as its cause.

        :param error: the exception of the Kafka client.
        :param what: what the request was about, for the message.
        """
        if code_of(error) in SILENCE:
            return self.unreachable(error.args[0].str())
        refused = KafkaError(
            seen=f"Kafka refused to describe {what}: {error.args[0].name()} ({error.args[0].str()})",
            expected="the right to describe the cluster, its topics and the group",
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
    """Return the error code of Kafka's protocol, or librdkafka's own negative code."""
    return int(error.args[0].code())


def _met(consumer: Consumer, error: KafkaException) -> KafkaException:
    """Return what the consumer met while it searched for the coordinator if ``error`` is a timeout, else ``error``."""
    event = consumer.poll(0) if code_of(error) == Code._TIMED_OUT else None
    met = event.error() if event is not None else None
    return error if met is None else KafkaException(met)
