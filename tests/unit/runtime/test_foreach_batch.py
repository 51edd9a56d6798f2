"""The order of one batch: fenced, noted, run, fenced again, recorded; and only then may Spark commit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Ended, EndedHow, StopRequest
from airflow_provider_offsets.core.recovery import recovery_of
from airflow_provider_offsets.errors import BatchConflict, Fenced
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery, ProcessBatch
from airflow_provider_offsets.stores.checkpoint import read_state, seed
from tests.unit.core.worlds import at
from tests.unit.runtime.lab import QUERY, STREAM, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class Frame:
    """A batch's frame, with the session that it comes from."""

    def __init__(self) -> None:
        self.sparkSession = self.conf = self
        self.has_jvm = True

    def get(self, key: str, default: str) -> str:
        if not self.has_jvm:
            raise ConnectionRefusedError("the JVM is gone")
        return default


class Spark:
    """Writer and query in one: at each look one batch is planned, called back, and committed if that returns."""

    def __init__(self, lab: Lab, *batches: int) -> None:
        self._lab, self._batches = lab, list(batches)
        self._callback: Callable[[Any, int], None] = lambda frame, batch_id: None
        self.is_stopped = False

    def foreachBatch(self, callback: Callable[[Any, int], None]) -> Spark:  # Spark's name
        self._callback = callback
        return self

    def start(self) -> Spark:
        return self

    @property
    def status(self) -> dict[str, Any]:
        return {"isDataAvailable": False, "message": "Waiting for next trigger"}

    def awaitTermination(self, timeout: float) -> bool:  # Spark's name
        if not self._batches:
            self._lab.control.request_stop(1, StopRequest("op", "test", 0))
            return False
        batch_id = self._batches.pop(0)
        self._lab.plan(batch_id, 10 * batch_id + 10, 10 * batch_id + 10)
        self._callback(Frame(), batch_id)
        self._lab.checkpoint().create(f"commits/{batch_id}", "v1\n{}")
        return False

    def stop(self) -> None:
        self.is_stopped = True


def run(lab: Lab, process: ProcessBatch, *batches: int) -> EndedHow | None:
    """Run these batches, and then a stop."""
    epoch = lab.hold()
    epoch.claim()
    ForeachBatchQuery(epoch, process).run(Spark(lab, *batches))
    return epoch.ending


def committed_id(lab: Lab) -> int:
    state = read_state(lab.checkpoint())
    assert state is not None
    return state.committed_batch_id


def test_a_batch_whose_jvm_was_killed_under_it_is_not_recorded(lab: Lab) -> None:
    """``collect()`` gives the rows that came until then, as if they were all: the next epoch has to run it again."""

    def process(frame: Any, batch_id: int) -> None:
        frame.has_jvm = batch_id < 1

    with pytest.raises(ConnectionRefusedError):
        run(lab, process, 0, 1)

    assert len(lab.recorded) == 1
    begun = lab.control.begun(1)
    assert begun is not None
    assert begun.batch_id == 1, "the audit names it as cut off"


def test_each_batch_is_noted_before_it_runs_and_recorded_after_it(lab: Lab) -> None:
    seen: list[tuple[int, BegunBatch | None, int]] = []

    how = run(lab, lambda frame, batch_id: seen.append((batch_id, lab.control.begun(1), len(lab.recorded))), 0, 1)

    assert [(batch_id, begun and begun.batch_id, recorded) for batch_id, begun, recorded in seen] == [
        (0, 0, 0),
        (1, 1, 1),
    ]
    assert lab.recorded == [(0, 1, at(10, 10)), (1, 1, at(20, 20))]
    assert how is EndedHow.STOPPED


def test_what_the_function_did_not_finish_is_neither_recorded_nor_committed(lab: Lab) -> None:
    """A position moves when output is finished, never when it is planned."""

    def fails(frame: Any, batch_id: int) -> None:
        raise ValueError("the job's own mistake")

    with pytest.raises(ValueError, match="own mistake"):
        run(lab, fails, 0)

    begun = lab.control.begun(1)
    assert begun is not None
    assert (begun.batch_id, lab.recorded, committed_id(lab)) == (0, [], -1)


def test_a_driver_that_loses_the_word_in_its_batch_records_nothing(lab: Lab) -> None:
    def overtaken(frame: Any, batch_id: int) -> None:
        lab.control.end(1, Ended(EndedHow.DIED, 0))

    with pytest.raises(Fenced):
        run(lab, overtaken, 0, 1)

    assert (lab.recorded, committed_id(lab)) == ([], -1)


def test_no_batch_begins_once_the_word_is_lost(lab: Lab) -> None:
    ran: list[int] = []
    epoch = lab.hold()
    epoch.claim()
    lab.control.end(1, Ended(EndedHow.DIED, 0))

    ForeachBatchQuery(epoch, lambda frame, batch_id: ran.append(batch_id)).run(Spark(lab, 0))

    assert (ran, lab.recorded, epoch.ending) == ([], [], EndedHow.FENCED)


@pytest.mark.parametrize(("operation", "runs"), [(recovery_of(1), False), ("maintenance", True)])
def test_a_recovered_job_runs_no_batch_if_somebody_has_stopped_it_since(operation: str, runs: bool, lab: Lab) -> None:
    """A maintenance that comes while the recovery is under way wants the job at rest; its own start does not."""
    lab.hold().claim()
    lab.control.request_stop(1, StopRequest("maintenance", "upgrade", 0))
    lab.control.end(1, Ended(EndedHow.DIED, 0))
    epoch = lab.hold(2, operation=operation)

    epoch.claim()

    assert (epoch.asked_to_end() is None) is runs


def test_a_batch_that_the_history_has_is_not_run_again(lab: Lab) -> None:
    """The driver died between the record and Spark's commit."""
    ran: list[int] = []
    lab.store.append(STREAM, Batch(at(10, 10), 1_000, 0, QUERY, 1, at(0, 0)))

    run(lab, lambda frame, batch_id: ran.append(batch_id), 0, 1)

    assert (ran, lab.recorded) == ([1], [(0, 1, at(10, 10)), (1, 1, at(20, 20))])
    assert committed_id(lab) == 1


def test_the_same_batch_with_other_offsets_is_refused(lab: Lab) -> None:
    lab.store.append(STREAM, Batch(at(10, 11), 1_000, 0, QUERY, 1, at(0, 0)))

    with pytest.raises(BatchConflict, match="batch 0 of query"):
        run(lab, lambda frame, batch_id: None, 0)

    assert committed_id(lab) == -1


def test_the_batch_that_a_seed_planned_has_no_place_in_the_history(lab: Lab) -> None:
    seed(lab.checkpoint(), query_id=QUERY, last_batch_id=-1, start=at(5, 7), like=None)
    ran: list[int] = []

    run(lab, lambda frame, batch_id: ran.append(batch_id), 0, 1)

    assert (ran, lab.recorded) == ([1], [(1, 1, at(20, 20))])
    assert next(lab.store.newest_first(STREAM)).start == at(5, 7)
