"""One session with ZooKeeper, with errors in this package's words.

kazoo mends a lost connection behind its caller's back and then sends what still waits. Here a session that lost its
connection, or gave no answer in time, is ended with all that waits in it: what was not answered is not done later.
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

from airflow_provider_offsets.errors import StoreDenied, StoreError, StoreUnreachable, WorldChanged
from airflow_provider_offsets.stores.zookeeper_layout import Address

LARGEST_REQUEST_BYTES = 0xFFFFF
"""``jute.maxbuffer`` of a server that nobody gave another one: it closes the connection on a longer request."""
_HEADER_BYTES = 8

# kazoo logs each request at DEBUG, the one that holds the password among them.
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
    """What a znode holds."""

    value: bytes
    version: int


class Change(NamedTuple):
    """One step of a transaction."""

    path: str
    value: bytes | None
    """None: the znode is only checked."""
    version: int | None
    """What it has to have; None: the znode must not be there, and is made."""
    acl: list[Any]
    """Of a znode that is made."""


class ZooKeeperClient:
    """Gives the few calls that the store uses. The session begins with the first one, and anew after one that failed.

    Safe to share between threads; where one of them loses the connection, all do.

    :param timeout_s: how long the server may be silent: before the session begins, and between two answers.
    """

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: Any = None

    def close(self) -> None:
        """End the session. Safe to repeat; the next call begins another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            # It waits for its threads, and says so if one does not end; there is nothing to do about that.
            with contextlib.suppress(zk.WriterNotClosedException, OSError):
                client.stop()
            client.close()

    def sync(self, path: str) -> None:
        """Let the server that answers us catch up with its leader: a follower may tell what was true a while ago."""
        self._ask([path], lambda client: client.sync_async)

    def exists(self, paths: Sequence[str]) -> list[bool]:
        """Say of each znode whether it is there."""
        return [answer is not None for answer in self._ask(paths, lambda client: client.exists_async)]

    def children(self, paths: Sequence[str]) -> list[list[str] | None]:
        """Give the names below each znode; None where it is not there."""
        answers = self._ask(paths, lambda client: client.get_children_async)
        return [None if isinstance(answer, zk.NoNodeError) else list(answer) for answer in answers]

    def read(self, paths: Sequence[str]) -> list[Znode | None]:
        """Give what each znode holds; None where it is not there. All are asked before the first answer is awaited."""
        answers = self._ask(paths, lambda client: client.get_async)
        return [
            None if isinstance(answer, zk.NoNodeError) else Znode(answer[0] or b"", answer[1].version)
            for answer in answers
        ]

    def acl(self, path: str) -> list[Any]:
        """Give who may do what with a znode, in a form that another one can be made with.

        :raises StoreDenied: this user does not see all of it. (ZooKeeper hides digests from who has not ADMIN.)
        """
        [answer] = self._ask([path], lambda client: client.get_acls_async)
        if isinstance(answer, zk.NoNodeError):
            raise _overtaken(path, answer)
        entries = list(answer[0])
        if any(each.id.scheme == "digest" and each.id.id.endswith(":x") for each in entries):
            raise StoreDenied(
                seen=f"{self._address} hides a part of the ACL of znode {path!r} from this user",
                expected="the right ADMIN on it: new znodes get the ACL of the one above them",
                do=f"grant it to the user of the connection, or make the znodes below {path!r} by hand",
            )
        return entries

    def make(self, path: str, acl: list[Any]) -> None:
        """Make an empty znode; one that is there already is as good."""
        [answer] = self._ask([path], lambda client: lambda each: client.create_async(each, acl=acl))
        if isinstance(answer, zk.NoNodeError):
            raise _overtaken(path, answer)

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes or none of them, in one transaction.

        :raises StoreUnreachable: also where the answer was lost, and so it is not known whether it was done.
        :raises WorldChanged: a znode has another version, or is there, or is not.
        """
        [results] = self._ask(
            [self._address.chroot or "/"], lambda client: lambda _: _transaction(client, changes).commit_async()
        )
        failed = [
            (change.path, result)
            for change, result in zip(changes, results, strict=False)
            if isinstance(result, zk.ZookeeperError) and not isinstance(result, _ROLLED_BACK)
        ]
        for path, error in failed:
            if isinstance(error, _OVERTAKEN):
                raise _overtaken(path, error)
            raise self._problem(path, error)

    def _ask(self, paths: Sequence[str], call_of: Callable[[Any], Callable[[str], Any]]) -> list[Any]:
        """Give the answer for each path: a value, or ``NoNodeError`` and its like in its place."""
        try:
            call = call_of(self._connected())
            pending = [call(path) for path in paths]
        except KazooTimeoutError as error:
            raise self._unreachable(error) from error
        return [self._answer(path, each) for path, each in zip(paths, pending, strict=True)]

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
            seen=f"{self._address} refused what was asked of znode {path!r}: {type(error).__name__} {error}".rstrip(),
            expected="an answer",
            do="see the log of the ZooKeeper server",
        )

    def _unreachable(self, error: Exception) -> StoreUnreachable:
        return StoreUnreachable(
            seen=f"{self._address} does not answer ({type(error).__name__}, {self._timeout_s:g} s are allowed)",
            expected="a ZooKeeper server that serves requests",
            do="see that it is up, and that hosts and ports of the URL are right, then try again",
        )


def request_bytes(changes: Sequence[Change]) -> int:
    """Give how long the request for a transaction is on the wire."""
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


def _overtaken(path: str, error: Exception) -> WorldChanged:
    return WorldChanged(
        seen=f"znode {path!r} was changed while it was to be written ({type(error).__name__})",
        expected="what was read of it a moment ago",
        do="nothing was written; see what else writes there (is the job at rest?), and plan again",
    )
