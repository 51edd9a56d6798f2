"""Checkpoints of stateful queries: ids of state stores, a repartition of the state, named sources and sinks.

The real Spark writes them, this package reads a copy of each, and Spark goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest

import stack
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.start import require_start
from airflow_provider_offsets.core.snapshot import CheckpointState
from airflow_provider_offsets.errors import CheckpointError
from tests.contract.kafka_view import FOR_EVER
from tests.e2e import on_states
from tests.e2e.conftest import endpoint
from tests.integration.kafka.conftest import RealCluster


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Yield what the steps of ``on_states.py`` did, and the folder with the copies of the checkpoints."""
    home = tmp_path_factory.mktemp("states")
    cluster = RealCluster(endpoint("kafka", "bootstrap_servers"))
    topic = f"states-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, 1, **FOR_EVER)
    job = {
        "jars": ",".join(map(str, stack.jars("spark"))),
        "bootstrap_servers": cluster.bootstrap_servers,
        "topic": topic,
        "folder": str(home / "checkpoints"),
        "warehouse": str(home / "warehouse"),
    }
    (home / "job.json").write_text(json.dumps(job))
    with (home / "log").open("w") as log:
        command = [sys.executable, on_states.__file__, str(home / "job.json"), str(home / "out")]
        done = subprocess.run(command, stdout=log, stderr=log, timeout=300, check=False)
    assert done.returncode == 0, (home / "log").read_text()[-3000:]
    yield json.loads((home / "out").read_text()), home / "checkpoints"
    cluster.clean()


def state_after(spark: Any, step: str) -> CheckpointState:
    """Return what this package reads of the checkpoint that a step has left."""
    folder = open_checkpoint(str(spark[1] / f"after {step}"))
    state = read_state(folder)
    assert state is not None
    require_start(folder, may_have_gaps=False)
    return state


@pytest.mark.parametrize(
    ("step", "batch_id", "offset", "next_step", "next_run"),
    [
        ("first run", 1, 12, None, []),
        pytest.param("repartition", 2, 12, "resume", [3], id="a control batch reads nothing, and counts as committed"),
        ("resume", 3, 18, None, []),
        pytest.param("named", 2, 18, "named, resumed", [3], id="offsets of version 2, commits of version 3"),
        ("named, resumed", 3, 24, None, []),
    ],
)
def test_the_position_is_where_spark_goes_on(
    spark: Any, step: str, batch_id: int, offset: int, next_step: str | None, next_run: list[int]
) -> None:
    state = state_after(spark, step)

    assert (state.committed_batch_id, list(state.committed.values())) == (batch_id, [offset])
    assert state.planned_batch_id is None
    assert state.stateful
    if next_step is not None:
        assert spark[0][next_step]["died"] == ""
        assert [number for number, _ in spark[0][next_step]["ran"]] == next_run


def test_spark_wrote_what_the_test_is_about(spark: Any) -> None:
    texts = {
        step: (spark[1] / f"after {step}" / log).read_text()
        for step, log in (("first run", "commits/1"), ("named", "commits/2"), ("named, resumed", "offsets/3"))
    }

    assert texts["first run"].startswith("v2\n")
    assert "stateUniqueIds" in texts["first run"]
    assert texts["named"].startswith("v3\n")
    assert "\nflights:{" in texts["named, resumed"]


def test_a_repartition_that_was_cut_off_is_refused_as_by_spark(spark: Any) -> None:
    with pytest.raises(CheckpointError, match="repartition of the state that has not finished"):
        state_after(spark, "cut off repartition")

    assert "STREAMING_UNFINISHED_REPARTITION_DETECTED" in spark[0]["resume of a cut off repartition"]["died"]
