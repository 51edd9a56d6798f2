"""HBase: standalone with its own ZooKeeper, and the Thrift server for happybase."""

import socket
import struct
from pathlib import Path
from xml.sax.saxutils import escape

from stack import maven, needs, server, state
from stack.places import STATE
from stack.ports import HOST, free

NAME = "hbase"
MEMORY = 1.5
HOME = STATE / NAME
CONF = HOME / "conf"
OPENS = tuple(
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in (
        "jdk.internal.misc",
        "java.nio",
        "sun.nio.ch",
        "java.lang",
        "jdk.internal.ref",
        "java.util",
        "java.util.concurrent",
    )
)
"""Internals of Java 17 that HBase needs access to."""
_LOGGING = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
]


def prepare() -> None:
    """Prepare Java and the jars."""
    needs.java()
    maven.fetch(NAME)


def answers(entry: state.Entry) -> str:
    """Ask the Thrift server for its tables; return an error message, or an empty string."""
    host, _, port = entry["thrift"].partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(_TABLES_REQUEST)
            reply = connection.makefile("rb").read(4)
    except OSError as error:
        return f"no answer at {host}:{port} ({error})"
    return "" if reply == _REPLY else f"the Thrift server answered {reply!r}"


_REPLY = struct.pack(">I", 0x8001_0002)


def _tables_request() -> bytes:
    """Return a strict binary Thrift call of ``getTableNames``, which only a working HBase can answer."""
    method = b"getTableNames"
    return struct.pack(">Ii", 0x8001_0001, len(method)) + method + struct.pack(">ib", 1, 0)


_TABLES_REQUEST = _tables_request()


def start() -> None:
    """Start the master (with region server and ZooKeeper), then Thrift, and wait until a call succeeds."""
    zookeeper = free(2181)
    thrift = free(9090, besides=[zookeeper])
    configure(CONF, _settings(zookeeper=zookeeper, thrift=thrift))
    entry: state.Entry = {"thrift": f"{HOST}:{thrift}", "zookeeper": f"{HOST}:{zookeeper}"}

    master = [*_java(CONF), "-Xmx1g", "org.apache.hadoop.hbase.master.HMaster", "start"]
    server.launch(NAME, master, entry, cwd=HOME)
    server.wait(NAME, entry, lambda: _zookeeper_answers(zookeeper), part="ZooKeeper", limit=server.LIMIT)
    server.launch(NAME, thrift_server(CONF), entry, name="hbase-thrift", cwd=HOME)
    server.wait(NAME, entry, lambda: answers(entry), name="hbase-thrift", part="Thrift", limit=server.LIMIT)


def configure(conf: Path, settings: dict[str, str | int]) -> None:
    """Write the settings of an HBase process to its conf directory.

    :param conf: the conf directory.
    :param settings: values by property name.
    """
    conf.mkdir(parents=True, exist_ok=True)
    (conf / "hbase-site.xml").write_text(_site(settings), encoding="utf-8")


def thrift_server(conf: Path) -> list[str]:
    """Return the command line of a Thrift server with the settings in ``conf``."""
    return [*_java(conf), "-Xmx512m", "org.apache.hadoop.hbase.thrift.ThriftServer", "start"]


def _java(conf: Path) -> list[str]:
    return [needs.java(), *OPENS, *_LOGGING, "-cp", f"{conf}:{maven.fetch(NAME)}/*"]


def _settings(*, zookeeper: int, thrift: int) -> dict[str, str | int]:
    return {
        "hbase.rootdir": (HOME / "data").as_uri(),
        "hbase.tmp.dir": str(HOME / "tmp"),
        "hbase.wal.provider": "filesystem",
        "hbase.unsafe.stream.capability.enforce": "false",
        "hbase.localcluster.assign.random.ports": "true",
        "hbase.master.info.port": -1,
        "hbase.regionserver.info.port": -1,
        "hbase.thrift.info.port": -1,
        "hbase.zookeeper.quorum": HOST,
        "hbase.zookeeper.property.clientPort": zookeeper,
        "hbase.zookeeper.property.dataDir": str(HOME / "zookeeper"),
        # ZooKeeper runs in the same process and ends first. By default HBase would retry it for 20 s.
        "zookeeper.recovery.retry.intervalmill": 100,
        "hbase.thrift.ipaddress": HOST,
        "hbase.regionserver.thrift.ipaddress": HOST,
        "hbase.regionserver.thrift.port": thrift,
    }


def _site(settings: dict[str, str | int]) -> str:
    rows = (
        f"  <property><name>{name}</name><value>{escape(str(value))}</value></property>"
        for name, value in settings.items()
    )
    return "\n".join(['<?xml version="1.0"?>', "<configuration>", *rows, "</configuration>", ""])


def _zookeeper_answers(port: int) -> str:
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return ""
    except OSError as error:
        return f"no ZooKeeper at {HOST}:{port} ({error})"
