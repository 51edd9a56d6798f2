"""Consumer groups of a broker with ACLs: what its user may not do is denied and reported, and changes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import KafkaUnreachable, StoreDenied
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.group_store import KafkaGroupStore
from tests.contract.position_contract import numbered
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster, until
from tests.integration.kafka.secured import PASSWORD, SecuredBroker

DESCRIBE, READ = AclOperation.DESCRIBE, AclOperation.READ
RECORDS = 9


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    made = SecuredBroker(tmp_path_factory.mktemp("secured"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def cluster(broker: SecuredBroker) -> Iterator[RealCluster]:
    made = RealCluster(broker.administrator)
    yield made
    made.clean()


@pytest.fixture
def both(cluster: RealCluster) -> Stream:
    """Return a group whose position is 3 in each of two topics."""
    own = uuid.uuid4().hex[:8]
    stream = Stream(f"group-{own}", (f"orders-{own}", f"refunds-{own}"))
    for topic in stream.topics:
        cluster.create_topic(topic, 1, **{"retention.ms": "-1"})
        cluster.append(topic, 0, RECORDS)
    cluster.commit(stream.group_id, {TopicPartition(topic, 0): 3 for topic in stream.topics})
    return stream


def at(stream: Stream, *offsets: int) -> Position:
    [first, second] = (numbered(topic, offset) for topic, offset in zip(stream.topics, offsets, strict=True))
    return first.updated(second)


@contextmanager
def hers(broker: SecuredBroker, password: str = PASSWORD, timeout_s: float = DEADLINE_S) -> Iterator[KafkaGroupStore]:
    with open_clients(broker.settings(password)) as clients:
        yield KafkaGroupStore(clients, timeout_s)


def standing(cluster: RealCluster, stream: Stream) -> object:
    return KafkaGroupStore(cluster.clients, DEADLINE_S).position(stream)


def grant(
    broker: SecuredBroker, stream: Stream, group: tuple[AclOperation, ...], *topics: tuple[AclOperation, ...]
) -> None:
    broker.grant(ResourceType.GROUP, stream.group_id, *group)
    for topic, operations in zip(stream.topics, topics, strict=True):
        broker.grant(ResourceType.TOPIC, topic, *operations)


def wait_until_granted(store: KafkaGroupStore, stream: Stream) -> None:
    """Wait until the broker knows all rights: it learns of each from the controller, one after the other."""

    def is_read() -> bool:
        with suppress(StoreDenied):
            return store.position(stream) == at(stream, 3, 3)
        return False

    until(is_read, "the rights are known to the broker")


@pytest.mark.parametrize(
    ("group", "first", "second", "reason"),
    [
        ((), (), (), "a user without any right"),
        ((DESCRIBE,), (), (), "none on the topics: they are not said to be missing"),
        ((DESCRIBE,), (DESCRIBE,), (), "none on one of the topics"),
        ((), (DESCRIBE,), (DESCRIBE,), "none on the group: it is not said to have stored nothing"),
    ],
)
def test_a_user_without_describe_access(
    broker: SecuredBroker,
    cluster: RealCluster,
    both: Stream,
    group: tuple[AclOperation, ...],
    first: tuple[AclOperation, ...],
    second: tuple[AclOperation, ...],
    reason: str,
) -> None:
    grant(broker, both, group, first, second)
    with hers(broker) as store:
        for call in (lambda: store.position(both), lambda: store.write(both, at(both, 5, 5), expected=at(both, 3, 3))):
            with pytest.raises(StoreDenied, match=rf"'{both.group_id}' to this user: \w+_AUTHORIZATION_FAILED"):
                call()
    assert standing(cluster, both) == at(both, 3, 3)


@pytest.mark.parametrize(
    ("group", "first", "second", "shown", "reason"),
    [
        ((DESCRIBE,), (DESCRIBE,), (DESCRIBE,), "no READ on topic 'orders", "who may look may not write"),
        ((DESCRIBE,), (READ,), (READ,), "GROUP_AUTHORIZATION_FAILED", "all rights on the topics are not enough"),
        ((READ,), (READ,), (DESCRIBE,), "no READ on topic 'refunds", "the broker would write the other topic's half"),
    ],
)
def test_a_user_with_describe_access_only_writes_nothing(
    broker: SecuredBroker,
    cluster: RealCluster,
    both: Stream,
    group: tuple[AclOperation, ...],
    first: tuple[AclOperation, ...],
    second: tuple[AclOperation, ...],
    shown: str,
    reason: str,
) -> None:
    grant(broker, both, group, first, second)
    with hers(broker) as store:
        wait_until_granted(store, both)
        with pytest.raises(StoreDenied, match=shown):
            store.write(both, at(both, 5, 5), expected=at(both, 3, 3))
    assert standing(cluster, both) == at(both, 3, 3)


def test_who_has_the_rights_that_are_documented_may_write(
    broker: SecuredBroker, cluster: RealCluster, both: Stream
) -> None:
    grant(broker, both, (READ,), (READ,), (READ,))
    with hers(broker) as store:
        wait_until_granted(store, both)
        store.write(both, at(both, 5, 2), expected=at(both, 3, 3))
        assert "7 days by default; this user may not see it" in store.expires(both)
    assert standing(cluster, both) == at(both, 5, 2)


def test_the_retention_of_the_broker_is_reported(broker: SecuredBroker, cluster: RealCluster, both: Stream) -> None:
    shown = KafkaGroupStore(cluster.clients, DEADLINE_S).expires(both)
    assert "90 minutes (offsets.retention.minutes=90) after its last member left" in shown


def test_a_wrong_password_is_reported_without_the_password(broker: SecuredBroker, both: Stream) -> None:
    with hers(broker, "wrong-secret", timeout_s=3) as store:
        for call in (lambda: store.position(both), lambda: store.write(both, at(both, 5, 5), expected=None)):
            with pytest.raises(KafkaUnreachable) as refused:
                call()
            assert "wrong-secret" not in f"{refused.value} {refused.value.__cause__}"
