"""What is known of a missing position, and the rule that neither a first start nor a fallback replaces it.

A table of states with a reason per row, the ways out of each refusal, and laws over random states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Cut, Ended, EndedHow, Epoch
from airflow_provider_offsets.core.known import (
    adopted_batch,
    evidence,
    known_batch,
    known_offsets,
    left_in_removed_topics,
    needs_records,
    with_records,
)
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicIdentity
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.choice import weigh
from airflow_provider_offsets.core.restart.comparison import resolve_conflicts
from airflow_provider_offsets.core.restart.model import OnConflict, RestartForm, RestartPlan, RestartPolicy
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.selectors.parse import parse_start
from airflow_provider_offsets.core.snapshot import (
    UNSTARTED,
    WHEN_STOPPED,
    CheckpointState,
    KeptPosition,
    Observation,
    Snapshot,
)
from tests.unit.core.observations import (
    QUERY,
    TOPIC,
    FakeSources,
    at,
    checkpoint,
    epoch,
    live,
    processed,
    seen,
)

GONE, SKIP, LOSS = ProblemKind.POSITION_GONE, ProblemKind.SKIP, ProblemKind.LOSS
RECREATED, CLUSTER = ProblemKind.TOPIC_RECREATED, ProblemKind.WRONG_CLUSTER
ENDED = Ended(EndedHow.STOPPED, 1)
TWO = live((0, 150), (0, 150))
WEEK = "a week after its last member left"
BOTH = at(100, 100)
OTHER = "cancelled"
ZOO = {"store": "zookeeper_old"}


def two_topics(*ids: str) -> LiveTopics:
    """Return ``flights`` with two partitions of 150 records and ``cancelled`` with one; ``ids`` are topic ids."""
    first, second = ids or ("id-1", "id-2")
    return LiveTopics(
        "cluster-1",
        (
            LiveTopic(TOPIC, first, (LivePartition(0, 150), LivePartition(0, 150))),
            LiveTopic(OTHER, second, (LivePartition(0, 150),)),
        ),
    )


def kept(store: str, position: Position | None, expires: str = "") -> KeptPosition:
    return KeptPosition(store, store.partition("_")[0], position, expires=expires)


def untracked(there: LiveTopics, *stores: KeptPosition, **more: Any) -> Observation:
    """Return an untracked job that is managed from the first of ``stores``, and does not run now."""
    first = stores[0]
    if first.kind == "checkpoint" and first.position is not None:
        more.setdefault("checkpoint", checkpoint(first.position))
    return seen(there, kept=stores, **{"ended": ENDED, **more} if "epoch" in more else more)


def tracked(there: LiveTopics, *, history: Position | None, spark: Position | None, **more: Any) -> Observation:
    stores = (kept("history", history), kept("checkpoint", spark), *more.pop("others", ()))
    return seen(
        there,
        kept=stores,
        checkpoint=None if spark is None else checkpoint(spark),
        processed=None if history is None else processed(history, epoch=more.pop("row_epoch", 1)),
        **{"ended": ENDED, **more} if "epoch" in more else more,
    )


def taken(
    of: Observation | Position,
    id_: str = "rest",
    *,
    day: int = 1,
    moment: str = WHEN_STOPPED,
    there: LiveTopics = TWO,
    number: int = 0,
) -> Snapshot:
    """Return a snapshot of that position, in the epoch of that number."""
    if isinstance(of, Position):
        of = untracked(there, kept("checkpoint", of), **({"epoch": epoch(at(0, 0), number)} if number else {}))
    return Snapshot(f"{id_}#{moment}", id_, moment, "", f"2026-11-{day:02}T00:00:00Z", of).sealed()


def plan(
    start: str,
    now: Observation,
    snapshots: Sequence[Snapshot] = (),
    epochs: Sequence[Epoch] = (),
    *,
    history: Batch | None = None,
    policy: RestartPolicy | None = None,
    **sources: Any,
) -> RestartPlan:
    """Return the plan, as ``operations.planning`` makes it."""
    policy = policy or RestartPolicy()
    if needs_records(now):
        now = with_records(now, snapshots, epochs, () if history is None else (history,))
    there = FakeSources(resolve_conflicts(now, policy.on_conflict)[0], snapshots=tuple(snapshots), **sources)
    asked = parse_start(start)
    choice = weigh(asked, asked.choose(now, there), now, policy.on_conflict)
    made = plan_restart(
        choice.wanted,
        now,
        policy,
        selector=start,
        known_batch=known_batch(now, snapshots, epochs),
        chosen_by=choice.chosen_by,
        named=choice.named,
    )
    return replace(made, problems=(*choice.problems, *made.problems))


@dataclass(frozen=True)
class Case:
    """A state, a start, and the expected result."""

    why: str
    start: str
    now: Observation
    problems: tuple[ProblemKind, ...] = ()
    names: tuple[str, ...] = ()
    """Text of the first problem."""
    snapshots: tuple[Snapshot, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    history: Batch | None = None
    starts: Position | None = None
    replay: int = 0
    skipped: int = 0
    lost: int = 0
    replay_at_most: int = 0
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    sources: dict[str, Any] = field(default_factory=dict)

    def plan(self) -> RestartPlan:
        return plan(
            self.start,
            self.now,
            self.snapshots,
            self.epochs,
            history=self.history,
            policy=self.policy,
            **self.sources,
        )


REST = taken(BOTH)
FOLDER_GONE = untracked(TWO, kept("checkpoint", None))
GROUP_GONE = untracked(TWO, kept("kafka_default", None, WEEK))
STOOD = "flights[0] was at 100 according to snapshot rest#stopped of 2026-11-01T00:00:00Z"
B1: dict[str, Any] = {"now": FOLDER_GONE, "snapshots": (REST,)}
_SECOND = epoch(at(50, 50), 2, tracked=False)
REWOUND = replace(_SECOND, claim=replace(_SECOND.claim, stood=BOTH))
"""Rewound from 100 to 50 in both partitions."""
AGAIN = replace(_SECOND, claim=replace(_SECOND.claim, number=3, stood=at(50, 50)))
FURTHER = replace(_SECOND, claim=replace(_SECOND.claim, number=3, start=at(60, 60), stood=at(60, 60)))
REWOUND_ONCE: dict[str, Any] = {"epoch": REWOUND}
WITH_OTHER = BOTH.updated(at(70, topic=OTHER))
OF_BOTH: dict[str, Any] = {"identity": two_topics().identity}
_OTHER = epoch(at(0, 0).updated(at(40, topic=OTHER)), tracked=False, **OF_BOTH)
REWOUND_OTHER = replace(_OTHER, claim=replace(_OTHER.claim, stood=WITH_OTHER))
"""Rewound from 70 to 40 in the other topic."""

CASES = [
    # The whole position is missing, and a snapshot has it.
    Case("a first start would replay all of it", "committed", problems=(GONE,), names=(STOOD,), replay=200, **B1),
    Case(
        "a fallback is for what nobody has read: it passes over the rest",
        "committed | latest",
        problems=(GONE, SKIP),
        names=(STOOD, "would start at 150"),
        skipped=100,
        **B1,
    ),
    Case("a fallback that replays is refused as well", "committed | earliest", problems=(GONE,), replay=200, **B1),
    Case(
        "accepting the count does not make a fallback a choice",
        "committed | latest",
        problems=(GONE,),
        skipped=100,
        policy=RestartPolicy(accept_skipped={TOPIC: 100}),
        **B1,
    ),
    Case(
        "a fallback of a fallback",
        "shift:-10 | group:other | latest",
        problems=(GONE, SKIP),
        skipped=100,
        **B1,
    ),
    Case(
        "a fallback behind a group that knows nothing",
        "group:other | latest",
        problems=(GONE, SKIP),
        skipped=100,
        **B1,
    ),
    Case(
        "a group that lost its offsets by itself",
        "committed | latest",
        GROUP_GONE,
        (GONE, SKIP),
        (WEEK,),
        (REST,),
        skipped=100,
    ),
    Case(
        "the same without a fallback: what is known is named",
        "committed",
        GROUP_GONE,
        (GONE,),
        (STOOD,),
        (REST,),
        replay=200,
    ),
    Case(
        "a shift has nothing to shift from",
        "shift:-10",
        problems=(GONE,),
        names=(STOOD,),
        replay=200,
        **B1,
    ),
    # A person has named a start; the counts are relative to the known position.
    Case("all again", "earliest", starts=at(0, 0), replay=200, **B1),
    Case("unread records are skipped by name, and not accepted", "latest", problems=(SKIP,), skipped=100, **B1),
    Case(
        "unread records are skipped by name, and accepted by count",
        "latest",
        skipped=100,
        policy=RestartPolicy(accept_skipped={TOPIC: 100}),
        **B1,
    ),
    Case("the snapshot", "snapshot:rest#stopped", starts=BOTH, **B1),
    Case("the snapshot, where the stores tell nothing", "committed | snapshot:rest#stopped", starts=BOTH, **B1),
    Case(
        "an older snapshot as a fallback is another place than the known one",
        "committed | snapshot:old#stopped",
        FOLDER_GONE,
        (GONE,),
        ("flights[1] was at 100 according to snapshot rest#stopped",),
        (taken(at(60, 60), "old"), taken(BOTH, day=2)),
        replay=80,
    ),
    Case(
        "an older snapshot by name is a rewind, and counted",
        "snapshot:old#stopped",
        FOLDER_GONE,
        snapshots=(taken(at(60, 60), "old"), taken(BOTH, day=2)),
        starts=at(60, 60),
        replay=80,
    ),
    Case("exact offsets", 'offsets:{"flights":{"0":100,"1":90}}', starts=at(100, 90), replay=10, **B1),
    Case(
        "exact offsets, past what was read",
        'offsets:{"flights":{"0":100,"1":130}}',
        problems=(SKIP,),
        starts=at(100, 130),
        skipped=30,
        **B1,
    ),
    Case(
        "exact offsets of one partition, and the rest is left to the stores",
        'offsets:{"flights":{"0":100}} | committed',
        problems=(GONE,),
        names=("has no offset of 1 partition(s)", "flights[1] was at 100"),
        replay=100,
        **B1,
    ),
    Case(
        "by record time",
        "timestamp:1970-01-01T00:00:00.007Z",
        starts=at(90, 100),
        replay=10,
        sources={"times": {7: (90, 100)}},
        **B1,
    ),
    Case(
        "by record time, as a fallback",
        "committed | timestamp:1970-01-01T00:00:00.007Z",
        problems=(GONE,),
        starts=at(90, 100),
        replay=10,
        sources={"times": {7: (90, 100)}},
        **B1,
    ),
    # Retention continues while nobody knows the position.
    Case(
        "what retention took after the known offset is lost, and not a first start's to pass over",
        "committed",
        untracked(live((120, 150), (0, 150)), kept("checkpoint", None)),
        (GONE, LOSS),
        ("flights[0] was at 100", "would start at 120"),
        (REST,),
        replay=100,
        lost=20,
    ),
    # Two stores, and a rewind that one of them may not have seen.
    Case(
        "a second store that may be from before a rewind is not believed: the launch is",
        "committed",
        untracked(TWO, kept("kafka_default", None, WEEK), kept("zookeeper_old", BOTH), **REWOUND_ONCE),
        (GONE,),
        ("flights[0] was at least at 50 according to the launch of epoch 2",),
        epochs=(REWOUND,),
        starts=at(0, 0),
        replay=100,
        replay_at_most=200,
    ),
    Case(
        "nor is it if the job was launched again before it had read anything",
        "committed",
        untracked(TWO, kept("kafka_default", None, WEEK), kept("zookeeper_old", BOTH), epoch=AGAIN),
        (GONE,),
        ("flights[0] was at least at 50 according to the launch of epoch 3",),
        epochs=(REWOUND, AGAIN),
        starts=at(0, 0),
        replay=100,
        replay_at_most=200,
    ),
    Case(
        "if it had read something, the second store has moved since",
        "committed",
        untracked(TWO, kept("kafka_default", None, WEEK), kept("zookeeper_old", BOTH), epoch=FURTHER),
        (GONE,),
        ("flights[0] was at 100 according to store zookeeper_old",),
        epochs=(REWOUND, FURTHER),
        starts=at(0, 0),
        replay=200,
        replay_at_most=100,
    ),
    Case(
        "a second store that is further than before the rewind has moved since",
        "committed",
        untracked(TWO, kept("kafka_default", None, WEEK), kept("zookeeper_old", at(110, 110)), **REWOUND_ONCE),
        (GONE,),
        ("flights[0] was at 110 according to store zookeeper_old",),
        epochs=(REWOUND,),
        starts=at(0, 0),
        replay=220,
        replay_at_most=80,
    ),
    # One topic of two, one partition of two.
    Case(
        "the offsets of one topic were deleted",
        "committed",
        untracked(two_topics(), kept("kafka_default", BOTH)),
        (GONE,),
        ("kafka_default has no offset of 1 partition(s)", "cancelled[0] was at 70 according to snapshot rest#stopped"),
        (taken(BOTH.updated(at(70, topic=OTHER)), there=two_topics()),),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=70,
        replay_at_most=100,
    ),
    Case(
        "the offsets of one topic were deleted, and its fallback would pass over the rest",
        "committed | latest",
        untracked(two_topics(), kept("kafka_default", BOTH)),
        (GONE, SKIP),
        ("cancelled[0] was at 70",),
        (taken(BOTH.updated(at(70, topic=OTHER)), there=two_topics()),),
        skipped=80,
        replay_at_most=100,
    ),
    Case(
        "a topic that was never read is a first start beside one that was",
        "committed | latest",
        untracked(two_topics(), kept("kafka_default", BOTH)),
        snapshots=(taken(BOTH, there=two_topics()),),
        starts=BOTH.updated(at(150, topic=OTHER)),
        replay_at_most=100 + 150,
    ),
    Case(
        "a start that says nothing of the topic: named once, with what is known of it",
        "snapshot:half#stopped",
        untracked(two_topics(), kept("kafka_default", BOTH)),
        (GONE,),
        ("cancelled[0] was at 70 according to snapshot rest#stopped",),
        (
            taken(BOTH.updated(at(70, topic=OTHER)), there=two_topics()),
            taken(at(90, 90), "half", day=2, there=two_topics()),
        ),
        starts=at(90, 90).updated(at(0, topic=OTHER)),
        replay=20 + 70,
        replay_at_most=100,
    ),
    Case(
        "the last partition of a topic is not new if something knows it",
        "committed",
        untracked(TWO, kept("zookeeper_old", at(100))),
        (GONE,),
        ("flights[1] was at 100",),
        (REST,),
        starts=at(100, 0),
        replay=100,
        replay_at_most=50,
    ),
    Case(
        "the last partition is not new for a time either: what the time says counts",
        "timestamp:1970-01-01T00:00:00.007Z",
        untracked(TWO, kept("zookeeper_old", at(100))),
        snapshots=(REST,),
        starts=at(90, 95),
        replay=10 + 5,
        replay_at_most=50,
        sources={"times": {7: (90, 95)}},
    ),
    Case(
        "the last partition, from the snapshot that knows it",
        "committed | snapshot:rest#stopped",
        untracked(TWO, kept("zookeeper_old", at(120))),
        snapshots=(REST,),
        starts=at(120, 100),
        replay_at_most=30,
    ),
    Case(
        "a hole is named with what is known of it, and once",
        "committed",
        untracked(TWO, kept("zookeeper_old", at(None, 100))),
        (GONE,),
        ("flights[0] was at 100",),
        (REST,),
        replay=100,
        replay_at_most=50,
    ),
    Case(
        "a hole that nothing knows stays a hole",
        "committed",
        untracked(TWO, kept("zookeeper_old", at(None, 100))),
        (ProblemKind.PARTITION_MISSING,),
        starts=at(0, 100),
        replay_at_most=150 + 50,
    ),
    Case(
        "a partition that was added after the snapshot is new",
        "committed | snapshot:rest#stopped",
        untracked(live((0, 150), (0, 150), (0, 9)), kept("checkpoint", None)),
        snapshots=(REST,),
        starts=at(100, 100, 0),
    ),
    Case(
        "a partition that was added after the snapshot, and a named end: its records are counted too",
        "latest",
        untracked(live((0, 150), (0, 150), (0, 9)), kept("checkpoint", None)),
        (SKIP,),
        snapshots=(REST,),
        skipped=50 + 50 + 9,
    ),
    # Which record is believed.
    Case(
        "of several snapshots the newest by time",
        "committed",
        FOLDER_GONE,
        (GONE,),
        ("flights[0] was at 90 according to snapshot new#stopped",),
        (taken(BOTH, "old"), taken(at(90, 95), "new", day=2), taken(at(80, 80), "a-middle", day=1)),
        replay=185,
    ),
    Case(
        "each partition by the newest snapshot that names it",
        "committed",
        FOLDER_GONE,
        (GONE,),
        (
            "flights[0] was at 110 according to snapshot new#stopped",
            "flights[1] was at 100 according to snapshot old#stopped",
        ),
        (taken(BOTH, "old"), taken(at(110), "new", day=2)),
        replay=210,
    ),
    Case(
        "a snapshot from before the newest start says less than the start, which was a rewind",
        "committed",
        untracked(TWO, kept("kafka_default", None), epoch=epoch(at(10, 10), 2)),
        (GONE,),
        ("flights[0] was at least at 10 according to the launch of epoch 2",),
        (taken(BOTH, number=1),),
        (epoch(at(0, 0)), epoch(at(10, 10), 2)),
        replay=20,
        replay_at_most=140 + 140,
    ),
    Case(
        "a snapshot from after the newest start says more",
        "committed",
        untracked(TWO, kept("kafka_default", None), epoch=epoch(at(10, 10), 2)),
        (GONE,),
        ("flights[0] was at 40 according to snapshot rest#stopped",),
        (taken(BOTH, "old", number=1, day=9), taken(at(40, 40), number=2)),
        (epoch(at(0, 0)), epoch(at(10, 10), 2)),
        replay=80,
    ),
    Case(
        "a launch that was cancelled said nothing",
        "committed",
        untracked(TWO, kept("kafka_default", None), epoch=epoch(at(0, 0))),
        (GONE,),
        ("flights[0] was at 100 according to snapshot rest#stopped",),
        (taken(BOTH, number=1),),
        (epoch(at(0, 0)), replace(epoch(at(10, 10), 2), holder=None)),
        replay=200,
    ),
    Case(
        "a snapshot of a running job knows the least: the rest of the topic may have been read",
        "snapshot:before#before",
        FOLDER_GONE,
        snapshots=(taken(BOTH, "before", moment="before"),),
        starts=BOTH,
        replay_at_most=50 + 50,
    ),
    Case(
        "a launch alone, where the job has run nobody knows how far: the least it has read is no exact place",
        "committed | earliest",
        untracked(TWO, kept("checkpoint", None), epoch=epoch(at(0, 0))),
        (GONE,),
        ("flights[0] was at least at 0 according to the launch of epoch 1",),
        epochs=(epoch(at(0, 0)),),
        replay_at_most=300,
    ),
    Case(
        "an empty topic that was launched at 0 and that the store never wrote goes on at 0",
        "committed",
        untracked(two_topics(), kept("zookeeper_old", BOTH), epoch=epoch(BOTH.updated(at(0, topic=OTHER)))),
        epochs=(epoch(BOTH.updated(at(0, topic=OTHER)), identity=two_topics().identity),),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay_at_most=100 + 150,
    ),
    Case(
        "the same with a fallback, which would pass over what came since",
        "committed | latest",
        untracked(two_topics(), kept("zookeeper_old", BOTH), epoch=epoch(BOTH.updated(at(0, topic=OTHER)))),
        (GONE, SKIP),
        ("cancelled[0] was at least at 0 according to the launch of epoch 1",),
        epochs=(epoch(BOTH.updated(at(0, topic=OTHER)), identity=two_topics().identity),),
        skipped=150,
        replay_at_most=100 + 150,
    ),
    # Other stores of the pipeline.
    Case(
        "another store knows it, and no first start takes its place, whatever rules",
        "committed",
        untracked(TWO, kept("zookeeper_old", None), kept("kafka_default", BOTH)),
        (GONE,),
        ("zookeeper_old has no offset of 2 partition(s)", "flights[0] was at 100 according to store kafka_default"),
        policy=RestartPolicy(on_conflict=OnConflict.AUTHORITATIVE_STORE),
        replay=200,
        replay_at_most=50 + 50,
    ),
    Case(
        "another store knows it, and the smallest offset of all was asked for",
        "committed",
        untracked(TWO, kept("zookeeper_old", None), kept("kafka_default", at(90, 90))),
        snapshots=(REST,),
        starts=at(90, 90),
        replay=20,
        policy=RestartPolicy(on_conflict=OnConflict.SMALLEST),
    ),
    Case(
        "another store knows one partition",
        "committed",
        untracked(TWO, kept("zookeeper_old", at(100)), kept("kafka_default", BOTH)),
        (GONE,),
        ("flights[1] was at 100 according to store kafka_default",),
        replay=100,
        replay_at_most=50 + 50,
    ),
    Case(
        "another store has a new partition at 0, from which nothing was read",
        "committed",
        untracked(TWO, kept("zookeeper_old", at(100)), kept("kafka_default", at(100, 0))),
        starts=at(100, 0),
        replay_at_most=50 + 150,
    ),
    # Tracked jobs.
    Case(
        "tracked, before the first start: the adopted checkpoint is gone",
        "committed | latest",
        tracked(TWO, history=None, spark=None),
        (GONE, SKIP),
        (f"history has no offset of 2 partition(s) that the pipeline has read: {STOOD}",),
        (REST,),
        skipped=100,
    ),
    Case(
        "tracked: the rows and facts of the epoch are gone, and Spark's log is not",
        "committed",
        tracked(TWO, history=None, spark=BOTH, epoch=epoch(at(0, 0), last_batch_id=4)),
        (GONE,),
        (
            "history does not show how far epoch 1 has read 2 partition(s)",
            "flights[0] was at 100 according to the checkpoint",
        ),
        epochs=(epoch(at(0, 0), last_batch_id=4),),
        starts=at(0, 0),
        replay=200,
    ),
    Case(
        "tracked: the rows and facts of the epoch are gone, and the person goes on where Spark did",
        'offsets:{"flights":{"0":100,"1":100}}',
        tracked(TWO, history=None, spark=BOTH, epoch=epoch(at(0, 0), last_batch_id=4)),
        epochs=(epoch(at(0, 0), last_batch_id=4),),
        starts=BOTH,
    ),
    Case(
        "tracked: all is gone but the launch, and how far it came nobody knows",
        "committed",
        tracked(TWO, history=None, spark=None, epoch=epoch(at(0, 0), last_batch_id=4)),
        (GONE,),
        ("flights[0] was at least at 0 according to the launch of epoch 1",),
        epochs=(epoch(at(0, 0), last_batch_id=4),),
        replay_at_most=300,
    ),
    Case(
        "tracked: a snapshot that was taken after the loss repeats the launch, and knows nothing",
        "committed",
        tracked(TWO, history=None, spark=None, epoch=epoch(at(0, 0), last_batch_id=4)),
        (GONE,),
        ("flights[0] was at 100 according to snapshot rest#stopped",),
        (
            taken(BOTH, number=1),
            taken(tracked(TWO, history=None, spark=None, epoch=epoch(at(0, 0), last_batch_id=4)), "late", day=2),
        ),
        (epoch(at(0, 0), last_batch_id=4),),
        replay=200,
    ),
    Case(
        "tracked: an epoch that has recorded nothing stands where it was launched",
        "committed",
        tracked(TWO, history=None, spark=at(40, 60), epoch=epoch(at(40, 60))),
        epochs=(epoch(at(40, 60)),),
        starts=at(40, 60),
    ),
    Case(
        "tracked since the last epoch, and the checkpoint of that one is gone",
        "committed",
        tracked(TWO, history=None, spark=None, epoch=epoch(at(0, 0), tracked=False)),
        (GONE,),
        ("flights[0] was at 100 according to snapshot rest#stopped",),
        (taken(BOTH, number=1),),
        (epoch(at(0, 0), tracked=False),),
        replay=200,
    ),
    Case(
        "a topic that was dropped from the pipeline and comes back",
        "committed",
        tracked(two_topics(), history=BOTH, spark=BOTH, row_epoch=2, epoch=epoch(at(0, 0), 2)),
        (GONE,),
        ("cancelled[0] was at 70 according to the history",),
        epochs=(epoch(at(0, 0)), epoch(at(0, 0), 2)),
        history=processed(at(70, topic=OTHER)),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=70,
    ),
    Case(
        "such a topic, and a launch has moved it since its newest row",
        "committed",
        tracked(two_topics(), history=BOTH, spark=BOTH, row_epoch=3, epoch=epoch(at(0, 0), 3)),
        (GONE,),
        ("cancelled[0] was at least at 40 according to the launch of epoch 2",),
        epochs=(epoch(WITH_OTHER), epoch(at(0, 0).updated(at(40, topic=OTHER)), 2, **OF_BOTH), epoch(at(0, 0), 3)),
        history=processed(at(70, topic=OTHER)),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=40,
    ),
    Case(
        "such a topic, and its newest row is of the launch that moved it",
        "committed",
        tracked(two_topics(), history=BOTH, spark=BOTH, row_epoch=3, epoch=epoch(at(0, 0), 3)),
        (GONE,),
        ("cancelled[0] was at 50 according to the history",),
        epochs=(epoch(WITH_OTHER), epoch(at(0, 0).updated(at(40, topic=OTHER)), 2, **OF_BOTH), epoch(at(0, 0), 3)),
        history=processed(at(50, topic=OTHER), epoch=2),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=50,
    ),
    Case(
        "such a topic, and its newest row is from before the job was tracked",
        "committed",
        tracked(two_topics(), history=BOTH, spark=BOTH, row_epoch=2, epoch=epoch(at(0, 0), 2)),
        (GONE,),
        ("cancelled[0] was at least at 40 according to the launch of epoch 1",),
        epochs=(epoch(at(0, 0).updated(at(40, topic=OTHER)), **OF_BOTH), epoch(at(0, 0), 2)),
        history=processed(at(70, topic=OTHER), None, None),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=40,
    ),
    Case(
        "such a topic, which an untracked epoch has read into the history",
        "committed",
        tracked(two_topics(), history=BOTH, spark=BOTH, row_epoch=2, epoch=epoch(at(0, 0), 2)),
        (GONE,),
        ("cancelled[0] was at 70 according to the history",),
        epochs=(epoch(at(0, 0).updated(at(40, topic=OTHER)), tracked=False, **OF_BOTH), epoch(at(0, 0), 2)),
        history=processed(at(70, topic=OTHER), None, None),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=70,
    ),
    Case(
        "such a topic of an untracked job: the snapshot is from after it was dropped",
        "committed",
        untracked(two_topics(), kept("checkpoint", BOTH), epoch=epoch(at(0, 0), 2, tracked=False)),
        (GONE,),
        ("cancelled[0] was at 70 according to snapshot rest#stopped",),
        (taken(untracked(TWO, kept("checkpoint", WITH_OTHER), epoch=epoch(WITH_OTHER, tracked=False, **OF_BOTH))),),
        (epoch(at(0, 0).updated(at(0, topic=OTHER)), tracked=False, **OF_BOTH), epoch(at(0, 0), 2, tracked=False)),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=70,
    ),
    Case(
        "such a topic of an untracked job: only the launch at 0 is known, and the job has run since",
        "committed",
        untracked(two_topics(), kept("checkpoint", BOTH), epoch=epoch(at(0, 0), 2, tracked=False)),
        (GONE,),
        ("cancelled[0] was at least at 0 according to the launch of epoch 1",),
        (),
        (epoch(at(0, 0).updated(at(0, topic=OTHER)), tracked=False, **OF_BOTH), epoch(at(0, 0), 2, tracked=False)),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay_at_most=150,
    ),
    Case(
        "such a topic, and another store has not moved since a launch rewound it",
        "committed",
        untracked(
            two_topics(),
            kept("checkpoint", BOTH),
            kept("zookeeper_old", WITH_OTHER),
            epoch=epoch(at(0, 0), 2, tracked=False),
        ),
        (GONE,),
        ("cancelled[0] was at least at 40 according to the launch of epoch 1",),
        (),
        (REWOUND_OTHER, epoch(at(0, 0), 2, tracked=False)),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay=40,
        replay_at_most=110,
    ),
    # Records without a position.
    Case(
        "before the first start nothing is known: a fallback is for this",
        "committed | latest",
        FOLDER_GONE,
        starts=at(150, 150),
    ),
    Case(
        "a snapshot from before the first start has no position",
        "committed | latest",
        FOLDER_GONE,
        snapshots=(taken(FOLDER_GONE),),
        starts=at(150, 150),
    ),
    Case(
        "what a store deletes by itself may have been there: nothing tells",
        "committed",
        GROUP_GONE,
        (GONE,),
        ("it is unknown whether the job has run before",),
    ),
    # The topics of the offsets.
    Case(
        "a recreated topic that only a snapshot tells of, before any start",
        "committed",
        untracked(live((0, 100), topic_id="id-9"), kept("zookeeper_old", at(40))),
        (RECREATED,),
        (
            "topic 'flights' had id id-1 according to snapshot rest#stopped of 2026-11-01T00:00:00Z, and",
            "--snapshot rest",
        ),
        (taken(at(40), there=live((0, 50))),),
        replay_at_most=60,
    ),
    Case(
        "a snapshot after the topic was created again has the new id beside the old offset, and settles nothing",
        "committed",
        untracked(live((0, 100), topic_id="id-9"), kept("zookeeper_old", at(40))),
        (RECREATED,),
        ("according to snapshot rest#stopped",),
        (taken(at(40), there=live((0, 50))), taken(at(40), "before", day=2, there=live((0, 100), topic_id="id-9"))),
        replay_at_most=60,
    ),
    Case(
        "a launch settles which topic it is",
        "committed",
        untracked(
            live((0, 100), topic_id="id-9"),
            kept("zookeeper_old", at(40)),
            epoch=epoch(at(0), identity=TopicIdentity("cluster-1", {TOPIC: "id-9"})),
        ),
        snapshots=(taken(at(40), there=live((0, 50))),),
        epochs=(epoch(at(0), identity=TopicIdentity("cluster-1", {TOPIC: "id-9"})),),
        replay_at_most=60,
    ),
    Case(
        "a snapshot of the old topic knows nothing of a partition that was added to the new one",
        "committed",
        untracked(
            live((0, 100), (0, 9), topic_id="id-9"),
            kept("zookeeper_old", at(40)),
            epoch=epoch(at(0), identity=TopicIdentity("cluster-1", {TOPIC: "id-9"})),
        ),
        snapshots=(taken(at(40, 70), there=live((0, 50), (0, 80))),),
        epochs=(epoch(at(0), identity=TopicIdentity("cluster-1", {TOPIC: "id-9"})),),
        starts=at(40, 0),
        replay_at_most=60 + 9,
    ),
    Case(
        "a snapshot from before the job had read anything tells nothing of the offsets that are stored now",
        "committed",
        untracked(live((0, 100), topic_id="id-9"), kept("zookeeper_old", at(40))),
        snapshots=(taken(untracked(live((0, 50)), kept("zookeeper_old", None))),),
        starts=at(40),
        replay_at_most=60,
    ),
    Case(
        "a snapshot through a wrong connection says nothing once a launch has settled which cluster it is",
        "committed",
        untracked(two_topics(), kept("zookeeper_old", BOTH), epoch=epoch(BOTH)),
        snapshots=(taken(at(70, topic=OTHER), there=replace(two_topics(), cluster_id="cluster-9"), number=1),),
        epochs=(epoch(BOTH),),
        starts=BOTH.updated(at(0, topic=OTHER)),
        replay_at_most=50 + 50 + 150,
    ),
    Case(
        "a snapshot with a label is named by it",
        "committed",
        FOLDER_GONE,
        (GONE,),
        (STOOD, "or 'snapshot:before-the-upgrade'"),
        (replace(REST, label="before-the-upgrade"),),
        replay=200,
    ),
    Case(
        "a recreated topic of which no store has an offset is a first start",
        "committed",
        untracked(live((0, 100), topic_id="id-9"), kept("zookeeper_old", None)),
        snapshots=(taken(at(40), there=live((0, 50))),),
        starts=at(0),
    ),
    Case(
        "a recreated topic of which no store has an offset: its records are unread, so its end is a skip",
        "committed | latest",
        untracked(live((0, 100), topic_id="id-9"), kept("zookeeper_old", None)),
        (SKIP,),
        snapshots=(taken(at(40), there=live((0, 50))),),
        skipped=100,
    ),
    Case(
        "a recreated topic among others, of which only a snapshot tells: it was added after the newest start",
        "committed",
        untracked(
            two_topics("id-1", "id-9"),
            kept("zookeeper_old", BOTH.updated(at(70, topic=OTHER))),
            epoch=epoch(BOTH),
        ),
        (RECREATED,),
        ("topic 'cancelled' had id id-2 according to snapshot rest#stopped",),
        (taken(BOTH.updated(at(70, topic=OTHER)), there=two_topics(), number=1),),
        (epoch(BOTH),),
        replay_at_most=50 + 50 + 80,
    ),
    Case(
        "another cluster that only a snapshot tells of",
        "committed",
        untracked(live((0, 100), cluster_id="cluster-9"), kept("zookeeper_old", at(40))),
        (CLUSTER,),
        (
            "cluster 'cluster-1' according to snapshot rest#stopped",
            "leads to 'cluster-9'",
            "--snapshot rest#stopped --apply",
        ),
        (taken(at(40), there=live((0, 50))),),
        replay_at_most=60,
    ),
    Case(
        "another cluster, and a snapshot that was taken through the same wrong connection",
        "committed",
        untracked(live((0, 100), cluster_id="cluster-9"), kept("zookeeper_old", at(40))),
        (CLUSTER,),
        (),
        (
            taken(at(40), there=live((0, 50))),
            taken(at(40), "before", day=2, there=live((0, 100), cluster_id="cluster-9")),
        ),
        replay_at_most=60,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_what_is_known_is_not_replaced(case: Case) -> None:
    made = case.plan()

    assert tuple(problem.kind for problem in made.problems) == case.problems, made.problems
    for words in case.names:
        assert words in made.problems[0].message
    assert (made.replay, made.skipped, made.lost) == (case.replay, case.skipped, case.lost)
    assert made.replay_at_most == case.replay_at_most
    if case.starts is not None:
        assert made.start == case.starts


@pytest.mark.parametrize(
    "case", [case for case in CASES if GONE in case.problems and case.snapshots], ids=lambda case: case.why
)
def test_each_way_out_that_is_named_is_one(case: Case) -> None:
    """Such a start begins at the known offsets and moves nothing else; retention may have deleted some."""
    refused = case.plan()
    [problem] = [each for each in refused.problems if each.kind is GONE]
    there, _, others = problem.message.partition("To continue there")[2].partition(". To read everything again")
    go_on = re.findall(r"'([^']+)'", there)

    assert go_on
    assert re.findall(r"'([^']+)'", others) == ["earliest", "offsets:…", "latest"]
    for way in go_on:
        out = replace(case, start=way).plan()
        assert {each.kind for each in out.problems} <= {LOSS}, (way, out.problems)
        for row in out.rows:
            right = {row.stored, refused.start[row.key]} if row.known is None else {row.known, row.begin}
            assert row.start in right, way
    for way in ("earliest", "latest"):
        kinds = {each.kind for each in replace(case, start=way).plan().problems}
        assert kinds <= {LOSS, *({SKIP} if way == "latest" else ())}, way


@pytest.mark.parametrize("is_written", [True, False], ids=["its output is there", "its output is not there"])
def test_a_batch_that_spark_committed_after_it_was_cut_off_has_a_way_out(is_written: bool) -> None:
    """A driver taken for dead committed a batch with a partition that is newer than the launch.

    For another partition the history has 0, and no shift starts from there. The plan announces what is skipped.
    """
    now = tracked(
        live((0, 150), (0, 150), (0, 150)), history=at(40, 0), spark=at(40, 3, 3), epoch=epoch(at(0, 0)), row_epoch=1
    )
    accepted = RestartPolicy(accept_skipped={TOPIC: 6}) if is_written else None
    [ahead] = plan("committed", now).problems
    there, here = re.findall(r"'(offsets:[^']+)'", ahead.message)

    out = plan(there if is_written else here, now, policy=accepted)

    assert ahead.kind is ProblemKind.STORES_DISAGREE
    assert not out.problems
    assert out.start == (at(40, 3, 3) if is_written else at(40, 0, 0))
    assert [each.skipped for each in out.announced] == ([3, 3] if is_written else [])
    assert not plan("earliest", now).problems


def test_what_is_known_keeps_its_form_in_a_snapshot() -> None:
    known = with_records(FOLDER_GONE, [taken(BOTH, "before", moment="before")], [])
    snapshot = Snapshot("s", "s", "", "", "2026-11-01T00:00:00Z", known).sealed()

    assert known.known
    assert known.known_identities
    assert codec.loads(Snapshot, codec.dumps(snapshot)) == snapshot


def test_the_records_are_not_read_where_the_stores_tell_all() -> None:
    """A pipeline may have hundreds of snapshots with thousands of partitions each."""
    whole = tracked(TWO, history=BOTH, spark=BOTH, epoch=epoch(at(0, 0)))

    assert not needs_records(whole)
    assert needs_records(replace(whole, live=live((0, 150), (0, 150), (0, 1))))
    assert needs_records(replace(whole, live=two_topics()))
    assert needs_records(replace(whole, processed=None, epoch=epoch(at(0, 0), last_batch_id=4)))
    assert needs_records(tracked(TWO, history=None, spark=BOTH))


def test_the_position_of_the_stopped_job_counts_what_is_known() -> None:
    """The audit of an untracked job uses the snapshot of the stopped job."""
    lost = untracked(TWO, kept("zookeeper_old", at(100)))

    assert lost.last_known == at(100)
    assert with_records(lost, [REST], []).last_known == BOTH


ASYNCHRONOUS = checkpoint(at(40, 60), asynchronous=True)
PLANNED = checkpoint(at(40, 60), planned_batch_id=5, planned=at(50, 60))
PLANNED_RANGE = (OffsetRange(TOPIC, 0, 40, 50),)


@pytest.mark.parametrize(
    ("why", "there", "recorded", "last_planned", "found"),
    [
        ("a job that was never tracked was cut off in it", PLANNED, None, None, PLANNED_RANGE),
        ("rows in the Cloudera layout name no batch", PLANNED, processed(at(40, 60), None, None), None, PLANNED_RANGE),
        ("a tracked driver was launched, and died before it began a batch", PLANNED, None, 5, PLANNED_RANGE),
        ("it was recorded since", PLANNED, processed(at(50, 60), 5), None, ()),
        ("a tracked driver has planned it, and was stopped before it began", PLANNED, None, 4, ()),
        ("the checkpoint was made by the launch", PLANNED, None, -1, ()),
        ("nothing is planned", checkpoint(at(40, 60)), None, None, ()),
        ("it was planned without records", replace(PLANNED, planned=at(40, 60)), None, None, ()),
        (
            "a checkpoint that a restart closed since: the plant is no batch, and the batch before it stays planned",
            replace(PLANNED, closed_by="op"),
            None,
            None,
            PLANNED_RANGE,
        ),
        ("there is no checkpoint", None, None, None, ()),
        (
            "one that Spark writes now and then: it may have read all",
            ASYNCHRONOUS,
            None,
            None,
            (OffsetRange(TOPIC, 0, 40, 150), OffsetRange(TOPIC, 1, 60, 150)),
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_batch_that_was_planned_before_the_job_was_tracked_may_have_started(
    why: str,
    there: CheckpointState | None,
    recorded: Batch | None,
    last_planned: int | None,
    found: tuple[OffsetRange, ...],
) -> None:
    first = None if last_planned is None else replace(epoch(at(0, 0)).claim, last_planned_batch_id=last_planned)

    cut = adopted_batch(there, recorded, TWO, first)

    assert (() if cut is None else cut.ranges) == found
    if there is PLANNED and cut is not None:
        assert cut == Cut(5, QUERY, 1, "", found)
        adopting = seen(TWO, checkpoint=there, cut=cut)
        assert plan_restart(at(40, 60), adopting).replay_at_most == 10


# Laws.

offsets = st.integers(0, 30)
positions = st.lists(st.none() | offsets, min_size=1, max_size=3).map(lambda given_: at(*given_))
lives = st.lists(st.tuples(offsets, offsets).map(sorted), min_size=1, max_size=3).map(
    lambda ranges: live(*((low, high) for low, high in ranges))
)
named_starts = ["earliest", "latest", "snapshot:s-0#stopped", 'offsets:{"flights":{"0":7}}', "group:g"]
left_starts = ["committed", "shift:-3", "shift:+3"]


def with_batch(batch_id: int, planned_id: int | None = None, day: int = 1, **more: Any) -> Snapshot:
    """Return a snapshot of an untracked job whose checkpoint has committed this batch, and has planned the other."""
    planned = {} if planned_id is None else {"planned_batch_id": planned_id, "planned": at(120, 120)}
    state = replace(checkpoint(BOTH, batch_id, **planned), **more)
    return taken(untracked(TWO, kept("checkpoint", BOTH), checkpoint=state), f"day-{day}", day=day)


NOTHING = tracked(TWO, history=None, spark=None)
OTHER_CLUSTER = taken(untracked(live((0, 150), cluster_id="cluster-2"), kept("checkpoint", at(3))), "elsewhere")
FOURTEEN = epoch(at(0, 0), last_batch_id=14)
"""A launch whose history is gone."""


@pytest.mark.parametrize(
    ("why", "now", "snapshots", "epochs", "form", "last_batch_id"),
    [
        ("nothing is known: batch 0", NOTHING, (), (), RestartForm.FRESH, UNSTARTED),
        ("a snapshot from before the first launch", NOTHING, (with_batch(7),), (), RestartForm.REPOSITION, 7),
        ("of an untracked job", FOLDER_GONE, (with_batch(7),), (), RestartForm.REPOSITION, 7),
        ("it has planned batch 8", NOTHING, (with_batch(7, 8),), (), RestartForm.REPOSITION, 7),
        ("it has planned only batch 0", NOTHING, (with_batch(-1, 0),), (), RestartForm.REPOSITION, UNSTARTED),
        ("its ids have gaps", NOTHING, (with_batch(7, 12, asynchronous=True),), (), RestartForm.REPOSITION, 11),
        ("the greatest, not the newest", NOTHING, (with_batch(7), with_batch(3, day=2)), (), RestartForm.REPOSITION, 7),
        ("of another cluster", NOTHING, (OTHER_CLUSTER,), (), RestartForm.REPOSITION, 4),
        ("of another location", NOTHING, (with_batch(7, location="/before"),), (), RestartForm.REPOSITION, 7),
        ("a launch knows more", NOTHING, (with_batch(7),), (FOURTEEN,), RestartForm.REPOSITION, 14),
        ("an unclaimed launch ran nothing", NOTHING, (), (replace(FOURTEEN, holder=None),), RestartForm.FRESH, -1),
        (
            "the checkpoint is there",
            tracked(TWO, history=None, spark=BOTH),
            (with_batch(7),),
            (),
            RestartForm.REPOSITION,
            4,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batch_ids_go_on_after_each_known_one(
    why: str,
    now: Observation,
    snapshots: tuple[Snapshot, ...],
    epochs: tuple[Epoch, ...],
    form: RestartForm,
    last_batch_id: int,
) -> None:
    """A sink that identifies a batch by its id drops new records under an id that it has."""
    made = plan("earliest", now, snapshots, epochs)

    assert (made.form, made.last_batch_id) == (form, last_batch_id)


def test_the_plan_names_the_snapshot_that_the_batch_ids_are_from() -> None:
    """The job may have run later batches, and only the sink knows their ids."""
    [note] = plan("earliest", NOTHING, (with_batch(7),)).notes

    assert "by snapshot day-1#stopped of 2026-11-01T00:00:00Z, batch 7 was complete" in note
    assert plan("earliest", NOTHING, (with_batch(7),), (FOURTEEN,)).notes == ()


def test_the_plan_says_that_an_untracked_epoch_may_have_run_later_batches() -> None:
    untold = epoch(at(0, 0), 2, tracked=False)
    now = untracked(TWO, kept("checkpoint", None), epoch=untold)

    [unknown] = plan("earliest", now, (), (untold,)).notes
    [at_least] = plan("earliest", now, (), (FOURTEEN, untold)).notes

    assert "no record has the id of its newest batch" in unknown
    assert "by epoch 1, batch 14 was complete" in at_least


def test_a_snapshot_from_after_a_topic_was_dropped_is_evidence_until_a_launch_names_the_topic() -> None:
    first = epoch(WITH_OTHER, tracked=False, **OF_BOTH)
    dropped = taken(untracked(TWO, kept("checkpoint", WITH_OTHER), epoch=first))
    back = epoch(WITH_OTHER, 2, last_batch_id=14, **OF_BOTH)

    assert evidence([dropped], [first]) == {dropped.id}
    assert evidence([dropped], [first, back]) == frozenset()


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """Return a pipeline whose stores have lost something, and the remaining records about it."""
    there, stored = draw(lives), draw(st.none() | positions)
    launches = draw(st.lists(positions, max_size=2))
    epochs = tuple(epoch(start, number) for number, start in enumerate(launches, 1))
    snapshots = [
        taken(
            position,
            f"s-{index}",
            day=draw(st.integers(1, 28)),
            there=there,
            number=draw(st.integers(0, len(epochs))),
            moment=draw(st.sampled_from([WHEN_STOPPED, "before"])) if index else WHEN_STOPPED,
        )
        for index, position in enumerate(draw(st.lists(positions, min_size=1, max_size=3)))
    ]
    more: dict[str, Any] = {"epoch": epochs[-1]} if epochs else {}
    if draw(st.booleans()):
        now = tracked(there, history=None if epochs else stored, spark=draw(st.none() | positions), **more)
    else:
        others = draw(st.lists(positions.map(lambda found: kept("zookeeper_old", found)), max_size=1))
        now = untracked(there, kept("kafka_default", stored), *others, **more)
    return {"now": now, "snapshots": snapshots, "epochs": epochs, "commits": {"g": draw(positions)}}


def least_known(state: dict[str, Any], partition: TopicPartition) -> int | None:
    """Return an offset that the job has certainly reached since the newest launch that names the partition."""
    number = max((each.number for each in state["epochs"] if partition in each.claim.start), default=0)
    found = [each.claim.start.get(partition) for each in state["epochs"] if each.number == number]
    found += [each.position.get(partition) for each in state["snapshots"] if each.seen.epoch_number >= number]
    found += [(each.position or Position()).get(partition) for each in state["now"].kept[1:]]
    return max((each for each in found if each is not None), default=None)


starts = st.builds(" | ".join, st.lists(st.sampled_from([*left_starts, *named_starts]), min_size=1, max_size=3))


@given(states(), starts)
def test_no_plan_without_problems_passes_over_what_is_known(state: dict[str, Any], start: str) -> None:
    made = plan(start, **state)
    assume(not made.problems)
    stored = state["now"].stored or Position()

    for row in made.rows:
        known = least_known(state, row.key)
        if row.key not in stored and known is not None:
            assert row.start <= known
            assert row.skipped == row.lost == 0


@given(states(), starts)
def test_what_is_left_out_after_the_known_offset_is_counted(state: dict[str, Any], start: str) -> None:
    accepted = RestartPolicy({TOPIC: 1_000}, {TOPIC: 1_000})
    made = plan(start, policy=accepted, **state)
    assume(not made.problems)
    stored = state["now"].stored or Position()

    for row in made.rows:
        known = least_known(state, row.key)
        if row.key not in stored and known is not None:
            assert row.skipped + row.lost >= row.start - known


@given(states(), st.sampled_from(left_starts), starts)
def test_no_fallback_takes_the_place_of_what_is_known(state: dict[str, Any], left: str, fallback: str) -> None:
    """Whatever is accepted: the job starts at the known offset, or the start is refused."""
    accepted = RestartPolicy({TOPIC: 1_000}, {TOPIC: 1_000})
    made = plan(f"{left} | {fallback}", policy=accepted, **state)
    assume(not made.problems)

    assert [row for row in made.rows if row.known is not None and row.start != row.known] == []


@given(states(), starts)
def test_each_refusal_of_a_gone_position_has_a_way_out(state: dict[str, Any], start: str) -> None:
    """The first start that the problem quotes plans without it; what retention deleted may have to be accepted."""
    made = plan(start, **state)
    gone = [each for each in made.problems if "To continue there" in each.message]
    assume(gone)
    way = re.findall(r"'([^']+)'", gone[0].message.partition("To continue there")[2])[0]

    out = plan(way, **state)

    assert not [each for each in out.problems if each.kind is GONE]


@given(states(), starts)
def test_what_is_known_is_no_more_than_what_something_says(state: dict[str, Any], start: str) -> None:
    now = with_records(state["now"], state["snapshots"], state["epochs"])
    said = [each.position for each in (*state["snapshots"], *state["now"].kept) if each.position is not None]
    said += [each.claim.start for each in state["epochs"]]

    for partition, known in known_offsets(now).items():
        assert known.position[partition] in {each.get(partition) for each in said}
        assert partition in now.live.partitions


ELSEWHERE = epoch(at(0, 0), checkpoint="/before", tracked=False)


def opens_another(there: Position | None, left: Position | None, **more: Any) -> Observation:
    """Return an untracked job that opens another checkpoint than its newest epoch, which ran on ``/before``.

    :param there: the position in the checkpoint that the job opens, with batch 4.
    :param left: the position in the checkpoint of the newest epoch, with batch 7.
    """
    state = None if left is None else replace(checkpoint(left, 7), location="/before", **more)
    return untracked(TWO, kept("checkpoint", there), epoch=ELSEWHERE, left=state)


@pytest.mark.parametrize(
    ("why", "now", "start", "form", "last_batch_id", "problems"),
    [
        ("nothing there", opens_another(None, BOTH), at(100, 100), RestartForm.REPOSITION, 7, []),
        ("an earlier one there", opens_another(at(40, 100), BOTH), at(100, 100), RestartForm.REPOSITION, 7, []),
        ("its ids are smaller", opens_another(BOTH, BOTH), at(100, 100), RestartForm.REPOSITION, 7, []),
        ("with state", opens_another(None, BOTH, stateful=True), BOTH, RestartForm.REPOSITION, 7, ["stateful"]),
        (
            "its ids have gaps",
            opens_another(None, BOTH, asynchronous=True, planned_batch_id=12, planned=at(120, 120)),
            BOTH,
            RestartForm.REPOSITION,
            11,
            [],
        ),
        ("it is gone, and this is the moved one", opens_another(BOTH, None), BOTH, RestartForm.RESUME, 4, []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_that_opens_another_checkpoint_goes_on_where_its_newest_epoch_stood(
    why: str, now: Observation, start: Position, form: RestartForm, last_batch_id: int, problems: list[str]
) -> None:
    made = plan("committed", now, epochs=(ELSEWHERE,))

    assert (made.start, made.form, made.last_batch_id) == (start, form, last_batch_id)
    assert [problem.kind.value.split()[0] for problem in made.problems] == problems


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [({}, False), ({"query_id": "other"}, True), ({"committed_batch_id": 9}, True)],
    ids=["an earlier one", "of another query", "it has run on"],
)
def test_the_checkpoint_that_the_job_opens_may_know_more(change: dict[str, Any], is_refused: bool) -> None:
    now = opens_another(at(120, 100), BOTH)
    assert now.checkpoint is not None
    now = replace(now, checkpoint=replace(now.checkpoint, **change))

    assert [each.kind for each in plan("committed", now).problems] == [ProblemKind.STORES_CONFLICT] * is_refused
    assert plan('offsets:{"flights":{"0":100}} | committed', now).problems == ()


@pytest.mark.parametrize("offset", [100, 99])
def test_a_checkpoint_that_is_behind_the_records_of_its_epoch_is_no_position(offset: int) -> None:
    """The checkpoint of the newest epoch is gone, and the job opens an older copy, or the moved one."""
    when_stopped = taken(opens_another(None, BOTH), number=1)

    made = plan("committed", opens_another(at(100, offset), None), (when_stopped,), (ELSEWHERE,))

    assert [each.kind for each in made.problems] == [GONE] * (offset < 100)
    assert made.form is (RestartForm.REPOSITION if offset < 100 else RestartForm.RESUME)
    assert made.last_batch_id == 7


def test_what_its_newest_epoch_had_in_flight_is_in_the_checkpoint_of_that_epoch() -> None:
    now = opens_another(at(40, 40), BOTH, planned_batch_id=8, planned=at(110, 100))

    assert now.in_flight == (OffsetRange(TOPIC, 0, 100, 110),)


@pytest.mark.parametrize("planned", [at(150), at(150, 150)], ids=["without a partition", "with all"])
def test_spark_cannot_run_a_batch_that_was_planned_without_a_partition(planned: Position) -> None:
    state = replace(checkpoint(BOTH, 4), planned_batch_id=5, planned=planned)

    made = plan("committed", untracked(TWO, kept("checkpoint", BOTH), checkpoint=state))

    assert made.form is (RestartForm.REPOSITION if planned == at(150) else RestartForm.RESUME)
    assert (made.last_batch_id, made.start) == (4, BOTH)


def test_a_dropped_topic_is_noted_even_if_its_offsets_are_only_in_snapshots() -> None:
    """Another epoch without it has come since."""
    before = epoch(at(0), identity=two_topics().identity)
    now = untracked(TWO, kept("checkpoint", None), epoch=epoch(at(0, 0), 2))

    notes = plan("earliest", now, epochs=(before, epoch(at(0, 0), 2))).notes

    assert "cancelled: has known offsets, is no longer a topic of the pipeline, and is not read" in notes


def moved_by_a_command(number: int, start: Position, left_at: Position | None = None) -> Epoch:
    found = epoch(start, number)
    return replace(found, claim=replace(found.claim, left_at=left_at))


FLIGHTS, OTHERS = at(0, 0), at(0, topic=OTHER)


@pytest.mark.parametrize(
    ("epochs", "left"),
    [
        ([], None),
        ([moved_by_a_command(1, FLIGHTS, BOTH)], None),
        ([moved_by_a_command(1, OTHERS, BOTH)], BOTH),
        ([moved_by_a_command(1, OTHERS, BOTH), moved_by_a_command(2, OTHERS)], BOTH),
        ([moved_by_a_command(1, OTHERS, BOTH), moved_by_a_command(2, FLIGHTS)], None),
        ([moved_by_a_command(1, OTHERS, BOTH), moved_by_a_command(2, OTHERS, FLIGHTS)], BOTH),
        ([replace(moved_by_a_command(1, OTHERS, BOTH), holder=None)], None),
    ],
    ids=["no launch", "read", "not read", "nor by the next", "read by the next", "moved twice", "nobody claimed it"],
)
def test_where_a_job_had_stopped_is_known_until_a_launch_reads_the_topic(
    epochs: list[Epoch], left: Position | None
) -> None:
    assert left_in_removed_topics(epochs) == (left or Position())


def test_a_topic_that_was_put_back_stands_where_the_launch_without_it_had_found_it() -> None:
    """Somebody has moved its offset in the store, back or forward. A store that agrees needs no record."""
    without = epoch(BOTH, 2, stood=BOTH.updated(at(40, topic=OTHER)))
    identities = (
        TopicIdentity("cluster-1", {TOPIC: "id-1", OTHER: "id-2"}),
        TopicIdentity("cluster-1", {TOPIC: "id-1"}),
    )
    first = epoch(BOTH.updated(at(10, topic=OTHER)), 1, identity=identities[0])
    for offset, known in ((30, 40), (50, 40), (40, None)):
        zookeeper = kept("zookeeper", BOTH.updated(at(offset, topic=OTHER)))
        state = untracked(two_topics(), zookeeper, epoch=without)
        found = with_records(state, (), [first, without])
        assert known_offsets(found).keys() == ({TopicPartition(OTHER, 0)} if known else set())
        assert (found.last_known or Position()).get(TopicPartition(OTHER, 0)) == 40
        assert (TopicPartition(OTHER, 0) in (found.stored or Position())) is (known is None)
