"""Parser of the log in a Structured Streaming checkpoint.

Layout (Spark's ``OffsetSeqLog``, ``CommitLog``, ``KafkaSourceInitialOffsetWriter``; tried with 4.2.0)::

    metadata          {"id":"<query id>"}
    offsets/N         v1 / batch metadata as JSON / one line per source: the end offsets of batch N
                      (the entry that closes a checkpoint has another first line: see ``CLOSED``)
    commits/N         v1 / {"nextBatchWatermarkMs":0}          batch N is committed
    sources/<i>/0     of a Kafka source: a zero byte, v1, the initial offsets of the query
    state/            present if the query is stateful

``offsets/N`` is a plan; batch N is committed only with ``commits/N``. Batch ids have gaps if progress is tracked
asynchronously: then an entry covers all batches since the previous entry. Files such as ``.N.crc`` and
``.N.<uuid>.tmp`` are no batches. Spark reads only names that are whole numbers, and so does this module.

**Limit**: a query in real-time mode writes the same files with the same content (tried with 4.2.0), but later:
``offsets/N`` when batch N ends. Until then its output exists without any log entry. Only the times of the files reveal
this mode: see ``checkpoint.require_micro_batches``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from airflow_provider_offsets.core.limits import LAST_OFFSET
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

BATCH_ID = re.compile(r"0|[1-9][0-9]*")


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
        return int(self.metadata.get("batchTimestampMs", 0))  # Spark's default too

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
        return dict(self.metadata.get("conf", {}))

    def with_conf(self, key: str, value: str) -> LogEntry:
        """Return this entry with one more conf, and without the marks of planted and seeded entries.

        :param key: name of the conf; replaces one of the same name.
        :param value: value of the conf.
        """
        confs = {name: set_to for name, set_to in self._confs.items() if name not in (CLOSED_BY, SEEDED)}
        return LogEntry({**self.metadata, "conf": {**confs, key: value}}, self.sources)

    def to_text(self) -> str:
        """Return the text of the file."""
        lines = [each if isinstance(each, str) else each.to_json() for each in self.sources]
        version = "v1" if self.closed_by is None else CLOSED
        return "\n".join([version, json.dumps(self.metadata, separators=(",", ":")), *lines])


def parse_entry(text: str, where: str) -> LogEntry:
    """Return the entry in the text of an ``offsets/N`` file.

    A source is Kafka's if its line has the shape ``{"<topic>":{"<partition>":<offset>}}``.

    :param text: content of the file.
    :param where: name of the file, for error messages.
    :raises CheckpointError: the text is empty, cut off, of another version, of continuous processing, or has no Kafka
        source. Also if two Kafka sources read one partition, or an offset is below 0 or above 2^63-1.
    """
    version, *lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if version != CLOSED:
        _require_v1(version, where)
    if lines and not lines[0].strip():
        raise CheckpointError(
            seen=f"{where} has no batch metadata, like the log of continuous processing",
            expected="the log of a query that runs in micro-batches",
            do="run the query with a processingTime or availableNow trigger",
        )
    metadata = _parsed(where, lambda: _mapping(json.loads("".join(lines[:1]))))
    sources = tuple(_parsed(where, lambda line=line: _source(line)) for line in lines[1:])  # type: ignore[misc]
    if not any(isinstance(each, Position) for each in sources):
        raise CheckpointError(
            seen=f"{where} holds the offsets of {len(sources)} sources, and none of them is a Kafka source",
            expected="at least one Kafka source that has started",
            do="name the checkpoint of a query that reads Kafka",
        )
    _require_apart([each for each in sources if isinstance(each, Position)], where)
    return LogEntry(metadata, sources)


def read_entry(files: CheckpointFiles, batch_id: int) -> LogEntry | None:
    """Return the entry of ``offsets/<batch_id>``, or None if the file does not exist.

    :param files: the checkpoint.
    :param batch_id: id of the batch, from 0 up.
    :raises CheckpointError: as for :func:`parse_entry`.
    """
    text = files.text(f"offsets/{batch_id}")
    return None if text is None else parse_entry(text, f"{files.location}/offsets/{batch_id}")


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
    """Return the entry of the last committed batch, the greatest id in both logs, or None."""
    committed_ids = set(batch_ids(files, "offsets")) & set(batch_ids(files, "commits"))
    return read_entry(files, max(committed_ids)) if committed_ids else None


def read_initial(files: CheckpointFiles) -> Position | None:
    """Return the initial offsets of all Kafka sources, or None if the query never got that far."""
    found = [initial for place in batch_ids(files, "sources") if (initial := _initial_of(files, place)) is not None]
    if not found:
        return None
    _require_apart(found, f"{files.location}/sources")
    return Position({each: offset for source in found for each, offset in source.items()})


def read_query_id(files: CheckpointFiles) -> str | None:
    """Return the query id, or None if the folder holds no checkpoint."""
    text = files.text("metadata")
    return None if text is None else _parsed(f"{files.location}/metadata", lambda: str(json.loads(text)["id"]))


def read_state(files: CheckpointFiles) -> CheckpointState | None:
    """Return the state of the checkpoint, or None if it holds no position (missing, or created and still empty).

    :raises CheckpointError: the checkpoint cannot be read, is of a version or kind that was not tried, or lacks some of
        its files. Also if more than one batch is in flight.
    """
    planned_ids = batch_ids(files, "offsets")  # first: a batch that is planned meanwhile must not look in flight
    committed_ids = batch_ids(files, "commits")
    _require_no_later_commit(files, committed_ids)
    committed_id = max(set(planned_ids) & set(committed_ids), default=UNSTARTED)
    query_id = _query_id_of(files, planned_ids)
    committed_entry = None if committed_id == UNSTARTED else _committed(files, committed_id)
    if committed_entry is None and committed_id != UNSTARTED:
        _require_gone(files, committed_id)
        return read_state(files)
    newer = {each: read_entry(files, each) for each in planned_ids if each > committed_id}
    entries = {batch_id: entry for batch_id, entry in newer.items() if entry is not None}
    in_flight = {batch_id: entry for batch_id, entry in entries.items() if entry.closed_by is None}
    _require_one_in_flight(files, committed_id, in_flight)
    planned_id, planned = next(iter(in_flight.items()), (None, None))
    _require_same_sources(files, committed_entry, planned)
    committed = read_initial(files) if committed_entry is None else committed_entry.end
    if query_id is None or (committed is None and not planned_ids):
        return None
    if committed is None:
        raise CheckpointError(
            seen=f"{files.location} has planned batch {planned_ids[0]}, and its sources folder does not hold its start",
            expected="sources/<number>/0, which Spark writes before the first batch",
            do="restore the file, or start with a new checkpoint",
        )
    return CheckpointState(
        location=files.location,
        query_id=query_id,
        committed_batch_id=committed_id,
        committed=committed,
        planned_batch_id=planned_id,
        planned=None if planned is None else planned.end,
        closed_by=next((entry.closed_by for entry in entries.values() if entry.closed_by is not None), None),
        stateful=bool(files.names("state")),
        asynchronous=bool(planned_ids) and len(planned_ids) <= planned_ids[-1] - planned_ids[0],
    )


def batch_ids(files: CheckpointFiles, folder: str) -> list[int]:
    """Return the batch ids in a log folder, or the numbers of the sources, sorted. Other names are ignored.

    :param files: the checkpoint.
    :param folder: a folder of the checkpoint: ``offsets``, ``commits`` or ``sources``.
    """
    return sorted(int(name) for name in files.names(folder) if BATCH_ID.fullmatch(name))


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


def _committed(files: CheckpointFiles, batch_id: int) -> LogEntry | None:
    commit = files.text(f"commits/{batch_id}")
    if commit is not None:
        where, (version, _, content) = f"{files.location}/commits/{batch_id}", commit.partition("\n")
        _require_v1(version.strip(), where)
        _parsed(where, lambda: json.loads(content.strip() or "{}"))  # a query does not start on half a file
    return read_entry(files, batch_id)


def _require_gone(files: CheckpointFiles, batch_id: int) -> None:
    """Check that an entry that was listed a moment ago has been removed: the query runs, and Spark removes old entries.

    :raises CheckpointError: the entry is still listed, and cannot be opened.
    """
    if batch_id in batch_ids(files, "offsets"):
        raise CheckpointError(
            seen=f"{files.location}/offsets/{batch_id} is listed, and cannot be opened",
            expected="a file",
            do="restore the file",
        )


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


def _require_one_in_flight(files: CheckpointFiles, committed_id: int, in_flight: dict[int, LogEntry]) -> None:
    """Check that at most one batch is in flight.

    Spark continues with the newest entry, from the end of the entry before it: earlier entries would be skipped.
    """
    names = ", ".join(f"offsets/{each}" for each in in_flight)
    if len(in_flight) > 1:
        raise CheckpointError(
            seen=f"{files.location} has {names}, and none of them is committed",
            expected="at most one batch in flight, because Spark would run only the last one",
            do="find out who removed files there. Remove all of these entries except the first; Spark plans them again",
        )
    if committed_id == UNSTARTED and in_flight and min(in_flight) > 0:
        raise CheckpointError(
            seen=f"{files.location} has {names}, and no committed entry",
            expected="commits/<number> for the previous batch",
            do=f"restore the commits folder; {REMOVE_THE_REST}",
        )


def _require_same_sources(files: CheckpointFiles, committed: LogEntry | None, planned: LogEntry | None) -> None:
    if committed is not None and planned is not None and len(committed.sources) != len(planned.sources):
        raise CheckpointError(
            seen=f"the planned batch of {files.location} names {len(planned.sources)} sources,"
            f" the batch before it {len(committed.sources)}",
            expected="the same sources in all entries",
            do="restore the entry that was cut off, or remove it if its batch has not run: Spark plans it again",
        )


def _initial_of(files: CheckpointFiles, place: int) -> Position | None:
    """Return the initial offsets of a Kafka source, or None for a source of another kind."""
    text = files.text(f"sources/{place}/0")
    if text is None:
        return None
    where = f"{files.location}/sources/{place}/0"
    version, _, offsets = text.removeprefix("\0").replace("\r\n", "\n").partition("\n")
    if text.startswith("\0"):
        _require_v1(version, where)
        return _parsed(where, lambda: _position(json.loads(offsets)))
    try:
        data = json.loads(offsets)
    except ValueError:
        return None
    return _parsed(where, lambda: _position(data)) if _is_kafka(data) and version == "v1" else None


def _require_v1(version: str, where: str) -> None:
    if not version:
        raise CheckpointError(
            seen=f"{where} is empty, as after a power failure",
            expected="the content that Spark writes, which also refuses an empty file",
            do="restore the file. An empty file of a batch that is in offsets/ and not in commits/ may be removed:"
            " Spark plans that batch again, and may end it elsewhere",
        )
    if version != "v1":
        raise CheckpointError(
            seen=f"{where} begins with {version!r}",
            expected="'v1', the only log version that this release supports",
            do="leave spark.sql.streaming.offsetLog.formatVersion and"
            " spark.sql.streaming.stateStore.checkpointFormatVersion at 1, and source evolution off",
        )


def _mapping(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or type(data.get("batchTimestampMs", 0)) is not int:
        raise ValueError(f"{data!r} is no batch metadata")
    return data


def _source(line: str) -> Position | str:
    if line == VOID:
        return line
    data = json.loads(line)
    return _position(data) if _is_kafka(data) else line


def _is_kafka(data: Any) -> bool:
    return isinstance(data, dict) and all(
        isinstance(partitions, dict) and all(number.lstrip("-").isdecimal() for number in partitions)
        for partitions in data.values()
    )


def _position(data: Any) -> Position:
    position = Position.from_plain(data)
    beyond = next((each for each, offset in position.items() if offset > LAST_OFFSET), None)
    if beyond is not None:
        raise ValueError(f"{beyond} holds {position[beyond]}, and Kafka counts to {LAST_OFFSET}")
    return position


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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            seen=f"{where} cannot be read: {error}",
            expected="the text that Spark writes for a Kafka source",
            do="name the checkpoint of a query that reads Kafka, or restore the file",
        ) from error
