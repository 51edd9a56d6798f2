"""Counts that a person accepts, in every form in which they may be written."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_offsets.core.restart.accepted import read_counts, read_seconds
from airflow_provider_offsets.errors import InputRefused


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ("", {}),
        (None, {}),
        ({}, {}),
        ("{}", {}),
        ("flights:3", {"flights": 3}),
        (" flights : 3 , a.b_c-d:0, ", {"flights": 3, "a.b_c-d": 0}),
        ('{"flights": 3}', {"flights": 3}),
        ({"flights": 3, "orders": 10}, {"flights": 3, "orders": 10}),
    ],
)
def test_counts(given: Any, counts: dict[str, int]) -> None:
    assert read_counts(given, "accept_lost") == counts


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ("flights", "'flights' in 'flights'"),
        ("orders:1, flights=3", "'flights=3' in 'orders:1, flights=3'"),
        ("flights:-3", "'flights:-3'"),
        ("flights:3.5", "'flights:3.5'"),
        ("flights:³", "'flights:³'"),
        (":3", "':3'"),
        ("flights:3, flights:4", "'flights:4' a second time"),
        ("{'flights': 3}", "line 1 column 2"),
        ('{"flights": "3"}', "'flights': '3'"),
        ('{"flights": 3, "flights": 4}', "'flights' appears twice"),
        ('{"flights\u00a0": 3}', "no-break space"),
        ("flights\u200b:3", "zero width space"),
        ({"flights ": 3}, "'flights ': 3"),
        ('{"flights": true}', "'flights': True"),
        ({"flights": -1}, "'flights': -1"),
        ({3: 3}, "3: 3"),
        ([3], r"\[3\]"),
    ],
)
def test_the_part_that_cannot_be_read_is_quoted(given: Any, quoted: str) -> None:
    with pytest.raises(InputRefused, match=f"accept_lost has .*{quoted}"):
        read_counts(given, "accept_lost")


@pytest.mark.parametrize(("given", "seconds"), [(None, 0), ("", 0), (0, 0), ("1800", 1800), (" 60 ", 60), (7, 7)])
def test_seconds(given: Any, seconds: int) -> None:
    assert read_seconds(given, "window_s") == seconds


@pytest.mark.parametrize("given", ["1 h", "-1", -1, "1.5", 1.5, True, "٣", "1700000000000", 10**12])
def test_seconds_that_are_none(given: Any) -> None:
    with pytest.raises(InputRefused, match="window_s"):
        read_seconds(given, "window_s")
