"""The audit reports nothing for ranges that tile, and counts and explains every other range exactly once."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from airflow_provider_offsets.core.audit.report import AuditReport, DiscontinuityKind
from airflow_provider_offsets.core.audit.walk import audit
from airflow_provider_offsets.core.audit.window import AuditWindow, Bound
from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.epoch import Announced, Cut, Ended, EndedHow, Epoch, Recorded
from airflow_provider_offsets.core.position import OffsetRange, Position
from tests.unit.core.observations import QUERY, TOPIC, at, epoch

ROW_MS = 1_000
CANCELLED = Ended(EndedHow.CANCELLED, 1)


@dataclass(frozen=True)
class Life:
    """The course of one launch in one partition: where it starts and where each of its batches ends."""

    start: int
    ends: tuple[int, ...] = ()
    announced: tuple[Announced, ...] = ()
    more: tuple[tuple[str, Any], ...] = ()


def life(start: int, *ends: int, announced: bool = False, lost: int = 0, **more: Any) -> Life:
    said = (Announced(TOPIC, 0, start, lost=lost),) if announced else ()
    return Life(start, ends, said, tuple(more.items()))


def lived(*lives: Life) -> tuple[list[Batch], list[Epoch]]:
    """Return the rows of a history, one per second with consecutive batch ids, and its epochs."""
    rows: list[Batch] = []
    for number, each in enumerate(lives, start=1):
        starts = (each.start, *each.ends)
        for start, end in zip(starts, each.ends, strict=False):
            made = len(rows)
            rows.append(Batch(at(end), made * ROW_MS, made, QUERY, number, at(start), made * ROW_MS))
    made = ((n, each, epoch(at(each.start), n, each.announced)) for n, each in enumerate(lives, start=1))
    epochs = [replace(launched, **dict(each.more)) for _, each, launched in made]
    return rows, epochs


def report(rows: Sequence[Batch], epochs: Sequence[Epoch], **more: Any) -> AuditReport:
    return audit("flights", rows, epochs, **more)


def shown(found: AuditReport) -> list[str]:
    """Return kind, range and operation of each discontinuity."""
    return [
        f"{each.kind.value} {each.range.start}..{each.range.end}"
        f" {each.explanation.removeprefix('announced by ') or 'UNEXPLAINED'}"
        for each in found.discontinuities
    ]


def cut(start: int, end: int, batch_id: int = 4, count: int = 1, why: str = "") -> Cut:
    return Cut(batch_id, QUERY, count, why, (OffsetRange(TOPIC, 0, start, end),))


FIRST = life(0, 10, 20, 30, 40)
"""Four batches, up to 40."""


@pytest.mark.parametrize(
    ("reason", "lives", "expected"),
    [
        ("each batch begins where the one before it ends", [FIRST], []),
        ("a restart goes on where the last batch ended", [FIRST, life(40, 50)], []),
        ("a launch that dies before its first batch changes nothing", [FIRST, life(40), life(40, 50)], []),
        # Rewinds.
        ("a rewind", [FIRST, life(10, 50, announced=True)], ["replay 10..40 operation-2"]),
        (
            "over several batches it is one replay",
            [FIRST, life(10, 15, 35, 50, announced=True)],
            ["replay 10..40 operation-2"],
        ),
        (
            "over several epochs too, as long as they go on",
            [FIRST, life(10, 15, announced=True), life(15, 50)],
            ["replay 10..40 operation-2"],
        ),
        ("what is read again so far", [FIRST, life(10, 15, announced=True)], ["replay 10..15 operation-2"]),
        (
            "a rewind whose epoch dies before its first batch: the next one reads by its announcement",
            [FIRST, life(10, announced=True), life(10, 50)],
            ["replay 10..40 operation-2"],
        ),
        ("nobody announced it", [FIRST, life(10, 50)], ["replay 10..40 UNEXPLAINED"]),
        (
            "announced for another offset than where the epoch begins",
            [FIRST, replace(life(10, 50), announced=(Announced(TOPIC, 0, 11),))],
            ["replay 10..40 UNEXPLAINED"],
        ),
        (
            "a rewind inside a rewind: 10..20 and then 5..40, each of them",
            [FIRST, life(10, 20, announced=True), life(5, 45, announced=True)],
            ["replay 10..20 operation-2", "replay 5..40 operation-3"],
        ),
        (
            "a position that somebody moved back while a rewind was read",
            [FIRST, life(10, 20, announced=True), life(15, 45)],
            ["replay 10..20 operation-2", "replay 15..40 UNEXPLAINED"],
        ),
        (
            "A8: forward again inside the range that is read again: 10..15 and 25..40, and not 15..25",
            [FIRST, life(10, 15, announced=True), life(25, 60, announced=True)],
            ["replay 10..15 operation-2", "replay 25..40 operation-2"],
        ),
        (
            "a rewind that is rolled back to where it came from leaves nothing out: all was read before it",
            [FIRST, life(10, 20, announced=True), life(40, 50, announced=True)],
            ["replay 10..20 operation-2"],
        ),
        (
            "so does one that nobody announced: nothing is lost, and 20..40 was to be read again",
            [FIRST, life(10, 20, announced=True), life(40, 50)],
            ["replay 10..20 operation-2", "jump 20..40 UNEXPLAINED"],
        ),
        # Skips and losses.
        ("a skip", [FIRST, life(60, 70, announced=True)], ["skip 40..60 operation-2"]),
        (
            "of what a plan passes over, the accepted loss comes first",
            [FIRST, life(60, 70, announced=True, lost=15)],
            ["loss 40..55 operation-2", "skip 55..60 operation-2"],
        ),
        ("nobody announced it", [FIRST, life(60, 70)], ["loss 40..60 UNEXPLAINED"]),
        ("it shows before the first batch", [FIRST, life(60)], ["loss 40..60 UNEXPLAINED"]),
        (
            "two plans in a row, the first of which died before its first batch",
            [FIRST, life(50, announced=True, lost=10), life(55, 60, announced=True)],
            ["loss 40..50 operation-2", "skip 50..55 operation-3"],
        ),
        (
            "A8, the mirror: a skip, and then a rewind over what was skipped, which is read for the first time",
            [FIRST, life(60, 70, announced=True), life(40, 75, announced=True)],
            ["replay 60..70 operation-3"],
        ),
        (
            "of what was skipped, a part is read later",
            [FIRST, life(60, 70, announced=True), life(45, 50, announced=True), life(70, 80, announced=True)],
            ["skip 40..45 operation-2", "skip 50..60 operation-4"],
        ),
        (
            "an accepted loss that was still there after all",
            [FIRST, life(60, 70, announced=True, lost=20), life(55, 75, announced=True)],
            ["loss 40..55 operation-2", "replay 60..70 operation-3"],
        ),
        (
            "a loss that nobody announced, and a reprocess that made it good",
            [FIRST, life(60, 70), life(40, 75, announced=True)],
            ["replay 60..70 operation-3"],
        ),
        (
            "skipped by a plan, rewound to, and then passed over by nobody's plan: the last jump decides",
            [FIRST, life(60, 70, announced=True), life(40, announced=True), life(70, 80)],
            ["loss 40..60 UNEXPLAINED", "jump 60..70 UNEXPLAINED"],
        ),
        (
            "the accepted loss counts against what was never read",
            [FIRST, life(60, 70, announced=True), life(30, announced=True), life(70, 80, announced=True, lost=5)],
            ["loss 40..45 operation-4", "skip 45..60 operation-4"],
        ),
        # Launches that nobody claimed.
        (
            "a cancelled launch that announced a skip, and a resume",
            [FIRST, life(60, announced=True, ended=CANCELLED, holder=None), life(40, 50)],
            [],
        ),
        (
            "a cancelled launch that announced a skip, and a start where it would have started",
            [FIRST, life(60, announced=True, ended=CANCELLED, holder=None), life(60, 70)],
            ["loss 40..60 UNEXPLAINED"],
        ),
        (
            "a cancelled rewind, and a driver that reads there",
            [FIRST, life(10, announced=True, ended=CANCELLED, holder=None), life(10, 50)],
            ["replay 10..40 UNEXPLAINED"],
        ),
        ("a launch that waits to be claimed", [FIRST, life(60, announced=True, holder=None)], []),
        # Batches that were started and not recorded.
        (
            "cut off and run again by the next epoch",
            [replace(FIRST, more=(("cuts", (cut(40, 50),)),)), life(40, 50)],
            ["cut off 40..50 batch 4 of epoch 1 was started and not recorded"],
        ),
        (
            "started twice",
            [replace(FIRST, more=(("cuts", (cut(40, 50, count=2),)),))],
            [
                "cut off 40..50 batch 4 of epoch 1 was started and not recorded, start 1 of 2",
                "cut off 40..50 batch 4 of epoch 1 was started and not recorded, start 2 of 2",
            ],
        ),
        (
            "an upper bound says why",
            [replace(FIRST, more=(("cuts", (cut(40, 90, why="the checkpoint is gone: at most up to its end"),)),))],
            [
                "cut off 40..90 batch 4 of epoch 1 was started and not recorded"
                " (the checkpoint is gone: at most up to its end)"
            ],
        ),
        (
            "an untracked job, whose log has no batch",
            [replace(FIRST, more=(("cuts", (cut(40, 50, batch_id=-1),)),))],
            ["cut off 40..50 epoch 1 may have started a batch that it did not record"],
        ),
        ("a batch without records", [replace(FIRST, more=(("cuts", (cut(40, 40),)),))], []),
    ],
)
def test_what_is_reported(reason: str, lives: list[Life], expected: list[str]) -> None:
    found = report(*lived(*lives))

    assert shown(found) == expected, reason
    totals = {kind: 0 for kind in DiscontinuityKind}
    for each in found.discontinuities:
        totals[each.kind] += each.range.count
    assert found.lost == totals[DiscontinuityKind.LOSS]
    assert found.skipped == totals[DiscontinuityKind.SKIP]
    assert found.replayed == totals[DiscontinuityKind.REPLAY]
    assert found.replayed_at_most == totals[DiscontinuityKind.CUT_OFF]
    assert found.unexplained_count == sum(each.range.count for each in found.unexplained)
    assert found.unexplained_places == len(found.unexplained)


class TestPartitions:
    """Partitions that appear, and the beginning of a history."""

    def rows(self, *ends: Position, start: Position, epoch: int = 1, first_id: int = 0) -> list[Batch]:
        starts = (start, *ends)
        return [Batch(end, 0, first_id + n, QUERY, epoch, starts[n], first_id + n) for n, end in enumerate(ends)]

    def test_each_partition_is_reported(self) -> None:
        rows = self.rows(at(10, 5), at(20, 5), at(30, 15), start=at(0, 0))

        found = report(rows, [epoch(at(0, 0))])

        assert (found.batches, found.records) == (3, 45)
        assert [(each.partition, each.start, each.end, each.batches) for each in found.partitions] == [
            (0, 0, 30, 3),
            (1, 0, 15, 3),
        ]

    @pytest.mark.parametrize(
        ("reason", "start", "expected"),
        [
            ("Spark plans the first batch after the growth without a start for it", at(30), []),
            ("its head was not read", at(30, 4), ["loss 0..4 UNEXPLAINED"]),
        ],
    )
    def test_a_new_partition_begins_at_0(self, reason: str, start: Position, expected: list[str]) -> None:
        rows = [*self.rows(at(30), start=at(0)), *self.rows(at(40, 9), start=start, first_id=1)]

        assert shown(report(rows, [epoch(at(0))])) == expected, reason

    @pytest.mark.parametrize(
        ("reason", "announced", "expected"),
        [
            ("retention has deleted its head, and the plan accepted that", 4, ["loss 0..4 operation-2"]),
            ("the plan did not say so", None, ["loss 0..4 UNEXPLAINED"]),
        ],
    )
    def test_a_launch_begins_a_new_partition(self, reason: str, announced: int | None, expected: list[str]) -> None:
        said = () if announced is None else (Announced(TOPIC, 1, 4, lost=announced),)

        found = report(self.rows(at(30), start=at(0)), [epoch(at(0)), epoch(at(30, 4), 2, said)])

        assert shown(found) == expected, reason

    @pytest.mark.parametrize(
        ("reason", "start", "stood", "expected"),
        [
            ("Spark committed its batch: the launch goes on there", 5, 5, []),
            ("a snapshot of a part of it", 3, 3, []),
            ("a jump from there is another one", 7, 5, ["loss 5..7"]),
            ("the pipeline stood further than the batch", 9, 9, ["loss 5..9"]),
            ("nobody knows how far it came", 5, None, ["loss 0..5"]),
            ("it is read again", 0, None, []),
        ],
    )
    def test_a_cut_off_batch_that_began_a_new_partition(
        self, reason: str, start: int, stood: int | None, expected: list[str]
    ) -> None:
        """Seen with ``sink=``: the driver dies after Spark's commit, and the checkpoint is gone before the record."""
        rows = self.rows(at(10), start=at(0))
        first = replace(epoch(at(0), 1), cuts=(Cut(1, QUERY, 1, "", (OffsetRange(TOPIC, 1, 0, 5),)),))
        second = epoch(at(10, start), 2)
        known = at(10) if stood is None else at(10, stood)

        found = report(rows, [first, replace(second, claim=replace(second.claim, stood=known))])

        told = [each.removesuffix(" UNEXPLAINED") for each in shown(found)]
        assert [each for each in told if each.startswith("loss")] == expected
        assert (len(told) - len(expected), found.replayed_at_most) == (1, 5), "and what was cut off"

    def test_growth_during_a_replay(self) -> None:
        """The new partition is read for the first time while another one is replayed."""
        rewound = [
            *self.rows(at(15), start=at(10), epoch=2, first_id=4),
            *self.rows(at(25, 7), start=at(15), epoch=2, first_id=5),
        ]
        rows = [*self.rows(at(20), at(40), start=at(0)), *rewound]
        # A rewind of both while a replay still runs.
        rows += self.rows(at(45, 9), start=at(20, 3), epoch=3, first_id=6)
        third = (Announced(TOPIC, 0, 20), Announced(TOPIC, 1, 3))

        found = report(rows, [epoch(at(0)), epoch(at(10), 2, (Announced(TOPIC, 0, 10),)), epoch(at(20, 3), 3, third)])

        assert [f"{each.range} by {each.explanation[-1]}" for each in found.discontinuities] == [
            "flights[0] 10..25 by 2",
            "flights[0] 20..40 by 3",
            "flights[1] 3..7 by 3",
        ]
        assert (found.replayed, found.lost, found.skipped, found.unexplained) == (39, 0, 0, ())

    def test_a_history_has_to_begin_where_it_was_to_begin(self) -> None:
        rows = self.rows(at(10, 5), start=at(4, 0))

        assert shown(report(rows, [epoch(at(4, 0))], since=at(0))) == ["loss 0..4 UNEXPLAINED"]

    def test_the_first_launch_rewinds_a_job_that_ran_before(self) -> None:
        rows = self.rows(at(45), start=at(20))

        found = report(rows, [epoch(at(20), 1, (Announced(TOPIC, 0, 20),))], since=at(40), read_before=at(40))

        assert shown(found) == ["replay 20..40 operation-1"]

    @pytest.mark.parametrize("since", [None, Position()])
    def test_an_empty_history_has_nothing_to_say(self, since: Position | None) -> None:
        assert report([], [], since=since) == AuditReport("flights", (), (), 0, 0)


