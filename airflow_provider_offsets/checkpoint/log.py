"""Parser of the log in a Structured Streaming checkpoint.

Layout (Spark's ``OffsetSeqLog``, ``CommitLog``, ``KafkaSourceInitialOffsetWriter``; tried with 4.2.0)::

    metadata          {"id":"<query id>"}
    offsets/N         v1 / batch metadata as JSON / one line per source: the end offsets of batch N
                      v2 / batch metadata as JSON / one line per source: <name>:<offsets>
                      (the entry that closes a checkpoint has another first line: see ``CLOSED``)
    commits/N         v1, v2 or v3 / {"nextBatchWatermarkMs":0}          batch N is committed
    sources/<i>/0     of a Kafka source: a zero byte, v1, the initial offsets of the query
    state/            present if the query is stateful

``offsets/N`` is a plan; batch N is committed only with ``commits/N``. Files such as ``.N.crc`` and ``.N.<uuid>.tmp``
are no batches: Spark reads only names that are whole numbers.

:func:`read_state` decides as Spark does when a query starts (``MicroBatchExecution.populateStartOffsets``). Of the
offset log, Spark reads the entries N and N-1, where N is the greatest id. Of the commit log, it reads the greatest
entry. Holes and broken files further down do not count. N-1 may be missing only if the query tracks its progress
asynchronously (``AsyncProgressTrackingMicroBatchExecution``). Then an entry covers all batches since the previous one.

**Limit**: a query in real-time mode writes the same files with the same content (tried with 4.2.0), but later:
``offsets/N`` when batch N ends. Until then its output exists without any log entry. Only the times of the files reveal
this mode: see ``checkpoint.require_micro_batches``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

from airflow_provider_offsets.checkpoint.spark_text import (
    batch_id_of,
    json_of,
    lines_of,
    long_of,
    offsets_of,
    position_of,
    version_of,
)
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import CheckpointError

T = TypeVar("T")

CLOSED_BY = "spark.offsets.closed.by"
"""Key in the confs of a planted entry. Spark ignores confs that it does not know, and does not copy them."""

CLOSED = "closed: the job has left this checkpoint, and airflow-provider-offsets knows where it continues"
"""First line of a planted entry, where Spark writes its log version. A query that starts on a closed checkpoint fails,
and the message quotes this line. With ``v1``, Spark would run the entry as a batch without records, and continue (both
tried with 4.2.0)."""

SEEDED = "spark.offsets.seeded"
"""Key in the confs of a seeded entry: no batch of that id was ever run."""

VOID = "-"
"""Line of a source that has no offsets yet (Spark's ``SERIALIZED_VOID_OFFSET``)."""

REMOVE_THE_REST = "if somebody removed the checkpoint while an operation wrote to it, remove what is left of it"
"""A missing folder prevents no plan: the position is in the history or the snapshots."""

BATCH_ID = re.compile("0|[1-9][0-9]*")

SOURCE_NAME = re.compile("[A-Za-z0-9_-]+")
"""Name of a source in an entry of version 2: what the program gave it, or its number."""

SHUFFLE_PARTITIONS = "spark.sql.shuffle.partitions"

OFFSET_VERSIONS, COMMIT_VERSIONS, INITIAL_VERSIONS = (1, 2), (1, 2, 3), (1,)
"""Log versions that Spark 4.2.0 reads. Version 2 of the commit log is that of Spark 4.0."""

SINK_METADATA = 3
"""Version of the commit log that names the sinks of the query, which have no default there."""

MANY = 3
"""Number of entries from which on their commits may be older than the oldest of them: Spark purges the two logs of a
query with asynchronous progress independently."""


class CheckpointFiles(Protocol):
    """Read access to the files of one checkpoint folder. Paths are relative to the folder."""

    location: str

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, or an empty list if the folder does not exist."""
        ...

    def text(self, path: str) -> str | None:
        """Return the text of a file, or None if the file does not exist."""
        ...


@dataclass(frozen=True)
class LogEntry:
    """One ``offsets/N`` file."""

    metadata: dict[str, Any]
    sources: tuple[Position | str, ...]
    """End offsets of each source, in the order of the query: a position for a Kafka source, and the unchanged line for
    any other source. The line is ``-`` for a source without offsets."""
    names: tuple[str, ...] | None = None
    """Names of the sources in the same order, in version 2; None in version 1, whose sources have none."""

    @cached_property
    def end(self) -> Position:
        """The end offsets of all Kafka sources together."""
        return Position({each: offset for source in self.kafka.values() for each, offset in source.items()})

    @property
    def kafka(self) -> dict[int, Position]:
        """The Kafka sources, by their index among all sources."""
        return {place: source for place, source in enumerate(self.sources) if isinstance(source, Position)}

    @property
    def batch_time_ms(self) -> int:
        """Time at which the batch was planned, by the driver's clock; unchanged when Spark runs the batch again."""
        return long_of(self.metadata, "batchTimestampMs")

    @property
    def closed_by(self) -> str | None:
        """The operation that planted this entry, or None if Spark wrote the entry."""
        found = self._confs.get(CLOSED_BY)
        return None if found is None else str(found)

    @property
    def is_seeded(self) -> bool:
        """Whether the entry was seeded: no batch of that id was ever run."""
        return SEEDED in self._confs and self.closed_by is None

    @property
    def _confs(self) -> dict[str, Any]:
        return dict(self.metadata.get("conf") or {})

    def with_conf(self, key: str, value: str) -> LogEntry:
        """Return this entry with one more conf, and without the marks of planted and seeded entries.

        :param key: name of the conf; replaces one of the same name.
        :param value: value of the conf.
        """
        confs = {name: set_to for name, set_to in self._confs.items() if name not in (CLOSED_BY, SEEDED)}
        return replace(self, metadata={**self.metadata, "conf": {**confs, key: value}})

    def to_text(self) -> str:
        """Return the text of the file."""
        lines = [each if isinstance(each, str) else each.to_json() for each in self.sources]
        if self.names is not None:
            lines = [f"{name}:{line}" for name, line in zip(self.names, lines)]
        version = CLOSED if self.closed_by is not None else "v1" if self.names is None else "v2"
        return "\n".join([version, json.dumps(self.metadata, separators=(",", ":")), *lines])


def parse_entry(text: str, where: str) -> LogEntry:
    """Return the entry in the text of an ``offsets/N`` file.

    A source is Kafka's if its line has the shape ``{"<topic>":{"<partition>":<offset>}}``.

    :param text: content of the file.
    :param where: name of the file, for error messages.
    :raises CheckpointError: the text is empty, cut off, of another version, of continuous processing, or has no Kafka
        source. Also if two Kafka sources read one partition, or an offset is below 0 or above 2^63-1.
    """
    return _entry_of(_parts_of(text, where))


def read_entry(files: CheckpointFiles, batch_id: int) -> LogEntry | None:
    """Return the entry of ``offsets/<batch_id>``, or None if the file does not exist.

    :param files: the checkpoint.
    :param batch_id: id of the batch, from 0 up.
    :raises CheckpointError: as for :func:`parse_entry`.
    """
    parts = _read_parts(files, batch_id)
    return None if parts is None else _entry_of(parts)


def read_only_source(files: CheckpointFiles, batch_id: int) -> LogEntry | None:
    """Return the entry of ``offsets/<batch_id>``, or None, for a query with one Kafka source and no other.

    :param files: the checkpoint.
    :param batch_id: id of the batch, from 0 up.
    :raises CheckpointError: the query reads several sources.
    """
    entry = read_entry(files, batch_id)
    if entry is not None and len(entry.sources) != 1:
        raise CheckpointError(
            seen=f"{files.location}/offsets/{batch_id} holds the offsets of {len(entry.sources)} sources",
            expected="one Kafka source",
            do="give each source a query of its own, and track each query",
        )
    return entry


def log_entries(files: CheckpointFiles) -> Iterator[tuple[int, LogEntry, bool]]:
    """Yield ``(batch id, entry, is committed)`` for all retained entries, in order, reading one at a time.

    Spark retains about the last hundred (``spark.sql.streaming.minBatchesToRetain``). Planted entries are included:
    they have ``closed_by``.
    """
    planned_ids = batch_ids(files, "offsets")
    committed_ids = set(batch_ids(files, "commits"))
    for batch_id in planned_ids:
        entry = read_entry(files, batch_id)
        if entry is not None:  # else Spark has removed it since the listing
            yield batch_id, entry, batch_id in committed_ids


def committed_entry(files: CheckpointFiles) -> LogEntry | None:
    """Return the entry of the last committed batch, or None before the first one.

    :raises CheckpointError: as for :func:`read_state`.
    """
    return _read_logs(files).committed


def read_initial(files: CheckpointFiles) -> Position | None:
    """Return the initial offsets of all Kafka sources, or None if the query never got that far."""
    places = sorted(name for name in files.names("sources") if SOURCE_NAME.fullmatch(name))
    found = [initial for place in places if (initial := _initial_of(files, place)) is not None]
    if not found:
        return None
    _require_apart(found, f"{files.location}/sources")
    return Position({each: offset for source in found for each, offset in source.items()})


def read_query_id(files: CheckpointFiles) -> str | None:
    """Return the query id, or None if the folder holds no checkpoint.

    :raises CheckpointError: the ``metadata`` file holds no id.
    """
    text = files.text("metadata")
    return None if text is None else _parsed(f"{files.location}/metadata", lambda: _query_id(json_of(text)))


def read_state(files: CheckpointFiles) -> CheckpointState | None:
    """Return the state of the checkpoint, or None if it holds no position (missing, or created and still empty).

    :raises CheckpointError: Spark does not start on the checkpoint, or would not find its position. Also if the
        checkpoint is of a version or kind that was not tried.
    """
    logs = _read_logs(files)
    query_id = _query_id_of(files, logs.planned_ids)
    committed = read_initial(files) if logs.committed is None else logs.committed.end
    if query_id is None or (committed is None and not logs.planned_ids):
        return None
    if committed is None:
        raise CheckpointError(
            seen=f"{files.location} has planned batch {logs.planned_ids[0]}, and its sources folder does not hold its"
            " start",
            expected="sources/<number>/0, which Spark writes before the first batch",
            do="restore the file, or start with a new checkpoint",
        )
    return CheckpointState(
        location=files.location,
        query_id=query_id,
        committed_batch_id=logs.committed_id,
        committed=committed,
        planned_batch_id=logs.in_flight_id,
        planned=None if logs.in_flight is None else logs.in_flight.end,
        closed_by=logs.closed_by,
        stateful=bool(files.names("state")),
        asynchronous=logs.asynchronous,
    )


def batch_ids(files: CheckpointFiles, folder: str) -> list[int]:
    """Return the batch ids in a log folder, sorted. Other names are ignored.

    :param files: the checkpoint.
    :param folder: ``offsets`` or ``commits``.
    """
    ids = (batch_id_of(name) for name in files.names(folder) if BATCH_ID.fullmatch(name))
    return sorted(each for each in ids if each is not None)


@dataclass(frozen=True)
class _Parts:
    """Parts of an ``offsets/N`` file. The lines of the sources are as they are."""

    where: str
    """Name of the file."""
    metadata: dict[str, Any] | None
    """None if the line of the batch metadata is blank or null."""
    lines: tuple[str, ...]
    names: tuple[str, ...] | None


@dataclass(frozen=True)
class _Logs:
    """What both logs hold for a start."""

    planned_ids: list[int]
    committed_id: int
    """The batch after which the query continues; ``UNSTARTED`` before the first one."""
    committed: LogEntry | None
    in_flight_id: int | None = None
    in_flight: LogEntry | None = None
    closed_by: str | None = None
    asynchronous: bool = False


class _Removed(Exception):
    """Spark has removed an entry since the listing, because the query runs."""


def _read_logs(files: CheckpointFiles) -> _Logs:
    while True:
        try:
            return _read_logs_once(files)
        except _Removed:
            continue


def _read_logs_once(files: CheckpointFiles) -> _Logs:
    planned_ids = batch_ids(files, "offsets")  # first: a batch that is planned meanwhile must not look in flight
    committed_ids = batch_ids(files, "commits")
    _require_no_later_commit(files, committed_ids)
    if committed_ids:
        _require_commit(files, committed_ids[-1])
    if not planned_ids:
        return _Logs([], UNSTARTED, None)
    newest = _listed(files, planned_ids[-1])
    closed_by = LogEntry(newest.metadata or {}, ()).closed_by
    ids = planned_ids if closed_by is None else planned_ids[:-1]
    if not ids:
        return _Logs(planned_ids, UNSTARTED, None, closed_by=closed_by)
    newest_id = ids[-1]
    newest = newest if closed_by is None else _listed(files, newest_id)
    is_asynchronous = _has_gaps(ids) and _may_be_asynchronous(files, ids, committed_ids)
    before_id = ids[-2] if is_asynchronous else newest_id - 1
    before = _before(files, before_id, ids, committed_ids)
    _require_same_sources(files, before, newest)
    if newest_id in committed_ids:
        entry = _entry_of(_without_voids(newest, before))
        return _Logs(planned_ids, newest_id, entry, closed_by=closed_by, asynchronous=is_asynchronous)
    return _Logs(
        planned_ids,
        UNSTARTED if before is None else before_id,
        None if before is None else _entry_of(before),
        newest_id,
        _entry_of(newest),
        closed_by,
        is_asynchronous,
    )


def _before(
    files: CheckpointFiles, batch_id: int, planned_ids: Sequence[int], committed_ids: Sequence[int]
) -> _Parts | None:
    """Return the entry before the newest one, from whose end the newest batch starts; None before batch 0."""
    if batch_id < 0:
        return None
    if batch_id not in planned_ids:
        lacks = "" if committed_ids else ", and no committed entry"
        raise CheckpointError(
            seen=f"{files.location} has offsets/{planned_ids[-1]}{lacks}, and offsets/{batch_id} is missing",
            expected="the two newest entries of the offset log, because Spark starts from the end of the one before",
            do=f"restore offsets/{batch_id}. If it is gone for good, move the whole folder away: the plan then uses the"
            f" record of the pipeline; {REMOVE_THE_REST}",
        )
    return _listed(files, batch_id)


def _has_gaps(ids: Sequence[int]) -> bool:
    return len(ids) <= ids[-1] - ids[0]


def _may_be_asynchronous(files: CheckpointFiles, ids: Sequence[int], committed_ids: Sequence[int]) -> bool:
    """Check whether a log with gaps may be of a query that tracks its progress asynchronously.

    Such a query is stateless, and writes the commit of a batch only if it writes its entry, or if the batch is the
    first of a run, which has its entry too (``AsyncProgressTrackingMicroBatchExecution.markMicroBatchEnd``). A commit
    without an entry shows that somebody removed the entry.
    """
    without_entry = set(committed_ids) - set(ids)
    if any(each > ids[0] for each in without_entry) or (without_entry and len(ids) < MANY):
        return False
    return len(ids) > 1 and not files.names("state")


def _listed(files: CheckpointFiles, batch_id: int) -> _Parts:
    """Return the parts of an entry that was listed a moment ago.

    :raises _Removed: the query runs, and Spark has removed the entry since.
    :raises CheckpointError: the entry is still listed, and cannot be opened.
    """
    parts = _read_parts(files, batch_id)
    if parts is not None:
        return parts
    if batch_id not in batch_ids(files, "offsets"):
        raise _Removed
    raise CheckpointError(
        seen=f"{files.location}/offsets/{batch_id} is listed, and cannot be opened",
        expected="a file",
        do="restore the file",
    )


def _read_parts(files: CheckpointFiles, batch_id: int) -> _Parts | None:
    text = files.text(f"offsets/{batch_id}")
    return None if text is None else _parts_of(text, f"{files.location}/offsets/{batch_id}")


def _parts_of(text: str, where: str) -> _Parts:
    lines = lines_of(text)
    first = lines[0] if lines else ""
    is_closed = first == CLOSED
    version = 1 if is_closed else _require_version(first, where, OFFSET_VERSIONS, is_empty=not lines)
    is_blank = len(lines) > 1 and not lines[1].strip()
    metadata = None if is_blank else _parsed(where, lambda: _batch_metadata(json_of("".join(lines[1:2]))))
    named = [line.partition(":") for line in lines[2:]]
    if version == 1 and not (is_closed and named and all(colon and SOURCE_NAME.fullmatch(n) for n, colon, _ in named)):
        return _Parts(where, metadata, tuple(lines[2:]), None)
    nameless = next((name for name, colon, _ in named if not colon), None)
    if nameless is not None:
        raise CheckpointError(
            seen=f"{where} has the line {nameless!r}",
            expected="<name of the source>:<offsets> in each line of version 2",
            do="restore the file",
        )
    return _Parts(where, metadata, tuple(line for _, _, line in named), tuple(name for name, _, _ in named))


def _entry_of(parts: _Parts) -> LogEntry:
    where = parts.where
    if parts.metadata is None:
        raise CheckpointError(
            seen=f"{where} has no batch metadata, like the log of continuous processing",
            expected="the log of a query that runs in micro-batches",
            do="run the query with a processingTime or availableNow trigger",
        )
    sources = tuple(_parsed(where, lambda line=line: _source(line)) for line in parts.lines)  # type: ignore[misc]
    if not any(isinstance(each, Position) for each in sources):
        raise CheckpointError(
            seen=f"{where} holds the offsets of {len(sources)} sources, and none of them is a Kafka source",
            expected="at least one Kafka source that has started",
            do="name the checkpoint of a query that reads Kafka",
        )
    _require_apart([each for each in sources if isinstance(each, Position)], where)
    return LogEntry(parts.metadata, sources, parts.names)


def _without_voids(newest: _Parts, before: _Parts | None) -> _Parts:
    """Return a committed entry in which a source without offsets continues where the entry before has it."""
    if before is None or newest.names is not None or before.names is not None:
        return newest
    if len(newest.lines) != len(before.lines):
        raise ValueError(f"{len(newest.lines)} sources follow {len(before.lines)}")
    lines = (old if new == VOID else new for new, old in zip(newest.lines, before.lines))
    return replace(newest, lines=tuple(lines))


def _query_id_of(files: CheckpointFiles, planned_ids: Sequence[int]) -> str | None:
    query_id = read_query_id(files)
    if query_id is None and planned_ids:
        raise CheckpointError(
            seen=f"{files.location} has offsets, but no metadata file with the id of its query",
            expected="a complete checkpoint",
            do="restore the file; if the folder was being seeded, do that again: it finishes what was cut off;"
            f" {REMOVE_THE_REST}",
        )
    return query_id


def _require_commit(files: CheckpointFiles, batch_id: int) -> None:
    """Check that Spark can read the newest entry of the commit log."""
    text = files.text(f"commits/{batch_id}")
    if text is None:
        return  # Spark has removed it since the listing
    where, lines = f"{files.location}/commits/{batch_id}", lines_of(text)
    first = lines[0].strip() if lines else ""
    version = _require_version(first, where, COMMIT_VERSIONS, is_empty=not lines)
    _parsed(where, lambda: _require_commit_metadata(json_of(lines[1] if len(lines) > 1 else "{}"), version))


def _require_no_later_commit(files: CheckpointFiles, committed_ids: Sequence[int]) -> None:
    """Check that no batch is committed after the newest planned one: Spark would run a committed batch again, and fail.

    The planned batches are listed again, because a running query may have planned and committed one meanwhile.
    """
    newest_id = max(batch_ids(files, "offsets"), default=UNSTARTED)
    if committed_ids and committed_ids[-1] > newest_id:
        raise CheckpointError(
            seen=f"{files.location} has commits/{committed_ids[-1]}, and"
            f" {'no offsets' if newest_id == UNSTARTED else f'offsets/{newest_id} is its newest plan'}",
            expected="offsets/<number> for each batch that is committed",
            do="restore the files. To read records again, restore all and name the start in a reprocess; if the offsets"
            " are gone for good, move the whole folder away: the plan then uses the record of the pipeline",
        )


def _require_same_sources(files: CheckpointFiles, before: _Parts | None, newest: _Parts) -> None:
    """Check that the two newest entries have as many sources. Version 2 finds sources by name."""
    if before is None or newest.names is not None or len(before.lines) == len(newest.lines):
        return
    raise CheckpointError(
        seen=f"the newest entry of {files.location}/offsets names {len(newest.lines)} sources,"
        f" the batch before it {len(before.lines)}",
        expected="the same sources in all entries",
        do="restore the entry that was cut off, or remove it if its batch has not run: Spark plans it again",
    )


def _initial_of(files: CheckpointFiles, place: str) -> Position | None:
    """Return the initial offsets of a Kafka source, or None for a source of another kind.

    Only a Kafka source writes a zero byte first. Without a version after it, the file is of Spark 2.1.0.
    """
    text = files.text(f"sources/{place}/0")
    if text is None:
        return None
    where = f"{files.location}/sources/{place}/0"
    if not text.startswith("\0"):
        return _initial_without_zero(text)
    content = text[1:]
    version, _, offsets = content.partition("\n") if content.startswith("v") else ("v1", "", content)
    _require_version(version, where, INITIAL_VERSIONS, is_empty=not content)
    return _parsed(where, lambda: position_of(offsets_of(offsets)))


def _initial_without_zero(text: str) -> Position | None:
    """Return the initial offsets of a Kafka source whose file lacks its first byte, or None for another source."""
    version, _, offsets = text.partition("\n")
    try:
        data = offsets_of(offsets)
        return position_of(data) if version_of(version) == 1 and _is_kafka(data) else None
    except ValueError:
        return None


def _require_version(line: str, where: str, versions: Sequence[int], *, is_empty: bool) -> int:
    """Return the version in the first line of a file.

    :raises CheckpointError: the file is empty, or is of another version.
    """
    if is_empty:
        raise CheckpointError(
            seen=f"{where} is empty, as after a power failure",
            expected="the content that Spark writes, which also refuses an empty file",
            do="restore the file. An empty file of a batch that is in offsets/ and not in commits/ may be removed:"
            " Spark plans that batch again, and may end it elsewhere",
        )
    version = version_of(line)
    if version is None or version not in versions:
        raise CheckpointError(
            seen=f"{where} begins with {line!r}",
            expected=f"a log version that Spark reads: {' or '.join(f'v{each}' for each in versions)}",
            do="restore the file; a byte order mark or blanks before the version prevent a start too. A later version"
            " needs a later release of this provider",
        )
    return version


def _query_id(data: Any) -> str:
    query_id = data.get("id") if isinstance(data, dict) else None
    if not isinstance(query_id, str) or not query_id:
        raise ValueError(f"{data!r} holds no query id")
    return query_id


def _batch_metadata(data: Any) -> dict[str, Any] | None:
    if data is None:
        return None
    long_of(data, "batchTimestampMs")
    long_of(data, "batchWatermarkMs")
    metadata = data if isinstance(data, dict) else {}
    conf = {} if metadata.get("conf") is None else metadata["conf"]
    if not isinstance(conf, dict):
        raise ValueError(f"conf is {conf!r}, not an object")
    if not re.fullmatch("[+-]?[0-9]+", str(conf.get(SHUFFLE_PARTITIONS, 0))):
        raise ValueError(f"{SHUFFLE_PARTITIONS} is {conf[SHUFFLE_PARTITIONS]!r}, not a number")
    return metadata


def _require_commit_metadata(data: Any, version: int) -> None:
    if data is None:
        raise ValueError("null is no commit")
    if version == SINK_METADATA and not (isinstance(data, dict) and isinstance(data.get("sinkMetadataMap"), dict)):
        raise ValueError(f"version {version} lacks sinkMetadataMap")
    long_of(data, "nextBatchWatermarkMs")


def _source(line: str) -> Position | str:
    if line == VOID:
        return line
    data = offsets_of(line)
    return position_of(data) if _is_kafka(data) else line


def _is_kafka(data: Any) -> bool:
    return isinstance(data, dict) and all(
        isinstance(partitions, dict) and all(number.lstrip("-").isdecimal() for number in partitions)
        for partitions in data.values()
    )


def _require_apart(positions: Sequence[Position], where: str) -> None:
    seen: set[TopicPartition] = set()
    for position in positions:
        if twice := sorted(seen & set(position)):
            raise CheckpointError(
                seen=f"{where}: two Kafka sources of the query read {twice[0]}",
                expected="one source for each partition, because two offsets are no position",
                do="read the topic once and use it twice, or give each source a query of its own",
            )
        seen |= set(position)


def _parsed(where: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            seen=f"{where} cannot be read: {error}",
            expected="the text that Spark writes for a Kafka source",
            do="name the checkpoint of a query that reads Kafka, or restore the file",
        ) from error
