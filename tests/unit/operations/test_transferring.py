"""A position is copied into a store: the planned position is written, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import RestartForm
from airflow_provider_offsets.core.transfer import Transfer, plan_transfer
from airflow_provider_offsets.errors import (
    InputRefused,
    LeaseHeld,
    ModeUnsupported,
    PlanRefused,
    StateChanged,
    StoreInUse,
    TakenOver,
)
from airflow_provider_offsets.operations.lease import release_lease, take_lease
from airflow_provider_offsets.operations.transferring import carry_out, read_position, stopped_pipeline
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.observations import TOPIC, at
from tests.unit.operations import steps
from tests.unit.operations.lab import Crash, Lab, install
from tests.unit.operations.test_known_positions import rested

STREAM = Stream("g", (TOPIC,))


class ReadOnly:
    kind = "read-only"

    def position(self, stream: Stream) -> Position | None:
        return None


def planned(now: Position | None) -> Transfer:
    return plan_transfer("g", at(5, 6), now)


def test_it_is_written_and_repeated_without_harm() -> None:
    store = MemoryStore()

    carry_out(store, STREAM, planned(None))
    carry_out(store, STREAM, planned(store.position(STREAM)))

    assert store.position(STREAM) == at(5, 6)


def test_a_position_that_moved_since_the_observation_is_not_overwritten() -> None:
    store = MemoryStore()
    transfer = planned(None)
    store.write(STREAM, at(7, 7), expected=None)

    with pytest.raises(StateChanged):
        carry_out(store, STREAM, transfer)
    assert store.position(STREAM) == at(7, 7)


def test_a_problem_refuses_all_of_it() -> None:
    store = MemoryStore()
    store.write(STREAM, at(5, 1), expected=None)

    with pytest.raises(PlanRefused, match="would be skipped"):
        carry_out(store, STREAM, planned(at(5, 1)))
    assert store.position(STREAM) == at(5, 1)


def test_a_store_that_is_only_read_is_no_target() -> None:
    with pytest.raises(ModeUnsupported, match="read-only"):
        carry_out(ReadOnly(), STREAM, planned(None))


def test_nothing_stored_is_nothing_to_bring() -> None:
    with pytest.raises(InputRefused, match="nothing stored"):
        read_position(MemoryStore(), STREAM)


class TestStopped:
    """The lease is held while a pipeline's stores are written."""

    def test_a_job_that_may_run_holds_its_stores(self, lab: Lab) -> None:
        steps.start(lab)

        with (
            pytest.raises(StoreInUse, match="Epoch 1 of pipeline 'delay_alerts' is running"),
            stopped_pipeline(lab.session()),
        ):
            pytest.fail("nothing may be written")
        record = lab.control.record()
        assert record is not None
        assert record.lease is None

    @pytest.mark.parametrize("before", ["never ran", "stopped"])
    def test_nobody_starts_it_meanwhile_and_anybody_afterwards(self, before: str, lab: Lab) -> None:
        if before == "stopped":
            steps.rest(lab)
            release_lease(lab.session("second"))

        with stopped_pipeline(lab.session("copy")) as write:
            write(MemoryStore(), STREAM, planned(None))
            with pytest.raises(LeaseHeld):
                steps.start(lab, operation="other")

        steps.start(lab, operation="other")

    def test_an_operation_at_work_is_disturbed_only_on_request(self, lab: Lab) -> None:
        steps.rest(lab)

        with pytest.raises(LeaseHeld), stopped_pipeline(lab.session("copy")):
            pytest.fail("'second' stopped the job a moment ago")
        with stopped_pipeline(lab.session("copy"), take_over=True) as write:
            write(MemoryStore(), STREAM, planned(None))

    def test_one_that_was_taken_over_writes_no_more(self, lab: Lab) -> None:
        store = MemoryStore()
        with stopped_pipeline(lab.session("copy")) as write:
            take_lease(lab.session("other"), take_over=True)
            with pytest.raises(TakenOver):
                write(store, STREAM, planned(None))

        assert store.position(STREAM) is None
        record = lab.control.record()
        assert record is not None
        assert record.lease is not None
        assert record.lease.operation == "other", "what is not its own is not released"


