"""Audit the history of a pipeline."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.audit.rows import empty_batches, epochs_in, rows_written
from airflow_provider_offsets.core.audit.walk import audit
from airflow_provider_offsets.core.audit.window import AuditWindow, Measure
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import Cut, Epoch
from airflow_provider_offsets.core.known import first_when_stopped
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    UNSTARTED,
    WHEN_STOPPED,
    Observation,
    Snapshot,
    snapshot_id,
)
from airflow_provider_offsets.errors import InputRefused, SnapshotNotFound
from airflow_provider_offsets.operations.lease import require_unknown
from airflow_provider_offsets.operations.ownership import require_own
from airflow_provider_offsets.operations.session import Session, started_batch
from airflow_provider_offsets.stores.history import row_time_of


def audit_history(session: Session, window: AuditWindow | None = None) -> AuditReport:
    """Return the audit of a pipeline's whole history, or of the epochs of an untracked job.

    Rows are read one at a time, and only one cursor per partition is kept, so the history may have any length.

    :param session: the session of the operation.
    :param window: the part to report; None reports all.
    :raises InputRefused: the window of an untracked job is not given in epochs, or names an epoch or batches that do
        not exist.
    :raises StateLost: the pipeline has no record, and the history has rows of epochs, or another pipeline owns the
        history: the pipeline was renamed, or the control store was lost. Then nothing could explain its rewinds.
    """
    record = session.control.record()
    if record is None:
        require_own(session)
        require_unknown(session)
    report = _audit_batches(session, record, window) if session.pipeline.tracked else audit_epochs(session, window)
    if window is not None:
        _require_any(session, record, window, report)
    return report


def recorded_batches(session: Session, record: PipelineRecord | None, epochs: Sequence[Epoch]) -> Iterator[Batch]:
    """Yield the batches of a tracked job's history, in the order of recording.

    :param session: the session of the operation.
    :param record: the record as read before. Batches that a running job has recorded since are omitted.
    :param epochs: all launches of the pipeline.
    """
    return _official_rows(session, record, epochs)


def _require_any(session: Session, record: PipelineRecord | None, window: AuditWindow, report: AuditReport) -> None:
    """Refuse a window that names an epoch or batches that do not exist: an audit of nothing finds nothing.

    :raises InputRefused: there is no such epoch, or no such batch.
    """
    bounds = [each for each in (window.since, window.until) if each is not None]
    newest = 0 if record is None else record.epoch
    epochs = [each for each in bounds if each.measure is Measure.EPOCH]
    if unknown := [each for each in epochs if not 1 <= each.value <= newest]:
        raise InputRefused(
            seen=f"pipeline {session.pipeline.name!r} has no {unknown[0]}",
            expected=f"an epoch from 1 to {newest}, the newest one" if newest else "a pipeline that was started",
            do="correct '--since' or '--until'",
        )
    numbers = [each.value for each in epochs]
    are_idle = len(epochs) == len(bounds) and numbers == sorted(numbers)
    if not report.batches and not are_idle:
        raise InputRefused(
            seen=f"pipeline {session.pipeline.name!r} has no batch in {' to '.join(map(str, bounds))}",
            expected="at least one batch, because an audit of nothing proves nothing",
            do="correct '--since' or '--until'",
        )


def _audit_batches(session: Session, record: PipelineRecord | None, window: AuditWindow | None) -> AuditReport:
    """Return the audit of a tracked job's history."""
    epochs = _epochs(session, record)
    first = next((epoch for epoch in epochs if epoch.holder is not None), None)
    oldest = next(_rows(session, epochs), None)
    # Unless an earlier job has written rows, the history begins at the job's position before its first launch.
    is_whole = first is not None and (oldest is None or oldest.epoch is not None)
    report = audit(
        session.pipeline.name,
        _official_rows(session, record, epochs),
        epochs,
        since=_stood_before(first) if first is not None and is_whole else None,
        read_before=first.claim.stood if first is not None and is_whole else None,
        recorded=None if record is None else record.recorded,
        window=window,
    )
    counted = epochs_in(epochs, window)
    return replace(
        report,
        rows_written=rows_written(counted),
        uncounted_batches=sum(epoch.written.uncounted for epoch in counted),
        warnings=tuple(empty_batches(counted)),
    )


