"""What can be observed of a job from here. Unknown does not mean dead, and an observation changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow, Heartbeat
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import AskToStop, CancelLaunch
from airflow_provider_offsets.errors import DriverSilent
from airflow_provider_offsets.operations.job_state import JobObservation, JobState, behind, end_of, observe_job
from airflow_provider_offsets.operations.lease import take_lease
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, TOPIC, Crash, Driver, Lab


def elsewhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the driver to a machine that cannot be observed."""
    monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)


def launch(lab: Lab, operation: str = "first") -> None:
    """Launch a driver, and kill the task before the driver has claimed anything."""

    def killed(driver: Driver) -> None:
        raise Crash

    lab.on_launch = killed
    with pytest.raises(Crash):
        steps.start(lab, operation=operation)
    lab.on_launch = lambda driver: None


class TestObserveJob:
    def test_never_started(self, lab: Lab) -> None:
        assert observe_job(lab.control) == JobObservation(JobState.NEVER_STARTED, 0)
        take_lease(lab.session())
        assert observe_job(lab.control) == JobObservation(JobState.NEVER_STARTED, 0), "somebody only looked after it"

    def test_launching_and_cancelled(self, lab: Lab) -> None:
        launch(lab)

        found = observe_job(lab.control)

        assert (found.state, found.epoch, found.detail) == (JobState.LAUNCHING, 1, "launched by 'first'")
        lab.session("first").cell.change(CancelLaunch("first", 1))
        assert observe_job(lab.control).state is JobState.STOPPED

    def test_running(self, lab: Lab) -> None:
        steps.start(lab)

        assert observe_job(lab.control).state is JobState.RUNNING

    @pytest.mark.parametrize("how", [how for how in EndedHow if how is not EndedHow.CANCELLED])
    def test_ended_and_then_stopped(self, how: EndedHow, lab: Lab) -> None:
        """An observation that comes only after the reconciliation has missed nothing."""
        steps.start(lab)
        lab.driver.end(how, "words")

        found = observe_job(lab.control)

        assert (found.state, found.epoch, found.detail) == (JobState.ENDED, 1, f"{how.value} words")
        steps.stop(lab)
        stopped = observe_job(lab.control)
        assert stopped.state is JobState.STOPPED
        assert stopped.detail == found.detail
        assert stopped.is_in(JobState.ENDED)
        assert not found.is_in(JobState.STOPPED)

    def test_dead_is_seen_and_not_closed(self, lab: Lab) -> None:
        """Only the lease holder closes an epoch."""
        steps.start(lab)
        lab.driver.die()
        cells = dict(lab.store.scan(NAME, ""))

        assert observe_job(lab.control).state is JobState.DEAD
        ended = end_of(lab.control, 1)
        assert ended is not None
        assert ended.how is EndedHow.DIED
        assert dict(lab.store.scan(NAME, "")) == cells

    def test_a_living_job_costs_one_get(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        asked: list[str] = []
        get = lab.store.get

        def counted(pipeline: str, name: str) -> Any:
            asked.append(name)
            return get(pipeline, name)

        monkeypatch.setattr(lab.store, "get", counted)
        monkeypatch.setattr(lab.store, "scan", None)

        assert observe_job(lab.control).state is JobState.RUNNING
        assert asked == ["pipeline"]

    @pytest.mark.parametrize(
        ("why", "beats", "state"),
        [
            ("the first observe_job has nothing to compare with", [1], JobState.UNKNOWN),
            ("it grew: there is life", [1, 2], JobState.RUNNING),
            ("it did not grow: silent, and nobody knows why", [2, 2], JobState.UNKNOWN),
            ("the first beat since the observe_job before", [None, 1], JobState.RUNNING),
            ("no beat at all", [None, None], JobState.UNKNOWN),
        ],
    )
    def test_elsewhere_only_the_heartbeat_speaks(
        self, why: str, beats: list[int | None], state: JobState, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        elsewhere(lab, monkeypatch)
        found = None
        for beat in beats:
            if beat is not None:
                lab.control.beat(1, Heartbeat(beat, 1))
            found = observe_job(lab.control, found)

        assert found is not None
        assert found.state is state, why
        assert end_of(lab.control, 1) is None

    def test_beats_of_another_epoch_are_not_compared(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        elsewhere(lab, monkeypatch)
        lab.control.beat(1, Heartbeat(5, 1))

        assert observe_job(lab.control, JobObservation(JobState.RUNNING, 7, beat=1)).state is JobState.UNKNOWN


class TestEnd:
    def test_of_an_epoch_before_the_newest_one(self, lab: Lab) -> None:
        steps.start(lab, operation="first")
        steps.stop(lab)
        steps.submit(lab, steps.apply(lab))

        before, now, later = (end_of(lab.control, number) for number in (1, 2, 3))

        assert before is not None
        assert before.how is EndedHow.STOPPED
        assert now is None
        assert later is None

    def test_an_untracked_job_that_was_asked_to_stop_and_went_has_stopped(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab.more |= {"tracked": False, "offsets_in": ("checkpoint",)}
        lab.stop = type(lab.stop)(marker=str(lab.folder / "stop"))
        lab.on_launch = lambda driver: driver._claim()
        steps.start(lab)
        session = lab.session("op")
        take_lease(session, take_over=True)
        session.cell.change(AskToStop("op", "", 1))
        lab.driver.die()

        ended = end_of(lab.control, 1)

        assert ended is not None
        assert ended.how is EndedHow.STOPPED


class TestBehind:
    def test_what_is_missing_is_counted_by_partition(self, lab: Lab) -> None:
        steps.start(lab)

        missing = behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 130))

        assert missing == {TopicPartition(TOPIC, 1): 30}

    def test_nothing_is_missing_at_the_goal_and_past_it(self, lab: Lab) -> None:
        steps.start(lab)

        assert behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 99)) == {}
        assert behind(lab.control, lab.store, lab.pipeline.stream, Position()) == {}

    def test_before_the_first_start_everything_is(self, lab: Lab) -> None:
        missing = behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 0))

        assert missing == {TopicPartition(TOPIC, 0): 100}

    def test_a_job_that_was_rewound_has_to_come_back(self, lab: Lab) -> None:
        """What the previous epoch has read does not count: it is replayed."""
        steps.rest(lab)
        applied = steps.apply(lab, "shift:-30", "second")
        lab.on_launch = lambda driver: driver._claim()
        lab.clock.on_tick = lambda: None
        with pytest.raises(DriverSilent):
            steps.submit(lab, applied, "second")

        missing = behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 100))

        assert set(missing.values()) == {30}

    def test_what_is_recorded_counts_before_its_row_is_there(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        monkeypatch.setattr(lab.store, "newest_first", lambda stream, **more: iter(()))

        assert behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 130)) == {TopicPartition(TOPIC, 1): 30}

    def test_what_a_job_before_the_first_epoch_has_read_counts(self, lab: Lab) -> None:
        lab.store.append(lab.pipeline.stream, Batch(lab.at(40, 100), 900, row_time_ms=900))

        assert behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 100)) == {TopicPartition(TOPIC, 0): 60}
