"""Checkpoint of a Structured Streaming query: read, seed, close. ``checkpoint_log`` documents the layout.

Only the checkpoints of stopped, stateless queries can be written: offsets cannot be moved without their state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import (
    CLOSED_BY,
    SEEDED,
    SHUFFLE_PARTITIONS,
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
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, StateChanged

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

DEFAULT_CONF = {SHUFFLE_PARTITIONS: "200"}
"""Spark's default. 4.2.0 fails (``None.get``) when it starts on a planned entry without this setting, or if the entry
before lacks it. It does not write it into a log of version 2, so an older entry may lack it too."""


NEWEST_ENTRIES = 5
"""Number of newest entries whose times are read: some may be seeded."""

LATE_MS = 4000
"""An ordinary batch is written to the log some 10 ms after its batch time. In real-time mode it is written when the
batch ends: after at least 5 s, unless ``spark.sql.streaming.realTimeMode.minBatchDuration`` was lowered."""

LATE_BATCHES = 3
"""Number of late batches in a row that identify real-time mode. One or two may be late because the driver or its file
system hung."""


def next_batch_id(last_batch_id: int) -> int:
    """Return the id of the first batch that can have records in a checkpoint that is seeded after ``last_batch_id``."""
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
    """Write a checkpoint from which Spark continues at ``start``, and return the id of the first batch with records.

    Two consecutive entries end at ``start``: the committed one of ``last_batch_id``, and the next one, which is only
    planned. Spark runs the planned one first, without records. So a sink that identifies a batch by its id never takes
    new data for old. A sink that needs consecutive ids gets them: Spark's file sink can be neither read nor written
    once an id is missing in its ``_spark_metadata`` (``BATCH_METADATA_NOT_FOUND``, tried with 4.2.0).

    Repeating the call with the same arguments changes nothing, and finishes an interrupted call. ``metadata`` is
    written last, and Spark does not start on offsets without that file (tried with 4.2.0).

    :param target: where to write.
    :param query_id: id of the query.
    :param last_batch_id: the greatest id whose output is complete; ``UNSTARTED`` before the first one.
    :param start: the offsets to continue from.
    :param like: the last committed entry of the old checkpoint. Its batch metadata (watermark, confs) and the offsets
        of sources other than Kafka are copied.
    :param sources_in: the checkpoint of ``like``. Sources other than Kafka have files of their own, which are copied.
    :raises CheckpointError: of several sources it is unknown which one reads a partition of ``start``, or the files of
        the other sources are missing.
    :raises StateChanged: the folder holds another checkpoint.
    """
    following = next_batch_id(last_batch_id)
    entry = seeded_entry(start, like).with_conf(SEEDED, "true")
    if SHUFFLE_PARTITIONS not in entry.metadata["conf"]:
        entry = replace(entry, metadata={**entry.metadata, "conf": {**DEFAULT_CONF, **entry.metadata["conf"]}})
    offsets = entry.to_text()
    folders = entry.names or [str(place) for place in range(len(entry.sources))]
    files = {f"sources/{folders[place]}/0": f"\0v1\n{source.to_json()}" for place, source in entry.kafka.items()}
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


def close(checkpoint: CheckpointFolder, operation: str, *, after: int | None = None) -> int | None:
    """Close a checkpoint by planting its next entry, and return the id of that entry.

    A driver that still runs on the checkpoint fails with ``CONCURRENT_STREAM_LOG_UPDATE`` before its next batch, and a
    query that starts on it later fails when it reads the entry. Exception: the next id of a driver that tracks its
    progress asynchronously is unknown. Closing a closed checkpoint changes nothing.

    :param checkpoint: the checkpoint that the job leaves.
    :param operation: id to write into the planted entry.
    :param after: the newest batch id of the caller's plan; None if any will do.
    :returns: None if no query has got as far as its initial offsets.
    :raises StateChanged: a driver has written another batch, so it is running.
    """
    newest_id = max(batch_ids(checkpoint, "offsets"), default=UNSTARTED)
    last = _unstarted_entry(checkpoint) if newest_id == UNSTARTED else read_entry(checkpoint, newest_id)
    if last is None:
        return None
    if last.closed_by is not None:
        return newest_id
    plant = last.with_conf(CLOSED_BY, operation)
    is_planned_since = after is not None and newest_id != after
    if is_planned_since or not checkpoint.create(f"offsets/{newest_id + 1}", plant.to_text()):
        raise StateChanged(
            seen=f"{checkpoint.location}/offsets/{newest_id + (not is_planned_since)} appeared while the checkpoint was"
            " closed",
            expected="no driver on the checkpoint",
            do="stop the job, and plan again",
        )
    return newest_id + 1


def _unstarted_entry(checkpoint: CheckpointFolder) -> LogEntry | None:
    """Return an entry at the initial offsets of a query that has planned no batch, or None if it has none."""
    initial = read_initial(checkpoint)
    return None if initial is None else seeded_entry(initial, None)


def require_micro_batches(checkpoint: CheckpointFolder) -> None:
    """Refuse a query in real-time mode: no log names its batches in flight, so no stop could count what it interrupts.

    The files have the names and the content of any other query's (tried with 4.2.0). Only their times differ: each
    batch lasts as long as the trigger's interval, and both of its files are written at its end. So the newest three
    batches must all be late by about the same time, and each must be committed at once. A write that hangs is late too,
    but not three times in a row like that. The check passes while the third batch is unfinished, and for copied files.

    :raises CheckpointError: the newest three batches were written like that.
    """
    committed_ids = batch_ids(checkpoint, "commits")
    late_ms: list[int] = []
    for batch_id in reversed(batch_ids(checkpoint, "offsets")[-NEWEST_ENTRIES:]):
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
        seen=f"{checkpoint.location} belongs to a query in real-time mode: its newest {LATE_BATCHES} batches were"
        f" logged {min(late_ms)} ms or more after they began",
        expected="a query in micro-batches, which logs what it is about to read",
        do="run it by hand with a processingTime or availableNow trigger until it has written one batch; if it has such"
        " a trigger, set the clocks of the driver and of the file system right, and let it write one batch",
    )


@dataclass(frozen=True)
class _WrittenTimes:
    """Times at which the two files of a batch were written."""

    planned_after_ms: int
    """Delay of the entry in the offset log after the start of the batch."""
    done_after_ms: int | None
    """Delay of the entry in the commit log after the one in the offset log; None if there is none."""


def _written_times(checkpoint: CheckpointFolder, batch_id: int, committed_ids: list[int]) -> _WrittenTimes | None:
    """Return when the files of a batch were written, or None for a batch that Spark did not write here itself."""
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


def seeded_entry(start: Position, like: LogEntry | None) -> LogEntry:
    """Return the entry that ends at ``start``, without a mark.

    :param start: the offsets to continue from.
    :param like: the last committed entry of the old checkpoint; None without one.
    :raises CheckpointError: of several sources it is unknown which one reads a partition of ``start``.
    """
    if like is None:
        return LogEntry({"batchWatermarkMs": 0, "batchTimestampMs": 0, "conf": DEFAULT_CONF}, (start,))
    if len(like.sources) == 1:
        return replace(like, sources=(start,))
    shares: dict[int, dict[TopicPartition, int]] = {place: {} for place in like.kafka}
    for partition, offset in start.items():
        shares[_owner(partition, like)][partition] = offset
    sources = (Position(shares[place]) if place in shares else each for place, each in enumerate(like.sources))
    return replace(like, sources=tuple(sources))


def _owner(partition: TopicPartition, like: LogEntry) -> int:
    """Return the Kafka source of a partition: the only one, or the one that already has the partition or its topic."""
    kafka = like.kafka
    having = [place for place, source in kafka.items() if partition in source]
    owners = having or [place for place, source in kafka.items() if len(kafka) == 1 or partition.topic in source.topics]
    if len(owners) != 1:
        raise CheckpointError(
            seen=f"{len(owners)} of the query's {len(kafka)} Kafka sources read topic {partition.topic!r}",
            expected=f"one source for {partition}",
            do="start the query on a new checkpoint, with startingOffsets for each source",
        )
    return owners[0]


def _files_of_other_sources(entry: LogEntry, sources_in: CheckpointFiles | None) -> dict[str, str]:
    """Return the files of sources other than Kafka, such as the list of files read so far."""
    others = [place for place in range(len(entry.sources)) if place not in entry.kafka]
    if not others:
        return {}
    if sources_in is None:
        raise CheckpointError(
            seen=f"source {others[0]} of the query is not a Kafka source, and may keep files in the old checkpoint",
            expected="the old checkpoint, from which such files are copied",
            do="start the query on a new checkpoint, with startingOffsets for its Kafka sources",
        )
    folders = [entry.names[place] if entry.names else str(place) for place in others]
    names = [f"sources/{folder}/{name}" for folder in folders for name in sources_in.names(f"sources/{folder}")]
    texts = {name: sources_in.text(name) for name in sorted(names) if "/." not in name}
    return {name: text for name, text in texts.items() if text is not None}


def _require_nothing_else(target: CheckpointFolder, files: dict[str, str]) -> None:
    """Check that the folder holds no file of another checkpoint."""
    there = [f"{folder}/{batch_id}" for folder in ("offsets", "commits") for batch_id in batch_ids(target, folder)]
    for path in there:
        if path not in files:
            raise _other_content(target, path)
    if target.text("metadata") is not None:
        _require_same(target, "metadata", files["metadata"])


def _require_same(target: CheckpointFolder, path: str, text: str) -> None:
    if target.text(path) != text:
        raise _other_content(target, path)


def _other_content(target: CheckpointFolder, path: str) -> StateChanged:
    return StateChanged(
        seen=f"{target.location}/{path} exists with other content",
        expected="an empty folder for the seeded checkpoint",
        do="plan again",
    )
