"""The pinned versions can be installed on every Python 3.11, also on Debian 12's 3.11.2, which the containers have."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
OLDEST_PYTHON = "3.11.0"


def test_every_pin_allows_the_oldest_python() -> None:
    pins = [Requirement(line) for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    refused, read = {}, 0
    for pin in pins:
        try:
            distribution = importlib.metadata.distribution(pin.name)
        except importlib.metadata.PackageNotFoundError:  # a pin of another platform
            continue
        read += 1
        wanted = distribution.metadata.json.get("requires_python", "")
        if not SpecifierSet(str(wanted)).contains(OLDEST_PYTHON):
            refused[pin.name] = f"{distribution.version} wants Python {wanted}"
    assert not refused
    assert read > len(pins) / 2
