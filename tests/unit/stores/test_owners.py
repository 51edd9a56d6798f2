"""One pipeline owns each resource, whoever claims at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_offsets.control.owners import OWNERS, claim_resources, hand_over, owners_of
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.stores.rules import ALL_PIPELINES


class RacedStore(MemoryStore):
    """A store where somebody else acts directly before the next compare-and-set."""

    before: Callable[[], Any] | None = None

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        act, self.before = self.before, None
        if act is not None:
            act()
        return super().check_and_put(pipeline, name, expected, value)


@pytest.fixture
def store() -> RacedStore:
    return RacedStore()


def test_a_claim_is_repeated_and_extended(store: RacedStore) -> None:
    assert claim_resources(store, "a", ["x"]) == {"x": "a"}
    text = store.get(ALL_PIPELINES, OWNERS)
    assert claim_resources(store, "a", ["x"]) == {"x": "a"}
    assert store.get(ALL_PIPELINES, OWNERS) == text, "nothing is written again"

    assert claim_resources(store, "a", ["y"]) == {"y": "a"}
    assert owners_of(store, ["x", "y", "z"]) == {"x": "a", "y": "a"}


def test_all_or_none_is_claimed(store: RacedStore) -> None:
    claim_resources(store, "a", ["y"])

    assert claim_resources(store, "b", ["x", "y"]) == {"y": "a"}
    assert owners_of(store, ["x", "y"]) == {"y": "a"}


def test_of_two_that_claim_at_the_same_moment_one_owns(store: RacedStore) -> None:
    store.before = lambda: claim_resources(store, "b", ["x"])

    assert claim_resources(store, "a", ["x", "y"]) == {"x": "b"}
    assert owners_of(store, ["x", "y"]) == {"x": "b"}


def test_two_that_claim_different_things_both_own(store: RacedStore) -> None:
    store.before = lambda: claim_resources(store, "b", ["y"])

    assert claim_resources(store, "a", ["x"]) == {"x": "a"}
    assert owners_of(store, ["x", "y"]) == {"x": "a", "y": "b"}


def test_everything_is_handed_over(store: RacedStore) -> None:
    claim_resources(store, "a", ["x", "y"])
    claim_resources(store, "b", ["z"])

    hand_over(store, "a", "c", is_due=lambda: True)

    assert owners_of(store, "xyz") == {"x": "c", "y": "c", "z": "b"}


def test_a_slow_try_transfers_nothing_after_the_name_is_used_again(store: RacedStore) -> None:
    """The text of the record is compared with its version: it never is the same one again."""
    claim_resources(store, "a", ["x"])

    def another_is_faster() -> None:
        hand_over(store, "a", "b", is_due=lambda: True)
        hand_over(store, "b", "a", is_due=lambda: True)

    store.before = another_is_faster
    hand_over(store, "a", "b", is_due=lambda: store.before is not None)

    assert owners_of(store, "x") == {"x": "a"}


def test_a_record_that_is_no_json_is_named(store: RacedStore) -> None:
    store.check_and_put(ALL_PIPELINES, OWNERS, None, "?")

    with pytest.raises(StoreDataError, match="Control cell 'owners' of pipeline '_all' holds"):
        owners_of(store, ["x"])
