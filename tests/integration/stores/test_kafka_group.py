"""The contract over the consumer groups of a real broker."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.kafka.calls import Clients, open_clients
from airflow_provider_offsets.stores.kafka_group import KafkaGroupStore
from stack import endpoints
from tests.contract.position_contract import PositionContract, numbered
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster, until

RUN = uuid.uuid4().hex[:10]
TOPICS = (f"positions-{RUN}", f"positions.{RUN}_u", f"{RUN}-{'x' * 200}")
PARTITIONS, RECORDS = 3, 9


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """The broker, with ``TOPICS``. Without one the tests are skipped; in CI, where one is promised, they fail."""
    entry = endpoints().get("kafka")
    if entry is None:
        missing = "no Kafka is up: `python3 -m stack up kafka` starts one"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    made = RealCluster(str(entry["bootstrap_servers"]))
    for topic in TOPICS:
        # Its records are of 1970: the default retention would soon delete them.
        made.create_topic(topic, PARTITIONS, **{"retention.ms": "-1"})
        for partition in range(PARTITIONS):
            made.append(topic, partition, RECORDS)
    yield made
    ours = [name for name in made.groups() if RUN in name]
    for future in made.admin.delete_consumer_groups(ours).values() if ours else ():
        future.exception()
    made.clean()


@pytest.fixture(scope="module")
def clients(cluster: RealCluster) -> Iterator[Clients]:
    with open_clients({"bootstrap.servers": cluster.bootstrap_servers}) as opened:
        yield opened


@pytest.fixture
def store(clients: Clients) -> KafkaGroupStore:
    return KafkaGroupStore(clients, DEADLINE_S)


class TestKafkaGroup(PositionContract):
    TOPICS: st.SearchStrategy[str] = st.sampled_from(TOPICS)
    PARTITIONS = PARTITIONS
    LAST = RECORDS

    @pytest.fixture
    def topics(self, cluster: RealCluster) -> tuple[str, str]:
        return TOPICS[0], TOPICS[1]
