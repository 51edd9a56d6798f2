"""How the store of consumer groups handles answers that one healthy broker does not return."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import (
    InputRefused,
    KafkaError,
    KafkaUnreachable,
    OffsetsError,
    StoreDenied,
    StoreInUse,
)
from airflow_provider_offsets.kafka.calls import Clients
from airflow_provider_offsets.kafka.group_store import KafkaGroupStore
from tests.contract.position_contract import numbered

STREAM = Stream("billing", ("orders",))
STORED, WANTED = numbered("orders", 1, 2), numbered("orders", 3, 4)
END = 5


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class Cluster:
    """One topic ``orders`` of two partitions and one group ``billing``: admin client and consumer in one.

    ``refused[method]`` is the code that the method answers instead of its result.
    """

    def __init__(self) -> None:
        self.commits = {0: 1, 1: 2}
        self.state = ConsumerGroupState.EMPTY
        self.refused: dict[str, int] = {}
        self.refused_partitions: dict[int, int] = {}
        self.answers_to_a_write: Callable[[], None] = lambda: None
        """Called after the write, before its answer."""
        self.settings: dict[str, Any] = {"offsets.retention.minutes": SimpleNamespace(value="10080")}

    def _answer(self, method: str, value: Any) -> Future[Any]:
        code = self.refused.get(method)
        return answered(value if code is None else KafkaException(Code(code)))

    def describe_cluster(self, **_: Any) -> Future[Any]:
        return self._answer(
            "describe_cluster", SimpleNamespace(cluster_id="cluster", nodes=[SimpleNamespace(id=1, host="broker")])
        )

    def describe_topics(self, asked: Any, **_: Any) -> dict[str, Future[Any]]:
        parts = [SimpleNamespace(id=number, leader=object()) for number in range(2)]
        topic = SimpleNamespace(name="orders", topic_id="id", partitions=parts, authorized_operations=None)
        return {"orders": self._answer("describe_topics", topic)}

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        begin = "Earliest" in type(next(iter(asked.values()))).__name__
        offset = 0 if begin else END
        return {key: self._answer("list_offsets", SimpleNamespace(offset=offset, leader_epoch=None)) for key in asked}

    def describe_consumer_groups(self, asked: list[str], **_: Any) -> dict[str, Future[Any]]:
        group = SimpleNamespace(state=self.state, members=[])
        return {asked[0]: self._answer("describe_consumer_groups", group)}

    def alter_consumer_group_offsets(self, asked: list[Any], **_: Any) -> dict[str, Future[Any]]:
        [request] = asked
        for each in request.topic_partitions:
            if each.partition not in self.refused_partitions and "alter_consumer_group_offsets" not in self.refused:
                self.commits[each.partition] = each.offset
        shown = [
            SimpleNamespace(topic=each.topic, partition=each.partition, error=self._error(each.partition))
            for each in request.topic_partitions
        ]
        self.answers_to_a_write()
        return {request.group_id: self._answer("alter_consumer_group_offsets", SimpleNamespace(topic_partitions=shown))}

    def _error(self, partition: int) -> Code | None:
        code = self.refused_partitions.get(partition)
        return None if code is None else Code(code)

    def describe_configs(self, asked: list[Any], **_: Any) -> dict[Any, Future[Any]]:
        return {asked[0]: self._answer("describe_configs", self.settings)}

    # the consumer

    def committed(self, asked: list[Asked], timeout: float) -> list[Any]:
        if (code := self.refused.get("committed")) is not None:
            raise KafkaException(Code(code))
        return [
            SimpleNamespace(
                topic=each.topic,
                partition=each.partition,
                offset=self.commits.get(each.partition, -1001),
                error=None,
                leader_epoch=None,
                metadata=None,
            )
            for each in asked
        ]

    def poll(self, timeout: float) -> None:
        return None

    def close(self) -> None:
        pass


@pytest.fixture
def cluster(clock: object) -> Cluster:
    return Cluster()


@pytest.fixture
def store(cluster: Cluster) -> KafkaGroupStore:
    clients = Clients(cluster, lambda group_id: cluster, "broker:9092")  # type: ignore[arg-type,return-value]
    return KafkaGroupStore(clients, timeout_s=0.3)


def stored(cluster: Cluster) -> Position:
    return numbered("orders", *cluster.commits.values())


def test_the_cluster_of_these_tests_can_be_written(store: KafkaGroupStore, cluster: Cluster) -> None:
    assert store.position(STREAM) == STORED
    store.write(STREAM, WANTED, expected=STORED)
    assert stored(cluster) == WANTED


READS = ("describe_topics", "committed")
WRITES = (*READS, "describe_cluster", "list_offsets", "describe_consumer_groups", "alter_consumer_group_offsets")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.GROUP_AUTHORIZATION_FAILED, StoreDenied),
        (Code.TOPIC_AUTHORIZATION_FAILED, StoreDenied),
        (Code.CLUSTER_AUTHORIZATION_FAILED, StoreDenied),
        (Code.COORDINATOR_NOT_AVAILABLE, KafkaUnreachable),
        (Code._TRANSPORT, KafkaUnreachable),
        (Code.INVALID_GROUP_ID, KafkaError),
    ],
)
@pytest.mark.parametrize("method", WRITES)
def test_refused_at_each_call(
    store: KafkaGroupStore, cluster: Cluster, method: str, code: int, error: type[OffsetsError]
) -> None:
    cluster.refused[method] = code
    with pytest.raises(error):
        store.write(STREAM, WANTED, expected=STORED)
    assert stored(cluster) == STORED
    if method in READS:
        with pytest.raises(error):
            store.position(STREAM)


@pytest.mark.parametrize("state", [each for each in ConsumerGroupState if each.name not in ("EMPTY", "DEAD")])
def test_unknown_is_not_empty(store: KafkaGroupStore, cluster: Cluster, state: ConsumerGroupState) -> None:
    cluster.state = state
    with pytest.raises(StoreInUse, match=f"'billing' is in state {state.name}"):
        store.write(STREAM, WANTED, expected=STORED)
    assert stored(cluster) == STORED


def test_newer_brokers_say_of_no_group_that_it_is_not_found(store: KafkaGroupStore, cluster: Cluster) -> None:
    cluster.refused["describe_consumer_groups"] = Code.GROUP_ID_NOT_FOUND
    cluster.commits = {}
    store.write(STREAM, WANTED, expected=None)
    assert stored(cluster) == WANTED


@pytest.mark.parametrize(
    ("refused", "error", "words", "reason"),
    [
        ({0: Code.UNKNOWN_MEMBER_ID, 1: Code.UNKNOWN_MEMBER_ID}, StoreInUse, "got a member", "an active group"),
        ({1: Code.REBALANCE_IN_PROGRESS}, StoreInUse, "got a member", "one partition tells it too"),
        ({1: Code.TOPIC_AUTHORIZATION_FAILED}, StoreDenied, "TOPIC_AUTHORIZATION_FAILED", "one topic is denied"),
        ({0: Code.NOT_COORDINATOR, 1: Code.NOT_COORDINATOR}, KafkaUnreachable, "No answer", "the coordinator moved"),
        ({1: Code.OFFSET_METADATA_TOO_LARGE}, KafkaError, r"1 of 2 partitions.*orders\[1\]: OFFSET_", "another one"),
    ],
)
def test_every_partition_s_own_error_is_looked_at(
    store: KafkaGroupStore,
    cluster: Cluster,
    refused: dict[int, int],
    error: type[OffsetsError],
    words: str,
    reason: str,
) -> None:
    cluster.refused_partitions = refused
    with pytest.raises(error, match=words):
        store.write(STREAM, WANTED, expected=STORED)
    assert {number: cluster.commits[number] for number in refused} == {
        number: offset for number, offset in {0: 1, 1: 2}.items() if number in refused
    }


def test_a_lost_answer_is_found_by_reading_back(store: KafkaGroupStore, cluster: Cluster) -> None:
    def lose() -> None:
        cluster.refused["alter_consumer_group_offsets"] = Code._TIMED_OUT

    cluster.answers_to_a_write = lose
    store.write(STREAM, WANTED, expected=STORED)
    assert stored(cluster) == WANTED


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        ("10080", "7 days (offsets.retention.minutes=10080) after its last member left"),
        ("1440", "1 day (offsets.retention.minutes=1440)"),
        ("90", "90 minutes (offsets.retention.minutes=90)"),
    ],
)
def test_how_long_offsets_are_kept(store: KafkaGroupStore, cluster: Cluster, minutes: str, words: str) -> None:
    cluster.settings["offsets.retention.minutes"] = SimpleNamespace(value=minutes)
    assert words in store.expires(STREAM)


def test_who_may_not_see_the_brokers_settings_is_warned_all_the_same(store: KafkaGroupStore, cluster: Cluster) -> None:
    cluster.refused["describe_configs"] = Code.CLUSTER_AUTHORIZATION_FAILED
    assert "(7 days by default; this user may not see it)" in store.expires(STREAM)


@pytest.mark.parametrize("method", ["describe_cluster", "describe_configs"])
def test_a_silent_broker_gives_no_warning_but_an_error(store: KafkaGroupStore, cluster: Cluster, method: str) -> None:
    cluster.refused[method] = Code._TRANSPORT
    with pytest.raises(KafkaUnreachable):
        store.expires(STREAM)


@pytest.mark.parametrize("wanted", [numbered("orders", 999, 4), numbered("orders", 3, 4, 5)])
def test_a_check_says_what_a_write_would_say_and_writes_nothing(
    wanted: Position, store: KafkaGroupStore, cluster: Cluster
) -> None:
    said = []
    for act in (store.check_write, store.write):
        with pytest.raises(InputRefused) as refused:
            act(STREAM, wanted, expected=STORED)
        said.append(str(refused.value))

    assert said[0] == said[1]
    store.check_write(STREAM, WANTED, expected=STORED)
    assert store.position(STREAM) == STORED


def test_a_check_sees_a_group_with_members(store: KafkaGroupStore, cluster: Cluster) -> None:
    cluster.state = ConsumerGroupState.STABLE

    with pytest.raises(StoreInUse):
        store.check_write(STREAM, WANTED, expected=STORED)
