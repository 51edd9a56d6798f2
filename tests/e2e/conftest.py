"""The labs of the end-to-end tests: real Kafka, real Spark, real stores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import stack
from airflow_provider_offsets.stores import open_store
from tests.e2e import class_archive
from tests.e2e.dag_runs import airflow_environment, run
from tests.e2e.lab import Lab, connections

AIRFLOW = {"test_airflow.py", "test_backfill.py"}
"""The files whose tests share the stack's Airflow."""


@pytest.hookimpl(trylast=True)  # after the fixtures of the module, which use Airflow
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the stack's Airflow before the first test without it: its scheduler alone takes a sixth of a core."""
    if item.path.name in AIRFLOW and nextitem is not None and nextitem.path.name not in AIRFLOW:
        run([sys.executable, "-m", "stack", "down", "airflow"], dict(os.environ))


def endpoint(server: str, key: str) -> str:
    """Return an endpoint of the local stack. Without it the test fails in CI and is skipped elsewhere."""
    found = stack.endpoints().get(server)
    if found is None:
        words = f"{server} is not up: python3 -m stack up {server}"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    return str(found[key])


@pytest.fixture(scope="session", autouse=True)
def quick_starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set the environment in which every ``spark-submit`` starts fast, also that of the demo's Airflow."""
    with pytest.MonkeyPatch.context() as patch:
        if "kafka" in stack.endpoints():
            quick = class_archive.options(endpoint("kafka", "bootstrap_servers"), tmp_path_factory.mktemp("classes"))
            for name, value in quick.items():
                patch.setenv(name, value)
        yield


@pytest.fixture
def make_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Lab]]:
    """Yield a function that makes a lab on a SQLite store or on the store of ``store_url``.

    All labs are closed afterwards.
    """
    closing = ExitStack()

    def make(*, kind: type[Lab] = Lab, partitions: int = 3, store_url: str | None = None, **settings: Any) -> Lab:
        bootstrap = endpoint("kafka", "bootstrap_servers")
        url = store_url or f"sqlite:///{tmp_path}/offsets.db"
        if url.startswith("sqlite"):
            store = open_store(url)
            store.create()
            store.close()
        for name, value in connections(bootstrap, url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        lab = kind(tmp_path, bootstrap, url, **settings)
        lab.create_topic(partitions)
        closing.callback(lab.close)
        return lab

    with closing:
        yield make


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of the tests' own Airflow: a database, and no servers."""
    home = tmp_path_factory.mktemp("airflow")
    run([str(Path(sys.executable).with_name("airflow")), "db", "migrate"], airflow_environment(home, home / "dags"))
    return home


@pytest.fixture
def hbase_url() -> str:
    """Return the URL of the store on the real HBase that the tests share."""
    url = f"hbase://{endpoint('hbase', 'thrift')}/e2e_offsets"
    store = open_store(url)
    store.create()
    store.close()
    return url


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab with three partitions on a SQLite store."""
    return make_lab()
