"""A launch is known before its process exists; a start is reported once the new epoch has made progress."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.backends.detached import Launch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.record.events import ClaimLaunch
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.errors import (
    DriverDied,
    DriverSilent,
    Fenced,
    LeaseHeld,
    RecordChanged,
    StateChanged,
    StoreUnreachable,
    TakenOver,
)
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.operations.applying import Applied
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import close_and_reconcile, release_lease, take_lease
from airflow_provider_offsets.operations.planning import draft_plan
from airflow_provider_offsets.operations.submitting import Started, submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import SECRETS, TOPIC, Crash, Driver, Fuse, Lab

DIES_WITH = "Traceback (most recent call last):\nFileNotFoundError: no such application"


def dies(words: str = DIES_WITH) -> Callable[[Driver], None]:
    return lambda driver: driver.die(words)


@pytest.fixture
def applied(lab: Lab) -> Applied:
    """Return the first plan of a pipeline, applied by ``op``, which holds the lease."""
    take_lease(lab.session())
    return steps.apply(lab)


def stopped(lab: Lab, start: str = "committed") -> Applied:
    """Return a pipeline whose first epoch has read 100 of each partition and was stopped; the next plan is applied."""
    steps.start(lab, operation="first")
    steps.stop(lab, "op")
    return steps.apply(lab, start)


class TestStarted:
    def test_after_its_first_batch(self, lab: Lab) -> None:
        started = steps.start(lab)

        assert started == Started(1, "processed batch 0", 0, str(lab.driver.log), lab.at(0, 0))

    def test_idle_at_its_start_with_nothing_to_read(self, lab: Lab) -> None:
        started = steps.submit(lab, stopped(lab))

        assert (started.epoch, started.how, started.start) == (2, "idle", lab.at(100, 100))

    def test_a_batch_that_begins_right_after_it_was_idle_is_no_takeover(self, lab: Lab) -> None:
        """Between two checks the driver goes idle, which ends the lease, and begins the next batch, a slow one."""
        applied = stopped(lab)

        def idle_then_busy() -> None:
            lab.tick()  # it claims
            lab.tick()  # it is idle
            lab.feed(10)
            batch = lab.driver.plan()
            assert batch is not None
            lab.driver.begin(batch)
            lab.clock.on_tick = lambda: None

        lab.clock.on_tick = idle_then_busy

        assert steps.submit(lab, applied).how == "idle"

    def test_a_batch_that_it_recorded_just_before_it_died_is_not_missed(self, applied: Applied, lab: Lab) -> None:
        def brief(driver: Driver) -> None:
            driver.tick()
            driver.tick()
            driver.die()

        lab.on_launch = brief

        assert steps.submit(lab, applied).how == "processed batch 0"

    def test_a_batch_of_an_older_epoch_is_not_a_start(self, lab: Lab) -> None:
        applied = stopped(lab)

        def claims_and_says_nothing(driver: Driver) -> None:
            driver._claim()
            lab.clock.on_tick = lambda: None

        lab.on_launch = claims_and_says_nothing
        with pytest.raises(DriverSilent, match="the driver has epoch 2"):
            steps.submit(lab, applied)

    def test_the_first_batch_ends_the_lease(self, lab: Lab) -> None:
        """Otherwise nobody could stop the job for minutes, nor recover it."""
        steps.start(lab)

        assert lab.holder == ""

    def test_what_is_waited_for_is_said(self, applied: Applied, lab: Lab) -> None:
        said: list[str] = []

        submit_job(lab.session(), applied, lab.launcher, report=said.append)

        assert said[0] == f"driver log: {lab.driver.log}"


class TestLaunch:
    """The launch is in the record before any process exists."""

    def test_a_process_that_is_there_finds_its_launch(self, applied: Applied, lab: Lab) -> None:
        seen: list[tuple[Phase, str]] = []
        lab.on_launch = lambda driver: seen.append((lab.record.phase, lab.epoch.claim.tag))

        steps.submit(lab, applied)

        assert seen == [(Phase.LAUNCHING, lab.driver.settings.claim.tag)]

    def test_killed_between_the_launch_and_the_process_the_next_try_starts_one(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*arguments: object, **more: object) -> None:
            raise Crash("before the process")

        with monkeypatch.context() as patch:
            patch.setattr(submitting, "launch", killed)
            with pytest.raises(Crash):
                steps.submit(lab, applied)
        tag = lab.epoch.claim.tag

        assert steps.submit(lab, applied).epoch == 1
        assert [driver.settings.claim.tag for driver in lab.drivers] == [tag], "of the same launch, not of another"

    def test_of_two_processes_for_one_launch_one_runs(self, applied: Applied, lab: Lab) -> None:
        """The task was killed after it had started one process, and before it could record that."""
        steps.launch(lab, operation="op")
        step = lab.control.step("op", submitting.LAUNCHED, Launch)
        assert step is not None
        lab.control.record_step("op", submitting.LAUNCHED, replace(step, process=None))

        steps.submit(lab, applied)
        lab.tick()

        assert len(lab.drivers) == 2
        assert len(lab.alive) == 1
        assert [batch.epoch for batch in lab.batches] == [1]

    def test_the_answer_to_the_launch_is_lost(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody knows whether the launch was recorded: the task is run again, and there is one launch."""
        swap, lost = lab.store.swap, [1, 2]

        def answerless(pipeline: str, name: str, expected: str | None, value: str, **more: object) -> bool:
            done = swap(pipeline, name, expected, value, **more)  # type: ignore[arg-type]
            if lost and '"launching"' in value:
                lost.pop()
                raise StoreUnreachable(seen="no answer", expected="one", do="wait")
            return done

        monkeypatch.setattr(lab.store, "swap", answerless)

        assert steps.submit(lab, applied).epoch == 1
        assert (lab.record.epoch, len(lab.drivers)) == (1, 1)

    def test_an_operation_that_takes_over_before_the_process_exists_cancels_it(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The submit does not know yet, and starts its process nevertheless, which cannot claim anything."""
        launch = lab.launch

        def late(*arguments: object, **more: object) -> object:
            take_lease(lab.session("other"), take_over=True)
            close_and_reconcile(lab.session("other"))
            return launch(*arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(submitting, "launch", late)

        with pytest.raises(TakenOver, match="leased to 'other'"):
            steps.submit(lab, applied)

        lab.tick()
        assert lab.alive == set()
        assert lab.batches == []
        assert lab.record.phase is Phase.STOPPED

    def test_a_task_that_is_run_again_after_a_takeover_starts_nothing(self, applied: Applied, lab: Lab) -> None:
        steps.launch(lab, operation="op")
        steps.stop(lab, "other", take_over=True)

        with pytest.raises(TakenOver, match="leased to 'other'"):
            steps.submit(lab, applied)
        release_lease(lab.session("other"))
        with pytest.raises(TakenOver, match=r"leased to 'nobody'.*run this operation again from its stop task"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1

    def test_nor_one_whose_job_another_operation_has_stopped_since(self, applied: Applied, lab: Lab) -> None:
        """Its driver claimed, read no batch, and was stopped; then the lease was released."""
        steps.launch_applied(lab, applied)
        lab.driver._claim()
        steps.stop(lab, "other", take_over=True)
        release_lease(lab.session("other"))

        with pytest.raises(TakenOver, match=r"'other' asked epoch 1 .* to stop"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1
        assert lab.record.phase is Phase.STOPPED

    def test_a_plan_that_was_applied_before_another_epoch_ran_starts_nothing(self, lab: Lab) -> None:
        applied = stopped(lab)
        steps.stop(lab, "other", take_over=True)
        steps.submit(lab, steps.apply(lab, operation="other"), "other")
        steps.stop(lab, "third")
        take_lease(lab.session("op"), take_over=True)

        with pytest.raises(RecordChanged, match=r"the plan was made against generation \d+ for epoch 3"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 2


class TestAnotherPlan:
    """Adoption is by the plan's fingerprint: the running job was launched by this plan, or nothing is adopted (A13)."""

    @pytest.fixture
    def other(self, lab: Lab) -> Applied:
        """Return another plan of the same operation, from the same state."""
        self.first = stopped(lab, "shift:-30")
        plan, _ = draft_plan(lab.session(), "shift:-3", RestartPolicy())
        assert plan.fingerprint != self.first.plan.fingerprint
        return Applied(plan, self.first.checkpoint)

    def test_a_launch_of_another_plan_is_not_adopted(self, other: Applied, lab: Lab) -> None:
        steps.launch_applied(lab, self.first)

        with pytest.raises(RecordChanged, match="epoch 2 is launching"):
            steps.submit(lab, other)

        assert len(lab.drivers) == 2
        assert steps.stop(lab, "next").how == "cancelled"
        launches = [(each.number, each.is_cancelled) for each in lab.control.epochs()]
        assert launches == [(1, False), (2, True)], "what is kept of an epoch is what became of it, not a look at it"

    def test_nor_is_a_driver_of_another_plan(self, other: Applied, lab: Lab) -> None:
        steps.submit(lab, self.first)

        with pytest.raises(TakenOver, match="leased to 'nobody'"):
            steps.submit(lab, other)

        assert lab.epoch.claim.plan == self.first.plan.fingerprint
        assert len(lab.drivers) == 2

    def test_after_a_cancel_the_summary_of_the_launch_says_so(self, other: Applied, lab: Lab) -> None:
        steps.launch_applied(lab, self.first)
        with pytest.raises(RecordChanged):
            steps.submit(lab, other)
        steps.stop(lab, "next")

        steps.submit(lab, steps.apply(lab, "shift:-10", "next"), "next")
        lab.tick()

        assert [each.is_cancelled for each in lab.control.epochs()] == [False, True, False]
        report = audit_history(lab.session("audit"))
        assert (report.replayed, report.unexplained_count) == (20, 0)


def fails(words: str) -> Callable[[Driver], None]:
    """Return a driver's step that claims the launch, and ends before the first batch."""

    def fail(driver: Driver) -> None:
        driver._claim()
        driver.log.write_text(words)
        driver.end(EndedHow.FAILED, words)

    return fail


def killed(driver: Driver) -> None:
    """Claim the launch, and be killed by the kernel: nobody closed the epoch."""
    driver._claim()
    driver.die("Killed")


class TestDied:
    def test_with_its_own_last_lines_and_at_once(self, applied: Applied, lab: Lab) -> None:
        lab.on_launch = dies()
        began = lab.clock.now

        with pytest.raises(DriverDied) as died:
            steps.submit(lab, applied)

        assert died.value.log_tail == DIES_WITH
        assert "no such application" in str(died.value)
        assert str(lab.driver.log) in str(died.value)
        assert lab.clock.now - began < 1, "the timeout of 20 s is for a driver that lives"

    def test_after_it_claimed_its_epoch(self, lab: Lab) -> None:
        lab.on_launch = fails("AnalysisException: no such column")
        with pytest.raises(DriverDied, match=r"Epoch 1 failed and says 'AnalysisException: no such column'"):
            steps.start(lab)

    @pytest.mark.parametrize(
        ("why", "on_launch", "epoch"),
        [
            ("before its claim: the launch stands, and gets another process", dies(), 1),
            ("after its claim: it gets the next epoch", fails("out of memory"), 2),
            ("without a word after its claim", killed, 2),
        ],
    )
    def test_once_the_cause_is_fixed_the_same_task_starts_the_job(
        self, why: str, on_launch: Callable[[Driver], None], epoch: int, applied: Applied, lab: Lab
    ) -> None:
        lab.on_launch = on_launch
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        started = steps.submit(lab, applied)

        assert (started.epoch, started.how, started.start) == (epoch, "processed batch 0", lab.at(0, 0))
        assert len(lab.batches) == 1

    @pytest.mark.parametrize("on_launch", [dies(), fails("out of memory"), killed])
    def test_meanwhile_the_pipeline_is_free_for_others(
        self, on_launch: Callable[[Driver], None], applied: Applied, lab: Lab
    ) -> None:
        """A task that has failed for good does not block a person who wants to repair the pipeline."""
        lab.on_launch = on_launch
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)
        assert lab.holder == ""

        take_lease(lab.session("other"))

        with pytest.raises(TakenOver, match="leased to 'other'"):
            steps.submit(lab, applied)
        assert len(lab.drivers) == 1

    def test_a_task_that_was_killed_keeps_it_for_its_next_try(self, applied: Applied, lab: Lab) -> None:
        steps.launch_applied(lab, applied)

        with pytest.raises(LeaseHeld):
            take_lease(lab.session("other"))

    @pytest.mark.parametrize("on_launch", [fails("out of memory"), killed])
    def test_the_next_launch_announces_nothing_new_and_counts_nothing_twice(
        self, on_launch: Callable[[Driver], None], lab: Lab
    ) -> None:
        """The first launch began at the rewound position, though it read nothing: the second one continues there."""
        applied = stopped(lab, "shift:-30")
        lab.on_launch = on_launch
        for _ in range(3):
            with pytest.raises(DriverDied):
                steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        started = steps.submit(lab, applied)
        lab.tick()

        assert started.start == lab.at(70, 70)
        claims = [epoch.claim for epoch in lab.control.epochs()]
        assert [sum(each.replay for each in claim.announced) for claim in claims] == [0, 60, 0, 0, 0]
        assert [claim.stood for claim in claims[1:]] == [lab.at(100, 100), *[lab.at(70, 70)] * 3]
        report = audit_history(lab.session("audit"))
        assert (report.replayed, report.replayed_at_most, report.lost, report.unexplained_count) == (60, 0, 0, 0)

    def test_its_started_batch_is_cut_off_and_counted_once(self, lab: Lab) -> None:
        applied = stopped(lab)
        lab.feed(10)

        def killed_in_its_batch(driver: Driver) -> None:
            driver._claim()
            batch = driver.plan()
            assert batch is not None
            driver.begin(batch)
            driver.die("Killed")

        lab.on_launch = killed_in_its_batch
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)
        lab.on_launch = lambda driver: None

        assert steps.submit(lab, applied).how == "processed batch 1"
        report = audit_history(lab.session("audit"))
        assert (report.replayed, report.replayed_at_most, report.lost, report.unexplained_count) == (0, 20, 0, 0)

    def test_a_batch_that_spark_committed_is_recorded_and_the_plan_is_done(self, lab: Lab) -> None:
        """Under ``sink=``, the driver is killed between Spark's commit and the record (A12).

        Otherwise the next launch of this plan would begin in the middle of what was read.
        """
        applied = stopped(lab)
        lab.feed(10)

        steps.launch_applied(lab, applied)
        driver = lab.driver
        driver._claim()
        driver.begin_unplanned(1)
        batch = driver.plan()
        assert batch is not None
        driver.commit(batch)
        driver.die("Killed")

        with pytest.raises(StateChanged, match=r"Epoch 2, which this operation started, has processed batches and is"):
            steps.submit(lab, applied)

        assert [batch.batch_id for batch in lab.batches] == [0, 1]
        assert lab.session().observe().stored == lab.at(110, 110)
        steps.stop(lab, "next")
        assert steps.submit(lab, steps.apply(lab, operation="next"), "next").how == "idle", "there is a way out"

    def test_the_settings_of_one_that_never_read_them_do_not_stay(self, applied: Applied, lab: Lab) -> None:
        """The settings hold secrets."""
        lab.on_launch = dies()
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert list(lab.folder.rglob("*.settings.json")) == []

    def test_the_settings_of_a_task_that_was_killed_before_its_launch_do_not_stay(
        self, applied: Applied, lab: Lab
    ) -> None:
        """Nobody will ever read them; the settings of another operation are not touched."""
        folder = Path(lab.pipeline.job.folder_for_logs)
        folder.mkdir(parents=True, exist_ok=True)
        tag = submitting.operation_tag(lab.session())
        mine = folder / f"{lab.pipeline.name}-epoch-00001-{tag}-0badc0de.settings.json"
        theirs = folder / f"{lab.pipeline.name}-epoch-00001-11111111-0badc0de.settings.json"
        mine.touch()
        theirs.touch()

        steps.submit(lab, applied)

        assert (mine.exists(), theirs.exists()) == (False, True)