def _stood_before(first: Epoch) -> Position:
    """Return the position of the job before its first launch, which may rewind or skip like any other launch."""
    stood = first.claim.stood or Position()
    return Position({partition: stood.get(partition, start) for partition, start in first.claim.start.items()})


def _official_rows(session: Session, record: PipelineRecord | None, epochs: Sequence[Epoch]) -> Iterator[Batch]:
    """Yield the rows of the history in order, with the recorded batch whose row is not written yet.

    :param record: the record as read together with the epochs. Rows that a running job has recorded since are omitted.
    """
    missing = _recorded_batch(session, record)
    for row in _rows(session, epochs):
        if missing is not None and row_time_of(row) >= row_time_of(missing):
            if row_time_of(row) > row_time_of(missing):
                yield missing
            missing = None
        if record is None or not _was_recorded_since(session, record, row):
            yield row
    if missing is not None:
        yield missing


def _rows(session: Session, epochs: Sequence[Epoch]) -> Iterator[Batch]:
    """Yield the rows of the streams of all epochs, in order; without an epoch, those of the pipeline's stream.

    Group id and topics of a pipeline may have changed in ``pipelines.yaml``. The rows of an epoch belong to the stream
    of its launch. A row without an epoch belongs to the pipeline if the epoch of its time reads one of its topics.
    """
    claims = {epoch.number: epoch.claim for epoch in epochs if epoch.holder is not None}
    if not claims:
        yield from session.store.oldest_first(session.pipeline.stream)
        return
    topics: dict[str, set[str]] = defaultdict(set)
    for claim in claims.values():
        topics[claim.stream.group_id].update(claim.stream.topics)
    streams = [Stream(group_id, tuple(sorted(names))) for group_id, names in topics.items()]
    newest = claims[min(claims)]
    for row in heapq.merge(*map(session.store.oldest_first, streams), key=row_time_of):
        claim = newest if row.epoch is None else claims.get(row.epoch, newest)
        newest = max(newest, claim, key=lambda each: each.number)
        if any(partition.topic in claim.stream.topics for partition in row.end):
            yield row


def _was_recorded_since(session: Session, record: PipelineRecord, row: Batch) -> bool:
    """Return whether a driver has recorded a row after the record was read.

    Any other row that the record does not know is of a foreign writer, or the control store was restored.
    """
    recorded = record.recorded
    newest = (0, 0) if recorded is None else (recorded.epoch, recorded.row_time_ms or 0)
    if row.epoch is None or (row.epoch, row_time_of(row)) <= newest:
        return False
    now = session.control.record()
    return now is not None and now.version > record.version and row.epoch <= now.epoch


def _recorded_batch(session: Session, record: PipelineRecord | None) -> Batch | None:
    recorded = None if record is None else record.recorded
    if recorded is None or recorded.row_time_ms is None:
        return None
    return session.store.prepared(session.control.claim(recorded.epoch, recorded.tag).stream, recorded.row_time_ms)


def _epochs(session: Session, record: PipelineRecord | None) -> Sequence[Epoch]:
    """Return all launches, including the batch that was in flight before the first launch.

    If an epoch has ended but is not reconciled yet, its started batch counts as a cut.
    """
    launched = [_from_where_it_stopped(epoch) for epoch in session.control.epochs()]
    epochs = _with_in_flight(session, _with_removed_topics(launched))
    if record is None or record.phase is not Phase.ENDED or record.started is None or epochs[-1].number != record.epoch:
        return epochs
    state = read_state(open_checkpoint(epochs[-1].claim.checkpoint))
    cut = started_batch(session.store, record, epochs[-1], state, partial(session.ends_of, epochs[-1]))
    return epochs if cut is None else [*epochs[:-1], replace(epochs[-1], cuts=(*epochs[-1].cuts, cut))]


def _with_in_flight(session: Session, epochs: Sequence[Epoch]) -> list[Epoch]:
    """Return the launches of a tracked job with what was in flight when an epoch before it was tracked ended.

    The first launch and the first tracked one name that themselves. Between two untracked epochs, snapshots show it.
    """
    claimed = [epoch for epoch in epochs if epoch.holder is not None]
    shown = {each.number for each, later in pairwise(claimed) if not (each.claim.tracked or later.claim.tracked)}
    found = {epoch.number: epoch for epoch in epochs}
    for epoch in claimed:
        before = epoch.claim.in_flight
        if before is not None and (epoch.claim.tracked or epoch is claimed[0]):
            found[epoch.number] = replace(epoch, cuts=(before, *epoch.cuts))
    if shown:
        seen = session.observe()
        cut = _cut_off(session, claimed, _ends(session, claimed, seen), seen)
        found |= {each.number: each for each in cut if each.number in shown}
    return list(found.values())


