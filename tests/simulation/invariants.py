"""What holds after each effect that writes to a store, to a checkpoint or to a sink.

The checks read what is stored as plain JSON and plain rows, so a mistake of the product's own reading cannot hide here.
Each finding ends the history at the effect that broke the invariant:

| finding | invariant |
|---|---|
| ``two writers`` | one unfenced writer: only who holds the newest launch begins and records; writers do not alternate |
| ``two operations`` | only the operation that holds the lease asks to stop, moves and launches |
| ``stored before processed`` | stored <= processed: what a store says is done was written to the sink before |
| ``history changed`` | rows, claims, epochs, snapshots and the record's own past are only added to |
| ``batch id begins again`` | a recorded batch does not begin again, and no batch has two rows |
| ``stop broken`` | after a stop was requested no batch begins, and after it was answered nothing is written |
| ``late act`` | once another operation has launched, or its stop was answered, no earlier one stops or launches |
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.simulation.platform import FileSystem, Sink
from tests.simulation.scheduler import Simulation

Cells = Mapping[tuple[str, str], str]
"""Texts of the control store, by pipeline and name."""
WRITTEN_ONCE = ("launch/", "move/", "epoch/", "replay-plan/")
"""Cells of the control store that never change once they exist."""
REMOVED = '"removed"'
"""Values to which a snapshot's cell may change."""
OVER = ("stopped", "ended")
"""Phases from which a launch does not return to ``running``."""
STORE_WRITES = ("swap", "check_and_put", "append", "write", "zk put", "zk write")
Place = tuple[str, int]
Span = tuple[str, int, int, int]
"""Topic, partition, and the offsets ``[start, end)``."""


class Row(NamedTuple):
    """A row of the history, or the facts of a batch."""

    group: str
    row_time_ms: int
    batch: tuple[str, int] | None
    """Query and batch id; None for a row that names no batch."""
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Contents:
    """The content of a store at this moment. Rows are compared by equality and parsed only when they are new."""

    cells: Cells
    rows: Mapping[str, Sequence[Any]]
    """By group, in the order of their times."""
    row: Callable[[str, Any], Row]
    """Parses a row of a group."""


def contents_of(store: Any) -> Callable[[], Contents]:
    """Return a reader of a store that bypasses the store's own code: a store in memory, or a file of SQLite."""
    if store.kind == "memory":
        return lambda: Contents(store._control, store._histories, _row_of_batch)
    return _SqlFile(store._file).read


def _row_of_batch(group: str, batch: Any) -> Row:
    return Row(group, batch.row_time_ms, _batch(batch.query_id, batch.batch_id), spans_of(batch))


def spans_of(batch: Any) -> tuple[Span, ...]:
    """Return what a batch of the product read."""
    return tuple((each.topic, each.partition, each.start, each.end) for each in batch.ranges)


class _SqlFile:
    """Reader of the tables of a SQLite file. It reads again only if something was committed since the last time."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
        self._version, self._seen = -1, Contents({}, {}, _row_of_table)

    def read(self) -> Contents:
        """Return what the file holds."""
        version = self._connection.execute("pragma data_version").fetchone()[0]
        if version != self._version:
            control = self._connection.execute("select pipeline, name, value from offsets_control")
            rows: dict[str, list[Any]] = {}
            for row in self._connection.execute("select * from offsets_batches order by group_id, row_time_ms, topics"):
                rows.setdefault(row[0], []).append(row)
            cells = {(pipeline, name): value for pipeline, name, value in control}
            self._version, self._seen = version, Contents(cells, rows, _row_of_table)
        return self._seen


def _row_of_table(group: str, row: Sequence[Any]) -> Row:
    _, row_time_ms, _, query_id, batch_id, _, _, start, end = row
    starts, ends = json.loads(start or "null"), json.loads(end)
    return Row(group, row_time_ms, _batch(query_id, batch_id), () if starts is None else _spans(starts, ends))


@functools.lru_cache(maxsize=8)
def _record(text: str) -> Mapping[str, Any]:
    """Return a pipeline's record. Two swaps need each text: the one that wrote it, and the next one."""
    found: Mapping[str, Any] = json.loads(text)
    return found


def _batch(query_id: str | None, batch_id: int | None) -> tuple[str, int] | None:
    return None if query_id is None or batch_id is None else (query_id, batch_id)


