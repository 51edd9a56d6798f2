"""Thrift servers with other settings than the defaults (framed, compact, HTTP, TLS), and unreachable servers."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import StoreUnreachable
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from airflow_provider_offsets.stores.hbase.transport import Transport
from airflow_provider_offsets.stores.protocols import OffsetStore
from tests.contract.store_contract import batch, ids, position
from tests.integration.stores.thrift_server import PASSWORD, ThriftServer, TlsProxy, make_keys, make_pem

FRAMED = "transport=framed&protocol=compact"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a key store, and the certificate authority to trust."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def framed(thrift: tuple[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThriftServer]:
    """Yield a server with framed transport and compact protocol."""
    settings = {"hbase.regionserver.thrift.framed": "true", "hbase.regionserver.thrift.compact": "true"}
    server = ThriftServer(tmp_path_factory.mktemp("framed"), settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def https(
    thrift: tuple[str, int], keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """Yield a server with HBase's own TLS, which is HTTPS."""
    settings = {
        "hbase.regionserver.thrift.http": "true",
        "hbase.thrift.ssl.enabled": "true",
        "hbase.thrift.ssl.keystore.store": str(keys[0]),
        "hbase.thrift.ssl.keystore.password": PASSWORD,
        "hbase.thrift.ssl.keystore.keypassword": PASSWORD,
        "hbase.thrift.ssl.keystore.type": "pkcs12",
    }
    server = ThriftServer(tmp_path_factory.mktemp("https"), settings)
    server.start()
    yield server.address
    server.stop()


@pytest.fixture(scope="module")
def tls(framed: ThriftServer, keys: tuple[Path, Path]) -> Iterator[tuple[str, int]]:
    """Yield a proxy with TLS before the framed server."""
    proxy = TlsProxy(framed.address, make_pem(keys[0]))
    yield proxy.address
    proxy.stop()


@pytest.fixture
def stream() -> Stream:
    return Stream(f"g-{uuid.uuid4().hex[:8]}", ("t",))


def check_everything(store: OffsetStore, stream: Stream) -> None:
    """Make each call of the store once, with one large row."""
    wide = position({number: 7 * number for number in range(5000)})
    assert store.position(stream) is None
    for number in range(10):
        store.append(stream, batch(number))
    assert ids(store.oldest_first(stream)) == list(range(10))
    assert ids(store.newest_first(stream)) == list(range(9, -1, -1))
    store.write(stream, wide, expected=position({0: 100}))  # type: ignore[attr-defined]
    assert store.position(stream) == wide
    pipeline = stream.group_id
    assert [store.check_and_put(pipeline, "epoch/1", None, "é") for _ in range(2)] == [True, False]
    assert list(store.scan(pipeline, "")) == [("epoch/1", "é")]
    store.close()


def test_framed_and_compact(framed: ThriftServer, created: str, stream: Stream) -> None:
    host, port = framed.address
    check_everything(open_store(f"hbase://{host}:{port}/{created}?{FRAMED}"), stream)


def test_framed_and_compact_behind_a_proxy_with_tls(
    tls: tuple[str, int], keys: tuple[Path, Path], created: str, stream: Stream
) -> None:
    host, port = tls
    check_everything(open_store(f"hbase://{host}:{port}/{created}?{FRAMED}&tls=true&ca={keys[1]}"), stream)


def test_https(https: tuple[str, int], keys: tuple[Path, Path], created: str, stream: Stream) -> None:
    host, port = https
    check_everything(open_store(f"hbase://{host}:{port}/{created}?transport=http&tls=true&ca={keys[1]}"), stream)


@pytest.mark.parametrize("transport", ["http", "framed"])
@pytest.mark.parametrize(
    ("host", "trusted", "shown"),
    [("127.0.0.1", False, "certificate verify failed"), ("localhost", True, "Hostname mismatch|not valid for")],
    ids=["an authority that nobody trusts", "a certificate of another name"],
)
def test_a_certificate_that_does_not_hold(
    request: pytest.FixtureRequest,
    keys: tuple[Path, Path],
    created: str,
    transport: str,
    host: str,
    trusted: bool,
    shown: str,
) -> None:
    _, port = request.getfixturevalue("https" if transport == "http" else "tls")
    protocol = "binary" if transport == "http" else "compact"
    settings = Transport(transport, protocol, tls=True, ca=str(keys[1]) if trusted else "")
    store = HBaseStore(host, port, created, settings)
    with pytest.raises(StoreUnreachable, match=shown):
        store.get("p", "n")


@pytest.mark.parametrize(
    ("server", "options"),
    [
        ("framed", Transport()),
        ("framed", Transport("framed")),
        ("framed", Transport("http")),
        ("https", Transport()),
        ("https", Transport("http")),
        ("tls", Transport("framed", "compact")),
        ("thrift", Transport("framed", "compact")),
        ("thrift", Transport("http")),
        ("thrift", Transport("http", tls=True)),
    ],
    ids=str,
)
def test_settings_that_are_not_the_servers(
    request: pytest.FixtureRequest, created: str, stream: Stream, server: str, options: Transport
) -> None:
    """Nothing hangs, nothing is read, and the error names the settings that were tried."""
    where = request.getfixturevalue(server)
    store = HBaseStore(*getattr(where, "address", where), created, options, timeout_s=0.5)
    with pytest.raises(StoreUnreachable) as refused:
        store.position(stream)
    assert str(options) in refused.value.expected
    store.close()


def test_a_server_that_is_restarted_in_the_middle_of_a_history(
    framed: ThriftServer, created: str, stream: Stream
) -> None:
    store = HBaseStore(*framed.address, created, Transport("framed", "compact"))
    for number in range(30):
        store.append(stream, batch(number))
    forwards, backwards = store.oldest_first(stream), store.newest_first(stream)
    seen = [ids([next(forwards), next(forwards)]), ids([next(backwards), next(backwards)])]
    framed.stop()
    with pytest.raises(StoreUnreachable):
        store.get("p", "n")
    framed.start()
    assert seen[0] + ids(forwards) == list(range(30))
    assert seen[1] + ids(backwards) == list(range(29, -1, -1))
    assert store.append(stream, batch(30)).batch_id == 30
    assert store.check_and_put("p", stream.group_id, None, "x")
    store.close()


@pytest.mark.parametrize(
    "transport", [Transport(), Transport("framed"), Transport("http"), Transport("http", tls=True)], ids=str
)
def test_a_server_that_is_silent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = HBaseStore(*silent.getsockname(), "t", transport, timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="timed out"):
            store.position(Stream("g", ("t",)))
        assert time.monotonic() - began < 20, "not for ever"
        store.close()
