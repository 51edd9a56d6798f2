"""The clients of one cluster, and calls of them, with answers awaited and errors in this package's words.

Four things of confluent_kafka shape the code:

- An admin call gives one future per topic, partition or group, and the interpreter may crash when it ends while some
  are pending: so all of them are waited for before the first error is raised.
- An admin client that is collected in its own thread aborts the process (confluent-kafka-python, pull request 2131): so
  who opens the clients closes them, in the thread that uses them.
- ``AdminClient.list_consumer_group_offsets`` **kills the process** (SIGSEGV) where a broker answers that it is not the
  group's coordinator, as brokers do after a restart, and while the first group of a cluster is made (librdkafka, issue
  5040: ``rd_kafka_handle_OffsetFetch`` turns to the consumer group of a client that has none). So commits are read by a
  consumer that subscribes to nothing: it never joins the group.
- A consumer asks again for a coordinator that is not known, and says nowhere but in its queue why it is not.
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
from airflow_provider_offsets.errors import KafkaError, KafkaUnreachable

Key = TypeVar("Key")
Value = TypeVar("Value")

GRACE_S = 2.0
"""How much later than the client's own time limit its answer may come in before it is not waited for any more."""
PAUSE_S = 0.1
"""Between two tries of what is not settled just now: elections take from milliseconds to seconds."""
LOOKING = "airflow-provider-offsets"
"""A client that only looks at records has to name a group, which it neither joins nor makes."""
ROUND_S = 1.0
"""How long a consumer looks for a coordinator before its queue is looked into."""

READING = {
    "enable.auto.commit": False,
    # "read_committed" would wait for the end of transactions that are open, and give no other offsets.
    "isolation.level": "read_uncommitted",
    # Of records that are read, one of each partition is looked at: where there is none, that is said, and no more than
    # that is asked for.
    "auto.offset.reset": "earliest",
    "enable.partition.eof": True,
    "fetch.message.max.bytes": 16_384,
    "queued.min.messages": 1,
}
"""How a consumer reads that leaves no trace."""

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
    """What a consumer group has committed of one partition."""

    offset: int
    leader_epoch: int | None
    """Of the last record before the offset, if the committer knew it."""
    metadata: str | None
    """The committer's own words."""


class Clients(NamedTuple):
    """What one cluster is asked with."""

    admin: AdminClient
    consumer: Callable[[str], Consumer]
    """Makes a client of the group of that id. Who makes one closes it."""
    bootstrap_servers: str = ""
    """For messages only; the clients do not tell their own."""


@contextmanager
def open_clients(settings: Mapping[str, Any]) -> Iterator[Clients]:
    """Give the clients of the cluster that these settings of librdkafka lead to, and close the admin client at the end.

    Nothing may be asked afterwards. The settings may hold callbacks.
    """

    def consumer(group_id: str) -> Consumer:
        return Consumer({**settings, **READING, "group.id": group_id})

    with AdminClient(dict(settings)) as admin:
        yield Clients(admin, consumer, str(settings.get("bootstrap.servers", "")))


class AdminCalls:
    """Asks one cluster.

    :param timeout_s: for messages: how long the caller gives a method of its own as a whole.
    """

    def __init__(self, clients: Clients, timeout_s: float) -> None:
        self.admin = clients.admin
        self.timeout_s = timeout_s
        self.where = clients.bootstrap_servers
        self._consumer = clients.consumer

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

    def commits(
        self, group_id: str, partitions: Sequence[TopicPartition], deadline: float
    ) -> dict[TopicPartition, Commit]:
        """Give what the group has committed in these partitions; one without a commit is left out.

        Its coordinator is asked, and asked again while there is none, until the deadline.
        """
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
        """Give the first record at or after each offset; None where the partition has none.

        The consumer is assigned its partitions, so it joins no group. What this user may not read, or did not come
        before the deadline, is left out.
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
                        continue  # what hinders the search for a group's coordinator hinders no reading
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


def _met(consumer: Consumer, error: KafkaException) -> KafkaException:
    """Give the error, or in place of *timed out* what the consumer met while it looked for the coordinator."""
    event = consumer.poll(0) if code_of(error) == Code._TIMED_OUT else None
    met = event.error() if event is not None else None
    return error if met is None else KafkaException(met)
