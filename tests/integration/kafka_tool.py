"""Kafka's own command-line tool, from the jars of the stack."""

from __future__ import annotations

import subprocess

import stack

DEADLINE_S = 120.0
"""Only a failing test waits this long."""


def kafka_consumer_groups(servers: str, *words: str) -> str:
    """Run Kafka's own tool, and return its output."""
    jars = f"{stack.jars('kafka')[0].parent}/*"
    main = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    quick = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command = ["java", *quick, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", jars, main]
    done = subprocess.run(
        [*command, "--bootstrap-server", servers, *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
