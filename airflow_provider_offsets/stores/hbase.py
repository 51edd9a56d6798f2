"""Offsets in HBase, in the form of the Cloudera deck, byte for byte.

``<table>``, family ``offsets``: row ``<TOPIC>:<GROUP>:<EPOCH_BATCHTIME_MS>``, qualifier the partition, value the
offset, all as text. Jobs that follow the deck take the *number of cells* of the newest row as the number of
partitions, so nothing else ever stands in such a row. What more is known of a batch stands in ``<table>_batches``
under the same key, as JSON in the one cell ``batch:json`` (its *facts*). ``<table>_control`` has one cell
``control:value`` per text, which is only ever written by compare and set: a plain put beside it could hide one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream, next_row_time_ms
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.stores import hbase_layout as layout
from airflow_provider_offsets.stores import rules
from airflow_provider_offsets.stores.hbase_client import HBaseClient
from airflow_provider_offsets.stores.paging import FIRST_PAGE, LARGEST_PAGE, next_page

_TABLE = re.compile(r"([A-Za-z0-9_]+:)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FACTS = b"batch:json"
_VALUE = b"control:value"
# HBase compares an empty value as if there were none, so the empty text is stored as the one that nobody may store.
_EMPTY = b"\0"


@dataclass(frozen=True)
class _DeckRow:
    """One topic's offsets of one batch, with the facts under the same key if there are any."""

    topic: str
    time_ms: int
    end: Position
    facts: Batch | None


