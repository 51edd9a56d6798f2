"""A position brought into a store: what was planned is written, or nothing."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.transfer import Transfer, plan_transfer
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported, PlanRefused, StoreInUse, WorldChanged
from airflow_provider_offsets.operations.transferring import carry_out, read_position, require_rest
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.worlds import HOLDER, TOPIC, at, epoch

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

    with pytest.raises(WorldChanged):
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


def test_a_job_that_may_run_holds_its_stores() -> None:
    control = Control(MemoryStore(), "p")
    require_rest(control)
    control.claim_epoch(epoch(at(0, 0)).claim, HOLDER, at_ms=1)

    with pytest.raises(StoreInUse, match="epoch 1 of pipeline 'p' has not ended"):
        require_rest(control)

    control.end(1, Ended(EndedHow.STOPPED, 2))
    require_rest(control)
