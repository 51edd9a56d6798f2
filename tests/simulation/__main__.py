"""``python -m tests.simulation --seeds 1000 --from 0``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from tests.simulation.history import Outcome, run_history

MODES = ("process", "sink")


def main() -> int:
    """Run histories; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--kinds", default=",".join(MODES))
    parser.add_argument("--keep-going", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began, steps = time.monotonic(), 0
    faults: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    first: dict[str, list[int]] = {}
    for seed in range(options.first, options.first + options.seeds):
        outcome = run_history(seed, options.kinds.split(","))
        steps += outcome.steps
        faults.update(outcome.faults)
        if outcome.failure:
            failures[outcome.failure] += 1
            first.setdefault(outcome.failure, []).append(seed)
            if options.seeds == 1:
                show(outcome)
            elif len(first[outcome.failure]) <= 3:
                print(f"seed {seed} ({outcome.mode}): {outcome.failure}: {outcome.detail[:300]}")
    took = time.monotonic() - began
    print({name: seeds[:10] for name, seeds in first.items()})
    print(f"{options.seeds} histories, {steps} steps, faults {dict(faults)}, {dict(failures)}, {took:.1f} s")
    return bool(failures)


def show(outcome: Outcome) -> None:
    """Print a failing history."""
    for line in outcome.trace:
        print(line)
    for note in outcome.notes:
        print("note:", note[:400])
    print(outcome.failure, outcome.detail)


if __name__ == "__main__":
    sys.exit(main())