class HBaseStore:
    """Positions, history and control in HBase, through its Thrift server. Safe to share between threads.

    A batch is recorded once its facts and then its deck rows, topic by topic, are written. A crash in between leaves a
    batch that readers skip and that recording it again completes.

    :param table: the deck's table, such as ``stream_kafka_offsets``; ``namespace:table`` is fine.
    :param timeout_s: how long one call may take.
    """

    kind = "hbase"

    def __init__(self, host: str, port: int, table: str, *, timeout_s: float = 30) -> None:
        self._deck = _check_table(table)
        self._facts = f"{table}_batches"
        self._control = f"{table}_control"
        self._url = f"hbase://{host}:{port}/{table}"
        self._client = HBaseClient(
            host,
            port,
            families={self._deck: "offsets", self._facts: "batch", self._control: "control"},
            create_command=f"python -m airflow_provider_offsets.stores create {self._url}",
            timeout_s=timeout_s,
        )

    def __repr__(self) -> str:
        return f"HBaseStore({self._url!r})"

    def create(self) -> None:
        """Create what is missing of the three tables. They keep their rows for ever; the deck's had a TTL of 30 days,
        after which a job that had been idle began again from offset 0."""
        self._client.create_tables()

    def close(self) -> None:
        """Close the connection. The store may be used again: it makes a new one."""
        self._client.close()

    def position(self, stream: Stream) -> Position | None:
        """Give the end of the newest batch. A topic that it does not name (jobs of the deck's kind record topics one
        by one) stands where its own newest row says."""
        newest = next(self.newest_first(stream), None)
        if newest is None:
            return None
        position = newest.end
        for topic in sorted(set(stream.topics) - set(position.topics)):
            older = next(self.newest_first(Stream(stream.group_id, (topic,))), None)
            if older is not None:
                position = position.updated({each: end for each, end in older.end.items() if each.topic == topic})
        return position

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Record a batch: facts of every topic first, then the deck's rows in the order of topics.

        HBase changes one row at a time. What claims the row's time is the first topic's facts cell, by compare and
        set: two writers never get the same one.
        """
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        for begun in self._same_batch(stream, batch):
            recorded = rules.recorded_once(begun, batch)
            if self._is_complete(stream, recorded) or self._write(stream, recorded):
                return recorded
        newest = self._newest_time(stream)
        while True:
            placed = batch.at_row(next_row_time_ms(batch.batch_time_ms, newest))
            if self._write(stream, placed):
                return placed
            newest = placed.row_time_ms

    def find(self, stream: Stream, query_id: str, batch_id: int, batch_time_ms: int) -> Batch | None:
        """Give the batch of that identity, or None: reads the facts from the batch's own time on."""
        stream = rules.check_stream(stream)
        for topic in stream.topics:
            for facts in self._facts_since(topic, stream.group_id, batch_time_ms):
                if (facts.query_id, facts.batch_id) == (query_id, batch_id) and self._is_complete(stream, facts):
                    return facts
        return None

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches from the newest backwards, a page at a time; no scanner is open between two of them."""
        until = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
        return self._batches(stream, 0, until, backwards=True)

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches in the order of recording, a page at a time; no scanner is open between two of them."""
        until = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
        return self._batches(stream, since_ms, until, backwards=False)

    def get(self, pipeline: str, name: str) -> str | None:
        """Give the text, or None."""
        key = _control_key(pipeline, name)
        return self._text(key, self._client.row(self._control, key))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text by HBase's own compare and set.

        :raises StoreUnreachable: also where the answer was lost: then read the text, and see whose it is.
        """
        key = _control_key(pipeline, name)
        rules.check_value(value)
        if self.get(pipeline, name) != expected:
            return False  # and a connection that the server closed while it was idle is a new one by now
        before = None if expected is None else _control_value(expected)
        return self._client.check_and_put(self._control, key, _VALUE, before, _control_value(value))

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Give names and texts, sorted by name. A pipeline's name has no ``:``, so no other one's rows are near."""
        owner = f"{rules.check_pipeline(pipeline)}:".encode()
        first, stop = owner + prefix.encode(), owner[:-1] + b";"
        while True:
            page = self._client.page(self._control, first, stop, LARGEST_PAGE)
            for key, cells in page:
                text = self._text(key, cells)
                name = key[len(owner) :].decode()
                if not name.startswith(prefix):
                    return
                if text is not None:
                    yield name, text
            if len(page) < LARGEST_PAGE:
                return
            first = page[-1][0] + b"\0"

    # How a batch is written

    def _write(self, stream: Stream, placed: Batch) -> bool:
        """Write the facts and then the deck's rows at the batch's row time; False if that time is another's."""
        cell = codec.dumps(placed).encode()
        keys = {topic: self._key(topic, stream, placed) for topic in placed.end.topics}
        if not all(self._claim(key, cell) for key in keys.values()):
            return False
        for topic, key in keys.items():
            self._client.put(self._deck, key, layout.cells_of(placed.end, topic))
        return True

    def _claim(self, key: bytes, cell: bytes) -> bool:
        """Write a facts cell where none is; one that holds the same already is as good."""
        if self._client.check_and_put(self._facts, key, _FACTS, None, cell):
            return True
        return self._client.row(self._facts, key).get(_FACTS) == cell

    def _same_batch(self, stream: Stream, batch: Batch) -> list[Batch]:
        """Give what was begun of this batch. More than one only if writers raced for a row time and a crash followed;
        a complete one stands first."""
        if batch.batch_id is None:
            return []
        first_topic = batch.end.topics[0]
        begun = [
            facts
            for facts in self._facts_since(first_topic, stream.group_id, batch.batch_time_ms)
            if facts.is_same_batch(batch)
        ]
        return begun if len(begun) < 2 else sorted(begun, key=lambda each: not self._is_complete(stream, each))

    def _newest_time(self, stream: Stream) -> int | None:
        times = (
            next(self._keys(self._deck, topic, stream.group_id, 0, rules.LAST_ROW_TIME_MS), None)
            for topic in stream.topics
        )
        return max((time for time in times if time is not None), default=None)

    def _key(self, topic: str, stream: Stream, batch: Batch) -> bytes:
        assert batch.row_time_ms is not None  # placed by append, or read from a key
        return layout.key(layout.prefix(topic, stream.group_id), batch.row_time_ms)

    # How batches are read

    def _batches(self, stream: Stream, since_ms: int, until_ms: int, *, backwards: bool) -> Iterator[Batch]:
        stream = rules.check_stream(stream)
        per_topic = {
            topic: self._deck_rows(topic, stream.group_id, since_ms, until_ms, backwards=backwards)
            for topic in stream.topics
        }
        for time_ms, rows in _together(per_topic, max if backwards else min):
            yield from self._batches_at(stream, time_ms, rows)

    def _batches_at(self, stream: Stream, time_ms: int, rows: dict[str, _DeckRow]) -> Iterator[Batch]:
        """Give what was recorded at one time: mostly one batch, over one topic or several."""
        told: set[str] = set()
        for topic, row in rows.items():
            if row.facts is not None and topic not in told:
                told.update(row.facts.end.topics)
                if self._is_complete(stream, row.facts, rows):
                    yield row.facts
        untold = [row.end for topic, row in rows.items() if topic not in told]
        if untold:
            end = Position({partition: offset for each in untold for partition, offset in each.items()})
            yield Batch(end=end, batch_time_ms=time_ms, row_time_ms=time_ms)

    def _is_complete(self, stream: Stream, facts: Batch, rows: Mapping[str, _DeckRow] | None = None) -> bool:
        """Say whether every topic that the facts name has its deck row.

        :raises StoreDataError: a deck row holds other offsets than its facts.
        """
        for topic in facts.end.topics:
            key = self._key(topic, stream, facts)
            if rows and topic in rows:
                end = rows[topic].end
            else:
                end = layout.position_of(self._deck, topic, key, self._client.row(self._deck, key))
            if not end:
                return False
            if end.of_topic(topic) != facts.end.of_topic(topic):
                raise layout.bad_cell(
                    self._deck, key, b"offsets", end.to_json().encode(), f"the offsets of {self._facts!r}: {facts.end}"
                )
        return True

    def _deck_rows(
        self, topic: str, group_id: str, since_ms: int, until_ms: int, *, backwards: bool
    ) -> Iterator[_DeckRow]:
        for page in self._pages(self._deck, topic, group_id, since_ms, until_ms, backwards=backwards):
            facts = self._client.rows(self._facts, [key for key, _, _ in page])
            for key, time_ms, cells in page:
                end = layout.position_of(self._deck, topic, key, cells)
                yield _DeckRow(topic, time_ms, end, self._facts_of(key, time_ms, facts.get(key, {})))

    def _facts_since(self, topic: str, group_id: str, since_ms: int) -> Iterator[Batch]:
        """Give the facts of a topic in the order of row times, complete or not."""
        pages = self._pages(self._facts, topic, group_id, since_ms, rules.LAST_ROW_TIME_MS, backwards=False)
        for page in pages:
            for key, time_ms, cells in page:
                facts = self._facts_of(key, time_ms, cells)
                if facts is not None:
                    yield facts

    def _facts_of(self, key: bytes, time_ms: int, cells: layout.Cells) -> Batch | None:
        cell = cells.get(_FACTS)
        if cell is None:
            return None
        try:
            return codec.loads(Batch, cell.decode()).at_row(time_ms)
        except ValueError as error:
            raise layout.bad_cell(self._facts, key, _FACTS, cell, f"a batch as JSON ({error})") from error

    def _keys(self, table: str, topic: str, group_id: str, since_ms: int, until_ms: int) -> Iterator[int]:
        """Give the times of rows backwards, without their cells."""
        for page in self._pages(table, topic, group_id, since_ms, until_ms, backwards=True, keys_only=True):
            for _, time_ms, _ in page:
                yield time_ms

    def _pages(
        self,
        table: str,
        topic: str,
        group_id: str,
        since_ms: int,
        until_ms: int,
        *,
        backwards: bool,
        keys_only: bool = False,
    ) -> Iterator[list[tuple[bytes, int, layout.Cells]]]:
        """Give the rows of one topic and group in pages that grow, each by a scan of its own.

        A neighbour's row ends a page: the next scan begins behind all rows of that neighbour.
        """
        prefix = layout.prefix(topic, group_id)
        size = FIRST_PAGE
        since_ms, until_ms = max(0, since_ms), min(until_ms, rules.LAST_ROW_TIME_MS)
        while since_ms <= until_ms:
            first, last = layout.key(prefix, since_ms), layout.key(prefix, until_ms)
            # The far end of a scan is not in it. Backwards is always as far as there are rows.
            ends = (last, prefix) if backwards else (first, last + b"\0")
            found = self._client.page(table, *ends, size, backwards=backwards, keys_only=keys_only)
            page, neighbour = _own_rows(prefix, found)
            if page:
                yield page
            if neighbour is None and len(found) < size:
                return
            if neighbour is not None:
                before = layout.time_before(prefix, neighbour)
                since_ms, until_ms = (since_ms, before) if backwards else (before + 1, until_ms)
            else:
                reached = page[-1][1]
                since_ms, until_ms = (since_ms, reached - 1) if backwards else (reached + 1, until_ms)
                size = next_page(size, len(page[-1][2]))

    def _text(self, key: bytes, cells: layout.Cells) -> str | None:
        value = cells.get(_VALUE)
        if value is None or value == _EMPTY:
            return None if value is None else ""
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise layout.bad_cell(self._control, key, _VALUE, value, "UTF-8 text") from error


