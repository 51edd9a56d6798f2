"""Records of a replay, and the pure functions that change them.

Two kinds of control records, changed by compare-and-set only:

- One :class:`ReplayRecord` for the replay of one DAG run: its newest attempt and the previous attempts.
- One :class:`ShardRecord` for each shard of an attempt: its newest try, from the launch to the recorded output.

A launch is in the record of its shard before any process exists, under a random tag. A driver claims the launch of its
tag, starts and records. Each of these is one swap, which also fences other drivers. A cancelled launch can never be
claimed. A superseded shard can never be launched, claimed, started or recorded again. So a new attempt supersedes all
shards of the previous attempts, including shards without a launch.

Every transition is recognised by its effect (tags and nonces are random), so repeating one after a lost answer changes
nothing. No text of a record ever recurs, so a delayed request cannot match again.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Union

from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.position import OffsetRange

# Tries of a shard


class ShardPhase(enum.Enum):
    """State of a shard."""

    WAITING = "waiting"
    """No driver may claim it: it was not launched yet, or its newest try has ended."""
    LAUNCHING = "launching"
    """A launch was recorded, and no driver has claimed it yet."""
    RUNNING = "running"
    """A driver has claimed the launch."""
    REPLAYED = "replayed"
    """The output is complete. This state is final."""
    SUPERSEDED = "superseded"
    """A later attempt replays the interval. This state is final."""


@dataclass(frozen=True)
class TryEnded:
    """End of a try, as reported by its driver or by the actor that closed it."""

    how: EndedHow
    at_ms: int
    message: str = ""
    retriable: bool = True
    """Whether the same program may succeed next time: False if the runtime refused it."""


@dataclass(frozen=True)
class ShardTry:
    """One launch of a shard with its result."""

    number: int
    """From 1."""
    tag: str
    """Random. A driver claims the launch of this tag, never that of a number."""
    log: str
    """Path of the driver's log."""
    holder: ProcessIdentity | None = None
    """The leader of the driver's session, which contains spark-submit, its JVM and its Python program."""
    ended: TryEnded | None = None


@dataclass(frozen=True)
class ShardRead:
    """Records that the driver of a shard has read, recorded once its output is complete."""

    records_read: int
    elapsed_ms: int = 0
    """Run time of the program, without Spark's start."""
    counted_apart: bool = False
    """Whether the driver read the ranges once more to count, because the program's own actions read fewer records."""
    rows_written: int | None = None
    """Number of rows that Spark says the program wrote; None if Spark saw no write, or has no count."""
    is_empty: bool = False
    """Whether the program read records, and Spark saw no written row."""


@dataclass(frozen=True)
class ShardRecord:
    """Record of one shard of one attempt."""

    phase: ShardPhase = ShardPhase.WAITING
    ranges: str = ""
    """Digest of the ranges; empty before the first launch."""
    application_version: str = ""
    newest: ShardTry | None = None
    """The newest try; None before the first launch."""
    run: str = ""
    """Nonce of the newest call of the program's function."""
    started: int = 0
    """Number of calls of the function that started. Each may have written; all but the last one were interrupted."""
    read: ShardRead | None = None
    superseded_by: str = ""
    """Run id of the later attempt."""

    @property
    def driver(self) -> ProcessIdentity | None:
        """The process that claimed the newest try and has no recorded end, or None."""
        return None if self.newest is None or self.newest.ended is not None else self.newest.holder


def digest_of_ranges(ranges: Iterable[OffsetRange]) -> str:
    """Return the digest of the ranges of a shard, used as their name."""
    return hashlib.sha256("\n".join(map(str, ranges)).encode()).hexdigest()[:16]


class ShardRefusal(enum.Enum):
    """Why a transition of a shard is not possible."""

    OTHER_RANGES = "the shard has other ranges"
    OTHER_VERSION = "another version of the program was launched"
    REPLAYED = "the shard is replayed already"
    CANCELLED = "the launch was cancelled"
    FENCED = "the try is over"
    SUPERSEDED = "a later attempt replays the interval"


