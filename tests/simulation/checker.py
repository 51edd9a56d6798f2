"""Decides what became of each record, from the sink and from the stored history and record as plain JSON.

The checker shares no code with the product, and reads the stores by their documented format. So a mistake in the
product's counting cannot hide itself here.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, int]
Span = tuple[Key, int, int]
"""A partition, and the offsets ``[start, end)``."""


@dataclass
class Expected:
    """What the product has stored, as plain data."""

    start: dict[Key, int]
    """The start of the first epoch."""
    end: dict[Key, int]
    """The position of the pipeline."""
    reads: list[Span]
    """What its recorded batches read, in order."""
    announced_replays: list[Span] = field(default_factory=list)
    announced_gaps: list[Span] = field(default_factory=list)
    """Skipped or lost ranges that a plan announced."""
    cut_off: list[Span] = field(default_factory=list)
    """Batches that began and were not recorded."""
    read_before: dict[Key, int] = field(default_factory=dict)
    """The position of the job before the first epoch."""
    counts_batches: bool = True
    """Whether a history names each batch of each epoch. Without it only the audit knows what may have been written
    again."""


@dataclass
class Verdict:
    """What became of the records."""

    lost: list[tuple[Key, int]] = field(default_factory=list)
    duplicated: list[tuple[Key, int, int]] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    reordered: list[tuple[Key, int]] = field(default_factory=list)
    false_alarms: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.unexplained or self.reordered or self.false_alarms)

    def __str__(self) -> str:
        parts = [f"{name}={value[:4]}{'…' if len(value) > 4 else ''}" for name, value in vars(self).items() if value]
        return "; ".join(parts) or "clean"


def read_expected(
    rows: Sequence[Mapping[str, Any]], cells: Mapping[str, str], facts: Mapping[int, Mapping[str, Any]]
) -> Expected | None:
    """Return what is stored of a tracked pipeline (its record, epochs and rows), or None before a start.

    :param facts: the batches that are kept under their row times.
    """
    epochs = _epochs(cells, facts)
    record = json.loads(cells.get("pipeline", "null"))
    if not epochs or record["recorded"] is None:
        return None
    recorded = record["recorded"]
    claims = {each["claim"]["number"]: each["claim"] for each in epochs}
    end = _position(claims[recorded["epoch"]]["start"])
    if recorded["row_time_ms"] is not None:
        end |= _position(facts[recorded["row_time_ms"]]["end"])
    expected = Expected(_position(epochs[0]["claim"]["start"]), end, [span for row in rows for span in _spans(row)])
    expected.read_before = _position(epochs[0]["claim"]["stood"] or {})
    expected.counts_batches = all(epoch["claim"]["tracked"] for epoch in epochs)
    for epoch in epochs:
        for each in epoch["claim"]["announced"]:
            key, at = (each["topic"], each["partition"]), each["start"]
            expected.announced_replays.append((key, at, at + each["replay"]))
            expected.announced_gaps.append((key, at - each["skipped"] - each["lost"], at))
        for cut in [*epoch["cuts"], *filter(None, [epoch["claim"]["in_flight"]])]:
            for each in cut["ranges"]:
                expected.cut_off += [((each["topic"], each["partition"]), each["start"], each["end"])] * cut["count"]
    return expected


def _epochs(cells: Mapping[str, str], facts: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the epochs that a driver claimed, oldest first: those that are kept, and the newest one."""
    kept = [json.loads(text) for name, text in sorted(cells.items()) if name.startswith("epoch/")]
    record = json.loads(cells.get("pipeline", "null"))
    if record is not None and record["launch"] is not None:
        kept = [each for each in kept if each["claim"]["number"] < record["epoch"]]
        claim = json.loads(cells[f"launch/{record['epoch']:08d}/{record['launch']['tag']}"])
        cuts = [{"count": each["count"], "ranges": _ranges(facts.get(each["row_time_ms"]))} for each in record["cuts"]]
        kept.append({"claim": claim, "holder": record["holder"], "cuts": cuts})
    return [each for each in kept if each["holder"] is not None]


def _ranges(batch: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {"topic": key[0], "partition": key[1], "start": low, "end": high}
        for key, low, high in _spans(batch or {"end": {}})
    ]


def read_untracked(cells: Mapping[str, str], end: Mapping[Key, int]) -> Expected | None:
    """Return what is stored of a job that keeps its own offsets, or None if it was never started.

    :param end: the position in its own store. After a move without a start, the job's position is still the former one.
    """
    epochs = _epochs(cells, {})
    if not epochs:
        return None
    intent = json.loads(cells["pipeline"])["intent"]
    move = {} if intent is None else json.loads(cells.get(f"move/{intent['plan']}", "{}"))
    if move.get("stood") is not None:
        end = _position(move["stood"])
    expected = Expected(_position(epochs[0]["claim"]["start"]), dict(end), [], counts_batches=False)
    for epoch in epochs:
        for each in epoch["claim"]["announced"]:
            key, at = (each["topic"], each["partition"]), each["start"]
            expected.announced_gaps.append((key, at - each["skipped"] - each["lost"], at))
    return expected