class TestRowsOfOthers:
    """Rows that no driver of this pipeline recorded, or that its active epoch did not."""

    ROWS, EPOCHS = lived(FIRST, life(40, 50, 60), life(70, announced=True, ended=CANCELLED, holder=None))

    @pytest.mark.parametrize(
        ("reason", "number", "clue"),
        [
            ("a newer epoch has recorded batches", 1, "batch 9 was recorded after epoch 2 had been claimed"),
            ("nobody could claim it", 3, "batch 9 names epoch 3, which no driver claimed"),
            ("there was no such launch", 8, "batch 9 names epoch 8, which the control store does not have"),
            ("a batch has an epoch", None, "batch 9 names no epoch"),
        ],
    )
    def test_overlapping_writers(self, reason: str, number: int | None, clue: str) -> None:
        """The job does not continue from the row; the writer's output is there twice, and no plan announced it."""
        foreign = Batch(at(65), 4_500, 9, QUERY, number, at(50), 4_500)

        found = report([*self.ROWS[:5], foreign, *self.ROWS[5:]], self.EPOCHS)

        assert [(each.kind, str(each.range), each.epoch, each.clue) for each in found.discontinuities] == [
            (DiscontinuityKind.OVERLAP, "flights[0] 50..65", number, clue)
        ], reason
        assert (found.lost, found.replayed, found.batches, found.unexplained_count) == (0, 0, 6, 15)

    def test_a_position_written_by_hand_into_the_history(self) -> None:
        """The job does not use the position, so the ranges of the job tile across it."""
        by_hand = Batch(at(15), 1_500, row_time_ms=1_500)
        the_same = Batch(at(20), 1_500, row_time_ms=1_600)

        found = report([*self.ROWS[:2], by_hand, the_same, *self.ROWS[2:]], self.EPOCHS)

        assert shown(found) == ["moved by hand 15..20 UNEXPLAINED"]
        assert (found.lost, found.replayed, found.cloudera_rows) == (0, 0, 0)

    def test_cloudera_rows_from_before_the_first_epoch_are_taken_as_they_are(self) -> None:
        rows, epochs = lived(life(8, 20))
        cloudera = [Batch(at(offset), time, row_time_ms=time) for time, offset in ((-30, 6), (-20, 10), (-10, 8))]

        found = report([*cloudera, *rows], epochs)

        assert (found.cloudera_rows, found.discontinuities, found.records) == (3, (), 12)

    @pytest.mark.parametrize(
        ("reason", "first", "expected"),
        [
            ("a plan rewound", life(2, 20, announced=True), ["replay 2..8 operation-1"]),
            ("a plan skipped", life(9, 20, announced=True), ["skip 8..9 operation-1"]),
            ("somebody moved it, or the old job still ran", life(9, 20), ["loss 8..9 UNEXPLAINED"]),
        ],
    )
    def test_the_first_epoch_goes_on_from_the_cloudera_rows(
        self, reason: str, first: Life, expected: list[str]
    ) -> None:
        rows, epochs = lived(first)

        assert shown(report([Batch(at(8), -10, row_time_ms=-10), *rows], epochs)) == expected, reason


