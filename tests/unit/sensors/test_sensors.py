"""The sensors: one check at a time, here or in the triggerer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.recovery import RecoveryPolicy
from airflow_provider_offsets.errors import KafkaUnreachable, RunwayUnknown
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.sensors import (
    JobDiedSensor,
    OffsetsReachedSensor,
    RetentionRunwaySensor,
    StreamingJobSensor,
    offsets_reached,
    retention_runway,
)
from airflow_provider_offsets.triggers.retention_runway import RetentionRunwayTrigger
from airflow_provider_offsets.triggers.streaming_job import JobDiedTrigger, JobStateTrigger, OffsetsReachedTrigger
from tests.unit.conftest import Connect
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab, install
from tests.unit.operations.test_recovering import die_with_submit


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("offsets_default", "offsets", extra={"url": "sqlite:////tmp/offsets.db"})
    monkeypatch.setattr("airflow_provider_offsets.hooks.offsets.open_store", lambda url: lab.store)

    @contextmanager
    def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
        yield lab.session(operation)

    for module in (offsets_reached, retention_runway):
        monkeypatch.setattr(module, "open_session", open_session)


def job(lab: Lab, **more: Any) -> StreamingJobSensor:
    return StreamingJobSensor(task_id="wait", pipeline=lab.pipeline, **more)


def offsets(lab: Lab, **more: Any) -> OffsetsReachedSensor:
    return OffsetsReachedSensor(task_id="wait", pipeline=lab.pipeline, poke_interval=1, timeout=60, **more)


def runway(lab: Lab, **more: Any) -> RetentionRunwaySensor:
    return RetentionRunwaySensor(task_id="wait", pipeline=lab.pipeline, **more)


class TestStreamingJob:
    def test_it_sees_what_is_so(self, lab: Lab) -> None:
        running, ended, dead = (job(lab, state=state) for state in ("running", "ended", "dead"))

        def seen() -> list[bool]:
            return [sensor.poke({}) for sensor in (running, ended, dead)]

        assert seen() == [False, False, False]
        steps.start(lab)
        assert seen() == [True, False, False]
        lab.driver.die()
        assert seen() == [False, False, True]
        steps.stop(lab)
        assert seen() == [False, True, False]

    def test_running_is_what_it_waits_for(self, lab: Lab) -> None:
        assert job(lab).state.value == "running"

    def test_a_state_that_there_is_not_is_refused_when_the_dag_is_read(self, lab: Lab) -> None:
        with pytest.raises(ValueError, match="'sleeping' is not a valid JobState"):
            job(lab, state="sleeping")

    def test_it_waits_in_the_triggerer(self, lab: Lab) -> None:
        with pytest.raises(TaskDeferred) as deferred:
            job(lab, state="ended", deferrable=True, timeout=60).execute({})

        assert isinstance(deferred.value.trigger, JobStateTrigger)
        assert deferred.value.trigger.serialize()[1]["state"] == "ended"
        assert deferred.value.method_name == "execute_complete"


class TestJobDied:
    def test_it_waits_in_the_triggerer_for_a_year(self, lab: Lab) -> None:
        lab.more["recovery"] = RecoveryPolicy(confirm_s=7)
        with pytest.raises(TaskDeferred) as deferred:
            JobDiedSensor(task_id="wait", pipeline=lab.pipeline, deferrable=True).execute({})

        trigger = deferred.value.trigger
        assert isinstance(trigger, JobDiedTrigger)
        assert (trigger.confirm_s, trigger.lease_timeout_s, trigger.timeout_s) == (7, 300 + 120, 365 * 24 * 3600)

    def test_it_gives_what_died(self, lab: Lab) -> None:
        lab.more["recovery"] = RecoveryPolicy(confirm_s=0)
        steps.start(lab)
        sensor = JobDiedSensor(task_id="wait", pipeline=lab.pipeline, poke_interval=1)
        assert sensor.poke({}).is_done is False
        lab.driver.die()

        found = sensor.execute({})

        assert (found["epoch"], found["how"]) == (1, "died")

    def test_of_a_silent_job_that_the_triggerer_cannot_see_the_task_sees_the_death(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()

        found = JobDiedSensor(task_id="wait", pipeline=lab.pipeline).execute_complete({}, {"status": "silent"})

        assert (found["epoch"], found["how"]) == (1, "died")

    def test_one_that_died_with_its_submit_is_left_to_airflow_for_a_while(self, lab: Lab) -> None:
        die_with_submit(lab, "maintenance")

        with pytest.raises(TaskDeferred):
            JobDiedSensor(task_id="wait", pipeline=lab.pipeline).execute_complete({}, {"status": "silent"})

    def test_a_silent_job_is_not_dead(self, lab: Lab) -> None:
        steps.start(lab)

        with pytest.raises(TaskDeferred) as deferred:
            JobDiedSensor(task_id="wait", pipeline=lab.pipeline).execute_complete({}, {"status": "silent"})

        assert isinstance(deferred.value.trigger, JobDiedTrigger)
        record = lab.control.record()
        assert record is not None
        assert record.ended is None


class TestOffsetsReached:
    def test_it_sees_when_the_goal_is_reached(self, lab: Lab) -> None:
        steps.start(lab)

        assert offsets(lab, offsets='{"flights":{"0":100,"1":90}}').execute({}) is None

    def test_the_ends_are_those_of_the_moment_when_it_starts(self, lab: Lab) -> None:
        """A topic with constant input does not move the goal."""
        steps.start(lab)
        lab.feed(10)
        sensor = offsets(lab, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
        lab.feed(10)

        trigger = deferred.value.trigger
        assert isinstance(trigger, OffsetsReachedTrigger)
        assert trigger.target == {"flights": {"0": 110, "1": 110}}
        assert sensor.poke({}) is False
        lab.tick()
        assert sensor.poke({}) is True

    def test_a_goal_that_cannot_be_read_fails_at_once(self, lab: Lab) -> None:
        with pytest.raises(AirflowFailException, match=r"SelectorError: 'offsets' is 'tomorrow'.*Correct"):
            offsets(lab, offsets="tomorrow").execute({})

    def test_kafka_that_does_not_answer_is_retried(self, lab: Lab) -> None:
        lab.kafka.fail_with(KafkaUnreachable(seen="no broker", expected="one", do="start it"))

        with pytest.raises(KafkaUnreachable):
            offsets(lab).execute({})

    def test_a_store_that_is_not_ours_fails_at_once(self, lab: Lab) -> None:
        lab.store.check_and_put(lab.pipeline.name, "pipeline", None, "garbage")

        with pytest.raises(AirflowFailException, match="StoreDataError"):
            offsets(lab).execute({})

    def test_the_goal_is_a_template(self) -> None:
        assert set(OffsetsReachedSensor.template_fields) == {"offsets"}


class TestRetentionRunway:
    """The lab's clock stands at 1,000 s and later; its records are of 1970."""

    @pytest.fixture(autouse=True)
    def kept(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.ms": "2000000"})

    def test_it_succeeds_once_less_than_that_is_left(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.feed(10)
        sensor = runway(lab, at_least_s=600)
        sensor._watch = sensor._new_watch()

        assert not sensor.poke({}).is_done
        lab.clock.sleep(400)
        found = sensor.poke({})

        assert found.is_done
        assert 0 < found.xcom_value["runway_s"] < 600
        assert "flights[0]" in found.xcom_value["summary"]

    def test_it_is_skipped_while_the_job_runs(self, lab: Lab) -> None:
        steps.start(lab)

        with pytest.raises(AirflowSkipException, match="the job is running: epoch 1, pid 100 on worker-1"):
            runway(lab, at_least_s=600).execute({})

    def test_it_is_skipped_once_the_job_runs_again(self, lab: Lab) -> None:
        steps.rest(lab)
        sensor = runway(lab, at_least_s=600)
        sensor._watch = sensor._new_watch()
        steps.submit(lab, steps.apply(lab, operation="second"), "second")

        with pytest.raises(AirflowSkipException, match="the job runs again: epoch 2"):
            sensor.poke({})

    def test_it_is_skipped_where_nothing_is_deleted(self, lab: Lab) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.ms": "-1"})

        with pytest.raises(AirflowSkipException, match=r"unlimited \(cleanup.policy=delete: nothing is deleted\)"):
            runway(lab, at_least_s=600).execute({})

    def test_what_nobody_knows_is_retried(self, lab: Lab) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.bytes": "1000"})

        with pytest.raises(RunwayUnknown, match=r"retention.bytes=1000 .*\. Expected a known runway"):
            runway(lab, at_least_s=600).execute({})
        with pytest.raises(AirflowException, match="nobody knows") as caught:
            runway(lab, at_least_s=600).execute_complete(
                {}, {"status": "error", "error_type": "RunwayUnknown", "message": "nobody knows"}
            )
        assert not isinstance(caught.value, AirflowFailException)

    def test_it_waits_in_the_triggerer_from_the_position_of_the_job(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.feed(10)
        with pytest.raises(TaskDeferred) as deferred:
            runway(lab, at_least_s=600, deferrable=True).execute({})

        trigger = deferred.value.trigger
        assert isinstance(trigger, RetentionRunwayTrigger)
        assert trigger.watch == {
            "start": {"flights": {"0": 100, "1": 100}},
            "topics": ["flights"],
            "read_committed": False,
            "epoch": 1,
            "at_least_s": 600,
        }

    def test_it_takes_up_again(self, lab: Lab) -> None:
        shown = {"runway_s": 570, "summary": "at least 9 min 30 s"}

        assert runway(lab, at_least_s=600).execute_complete({}, {"status": "reached", **shown}) == shown
        with pytest.raises(AirflowSkipException, match="the job runs again"):
            runway(lab, at_least_s=600).execute_complete({}, {"status": "over", "summary": "the job runs again"})


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"status": "timeout", "message": "no event within 60 s"}, "timeout: no event within 60 s"),
        ({"status": "error", "error_type": "StoreUnreachable", "message": "gone"}, "StoreUnreachable: gone"),
    ],
)
@pytest.mark.parametrize("make", [job, offsets])
def test_what_the_triggerer_says_fails_the_task_in_its_words(
    make: Any, event: dict[str, Any], words: str, lab: Lab
) -> None:
    with pytest.raises(AirflowFailException) as failed:
        make(lab).execute_complete({}, event)

    assert str(failed.value) == words


@pytest.mark.parametrize("make", [job, offsets])
def test_it_takes_up_again_once_it_is_reached(make: Any, lab: Lab) -> None:
    assert make(lab).execute_complete({}, {"status": "reached"}) == {"status": "reached"}


class TestUntracked:
    """A pipeline without a history."""

    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        return install(Lab(tmp_path, offsets_in=("checkpoint",)), monkeypatch)

    def test_it_is_looked_at_where_the_job_keeps_its_offsets(self, lab: Lab) -> None:
        sensor = offsets(lab, offsets=lab.at(100, 100).to_json(), deferrable=False)
        sensor._target = lab.at(100, 100)

        assert not sensor.poke({})
        steps.start(lab)
        lab.tick()
        assert sensor.poke({})

    def test_the_triggerer_could_not_see_that(self, lab: Lab) -> None:
        with pytest.raises(AirflowFailException, match=r"NoHistory: .*deferrable=False"):
            offsets(lab, deferrable=True).execute({})
