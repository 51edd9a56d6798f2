"""The matrix of versions: its cells, and the results that the runs write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.versions import __main__ as runner
from tests.versions import matrix
from tests.versions.matrix import CELLS, Cell, Result, read_results, write_result


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the results, which does not exist yet."""
    monkeypatch.setattr(matrix, "RESULTS", tmp_path / "results.json")
    return tmp_path / "results.json"


def test_no_two_cells_have_one_name() -> None:
    names = [cell.name for cell in CELLS]

    assert len(set(names)) == len(names)


def test_the_columns_of_a_kind_are_the_same() -> None:
    columns = {(cell.kind, tuple(cell.versions)) for cell in CELLS}

    assert len(columns) == len({kind for kind, _ in columns})


def test_a_result_replaces_the_one_of_its_cell(results: Path) -> None:
    first, second = (Result(cell.name, "test", "passed", "2026-11-30", "abc1234") for cell in CELLS[:2])
    failed = Result(first.cell, "test", "failed", "2026-12-01", "def5678")
    for each in (second, first, failed):
        write_result(each)

    assert read_results() == {first.cell: failed, second.cell: second}
    assert [each["cell"] for each in json.loads(results.read_text())] == [first.cell, second.cell], "in their order"


def test_a_cell_that_is_gone_leaves_no_result(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in CELLS[:2]:
        write_result(Result(cell.name, "test", "passed", "2026-11-30", "abc1234"))
    monkeypatch.setattr(matrix, "CELLS", CELLS[1:])
    write_result(Result(CELLS[2].name, "test", "passed", "2026-11-30", "abc1234"))

    assert set(read_results()) == {CELLS[1].name, CELLS[2].name}


def test_the_first_command_that_fails_ends_a_cell(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    cell = Cell("Spark", {"Spark": "1"}, (("true",), ("sh", "-c", "exit 3"), ("touch", str(reached))))

    result = runner.run(cell)

    assert result.result == "failed: `sh -c 'exit 3'` ended with code 3"
    assert result.cell == "Spark · Spark 1"
    assert not reached.exists()


def test_words_choose_cells(monkeypatch: pytest.MonkeyPatch, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []

    def run(cell: Cell) -> Result:
        ran.append(cell.name)
        return Result(cell.name, "", "passed" if len(ran) == 1 else "failed", "", "")

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr("sys.argv", ["tests.versions", "SPARK", "4.1.1"])
    assert runner.main() == 1
    assert ran == [cell.name for cell in CELLS if cell.versions.get("Spark") == "4.1.1"]

    monkeypatch.setattr("sys.argv", ["tests.versions", "nothing"])
    assert runner.main() == 2
    assert CELLS[0].name in capsys.readouterr().out
