"""``FakeKafka`` behaves as the real reader does, and its controls refuse what no cluster would do."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.errors import KafkaUnreachable
from airflow_provider_offsets.kafka.view import KafkaView
from airflow_provider_offsets.testing.fake_kafka import FakeKafka
from tests.contract.kafka_view import KafkaViewContract


@pytest.fixture
def cluster() -> FakeKafka:
    return FakeKafka()


@pytest.fixture
def view(cluster: FakeKafka) -> KafkaView:
    return cluster


@pytest.fixture
def brief_view(cluster: FakeKafka) -> KafkaView:
    return cluster


@pytest.fixture
def topic() -> str:
    return "orders"


@pytest.fixture
def group() -> str:
    return "billing"


class TestFakeKafka(KafkaViewContract):
    """Everything that a real cluster does too."""


def test_it_fails_as_configured_until_configured_otherwise(cluster: FakeKafka) -> None:
    cluster.create_topic("orders", 1)
    cluster.fail_with(KafkaUnreachable(seen="nothing", expected="a broker", do="wait"))
    for _ in range(2):
        with pytest.raises(KafkaUnreachable):
            cluster.live_topics(["orders"])

    cluster.fail_with(None)

    assert len(cluster.live_topics(["orders"]).end) == 1


def test_two_clusters_have_two_ids() -> None:
    here, there = FakeKafka("here"), FakeKafka("there")
    for each in (here, there):
        each.create_topic("orders", 1)

    assert here.live_topics(["orders"]).cluster_id != there.live_topics(["orders"]).cluster_id


def test_what_no_cluster_would_do_is_refused(cluster: FakeKafka) -> None:
    cluster.create_topic("orders", 2)
    with pytest.raises(ValueError, match="exists already"):
        cluster.create_topic("orders", 2)
    with pytest.raises(ValueError, match="never removes any"):
        cluster.add_partitions("orders", 1)
    with pytest.raises(ValueError, match="ends at 0"):
        cluster.delete_records_before("orders", 0, 1)
