"""The order of one batch: started in the record, run, recorded; and only then may Spark commit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.core.epoch import EndedHow, RowsWritten
from airflow_provider_offsets.errors import BatchConflict, CheckpointError, Fenced
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery, ProcessBatch
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows
from tests.unit.core.observations import at
from tests.unit.runtime.lab import QUERY, STREAM, Lab, Spark, planned


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def run(lab: Lab, process: ProcessBatch, *batches: int, epoch: HeldEpoch | None = None) -> EndedHow | None:
    """Run these batches, and then a stop."""
    epoch = epoch or lab.held()
    ForeachBatchQuery(epoch, process).run(Spark(lab, *batches))
    return epoch.ending


def record(lab: Lab, *batches: int, epoch: HeldEpoch | None = None) -> None:
    """Make an epoch record batches that Spark had no time to commit."""
    epoch = epoch or lab.held()
    for batch_id in batches:
        lab.plan(batch_id, 10 * batch_id + 10, 10 * batch_id + 10)
        epoch.begin(planned(batch_id))
        epoch.record(planned(batch_id))


def committed_id(lab: Lab) -> int:
    state = read_state(lab.checkpoint())
    assert state is not None
    return state.committed_batch_id


def started_id(lab: Lab) -> int | None:
    return None if lab.record.started is None else lab.record.started.batch_id


def test_each_batch_begins_before_it_runs_and_is_recorded_after_it(lab: Lab) -> None:
    seen: list[tuple[int, int | None, int]] = []

    how = run(lab, lambda frame, batch_id: seen.append((batch_id, started_id(lab), len(lab.recorded))), 0, 1)

    assert seen == [(0, 0, 0), (1, 1, 1)]
    assert lab.recorded == [(0, 1, at(10, 10)), (1, 1, at(20, 20))]
    assert (how, started_id(lab)) == (EndedHow.STOPPED, None)


@pytest.mark.parametrize(
    ("why", "rows", "written"),
    [
        ("Spark counted them", Rows(7, saw_none=False), RowsWritten(batches=2, rows=14)),
        ("Spark saw no write of records that were read", Rows(None, saw_none=True), RowsWritten(0, 0, 2, 2, 1)),
        ("the count failed", UNKNOWN, RowsWritten(uncounted=2)),
    ],
)
def test_what_spark_says_a_batch_wrote_is_recorded(why: str, rows: Rows, written: RowsWritten, lab: Lab) -> None:
    def process(frame: Any, batch_id: int) -> None:
        frame.rows = rows

    run(lab, process, 0, 1)
    lab.launch()

    assert next(lab.control.kept_epochs()).written == written


def test_a_batch_without_records_that_wrote_nothing_is_no_warning(lab: Lab) -> None:
    epoch = lab.held()
    lab.plan(0, 0, 0)
    batch = epoch.log.batch(0, epoch=1)
    assert batch is not None
    epoch.begin(batch)
    epoch.record(batch, rows=Rows(None, saw_none=True))

    assert lab.record.written == RowsWritten(uncounted=1)


def test_a_batch_whose_jvm_was_killed_under_it_is_not_recorded(lab: Lab) -> None:
    """``collect()`` returns only the rows that came until then: the next epoch must run the batch again."""

    def process(frame: Any, batch_id: int) -> None:
        frame.has_jvm = batch_id < 1

    with pytest.raises(ConnectionRefusedError):
        run(lab, process, 0, 1)

    assert (len(lab.recorded), started_id(lab)) == (1, 1)


def test_what_the_function_did_not_finish_is_neither_recorded_nor_committed(lab: Lab) -> None:
    """A position moves when output is finished, never when it is planned."""

    def fails(frame: Any, batch_id: int) -> None:
        raise ValueError("the job's own mistake")

    with pytest.raises(ValueError, match="own mistake"):
        run(lab, fails, 0)

    assert (started_id(lab), lab.recorded, committed_id(lab)) == (0, [], -1)


def test_a_driver_that_is_fenced_in_its_batch_records_nothing(lab: Lab) -> None:
    def overtaken(frame: Any, batch_id: int) -> None:
        lab.close("maintenance")

    with pytest.raises(Fenced):
        run(lab, overtaken, 0, 1)

    assert (lab.recorded, committed_id(lab)) == ([], -1)


@pytest.mark.parametrize(
    ("meanwhile", "how"),
    [(Lab.stop, EndedHow.STOPPED), (lambda lab: lab.close("maintenance"), "Fenced"), (Lab.launch, "Fenced")],
)
@pytest.mark.parametrize("is_recorded", [False, True])
def test_no_batch_runs_or_is_committed_after_a_stop_or_without_the_epoch(
    is_recorded: bool, meanwhile: Callable[[Lab], None], how: EndedHow | str, lab: Lab
) -> None:
    """Nor a recorded one: another driver may have reached it, and its Spark dies if the batch is committed."""
    ran: list[int] = []
    epoch = lab.held()
    if is_recorded:
        record(lab, 0, epoch=epoch)
        lab.launch()
        epoch = lab.held(pid=2)
    rows = lab.recorded
    meanwhile(lab)

    try:
        ended: EndedHow | str | None = run(lab, lambda frame, batch_id: ran.append(batch_id), 0, epoch=epoch)
    except Fenced:
        ended = "Fenced"

    assert (ran, lab.recorded, committed_id(lab), ended) == ([], rows, -1, how)


def test_a_batch_that_was_recorded_before_is_not_run_again(lab: Lab) -> None:
    """The driver died between the record and Spark's commit."""
    ran: list[int] = []
    record(lab, 0)
    lab.launch()

    run(lab, lambda frame, batch_id: ran.append(batch_id), 0, 1, epoch=lab.held(pid=2))

    assert (ran, lab.recorded) == ([1], [(0, 1, at(10, 10)), (1, 2, at(20, 20))])
    assert committed_id(lab) == 1


