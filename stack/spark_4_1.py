"""An installation of Spark 4.1.1, which has the bug SPARK-55271, for ``tests/versions``.

It is a virtual environment with pyspark and the client of the SQLite store. The provider is not installed in it: a job
gets the provider's runtime with ``--py-files``, as on a cluster.
"""

import hashlib
import shutil
from pathlib import Path

from stack import venv
from stack.places import STATE, log_of, shown
from stack.problem import Problem
from stack.process import last_lines
from stack.report import Ticker, say

NAME = "spark-4.1"
VERSION = "4.1.1"
HOME = STATE / NAME
BIN = HOME / "bin"
"""Directory of ``spark-submit``, and of the Python that runs the driver."""
_STAMP = HOME / "installed.sha256"


def install() -> None:
    """Create the virtual environment; do nothing if its inputs are unchanged."""
    if is_current():
        return
    shutil.rmtree(HOME, ignore_errors=True)
    log = log_of(NAME)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with Ticker(NAME, lambda: last_lines(log, 1).strip() or "preparing") as ticker:
        venv.create(HOME, log)
        # Two commands, because constraints.txt holds the version of pyspark that .venv has.
        _pip([f"pyspark=={VERSION}"], log)
        _pip(["-c", str(venv.CONSTRAINTS), "SQLAlchemy"], log)
        say(NAME, f"ready in {ticker.seconds:.0f} s: {shown(HOME)}")
    _STAMP.write_text(_digest(), encoding="ascii")


def is_current() -> bool:
    """Return whether the virtual environment exists and was made from the current inputs."""
    stamped = _STAMP.exists() and _STAMP.read_text(encoding="ascii") == _digest()
    return stamped and (BIN / "python").exists()


def _digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + venv.CONSTRAINTS.read_bytes()).hexdigest()


def _pip(arguments: list[str], log: Path) -> None:
    if not venv.run([str(BIN / "python"), "-m", "pip", "install", "--progress-bar", "off", *arguments], log):
        raise Problem(
            f"pip could not install {arguments[-1]}",
            expected=f"a package index with pyspark {VERSION} and SQLAlchemy",
            do=f"read {shown(log)}",
            detail=last_lines(log),
        )
