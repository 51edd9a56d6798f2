"""Ways to name a starting point: small objects with one method, read from text.

| text | start |
|---|---|
| ``committed`` | where the pipeline stands: after the last processed batch |
| ``earliest`` | the first offset that retention has left |
| ``offsets:{"flights":{"0":123}}`` | exactly there; partitions not named stay where they stand |
| ``shift:-1000`` | that many offsets before (or after) where the pipeline stands |
| ``snapshot:<id>`` | the position of a stored snapshot; partitions made after it are read from 0 |
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import Observation, Snapshot
from airflow_provider_offsets.errors import SelectorError


class StartSelector(Protocol):
    """Names a starting point."""

    def choose(self, seen: Observation) -> Position:
        """Give the wanted offset of each partition; one that is left out is new, and starts at 0 or is refused."""
        ...


@dataclass(frozen=True)
class Committed:
    """Where the pipeline stands. Before the first start that is nowhere: every partition begins at its first offset."""

    def choose(self, seen: Observation) -> Position:
        return seen.stored or Position()


@dataclass(frozen=True)
class Earliest:
    """The first offset that retention has left, of each partition."""

    def choose(self, seen: Observation) -> Position:
        return seen.live.begin


@dataclass(frozen=True)
class Offsets:
    """These offsets. A partition that they do not name stays where it stands."""

    offsets: Position

    def choose(self, seen: Observation) -> Position:
        strangers = [partition for partition in self.offsets if partition not in seen.live.partitions]
        if strangers:
            raise SelectorError(
                seen=f"'offsets:' names {', '.join(map(str, strangers))}, which the cluster does not have",
                expected=f"partitions of {', '.join(topic.name for topic in seen.live.topics)}",
                do="leave them out, or correct the topic and partition",
            )
        return (seen.stored or Position()).updated(self.offsets)


@dataclass(frozen=True)
class Shift:
    """So many offsets before (negative) or after where the pipeline stands, never before offset 0."""

    by: int

    def choose(self, seen: Observation) -> Position:
        stored = seen.stored or Position()
        return Position({partition: max(0, offset + self.by) for partition, offset in stored.items()})


@dataclass(frozen=True)
class FromSnapshot:
    """The position of a stored snapshot."""

    snapshot: Snapshot

    def choose(self, seen: Observation) -> Position:
        then, now = self.snapshot.seen.live.identity, seen.live.identity
        moved = [topic for topic, topic_id in then.topic_ids.items() if now.topic_ids.get(topic, topic_id) != topic_id]
        if then.cluster_id != now.cluster_id or moved:
            raise SelectorError(
                seen=f"snapshot {self.snapshot.id!r} is of cluster {then.cluster_id!r}, and {moved or 'no'} topics"
                " of it were made again since",
                expected=f"a snapshot of cluster {now.cluster_id!r} and of the topics as they are now",
                do="choose a later snapshot, or start from 'earliest'",
            )
        return self.snapshot.position


def parse_selector(text: str, snapshot: Callable[[str], Snapshot]) -> StartSelector:
    """Give the selector that ``text`` names.

    :param text: as in the table of this module.
    :param snapshot: gives the stored snapshot of an id; called for ``snapshot:`` only.
    :raises SelectorError: quotes the part that cannot be read.
    :raises SnapshotNotFound: from ``snapshot``.
    """
    word, colon, rest = text.strip().partition(":")
    if not colon and word == "committed":
        return Committed()
    if not colon and word == "earliest":
        return Earliest()
    if word == "offsets":
        return Offsets(_offsets(rest))
    if word == "shift":
        return Shift(_shift(rest))
    if word == "snapshot" and rest:
        return FromSnapshot(snapshot(rest))
    raise SelectorError(
        seen=f"start selector {text!r}",
        expected="committed, earliest, offsets:<json>, shift:<±n> or snapshot:<id>",
        do="""write one of these, such as 'committed' or 'offsets:{"flights":{"0":123}}'""",
    )


def _offsets(text: str) -> Position:
    try:
        position = Position.from_json(text)
    except ValueError as error:
        detail = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise SelectorError(
            seen=f"'offsets:' is followed by {text!r}: {detail}",
            expected="""{"topic":{"partition":offset}} with whole numbers from 0 up""",
            do="""write it as in 'offsets:{"flights":{"0":123}}'""",
        ) from error
    if not position:
        raise SelectorError(
            seen=f"'offsets:' is followed by {text!r}, which names no partition",
            expected="at least one partition",
            do="name one, or write 'committed'",
        )
    return position


def _shift(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise SelectorError(
            seen=f"'shift:' is followed by {text!r}",
            expected="a whole number, negative to go back",
            do="write it as in 'shift:-1000'",
        ) from error


def missing_partitions(position: Position, topic: str, live_count: int) -> tuple[TopicPartition, ...]:
    """Give the partitions that a position ought to name and does not.

    Kafka only ever adds partitions at the end, so one *below* the greatest that is named is a hole in the stored
    position, and not a new partition.
    """
    named = position.of_topic(topic)
    greatest = max(named, default=-1)
    return tuple(TopicPartition(topic, number) for number in range(min(greatest, live_count)) if number not in named)
