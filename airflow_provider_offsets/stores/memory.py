"""Store in memory, for tests: the same guarantees as the real stores, but nothing survives the process."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.stores import history, rules


class MemoryStore:
    """Offset store in this process; safe to share between threads. Public: use it in your own tests."""

    kind = "memory"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._histories: dict[str, list[Batch]] = {}
        self._control: dict[tuple[str, str], str] = {}
        self._facts: dict[tuple[str, int], list[Batch]] = {}
        """Batches by group and row time. Pipelines on different topics of one group may have rows with the same
        time."""

    def create(self) -> None:
        """Do nothing: there is nothing to create."""

    def close(self) -> None:
        """Do nothing. The content stays, so a test may close the store and continue to read."""

    def position(self, stream: Stream) -> Position | None:
        """Return the end offsets of each topic of the stream in the newest batch that names the topic."""
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add a row that ends at ``position``, atomically between threads.

        Does nothing if ``position`` is stored already.

        :param stream: the owner of the history.
        :param position: the position to write.
        :param expected: the position that must be stored now; None for nothing.
        :raises InputRefused: ``position`` lacks a partition, or names a topic of another stream.
        :raises StateChanged: another position is stored; it is not changed.
        """
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        with self._lock:
            if rules.is_to_be_written(self.position(stream), position, expected):
                self._add(stream, history.written_row(position, self._newest_time(stream)))

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Add the row of a batch, atomically between threads.

        :param stream: the owner of the history.
        :param batch: the batch. Without ``row_time_ms``, each call adds a new row after the newest one.
        :returns: the batch with its row time.
        :raises InputRefused: the batch cannot be recorded under this stream.
        :raises BatchConflict: another batch, or the same one with other offsets, is stored at that time.
        """
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        with self._lock:
            if batch.row_time_ms is None:
                batch = history.place(batch, self._newest_time(stream))
            return self._append(stream, batch)

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches, the newest first, as of the moment when the first one is taken.

        :param stream: the owner of the history.
        :param until_ms: only rows at or before this time; None for no limit.
        """
        rows = self._history(stream)
        for index in range(_count_until(rows, until_ms) - 1, -1, -1):
            if rules.is_of(stream, rows[index]):
                yield rows[index]

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches in the order of recording, as of the moment when the first one is taken.

        :param stream: the owner of the history.
        :param since_ms: only rows at or after this time.
        :param until_ms: only rows at or before this time; None for no limit.
        """
        rows = self._history(stream)
        for index in range(_count_until(rows, since_ms - 1), _count_until(rows, until_ms)):
            if rules.is_of(stream, rows[index]):
                yield rows[index]

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text of a control record, or None.

        :param pipeline: name of the pipeline.
        :param name: name of the control record.
        """
        return self._control.get((rules.check_pipeline(pipeline), rules.check_name(name)))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text of a control record if it is ``expected`` now, and return whether it was set.

        :param pipeline: name of the pipeline.
        :param name: name of the control record.
        :param expected: the text that must be there now; None if there must be none.
        :param value: the new text.
        :raises InputRefused: a name or the text is malformed.
        """
        return self.swap(pipeline, name, expected, value)

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
        """Set a control text as ``check_and_put`` does, with the batches that belong to it; return whether it was set.

        All is set atomically between threads, or nothing.

        :param pipeline: name of the pipeline.
        :param name: name of the control record.
        :param expected: the text that must be there now; None if there must be none.
        :param value: the new text.
        :param stream: the owner of the batches.
        :param prepare: a batch that is about to start; its facts are stored under its ``row_time_ms``.
        :param append: a batch whose row is added to the history if the text was set.
        :raises InputRefused: a name, the text or a batch is malformed.
        :raises BatchConflict: facts that may not be replaced are stored under this row time. Nothing was set.
        """
        key = rules.check_pipeline(pipeline), rules.check_name(name)
        rules.check_value(value)
        facts, row = rules.placed(stream, prepare), rules.placed(stream, append)
        with self._lock:
            if self._control.get(key) != expected:
                return False
            if facts is not None:
                self._prepare(*facts)
            if row is not None:
                self._append(*row)
            self._control[key] = value
            return True

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are stored under a row time, or None.

        :param stream: the owner of the history.
        :param row_time_ms: the row time, in milliseconds since 1970.
        """
        stream = rules.check_stream(stream)
        with self._lock:
            return self._kept(stream, row_time_ms)

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield names and texts, sorted by name, as of the moment when the first one is taken.

        :param pipeline: name of the pipeline; records of others are never yielded.
        :param prefix: start of the names; empty for all.
        """
        rules.check_pipeline(pipeline)
        with self._lock:
            found = sorted(
                (name, value)
                for (owner, name), value in self._control.items()
                if owner == pipeline and name.startswith(prefix)
            )
        yield from found

    def _prepare(self, stream: Stream, batch: Batch) -> None:
        recorded = self._recorded(stream, history.row_time_of(batch))
        if recorded is not None:
            rules.recorded_once(recorded, batch)
            return
        kept = self._kept(stream, history.row_time_of(batch))
        self._keep(stream, kept, rules.prepared_once(kept, batch))

    def _append(self, stream: Stream, batch: Batch) -> Batch:
        recorded = self._recorded(stream, history.row_time_of(batch))
        if recorded is not None:
            return rules.recorded_once(recorded, batch)
        kept = self._kept(stream, history.row_time_of(batch))
        if kept is None:
            self._keep(stream, None, batch)
        else:
            batch = rules.recorded_once(kept, batch)
        self._add(stream, batch)
        return batch

    def _recorded(self, stream: Stream, row_time_ms: int) -> Batch | None:
        rows = self._history(stream)
        there = rows[_count_until(rows, row_time_ms - 1) : _count_until(rows, row_time_ms)]
        return next((each for each in there if rules.is_of(stream, each)), None)

    def _kept(self, stream: Stream, row_time_ms: int) -> Batch | None:
        there = self._facts.get((stream.group_id, row_time_ms), [])
        return next((each for each in there if rules.is_of(stream, each)), None)

    def _keep(self, stream: Stream, kept: Batch | None, batch: Batch) -> None:
        key = stream.group_id, history.row_time_of(batch)
        self._facts[key] = [*(each for each in self._facts.get(key, []) if each is not kept), batch]

    def _add(self, stream: Stream, batch: Batch) -> None:
        """Add a row. A list that somebody reads grows only at its end; a row in the middle makes a new list."""
        rows = self._histories.setdefault(stream.group_id, [])
        row_time_ms = history.row_time_of(batch)
        if not rows or history.row_time_of(rows[-1]) <= row_time_ms:
            rows.append(batch)
        else:
            self._histories[stream.group_id] = sorted([*rows, batch], key=history.row_time_of)

    def _newest_time(self, stream: Stream) -> int | None:
        rows = self._history(stream)
        return rows[-1].row_time_ms if rows else None

    def _history(self, stream: Stream) -> list[Batch]:
        with self._lock:
            return self._histories.get(rules.check_stream(stream).group_id, [])


def _count_until(rows: list[Batch], until_ms: int | None) -> int:
    """Return the number of batches at or before ``until_ms``."""
    if until_ms is None:
        return len(rows)
    return bisect.bisect_right(_RowTimes(rows), until_ms)


@dataclass(frozen=True)
class _RowTimes:
    """Row times of batches, which are searched without a copy. ``bisect`` has no ``key`` before Python 3.10."""

    rows: list[Batch]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        return history.row_time_of(self.rows[index])
