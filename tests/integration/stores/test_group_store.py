"""The contract over the consumer groups of a real broker."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as Asked
from hypothesis import strategies as st

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import InputRefused, KafkaUnreachable, StateChanged, StoreInUse, TopicMissing
from airflow_provider_offsets.kafka.calls import AdminCalls, Clients, open_clients
from airflow_provider_offsets.kafka.group_store import KafkaGroupStore
from airflow_provider_offsets.stores.protocols import ExpiringPositions
from stack import endpoints
from tests.contract.position_contract import PositionContract, numbered
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster, until

RUN = uuid.uuid4().hex[:10]
TOPICS = (f"positions-{RUN}", f"positions.{RUN}_u", f"{RUN}-{'x' * 200}")
PARTITIONS, RECORDS = 3, 9


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """Yield the broker, with ``TOPICS``. Without one the tests are skipped; in CI, where one is promised, they fail."""
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


TOPIC = TOPICS[0]


@pytest.fixture
def stream(cluster: RealCluster) -> Stream:
    return Stream(f"{RUN}-{uuid.uuid4().hex[:8]}:live", (TOPIC,))


def at(*offsets: int) -> Position:
    return numbered(TOPIC, *offsets)


def consumer_of(cluster: RealCluster, group_id: str) -> Consumer:
    """Return a member of the group, with partitions of its own."""
    made = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": group_id,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    made.subscribe([TOPIC])
    until(lambda: made.poll(0.1) is not None and bool(made.assignment()), "partitions assigned")
    return made


def test_reading_leaves_no_trace(store: KafkaGroupStore, cluster: RealCluster, stream: Stream) -> None:
    assert store.position(stream) is None
    assert store.expires(stream)
    assert stream.group_id not in cluster.groups()


def test_partitions_without_a_commit_are_left_out(store: KafkaGroupStore, cluster: RealCluster, stream: Stream) -> None:
    cluster.commit(stream.group_id, {TopicPartition(TOPIC, 1): 4})
    assert store.position(stream) == Position({TopicPartition(TOPIC, 1): 4})


def test_a_mistyped_topic_is_not_nothing_stored(store: KafkaGroupStore, cluster: RealCluster, stream: Stream) -> None:
    mistyped = Stream(stream.group_id, (f"{TOPIC}-mistyped",))
    with pytest.raises(TopicMissing, match="mistyped"):
        store.position(mistyped)
    with pytest.raises(TopicMissing, match="mistyped"):
        store.write(mistyped, numbered(f"{TOPIC}-mistyped", 0), expected=None)
    assert stream.group_id not in cluster.groups()


# Offsets that the broker accepts and from which no consumer can continue


@pytest.mark.parametrize(
    ("offsets", "words", "reason"),
    [
        ((1, 2, RECORDS + 1), rf"\[2\] -> {RECORDS + 1}.*0 to {RECORDS}", "one past the end"),
        ((99_999, 2, 3), r"\[0\] -> 99999", "far past the end"),
        ((1, 2, 3, 0), r"\[3\], which the topic does not have", "a partition that is not there"),
    ],
)
def test_offsets_outside_of_what_kafka_holds(
    store: KafkaGroupStore, stream: Stream, offsets: tuple[int, ...], words: str, reason: str
) -> None:
    store.write(stream, at(1, 2, 3), expected=None)
    with pytest.raises(InputRefused, match=words):
        store.write(stream, at(*offsets), expected=at(1, 2, 3))
    assert store.position(stream) == at(1, 2, 3)


def test_offsets_that_retention_has_taken(store: KafkaGroupStore, cluster: RealCluster, stream: Stream) -> None:
    topic = f"positions-{uuid.uuid4().hex[:10]}"
    cluster.create_topic(topic, 1, **{"retention.ms": "-1"})
    cluster.append(topic, 0, 5)
    cluster.delete_records_before(topic, 0, 3)
    old = Stream(stream.group_id, (topic,))
    with pytest.raises(InputRefused, match=r"\[0\] -> 2\. Expected 3 to 5"):
        store.write(old, numbered(topic, 2), expected=None)
    assert store.position(old) is None
    store.write(old, numbered(topic, 3), expected=None)


# A group that is in use


def test_a_group_with_members_is_left_alone(store: KafkaGroupStore, cluster: RealCluster, stream: Stream) -> None:
    store.write(stream, at(1, 2, 3), expected=None)
    member = consumer_of(cluster, stream.group_id)
    for expected in (at(1, 2, 3), at(0, 0, 0), None):
        with pytest.raises(StoreInUse, match=r"is in state \w+ \(members: rdkafka at "):
            store.write(stream, at(4, 5, 6), expected=expected)
    assert store.position(stream) == at(1, 2, 3)
    store.write(stream, at(1, 2, 3), expected=None)  # nothing to do, nothing done
    member.close()
    store.write(stream, at(4, 5, 6), expected=at(1, 2, 3))
    assert store.position(stream) == at(4, 5, 6)


def test_a_member_that_joins_before_the_write(
    store: KafkaGroupStore, cluster: RealCluster, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker answers for each partition, and raises nothing."""
    store.write(stream, at(1, 2, 3), expected=None)
    joined: list[Consumer] = []
    look = store._require_empty

    def look_and_let_in(group_id: str) -> None:
        look(group_id)
        joined.append(consumer_of(cluster, group_id))

    monkeypatch.setattr(store, "_require_empty", look_and_let_in)
    with pytest.raises(StoreInUse, match=r"got a member before the write \(UNKNOWN_MEMBER_ID\)"):
        store.write(stream, at(4, 5, 6), expected=at(1, 2, 3))
    joined[0].close()
    assert store.position(stream) == at(1, 2, 3)


