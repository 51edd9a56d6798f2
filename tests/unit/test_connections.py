"""What is made from the Airflow connections of a pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.connections import driver_secrets, make_launcher
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.errors import InputRefused
from tests.unit.conftest import Connect
from tests.unit.operations.lab import Lab

STORE = "postgresql://offsets@db.example/offsets"


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, spark_submit: Path) -> None:
    """Set up the connections of the lab's pipeline, with YARN as master."""
    Path(lab.pipeline.job.application).write_text("")
    connect("offsets_default", "offsets", extra={"url": STORE})
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker.example:9092"})
    connect("spark_default", "spark", host="yarn", extra={"yarn_resourcemanager_webapp_address": "rm.example:8088"})


def test_a_launcher_has_the_values_of_the_store_kafka_and_spark_connections(lab: Lab) -> None:
    launcher = make_launcher(lab.pipeline)

    assert launcher.secrets.store_url == STORE
    assert launcher.secrets.kafka_options["kafka.bootstrap.servers"] == "broker.example:9092"
    assert launcher.resource_manager == "http://rm.example:8088"
    command = launcher.build_command({"spark.offsets.pipeline": "p"})
    assert command[1:3] == ["--master", "yarn"]
    assert "spark.offsets.pipeline=p" in command


def test_a_job_that_cannot_be_launched_has_no_launcher(lab: Lab) -> None:
    gone = replace(lab.pipeline, job=replace(lab.pipeline.job, application="/gone.py"), stop=StopPolicy())

    with pytest.raises(InputRefused, match=r"'/gone\.py'.* is not a file"):
        make_launcher(gone)


def test_the_driver_gets_both_secrets(lab: Lab, connect: Connect) -> None:
    connect("offsets_default", "offsets", extra={"url": "postgresql://me@db/offsets"}, password="db-secret")
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker:9092", "ssl.keystore.password": "key-secret"})

    secrets = driver_secrets(lab.pipeline)

    assert secrets.store_url == "postgresql://me:db-secret@db/offsets"
    assert secrets.kafka_options == {
        "kafka.bootstrap.servers": "broker:9092",
        "kafka.ssl.keystore.password": "key-secret",
    }
    assert "secret" not in repr(secrets)
    committed = driver_secrets(replace(lab.pipeline, read_committed=True))
    assert committed.kafka_options == {**secrets.kafka_options, "kafka.isolation.level": "read_committed"}
