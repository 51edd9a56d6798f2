"""A start is reported when the new epoch has done something, and a driver that fails is told in its own words."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import Claim, DriverState, EndedHow, Heartbeat, ProcessIdentity
from airflow_provider_offsets.errors import DriverDied, DriverSilent, Fenced, WorldChanged
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.operations.submitting import Started, submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import HERE, SECRETS, TOPIC, Crash, Driver, Fuse, Lab

DIES_WITH = "Traceback (most recent call last):\nFileNotFoundError: no such application"


def dies(words: str = DIES_WITH) -> Callable[[Driver], None]:
    return lambda driver: driver.die(words)


class TestStarted:
    def test_after_its_first_batch(self, lab: Lab) -> None:
        started = steps.start(lab)

        assert started == Started(1, "processed batch 0", 0, str(lab.driver.log), lab.at(0, 0))

    def test_idle_at_its_start_with_nothing_to_read(self, lab: Lab) -> None:
        steps.rest(lab)

        started = steps.submit(lab, steps.apply(lab))

        assert (started.epoch, started.how, started.start) == (2, "idle", lab.at(100, 100))

    def test_an_idle_driver_that_stands_elsewhere_has_not_started(self, lab: Lab) -> None:
        """It took another checkpoint than the plan's: what it says is not what was asked for."""
        steps.rest(lab)
        applied = steps.apply(lab)

        def stands_elsewhere(driver: Driver) -> None:
            driver._claim()
            driver.control.beat(driver.epoch, Heartbeat(1, DriverState.IDLE, 1, None, lab.at(1, 1)))
            lab.clock.on_tick = lambda: None

        lab.on_launch = stands_elsewhere
        with pytest.raises(DriverSilent):
            steps.submit(lab, applied)

    def test_a_batch_of_an_older_epoch_is_not_a_start(self, lab: Lab) -> None:
        """A zombie records while the new driver comes up."""
        steps.rest(lab)
        applied = steps.apply(lab)

        def claims_and_says_nothing(driver: Driver) -> None:
            driver._claim()
            lab.clock.on_tick = lambda: None

        lab.on_launch = claims_and_says_nothing
        with pytest.raises(DriverSilent, match="the driver has epoch 2"):
            steps.submit(lab, applied)

    def test_what_is_waited_for_is_said(self, lab: Lab) -> None:
        said: list[str] = []
        applied = steps.apply(lab)

        submit_job(lab.world(), applied, lab.command, SECRETS, say=said.append)

        assert said[0] == f"driver log: {lab.driver.log}"


class TestDied:
    def test_with_its_own_last_lines_and_at_once(self, lab: Lab) -> None:
        lab.on_launch = dies()
        applied, began = steps.apply(lab), lab.clock.now

        with pytest.raises(DriverDied) as died:
            steps.submit(lab, applied)

        assert died.value.log_tail == DIES_WITH
        assert "no such application" in str(died.value)
        assert str(lab.driver.log) in str(died.value)
        assert lab.clock.now - began < 1, "the timeout of 20 s is for a driver that lives"
        assert list(lab.control.epochs()) == []

    def test_after_it_claimed_its_epoch(self, lab: Lab) -> None:
        def fails(driver: Driver) -> None:
            driver._claim()
            driver.end(EndedHow.FAILED, "AnalysisException: no such column")

        lab.on_launch = fails
        with pytest.raises(DriverDied, match=r"epoch 1 failed and says 'AnalysisException: no such column'"):
            steps.start(lab)

    def test_once_mended_the_same_operation_starts_it(self, lab: Lab) -> None:
        lab.on_launch = dies()
        applied = steps.apply(lab)
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        assert steps.submit(lab, applied).epoch == 1

    def test_once_mended_after_a_claim_it_takes_the_next_epoch(self, lab: Lab) -> None:
        def fails(driver: Driver) -> None:
            driver._claim()
            driver.end(EndedHow.FAILED, "out of memory")

        lab.on_launch = fails
        applied = steps.apply(lab)
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        started = steps.submit(lab, applied)

        assert (started.epoch, started.start) == (2, lab.at(0, 0))

    def test_a_driver_that_died_without_a_word_after_its_claim(self, lab: Lab) -> None:
        """SIGKILL from the kernel: nobody closed the epoch, and the process is seen to be gone."""

        def killed(driver: Driver) -> None:
            driver._claim()
            driver.die("Killed")

        lab.on_launch = killed
        applied = steps.apply(lab)
        with pytest.raises(DriverDied, match="Killed"):
            steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        assert steps.submit(lab, applied).epoch == 2

    def test_the_settings_of_one_that_never_read_them_do_not_stay(self, lab: Lab) -> None:
        """They hold secrets."""
        lab.on_launch = dies()
        applied = steps.apply(lab)
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert list(lab.folder.rglob("*.settings.json")) == []

    def test_the_settings_of_a_task_that_was_killed_before_its_launch_do_not_stay(self, lab: Lab) -> None:
        """Nobody will ever read them; another operation's are not touched."""
        applied = steps.apply(lab)
        folder = Path(lab.pipeline.job.folder_for_logs)
        folder.mkdir(parents=True, exist_ok=True)
        tag = submitting._tag(lab.world())
        mine = folder / f"{lab.pipeline.name}-epoch-00001-{tag}-0badc0de.settings.json"
        theirs = folder / f"{lab.pipeline.name}-epoch-00001-11111111-0badc0de.settings.json"
        mine.touch()
        theirs.touch()

        steps.submit(lab, applied)

        assert (mine.exists(), theirs.exists()) == (False, True)


