"""A server that does not answer: each call of each store raises that, and none of them returns *nothing stored*."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import KafkaUnreachable, StoreUnreachable
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.group_store import KafkaGroupStore
from airflow_provider_offsets.stores import open_positions, open_store
from airflow_provider_offsets.stores.zookeeper.layout import Address
from airflow_provider_offsets.stores.zookeeper.store import ZooKeeperStore
from tests.contract.position_contract import numbered
from tests.contract.store_contract import NOW_MS, batch

NOBODY = "127.0.0.1:1"
STREAM = Stream("g", ("t",))

POSITIONS: dict[str, Callable[[Any], Any]] = {
    "position": lambda store: store.position(STREAM),
    "write": lambda store: store.write(STREAM, numbered("t", 1), expected=None),
}
HISTORY_AND_CONTROL: dict[str, Callable[[Any], Any]] = {
    "create": lambda store: store.create(),
    "append": lambda store: store.append(STREAM, batch(1)),
    "newest_first": lambda store: next(store.newest_first(STREAM), None),
    "oldest_first": lambda store: next(store.oldest_first(STREAM), None),
    "prepared": lambda store: store.prepared(STREAM, NOW_MS),
    "swap": lambda store: store.swap("p", "n", None, "x", stream=STREAM, prepare=batch(1).at_row(NOW_MS)),
    "get": lambda store: store.get("p", "n"),
    "check_and_put": lambda store: store.check_and_put("p", "n", None, "x"),
    "scan": lambda store: next(iter(store.scan("p", "")), None),
}
EXPIRES: dict[str, Callable[[Any], Any]] = {"expires": lambda store: store.expires(STREAM)}


@pytest.fixture
def hbase() -> Iterator[Any]:
    with closing(open_store(f"hbase://{NOBODY}/table")) as store:
        yield store


@pytest.fixture
def postgresql() -> Iterator[Any]:
    with closing(open_store(f"postgresql://user@{NOBODY}/database")) as store:
        yield store


@pytest.fixture
def zookeeper() -> Iterator[Any]:
    with closing(ZooKeeperStore(Address(NOBODY), timeout_s=0.3)) as store:
        yield store


@pytest.fixture
def kafka() -> Iterator[Any]:
    with open_clients({"bootstrap.servers": NOBODY, "log_level": 0}) as clients:
        yield KafkaGroupStore(clients, timeout_s=0.3)


CALLS = {
    "hbase": POSITIONS | HISTORY_AND_CONTROL | EXPIRES,
    "postgresql": POSITIONS | HISTORY_AND_CONTROL,
    "zookeeper": POSITIONS,
    "kafka": POSITIONS | EXPIRES,
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_each_call_says_so(request: pytest.FixtureRequest, name: str, call: str) -> None:
    store = request.getfixturevalue(name)

    with pytest.raises((StoreUnreachable, KafkaUnreachable)) as lost:
        CALLS[name][call](store)

    assert NOBODY in f"{lost.value.seen} {lost.value.expected}", "it says which server"
    assert lost.value.retriable, "the server may come back"


@pytest.mark.parametrize("url", [f"zookeeper://{NOBODY}/chroot", f"hbase://{NOBODY}/table"])
def test_opening_one_is_no_call(url: str) -> None:
    """So a DAG file with an unreachable store can be read."""
    open_positions(url).close()
