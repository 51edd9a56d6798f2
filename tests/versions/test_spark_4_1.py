"""SPARK-55271 on the real Spark 4.1.1: a query that resumes a planned batch dies once, after its commit of that batch.

``make spark-4.1`` runs this test; ``make test`` does not, because it needs an installation of Spark of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stack import jars, maven, spark_4_1
from tests.e2e.lab import Lab, wait_for


@pytest.fixture
def lab(make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab whose drivers run on Spark 4.1.1."""
    if not (spark_4_1.is_current() and maven.is_current(spark_4_1.NAME)):
        words = "Spark 4.1.1 is not installed as it is now: make spark-4.1"
        pytest.fail(words) if os.environ.get("CI") else pytest.skip(words)
    lab = make_lab(jars=",".join(map(str, jars(spark_4_1.NAME))))
    # In front of .venv, which the lab has put there.
    monkeypatch.setenv("PATH", str(spark_4_1.BIN), prepend=os.pathsep)
    # Each of them would choose another Spark or another Python than the first of the PATH.
    for name in ("SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    return lab


def test_a_query_that_dies_after_a_resumed_batch_goes_on_under_its_epoch(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    lab.fault("kill", "after")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_gone()
    cut_off = lab.started_batch.record_count

    resumed = lab.maintain()
    log = Path(resumed["log"])
    ended = "SPARK-55271 ended the query; restarting it under epoch 2"
    wait_for(lambda: ended in log.read_text(), "the bug to end the query that resumed the batch")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()

    assert f"Running Spark version {spark_4_1.VERSION}" in log.read_text()
    assert log.read_text().count(ended) == 1
    assert (resumed["epoch"], resumed["plan"]["form"], resumed["plan"]["replay_at_most"]) == (2, "resume", cut_off)
    assert (lab.epoch.number, lab.epoch.ended) == (2, None), "no start beside the two of this test"
    assert (lab.lost, lab.read_again) == (set(), cut_off)
    audit = lab.audit()
    assert (audit["lost"], audit["replayed_at_most"], audit["unexplained"]) == (0, cut_off, 0)
