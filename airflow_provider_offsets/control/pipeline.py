"""Control records of a pipeline in any ``OffsetStore``: its record, epochs, heartbeats, operations.

| control record | written by | content |
|---|---|---|
| ``pipeline`` | operations and drivers, by compare-and-set | the pipeline's record: see ``core.record.transition`` |
| ``launch/<n>/<tag>`` | an operation, once, before the record names it | the ``Claim`` of a launch |
| ``move/<plan>`` | an operation, once, before the record names it | a move of an untracked job in its own store |
| ``epoch/<n>`` | an operation, once, before the next launch | the result of epoch n; follows from the record |
| ``heartbeat/<n>`` | the driver of epoch n | a sign of life; no decision depends on it alone |
| ``attempt/<run>`` | the first task of a run | the number of the newest attempt of a run |
| ``operation/<id>`` | the tasks of one operation | its steps and their results |
| ``snapshot/<id>`` | a task, once | a named observation, or a mark that it was removed |

Control records of replays are in ``control.replays``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from airflow_provider_offsets.control.cells import load_cell
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Attempt, Claim, Cut, CutOff, Epoch, Heartbeat, Operation, RecordedMove
from airflow_provider_offsets.core.record.model import PipelineRecord
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import PipelineRenamed, SnapshotNotFound, StoreDataError, StoreUnreachable
from airflow_provider_offsets.stores.protocols import OffsetStore

T = TypeVar("T")

REMOVED = '"removed"'
"""Content of the control record of a removed snapshot."""


class Control:
    """Typed access to the control records of one pipeline."""

    def __init__(self, store: OffsetStore, pipeline: str) -> None:
        self._store = store
        self.pipeline = pipeline

    @property
    def cell(self) -> RecordCell:
        """The pipeline's record."""
        return RecordCell(self._store, self.pipeline)

    def record(self) -> PipelineRecord | None:
        """Return the pipeline's record, or None if no operation has acted on the pipeline yet.

        :raises PipelineRenamed: the pipeline has another name now.
        """
        record = self.cell.read()
        if record is not None and record.renamed_to:
            raise PipelineRenamed(
                seen=f"pipeline {self.pipeline!r} was renamed to {record.renamed_to!r}",
                expected="the present name of the pipeline",
                do=f"use the name {record.renamed_to!r}",
            )
        return record

    def claim(self, number: int, tag: str) -> Claim:
        """Return the claim of a launch that the record names.

        :param number: number of the launch's epoch.
        :param tag: tag of the launch.
        """
        return self._require(Claim, _launched(number, tag))

    def keep_claim(self, claim: Claim) -> None:
        """Store the claim of a launch, before the record names it. Repeating the call changes nothing."""
        self._create(_launched(claim.number, claim.tag), claim)

    def move(self, plan: str) -> RecordedMove:
        """Return the move that the record's intent names."""
        return self._require(RecordedMove, f"move/{plan}")

    def keep_move(self, moved: RecordedMove) -> None:
        """Store a move of an untracked job in its own store, before the record names the move."""
        self._create(f"move/{moved.fingerprint}", moved)

    def keep_epoch(self, epoch: Epoch) -> None:
        """Store the result of an epoch. The content follows from the record, so two actors store the same."""
        self._create(_numbered("epoch", epoch.number), epoch)

    def kept_epoch(self, number: int) -> Epoch | None:
        """Return the stored result of an epoch, or None if the epoch has no successor yet."""
        return self._get(Epoch, _numbered("epoch", number))

    def kept_epochs(self) -> Iterator[Epoch]:
        """Yield the stored results of the epochs that have a successor, the oldest first."""
        return (load_cell(Epoch, self.pipeline, name, text) for name, text in self._store.scan(self.pipeline, "epoch/"))

    def epochs(self) -> Iterator[Epoch]:
        """Yield all launches with their results, the oldest first: those of the past, then the newest one.

        The record is read first, so an epoch that ends meanwhile appears once.
        """
        record = self.record()
        if record is None:
            return
        yield from (epoch for epoch in self.kept_epochs() if epoch.number < record.epoch)
        if record.launch is not None:
            yield self.newest_launch(record)

    def newest_launch(self, record: PipelineRecord) -> Epoch:
        """Return the newest launch of ``record`` with its result so far."""
        assert record.launch is not None
        claim = self.claim(record.epoch, record.launch.tag)
        recorded = record.recorded
        return Epoch(
            claim=claim,
            holder=record.holder,
            claimed_at_ms=record.claimed_at_ms,
            ended=record.ended,
            cuts=tuple(self._cut(claim, each) for each in record.cuts),
            last_batch_id=recorded.batch_id if recorded is not None and recorded.tag == claim.tag else None,
            written=record.written,
        )

    def claimed_epoch(self, record: PipelineRecord | None) -> Epoch | None:
        """Return the newest epoch that a driver claimed, or None before the first claim.

        A launch that is unclaimed or cancelled does not count: the pipeline's position is still that of the previous
        epoch.
        """
        if record is None or record.recorded is None:
            return None
        if record.recorded.epoch == record.epoch:
            return self.newest_launch(record)
        return self._require(Epoch, _numbered("epoch", record.recorded.epoch))

    def _cut(self, claim: Claim, cut: CutOff) -> Cut:
        batch = None if cut.row_time_ms is None else self._store.prepared(claim.stream, cut.row_time_ms)
        ranges = () if batch is None else tuple(each for each in batch.ranges if each.count)
        return Cut(cut.batch_id, cut.query_id, cut.count, cut.why, ranges)

    def heartbeat(self, number: int) -> Heartbeat | None:
        """Return the last heartbeat of an epoch's driver, or None."""
        return self._get(Heartbeat, _numbered("heartbeat", number))

    def beat(self, number: int, heartbeat: Heartbeat) -> None:
        """Write a heartbeat. Only the epoch's driver calls this.

        :param number: number of the epoch.
        :param heartbeat: replaces the previous heartbeat of the epoch.
        """
        self._put(_numbered("heartbeat", number), heartbeat)

    def attempt(self, run: str) -> int:
        """Return the number of the newest attempt of a run; 1 for the first."""
        found = self._get(Attempt, f"attempt/{run}")
        return 1 if found is None else found.number

    def begin_attempt(self, run: str, key: str) -> int:
        """Return the number of the attempt with this key, which is a new attempt if no attempt has the key.

        :param run: id of the run.
        :param key: equal for all automatic retries of one attempt, and different after a clear.
        """
        name = f"attempt/{run}"
        while True:
            text = self._store.get(self.pipeline, name)
            newest = None if text is None else load_cell(Attempt, self.pipeline, name, text)
            keys = () if newest is None else (*newest.earlier, newest.key)
            if key in keys:
                return keys.index(key) + 1
            started = Attempt(len(keys) + 1, key, keys)
            if self._swap(name, text, codec.dumps(started)):
                return started.number

    def operation(self, operation_id: str) -> Operation | None:
        """Return one operation, or None."""
        return self._get(Operation, f"operation/{operation_id}")

    def operations(self, prefix: str = "") -> Iterator[Operation]:
        """Yield all operations whose id begins with ``prefix``, sorted by id."""
        cells = self._store.scan(self.pipeline, f"operation/{prefix}")
        return (load_cell(Operation, self.pipeline, name, text) for name, text in cells)

    def open_operation(self, operation: Operation) -> Operation:
        """Write a new operation and return it, or return the stored one of that id."""
        name = f"operation/{operation.id}"
        return operation if self._create(name, operation) else self._require(Operation, name)

    def record_step(self, operation_id: str, step: str, result: Any) -> None:
        """Write the result of one step of an open operation; a later result replaces an earlier one.

        :param operation_id: id of the operation.
        :param step: name of the step.
        :param result: a value that ``core.codec`` can encode.
        """
        name = f"operation/{operation_id}"
        while True:
            text = self._store.get(self.pipeline, name)
            current = load_cell(Operation, self.pipeline, name, text)
            changed = replace(current, steps={**current.steps, step: codec.dumps(result)})
            if self._swap(name, text, codec.dumps(changed)):
                return

    def step(self, operation_id: str, step: str, kind: type[T]) -> T | None:
        """Return the recorded result of a step, or None.

        :param operation_id: id of the operation.
        :param step: name of the step.
        :param kind: type of the result.
        """
        operation = self.operation(operation_id)
        text = None if operation is None else operation.steps.get(step)
        return None if text is None else load_cell(kind, self.pipeline, f"operation/{operation_id}#{step}", text)

    def keep_snapshot(self, snapshot: Snapshot) -> Snapshot:
        """Write a sealed snapshot and return the stored one of its id: the first one wins."""
        name, text = f"snapshot/{snapshot.id}", codec.dumps(snapshot)
        for nothing in (None, REMOVED):
            if self._swap(name, nothing, text):
                return snapshot
        return self.snapshot(snapshot.id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return a stored snapshot.

        :raises SnapshotNotFound: there is none of that id; the message names the newest ones.
        :raises StoreDataError: the content does not match its checksum.
        """
        name = f"snapshot/{snapshot_id}"
        text = self._store.get(self.pipeline, name)
        found = None if text in (None, REMOVED) else load_cell(Snapshot, self.pipeline, name, text)
        if found is None:
            names = [each.label or each.id for each in self.snapshots()]
            raise SnapshotNotFound(
                seen=f"no snapshot {snapshot_id!r} of pipeline {self.pipeline!r} exists",
                expected=f"one of {names[-3:] or 'none at all'}",
                do="pass the id that SnapshotOffsetsOperator returned, or a label",
            )
        if not found.is_whole:
            raise StoreDataError(
                seen=f"snapshot {snapshot_id!r} does not match its checksum",
                expected="the content that was stored",
                do="choose another snapshot, because somebody changed this one by hand",
            )
        return found

    def named_snapshot(self, name: str) -> Snapshot:
        """Return the snapshot of that label or id: an id contains ``#``, and a label does not.

        :raises SnapshotNotFound: there is none.
        :raises StoreDataError: as ``snapshot``; or two people used the same label at the same time.
        """
        labelled = [] if "#" in name else self.labelled(name)
        if len(labelled) > 1:
            raise StoreDataError(
                seen=f"label {name!r} belongs to {', '.join(each.id for each in labelled)}",
                expected="one snapshot with that label",
                do="name one of the snapshots by its id",
            )
        return labelled[0] if labelled else self.snapshot(name)

    def labelled(self, label: str) -> list[Snapshot]:
        """Return the snapshots that have this label."""
        return [each for each in self.snapshots() if each.label == label]

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield all snapshots whose checksum is right, sorted by id."""
        cells = self._store.scan(self.pipeline, "snapshot/")
        there = (load_cell(Snapshot, self.pipeline, name, text) for name, text in cells if text != REMOVED)
        return (found for found in there if found.is_whole)

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot. Its control record stays as a mark, because somebody may be comparing with the text."""
        name = f"snapshot/{snapshot_id}"
        while (text := self._store.get(self.pipeline, name)) not in (None, REMOVED):
            self._swap(name, text, REMOVED)

    def _get(self, kind: type[T], name: str) -> T | None:
        text = self._store.get(self.pipeline, name)
        return None if text is None else load_cell(kind, self.pipeline, name, text)

    def _require(self, kind: type[T], name: str) -> T:
        found = self._get(kind, name)
        assert found is not None, f"{name} was there a moment ago, and cells are never removed"
        return found

    def _create(self, name: str, value: Any) -> bool:
        return self._swap(name, None, codec.dumps(value))

    def _put(self, name: str, value: Any) -> None:
        text = codec.dumps(value)
        current = self._store.get(self.pipeline, name)
        while not self._swap(name, current, text):
            current = self._store.get(self.pipeline, name)

    def _swap(self, name: str, expected: str | None, text: str) -> bool:
        """Set a control record if it holds ``expected``, and return whether it was set.

        If the answer is lost, the record is read to learn whether it was set.

        :raises StoreUnreachable: the store does not answer. Repeat the call.
        """
        try:
            return self._store.check_and_put(self.pipeline, name, expected, text)
        except StoreUnreachable:
            current = self._store.get(self.pipeline, name)
            if current != expected:
                return current == text
        return self._store.check_and_put(self.pipeline, name, expected, text)


def _numbered(kind: str, number: int) -> str:
    return f"{kind}/{number:08d}"


def _launched(number: int, tag: str) -> str:
    return f"launch/{number:08d}/{tag}"