@dataclass(frozen=True)
class ShardRefused:
    """Result of an event that is not possible now."""

    why: ShardRefusal
    detail: str


# Events of a task


@dataclass(frozen=True)
class LaunchShard:
    """A task records a launch, before the process exists.

    If another launch is active, or nothing is left to launch, the record is not changed.
    """

    tag: str
    ranges: str
    """Digest of the ranges."""
    application_version: str
    log: str


@dataclass(frozen=True)
class CancelShard:
    """A task cancels a launch that no driver has claimed: from then on none can."""

    tag: str
    ended: TryEnded


@dataclass(frozen=True)
class CloseShard:
    """A task closes a try whose driver has exited. If the driver is still running, it is fenced."""

    tag: str
    ended: TryEnded


@dataclass(frozen=True)
class SupersedeShard:
    """A later attempt fences the shard, whatever its state."""

    by: str
    """Run id of the later attempt."""
    at_ms: int


# Events of a driver


@dataclass(frozen=True)
class ClaimShard:
    """A driver claims the launch of a tag."""

    tag: str
    holder: ProcessIdentity


@dataclass(frozen=True)
class StartShard:
    """A driver is about to call the program's function."""

    tag: str
    holder: ProcessIdentity
    run: str
    """Nonce of this call."""


@dataclass(frozen=True)
class RecordShard:
    """A driver records that the output is complete."""

    tag: str
    holder: ProcessIdentity
    run: str
    read: ShardRead


@dataclass(frozen=True)
class EndShard:
    """A driver ends its try."""

    tag: str
    holder: ProcessIdentity
    ended: TryEnded


ShardEvent = Union[LaunchShard, CancelShard, CloseShard, SupersedeShard, ClaimShard, StartShard, RecordShard, EndShard]


def shard_transition(record: ShardRecord, event: ShardEvent) -> ShardRecord | ShardRefused:
    """Return the record after ``event``, or why the event is not possible. An equal record: it happened before.

    :param record: the record of the shard now.
    :param event: what happens to the shard.
    """
    return _RULES[type(event)](record, event)


def _launch(record: ShardRecord, event: LaunchShard) -> ShardRecord | ShardRefused:
    if record.ranges not in ("", event.ranges):
        return ShardRefused(ShardRefusal.OTHER_RANGES, f"its ranges are {record.ranges}, and not {event.ranges}")
    newest = record.newest
    if record.phase is not ShardPhase.WAITING or (newest is not None and newest.tag == event.tag):
        return record
    if record.application_version not in ("", event.application_version):
        return ShardRefused(
            ShardRefusal.OTHER_VERSION,
            f"its version is {record.application_version[:12]}, and not {event.application_version[:12]}",
        )
    return replace(
        record,
        phase=ShardPhase.LAUNCHING,
        ranges=event.ranges,
        application_version=event.application_version,
        newest=ShardTry(1 if newest is None else newest.number + 1, event.tag, event.log),
    )


def _cancel(record: ShardRecord, event: CancelShard) -> ShardRecord | ShardRefused:
    if not _is_newest(record, event.tag) or record.phase is not ShardPhase.LAUNCHING:
        return record
    return replace(_with_end(record, event.ended), phase=ShardPhase.WAITING)


def _close(record: ShardRecord, event: CloseShard) -> ShardRecord | ShardRefused:
    if not _is_newest(record, event.tag) or record.phase is ShardPhase.LAUNCHING:
        return record
    after = _with_end(record, event.ended)
    return replace(after, phase=ShardPhase.WAITING) if record.phase is ShardPhase.RUNNING else after


