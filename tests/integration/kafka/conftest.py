"""The Kafka that ``python3 -m stack up kafka`` started, and the knobs of ``FakeKafka`` on it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
)
from confluent_kafka import TopicPartition as Asked
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.kafka.reader import KafkaReader
from stack import endpoints

DEADLINE_S = 30.0


def until(holds: Callable[[], bool], what: str) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not so after {DEADLINE_S:g} s"


class RealCluster:
    """A broker with the knobs of ``FakeKafka``. Topics and groups that it made are deleted by ``clean``."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        self._transactions: dict[TopicPartition, Producer] = {}
        self._topics: set[str] = set()
        self._groups: set[str] = set()

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        self._topics.add(name)
        until(lambda: self._created(name, partitions, config), f"{name} created")
        until(lambda: self._exists(name), f"{name} known to the broker")

    def _created(self, name: str, partitions: int, config: dict[str, str]) -> bool:
        try:
            self.admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result()
        except KafkaException as error:
            # Deleted a moment ago, and its name is not free yet.
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise
        return True

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result()
        until(lambda: not self._exists(name), f"{name} deleted")

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
        # A new producer each time: an old one would not know of partitions that were added since.
        producer = self._transactions.get(TopicPartition(topic, partition)) or Producer(
            {"bootstrap.servers": self.bootstrap_servers, "linger.ms": 0}
        )
        for number in range(count):
            # A time of 0 would be "now" to the client.
            producer.produce(topic, str(number).encode(), partition=partition, timestamp=timestamp_ms or 1)
        assert producer.flush(DEADLINE_S) == 0

    def begin_transaction(self, topic: str, partition: int) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "transactional.id": f"tx-{uuid.uuid4()}"})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        self._transactions[TopicPartition(topic, partition)] = producer

    def end_transaction(self, topic: str, partition: int) -> None:
        """Commit, and wait for the marker: the coordinator answers before it is written."""
        producer = self._transactions.pop(TopicPartition(topic, partition))
        before = self._end(topic, partition, read_committed=False)
        producer.commit_transaction(DEADLINE_S)
        until(lambda: self._end(topic, partition, read_committed=True) == before + 1, "the marker written")

    def _end(self, topic: str, partition: int, *, read_committed: bool) -> int:
        live = KafkaReader(self.admin).live_topics([topic], read_committed=read_committed)
        return live.end[TopicPartition(topic, partition)]

    def delete_records_before(self, topic: str, partition: int, offset: int) -> None:
        for future in self.admin.delete_records([Asked(topic, partition, offset)]).values():
            future.result()

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        self._groups.add(group)
        request = ConsumerGroupTopicPartitions(group, [Asked(*key, offset) for key, offset in offsets.items()])
        self.admin.alter_consumer_group_offsets([request])[group].result()

    def groups(self) -> set[str]:
        return {each.group_id for each in self.admin.list_consumer_groups().result().valid}

    def clean(self) -> None:
        for producer in self._transactions.values():
            producer.abort_transaction(DEADLINE_S)
        for future in self.admin.delete_consumer_groups(sorted(self._groups)).values() if self._groups else ():
            future.exception()
        for future in self.admin.delete_topics(sorted(self._topics)).values() if self._topics else ():
            future.exception()


@pytest.fixture(scope="session")
def bootstrap_servers() -> str:
    """Where Kafka answers. Without one the tests are skipped; in CI, where one is promised, they fail."""
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
    return KafkaReader(cluster.admin, timeout_s=DEADLINE_S, bootstrap_servers=cluster.bootstrap_servers)


@pytest.fixture
def topic() -> str:
    return f"reader-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def group() -> str:
    return f"reader-group-{uuid.uuid4().hex[:12]}"
