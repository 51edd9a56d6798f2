"""What can be said of a job from here. Unknown is not dead."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import DriverState, EndedHow, Heartbeat
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.operations.watching import JobLook, JobState, behind, look
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab


def elsewhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the driver be on a machine that cannot be looked into."""
    monkeypatch.setattr(lab.machine, "is_alive", lambda process: None)


class TestLook:
    def test_never_started(self, lab: Lab) -> None:
        assert look(lab.control) == JobLook(JobState.NEVER_STARTED, 0)

    def test_running(self, lab: Lab) -> None:
        steps.start(lab)

        assert look(lab.control).state is JobState.RUNNING

    @pytest.mark.parametrize("how", list(EndedHow))
    def test_ended(self, how: EndedHow, lab: Lab) -> None:
        steps.start(lab)
        lab.driver.end(how, "words")

        found = look(lab.control)

        assert (found.state, found.epoch, found.detail) == (JobState.ENDED, 1, f"{how.value} words")

    def test_dead_is_seen_and_not_closed(self, lab: Lab) -> None:
        """Looking changes nothing."""
        steps.start(lab)
        lab.driver.die()

        assert look(lab.control).state is JobState.DEAD
        assert lab.control.ended(1) is None

    @pytest.mark.parametrize(
        ("why", "beats", "state"),
        [
            ("the first look has nothing to compare with", [1], JobState.UNKNOWN),
            ("it grew: there is life", [1, 2], JobState.RUNNING),
            ("it did not grow: silent, and nobody knows why", [2, 2], JobState.UNKNOWN),
            ("the first beat since the look before", [None, 1], JobState.RUNNING),
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
                lab.control.beat(1, Heartbeat(beat, DriverState.PROCESSING, 1))
            found = look(lab.control, found)

        assert found is not None
        assert found.state is state
        assert lab.control.ended(1) is None

    def test_beats_of_another_epoch_are_not_compared(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.start(lab)
        elsewhere(lab, monkeypatch)
        lab.control.beat(1, Heartbeat(5, DriverState.PROCESSING, 1))

        assert look(lab.control, JobLook(JobState.RUNNING, 7, beat=1)).state is JobState.UNKNOWN


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
        """What the epoch before has read does not count: it is read again."""
        steps.rest(lab)
        applied = steps.apply(lab, "shift:-30")
        lab.on_launch = lambda driver: driver._claim()
        lab.clock.on_tick = lambda: None
        with pytest.raises(Exception, match="neither processed"):
            steps.submit(lab, applied)

        missing = behind(lab.control, lab.store, lab.pipeline.stream, lab.at(100, 100))

        assert set(missing.values()) == {30}

    def test_rows_of_zombies_do_not_count(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.feed(50)
        steps.submit(lab, steps.apply(lab))
        stream = lab.pipeline.stream
        lab.store.append(stream, Batch(lab.at(900, 900), 9000, 77, "query-1", 1, lab.at(100, 100)))

        missing = behind(lab.control, lab.store, stream, lab.at(150, 160))

        assert missing == {TopicPartition(TOPIC, 1): 10}
