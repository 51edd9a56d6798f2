"""Mark the tests of this folder, which ``make laws`` runs."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test of the simulation."""
    item.add_marker("simulation")
