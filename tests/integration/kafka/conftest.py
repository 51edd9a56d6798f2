"""The Kafka that ``python3 -m stack up kafka`` started, with the controls of ``FakeKafka``."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
)
from confluent_kafka import TopicPartition as Asked
from confluent_kafka.admin import NewPartitions, NewTopic

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from stack import endpoints

DEADLINE_S = 120.0
"""Only a failing test waits this long: a busy machine is no failure."""
PAUSE_S = 0.02
MOST_PARTITIONS = 16
"""No topic of these tests has more."""

NOT_YET = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}
"""Errors that a broker returns for a moment about a new topic, partition or group."""


def until(holds: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not so after {DEADLINE_S:g} s"
        time.sleep(PAUSE_S)


def done(future: Future[Any]) -> bool:
    """Wait for the answer; return False if the broker is not ready for the call yet."""
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() in NOT_YET:
            return False
        raise
    return True


class RealCluster:
    """A broker with the controls of ``FakeKafka``.

    ``clean`` deletes the topics and groups that it created, and closes it.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._open = ExitStack()
        self.clients = self._open.enter_context(open_clients({"bootstrap.servers": bootstrap_servers}))
        self.admin = self.clients.admin
        self._transactions: dict[TopicPartition, Producer] = {}
        self._topics: set[str] = set()
        self._groups: set[str] = set()

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        self._topics.add(name)
        self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result()
        until(lambda: self._exists(name), f"{name} known to the broker")

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result()
        until(lambda: not self._exists(name), f"{name} deleted")
        # The coordinator of a group learns of it a moment later.
        until(lambda: not any(self._has_commits(group, name) for group in self._groups), f"{name} forgotten by groups")

    def _exists(self, name: str) -> bool:
        try:
            self.admin.describe_topics(TopicCollection([name]))[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return False
            raise
        return True

    def recreate_topic(self, name: str, partitions: int) -> None:
        self.delete_topic(name)
        self.create_topic(name, partitions)

    def add_partitions(self, topic: str, total: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, total)])[topic].result()
        until(lambda: self._partition_count(topic) == total, f"{topic} has {total} partitions")

    def _partition_count(self, topic: str) -> int:
        return len(self.admin.describe_topics(TopicCollection([topic]))[topic].result().partitions)

    def append(self, topic: str, partition: int, count: int, *, timestamp_ms: int = 0) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                lost.append(error)

        lost: list[KafkaError] = []
        # A new producer each time: an old one would not know partitions that were added since.
        producer = self._transactions.get(TopicPartition(topic, partition)) or Producer(
            {"bootstrap.servers": self.bootstrap_servers, "linger.ms": 0}
        )
        for number in range(count):
            # A time of 0 would be "now" to the client.
            producer.produce(
                topic, str(number).encode(), partition=partition, timestamp=timestamp_ms or 1, on_delivery=delivered
            )
        assert (producer.flush(DEADLINE_S), lost) == (0, [])

    def begin_transaction(self, topic: str, partition: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "transactional.id": f"tx-{uuid.uuid4()}"})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        self._transactions[TopicPartition(topic, partition)] = producer

    def end_transaction(self, topic: str, partition: int) -> None:
        """Commit, and wait for the marker: the coordinator answers before the marker is written."""
        producer = self._transactions.pop(TopicPartition(topic, partition))
        before = self._end(topic, partition, read_committed=False)
        producer.commit_transaction(DEADLINE_S)
        until(lambda: self._end(topic, partition, read_committed=True) == before + 1, "the marker written")

    def _end(self, topic: str, partition: int, *, read_committed: bool) -> int:
        live = KafkaReader(self.clients, DEADLINE_S).live_topics([topic], read_committed=read_committed)
        return live.end[TopicPartition(topic, partition)]

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        before = Asked(topic, partition, offset)
        until(lambda: all(map(done, self.admin.delete_records([before]).values())), f"records before {before} deleted")

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        self._groups.add(group)
        request = ConsumerGroupTopicPartitions(group, [Asked(*key, offset) for key, offset in offsets.items()])
        until(lambda: self._committed(request), f"{group} committed")

    def _committed(self, request: ConsumerGroupTopicPartitions) -> bool:
        """Return whether every partition was committed: the answer as a whole succeeds even if one is refused."""
        future = self.admin.alter_consumer_group_offsets([request])[request.group_id]
        if not done(future):
            return False
        errors = [each.error for each in future.result().topic_partitions if each.error is not None]
        if hopeless := [error for error in errors if error.code() not in NOT_YET]:
            raise KafkaException(hopeless[0])
        return not errors

    def _has_commits(self, group: str, topic: str) -> bool:
        # Not by the admin client, which crashes at *not coordinator*: see ``kafka/calls.py``.
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group})
        try:
            asked = [Asked(topic, number) for number in range(MOST_PARTITIONS)]
            return any(each.offset >= 0 for each in consumer.committed(asked, timeout=10))
        finally:
            consumer.close()

    def delete_group(self, group: str) -> None:
        self.admin.delete_consumer_groups([group])[group].result()
        self._groups.discard(group)

    def groups(self) -> set[str]:
        """Return the groups.

        The answer lists errors beside them: a broker that is loading its groups has none to return.
        """
        found: set[str] = set()

        def listed() -> bool:
            answer = self.admin.list_consumer_groups().result()
            found.update(each.group_id for each in answer.valid)
            return not answer.errors

        until(listed, "the groups listed")
        return found

    def clean(self) -> None:
        with self._open:
            for producer in self._transactions.values():
                producer.abort_transaction(DEADLINE_S)
            for future in self.admin.delete_consumer_groups(sorted(self._groups)).values() if self._groups else ():
                future.exception()
            for future in self.admin.delete_topics(sorted(self._topics)).values() if self._topics else ():
                future.exception()


@pytest.fixture(scope="session")
def bootstrap_servers() -> str:
    """Return the address of Kafka. Without one the tests are skipped; in CI, where one is promised, they fail."""
    entry = endpoints().get("kafka")
    if entry is None:
        missing = "no Kafka is up: `python3 -m stack up kafka` starts one"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return str(entry["bootstrap_servers"])


@pytest.fixture
def cluster(bootstrap_servers: str) -> Iterator[RealCluster]:
    made = RealCluster(bootstrap_servers)
    yield made
    made.clean()


@pytest.fixture
def view(cluster: RealCluster) -> Any:
    return KafkaReader(cluster.clients, timeout_s=DEADLINE_S)


@pytest.fixture
def brief_view(cluster: RealCluster) -> Any:
    """Return a reader for questions that the broker never answers."""
    return KafkaReader(cluster.clients, timeout_s=5.0)


@pytest.fixture
def topic() -> str:
    return f"reader-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def group() -> str:
    return f"reader-group-{uuid.uuid4().hex[:12]}"
