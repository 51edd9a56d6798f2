"""Positions and ranges: the next offsets of a job, and the offsets between two positions.

An *offset* is always the next record to read (Spark's ``untilOffset``, Kafka's committed offset). So a range is
``[start, end)`` and its length counts offsets. On plain topics that is the number of records. On compacted topics and
with transactions it is an upper bound, because markers and removed records have offsets too.
"""

from __future__ import annotations

import json
import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_offsets.core.strict_json import read_json

_PARTITION = re.compile(r"0|[1-9][0-9]*")
"""A partition number in the one way in which Kafka writes it."""


class TopicPartition(NamedTuple):
    """One partition of one topic. Sorts by topic, then by number."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Position(Mapping[TopicPartition, int]):
    """Next offset to read of every partition that a job is responsible for. Immutable, sorted, hashable.

    Its JSON is the form that Spark writes to ``offsets/N`` and reads from ``startingOffsets``:
    ``{"flights":{"0":123,"1":456}}``.

    :param offsets: the offsets, as a mapping or as pairs. The order does not matter.
    :raises ValueError: an offset or a partition number is negative. Spark's -1 and -2 (latest, earliest) are sentinels,
        not offsets, and are not allowed in a position.
    """

    __slots__ = ("_offsets",)

    def __init__(self, offsets: Mapping[TopicPartition, int] | Iterable[tuple[TopicPartition, int]] = ()) -> None:
        given: dict[TopicPartition, int] = dict(offsets)
        for partition, offset in given.items():
            if offset < 0 or partition.partition < 0:
                raise ValueError(f"{partition} -> {offset}: partition numbers and offsets begin at 0")
        self._offsets = dict(sorted(given.items()))

    def __getitem__(self, partition: TopicPartition) -> int:
        return self._offsets[partition]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def items(self) -> ItemsView[TopicPartition, int]:
        """Return the pairs of partition and offset, sorted."""
        return self._offsets.items()

    def __hash__(self) -> int:
        return hash(tuple(self._offsets.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and self._offsets == other._offsets

    def __repr__(self) -> str:
        return f"Position({self.to_json()})"

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of the position, sorted."""
        return tuple(sorted({partition.topic for partition in self._offsets}))

    def of_topic(self, topic: str) -> dict[int, int]:
        """Return ``partition number -> offset`` of one topic."""
        return {partition.partition: offset for partition, offset in self.items() if partition.topic == topic}

    def updated(self, later: Mapping[TopicPartition, int]) -> Position:
        """Return this position, with the offsets of ``later`` replacing its own."""
        return Position({**self._offsets, **later})

    def to_plain(self) -> dict[str, dict[str, int]]:
        """Return ``{topic: {partition as text: offset}}``."""
        plain: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in self._offsets.items():
            plain.setdefault(topic, {})[str(partition)] = offset
        return plain

    @classmethod
    def from_plain(cls, data: Any) -> Position:
        """Return the position of ``{topic: {partition as text: offset}}``.

        :raises ValueError: the data has another shape, or an offset is no whole number from 0 up.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"{data!r} is not a position, expected {{topic: {{partition: offset}}}}")
        offsets: dict[TopicPartition, int] = {}
        for topic, partitions in data.items():
            if not isinstance(partitions, Mapping):
                raise ValueError(f"topic {topic!r} holds {partitions!r}, expected {{partition: offset}}")
            for number, offset in partitions.items():
                if not _PARTITION.fullmatch(str(number)):
                    raise ValueError(f"topic {topic!r} has partition {number!r}, expected a whole number from 0 up")
                if type(offset) is not int:
                    raise ValueError(f"{topic}[{number}] holds {offset!r}, expected a whole number from 0 up")
                offsets[TopicPartition(str(topic), int(number))] = offset
        return cls(offsets)

    def to_json(self) -> str:
        """Return the text that Spark reads and writes, partitions sorted by number."""
        return json.dumps(self.to_plain(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Position:
        """Return the position in Spark's text.

        :raises ValueError: the text is not JSON, or not of that shape, or names something twice.
        """
        return cls.from_plain(read_json(text))


@dataclass(frozen=True, order=True)
class OffsetRange:
    """Offsets ``[start, end)`` of one partition.

    :raises ValueError: ``start`` is negative, or ``end`` is before ``start``.
    """

    topic: str
    partition: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"{self}: expected 0 <= start <= end")

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] {self.start}..{self.end}"

    @property
    def count(self) -> int:
        """Number of offsets in the range."""
        return self.end - self.start


def ranges_between(start: Position, end: Position) -> tuple[OffsetRange, ...]:
    """Return the range of every partition of ``end``. A partition that ``start`` lacks begins at 0 (law 3).

    :param start: first offset of each range.
    :param end: the offset after each range.
    :raises ValueError: an end is before its start.
    """
    return tuple(OffsetRange(*partition, start.get(partition, 0), offset) for partition, offset in end.items())


def missing_partitions(named: Iterable[TopicPartition], topic: str) -> Iterator[TopicPartition]:
    """Yield in order the partitions that a position lacks below the greatest one that it names.

    Kafka only adds partitions at the end, so such a partition is a hole in the position, and not a new partition. The
    greatest number may be any, so a caller takes only what it needs.

    :param named: the partitions of the position.
    :param topic: topic whose partitions are checked.
    """
    numbers = {each.partition for each in named if each.topic == topic}
    yield from (TopicPartition(topic, number) for number in range(max(numbers, default=0)) if number not in numbers)


def first_missing(named: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Return the first missing partition of each topic that has one, as ``missing_partitions`` finds it."""
    partitions = list(named)
    topics = sorted({each.topic for each in partitions})
    firsts = (next(missing_partitions(partitions, topic), None) for topic in topics)
    return [first for first in firsts if first is not None]