class TestUntrackedEpochs:
    """Epochs of an untracked job that became tracked: the history has no rows of them, or rows without a start."""

    def test_their_batches_are_in_no_row(self) -> None:
        """What they read is known from the pipeline's position when the next epoch was planned."""
        first, second = epoch(at(0), tracked=False), epoch(at(60), 2, (Announced(TOPIC, 0, 60),), tracked=False)
        third = epoch(at(30), 3, (Announced(TOPIC, 0, 30),))
        second, third = (
            replace(each, claim=replace(each.claim, stood=at(stood))) for each, stood in ((second, 50), (third, 80))
        )
        rows = [Batch(at(90), 0, 0, QUERY, 3, at(30), 0)]

        found = report(rows, [first, second, third])

        # 0..50, 60..80, and then 30..90.
        assert shown(found) == ["replay 30..50 operation-3", "replay 60..80 operation-3"]
        assert (found.batches, found.records, found.skipped) == (1, 60, 0)

    def test_they_wrote_cloudera_rows(self) -> None:
        """A DStream job that this provider has managed, then a tracked job, and the DStream job again."""
        cloudera = [Batch(at(offset), offset, row_time_ms=offset) for offset in (20, 50)]
        rows = [Batch(at(60), 60, 0, QUERY, 3, at(50), 60), Batch(at(80), 80, row_time_ms=80)]
        rows.append(Batch(at(90), 90, 1, QUERY, 5, at(80), 90))
        epochs = [
            replace(each, claim=replace(each.claim, stood=stood))
            for each, stood in (
                (epoch(at(0), tracked=False), None),
                (epoch(at(20), 2, tracked=False), at(20)),
                (epoch(at(50), 3), at(50)),
                (epoch(at(60), 4, tracked=False), at(60)),
                (epoch(at(80), 5), at(80)),
            )
        ]

        found = report([*cloudera, *rows], epochs)

        assert (shown(found), found.cloudera_rows, found.batches) == ([], 3, 5)

    def test_by_epochs_each_of_them_is_a_row(self) -> None:
        epochs = [epoch(at(0), tracked=False), epoch(at(30), 2, (Announced(TOPIC, 0, 30),), tracked=False)]
        rows = [Batch(at(50), 0, epoch=1, start=at(0)), Batch(at(70), 0, epoch=2, start=at(30))]

        found = report(rows, epochs)

        assert (shown(found), found.batches) == (["replay 30..50 operation-2"], 2)


