"""The real Spark behaves on odd checkpoints like the simulation's fake Spark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

import stack
from tests.e2e.conftest import endpoint
from tests.simulation.odd_checkpoints import END, ODD_CHECKPOINTS, TOPIC

JOB = Path(__file__).with_name("odd_checkpoints_job.py")


def test_the_real_spark_does_what_the_table_says(tmp_path: Path) -> None:
    bootstrap, topic = endpoint("kafka", "bootstrap_servers"), f"odd-{uuid.uuid4().hex[:8]}"
    make_topic(bootstrap, topic)
    folders = []
    for number, odd in enumerate(ODD_CHECKPOINTS):
        for path, text in odd.files.items():
            file = tmp_path / str(number) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace(TOPIC, topic))
        folders.append([str(tmp_path / str(number)), odd.start.replace(TOPIC, topic)])
    listed = tmp_path / "folders.json"
    listed.write_text(json.dumps(folders))

    said = run_job(bootstrap, topic, listed)

    found = [json.loads(line.removeprefix("OUTCOME ")) for line in said.splitlines() if line.startswith("OUTCOME ")]
    expected = {odd.what: odd.outcome for odd in ODD_CHECKPOINTS}
    assert dict(zip(expected, found, strict=True)) == expected


def make_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in (0, 1):
        for number in range(END):
            producer.produce(topic, str(number), partition=partition)
    assert producer.flush(30) == 0


def run_job(bootstrap: str, topic: str, listed: Path) -> str:
    jars = ",".join(map(str, stack.jars("spark")))
    submit = Path(sys.executable).with_name("spark-submit")
    done = subprocess.run(
        [str(submit), "--jars", jars, str(JOB), bootstrap, topic, str(listed)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
