"""Odd checkpoints, and what a query does that starts on them, as the real Spark did.

The topic has two partitions with the offsets ``[0, 10)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TOPIC = "orders"
END = 10
COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'
METADATA = '{"id":"6b7ad74c-8bd2-4e0d-9a4f-8f2a4f1f8a11"}'
BATCH = '{"batchWatermarkMs":0,"batchTimestampMs":1790000000000,"conf":{"spark.sql.shuffle.partitions":"2"}}'

Outcome = list[Any]
"""The id of each batch and what it read: ``[id, [[partition, start, end], …]]``; last ``"died"`` if it ended so."""


def at(*offsets: int | None) -> str:
    """Return a position as Spark writes it; None omits a partition."""
    return json.dumps({TOPIC: {str(number): each for number, each in enumerate(offsets) if each is not None}})


def planned(*offsets: int | None) -> str:
    """Return the text of an ``offsets/N``."""
    return f"v1\n{BATCH}\n{at(*offsets)}"


def started(*offsets: int | None) -> dict[str, str]:
    """Return the files that every started query has."""
    return {"metadata": METADATA, "sources/0/0": f"\0v1\n{at(*offsets)}"}


@dataclass(frozen=True)
class OddCheckpoint:
    """One checkpoint folder, and the expected outcome of a start on it."""

    what: str
    files: dict[str, str]
    outcome: Outcome
    start: str = at(3, 4)
    """``startingOffsets``."""


def read(batch_id: int, *ranges: tuple[int, int, int]) -> Outcome:
    """Return a batch that read these ranges; an empty range is omitted."""
    return [batch_id, [list(each) for each in ranges]]


ODD_CHECKPOINTS = [
    OddCheckpoint("nothing there: startingOffsets", {}, [read(0, (0, 3, 10), (1, 4, 10))]),
    OddCheckpoint("nothing there, and startingOffsets lacks a partition", {}, ["died"], at(3)),
    OddCheckpoint("nothing there, and startingOffsets has one too many", {}, ["died"], at(3, 4, 5)),
    OddCheckpoint(
        "only where it began: startingOffsets is not asked", started(1, 2), [read(0, (0, 1, 10), (1, 2, 10))], at(7, 7)
    ),
    OddCheckpoint(
        "one batch, committed",
        {**started(0, 0), "offsets/0": planned(5, 5), "commits/0": COMMIT},
        [read(1, (0, 5, 10), (1, 5, 10))],
    ),
    OddCheckpoint(
        "one batch, planned: it is run again first",
        {**started(0, 0), "offsets/0": planned(5, 6)},
        [read(0, (0, 0, 5), (1, 0, 6)), read(1, (0, 5, 10), (1, 6, 10))],
    ),
    OddCheckpoint(
        "a seed: two entries that end at one place, the second one planned",
        {**started(2, 2), "offsets/40": planned(2, 2), "commits/40": COMMIT, "offsets/41": planned(2, 2)},
        [read(41), read(42, (0, 2, 10), (1, 2, 10))],
    ),
    OddCheckpoint(
        "a seed with one entry only",
        {**started(2, 2), "offsets/41": planned(2, 2), "commits/41": COMMIT},
        ["died"],
    ),
    OddCheckpoint(
        "the newest offsets file was removed",
        {
            **started(0, 0),
            **{f"offsets/{each}": planned(each + 1, each + 1) for each in range(3)},
            **{f"commits/{each}": COMMIT for each in range(4)},
        },
        [read(2, (0, 2, 3), (1, 2, 3)), "died"],
    ),
    OddCheckpoint("commits without offsets", {**started(0, 0), "commits/0": COMMIT, "commits/1": COMMIT}, ["died"]),
    OddCheckpoint(
        "a hole in offsets",
        {**started(0, 0), "offsets/2": planned(3, 3), "offsets/4": planned(5, 5), "commits/2": COMMIT},
        ["died"],
    ),
    OddCheckpoint(
        "two batches planned: the first one is passed over",
        {
            **started(0, 0),
            **{f"offsets/{each}": planned(2 * each + 2, 2 * each + 2) for each in range(3)},
            "commits/0": COMMIT,
        },
        [read(2, (0, 4, 6), (1, 4, 6)), read(3, (0, 6, 10), (1, 6, 10))],
    ),
    OddCheckpoint(
        "a partition that appeared begins at 0",
        {**started(0, None), "offsets/0": planned(5, None), "commits/0": COMMIT},
        [read(1, (0, 5, 10), (1, 0, 10))],
    ),
    OddCheckpoint(
        "a planned batch keeps its old partitions; new ones join after it",
        {
            **started(0, None),
            "offsets/0": planned(5, None),
            "commits/0": COMMIT,
            "offsets/1": planned(8, None),
        },
        [read(1, (0, 5, 8)), read(2, (0, 8, 10), (1, 0, 10))],
    ),
    OddCheckpoint(
        "a partition that is gone",
        {**started(0, 0, 0), "offsets/0": planned(5, 5, 5), "commits/0": COMMIT},
        ["died"],
    ),
    OddCheckpoint(
        "an offset past the end",
        {**started(0, 0), "offsets/0": planned(50, 5), "commits/0": COMMIT},
        ["died"],
    ),
    OddCheckpoint(
        "offsets without metadata",
        {"sources/0/0": f"\0v1\n{at(0, 0)}", "offsets/0": planned(5, 5), "commits/0": COMMIT},
        ["died"],
    ),
]
