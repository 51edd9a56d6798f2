"""Checks of arguments that all stores share, with the same messages, so that a test with one store covers all."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET, LAST_TIME_MS
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.pipeline import NAME, TOPIC
from airflow_provider_offsets.core.position import Position, TopicPartition, first_missing
from airflow_provider_offsets.errors import BatchConflict, InputRefused, StateChanged, StoreDataError

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_stream(stream: Stream) -> Stream:
    """Return the stream with its topics sorted.

    :raises InputRefused: a group or a topic does not fit a row key.
    """
    if not stream.group_id or not _is_text(stream.group_id):
        raise InputRefused(
            seen=f"group id {stream.group_id!r} is not valid",
            expected="text that is not empty and has no control characters (':' is fine)",
            do="correct 'group_id' of the pipeline",
        )
    if not stream.topics or not all(TOPIC.fullmatch(topic) for topic in stream.topics):
        raise InputRefused(
            seen=f"topics {list(stream.topics)!r} of group {stream.group_id!r} are not valid",
            expected="at least one name of 1 to 249 letters, digits, '.', '_' or '-' (Kafka's own rule)",
            do="correct 'topics' of the pipeline",
        )
    return Stream(stream.group_id, tuple(sorted(set(stream.topics))))


def check_batch(stream: Stream, batch: Batch) -> None:
    """Check that the batch can be recorded under the stream.

    :param stream: group and topics that the batch belongs to.
    :param batch: the batch to record.
    :raises InputRefused: the batch has no end, ends in a topic of another stream or at an offset above Kafka's maximum.
        Also if its time does not fit a row key.
    """
    if not batch.end or not set(batch.end.topics) <= set(stream.topics):
        raise InputRefused(
            seen=f"the batch ends in the topics {list(batch.end.topics)!r}",
            expected=f"at least one partition, and only topics of {list(stream.topics)!r}",
            do="record the batch under the stream that read it",
        )
    _check_offsets(batch.end)
    _check_offsets(batch.start or {})
    if not 0 <= batch.batch_time_ms <= LAST_TIME_MS:
        raise InputRefused(
            seen=f"batch time {batch.batch_time_ms} ms is out of range",
            expected=f"milliseconds since 1970, from 0 to {LAST_TIME_MS}",
            do="pass Spark's batchTimestampMs of the batch",
        )
    if batch.query_id is not None and not _is_text(batch.query_id):
        raise InputRefused(
            seen=f"query id {batch.query_id!r} is not valid",
            expected="text without control characters",
            do="pass the id in the checkpoint's metadata file",
        )


def check_position(stream: Stream, position: Position) -> None:
    """Check that the position can be written for the stream.

    :param stream: group and topics that the position belongs to.
    :param position: the position to write.
    :raises InputRefused: the position is empty, names a topic of another stream, or has an offset above Kafka's
        maximum. Also if a partition below the greatest of its topic is missing, which would read as half written.
    """
    foreign = set(position.topics) - set(stream.topics)
    if not position or foreign:
        raise InputRefused(
            seen=f"the position for group {stream.group_id!r} has the topics {list(position.topics)!r}",
            expected=f"at least one partition, and only topics of {list(stream.topics)!r}",
            do="write the position of this stream",
        )
    if missing := first_missing(position):
        raise InputRefused(
            seen=f"the position for group {stream.group_id!r} lacks {first_few(missing)}",
            expected="every partition from 0 to the greatest of its topic",
            do="name an offset for each partition; use 0 for one that was never read",
        )
    _check_offsets(position)


def too_great(offsets: Mapping[TopicPartition, int]) -> list[TopicPartition]:
    """Return the partitions whose offset is above Kafka's maximum."""
    return [each for each, offset in offsets.items() if offset > LAST_OFFSET]


def _check_offsets(offsets: Mapping[TopicPartition, int]) -> None:
    if beyond := too_great(offsets):
        raise InputRefused(
            seen=f"offset {offsets[beyond[0]]} for {first_few(beyond)} is out of range",
            expected=f"offsets from 0 to {LAST_OFFSET}",
            do="correct the offset",
        )


def is_to_be_written(stored: Position | None, position: Position, expected: Position | None) -> bool:
    """Check whether a write has anything to do: ``stored`` is ``expected`` and not ``position`` yet.

    :param stored: the position in the store now; None for nothing.
    :param position: the position to write.
    :param expected: the position that the writer expects in the store; None for nothing.
    :raises StateChanged: another position is stored.
    :raises InputRefused: ``position`` lacks a partition that is stored.
    """
    if stored == position:
        return False
    if stored != expected:
        raise StateChanged(
            seen=f"the stored position is {said(stored)}",
            expected=f"{said(expected)}, as when the write was planned",
            do="find out what moved the position, and plan again. Nothing was written",
        )
    if left_out := sorted(set(stored or ()) - set(position)):
        raise InputRefused(
            seen=f"the position lacks {first_few(left_out)}, which the store has",
            expected="every partition that is stored",
            do="name an offset for each; if a topic is gone, remove its stored offsets with the store's own tools",
        )
    return True


def said(position: Position | None) -> str:
    """Return a stored position for a message, shortened if it is long."""
    return "nothing" if position is None else _short(position.to_json())


ALL_PIPELINES = "_all"
"""Owner of control records that belong to no single pipeline. No pipeline can have this name."""


