"""The contract over a real ZooKeeper: the one that HBase brings along."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from kazoo.client import KazooClient

from airflow_provider_offsets.stores.zookeeper import ZooKeeperStore
from airflow_provider_offsets.stores.zookeeper_layout import Address, is_znode_name
from stack import endpoints
from tests.contract.position_contract import GROUPS, AtomicPositionContract

TIMEOUT_S = 20.0


@pytest.fixture(scope="session")
def hosts() -> str:
    """Where ZooKeeper answers. Without one the tests are skipped; in CI, where one is promised, they fail."""
    entry = endpoints().get("hbase")
    if entry is None:
        missing = "no ZooKeeper is up: `python3 -m stack up hbase` starts one"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return str(entry["zookeeper"])


@pytest.fixture(scope="module")
def raw(hosts: str) -> Iterator[Any]:
    """A plain session, as a job that knows nothing of this provider has one."""
    client = KazooClient(hosts)
    client.start(TIMEOUT_S)
    yield client
    client.stop()
    client.close()


@pytest.fixture(scope="module")
def chroot(raw: Any) -> Iterator[str]:
    """A chroot that no other module has."""
    path = f"/positions-{uuid.uuid4().hex[:10]}"
    raw.create(path)
    yield path
    raw.delete(path, recursive=True)


@pytest.fixture
def store(hosts: str, chroot: str) -> Iterator[ZooKeeperStore]:
    made = ZooKeeperStore(Address(hosts, chroot), timeout_s=TIMEOUT_S)
    yield made
    made.close()


class TestZooKeeper(AtomicPositionContract):
    GROUPS: st.SearchStrategy[str] = GROUPS.filter(lambda group: is_znode_name(f"x{group}"))
