"""The shadow table of ``jobs/``: invisible before the swap, complete after it, whatever is repeated."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

RANGE = ("flights", 0, 10, 20)


def row(offset: int, verdict: str = "late", partition: int = 0) -> tuple:
    return ("flights", partition, offset, "AA1", 30.0, verdict)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "jobs"))
    import shadow_table

    return shadow_table


@pytest.fixture
def output(table: ModuleType, tmp_path: Path) -> Path:
    path = tmp_path / "output.db"
    table.create(path)
    table.write_live(path, [row(offset) for offset in range(5, 25)])
    return path


def alerts(output: Path) -> dict[int, str]:
    with closing(sqlite3.connect(output)) as database:
        return dict(database.execute("SELECT offset, verdict FROM alerts").fetchall())


def left(output: Path) -> int:
    with closing(sqlite3.connect(output)) as database:
        query = "SELECT (SELECT count(*) FROM alerts_replayed) + (SELECT count(*) FROM replays)"
        return database.execute(query).fetchone()[0]


def test_a_replay_is_unseen_before_its_swap_and_whole_after_it(table: ModuleType, output: Path) -> None:
    before = alerts(output)
    table.write_replay(output, "run-1", [RANGE], [row(11, "very late"), row(12, "late")])
    assert alerts(output) == before

    assert table.swap(output, "run-1") == 2

    outside = {offset: "late" for offset in before if not 10 <= offset < 20}
    assert alerts(output) == outside | {11: "very late", 12: "late"}, "rows that are no longer made are gone"
    assert left(output) == 0


def test_a_swap_that_is_repeated_changes_nothing(table: ModuleType, output: Path) -> None:
    table.write_replay(output, "run-1", [RANGE], [row(11)])
    table.swap(output, "run-1")
    after = alerts(output)
    table.write_live(output, [row(13)])

    assert table.swap(output, "run-1") == 0
    assert alerts(output) == after | {13: "late"}


def test_a_shard_that_is_tried_again_takes_the_place_of_its_first_try(table: ModuleType, output: Path) -> None:
    table.write_replay(output, "run-1", [RANGE], [row(11), row(12)])
    table.write_replay(output, "run-1", [RANGE], [row(11), row(12)])

    assert table.swap(output, "run-1") == 2


def test_runs_are_kept_apart(table: ModuleType, output: Path) -> None:
    table.write_replay(output, "run-1", [RANGE], [row(11, "wrong")])
    table.write_replay(output, "run-2", [RANGE], [row(11, "right")])
    table.swap(output, "run-2")

    assert alerts(output)[11] == "right"
    assert left(output) == 2, "the run that was not swapped is still there"


def test_a_range_without_rows_is_emptied(table: ModuleType, output: Path) -> None:
    table.write_replay(output, "run-1", [RANGE], [])
    table.swap(output, "run-1")

    assert not [offset for offset in alerts(output) if 10 <= offset < 20]


def test_a_swap_that_fails_leaves_everything(table: ModuleType, output: Path) -> None:
    table.write_replay(output, "run-1", [RANGE], [row(11, "very late")])
    table.write_replay(output, "run-1", [("flights", 1, 0, 5)], [row(7, "very late", partition=0)])  # not of its range
    before = alerts(output)

    with pytest.raises(sqlite3.IntegrityError):
        table.swap(output, "run-1")
    with closing(sqlite3.connect(output)) as database:
        kept = database.execute("SELECT count(*) FROM alerts").fetchone()[0]
    assert alerts(output) == before
    assert kept == 20