def test_another_writer_of_the_same_moment_is_seen(
    store: KafkaGroupStore, cluster: RealCluster, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter = store._alter

    def alter_and_be_overwritten(group_id: str, request: list[Asked]) -> None:
        alter(group_id, request)
        cluster.commit(group_id, {TopicPartition(TOPIC, 1): 9})

    monkeypatch.setattr(store, "_alter", alter_and_be_overwritten)
    with pytest.raises(StateChanged, match=r'"1":9.*right after the write'):
        store.write(stream, at(1, 2, 3), expected=None)


# Further fields of a commit


def committed(cluster: RealCluster, clients: Clients, stream: Stream) -> dict[int, tuple[int, int | None, str | None]]:
    partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    found = AdminCalls(clients, DEADLINE_S).commits(stream.group_id, partitions, time.monotonic() + DEADLINE_S)
    return {each.partition: tuple(commit) for each, commit in found.items()}


def test_the_leader_epoch_is_kept_where_it_is_known(
    store: KafkaGroupStore, cluster: RealCluster, clients: Clients, stream: Stream
) -> None:
    before = [Asked(TOPIC, number, 3, "job-7", 0) for number in range(PARTITIONS)]
    cluster.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(stream.group_id, before)])[
        stream.group_id
    ].result()
    assert set(committed(cluster, clients, stream).values()) == {(3, 0, "job-7")}

    store.write(stream, at(3, 5, RECORDS), expected=at(3, 3, 3))

    kept = committed(cluster, clients, stream)
    assert kept[0] == (3, 0, "job-7"), "it did not move"
    assert kept[1][:2] == (5, None), "nobody knows the epoch of a record in the middle"
    assert kept[2][:2] == (RECORDS, 0), "the end has the epoch of the end"
    assert store.leader_epochs(stream) == {TopicPartition(TOPIC, 0): 0, TopicPartition(TOPIC, 2): 0}


# What deletes commits


def test_when_the_offsets_of_a_group_are_deleted(store: KafkaGroupStore, stream: Stream) -> None:
    assert isinstance(store, ExpiringPositions)
    assert store.expires(stream) == (
        f"Kafka deletes the offsets of group '{stream.group_id}' 7 days (offsets.retention.minutes=10080)"
        " after its last member left; of a group that never had members, that long after each commit"
    )


def test_a_broker_that_does_not_answer(stream: Stream) -> None:
    with open_clients({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}) as clients:
        lost = KafkaGroupStore(clients, timeout_s=0.3)
        for call in (
            lambda: lost.position(stream),
            lambda: lost.write(stream, at(1), expected=None),
            lambda: lost.expires(stream),
        ):
            with pytest.raises(KafkaUnreachable, match=r"No answer from Kafka at 127\.0\.0\.1:1"):
                call()
