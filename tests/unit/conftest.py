"""A separate machine state for each test, and an Airflow home that belongs to nobody."""

from __future__ import annotations

import atexit
import gc
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from tests.unit.operations.lab import Lab, install

# Imports create only objects that stay, and collecting garbage among them takes a third of their time.
gc.disable()

# Airflow reads these once, when it is imported: before the first test module is.
_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ |= {"AIRFLOW_HOME": _HOME, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}


class Connect(Protocol):
    """Sets an Airflow connection for the duration of one test."""

    def __call__(self, conn_id: str, conn_type: str, **fields: Any) -> None: ...


def pytest_collection_finish() -> None:
    """Exclude what is imported, such as Airflow, from every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


@sa.event.listens_for(sa.Engine, "connect")
def without_fsync(connection: object, record: object) -> None:
    """Switch off SQLite's fsync: unit tests kill processes, and no machine."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    folder = tmp_path / "lab"
    folder.mkdir()
    return install(Lab(folder), monkeypatch)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    def set_connection(conn_id: str, conn_type: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    return set_connection


@pytest.fixture
def spark_submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a spark-submit on the PATH that nobody calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "spark-submit"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return program
