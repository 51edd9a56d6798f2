"""One story on each version of Spark: a first start, a kill, a resume with new partitions, a rewind, and the audit.

After each step, the sink is read without the product and without Spark, and counted by topic, partition and offset.
``make versions-test`` runs this file. ``make e2e`` runs the story on the Spark of .venv, which needs no other version.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import signal_group
from stack import jars
from stack.sparks import OUR_PYTHON, SPARKS
from tests.e2e.lab import Lab, wait_for
from tests.versions.installed import require, with_marks
from tests.versions.matrix import NEWEST, STARTS, STORIES, WAYS

JOB = Path(__file__).with_name("story_job.py")
BUG = "SPARK-55271 ended the query; restarting it under epoch"


@pytest.fixture
def lab_on(make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lab]:
    """Return a function that makes a lab whose drivers run on a version of Spark and of Python."""

    def made(spark: str, python: str, way: str = "process") -> Lab:
        job = {"application": str(JOB), "arguments": (way,)}
        # It would be another copy of the package than the one that is shipped.
        monkeypatch.delenv("PYTHONPATH", raising=False)
        if (spark, python) == NEWEST:
            return make_lab(**job)
        installed = require(spark, python)
        lab = make_lab(jars=",".join(map(str, jars(SPARKS[spark].jars))), **job)
        # In front of .venv, which the lab has put there.
        monkeypatch.setenv("PATH", str(installed.bin), prepend=os.pathsep)
        # Each of them would choose another Spark or another Python than the first of the PATH.
        for name in ("SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
            monkeypatch.delenv(name, raising=False)
        return lab

    return made


def written(lab: Lab) -> Counter[tuple[str, int, int]]:
    """Return how often the sink has each record, by topic, partition and offset.

    Spark's own sink has a log of its files; others are left from batches that were cut off. The log is read as Spark
    reads it: from the last compaction on.
    """
    folder = lab.home / "output"
    log = folder / "_spark_metadata"
    if log.is_dir():
        names = {int(each.name.partition(".")[0]): each for each in log.glob("[0-9]*")}
        compacted = max((number for number, each in names.items() if each.suffix == ".compact"), default=0)
        entries = [names[number].read_text().splitlines()[1:] for number in sorted(names) if number >= compacted]
        files = [Path(json.loads(line)["path"].removeprefix("file://")) for lines in entries for line in lines]
    else:
        files = list(folder.glob("*.parquet"))
    found: Counter[tuple[str, int, int]] = Counter()
    for file in files:
        columns = pyarrow.parquet.read_table(file).to_pydict()
        found.update(zip(columns["topic"], columns["partition"], columns["offset"], strict=True))
    return found


def produced(lab: Lab) -> Counter[tuple[str, int, int]]:
    """Return each produced record once."""
    ranges = lab.produced.items()
    return Counter((lab.topic, partition, offset) for partition, count in ranges for offset in range(count))


def wait_until_written(lab: Lab) -> None:
    """Wait until the sink has every record, and the driver reports that it is idle."""
    wait_for(lambda: not produced(lab) - written(lab), "every record in the sink")
    lab.wait_until_idle()


def cut_off(lab: Lab, way: str) -> int:
    """Kill the driver in a batch, and return how many records the batch has.

    With ``process=`` the batch is written and not recorded. With ``sink=`` it is half written.
    """
    fault = lab.home / ("die" if way == "process" else "hold")
    fault.touch()
    lab.produce(20, 0, 1, 2)
    if way == "sink":
        wait_for((lab.home / "hold.happened").exists, "a batch in its middle")
        signal_group(lab.epoch.holder, signal.SIGKILL)
    lab.wait_until_gone()
    fault.unlink()
    return sum(each.count for each in lab.observe().in_flight)


@pytest.mark.parametrize(("spark", "python"), with_marks(*STORIES))
@pytest.mark.parametrize("way", WAYS)
def test_story(way: str, spark: str, python: str, lab_on: Callable[..., Lab]) -> None:
    lab = lab_on(spark, python, way)
    lab.produce(20, 0, 1, 2)
    started = lab.maintain()
    wait_until_written(lab)
    assert written(lab) == produced(lab)
    assert_runs_on(started, spark, python)

    records = cut_off(lab, way)
    assert 0 < records <= 60
    lab.grow(4)
    lab.produce(10, 3)
    resumed = lab.maintain()
    wait_until_written(lab)
    lab.produce(5, 0, 1, 2, 3)
    wait_until_written(lab)
    assert (resumed["plan"]["form"], resumed["plan"]["replay_at_most"]) == ("resume", records)
    again = written(lab) - produced(lab)
    # Spark's sink takes a batch once, by its id. A plain append takes it twice.
    assert Counter(again.values()) == ({1: records} if way == "process" else {})

    rewound = lab.maintain("shift:-5")
    lab.produce(5, 0, 1, 2, 3)
    wait_until_written(lab)
    ranges = [(row["partition"], range(row["start"], row["stored"])) for row in rewound["plan"]["rows"]]
    back = Counter((lab.topic, partition, offset) for partition, offsets in ranges for offset in offsets)
    assert (rewound["plan"]["form"], back.total()) == ("reposition", 20)
    assert written(lab) == produced(lab) + again + back

    audit = lab.audit()
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert (audit["replayed"], audit["replayed_at_most"]) == (20, records)
    assert [epoch.number for epoch in lab.control.epochs()] == [1, 2, 3], "no start beside those of this test"
    # Spark 4.1.0 to 4.1.2 end the query that resumes a planned batch, also the one of a seeded checkpoint.
    met = [Path(each["log"]).read_text().count(BUG) for each in (started, resumed, rewound)]
    assert met == ([0, 1, 1] if spark == "4.1" else [0, 0, 0])
    assert lab.stop(lab.operation())["how"] == "stopped"


@pytest.mark.parametrize(("spark", "python"), with_marks(*STARTS))
def test_start(spark: str, python: str, lab_on: Callable[..., Lab]) -> None:
    lab = lab_on(spark, python)
    lab.produce(20, 0, 1, 2)
    started = lab.maintain()
    wait_until_written(lab)

    assert written(lab) == produced(lab)
    assert_runs_on(started, spark, python)
    audit = lab.audit()
    assert (audit["lost"], audit["replayed"], audit["unexplained"]) == (0, 0, 0)
    assert lab.stop(lab.operation())["how"] == "stopped"


@pytest.mark.installation
def test_an_older_python_is_refused(lab_on: Callable[..., Lab]) -> None:
    lab = lab_on("3.5", "3.8")

    with pytest.raises(AirflowFailException, match=r"Python of this Spark driver is 3\.8; .* needs 3\.9 or newer"):
        lab.maintain()


def assert_runs_on(started: dict[str, Any], spark: str, python: str) -> None:
    """Check that the driver ran on these versions, and that its package is the one that was shipped to it."""
    log = Path(started["log"]).read_text()
    python = OUR_PYTHON if (spark, python) == NEWEST else python
    assert f"Python {python}, Spark {SPARKS[spark].version}, package " in log
    assert "airflow_provider_offsets-" in log.partition(", package ")[2].partition("\n")[0], "the zip"
