"""One operation at a time changes a job, and it accounts for what the previous driver has left."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.seed import close
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Cut, EndedHow, Epoch, StopStage
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.record.events import AskToStop, NoteStopStage
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPolicy
from airflow_provider_offsets.errors import CheckpointError, Fenced, LeaseHeld, StateChanged, StateLost, TakenOver
from airflow_provider_offsets.operations import applying, lease
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import (
    LEASE_TIMEOUT_S,
    close_and_reconcile,
    keep_lease,
    new_attempt,
    of_attempt,
    reconcile,
    release_lease,
    take_lease,
)
from airflow_provider_offsets.operations.planning import make_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import await_stop
from airflow_provider_offsets.operations.submitting import submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import HERE, NAME, TOPIC, Crash, Fuse, Lab, install


class TestTake:
    def test_the_first_operation_of_a_pipeline_creates_its_record(self, lab: Lab) -> None:
        assert lab.control.record() is None

        record = take_lease(lab.session("op"))

        assert (record.phase, record.epoch, record.lease and record.lease.operation) == (Phase.STOPPED, 0, "op")

    @pytest.mark.parametrize(
        ("why", "held_by", "later_s", "take_over", "is_taken"),
        [
            ("its own: a task that is run again", "op", 0, False, True),
            ("another operation acted a moment ago", "other", 0, False, False),
            ("one second before the timeout", "other", LEASE_TIMEOUT_S - 1, False, False),
            ("the other one has not acted for so long: it was killed", "other", LEASE_TIMEOUT_S, False, True),
            ("a person says so", "other", 0, True, True),
            ("the other one's clock is ahead, or this one's behind", "other", -3600, False, False),
            ("a later attempt of the same run", "op@1", 0, False, True),
        ],
    )
    def test_politeness(self, why: str, held_by: str, later_s: int, take_over: bool, is_taken: bool, lab: Lab) -> None:
        take_lease(lab.session(held_by))
        lab.clock.now += later_s

        if is_taken:
            record = take_lease(lab.session("op"), take_over=take_over)
            assert record.lease is not None
            assert record.lease.operation == "op"
            return
        with pytest.raises(LeaseHeld, match=r"operation 'other' acted \d+ s ago.*set take_over"):
            take_lease(lab.session("op"), take_over=take_over)
        assert lab.holder == "other"

    def test_what_was_given_back_is_taken_at_once(self, lab: Lab) -> None:
        take_lease(lab.session("other"))
        release_lease(lab.session("other"))

        assert take_lease(lab.session("op")).lease is not None

    def test_only_the_holder_gives_it_back(self, lab: Lab) -> None:
        take_lease(lab.session("other"))

        release_lease(lab.session("op"))

        assert lab.holder == "other"

    def test_a_plan_that_was_made_before_a_takeover_is_stale_after_it(self, lab: Lab) -> None:
        """Even if the other operation has changed nothing, and has ended."""
        take_lease(lab.session("op"))
        planned = steps.plan(lab)
        take_lease(lab.session("other"), take_over=True)
        release_lease(lab.session("other"))
        take_lease(lab.session("op"))

        with pytest.raises(StateChanged, match="generation was 1 and is 4"):
            apply_plan(lab.session("op"), planned)


ACTS: dict[str, Callable[[Session, Lab, Any], Any]] = {
    "renew": lambda session, lab, applied: keep_lease(session, lab.record),
    "account for the dead": lambda session, lab, applied: close_and_reconcile(session),
    "wait for the stop": lambda session, lab, applied: await_stop(session, lab.epoch, lab.stop),
    "apply": lambda session, lab, applied: apply_plan(session, applied.plan),
    "submit": lambda session, lab, applied: submit_job(session, applied, lab.launcher),
}


class TestTakenOver:
    @pytest.fixture
    def applied(self, lab: Lab) -> Any:
        steps.rest(lab)
        steps.stop(lab, take_over=True)
        return steps.apply(lab)

    @pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
    def test_every_later_act_is_refused_and_changes_nothing(
        self, act: Callable[[Session, Lab, Any], Any], applied: Any, lab: Lab
    ) -> None:
        take_lease(lab.session("other"), take_over=True)
        session, before = lab.session("op"), dict(lab.store.scan(NAME, ""))

        with pytest.raises(TakenOver, match="leased to 'other'"):
            act(session, lab, applied)

        assert dict(lab.store.scan(NAME, "")) == before
        assert len(lab.drivers) == 1, "nothing was launched"

    def test_between_its_read_and_its_swap(self, applied: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        session = lab.session("op")
        lab.interpose(monkeypatch, lambda: take_lease(lab.session("other"), take_over=True))

        with pytest.raises(TakenOver, match="'other' took the pipeline over"):
            submit_job(session, applied, lab.launcher)

        assert len(lab.drivers) == 1
        assert lab.record.phase is Phase.STOPPED


class TestKeep:
    """An operation waits for hours: its lease must not age meanwhile, and must not be stolen back either."""

    def test_it_is_renewed_long_before_it_is_old(self, lab: Lab) -> None:
        session = lab.session("op")
        take_lease(session)
        for _ in range(100):
            lab.clock.now += 30
            keep_lease(session, lab.record)
            with pytest.raises(LeaseHeld):
                take_lease(lab.session("other"))

    def test_it_is_not_written_at_every_read(self, lab: Lab) -> None:
        session = lab.session("op")
        version = take_lease(session).version

        for _ in range(100):
            lab.clock.now += 1
            keep_lease(session, lab.record)

        assert lab.record.version == version

    def test_one_that_was_taken_over_in_this_very_moment_is_not_taken_back(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = lab.session("op")
        record = take_lease(session)
        lab.clock.now += LEASE_TIMEOUT_S
        lab.interpose(monkeypatch, lambda: take_lease(lab.session("other"), take_over=True))

        with pytest.raises(TakenOver, match="'other' took the pipeline over"):
            keep_lease(session, record)

        assert lab.holder == "other"

    def test_one_that_the_driver_ended_in_this_very_moment_stays_ended(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first batch is recorded while the submit waits for it: the job runs, and nobody holds its lease."""
        lab.on_launch = lambda driver: driver._claim()
        steps.launch(lab, operation="op")
        session = lab.session("op")
        record = session.cell.read()
        assert record is not None
        lab.clock.now += LEASE_TIMEOUT_S
        lab.interpose(monkeypatch, lab.tick)

        keep_lease(session, record)

        assert lab.record.lease is None


