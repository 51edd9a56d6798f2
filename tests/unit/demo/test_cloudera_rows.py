"""The demo's check of HBase's rows accepts only the Cloudera row layout."""

import pytest

from demo import cloudera_rows

GOOD = (b"flights:delay_alerts:1497628830000", {b"offsets:0": b"285", b"offsets:11": b"0"})


def test_a_row_of_the_cloudera_layout_is_accepted():
    assert cloudera_rows.foreign([GOOD]) == []
    assert cloudera_rows.of_demo([GOOD]) == [GOOD]
    assert cloudera_rows.offsets(GOOD) == {0: 285, 11: 0}


@pytest.mark.parametrize(
    "row",
    [
        (b"flights:delay_alerts:149762883000", GOOD[1]),
        (b"flights:delay_alerts:14976288300000", GOOD[1]),
        (b"control/epoch", GOOD[1]),
        (GOOD[0], {b"offsets:x": b"285"}),
        (GOOD[0], {b"batch:json": b"285"}),
        (GOOD[0], {b"offsets:0": (285).to_bytes(8, "big")}),
        (GOOD[0], {**GOOD[1], b"offsets:epoch": b"4"}),
    ],
)
def test_what_differs_from_the_layout_is_named(row):
    assert len(cloudera_rows.foreign([GOOD, row])) == 1


def test_another_groups_rows_are_not_ours():
    rows = [(b"flights:delay_alerts:2:1497628830000", {}), (b"flights:other:1497628830000", {})]

    assert cloudera_rows.of_demo(rows) == []
