"""A pipeline's position, and snapshots that know whether they are complete."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Cut
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.snapshot import KnownPosition, Observation, Snapshot
from tests.unit.core.observations import QUERY, TOPIC, at, checkpoint, epoch, live, processed, running, seen, untracked

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
CASES += [
    Case(
        "Spark committed a batch that is not recorded: the record has its position, until it is reconciled",
        running(TWO, at(5, 6), checkpoint=checkpoint(at(9, 9), 5)),
        at(5, 6),
    ),
    Case(
        "an epoch from before the job was tracked: it recorded nothing, so its checkpoint tells",
        running(TWO, at(5, 6), epoch=epoch(at(2, 2), tracked=False), processed=None),
        at(5, 6),
    ),
    Case(
        "the same, and rows of an earlier tracked epoch: they are older",
        running(TWO, at(5, 6), epoch=epoch(at(2, 2), 2, tracked=False), processed=processed(at(3, 3))),
        at(5, 6),
    ),
    Case(
        "the same, and its checkpoint is gone: nothing tells more than where it was launched",
        running(TWO, at(5, 6), epoch=epoch(at(2, 2), tracked=False), processed=None, checkpoint=None),
        at(2, 2),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_the_stored_position(case: Case) -> None:
    assert case.seen.stored == case.stored


def test_a_batch_that_may_have_started_is_in_flight() -> None:
    ranges = (OffsetRange(TOPIC, 0, 5, 9),)

    assert running(TWO, at(5, 6), cut=Cut(5, QUERY, 1, "", ranges)).in_flight == ranges
    assert running(TWO, at(5, 6)).in_flight == ()


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


def test_a_new_partition_in_the_planned_batch_of_an_untracked_job_is_in_flight() -> None:
    """The launch has it at 0, and the checkpoint has not committed it: the planned batch shows what it reads."""
    planned = checkpoint(at(5), planned_batch_id=5, planned=at(8, 3))
    known = KnownPosition("the launch of epoch 1", at(5, 0))
    stopped = untracked(TWO, at(5), checkpoint=planned, known=(known,))

    assert stopped.in_flight == (OffsetRange(TOPIC, 0, 5, 8), OffsetRange(TOPIC, 1, 0, 3))