class TestWhatItDetects:
    """Mistakes planted into a history."""

    ROWS, EPOCHS = lived(FIRST, life(40, 50, 60, 70))

    @pytest.mark.parametrize(
        ("reason", "rows", "expected", "clue"),
        [
            ("two batches are missing", [0, 3, 4, 5, 6], ["loss 10..30 UNEXPLAINED"], "batch 1 to 2 is missing"),
            (
                "the last batch of an epoch is missing",
                [0, 1, 2, 4, 5, 6],
                ["loss 30..40 UNEXPLAINED"],
                "epoch 2 starts elsewhere than the rows before it end, and its plan did not announce it",
            ),
            (
                "the first batch of an epoch is missing",
                [0, 1, 2, 3, 5, 6],
                ["loss 40..50 UNEXPLAINED"],
                "batch 4 is missing",
            ),
            ("two batches changed places", [0, 1, 2, 3, 5, 4, 6], ["jump 40..50 UNEXPLAINED"] * 2, ""),
        ],
    )
    def test_a_missing_batch(self, reason: str, rows: list[int], expected: list[str], clue: str) -> None:
        found = report([self.ROWS[each] for each in rows], self.EPOCHS)

        if clue:
            assert shown(found) == expected, reason
            assert found.unexplained[0].clue.startswith(clue)
        else:
            assert found.unexplained_places, reason
            assert (found.lost, found.replayed) == (0, 0)

    @pytest.mark.parametrize(
        ("reason", "changed", "expected", "clue"),
        [
            ("to more", replace(ROWS[1], end=at(25)), ["replay 20..25 UNEXPLAINED"], "batch 1 or 2 is a changed row"),
            ("to less", replace(ROWS[1], end=at(15)), ["loss 15..20 UNEXPLAINED"], "batch 1 or 2 is a changed row"),
            ("to an earlier start", replace(ROWS[1], start=at(5)), ["replay 5..10 UNEXPLAINED"], "batch 0 or 1 is a"),
            (
                "the start of an epoch's first row",
                replace(ROWS[4], start=at(45)),
                ["loss 40..45 UNEXPLAINED"],
                "epoch 2 starts at another offset than its first row",
            ),
            (
                "the end of an epoch's last row",
                replace(ROWS[3], end=at(41)),
                ["replay 40..41 UNEXPLAINED"],
                "epoch 2 starts elsewhere than the rows before it end",
            ),
        ],
    )
    def test_a_changed_row_does_not_tile_with_its_neighbour(
        self, reason: str, changed: Batch, expected: list[str], clue: str
    ) -> None:
        rows = [changed if each.batch_id == changed.batch_id else each for each in self.ROWS]

        found = report(rows, self.EPOCHS)

        assert shown(found) == expected, reason
        assert found.unexplained[0].clue.startswith(clue)

    @pytest.mark.parametrize(
        ("reason", "last", "start", "expected"),
        [
            ("behind a skip", 30, 60, ["loss 30..40 UNEXPLAINED", "skip 40..60 operation-2"]),
            ("behind a rewind", 30, 20, ["loss 30..40 UNEXPLAINED", "replay 20..25 operation-2"]),
            ("where the rewind leads to the end of what is left", 30, 30, ["loss 30..40 UNEXPLAINED"]),
            ("a row that was changed to more", 45, 20, ["jump 40..45 UNEXPLAINED", "replay 20..25 operation-2"]),
        ],
    )
    def test_an_announced_jump_hides_no_row(self, reason: str, last: int, start: int, expected: list[str]) -> None:
        """A plan explains the jump from the pipeline's position, and not from the end of the rows."""
        rows, epochs = lived(FIRST, life(start, 25, announced=True) if start == 20 else life(start, announced=True))
        epochs[1] = replace(epochs[1], claim=replace(epochs[1].claim, stood=at(40)))
        kept = [row for row in rows if row.batch_id != 3] if last == 30 else rows
        kept = [replace(row, end=at(last)) if row.batch_id == 3 else row for row in kept]

        assert shown(report(kept, epochs)) == expected, reason

    @pytest.mark.parametrize(
        ("reason", "digest", "expected"),
        [
            ("its record has the same offsets", digest_of(ROWS[-1]), []),
            ("to more, to less or to another start", "0123456789abcdef", ["changed row 60..70 UNEXPLAINED"]),
        ],
    )
    def test_a_changed_row_at_the_end(self, reason: str, digest: str, expected: list[str]) -> None:
        """No row follows it, so nothing could fail to tile with it."""
        recorded = Recorded(2, "launch", 6, QUERY, self.ROWS[-1].row_time_ms, digest)

        assert shown(report(self.ROWS, self.EPOCHS, recorded=recorded)) == expected, reason
        assert report(self.ROWS, self.EPOCHS, recorded=Recorded(2, "launch")).discontinuities == ()

    def test_the_first_row_of_all(self) -> None:
        """It reads what no launch asked for; nothing is lost by it, and nothing is read again."""
        rows, epochs = lived(life(10, 20))

        assert shown(report([replace(rows[0], start=at(4))], epochs)) == ["jump 4..10 UNEXPLAINED"]


