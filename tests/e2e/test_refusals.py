"""What is refused without any change: settings that cannot work, and starts that would lose or duplicate records."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import is_alive
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.errors import KafkaUnreachable, StoreUnreachable
from airflow_provider_offsets.kafka import reader
from tests.e2e.lab import Lab, wait_for

NOWHERE = "127.0.0.1:1"
"""An address without a listener: the port is reserved."""


def refuses(lab: Lab, words: str, start: str = "committed", error: type[Exception] = AirflowFailException) -> None:
    """Plan, and check that the plan is refused with these words and that nothing has changed."""
    before = lab.standing()
    with pytest.raises(error, match=words):
        lab.plan(lab.operation(), start)
    assert lab.standing() == before


def connection(**fields: Any) -> str:
    """Return the value of an environment variable that is an Airflow connection."""
    return json.dumps(fields)


def test_running_job_is_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    application, jars = lab.application, lab.jars

    lab.application = str(lab.home / "not-there.py")
    refuses(lab, "InputRefused: Application .*not-there.py.* is not a file")
    lab.application = application
    lab.jars = f"{jars},{lab.home}/not-there-*.jar"
    refuses(lab, "InputRefused: Jar .*not-there-.* does not exist")
    lab.jars = jars
    with monkeypatch.context() as changed:
        changed.setenv("PATH", str(lab.home))
        refuses(lab, "InputRefused: The PATH of Airflow's worker .* has no 'spark-submit'")
    with monkeypatch.context() as changed:
        changed.setenv("AIRFLOW_CONN_SPARK_DEFAULT", connection(conn_type="spark", host="spark://elsewhere", port=7077))
        refuses(lab, "ModeUnsupported: Pipeline .* has a SQLite store and master 'spark://elsewhere")
    with monkeypatch.context() as changed:
        changed.setenv("AIRFLOW_CONN_SPARK_DEFAULT", connection(conn_type="spark", host="sc://elsewhere", port=15002))
        refuses(lab, "ModeUnsupported: Master 'sc://elsewhere.* is Spark Connect")
    with monkeypatch.context() as changed:
        changed.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
        refuses(lab, "ModeUnsupported: Airflow uses the executor 'KubernetesExecutor'")
    with monkeypatch.context() as changed:
        changed.setattr(reader, "KafkaReader", functools.partial(reader.KafkaReader, timeout_s=2.0))
        nowhere = connection(conn_type="kafka", extra={"bootstrap.servers": NOWHERE})
        changed.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", nowhere)
        with pytest.raises(KafkaUnreachable, match=NOWHERE):
            lab.plan(lab.operation())
    with monkeypatch.context() as changed:
        nowhere = connection(conn_type="offsets", extra={"url": f"hbase://{NOWHERE}/offsets"})
        changed.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", nowhere)
        with pytest.raises(StoreUnreachable, match=NOWHERE):
            lab.plan(lab.operation())
    with monkeypatch.context() as changed:
        elsewhere = connection(conn_type="offsets", extra={"url": f"sqlite:///{lab.home}/not-there.db"})
        changed.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", elsewhere)
        with pytest.raises(AirflowFailException, match="StoreLayoutError"):
            lab.plan(lab.operation())
        assert not (lab.home / "not-there.db").exists()
    refuses(lab, "PlanRefused: .*offset past the end: .* would start at 21, but its log ends at 20", offsets(lab, 21))
    refuses(lab, "SelectorError: .*'yesterday'", "yesterday")
    refuses(lab, "SnapshotNotFound: No snapshot 'never'", "snapshot:never")
    refuses(lab, "SelectorError: .*names .*7", f'offsets:{{"{lab.topic}":{{"7":0}}}}')

    assert is_alive(lab.epoch.holder)
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    assert len(list(lab.control.epochs())) == 1
    assert lab.lost == set()
    assert lab.read_again == 0


def test_start_that_would_leak(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    lab.stop(lab.operation())
    lab.produce(30, 0, 1, 2)

    # A start after the position skips records.
    refuses(lab, f"skip: 10 offsets of '{lab.topic}' would be skipped", offsets(lab, 30))

    # Retention has deleted unread records; the plan shows them once exactly their count, or more, is accepted.
    lab.delete_records(0, 35)
    refuses(lab, f"loss: 15 offsets of '{lab.topic}' would be lost .* and 0 are accepted")
    lab.policy = RestartPolicy(accept_lost={lab.topic: 14})
    refuses(lab, "loss: 15 offsets .* and 14 are accepted")
    lab.policy = RestartPolicy(accept_lost={lab.topic: 15})
    restarted = lab.maintain()
    assert restarted["plan"]["form"] == "reposition"
    assert restarted["plan"]["lost"] == 15
    wait_for(lambda: len(lab.lost) <= 15, "all that is left to be read")
    audit = lab.audit()
    assert lab.lost == {(0, offset) for offset in range(20, 35)}
    assert lab.read_again == 0
    assert audit["lost"] == 15
    assert audit["unexplained"] == 0

    # The topic was recreated under the same name: stored offsets do not apply to it.
    lab.stop(lab.operation())
    lab.delete_topic()
    lab.create_topic(3)
    lab.produce(60, 0, 1, 2)
    refuses(lab, f"topic recreated: topic '{lab.topic}' had id")
    refuses(lab, f"topic recreated: topic '{lab.topic}' had id", "earliest")


def test_stored_offset_past_the_end(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(partitions=1)
    lab.produce(20, 0)
    lab.store.append(
        lab.pipeline.stream, Batch(end=Position.from_plain({lab.topic: {"0": 21}}), batch_time_ms=1_700_000_000_000)
    )

    refuses(lab, "offset past the end: .* would start at 21, but its log ends at 20")


def offsets(lab: Lab, start: int) -> str:
    """Return the selector that starts partition 0 at this offset."""
    return f'offsets:{{"{lab.topic}":{{"0":{start}}}}}'
