"""Every mistake of ``make mutants`` can still be planted, the planting works, and the page lists what is planted."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.mutants.by_simulation import MUTANTS, Mutant
from tests.mutants.by_unit_tests import MISTAKES, Mistake
from tests.mutants.planting import ROOT, Change, plant, with_changes

PAGE = ROOT / "docs" / "guarantees.md"


@pytest.mark.parametrize("mistake", [*MISTAKES, *MUTANTS], ids=lambda mistake: mistake.what)
def test_it_can_be_planted(mistake: Mistake | Mutant) -> None:
    """The text that it replaces is in the source exactly once, and what comes out is valid Python."""
    for file, source in with_changes(mistake.changes).items():
        compile(source, file, "exec")


@pytest.mark.parametrize("right", ["nobody wrote this", "import"], ids=["it is missing", "it occurs several times"])
def test_a_mistake_whose_text_is_not_there_once_is_an_error(right: str) -> None:
    with pytest.raises(ValueError, match="can no longer be planted"):
        with_changes([Change("core/record/transition.py", right, "")])


def test_a_planted_module_is_imported_with_its_mistake() -> None:
    """In a process of its own, because this one has imported the package."""
    program = (
        "from tests.mutants.planting import Change, plant, with_changes\n"
        "plant(with_changes([Change('clock.py', 'Clock of operations', 'Planted clock of operations')]))\n"
        "from airflow_provider_offsets import clock\n"
        "print(clock.__doc__)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert said.startswith("Planted clock of operations and drivers: ")


def test_nothing_is_planted_where_the_package_is_imported() -> None:
    with pytest.raises(RuntimeError, match="imported already"):
        plant({})


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_it_is_on_the_page_with_its_test(mistake: Mistake) -> None:
    what, test = mistake.what, mistake.caught_by.partition("[")[0]

    assert f"| {what} | `{test}` |" in PAGE.read_text()


@pytest.mark.parametrize("story", re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE.read_text()), ids="::".join)
def test_every_story_that_the_page_names_is_there(story: tuple[str, str]) -> None:
    module, test = story

    assert f"\ndef {test}(" in (ROOT / "tests" / "e2e" / module).read_text()
