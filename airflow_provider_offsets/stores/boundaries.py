"""Where frozen boundaries are kept: one index a topic, and a cell for each instant.

| cell | written by | means |
|---|---|---|
| ``boundaries/<topic>/<topic id>`` | whoever freezes one | the instants at which the topic is cut |
| ``boundary/<topic>/<topic id>/<instant>/<digest>`` | the same, before that, once | it, if the index says so |

A topic that was deleted and made again has another id: what was frozen of the old one means nothing to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.boundary import Boundary, BoundaryIndex
from airflow_provider_offsets.core.live import LiveTopic
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores.protocols import ControlStore

T = TypeVar("T")


class FrozenBoundaries:
    """The frozen boundaries of one topic, as one pipeline has cut it."""

    def __init__(self, store: ControlStore, pipeline: str, topic: LiveTopic) -> None:
        self._store, self._pipeline = store, pipeline
        self._name = f"{topic.name}/{topic.topic_id}"

    def at(self, instant_ms: int) -> Boundary | None:
        """Give what is frozen at an instant, or None."""
        return self._load(self._index()[0], instant_ms)

    def around(self, instant_ms: int) -> tuple[Boundary | None, Boundary | None]:
        """Give the nearest boundaries before and after an instant, or None."""
        index, _ = self._index()
        before, after = index.around(instant_ms)
        return self._load(index, before), self._load(index, after)

    def freeze(self, instant_ms: int, draw: Callable[[Boundary | None, Boundary | None], Boundary]) -> Boundary:
        """Give the boundary at an instant: the one that is frozen there, or the one that ``draw`` makes between its
        neighbours, frozen now.

        Two that are frozen at once are ordered by the index: whoever comes second draws anew, beside the first one.
        """
        while True:
            index, text = self._index()
            if (there := self._load(index, instant_ms)) is not None:
                return there
            before, after = index.around(instant_ms)
            drawn = draw(self._load(index, before), self._load(index, after))
            content = codec.dumps(drawn)
            digest = hashlib.sha256(content.encode()).hexdigest()[:16]
            self._store.check_and_put(self._pipeline, self._cell(instant_ms, digest), None, content)
            changed = codec.dumps(BoundaryIndex({**index.cells, str(instant_ms): digest}))
            if self._store.check_and_put(self._pipeline, f"boundaries/{self._name}", text, changed):
                return drawn

    def _index(self) -> tuple[BoundaryIndex, str | None]:
        text = self._store.get(self._pipeline, f"boundaries/{self._name}")
        return (BoundaryIndex() if text is None else self._read(BoundaryIndex, "the index", text)), text

    def _load(self, index: BoundaryIndex, instant_ms: int | None) -> Boundary | None:
        digest = index.cells.get(str(instant_ms))
        if instant_ms is None or digest is None:
            return None
        text = self._store.get(self._pipeline, self._cell(instant_ms, digest))
        return self._read(Boundary, f"instant {instant_ms}", text or "null")

    def _cell(self, instant_ms: int, digest: str) -> str:
        return f"boundary/{self._name}/{instant_ms:013d}/{digest}"

    def _read(self, kind: type[T], what: str, text: str) -> T:
        try:
            return codec.loads(kind, text)
        except ValueError as error:
            raise StoreDataError(
                seen=f"boundaries of {self._name}, pipeline {self._pipeline!r}: {what} is {text[:80]!r}: {error}",
                expected=f"the JSON of {kind.__name__}",
                do="find who else writes to the control table; it belongs to this provider alone",
            ) from error
