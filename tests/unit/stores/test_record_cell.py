"""A swap that got no answer is neither done twice nor taken for another one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_offsets.core.epoch import Ended, EndedHow, ProcessIdentity
from airflow_provider_offsets.core.record import (
    ClaimLaunch,
    EndEpoch,
    EpochLaunch,
    LaunchEpoch,
    Phase,
    PipelineRecord,
    Take,
)
from airflow_provider_offsets.errors import StoreUnreachable
from airflow_provider_offsets.stores.record_cell import RecordCell
from airflow_provider_offsets.testing import MemoryStore

DRIVER = ProcessIdentity("worker-1", "boot", 1, 7)
CLAIM = ClaimLaunch("tag", DRIVER, 1)
END = EndEpoch("tag", DRIVER, Ended(EndedHow.FAILED, 2))
AWAY = StoreUnreachable(seen="nobody", expected="an answer", do="start it")


class UnansweredStore(MemoryStore):
    """Raises at the next swap, before or after it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = ""

    def swap(self, *arguments: Any, **options: Any) -> bool:
        """Swap, and get no answer if one is to be lost."""
        fails, self.fails = self.fails, ""
        if fails != "before":
            done = super().swap(*arguments, **options)
        if fails:
            raise AWAY
        return done


@pytest.fixture
def store() -> UnansweredStore:
    made = UnansweredStore()
    cell = RecordCell(made, "orders")
    cell.create()
    taken = cell.change(Take("op", 0, 0))
    cell.change(LaunchEpoch("op", taken.generation, EpochLaunch(1, "tag", "op", "plan", "/ck"), 0))
    return made


def now(store: MemoryStore) -> PipelineRecord:
    found = RecordCell(store, "orders").read()
    assert found is not None
    return found


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_swap_without_an_answer_is_done_once(fails: str, store: UnansweredStore) -> None:
    cell = RecordCell(store, "orders")
    before = now(store)
    store.fails = fails
    with pytest.raises(StoreUnreachable):
        cell.change(CLAIM)

    assert cell.change(CLAIM).holder == DRIVER
    assert now(store).version == before.version + 1


@pytest.mark.parametrize("fails", ["before", "after"])
def test_another_event_after_it_is_not_taken_for_done(fails: str, store: UnansweredStore) -> None:
    """A driver that gave up on a store that was away still ends its epoch."""
    cell = RecordCell(store, "orders")
    cell.change(CLAIM)
    store.fails = fails
    with pytest.raises(StoreUnreachable):
        cell.change(Take("op", 5, 0))

    cell.change(END)

    assert now(store).phase is Phase.ENDED


def test_one_that_arrives_late_counts_as_the_one_that_was_repeated(store: UnansweredStore) -> None:
    """The first request was on its way all the time, and is there before the second one."""
    cell, late = RecordCell(store, "orders"), RecordCell(store, "orders")
    late.read()
    store.fails = "before"
    with pytest.raises(StoreUnreachable):
        cell.change(CLAIM)
    sent = cell._sent
    late._sent = sent
    late.change(CLAIM)

    assert cell.change(CLAIM).token == sent[1]  # type: ignore[index]
