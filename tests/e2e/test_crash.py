"""A driver that is killed with SIGKILL at any step, and a driver that fails by itself."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_offsets.backends.process import signal_group
from airflow_provider_offsets.sensors import StreamingJobSensor
from tests.e2e.lab import JOB, Lab, wait_for


def test_killed_before_and_after_the_record(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    lab.maintain()

    # After the user's function wrote, before the record: the batch is replayed, and the plan has the count.
    lab.fault("kill", "after")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_gone()
    cut_off = lab.started_batch.record_count
    lab.faults({"epoch": 2, "batch": 0, "at": "start", "do": "kill"})
    with pytest.raises(AirflowFailException, match="DriverDied: Epoch 2 died"):
        lab.maintain()
    # An epoch that never began a batch does not hide what the previous one left half done.
    restarted = lab.maintain()
    assert restarted["stopped"]["how"] == "already died"
    assert restarted["plan"]["form"] == "resume"
    assert restarted["plan"]["replay_at_most"] == cut_off > 0
    lab.wait_until_read()
    wait_for(lambda: lab.read_again, "the batch that was cut off to be read again")
    lab.wait_until_idle()
    assert lab.read_again == cut_off

    # After the record, before Spark's own commit: it is not run again.
    lab.fault("kill", "recorded")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_gone()
    seen = lab.observe()
    assert seen.checkpoint.planned_batch_id == seen.processed.batch_id, "recorded by us, and not committed by Spark"
    restarted = lab.maintain()
    assert restarted["stopped"]["how"] == "already died"
    assert restarted["plan"]["form"] == "resume"
    assert restarted["plan"]["replay_at_most"] == 0
    lab.wait_until_read()
    lab.wait_until_idle()

    audit = lab.audit()
    assert lab.lost == set()
    assert lab.read_again == cut_off
    assert audit["replayed_at_most"] == cut_off
    assert audit["replayed"] == audit["unexplained"] == 0


def test_a_function_whose_jvm_is_killed_is_given_a_part_of_its_rows_and_all_of_them_by_the_next_epoch(lab: Lab) -> None:
    """PySpark's ``collect()`` then returns early, and raises nothing."""
    lab.maintain()
    lab.stop(lab.operation())
    lab.produce(3_000, 0)
    lab.faults({"epoch": 2, "batch": 1, "at": "before", "do": "cut"})
    with pytest.raises(AirflowFailException, match="DriverDied"):
        lab.maintain()
    cut_off = len(lab.evidence())
    assert 0 < cut_off < 3_000, "the test of the test: the function took a part for the whole"

    restarted = lab.maintain()
    lab.wait_until_read()
    lab.wait_until_idle()

    assert restarted["plan"]["replay_at_most"] == 3_000
    assert lab.lost == set()
    assert lab.read_again == cut_off
    audit = lab.audit()
    assert (audit["lost"], audit["replayed_at_most"], audit["unexplained"]) == (0, 3_000, 0)


def test_killed_while_idle(lab: Lab) -> None:
    def states() -> set[str]:
        sensors = {
            state: StreamingJobSensor(task_id="wait", pipeline=lab.pipeline, state=state)
            for state in ("running", "dead", "ended")
        }
        return {state for state, sensor in sensors.items() if sensor.poke({})}

    lab.produce(20, 0, 1, 2)
    lab.maintain()
    lab.wait_until_idle()
    assert states() == {"running"}

    signal_group(lab.epoch.holder, signal.SIGKILL)
    lab.wait_until_gone()
    assert states() == {"dead"}

    assert lab.stop(lab.operation())["how"] == "already died"
    assert states() == {"ended"}
    assert lab.maintain()["how"] == "idle"
    assert states() == {"running"}
    lab.produce(10, 0, 1, 2)
    lab.wait_until_read()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0


def test_a_failed_start_is_reported_at_once_and_can_be_repeated(lab: Lab) -> None:
    lab.produce(20, 0, 1, 2)
    operation = lab.prepare()

    # The driver died before our runtime: no epoch, and no file with secrets is left.
    for text, shown in (("def broken(:\n", "SyntaxError"), ("import not_there\n", "No module named 'not_there'")):
        lab.application = str(lab.home / "application.py")
        (lab.home / "application.py").write_text(text)
        with pytest.raises(AirflowFailException, match=f"DriverDied(.|\n)*{shown}"):
            lab.submit(operation)
        assert lab.record.holder is None
    assert list(lab.home.rglob("*.settings.json")) == []

    # The user's function fails, and then the driver is killed in its first batch.
    lab.application = str(JOB)
    lab.faults(
        {"epoch": 1, "batch": 1, "at": "before", "do": "fail"},
        {"epoch": 2, "batch": 1, "at": "before", "do": "kill"},
    )
    with pytest.raises(AirflowFailException, match=r"DriverDied: Epoch 1 failed.*the job's own mistake"):
        lab.submit(operation)
    with pytest.raises(AirflowFailException, match="DriverDied: Epoch 2 died"):
        lab.submit(operation)
    assert lab.evidence() == {}

    # Once the fault is removed the same operation starts from the same position.
    started = lab.submit(operation)
    assert started["epoch"] == 3
    assert started["start"] == {lab.topic: {"0": 0, "1": 0, "2": 0}}
    assert started["how"] == f"processed batch {started['batch_id']}"
    lab.wait_until_read()
    assert lab.lost == set()
    assert lab.read_again == 0
    assert lab.audit()["unexplained"] == 0
    assert [epoch.claim.operation for epoch in lab.control.epochs()] == [operation] * 3


def test_a_query_that_a_known_bug_of_spark_ended_goes_on_under_its_epoch(make_lab: Callable[..., Lab]) -> None:
    """SPARK-55271 of Spark 4.1: a batch is committed, and then the query dies. The next one may be planned by then.

    The bug itself is in ``tests/versions/test_spark.py``.
    """
    lab = make_lab(arguments=("any-spark",))
    lab.produce(20, 0, 1, 2)
    log = Path(lab.maintain()["log"])
    lab.wait_until_idle()
    lab.fault("bug", "planned")
    lab.produce(20, 0, 1, 2)
    lab.wait_until_read()
    lab.wait_until_idle()

    assert "SPARK-55271 ended the query; restarting it under epoch 1" in log.read_text()
    assert (lab.epoch.number, lab.epoch.ended, lab.epoch.cuts) == (1, None, ())
    audit = lab.audit()
    assert (lab.lost, lab.read_again, audit["replayed_at_most"], audit["unexplained"]) == (set(), 0, 0, 0)
