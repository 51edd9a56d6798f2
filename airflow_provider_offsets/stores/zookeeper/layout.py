"""Layout of offsets in ZooKeeper: the URL, the znodes, and their valid content.

``<chroot>/consumers/<group>/offsets/<topic>/<partition>`` holds the offset as text. This is the form of Kafka's old
consumers, which Cloudera's slide *Offset Management in ZooKeeper* uses too.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET, LAST_PARTITION
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.errors import InputRefused, StoreDataError

FORM = "zookeeper://host:2181,host2:2181/chroot"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,18}")
_PARTITION = re.compile(r"0|[1-9][0-9]{0,9}")
# As ZooKeeper's PathUtils.validatePath, which sees UTF-16: it refuses both halves of a character beyond U+FFFF.
_NOT_IN_A_NAME = re.compile("[\u0000-\u001f\u007f-\u009f\ud800-\uf8ff\ufff0-\uffff\U00010000-\U0010ffff/]")


@dataclass(frozen=True)
class Address:
    """Parts of a ``zookeeper://`` URL."""

    hosts: str
    """``host:port,host:port``."""
    chroot: str = ""
    """Starts with ``/``, or is empty."""
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"zookeeper://{self.hosts}{self.chroot}"


def parse_url(url: str) -> Address:
    """Return the parts of ``zookeeper://user:password@host:2181,host2:2181/chroot``. The default port is 2181.

    :raises InputRefused: the URL has another form. The message does not quote the URL, which may hold a password.
    """
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    chroot = path.rstrip("/")
    named = [_HOST.fullmatch(host) for host in hosts.split(",")]
    ports = [int(each[2][1:]) for each in named if each and each[2]]
    if scheme != "zookeeper" or not all(named) or not all(0 < port < 65536 for port in ports):
        raise _refused("a ZooKeeper URL whose hosts cannot be read")
    if "?" in rest or "#" in rest or bool(user) != bool(password):
        raise _refused("a ZooKeeper URL with options, or with a user or a password alone")
    # A password that was not quoted ends up after the hosts.
    if "@" in path or not all(is_znode_name(name) for name in (chroot.split("/") if chroot else ())):
        raise _refused("a ZooKeeper URL whose chroot cannot be the path of a znode")
    return Address(
        ",".join(f"{each[1]}{each[2] or ':2181'}" for each in named if each),
        f"/{chroot}" if chroot else "",
        urllib.parse.unquote(user),
        urllib.parse.unquote(password),
    )


def is_znode_name(name: str) -> bool:
    """Check whether ZooKeeper accepts the name as one part of a path."""
    return name not in ("", ".", "..") and not _NOT_IN_A_NAME.search(name)


def topic_paths(chroot: str, stream: Stream) -> dict[str, str]:
    """Return the path of each topic's znode.

    :param chroot: path below which Kafka's znodes are; empty for the root.
    :param stream: group and topics.
    :returns: path per topic.
    :raises InputRefused: a group or a topic cannot be the name of a znode; the path would lead elsewhere.
    """
    for what, name in (("group id", stream.group_id), *(("topic", topic) for topic in stream.topics)):
        if not is_znode_name(name):
            raise InputRefused(
                seen=f"{what} {name!r} cannot be the name of a znode",
                expected="a name that a znode can have: not '.' or '..', without '/', control characters, private use"
                " characters, and those beyond U+FFFF",
                do="keep the offsets of this group in another store",
            )
    return {topic: f"{chroot}/consumers/{stream.group_id}/offsets/{topic}" for topic in stream.topics}


def ancestors(chroot: str, path: str) -> list[str]:
    """Return ``path`` and the znodes between the chroot and ``path``, the highest first.

    :param chroot: path below which Kafka's znodes are; empty for the root.
    :param path: path of a znode below the chroot.
    """
    parts = path[len(chroot) + 1 :].split("/")
    return [f"{chroot}/{'/'.join(parts[:count])}" for count in range(1, len(parts) + 1)]


def partition_of(topic: str, path: str, name: str) -> TopicPartition:
    """Return the partition of a child of a topic's znode.

    :param topic: name of the topic.
    :param path: of the topic's znode, for the message.
    :param name: of the child.
    :raises StoreDataError: the name is no partition number.
    """
    if not _PARTITION.fullmatch(name) or int(name) > LAST_PARTITION:
        raise StoreDataError(
            seen=f"znode {path!r} has the child {name[:80]!r}",
            expected="children named by partition numbers, and nothing else",
            do="find out who made it, and remove it if it is not an offset",
        )
    return TopicPartition(topic, int(name))


def offset_of(path: str, value: bytes) -> int:
    """Return the offset in a znode's value.

    :param path: path of the znode, for the message.
    :param value: content of the znode.
    :raises StoreDataError: the value is no number from 0 to 2^63-1.
    """
    if not _NUMBER.fullmatch(value) or int(value) > LAST_OFFSET:
        raise StoreDataError(
            seen=f"znode {path!r} holds {value[:80]!r}",
            expected=f"an offset as text: a number from 0 to {LAST_OFFSET}",
            do="find out who wrote it, and set the right offset with ZooKeeper's zkCli",
        )
    return int(value)


def _refused(seen: str) -> InputRefused:
    return InputRefused(seen=seen, expected=f"{FORM}; login and password in the connection", do="correct the URL")
