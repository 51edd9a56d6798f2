"""One run, one batch: fenced before, recorded after, and never cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import DriverState, Ended, EndedHow, StopRequest
from airflow_provider_offsets.errors import Fenced, InputRefused, StoreUnreachable
from airflow_provider_offsets.runtime.native_sink import (
    LONGEST_REST_S,
    NativeSinkQuery,
    SinkWriter,
    pause_of,
    writer_of,
)
from airflow_provider_offsets.stores.checkpoint import close, read_state, seed
from tests.unit.core.worlds import at
from tests.unit.runtime.lab import QUERY, STREAM, Lab, Writer


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def stop(lab: Lab, number: int = 1) -> Callable[[], None]:
    """What a run does during which somebody asks the epoch to stop; it finds nothing to read."""
    return lambda: lab.control.request_stop(number, StopRequest("op", "test", 0)) and None


def batches(lab: Lab, *ids: int) -> list[Callable[[], None]]:
    """Runs that read ten offsets of each partition."""
    return [lambda number=number: lab.plan(number, 10 * number + 10, 10 * number + 10, commit=True) for number in ids]


class TestRuns:
    def test_each_batch_is_noted_before_and_recorded_after_its_run(self, lab: Lab) -> None:
        epoch = lab.hold()
        epoch.claim()
        noted = []

        def run(batch_id: int, end: int) -> None:
            noted.append(lab.control.begun(1))
            lab.plan(batch_id, end, end, commit=True)

        writer = Writer(lambda: run(0, 10), lambda: run(1, 20), then=stop(lab))
        NativeSinkQuery(epoch).run(writer)

        assert [(each.batch_id, each.is_ahead) for each in noted if each] == [(0, True), (1, True)]
        assert lab.recorded == [(0, 1, at(10, 10)), (1, 1, at(20, 20))]
        assert epoch.ending is EndedHow.STOPPED
        assert epoch.position() == at(20, 20)
        assert {each["processingTime"] for each in writer.triggers} == {"1000000 days"}

    def test_no_run_begins_once_it_is_asked_to_stop(self, lab: Lab) -> None:
        epoch = lab.hold()
        epoch.claim()
        stop(lab)()
        writer = Writer(then=stop(lab))

        NativeSinkQuery(epoch).run(writer)

        assert writer.runs == []

    def test_a_planned_batch_is_noted_with_its_ranges(self, lab: Lab) -> None:
        lab.plan(0, 10, 10, commit=True)
        lab.plan(1, 15, 20)
        epoch = lab.hold()
        epoch.claim()

        NativeSinkQuery(epoch).run(Writer(then=stop(lab)))

        begun = lab.control.begun(1)
        assert begun is not None
        assert [(each.start, each.end) for each in begun.ranges] == [(10, 15), (10, 20)]

    def test_an_idle_driver_says_where_it_stands(self, lab: Lab) -> None:
        epoch = lab.hold()
        epoch.claim()

        NativeSinkQuery(epoch).run(Writer(*batches(lab, 0), lambda: None, then=stop(lab)))

        beat = lab.control.heartbeat(1)
        assert beat is not None
        assert (beat.state, beat.position, beat.last_batch_id) == (DriverState.IDLE, at(10, 10), 0)

    def test_the_batch_that_a_seed_planned_has_no_place_in_the_history(self, lab: Lab) -> None:
        seed(lab.checkpoint(), query_id=QUERY, last_batch_id=4, start=at(5, 7), like=None)
        epoch = lab.hold()
        epoch.claim()
        filler = lambda: lab.checkpoint().create("commits/5", "v1\n{}") and None  # noqa: E731

        NativeSinkQuery(epoch).run(Writer(filler, lambda: lab.plan(6, 9, 9, commit=True), then=stop(lab)))

        assert lab.recorded == [(6, 1, at(9, 9))]
        assert next(lab.store.newest_first(STREAM)).start == at(5, 7)


class TestEnds:
    def test_nothing_is_recorded_once_a_newer_epoch_has_the_word(self, lab: Lab) -> None:
        epoch = lab.hold()
        epoch.claim()

        def overtaken() -> None:
            lab.plan(0, 10, 10, commit=True)
            lab.control.end(1, Ended(EndedHow.DIED, 0))

        with pytest.raises(Fenced):
            NativeSinkQuery(epoch).run(Writer(overtaken, then=stop(lab)))

        assert lab.recorded == []
        assert epoch.ending is EndedHow.FENCED

    def test_a_closed_checkpoint_is_not_run_on(self, lab: Lab) -> None:
        """Spark would: a run is a new query, and it takes the plant for a batch that was planned."""
        lab.plan(0, 10, 10, commit=True)
        close(lab.checkpoint(), "op-2")
        epoch = lab.hold()
        epoch.claim()
        writer = Writer(then=stop(lab))

        with pytest.raises(Fenced, match="was closed by 'op-2'"):
            NativeSinkQuery(epoch).run(writer)

        assert writer.runs == []

    def test_a_store_that_goes_away_does_not_cut_the_batch(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        epoch = lab.hold()
        epoch.claim()
        away = StoreUnreachable(seen="nobody", expected="an answer", do="start it")

        def unreachable(*arguments: Any) -> None:
            raise away

        monkeypatch.setattr(epoch, "beat", unreachable)
        writer = Writer(*batches(lab, 0), then=stop(lab))

        with pytest.raises(StoreUnreachable):
            NativeSinkQuery(epoch).run(writer)

        [run] = writer.runs
        assert not run.stopped_while_running
        assert read_state(lab.checkpoint()).committed_batch_id == 0  # type: ignore[union-attr]
        assert lab.recorded == [], "the next driver settles it"

    def test_a_batch_that_a_function_has_finished_is_not_written_again(self, lab: Lab) -> None:
        lab.plan(0, 10, 10)
        lab.store.append(STREAM, Batch(at(10, 10), 1_000, 0, QUERY, 1, at(0, 0)))
        epoch = lab.hold()
        epoch.claim()
        writer = Writer(then=stop(lab))

        with pytest.raises(InputRefused, match="batch 0 is recorded by process="):
            NativeSinkQuery(epoch).run(writer)

        assert writer.runs == []


class TestRests:
    @pytest.mark.parametrize(
        ("why", "idle_runs", "interval_s", "rest_s"),
        [
            ("there may be more to read", 0, None, 0.0),
            ("nothing was read", 1, None, 0.5),
            ("nothing was read, again", 3, None, 2.0),
            ("nothing was read for long", 5000, None, LONGEST_REST_S),
            ("an interval, and a batch that took a part of it", 0, 10.0, 7.0),
            ("an interval, and nothing was read", 9, 10.0, 7.0),
        ],
    )
    def test_how_long(self, why: str, idle_runs: int, interval_s: float | None, rest_s: float, lab: Lab) -> None:
        query = NativeSinkQuery(lab.hold(poll_interval_s=0.5), interval_s)
        query._idle_runs = idle_runs

        assert query._rest_s(3.0) == rest_s

    def test_a_stop_is_seen_in_a_long_one(self, lab: Lab) -> None:
        epoch = lab.hold()
        epoch.claim()

        NativeSinkQuery(epoch, interval_s=3600.0).run(Writer(then=stop(lab)))

        assert epoch.ending is EndedHow.STOPPED


class DataStreamWriter:
    """Spark's writer, as far as it goes here."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.public = "field"

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **settings: self.calls.append((name, arguments, settings)) or self


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
            (lambda writer: writer.format("json").start("/out"), r"start\(\).*return the writer"),
            (lambda writer: writer.toTable("orders"), r"toTable\(\).*return writer"),
            (lambda writer: writer.option("checkpointLocation", "/mine"), "checkpointLocation.*job.checkpoint"),
            (lambda writer: writer.options(CHECKPOINTLOCATION="/mine"), "checkpointLocation.*job.checkpoint"),
            (lambda writer: None, "gave None.*return it"),
            (lambda writer: "json", "gave 'json'"),
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
