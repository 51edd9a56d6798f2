"""Where a job keeps its positions, by the connections that ``offsets_in`` names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.core.pipeline import SparkJob, StopPolicy, StreamingPipeline
from airflow_provider_offsets.errors import InputRefused, StoreError
from airflow_provider_offsets.hooks.positions import open_kept
from tests.unit.conftest import Connect

PIPELINE = StreamingPipeline(
    "orders",
    ("orders",),
    SparkJob("job.jar", "/data/checkpoints/orders", log_dir="/data/logs"),
    tracked=False,
    stop=StopPolicy(signal_timeout_s=60),
)


def kept_in(*names: str) -> StreamingPipeline:
    return replace(PIPELINE, offsets_in=names)


def test_each_connection_leads_to_its_store(connect: Connect, tmp_path: Path) -> None:
    connect("zk", "offsets", extra={"url": "zookeeper://h1:2181,h2/kafka"}, login="me", password="x-secret")
    connect("history_db", "offsets", extra={"url": f"sqlite:///{tmp_path}/a.db"})
    connect("cluster", "kafka", extra={"bootstrap.servers": "127.0.0.1:1"})

    with open_kept(kept_in("zk", "checkpoint", "cluster", "history_db")) as kept:
        assert {name: (store.kind, repr(store)) for name, store in kept.items()} == {
            "zk": ("zookeeper", "ZooKeeperStore('zookeeper://h1:2181,h2:2181/kafka')"),
            "cluster": ("kafka", "KafkaGroupStore('127.0.0.1:1')"),
            "history_db": ("sql", f"SqlStore('sqlite:///{tmp_path}/a.db')"),
        }
        assert list(kept) == ["zk", "cluster", "history_db"]
    assert list(tmp_path.iterdir()) == []


def test_stores_without_a_connection_ask_for_none() -> None:
    with open_kept(kept_in("checkpoint")) as kept:
        assert kept == {}


def test_all_are_closed_in_the_end_whatever_one_of_them_says(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Store:
        def __init__(self, url: str) -> None:
            self.url = url

        def close(self) -> None:
            closed.append(self.url)
            if self.url.endswith("second"):
                raise StoreError(seen="it", expected="no", do="harm")

    monkeypatch.setattr("airflow_provider_offsets.hooks.positions.open_positions", Store)
    for name in ("first", "second"):
        connect(name, "offsets", extra={"url": f"zookeeper://h/{name}"})

    with pytest.raises(StoreError, match="Harm"), open_kept(kept_in("first", "second")):
        pass

    assert closed == ["zookeeper://h/second", "zookeeper://h/first"]


def test_a_connection_of_another_type(connect: Connect) -> None:
    connect("spark_default", "spark", host="local[2]", password="x-secret")

    with (
        pytest.raises(InputRefused, match=r"'spark_default' in offsets_in has type 'spark'.*'kafka'") as refused,
        open_kept(kept_in("spark_default")),
    ):
        pass
    assert "secret" not in str(refused.value)
