"""A position is copied into a store: the planned position is written, or nothing."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
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
from airflow_provider_offsets.operations.transferring import carry_out, read_position, stopped
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.observations import TOPIC, at
from tests.unit.operations import steps
from tests.unit.operations.lab import Lab

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


def test_what_moved_since_the_look_is_left_alone() -> None:
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

        with pytest.raises(StoreInUse, match="epoch 1 of pipeline 'delay_alerts' is running"), stopped(lab.session()):
            pytest.fail("nothing may be written")
        record = lab.control.record()
        assert record is not None
        assert record.lease is None

    @pytest.mark.parametrize("before", ["never ran", "stopped"])
    def test_nobody_starts_it_meanwhile_and_anybody_afterwards(self, before: str, lab: Lab) -> None:
        if before == "stopped":
            steps.rest(lab)
            release_lease(lab.session("second"))

        with stopped(lab.session("copy")) as require_mine:
            require_mine()
            with pytest.raises(LeaseHeld):
                steps.start(lab, operation="other")

        steps.start(lab, operation="other")

    def test_an_operation_at_work_is_disturbed_only_on_request(self, lab: Lab) -> None:
        steps.rest(lab)

        with pytest.raises(LeaseHeld), stopped(lab.session("copy")):
            pytest.fail("'second' stopped the job a moment ago")
        with stopped(lab.session("copy"), take_over=True) as require_mine:
            require_mine()

    def test_one_that_was_taken_over_writes_no_more(self, lab: Lab) -> None:
        with stopped(lab.session("copy")) as require_mine:
            take_lease(lab.session("other"), take_over=True)
            with pytest.raises(TakenOver):
                require_mine()

        record = lab.control.record()
        assert record is not None
        assert record.lease is not None
        assert record.lease.operation == "other", "what is not its own is not released"
