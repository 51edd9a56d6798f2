"""The matrix of supported versions: which versions run together, and the commands that test them.

``make versions-test`` runs the cells and writes ``results.json``. ``make reference`` writes the tables of
``docs/versions.md`` from both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stack.airflows import AIRFLOWS, Installation
from stack.places import ROOT
from stack.sparks import SPARKS

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Cell:
    """Versions that are tested together.

    :ivar kind: the table in the docs. :ivar versions: the version of each part, by the heading of its column.
    :ivar commands: argument vectors, run one after the other from the checkout's root until one fails. The first ones
        install what the last one tests.
    """

    kind: str
    versions: dict[str, str]
    commands: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        """Kind and versions, in one line."""
        return " · ".join([self.kind, *(f"{part} {version}" for part, version in self.versions.items())])


@dataclass(frozen=True)
class Result:
    """What became of a cell, the last time that it was run.

    :ivar cell: name of the cell. :ivar command: what was run. :ivar result: ``passed``, or how it failed.
    :ivar date: day of the run, in ISO 8601. :ivar commit: commit of the checkout; ``+`` if files were changed.
    """

    cell: str
    command: str
    result: str
    date: str
    commit: str


NEWEST = ("4.2", "3.11")
"""The Spark of .venv, on the Python of .venv, which is 3.11 where the results come from. ``make e2e`` tests it too."""
STORIES = (NEWEST, ("4.3", "3.11"), ("4.1", "3.11"), ("4.0", "3.9"), ("3.5", "3.9"))
"""Spark and the driver's Python of each long test."""
STARTS = (("4.2", "3.13"), ("4.0", "3.10"), ("3.5", "3.10"))
"""The same of each short test, which starts the archive on another Python."""
CHECKPOINTS = (NEWEST, ("4.1", "3.11"), ("4.0", "3.9"), ("3.5", "3.9"))
"""The same of each test that starts Spark on odd checkpoints."""
WAYS = ("process", "sink")
PYTEST = (".venv/bin/python", "-m", "pytest", "-p", "no:randomly", "-q")
SPARK_TEST = "tests/versions/test_spark.py"
CHECKPOINT_TEST = "tests/e2e/test_checkpoint_verdicts.py"


def _on_spark(spark: str, python: str, tested: str, test: str) -> Cell:
    each = SPARKS[spark]
    versions = {"Spark": each.version, "connector": f"{each.scala}:{each.connector}", "driver's Python": python}
    is_newest = (spark, python) == NEWEST
    install = ("jars", "spark") if is_newest else ("spark", spark, "--python", python)
    return Cell(
        "Spark",
        {**versions, "tested": tested},
        (("python3", "-m", "stack", *install), (*PYTEST, test)),
    )


AIRFLOWS_TESTED = (
    Installation("3.3", "3.11"),
    Installation("3.2", "3.11"),
    Installation("3.1", "3.11"),
    Installation("3.1", "3.11", is_lowest=True),
    Installation("3.3", "3.12"),
    Installation("3.3", "3.13"),
)
"""``make test`` tests 3.3 on 3.11 too, at the versions of constraints.txt."""
ON_AIRFLOW = ("tests/unit", "tests/versions/test_airflow.py", "-n", "2", "--ignore=tests/unit/test_docs.py")
"""What runs on each of them. Documents and constraints.txt concern the development environment."""


def _on_airflow(installation: Installation) -> Cell:
    run = (str(installation.home.relative_to(ROOT) / "bin" / "python"), *PYTEST[1:])
    airflow, python = installation.airflow, installation.python
    lowest = ("--lowest",) if installation.is_lowest else ()
    return Cell(
        "Airflow",
        {
            "Airflow": AIRFLOWS[airflow],
            "Python": python,
            "dependencies": "lowest" if installation.is_lowest else "newest",
        },
        (
            ("python3", "-m", "stack", "airflow", airflow, "--python", python, *lowest),
            (*run, *ON_AIRFLOW, "--ignore=tests/unit/test_constraints.py"),
        ),
    )


CELLS = (
    *(_on_airflow(each) for each in AIRFLOWS_TESTED),
    *(
        _on_spark(spark, python, f"{way}=", f"{SPARK_TEST}::test_story[{way}-{spark}-{python}]")
        for spark, python in STORIES
        for way in WAYS
    ),
    *(_on_spark(spark, python, "start", f"{SPARK_TEST}::test_start[{spark}-{python}]") for spark, python in STARTS),
    *(
        _on_spark(spark, python, "checkpoints", f"{CHECKPOINT_TEST}::test_spark_does_what_is_said[{spark}-{python}]")
        for spark, python in CHECKPOINTS
    ),
    _on_spark("3.5", "3.8", "refusal", f"{SPARK_TEST}::test_an_older_python_is_refused"),
)


def read_results() -> dict[str, Result]:
    """Return the newest result of each cell that was run, by the cell's name."""
    found = [Result(**each) for each in json.loads(RESULTS.read_text())] if RESULTS.exists() else []
    return {each.cell: each for each in found}


def write_result(result: Result) -> None:
    """Replace the result of one cell. The file has the order of the matrix, and no cell that the matrix lacks."""
    known = {**read_results(), result.cell: result}
    rows = [vars(known[cell.name]) for cell in CELLS if cell.name in known]
    RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
