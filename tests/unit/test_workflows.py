"""GitHub's workflows run what a contributor runs: targets of the Makefile, and together all that ``make test`` runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9.-]+):(?!=)", MAKEFILE, re.MULTILINE))


def commands_of(workflow: Path) -> Iterator[list[str]]:
    """Yield the words of each command that a workflow runs, without comments."""
    document: dict[str, Any] = yaml.safe_load(workflow.read_text())
    for job in document["jobs"].values():
        for step in job["steps"]:
            # Two commands on one line (`make check && make unit`) are two commands here, too.
            for line in re.split(r"\n|&&|\|\||;", step.get("run", "")):
                if words := shlex.split(line, comments=True):
                    yield words


def targets_of(words: list[str]) -> list[str]:
    """Return the targets of a ``make`` command; options and variables are none, and no target means ``help``."""
    if words[0] != "make":
        return []
    return [word for word in words[1:] if not word.startswith("-") and "=" not in word] or ["help"]


def test_the_workflows_and_the_targets_were_found() -> None:
    assert {"check", "unit", "integration", "e2e", "wheel", "help"} <= TARGETS
    assert len(WORKFLOWS) >= 4


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_target_that_a_workflow_runs_is_in_the_makefile(workflow: Path) -> None:
    targets = [target for words in commands_of(workflow) for target in targets_of(words)]

    assert targets, "a workflow without make repeats what the Makefile says"
    assert [target for target in targets if target not in TARGETS] == []


def test_every_suite_of_make_test_is_run_by_a_workflow() -> None:
    recipes = [
        MAKEFILE.partition(f"\n{name}:")[2].partition("\n\n")[0]
        for name in ("test", "on-spark", "on-airflow", "in-memory")
    ]
    suites = re.findall(r"\$\(MAKE\) --no-print-directory ([a-z0-9-]+)", "".join(recipes))
    run = {target for workflow in WORKFLOWS for words in commands_of(workflow) for target in targets_of(words)}

    assert {"unit", "e2e", "mutants"} <= set(suites), "the test of the test: the suites were found"
    assert [suite for suite in suites if suite not in run] == []


@pytest.mark.parametrize(
    ("command", "targets", "reason"),
    [
        ("make unit", ["unit"], "one target"),
        ("make check unit", ["check", "unit"], "several targets"),
        ('make -k up SERVERS="kafka hbase"', ["up"], "an option and a variable are no targets"),
        ("make", ["help"], "the default goal"),
        ("sudo sysctl kernel.x=0", [], "no make"),
    ],
)
def test_targets_are_distinguished_from_options_and_variables(command: str, targets: list[str], reason: str) -> None:
    assert targets_of(shlex.split(command)) == targets, reason
