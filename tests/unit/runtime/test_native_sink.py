"""One run, one batch: started before, recorded after, and never interrupted by a stop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.seed import close, seed
from airflow_provider_offsets.core.epoch import EndedHow, RowsWritten
from airflow_provider_offsets.errors import Fenced, InputRefused, StateChanged, StoreUnreachable
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.native_sink import (
    LONGEST_PAUSE_S,
    NativeSinkQuery,
    SinkWriter,
    pause_of,
    writer_of,
)
from tests.unit.core.observations import at
from tests.unit.runtime.lab import AWAY, QUERY, STREAM, Lab, Query, Writer, planned


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def batches(lab: Lab, *ids: int) -> list[Callable[[], None]]:
    """Return runs that read ten offsets of each partition."""
    return [partial(lab.plan, number, 10 * number + 10, 10 * number + 10, commit=True) for number in ids]


def run(epoch: HeldEpoch, writer: Writer) -> None:
    NativeSinkQuery(epoch).run(writer)


def progress_of(batch_id: int, rows: int) -> dict[str, Any]:
    """Return what Spark reports after a batch."""
    return {"batchId": batch_id, "sink": {"description": "KafkaTable", "numOutputRows": rows}}


class TestRuns:
    def test_each_batch_begins_before_and_is_recorded_after_its_run(self, lab: Lab) -> None:
        epoch = lab.held()
        started = []

        def work(batch_id: int, end: int) -> None:
            started.append(lab.record.started)
            lab.plan(batch_id, end, end, commit=True)

        writer = Writer(lambda: work(0, 10), lambda: work(1, 20), then=lab.stop)
        run(epoch, writer)

        assert [(each.batch_id, each.row_time_ms) for each in started if each] == [(0, None), (1, None)]
        assert lab.recorded == [(0, 1, at(10, 10)), (1, 1, at(20, 20))]
        assert lab.store.prepared(STREAM, 1_001) == planned(1).at_row(1_001)
        assert (lab.record.started, lab.record.cuts, epoch.ending) == (None, (), EndedHow.STOPPED)
        assert {each["processingTime"] for each in writer.triggers} == {"1000000 days"}

    @pytest.mark.parametrize(
        ("why", "progress", "written"),
        [
            ("a sink that counts", progress_of(0, 7), RowsWritten(batches=1, rows=7)),
            ("it wrote none of the records", progress_of(0, 0), RowsWritten(batches=1, empty=1, last_empty=0)),
            ("Spark's file sinks do not count", progress_of(0, -1), RowsWritten(uncounted=1)),
            ("the progress is of another batch", progress_of(4, 7), RowsWritten(uncounted=1)),
            ("there is none", None, RowsWritten(uncounted=1)),
        ],
    )
    def test_what_the_sink_says_it_wrote_is_recorded(
        self, why: str, progress: dict[str, Any] | None, written: RowsWritten, lab: Lab
    ) -> None:
        def work() -> None:
            lab.plan(0, 10, 10, commit=True)
            writer.runs[-1].lastProgress = progress

        writer = Writer(work, then=lab.stop)
        run(lab.held(), writer)

        assert lab.record.written == written

    def test_no_run_begins_once_it_is_asked_to_stop(self, lab: Lab) -> None:
        epoch = lab.held()
        lab.stop()
        writer = Writer(then=lab.stop)

        run(epoch, writer)

        assert (writer.runs, lab.record.started, epoch.ending) == ([], None, EndedHow.STOPPED)

    def test_a_planned_batch_begins_with_its_ranges_and_is_recorded_once(self, lab: Lab) -> None:
        """The previous batch was interrupted. Its ranges are known from then on, and it is not reconciled."""
        lab.plan(0, 10, 10, commit=True)
        lab.plan(1, 20, 20)
        lab.launch(start=at(10, 10), last_planned_batch_id=1)
        started = []

        def commit() -> None:
            started.append(lab.record.started)
            lab.checkpoint().create("commits/1", "v1\n{}")

        run(lab.held(), Writer(commit, then=lab.stop))

        assert [each.row_time_ms for each in started if each] == [1_001]
        assert lab.recorded == [(1, 1, at(20, 20))]

    def test_an_idle_driver_reports_it_and_has_no_started_batch(self, lab: Lab) -> None:
        looks = []

        def look() -> None:
            looks.append((lab.record.idle, lab.record.started is not None))

        writer = Writer(*batches(lab, 0), look, look, then=lab.stop)
        run(lab.held(), writer)

        assert looks == [(False, True), (False, True)], "a run may plan a batch: it begins before"
        assert (lab.record.idle, lab.record.started, lab.cuts) == (True, None, [])

    def test_the_batch_that_a_seed_planned_has_no_place_in_the_history(self, lab: Lab) -> None:
        seed(lab.checkpoint(), query_id=QUERY, last_batch_id=4, start=at(5, 7), like=None)
        lab.launch(start=at(5, 7), last_planned_batch_id=5)

        def filler() -> None:
            lab.checkpoint().create("commits/5", "v1\n{}")

        run(lab.held(), Writer(filler, lambda: lab.plan(6, 9, 9, commit=True), then=lab.stop))

        assert lab.recorded == [(6, 1, at(9, 9))]
        assert next(lab.store.newest_first(STREAM)).start == at(5, 7)

    @pytest.mark.parametrize(("meanwhile", "raises"), [(Lab.stop, False), (Lab.launch, True)])
    def test_the_batch_that_a_seed_planned_is_not_run_by_a_driver_that_is_to_end(
        self, meanwhile: Callable[[Lab], None], raises: bool, lab: Lab
    ) -> None:
        seed(lab.checkpoint(), query_id=QUERY, last_batch_id=4, start=at(5, 7), like=None)
        lab.launch(start=at(5, 7))
        epoch = lab.held()
        meanwhile(lab)
        writer = Writer(then=lab.stop)

        if raises:
            with pytest.raises(Fenced):
                run(epoch, writer)
        else:
            run(epoch, writer)

        assert writer.runs == []


class StoppedQuery(Query):
    """A query that its program stops while the batch runs."""

    def awaitTermination(self, timeout: float) -> bool:  # Spark's name
        self._work()
        return True


class StoppedWriter(Writer):
    """A writer whose queries are stopped by their program."""

    def start(self) -> Query:
        self.runs.append(StoppedQuery(self._works.pop(0)))
        return self.runs[-1]


class TestEnds:
    @pytest.mark.parametrize("is_committed", [False, True])
    def test_a_query_that_its_program_stops_is_not_run_again(self, is_committed: bool, lab: Lab) -> None:
        """Its batch may be in the output: it stays started unless Spark has committed it."""
        epoch = lab.held()
        writer = StoppedWriter(lambda: lab.plan(0, 10, 10, commit=is_committed), then=lab.stop)
        run(epoch, writer)

        started = lab.record.started
        assert (len(writer.runs), epoch.ending) == (1, None)
        assert lab.recorded == ([(0, 1, at(10, 10))] if is_committed else [])
        assert (None if started is None else started.batch_id) == (None if is_committed else 0)

    def test_nothing_is_recorded_once_the_epoch_was_closed(self, lab: Lab) -> None:
        epoch = lab.held()

        def overtaken() -> None:
            lab.close("maintenance")
            lab.plan(0, 10, 10, commit=True)

        with pytest.raises(Fenced):
            run(epoch, Writer(overtaken, then=lab.stop))

        assert lab.recorded == []

    def test_a_closed_checkpoint_is_not_run_on(self, lab: Lab) -> None:
        """Spark would run it: each run is a new query, and takes the entry that closes it for a planned batch."""
        lab.plan(0, 10, 10, commit=True)
        lab.launch(start=at(10, 10))
        epoch = lab.held()
        close(lab.checkpoint(), "op-2")
        writer = Writer(then=lab.stop)

        with pytest.raises(Fenced, match="was closed by 'op-2'"):
            run(epoch, writer)

        assert writer.runs == []

    def test_a_batch_that_another_job_planned_in_between_is_not_run(self, lab: Lab) -> None:
        """Each run is a new query, and takes any planned batch for its own: the batch would be written twice."""
        epoch = lab.held()

        def run_and_be_overtaken() -> None:
            lab.plan(0, 10, 10, commit=True)
            lab.plan(1, 20, 20)

        writer = Writer(run_and_be_overtaken, then=lab.stop)

        with pytest.raises(StateChanged, match=r"offsets/1 exists, and this driver did not plan"):
            run(epoch, writer)

        assert (len(writer.runs), lab.recorded) == (1, [(0, 1, at(10, 10))])

    @pytest.mark.parametrize("has_read", [False, True])
    def test_a_checkpoint_that_somebody_removes_is_not_run_on(self, has_read: bool, lab: Lab) -> None:
        """The next query would begin again at the start of the epoch, under a new query id."""
        lab.plan(0, 10, 10, commit=True)
        lab.launch(start=at(10, 10), last_planned_batch_id=0)
        epoch = lab.held()
        folder = Path(lab.checkpoint().location)
        writer = Writer(*(batches(lab, 1) if has_read else []), lambda: shutil.rmtree(folder), then=lab.stop)

        with pytest.raises(StateChanged, match=r"batch of the checkpoint|no longer has batch 1"):
            run(epoch, writer)

        assert len(writer.runs) == 1 + has_read

    def taken_over(self, lab: Lab) -> HeldEpoch:
        """Return the epoch after a driver that was called dead in its batch 1, which Spark has planned."""
        lab.plan(0, 10, 10, commit=True)
        lab.launch(start=at(10, 10))
        lab.held().begin_unplanned(1)
        lab.plan(1, 20, 20)
        lab.launch(start=at(10, 10))
        return lab.held(pid=2)

    @pytest.mark.parametrize("is_stopping", [False, True])
    def test_what_spark_ran_after_a_late_commit_is_recorded(self, is_stopping: bool, lab: Lab) -> None:
        """The superseded driver lives, and commits the batch just before Spark reads the log."""
        epoch = self.taken_over(lab)
        started = []

        def work() -> None:
            started.append(lab.record.started)
            if is_stopping:
                lab.stop()
            lab.checkpoint().create("commits/1", "v1\n{}")
            lab.plan(2, 30, 30, commit=True)

        run(epoch, Writer(work, *([] if is_stopping else batches(lab, 3)), then=lab.stop))

        assert [each.batch_id for each in started if each] == [1]
        assert [(row.batch_id, row.start, row.end) for row in lab.store.oldest_first(STREAM)][:2] == [
            (1, at(10, 10), at(20, 20)),
            (2, at(20, 20), at(30, 30)),
        ]
        assert len(lab.recorded) == (2 if is_stopping else 3)
        assert (lab.record.started, lab.cuts) == (None, [(1, 1)])

    def test_what_spark_ran_after_a_late_commit_counts_as_started_if_it_was_cut_off(self, lab: Lab) -> None:
        epoch = self.taken_over(lab)

        def fail() -> None:
            lab.checkpoint().create("commits/1", "v1\n{}")
            lab.plan(2, 30, 30)
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            run(epoch, Writer(fail, then=lab.stop))
        epoch.start_run()

        started = lab.record.started
        assert started is not None
        assert (started.batch_id, lab.recorded) == (2, [(1, 2, at(20, 20))])
        run(epoch, Writer(lambda: lab.plan(2, 30, 30, commit=True), then=lab.stop))
        assert (lab.recorded[1:], lab.cuts) == ([(2, 2, at(30, 30))], [(1, 1), (2, 1)])

    def test_what_spark_ran_after_a_late_commit_of_the_filler_had_started(self, lab: Lab) -> None:
        seed(lab.checkpoint(), query_id=QUERY, last_batch_id=4, start=at(5, 7), like=None)
        lab.launch(start=at(5, 7), last_planned_batch_id=5)
        started = []

        def work() -> None:
            started.append(lab.record.started)
            lab.checkpoint().create("commits/5", "v1\n{}")
            lab.plan(6, 9, 9, commit=True)

        run(lab.held(), Writer(work, lambda: lab.plan(7, 11, 11, commit=True), then=lab.stop))

        assert [each.batch_id for each in started if each] == [6]
        assert [(row.batch_id, row.start, row.end) for row in lab.store.oldest_first(STREAM)] == [
            (6, at(5, 7), at(9, 9)),
            (7, at(9, 9), at(11, 11)),
        ]

    def test_a_store_that_goes_away_does_not_cut_the_batch(self, lab: Lab) -> None:
        epoch = lab.held()

        def away(side: str, act: str) -> None:
            raise AWAY

        def work() -> None:
            lab.store.fate = away
            lab.plan(0, 10, 10, commit=True)

        writer = Writer(work, then=lab.stop)
        with pytest.raises(StoreUnreachable):
            run(epoch, writer)
        lab.store.fate = lambda side, act: None

        [only] = writer.runs
        assert not only.stopped_while_running
        assert read_state(lab.checkpoint()).committed_batch_id == 0  # type: ignore[union-attr]
        lab.launch()
        assert lab.recorded == [(0, 1, at(10, 10))], "the next operation reconciles the history with the log"

    def test_a_batch_that_a_function_has_finished_is_not_written_again(self, lab: Lab) -> None:
        lab.plan(0, 10, 10)
        epoch = lab.held()
        epoch.begin(planned(0))
        epoch.record(planned(0))
        lab.launch()
        writer = Writer(then=lab.stop)

        with pytest.raises(InputRefused, match="Batch 0 is recorded by process="):
            run(lab.held(pid=2), writer)

        assert writer.runs == []


class TestSecondRun:
    """A program that calls ``stream.run(sink=…)`` again after a query that failed."""

    def failing(self, lab: Lab, commit: bool | None) -> Writer:
        def fail() -> None:
            if commit is not None:
                lab.plan(0, 10, 10, commit=commit)
            raise OSError("disk full")

        return Writer(fail, then=lab.stop)

    @pytest.mark.parametrize(
        ("why", "commit", "cuts"),
        [
            ("it failed before Spark planned the batch", None, []),
            ("it failed in the batch: a part of it may be written", False, [(0, 1)]),
            ("it failed after Spark committed the batch", True, []),
        ],
    )
    def test_the_batch_is_counted_as_often_as_it_may_have_been_written(
        self, why: str, commit: bool | None, cuts: list[tuple[int, int]], lab: Lab
    ) -> None:
        epoch = lab.held()
        with pytest.raises(OSError, match="disk full"):
            run(epoch, self.failing(lab, commit))

        epoch.start_run()
        run(epoch, Writer(*([] if commit else batches(lab, 0)), *batches(lab, 1), then=lab.stop))

        assert [batch_id for batch_id, *_ in lab.recorded] == [0, 1]
        assert lab.cuts == cuts


class TestPauses:
    @pytest.mark.parametrize(
        ("why", "idle_runs", "interval_s", "pause_s"),
        [
            ("there may be more to read", 0, None, 0.0),
            ("nothing was read", 1, None, 0.5),
            ("nothing was read, again", 3, None, 2.0),
            ("nothing was read for long", 5000, None, LONGEST_PAUSE_S),
            ("an interval, and a batch that took a part of it", 0, 10.0, 7.0),
            ("an interval, and nothing was read", 9, 10.0, 7.0),
        ],
    )
    def test_how_long(self, why: str, idle_runs: int, interval_s: float | None, pause_s: float, lab: Lab) -> None:
        lab.launch()
        query = NativeSinkQuery(lab.hold(poll_interval_s=0.5), interval_s)
        query._idle_runs = idle_runs

        assert query._pause_s(3.0) == pause_s

    def test_a_stop_is_seen_in_a_long_one(self, lab: Lab) -> None:
        epoch = lab.held()

        NativeSinkQuery(epoch, interval_s=3600.0).run(Writer(then=lab.stop))

        assert epoch.ending is EndedHow.STOPPED


class DataStreamWriter:
    """The part of Spark's writer that is used here."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.public = "field"

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **settings: Any) -> DataStreamWriter:
            self.calls.append((name, arguments, settings))
            return self

        return call


