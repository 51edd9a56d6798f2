"""Selectors of starting offsets: small objects with one method.

| text | start |
|---|---|
| ``committed`` | the pipeline's stored position: after the last processed batch |
| ``earliest`` | the earliest retained offset |
| ``latest`` | after the last record: unread records are skipped, so they are counted and must be accepted |
| ``snapshot:<id>`` | the position of a stored snapshot, by id or label; newer partitions are read from 0 |
| ``as-of:<time>`` | after the last batch that was processed at or before that time, by the history |
| ``timestamp:<time>`` | the first record with that timestamp or a later one, by Kafka's record time |
| ``duration:<ISO 8601>`` | the same, for the time so long before the operation's first plan |
| ``shift:-1000`` | that many offsets before (or after) the pipeline's stored position |
| ``offsets:{"flights":{"0":123}}`` | exactly these offsets |
| ``file:<path>`` | the offsets in a file; ``file:<path>#<group>`` if it has several groups |
| ``group:<id>`` | the committed offsets of that consumer group |

A selector returns offsets only for partitions that it knows, and never guesses. Several selectors are evaluated from
left to right (``as-of:2026-11-01T00:00Z | earliest``): each partition starts at the offset of the first selector that
matches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.interchange import parse_position
from airflow_provider_offsets.core.known import known_offsets
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.moments import length_text, moment_text
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.selectors.model import Chosen, Sources, StartSelector
from airflow_provider_offsets.core.snapshot import Observation
from airflow_provider_offsets.errors import InputRefused, SelectorError


@dataclass(frozen=True)
class Start:
    """Selectors from left to right: each partition starts at the offset of the first selector that matches it."""

    parts: tuple[StartSelector, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.parts))

    @property
    def is_left_to_the_stores(self) -> bool:
        """Whether the start depends on the pipeline's stored position, which is empty before the first start."""
        return any(isinstance(part, (Committed, Shift)) for part in self.parts)

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return for each partition the start of the first selector that matches it.

        :raises SelectorError: a selector cannot be applied, even if the selectors before it match all partitions.
        :raises SnapshotNotFound: as ``FromSnapshot``.
        :raises NoHistory: as ``AsOf``.
        """
        # Every selector is evaluated, even if the ones before it match all partitions. So a wrong one is refused while
        # the job runs, and not when a partition added in the maintenance window needs it.
        answers = [part.choose(seen, sources) for part in self.parts]
        return {partition: chosen for answer in reversed(answers) for partition, chosen in answer.items()}


@dataclass(frozen=True)
class Committed:
    """The pipeline's stored position, which is empty before the first start."""

    def __str__(self) -> str:
        return "committed"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the stored offset of each partition, and 0 for each new partition.

        A partition whose stored offset is gone is omitted.
        """
        return _continued(sources.position, seen, self)


@dataclass(frozen=True)
class Earliest:
    """The earliest retained offset of each partition."""

    def __str__(self) -> str:
        return "earliest"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the earliest retained offset of every live partition."""
        return _all_of(seen.live.begin, self)


@dataclass(frozen=True)
class Latest:
    """After the last record of each partition, including new partitions."""

    def __str__(self) -> str:
        return "latest"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the end offset of every live partition."""
        return _all_of(seen.live.end, self)


@dataclass(frozen=True)
class Offsets:
    """Offsets that a person named."""

    offsets: Position

    def __str__(self) -> str:
        return f"offsets:{self.offsets.to_json()}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the named offsets.

        :raises SelectorError: a named partition is not a live partition of the pipeline's topics.
        """
        _require_known("'offsets:'", self.offsets, seen.live)
        return _all_of(self.offsets, self)


