"""The reader against a real broker."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import KafkaUnreachable, TopicMissing
from airflow_provider_offsets.kafka.calls import LOOKING, open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from tests.contract.kafka_view import KafkaViewContract, position
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster, until


class TestKafkaReader(KafkaViewContract):
    """Everything that ``FakeKafka`` does too."""


class CountingAdmin:
    """An admin client that forwards every call, and counts it."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._admin, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] += 1
            return method(*args, **kwargs)

        return counted


def test_500_partitions_cost_as_many_calls_as_one(
    cluster: RealCluster, view: KafkaReader, topic: str, group: str
) -> None:
    wide = f"{topic}-wide"
    cluster.create_topic(topic, 1)
    cluster.create_topic(wide, 500)
    cluster.append(wide, 499, 3)
    # A broker with new partitions may request a retry, which would be counted as well.
    view.live_topics([topic, wide])
    counting = CountingAdmin(cluster.admin)
    reader = KafkaReader(cluster.clients._replace(admin=counting), DEADLINE_S)  # type: ignore[arg-type]  # all methods

    def calls(name: str) -> list[Counter[str]]:
        counts = []
        for ask in (
            lambda: reader.live_topics([name]),
            lambda: reader.offsets_at([name], 0),
            lambda: reader.committed(group, [name]),
            lambda: reader.settings([name]),
        ):
            counting.calls.clear()
            ask()
            counts.append(Counter(counting.calls))
        return counts

    assert calls(wide) == calls(topic)
    assert calls(wide)[0] == {"describe_cluster": 1, "describe_topics": 1, "list_offsets": 2}
    assert reader.live_topics([wide]).end[TopicPartition(wide, 499)] == 3


def test_the_first_records_of_500_partitions(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    cluster.create_topic(topic, 500, **{"retention.ms": "-1"})
    cluster.append(topic, 499, 30_000, timestamp_ms=5_000)

    times = view.record_times(position(topic, *[0] * 499, 17))

    assert len(times) == 500
    assert {key.partition for key, time in times.items() if time is not None} == {499}


def test_500_partitions_cost_as_many_requests_on_the_wire(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    """The client's own statistics count what it sent to the broker."""
    wide = f"{topic}-wide"
    cluster.create_topic(topic, 1)
    cluster.create_topic(wide, 500)
    view.live_topics([topic, wide])

    assert _sent(cluster, wide) == _sent(cluster, topic) == 2


def _sent(cluster: RealCluster, topic: str) -> int:
    """Return how many ListOffsets requests one look-up of the topic sends."""
    reports: list[str] = []
    settings = {
        "bootstrap.servers": cluster.bootstrap_servers,
        "statistics.interval.ms": 20,
        "stats_cb": reports.append,
    }

    def next_report(admin: AdminClient) -> str:
        reports.clear()
        until(lambda: admin.poll(0.05) >= 0 and bool(reports), "statistics reported")
        return reports[-1]

    with open_clients(settings) as clients:
        KafkaReader(clients, DEADLINE_S).live_topics([topic])
        # The first may be older than the last request; the second may have started before the first arrived.
        next_report(clients.admin)
        next_report(clients.admin)
        report = json.loads(next_report(clients.admin))
    return sum(broker["req"].get("ListOffsets", 0) for broker in report["brokers"].values())


def test_ids_are_written_as_kafka_writes_them(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    """Kafka writes 22 characters of URL-safe Base64; librdkafka returns '+' and '/', as about one id in three shows."""
    names = [f"{topic}-{number}" for number in range(20)]
    for name in names:
        cluster.create_topic(name, 1)

    ids = "".join(each.topic_id for each in view.live_topics(names).topics)

    assert len(ids) == 20 * 22
    assert set("+/=").isdisjoint(ids)


def test_the_leader_epoch_is_returned(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    cluster.create_topic(topic, 2)
    cluster.append(topic, 0, 1)

    epochs = [each.leader_epoch for each in view.live_topics([topic]).partitions.values()]

    assert epochs == [0, 0]


def test_reading_leaves_no_trace(cluster: RealCluster, view: KafkaReader, topic: str, group: str) -> None:
    cluster.create_topic(topic, 2)
    cluster.append(topic, 0, 5)
    cluster.commit(group, {TopicPartition(topic, 0): 2})
    stranger = f"{group}-never-seen"
    before = cluster.groups()
    assert group in before

    for _ in range(3):
        view.live_topics([topic], read_committed=True)
        view.offsets_at([topic], 0)
        view.committed(stranger, [topic])
        view.record_times(position(topic, 0, 0))
        assert view.committed(group, [topic]) == Position({TopicPartition(topic, 0): 2})

    assert LOOKING not in cluster.groups()
    # Other tests may have groups of their own at the same time; what matters is that none came of ours.
    assert {each for each in cluster.groups() if each.startswith(group)} == {group}
    assert view.live_topics([topic]).end == position(topic, 5, 0)


def test_a_missing_topic_is_not_created_by_asking(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    with pytest.raises(TopicMissing, match=topic):
        view.live_topics([topic])

    assert topic not in cluster.admin.list_topics(timeout=DEADLINE_S).topics


def test_a_topic_is_readable_at_once_after_its_creation(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    """The broker answers NOT_LEADER for some milliseconds; the reader waits, and hides that from its caller."""
    for number in range(5):
        cluster.create_topic(f"{topic}-{number}", 3)
        assert len(view.live_topics([f"{topic}-{number}"]).end) == 3


def test_no_broker_at_the_port(topic: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        secret = "hunter2-is-not-in-the-message"
        settings = {
            "bootstrap.servers": address,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "somebody",
            "sasl.password": secret,
            "log_level": 0,
        }
        with open_clients(settings) as clients:
            reader = KafkaReader(clients, timeout_s=0.5)
            for ask in (
                lambda: reader.live_topics([topic]),
                lambda: reader.offsets_at([topic], 0),
                lambda: reader.committed("group", [topic]),
            ):
                with pytest.raises(KafkaUnreachable, match=address) as caught:
                    ask()
                assert "within 0.5 s" in str(caught.value)
                assert secret not in str(caught.value) + repr(caught.value.__cause__)
