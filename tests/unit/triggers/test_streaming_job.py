"""The triggers: what another triggerer needs to resume one, and the one event of each."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, Heartbeat
from airflow_provider_offsets.core.record.events import Rename
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.errors import StoreDataError, StoreUnreachable
from airflow_provider_offsets.operations.lease import take_lease
from airflow_provider_offsets.operations.stopping import ask_to_stop
from airflow_provider_offsets.triggers import retention_runway, streaming_job
from airflow_provider_offsets.triggers.retention_runway import RetentionRunwayTrigger
from airflow_provider_offsets.triggers.streaming_job import (
    EpochEndedTrigger,
    JobDiedTrigger,
    JobStateTrigger,
    OffsetsReachedTrigger,
    StoreTrigger,
)
from tests.unit.conftest import Connect
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, TOPIC, Lab

WHERE: dict[str, Any] = {"store_conn_id": "offsets_default", "pipeline": NAME}


def reached(*ends: int, **more: Any) -> OffsetsReachedTrigger:
    target = {TOPIC: {str(number): end for number, end in enumerate(ends)}}
    return OffsetsReachedTrigger(**WHERE, group_id=NAME, topics=[TOPIC], target=target, **more)


def runway(at_least_s: int, **more: Any) -> RetentionRunwayTrigger:
    start = {TOPIC: {"0": 0, "1": 0}}
    watch = {"start": start, "topics": [TOPIC], "read_committed": False, "epoch": 0, "at_least_s": at_least_s}
    return RetentionRunwayTrigger(**WHERE, kafka_conn_id="kafka_default", watch=watch, **more)


TRIGGERS: list[StoreTrigger] = [
    EpochEndedTrigger(**WHERE, epoch=3, timeout_s=10),
    JobStateTrigger(**WHERE, state="running", timeout_s=0.5),
    JobStateTrigger(**WHERE, state="dead"),
    JobDiedTrigger(**WHERE, confirm_s=30, lease_timeout_s=420),
    reached(100, 100, timeout_s=10),
    runway(60, timeout_s=10),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: type(trigger).__name__)
def test_another_triggerer_makes_it_again(trigger: StoreTrigger) -> None:
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")

    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))

    assert type(again) is type(trigger)
    assert again.serialize() == trigger.serialize()


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("offsets_default", "offsets", password="hunter2-hunter2", extra={"url": "postgresql://me@db/offsets"})
    monkeypatch.setattr(streaming_job, "open_store", lambda url: lab.store)

    async def sleep(seconds: float) -> None:
        lab.clock.sleep(seconds)

    monkeypatch.setattr(streaming_job.asyncio, "sleep", sleep)


def fire(trigger: StoreTrigger) -> dict[str, Any]:
    """Run a trigger to its end: it yields one event, and no second one."""

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(events())
    return dict(json.loads(json.dumps(payload)))


class TestRetentionRunway:
    """The lab's clock stands at 1,000 s; its records are of 1970, and kept for 2,000 s."""

    @pytest.fixture(autouse=True)
    def kafka(self, lab: Lab, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker.example:9092"})
        lab.kafka.set_config(TOPIC, **{"retention.ms": "2000000"})

        @contextmanager
        def open_kafka(conn_id: str, connection: Any) -> Iterator[Any]:
            assert (conn_id, connection.extra_dejson["bootstrap.servers"]) == ("kafka_default", "broker.example:9092")
            yield lab.kafka

        monkeypatch.setattr(retention_runway, "open_kafka", open_kafka)
        monkeypatch.setattr("airflow_provider_offsets.kafka.reader.KafkaReader", lambda clients: clients)

    def test_it_fires_once_less_than_that_is_left(self, lab: Lab) -> None:
        event = fire(runway(600))

        assert (event["status"], event["runway_s"]) == ("reached", 580)
        assert event["summary"].startswith("at least 9 min 40 s (flights[0]")
        assert lab.clock.now == 1_420

    def test_it_ends_when_the_job_runs_again(self, lab: Lab) -> None:
        steps.start(lab)

        assert fire(runway(600)) == {"status": "over", "runway_s": None, "summary": "the job runs again: epoch 1"}

    def test_what_nobody_knows_is_an_error(self, lab: Lab) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.bytes": "1000"})

        event = fire(runway(600))

        assert (event["status"], event["error_type"]) == ("error", "RunwayUnknown")
        assert "retention.bytes=1000 has deleted nothing yet" in event["message"]


class TestEpochEnded:
    def test_when_the_driver_acknowledges(self, lab: Lab) -> None:
        steps.start(lab)
        lab.clock.on_tick = lambda: lab.driver.end(EndedHow.STOPPED)

        assert fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10)) == {"status": "ended", "how": "stopped"}

    def test_when_its_process_is_seen_to_be_gone(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()

        assert fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10)) == {"status": "ended", "how": "died"}
        record = lab.control.record()
        assert record is not None
        assert record.phase is Phase.RUNNING, "only the lease holder closes an epoch"

    def test_when_another_one_was_launched_since(self, lab: Lab) -> None:
        steps.rest(lab)
        steps.submit(lab, steps.apply(lab, operation="second"), "second")

        assert fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10)) == {"status": "ended", "how": "stopped"}

    @pytest.mark.parametrize("epoch", [1, 7])
    def test_otherwise_the_time_is_over(self, epoch: int, lab: Lab) -> None:
        steps.start(lab)

        assert fire(EpochEndedTrigger(**WHERE, epoch=epoch, timeout_s=10)) == {
            "status": "timeout",
            "message": "no event within 10 s",
        }


