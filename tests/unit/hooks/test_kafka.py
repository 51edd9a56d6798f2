"""Kafka connections that a person gets wrong: our own error, which Airflow does not retry."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.kafka import open_kafka
from tests.unit.airflow_versions import no_object
from tests.unit.conftest import Connect

BROKER = {"bootstrap.servers": "127.0.0.1:1"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": "broker", "port": 9092}, "has the host field 'broker:9092'. Expected the brokers in the extra"),
        ({"host": "broker"}, "has the host field 'broker'"),
        ({}, "has no 'bootstrap.servers' in its extra, and has neither"),
        ({"extra": {"bootstrap_servers": "b:9092"}}, "has the key 'bootstrap_servers'"),
        ({"extra": {"bootstrap.servers": ["a:9092", "b:9092"]}}, "'bootstrap.servers' of .* is a list.*with commas"),
        ({"extra": {"bootstrap.servers": 9092}}, "'bootstrap.servers' of .* is a int"),
        ({"extra": {**BROKER, "metadata.broker.list": "b:1"}}, "'bootstrap.servers' and 'metadata.broker.list', two"),
        ({"extra": {**BROKER, "sasl.mechanism": "PLAIN", "sasl.mechanisms": "GSSAPI"}}, "two names of one property"),
        ({"extra": {**BROKER, "ssl": {"ca": "x"}}}, "'ssl' of .* is a dict"),
        ({"extra": {**BROKER, "client.id": None}}, "'client.id' of .* is a NoneType"),
        ({"extra": {**BROKER, "securty.protocol": "SSL"}}, "does not accept the connection: .*securty.protocol"),
        ({"extra": {**BROKER, "security.protocol": "TLS"}}, "does not accept the connection: .*security.protocol"),
        ({"extra": {**BROKER, "socket.timeout.ms": "soon"}}, "does not accept the connection: .*socket.timeout.ms"),
        ({"extra": {**BROKER, "error_cb": "my.module.callback"}}, "cannot be used: .*error_cb.*callback_allowlist"),
        ({"extra": {**BROKER, "oauth_cb": "nowhere"}}, "cannot be used: .*oauth_cb"),
        ({"extra": {**BROKER, "error_cb": 7}}, "does not accept the connection"),
        ({"extra": '{"bootstrap.servers": "a:1", "bootstrap.servers": "b:1"}'}, "'bootstrap.servers' appears twice"),
        ({"extra": {"bootstrap.servers": "b:9092\u00a0"}}, "'bootstrap.servers' has a no-break space"),
        ({"extra": "bootstrap.servers=b:9092"}, no_object("the extra of connection 'kafka_eu' cannot be read")),
    ],
)
def test_one_that_is_wrong_is_refused(fields: dict[str, Any], words: str, connect: Connect) -> None:
    connect("kafka_eu", "kafka", **fields)

    with pytest.raises(InputRefused, match=f"(?i){words}") as refused, open_kafka("kafka_eu"):
        pass

    assert not refused.value.retriable


def test_a_missing_one() -> None:
    with pytest.raises(InputRefused, match="Connection 'nowhere' does not exist"), open_kafka("nowhere"):
        pass


def test_one_that_is_right_opens_without_an_answer(connect: Connect) -> None:
    secret = {"sasl.password": "ends with a space ", "ssl.key.password": "two\nlines"}
    connect("kafka_eu", "kafka", extra={**BROKER, "client.id": "x", "socket.timeout.ms": 1000, **secret})

    with open_kafka("kafka_eu") as clients:
        assert clients.bootstrap_servers == "127.0.0.1:1"
