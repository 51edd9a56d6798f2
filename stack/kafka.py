"""Kafka: one KRaft node that is broker and controller."""

import base64
import shutil
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from stack import maven, needs, server, state
from stack.places import STATE, log_of, shown
from stack.ports import HOST, free
from stack.problem import Problem
from stack.process import last_lines

NAME = "kafka"
MEMORY = 1.0
HOME = STATE / NAME
DATA = HOME / "data"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=BROKER://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=BROKER://{host}:{broker}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# Retention is looked at often, so that a test of it need not wait for five minutes.
log.retention.check.interval.ms=5000
"""


def prepare() -> None:
    """Prepare Java and the jars."""
    needs.java()
    maven.fetch(NAME)


def answers(entry: state.Entry) -> str:
    """Ask for the cluster's metadata; return an error message, or an empty string."""
    host, _, port = entry["bootstrap_servers"].partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(_METADATA_REQUEST)
            reply = connection.makefile("rb")
            (size,) = struct.unpack(">i", reply.read(4))
            _correlation, _throttled, brokers = struct.unpack_from(">iii", reply.read(size))
    except (OSError, struct.error) as error:
        return f"no answer at {host}:{port} ({error})"
    return "" if brokers else "the broker is not registered yet"


def _metadata_request() -> bytes:
    """Return a request of Kafka's protocol: Metadata, version 4, for no topic."""
    client = b"stack"
    header = struct.pack(">hhih", 3, 4, 1, len(client)) + client
    request = header + struct.pack(">i?", 0, False)
    return struct.pack(">i", len(request)) + request


_METADATA_REQUEST = _metadata_request()


def start() -> None:
    """Start the broker and wait until it answers."""
    broker = free(9092)
    controller = free(9093, besides=[broker])
    HOME.mkdir(parents=True, exist_ok=True)
    properties = HOME / "server.properties"
    properties.write_text(
        PROPERTIES.format(host=HOST, broker=broker, controller=controller, data=DATA), encoding="utf-8"
    )
    if not (DATA / "meta.properties").exists():
        _format(properties)
    entry: state.Entry = {"bootstrap_servers": f"{HOST}:{broker}"}
    server.launch(NAME, broker_command(properties), entry, cwd=HOME)
    server.wait(NAME, entry, lambda: answers(entry), limit=server.LIMIT)


def broker_command(properties: Path) -> list[str]:
    """Return the command that runs a broker."""
    return [*_java(), "kafka.Kafka", str(properties)]


def format_command(properties: Path) -> list[str]:
    """Return the command that formats a broker's storage with a new cluster id."""
    return [*_java(), "kafka.tools.StorageTool", "format", "-t", cluster_id(), "-c", str(properties)]


def _java() -> list[str]:
    return [needs.java(), "-Xmx1g", "-cp", f"{maven.fetch(NAME)}/*", *_LOGGING]


_LOGGING = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
]


def _format(properties: Path) -> None:
    shutil.rmtree(DATA, ignore_errors=True)
    log = log_of("kafka-format")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        argv = format_command(properties)
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, check=False)
    if ended.returncode != 0:
        raise Problem(
            f"formatting {shown(DATA)} ended with code {ended.returncode}",
            expected="code 0",
            do=f"read {shown(log)}",
            detail=last_lines(log),
        )


def cluster_id() -> str:
    """Return a new cluster id in Kafka's form. It never begins with a dash, which would be parsed as an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")).startswith("-"):
        pass
    return text
