"""Compare the history of a pipeline, and its replays, with the metadata of its sink.

The order of reading decides: the history, the sink, the history again. What was recorded before the sink was read must
be in the sink. What the sink has must be recorded afterwards, or started.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.record.model import PipelineRecord
from airflow_provider_offsets.core.replay.shard import ShardPhase, ShardRecord
from airflow_provider_offsets.core.sink.audit import (
    Id,
    RecordedOutput,
    SinkReport,
    compare_with_ledger,
    unread_sink,
)
from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.operations.auditing import recorded_batches
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.history import row_time_of

Shards = dict[Id, ShardRecord]


def audit_sink(session: Session, read_ledger: Callable[[Sink], Ledger]) -> SinkReport:
    """Return the comparison of the pipeline's history and replays with its sink. Nothing is written to the sink.

    A sink that cannot be read proves nothing: the report says why.

    :param session: the session of the operation.
    :param read_ledger: reads the metadata of the sink; raises ``LedgerUnreadable``.
    """
    pipeline = session.pipeline
    if pipeline.sink is None:
        return unread_sink("", "the pipeline names no sink")
    if not pipeline.tracked:
        return unread_sink(str(pipeline.sink), "an untracked job keeps no history of its batches")
    newest, shards_before = next(session.store.newest_first(pipeline.stream), None), _shards(session)
    try:
        ledger = read_ledger(pipeline.sink)
    except LedgerUnreadable as error:
        return unread_sink(str(pipeline.sink), str(error))
    record, shards = session.control.record(), _shards(session)
    epochs = list(session.control.epochs())
    batches = _batches(recorded_batches(session, record, epochs), newest)
    recorded = heapq.merge(batches, _replayed(shards, shards_before), key=attrgetter("at_ms"))
    return compare_with_ledger(
        str(pipeline.sink),
        pipeline.name,
        recorded,
        ledger,
        _started(epochs, record) | _interrupted(shards),
        was_untracked=not all(epoch.claim.tracked for epoch in epochs),
    )


def _batches(batches: Iterator[Batch], newest: Batch | None) -> Iterator[RecordedOutput]:
    """Yield the batches of the history; those after ``newest`` were recorded when the sink was being read, or later."""
    known_ms = -1 if newest is None else row_time_of(newest)
    for each in batches:
        if each.batch_id is not None:
            yield RecordedOutput(
                query_id=each.query_id or "",
                batch_id=each.batch_id,
                digest=digest_of(each),
                records=each.record_count,
                at_ms=each.batch_time_ms,
                is_new=row_time_of(each) > known_ms,
            )


def _shards(session: Session) -> Shards:
    """Return the shards of all replays, by run id and number."""
    control = ReplayControl(session.store, session.pipeline.name)
    return {
        (attempt.run_id, number): shard
        for _, replay in control.replays()
        for attempt in replay.attempts
        for number, shard in control.shards(attempt.run_id).items()
    }


def _replayed(shards: Shards, before: Shards) -> list[RecordedOutput]:
    """Return the shards that were replayed, in the order of their times."""
    found = [
        RecordedOutput(
            query_id=run_id,
            batch_id=number,
            digest=shard.ranges,
            records=shard.read.records_read,
            at_ms=_started_at_ms(shard),
            is_new=(run_id, number) not in before or before[run_id, number].read is None,
        )
        for (run_id, number), shard in shards.items()
        if shard.phase is ShardPhase.REPLAYED and shard.read is not None
    ]
    return sorted(found, key=attrgetter("at_ms"))


def _started_at_ms(shard: ShardRecord) -> int:
    ended = None if shard.newest is None else shard.newest.ended
    return 0 if ended is None or shard.read is None else ended.at_ms - shard.read.elapsed_ms


def _interrupted(shards: Shards) -> set[Id]:
    """Return the shards whose function was called more than once, or whose output was not recorded."""
    return {
        id_
        for id_, shard in shards.items()
        if shard.started > 1 or (shard.started and shard.phase is not ShardPhase.REPLAYED)
    }


def _started(epochs: Sequence[Epoch], record: PipelineRecord | None) -> set[Id]:
    """Return the batches that were started and not recorded, once or before they were tried again.

    The empty first batch of a seeded checkpoint is never recorded either. It is the newest one when its epoch starts.
    """
    cuts = (cut for epoch in epochs for cut in (*epoch.cuts, *filter(None, [epoch.claim.in_flight])))
    found = {(cut.query_id, cut.batch_id) for cut in cuts}
    found |= {("", id_) for epoch in epochs if (id_ := epoch.claim.last_planned_batch_id) is not None}
    if record is not None:
        found |= {(cut.query_id, cut.batch_id) for cut in record.cuts}
    if record is not None and record.started is not None:
        found.add((record.started.query_id, record.started.batch_id))
    return found
