"""The HBase that ``python3 -m stack up hbase`` started, and a proxy before it that can be cut."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import happybase
import pytest

from airflow_provider_offsets.stores.hbase.store import HBaseStore
from stack import endpoints


@pytest.fixture(scope="session")
def thrift() -> tuple[str, int]:
    """Return the address of HBase. Without one the tests are skipped; in CI, where one is promised, they fail."""
    entry = endpoints().get("hbase")
    if entry is None:
        missing = "no HBase is up: `python3 -m stack up hbase` starts one"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    host, _, port = str(entry["thrift"]).partition(":")
    return host, int(port)


@pytest.fixture(scope="module")
def raw(thrift: tuple[str, int]) -> Iterator[Any]:
    """Yield a plain connection, as a job without this provider has one."""
    connection = happybase.Connection(*thrift, timeout=60_000)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def table(thrift: tuple[str, int]) -> Iterator[str]:
    """Yield a name for the Cloudera table that no other module has. Tables with this prefix are dropped afterwards."""
    name = f"stores_{uuid.uuid4().hex[:10]}"
    yield name
    # A connection of its own: the server closes one that was idle for a minute.
    with closing(happybase.Connection(*thrift, timeout=60_000)) as connection:
        for made in connection.tables():
            if made.decode().startswith(name):
                connection.delete_table(made, disable=True)


@pytest.fixture(scope="module")
def created(thrift: tuple[str, int], table: str) -> str:
    """Return the name of tables that exist."""
    store = HBaseStore(*thrift, table)
    store.create()
    store.close()
    return table


@pytest.fixture
def store(thrift: tuple[str, int], created: str) -> Iterator[HBaseStore]:
    made = HBaseStore(*thrift, created)
    yield made
    made.close()


class Proxy:
    """A TCP proxy before the server: the only way to lose an answer deliberately."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.address: tuple[str, int] = self._listener.getsockname()
        self.connections = 0
        self.swallow_after: bytes | None = None
        """A request with these bytes reaches the server, and its answer is lost."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self.connections += 1
                self._sockets += [near, far]
                threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
                threading.Thread(target=self._answers, args=(far, near), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while sent := near.recv(65536):
                if self.swallow_after and self.swallow_after in sent:
                    self._swallowing = True
                far.sendall(sent)

    _swallowing = False

    def _answers(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while answer := far.recv(65536):
                if self._swallowing:
                    self._swallowing, self.swallow_after = False, None
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(answer)

    def cut(self) -> None:
        """Cut every connection; new ones are accepted."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def stop(self) -> None:
        """Cut every connection and accept no new one."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@pytest.fixture
def proxy(thrift: tuple[str, int]) -> Iterator[Proxy]:
    made = Proxy(thrift)
    yield made
    made.stop()


class Crash(BaseException):
    """Kill -9, as closely as a test can imitate it."""


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[HBaseStore, int], None]:
    """Return a function after which a store crashes at its n-th write; rows in one call count as one write each."""

    def arrange(store: HBaseStore, writes: int) -> None:
        left = iter([True] * writes)
        put_rows, check_and_put = store._client.put_rows, store._client.check_and_put

        def put_one_by_one(table: str, rows: dict[bytes, dict[bytes, bytes]]) -> None:
            for key, cells in rows.items():
                if not next(left, False):
                    raise Crash
                put_rows(table, {key: cells})

        def check_and_put_once(*args: Any) -> bool:
            if not next(left, False):
                raise Crash
            return check_and_put(*args)

        monkeypatch.setattr(store._client, "put_rows", put_one_by_one)
        monkeypatch.setattr(store._client, "check_and_put", check_and_put_once)

    return arrange


@pytest.fixture
def other(thrift: tuple[str, int], created: str) -> Iterator[HBaseStore]:
    """Yield the next driver's store, on the same tables."""
    made = HBaseStore(*thrift, created)
    yield made
    made.close()