class TestJobState:
    def test_running(self, lab: Lab) -> None:
        def somebody_starts_it() -> None:
            lab.clock.on_tick = lab.tick
            steps.start(lab)

        lab.clock.on_tick = somebody_starts_it

        event = fire(JobStateTrigger(**WHERE, state="running", timeout_s=60))

        assert (event["status"], event["epoch"]) == ("reached", 1)

    def test_a_heartbeat_elsewhere_counts_from_one_sample_to_the_next(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)
        beats = iter(range(1, 100))
        lab.clock.on_tick = lambda: lab.control.beat(1, Heartbeat(next(beats), 1))

        assert fire(JobStateTrigger(**WHERE, state="running", timeout_s=10))["status"] == "reached"
        assert next(beats) >= 2, "it took two beats"

    def test_a_silent_driver_elsewhere_is_never_dead(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)
        lab.clock.on_tick = lambda: None

        assert fire(JobStateTrigger(**WHERE, state="dead", timeout_s=100))["status"] == "timeout"

    @pytest.mark.parametrize("state", ["ended", "stopped"])
    def test_one_that_is_stopped_has_ended(self, state: str, lab: Lab) -> None:
        steps.rest(lab)

        assert fire(JobStateTrigger(**WHERE, state=state))["status"] == "reached"


class TestJobDied:
    def test_once_it_was_dead_for_a_while(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()

        event = fire(JobDiedTrigger(**WHERE, confirm_s=30, lease_timeout_s=420, timeout_s=60))

        assert (event["status"], event["epoch"], event["how"]) == ("reached", 1, "died")

    def test_not_one_that_somebody_starts_again_meanwhile(self, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.die()
        looks = iter(range(1_000))

        def somebody_tries_again() -> None:
            if next(looks) == 10:
                lab.clock.on_tick = lab.tick
                steps.stop(lab, "retried")
                steps.submit(lab, steps.apply(lab, operation="retried"), "retried")

        lab.clock.on_tick = somebody_tries_again

        assert fire(JobDiedTrigger(**WHERE, confirm_s=30, lease_timeout_s=420, timeout_s=100))["status"] == "timeout"

    def test_a_job_that_cannot_be_seen_from_here_is_silent_after_a_while(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)
        beats = iter(range(2, 1_000))

        def beats_for_a_while() -> None:
            if lab.clock.now < 1_050:
                lab.control.beat(1, Heartbeat(next(beats), 1))

        lab.clock.on_tick = beats_for_a_while

        assert fire(JobDiedTrigger(**WHERE, confirm_s=30, lease_timeout_s=420, timeout_s=100)) == {"status": "silent"}
        assert lab.clock.now >= 1_080, "30 s after the last beat"
        record = lab.control.record()
        assert record is not None
        assert record.ended is None, "silence is no death"

    def test_one_that_somebody_asked_to_stop_wakes_nobody(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)
        ask_to_stop(lab.session("maintenance"), reason="upgrade")

        assert fire(JobDiedTrigger(**WHERE, confirm_s=30, lease_timeout_s=420, timeout_s=100))["status"] == "timeout"


class TestOffsetsReached:
    def test_once_nothing_is_missing(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(20)

        assert fire(reached(120, 120, timeout_s=10)) == {"status": "reached"}

    def test_not_before(self, lab: Lab) -> None:
        steps.start(lab)

        assert fire(reached(100, 101, timeout_s=10))["status"] == "timeout"


class TestErrors:
    def test_they_come_as_an_event_with_words(self, lab: Lab) -> None:
        lab.store.check_and_put(NAME, "pipeline", None, "garbage")

        event = fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10))

        assert (event["status"], event["error_type"]) == ("error", StoreDataError.__name__)
        assert "Control cell 'pipeline'" in event["message"]

    def test_a_pipeline_that_was_renamed_has_its_new_name_in_them(self, lab: Lab) -> None:
        session = lab.session("rename")
        take_lease(session)
        session.cell.change(Rename("rename", "alerts"))

        event = fire(JobStateTrigger(**WHERE, state="running", timeout_s=10))

        assert (event["status"], event["error_type"]) == ("error", "PipelineRenamed")
        assert "was renamed to 'alerts'" in event["message"]

    def test_a_store_that_is_away_for_a_while_is_asked_again(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.rest(lab)
        left = [StoreUnreachable(seen="nobody", expected="an answer", do="start it")] * 3
        get = lab.store.get

        def away(*arguments: Any) -> Any:
            if left:
                raise left.pop()
            return get(*arguments)

        monkeypatch.setattr(lab.store, "get", away)

        assert fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10))["status"] == "ended"

    def test_one_that_stays_away_is_an_error(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*arguments: Any) -> Any:
            raise StoreUnreachable(seen="nobody", expected="an answer", do="start it")

        monkeypatch.setattr(lab.store, "get", away)

        assert fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10))["error_type"] == "StoreUnreachable"

    def test_a_connection_without_a_url(self, connect: Connect) -> None:
        connect("offsets_default", "offsets", password="hunter2-hunter2")

        event = fire(EpochEndedTrigger(**WHERE, epoch=1, timeout_s=10))

        assert event["error_type"] == "InputRefused"
        assert "hunter2" not in json.dumps(event)

    def test_the_store_is_closed_in_the_end(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        closed: list[bool] = []
        monkeypatch.setattr(lab.store, "close", lambda: closed.append(True))
        steps.rest(lab)
        fire(EpochEndedTrigger(**WHERE, epoch=1))
        lab.store.check_and_put(NAME, "pipeline", lab.store.get(NAME, "pipeline"), "garbage")
        fire(EpochEndedTrigger(**WHERE, epoch=1))

        assert closed == [True, True]
