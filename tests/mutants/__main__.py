"""``python -m tests.mutants``: plant mistakes that would lose or duplicate records; each must be found.

A named unit test has to find it, or the simulation. A mistake that can no longer be planted fails as well: write it
again for the changed source.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

# Imported once, for all forks. The package and its tests are not: each fork imports them with its mistake.
import fsspec  # noqa: F401
import hypothesis.strategies  # noqa: F401
import sqlalchemy  # noqa: F401

from tests.mutants import by_simulation, by_unit_tests

Find = Callable[[], tuple[bool, str]]
"""Returns whether a mistake was found, and what is printed about it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant all mistakes; return 1 if one of them was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="only mistakes whose words have this in them")
    options = parser.parse_args(arguments)
    work: list[tuple[str, Find]] = [
        ("no mistake", by_unit_tests.find_nothing),
        *((each.what, partial(by_simulation.find, each)) for each in by_simulation.MUTANTS),
        *((each.what, partial(by_unit_tests.find, each)) for each in by_unit_tests.MISTAKES),
    ]
    chosen = [(what, find) for what, find in work if options.only in what]
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_found, *zip(*chosen, strict=True)))
    print(f"{sum(found)} of {len(chosen)} as expected in {time.monotonic() - began:.0f} s")
    return 0 if all(found) else 1


def _found(what: str, find: Find) -> bool:
    """Look for one mistake, print the outcome, and return whether it was found."""
    began = time.monotonic()
    try:
        is_found, said = find()
    except Exception as error:
        is_found, said = False, f"NOT FOUND: {error}"
    print(f"{what}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return is_found


if __name__ == "__main__":
    sys.exit(main())