def _supersede(record: ShardRecord, event: SupersedeShard) -> ShardRecord | ShardRefused:
    if record.phase in (ShardPhase.REPLAYED, ShardPhase.SUPERSEDED):
        return record
    after = replace(record, phase=ShardPhase.SUPERSEDED, superseded_by=event.by)
    if record.phase is not ShardPhase.LAUNCHING:
        return after
    return _with_end(after, TryEnded(EndedHow.CANCELLED, event.at_ms, f"superseded by {event.by!r}"))


def _claim(record: ShardRecord, event: ClaimShard) -> ShardRecord | ShardRefused:
    newest = record.newest
    if newest is None or newest.tag != event.tag:
        return ShardRefused(ShardRefusal.FENCED, _words(record))
    if record.phase is ShardPhase.LAUNCHING:
        return replace(record, phase=ShardPhase.RUNNING, newest=replace(newest, holder=event.holder))
    if record.phase is ShardPhase.RUNNING and newest.holder == event.holder:
        return record
    return _over(record)


def _begin(record: ShardRecord, event: StartShard) -> ShardRecord | ShardRefused:
    if not _holds(record, event):
        return _over(record)
    if record.run == event.run:
        return record
    return replace(record, run=event.run, started=record.started + 1)


def _record(record: ShardRecord, event: RecordShard) -> ShardRecord | ShardRefused:
    if record.phase is ShardPhase.REPLAYED and _is_newest(record, event.tag) and record.run == event.run:
        return record
    if not _holds(record, event) or record.run != event.run:
        return _over(record)
    return replace(record, phase=ShardPhase.REPLAYED, read=event.read)


def _end(record: ShardRecord, event: EndShard) -> ShardRecord | ShardRefused:
    newest = record.newest
    if newest is None or (newest.tag, newest.holder) != (event.tag, event.holder):
        return record
    return _close(record, CloseShard(event.tag, event.ended))


def _holds(record: ShardRecord, event: StartShard | RecordShard) -> bool:
    newest = record.newest
    is_mine = newest is not None and (newest.tag, newest.holder) == (event.tag, event.holder)
    return is_mine and record.phase is ShardPhase.RUNNING


def _is_newest(record: ShardRecord, tag: str) -> bool:
    return record.newest is not None and record.newest.tag == tag


def _with_end(record: ShardRecord, ended: TryEnded) -> ShardRecord:
    """Return the record with the end of its newest try; the end that was recorded first is kept."""
    newest = record.newest
    assert newest is not None
    return record if newest.ended is not None else replace(record, newest=replace(newest, ended=ended))


def _over(record: ShardRecord) -> ShardRefused:
    """Return why a driver may not continue."""
    ended = None if record.newest is None else record.newest.ended
    if record.phase is ShardPhase.SUPERSEDED:
        why = ShardRefusal.SUPERSEDED
    elif record.phase is ShardPhase.REPLAYED:
        why = ShardRefusal.REPLAYED
    elif ended is not None and ended.how is EndedHow.CANCELLED:
        why = ShardRefusal.CANCELLED
    else:
        why = ShardRefusal.FENCED
    return ShardRefused(why, _words(record))


def _words(record: ShardRecord) -> str:
    """Return a description of the record, for people."""
    newest = record.newest
    if record.phase is ShardPhase.SUPERSEDED:
        return f"it was superseded by {record.superseded_by!r}"
    if newest is None:
        return "it was never launched"
    said = f"try {newest.number} is {record.phase.value}"
    if record.phase is ShardPhase.WAITING and newest.ended is not None:
        said = f"try {newest.number} ended, {newest.ended.how.value}: {newest.ended.message}"
    return said if newest.holder is None else f"{said}, by pid {newest.holder.pid} on {newest.holder.host!r}"


_RULES: dict[type, Callable[[ShardRecord, Any], ShardRecord | ShardRefused]] = {
    LaunchShard: _launch,
    CancelShard: _cancel,
    CloseShard: _close,
    SupersedeShard: _supersede,
    ClaimShard: _claim,
    StartShard: _begin,
    RecordShard: _record,
    EndShard: _end,
}
