"""How the reader handles answers that one healthy broker does not return."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import KafkaError, KafkaUnreachable, PartitionUnavailable, TopicMissing
from airflow_provider_offsets.kafka import calls
from airflow_provider_offsets.kafka import reader as module
from airflow_provider_offsets.kafka.calls import SILENCE, Clients
from airflow_provider_offsets.kafka.reader import KafkaReader

HERE = object()
NO_WORDS = {"leader_epoch": None, "metadata": None}


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


def refusal(code: int) -> KafkaException:
    return KafkaException(Code(code))


class ScriptedAdmin:
    """An admin client with scripted answers: one topic ``orders`` of two partitions, unless a field says otherwise."""

    def __init__(self) -> None:
        self.leaders: list[object | None] = [HERE, HERE]
        self.topic: Exception | None = None
        self.cluster: Exception | Any = SimpleNamespace(cluster_id="cluster")
        self.offsets: list[Exception | None] = []
        """One error for each call of list_offsets, until they are used up; None means success."""
        self.calls = 0

    def describe_cluster(self, **_: Any) -> Future[Any]:
        return answered(self.cluster)

    def describe_topics(self, asked: Any, **_: Any) -> dict[str, Future[Any]]:
        parts = [SimpleNamespace(id=number, leader=leader) for number, leader in enumerate(self.leaders)]
        topic = SimpleNamespace(name="orders", topic_id="a+b/c", partitions=parts)
        return {"orders": answered(self.topic or topic)}

    def list_offsets(self, asked: dict[Any, Any], **_: Any) -> dict[Any, Future[Any]]:
        self.calls += 1
        refused = self.offsets.pop(0) if self.offsets else None
        return {key: answered(refused or SimpleNamespace(offset=5, leader_epoch=None)) for key in asked}


class ScriptedConsumer:
    """A consumer with scripted answers, for any group."""

    def __init__(self) -> None:
        self.commits: list[Any] = []
        self.refusals: list[Exception] = []
        """One error for each call of committed, until they are used up."""
        self.events: list[int] = []
        """Errors in its queue."""
        self.asked: list[Any] = []
        self.closed = False

    def committed(self, asked: list[Any], timeout: float) -> list[Any]:
        self.asked = asked
        if self.refusals:
            raise self.refusals.pop(0)
        return self.commits

    def poll(self, timeout: float) -> Any:
        assert timeout == 0
        code = self.events.pop(0) if self.events else None
        return None if code is None else SimpleNamespace(error=lambda: Code(code))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def admin(clock: object) -> ScriptedAdmin:
    return ScriptedAdmin()


@pytest.fixture
def consumer() -> ScriptedConsumer:
    return ScriptedConsumer()


def read_group(admin: ScriptedAdmin, consumer: ScriptedConsumer, timeout_s: float = 30) -> dict[TopicPartition, int]:
    clients = Clients(admin, lambda group_id: consumer, "broker:9092")  # type: ignore[arg-type,return-value]
    try:
        return dict(KafkaReader(clients, timeout_s).committed("billing", ["orders"]))
    finally:
        assert consumer.closed


def read(admin: ScriptedAdmin, timeout_s: float = 0.05) -> KafkaReader:
    return KafkaReader(Clients(admin, pytest.fail, "broker:9092"), timeout_s)  # type: ignore[arg-type]


def test_a_partition_without_leader_is_named(admin: ScriptedAdmin) -> None:
    admin.leaders = [HERE, None]
    with pytest.raises(PartitionUnavailable, match=r"orders\[1\] cannot be read at the moment \(no leader\)"):
        read(admin).live_topics(["orders"])
    assert admin.calls == 0


def test_commits_need_no_leader(admin: ScriptedAdmin, consumer: ScriptedConsumer) -> None:
    admin.leaders = [None, None]
    consumer.commits = [SimpleNamespace(topic="orders", partition=1, offset=9, error=None, **NO_WORDS)]

    assert read_group(admin, consumer) == {TopicPartition("orders", 1): 9}
    assert [(each.topic, each.partition) for each in consumer.asked] == [("orders", 0), ("orders", 1)]


@pytest.mark.parametrize("code", sorted(SILENCE))
def test_a_group_without_coordinator_is_asked_again(
    admin: ScriptedAdmin, consumer: ScriptedConsumer, code: int
) -> None:
    consumer.refusals = [refusal(code), refusal(code)]
    consumer.commits = [SimpleNamespace(topic="orders", partition=1, offset=9, error=None, **NO_WORDS)]

    assert read_group(admin, consumer) == {TopicPartition("orders", 1): 9}


def test_a_group_without_coordinator_is_given_up_at_the_deadline(
    admin: ScriptedAdmin, consumer: ScriptedConsumer
) -> None:
    consumer.refusals = [refusal(Code.NOT_COORDINATOR)] * 1000
    with pytest.raises(KafkaUnreachable, match=r"within 0.05 s \(Broker: Not coordinator\)"):
        read_group(admin, consumer, timeout_s=0.05)


def test_the_error_names_why_the_consumer_did_not_reach_its_coordinator(
    admin: ScriptedAdmin, consumer: ScriptedConsumer
) -> None:
    """The consumer answers *timed out* for every cause: the cause is in its queue, after irrelevant entries."""
    consumer.refusals = [refusal(Code._TIMED_OUT)] * 3
    consumer.events = [Code._ALL_BROKERS_DOWN, Code.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(KafkaError, match=r"consumer group 'billing': GROUP_AUTHORIZATION_FAILED") as caught:
        read_group(admin, consumer)
    assert not caught.value.retriable


@pytest.mark.parametrize("code", sorted(module.TRANSIENT))
def test_an_unsettled_partition_is_asked_again(admin: ScriptedAdmin, code: int) -> None:
    admin.offsets = [refusal(code), refusal(code)]

    assert len(read(admin, timeout_s=30).live_topics(["orders"]).end) == 2


def test_an_unsettled_partition_is_given_up_at_the_deadline(admin: ScriptedAdmin) -> None:
    admin.offsets = [refusal(Code.NOT_LEADER_FOR_PARTITION)] * 1000
    with pytest.raises(PartitionUnavailable, match="NOT_LEADER_FOR_PARTITION"):
        read(admin).live_topics(["orders"])


def test_a_topic_that_is_deleted_between_two_questions_is_missing(admin: ScriptedAdmin) -> None:
    admin.offsets = [refusal(Code.UNKNOWN_TOPIC_OR_PART)]
    answers = iter([None, refusal(Code.UNKNOWN_TOPIC_OR_PART)])
    describe = admin.describe_topics

    def describe_then_forget(asked: Any, **kwargs: Any) -> dict[str, Future[Any]]:
        admin.topic = next(answers)
        return describe(asked, **kwargs)

    admin.describe_topics = describe_then_forget  # type: ignore[method-assign]
    with pytest.raises(TopicMissing, match="'orders' are not in Kafka at broker:9092"):
        read(admin, timeout_s=30).live_topics(["orders"])


def test_a_refusal_is_not_retriable_and_says_what_to_grant(admin: ScriptedAdmin) -> None:
    admin.topic = refusal(Code.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaError, match=r"TOPIC_AUTHORIZATION_FAILED.*Grant DESCRIBE") as caught:
        read(admin).live_topics(["orders"])
    assert not caught.value.retriable


def test_a_commit_that_cannot_be_read_is_an_error_and_not_omitted(
    admin: ScriptedAdmin, consumer: ScriptedConsumer
) -> None:
    refused = Code(Code.TOPIC_AUTHORIZATION_FAILED)
    consumer.commits = [SimpleNamespace(topic="orders", partition=0, offset=-1001, error=refused)]
    with pytest.raises(KafkaError, match=r"orders\[0\]: TOPIC_AUTHORIZATION_FAILED"):
        read_group(admin, consumer)


def test_a_partition_that_was_asked_for_and_never_committed_is_left_out(
    admin: ScriptedAdmin, consumer: ScriptedConsumer
) -> None:
    consumer.commits = [SimpleNamespace(topic="orders", partition=0, offset=-1001, error=None)]

    assert read_group(admin, consumer) == {}


@pytest.mark.parametrize("code", sorted(SILENCE))
def test_silence_is_unreachable(admin: ScriptedAdmin, code: int) -> None:
    admin.cluster = refusal(code)
    with pytest.raises(KafkaUnreachable, match=r"No answer from Kafka at broker:9092 within 0.05 s") as caught:
        read(admin).live_topics(["orders"])
    assert caught.value.retriable


def test_a_client_that_never_answers_is_not_waited_for(admin: ScriptedAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "GRACE_S", 0.01)
    admin.describe_cluster = lambda **_: Future()  # type: ignore[method-assign]
    with pytest.raises(KafkaUnreachable, match="the client itself gave no answer"):
        read(admin).live_topics(["orders"])


def test_the_id_is_in_the_alphabet_of_kafkas_tools(admin: ScriptedAdmin) -> None:
    assert read(admin, timeout_s=30).live_topics(["orders"]).identity.topic_ids == {"orders": "a-b_c"}
