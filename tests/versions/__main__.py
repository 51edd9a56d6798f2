"""Run the matrix of versions: ``python -m tests.versions``; or some cells: ``python -m tests.versions spark 3.5``."""

from __future__ import annotations

import argparse
import datetime
import shlex
import subprocess
import sys

from stack.places import ROOT
from tests.versions.matrix import CELLS, Cell, Result, write_result


def main() -> int:
    """Run the chosen cells one after the other, and return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("words", nargs="*", help="what the name of a cell must contain; without words, all cells run")
    words = [each.lower() for each in parser.parse_args().words]
    chosen = [cell for cell in CELLS if all(word in cell.name.lower() for word in words)]
    if not chosen:
        print("No cell has all of these words in its name. The cells are:", *(each.name for each in CELLS), sep="\n")
        return 2
    failed = 0
    for cell in chosen:
        result = run(cell)
        write_result(result)
        failed += result.result != "passed"
        print(f"{cell.name}: {result.result}", flush=True)
    return 1 if failed else 0


def run(cell: Cell) -> Result:
    """Run the commands of a cell until one fails."""
    tested, result = commit(), "passed"
    for command in cell.commands:
        ended = subprocess.run(command, cwd=ROOT, check=False)
        if ended.returncode != 0:
            result = f"failed: `{shlex.join(command)}` ended with code {ended.returncode}"
            break
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return Result(cell.name, shlex.join(cell.commands[-1]), result, today, tested)


def commit() -> str:
    """Return the commit of the checkout, with a plus sign if tracked files differ from it."""
    head = git("rev-parse", "--short=7", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!tests/versions/results.json", ":!docs")
    return f"{head}{'+' if changed else ''}"


def git(*arguments: str) -> str:
    """Return what git prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
