"""The deferrable waits in the triggerer, run by Airflow itself (``dag.test``) against a running job."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import stack
from airflow_provider_offsets.core.epoch import EndedHow
from tests.e2e.dag_runs import airflow_environment, run
from tests.e2e.lab import DEADLINE_S, Lab

DAG = """
import json
from airflow.sdk import DAG
from airflow_provider_offsets.factories import load_pipelines
from airflow_provider_offsets.operators import StopStreamingJobOperator
from airflow_provider_offsets.sensors import OffsetsReachedSensor, RetentionRunwaySensor, StreamingJobSensor

[pipeline] = load_pipelines({pipelines!r}).values()
with DAG("watch_and_stop", schedule=None) as dag:
    runs = StreamingJobSensor(task_id="runs", pipeline=pipeline, state="running", deferrable=True, timeout={deadline_s})
    read = OffsetsReachedSensor(task_id="read", pipeline=pipeline, deferrable=True, timeout={deadline_s})
    stop = StopStreamingJobOperator(task_id="stop", pipeline=pipeline, deferrable=True)
    ended = StreamingJobSensor(task_id="ended", pipeline=pipeline, state="ended", deferrable=True, timeout={deadline_s})
    short = RetentionRunwaySensor(task_id="short", pipeline=pipeline, at_least_s=10**9, deferrable=True)
    runs >> read >> stop >> ended >> short

if __name__ == "__main__":
    run = dag.test()
    print(json.dumps({{"run": run.state, **{{task.task_id: task.state for task in run.get_task_instances()}}}}))
"""


def test_sensors_and_stop_wait_in_the_triggerer(
    make_lab: Callable[..., Lab], airflow_home: Path, tmp_path: Path
) -> None:
    lab = make_lab()
    lab.produce(50, 0, 1, 2)
    lab.maintain()
    pipelines = tmp_path / "pipelines.yaml"
    pipelines.write_text(yaml.safe_dump({"pipelines": {lab.topic: _entry(lab)}}))
    file = tmp_path / "dags" / "watch.py"
    file.parent.mkdir()
    file.write_text(DAG.format(pipelines=str(pipelines), deadline_s=DEADLINE_S))

    printed = run([sys.executable, str(file)], airflow_environment(airflow_home, file.parent))

    states = json.loads(printed.strip().splitlines()[-1])
    assert set(states.values()) == {"success"}, states
    ended = lab.epoch.ended
    assert ended is not None
    assert ended.how is EndedHow.STOPPED
    assert lab.lost == set()


def _entry(lab: Lab) -> dict[str, Any]:
    job = lab.pipeline.job
    return {
        "topics": [lab.topic],
        "job": {
            "application": job.application,
            "checkpoint": job.checkpoint,
            "jars": [str(jar) for jar in stack.jars("spark")],
        },
    }
