"""The audit: what tiles is silent, and what does not is counted once and explained by who announced it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.audit import AuditReport, Discontinuity, DiscontinuityKind, audit
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Announced, BegunBatch, Epoch
from airflow_provider_offsets.core.position import OffsetRange, Position
from tests.unit.core.worlds import QUERY, TOPIC, at, epoch


def batches(*ends: Position, start: Position, epoch: int = 1, first_id: int = 0) -> list[Batch]:
    """Batches that tile from ``start`` over all ``ends``."""
    starts = (start, *ends)
    return [
        Batch(end, 1_000 + number, first_id + number, QUERY, epoch, starts[number]) for number, end in enumerate(ends)
    ]


def report(history: list[Batch], *epochs: Epoch, since: Position | None = None) -> AuditReport:
    return audit("flights", history, epochs, since=since)


def shown(found: AuditReport) -> list[tuple[str, str, str]]:
    return [(each.kind.value, str(each.range), each.explanation) for each in found.discontinuities]


TILED = batches(at(10, 5), at(20, 5), at(30, 15), start=at(0, 0))


def test_what_tiles_is_silent() -> None:
    found = report(TILED, since=at(0, 0))

    assert (found.discontinuities, found.lost, found.replayed, found.batches) == ((), 0, 0, 3)
    assert found.records == 45
    assert [(each.start, each.end, each.batches) for each in found.partitions] == [(0, 30, 3), (0, 15, 3)]


def test_a_history_has_to_begin_where_it_was_to_begin() -> None:
    assert shown(report(TILED[1:], since=at(0, 5))) == [("loss", "flights[0] 0..10", "")]


def test_a_new_partition_has_to_begin_at_0() -> None:
    grown = Batch(at(40, 15, 9), 2_000, 3, QUERY, 1, at(30, 15, 4))

    assert shown(report([*TILED, grown])) == [("loss", "flights[2] 0..4", "")]


def test_a_new_partition_that_begins_at_0_is_silent() -> None:
    # The batch that Spark plans first after the growth does not name a start for it.
    grown = Batch(at(40, 15, 9), 2_000, 3, QUERY, 1, at(30, 15))

    assert shown(report([*TILED, grown])) == []


def test_a_replay_that_nobody_announced() -> None:
    again = batches(at(30, 15), start=at(20, 5), epoch=2, first_id=3)

    found = report([*TILED, *again], epoch(at(0, 0)), epoch(at(20, 5), 2))

    assert shown(found) == [("replay", "flights[0] 20..30", ""), ("replay", "flights[1] 5..15", "")]
    assert (found.lost, found.replayed, found.unexplained_count) == (0, 20, 20)


ANNOUNCED = (Announced(TOPIC, 0, 5, replay=25), Announced(TOPIC, 1, 0, replay=15))


def test_a_replay_over_several_batches_is_one_and_counts_all_of_them() -> None:
    again = batches(at(12, 0), at(20, 14), at(33, 16), start=at(5, 0), epoch=2, first_id=3)

    found = report([*TILED, *again], epoch(at(5, 0), 2, ANNOUNCED))

    assert shown(found) == [
        ("replay", "flights[0] 5..30", "announced by operation-2"),
        ("replay", "flights[1] 0..15", "announced by operation-2"),
    ]
    assert (found.replayed, found.unexplained, found.lost) == (40, (), 0)


def test_a_replay_counts_what_was_read_again_so_far() -> None:
    again = batches(at(12, 0), start=at(5, 0), epoch=2, first_id=3)

    assert report([*TILED, *again], epoch(at(5, 0), 2, ANNOUNCED)).replayed == 7


def test_a_plan_announces_where_its_epoch_begins_and_nothing_later() -> None:
    """The same jump a second time, by the same epoch, was not announced."""
    again = batches(at(30, 15), start=at(5, 0), epoch=2, first_id=3)
    and_again = batches(at(30, 15), start=at(5, 0), epoch=2, first_id=4)

    found = report([*TILED, *again, *and_again], epoch(at(5, 0), 2, ANNOUNCED))

    assert [each.is_explained for each in found.discontinuities] == [True, True, False, False]


def test_an_announced_skip_and_an_accepted_loss_are_told_apart() -> None:
    announced = (Announced(TOPIC, 0, 60, lost=10, skipped=20),)
    later = batches(at(70, 15), start=at(60, 15), epoch=2, first_id=3)

    found = report([*TILED, *later], epoch(at(60, 15), 2, announced))

    assert shown(found) == [
        ("loss", "flights[0] 30..40", "announced by operation-2"),
        ("skip", "flights[0] 40..60", "announced by operation-2"),
    ]
    assert (found.lost, found.skipped, found.unexplained) == (10, 20, ())


def test_a_gap_that_nobody_announced_is_loss() -> None:
    later = batches(at(70, 15), start=at(60, 15), epoch=2, first_id=3)

    found = report([*TILED, *later], epoch(at(60, 15), 2))

    assert shown(found) == [("loss", "flights[0] 30..60", "")]


def test_a_rewind_that_is_broken_off_skips_nothing() -> None:
    """A rollback goes back to where the rewind began: what lies in between was read before it."""
    rewound = batches(at(20, 15), start=at(10, 15), epoch=2, first_id=3)
    back = batches(at(40, 15), start=at(30, 15), epoch=3, first_id=4)
    epochs = [
        epoch(at(10, 15), 2, (Announced(TOPIC, 0, 10, replay=20),)),
        epoch(at(30, 15), 3, (Announced(TOPIC, 0, 30, skipped=10),)),
    ]

    found = report([*TILED, *rewound, *back], *epochs)
    unannounced = report([*TILED, *rewound, *back], epochs[0], epoch(at(30, 15), 3))

    assert shown(found) == [("replay", "flights[0] 10..20", "announced by operation-2")]
    assert (unannounced.lost, unannounced.unexplained_count) == (10, 10), "a hole in what was to be read again"


def test_rows_of_the_deck_are_taken_as_they_are() -> None:
    deck = [Batch(at(10, 5), 1_000), Batch(at(8, 5), 1_001), Batch(at(30, 5), 1_002)]
    ours = batches(at(35, 6), start=at(30, 5), first_id=0)

    found = report([*deck, *ours])

    assert (found.deck_rows, found.discontinuities, found.records) == (3, (), 6)


def test_a_batch_that_was_cut_off_is_read_twice_at_most() -> None:
    begun = BegunBatch(3, QUERY, 2_000, (OffsetRange(TOPIC, 0, 30, 40), OffsetRange(TOPIC, 1, 15, 15)))

    found = audit("flights", TILED, [], cut_off={1: begun})

    assert found.discontinuities == (
        Discontinuity(DiscontinuityKind.CUT_OFF, begun.ranges[0], 1, "epoch 1 ended in batch 3"),
    )
    assert (found.replayed, found.replayed_at_most, found.unexplained) == (0, 10, ())


@st.composite
def histories(draw: st.DrawFn) -> list[Batch]:
    """Histories that tile, of 1 to 4 partitions, with batches that may be empty in some of them."""
    width = draw(st.integers(1, 4))
    start = [draw(st.integers(0, 50)) for _ in range(width)]
    steps = draw(st.lists(st.lists(st.integers(0, 20), min_size=width, max_size=width), min_size=1, max_size=12))
    ends, here = [], start
    for step in steps:
        here = [offset + more for offset, more in zip(here, step, strict=True)]
        ends.append(at(*here))
    return batches(*ends, start=at(*start))


@given(histories())
def test_law_what_tiles_is_silent(history: list[Batch]) -> None:
    found = report(history, since=history[0].start)

    assert found.discontinuities == ()
    assert found.records == sum(each.record_count for each in history)


@given(histories(), st.data())
def test_law_no_batch_can_be_taken_out_unseen(history: list[Batch], data: st.DataObject) -> None:
    """Of the last batch nobody can know: the next one would tell."""
    index = data.draw(st.integers(0, len(history) - 1))
    taken = history[index]
    after = Batch(history[-1].end, 9_000, 99, QUERY, 1, history[-1].end)

    found = report([*history[:index], *history[index + 1 :], after], since=history[0].start)

    assert found.lost == taken.record_count
    assert found.unexplained_count == taken.record_count
    assert found.replayed == 0


@given(histories(), st.data())
def test_law_reading_again_is_counted_whole_and_explained_if_announced(
    history: list[Batch], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(history) - 1))
    back = history[index].start or Position()
    again = [replace(each, epoch=2, batch_id=(each.batch_id or 0) + 100) for each in history[index:]]
    reread = sum(each.record_count for each in again)
    announced = tuple(
        Announced(TOPIC, key.partition, offset, replay=history[-1].end[key] - offset) for key, offset in back.items()
    )

    silent = report([*history, *again], epoch(back, 2))
    told = report([*history, *again], epoch(back, 2, announced))

    assert (silent.replayed, silent.unexplained_count) == (reread, reread)
    assert (told.replayed, told.unexplained) == (reread, ())
    assert silent.lost == told.lost == 0


@pytest.mark.parametrize("since", [None, Position()])
def test_an_empty_history_has_nothing_to_say(since: Position | None) -> None:
    assert report([], since=since) == AuditReport("flights", (), (), 0, 0)
