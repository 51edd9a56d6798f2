"""Find the fewest faults and external events with which a history still fails the same way (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.simulation.history import Outcome

RUNS_AT_MOST = 300


def shrink(outcome: Outcome, run_with: Callable[[frozenset[int]], Outcome]) -> Outcome:
    """Return the smallest history found that fails as ``outcome`` does.

    :param run_with: runs the same seed with faults and external events only at these effect points.
    """
    best, left = outcome, RUNS_AT_MOST
    kept = [each.step for each in outcome.happened]
    size = max(1, len(kept) // 2)
    while left > 0 and kept:
        for part in _parts(kept, size):
            left -= 1
            without = [step for step in kept if step not in part]
            found = run_with(frozenset(without))
            if found.failure == outcome.failure:
                best, kept = found, [each.step for each in found.happened]
                size = min(size, max(1, len(kept)))
                break
            if left <= 0:
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return best


def _parts(steps: Sequence[int], size: int) -> list[frozenset[int]]:
    return [frozenset(steps[at : at + size]) for at in range(0, len(steps), size)]