def test_the_same_batch_with_other_offsets_is_refused(lab: Lab) -> None:
    epoch = lab.held()
    epoch.begin(planned(0))
    epoch.record(planned(0))
    lab.plan(0, 10, 11)
    lab.launch()

    with pytest.raises(BatchConflict, match="Batch 0 of query"):
        run(lab, lambda frame, batch_id: None, 0, epoch=lab.held(pid=2))

    assert committed_id(lab) == -1


def test_the_batch_that_a_seed_planned_has_no_place_in_the_history(lab: Lab) -> None:
    seed(lab.checkpoint(), query_id=QUERY, last_batch_id=-1, start=at(5, 7), like=None)
    lab.launch(start=at(5, 7))
    ran: list[int] = []

    run(lab, lambda frame, batch_id: ran.append(batch_id), 0, 1)

    assert (ran, lab.recorded) == ([1], [(1, 1, at(20, 20))])
    assert next(lab.store.newest_first(STREAM)).start == at(5, 7)


def test_an_idle_query_is_acknowledged_once_and_stopped_at_once(lab: Lab) -> None:
    looks: list[bool] = []

    def look() -> None:
        looks.append(lab.record.idle)
        if len(looks) == 4:
            lab.stop()

    epoch = lab.held()
    spark = Spark(lab, 0, then=look)
    ForeachBatchQuery(epoch, lambda frame, batch_id: None).run(spark)

    assert looks == [True, True, True, True], "from the first look after the batch on"
    assert (spark.is_stopped, epoch.ending) == (True, EndedHow.STOPPED)


def test_a_query_that_is_busy_is_not_idle(lab: Lab) -> None:
    epoch = lab.held()
    spark = Spark(lab, 0)
    spark.status = {"isDataAvailable": True, "message": "Processing new data"}
    ForeachBatchQuery(epoch, lambda frame, batch_id: None).run(spark)

    assert not lab.record.idle


def test_a_log_without_the_batch_is_refused(lab: Lab) -> None:
    """Real-time mode and asynchronous progress tracking write the log later, or never."""
    epoch = lab.held()
    query = ForeachBatchQuery(epoch, lambda frame, batch_id: None)

    with pytest.raises(CheckpointError, match="offsets/0 does not exist while batch 0 runs"):
        query._run_batch(None, 0)
