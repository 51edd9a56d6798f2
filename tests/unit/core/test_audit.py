"""The audit: what tiles is silent, and what does not is counted once and explained by who announced it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.audit import (
    AuditReport,
    Bound,
    Discontinuity,
    DiscontinuityKind,
    Note,
    Window,
    audit,
)
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

    found = audit("flights", TILED, [], notes=[Note(1, begun, None, is_over=True)])

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


ROW_MS = 1_000


def rows(*ends: Position, start: Position, epoch: int = 1, first_id: int = 0) -> list[Batch]:
    """Tiling batches with their places in a history: one a second, by their ids."""
    made = batches(*ends, start=start, epoch=epoch, first_id=first_id)
    return [each.at_row((each.batch_id or 0) * ROW_MS) for each in made]


def claimed(number: int, start: Position, *announced: Announced, after: int | None) -> Epoch:
    """An epoch that was claimed when the history ended at ``after``."""
    return replace(epoch(start, number, announced), after_row_time_ms=after)


HISTORY = rows(at(10), at(20), at(30), at(40), start=at(0))


class TestWhatItDetects:
    def test_a_missing_batch(self) -> None:
        found = report([HISTORY[0], HISTORY[3]])

        assert [(str(each.range), each.clue) for each in found.unexplained] == [
            ("flights[0] 10..30", "batch 1 to 2 is missing")
        ]
        assert found.lost == 20

    @pytest.mark.parametrize(
        ("changed", "kind", "what"),
        [
            (replace(HISTORY[1], end=at(25)), DiscontinuityKind.REPLAY, "flights[0] 20..25"),
            (replace(HISTORY[1], end=at(15)), DiscontinuityKind.LOSS, "flights[0] 15..20"),
        ],
        ids=["to more", "to less"],
    )
    def test_a_changed_row_does_not_tile_with_its_neighbour(
        self, changed: Batch, kind: DiscontinuityKind, what: str
    ) -> None:
        [found] = report([HISTORY[0], changed, *HISTORY[2:]]).unexplained

        assert (found.kind, str(found.range)) == (kind, what)
        assert found.clue == "batch 1 or 2 is a changed row"

    @pytest.mark.parametrize("shown", ["39", "41"])
    def test_a_changed_row_at_the_end_differs_from_its_note(self, shown: str) -> None:
        """Behind it is nothing that it could fail to tile with; and the next plan would go by it."""
        last = replace(HISTORY[3], end=at(int(shown)))
        note = Note(1, BegunBatch.of(HISTORY[3]), last, is_over=True)

        whole = audit("flights", HISTORY, [], notes=[replace(note, recorded=HISTORY[3])])
        [found] = audit("flights", [*HISTORY[:3], last], [], notes=[note]).unexplained

        assert whole.discontinuities == ()
        assert (found.kind, found.range.count) == (DiscontinuityKind.CHANGED, 1)
        assert found.clue == "batch 3 was noted with other offsets before it ran"

    def test_a_partition_that_was_taken_out_of_the_last_row(self) -> None:
        there = rows(at(10, 5), start=at(0, 0))
        less = replace(there[0], start=at(0), end=at(10))

        [found] = audit("f", [less], [], notes=[Note(1, BegunBatch.of(there[0]), less, is_over=False)]).unexplained

        assert (found.kind, str(found.range)) == (DiscontinuityKind.CHANGED, "flights[1] 0..5")

    def test_a_batch_in_its_middle_is_nothing_to_tell(self) -> None:
        running = Note(1, BegunBatch.of(HISTORY[3]), None, is_over=False)

        assert audit("flights", HISTORY[:3], [], notes=[running]).discontinuities == ()

    def test_a_note_from_before_spark_had_planned_says_nothing_of_ranges(self) -> None:
        ahead = Note(1, BegunBatch(3, QUERY, 1_003, ()), HISTORY[3], is_over=True)

        assert audit("flights", HISTORY, [], notes=[ahead]).discontinuities == ()

    def test_overlapping_writers(self) -> None:
        """Nobody goes on from the row of the older one; what it wrote is there twice, and no plan said so."""
        older = rows(at(20), start=at(10), first_id=1)
        newer = rows(at(20), at(30), start=at(10), epoch=2, first_id=2)

        found = report([HISTORY[0], *older, *newer], claimed(1, at(0), after=None), claimed(2, at(10), after=0))

        assert [(each.kind, str(each.range), each.epoch) for each in found.unexplained] == [
            (DiscontinuityKind.OVERLAP, "flights[0] 10..20", 1)
        ]
        assert (found.lost, found.replayed, found.batches, found.unexplained_count) == (0, 0, 3, 10)

    def test_a_position_moved_by_hand_between_two_epochs(self) -> None:
        """The plan of the newer one says nothing of it."""
        moved = rows(at(90), start=at(80), epoch=2, first_id=4)

        [found] = report([*HISTORY, *moved], claimed(1, at(0), after=None), claimed(2, at(40), after=3_000)).unexplained

        assert (found.kind, str(found.range)) == (DiscontinuityKind.LOSS, "flights[0] 40..80")
        assert found.clue.startswith("epoch 2 begins elsewhere than epoch 1 ended, and its plan did not say so")

    def test_a_position_written_by_hand_into_the_history(self) -> None:
        """The job does not go by it, so the ranges of the job tile over it."""
        by_hand = Batch(at(15), 1_500, row_time_ms=1_500)
        the_same = Batch(at(20), 1_500, row_time_ms=1_600)

        found = report([*HISTORY[:2], by_hand, the_same, *HISTORY[2:]], claimed(1, at(0), after=None))

        assert [(each.kind, str(each.range)) for each in found.unexplained] == [
            (DiscontinuityKind.MOVED, "flights[0] 15..20")
        ]
        assert (found.lost, found.replayed, found.deck_rows) == (0, 0, 0)

    def test_rows_of_the_deck_from_before_the_first_epoch_are_taken_as_they_are(self) -> None:
        deck = [Batch(at(10), 10, row_time_ms=10), Batch(at(8), 20, row_time_ms=20)]
        ours = rows(at(20), start=at(8), first_id=1)

        found = report([*deck, *ours], claimed(1, at(8), after=20))

        assert (found.deck_rows, found.discontinuities, found.records) == (2, (), 12)


def test_what_an_epoch_announced_that_died_before_its_first_batch_still_explains() -> None:
    """The next one begins where that one stood, and has nothing to announce of its own."""
    rewound = claimed(2, at(10), Announced(TOPIC, 0, 10, replay=30), after=3_000)
    later = rows(at(45), start=at(10), epoch=3, first_id=4)

    found = report([*HISTORY, *later], claimed(1, at(0), after=None), rewound, claimed(3, at(10), after=3_000))

    assert shown(found) == [("replay", "flights[0] 10..40", "announced by operation-2")]


def test_what_two_plans_in_a_row_accepted_adds_up() -> None:
    """The first of them lost 10 and died before its first batch, the second skipped 5 more."""
    epochs = [
        claimed(2, at(50), Announced(TOPIC, 0, 50, lost=10), after=3_000),
        claimed(3, at(55), Announced(TOPIC, 0, 55, skipped=5), after=3_000),
    ]

    found = report([*HISTORY, *rows(at(60), start=at(55), epoch=3, first_id=4)], *epochs)

    assert (found.lost, found.skipped, found.unexplained) == (10, 5, ())


class TestWindow:
    """Two epochs; the second one rewinds from 40 to 10 and reads on in three batches."""

    FIRST, SECOND = claimed(1, at(0), after=None), claimed(2, at(10), Announced(TOPIC, 0, 10, replay=30), after=3_000)
    ALL = (*HISTORY, *rows(at(20), at(30), at(50), start=at(10), epoch=2, first_id=4))

    def told(self, since: str | None = None, until: str | None = None) -> tuple[int, int, list[tuple[str, str, str]]]:
        bounds = [None if each is None else Bound.read(each) for each in (since, until)]
        found = audit("flights", self.ALL, [self.FIRST, self.SECOND], window=Window(*bounds))
        return found.batches, found.records, shown(found)

    @pytest.mark.parametrize(
        ("since", "until", "batches", "records", "replay"),
        [
            (None, None, 7, 80, "flights[0] 10..40"),
            ("epoch:2", None, 3, 40, "flights[0] 10..40"),
            (None, "epoch:1", 4, 40, None),
            ("batch:5", None, 2, 30, "flights[0] 20..40"),
            ("batch:6", None, 1, 20, "flights[0] 30..40"),
            ("batch:4", "batch:5", 2, 20, "flights[0] 10..30"),
            ("1970-01-01T00:00:02Z", "1970-01-01T01:00:04+01:00", 3, 30, "flights[0] 10..20"),
            ("1970-01-01T00:00:07Z", None, 0, 0, None),
        ],
    )
    def test_what_is_read_again_in_it_counts(
        self, since: str | None, until: str | None, batches: int, records: int, replay: str | None
    ) -> None:
        expected = [] if replay is None else [("replay", replay, "announced by operation-2")]

        assert self.told(since, until) == (batches, records, expected)

    def test_a_jump_at_its_edge_is_seen(self) -> None:
        """What the row before it says decides, though that row is not told of."""
        hole = [HISTORY[0], HISTORY[2]]

        found = audit("flights", hole, [], window=Window(Bound.read("batch:2")))

        assert (found.lost, found.batches) == (10, 1)
        assert [(each.start, each.end) for each in found.partitions] == [(20, 30)]

    def test_a_jump_before_it_is_not_told(self) -> None:
        assert audit("f", [HISTORY[0], *HISTORY[2:]], [], window=Window(Bound.read("batch:3"))).discontinuities == ()

    @pytest.mark.parametrize("when", ["epoch:1", "epoch:2"])
    def test_a_note_is_of_its_epoch(self, when: str) -> None:
        cut_off = Note(1, BegunBatch(7, QUERY, 1_007, (OffsetRange(TOPIC, 0, 40, 50),)), None, is_over=True)

        found = audit("flights", HISTORY, [], notes=[cut_off], window=Window(Bound.read(when), Bound.read(when)))

        assert found.replayed_at_most == (10 if when == "epoch:1" else 0)

    @pytest.mark.parametrize(
        "text", ["", "yesterday", "2026-11-01", "2026-11-01T00:00", "batch:", "batch:-1", "epoch:x"]
    )
    def test_a_bound_that_cannot_be_read_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"no date|no zone|no number"):
            Bound.read(text)


def long_history(length: int, *, tiles: bool) -> AuditReport:
    """Audit a history that is never there as a whole: two partitions, an epoch every ten batches."""

    def made() -> Iterator[Batch]:
        for number in range(length):
            start, end = at(number * 10, number), at(number * 10 + (10 if tiles else 9), number + 1)
            yield Batch(end, number, number, QUERY, number // 10 + 1, start, number)

    def epochs() -> Iterator[Epoch]:
        for number in range(length // 10):
            yield claimed(number + 1, at(number * 100, number * 10), after=number * 10 - 1 if number else None)

    def notes() -> Iterator[Note]:
        for number in range(length // 10):
            last = number * 10 + 9
            ranges = (OffsetRange(TOPIC, 0, last * 10, last * 10 + 10),)
            yield Note(number + 1, BegunBatch(last, QUERY, last, ranges), None, is_over=not tiles)

    return audit("flights", made(), epochs(), notes=notes())


@pytest.mark.parametrize("tiles", [True, False], ids=["whole", "with a hole after each batch"])
def test_memory_does_not_grow_with_the_history(tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_offsets.core.audit.LISTED", 100)

    def peak(length: int) -> tuple[int, AuditReport]:
        tracemalloc.start()
        found = long_history(length, tiles=tiles)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, found

    short, _ = peak(1_000)
    long, found = peak(15_000)

    assert long < 1.2 * short
    assert found.batches == 15_000
    # Exact, though a hundred that are explained and a hundred that are not are listed.
    assert found.lost == (0 if tiles else 14_999)
    assert found.replayed_at_most == (0 if tiles else 15_000)
    assert (found.unexplained_places, found.unlisted) == ((0, 0) if tiles else (14_999, 14_899 + 1_400))
