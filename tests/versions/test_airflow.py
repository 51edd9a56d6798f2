"""What Airflow itself does with the provider: the Python of each cell for Airflow runs this file.

Each test starts Airflow as a process, with a home of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from airflow_provider_offsets.stores import open_store
from stack.places import ROOT
from tests.e2e.conftest import endpoint
from tests.e2e.dag_runs import airflow_environment, run
from tests.e2e.lab import connections

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
OFFSETS = (AIRFLOW, "offsets") if AIRFLOW_V_3_2_PLUS else (sys.executable, "-m", "airflow_provider_offsets")
"""The commands: Airflow 3.1 lists none of a provider."""

LOOK = """
import json, sys
from pathlib import Path
from tests.unit.airflow_versions import DagSerialization, dag_bag

bag = dag_bag(Path(sys.argv[1]))
read = {name: DagSerialization.from_dict(DagSerialization.to_dict(dag)) for name, dag in bag.dags.items()}
print(json.dumps({"errors": bag.import_errors, "tasks": {name: len(dag.task_dict) for name, dag in read.items()}}))
"""

DAG = """
from pathlib import Path
from airflow_provider_offsets import load_pipelines, snapshots_dag

[pipeline] = load_pipelines(Path(__file__).with_name("pipelines.yaml")).values()
dag = snapshots_dag(pipeline, retries=0)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of an Airflow with a database, whose DAG files are those of the checkout."""
    environment = airflow_environment(tmp_path_factory.mktemp("airflow"), ROOT / "dags")
    run([AIRFLOW, "db", "migrate"], environment)
    return environment


@pytest.fixture
def topic() -> Iterator[str]:
    """Yield a topic with two partitions, of ten records each."""
    bootstrap, name = endpoint("kafka", "bootstrap_servers"), f"versions-{uuid.uuid4().hex[:8]}"
    admin, producer = AdminClient({"bootstrap.servers": bootstrap}), Producer({"bootstrap.servers": bootstrap})
    [each.result() for each in admin.create_topics([NewTopic(name, 2, 1)]).values()]
    for number in range(20):
        producer.produce(name, b"flight", partition=number % 2)
    assert producer.flush(60) == 0
    yield name
    [each.result() for each in admin.delete_topics([name]).values()]


def listed(arguments: list[str], environment: dict[str, str]) -> list[dict[str, Any]]:
    """Return the rows that a command of Airflow prints, which may come after its log."""
    said = run([AIRFLOW, *arguments, "-o", "json"], environment)
    return json.loads(said[said.index("[{") :])


def test_airflow_lists_the_provider_its_connection_type_and_its_plugin(airflow: dict[str, str]) -> None:
    providers = [each["package_name"] for each in listed(["providers", "list"], airflow)]
    kinds = {each["connection_type"]: each["package_name"] for each in listed(["providers", "hooks"], airflow)}

    assert providers.count("airflow-provider-offsets") == 1
    assert kinds["offsets"] == "airflow-provider-offsets"
    assert "offsets" in [each["name"] for each in listed(["plugins"], airflow)]


def test_the_dags_of_the_checkout_are_read_and_stored(airflow: dict[str, str]) -> None:
    found = json.loads(run([sys.executable, "-c", LOOK, str(ROOT / "dags")], airflow).splitlines()[-1])

    assert found["errors"] == {}
    assert {name.partition("__")[0] for name in found["tasks"]} == {
        *("maintenance", "reprocess", "recovery", "rehearsal", "snapshots"),
        *("backfill", "backfill_then_live"),
    }
    assert 0 not in found["tasks"].values()


def test_the_commands_have_a_help(airflow: dict[str, str]) -> None:
    said = run([*OFFSETS, "--help"], airflow)

    assert [each for each in ("plan", "audit", "preflight", "export") if each not in said] == []


def test_a_task_stores_a_snapshot_of_real_kafka(airflow: dict[str, str], topic: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/offsets.db"
    with contextlib.closing(open_store(url)) as store:
        store.create()
    (tmp_path / "orders.py").write_text(DAG)
    entry = {"topics": [topic], "job": {"application": "job.py", "checkpoint": "checkpoint", "log_dir": "logs"}}
    (tmp_path / "pipelines.yaml").write_text(json.dumps({"pipelines": {"orders": entry}}))
    environment = {
        **airflow,
        **connections(endpoint("kafka", "bootstrap_servers"), url),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    run([AIRFLOW, "dags", "test", "snapshots__orders"], environment)

    said = run([*OFFSETS, "snapshots", "list", "--file", str(tmp_path / "pipelines.yaml"), "-p", "orders"], environment)
    assert re.findall(r"(snapshots__orders/manual__\S+)#snapshot$", said, re.MULTILINE)