@dataclass(frozen=True)
class Shift:
    """That many offsets before (negative) or after the pipeline's stored position.

    A result before the earliest retained offset or after the end is counted and refused by the plan. A result below 0
    becomes 0.
    """

    by: int

    def __str__(self) -> str:
        return f"shift:{self.by:+d}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return each stored offset plus ``by``, and 0 for each new partition.

        A partition whose stored offset is gone is omitted.
        """
        shifted = {partition: self._shifted(offset) for partition, offset in sources.position.items()}
        return {**_continued(sources.position, seen, self), **shifted}

    def _shifted(self, offset: int) -> Chosen:
        wanted = offset + self.by
        if wanted >= 0:
            return Chosen(wanted, self)
        return Chosen(0, self, f"only {offset} offsets are before its position")


@dataclass(frozen=True)
class FromSnapshot:
    """The position of a stored snapshot."""

    snapshot_id: str

    def __str__(self) -> str:
        return f"snapshot:{self.snapshot_id}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the offsets of the snapshot, and 0 for a partition that was added after it.

        :raises SnapshotNotFound: there is no snapshot of that id or label.
        :raises SelectorError: the snapshot is of another cluster, or a topic was recreated since.
        """
        snapshot = sources.snapshot(self.snapshot_id)
        _require_same(f"snapshot {self.snapshot_id!r}", snapshot.seen.live.identity, seen)
        return _with_new(snapshot.position, seen.live, self, "made after the snapshot")


@dataclass(frozen=True)
class AsOf:
    """The position of the pipeline after the last batch that was processed at or before a time.

    The time of a batch is when Spark planned it. The order is that of the history: if a driver's clock was behind, its
    batches count as just after the ones before them.
    """

    time_ms: int

    def __str__(self) -> str:
        return f"as-of:{moment_text(self.time_ms)}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the offsets after the last batch by then, and 0 for a partition that was not read by then.

        :returns: the starts; empty if the first batch is later than the time.
        :raises NoHistory: the pipeline keeps neither a history nor snapshots.
        :raises SelectorError: the batch is of another cluster, or a topic was recreated since.
        """
        past = sources.as_of(self.time_ms)
        if past is None:
            return {}
        if past.identity is not None:
            _require_same(f"what was recorded by {moment_text(self.time_ms)} ({past.source})", past.identity, seen)
        return {
            partition: chosen._replace(note="; ".join(filter(None, (past.source, chosen.note))))
            for partition, chosen in _with_new(past.position, seen.live, self, "not read by then").items()
        }


@dataclass(frozen=True)
class AtTimestamp:
    """The first record with a timestamp or a later one, by Kafka's record time, which producers may set.

    A partition without such a record starts at its end, which skips unread records. A partition that the pipeline never
    read, in a topic that it reads, starts at 0.
    """

    time_ms: int

    def __str__(self) -> str:
        return f"timestamp:{moment_text(self.time_ms)}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the offset of the first record at or after the time.

        A partition without such a record starts at its end, and a new partition at 0.
        """
        return _at_time(self.time_ms, self, seen, sources)


@dataclass(frozen=True)
class Before:
    """The first record with the timestamp that is so long before the operation's first plan, or a later one."""

    length_ms: int

    def __str__(self) -> str:
        return f"duration:{length_text(self.length_ms)}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the offset of the first record at or after the time.

        The time counts back from ``sources.asked_at_ms``. The partitions start as with ``AtTimestamp``.

        :raises SelectorError: the time is before 1970.
        """
        time_ms = sources.asked_at_ms - self.length_ms
        if time_ms < 0:
            raise SelectorError(
                seen=f"'{self}' reaches back before 1970",
                expected="a time that a record can have",
                do="correct the duration; to start from the first offset, use 'earliest'",
            )
        return _at_time(time_ms, self, seen, sources)


@dataclass(frozen=True)
class FromFile:
    """The offsets in a file: the CSV of ``kafka-consumer-groups --export``, or our own JSON."""

    path: str
    group_id: str = ""
    """Group to read, if the file has several."""

    def __str__(self) -> str:
        # The last '#' separates the path from the group, so a path that contains '#' needs one at its end.
        return f"file:{self.path}{'#' if self.group_id or '#' in self.path else ''}{self.group_id}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the offsets in the file.

        :raises SelectorError: the file cannot be read, or has several groups and none was named. Also if it names a
            partition that is not a live one of the pipeline, or is of another cluster or a topic recreated since.
        """
        try:
            found = parse_position(sources.text_of(self.path), group_id=self.group_id)
        except SelectorError:
            raise
        except InputRefused as error:
            raise SelectorError(
                seen=f"'{self}': {error.seen}",
                expected=error.expected,
                do="correct the file; if it has several groups, name one as in 'file:/path#group'",
            ) from error
        if found.identity is not None:
            _require_same(f"'{self}'", found.identity, seen)
        _require_known(f"'{self}'", found.position, seen.live)
        return _all_of(found.position, self)