def _spans(row: Mapping[str, Any]) -> list[Span]:
    start, end = _position(row.get("start") or {}), _position(row["end"])
    return [(key, start.get(key, 0), offset) for key, offset in end.items()]


def _position(plain: Mapping[str, Mapping[str, int]]) -> dict[Key, int]:
    return {(topic, int(number)): offset for topic, numbers in plain.items() for number, offset in numbers.items()}


def judge(written: Sequence[tuple[Key, int]], expected: Expected, audit: Mapping[str, Any] | None) -> Verdict:
    """Return what became of the records.

    :param written: partition and offset of each record that reached the sink, in order, as often as it did. A record
        that a truncation of the log removed, and whose offset another record has now, is not among them.
    :param audit: the product's own audit as plain JSON.
    """
    verdict, counts = Verdict(), Counter(written)
    first_seen = {key: expected.start.get(key, 0) for key in expected.end}
    gaps, replays, cuts = map(_covering, (expected.announced_gaps, expected.announced_replays, expected.cut_off))
    for key, end in expected.end.items():
        for offset in range(first_seen[key], end):
            if not counts[key, offset] and not gaps(key, offset):
                verdict.lost.append((key, offset))
    for (key, offset), count in sorted(counts.items()):
        allowed = 1 + replays(key, offset) + cuts(key, offset)
        if count > allowed and expected.counts_batches:
            verdict.duplicated.append((key, offset, count - allowed))
    _order(written, gaps, verdict)
    if audit is not None:
        _hold_against(audit, counts, expected, verdict)
    return verdict


def _order(written: Sequence[tuple[Key, int]], gaps: Any, verdict: Verdict) -> None:
    """Check that first readings of a partition come in order, except for skipped records that are read later."""
    furthest: dict[Key, int] = defaultdict(lambda: -1)
    seen: set[tuple[Key, int]] = set()
    for key, offset in written:
        if (key, offset) in seen:
            continue
        seen.add((key, offset))
        if offset < furthest[key] and not gaps(key, offset):
            verdict.reordered.append((key, offset))
        furthest[key] = max(furthest[key], offset)


def _hold_against(
    audit: Mapping[str, Any], counts: Counter[tuple[Key, int]], expected: Expected, verdict: Verdict
) -> None:
    """Compare the product's audit with what happened."""
    truly_lost = len(verdict.lost)
    accepted = sum(max(0, high - low) for _, low, high in expected.announced_gaps)
    if audit["lost"] > truly_lost + accepted:
        verdict.false_alarms.append(f"audit says lost={audit['lost']}, lost are {truly_lost}")
    named = [
        ((each["range"]["topic"], each["range"]["partition"]), each["range"]["start"], each["range"]["end"])
        for each in audit["discontinuities"]
        if each["kind"] in ("replay", "cut off")
    ]
    covered = _covering(named)
    silent = [
        (key, offset, count - 1 - covered(key, offset))
        for (key, offset), count in sorted(counts.items())
        if count - 1 > covered(key, offset)
    ]
    if silent:
        verdict.unexplained.append(f"written again and not in the audit: {silent[:4]}, {len(silent)} in all")
    if audit["unexplained_count"] and not (truly_lost or verdict.duplicated):
        verdict.false_alarms.append(f"audit says unexplained={audit['unexplained_count']} and nothing is wrong")
    truly_again = _read_again(expected)
    if expected.counts_batches and audit["replayed"] != truly_again:
        verdict.false_alarms.append(f"audit says replayed={audit['replayed']}, its rows read {truly_again} again")


def _read_again(expected: Expected) -> int:
    """Return how many offsets the recorded batches read that an earlier one had read."""
    seen = {(key, offset) for key, end in expected.read_before.items() for offset in range(end)}
    again = 0
    for key, low, high in expected.reads:
        for offset in range(low, high):
            again += (key, offset) in seen
            seen.add((key, offset))
    return again


def _covering(spans: Sequence[Span]) -> Any:
    """Return a function that counts the spans that cover an offset."""
    by_key: dict[Key, list[tuple[int, int]]] = defaultdict(list)
    for key, low, high in spans:
        if low < high:
            by_key[key].append((low, high))

    def covering(key: Key, offset: int) -> int:
        return sum(low <= offset < high for low, high in by_key.get(key, ()))

    return covering
