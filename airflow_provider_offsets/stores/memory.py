"""A store in memory, for tests: the same laws as the real ones, nothing survives the process."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.stores import history, rules


class MemoryStore:
    """Keeps everything in this process; safe to share between threads. Public: use it in your own tests."""

    kind = "memory"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._histories: dict[str, list[Batch]] = {}
        self._by_identity: dict[tuple[str, str | None, int], Batch] = {}
        self._control: dict[tuple[str, str], str] = {}
        self._prepared: dict[tuple[str, int], Batch] = {}

    def create(self) -> None:
        """Do nothing: there is nothing to create."""

    def close(self) -> None:
        """Do nothing. What is stored stays, so a test may close and go on reading."""

    def position(self, stream: Stream) -> Position | None:
        """Give where each topic of the stream ends in the newest batch that names it."""
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add a row that ends at ``position``. Comparing and adding are one step for all threads."""
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        with self._lock:
            if rules.is_to_be_written(self.position(stream), position, expected):
                self._add(stream, history.written_row(position, self._newest_time(stream)))

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Record a batch; the same one again changes nothing."""
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        with self._lock:
            if batch.batch_id is not None:
                recorded = self._by_identity.get((stream.group_id, batch.query_id, batch.batch_id))
                if recorded is not None:
                    return rules.recorded_once(recorded, batch)
            placed = batch if batch.row_time_ms is not None else history.place(batch, self._newest_time(stream))
            self._add(stream, placed)
            if placed.batch_id is not None:
                self._by_identity[stream.group_id, placed.query_id, placed.batch_id] = placed
            return placed

    def find(self, stream: Stream, query_id: str, batch_id: int, batch_time_ms: int) -> Batch | None:
        """Give the batch of that identity, or None."""
        found = self._by_identity.get((rules.check_stream(stream).group_id, query_id, batch_id))
        return found if found is not None and (found.row_time_ms or 0) >= batch_time_ms else None

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches from the newest backwards, as the history is at the first one taken."""
        rows = self._history(stream)
        for index in range(_count_until(rows, until_ms) - 1, -1, -1):
            if rules.is_of(stream, rows[index]):
                yield rows[index]

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches in the order of recording, as the history is at the first one taken."""
        rows = self._history(stream)
        for index in range(_count_until(rows, since_ms - 1), _count_until(rows, until_ms)):
            if rules.is_of(stream, rows[index]):
                yield rows[index]

    def get(self, pipeline: str, name: str) -> str | None:
        """Give the text, or None."""
        return self._control.get((rules.check_pipeline(pipeline), rules.check_name(name)))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text if it is ``expected`` now."""
        key = rules.check_pipeline(pipeline), rules.check_name(name)
        rules.check_value(value)
        with self._lock:
            if self._control.get(key) != expected:
                return False
            self._control[key] = value
            return True

    def swap(
        self,
        pipeline: str,
        name: str,
        expected: str | None,
        value: str,
        *,
        stream: Stream | None = None,
        prepare: Batch | None = None,
        append: Batch | None = None,
    ) -> bool:
        """Set the text with the facts and the row that belong to it, in one step for all threads."""
        with self._lock:
            if self.get(pipeline, name) != expected:
                return False
            if prepare is not None and stream is not None:
                self._prepare(rules.check_stream(stream), prepare)
            if append is not None and stream is not None:
                self.append(stream, append)
            return self.check_and_put(pipeline, name, expected, value)

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are kept under a row time, or None."""
        return self._prepared.get((rules.check_stream(stream).group_id, row_time_ms))

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Give names and texts, sorted by name, as they are at the first one taken."""
        rules.check_pipeline(pipeline)
        with self._lock:
            found = sorted(
                (name, value)
                for (owner, name), value in self._control.items()
                if owner == pipeline and name.startswith(prefix)
            )
        yield from found

    def _prepare(self, stream: Stream, batch: Batch) -> None:
        rules.check_batch(stream, batch)
        key = stream.group_id, history.row_time_of(batch)
        self._prepared[key] = rules.prepared_once(self._prepared.get(key), batch)

    def _add(self, stream: Stream, placed: Batch) -> None:
        self._histories.setdefault(stream.group_id, []).append(placed)

    def _newest_time(self, stream: Stream) -> int | None:
        rows = self._histories.get(stream.group_id)
        return rows[-1].row_time_ms if rows else None

    def _history(self, stream: Stream) -> list[Batch]:
        """Give the list itself: it only ever grows at its end, so an index stays true while it is read."""
        with self._lock:
            return self._histories.get(rules.check_stream(stream).group_id, [])


def _count_until(rows: list[Batch], until_ms: int | None) -> int:
    """Give how many batches stand at or before ``until_ms``."""
    if until_ms is None:
        return len(rows)
    return bisect.bisect_right(rows, until_ms, key=lambda batch: batch.row_time_ms or 0)
