"""Store of frozen boundaries: one record per topic, and one immutable record per boundary.

| control record | written by | content |
|---|---|---|
| ``boundaries/<topic>/<topic id>`` | the task that freezes a boundary, by compare-and-set | timestamps of the topic |
| ``boundary/<topic>/<topic id>/<timestamp>/<digest>`` | the same task, before that, once | one boundary |

A recreated topic has another topic id: boundaries of the old topic do not apply to the new one.
"""

from __future__ import annotations

from typing import TypeVar

from airflow_provider_offsets.control.cells import load_cell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.live import LiveTopic
from airflow_provider_offsets.core.replay.boundary import (
    Boundary,
    StaleObservation,
    TopicBoundaries,
    TopicObservation,
    freeze,
)
from airflow_provider_offsets.stores.protocols import ControlStore

T = TypeVar("T")


class FrozenBoundaries:
    """Frozen boundaries of one topic in one pipeline."""

    def __init__(self, store: ControlStore, pipeline: str, topic: LiveTopic) -> None:
        self._store, self._pipeline, self._topic = store, pipeline, topic
        self._name = f"{topic.name}/{topic.topic_id}"

    def at(self, instant_ms: int) -> Boundary | None:
        """Return the boundary at a timestamp, or None if none is frozen."""
        return self._load(self._record()[0], instant_ms)

    def before(self, instant_ms: int) -> Boundary | None:
        """Return the nearest boundary before a timestamp, or None."""
        record, _ = self._record()
        return self._load(record, record.around(instant_ms)[0])

    def is_closed(self, instant_ms: int) -> bool:
        """Check whether a boundary is frozen at a timestamp or after it: then nothing is open there any more."""
        record, _ = self._record()
        return record.digest(instant_ms) is not None or record.around(instant_ms)[1] is not None

    def freeze(self, observation: TopicObservation) -> Boundary | StaleObservation:
        """Return the boundary at the timestamp of ``observation``, which is frozen now unless it was frozen before.

        Safe to repeat. If two boundaries are frozen at the same time, the topic's record orders them. The second one is
        computed again, with the first one as its neighbour.

        :returns: the boundary, or :class:`StaleObservation` if ``observation`` lacks partitions of a frozen one.
        :raises StoreUnreachable: the boundary may or may not be frozen: repeat the call.
        """
        while True:
            record, text = self._record()
            if (there := self._load(record, observation.instant_ms)) is not None:
                return there
            before, after = (self._load(record, each) for each in record.around(observation.instant_ms))
            frozen = freeze(record, self._topic.name, observation, before, after)
            if isinstance(frozen, StaleObservation):
                return frozen
            boundary = frozen.boundary
            cell = self._cell(boundary.instant_ms, boundary.digest)
            self._store.check_and_put(self._pipeline, cell, None, codec.dumps(boundary))
            if self._store.check_and_put(self._pipeline, self._index, text, codec.dumps(frozen.boundaries)):
                return boundary

    @property
    def _index(self) -> str:
        return f"boundaries/{self._name}"

    def _record(self) -> tuple[TopicBoundaries, str | None]:
        text = self._store.get(self._pipeline, self._index)
        record = TopicBoundaries() if text is None else load_cell(TopicBoundaries, self._pipeline, self._index, text)
        return record, text

    def _load(self, record: TopicBoundaries, instant_ms: int | None) -> Boundary | None:
        digest = None if instant_ms is None else record.digest(instant_ms)
        if instant_ms is None or digest is None:
            return None
        cell = self._cell(instant_ms, digest)
        return load_cell(Boundary, self._pipeline, cell, self._store.get(self._pipeline, cell))

    def _cell(self, instant_ms: int, digest: str) -> str:
        return f"boundary/{self._name}/{instant_ms:013d}/{digest}"
