"""Keys and cells of the table in the Cloudera row layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores.hbase import layout

PREFIX = b"t:g:"
TIMES = st.integers(0, 10**13 - 1)


def test_the_key_of_the_cloudera_layout() -> None:
    assert layout.key(layout.prefix("flights", "live:1"), 1_760_000_000_000) == b"flights:live:1:1760000000000"
    assert layout.key(PREFIX, 5) == b"t:g:0000000000005"


@given(first=TIMES, second=TIMES)
def test_keys_sort_as_times_do(first: int, second: int) -> None:
    assert (layout.key(PREFIX, first) < layout.key(PREFIX, second)) == (first < second)
    assert layout.time_of(PREFIX, layout.key(PREFIX, first)) == first


@given(tail=st.text(st.sampled_from("0179:-x "), max_size=18), more=st.text(st.sampled_from("0179:x"), max_size=5))
def test_a_neighbours_rows_stand_between_two_times(tail: str, more: str) -> None:
    """The skip covers exactly the rows that begin with the neighbour's group, and none of this group."""
    row = PREFIX + tail.encode()
    if layout.time_of(PREFIX, row) is not None:
        return
    before = layout.time_before(PREFIX, row)
    assert before < 0 or layout.key(PREFIX, before) < row
    assert before + 1 >= 10**13 or row < layout.key(PREFIX, before + 1)
    if tail.strip("0179"):
        group = tail[: len(tail) - len(tail.lstrip("0179")) + 1]
        assert layout.time_before(PREFIX, PREFIX + (group + more).encode()) == before


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (b"offsets:0", b"", "empty"),
        (b"offsets:0", b"-1", "negative"),
        (b"offsets:0", b"12a", "not a number"),
        (b"offsets:0", b" 12", "a space"),
        (b"offsets:0", "١٢".encode(), "digits that Python accepts and Java does not write"),
        (b"offsets:0", b"\x00\x00\x00\x00\x00\x00\x00\x0c", "eight bytes, as HBase's Bytes.toBytes(long) makes"),
        (b"offsets:", b"1", "no partition"),
        (b"offsets:01", b"1", "a partition that would be there twice"),
        (b"offsets:x", b"1", "not a partition"),
        (b"other:0", b"1", "another family"),
    ],
)
def test_cells_that_the_cloudera_layout_does_not_have(column: bytes, value: bytes, reason: str) -> None:
    with pytest.raises(StoreDataError, match=r"Table 'offsets', row 't:g:0000000000005', column '"):
        layout.position_of("offsets", "t", b"t:g:0000000000005", {column: value})


def test_cells_are_text_both_ways() -> None:
    end = Position({TopicPartition("t", 0): 0, TopicPartition("t", 10): 7, TopicPartition("u", 1): 5})
    cells = layout.cells_of(end, "t")
    assert cells == {b"offsets:0": b"0", b"offsets:10": b"7"}
    assert layout.position_of("offsets", "t", b"k", cells).of_topic("t") == {0: 0, 10: 7}
