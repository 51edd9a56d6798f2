"""Values that every start selector shares: its sources, and what it chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import Observation, Snapshot


@dataclass(frozen=True)
class PastPosition:
    """Position of a pipeline at some time."""

    position: Position
    source: str
    """Description of the record that the position was read from."""
    identity: TopicIdentity | None = None
    """Cluster and topics of the offsets; None if they were not recorded."""


class Sources(Protocol):
    """Further sources that a selector may read. Reading changes nothing, and joins no consumer group."""

    @property
    def position(self) -> Position:
        """The pipeline's position, where a start begins that is left to the stores; empty before the first start."""
        ...

    @property
    def asked_at_ms(self) -> int:
        """Time of the operation's first plan (ms): a relative time stays the same when the operation plans again."""
        ...

    def offsets_at(self, time_ms: int) -> Mapping[TopicPartition, int | None]:
        """Return per partition the first offset with that timestamp or a later one; None if there is no such record."""
        ...

    def commits_of(self, group_id: str) -> Position:
        """Return the committed offsets of a group in the pipeline's topics."""
        ...

    def as_of(self, time_ms: int) -> PastPosition | None:
        """Return the position of the pipeline after the last batch at or before that time; None before the first one.

        :raises NoHistory: the pipeline keeps neither a history nor snapshots.
        """
        ...

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return a stored snapshot.

        :raises SnapshotNotFound: there is no snapshot of that id.
        """
        ...

    def text_of(self, path: str) -> str:
        """Return the text of a file on the machine that plans.

        :raises SelectorError: the file cannot be read.
        """
        ...


class Chosen(NamedTuple):
    """Chosen start of one partition."""

    offset: int
    by: StartSelector
    note: str = ""
    """Unexpected property of this start, as text for people."""


class StartSelector(Protocol):
    """Selector of starting offsets. Its ``str`` is the text that it is parsed from."""

    def choose(self, seen: Observation, sources: Sources) -> dict[TopicPartition, Chosen]:
        """Return the wanted offset of each partition that the selector matches.

        :param seen: the observation that the plan is made from, with the live topics.
        :param sources: further sources that the selector may read.
        :returns: the start of each matched partition. A partition that is missing is left to the next selector.
        :raises SelectorError: the selector cannot be applied to these topics.
        """
        ...
