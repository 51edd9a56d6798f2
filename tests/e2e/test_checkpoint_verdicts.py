"""What this package says of a checkpoint folder is what Spark does: odd folders, each started on a copy by real Spark.

The folders of ``tests/unit/checkpoint/folders.py`` run, and as many generated ones as ``CHECKPOINTS`` says, from the
seed ``CHECKPOINTS_FROM`` on. One process of Spark starts all of them. ``make versions-test`` runs this on each version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import stack
from stack.sparks import SPARKS
from tests.contract.kafka_view import FOR_EVER
from tests.e2e import on_checkpoints
from tests.e2e.conftest import endpoint
from tests.integration.kafka.conftest import RealCluster
from tests.unit.checkpoint.folders import (
    END,
    ODD_FOLDERS,
    PARTITIONS,
    REFUSED,
    TOPIC,
    FirstBatch,
    OddFolder,
    generated,
    verdict,
    write,
)
from tests.versions.installed import require, with_marks
from tests.versions.matrix import CHECKPOINTS, NEWEST

GENERATED = int(os.environ.get("CHECKPOINTS", "15"))
FROM = int(os.environ.get("CHECKPOINTS_FROM", "1"))
DEADLINE_S = 120 + 10 * (len(ODD_FOLDERS) + GENERATED)
UUID = "6b7ad74c-8bd2-4e0d-9a4f-8f2a4f1f8a11"


def own(folder: OddFolder, number: int, topic: str) -> dict[str, str]:
    """Return the files of a folder with a query id and a topic of its own: Spark runs no query id twice."""
    query_id = f"{number:08x}{UUID[8:]}"
    return {path: text.replace(TOPIC, topic).replace(UUID, query_id) for path, text in folder.files.items()}


@pytest.fixture(scope="module")
def topic() -> Any:
    """Yield a topic with the records of the table."""
    cluster = RealCluster(endpoint("kafka", "bootstrap_servers"))
    name = f"odd-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(name, len(PARTITIONS), **FOR_EVER)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for partition in PARTITIONS:
        for _ in range(END):
            producer.produce(name, partition=partition, value=b"record")
    producer.flush()
    yield name
    cluster.clean()


def started(
    folders: list[OddFolder], topic: str, home: Path, python: Path, jars: Sequence[Path]
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Return the version of Spark, and what it does on a copy of each folder."""
    job: dict[str, Any] = {
        "jars": ",".join(map(str, jars)),
        "bootstrap_servers": endpoint("kafka", "bootstrap_servers"),
        "topic": topic,
        "warehouse": str(home / "warehouse"),
        "folders": [],
    }
    for number, each in enumerate(folders, start=1):
        path = home / "spark" / str(number)
        location = write(path, each, own(each, number, topic))
        settings = {"name": each.name, "options": dict(each.options), "asynchronous": each.asynchronous}
        job["folders"].append({"location": location, "path": str(path / each.folder), **settings})
    (home / "job.json").write_text(json.dumps(job))
    command = [str(python), on_checkpoints.__file__, str(home / "job.json"), str(home / "out")]
    with (home / "log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, (home / "log").read_text()[-3000:]
    version, *found = [json.loads(line) for line in (home / "out").read_text().splitlines()]
    major, minor, *_ = version.split(".")
    return (int(major), int(minor)), found


@pytest.mark.parametrize(("spark", "python"), with_marks(*CHECKPOINTS))
def test_spark_does_what_is_said(spark: str, python: str, topic: str, tmp_path: Path) -> None:
    is_ours = (spark, python) == NEWEST
    interpreter = Path(sys.executable) if is_ours else require(spark, python).bin / "python"
    jars = stack.jars("spark" if is_ours else SPARKS[spark].jars)
    folders = [*ODD_FOLDERS, *(generated(seed) for seed in range(FROM, FROM + GENERATED))]

    version, found = started(folders, topic, tmp_path, interpreter, jars)
    differing = []
    for number, (each, real) in enumerate(zip(folders, found, strict=True)):
        if version < each.since:
            continue
        said = verdict(write(tmp_path / "said" / str(number), each), asynchronous=each.asynchronous)
        does = REFUSED if real["first"] is None else FirstBatch(*real["first"])
        if said is not REFUSED and does is not REFUSED and does.records is None:
            said = replace(said, records=None)
        if said != does:
            differing.append(f"{each.case}: Spark {does} {real['died'][:300]!r}, said {said}")

    assert not differing, "\n".join(differing)
    assert len(found) == len(folders)