def _spans(starts: Mapping[str, Mapping[str, int]], ends: Mapping[str, Mapping[str, int]]) -> tuple[Span, ...]:
    return tuple(
        (topic, int(number), starts.get(topic, {}).get(number, 0), end)
        for topic, numbers in ends.items()
        for number, end in numbers.items()
    )


@dataclass
class Invariants:
    """Checks of one history. A finding ends the history.

    :ivar contents: reads the store.
    :ivar facts: returns what the batch under a row time reads, or nothing.
    :ivar position: returns what a job's own position store holds.
    :ivar answered: processes that may not write any more, and the operation whose stop was answered.
    :ivar is_excused: whether a living driver was reported dead, so that two drivers may write.
    """

    sim: Simulation
    sink: Sink
    files: FileSystem
    contents: Callable[[], Contents]
    facts: Callable[[int], Sequence[Span]] = lambda row_time_ms: ()
    position: Callable[[], Mapping[Place, int]] = dict
    leaders: Mapping[int, int] = field(default_factory=dict)
    answered: Mapping[int, str] = field(default_factory=dict)
    is_excused: Callable[[], bool] = lambda: False
    recorded: set[tuple[str, int]] = field(default_factory=set)
    """Query and batch id of every batch that the history has."""
    _cells: dict[tuple[str, str], str] = field(default_factory=dict)
    _rows: dict[str, list[Any]] = field(default_factory=dict)
    _position: dict[Place, int] = field(default_factory=dict)
    _acted: list[str] = field(default_factory=list)
    """The operations that have asked to stop, moved or launched, in the order in which they did so first."""
    _superseded: dict[str, str] = field(default_factory=dict)
    """Operations that must not act on the job any more, and why."""
    _writers: dict[str, list[int]] = field(default_factory=dict)
    """For each sink or checkpoint: the processes that wrote, each once, the newest last."""

    def after_effect(self, kind: str, detail: str) -> None:
        """Check what an effect may have broken.

        :raises Violated: an invariant does not hold.
        """
        if kind == "store":
            if detail.startswith(STORE_WRITES):
                self.check_store()
                self._check_position(detail)
        elif kind == "sink":
            self._check_sink()
        elif kind == "checkpoint" and detail.startswith(("create offsets/", "create commits/")):
            self._check_checkpoint(detail)

    def check_store(self) -> None:
        """Compare what the store holds with what it held after the last write."""
        now = self.contents()
        for group in now.rows.keys() | self._rows.keys():
            rows, before = now.rows.get(group, []), self._rows.get(group, [])
            if rows != before:
                self._check_rows(group, before, rows, now.row)
                self._rows[group] = list(rows)
        if now.cells != self._cells:
            changed = [key for key, text in now.cells.items() if self._cells.get(key) != text]
            gone = self._cells.keys() - now.cells.keys()
            if gone:
                self._violate("history changed", f"cell {min(gone)} is gone")
            for key in changed:
                self._check_cell(key[1], self._cells.get(key), now.cells[key])
                self._cells[key] = now.cells[key]

    def forget(self) -> None:
        """Forget what the store contained, because it was lost."""
        self._cells.clear()
        self._rows.clear()

    def _check_rows(
        self, group: str, before: Sequence[Any], rows: Sequence[Any], row: Callable[[str, Any], Row]
    ) -> None:
        """Check that each previous row is unchanged, and that each new one is of a batch that was processed, once."""
        left, new = iter(before), []
        expected = next(left, None)
        for each in rows:
            if expected is not None and each == expected:
                expected = next(left, None)
            else:
                new.append(row(group, each))
        if expected is not None:
            self._violate("history changed", f"{row(group, expected)} is gone or is another one")
        for each in new:
            self._check_processed(each.spans, f"row {each.row_time_ms} of batch {each.batch}")
            if each.batch in self.recorded:
                self._violate("batch id begins again", f"batch {each.batch} has a second row, {each.row_time_ms}")
            if each.batch is not None:
                self.recorded.add(each.batch)

    def _check_cell(self, name: str, before: str | None, now: str) -> None:
        if name == "pipeline":
            if before is not None:
                self._check_record(_record(before), _record(now))
        elif before is None:
            return
        elif name.startswith(WRITTEN_ONCE) or (name.startswith("snapshot/") and now != REMOVED):
            self._violate("history changed", f"cell {name!r} was {before[:200]} and is {now[:200]}")
        elif name.startswith("attempt/") and json.loads(now)["number"] < json.loads(before)["number"]:
            self._violate("history changed", f"cell {name!r} was {before} and is {now}")

    def _check_record(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check one swap of a pipeline's record."""
        if before["renamed_to"]:
            return  # the pipeline got a former name back, and the record continues under it
        if now["incarnation"] != before["incarnation"] or now["version"] != before["version"] + 1:
            self._changed("version", before, now)
        for name in ("generation", "epoch", "last_row_time_ms", "good"):
            if now[name] < before[name]:
                self._changed(name, before, now)
        self._check_lease(before, now)
        self._check_superseded(before, now)
        self._check_recorded(before, now)
        is_new_launch = now["epoch"] != before["epoch"]
        if is_new_launch and (now["epoch"] != before["epoch"] + 1 or before["phase"] != "stopped"):
            self._violate(
                "two writers", f"epoch {now['epoch']} is launched while {before['epoch']} is {before['phase']}"
            )
        if not is_new_launch:
            self._check_same_launch(before, now)
        self._check_started(before, now)

    def _check_same_launch(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name in ("launch", "holder", "ended"):
            if before[name] is not None and now[name] != before[name]:
                self._changed(name, before, now)
        if before["stop"] is not None and now["stop"] is None:
            self._violate("stop broken", f"the stop that {before['stop']['operation']!r} asked for is gone")
        if before["phase"] in OVER and now["phase"] not in OVER:
            self._violate("stop broken", f"epoch {now['epoch']} was {before['phase']} and is {now['phase']}")
        for cut in before["cuts"]:
            batch = cut["query_id"], cut["batch_id"]
            same = [each for each in now["cuts"] if (each["query_id"], each["batch_id"]) == batch]
            if sum(each["count"] for each in same) < cut["count"]:
                self._changed("cuts", before, now)

    def _check_lease(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check that only the operation that holds the lease asks to stop, moves and launches."""
        lease = before["lease"] or {"operation": None}
        for name in ("launch", "stop", "intent"):
            noted = now[name]
            is_new = noted is not None and (before[name] or {}).get("operation") != noted["operation"]
            if is_new and noted["operation"] != lease["operation"]:
                self._violate("two operations", f"{name} is of {noted['operation']!r}, the lease of {lease}")
        actor = self.sim.current if self.sim.is_inside else None
        has_acted = any(before[name] != now[name] for name in ("phase", "stop", "ended", "recorded", "cuts"))
        if actor is None or not actor.is_task or not has_acted or lease["operation"] is None:
            return
        run = actor.name.partition(".")[0]
        if run not in lease["operation"] and not lease["operation"].startswith("recovery/"):
            self._violate("two operations", f"{actor.name} acts while {lease['operation']!r} holds the lease")

    def note_stop(self, operation: str) -> None:
        """Record that the stop of an operation was answered: no operation before it may start the job again."""
        earlier = self._acted[: self._acted.index(operation)] if operation in self._acted else []
        self._superseded |= dict.fromkeys(earlier, f"the stop of {operation!r} was answered")

    def _check_superseded(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Check that no operation acts on the job once another one has launched it, or was told that it is stopped."""
        is_launched = now["epoch"] != before["epoch"]
        asked, asked_before = (each["stop"] and each["stop"]["operation"] for each in (now, before))
        by = now["launch"]["operation"] if is_launched else asked if asked != asked_before else None
        if by in self._superseded:
            what = f"launches epoch {now['epoch']}" if is_launched else f"asks epoch {now['epoch']} to stop"
            self._violate("late act", f"{by!r} {what} after {self._superseded[by]}")
        if not is_launched and by is not None and by == (now["launch"] or {}).get("operation"):
            self._violate("late act", f"{by!r} asks its own epoch {now['epoch']} to stop")
        if is_launched:
            others = [each for each in self._acted if each != by]
            self._superseded |= dict.fromkeys(others, f"{by!r} launched epoch {now['epoch']}")
        noted = [now[name]["operation"] for name in ("stop", "intent", "launch") if now[name] is not None]
        self._acted += [each for each in noted if each not in self._acted]

    def _check_recorded(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        was, recorded = before["recorded"], now["recorded"]
        if was == recorded:
            return
        if was is not None and (recorded is None or recorded["epoch"] < was["epoch"]):
            self._changed("recorded", before, now)
        elif recorded["row_time_ms"] is not None:
            if was is not None and (was["row_time_ms"] or 0) >= recorded["row_time_ms"]:
                self._changed("recorded", before, now)
            batch = recorded["query_id"], recorded["batch_id"]
            self._check_processed(self.facts(recorded["row_time_ms"]), f"record of batch {batch}")
            self._check_writes_as_holder(now, f"records batch {batch}")

    def _check_started(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        was, started = before["started"], now["started"]
        if started is None or was == started:
            return
        self._check_writes_as_holder(now, f"begins batch {started['batch_id']}")
        goes_on = was is not None and (was["run"], was["batch_id"]) == (started["run"], started["batch_id"])
        if before["stop"] is not None and not goes_on:
            self._violate("stop broken", f"batch {started['batch_id']} begins after {before['stop']['operation']!r}")
        if started["row_time_ms"] is not None and (started["query_id"], started["batch_id"]) in self.recorded:
            self._violate("batch id begins again", f"batch {started['batch_id']} of {started['query_id']}")

    def _check_writes_as_holder(self, record: Mapping[str, Any], what: str) -> None:
        """Check that only the process that claimed the newest launch begins and records. Operations may reconcile."""
        actor = self.sim.current if self.sim.is_inside else None
        if actor is None or not actor.is_driver:
            return
        holder = record["holder"]
        if holder is None or holder["pid"] not in (actor.process, self.leaders.get(actor.process)):
            self._violate("two writers", f"{actor.name} {what}, and epoch {record['epoch']} is held by {holder}")

    def _check_sink(self) -> None:
        newest = self.sink.writes[-1] if self.sink.writes else None
        if newest is None or newest.run:
            return  # a replay, whose shards write in parallel
        self._check_writer("the sink")

    def _check_checkpoint(self, detail: str) -> None:
        _, path, _, location = detail.split(" ", 3)
        if not self.sim.current.is_driver:
            return
        self._check_writer(f"checkpoint {location}")
        log, _, number = path.partition("/")
        if log == "commits":
            for name, entries in self.files.folders.items():
                if name.endswith(f"/{location}/offsets"):
                    self._check_processed(_planned(entries, int(number)), f"commits/{number}")

    def _check_writer(self, what: str) -> None:
        """Check that the writing driver was not told to stop, and that no other one has written since it began."""
        actor = self.sim.current
        if self.is_excused():
            return
        if actor.process in self.answered:
            self._violate("stop broken", f"{actor.name} writes to {what} after {self.answered[actor.process]}")
        writers = self._writers.setdefault(what, [])
        if actor.process in writers[:-1]:
            self._violate("two writers", f"{actor.name} writes to {what} again, after process {writers[-1]}")
        if not writers or writers[-1] != actor.process:
            writers.append(actor.process)

    def _check_position(self, detail: str) -> None:
        """Check that a job's own store claims only what the job wrote to its sink. A task may move it anywhere."""
        if detail == "zk put by the job":
            now = self.position()
            spans = [(*key, self._position.get(key, end), end) for key, end in now.items()]
            self._check_processed(spans, "position of the job's own store")
        self._position = dict(self.position())

    def _check_processed(self, spans: Sequence[Span], what: str) -> None:
        for topic, partition, start, end in spans:
            for offset in range(start, end):
                if not self.sink.has(topic, partition, offset):
                    self._violate("stored before processed", f"{what}: {topic}[{partition}] {offset} is not written")

    def _changed(self, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        self._violate("history changed", f"{name!r} of the record was {before[name]} and is {now[name]}")

    def _violate(self, what: str, message: str) -> None:
        self.sim.violate(what, message)


def _planned(offsets: Mapping[str, tuple[str, int]], number: int) -> tuple[Span, ...]:
    """Return what Spark planned for a batch, or nothing if the previous entry no longer exists."""
    ends, starts = ((offsets.get(str(each)) or ("{}", 0))[0].splitlines()[-1] for each in (number, number - 1))
    if starts == "{}":
        return ()
    known = json.loads(starts)
    spans = _spans(known, json.loads(ends))
    return tuple(each for each in spans if str(each[1]) in known.get(each[0], {}))
