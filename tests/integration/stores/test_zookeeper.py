"""The contract over a real ZooKeeper, the one that comes with HBase."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import (
    InputRefused,
    StateChanged,
    StoreDataError,
    StoreDenied,
    StoreLayoutError,
    StoreUnreachable,
)
from airflow_provider_offsets.stores.zookeeper import layout
from airflow_provider_offsets.stores.zookeeper.client import LARGEST_REQUEST_BYTES, Change, request_bytes
from airflow_provider_offsets.stores.zookeeper.layout import Address, is_znode_name
from airflow_provider_offsets.stores.zookeeper.store import ZooKeeperStore
from stack import endpoints
from tests.contract.position_contract import GROUPS, AtomicPositionContract, numbered
from tests.e2e.proxy import Proxy as ReopenedProxy
from tests.integration.kafka.conftest import until
from tests.integration.stores.conftest import Proxy

TIMEOUT_S = 120.0


@pytest.fixture(scope="session")
def hosts() -> str:
    """Return the address of ZooKeeper. Without one the tests are skipped; in CI, where one is promised, they fail."""
    entry = endpoints().get("hbase")
    if entry is None:
        missing = "no ZooKeeper is up: `python3 -m stack up hbase` starts one"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return str(entry["zookeeper"])


@pytest.fixture(scope="module")
def raw(hosts: str) -> Iterator[Any]:
    """Yield a plain session, as a job without this provider has one."""
    client = KazooClient(hosts)
    client.start(TIMEOUT_S)
    yield client
    client.stop()
    client.close()


@pytest.fixture(scope="module")
def chroot(raw: Any) -> Iterator[str]:
    """Yield a chroot that no other module has."""
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


@pytest.fixture
def stream() -> Stream:
    return Stream(f"g-{uuid.uuid4().hex[:8]}:live", ("flights",))


@pytest.fixture
def topic_path(chroot: str, stream: Stream) -> str:
    return f"{chroot}/consumers/{stream.group_id}/offsets/flights"


def flights(*offsets: int) -> Position:
    return numbered("flights", *offsets)


# The layout


def test_a_znode_holds_the_offset_as_text(store: ZooKeeperStore, raw: Any, stream: Stream, topic_path: str) -> None:
    store.write(stream, flights(123, 0), expected=None)
    assert sorted(raw.get_children(topic_path)) == ["0", "1"]
    assert [raw.get(f"{topic_path}/{number}")[0] for number in (0, 1)] == [b"123", b"0"]


def test_what_a_job_of_the_old_kind_wrote_is_read(
    store: ZooKeeperStore, raw: Any, stream: Stream, topic_path: str
) -> None:
    for number, offset in enumerate((b"7", b"9223372036854775807")):
        raw.create(f"{topic_path}/{number}", offset, makepath=True)
    assert store.position(stream) == flights(7, LAST_OFFSET)


def test_a_topic_without_partitions_is_nothing_stored(
    store: ZooKeeperStore, raw: Any, stream: Stream, topic_path: str
) -> None:
    raw.ensure_path(topic_path)
    assert store.position(stream) is None
    store.write(stream, flights(1), expected=None)
    assert store.position(stream) == flights(1)


def test_a_partition_that_does_not_move_is_not_written(
    store: ZooKeeperStore, raw: Any, stream: Stream, topic_path: str
) -> None:
    store.write(stream, flights(1, 2), expected=None)
    store.write(stream, flights(1, 3), expected=flights(1, 2))
    assert [raw.exists(f"{topic_path}/{number}").version for number in (0, 1)] == [0, 1]


def test_it_goes_on_after_it_was_closed(store: ZooKeeperStore, stream: Stream) -> None:
    store.write(stream, flights(1), expected=None)
    store.close()
    store.close()
    assert store.position(stream) == flights(1)


@pytest.mark.parametrize(
    ("children", "named", "reason"),
    [
        ({"0": b""}, "/0'", "an empty znode"),
        ({"0": b"abc"}, "/0'", "no number"),
        ({"0": b"1", "1": b"-1"}, "/1'", "negative"),
        ({"0": b"9223372036854775808"}, "/0'", "above 2^63-1"),
        ({"0": b"1" * 5000}, "/0'", "more digits than Python converts"),
        ({"0": b"1.5"}, "/0'", "a fraction"),
        ({"0": b" 5"}, "/0'", "a space"),
        ({"0": "٣".encode()}, "/0'", "a digit to Python, and to no JVM job"),
        ({"0": b"\xff"}, "/0'", "not text"),
        ({"0": b"1", "2": b"1"}, "/1'", "half written: partition 1 is missing below the greatest"),
        ({"1": b"1"}, "/0'", "half written: partition 0 is missing"),
        ({"2147483647": b"1"}, "/0'", "the greatest partition number takes no memory"),
        ({"0": b"1", "01": b"1"}, "'01'", "two names for one partition"),
        ({"0": b"1", "owner": b"x"}, "'owner'", "a foreign child"),
        ({"0": b"1", "2147483648": b"1"}, "'2147483648'", "no number of a partition"),
    ],
)
def test_what_no_writer_of_this_form_writes(
    store: ZooKeeperStore,
    raw: Any,
    stream: Stream,
    topic_path: str,
    children: dict[str, bytes],
    named: str,
    reason: str,
) -> None:
    for name, value in children.items():
        raw.create(f"{topic_path}/{name}", value, makepath=True)
    for call in (lambda: store.position(stream), lambda: store.write(stream, flights(5), expected=None)):
        with pytest.raises(StoreDataError) as bad:
            call()
        assert topic_path in bad.value.seen
        assert named in bad.value.seen
    assert {name: raw.get(f"{topic_path}/{name}")[0] for name in raw.get_children(topic_path)} == children


@pytest.mark.parametrize("group", ["a/b", "..", ".", "🎉", "\ue000"])
def test_groups_that_no_znode_can_be_named_by(store: ZooKeeperStore, raw: Any, chroot: str, group: str) -> None:
    stream = Stream(group, ("flights",))
    before = set(raw.get_children(chroot))
    with pytest.raises(InputRefused, match="that a znode can have"):
        store.position(stream)
    with pytest.raises(InputRefused, match="that a znode can have"):
        store.write(stream, flights(1), expected=None)
    assert set(raw.get_children(chroot)) == before


# Other writers


def changed_before_the_commit(
    store: ZooKeeperStore, change: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store._client.commit

    def late(changes: Any) -> None:
        change()
        commit(changes)

    monkeypatch.setattr(store._client, "commit", late)


@pytest.mark.parametrize(
    ("change", "left", "reason"),
    [
        (lambda raw, path: raw.set(f"{path}/1", b"3"), (1, 3), "one that was to be written"),
        (lambda raw, path: raw.set(f"{path}/0", b"4"), (4, 2), "one that was to stay as it is"),
        (lambda raw, path: raw.set(f"{path}/0", b"1"), (1, 2), "the same value, by somebody else: he is at work"),
        (lambda raw, path: raw.create(f"{path}/2", b"9"), (1, 2, 9), "one that was to be made"),
        (lambda raw, path: raw.delete(f"{path}/1"), (1,), "one that has gone"),
    ],
)
def test_a_znode_that_changes_before_the_transaction_undoes_all_of_it(
    store: ZooKeeperStore,
    raw: Any,
    stream: Stream,
    topic_path: str,
    change: Callable[[Any, str], Any],
    left: tuple[int, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.write(stream, flights(1, 2), expected=None)
    changed_before_the_commit(store, lambda: change(raw, topic_path), monkeypatch)
    with pytest.raises(StateChanged, match=f"Znode '{topic_path}/[012]' was changed"):
        store.write(stream, flights(1, 20, 30), expected=flights(1, 2))
    assert store.position(stream) == flights(*left)


# Chroot and ACLs


@pytest.mark.parametrize("missing", ["/nowhere", "/positions/not/there"])
def test_a_chroot_that_is_not_there_is_not_nothing_stored(hosts: str, raw: Any, stream: Stream, missing: str) -> None:
    lost = ZooKeeperStore(Address(hosts, missing), timeout_s=TIMEOUT_S)
    with pytest.raises(StoreLayoutError, match=f"No znode '{missing}' is in zookeeper://{hosts}{missing}"):
        lost.position(stream)
    with pytest.raises(StoreLayoutError):
        lost.write(stream, flights(1), expected=None)
    lost.close()
    assert raw.exists(missing) is None


USER, PASSWORD = "jane", "pass:wo/rd @ä"
HERS = make_digest_acl(USER, PASSWORD, all=True)


def opened(hosts: str, chroot: str, user: str = "", password: str = "") -> closing[ZooKeeperStore]:
    return closing(ZooKeeperStore(Address(hosts, chroot, user, password), timeout_s=TIMEOUT_S))


@pytest.fixture
def closed_chroot(chroot: str, raw: Any, hosts: str) -> Iterator[str]:
    """Yield a chroot that only one user may read and write."""
    path = f"{chroot}/closed-{uuid.uuid4().hex[:8]}"
    raw.create(path, acl=[HERS])
    yield path
    hers = KazooClient(hosts, auth_data=[("digest", f"{USER}:{PASSWORD}")])
    hers.start(TIMEOUT_S)
    hers.delete(path, recursive=True)
    hers.stop()
    hers.close()


def test_digest_opens_what_is_closed_to_others(hosts: str, closed_chroot: str, raw: Any, stream: Stream) -> None:
    with opened(hosts, closed_chroot, USER, PASSWORD) as hers:
        hers.write(stream, flights(1), expected=None)
        hers.write(stream, flights(2, 0), expected=flights(1))
        assert hers.position(stream) == flights(2, 0)
    with pytest.raises(NoAuthError):
        raw.get_children(f"{closed_chroot}/consumers")
    with pytest.raises(NoAuthError):
        raw.get(f"{closed_chroot}/consumers/{stream.group_id}/offsets/flights/1")


@pytest.mark.parametrize(("user", "password"), [("", ""), ("jack", PASSWORD), (USER, "wrong-secret")])
def test_a_user_without_read_access_gets_an_error_and_not_an_empty_position(
    hosts: str, closed_chroot: str, stream: Stream, user: str, password: str
) -> None:
    with opened(hosts, closed_chroot, USER, PASSWORD) as hers, opened(hosts, closed_chroot, user, password) as other:
        hers.write(stream, flights(1), expected=None)
        for call in (
            lambda: other.position(stream),
            lambda: other.write(stream, flights(2), expected=flights(1)),
            lambda: other.write(stream, flights(2), expected=None),
        ):
            with pytest.raises(StoreDenied, match="denies znode") as denied:
                call()
            assert "secret" not in f"{denied.value} {denied.value.__cause__}"
        assert hers.position(stream) == flights(1)


@pytest.mark.parametrize(
    ("rights", "wanted", "reason"),
    [
        ({"read": True}, (5, 6), "no right to write"),
        ({"read": True, "admin": True}, (1, 2, 3), "no right to create"),
        ({"read": True, "create": True, "write": True}, (1, 2, 3), "sees no digest, so new znodes would be nobody's"),
    ],
)
def test_who_may_only_read_writes_nothing(
    hosts: str,
    closed_chroot: str,
    stream: Stream,
    rights: dict[str, bool],
    wanted: tuple[int, ...],
    reason: str,
) -> None:
    session = KazooClient(hosts, auth_data=[("digest", f"{USER}:{PASSWORD}")])
    session.start(TIMEOUT_S)
    topic = f"{closed_chroot}/consumers/{stream.group_id}/offsets/flights"
    for name, value in {"0": b"1", "1": b"2"}.items():
        session.create(f"{topic}/{name}", value, acl=[HERS], makepath=True)
    limited = [HERS, make_digest_acl("reader", "r", **rights)]
    above = [closed_chroot, *layout.ancestors(closed_chroot, topic)]
    for path in [*above, f"{topic}/0", f"{topic}/1"]:
        session.set_acls(path, limited)
    with opened(hosts, closed_chroot, "reader", "r") as reader:
        assert reader.position(stream) == flights(1, 2)
        with pytest.raises(StoreDenied) as denied:
            reader.write(stream, flights(*wanted), expected=flights(1, 2))
        assert topic in denied.value.seen
        assert reader.position(stream) == flights(1, 2)
    session.stop()
    session.close()


def test_no_password_in_a_log(hosts: str, closed_chroot: str, stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(1)
    with opened(hosts, closed_chroot, USER, PASSWORD) as hers:
        hers.write(stream, flights(1), expected=None)
        assert PASSWORD not in repr(hers._address)
    assert caplog.records, "kazoo tells that it connects"
    assert PASSWORD not in caplog.text


# Ten thousand partitions


def test_ten_thousand_partitions_are_moved_in_one_transaction(
    store: ZooKeeperStore, raw: Any, stream: Stream, topic_path: str
) -> None:
    raw.ensure_path(topic_path)
    halves = (range(5_000), range(5_000, 10_000))
    for half in halves:
        with raw.transaction() as making:
            for number in half:
                making.create(f"{topic_path}/{number}", b"1000000000")
    moved = flights(*range(2_000_000_000, 2_000_010_000))
    store.write(stream, moved, expected=flights(*[1_000_000_000] * 10_000))
    assert store.position(stream) == moved
    for half in halves:
        with raw.transaction() as removing:
            for number in half:
                removing.delete(f"{topic_path}/{number}")


def test_more_than_the_server_takes_is_refused_before_anything_is_written(
    store: ZooKeeperStore, raw: Any, stream: Stream, chroot: str
) -> None:
    with pytest.raises(InputRefused, match=r"12000 partitions are a transaction of 1\d{6} bytes.*1048575"):
        store.write(stream, flights(*range(12_000)), expected=None)
    assert raw.exists(f"{chroot}/consumers/{stream.group_id}") is None


def test_the_limit_is_that_of_the_server(store: ZooKeeperStore, chroot: str) -> None:
    """The longest allowed request succeeds; with one byte more, the server closes the connection."""

    def change(size: int) -> Change:
        empty = request_bytes([Change(f"{chroot}/wide-{size}", b"", None, OPEN_ACL_UNSAFE)])
        return Change(f"{chroot}/wide-{size}", b"x" * (size - empty), None, OPEN_ACL_UNSAFE)

    store._client.commit([change(LARGEST_REQUEST_BYTES)])
    with pytest.raises(StoreUnreachable):
        store._client.commit([change(LARGEST_REQUEST_BYTES + 1)])


# Connections that break


class CuttingProxy(Proxy):
    """A proxy that cuts the connection at one request. It accepts new connections."""

    cut_before: int | None = None
    """The number, from 1, of the first request that does not reach the server."""
    requests = 0

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while sent := near.recv(65536):
                self.requests += 1
                if self.requests == self.cut_before:
                    for each in (near, far):
                        each.shutdown(socket.SHUT_RDWR)
                    return
                if self.swallow_after and self.swallow_after in sent:
                    self._swallowing = True
                far.sendall(sent)


@pytest.fixture
def way(hosts: str) -> Iterator[CuttingProxy]:
    host, _, port = hosts.partition(":")
    made = CuttingProxy((host, int(port)))
    yield made
    made.stop()


@pytest.fixture
def behind(way: CuttingProxy, chroot: str) -> Iterator[ZooKeeperStore]:
    with opened(f"127.0.0.1:{way.address[1]}", chroot) as made:
        yield made


def test_a_lost_answer_is_found_by_reading_back(
    behind: ZooKeeperStore, store: ZooKeeperStore, way: CuttingProxy, stream: Stream
) -> None:
    store.write(stream, flights(1, 2), expected=None)
    way.swallow_after = b"77777"
    behind.write(stream, flights(1, 77777), expected=flights(1, 2))
    assert way.swallow_after is None, "the answer was lost"
    assert way.connections == 2
    assert store.position(stream) == flights(1, 77777)


def test_a_lost_request_is_an_error_and_can_be_repeated(
    behind: ZooKeeperStore, store: ZooKeeperStore, way: CuttingProxy, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(stream, flights(1, 2), expected=None)

    def cut() -> None:
        way.cut_before = way.requests + 1

    changed_before_the_commit(behind, cut, monkeypatch)
    with pytest.raises(StoreUnreachable):
        behind.write(stream, flights(5, 6), expected=flights(1, 2))
    assert store.position(stream) == flights(1, 2)
    monkeypatch.undo()
    behind.write(stream, flights(5, 6), expected=flights(1, 2))
    assert store.position(stream) == flights(5, 6)


def test_cut_at_each_request_of_a_write_leaves_all_or_nothing(
    behind: ZooKeeperStore, store: ZooKeeperStore, way: CuttingProxy, raw: Any, chroot: str
) -> None:
    """The group is new, so that every znode above its partitions is created too."""
    shown = 0
    for number in range(1, 100):
        new = Stream(f"cut-{uuid.uuid4().hex[:8]}", ("flights", "delays"))
        wanted = flights(1, 2).updated(numbered("delays", 3))
        behind.close()
        way.cut_before = way.requests + number
        try:
            behind.write(new, wanted, expected=None)
        except StoreUnreachable:
            shown += 1
            assert store.position(new) in (None, wanted)
        else:
            assert store.position(new) == wanted
            if way.requests < way.cut_before:
                break
        way.cut_before = None
        behind.write(new, wanted, expected=None)
        assert store.position(new) == wanted
    assert shown >= 8, "there are that many requests in a write"


def test_cut_at_each_request_of_a_read_is_never_nothing_stored(
    behind: ZooKeeperStore, store: ZooKeeperStore, way: CuttingProxy, stream: Stream
) -> None:
    store.write(stream, flights(1, 2), expected=None)
    shown = 0
    for number in range(1, 100):
        behind.close()
        way.cut_before = way.requests + number
        try:
            assert behind.position(stream) == flights(1, 2)
        except StoreUnreachable:
            shown += 1
        if way.requests < way.cut_before:
            break
    assert shown >= 3


def test_a_server_that_was_restarted(hosts: str, chroot: str, store: ZooKeeperStore, stream: Stream) -> None:
    with (
        closing(ReopenedProxy(hosts)) as way,
        closing(ZooKeeperStore(Address(f"127.0.0.1:{way.port}", chroot), timeout_s=8)) as behind,
    ):
        behind.write(stream, flights(1), expected=None)
        way.cut()
        with pytest.raises(StoreUnreachable, match=r"does not answer \(.*8 s are allowed\)") as away:
            behind.position(stream)
        assert away.value.retriable
        with pytest.raises(StoreUnreachable):
            behind.write(stream, flights(2), expected=flights(1))
        way.open()

        def came_back() -> bool:
            with suppress(StoreUnreachable):  # a busy server needs more time than that
                return behind.position(stream) == flights(1)
            return False

        until(came_back, "the server is back")


def test_nobody_listens_there(chroot: str, stream: Stream) -> None:
    with closing(ZooKeeperStore(Address("127.0.0.1:1", chroot), timeout_s=0.5)) as lost:
        for call in (lambda: lost.position(stream), lambda: lost.write(stream, flights(1), expected=None)):
            with pytest.raises(StoreUnreachable, match=r"zookeeper://127\.0\.0\.1:1/positions-.* does not answer"):
                call()


def test_somebody_listens_and_says_nothing(chroot: str, stream: Stream) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(ZooKeeperStore(Address(f"127.0.0.1:{silent.getsockname()[1]}", chroot), timeout_s=0.5)) as lost,
        pytest.raises(StoreUnreachable),
    ):
        lost.position(stream)
