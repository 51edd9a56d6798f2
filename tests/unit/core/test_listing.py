"""Lists in messages."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.listing import first_few


@pytest.mark.parametrize(
    ("count", "separator", "shown"),
    [
        (0, ", ", ""),
        (3, ", ", "0, 1, 2"),
        (4, ", ", "0, 1, 2, and 1 more"),
        (9, "; ", "0; 1; 2; and 6 more"),
    ],
)
def test_a_long_list_ends_with_the_number_of_the_others(count: int, separator: str, shown: str) -> None:
    assert first_few(range(count), limit=3, separator=separator) == shown