def audit_epochs(session: Session, window: AuditWindow | None = None) -> AuditReport:
    """Return the audit of an untracked job: each epoch is one range per partition, from its start to its stop.

    The job may have run before its first epoch, up to the position from which that epoch was planned. So the first
    epoch may rewind or skip like any other one. An epoch stopped at the position from which the next epoch was planned.
    The snapshots of the stopped job that this operation and earlier ones took must agree with that position. Otherwise
    the difference is an unexplained discontinuity. Records in flight that the next epoch read again count as an
    interrupted batch.

    :param session: the session of the operation.
    :param window: the epochs to report; None for all.
    :raises InputRefused: the window has bounds that are not epochs.
    """
    bounds = (window.since, window.until) if window is not None else ()
    if any(bound is not None and bound.measure is not Measure.EPOCH for bound in bounds):
        raise InputRefused(
            seen=f"the window names a time or a batch, and {session.pipeline.name!r} keeps no history of batches",
            expected="a window of epochs, such as 'epoch:3', or no window",
            do="name the ends of the window by epochs",
        )
    # A launch that nobody claimed has moved nothing.
    epochs = [_from_where_it_stopped(epoch) for epoch in session.control.epochs() if epoch.holder is not None]
    if not epochs:
        return replace(audit(session.pipeline.name, (), (), window=window), by_epochs=True)
    seen = session.observe()
    ends = _ends(session, epochs, seen)
    batches = (
        Batch(end=end, batch_time_ms=0, epoch=epoch.number, start=epoch.claim.start)
        for epoch, end in zip(epochs, ends, strict=True)
    )
    cut = _cut_off(session, epochs, ends, seen)
    report = audit(
        session.pipeline.name,
        batches,
        cut,
        since=_stood_before(epochs[0]),
        read_before=epochs[0].claim.stood,
        window=window,
    )
    return replace(report, by_epochs=True)


def _from_where_it_stopped(epoch: Epoch) -> Epoch:
    """Return an epoch of an untracked job whose announcements count from where the epoch before had stopped.

    The command that moved its position may have seen fewer topics than the launch.
    """
    left_at, stood = epoch.claim.left_at, epoch.claim.stood or Position()
    if left_at is None:
        return epoch
    others = Position({key: offset for key, offset in stood.items() if key.topic not in left_at.topics})
    return replace(epoch, claim=replace(epoch.claim, stood=others.updated(left_at)))


def _cut_off(session: Session, epochs: Sequence[Epoch], ends: Sequence[Position], now: Observation) -> list[Epoch]:
    """Return the epochs with the records that each had in flight when it stopped and that another epoch has read too.

    That other epoch need not be the next one, which may have ended before these records. The in-flight records of a
    rewound epoch may have been read by an earlier one. Records that two epochs had in flight may have been written
    twice, although neither has finished them. One of the two may be the newest epoch.

    The record names the cut-off batches of an epoch whose program was tracked. They stay as they are.
    """
    read = [(epoch.claim.start, end) for epoch, end in zip(epochs, ends, strict=True)]
    before, _ = _claimed_in_flight(epochs[0])
    first, bounds = [], _bounds(before)
    for start, end in read:
        if again := read_again(before, start, end):
            first.append(Cut(UNSTARTED, "", 1, "in flight before the first launch", again))
            before = _not_read(before, start, end)
    read.append(bounds)
    cut = [replace(epoch, cuts=epoch.cuts if epoch.claim.tracked else ()) for epoch in epochs]
    cut[0] = replace(cut[0], cuts=(*first, *cut[0].cuts))
    for place, (epoch, later) in enumerate(zip(epochs, [*epochs[1:], None], strict=True)):
        if epoch.claim.tracked:
            continue
        stop = None if later is None else _snapshot_stopped(session, later, after=epoch)
        if later is not None and stop is None:
            in_flight, batch_id = _claimed_in_flight(later)
        else:
            seen = now if stop is None else stop.seen
            in_flight, batch_id = _in_flight(seen, epoch, ends[place], read), _planned_id(seen)
        bounds = _bounds(in_flight)
        for start, end in read:
            if again := read_again(in_flight, start, end):
                cut[place] = replace(cut[place], cuts=(*cut[place].cuts, Cut(batch_id, "", 1, "", again)))
                in_flight = _not_read(in_flight, start, end)
        read.append(bounds)
    return cut


