"""The check of ``make demo-backfill`` computes the right result itself, and detects wrong output."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from demo import backfill
from demo.progress import Progress

WANTED = {(0, 0): "on time", (0, 1): "late", (1, 0): "cancelled"}


@pytest.mark.parametrize(
    ("delay", "verdict"),
    [(None, "cancelled"), (-30.0, "on time"), (14.0, "on time"), (15.0, "late"), (59.0, "late"), (60.0, "very late")],
)
def test_what_is_right(delay: float | None, verdict: str) -> None:
    assert backfill._verdict(delay) == verdict


def judged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    rows: dict[tuple[int, int], str] = WANTED,
    live: tuple[tuple[int, int], ...] = tuple(WANTED),
    replayed: tuple[tuple[int, int], ...] = tuple(WANTED),
    sink: str = "proven",
) -> tuple[bool, str]:
    """Return the check's findings about such an output."""
    output = tmp_path / "output.db"
    with closing(sqlite3.connect(output)) as database, database:
        database.execute("CREATE TABLE alerts (partition, offset, verdict)")
        database.execute("CREATE TABLE evidence (partition, offset, epoch)")
        database.executemany("INSERT INTO alerts VALUES (?, ?, ?)", [(*place, each) for place, each in rows.items()])
        database.executemany("INSERT INTO evidence VALUES (?, ?, 1)", live)
        database.executemany("INSERT INTO evidence VALUES (?, ?, 0)", replayed)
    monkeypatch.setattr(backfill, "OUTPUT", output)
    monkeypatch.setattr(backfill, "_expected", lambda bootstrap: WANTED)
    story = backfill.BackfillStory(Progress())
    story._bootstrap = "nowhere"
    story._dags = {"backfill": type("Dag", (), {"page": "page"})()}
    held = story._check(Counter({"late": 3}), sink)
    return held, capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ({}, "verdict: lost=0 duplicated=0 wrong=0 records=3"),
        ({"rows": {**WANTED, (0, 0): "late"}}, "verdict: lost=0 duplicated=0 wrong=1 records=3"),
        ({"rows": {**WANTED, (9, 9): "late"}}, "verdict: lost=0 duplicated=0 wrong=1 records=3"),
        ({"rows": {(0, 0): "on time", (0, 1): "late"}}, "verdict: lost=1 duplicated=0 wrong=0 records=3"),
        ({"replayed": ((0, 0), (0, 1))}, "verdict: lost=1 duplicated=0 wrong=0 records=3"),
        ({"replayed": (*WANTED, (0, 0))}, "verdict: lost=0 duplicated=1 wrong=0 records=3"),
        ({"live": (*WANTED, (0, 0))}, "verdict: lost=0 duplicated=1 wrong=0 records=3"),
        ({"sink": "refuted"}, "verdict: lost=0 duplicated=0 wrong=0 records=3"),
    ],
    ids=[
        "all is right",
        "a row of the program with the bug is left",
        "a row of no record",
        "a record without a row",
        "a record that was not replayed",
        "a record that was replayed twice",
        "a record that the live job replayed",
        "a batch that the sink does not have",
    ],
)
def test_the_verdict_names_what_is_wrong(output, verdict, tmp_path, monkeypatch, capsys) -> None:
    sink = output.get("sink", "proven")
    is_right = verdict.endswith("lost=0 duplicated=0 wrong=0 records=3") and sink == "proven"
    assert judged(tmp_path, monkeypatch, capsys, **output) == (is_right, f"{verdict} sink={sink}")