class TestSilent:
    def test_a_driver_that_claims_nothing(self, lab: Lab) -> None:
        lab.clock.on_tick = lambda: None
        applied = steps.apply(lab)

        with pytest.raises(
            DriverSilent, match=r"(?s)after 20 s the driver claimed no epoch.*run this task again to adopt it"
        ):
            steps.submit(lab, applied)

        assert lab.driver.is_alive, "it is left running"

    def test_it_is_adopted_by_the_next_try(self, lab: Lab) -> None:
        lab.clock.on_tick = lambda: None
        applied = steps.apply(lab)
        with pytest.raises(DriverSilent):
            steps.submit(lab, applied)
        lab.clock.on_tick = lab.tick

        assert steps.submit(lab, applied).epoch == 1
        assert len(lab.drivers) == 1


class TestAdoption:
    def test_a_job_that_this_operation_started_is_not_started_again(self, lab: Lab) -> None:
        applied = steps.apply(lab)
        first = steps.submit(lab, applied)

        assert steps.submit(lab, applied) == first
        assert len(lab.drivers) == 1

    def test_an_orphan_that_claimed_is_adopted_without_a_twin(self, lab: Lab) -> None:
        applied = steps.apply(lab)
        lab.on_launch = lambda driver: driver._claim()
        lab.world()
        lab.fuse = Fuse(at=3, after=True)  # opening the operation, the settings, the launch
        with pytest.raises(Crash), lab.fuse.lit():
            steps.submit(lab, applied)

        assert steps.submit(lab, applied).epoch == 1
        assert len(lab.drivers) == 1

    def test_a_job_that_ran_and_is_over_needs_another_operation(self, lab: Lab) -> None:
        applied = steps.apply(lab)
        steps.submit(lab, applied)
        steps.stop(lab, "other")

        with pytest.raises(WorldChanged, match=r"epoch 1, which this operation started, has processed batches"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1

    def test_another_operation_that_was_faster_is_named(self, lab: Lab) -> None:
        applied = steps.apply(lab)
        lab.on_launch = lambda driver: (other_claims(lab, 1), driver._claim())[0]

        with pytest.raises(
            Fenced, match=r"epoch 1 of 'delay_alerts' was claimed by 'other'.*expected: it free for 'op'"
        ):
            steps.submit(lab, applied)

        assert lab.control.newest_epoch().claim.operation == "other"  # type: ignore[union-attr]


def other_claims(lab: Lab, number: int) -> None:
    identity = lab.kafka.live_topics([TOPIC]).identity
    claim = Claim(number, "other", "other@1", "/elsewhere", lab.at(0, 0), identity)
    lab.control.claim_epoch(claim, ProcessIdentity(HERE, "boot-1", 1, 1), at_ms=1)


class TestPartitions:
    def test_those_that_came_since_the_plan_start_at_0(self, lab: Lab) -> None:
        steps.rest(lab)
        applied = steps.apply(lab)
        lab.kafka.add_partitions(TOPIC, 4)
        lab.feed(7, 2, 3)

        started = steps.submit(lab, applied)

        assert started.start == lab.at(100, 100, 0, 0)
        assert lab.control.newest_epoch().claim.start == started.start  # type: ignore[union-attr]

    def test_one_whose_head_is_deleted_already_is_refused(self, lab: Lab) -> None:
        steps.rest(lab)
        applied = steps.apply(lab)
        lab.kafka.add_partitions(TOPIC, 3)
        lab.feed(7, 2)
        lab.kafka.delete_records_before(TOPIC, 2, 5)

        with pytest.raises(WorldChanged, match=r"its head deleted already: flights\[2\] begins at 5"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1, "nothing was launched"

    def test_a_topic_that_was_made_again_is_refused(self, lab: Lab) -> None:
        applied = steps.apply(lab)
        lab.kafka.recreate_topic(TOPIC, 2)

        with pytest.raises(WorldChanged, match="fake-topic-id-2"):
            steps.submit(lab, applied)

        assert lab.drivers == []

    def test_a_race_with_the_driver_s_own_look_is_tried_once_more(self, lab: Lab) -> None:
        """Spark dies unless startingOffsets names exactly the partitions that it finds."""
        applied = steps.apply(lab)

        def loses(driver: Driver) -> None:
            if len(lab.drivers) == 1:
                lab.kafka.add_partitions(TOPIC, 3)
                driver.die("assertion failed: If startingOffsets contains specific offsets, you must specify all")

        lab.on_launch = loses
        started = steps.submit(lab, applied)

        assert (started.epoch, started.start) == (1, lab.at(0, 0, 0))
        assert len(lab.drivers) == 2

    def test_it_is_not_tried_for_ever(self, lab: Lab) -> None:
        applied = steps.apply(lab)

        def always_loses(driver: Driver) -> None:
            lab.kafka.add_partitions(TOPIC, 2 + len(lab.drivers))
            driver.die("startingOffsets")

        lab.on_launch = always_loses
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 2

    def test_the_same_words_without_a_new_partition_are_not_tried_again(self, lab: Lab) -> None:
        lab.on_launch = dies("startingOffsets")
        applied = steps.apply(lab)

        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1


class TestSecrets:
    def test_the_driver_reads_them_and_nobody_else_sees_them(
        self, lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", "postgresql://me:hunter2@db/offsets")
        monkeypatch.setenv("_AIRFLOW__AS_LIBRARY", "hunter2")
        said: list[str] = []
        applied = steps.apply(lab)

        with caplog.at_level(logging.DEBUG):
            submit_job(lab.world(), applied, lab.command, SECRETS, say=said.append)

        assert lab.driver.settings.secrets == SECRETS
        cells = dict(lab.store.scan(lab.pipeline.name, ""))
        for place in (lab.commands, lab.environments, said, caplog.text, cells):
            assert "hunter2" not in json.dumps(place, default=str)
        assert lab.environments[0]["PATH"] == os.environ["PATH"], "the rest of the environment is the driver's too"

    def test_a_command_that_cannot_be_launched_leaves_no_settings(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(*arguments: object, **more: object) -> None:
            raise FileNotFoundError(2, "No such file or directory", "spark-submit")

        applied = steps.apply(lab)
        monkeypatch.setattr(submitting, "launch", missing)

        with pytest.raises(FileNotFoundError):
            steps.submit(lab, applied)

        assert list(lab.folder.rglob("*.settings.json")) == []


def test_the_claim_says_all_that_the_audit_needs(lab: Lab) -> None:
    Path(lab.pipeline.job.application).write_text("print('hello')")
    steps.rest(lab)
    lab.feed(10)
    applied = steps.apply(lab, "shift:-30")

    steps.submit(lab, applied)

    epoch = lab.control.newest_epoch()
    assert epoch is not None
    claim = epoch.claim
    assert (claim.number, claim.operation, claim.checkpoint) == (2, "op", applied.checkpoint)
    assert claim.announced == applied.plan.announced
    assert [each.replay for each in claim.announced] == [30, 30]
    assert claim.identity == lab.kafka.live_topics([TOPIC]).identity
    assert len(claim.application_digest) == 64
    assert epoch.after_row_time_ms == 1000
    assert replace(claim, launch="").launch == "", "a launch is one try, and has an id of its own"
