"""A broker of the tests' own, whose users must log in and may do only what ACLs grant them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stack import kafka
from stack.ports import HOST, free
from tests.integration.kafka.conftest import DEADLINE_S

USER, PASSWORD = "jane", "jane-s-secret"
RETENTION_MINUTES = 90

# A client of the first listener needs no login, and may do everything: the administrator.
PROPERTIES = """
listeners=BROKER://{host}:{broker},CLIENT://{host}:{client},CONTROLLER://{host}:{controller}
advertised.listeners=BROKER://{host}:{broker},CLIENT://{host}:{client}
listener.security.protocol.map=BROKER:PLAINTEXT,CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
offsets.retention.minutes={retention}
"""


class SecuredBroker:
    """One broker; its files are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        broker = free(19092)
        client = free(19192, besides=[broker])
        controller = free(19292, besides=[broker, client])
        ports = {"host": HOST, "broker": broker, "controller": controller}
        own = PROPERTIES.format(**ports, client=client, user=USER, password=PASSWORD, retention=RETENTION_MINUTES)
        self._log = folder / "log"
        self._properties = folder / "server.properties"
        # If a key occurs twice, the later one counts.
        self._properties.write_text(kafka.PROPERTIES.format(**ports, data=folder / "data") + own)
        self.administrator = f"{HOST}:{broker}"
        self._client = f"{HOST}:{client}"
        self._running: subprocess.Popen[bytes] | None = None

    def settings(self, password: str = PASSWORD) -> dict[str, str | int]:
        """Return the settings of librdkafka for the user."""
        return {
            "bootstrap.servers": self._client,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": password,
            "log_level": 0,
        }

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        with self._log.open("ab") as out:
            subprocess.run(kafka.format_command(self._properties), check=True, stdout=out, stderr=out)
            self._running = subprocess.Popen(kafka.broker_command(self._properties), stdout=out, stderr=out)
        deadline = time.monotonic() + DEADLINE_S
        while kafka.answers({"bootstrap_servers": self.administrator}):
            log_end = self._log.read_text(errors="replace")[-2000:]
            assert self._running.poll() is None, log_end
            assert time.monotonic() < deadline, log_end
            time.sleep(0.1)

    def grant(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Allow the user these operations, and no others, on a topic or group."""
        with AdminClient({"bootstrap.servers": self.administrator}) as admin:
            rules = [
                AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", each, AclPermissionType.ALLOW)
                for each in operations
            ]
            for future in admin.create_acls(rules).values() if rules else ():
                future.result(DEADLINE_S)

    def stop(self) -> None:
        """Stop the broker."""
        if self._running is not None:
            self._running.kill()
            self._running.wait(DEADLINE_S)