class TestWindow:
    """Windows over three epochs.

    The second epoch rewinds from 40 to 10 and reads on in three batches. The third one skips 50..60.
    """

    ROWS, EPOCHS = lived(
        replace(FIRST, more=(("cuts", (cut(40, 47),)), ("ended", Ended(EndedHow.DIED, 3_500)))),
        life(10, 20, 30, 50, announced=True, claimed_at_ms=3_600),
        life(60, announced=True, claimed_at_ms=9_000),
    )
    REPLAY, SKIP = "replay 10..40 operation-2", "skip 50..60 operation-3"
    CUT = "cut off 40..47 batch 4 of epoch 1 was started and not recorded"

    @pytest.mark.parametrize(
        ("since", "until", "batches", "records", "expected"),
        [
            (None, None, 7, 80, [CUT, REPLAY, SKIP]),
            ("epoch:2", None, 3, 40, [REPLAY, SKIP]),
            ("epoch:3", None, 0, 0, [SKIP]),
            (None, "epoch:1", 4, 40, [CUT]),
            ("epoch:2", "epoch:2", 3, 40, [REPLAY]),
            ("batch:5", None, 2, 30, ["replay 20..40 operation-2", SKIP]),
            ("batch:6", None, 1, 20, ["replay 30..40 operation-2", SKIP]),
            ("batch:4", "batch:5", 2, 20, [CUT, "replay 10..30 operation-2"]),
            (
                "1970-01-01T00:00:02Z",
                "1970-01-01T01:00:04+01:00",
                3,
                30,
                [CUT, "replay 10..20 operation-2"],
            ),
            ("1970-01-01T00:00:04Z", "1970-01-01T00:00:06Z", 3, 40, [REPLAY]),
            ("1970-01-01T00:00:07Z", None, 0, 0, [SKIP]),
        ],
    )
    def test_what_is_read_again_in_it_counts(
        self, since: str | None, until: str | None, batches: int, records: int, expected: list[str]
    ) -> None:
        bounds = [None if each is None else Bound.read(each) for each in (since, until)]

        found = report(self.ROWS, self.EPOCHS, window=AuditWindow(*bounds))

        assert (found.batches, found.records, shown(found)) == (batches, records, expected)

    def test_a_jump_at_its_edge_is_seen(self) -> None:
        """The row before the jump decides, although that row is not reported."""
        hole = [self.ROWS[0], self.ROWS[2]]

        found = report(hole, self.EPOCHS[:1], window=AuditWindow(Bound.read("batch:2"), Bound.read("batch:2")))

        assert (found.lost, found.batches) == (10, 1)
        assert [(each.start, each.end) for each in found.partitions] == [(20, 30)]

    def test_a_jump_before_it_is_not_reported(self) -> None:
        found = report(self.ROWS[:1] + self.ROWS[2:4], self.EPOCHS[:1], window=AuditWindow(Bound.read("batch:3")))

        assert found.unexplained_places == 0

    def test_it_does_not_end_at_a_row_of_a_foreign_writer(self) -> None:
        """Such a row may name any epoch."""
        foreign = Batch(at(15), 1_500, 9, QUERY, 8, at(10), 1_500)
        rows = [*self.ROWS[:2], foreign, *self.ROWS[2:]]

        found = report(rows, self.EPOCHS, window=AuditWindow(None, Bound.read("epoch:2")))

        assert found.batches == 7
        assert "overlapping writers 10..15 UNEXPLAINED" in shown(found)

    @pytest.mark.parametrize(
        "text", ["", "yesterday", "2026-11-01", "2026-11-01T00:00", "batch:", "batch:-1", "epoch:x"]
    )
    def test_a_bound_that_cannot_be_read_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"not a date|no time zone|no number"):
            Bound.read(text)


