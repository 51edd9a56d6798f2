"""Whatever kills a driver, at any effect: each batch is recorded once, and every other writing of it is named."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.checkpoint.files import CheckpointFolder
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.clock import installed
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.errors import Fenced, OffsetsError
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.native_sink import NativeSinkQuery
from tests.unit.core.observations import at
from tests.unit.runtime.lab import AWAY, STREAM, Clock, Frame, Killed, Lab, SplitStore, Store, running_as

BATCHES = 4
OF_THE_STORE = ("get", "swap", "text", "row")
DOWN = 7
"""Number of effects: a repeated call stops after six of them."""


class Fate:
    """What happens at which effect of a history, by number: ``kill``, ``lost`` (one answer) or ``down`` (for long)."""

    def __init__(self, strokes: dict[int, str]) -> None:
        self._strokes = strokes
        self._number = 0
        self._down_until = 0

    def __call__(self, side: str, act: str) -> None:
        stroke, self._number = self._strokes.get(self._number), self._number + 1
        if stroke == "kill":
            raise Killed
        if stroke == "down":
            self._down_until = self._number + DOWN
        if act in OF_THE_STORE and (stroke == "lost" or self._number < self._down_until):
            raise AWAY


class Spark:
    """Spark on the lab's checkpoint: it resumes a planned batch, or plans ten more offsets."""

    def __init__(self, lab: Lab, fate: Callable[[str, str], None], written: Counter[int], clocks: list[int]) -> None:
        self.lab, self.fate, self.written, self.clocks = lab, fate, written, clocks
        self.function: Callable[[Any, int], None] | None = None
        self.is_one_trigger = False
        self.is_triggered = False
        self.lastProgress = None

    def foreachBatch(self, function: Callable[[Any, int], None]) -> Spark:
        self.function = function
        return self

    def trigger(self, **trigger: str) -> Spark:
        self.is_one_trigger, self.is_triggered = True, False
        return self

    def start(self) -> Spark:
        return self

    @property
    def status(self) -> dict[str, Any]:
        return {"isDataAvailable": False, "message": "Waiting for next trigger"}

    def awaitTermination(self, timeout: float) -> bool:
        if not (self.is_one_trigger and self.is_triggered):
            self.is_triggered = True
            self._run()
        return False

    def stop(self) -> None:
        pass

    def _run(self) -> None:
        lab, state = self.lab, read_state(self.lab.checkpoint())
        batch_id = 0 if state is None else state.committed_batch_id + 1
        if batch_id == BATCHES:
            lab.stop()
            return
        if state is None or state.planned_batch_id is None:
            self.fate("before", "plan")
            end = 10 * batch_id + 10
            lab.plan(batch_id, end, end, time_ms=self.clocks[batch_id])
            self.fate("after", "plan")
        if self.function is not None:
            self.function(Frame(), batch_id)
        else:
            self.write(batch_id)
        self.fate("before", "commit")
        lab.checkpoint().create(f"commits/{batch_id}", "v1\n{}")
        self.fate("after", "commit")

    def write(self, batch_id: int) -> None:
        self.fate("before", "output")
        self.written[batch_id] += 1
        self.fate("after", "output")


def live(lab: Lab, spark: Spark, epoch: HeldEpoch, *, is_sink: bool, runs: int) -> None:
    """Run a driver from its claim to its end, with a program that calls ``run`` again after a failure."""
    epoch.claim()
    for left in reversed(range(runs)):
        epoch.start_run()
        try:
            if is_sink:
                NativeSinkQuery(epoch).run(spark)
            else:
                ForeachBatchQuery(epoch, lambda frame, batch_id: spark.write(batch_id)).run(spark)
        except Fenced:
            raise
        except OffsetsError:
            if not left:
                raise
        else:
            break
    epoch.close(None)


@pytest.mark.parametrize("is_sink", [False, True])
@pytest.mark.parametrize("store", [Store, SplitStore])
@settings(max_examples=100, deadline=None)
@given(
    strokes=st.dictionaries(st.integers(0, 70), st.sampled_from(["kill", "lost", "down"]), max_size=6),
    clocks=st.lists(st.integers(1_000, 1_200), min_size=BATCHES, max_size=BATCHES),
    runs=st.integers(1, 2),
)
def test_recorded_once_and_every_other_writing_named(
    store: type[Store], is_sink: bool, strokes: dict[int, str], clocks: list[int], runs: int
) -> None:
    with tempfile.TemporaryDirectory() as home, installed(Clock()):
        lab, written = Lab(Path(home), store()), Counter[int]()
        fate = Fate(strokes)
        for pid in range(1, 100):
            lab.store.fate = lambda side, act: None
            if all_recorded(lab.checkpoint()) and lab.record.phase is Phase.ENDED:
                break
            epoch = lab.hold(lab.launch(), store_retry_timeout_s=1.0)
            lab.store.fate = fate
            try:
                with running_as(pid):
                    live(lab, Spark(lab, fate, written, clocks), epoch, is_sink=is_sink, runs=runs)
            except (Killed, OffsetsError):
                pass
        lab.store.fate = lambda side, act: None
        lab.close("last")

        rows = list(lab.store.oldest_first(STREAM))
        assert [each.batch_id for each in rows] == list(range(BATCHES)), "each batch once, in their order"
        assert [(each.start, each.end) for each in rows] == [
            (at(10 * number, 10 * number), at(10 * number + 10, 10 * number + 10)) for number in range(BATCHES)
        ], "and their ranges tile"
        named = Counter[int]()
        for each in lab.control.epochs():
            for cut in each.cuts:
                named[cut.batch_id] += cut.count
                assert {(part.start, part.end) for part in cut.ranges} <= {(10 * cut.batch_id, 10 * cut.batch_id + 10)}
        for batch_id in range(BATCHES):
            assert 1 <= written[batch_id] <= 1 + named[batch_id], "no writing beyond the recorded one without a name"


def all_recorded(files: CheckpointFolder) -> bool:
    """Return whether Spark has committed all records."""
    state = read_state(files)
    return state is not None and state.committed_batch_id == BATCHES - 1
