"""A set of offsets is what Python's own set is, in ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.offset_set import OffsetSet

bounds = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)


@given(st.lists(bounds), bounds)
def test_law_it_holds_what_was_added(added: list[list[int]], asked: list[int]) -> None:
    offsets, model = OffsetSet(), set[int]()
    for start, end in added:
        offsets.add(start, end)
        model |= set(range(start, end))
    window = set(range(*asked))

    there = list(offsets.within(*asked))
    missing = list(offsets.missing(*asked))

    assert {each for low, high in there for each in range(low, high)} == model & window
    assert {each for low, high in missing for each in range(low, high)} == window - model
    for ranges in (there, missing):
        assert all(low < high for low, high in ranges)
        assert all(before[1] < after[0] for before, after in pairwise(ranges)), "two ranges that touch are one"