def long_history(length: int, *, tiles: bool) -> AuditReport:
    """Audit a history that is never in memory as a whole: two partitions, an epoch every ten batches."""

    def made() -> Iterator[Batch]:
        for number in range(length):
            start, end = at(number * 10, number), at(number * 10 + (10 if tiles else 9), number + 1)
            yield Batch(end, number, number, QUERY, number // 10 + 1, start, number)

    def epochs() -> Iterator[Epoch]:
        for number in range(length // 10):
            cuts = () if tiles else (cut(number * 100, number * 100 + 10),)
            yield epoch(at(number * 100, number * 10), number + 1, cuts=cuts)

    return audit("flights", made(), epochs())


def peak(length: int, *, tiles: bool) -> tuple[int, AuditReport]:
    tracemalloc.start()
    found = long_history(length, tiles=tiles)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most, found


def test_memory_does_not_grow_with_the_history() -> None:
    """The least of three measurements: other threads of the process allocate memory too."""
    short = [peak(300, tiles=True) for _ in range(3)]
    long = [peak(900, tiles=True) for _ in range(3)]

    assert min(most for most, _ in long) < 1.2 * min(most for most, _ in short)
    assert {(found.batches, found.discontinuities) for _, found in long} == {(900, ())}


def test_memory_grows_with_holes_and_not_with_their_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is followed by a hole. Counts are exact, though the list ends at 100 holes of each kind."""
    monkeypatch.setattr("airflow_provider_offsets.core.audit.report.LISTED", 100)

    most, found = peak(2_000, tiles=False)

    assert most < 2_000 * 1_000
    assert (found.batches, found.lost, found.replayed_at_most) == (2_000, 1_999, 2_000)
    assert (found.unexplained_places, len(found.unexplained)) == (1_999, 100)
    assert found.unlisted == 1_899 + 100
