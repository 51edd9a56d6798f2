"""Where a pipeline stands, and snapshots that know whether they are whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import BegunBatch
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.snapshot import Observation, Snapshot
from tests.unit.core.worlds import QUERY, TOPIC, at, checkpoint, epoch, live, processed, running, seen

TWO = live((0, 100), (0, 100))


@dataclass(frozen=True)
class Case:
    why: str
    seen: Observation
    stored: Position | None


CASES = [
    Case("before the first start: nowhere, which is not offset 0", seen(TWO), None),
    Case("a job that was never managed: its checkpoint", seen(TWO, checkpoint=checkpoint(at(1, 2))), at(1, 2)),
    Case(
        "a history without epochs rules over the checkpoint",
        seen(TWO, checkpoint=checkpoint(at(1, 2)), processed=processed(at(3, 4), None, None)),
        at(3, 4),
    ),
    Case("the last batch of the newest epoch", running(TWO, at(5, 6)), at(5, 6)),
    Case(
        "a new epoch without batches: where it begins, not where the one before ended",
        running(TWO, at(5, 6), epoch=epoch(at(2, 2), 2)),
        at(2, 2),
    ),
    Case("a batch that names fewer partitions than its epoch", running(TWO, at(5), epoch=epoch(at(0, 2))), at(5, 2)),
]
AHEAD = BegunBatch(5, QUERY, 2_000, ())
FIFTH = checkpoint(at(9, 9), 5)
CASES += [
    Case(
        "a native sink's batch that Spark committed and nobody recorded",
        running(TWO, at(5, 6), checkpoint=FIFTH, begun=AHEAD),
        at(9, 9),
    ),
    Case(
        "the first one of all, noted before its query had an id",
        running(TWO, at(0, 0), checkpoint=checkpoint(at(9, 9), 0), processed=None, begun=BegunBatch(0, "", 2_000, ())),
        at(9, 9),
    ),
    Case(
        "one that is recorded too",
        running(TWO, at(9, 9), checkpoint=FIFTH, processed=processed(at(9, 9), 5), begun=AHEAD),
        at(9, 9),
    ),
    Case("one that is planned and not committed", running(TWO, at(5, 6), begun=AHEAD), at(5, 6)),
    Case(
        "a running job whose history was read later than its checkpoint",
        running(TWO, at(5, 6), checkpoint=FIFTH, processed=processed(at(10, 10), 6), begun=AHEAD),
        at(10, 10),
    ),
    Case(
        "a function's batch that Spark committed and nobody recorded: nobody knows of its output",
        running(TWO, at(5, 6), checkpoint=FIFTH, begun=BegunBatch(5, QUERY, 2_000, (OffsetRange(TOPIC, 0, 5, 9),))),
        at(5, 6),
    ),
    Case(
        "a new epoch that was rewound and has only run the batch without records",
        running(TWO, at(5, 6), epoch=epoch(at(2, 2), 2), checkpoint=checkpoint(at(2, 2), 5), begun=AHEAD),
        at(2, 2),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_where_it_stands(case: Case) -> None:
    assert case.seen.stored == case.stored


def test_what_was_begun_and_not_recorded_is_in_flight() -> None:
    ranges = (OffsetRange(TOPIC, 0, 5, 9),)

    assert running(TWO, at(5, 6), begun=BegunBatch(5, QUERY, 2_000, ranges)).in_flight == ranges
    assert running(TWO, at(5, 6), begun=BegunBatch(4, QUERY, 2_000, ranges)).in_flight == ()
    assert running(TWO, at(5, 6), begun=BegunBatch(4, "query-2", 2_000, ranges)).in_flight == ranges
    assert running(TWO, at(5, 6)).in_flight == ()


def test_a_batch_that_was_noted_ahead_is_in_flight_once_it_is_planned() -> None:
    planned = checkpoint(at(5, 6), planned_batch_id=5, planned=at(9, 6))

    assert running(TWO, at(5, 6), checkpoint=planned, begun=AHEAD).in_flight == (OffsetRange(TOPIC, 0, 5, 9),)
    assert running(TWO, at(5, 6), begun=AHEAD).in_flight == ()
    assert running(TWO, at(5, 6), checkpoint=FIFTH, begun=AHEAD).in_flight == ()


SNAPSHOT = Snapshot(
    "s-1", "operation-1", "before the upgrade", "upgrade", "2025-01-01T00:00:00Z", running(TWO, at(5, 6))
)


def test_a_sealed_snapshot_is_whole_and_stays_so_through_a_store() -> None:
    sealed = SNAPSHOT.sealed()

    assert not SNAPSHOT.is_whole
    assert sealed.is_whole
    assert sealed.sealed() == sealed
    assert codec.loads(Snapshot, codec.dumps(sealed)).is_whole


def test_one_changed_offset_breaks_the_seal() -> None:
    sealed = SNAPSHOT.sealed()
    text = codec.dumps(sealed)

    assert not replace(sealed, seen=running(TWO, at(5, 7))).is_whole
    assert not codec.loads(Snapshot, text.replace('"1":6', '"1":7', 1)).is_whole
    assert not replace(sealed, reason="another").is_whole


def test_the_position_of_a_snapshot_before_the_first_start_is_empty() -> None:
    assert replace(SNAPSHOT, seen=seen(TWO)).position == Position()
