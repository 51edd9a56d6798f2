"""A group's coordinator that moves, played by the mock cluster of librdkafka (``rdkafka_mock.h``).

The real clients speak to it over TCP, so what would crash them does.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, cimpl
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked

from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import InputRefused, KafkaError, KafkaUnreachable
from airflow_provider_offsets.kafka.calls import AdminCalls, Clients, Commit, open_clients

ROOT = Path(__file__).parents[3]
OFFSET_FETCH, FIND_COORDINATOR = 9, 10
PARTITIONS = (TopicPartition("orders", 0), TopicPartition("orders", 1))
DEADLINE_S = 120.0
"""Only a failing test waits this long."""


class MockCluster:
    """One broker with the topic ``orders`` of two partitions."""

    def __init__(self) -> None:
        # librdkafka is found through this module, which is linked with it.
        self._library = ctypes.CDLL(cimpl.__file__)
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        handle = self._call("new", pointer, (ctypes.c_int, 0), (pointer, self._quiet()), (pointer, None), (pointer, 0))
        self._handle = (pointer, handle)
        self._cluster = (pointer, self._call("mock_cluster_new", pointer, self._handle, (ctypes.c_int, 1)))
        self._call("mock_topic_create", None, self._cluster, (text, b"orders"), (ctypes.c_int, 2), (ctypes.c_int, 1))
        self.bootstrap_servers = self._call("mock_cluster_bootstraps", text, self._cluster).decode()

    def refuse(self, request: int, *codes: int) -> None:
        """Answer the next requests of that kind with these errors, one each."""
        errors = (ctypes.c_int * len(codes))(*codes)
        self._call(
            "mock_push_request_errors_array",
            None,
            self._cluster,
            (ctypes.c_int16, request),
            (ctypes.c_size_t, len(codes)),
            (type(errors), errors),
        )

    def close(self) -> None:
        self._call("mock_cluster_destroy", None, self._cluster)
        self._call("destroy", None, self._handle)

    def _quiet(self) -> int:
        settings = (ctypes.c_void_p, self._call("conf_new", ctypes.c_void_p))
        pairs = {b"log_level": b"0", b"bootstrap.servers": b"127.0.0.1:1"}
        for name, value in pairs.items():
            words = ((ctypes.c_char_p, name), (ctypes.c_char_p, value))
            self._call("conf_set", ctypes.c_int, settings, *words, (ctypes.c_void_p, None), (ctypes.c_size_t, 0))
        return settings[1]

    def _call(self, name, result, *arguments):  # type: ignore[no-untyped-def]
        function = getattr(self._library, f"rd_kafka_{name}")
        function.restype = result
        function.argtypes = [kind for kind, _ in arguments]
        return function(*(value for _, value in arguments))


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    made = MockCluster()
    yield made
    made.close()


@pytest.fixture
def clients(cluster: MockCluster) -> Iterator[Clients]:
    with open_clients({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0}) as opened:
        commit = ConsumerGroupTopicPartitions("billing", [Asked("orders", 0, 5)])
        opened.admin.alter_consumer_group_offsets([commit])["billing"].result()
        yield opened


def commits(clients: Clients, timeout_s: float) -> dict[TopicPartition, Commit]:
    calls = AdminCalls(clients, timeout_s)
    return calls.commits("billing", PARTITIONS, calls.deadline())


@pytest.mark.parametrize("request_kind", [OFFSET_FETCH, FIND_COORDINATOR], ids=["commits", "coordinator"])
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(Code.NOT_COORDINATOR, id="it moved, or its log is not loaded: right after a restart"),
        pytest.param(Code.COORDINATOR_NOT_AVAILABLE, id="none is elected: the first group of a cluster"),
        pytest.param(Code.COORDINATOR_LOAD_IN_PROGRESS, id="it reads its log"),
    ],
)
def test_a_coordinator_that_moves_is_asked_again(
    cluster: MockCluster, clients: Clients, code: int, request_kind: int
) -> None:
    cluster.refuse(request_kind, code, code)

    assert {each: commit.offset for each, commit in commits(clients, DEADLINE_S).items()} == {PARTITIONS[0]: 5}


def test_a_coordinator_that_never_becomes_available_is_unreachable(cluster: MockCluster, clients: Clients) -> None:
    cluster.refuse(OFFSET_FETCH, *[Code.NOT_COORDINATOR] * 1000)
    with pytest.raises(KafkaUnreachable, match="Not coordinator") as caught:
        commits(clients, 1.5)
    assert caught.value.retriable


def test_a_group_without_describe_access_is_refused_and_not_unreachable(cluster: MockCluster, clients: Clients) -> None:
    cluster.refuse(FIND_COORDINATOR, *[Code.GROUP_AUTHORIZATION_FAILED] * 1000)
    with pytest.raises(KafkaError, match="GROUP_AUTHORIZATION_FAILED") as caught:
        commits(clients, DEADLINE_S)
    assert not caught.value.retriable


def test_a_group_that_begins_with_a_space_is_not_read_as_another_one(clients: Clients) -> None:
    calls = AdminCalls(clients, DEADLINE_S)
    with pytest.raises(InputRefused, match="' billing' begins with a space"):
        calls.commits(" billing", PARTITIONS, calls.deadline())
    assert calls.commits("billing ", PARTITIONS, calls.deadline()) == {}, "the client keeps a space at the end"


def test_nothing_asks_the_admin_client_for_commits() -> None:
    """The admin client crashes the process at *not coordinator*: see ``kafka/calls.py``."""
    deadly = "list_consumer_group" + "_offsets("
    files = [path for folder in ("airflow_provider_offsets", "demo", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100

    assert [str(path) for path in files if deadly in path.read_text(encoding="utf-8")] == []


def test_the_admin_client_still_crashes(tmp_path: Path) -> None:
    """Once this test fails, librdkafka is fixed, and its admin client may be used again."""
    asking = (
        "from tests.unit.kafka.test_coordinator import *\n"
        "cluster = MockCluster()\n"
        "with open_clients({'bootstrap.servers': cluster.bootstrap_servers, 'log_level': 0}) as clients:\n"
        "    cluster.refuse(OFFSET_FETCH, Code.NOT_COORDINATOR)\n"
        "    asked = clients.admin.list_consumer_group" + "_offsets([ConsumerGroupTopicPartitions('billing')])\n"
        "    asked['billing'].exception()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", asking],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == -11, ended.stderr
