"""Every mistake of ``mutants.py`` can still be planted, and the planted source is valid Python."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, planted


@pytest.mark.parametrize("mutant", [pytest.param(each, id=each.what) for each in MUTANTS])
def test_it_can_be_planted(mutant: Mutant) -> None:
    for file, source in planted(mutant).items():
        compile(source, file, "exec")
