"""Translation of a Kafka connection from librdkafka's property names to those of Spark's Kafka source (Java)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_offsets.errors import InputRefused

SAME = {"bootstrap.servers", "client.id", "security.protocol", "sasl.mechanism"}
HOST_CHECK, CERTIFICATE_CHECK = "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification"
RENAMED = {"metadata.broker.list": "bootstrap.servers", "sasl.mechanisms": "sasl.mechanism"}
PEM = {"ssl.ca.location": "truststore", "ssl.keystore.location": "keystore"}
LOGIN = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def spark_kafka_options(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``kafka.*`` options of Spark's source for a ``kafka`` connection.

    Tuning options of librdkafka have no equivalent in Java and are omitted. Security options are never omitted: a
    driver without one would fail later, or connect unprotected.

    :param config: properties of librdkafka, from the connection's ``extra``.
    :raises InputRefused: a security option has no translation.
    """
    options: dict[str, str] = {}
    for key, value in config.items():
        name = RENAMED.get(key, key)
        if name in SAME:
            options[f"kafka.{name}"] = str(value)
        elif key in PEM:
            options[f"kafka.ssl.{PEM[key]}.type"] = "PEM" if key == "ssl.ca.location" else "PKCS12"
            options[f"kafka.ssl.{PEM[key]}.location"] = str(value)
        elif key == "ssl.keystore.password":
            options[f"kafka.{key}"] = str(value)
        elif key == HOST_CHECK:
            # librdkafka disables the check with "none", Java with an empty string.
            options[f"kafka.{key}"] = "" if value == "none" else str(value)
        elif _is_untranslated_security(key, value):
            raise InputRefused(
                seen=f"the Kafka connection has {key!r}",
                expected="security options that Spark's Kafka source knows by another name: "
                "security.protocol, sasl.mechanism(s) with sasl.username and sasl.password, ssl.ca.location, "
                "ssl.keystore.location and ssl.keystore.password (PKCS12)",
                do="use one of these in the connection",
            )
    if "sasl.username" in config:
        options["kafka.sasl.jaas.config"] = _jaas(config)
    return options


def _is_untranslated_security(key: str, value: Any) -> bool:
    if key == CERTIFICATE_CHECK:
        return str(value).lower() != "true"  # Java always verifies certificates, and cannot be configured otherwise.
    return key.startswith(("sasl.", "ssl.")) and key not in ("sasl.username", "sasl.password")


def _jaas(config: Mapping[str, Any]) -> str:
    mechanism = str(config.get("sasl.mechanism") or config.get("sasl.mechanisms") or "")
    if mechanism not in LOGIN:
        raise InputRefused(
            seen=f"the Kafka connection has sasl.username with sasl.mechanism {mechanism!r}",
            expected=f"one of {', '.join(sorted(LOGIN))}",
            do="set sasl.mechanism in the Kafka connection",
        )
    user, password = (_quoted(str(config.get(key, ""))) for key in ("sasl.username", "sasl.password"))
    return f"{LOGIN[mechanism]} required username={user} password={password};"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