def _bounds(ranges: Iterable[OffsetRange]) -> tuple[Position, Position]:
    """Return the starts and the ends of ranges, with one range per partition."""
    by_partition = {TopicPartition(each.topic, each.partition): each for each in ranges}
    return (
        Position({key: each.start for key, each in by_partition.items()}),
        Position({key: each.end for key, each in by_partition.items()}),
    )


def _in_flight(
    seen: Observation, epoch: Epoch, stopped_at: Position, read: Iterable[tuple[Position, Position]]
) -> tuple[OffsetRange, ...]:
    """Return what an epoch had in flight, based on an observation after the epoch.

    Without a planned batch, only the end of a topic limits what was in flight. After a topic was deleted, its end shows
    nothing. Then everything counts up to the highest offset that the pipeline has reached.

    :param seen: the observation.
    :param epoch: the epoch.
    :param stopped_at: where the epoch stopped.
    :param read: start and end of what each epoch has read or had in flight.
    """
    checkpoint = seen.newest_checkpoint
    is_planned = seen.kept[0].store == CHECKPOINT and not seen.is_running
    if seen.moved is not None or (is_planned and checkpoint is not None and not checkpoint.asynchronous):
        return seen.in_flight
    was, now = epoch.claim.identity, seen.live.identity
    is_same_cluster = was.cluster_id == now.cluster_id
    gone = {topic for topic, id_ in was.topic_ids.items() if not is_same_cluster or now.topic_ids.get(topic) != id_}
    ends = {key: max(end.get(key, 0) for _, end in read) for _, end in read for key in end if key.topic in gone}
    ranges = ((key, stopped_at.get(key, 0), end) for key, end in ends.items())
    of_other_topics = (each for each in seen.in_flight if each.topic not in gone)
    return (*of_other_topics, *(OffsetRange(*key, start, end) for key, start, end in ranges if start < end))


def _claimed_in_flight(later: Epoch) -> tuple[tuple[OffsetRange, ...], int]:
    """Return what the previous epoch had in flight according to the launch of ``later``, and the id of the batch."""
    claimed = later.claim.in_flight
    return ((), UNSTARTED) if claimed is None else (claimed.ranges, claimed.batch_id)


def _not_read(ranges: Iterable[OffsetRange], start: Position, end: Position) -> tuple[OffsetRange, ...]:
    """Return the parts of ``ranges`` that an epoch from ``start`` to ``end`` has not read."""
    found = []
    for each in ranges:
        key = TopicPartition(each.topic, each.partition)
        before, after = min(each.end, start.get(key, 0)), max(each.start, end.get(key, 0))
        parts = [(each.start, before), (after, each.end)]
        found += [OffsetRange(each.topic, each.partition, low, high) for low, high in parts if low < high]
    return tuple(found)


def read_again(in_flight: Iterable[OffsetRange], start: Position, end: Position) -> tuple[OffsetRange, ...]:
    """Return the parts of ``in_flight`` that an epoch from ``start`` to ``end`` has read too.

    :param in_flight: ranges of the records in flight.
    :param start: start of the epoch.
    :param end: position that the epoch has reached.
    """
    found = []
    for each in in_flight:
        key = TopicPartition(each.topic, each.partition)
        low, high = max(each.start, start.get(key, 0)), min(each.end, end.get(key, 0))
        if low < high:
            found.append(OffsetRange(each.topic, each.partition, low, high))
    return tuple(found)


def _ends(session: Session, epochs: Sequence[Epoch], seen: Observation) -> list[Position]:
    """Return where each of these claimed epochs has stopped, or is now."""
    stops = first_when_stopped(session.control.snapshots())
    ends = [
        _end_of(session, epoch, epochs[place:], stops.get(epoch.number)) for place, epoch in enumerate(epochs[:-1], 1)
    ]
    return [*ends, _stopped_at(epochs[-1], seen.stopped_at)]


