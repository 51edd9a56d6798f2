"""The URL of a ZooKeeper, and the valid names of a znode."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import InputRefused, StoreClientMissing
from airflow_provider_offsets.stores import open_positions, open_store
from airflow_provider_offsets.stores.zookeeper.layout import Address, ancestors, is_znode_name, parse_url, topic_paths
from tests.contract.position_contract import GROUPS, TOPICS


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("zookeeper://h", Address("h:2181")),
        ("zookeeper://h:2182/", Address("h:2182")),
        ("zookeeper://h:2181,h2,10.0.0.3:2183/kafka/live/", Address("h:2181,h2:2181,10.0.0.3:2183", "/kafka/live")),
        ("zookeeper://[::1],[fe80::2]:2182/k", Address("[::1]:2181,[fe80::2]:2182", "/k")),
        ("zookeeper://me:p%40ss%2Fw%3Ard@h/k", Address("h:2181", "/k", "me", "p@ss/w:rd")),
        ("zookeeper://me:a:b@h,h2", Address("h:2181,h2:2181", "", "me", "a:b")),
    ],
)
def test_what_a_url_says(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert str(address) == f"zookeeper://{address.hosts}{address.chroot}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("zookeeper:h", "no //"),
        ("zookeeper://", "no host"),
        ("zookeeper:///chroot", "no host"),
        ("zookeeper://h,,h2", "an empty host"),
        ("zookeeper://h:port", "no number"),
        ("zookeeper://h:0", "no port"),
        ("zookeeper://h:65536", "no port"),
        ("zookeeper://h:1:2", "two ports"),
        ("zookeeper://me@h", "a user alone: digest takes two"),
        ("zookeeper://:hunter2@h", "a password alone"),
        ("zookeeper://me:hunter2/x@h", "a password that was not quoted: what it cuts off is no host"),
        ("zookeeper://me:2181/hunter2@h", "the same, and what it cuts off looks like one"),
        ("zookeeper://me:hunter2@h/k?tls=1", "options"),
        ("zookeeper://me:hunter2@h/a/../b", "a part that leads elsewhere"),
        ("zookeeper://me:hunter2@h/a//b", "an empty part"),
        ("zookeeper://me:hunter2@h/./b", "a part that leads nowhere"),
        ("zookeeper://me:hunter2@h/a\x00b", "NUL"),
    ],
)
def test_urls_that_lead_to_no_zookeeper(url: str, reason: str) -> None:
    with pytest.raises(InputRefused, match=r"zookeeper://host:2181,host2:2181/chroot") as refused:
        parse_url(url)
    assert "hunter2" not in str(refused.value)


def test_a_password_is_in_no_text_of_an_address() -> None:
    address = parse_url("zookeeper://me:hunter2@h/k")
    assert "hunter2" not in f"{address} {address!r} {open_positions('zookeeper://me:hunter2@h/k')!r}"


@given(group=GROUPS, topic=TOPICS)
def test_a_legal_name_is_one_part_of_its_own(group: str, topic: str) -> None:
    """No group leads to another one's znodes: a valid name is used unchanged between two slashes."""
    try:
        path = topic_paths("/k", Stream(group, (topic,)))[topic]
    except InputRefused:
        assert not is_znode_name(group)
        return
    assert path.split("/") == ["", "k", "consumers", group, "offsets", topic]
    assert ancestors("/k", path)[-1] == path


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\x00", "a\n", "a\x7f", "\x85", "\ue000", "\uffff", "🎉"])
def test_names_that_zookeeper_refuses(name: str) -> None:
    assert not is_znode_name(name)


@pytest.mark.parametrize("name", ["g:0", "g ", "...", "é", "a\u2028b", "\ufeff", "g%2F"])
def test_names_that_zookeeper_takes(name: str) -> None:
    assert is_znode_name(name)


def test_the_znodes_above_a_topic() -> None:
    path = topic_paths("", Stream("g", ("t",)))["t"]
    assert ancestors("", path) == ["/consumers", "/consumers/g", "/consumers/g/offsets", "/consumers/g/offsets/t"]


def test_zookeeper_is_no_store_for_history_and_control() -> None:
    with pytest.raises(InputRefused, match="ZooKeeper keeps positions only") as refused:
        open_store("zookeeper://me:hunter2@h/k")
    assert "hunter2" not in str(refused.value)


def test_a_missing_client_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "airflow_provider_offsets.stores.zookeeper.store", raising=False)
    monkeypatch.delitem(sys.modules, "airflow_provider_offsets.stores.zookeeper.client", raising=False)
    for name in ("kazoo", "kazoo.client", "kazoo.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreClientMissing, match=r"kazoo>=2\.10,<3"):
        open_positions("zookeeper://h/k")
