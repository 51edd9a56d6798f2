"""Provide data for selectors from the session of an operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.selectors.model import PastPosition
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import NoHistory, SelectorError
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.history import position_in, row_time_of
from airflow_provider_offsets.stores.protocols import HistoryStore

ASKED_AT = "asked_at_ms"
LARGEST_FILE = 64 * 1024 * 1024
"""In bytes: more than two million partitions."""
CLOCKS_DIFFER_MS = 3_600_000
"""Largest difference between the clocks of two hosts, in milliseconds."""


@dataclass(frozen=True)
class SessionSources:
    """The ``Sources`` of one operation. They write only the time of its first plan, if a selector needs that time."""

    session: Session
    position: Position

    @cached_property
    def asked_at_ms(self) -> int:
        """Time of the operation's first plan (ms), recorded with the operation if it exists."""
        control, operation = self.session.control, self.session.operation
        recorded = control.step(operation, ASKED_AT, int)
        if recorded is None:
            recorded = clock.now_ms()
            if control.operation(operation) is not None:  # a draft without an operation records nothing
                control.record_step(operation, ASKED_AT, recorded)
        return recorded

    def offsets_at(self, time_ms: int) -> Mapping[TopicPartition, int | None]:
        """Return per partition of the pipeline's topics the first offset with that timestamp (ms) or a later one.

        The value is None if there is no such record.
        """
        pipeline = self.session.pipeline
        return self.session.kafka.offsets_at(pipeline.topics, time_ms, read_committed=pipeline.read_committed)

    def commits_of(self, group_id: str) -> Position:
        """Return the committed offsets of a group in the pipeline's topics."""
        return self.session.kafka.committed(group_id, self.session.pipeline.topics)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return the snapshot of that id or label.

        :raises SnapshotNotFound: there is none.
        """
        return self.session.control.named_snapshot(snapshot_id)

    def text_of(self, path: str) -> str:
        """Return the text of a file on this machine.

        :raises SelectorError: the path is not an ordinary file, or it is unreadable, not UTF-8, or above 64 MiB.
        """
        file = Path(path)
        try:
            # Reading a device or a pipe would never end.
            if file.exists() and not file.is_file():
                raise OSError("it is no ordinary file")
            with file.open("rb") as opened:
                read = opened.read(LARGEST_FILE + 1)
            if len(read) > LARGEST_FILE:
                raise OSError(f"it has more than {LARGEST_FILE} bytes")
            return read.decode()
        except (OSError, UnicodeDecodeError) as error:
            detail = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
            raise SelectorError(
                seen=f"the file of 'file:{path}' cannot be read: {detail}",
                expected="a readable file in UTF-8, on the machine where this task runs",
                do="correct the path, or copy the file to this machine",
            ) from error

    def as_of(self, time_ms: int) -> PastPosition | None:
        """Return the position of the pipeline after the last batch at or before that time (ms), else None.

        The history of a tracked job is used. For an untracked job, the first of its stores with a history is used, or
        its snapshots without such a store.

        :raises NoHistory: an untracked job has neither a store with a history nor snapshots.
        """
        if self.session.pipeline.tracked:
            claimed = tuple(epoch for epoch in self.session.control.epochs() if epoch.holder is not None)
            return _by_rows(self.session.store, self.session.pipeline.stream, time_ms, claimed)
        for name in self.session.pipeline.offsets_in:
            store = self.session.kept_in.get(name)
            if isinstance(store, HistoryStore):
                return _by_rows(store, self.session.pipeline.stream, time_ms, (), f"in {name}")
        return _by_snapshots(self.session, time_ms)


def _by_rows(
    history: HistoryStore, stream: Stream, time_ms: int, epochs: Sequence[Epoch], where: str = ""
) -> PastPosition | None:
    """Return the newest position at or before a time, per topic if rows are written topic by topic.

    :param history: store with the rows.
    :param stream: group and topics.
    :param time_ms: the time.
    :param epochs: epochs that a driver claimed, the oldest first; empty for a job that keeps its history elsewhere.
    :param where: name of the store, for the explanation.
    """

    def newest(of: Stream) -> Batch | None:
        return _newest_official(history.newest_first(of, until_ms=time_ms), epochs)

    last, position = newest(stream), position_in(stream, newest)
    if last is None or position is None:
        return None
    name = "a row" if last.batch_id is None else f"batch {last.batch_id}"
    when = "" if last.row_time_ms is None else f" of {moment_text(last.row_time_ms)}"
    identity = next((epoch.claim.identity for epoch in epochs if epoch.number == last.epoch), None)
    return PastPosition(position, " ".join(filter(None, (f"after {name}{when}", where))), identity)


def _newest_official(rows: Iterable[Batch], epochs: Sequence[Epoch]) -> Batch | None:
    """Return the newest row that is an official position of the pipeline, or None.

    Rows of epochs are official. A row without an epoch is official if it was written before the first epoch, so no row
    of an epoch lies before it. The time of the first claim is from another host's clock. So that time decides only if
    no row of an epoch is close.

    :param rows: the newest first.
    :param epochs: epochs that a driver claimed, the oldest first.
    """
    found = None
    for row in rows:
        if row.epoch is not None or not epochs:
            return row
        if row_time_of(row) < epochs[0].claimed_at_ms:
            found = found or row
        if row_time_of(row) < epochs[0].claimed_at_ms - CLOCKS_DIFFER_MS:
            break
    return found


def _by_snapshots(session: Session, time_ms: int) -> PastPosition | None:
    taken = [(each.taken_ms, each.id, each) for each in session.control.snapshots() if each.position and each.taken_at]
    if not taken:
        raise NoHistory(
            seen=f"'as-of:' was used for {session.pipeline.name!r}, which has neither a history nor a snapshot",
            expected="a tracked job, a store with a history in offsets_in, or snapshots",
            do="use 'timestamp:', 'offsets:' or 'file:' instead",
        )
    earlier = [each for each in taken if each[0] <= time_ms]
    if not earlier:
        return None
    at_ms, snapshot_id, snapshot = max(earlier, key=lambda each: each[:2])
    return PastPosition(
        snapshot.position, f"by snapshot {snapshot_id} of {moment_text(at_ms)}", snapshot.seen.live.identity
    )