class TestHistoryOfATrackedJob:
    """The record has the job's position, so a write to its history would have no effect."""

    def write_to(self, target: MemoryStore, lab: Lab) -> None:
        stream = lab.pipeline.stream
        with stopped_pipeline(lab.session("copy"), take_over=True) as write:
            write(target, stream, plan_transfer("g", lab.at(70, 70), target.position(stream)))

    def test_it_is_refused(self, lab: Lab) -> None:
        rested(lab)

        with pytest.raises(InputRefused, match="whose record has the position of its tracked job"):
            self.write_to(lab.store, lab)

        assert lab.store.position(lab.pipeline.stream) == lab.at(100, 100)

    def test_another_store_at_the_same_position_is_written(self, lab: Lab) -> None:
        rested(lab)
        mirror = MemoryStore()
        mirror.write(lab.pipeline.stream, lab.at(100, 100), expected=None)

        self.write_to(mirror, lab)

        assert mirror.position(lab.pipeline.stream) == lab.at(70, 70)


class TestStoreOfTheJob:
    """What is written to the store that an untracked job starts from is in the record before it is in the store."""

    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        """Return a stopped job that has read 100 of each partition, and 50 more records have come since."""
        return rested(install(Lab(tmp_path, offsets_in=("elsewhere",)), monkeypatch))

    def bring(self, lab: Lab, *offsets: int, operation: str = "copy") -> None:
        stream = lab.pipeline.stream
        with stopped_pipeline(lab.session(operation), take_over=True) as write:
            now = lab.kept.position(stream)
            write(lab.kept, stream, plan_transfer("g", lab.at(*offsets), now, accept_skipped={TOPIC: 200}))

    def interpose(self, lab: Lab, *, before: Any = lambda: None, after: Any = lambda: None) -> None:
        """Act right before or right after the next write to the job's store."""
        write = lab.kept.write

        def interposed(stream: Any, position: Position, *, expected: Position | None) -> None:
            lab.kept.write = write  # type: ignore[method-assign]
            before()
            write(stream, position, expected=expected)
            after()

        lab.kept.write = interposed  # type: ignore[method-assign]

    def test_the_record_has_the_write_until_it_has_ended(self, lab: Lab) -> None:
        seen: list[tuple[str, ...]] = []
        self.interpose(lab, before=lambda: seen.append(tuple(each.operation for each in lab.record.writes)))

        self.bring(lab, 150, 150)

        assert seen == [("copy",)]
        assert lab.record.writes == ()

    @pytest.mark.parametrize("offset", [150, 70])
    def test_the_next_start_continues_at_what_was_written(self, offset: int, lab: Lab) -> None:
        self.bring(lab, offset, offset)

        made = steps.plan(lab, "committed", "second")

        assert (made.problems, made.start) == ((), lab.at(offset, offset))
        assert made.form is RestartForm.RESUME

    @pytest.mark.parametrize("is_there", [False, True])
    def test_a_killed_one_has_moved_nothing_until_it_is_repeated(self, is_there: bool, lab: Lab) -> None:
        def kill() -> None:
            raise Crash

        self.interpose(lab, **{"after" if is_there else "before": kill})
        with pytest.raises(Crash):
            self.bring(lab, 150, 150)

        assert steps.plan(lab, "committed", "second").start == lab.at(100, 100)
        self.bring(lab, 150, 150, operation="again")
        assert steps.plan(lab, "committed", "second").start == lab.at(150, 150)

    def test_a_late_one_is_named_by_the_next_plan(self, lab: Lab) -> None:
        def taken_over() -> None:
            steps.launch(lab, operation="B")
            lab.driver._claim()

        self.interpose(lab, before=taken_over)
        with pytest.raises(TakenOver):
            self.bring(lab, 150, 150)
        lab.driver.die()
        steps.stop(lab, "third", take_over=True)

        made = steps.plan(lab, "committed", "third")

        assert [each.kind for each in made.problems] == [ProblemKind.LATE_WRITE]
        assert "operation 'copy' was taken over" in made.problems[0].message

    @pytest.mark.parametrize("error", [StateChanged, StoreInUse])
    def test_a_refused_one_leaves_no_write_in_the_record(self, error: type[StateChanged], lab: Lab) -> None:
        def refuse() -> None:
            raise error(seen="a member", expected="none", do="stop it")

        self.interpose(lab, before=refuse)
        with pytest.raises(error):
            self.bring(lab, 150, 150)

        assert lab.record.writes == ()
        assert steps.plan(lab, "committed", "second").start == lab.at(100, 100)

    def test_another_store_of_the_pipeline_does_not_move_it(self, lab: Lab) -> None:
        """A store with the same position may be the job's: the position after the write shows that it is not."""
        mirror = MemoryStore()
        stream = lab.pipeline.stream
        mirror.write(stream, lab.at(100, 100), expected=None)
        with stopped_pipeline(lab.session("copy"), take_over=True) as write:
            write(mirror, stream, plan_transfer("g", lab.at(70, 70), lab.at(100, 100)))

        assert mirror.position(stream) == lab.at(70, 70)
        assert steps.plan(lab, "committed", "second").start == lab.at(100, 100)

    def test_another_store_does_not_replace_a_lost_position(self, lab: Lab) -> None:
        lab.kept.offsets = None
        with stopped_pipeline(lab.session("copy"), take_over=True) as write:
            write(MemoryStore(), lab.pipeline.stream, plan_transfer("g", lab.at(70, 70), None))

        made = steps.plan(lab, "committed", "second")

        assert [each.kind for each in made.problems] == [ProblemKind.POSITION_GONE]


