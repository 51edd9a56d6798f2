"""What the reader makes of answers that one healthy broker does not give."""

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
from airflow_provider_offsets.kafka.calls import SILENCE
from airflow_provider_offsets.kafka.reader import KafkaReader

HERE = object()


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
    """Answers as told: one topic ``orders`` of two partitions, unless a field says otherwise."""

    def __init__(self) -> None:
        self.leaders: list[object | None] = [HERE, HERE]
        self.topic: Exception | None = None
        self.cluster: Exception | Any = SimpleNamespace(cluster_id="cluster")
        self.offsets: list[Exception | None] = []
        """One for each call of list_offsets, until they are used up; None is a good answer."""
        self.group: Exception | Any = None
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

    def list_consumer_group_offsets(self, asked: Any, **_: Any) -> dict[str, Future[Any]]:
        return {"billing": answered(self.group)}


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> ScriptedAdmin:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    return ScriptedAdmin()


def read(admin: ScriptedAdmin, timeout_s: float = 0.05) -> KafkaReader:
    return KafkaReader(admin, timeout_s=timeout_s, bootstrap_servers="broker:9092")  # type: ignore[arg-type]


def test_a_partition_without_leader_is_named(admin: ScriptedAdmin) -> None:
    admin.leaders = [HERE, None]
    with pytest.raises(PartitionUnavailable, match=r"orders\[1\] cannot be asked just now \(no leader\)"):
        read(admin).live_topics(["orders"])
    assert admin.calls == 0


def test_commits_need_no_leader(admin: ScriptedAdmin) -> None:
    admin.leaders = [None, None]
    commit = SimpleNamespace(topic="orders", partition=1, offset=9, error=None, leader_epoch=None, metadata=None)
    admin.group = SimpleNamespace(topic_partitions=[commit])

    assert dict(read(admin).committed("billing", ["orders"])) == {TopicPartition("orders", 1): 9}


@pytest.mark.parametrize("code", sorted(module.UNSETTLED))
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
    with pytest.raises(KafkaError, match=r"TOPIC_AUTHORIZATION_FAILED.*grant DESCRIBE") as caught:
        read(admin).live_topics(["orders"])
    assert not caught.value.retriable


def test_a_commit_that_cannot_be_told_is_an_error_and_not_left_out(admin: ScriptedAdmin) -> None:
    broken = SimpleNamespace(topic="orders", partition=0, offset=-1001, error=Code(Code.GROUP_AUTHORIZATION_FAILED))
    admin.group = SimpleNamespace(topic_partitions=[broken])
    with pytest.raises(KafkaError, match="GROUP_AUTHORIZATION_FAILED"):
        read(admin).committed("billing", ["orders"])


def test_a_partition_that_was_asked_for_and_never_committed_is_left_out(admin: ScriptedAdmin) -> None:
    none = SimpleNamespace(topic="orders", partition=0, offset=-1001, error=None)
    admin.group = SimpleNamespace(topic_partitions=[none])

    assert len(read(admin).committed("billing", ["orders"])) == 0


@pytest.mark.parametrize("code", sorted(SILENCE))
def test_silence_is_unreachable(admin: ScriptedAdmin, code: int) -> None:
    admin.cluster = refusal(code)
    with pytest.raises(KafkaUnreachable, match=r"no answer from Kafka at broker:9092 within 0.05 s") as caught:
        read(admin).live_topics(["orders"])
    assert caught.value.retriable


def test_a_client_that_never_answers_is_not_waited_for(admin: ScriptedAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "GRACE_S", 0.01)
    admin.describe_cluster = lambda **_: Future()  # type: ignore[method-assign]
    with pytest.raises(KafkaUnreachable, match="the client itself gave no answer"):
        read(admin).live_topics(["orders"])


def test_the_id_is_in_the_alphabet_of_kafkas_tools(admin: ScriptedAdmin) -> None:
    assert read(admin, timeout_s=30).live_topics(["orders"]).identity.topic_ids == {"orders": "a-b_c"}
