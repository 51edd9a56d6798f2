"""The maintenance DAG of a lab's pipeline, run by Airflow itself (``dag.test``) in the tests' own Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories import load_pipelines
from tests.e2e.lab import DEADLINE_S, Lab, wait_for

RUN_S = 3 * DEADLINE_S
"""Only a failing run reaches this limit: each of its tasks has its own deadline."""

DAG = """
import json
import sys
import time
from pathlib import Path

from airflow.sdk import task
from airflow_provider_offsets.factories import load_pipelines, maintenance_dag

home = Path(__file__).parent
[pipeline] = load_pipelines(home / "pipelines.yaml").values()


@task
def work_when_stopped():
    (home / "stopped").touch()
    while not (home / "done").exists():
        time.sleep(0.1)


dag = maintenance_dag(pipeline, window=work_when_stopped)

if __name__ == "__main__":
    run = dag.test(run_conf=json.loads(sys.argv[1]))
    tasks = run.get_task_instances()
    states = {each.task_id: each.state for each in tasks}
    given = {each.task_id: each.xcom_pull(task_ids=each.task_id) for each in tasks}
    (home / "run.json").write_text(json.dumps({"state": run.state, "tasks": states, "given": given}))
"""


def airflow_environment(home: Path, dags: Path) -> dict[str, str]:
    """Return the environment of the Airflow in that home, with its DAG files in another folder."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def run(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a command to its end, and return its output."""
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


class MaintenanceDag:
    """The DAG ``maintenance__<pipeline>`` of a lab, from a ``pipelines.yaml`` as a person would write it."""

    def __init__(self, lab: Lab, airflow_home: Path) -> None:
        self._dags = lab.home / "dags"
        self._dags.mkdir()
        self._environment = airflow_environment(airflow_home, self._dags)
        (self._dags / "maintenance.py").write_text(DAG)
        file = self._dags / "pipelines.yaml"
        file.write_text(yaml.safe_dump({"pipelines": {lab.topic: entry_of(lab.pipeline)}}))
        assert load_pipelines(file)[lab.topic] == lab.pipeline, "the lab looks at what the DAG works on"

    def run(self, start: str = "committed", *, when_stopped: Callable[[], Any] = lambda: None) -> dict[str, Any]:
        """Run the DAG, call ``when_stopped`` in its maintenance window, and return its tasks' results and ``log``."""
        for name in ("stopped", "done", "run.json"):
            (self._dags / name).unlink(missing_ok=True)
        command = [sys.executable, str(self._dags / "maintenance.py"), json.dumps({"reason": "test", "start": start})]
        log = self._dags / "run.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, env=self._environment, stdout=out, stderr=out)
        try:
            wait_for(lambda: (self._dags / "stopped").exists() or process.poll() is not None, "the window", RUN_S)
            assert process.poll() is None, log.read_text()[-6000:]
            when_stopped()
            (self._dags / "done").touch()
            process.wait(RUN_S)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 0, log.read_text()[-6000:]
        ended = json.loads((self._dags / "run.json").read_text())
        skipped = {each for each, state in ended["tasks"].items() if state == "skipped"}
        assert skipped == {"roll_back", "audit_rollback"}, f"{ended['tasks']}\n{log.read_text()[-6000:]}"
        assert set(ended["tasks"].values()) == {"success", "skipped"}, ended["tasks"]
        return {**ended["given"], "log": log.read_text()}


def entry_of(pipeline: StreamingPipeline) -> dict[str, Any]:
    """Return the ``pipelines.yaml`` entry of an untracked pipeline."""
    job, stop = pipeline.job, pipeline.stop
    entry = {
        "topics": list(pipeline.topics),
        "tracked": False,
        "group_id": pipeline.group_id,
        "store_conn_id": pipeline.store_conn_id,
        "offsets_in": list(pipeline.offsets_in),
        "start_timeout_s": pipeline.start_timeout_s,
        "stop": {key: value for key, value in vars(stop).items() if value},
        "rollback": vars(pipeline.rollback),
        "job": {
            "application": job.application,
            "main_class": job.main_class,
            "checkpoint": job.checkpoint,
            "spark_conn_id": job.spark_conn_id,
            "arguments": list(job.arguments),
            "conf": job.conf,
            "jars": [jar for jar in job.jars.split(",") if jar],
            "log_dir": job.log_dir,
        },
    }
    entry["job"] = {key: value for key, value in entry["job"].items() if value}
    return entry
