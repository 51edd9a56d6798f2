"""The pinned versions can be installed on every Python 3.11, also on Debian 12's 3.11.2, which the containers have."""

import configparser
import importlib.metadata
import re
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
        wanted = distribution.metadata.get("Requires-Python", "")
        if not SpecifierSet(str(wanted)).contains(OLDEST_PYTHON):
            refused[pin.name] = f"{distribution.version} wants Python {wanted}"
    assert not refused
    assert read > len(pins) / 2


def test_one_pyspark_is_installed() -> None:
    """Both distributions write the folder ``pyspark``: the one that is installed later overwrites the other."""
    root = CONSTRAINTS.parent
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    extra = [Requirement(line) for line in setup["options.extras_require"]["spark"].split("\n") if line]
    bounds = {each.name: [(one.operator, one.version) for one in each.specifier] for each in extra}
    pins = dict(re.findall(r"^(pyspark(?:-client)?)==(.+)$", CONSTRAINTS.read_text(), re.MULTILINE))

    assert set(bounds) == set(pins) == {"pyspark", "pyspark-client"}
    assert bounds["pyspark"] == bounds["pyspark-client"], "pip takes the newest of the same range"
    assert pins["pyspark"] == pins["pyspark-client"]
    assert {importlib.metadata.version(name) for name in pins} == {pins["pyspark"]}
    for page in ("README.md", "docs/tutorial.md"):
        assert re.search(
            r"^\$ pip install '[^']*\[spark\]' -c constraints\.txt", (root / page).read_text(), re.MULTILINE
        )
