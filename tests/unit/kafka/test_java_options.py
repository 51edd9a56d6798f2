"""One Kafka connection for two clients: every security option is translated or refused, never dropped."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.kafka.java_options import spark_kafka_options

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
LOGIN = {"security.protocol": "SASL_SSL", "sasl.username": "me", "sasl.password": "hunter2"}


@pytest.mark.parametrize(
    ("why", "config", "options"),
    [
        ("no security", {"bootstrap.servers": "a:1,b:2"}, {"kafka.bootstrap.servers": "a:1,b:2"}),
        ("librdkafka's older name", {"metadata.broker.list": "a:1"}, {"kafka.bootstrap.servers": "a:1"}),
        (
            "tuning of librdkafka has no namesake",
            {"bootstrap.servers": "a:1", "queued.max.messages.kbytes": 1, "socket.timeout.ms": 5, "group.id": "x"},
            {"kafka.bootstrap.servers": "a:1"},
        ),
        (
            "PLAIN",
            {**LOGIN, "sasl.mechanism": "PLAIN"},
            {
                "kafka.security.protocol": "SASL_SSL",
                "kafka.sasl.mechanism": "PLAIN",
                "kafka.sasl.jaas.config": f'{PLAIN} required username="me" password="hunter2";',
            },
        ),
        (
            "SCRAM, under librdkafka's other name",
            {**LOGIN, "sasl.mechanisms": "SCRAM-SHA-512"},
            {
                "kafka.security.protocol": "SASL_SSL",
                "kafka.sasl.mechanism": "SCRAM-SHA-512",
                "kafka.sasl.jaas.config": f'{SCRAM} required username="me" password="hunter2";',
            },
        ),
        (
            "TLS with an authority of one's own",
            {"security.protocol": "SSL", "ssl.ca.location": "/ca.pem"},
            {
                "kafka.security.protocol": "SSL",
                "kafka.ssl.truststore.type": "PEM",
                "kafka.ssl.truststore.location": "/ca.pem",
            },
        ),
        (
            "TLS with a key of one's own",
            {"security.protocol": "SSL", "ssl.keystore.location": "/me.p12", "ssl.keystore.password": "hunter2"},
            {
                "kafka.security.protocol": "SSL",
                "kafka.ssl.keystore.type": "PKCS12",
                "kafka.ssl.keystore.location": "/me.p12",
                "kafka.ssl.keystore.password": "hunter2",
            },
        ),
        (
            "to check certificates is all that Java does",
            {"bootstrap.servers": "a:1", "enable.ssl.certificate.verification": "true"},
            {"kafka.bootstrap.servers": "a:1"},
        ),
        (
            "a check of the host's name",
            {"ssl.endpoint.identification.algorithm": "https"},
            {"kafka.ssl.endpoint.identification.algorithm": "https"},
        ),
        (
            "no check of the host's name, in Java's word for it",
            {"ssl.endpoint.identification.algorithm": "none"},
            {"kafka.ssl.endpoint.identification.algorithm": ""},
        ),
    ],
)
def test_the_options_that_spark_gets(why: str, config: dict[str, object], options: dict[str, str]) -> None:
    assert spark_kafka_options(config) == options


@pytest.mark.parametrize(
    ("password", "quoted"),
    [
        ("plain", '"plain"'),
        ('with "quotes"', r'"with \"quotes\""'),
        ("with\\backslash", r'"with\\backslash"'),
        ('";login=evil', r'"\";login=evil"'),
        ("with ; and = and space", '"with ; and = and space"'),
        ("", '""'),
    ],
)
def test_a_password_cannot_leave_its_quotes(password: str, quoted: str) -> None:
    options = spark_kafka_options({**LOGIN, "sasl.mechanism": "PLAIN", "sasl.password": password})

    assert options["kafka.sasl.jaas.config"] == f'{PLAIN} required username="me" password={quoted};'


@pytest.mark.parametrize(
    "key",
    [
        "sasl.kerberos.keytab",
        "sasl.oauthbearer.config",
        "ssl.certificate.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.ca.pem",
        "ssl.cipher.suites",
        "enable.ssl.certificate.verification",
    ],
)
def test_a_security_option_without_a_translation_is_refused_by_name(key: str) -> None:
    with pytest.raises(InputRefused, match=f"'{key}'") as refused:
        spark_kafka_options({"bootstrap.servers": "a:1", key: "hunter2"})

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("mechanism", [None, "", "GSSAPI", "OAUTHBEARER"])
def test_a_login_of_another_kind_is_refused(mechanism: str | None) -> None:
    config = LOGIN if mechanism is None else {**LOGIN, "sasl.mechanism": mechanism}

    with pytest.raises(InputRefused, match=r"sasl\.username with sasl\.mechanism") as refused:
        spark_kafka_options(config)

    assert "hunter2" not in str(refused.value)