class Frame:
    def __init__(self) -> None:
        self.writeStream = DataStreamWriter()


class TestSink:
    def test_what_it_calls_reaches_spark(self) -> None:
        frame = Frame()

        made = writer_of(lambda writer: writer.format("json").option("path", "/out").partitionBy("day"), frame)

        assert made is frame.writeStream
        assert [name for name, *_ in made.calls] == ["format", "option", "partitionBy"]
        assert SinkWriter(made).public == "field"

    @pytest.mark.parametrize(
        ("sink", "seen"),
        [
            (lambda writer: writer.trigger(availableNow=True), r"trigger\(\).*processingTime="),
            (lambda writer: writer.queryName("mine"), r"queryName\(\).*the pipeline's name"),
            (lambda writer: writer.foreachBatch(print), r"foreachBatch\(\).*as process="),
            (lambda writer: writer.format("json").start("/out"), r"start\(\).*Return the writer"),
            (lambda writer: writer.toTable("orders"), r"toTable\(\).*Return writer"),
            (lambda writer: writer.option("checkpointLocation", "/mine"), "checkpointLocation.*job.checkpoint"),
            (lambda writer: writer.options(CHECKPOINTLOCATION="/mine"), "checkpointLocation.*job.checkpoint"),
            (lambda writer: None, "returned None.*Return the writer"),
            (lambda writer: "json", "returned 'json'"),
        ],
    )
    def test_what_the_runtime_decides_is_refused_by_name(self, sink: Callable[[Any], Any], seen: str) -> None:
        with pytest.raises(InputRefused, match=seen):
            writer_of(sink, Frame())


@pytest.mark.parametrize(
    ("trigger", "refused"),
    [
        ({"availableNow": True}, "availableNow=True"),
        ({"once": True}, "once=True"),
        ({"continuous": "1 second"}, "continuous='1 second'"),
        ({"processingTime": "1 second", "realTime": "1 minute"}, "realTime='1 minute'"),
    ],
)
def test_other_triggers_are_refused_by_name(trigger: dict[str, Any], refused: str) -> None:
    with pytest.raises(InputRefused, match=f"was given {refused}"):
        pause_of(trigger, lambda text: 1_000)


def test_an_interval_is_kept_between_batches() -> None:
    assert pause_of({}, lambda text: 0) is None
    assert pause_of({"processingTime": "90 seconds"}, {"90 seconds": 90_000}.__getitem__) == 90.0
