"""``python -m tests.simulation --seeds 1000 --from 1``: run histories; a seed is always the same history.

A seed that fails is run again with fewer and fewer faults, and its shortest form is printed, effect by effect.
``--from <seed> --seeds 1`` runs one again. The seeds of ``kept_seeds.txt`` are always run. ``--edited 200`` adds
histories of edited pipelines, from the same first seed on; ``--kinds edited`` runs nothing else.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.simulation.edited import EDITED, run_edited
from tests.simulation.history import MODES, Outcome, run_history
from tests.simulation.shrinking import shrink

KEPT = Path(__file__).with_name("kept_seeds.txt")
SHOWN = 3
"""Largest number of failing seeds of one kind that are printed."""
EVERY_S = 10.0


@dataclass(frozen=True)
class KeptSeed:
    """A seed that found something once."""

    seed: int
    kinds: tuple[str, ...]
    reason: str


def kept_seeds(file: Path = KEPT) -> list[KeptSeed]:
    """Return the seeds that found something: a seed, its kinds, and the reason on each line."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
    parts = [line.split(maxsplit=2) for line in lines]
    return [KeptSeed(int(seed), tuple(kinds.split(",")), reason) for seed, kinds, reason in parts]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run histories; return 1 if one of them failed."""
    options = _options(arguments)
    kinds = tuple(options.kinds.split(","))
    work = [(options.first + number, kinds) for number in range(options.seeds)]
    work += [(options.first + number, (EDITED,)) for number in range(options.edited)]
    if options.seeds > 1 and not options.without_kept:
        drawn = {kind for _, each in work for kind in each}
        work = [(each.seed, each.kinds) for each in kept_seeds() if set(each.kinds) & drawn] + work
    tally = Tally()
    try:
        _run_all(work, options, tally)
    except KeyboardInterrupt:
        print(f"interrupted, with {len(work) - tally.histories} histories left: {tally.line()}")
        return 130
    print(tally.line())
    return 1 if tally.failures else 0


def _run_all(work: Sequence[tuple[int, tuple[str, ...]]], options: argparse.Namespace, tally: Tally) -> None:
    """Run histories, and show the first ones that fail."""
    for outcome, of_kinds in _outcomes(work, options.jobs):
        if not tally.add(outcome) or tally.failures[outcome.failure] > SHOWN:
            continue
        is_first = sum(tally.failures.values()) == 1
        print(f"seed {outcome.seed} ({outcome.mode}): {outcome.failure}: {outcome.detail[:500]}", flush=True)
        if not options.no_shrink:
            show(shrink(outcome, partial(run, outcome.seed, of_kinds)), whole=options.seeds == 1)
        if options.until_failure and is_first:
            break
        print(f"  again: python -m tests.simulation --seeds 1 --from {outcome.seed} --kinds {','.join(of_kinds)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many histories")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed")
    parser.add_argument("--kinds", default=",".join(MODES), help=f"any of %(default)s, or {EDITED}")
    parser.add_argument("--edited", type=int, default=0, help="how many histories of edited pipelines beside them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--no-shrink", action="store_true", help="tell of a failing seed without its shortest form")
    parser.add_argument("--until-failure", action="store_true", help="end with the first seed that fails")
    parser.add_argument("--without-kept", action="store_true", help="leave out the seeds that found something before")
    options = parser.parse_args(arguments)
    if EDITED in options.kinds and options.kinds != EDITED:
        parser.error(f"{EDITED} is drawn with no other kind: use --edited")
    return options


def run(seed: int, kinds: tuple[str, ...], only: frozenset[int] | None = None) -> Outcome:
    """Run the history of a seed of these kinds."""
    return run_edited(seed, only) if kinds == (EDITED,) else run_history(seed, kinds, only)


def _outcomes(work: Sequence[tuple[int, tuple[str, ...]]], jobs: int) -> Iterator[tuple[Outcome, tuple[str, ...]]]:
    if jobs == 1:
        for seed, kinds in work:
            yield run(seed, kinds), kinds
        return
    without_interrupt = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # only the main process answers Ctrl-C
    with multiprocessing.get_context("fork").Pool(jobs, *without_interrupt) as pool:
        yield from zip(pool.imap(_run_lean, work, chunksize=10), (kinds for _, kinds in work), strict=True)
        pool.close()
        pool.join()  # a process that ends by itself removes its files


def _run_lean(work: tuple[int, tuple[str, ...]]) -> Outcome:
    outcome = run(*work)
    return outcome if outcome.failure else replace(outcome, passed=())


class Tally:
    """The totals of all histories."""

    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.histories = self.steps = 0
        self.faults: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.seeds: dict[str, list[str]] = {}

    def add(self, outcome: Outcome) -> bool:
        """Count a history; return whether it failed."""
        self.histories += 1
        self.steps += outcome.steps
        self.faults.update(outcome.faults)
        if outcome.failure:
            self.failures[outcome.failure] += 1
            self.seeds.setdefault(outcome.failure, []).append(f"{outcome.seed} ({outcome.mode})")
        if time.monotonic() > self.said + EVERY_S:
            self.said = time.monotonic()
            print(f"… {self.histories} histories, {sum(self.failures.values())} failed", flush=True)
        return bool(outcome.failure)

    def line(self) -> str:
        """Return the last line of the output: what was run, and what was found."""
        always = ("lost", "duplicated", "unexplained", "false_alarms")
        others = [
            f"{name.replace(' ', '_')}={self.failures[name]}" for name in sorted(self.failures) if name not in always
        ]
        found = " ".join([*(f"{name}={self.failures[name]}" for name in always), *others])
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        where = "".join(f"\n  {name}: seeds {', '.join(seeds[:12])}" for name, seeds in self.seeds.items())
        took_s = time.monotonic() - self.began
        per_minute = 60 * self.histories / max(took_s, 0.001)
        ran = f"{self.histories} histories, {self.steps} steps in {took_s:.0f} s, {per_minute:.0f} a minute"
        return f"{ran} ({faults}): {found}{where}"


def show(outcome: Outcome, *, whole: bool) -> None:
    """Print a failing history: every effect, or only the decisions of the seed."""
    print(f"  with {len(outcome.happened)} faults and steps of the world: {outcome.detail[:300]}")
    for line in outcome.trace:
        if whole or line.decision:
            print(f"  {line}")
    for note in outcome.notes:
        print(f"  {note[:300]}")


if __name__ == "__main__":
    # For this process, and not for tests that call main.
    logging.disable(logging.CRITICAL)
    gc.freeze()
    gc.set_threshold(500_000, 20, 20)  # the objects of a history become garbage only when it ends
    sys.exit(main())
