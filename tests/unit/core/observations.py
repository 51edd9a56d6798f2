"""Small states to plan in: one topic, ``flights``, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import Announced, Claim, Epoch, ProcessIdentity
from airflow_provider_offsets.core.live import LivePartition, LiveTopic, LiveTopics, TopicIdentity
from airflow_provider_offsets.core.moments import read_moment
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.selectors.model import PastPosition
from airflow_provider_offsets.core.snapshot import CheckpointState, KeptPosition, Observation, Snapshot
from airflow_provider_offsets.errors import SnapshotNotFound

TOPIC = "flights"
QUERY = "query-1"
IDENTITY = TopicIdentity("cluster-1", {TOPIC: "id-1"})
STREAM = Stream("flights-job", (TOPIC,))
HOLDER = ProcessIdentity("host", "boot", 1, 2)
CHECKPOINT = "/checkpoints/flights"
NOON = read_moment("2026-11-01T12:00Z")


def at(*offsets: int | None, topic: str = TOPIC) -> Position:
    """Return the offsets of partitions 0, 1, …; None omits a partition."""
    named = ((TopicPartition(topic, number), offset) for number, offset in enumerate(offsets))
    return Position({partition: offset for partition, offset in named if offset is not None})


def live(
    *ranges: tuple[int, int], cluster_id: str = "cluster-1", topic_id: str = "id-1", leader_epoch: int | None = None
) -> LiveTopics:
    partitions = tuple(LivePartition(begin, end, leader_epoch) for begin, end in ranges)
    return LiveTopics(cluster_id, (LiveTopic(TOPIC, topic_id, partitions),))


def checkpoint(committed: Position, batch_id: int = 4, **more: Any) -> CheckpointState:
    return CheckpointState(CHECKPOINT, QUERY, batch_id, committed, **more)


def processed(end: Position, batch_id: int | None = 4, epoch: int | None = 1) -> Batch:
    return Batch(end, 1_000, batch_id, None if batch_id is None else QUERY, epoch)


def epoch(start: Position, number: int = 1, announced: tuple[Announced, ...] = (), **more: Any) -> Epoch:
    identity = more.pop("identity", IDENTITY)
    where = more.pop("checkpoint", CHECKPOINT)
    kept = {name: more.pop(name) for name in ("tracked", "store", "stood") if name in more}
    claim = Claim(number, f"operation-{number}", "launch", where, start, identity, STREAM, announced=announced, **kept)
    return Epoch(claim, HOLDER, 5, **more)


def seen(there: LiveTopics, **more: Any) -> Observation:
    """Return an observation whose newest epoch runs unless ``ended`` is given, and started from the store of now."""
    claimed, ended = more.get("epoch"), more.pop("ended", None)
    if claimed is not None:
        store = claimed.claim.store or (more["kept"][0].store if more.get("kept") else "")
        more["epoch"] = replace(claimed, claim=replace(claimed.claim, store=store), ended=ended)
        more.setdefault("phase", Phase.RUNNING if ended is None else Phase.STOPPED)
        more.setdefault("launched", claimed.number)
    return Observation("flights-pipeline", there, **more)


def running(there: LiveTopics, stood: Position, **more: Any) -> Observation:
    """Return a pipeline that has processed and committed batch 4 up to ``stood`` in epoch 1."""
    facts = {"checkpoint": checkpoint(stood), "processed": processed(stood), "epoch": epoch(at(0, 0))}
    return seen(there, **{**facts, **more})


def untracked(
    there: LiveTopics, kept: Position | None, *, store: str = "checkpoint", expires: str = "", **more: Any
) -> Observation:
    """Return a pipeline managed from the position in ``store``; the checkpoint has the same by default."""
    if store == "checkpoint" and kept is not None:
        more.setdefault("checkpoint", checkpoint(kept))
    if "ended" in more:
        more.setdefault("epoch", epoch(at(0, 0)))
    return seen(there, kept=(KeptPosition(store, store.partition("_")[0], kept, expires=expires),), **more)


@dataclass(frozen=True)
class FakeSources:
    """Answers from what a test has put in."""

    position: Position = field(default_factory=Position)
    asked_at_ms: int = NOON
    times: Mapping[int, tuple[int | None, ...]] = field(default_factory=dict)
    """The offsets of partitions 0, 1, … for each requested time."""
    commits: Mapping[str, Position] = field(default_factory=dict)
    past: tuple[tuple[int, PastPosition], ...] = ()
    """The batches, by their time."""
    snapshots: tuple[Snapshot, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def offsets_at(self, time_ms: int) -> dict[TopicPartition, int | None]:
        return {TopicPartition(TOPIC, number): offset for number, offset in enumerate(self.times[time_ms])}

    def commits_of(self, group_id: str) -> Position:
        return self.commits.get(group_id, Position())

    def as_of(self, time_ms: int) -> PastPosition | None:
        return next((past for at_ms, past in reversed(self.past) if at_ms <= time_ms), None)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        for each in self.snapshots:
            if snapshot_id in (each.id, each.label):
                return each
        raise SnapshotNotFound(seen=snapshot_id, expected="a snapshot", do="look")

    def text_of(self, path: str) -> str:
        return self.files[path]
