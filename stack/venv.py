"""``.venv``: this project and its development dependencies, at the versions of ``constraints.txt``."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from stack.places import ROOT, VENV, log_of, shown
from stack.problem import Problem
from stack.process import last_lines
from stack.report import Ticker, say

PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
_INPUTS = (ROOT / "setup.cfg", ROOT / "pyproject.toml", CONSTRAINTS)
_STAMP = VENV / "installed.sha256"
_INSTALL = ["-c", str(CONSTRAINTS), "-e", f"{ROOT}[dev]"]


def ready() -> None:
    """Create or update the virtual environment; do nothing if its inputs are unchanged."""
    stamp = hashlib.sha256(b"\0".join(path.read_bytes() for path in _INPUTS)).hexdigest()
    if _STAMP.exists() and _STAMP.read_text(encoding="ascii") == stamp and PYTHON.exists():
        return
    _STAMP.unlink(missing_ok=True)
    log = log_of("venv")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with Ticker("venv", lambda: last_lines(log, 1).strip() or "preparing") as ticker:
        create(VENV, log)
        _install(log)
        _whole_pyspark(log)
        say("venv", f"ready in {ticker.seconds:.0f} s: {shown(VENV)}")
    _STAMP.write_text(stamp, encoding="ascii")


def create(folder: Path, log: Path, creator: str = sys.executable) -> None:
    """Create a virtual environment with pip in ``folder``; keep one that works.

    :param folder: the folder.
    :param log: file for the output.
    :param creator: the Python that the environment gets.
    """
    python = folder / "bin" / "python"
    if python.exists() and run([str(python), "-c", "import pip"], log):
        return
    if not run([creator, "-m", "venv", "--clear", str(folder)], log):
        raise Problem(
            f"{creator} cannot create a virtual environment",
            expected="the venv module with ensurepip",
            do="install that module (Debian: apt install python3-venv)",
            detail=last_lines(log, 4),
        )


def other(home: Path, python: str, inputs: str, install: Callable[[Path], Sequence[Sequence[str]]], what: str) -> None:
    """Create another virtual environment than ``.venv``; do nothing if it was made from the same inputs.

    :param home: its folder.
    :param python: the Python that it gets.
    :param inputs: a text that changes with what is installed.
    :param install: returns the commands that fill it, for the path of its Python.
    :param what: what it is for, for the error message.
    """
    if is_made(home, inputs):
        return
    shutil.rmtree(home, ignore_errors=True)
    log = log_of(home.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    with Ticker(home.name, lambda: last_lines(log, 1).strip() or "preparing") as ticker:
        create(home, log, python)
        if not all(run(command, log) for command in install(home / "bin" / "python")):
            raise Problem(
                f"pip could not install {what}",
                expected="a package index with these versions",
                do=f"read {shown(log)}",
                detail=last_lines(log),
            )
        say(home.name, f"ready in {ticker.seconds:.0f} s: {shown(home)}")
    _stamp_of(home).write_text(_digest(inputs), encoding="ascii")


def is_made(home: Path, inputs: str) -> bool:
    """Return whether a virtual environment exists and was made from these inputs.

    :param home: its folder.
    :param inputs: as for :func:`other`.
    """
    stamp = _stamp_of(home)
    return stamp.exists() and stamp.read_text(encoding="ascii") == _digest(inputs) and (home / "bin/python").exists()


def _stamp_of(home: Path) -> Path:
    return home / "installed.sha256"


def _digest(inputs: str) -> str:
    return hashlib.sha256(inputs.encode()).hexdigest()


def _install(log: Path) -> None:
    """Install with uv, which takes a third of pip's time, or with pip if uv is unavailable or fails."""
    pip = [str(PYTHON), "-m", "pip"]
    uv = [str(VENV / "bin" / "uv"), "pip"]
    has_uv = run([*pip, "install", "-q", "-c", str(CONSTRAINTS), "uv"], log)
    # By default uv leaves compiling to the first import, and PYTHONDONTWRITEBYTECODE would discard that result.
    if has_uv and run([*uv, "install", "--compile-bytecode", "--python", str(PYTHON), *_INSTALL], log):
        return
    say("venv", "uv is missing or failed; installing with pip, which takes about two minutes")
    if not run([*pip, "install", "--progress-bar", "off", *_INSTALL], log):
        raise Problem(
            "pip could not install the project",
            expected="a package index with the versions of constraints.txt",
            do=f"read {shown(log)}",
            detail=last_lines(log),
        )


def _whole_pyspark(log: Path) -> None:
    """Reinstall pyspark if pyspark-client has overwritten it: both write the folder ``pyspark``."""
    if _is_whole(log):
        return
    again = ["install", "--force-reinstall", "--no-deps", "-c", str(CONSTRAINTS), "pyspark"]
    if not (run([str(PYTHON), "-m", "pip", *again], log) and _is_whole(log)):
        raise Problem(
            "pyspark in .venv is incomplete",
            expected="an importable pyspark with its jars",
            do=f"read {shown(log)}, then run: make clean venv",
            detail=last_lines(log, 4),
        )


def _is_whole(log: Path) -> bool:
    look = "import pathlib, pyspark.sql; assert any(pathlib.Path(pyspark.__path__[0], 'jars').glob('spark-core_*.jar'))"
    return run([str(PYTHON), "-c", look], log)


def run(argv: Sequence[str], log: Path) -> bool:
    """Run a command with its output in ``log``, and return whether it succeeded."""
    env = dict(os.environ)
    if "PIP_INDEX_URL" in env:  # uv has another name for the same setting
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    with log.open("ab") as out:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, check=False
        )
    return ended.returncode == 0
