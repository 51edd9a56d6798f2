"""Fixtures and Hypothesis profiles of all tests."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, settings

# pytest rewrites assertions of test modules only: without this, failures in contracts would show no values.
pytest.register_assert_rewrite("tests.contract")

# A busy machine is no reason to fail a law.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")


@pytest.fixture(scope="session")
def hdfs_endpoint() -> dict[str, str]:
    """Return the stack's HDFS endpoints, ``webhdfs`` and ``hdfs``.

    Only these tests need HDFS, so this fixture starts it.
    """
    from stack import endpoints

    if "hdfs" not in endpoints():
        subprocess.run([sys.executable, "-m", "stack", "up", "hdfs"], cwd=Path(__file__).parents[1], check=True)
    return endpoints()["hdfs"]


@pytest.fixture
def hdfs(hdfs_endpoint: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield a new folder on HDFS as WebHDFS's ``host:port/path``, and remove it afterwards.

    fsspec's configuration names the user, as a person would configure it.
    """
    monkeypatch.setitem(fsspec.config.conf, "webhdfs", {"user": getpass.getuser()})
    folder = f"{hdfs_endpoint['webhdfs']}{tmp_path}"
    yield folder
    files, path = fsspec.core.url_to_fs(f"webhdfs://{folder}")
    if files.exists(path):
        files.rm(path, recursive=True)
