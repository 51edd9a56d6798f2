"""Offsets in ZooKeeper, one znode per partition, as Kafka's old consumers and Cloudera's slides write them.

Jobs that write this form keep one position and no history: a write replaces the previous position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position, TopicPartition, first_missing
from airflow_provider_offsets.errors import InputRefused, StoreDataError, StoreLayoutError, StoreUnreachable
from airflow_provider_offsets.stores import rules
from airflow_provider_offsets.stores.zookeeper import layout
from airflow_provider_offsets.stores.zookeeper.client import (
    LARGEST_REQUEST_BYTES,
    Change,
    Znode,
    ZooKeeperClient,
    request_bytes,
)

_Stored = dict[TopicPartition, Znode]


class ZooKeeperStore:
    """Position store in ZooKeeper. Safe to share between threads.

    :param address: from ``zookeeper_layout.parse_url``.
    :param timeout_s: how long the server may be silent: before the session starts, and between two answers.
    """

    kind = "zookeeper"

    def __init__(self, address: layout.Address, *, timeout_s: float = 15) -> None:
        self._address = address
        self._client = ZooKeeperClient(address, timeout_s)

    def __repr__(self) -> str:
        return f"ZooKeeperStore('{self._address}')"

    def close(self) -> None:
        """End the session. The store may be used again: the next call starts a new session."""
        self._client.close()

    def position(self, stream: Stream) -> Position | None:
        """Return the offsets of all partitions of the stream's topics, or None if no partition is stored.

        Partitions are read one by one: while the job runs, some offsets may be of the previous batch.

        :raises StoreLayoutError: the chroot does not exist.
        :raises StoreDataError: a partition below the greatest of its topic is missing, or a znode holds no offset.
        :raises StoreDenied: this user may not read a znode.
        """
        stream = rules.check_stream(stream)
        paths = layout.topic_paths(self._address.chroot, stream)
        return self._position(self._stored(paths), paths)

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Set every partition, or none, in one transaction that checks the version of each znode.

        New znodes get the ACL of their parent. Missing parents are created before the transaction, and stay if the
        write is interrupted: a topic without partitions reads as nothing stored. If the answer is lost, the store reads
        the znodes back. If the write is not found, the error says that it may be repeated.

        :param position: the offsets to write.
        :param expected: the position that must be stored now; None for nothing.
        :raises InputRefused: as in the protocol, or the transaction is longer than a ZooKeeper server accepts.
            (``jute.maxbuffer``, 1 MiB by default: some 9,000 new partitions, or 13,000 existing ones, with short
            names.)
        :raises StoreUnreachable: no answer arrived, and the new offsets are not stored.
        """
        stream = rules.check_stream(stream)
        paths = layout.topic_paths(self._address.chroot, stream)
        rules.check_position(stream, position)
        stored = self._stored(paths)
        if not rules.is_to_be_written(self._position(stored, paths), position, expected):
            return
        changes: list[Change] = []
        missing: dict[str, list[Any]] = {}
        for topic in position.topics:
            ends = position.of_topic(topic)
            old = {number: stored[TopicPartition(topic, number)] for number in ends if (topic, number) in stored}
            acl: list[Any] = []
            if len(old) < len(ends):
                above, acl = self._above(paths[topic])
                missing |= dict.fromkeys(above, acl)
            changes += [_change(f"{paths[topic]}/{number}", old.get(number), end, acl) for number, end in ends.items()]
        self._check_size(changes)
        for path, acl in missing.items():
            self._client.make(path, acl)
        try:
            self._client.commit(changes)
        except StoreUnreachable:
            # The write may still be executed later: then it meets other versions, or writes the same offsets.
            if self.position(stream) != position:
                raise

    def _stored(self, paths: Mapping[str, str]) -> _Stored:
        chroot = self._address.chroot
        self._client.sync(chroot or "/")
        if chroot and not self._client.exists([chroot])[0]:
            raise StoreLayoutError(
                seen=f"no znode {chroot!r} is in {self._address}",
                expected="the chroot of the URL, which is not created here: a typo would look like a first start",
                do="correct the URL, or create the chroot with ZooKeeper's zkCli",
            )
        names = dict(zip(paths, self._client.children(list(paths.values()))))
        partitions = sorted(
            layout.partition_of(topic, paths[topic], name) for topic, found in names.items() for name in found or ()
        )
        znodes = self._client.read([f"{paths[each.topic]}/{each.partition}" for each in partitions])
        # A znode that was deleted meanwhile either does not count or leaves a hole.
        stored = {each: znode for each, znode in zip(partitions, znodes) if znode is not None}
        if missing := first_missing(stored):
            raise StoreDataError(
                seen=f"znode {f'{paths[missing[0].topic]}/{missing[0].partition}'!r} is missing below the greatest one",
                expected="every partition from 0 up, because this position is incomplete",
                do="set the offset that the job's output shows with ZooKeeper's zkCli, or 0 to read all again",
            )
        return stored

    def _position(self, stored: _Stored, paths: Mapping[str, str]) -> Position | None:
        offsets = {
            each: layout.offset_of(f"{paths[each.topic]}/{each.partition}", znode.value)
            for each, znode in stored.items()
        }
        return Position(offsets) if offsets else None

    def _above(self, topic_path: str) -> tuple[list[str], list[Any]]:
        """Return the missing znodes above a topic's partitions, and the ACL for these and the partitions."""
        chroot = self._address.chroot
        above = layout.ancestors(chroot, topic_path)
        missing = [path for path, there in zip(above, self._client.exists(above)) if not there]
        lowest = next((path for path in reversed(above) if path not in missing), chroot or "/")
        return missing, self._client.acl(lowest)

    def _check_size(self, changes: Sequence[Change]) -> None:
        size = request_bytes(changes)
        if size > LARGEST_REQUEST_BYTES:
            raise InputRefused(
                seen=f"{len(changes)} partitions are a transaction of {size} bytes",
                expected=f"at most {LARGEST_REQUEST_BYTES}, ZooKeeper's jute.maxbuffer: all are written, or none",
                do="keep the offsets of so many partitions in another store. Nothing was written",
            )


def _change(path: str, old: Znode | None, offset: int, acl: list[Any]) -> Change:
    value = str(offset).encode()
    if old is None:
        return Change(path, value, None, acl)
    return Change(path, None if old.value == value else value, old.version, [])
