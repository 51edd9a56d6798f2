"""What processes agree on: who has the word, who stops, how it ended. Over the store in memory; the stores' own
contract suite shows that the others do the same compare-and-set.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import (
    BegunBatch,
    Claim,
    DriverState,
    Ended,
    EndedHow,
    Heartbeat,
    Operation,
    ProcessIdentity,
    StopRequest,
)
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import Fenced, SnapshotNotFound, StoreDataError
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.worlds import IDENTITY, at, live, running

ONE, TWO = ProcessIdentity("worker-1", "boot", 1, 7), ProcessIdentity("worker-2", "boot", 1, 7)
NAME = "delay_alerts"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def control(store: MemoryStore) -> Control:
    return Control(store, NAME)


def claim(number: int = 1, launch: str = "op@1") -> Claim:
    return Claim(number, "op", launch, "/checkpoint", at(0, 0), IDENTITY)


def snapshot(name: str = "op#before") -> Snapshot:
    operation, _, label = name.partition("#")
    there = running(live((0, 100), (0, 100)), at(40, 60))
    return Snapshot(name, operation, label, "why", "2026-01-01T00:00:00Z", there).sealed()


class TestEpochs:
    def test_the_first_who_claims_has_it(self, control: Control) -> None:
        epoch = control.claim_epoch(claim(), ONE, at_ms=5, after_row_time_ms=9)

        assert (epoch.number, epoch.holder, epoch.after_row_time_ms) == (1, ONE, 9)
        assert control.newest_epoch() == control.epoch(1) == epoch

    @pytest.mark.parametrize(
        ("why", "holder", "launch"),
        [
            ("another process of another launch", TWO, "op@2"),
            ("another process that was given the same settings", TWO, "op@1"),
            ("the same process with another launch's settings", ONE, "op@2"),
            ("the same pid after a reboot is another process", replace(ONE, boot_id="later"), "op@1"),
            ("the same pid, given away since", replace(ONE, start_ticks=8), "op@1"),
        ],
    )
    def test_whoever_comes_later_is_told_who_has_it(
        self, why: str, holder: ProcessIdentity, launch: str, control: Control
    ) -> None:
        control.claim_epoch(claim(), ONE, at_ms=5)

        with pytest.raises(Fenced, match=r"epoch 1 of pipeline 'delay_alerts' is held by pid 1 on 'worker-1'"):
            control.claim_epoch(claim(launch=launch), holder, at_ms=6)

        assert control.epoch(1).holder == ONE  # type: ignore[union-attr]

    def test_claiming_again_what_one_has_gives_the_same_record(self, control: Control) -> None:
        """The answer to the first try may have been lost on the way."""
        first = control.claim_epoch(claim(), ONE, at_ms=5, after_row_time_ms=9)

        assert control.claim_epoch(claim(), ONE, at_ms=6, after_row_time_ms=10) == first

    def test_an_epoch_without_its_predecessor_cannot_be_claimed(self, control: Control) -> None:
        control.claim_epoch(claim(), ONE, at_ms=5)

        with pytest.raises(Fenced, match="has no epoch 2"):
            control.claim_epoch(claim(3), ONE, at_ms=5)

        assert control.epoch(3) is None

    def test_of_many_who_race_one_wins(self, control: Control) -> None:
        start, won, lost = threading.Barrier(8), [], []

        def race(number: int) -> None:
            holder = replace(ONE, pid=number)
            start.wait()
            try:
                won.append(control.claim_epoch(claim(launch=f"op@{number}"), holder, at_ms=5).holder)
            except Fenced:
                lost.append(holder)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (len(won), len(lost)) == (1, 7)
        assert control.newest_epoch().holder == won[0]  # type: ignore[union-attr]

    def test_they_come_in_the_order_of_their_numbers(self, control: Control) -> None:
        """Also past 9 and 99, where names sort as text."""
        for number in range(1, 102):
            control.claim_epoch(claim(number), ONE, at_ms=5)

        assert [epoch.number for epoch in control.epochs()] == list(range(1, 102))
        assert control.newest_epoch().number == 101  # type: ignore[union-attr]

    def test_pipelines_do_not_see_each_other(self, store: MemoryStore, control: Control) -> None:
        control.claim_epoch(claim(), ONE, at_ms=5)

        assert Control(store, f"{NAME}.two").newest_epoch() is None
        assert Control(store, NAME[:-1]).newest_epoch() is None

    def test_without_a_start_there_is_none(self, control: Control) -> None:
        assert control.newest_epoch() is None
        assert list(control.epochs()) == []


class TestFence:
    def test_the_newest_open_epoch_has_the_word(self, control: Control) -> None:
        control.claim_epoch(claim(), ONE, at_ms=5)

        control.check_fence(1)

    def test_an_older_one_has_not(self, control: Control) -> None:
        control.claim_epoch(claim(), ONE, at_ms=5)
        control.claim_epoch(claim(2), TWO, at_ms=5)

        with pytest.raises(Fenced, match="epoch 2 was claimed by pid 1"):
            control.check_fence(1)
        control.check_fence(2)

    def test_one_that_was_closed_has_not(self, control: Control) -> None:
        """Somebody saw the process gone, and was wrong: the driver that wakes up ends."""
        control.claim_epoch(claim(), ONE, at_ms=5)
        control.end(1, Ended(EndedHow.KILLED, 6))

        with pytest.raises(Fenced, match="it was closed"):
            control.check_fence(1)


class TestEnds:
    def test_an_epoch_ends_once(self, control: Control) -> None:
        """A driver's own last word, and the word of somebody who saw it gone: the first one stands."""
        stopped, died = Ended(EndedHow.STOPPED, 6, 4, at(10, 10)), Ended(EndedHow.DIED, 7)

        assert control.end(1, stopped) == stopped
        assert control.end(1, died) == stopped
        assert control.ended(1) == stopped
        assert control.ended(2) is None

    def test_a_second_stop_request_joins_the_first(self, control: Control) -> None:
        first, second = StopRequest("op-1", "upgrade", 5), StopRequest("op-2", "impatience", 6)

        assert control.request_stop(1, first) == first
        assert control.request_stop(1, second) == first
        assert control.stop_request(1) == first
        assert control.stop_request(2) is None, "a request is for one epoch, never for the next one"


