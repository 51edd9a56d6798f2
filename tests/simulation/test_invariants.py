"""Each invariant of the simulation goes red at the write that breaks it: one planted violation per row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import Position, TopicPartition
from tests.simulation.__main__ import show
from tests.simulation.history import Outcome
from tests.simulation.platform import Record
from tests.simulation.product import PIPELINE
from tests.simulation.scheduler import Violated
from tests.simulation.script import Stage, stage

P = TopicPartition("orders", 0)


def swap(s: Stage, **changes: Any) -> None:
    """Write the record with some fields changed, as a faulty actor would."""
    text = s.world.inner.get(PIPELINE, "pipeline")
    record = json.loads(text)
    new = {**record, "version": record["version"] + 1, **changes}
    s.world.store.swap(PIPELINE, "pipeline", text, json.dumps(new))


def record(s: Stage) -> dict[str, Any]:
    return dict(json.loads(s.world.inner.get(PIPELINE, "pipeline")))


def put(s: Stage, name: str, value: str) -> None:
    s.world.store.check_and_put(PIPELINE, name, s.world.inner.get(PIPELINE, name), value)


def append(s: Stage, batch_id: int, start: int, end: int) -> None:
    batch = Batch(Position({P: end}), 1, batch_id, rows(s)[-1].query_id, 1, Position({P: start}))
    s.world.store.append(s.world.pipeline.stream, batch)


def rows(s: Stage) -> list[Batch]:
    return list(s.world.inner.oldest_first(s.world.pipeline.stream))


def forget_a_row(s: Stage) -> None:
    del s.world.inner._histories[s.world.pipeline.stream.group_id][0]
    put(s, "heartbeat/00000001", "{}")


def forget_a_cell(s: Stage) -> None:
    del s.world.inner._control[PIPELINE, f"launch/00000001/{record(s)['launch']['tag']}"]
    put(s, "heartbeat/00000001", "{}")


def another_claim(s: Stage) -> None:
    put(s, f"launch/00000001/{record(s)['launch']['tag']}", "{}")


def begin(s: Stage, **changes: Any) -> dict[str, Any]:
    """Return a batch that begins."""
    batch = {"batch_id": 99, "query_id": rows(s)[-1].query_id, "batch_time_ms": 1, "run": "r", "row_time_ms": 1 << 50}
    return {"started": {**batch, "digest": "", "count": 1, **changes}}


def write_live(s: Stage) -> None:
    s.world.sink.write([Record("orders", "", 0, 0, 0)], 9, "q", 1)


REQUEST = {"operation": "x", "reason": "", "at_ms": 1, "stage": None}

VIOLATIONS: list[tuple[Callable[[Stage], None], str, str]] = [
    (forget_a_row, "history changed", "a row of the history vanishes"),
    (forget_a_cell, "history changed", "the claim of a launch vanishes"),
    (another_claim, "history changed", "the claim of a launch changes"),
    (lambda s: swap(s, epoch=0), "history changed", "the epoch goes back"),
    (lambda s: swap(s, version=1), "history changed", "an older record comes back"),
    (lambda s: swap(s, incarnation="x"), "history changed", "another record takes its place"),
    (lambda s: swap(s, recorded=None), "history changed", "the recorded batch is forgotten"),
    (lambda s: append(s, 90, 500, 501), "stored before processed", "a row of what is not in the sink"),
    (lambda s: append(s, 0, 0, 1), "batch id begins again", "a second row of a recorded batch"),
    (lambda s: swap(s, **begin(s, batch_id=0)), "batch id begins again", "a recorded batch begins"),
    (lambda s: swap(s, holder={"pid": 1}), "history changed", "another process holds a claimed launch"),
    (lambda s: swap(s, stop={**REQUEST, "operation": "y"}), "two operations", "a stop without the lease"),
    (lambda s: swap(s, epoch=2, phase="launching"), "two writers", "a launch while a driver runs"),
]


@pytest.fixture
def running() -> Iterator[Stage]:
    """Yield a job that has recorded some batches and runs."""
    with stage("process") as s:
        s.first_start()
        yield s


def violation_of(s: Stage, act: Callable[[Stage], None], **marks: Any) -> str:
    """Return the violation of an actor that runs ``act``; empty if there is none."""
    s.sim.spawn("mistaken", lambda: act(s), **marks)
    try:
        s.run("mistaken")
    except Violated as violated:
        return violated.what
    return ""


@pytest.mark.parametrize(("act", "what"), [pytest.param(act, what, id=why) for act, what, why in VIOLATIONS])
def test_a_write_that_breaks_an_invariant(running: Stage, act: Callable[[Stage], None], what: str) -> None:
    assert violation_of(running, act) == what


@pytest.mark.parametrize("act", [lambda s: put(s, "heartbeat/00000001", "{}"), lambda s: swap(s, good=1)])
def test_a_write_that_breaks_none(running: Stage, act: Callable[[Stage], None]) -> None:
    assert violation_of(running, act) == ""


def test_a_driver_begins_that_does_not_hold_the_launch(running: Stage) -> None:
    assert violation_of(running, lambda s: swap(s, **begin(s)), is_driver=True) == "two writers"


def test_a_task_acts_without_the_lease(running: Stage) -> None:
    def act(s: Stage) -> None:
        swap(s, lease={"operation": "x", "acted_at_ms": 1})
        swap(s, phase="stopped")

    assert violation_of(running, act, is_task=True) == "two operations"


def test_a_batch_begins_after_the_stop_was_requested(running: Stage) -> None:
    def act(s: Stage) -> None:
        swap(s, lease={"operation": "x", "acted_at_ms": 1})
        swap(s, stop=REQUEST)
        swap(s, **begin(s))

    assert violation_of(running, act) == "stop broken"


def test_a_stop_request_is_taken_back(running: Stage) -> None:
    def act(s: Stage) -> None:
        swap(s, lease={"operation": "x", "acted_at_ms": 1})
        swap(s, stop=REQUEST)
        swap(s, stop=None)

    assert violation_of(running, act) == "stop broken"


def test_a_stopped_launch_runs_again(running: Stage) -> None:
    def act(s: Stage) -> None:
        swap(s, phase="stopped")
        swap(s, phase="running")

    assert violation_of(running, act) == "stop broken"


def asks(s: Stage, operation: str) -> None:
    """Take the lease, and ask the job to stop."""
    swap(s, lease={"operation": operation, "acted_at_ms": 1})
    swap(s, stop={**REQUEST, "operation": operation})


def launches(s: Stage, operation: str) -> None:
    """Take the lease of a stopped job, and launch it."""
    before = record(s)
    swap(s, lease={"operation": operation, "acted_at_ms": 1})
    launch = {**before["launch"], "operation": operation, "epoch": before["epoch"] + 1}
    swap(s, epoch=before["epoch"] + 1, launch=launch, phase="launching", stop=None, holder=None, ended=None)


def test_a_superseded_operation_asks_to_stop(running: Stage) -> None:
    def act(s: Stage) -> None:
        asks(s, "x")
        swap(s, phase="stopped")
        launches(s, "y")
        asks(s, "x")

    assert violation_of(running, act) == "late act"


def test_an_operation_launches_a_job_whose_stop_another_one_was_told_of(running: Stage) -> None:
    def act(s: Stage) -> None:
        asks(s, "x")
        asks(s, "y")
        swap(s, phase="stopped")
        s.world.note_stop("y")
        launches(s, "x")

    assert violation_of(running, act) == "late act"


def test_an_operation_stops_its_own_job(running: Stage) -> None:
    assert violation_of(running, lambda s: asks(s, "first")) == "late act"


def test_a_driver_writes_after_its_stop_was_answered(running: Stage) -> None:
    def act(s: Stage) -> None:
        s.world.note_stop("x")
        write_live(s)

    assert violation_of(running, act, is_driver=True) == "stop broken"


def test_two_drivers_write_in_turns(running: Stage) -> None:
    assert violation_of(running, write_live, is_driver=True) == ""
    running.append(3)
    with pytest.raises(Violated, match="two writers"):
        running.run("driver-1", for_s=60.0)


def test_a_position_is_stored_before_its_records_are_processed() -> None:
    def act(s: Stage) -> None:
        s.world.positions.put(Position({P: 500}))

    with stage("dstream", position_store="zookeeper") as s:
        s.first_start()
        assert violation_of(s, act, is_driver=True) == "stored before processed"


def test_a_failing_history_is_printed_effect_by_effect(running: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert violation_of(running, lambda s: swap(s, epoch=0)) == "history changed"
    show(Outcome(1, "process", 1, {}, "history changed", "", running.sim.passed), whole=True)  # type: ignore[arg-type]
    *_, before, found = capsys.readouterr().out.splitlines()
    assert before.split()[2:] == ["mistaken", "store", "before", "swap", "pipeline"]
    assert before.split()[0] == found.split()[0], "the step at which it was found"
    assert "invariant   <- history changed: 'epoch' of the record was 1 and is 0" in found
