"""The connections of docs/install.md are the same, whichever way a person adds them."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.models import Connection
from airflow.utils.db import initdb
from airflow.utils.session import create_session

from airflow_provider_offsets.cli.ending import command
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.hooks.connection import find_connection
from airflow_provider_offsets.hooks.kafka import kafka_settings
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.hooks.spark import SparkJobHook

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
CONNECTIONS = ("offsets_default", "kafka_default", "spark_default")
EXPECTED = {
    "store": "sqlite:////var/lib/airflow/offsets.db",
    "kafka": {"bootstrap.servers": "localhost:9092"},
    "master": ["--master", "local[2]"],
}


def blocks(language: str) -> str:
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def resolved(tmp_path: Path) -> dict[str, Any]:
    """Return what the tasks make of the three connections."""
    job = SparkJob(str(tmp_path / "job.py"), str(tmp_path / "checkpoint"))
    command = SparkJobHook(StreamingPipeline("orders", ("orders",), job)).command({})
    at = command.index("--master")
    kafka = kafka_settings(find_connection("kafka_default"))
    return {"store": OffsetsHook().url, "kafka": kafka, "master": command[at : at + 2]}


# Airflow's own command uses its old name.
pytestmark = pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")


@pytest.fixture
def database() -> Iterator[None]:
    """Create the tables of Airflow, and remove the three connections before and after the test."""
    initdb()

    def remove() -> None:
        with create_session() as session:
            session.query(Connection).where(Connection.conn_id.in_(CONNECTIONS)).delete()

    remove()
    yield
    remove()


def test_by_the_command_line(database: None, tmp_path: Path) -> None:
    commands = re.findall(r"^\$ airflow (connections add .+)$", blocks("console").replace("\\\n", " "), re.MULTILINE)
    assert len(commands) == 3

    for words in map(shlex.split, commands):
        given = get_parser().parse_args(words)
        given.func(given)

    with command(argparse.Namespace()):  # as a command of this provider resolves them
        assert resolved(tmp_path) == EXPECTED


def test_by_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exported = re.findall(r"^export (AIRFLOW_CONN_\w+)='(.+)'$", blocks("sh"), re.MULTILINE)
    assert len(exported) == 3

    for name, value in exported:
        monkeypatch.setenv(name, value)

    assert resolved(tmp_path) == EXPECTED


def test_by_a_secrets_backend(tmp_path: Path) -> None:
    """Airflow reads the backend once in a process, so another process resolves the connections."""
    shown = "/opt/airflow/connections.json"
    assert shown in blocks("ini")
    (tmp_path / "airflow.cfg").write_text(blocks("ini").replace(shown, f"{tmp_path}/connections.json"))
    (tmp_path / "connections.json").write_text(blocks("json"))
    program = (
        f"from tests.unit import test_install as it; print(it.json.dumps(it.resolved(it.Path({str(tmp_path)!r}))))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == EXPECTED


def test_without_any_of_them_there_is_none(database: None) -> None:
    """The test of the tests: nothing else in this process has the connections."""
    with pytest.raises(InputRefused, match="kafka_default"):
        find_connection("kafka_default")