@dataclass(frozen=True)
class FromGroup:
    """The committed offsets of a consumer group, without the partitions that have no commit."""

    group_id: str

    def __str__(self) -> str:
        return f"group:{self.group_id}"

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the committed offset of each partition for which the group has one."""
        return _all_of(sources.commits_of(self.group_id), self)


def _all_of(offsets: Mapping[TopicPartition, int], by: StartSelector) -> dict[TopicPartition, Chosen]:
    return {partition: Chosen(offset, by) for partition, offset in offsets.items()}


def _with_new(position: Position, live: LiveTopics, by: StartSelector, note: str = "") -> dict[TopicPartition, Chosen]:
    """Return the offsets of a position, and 0 for partitions that its topics got later. Holes are not new."""
    greatest = {topic: max(position.of_topic(topic)) for topic in position.topics}
    new = (each for each in live.partitions if each.partition > greatest.get(each.topic, each.partition))
    return {**_all_of(position, by), **{partition: Chosen(0, by, note) for partition in new}}


def _continued(position: Position, seen: Observation, by: StartSelector) -> dict[TopicPartition, Chosen]:
    """Return the offsets of a position, and 0 for partitions that were never read.

    A partition whose stored offset is gone is not new: a person must choose its start from what other sources know.
    """
    known = known_offsets(seen)
    return {
        partition: chosen
        for partition, chosen in _with_new(position, seen.live, by).items()
        if partition in position or partition not in known or not known[partition].position[partition]
    }


def _at_time(time_ms: int, by: StartSelector, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
    found = sources.offsets_at(time_ms)
    # The creation time of a partition is unknown, and its records may be older: one that was never read is new.
    new = set(_continued(sources.position, seen, by)) - set(sources.position)
    chosen = {}
    for partition, live in seen.live.partitions.items():
        offset = found.get(partition)
        if partition in new:
            chosen[partition] = Chosen(0, by)
        elif offset is None:
            note = f"no record at or after {moment_text(time_ms)}: its end" if live.end else ""
            chosen[partition] = Chosen(live.end, by, note)
        elif 0 < offset == live.begin:
            chosen[partition] = Chosen(offset, by, "earliest retained offset; the times of deleted records are unknown")
        else:
            chosen[partition] = Chosen(offset, by)
    return chosen


def _require_same(what: str, then: TopicIdentity, seen: Observation) -> None:
    now = seen.live.identity
    moved = [topic for topic, topic_id in then.topic_ids.items() if now.topic_ids.get(topic, topic_id) != topic_id]
    if then.cluster_id != now.cluster_id or moved:
        raise SelectorError(
            seen=f"{what} is of cluster {then.cluster_id!r}, and {moved or 'no'} topics were recreated since",
            expected=f"offsets of cluster {now.cluster_id!r} and of the topics as they are now",
            do="choose a later snapshot or time, or start from 'earliest'",
        )


def _require_known(what: str, position: Position, live: LiveTopics) -> None:
    strangers = [partition for partition in position if partition not in live.partitions]
    if strangers:
        raise SelectorError(
            seen=f"{what} names {first_few(strangers)}, which the pipeline does not read or the cluster does not have",
            expected=f"partitions of {', '.join(topic.name for topic in live.topics)}",
            do="omit these partitions, or correct topic and partition",
        )
