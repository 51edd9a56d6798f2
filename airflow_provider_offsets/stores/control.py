"""What a pipeline's processes agree on, over any ``ControlStore``: epochs, stops, ends, heartbeats, operations.

Each fact is one cell. Cells that decide something (``epoch/…``, ``ended/…``, ``stop/…``, ``snapshot/…``) are created
once and never changed: whoever creates one has decided; a snapshot may be removed. The others have one writer each.

| cell | written by | means |
|---|---|---|
| ``epoch/<n>`` | the driver that claims n, once | the epoch, its plan and its holder |
| ``ended/<n>`` | that driver, or who saw it gone, once | how epoch n ended; a driver that finds it ends |
| ``stop/<n>`` | an operation, once (a driver hands it on to its own epoch) | please end between two batches |
| ``rung/<n>`` | an operation that stops | the rung of the ladder that is taken next, or was taken last |
| ``heartbeat/<n>``, ``begun/<n>`` | that driver | alive; the batch it began last (the next driver adds its ranges) |
| ``moved/<n>`` | an operation | before epoch n, the position of an untouched job was moved in its own store |
| ``operation/<id>`` | the tasks of one operation | its steps and their results |
| ``snapshot/<id>`` | a task, once | a named observation, or that it was removed |
| ``replay-run/<operation>`` | the task that plans a replay | the run id of its newest plan |
| ``replaying/<run>/<shard>/<try>`` | the driver that claims that try, once | who replays a shard |
| ``replay-ended/<run>/<shard>/<try>`` | that driver, or who ended it or saw it gone, once | how the try ended |
| ``replay-progress/<run>/<shard>/<try>`` | that driver | alive, and how far |
| ``replayed/<run>/<shard>`` | that driver, once | the output of the shard is finished |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import (
    BegunBatch,
    Claim,
    Ended,
    Epoch,
    Heartbeat,
    Moved,
    Operation,
    ProcessIdentity,
    StopRequest,
    StopRung,
)
from airflow_provider_offsets.core.recovery import is_recovery
from airflow_provider_offsets.core.replay import Replayed, ReplayPlan
from airflow_provider_offsets.core.replaying import ShardClaim, ShardEnded, ShardProgress, ShardTry
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import Fenced, SnapshotNotFound, StoreDataError
from airflow_provider_offsets.stores.protocols import ControlStore

T = TypeVar("T")

REMOVED = '"removed"'
"""What stands in the cell of a snapshot that was removed."""

REPLAY_PLAN = "replay_plan"
"""The step of an operation that has its :class:`ReplayPlan`."""


class Control:
    """The control cells of one pipeline, typed."""

    def __init__(self, store: ControlStore, pipeline: str) -> None:
        self._store = store
        self.pipeline = pipeline

    def claim_epoch(
        self, claim: Claim, holder: ProcessIdentity, *, at_ms: int, after_row_time_ms: int | None = None
    ) -> Epoch:
        """Claim epoch ``claim.number`` for ``holder`` and give its record.

        Claiming again what this holder has already claimed gives the same epoch: an answer may have been lost on the
        way.

        :raises Fenced: another holder has it, or its predecessor was never claimed.
        """
        if claim.number > 1 and self.epoch(claim.number - 1) is None:
            raise Fenced(
                seen=f"pipeline {self.pipeline!r} has no epoch {claim.number - 1}",
                expected=f"it there before epoch {claim.number} is claimed",
                do="submit the job through SubmitStreamingJobOperator, which reads the newest epoch",
            )
        mine = Epoch(claim, holder, at_ms, after_row_time_ms)
        if self._create(_numbered("epoch", claim.number), mine):
            return mine
        there = self.epoch(claim.number)
        assert there is not None
        if (there.holder, there.claim.launch) == (holder, claim.launch):
            return there
        raise Fenced(
            seen=f"epoch {claim.number} of pipeline {self.pipeline!r} is held by pid {there.holder.pid} on"
            f" {there.holder.host!r}, launched by {there.claim.launch!r}",
            expected=f"it free for {claim.launch!r}",
            do="nothing: the other driver runs; stop it first if this one is to take over",
        )

    def epoch(self, number: int) -> Epoch | None:
        """Give one epoch, or None if nobody has claimed it."""
        return self._get(Epoch, _numbered("epoch", number))

    def epochs(self) -> Iterator[Epoch]:
        """Give all epochs, the oldest first."""
        return (self._load(Epoch, name, text) for name, text in self._store.scan(self.pipeline, "epoch/"))

    def newest_epoch(self) -> Epoch | None:
        """Give the newest epoch, or None before the first start."""
        last = deque(self._store.scan(self.pipeline, "epoch/"), maxlen=1)
        return self._load(Epoch, *last[0]) if last else None

    def ended(self, number: int) -> Ended | None:
        """Give how an epoch ended, or None."""
        return self._get(Ended, _numbered("ended", number))

    def end(self, number: int, how: Ended) -> Ended:
        """Record the end of an epoch and give the record that stands: the first one does."""
        name = _numbered("ended", number)
        return how if self._create(name, how) else self._require(Ended, name)

    def check_fence(self, number: int) -> None:
        """Return if epoch ``number`` has the word.

        :raises Fenced: a newer epoch was claimed, or this one was closed by somebody else.
        """
        newer, ended = self.epoch(number + 1), self.ended(number)
        if newer is None and ended is None:
            return
        by = f"epoch {number + 1} was claimed by pid {newer.holder.pid}" if newer else f"it was closed: {ended}"
        raise Fenced(
            seen=f"epoch {number} of pipeline {self.pipeline!r} no longer has the word: {by}",
            expected="the newest epoch, not closed",
            do="nothing: this driver ends before its next batch",
        )

    def stop_request(self, number: int) -> StopRequest | None:
        """Give the request to stop an epoch, or None."""
        return self._get(StopRequest, _numbered("stop", number))

    def request_stop(self, number: int, request: StopRequest) -> StopRequest:
        """Ask an epoch to stop and give the request that stands: a second one joins the first."""
        name = _numbered("stop", number)
        return request if self._create(name, request) else self._require(StopRequest, name)

    def standing_stop(self, claim: Claim) -> StopRequest | None:
        """Give the request to stop that holds for an epoch: its own, or, if a recovery started it, that to the one
        that died. That recovery had begun before somebody asked, and its driver may have died before it saw it."""
        request = self.stop_request(claim.number)
        if request is None and is_recovery(claim.operation):
            return self.stop_request(claim.number - 1)
        return request

    def hand_on_stop(self, claim: Claim) -> StopRequest | None:
        """Make the request that holds for an epoch that was just claimed its own, and give it.

        Whoever asks looks for a newer epoch afterwards, so one of the two sees the other.
        """
        request = self.standing_stop(claim)
        return None if request is None else self.request_stop(claim.number, request)

    def stop_rung(self, number: int) -> StopRung | None:
        """Give the last rung of the stop ladder that an epoch's job was sent, or None."""
        return self._get(StopRung, _numbered("rung", number))

    def note_stop_rung(self, number: int, rung: StopRung) -> None:
        """Record that a rung is taken, before it is."""
        self._put(_numbered("rung", number), rung)

    def heartbeat(self, number: int) -> Heartbeat | None:
        """Give the last sign of life of an epoch's driver, or None."""
        return self._get(Heartbeat, _numbered("heartbeat", number))

    def beat(self, number: int, heartbeat: Heartbeat) -> None:
        """Record a sign of life. Only the epoch's driver calls this."""
        self._put(_numbered("heartbeat", number), heartbeat)

    def begun(self, number: int) -> BegunBatch | None:
        """Give the batch that an epoch began last, or None."""
        return self._get(BegunBatch, _numbered("begun", number))

    def begin(self, number: int, batch: BegunBatch) -> None:
        """Record that a batch begins, before it may reach its output. Only the epoch's driver calls this, and the next
        one, once the epoch is over, with what the log says of that batch."""
        self._put(_numbered("begun", number), batch)

    def moved(self, number: int) -> Moved | None:
        """Give what moved an untouched job before epoch ``number``, or None."""
        return self._get(Moved, _numbered("moved", number))

    def note_move(self, number: int, moved: Moved) -> None:
        """Record that a move begins. A second one, of another plan, takes its place."""
        self._put(_numbered("moved", number), moved)

    def operation(self, operation_id: str) -> Operation | None:
        """Give one operation, or None."""
        return self._get(Operation, f"operation/{operation_id}")

    def operations(self, prefix: str = "") -> Iterator[Operation]:
        """Give all operations whose id begins with ``prefix``, sorted by id."""
        cells = self._store.scan(self.pipeline, f"operation/{prefix}")
        return (self._load(Operation, name, text) for name, text in cells)

    def open_operation(self, operation: Operation) -> Operation:
        """Record a new operation, or give the one of that id as it stands."""
        name = f"operation/{operation.id}"
        return operation if self._create(name, operation) else self._require(Operation, name)

    def record_step(self, operation_id: str, step: str, result: Any) -> None:
        """Record the result of one step of an operation that is open; a later result takes the earlier one's place."""
        name = f"operation/{operation_id}"
        while True:
            text = self._store.get(self.pipeline, name)
            current = self._load(Operation, name, text or "null")
            changed = replace(current, steps={**current.steps, step: codec.dumps(result)})
            if self._store.check_and_put(self.pipeline, name, text, codec.dumps(changed)):
                return

    def step(self, operation_id: str, step: str, kind: type[T]) -> T | None:
        """Give the recorded result of a step, as a value of its type, or None."""
        operation = self.operation(operation_id)
        text = None if operation is None else operation.steps.get(step)
        return None if text is None else self._load(kind, f"operation/{operation_id}#{step}", text)

    def keep_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Store a sealed snapshot and give the one that stands under its id: the first one does."""
        name, text = f"snapshot/{snapshot.id}", codec.dumps(snapshot)
        for nothing in (None, REMOVED):
            if self._store.check_and_put(self.pipeline, name, nothing, text):
                return snapshot
        return self.snapshot(snapshot.id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Give a stored snapshot.

        :raises SnapshotNotFound: none of that id; the message names the newest ones.
        :raises StoreDataError: its content is not what its checksum was made of.
        """
        name = f"snapshot/{snapshot_id}"
        text = self._store.get(self.pipeline, name)
        found = None if text in (None, REMOVED) else self._load(Snapshot, name, text or "")
        if found is None:
            names = [each.label or each.id for each in self.snapshots()]
            raise SnapshotNotFound(
                seen=f"no snapshot {snapshot_id!r} of pipeline {self.pipeline!r}",
                expected=f"one of {names[-3:] or 'none at all'}",
                do="write the id as SnapshotOffsetsOperator gave it, or a label",
            )
        if not found.is_whole:
            raise StoreDataError(
                seen=f"snapshot {snapshot_id!r} does not match its checksum",
                expected="the content that was stored",
                do="choose another snapshot; somebody changed this cell by hand",
            )
        return found

    def named_snapshot(self, name: str) -> Snapshot:
        """Give the snapshot of that label, or of that id: an id has a ``#``, and a label has none.

        :raises SnapshotNotFound: there is none.
        :raises StoreDataError: as ``snapshot``; or two people gave the same label at the same time.
        """
        labelled = [] if "#" in name else self.labelled(name)
        if len(labelled) > 1:
            raise StoreDataError(
                seen=f"label {name!r} is that of {', '.join(each.id for each in labelled)}",
                expected="one snapshot of that label",
                do="name one of them by its id",
            )
        return labelled[0] if labelled else self.snapshot(name)

    def labelled(self, label: str) -> list[Snapshot]:
        """Give the snapshots that have this label."""
        return [each for each in self.snapshots() if each.label == label]

    def snapshots(self) -> Iterator[Snapshot]:
        """Give all snapshots that are whole, sorted by id."""
        cells = self._store.scan(self.pipeline, "snapshot/")
        there = (self._load(Snapshot, name, text) for name, text in cells if text != REMOVED)
        return (found for found in there if found.is_whole)

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot. Its cell stays and says so: no store has to delete what somebody may be comparing with."""
        name = f"snapshot/{snapshot_id}"
        while (text := self._store.get(self.pipeline, name)) not in (None, REMOVED):
            self._store.check_and_put(self.pipeline, name, text, REMOVED)

    def replay_plan(self, operation_id: str) -> ReplayPlan | None:
        """Give what an operation is to replay, in its newest attempt; None if it planned nothing."""
        return self.step(operation_id, REPLAY_PLAN, ReplayPlan)

    def record_replay_plan(self, operation_id: str, plan: ReplayPlan) -> None:
        """Record what an open operation is to replay. Drivers of an earlier plan have no word from here on."""
        self._put(f"replay-run/{operation_id}", plan.run_id)
        self.record_step(operation_id, REPLAY_PLAN, plan)

    def claim_shard(self, claim: ShardClaim, holder: ProcessIdentity, *, at_ms: int) -> ShardTry:
        """Claim a try of a shard for ``holder`` and give its record. Claiming again gives the same.

        :raises Fenced: another driver has it, or the shard is replayed already.
        """
        mine = ShardTry(claim, holder, at_ms)
        name = _tried("replaying", claim.run_id, claim.shard.number, claim.number)
        if self._create(name, mine):
            return mine
        there = self._require(ShardTry, name)
        if (there.holder, there.claim.launch) == (holder, claim.launch):
            return there
        raise Fenced(
            seen=f"try {claim.number} of shard {claim.shard.number} of {claim.run_id!r} is held by pid"
            f" {there.holder.pid} on {there.holder.host!r}",
            expected=f"it free for {claim.launch!r}",
            do="nothing: the other driver replays the shard",
        )

    def newest_try(self, run_id: str, shard: int) -> ShardTry | None:
        """Give the newest try of a shard, or None if no driver has claimed one."""
        last = deque(self._store.scan(self.pipeline, f"replaying/{run_id}/{shard:08d}/"), maxlen=1)
        return self._load(ShardTry, *last[0]) if last else None

    def tries_of(self, operation_id: str) -> Iterator[ShardTry]:
        """Give all tries of all shards of all attempts of an operation: its run ids begin with ``<operation>#``."""
        cells = self._store.scan(self.pipeline, f"replaying/{operation_id}#")
        return (self._load(ShardTry, name, text) for name, text in cells)

    def check_shard_fence(self, claim: ShardClaim) -> None:
        """Return if a try has the word.

        :raises Fenced: it was ended by somebody, a newer one was claimed, the shard is replayed already, or its
            operation was planned anew under another run id.
        """
        run_id, shard, number = claim.run_id, claim.shard.number, claim.number
        planned = self._get(str, f"replay-run/{claim.operation}")
        by = ""
        if (ended := self.shard_ended(claim)) is not None:
            by = f"it was ended: {ended}"
        elif self._get(ShardTry, _tried("replaying", run_id, shard, number + 1)) is not None:
            by = f"try {number + 1} was claimed"
        elif self.replayed(run_id, shard) is not None:
            by = "the shard is replayed already"
        elif planned not in (None, run_id):
            by = f"the operation was planned anew, as {planned!r}"
        if by:
            raise Fenced(
                seen=f"try {number} of shard {shard} of {run_id!r} no longer has the word: {by}",
                expected="the newest try of a shard that is still to be replayed",
                do="nothing: this driver ends, and records nothing",
            )

    def shard_ended(self, claim: ShardClaim) -> ShardEnded | None:
        """Give how a try ended, or None."""
        return self._get(ShardEnded, _tried("replay-ended", claim.run_id, claim.shard.number, claim.number))

    def end_shard(self, claim: ShardClaim, how: ShardEnded) -> ShardEnded:
        """Record the end of a try and give the record that stands: the first one does."""
        name = _tried("replay-ended", claim.run_id, claim.shard.number, claim.number)
        return how if self._create(name, how) else self._require(ShardEnded, name)

    def shard_progress(self, claim: ShardClaim) -> ShardProgress | None:
        """Give the last sign of life of a try, or None."""
        return self._get(ShardProgress, _tried("replay-progress", claim.run_id, claim.shard.number, claim.number))

    def note_progress(self, claim: ShardClaim, progress: ShardProgress) -> None:
        """Record a sign of life. Only the try's driver calls this."""
        self._put(_tried("replay-progress", claim.run_id, claim.shard.number, claim.number), progress)

    def replayed(self, run_id: str, shard: int) -> Replayed | None:
        """Give what was read of a shard, or None as long as its output is not finished."""
        return self._get(Replayed, f"replayed/{run_id}/{shard:08d}")

    def all_replayed(self, run_id: str) -> Iterator[Replayed]:
        """Give all shards of a run that are finished, by their number."""
        return (
            self._load(Replayed, name, text) for name, text in self._store.scan(self.pipeline, f"replayed/{run_id}/")
        )

    def record_replayed(self, replayed: Replayed) -> Replayed:
        """Record that the output of a shard is finished and give the record that stands: the first one does."""
        name = f"replayed/{replayed.run_id}/{replayed.shard:08d}"
        return replayed if self._create(name, replayed) else self._require(Replayed, name)

    def _get(self, kind: type[T], name: str) -> T | None:
        text = self._store.get(self.pipeline, name)
        return None if text is None else self._load(kind, name, text)

    def _require(self, kind: type[T], name: str) -> T:
        found = self._get(kind, name)
        assert found is not None, f"{name} was there a moment ago, and cells are never removed"
        return found

    def _load(self, kind: type[T], name: str, text: str) -> T:
        try:
            return codec.loads(kind, text)
        except ValueError as error:
            raise StoreDataError(
                seen=f"control cell {name!r} of pipeline {self.pipeline!r} holds {text[:80]!r}: {error}",
                expected=f"the JSON of {kind.__name__}",
                do="find who else writes to the control table; it belongs to this provider alone",
            ) from error

    def _create(self, name: str, value: Any) -> bool:
        return self._store.check_and_put(self.pipeline, name, None, codec.dumps(value))

    def _put(self, name: str, value: Any) -> None:
        text = codec.dumps(value)
        current = self._store.get(self.pipeline, name)
        while not self._store.check_and_put(self.pipeline, name, current, text):
            current = self._store.get(self.pipeline, name)


def _numbered(kind: str, number: int) -> str:
    return f"{kind}/{number:08d}"


def _tried(kind: str, run_id: str, shard: int, number: int) -> str:
    return f"{kind}/{run_id}/{shard:08d}/{number:08d}"