def _own_rows(
    prefix: bytes, found: list[tuple[bytes, dict[bytes, bytes]]]
) -> tuple[list[tuple[bytes, int, layout.Cells]], bytes | None]:
    """Give the rows up to the first one of a neighbour, and that one's key if there is one."""
    page: list[tuple[bytes, int, layout.Cells]] = []
    for key, cells in found:
        time_ms = layout.time_of(prefix, key)
        if time_ms is None:
            return page, key
        page.append((key, time_ms, cells))
    return page, None


def _together(
    per_topic: dict[str, Iterator[_DeckRow]], choose: Callable[[Iterable[int]], int]
) -> Iterator[tuple[int, dict[str, _DeckRow]]]:
    """Give the rows of all topics, those of one time together. Reads no row before it is needed."""
    heads: dict[str, _DeckRow] = {}
    while True:
        for topic, rows in per_topic.items():
            if topic not in heads and (row := next(rows, None)) is not None:
                heads[topic] = row
        if not heads:
            return
        time_ms = choose(row.time_ms for row in heads.values())
        yield time_ms, {topic: heads.pop(topic) for topic, row in list(heads.items()) if row.time_ms == time_ms}


def _control_key(pipeline: str, name: str) -> bytes:
    return f"{rules.check_pipeline(pipeline)}:{rules.check_name(name)}".encode()


def _control_value(text: str) -> bytes:
    return text.encode() if text else _EMPTY


def _check_table(table: str) -> str:
    if _TABLE.fullmatch(table):
        return table
    raise InputRefused(
        seen=f"HBase table {table!r}",
        expected="letters, digits, '_', '.' and '-', with 'namespace:' before them if you like",
        do="correct the table's name",
    )