class TestSilent:
    @pytest.mark.parametrize(
        ("on_launch", "words"),
        [
            (lambda driver: None, "the driver claimed no epoch"),
            (lambda driver: driver._claim(), "the driver has epoch 1"),
        ],
    )
    def test_it_is_left_running_and_adopted_by_the_next_try(
        self, on_launch: Callable[[Driver], None], words: str, applied: Applied, lab: Lab
    ) -> None:
        lab.clock.on_tick = lambda: None
        lab.on_launch = on_launch
        with pytest.raises(DriverSilent, match=rf"(?s)After 20 s {words}.*run this task again to adopt it"):
            steps.submit(lab, applied)
        assert lab.driver.is_alive
        assert lab.holder == "", "the task has failed for good; others need not wait for it"
        lab.clock.on_tick = lab.tick

        assert steps.submit(lab, applied).epoch == 1
        assert len(lab.drivers) == 1

    def test_the_download_of_packages_is_not_counted(self, applied: Applied, lab: Lab) -> None:
        """``start_timeout_s`` is 20 s here; Ivy needs 100 s (E6)."""
        ready_s = lab.clock.now + 100
        resolving = "Ivy Default Cache set to: /ivy\n:: resolving dependencies :: org.apache.spark#spark-submit;1.0\n"

        def fetch(driver: Driver) -> None:
            driver.log.write_text(resolving)

        def tick() -> None:
            if lab.clock.now > ready_s:
                lab.driver.log.write_text(f"{resolving}:: resolution report :: resolve 99000ms\n")
                lab.tick()

        lab.packages, lab.on_launch, lab.clock.on_tick = "org.apache.spark:spark-sql-kafka:4.2.0", fetch, tick

        assert steps.submit(lab, applied).epoch == 1
        assert lab.clock.now > ready_s

    def test_an_operation_that_stops_it_meanwhile_is_not_disturbed(self, applied: Applied, lab: Lab) -> None:
        lab.clock.on_tick = lambda: None
        with pytest.raises(DriverSilent):
            steps.submit(lab, applied)
        lab.clock.on_tick = lab.tick

        assert steps.stop(lab, "other").how == "cancelled"

        with pytest.raises(TakenOver):
            steps.submit(lab, applied)
        assert lab.batches == []


