"""Rows of the Cloudera layout, the shell line of the slides, and rows that other jobs may leave in the table."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition, first_missing
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores.hbase.store import HBaseStore
from tests.contract.position_contract import numbered
from tests.contract.store_contract import NOW_MS, batch, ids, position

# Slide "Offset Management in HBase".
LISTING = """\
kafkablog2:groupid-1:1497628830000    column=offsets:0, timestamp=1497628832448, value=285
kafkablog2:groupid-1:1497628830000    column=offsets:1, timestamp=1497628832448, value=285
kafkablog2:groupid-1:1497628830000    column=offsets:2, timestamp=1497628832448, value=285
kafkablog2:groupid-1:1497628770000    column=offsets:0, timestamp=1497628773773, value=225
kafkablog2:groupid-1:1497628770000    column=offsets:1, timestamp=1497628773773, value=225
kafkablog2:groupid-1:1497628770000    column=offsets:2, timestamp=1497628773773, value=225
kafkablog1:groupid-2:1497628650000    column=offsets:0, timestamp=1497628653451, value=165
kafkablog1:groupid-2:1497628650000    column=offsets:1, timestamp=1497628653451, value=165
kafkablog1:groupid-2:1497628650000    column=offsets:2, timestamp=1497628653451, value=165
kafkablog1:groupid-1:1497628530000    column=offsets:0, timestamp=1497628533108, value=120
kafkablog1:groupid-1:1497628530000    column=offsets:1, timestamp=1497628533108, value=120
kafkablog1:groupid-1:1497628530000    column=offsets:2, timestamp=1497628533108, value=120
"""


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def listed(thrift: tuple[str, int], raw: Any, table: str) -> Iterator[HBaseStore]:
    """Yield a table that holds the listing of the slide deck and nothing else."""
    name = f"{table}_listing"
    store = HBaseStore(*thrift, name)
    store.create()
    for line in LISTING.splitlines():
        key, *cell = line.replace(",", "").split()
        told = dict(each.split("=") for each in cell)
        raw.table(name).put(key, {told["column"]: told["value"]}, timestamp=int(told["timestamp"]))
    yield store
    store.close()


@pytest.mark.parametrize(
    ("group_id", "topic", "expected"),
    [
        ("groupid-1", "kafkablog2", [(1497628830000, 285), (1497628770000, 225)]),
        ("groupid-2", "kafkablog1", [(1497628650000, 165)]),
        ("groupid-1", "kafkablog1", [(1497628530000, 120)]),
        ("groupid-2", "kafkablog2", []),
        ("groupid", "kafkablog1", []),
    ],
)
def test_the_listing_of_the_slides_group_by_group(
    listed: HBaseStore, group_id: str, topic: str, expected: list[tuple[int, int]]
) -> None:
    stream = Stream(group_id, (topic,))
    batches = [
        Batch(numbered(topic, offset, offset, offset), time_ms, row_time_ms=time_ms) for time_ms, offset in expected
    ]
    assert list(listed.newest_first(stream)) == batches
    assert list(listed.oldest_first(stream)) == batches[::-1]
    assert listed.position(stream) == (batches[0].end if batches else None)


def test_the_listing_of_the_slides_is_four_rows_and_twelve_cells(listed: HBaseStore, raw: Any, table: str) -> None:
    found = dict(raw.table(f"{table}_listing").scan())
    assert (len(found), sum(len(cells) for cells in found.values())) == (4, 12)
    both = Stream("groupid-1", ("kafkablog1", "kafkablog2"))
    assert listed.position(both) == numbered("kafkablog1", 120, 120, 120).updated(numbered("kafkablog2", 285, 285, 285))


# The shell line of the slide deck, and the lines of docs/stores.md that replace it


def line_of_the_slides(group: str) -> dict[str, Any]:
    return {"row_start": f"device_alerts:{group}".encode()}


def line_with_bounds(group: str) -> dict[str, Any]:
    return {
        "row_start": f"device_alerts:{group}:9999999999999".encode(),
        "row_stop": f"device_alerts:{group}:0000000000000".encode(),
    }


def line_with_bounds_and_filter(group: str) -> dict[str, Any]:
    pattern = f"RowFilter(=, 'regexstring:^device_alerts:{group}:[0-9]{{13}}$')"
    return {**line_with_bounds(group), "filter": pattern}


@pytest.mark.parametrize(
    ("groups", "slides", "bounded", "filtered", "reason"),
    [
        (["b"], "", "b", "b", "the line of the slides begins before the group's own rows and goes away from them"),
        (["b", "a"], "a", "b", "b", "and so it gives a neighbour's, though the group has its own"),
        (["a"], "a", "", "", "or though it has none"),
        (["b", "b:1790"], "", "b:1790", "b", "a neighbour between the bounds, and newer"),
        (["b:1790"], "", "b:1790", "", "between the bounds, and alone"),
        (["b", "b:2", "b2", "bb"], "", "b:2", "b", "any tail that begins with a digit is between the bounds"),
    ],
)
def test_the_shell_lines(
    raw: Any,
    created: str,
    store: HBaseStore,
    group: str,
    groups: list[str],
    slides: str,
    bounded: str,
    filtered: str,
    reason: str,
) -> None:
    """The group is ``b``, and each line returns the row of the group that it names, or none."""
    for number, name in enumerate(groups):
        raw.table(created).put(f"device_alerts:{group}{name}:{NOW_MS}".encode(), {b"offsets:0": b"%d" % number})
    lines = (line_of_the_slides, line_with_bounds, line_with_bounds_and_filter)
    found = [next(raw.table(created).scan(reverse=True, limit=1, **line(f"{group}b")), (b"", {}))[0] for line in lines]
    expected = [f"device_alerts:{group}{each}:{NOW_MS}" if each else "" for each in (slides, bounded, filtered)]
    # Rows of other tests sort before this group's rows, and count as none.
    assert [key.decode() if group.encode() in key else "" for key in found] == expected
    ours = store.position(Stream(f"{group}b", ("device_alerts",)))
    assert (ours is not None) == ("b" in groups), "what the store gives is what the last line gives"


# Jobs without this provider: rows without facts


def test_a_batch_of_theirs_that_is_half_written_is_read_topic_by_topic(
    store: HBaseStore, raw: Any, created: str, group: str
) -> None:
    """Such a job writes a topic's row once the whole batch is finished: a missing row is replayed, not skipped."""
    both = Stream(group, ("t", "u"))
    offsets = raw.table(created)
    offsets.put(f"t:{group}:{NOW_MS}".encode(), {b"offsets:0": b"10"})
    assert store.position(both) == position({0: 10}), "u stands nowhere yet: it begins at 0"
    offsets.put(f"u:{group}:{NOW_MS}".encode(), {b"offsets:0": b"5"})
    offsets.put(f"t:{group}:{NOW_MS + 1}".encode(), {b"offsets:0": b"20"})
    assert store.position(both) == position({0: 20}).updated(position({0: 5}, "u"))
    offsets.put(f"u:{group}:{NOW_MS + 1}".encode(), {b"offsets:0": b"6"})
    assert store.position(both) == position({0: 20}).updated(position({0: 6}, "u"))


