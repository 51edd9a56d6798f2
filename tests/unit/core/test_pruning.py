"""What the retention policy does not keep, and what is kept regardless of the policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.pruning import DAY_MS, KeepPolicy, beyond_newest, prunable_snapshots
from airflow_provider_offsets.core.snapshot import Snapshot
from tests.unit.core.observations import at, checkpoint, epoch, live, running, seen, untracked

DAY = 20_000
"""Today, in days since 1970."""


def taken(day: float, moment: str = "snapshot", operation: str = "hourly", **more: object) -> Snapshot:
    """Return a snapshot from this many days ago, of a pipeline that has a position."""
    at_s = (DAY - day) * 86_400
    timestamp = datetime.fromtimestamp(at_s, UTC).isoformat()
    session = running(live((0, 100), leader_epoch=0), at(40))
    return replace(Snapshot(f"{operation}/{day}#{moment}", operation, moment, "", timestamp, session), **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    why: str
    policy: KeepPolicy
    days_that_stay: tuple[float, ...]
    given: tuple[Snapshot, ...] = tuple(taken(day) for day in (1, 2, 3, 4, 5))
    epochs: tuple[Epoch, ...] = field(default_factory=lambda: (epoch(at(0)),))
    is_tracked: bool = True


EMPTY = seen(live((0, 100)))
OTHER_TOPIC = running(live((0, 100), topic_id="id-2"), at(40))
ONE = running(live((0, 100)), at(40), epoch=epoch(at(0)))
KNOWS_TWO = running(live((0, 100), (0, 100)), at(40, 60))
LATER = untracked(live((0, 100), (0, 100)), at(40), store="zookeeper_old", epoch=epoch(at(0, 0), 2))
UNLAUNCHED = seen(live((0, 100)), checkpoint=checkpoint(at(40)))
NINTH = seen(live((0, 100)), checkpoint=checkpoint(at(40), 9))
GREATER = running(live((0, 100), leader_epoch=7), at(40))
CASES = [
    Case("no policy keeps everything", KeepPolicy(), (1, 2, 3, 4, 5)),
    Case("a policy for something else too", KeepPolicy(checkpoints=2, versions=2), (1, 2, 3, 4, 5)),
    Case("the newest ones, however old", KeepPolicy(snapshots=2), (1, 2)),
    Case("those of so many days, however many", KeepPolicy(days=3), (1, 2)),
    Case("what either keeps is kept", KeepPolicy(snapshots=1, days=4), (1, 2, 3)),
    Case("the last good one, though all are old", KeepPolicy(days=1), (10,), given=(taken(10), taken(11))),
    Case(
        "good is what has a position",
        KeepPolicy(snapshots=1),
        (1, 2),
        given=(taken(1, seen=EMPTY), taken(2), taken(3)),
    ),
    Case(
        "and what is of the topic that the job reads",
        KeepPolicy(snapshots=1),
        (1, 2),
        given=(taken(1, seen=OTHER_TOPIC), taken(2), taken(3)),
    ),
    Case(
        "the newest one that knows a partition whose stored offset is gone",
        KeepPolicy(snapshots=1),
        (1, 3),
        given=(taken(1, seen=ONE), taken(2, seen=ONE), taken(3, seen=KNOWS_TWO), taken(4, seen=KNOWS_TWO)),
    ),
    Case(
        "not one from before a launch that names the partition: it is outdated",
        KeepPolicy(snapshots=1),
        (1,),
        given=(taken(1, seen=LATER), taken(2), taken(3, seen=KNOWS_TWO)),
        epochs=(epoch(at(0), last_batch_id=4), epoch(at(0, 0), 2)),
    ),
    Case(
        "before the first launch, the oldest one: it alone knows which topic the stored offsets are of",
        KeepPolicy(snapshots=1),
        (1, 5),
        given=tuple(taken(day, seen=UNLAUNCHED) for day in (1, 2, 3, 4, 5)),
        epochs=(),
    ),
    Case(
        "what alone knows the greatest batch id: without it, ids begin again once the checkpoint is gone",
        KeepPolicy(snapshots=1),
        (1, 3, 5),
        given=(*(taken(day, seen=UNLAUNCHED) for day in (1, 2)), taken(3, seen=NINTH), taken(4, seen=NINTH), taken(5)),
        epochs=(),
    ),
    Case(
        "which a launch may know too",
        KeepPolicy(snapshots=1),
        (1,),
        given=(taken(1), taken(2, seen=running(live((0, 100)), at(40), checkpoint=checkpoint(at(40), 9)))),
        epochs=(epoch(at(0), last_batch_id=9),),
    ),
    Case(
        "what a person has named",
        KeepPolicy(snapshots=1),
        (1, 4),
        given=(taken(1), taken(3), taken(4, label="before-2.1"), taken(5)),
    ),
    Case(
        "what the audit of an untracked job goes by",
        KeepPolicy(snapshots=1),
        (1, 4),
        given=(taken(1), taken(3), taken(4, "stopped", "operation-1"), taken(5, "before", "operation-1")),
        is_tracked=False,
    ),
    Case(
        "which a tracked job does not need: it has its history",
        KeepPolicy(snapshots=1),
        (1,),
        given=(taken(1), taken(3), taken(4, "stopped", "operation-1")),
    ),
    Case(
        "but the audit of its untracked epochs still goes by snapshots",
        KeepPolicy(snapshots=1),
        (1, 4),
        given=(taken(1), taken(3), taken(4, "stopped", "operation-1"), taken(5, "before", "operation-1")),
        epochs=(epoch(at(0), tracked=False), epoch(at(40), 2)),
    ),
    Case(
        "and what an operation has taken of the stopped job that has not started its epoch yet",
        KeepPolicy(snapshots=1),
        (1, 4),
        given=(taken(1), taken(3), taken(4, "stopped", "operation-2")),
        is_tracked=False,
    ),
    Case(
        "what shows that a log was truncated since",
        KeepPolicy(snapshots=1),
        (1, 4),
        given=(taken(1), taken(3), taken(4, seen=GREATER), taken(5)),
    ),
    Case(
        "but not once the job was started again: the start has settled that",
        KeepPolicy(snapshots=1),
        (1,),
        given=(taken(1), taken(4, seen=GREATER)),
        epochs=(epoch(at(0)), epoch(at(0), 2)),
    ),
    Case("nothing there is nothing to remove", KeepPolicy(snapshots=1), (), given=()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_what_stays(case: Case) -> None:
    gone = prunable_snapshots(case.given, case.epochs, case.policy, at_ms=DAY * DAY_MS, is_tracked=case.is_tracked)

    stay = [each for each in case.given if each not in gone]
    assert stay == [each for each in case.given if (DAY * DAY_MS - each.taken_ms) / DAY_MS in case.days_that_stay]
    assert list(gone) == sorted(gone, key=lambda each: each.taken_ms), "the oldest first"


@given(
    days=st.lists(st.integers(0, 400), unique=True, max_size=12),
    count=st.none() | st.integers(1, 10),
    age=st.none() | st.integers(1, 300),
)
def test_a_law_the_last_good_one_stays_and_pruning_again_changes_nothing(
    days: list[int], count: int | None, age: int | None
) -> None:
    policy, given_ = KeepPolicy(snapshots=count, days=age), [taken(day) for day in days]

    def pruned(there: list[Snapshot]) -> list[Snapshot]:
        gone = prunable_snapshots(there, [epoch(at(0))], policy, at_ms=DAY * DAY_MS, is_tracked=True)
        return [each for each in there if each not in gone]

    stay = pruned(given_)

    assert pruned(stay) == stay
    assert len(stay) >= min(len(given_), count or 1)
    if given_:
        assert max(given_, key=lambda each: each.taken_ms) in stay


@pytest.mark.parametrize(
    ("count", "gone"),
    [(None, ""), (5, ""), (4, ""), (3, "a"), (2, "ab"), (1, "ab")],
    ids=["no limit", "more than there are", "as many", "one more", "two more", "never the one before the newest"],
)
def test_what_is_beyond_the_newest(count: int | None, gone: str) -> None:
    assert beyond_newest("abcd", count) == tuple(gone)