class TestCheckpointOfTheJob:
    """The checkpoint that an untracked job opens is swapped under the lease."""

    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        return rested(install(Lab(tmp_path, offsets_in=("checkpoint",)), monkeypatch))

    def bring(self, lab: Lab, *offsets: int) -> None:
        target, stream = CheckpointPositions(lab.pipeline.job.checkpoint), lab.pipeline.stream
        with stopped_pipeline(lab.session("copy"), take_over=True) as write:
            now = target.position(stream)
            write(target, stream, plan_transfer("g", lab.at(*offsets), now, accept_skipped={TOPIC: 200}))

    @pytest.mark.parametrize("offset", [150, 70])
    def test_the_next_start_continues_at_what_was_written(self, offset: int, lab: Lab) -> None:
        self.bring(lab, offset, offset)

        made = steps.plan(lab, "committed", "second")

        assert (made.problems, made.start) == ((), lab.at(offset, offset))
        assert made.form is RestartForm.RESUME

    def test_back_and_forth_swaps_each_time(self, lab: Lab) -> None:
        for offset in (70, 100, 70, 100):
            self.bring(lab, offset, offset)
            assert CheckpointPositions(lab.pipeline.job.checkpoint).position(lab.pipeline.stream) == lab.at(
                offset, offset
            )

    def test_a_gone_one_continues_the_batch_ids(self, lab: Lab) -> None:
        state = read_state(open_checkpoint(lab.pipeline.job.checkpoint))
        assert state is not None
        shutil.rmtree(lab.pipeline.job.checkpoint)

        self.bring(lab, 100, 100)

        seeded = read_state(open_checkpoint(lab.pipeline.job.checkpoint))
        assert seeded is not None
        assert seeded.committed_batch_id >= state.committed_batch_id
        assert steps.plan(lab, "committed", "second").start == lab.at(100, 100)