@functools.lru_cache(maxsize=256)  # every call of a store names its pipeline
def check_pipeline(pipeline: str) -> str:
    """Return the owner of a control record: a pipeline's name, or ``ALL_PIPELINES``.

    The owner has no ``:``, so the rest of a row key after the first ``:`` is the control name.

    :raises InputRefused: the name is no valid pipeline name.
    """
    if pipeline != ALL_PIPELINES and not NAME.fullmatch(pipeline):
        raise InputRefused(
            seen=f"pipeline name {pipeline!r} is not valid",
            expected="a letter or digit, then up to 99 letters, digits, '_', '.' or '-'",
            do="pass the name of a pipeline",
        )
    return pipeline


def check_name(name: str) -> str:
    """Return the name of a control record.

    :raises InputRefused: the name is empty, not printable, or has spaces at its ends.
    """
    if not name or name != name.strip() or not name.isprintable():
        raise InputRefused(
            seen=f"control name {name!r} is not valid",
            expected="printable text without spaces at its ends",
            do="pass a name such as 'epoch/00000004'",
        )
    return name


def check_value(value: str) -> str:
    """Return the text of a control record, without NUL (PostgreSQL cannot store it) and without half a surrogate pair.

    :raises InputRefused: the text contains one of these.
    """
    if "\0" in value or _SURROGATE.search(value):
        raise InputRefused(
            seen=f"the control text {value[:80]!r} is not valid",
            expected="text that is valid UTF-8, without NUL",
            do="store JSON, which escapes both",
        )
    return value


def is_of(stream: Stream, batch: Batch) -> bool:
    """Check whether a batch of the stream's group belongs to the stream: it reads one of the stream's topics.

    So a pipeline keeps its history when a topic is added or removed. Two pipelines that share a group id on different
    topics do not see each other's batches.

    :param stream: group and topics.
    :param batch: a batch of the same group.
    """
    return not set(stream.topics).isdisjoint(batch.end.topics)


def placed(stream: Stream | None, batch: Batch | None) -> tuple[Stream, Batch] | None:
    """Return a batch that belongs to a swap, with its normalised stream; None without a batch.

    :param stream: group and topics that the batch belongs to; None only without a batch.
    :param batch: a batch with its row time, or None.
    :raises InputRefused: as ``check_stream`` and ``check_batch``.
    :raises StoreDataError: as ``check_row_time``.
    """
    if batch is None:
        return None
    assert stream is not None, "a batch belongs to a stream"
    assert batch.row_time_ms is not None, "a batch that a record names has its row time"
    stream = check_stream(stream)
    check_batch(stream, batch)
    check_row_time(batch.row_time_ms)
    return stream, batch


def check_row_time(row_time_ms: int) -> None:
    """Check that a row can have this time.

    :raises StoreDataError: the time is beyond the maximum: the row before it has the greatest time, by somebody's
        mistake.
    """
    if row_time_ms > LAST_TIME_MS:
        raise StoreDataError(
            seen=f"the time of a new row would be {row_time_ms}, right after the newest row",
            expected=f"milliseconds since 1970, at most {LAST_TIME_MS}",
            do="find out who wrote the newest row, and delete it with the store's own tools",
        )


def prepared_once(prepared: Batch | None, batch: Batch) -> Batch:
    """Return ``batch`` if its facts may replace the ones that are stored under its row time.

    They may if the stored facts are of an earlier epoch: its driver prepared them and was fenced before the batch
    started. Within one epoch a batch may be prepared again.

    :param prepared: the batch whose facts are stored; None for none.
    :param batch: the batch whose facts are to be stored.
    :raises BatchConflict: a later epoch has stored facts there, or the same epoch has stored those of another batch.
    """
    if prepared is None:
        return batch
    kept, new = (each.epoch or 0 for each in (prepared, batch))
    if kept < new or (kept == new and prepared.batch_id == batch.batch_id):
        return batch
    raise BatchConflict(
        seen=f"row time {batch.row_time_ms} has the facts of batch {prepared.batch_id} of epoch {prepared.epoch}",
        expected=f"no or older facts, so that those of batch {batch.batch_id} of epoch {batch.epoch} can be stored",
        do="No action needed: nothing was changed, and the later driver continues.",
    )


def recorded_once(recorded: Batch, batch: Batch) -> Batch:
    """Return the recorded batch if ``batch`` is the same one.

    :param recorded: the batch in the history.
    :param batch: the batch to record under the same row time.
    :raises BatchConflict: ``batch`` is another batch, or reads other offsets.
    """
    is_same_batch = (recorded.query_id, recorded.batch_id) == (batch.query_id, batch.batch_id)
    if is_same_batch and recorded.has_same_offsets(batch):
        return recorded
    raise BatchConflict(
        seen=f"batch {batch.batch_id} of query {batch.query_id} came with offsets {_offsets(batch)}",
        expected=f"what row time {recorded.row_time_ms} has: batch {recorded.batch_id} of query {recorded.query_id}"
        f" with offsets {_offsets(recorded)}",
        do="find out which other job writes rows of this group. Nothing was changed",
    )


def _offsets(batch: Batch) -> str:
    start = "unknown" if batch.start is None else batch.start.to_json()
    return f"{_short(start)} .. {_short(batch.end.to_json())}"


def _short(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:500]}… ({len(text)} characters)"


def _is_text(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)