class TestSignsOfLife:
    def test_the_newest_one_is_there(self, control: Control) -> None:
        assert (control.heartbeat(1), control.begun(1)) == (None, None)
        for beat in (1, 2):
            control.beat(1, Heartbeat(beat, DriverState.IDLE, 5, 3, at(10, 10)))
            control.begin(1, BegunBatch(beat, "query", 1000, (OffsetRange("flights", 0, 0, 10),)))

        assert control.heartbeat(1) == Heartbeat(2, DriverState.IDLE, 5, 3, at(10, 10))
        assert control.begun(1) == BegunBatch(2, "query", 1000, (OffsetRange("flights", 0, 0, 10),))
        assert control.heartbeat(2) is None

    def test_the_same_one_again_is_no_trouble(self, control: Control) -> None:
        for _ in range(2):
            control.beat(1, Heartbeat(1, DriverState.IDLE, 5))

        assert control.heartbeat(1) == Heartbeat(1, DriverState.IDLE, 5)


class TestOperations:
    def test_steps_come_back_as_they_were(self, control: Control) -> None:
        control.open_operation(Operation("dag/run:1", "maintenance", "upgrade"))
        batch = Batch(at(10, 20), 1000, 4, "query", 1, at(0, 0))
        control.record_step("dag/run:1", "applied", batch)
        control.record_step("dag/run:1", "stopped", Ended(EndedHow.STOPPED, 6))

        assert control.step("dag/run:1", "applied", Batch) == batch
        assert control.step("dag/run:1", "stopped", Ended) == Ended(EndedHow.STOPPED, 6)
        assert control.step("dag/run:1", "other", Batch) is None
        assert control.step("other", "applied", Batch) is None

    def test_opened_again_it_is_as_it_stands(self, control: Control) -> None:
        """Every task opens it, and a retry must not forget the steps."""
        first = control.open_operation(Operation("op", "maintenance", "upgrade"))
        control.record_step("op", "plan", at(1, 2))

        again = control.open_operation(Operation("op", "maintenance", "another reason"))

        assert (again.reason, sorted(again.steps)) == (first.reason, ["plan"])
        assert [each.id for each in control.operations()] == ["op"]

    def test_a_later_result_takes_the_place(self, control: Control) -> None:
        control.open_operation(Operation("op", "maintenance", ""))
        for position in (at(1, 2), at(3, 4)):
            control.record_step("op", "plan", position)

        assert control.step("op", "plan", Position) == at(3, 4)

    def test_steps_that_two_tasks_record_at_once_are_both_kept(self, control: Control) -> None:
        control.open_operation(Operation("op", "maintenance", ""))
        steps = [f"step-{number}" for number in range(8)]
        threads = [
            threading.Thread(target=control.record_step, args=("op", step, at(index, index)))
            for index, step in enumerate(steps)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(control.operation("op").steps) == steps  # type: ignore[union-attr]

    def test_a_step_of_an_operation_that_nobody_opened_is_refused(self, control: Control) -> None:
        with pytest.raises(StoreDataError, match="operation/op"):
            control.record_step("op", "plan", at(1, 2))


class TestSnapshots:
    def test_the_first_one_under_an_id_stands(self, control: Control) -> None:
        first = control.keep_snapshot(snapshot())
        later = replace(snapshot(), reason="a retry").sealed()

        assert control.keep_snapshot(later) == first == control.snapshot("op#before")
        assert first.position[TopicPartition("flights", 0)] == 40

    def test_one_that_is_not_there_names_those_that_are(self, control: Control) -> None:
        for name in ("a#before", "b#before", "c#before", "d#before"):
            control.keep_snapshot(snapshot(name))

        with pytest.raises(SnapshotNotFound, match=r"'x'.*expected: one of \['b#before', 'c#before', 'd#before'\]"):
            control.snapshot("x")

    def test_without_any_it_says_so(self, control: Control) -> None:
        with pytest.raises(SnapshotNotFound, match="none at all"):
            control.snapshot("x")

    def test_one_that_was_changed_by_hand_is_refused(self, store: MemoryStore, control: Control) -> None:
        control.keep_snapshot(snapshot())
        text = store.get(NAME, "snapshot/op#before")
        assert text is not None
        store.check_and_put(NAME, "snapshot/op#before", text, text.replace('"why"', '"because"'))

        with pytest.raises(StoreDataError, match="does not match its checksum"):
            control.snapshot("op#before")


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("not JSON", "garbage"),
        ("empty", ""),
        ("JSON of another shape", "[1,2]"),
        ("a field is missing", '{"holder":{}}'),
        ("a number is text", '{"how":"stopped","at_ms":"6"}'),
        ("a word that no version of ours writes", '{"how":"vanished","at_ms":6}'),
    ],
)
@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("epoch/00000001", lambda control: control.epoch(1)),
        ("epoch/00000001", lambda control: control.newest_epoch()),
        ("epoch/00000001", lambda control: list(control.epochs())),
        ("ended/00000001", lambda control: control.ended(1)),
        ("stop/00000001", lambda control: control.stop_request(1)),
        ("heartbeat/00000001", lambda control: control.heartbeat(1)),
        ("begun/00000001", lambda control: control.begun(1)),
        ("operation/op", lambda control: control.operation("op")),
        ("operation/op", lambda control: control.step("op", "plan", Position)),
        ("snapshot/op", lambda control: control.snapshot("op")),
    ],
)
def test_a_cell_that_somebody_else_wrote_is_named(
    why: str, text: str, cell: str, read: object, store: MemoryStore, control: Control
) -> None:
    store.check_and_put(NAME, cell, None, text)

    with pytest.raises(StoreDataError, match=f"control cell '{cell}' of pipeline 'delay_alerts'"):
        read(control)  # type: ignore[operator]


def test_a_step_that_is_not_what_it_should_be_is_named(control: Control) -> None:
    control.open_operation(Operation("op", "maintenance", ""))
    control.record_step("op", "plan", at(1, 2))

    with pytest.raises(StoreDataError, match="operation/op#plan"):
        control.step("op", "plan", Batch)