def _end_of(session: Session, epoch: Epoch, following: Sequence[Epoch], first_stop: Snapshot | None) -> Position:
    """Return where an epoch stopped before the next one was claimed.

    :param following: the epochs after it, the oldest first.
    :param first_stop: the first snapshot of the stopped job after the epoch, possibly of an operation that started
        nothing.
    """
    stop = _snapshot_stopped(session, following[0], after=epoch)
    stood = following[0].claim.stood
    if stop is not None:
        # The pipeline may have had other topics when the snapshot was taken than when the launch was planned.
        seen, stood = stop.seen.stopped_at or Position(), stood or Position()
        stood = Position({key: at for key, at in stood.items() if key.topic not in seen.topics}).updated(seen)
    if first_stop is not None and stop is not None and _stood_still(first_stop, stop):
        first, stored = first_stop.seen.stopped_at or Position(), stop.seen.stored or Position()
        # A partition that is now missing in the store was not moved: its position is in other stores and records.
        stood = (stood or Position()).updated({key: offset for key, offset in first.items() if key in stored})
    return _stopped_at(epoch, _of_removed_topics(following).updated(stood or Position()))


def _of_removed_topics(following: Sequence[Epoch]) -> Position:
    """Return the position in the topics that the first of these epochs did not read, as they were put back.

    A store other than a checkpoint is asked for the pipeline's topics only. Nobody reads a topic that was taken out, so
    its position stays until the topic is put back.
    """
    put_back = Position()
    for later in reversed(following[1:]):
        read = later.claim.stream.topics  # what the launches after it say of these topics is of its own end
        others = Position({partition: offset for partition, offset in put_back.items() if partition.topic not in read})
        put_back = others.updated(later.claim.stood or Position())
    topics = following[0].claim.stream.topics
    return Position({partition: offset for partition, offset in put_back.items() if partition.topic not in topics})


def _with_removed_topics(launched: Sequence[Epoch]) -> list[Epoch]:
    """Return the launches, each one with the position in the topics that an untracked epoch before it read last."""
    claimed = [epoch for epoch in launched if epoch.holder is not None]
    found = {epoch.number: epoch for epoch in launched}
    for place, (before, epoch) in enumerate(pairwise(claimed), 1):
        if not before.claim.tracked:
            stood = _of_removed_topics(claimed[place:]).updated(epoch.claim.stood or Position())
            found[epoch.number] = replace(epoch, claim=replace(epoch.claim, stood=stood))
    return list(found.values())


def _stopped_at(epoch: Epoch, stood: Position | None) -> Position:
    """Return where an epoch stopped, or is now, based on the pipeline's position after it.

    A position before the epoch's start was moved by hand. The start of the next epoch shows that as an unexplained
    replay.
    """
    start, topics = epoch.claim.start, epoch.claim.stream.topics
    ahead = {
        partition: max(offset, start.get(partition, 0))
        for partition, offset in (stood or Position()).items()
        if partition.topic in topics
    }
    return start.updated(ahead)


def _snapshot_stopped(session: Session, epoch: Epoch, *, after: Epoch) -> Snapshot | None:
    """Return the snapshot that the operation of an epoch took of the stopped job after ``after`` ended, or None.

    An earlier snapshot belongs to an attempt that another operation interrupted, and shows nothing about this stop.
    """
    try:
        found = session.control.snapshot(snapshot_id(epoch.claim.operation, WHEN_STOPPED))
    except SnapshotNotFound:
        return None
    return found if found.seen.epoch_number == after.number else None


def _stood_still(first: Snapshot, rest: Snapshot) -> bool:
    """Return whether nothing ran between two snapshots of the stopped job, as far as the checkpoint shows.

    Other stores do not show that. Records count as read if a person ran the job by hand meanwhile. Records do not count
    if a person moved the offsets.
    """
    before, after = first.seen.newest_checkpoint, rest.seen.newest_checkpoint
    has_run = before is not None and after is not None and after.committed_batch_id > before.committed_batch_id
    return first.seen.live.identity == rest.seen.live.identity and not has_run


def _planned_id(seen: Observation) -> int:
    checkpoint = seen.newest_checkpoint
    if seen.is_running or checkpoint is None or checkpoint.planned_batch_id is None:
        return UNSTARTED
    return checkpoint.planned_batch_id