class TestCloseAndReconcile:
    def test_a_stopped_job_is_left_as_it_is(self, lab: Lab) -> None:
        steps.rest(lab)
        session = lab.session("op")
        version = take_lease(session, take_over=True).version

        assert close_and_reconcile(session).version == version

    def test_a_launch_that_nobody_claimed_is_cancelled(self, lab: Lab) -> None:
        steps.rest(lab)
        stood = lab.session().observe().stored
        steps.launch(lab, "shift:-30")
        take_lease(lab.session("op"), take_over=True)

        record = close_and_reconcile(lab.session("op"))

        assert (record.phase, record.ended and record.ended.how) == (Phase.STOPPED, EndedHow.CANCELLED)
        assert lab.session().observe().stored == stood, "what it announced is void"
        lab.tick()
        assert lab.record.phase is Phase.STOPPED, "its driver claims nothing, however late it comes"
        assert lab.alive == set()

    def test_one_that_is_claimed_in_this_very_moment_runs(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        steps.rest(lab)
        steps.launch(lab)
        session = lab.session("op")
        take_lease(session, take_over=True)
        lab.interpose(monkeypatch, lab.driver._claim)

        assert close_and_reconcile(session).phase is Phase.RUNNING

    @pytest.mark.parametrize(
        ("why", "tracked", "is_alive", "asked", "stage", "how"),
        [
            ("it lives", True, True, False, None, None),
            ("nobody can see it from here", True, None, False, None, None),
            ("it is gone, and nobody wanted it to", True, False, False, None, EndedHow.DIED),
            ("a tracked driver would have acknowledged", True, False, True, None, EndedHow.DIED),
            ("an untracked one cannot: it was asked, and went", False, False, True, None, EndedHow.STOPPED),
            ("on the signal that is its way to stop", False, False, True, True, EndedHow.STOPPED),
            ("on a signal that forces it", False, False, True, False, EndedHow.KILLED),
            ("a tracked one too", True, False, True, False, EndedHow.KILLED),
        ],
    )
    def test_an_epoch_is_closed_once_its_driver_is_seen_to_be_gone(
        self,
        why: str,
        tracked: bool,
        is_alive: bool | None,
        asked: bool,
        stage: bool | None,
        how: EndedHow | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        lab = install(Lab(tmp_path, offsets_in=() if tracked else ("elsewhere",)), monkeypatch)
        steps.start(lab)
        lab.clock.on_tick = lambda: None
        session = lab.session("op")
        take_lease(session, take_over=True)
        if asked:
            session.cell.change(AskToStop("op", "", 1))
        if stage is not None:
            session.cell.change(NoteStopStage("op", StopStage("a stage", stage, 2)))
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: is_alive)
        monkeypatch.setattr(lab.machine, "is_session_alive", lambda process: is_alive)

        record = close_and_reconcile(session)

        if how is None:
            assert (record.phase, record.ended) == (Phase.RUNNING, None)
        else:
            assert (record.phase, record.ended and record.ended.how) == (Phase.STOPPED, how)
            assert f"pid 100 on {HERE} is gone" in record.ended.message  # type: ignore[union-attr]

    def test_the_end_that_the_driver_recorded_is_kept(self, lab: Lab) -> None:
        """The driver acknowledged the stop, and exited a moment later."""
        steps.start(lab)
        lab.driver.end(EndedHow.FAILED, "its words")
        take_lease(lab.session())

        record = close_and_reconcile(lab.session())

        assert record.phase is Phase.STOPPED
        assert record.ended is not None
        assert (record.ended.how, record.ended.message) == (EndedHow.FAILED, "its words")

    def test_the_end_that_the_driver_records_at_the_same_time_is_kept(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        session = lab.session()
        take_lease(session)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: False)
        lab.interpose(monkeypatch, lambda: lab.driver.end(EndedHow.STOPPED))

        assert close_and_reconcile(session).ended.how is EndedHow.STOPPED  # type: ignore[union-attr]

    def test_a_driver_that_was_taken_for_dead_begins_and_records_nothing(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        lab.feed(10)
        zombie = lab.driver
        batch = zombie.plan()
        assert batch is not None
        placed = zombie.begin(batch)
        monkeypatch.setattr(lab.machine, "is_alive", lambda process: False)
        take_lease(lab.session())

        close_and_reconcile(lab.session())

        with pytest.raises(Fenced):
            zombie.record(placed)
        with pytest.raises(Fenced):
            zombie.begin(replace(batch, batch_id=2))
        assert [row.batch_id for row in lab.batches] == [0]
        assert [cut.batch_id for cut in lab.epoch.cuts] == [1], "what it may have written is named"

    @pytest.mark.sweep
    def test_killed_at_any_write_and_run_again_it_ends_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def end(k: int, after: bool) -> tuple[Fuse, Any]:
            with monkeypatch.context() as patch:
                lab = Lab(tmp_path / "lab")
                lab.wipe()
                install(lab, patch)
                steps.start(lab)
                lab.feed(10)
                batch = lab.driver.plan()
                assert batch is not None
                lab.driver.begin_unplanned(1)
                lab.driver.die()
                take_lease(lab.session())
                lab.fuse = Fuse(k, after)
                try:
                    with lab.fuse.lit():
                        close_and_reconcile(lab.session())
                except Crash:
                    lab.feed(3)
                    close_and_reconcile(lab.session())
                epoch = lab.epoch
                rows = lab.batches
                return lab.fuse, (epoch.ended and epoch.ended.how, epoch.cuts, epoch.last_batch_id, rows)

        _, expected = end(0, False)
        blown = 0
        for k, after in itertools.product(range(1, 9), (False, True)):
            fuse, found = end(k, after)
            assert found == expected, f"killed {'after' if after else 'before'} write {k}"
            blown += fuse.is_blown
        assert blown >= 4, "the test of the test: closing and reconciling are two swaps"


def ranges(start: tuple[int, int], end: tuple[int, int]) -> tuple[OffsetRange, ...]:
    return tuple(OffsetRange(TOPIC, number, start[number], end[number]) for number in (0, 1))


UNREAD = ranges((100, 100), (120, 120))
"""What a driver was about to read when it died."""


class TestProcess:
    """A driver of ``process=`` begins a batch with its facts, so a reconciliation knows what it was about to read."""

    @pytest.fixture
    def batch(self, lab: Lab) -> Batch:
        """Return the batch that Spark has planned; the driver has not started it yet."""
        steps.start(lab)
        lab.feed(20)
        planned = lab.driver.plan()
        assert planned is not None
        return planned

    def reconciled(self, lab: Lab) -> Epoch:
        lab.driver.die()
        take_lease(lab.session())
        close_and_reconcile(lab.session())
        assert lab.record.started is None
        return lab.epoch

    def test_a_batch_that_was_not_recorded_is_cut_off(self, batch: Batch, lab: Lab) -> None:
        lab.driver.begin(batch)

        epoch = self.reconciled(lab)

        assert epoch.cuts == (Cut(1, "query-1", 1, "", UNREAD),)
        assert epoch.last_batch_id == 0
        assert lab.session().observe().stored == lab.at(100, 100)
        assert steps.plan(lab).replay_at_most == 40

    def test_one_that_two_runs_began_counts_twice(self, batch: Batch, lab: Lab) -> None:
        """The program called ``run`` again after its query failed (A10)."""
        lab.driver.begin(batch, run="run-1")
        lab.driver.begin(batch, run="run-2")

        assert self.reconciled(lab).cuts == (Cut(1, "query-1", 2, "", UNREAD),)

    def test_its_facts_outlive_the_checkpoint(self, batch: Batch, lab: Lab) -> None:
        lab.driver.begin(batch)
        shutil.rmtree(lab.pipeline.job.checkpoint)

        assert self.reconciled(lab).cuts == (Cut(1, "query-1", 1, "", UNREAD),)

    def test_one_that_did_not_begin_leaves_nothing(self, batch: Batch, lab: Lab) -> None:
        """Its facts are stored, but the swap that begins it was not executed: a partial write is no history (A5)."""
        placed = batch.at_row(5000)
        lab.store._prepare(lab.pipeline.stream, placed)

        epoch = self.reconciled(lab)

        assert epoch.cuts == ()
        assert [row.batch_id for row in lab.batches] == [0]
        assert steps.plan(lab).replay_at_most == 0

    def test_a_row_that_the_driver_had_no_time_to_write_is_written(
        self, batch: Batch, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The driver was killed between the swap that records and the row: on HBase these are two effects (A5)."""
        placed = lab.driver.begin(batch)
        with monkeypatch.context() as patch:
            patch.setattr(lab.store, "_append", lambda stream, row: row)
            lab.driver.record(placed)
        assert [row.batch_id for row in lab.batches] == [0], "the test of the test"

        epoch = self.reconciled(lab)

        assert (epoch.cuts, epoch.last_batch_id) == ((), 1)
        assert lab.batches[1:] == [placed]
        report = audit_history(lab.session("audit"))
        assert (report.lost, report.unexplained_count, report.replayed_at_most) == (0, 0, 0)

    def test_one_that_was_recorded_and_not_committed_by_spark_is_not_run_again(self, batch: Batch, lab: Lab) -> None:
        """The next driver dies before it reaches the batch, so the history stays one batch ahead (A11)."""
        lab.driver.record(lab.driver.begin(batch))
        epoch = self.reconciled(lab)
        assert (epoch.cuts, epoch.last_batch_id) == ((), 1)
        steps.launch(lab, operation="second")
        lab.driver._claim()
        lab.driver.die()

        steps.stop(lab, "third", take_over=True)
        started = steps.submit(lab, steps.apply(lab, operation="third"), "third")

        assert started.start == lab.at(120, 120)
        lab.tick()
        rows = lab.batches
        assert [(row.epoch, row.batch_id) for row in rows] == [(1, 0), (1, 1)]
        report = audit_history(lab.session("audit"))
        assert (report.lost, report.replayed, report.replayed_at_most, report.unexplained_count) == (0, 0, 0, 0)


class TestSink:
    """Under ``sink=`` a batch begins before Spark plans it, and its output is finished once Spark has committed it."""

    @pytest.fixture(autouse=True)
    def running(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(20)

    def reconciled(self, lab: Lab) -> Epoch:
        lab.driver.die()
        take_lease(lab.session())
        close_and_reconcile(lab.session())
        assert lab.record.started is None
        return lab.epoch

    def noted(self, lab: Lab) -> None:
        lab.driver.begin_unplanned(1)

    def started_and_planned(self, lab: Lab) -> None:
        self.noted(lab)
        assert lab.driver.plan() is not None

    def started_and_committed(self, lab: Lab) -> None:
        self.noted(lab)
        batch = lab.driver.plan()
        assert batch is not None
        lab.driver.commit(batch)

    def started_again_and_committed(self, lab: Lab) -> None:
        """Resume: Spark had planned the batch already, so it begins with its facts (A3)."""
        batch = lab.driver.plan()
        assert batch is not None
        lab.driver.begin(batch)
        lab.driver.commit(batch)

    def started_then_started_with_facts(self, lab: Lab) -> None:
        self.started_and_planned(lab)
        batch = lab.driver.plan()
        assert batch is not None
        lab.driver.begin(batch, run="run-2")

    def started_and_the_checkpoint_is_missing(self, lab: Lab) -> None:
        self.started_and_planned(lab)
        shutil.rmtree(lab.pipeline.job.checkpoint)

    def started_and_another_query_has_the_folder(self, lab: Lab) -> None:
        self.started_and_committed(lab)
        metadata = Path(lab.pipeline.job.checkpoint) / "metadata"
        metadata.write_text('{"id":"query-9"}')

    GONE = "its checkpoint is gone, so all that it could have read counts"

    @pytest.mark.parametrize(
        ("why", "left", "last_batch_id", "cuts"),
        [
            ("Spark committed it: it is recorded (A18)", started_and_committed, 1, ()),
            ("so it is, if it began with its facts (A3)", started_again_and_committed, 1, ()),
            ("planned: it may be in the sink", started_and_planned, 0, (Cut(1, "query-1", 1, "", UNREAD),)),
            ("never planned: nothing was written", noted, 0, ()),
            (
                "planned, and run again by the same driver",
                started_then_started_with_facts,
                0,
                (Cut(1, "query-1", 2, "", UNREAD),),
            ),
            (
                "nobody knows what it read: bounded, and the reason is named (A6)",
                started_and_the_checkpoint_is_missing,
                0,
                (Cut(1, "query-1", 1, GONE, UNREAD),),
            ),
            (
                "what another query committed is not this one's",
                started_and_another_query_has_the_folder,
                0,
                (Cut(1, "query-1", 1, GONE, UNREAD),),
            ),
        ],
    )
    def test_what_becomes_of_the_started_batch(
        self, why: str, left: Callable[[Any, Lab], None], last_batch_id: int, cuts: tuple[Cut, ...], lab: Lab
    ) -> None:
        left(self, lab)

        epoch = self.reconciled(lab)

        assert (epoch.last_batch_id, epoch.cuts) == (last_batch_id, cuts)
        rows = lab.batches
        assert [(row.epoch, row.batch_id, row.end) for row in rows[1:]] == [
            (1, 1, lab.at(120, 120)) for _ in range(last_batch_id)
        ]

    def test_with_a_checkpoint_that_is_gone_and_nothing_unread_nothing_is_cut_off(self, lab: Lab) -> None:
        lab.tick()
        lab.driver.begin_unplanned(2)
        shutil.rmtree(lab.pipeline.job.checkpoint)

        assert self.reconciled(lab).cuts == ()

    @pytest.mark.parametrize("is_deleted", [False, True], ids=["a topic", "a deleted topic"])
    def test_of_the_topics_that_the_epoch_read_the_present_ones_count(self, is_deleted: bool, lab: Lab) -> None:
        self.started_and_the_checkpoint_is_missing(lab)
        lab.driver.die()
        lab.kafka.create_topic("added", 1)
        lab.kafka.append("added", 0, 7)
        if is_deleted:
            lab.kafka.delete_topic(TOPIC)
        session = replace(lab.session(), pipeline=replace(lab.pipeline, topics=("added",)))

        seen = session.observe().in_flight
        take_lease(session)
        close_and_reconcile(session)

        assert seen == (() if is_deleted else UNREAD)
        assert lab.epoch.cuts == (() if is_deleted else (Cut(1, "query-1", 1, self.GONE, UNREAD),))

    def test_a_driver_that_was_seen_dead_cannot_plan_its_batch_later(self, lab: Lab) -> None:
        """If that driver is alive nevertheless, Spark would write a batch that is in no record."""
        self.noted(lab)
        self.reconciled(lab)

        checkpoint = open_checkpoint(lab.pipeline.job.checkpoint)
        assert not checkpoint.create("offsets/1", "what the driver plans"), "CONCURRENT_STREAM_LOG_UPDATE"
        assert steps.plan(lab).form is RestartForm.REPOSITION

    def test_one_that_plans_it_at_that_moment_is_cut_off(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noted(lab)
        planned: list[Any] = []

        def close_too_late(*arguments: Any) -> int | None:
            planned.append(lab.driver.plan())
            return close(*arguments)

        monkeypatch.setattr(lease, "close", close_too_late)

        assert self.reconciled(lab).cuts == (Cut(1, "query-1", 1, "", UNREAD),)
        assert len(planned) == 1

    def test_what_spark_ran_after_a_late_commit_of_another_driver_is_cut_off(self, lab: Lab) -> None:
        """The superseded driver committed the started batch; this driver died in the next one, which it never began."""
        self.started_again_and_committed(lab)
        lab.feed(5)
        assert lab.driver.plan() is not None

        epoch = self.reconciled(lab)

        assert epoch.last_batch_id == 1
        [cut] = epoch.cuts
        assert (cut.batch_id, cut.count, [(each.start, each.end) for each in cut.ranges]) == (
            2,
            1,
            [(120, 125), (120, 125)],
        )

    def test_one_that_ended_by_itself_leaves_its_checkpoint_open(self, lab: Lab) -> None:
        self.noted(lab)
        lab.driver.end(EndedHow.FAILED)
        self.reconciled(lab)

        assert steps.plan(lab).form is RestartForm.RESUME

    def test_it_is_the_same_batch_for_the_plan_before_the_stop_and_after_it(self, lab: Lab) -> None:
        """The plan runs before anybody has reconciled the epoch: it must neither be refused nor count otherwise."""
        self.started_and_committed(lab)
        lab.driver.die()
        before = steps.plan(lab)
        self.reconciled(lab)
        after = steps.plan(lab)

        assert (before.problems, before.start, before.replay_at_most) == ((), lab.at(120, 120), 0)
        assert (after.problems, after.start, after.replay_at_most) == ((), lab.at(120, 120), 0)

    def test_the_bounds_of_a_batch_that_nobody_knows_may_grow_until_they_are_recorded(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between the facts and the swap, which are two effects on HBase; records came meanwhile."""
        self.started_and_the_checkpoint_is_missing(lab)
        swap = lab.store.swap

        def half(pipeline: str, name: str, expected: str | None, value: str, **more: Any) -> bool:
            if more.get("prepare") is not None:
                lab.store._prepare(more["stream"], more["prepare"])
                raise Crash("between facts and swap")
            return swap(pipeline, name, expected, value, **more)

        with monkeypatch.context() as patch:
            patch.setattr(lab.store, "swap", half)
            with pytest.raises(Crash):
                self.reconciled(lab)
        lab.feed(5)

        close_and_reconcile(lab.session())

        assert lab.epoch.cuts == (Cut(1, "query-1", 1, self.GONE, ranges((100, 100), (125, 125))),)

    def test_a_checkpoint_that_was_read_before_the_epoch_ended_is_not_gone_by(self, lab: Lab) -> None:
        """The driver committed the batch after this operation read the checkpoint: the record has changed by then."""
        self.started_and_planned(lab)
        session = lab.session()
        take_lease(session)
        lab.driver.end(EndedHow.FAILED)
        stale = session.cell.read()
        assert stale is not None
        take_lease(lab.session("other"), take_over=True)
        take_lease(session, take_over=True)

        with pytest.raises(StateChanged, match="epoch 1 is ended"):
            reconcile(session, stale)


class TestRecordIsGone:
    @pytest.mark.parametrize(
        ("why", "row", "kept", "known"),
        [
            ("a first start", None, False, ""),
            ("a job in the Cloudera row layout that never had a record", Batch, False, ""),
            ("a batch of one of our epochs", 1, False, "batch 4 of its group exists"),
            ("epochs, and no batch", None, True, "epoch 1 exists"),
        ],
    )
    def test_a_pipeline_is_new_only_if_nothing_of_it_is_known(
        self, why: str, row: Any, kept: bool, known: str, lab: Lab
    ) -> None:
        if kept:
            steps.rest(lab)
            lab.control.keep_epoch(lab.epoch)
            lab.store._histories.clear()
            lab.store._facts.clear()
        if row is not None:
            ours = isinstance(row, int)
            written = Batch(lab.at(10, 10), 1000, 4, "query-1", row, lab.at(0, 0)) if ours else Batch(lab.at(9, 9), 1)
            lab.store.append(lab.pipeline.stream, written)
        lab.store._control.pop((NAME, "pipeline"), None)

        if not known:
            assert take_lease(lab.session()).epoch == 0
            return
        with pytest.raises(StateLost, match=rf"no record in its control store, but {known}.*airflow offsets rename"):
            take_lease(lab.session())
        assert lab.control.record() is None

    def test_nor_if_a_restart_has_moved_its_job_whatever_became_of_the_store(self, lab: Lab) -> None:
        moved_to = self.moved_and_forgotten(lab)

        for act in (take_lease, lambda session: make_plan(session, "earliest", RestartPolicy())):
            with pytest.raises(StateLost, match=rf"was closed by 'op'.*set job.checkpoint to {moved_to}\.$"):
                act(lab.session("next"))
        assert lab.control.record() is None

    def test_the_way_out_goes_on_where_the_job_ran_last(self, lab: Lab) -> None:
        lab.checkpoint = self.moved_and_forgotten(lab)
        take_lease(lab.session("next"))

        plan = steps.plan(lab, operation="next")

        assert (plan.form, plan.start, plan.problems) == (RestartForm.RESUME, lab.at(100, 100), ())

    @pytest.mark.parametrize(
        ("left", "is_refused"),
        [("", True), ("offsets", True), ("metadata", False)],
        ids=["a seeded checkpoint", "one that cannot be read", "no checkpoint"],
    )
    def test_the_seeded_checkpoint_tells_it_where_the_first_one_is_gone(
        self, left: str, is_refused: bool, lab: Lab
    ) -> None:
        moved_to = Path(self.moved_and_forgotten(lab))
        shutil.rmtree(lab.pipeline.job.checkpoint)
        if left == "offsets":
            for entry in (moved_to / "offsets").iterdir():
                entry.write_text("")
        if left == "metadata":
            (moved_to / "metadata").unlink()

        if not is_refused:
            assert take_lease(lab.session("next")).epoch == 0
            return
        with pytest.raises(StateLost, match=rf"a restart has moved its job to {moved_to}"):
            take_lease(lab.session("next"))

    @pytest.mark.parametrize(("offsets_in", "is_refused"), [(("elsewhere",), False), (("checkpoint",), True)])
    def test_a_checkpoint_in_which_no_offsets_are_kept_is_not_read(
        self, offsets_in: tuple[str, ...], is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its file system may be open to the job alone."""
        lab = install(Lab(tmp_path, offsets_in=offsets_in, checkpoint="unheard-of://bucket/orders"), monkeypatch)

        if is_refused:
            with pytest.raises(CheckpointError, match="unheard-of"):
                take_lease(lab.session("next"))
            return
        assert take_lease(lab.session("next")).epoch == 0

    def test_folders_of_other_names_tell_nothing(self, lab: Lab) -> None:
        moved_to = self.moved_and_forgotten(lab)
        base = lab.pipeline.job.checkpoint
        Path(moved_to).rename(f"{base}-before-0123456789abcdef")
        shutil.rmtree(base)

        assert take_lease(lab.session("next")).epoch == 0

    @pytest.mark.parametrize("read_on", [0, 300])
    def test_a_checkpoint_that_no_job_ran_on_is_not_named(
        self, read_on: int, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An apply that is killed before it closes the job's checkpoint leaves a seeded one beside it."""
        steps.start(lab)
        steps.stop(lab)
        self.seed_and_die(lab, "shift:-30", monkeypatch)
        self.go_on(lab, read_on)
        self.forget(lab)

        take_lease(lab.session("next"))
        plan = steps.plan(lab, operation="next")

        assert (plan.form, plan.start, plan.problems) == (RestartForm.RESUME, lab.at(*[100 + read_on] * 2), ())

    @pytest.mark.parametrize("has_run", [True, False])
    def test_nor_is_it_the_way_out_after_an_earlier_move(
        self, has_run: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        steps.stop(lab)
        applied = steps.apply(lab, "shift:-30")
        (steps.submit if has_run else steps.launch_applied)(lab, applied)
        self.seed_and_die(lab, "earliest", monkeypatch)
        self.forget(lab)

        named = applied.checkpoint if has_run else "a new folder, and name the start"
        with pytest.raises(StateLost, match=rf"set job.checkpoint to {named}\.$"):
            take_lease(lab.session("next"))

    def test_another_checkpoint_at_that_location_does_not_hide_a_move(self, lab: Lab) -> None:
        """A tracked job leaves the checkpoint of its newest epoch, so what is at a changed ``job.checkpoint`` stays."""
        steps.start(lab)
        steps.stop(lab, "second")
        other = f"{lab.pipeline.job.checkpoint}-other"
        shutil.copytree(lab.pipeline.job.checkpoint, other)
        lab.checkpoint = other
        applied = steps.apply(lab, "shift:-30", "second")
        steps.submit(lab, applied, "second")
        self.tick(lab)
        steps.stop(lab, "last", take_over=True)
        self.forget(lab)

        with pytest.raises(StateLost, match=rf"a restart has moved its job to {applied.checkpoint}"):
            take_lease(lab.session("next"))

    @staticmethod
    def seed_and_die(lab: Lab, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Apply a plan, and be killed when its checkpoint is seeded and the old one is not closed yet."""

        def killed(*_: Any) -> None:
            raise Crash

        steps.stop(lab, "killed", take_over=True)
        with monkeypatch.context() as patch:
            patch.setattr(applying, "_close_left", killed)
            with pytest.raises(Crash):
                steps.apply(lab, start, "killed")

    def go_on(self, lab: Lab, count: int) -> None:
        """Restart the job where it was, and stop it after it has read ``count`` more records of each partition."""
        steps.stop(lab, "again", take_over=True)
        steps.submit(lab, steps.apply(lab, operation="again"), "again")
        lab.feed(count)
        self.tick(lab)
        steps.stop(lab, "last", take_over=True)

    @staticmethod
    def tick(lab: Lab) -> None:
        for _ in range(5):
            lab.tick()

    @staticmethod
    def forget(lab: Lab) -> None:
        """Lose the control store, with the history in it."""
        for kept in (lab.store._control, lab.store._histories, lab.store._facts):
            kept.clear()

    def moved_and_forgotten(self, lab: Lab) -> str:
        """Rewind a job, stop it after it has read everything, and lose the control store with the history in it."""
        steps.start(lab)
        steps.stop(lab)
        applied = steps.apply(lab, "shift:-30")
        steps.submit(lab, applied)
        steps.stop(lab, "last", take_over=True)
        self.forget(lab)
        return applied.checkpoint


class TestAttempts:
    """A cleared run is a new attempt, which acts. An automatic retry is none: it continues."""

    def test_a_retry_has_the_attempt_of_the_task_before_it(self, lab: Lab) -> None:
        observations = [new_attempt(lab.session("dag/run"), "2@noon") for _ in range(3)]

        assert {session.operation for session in observations} == {"dag/run"}

    def test_after_a_clear_it_is_the_next_one_and_all_later_tasks_are_of_it(self, lab: Lab) -> None:
        new_attempt(lab.session("dag/run"), "2@noon")

        assert new_attempt(lab.session("dag/run"), "4@noon").operation == "dag/run@2"
        assert new_attempt(lab.session("dag/run"), "4@noon").operation == "dag/run@2"
        assert of_attempt(lab.session("dag/run")).operation == "dag/run@2"
        assert new_attempt(lab.session("dag/run"), "4@evening").operation == "dag/run@3"
        assert of_attempt(lab.session("another/run")).operation == "another/run"

    def test_a_cleared_stop_stops_the_job_that_the_first_attempt_started(self, lab: Lab) -> None:
        """Otherwise the run would become green again without any action."""
        steps.start(lab, operation="dag/run")

        again = steps.stop(lab, "dag/run")
        cleared = steps.stop(lab, "dag/run@2")

        assert again.how == "restarted by this operation"
        assert cleared.how == "stopped"

    def test_a_late_task_of_an_earlier_attempt_disturbs_nobody(self, lab: Lab) -> None:
        take_lease(lab.session("dag/run"))
        take_lease(lab.session("dag/run@2"))

        with pytest.raises(TakenOver):
            take_lease(lab.session("dag/run"))