def test_partitions_that_a_row_lacks_are_not_made_up(store: HBaseStore, raw: Any, created: str, group: str) -> None:
    stream = Stream(group, ("t",))
    raw.table(created).put(f"t:{group}:{NOW_MS}".encode(), {b"offsets:0": b"1", b"offsets:1": b"2", b"offsets:2": b"3"})
    raw.table(created).put(f"t:{group}:{NOW_MS + 1}".encode(), {b"offsets:0": b"5", b"offsets:2": b"7"})
    stored = store.position(stream)
    assert stored == Position({TopicPartition("t", 0): 5, TopicPartition("t", 2): 7})
    assert first_missing(stored) == [TopicPartition("t", 1)], "which a plan refuses"


def test_partitions_that_a_row_has_and_the_topic_lacks_are_kept(
    store: HBaseStore, raw: Any, created: str, group: str
) -> None:
    raw.table(created).put(f"t:{group}:{NOW_MS}".encode(), {b"offsets:%d" % n: b"7" for n in range(12)})
    stored = store.position(Stream(group, ("t",)))
    assert stored == position(dict.fromkeys(range(12), 7)), "a plan over fewer partitions sees them, and refuses"


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (b"offsets:0", b"12a", "no number"),
        (b"offsets:0", b"-2", "negative"),
        (b"offsets:0", b"", "empty"),
        (b"offsets:0", b"9223372036854775808", "one more than Kafka can count to"),
        (b"offsets:0", b"9" * 5000, "more digits than Python reads"),
        (b"offsets:0", (123).to_bytes(8, "big"), "the eight bytes of a Java long"),
        (b"offsets:count", b"3", "no partition"),
        (b"offsets:2147483648", b"3", "a partition that no topic can have"),
        (b"offsets:007", b"3", "a partition that could be there twice"),
    ],
)
def test_a_cell_outside_the_cloudera_layout(
    store: HBaseStore, raw: Any, created: str, group: str, column: bytes, value: bytes, reason: str
) -> None:
    stream, key = Stream(group, ("t",)), f"t:{group}:{NOW_MS}"
    raw.table(created).put(key.encode(), {b"offsets:1": b"5", column: value})
    before = dict(raw.table(created).scan())
    for call in (
        lambda: store.position(stream),
        lambda: list(store.oldest_first(stream)),
        lambda: store.write(stream, numbered("t", 1, 1), expected=None),
    ):
        with pytest.raises(StoreDataError) as bad:
            call()
        assert all(each in bad.value.seen for each in (created, key, column.decode()))
    assert dict(raw.table(created).scan()) == before


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("1760000000", "seconds"),
        ("17600000000000", "14 digits"),
        ("1760000000x00", "no number"),
        ("1", "one digit"),
        ("1760000000000 ", "a space behind it"),
    ],
)
def test_a_row_outside_the_cloudera_layout(
    store: HBaseStore, raw: Any, created: str, group: str, tail: str, reason: str
) -> None:
    stream, key = Stream(group, ("t",)), f"t:{group}:{tail}"
    raw.table(created).put(key.encode(), {b"offsets:0": b"5"})
    before = dict(raw.table(created).scan())
    for call in (
        lambda: store.position(stream),
        lambda: list(store.oldest_first(stream)),
        lambda: store.append(stream, batch(1)),
        lambda: store.write(stream, numbered("t", 1), expected=None),
    ):
        with pytest.raises(StoreDataError, match=rf"Table '{created}', row '{key}'"):
            call()
    assert dict(raw.table(created).scan()) == before


# Wide rows


def test_a_history_of_rows_with_ten_thousand_partitions(store: HBaseStore, group: str) -> None:
    stream = Stream(group, ("t",))
    ends = [position({n: 100 * number + n for n in range(10_000)}) for number in range(13)]
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        store.append(stream, Batch(end, NOW_MS + number, number, "q", 1, start))
    assert store.position(stream) == ends[12]
    assert ids(store.newest_first(stream)) == list(range(11, -1, -1))
    assert [each.end for each in store.oldest_first(stream)] == ends[1:]
    wider = ends[12].updated(position({n: 0 for n in range(10_000, 12_000)}))
    store.write(stream, wider, expected=ends[12])
    assert store.position(stream) == wider
