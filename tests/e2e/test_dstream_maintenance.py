"""A DStream job like the slide deck's goes through the maintenance DAG, with each of its offset stores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.stores import open_store
from stack import dstream
from tests.e2e.dag_runs import MaintenanceDag
from tests.e2e.dstream_lab import SPARK_CONN, TABLE, DStreamLab
from tests.e2e.lab import wait_for
from tests.e2e.test_dstream import make_dstream  # noqa: F401  # a fixture


@pytest.fixture
def make_managed(
    make_dstream: Callable[..., DStreamLab],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., DStreamLab]:
    """Return a function that makes the lab of a job which Airflow manages from one of its stores."""

    def make(keeps: str, **settings: Any) -> DStreamLab:
        conn_ids = {"hbase": "hbase_job", "zookeeper": "zookeeper_job", "kafka": "kafka_default"}
        lab = make_dstream(keeps=keeps, conn_ids=tuple(conn_ids[store] for store in keeps.split(",")), **settings)
        made = {
            "SPARK_DSTREAM": SPARK_CONN,
            "HBASE_JOB": {"conn_type": "offsets", "extra": {"url": f"hbase://{lab.thrift}/{TABLE}"}},
            "ZOOKEEPER_JOB": {"conn_type": "offsets", "extra": {"url": f"zookeeper://{lab.zookeeper}"}},
        }
        for name, value in made.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(value))
        with closing(open_store(f"hbase://{lab.thrift}/{TABLE}")) as store:
            store.create()  # once, as a person would, in addition to the existing table of the job
        monkeypatch.setenv("PATH", f"{dstream.BIN}{os.pathsep}{os.environ['PATH']}")
        return lab

    return make


@pytest.mark.parametrize(
    ("keeps", "strategy"), [("hbase", "subscribe"), ("zookeeper", "assign"), ("kafka", "subscribe-pattern")]
)
def test_growth_and_a_rewind_lose_nothing(
    make_managed: Callable[..., DStreamLab], airflow_home: Path, keeps: str, strategy: str
) -> None:
    lab = make_managed(keeps, strategy=strategy)
    lab.produce(100, 0, 1)
    dag = MaintenanceDag(lab, airflow_home)
    first = dag.run("earliest")
    lab.wait_until_read()
    lab.produce(20, 0, 1)
    lab.wait_until_read()
    grown = dag.run(when_stopped=lambda: (lab.grow(3), lab.produce(50, 2)))
    lab.wait_until_read()
    again = lab.read_again
    if keeps != "kafka":
        wait_for(lambda: lab.observe().stored == lab.observe().live.end, "the stored position to be at the end")
        rewound = dag.run("shift:-10")
        assert rewound["replan"]["replay"] == 3 * 10
        wait_for(lambda: lab.read_again >= again + 3 * 10, "the announced replay")
    lab.stop(lab.operation())

    assert (first["replan"]["form"], grown["replan"]["form"]) == ("write", "write")
    assert grown["stop"]["how"] == "stopped", "it was asked by SIGTERM, its way to stop, and went by itself"
    assert lab.lost == set()
    if keeps == "kafka":
        assert again <= grown["replan"]["replay_at_most"], "the commit of the last batches is not sent at a stop"
        assert grown["log"].count("7 days (offsets.retention.minutes=10080) after its last member left") >= 4
    else:
        assert again == 0, "a graceful stop stores what it has finished"
        assert lab.read_again == 3 * 10
    audit = lab.audit()
    assert (audit["lost"], audit["unexplained"]) == (0, 0)


def test_a_commit_that_is_one_batch_late_is_an_expected_lag(make_managed: Callable[..., DStreamLab]) -> None:
    """The job is stopped in a backlog, so its last batch has records; batches end long before the next one is due."""
    lab = make_managed("hbase,kafka", batch_ms=3_000, records_per_s=20)
    lab.produce(10_000, 0, 1)
    lab.maintain("earliest")
    lab.wait_for_batches(3)

    operation = lab.operation()
    lab.stop(operation)
    seen = lab.snapshot(operation, "stopped")
    plan = lab.plan(operation)

    assert lab.stored_in_hbase()[-2:] == [lab.stored_in_kafka(), lab.ends]
    assert seen["stores"] == {"agree": 0, "expected lag": 2, "conflict": 0}
    assert plan["problems"] == []
    assert plan["start"] == {lab.topic: {str(partition): offset for partition, offset in lab.ends.items()}}