class TestAdoption:
    def test_a_job_that_this_operation_started_is_not_started_again(self, applied: Applied, lab: Lab) -> None:
        first = steps.submit(lab, applied)

        assert steps.submit(lab, applied) == first
        assert len(lab.drivers) == 1

    @pytest.mark.parametrize("on_launch", [lambda driver: None, lambda driver: driver._claim()])
    def test_an_orphan_is_adopted_without_a_twin(
        self, on_launch: Callable[[Driver], None], applied: Applied, lab: Lab
    ) -> None:
        """The task is killed before and after the orphan's claim."""
        lab.on_launch = on_launch
        steps.launch_applied(lab, applied)

        assert steps.submit(lab, applied).epoch == 1
        assert len(lab.drivers) == 1

    def test_an_orphan_that_was_never_recorded_is_adopted_once_it_has_claimed(self, applied: Applied, lab: Lab) -> None:
        lab.on_launch = lambda driver: driver._claim()
        lab.session()
        writes = ["opening the operation", "claim", "launch in the record", "settings", "launch"]
        lab.fuse = Fuse(at=len(writes), after=True)
        with pytest.raises(Crash), lab.fuse.lit():
            steps.submit(lab, applied)
        assert lab.record.phase is Phase.RUNNING, "the test of the test"

        assert steps.submit(lab, applied).epoch == 1
        assert len(lab.drivers) == 1

    def test_two_tries_of_one_task_at_once_start_one_job(self, applied: Applied, lab: Lab) -> None:
        """Airflow took the first try for dead: it has launched, and the second one finds its launch."""
        second: list[Started] = []

        def another_try() -> None:
            lab.clock.on_tick = lab.tick
            second.append(steps.submit(lab, applied))

        lab.clock.on_tick = another_try

        first = steps.submit(lab, applied)

        assert [first] == second
        assert (len(lab.drivers), lab.record.epoch) == (1, 1)

    def test_two_tries_that_account_for_a_dead_driver_at_once(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.launch_applied(lab, applied)
        fails("out of memory")(lab.driver)
        lab.interpose(monkeypatch, lambda: close_and_reconcile(lab.session()))

        assert steps.submit(lab, applied).epoch == 2

    def test_a_job_that_ran_and_is_over_needs_another_operation(self, applied: Applied, lab: Lab) -> None:
        steps.submit(lab, applied)
        steps.stop(lab, "other")

        with pytest.raises(StateChanged, match=r"Epoch 1, which this operation started, has processed batches"):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1

    def test_a_driver_that_a_person_starts_with_its_settings_claims_nothing(self, applied: Applied, lab: Lab) -> None:
        """Once the launch has a holder, every other process with its tag is fenced."""
        steps.submit(lab, applied)
        copy = Driver(lab, "by hand", replace(lab.driver.process, pid=4711), lab.driver.log, lab.driver.settings)
        lab.alive.add(copy.process)

        copy.tick()

        assert not copy.is_alive
        with pytest.raises(Fenced, match=r"epoch 1 was claimed by pid 100 on worker-1"):
            copy.cell.change(ClaimLaunch(copy.settings.claim.tag, copy.process, 1))


class TestPartitions:
    def test_partitions_that_were_added_since_the_plan_start_at_0(self, lab: Lab) -> None:
        applied = stopped(lab)
        lab.kafka.add_partitions(TOPIC, 4)
        lab.feed(7, 2, 3)

        started = steps.submit(lab, applied)

        assert started.start == lab.at(100, 100, 0, 0)
        assert lab.epoch.claim.start == started.start

    def test_one_whose_head_is_deleted_already_is_refused(self, lab: Lab) -> None:
        applied = stopped(lab)
        lab.kafka.add_partitions(TOPIC, 3)
        lab.feed(7, 2)
        lab.kafka.delete_records_before(TOPIC, 2, 5)

        with pytest.raises(StateChanged, match=r"have lost their first records: flights\[2\] begins at 5"):
            steps.submit(lab, applied)

        assert (len(lab.drivers), lab.record.epoch) == (1, 1), "nothing was launched"
        assert lab.holder == ""

    def test_a_topic_that_was_recreated_is_refused(self, applied: Applied, lab: Lab) -> None:
        lab.kafka.recreate_topic(TOPIC, 2)

        with pytest.raises(StateChanged, match="fake-topic-id-2"):
            steps.submit(lab, applied)

        assert lab.drivers == []

    def test_one_that_was_recreated_since_the_launch_is_refused_to_the_next_try(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*arguments: object, **more: object) -> None:
            raise Crash("before the process")

        with monkeypatch.context() as patch:
            patch.setattr(submitting, "launch", killed)
            with pytest.raises(Crash):
                steps.submit(lab, applied)
        lab.kafka.recreate_topic(TOPIC, 2)

        with pytest.raises(StateChanged, match="fake-topic-id-2"):
            steps.submit(lab, applied)

        assert lab.drivers == []

    def test_one_that_is_recreated_before_the_driver_reads_it_is_reported(self, applied: Applied, lab: Lab) -> None:
        def recreate(driver: Driver) -> None:
            driver.tick()
            lab.kafka.recreate_topic(TOPIC, 2)

        lab.on_launch = recreate

        for _ in range(2):
            with pytest.raises(StateChanged, match="'flights' was recreated during the start: epoch 1 may read"):
                steps.submit(lab, applied)
        assert len(lab.drivers) == 1
        assert lab.holder == ""

    def test_a_race_with_the_driver_s_own_check_is_retried_once(self, applied: Applied, lab: Lab) -> None:
        """Spark dies unless startingOffsets names exactly the partitions that it finds."""

        def loses(driver: Driver) -> None:
            if len(lab.drivers) == 1:
                lab.kafka.add_partitions(TOPIC, 3)
                fails("assertion failed: If startingOffsets contains specific offsets, you must specify all")(driver)

        lab.on_launch = loses
        started = steps.submit(lab, applied)

        assert (started.epoch, started.start) == (2, lab.at(0, 0, 0))
        assert len(lab.drivers) == 2

    def test_it_is_not_tried_for_ever(self, applied: Applied, lab: Lab) -> None:
        def always_loses(driver: Driver) -> None:
            lab.kafka.add_partitions(TOPIC, 2 + len(lab.drivers))
            fails("startingOffsets")(driver)

        lab.on_launch = always_loses
        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 2

    def test_the_same_words_without_a_new_partition_are_not_tried_again(self, applied: Applied, lab: Lab) -> None:
        lab.on_launch = fails("startingOffsets")

        with pytest.raises(DriverDied):
            steps.submit(lab, applied)

        assert len(lab.drivers) == 1


class TestSecrets:
    def test_the_driver_reads_them_and_nobody_else_sees_them(
        self, applied: Applied, lab: Lab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_OFFSETS_DEFAULT", "postgresql://me:hunter2@db/offsets")
        monkeypatch.setenv("_AIRFLOW__AS_LIBRARY", "hunter2")
        said: list[str] = []

        with caplog.at_level(logging.DEBUG):
            submit_job(lab.session(), applied, lab.launcher, report=said.append)

        assert lab.driver.settings.secrets == SECRETS
        cells = dict(lab.store.scan(lab.pipeline.name, ""))
        for place in (lab.commands, lab.environments, said, caplog.text, cells):
            assert "hunter2" not in json.dumps(place, default=str)
        assert lab.environments[0]["PATH"] == os.environ["PATH"], "the rest of the environment is the driver's too"

    def test_a_command_that_cannot_be_launched_leaves_no_settings(
        self, applied: Applied, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(*arguments: object, **more: object) -> None:
            raise FileNotFoundError(2, "No such file or directory", "spark-submit")

        monkeypatch.setattr(submitting, "launch", missing)

        with pytest.raises(FileNotFoundError):
            steps.submit(lab, applied)

        assert list(lab.folder.rglob("*.settings.json")) == []


def test_the_claim_says_all_that_the_audit_needs(lab: Lab) -> None:
    Path(lab.pipeline.job.application).write_text("print('hello')")
    steps.start(lab, operation="first")
    steps.stop(lab)
    lab.feed(10)
    applied = steps.apply(lab, "shift:-30")
    recorded_before = lab.record.recorded

    steps.submit(lab, applied)

    claim = lab.epoch.claim
    assert (claim.number, claim.operation, claim.checkpoint) == (2, "op", applied.checkpoint)
    assert claim.announced == applied.plan.announced
    assert [each.replay for each in claim.announced] == [30, 30]
    assert claim.stood == lab.at(100, 100)
    assert claim.identity == lab.kafka.live_topics([TOPIC]).identity
    assert len(claim.application_digest) == 64
    assert claim.recorded_before == recorded_before
    assert claim.plan == applied.plan.fingerprint
