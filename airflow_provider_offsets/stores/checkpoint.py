"""The checkpoint of a Structured Streaming query: read, seed, close. ``checkpoint_log`` has the layout.

Writing is for queries at rest, and for stateless ones: offsets cannot be moved without the state that belongs to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, WorldChanged
from airflow_provider_offsets.stores.checkpoint_files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.stores.checkpoint_log import (
    CLOSED_BY,
    SEEDED,
    CheckpointFiles,
    LogEntry,
    batch_ids,
    committed_entry,
    log_entries,
    parse_entry,
    read_entry,
    read_initial,
    read_only_source,
    read_query_id,
    read_state,
)

__all__ = [
    "CLOSED_BY",
    "SEEDED",
    "CheckpointFiles",
    "CheckpointFolder",
    "LogEntry",
    "batch_ids",
    "close",
    "committed_entry",
    "log_entries",
    "next_batch_id",
    "open_checkpoint",
    "parse_entry",
    "read_entry",
    "read_initial",
    "read_only_source",
    "read_query_id",
    "read_state",
    "require_micro_batches",
    "seed",
]

SHUFFLE_PARTITIONS = {"spark.sql.shuffle.partitions": "200"}
"""Spark's default, for a seed without an older entry to take it from. 4.2.0 dies (``None.get``) when it starts on a
planned entry if that one, or the one before it, lacks this."""


LOOKED_AT = 5
"""So many of the newest entries are asked for their times: some may be seeded."""

LATE_MS = 4000
"""An ordinary batch is written down some 10 ms after its time was taken. In real-time mode that is when it is over:
after 5 s at least, if nobody lowered ``spark.sql.streaming.realTimeMode.minBatchDuration``."""

LATE_BATCHES = 3
"""So many batches in a row tell real-time mode. One or two may be late because the driver or its file system hung."""


def next_batch_id(last_batch_id: int) -> int:
    """Give the id of the first batch that can have records in a checkpoint that is seeded after ``last_batch_id``."""
    return last_batch_id + 2


def seed(
    target: CheckpointFolder,
    *,
    query_id: str,
    last_batch_id: int,
    start: Position,
    like: LogEntry | None,
    sources_in: CheckpointFiles | None = None,
) -> int:
    """Write a checkpoint from which Spark goes on at ``start``, and give the id of the first batch with records.

    Two consecutive entries end at ``start``: that of ``last_batch_id``, committed, and the next one, only planned.
    Spark runs that one first, without records. So a sink that knows a batch by its id never takes new data for old, and
    one that wants the ids without a gap has them: Spark's file sink can be neither read nor written any more once an
    id is missing in its ``_spark_metadata`` (``BATCH_METADATA_NOT_FOUND``, tried with 4.2.0).

    Repeating it with the same arguments changes nothing, and finishes one that was cut off: its ``metadata`` comes
    last, and Spark does not begin on offsets without it (tried with 4.2.0).

    :param last_batch_id: the greatest id of which the output is finished; ``UNSTARTED`` before the first one.
    :param like: an entry of the old checkpoint. Its batch metadata (watermark, confs) is carried over; and the sources
        that are not Kafka's go on where this entry has them, so it is the one that the query stands at.
    :param sources_in: the checkpoint that ``like`` is of. Sources that are not Kafka's keep files of their own, which
        are copied.
    :raises CheckpointError: several sources, and it is not known which of them reads a partition of ``start``, or where
        the files of the others are.
    :raises WorldChanged: the folder holds another checkpoint.
    """
    following = next_batch_id(last_batch_id)
    entry = _seeded_entry(start, like).with_conf(SEEDED, "true")
    offsets = entry.to_text()
    files = {f"sources/{place}/0": f"\0v1\n{source.to_json()}" for place, source in entry.kafka.items()}
    files |= _files_of_other_sources(entry, sources_in)
    if last_batch_id != UNSTARTED:
        files |= {f"offsets/{last_batch_id}": offsets, f"commits/{last_batch_id}": 'v1\n{"nextBatchWatermarkMs":0}'}
    files[f"offsets/{last_batch_id + 1}"] = offsets
    files["metadata"] = json.dumps({"id": query_id})
    _require_nothing_else(target, files)
    for path, text in files.items():
        if not target.create(path, text):
            _require_same(target, path, text)
    return following


def close(checkpoint: CheckpointFolder, operation: str) -> int | None:
    """Close a checkpoint by planting its next entry, and give that entry's id.

    A driver that still runs on it dies with ``CONCURRENT_STREAM_LOG_UPDATE`` before its next batch; not so one that
    tracks its progress asynchronously, whose next id nobody knows. Closing what is closed changes nothing. None if
    there is no entry at all to follow.

    :raises WorldChanged: a driver wrote that entry first: it runs.
    """
    planned_ids = batch_ids(checkpoint, "offsets")
    if not planned_ids:
        return None
    last = read_entry(checkpoint, planned_ids[-1])
    assert last is not None
    if last.closed_by is not None:
        return planned_ids[-1]
    plant = last.with_conf(CLOSED_BY, operation)
    if not checkpoint.create(f"offsets/{planned_ids[-1] + 1}", plant.to_text()):
        raise WorldChanged(
            seen=f"{checkpoint.location}/offsets/{planned_ids[-1] + 1} appeared while the checkpoint was closed",
            expected="no driver on it",
            do="stop the job, and plan again",
        )
    return planned_ids[-1] + 1


def require_micro_batches(checkpoint: CheckpointFolder) -> None:
    """Refuse a query in real-time mode: what it has in flight is in no log, so no stop can count what it cuts off.

    Its files have the names and the content of any other query's (tried with 4.2.0). What tells is when they were
    written. Each batch lasts as long as the trigger says, and both of its files are written at its end. So the newest
    three have to be late, all by about the same time, and each has to be committed at once. A write that hangs is late
    too, and does not look like that three times in a row. Nothing is said of a query whose third batch is not over, nor
    of a checkpoint whose files are copies.

    :raises CheckpointError: the newest three batches were written like that.
    """
    committed_ids = batch_ids(checkpoint, "commits")
    late_ms: list[int] = []
    for batch_id in reversed(batch_ids(checkpoint, "offsets")[-LOOKED_AT:]):
        times = _written_times(checkpoint, batch_id, committed_ids)
        if times is None:
            continue
        if times.planned_after_ms < LATE_MS or times.done_after_ms is None or times.done_after_ms >= LATE_MS:
            return
        late_ms.append(times.planned_after_ms)
        if len(late_ms) == LATE_BATCHES:
            break
    if len(late_ms) < LATE_BATCHES or max(late_ms) - min(late_ms) >= LATE_MS:
        return
    raise CheckpointError(
        seen=f"{checkpoint.location} is of a query in real-time mode: its newest {LATE_BATCHES} batches were written"
        f" down {min(late_ms)} ms or more after they began",
        expected="a query in micro-batches, which writes down what it is about to read",
        do="run it by hand with a processingTime or availableNow trigger until it has written one batch; if it has such"
        " a trigger, set the clocks of the driver and of the file system right, and let it write one batch",
    )


@dataclass(frozen=True)
class _WrittenTimes:
    """When the two files of a batch were written."""

    planned_after_ms: int
    """The entry of the offset log, after the batch had begun."""
    done_after_ms: int | None
    """That of the commit log, after the one of the offset log; None if there is none."""


def _written_times(checkpoint: CheckpointFolder, batch_id: int, committed_ids: list[int]) -> _WrittenTimes | None:
    """Return when the files of a batch were written; None for a batch that Spark did not write here itself."""
    entry = read_entry(checkpoint, batch_id)
    written_ms = checkpoint.written_ms(f"offsets/{batch_id}")
    if entry is None or written_ms is None or entry.closed_by is not None or entry.is_seeded:
        return None
    before_id = max((each for each in committed_ids if each < batch_id), default=None)
    before = "metadata" if batch_id == 0 else f"commits/{before_id}"
    before_ms = checkpoint.written_ms(before)
    if before_ms is None or entry.batch_time_ms < before_ms - LATE_MS:
        return None
    done_ms = checkpoint.written_ms(f"commits/{batch_id}")
    return _WrittenTimes(written_ms - entry.batch_time_ms, None if done_ms is None else done_ms - written_ms)


def _seeded_entry(start: Position, like: LogEntry | None) -> LogEntry:
    if like is None:
        return LogEntry({"batchWatermarkMs": 0, "batchTimestampMs": 0, "conf": SHUFFLE_PARTITIONS}, (start,))
    if len(like.sources) == 1:
        return LogEntry(like.metadata, (start,))
    shares: dict[int, dict[TopicPartition, int]] = {place: {} for place in like.kafka}
    for partition, offset in start.items():
        shares[_owner(partition, like)][partition] = offset
    sources = (Position(shares[place]) if place in shares else each for place, each in enumerate(like.sources))
    return LogEntry(like.metadata, tuple(sources))


def _owner(partition: TopicPartition, like: LogEntry) -> int:
    """The Kafka source that reads a partition: the only one, or the one that has it, or its topic, already."""
    kafka = like.kafka
    having = [place for place, source in kafka.items() if partition in source]
    owners = having or [place for place, source in kafka.items() if len(kafka) == 1 or partition.topic in source.topics]
    if len(owners) != 1:
        raise CheckpointError(
            seen=f"{len(owners)} of the query's {len(kafka)} Kafka sources read topic {partition.topic!r}",
            expected=f"one source that {partition} belongs to",
            do="let the query begin on a new checkpoint, with startingOffsets for each source",
        )
    return owners[0]


def _files_of_other_sources(entry: LogEntry, sources_in: CheckpointFiles | None) -> dict[str, str]:
    """What the sources that are not Kafka's have written for themselves, such as the list of files read so far."""
    others = [place for place in range(len(entry.sources)) if place not in entry.kafka]
    if not others:
        return {}
    if sources_in is None:
        raise CheckpointError(
            seen=f"source {others[0]} of the query is not Kafka's, and may keep files of its own in the old checkpoint",
            expected="the checkpoint to carry them over from",
            do="let the query begin on a new checkpoint, with startingOffsets for its Kafka sources",
        )
    names = [f"sources/{place}/{name}" for place in others for name in sources_in.names(f"sources/{place}")]
    texts = {name: sources_in.text(name) for name in sorted(names) if "/." not in name}
    return {name: text for name, text in texts.items() if text is not None}


def _require_nothing_else(target: CheckpointFolder, files: dict[str, str]) -> None:
    """Nothing is written among the files of another checkpoint."""
    there = [f"{folder}/{batch_id}" for folder in ("offsets", "commits") for batch_id in batch_ids(target, folder)]
    for path in there:
        if path not in files:
            raise _other_content(target, path)
    if target.text("metadata") is not None:
        _require_same(target, "metadata", files["metadata"])


def _require_same(target: CheckpointFolder, path: str, text: str) -> None:
    if target.text(path) != text:
        raise _other_content(target, path)


def _other_content(target: CheckpointFolder, path: str) -> WorldChanged:
    return WorldChanged(
        seen=f"{target.location}/{path} is there with other content",
        expected="an empty folder for the seeded checkpoint",
        do="make the plan again",
    )
