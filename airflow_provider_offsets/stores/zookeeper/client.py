"""One session with ZooKeeper, with the errors of this package.

kazoo reconnects by itself and then sends the pending requests. This client ends a session that lost its connection or
got no answer in time, together with all pending requests. So a request without an answer is never executed later.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kazoo import exceptions as zk
from kazoo.client import KazooClient
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.serialization import Transaction

from airflow_provider_offsets.errors import StateChanged, StoreDenied, StoreError, StoreUnreachable
from airflow_provider_offsets.stores.zookeeper.layout import Address

LARGEST_REQUEST_BYTES = 0xFFFFF
"""Default of ``jute.maxbuffer``: the server closes the connection on a longer request."""
_HEADER_BYTES = 8

# kazoo logs each request at DEBUG, including the one with the password.
_LOG = logging.getLogger(f"{__name__}.kazoo")
_LOG.setLevel(logging.INFO)

_SILENT = (
    KazooTimeoutError,
    zk.CancelledError,
    zk.ConnectionDropped,
    zk.ConnectionLoss,
    zk.NewConfigNoQuorumError,
    zk.OperationTimeoutError,
    zk.ReconfigInProcessError,
    zk.RequestTimeoutError,
    zk.SessionExpiredError,
    zk.SessionMovedError,
    zk.ThrottledOpError,
)
_OVERTAKEN = (zk.BadVersionError, zk.NodeExistsError, zk.NoNodeError)
_ROLLED_BACK = (zk.RolledBackError, zk.RuntimeInconsistency)


class Znode(NamedTuple):
    """Content of a znode."""

    value: bytes
    version: int


class Change(NamedTuple):
    """One operation of a transaction."""

    path: str
    value: bytes | None
    """None: the znode is only checked."""
    version: int | None
    """Expected version; None: the znode must not exist, and is created."""
    acl: list[Any]
    """ACL of a znode that is created."""


class ZooKeeperClient:
    """The few calls that the store uses. A session starts with the first call, and again after a call that failed.

    Safe to share between threads; if one of them loses the connection, all do.

    :param address: from ``zookeeper_layout.parse_url``.
    :param timeout_s: how long the server may be silent: before the session starts, and between two answers.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None

    def close(self) -> None:
        """End the session. Safe to repeat; the next call starts a new session."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            # kazoo waits for its threads, and raises if one does not end; nothing can be done about that.
            with contextlib.suppress(zk.WriterNotClosedException, OSError):
                client.stop()
            client.close()

    def sync(self, path: str) -> None:
        """Wait until our server has caught up with its leader: a follower may return old values."""
        self._ask([path], lambda client: client.sync_async)

    def exists(self, paths: Sequence[str]) -> list[bool]:
        """Check for each znode whether it exists."""
        return [answer is not None for answer in self._ask(paths, lambda client: client.exists_async)]

    def children(self, paths: Sequence[str]) -> list[list[str] | None]:
        """Return the names of the children of each znode, or None if the znode does not exist."""
        answers = self._ask(paths, lambda client: client.get_children_async)
        return [None if isinstance(answer, zk.NoNodeError) else list(answer) for answer in answers]

    def read(self, paths: Sequence[str]) -> list[Znode | None]:
        """Return the content of each znode, or None if the znode does not exist.

        All requests are sent before the first answer is awaited.
        """
        answers = self._ask(paths, lambda client: client.get_async)
        return [
            None if isinstance(answer, zk.NoNodeError) else Znode(answer[0] or b"", answer[1].version)
            for answer in answers
        ]

    def acl(self, path: str) -> list[Any]:
        """Return the ACL of a znode, in a form that can be used to create another znode.

        :raises StoreDenied: this user does not see the whole ACL. (ZooKeeper hides digests from users without ADMIN.)
        """
        [answer] = self._ask([path], lambda client: client.get_acls_async)
        if isinstance(answer, zk.NoNodeError):
            raise _overtaken(path, answer)
        entries = list(answer[0])
        if any(each.id.scheme == "digest" and each.id.id.endswith(":x") for each in entries):
            raise StoreDenied(
                seen=f"{self._address} hides a part of the ACL of znode {path!r} from this user",
                expected="the right ADMIN on it, because new znodes get the ACL of the one above them",
                do=f"grant it to the user of the connection, or create the znodes below {path!r} by hand",
            )
        return entries

    def make(self, path: str, acl: list[Any]) -> None:
        """Create an empty znode, unless it exists already.

        :param path: path of the znode; its parent must exist.
        :param acl: access control list of the znode, from kazoo.
        """
        [answer] = self._ask([path], lambda client: lambda each: client.create_async(each, acl=acl))
        if isinstance(answer, zk.NoNodeError):
            raise _overtaken(path, answer)

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes or none of them, in one transaction.

        :raises StoreUnreachable: no answer arrived; the transaction may have been executed.
        :raises StateChanged: a znode has another version, exists unexpectedly, or does not exist.
        """
        [results] = self._ask(
            [self._address.chroot or "/"], lambda client: lambda _: _transaction(client, changes).commit_async()
        )
        failed = [
            (change.path, result)
            for change, result in zip(changes, results)
            if isinstance(result, zk.ZookeeperError) and not isinstance(result, _ROLLED_BACK)
        ]
        for path, error in failed:
            if isinstance(error, _OVERTAKEN):
                raise _overtaken(path, error)
            raise self._problem(path, error)

    def _ask(self, paths: Sequence[str], call_of: Callable[[Any], Callable[[str], Any]]) -> list[Any]:
        """Return the answer for each path: a value, or an exception such as ``NoNodeError``."""
        try:
            call = call_of(self._connected())
            pending = [call(path) for path in paths]
        except KazooTimeoutError as error:
            raise self._unreachable(error) from error
        return [self._answer(path, each) for path, each in zip(paths, pending)]

    def _answer(self, path: str, pending: Any) -> Any:
        try:
            return pending.get(timeout=self._timeout_s)
        except _OVERTAKEN as error:
            return error
        except _SILENT as error:
            self.close()
            raise self._unreachable(error) from error
        except zk.KazooException as error:
            raise self._problem(path, error) from error

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                login = f"{self._address.user}:{self._address.password}"
                client = KazooClient(
                    self._address.hosts,
                    timeout=min(10.0, self._timeout_s),
                    auth_data=[("digest", login)] if self._address.user else None,
                    logger=_LOG,
                )
                client.start(self._timeout_s)
                self._client = client
            return self._client

    def _problem(self, path: str, error: zk.KazooException) -> StoreError:
        if isinstance(error, (zk.NoAuthError, zk.AuthFailedError, zk.SessionClosedRequireSaslError)):
            return StoreDenied(
                seen=f"{self._address} denies znode {path!r} to {self._address.user or 'a user without login'!r}",
                expected="the rights READ, WRITE and CREATE on the znodes of the group, for the user of the connection",
                do="correct login and password of the connection, or grant the rights by ZooKeeper's zkCli (setAcl)",
            )
        return StoreError(
            seen=f"{self._address} refused a request for znode {path!r}: {type(error).__name__} {error}".rstrip(),
            expected="an answer",
            do="read the log of the ZooKeeper server",
        )

    def _unreachable(self, error: Exception) -> StoreUnreachable:
        return StoreUnreachable(
            seen=f"{self._address} does not answer ({type(error).__name__}, {self._timeout_s:g} s are allowed)",
            expected="a ZooKeeper server that serves requests",
            do="check that ZooKeeper runs, and check hosts and ports in the URL, then try again",
        )


def request_bytes(changes: Sequence[Change]) -> int:
    """Return the length of a transaction's request on the wire, in bytes."""
    operations = _transaction(KazooClient(logger=_LOG), changes).operations
    return len(Transaction(operations).serialize()) + _HEADER_BYTES


def _transaction(client: Any, changes: Sequence[Change]) -> Any:
    transaction = client.transaction()
    for path, value, version, acl in changes:
        if value is None:
            transaction.check(path, version)
        elif version is None:
            transaction.create(path, value, acl=acl)
        else:
            transaction.set_data(path, value, version=version)
    return transaction


def _overtaken(path: str, error: Exception) -> StateChanged:
    return StateChanged(
        seen=f"znode {path!r} was changed while it was to be written ({type(error).__name__})",
        expected="the content that was read a moment ago",
        do="find out what else writes to this znode (is the job stopped?), and plan again. Nothing was written",
    )
