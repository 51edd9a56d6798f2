"""``python -m tests.simulation.mutants``: mistakes that would lose or duplicate records, each planted in a copy.

The simulation must find each mistake within ``--seeds`` histories. A mistake that can no longer be planted fails as
well: write it again for the changed source.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_offsets"
SEEDS = 2000
KINDS = "process,sink,untracked,dstream"

HUNT = """
import logging, sys
import gc
import json
from dataclasses import replace
logging.disable(logging.CRITICAL)
gc.set_threshold(50_000, 20, 20)
from tests.simulation import history
from tests.simulation.history import run_history
first, last, kinds = int(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3].split(","))
hints = json.loads(sys.argv[4])
history.FAULTS += tuple(hints["faults"]) * 10
draw_history = history.draw_history
def draw_with_hints(seed, modes):
    drawn = draw_history(seed, modes)
    drawn.kind = replace(drawn.kind, **dict.fromkeys(hints["always"], True))
    drawn.rates = replace(drawn.rates, deaths=tuple(hints["deaths"]))
    return drawn
history.draw_history = draw_with_hints
for seed in range(first, last + 1):
    try:
        outcome = run_history(seed, kinds)
        failure, detail = outcome.failure, outcome.detail.removeprefix(f"{outcome.failure}: ")
    except Exception as error:
        failure, detail = "the checker cannot go on", f"{type(error).__name__}: {error}"
    if failure:
        print(f"{seed}: {failure}: {detail[:120]}")
        sys.exit(1)
"""


@dataclass(frozen=True)
class Mutant:
    """One change of the source."""

    what: str
    file: str
    right: str
    wrong: str
    kinds: str = KINDS
    """The kinds of jobs that can reveal the mistake."""
    and_wrong: tuple[tuple[str, str, str], ...] = ()
    """Further changes: file, right and wrong text of a guard behind which the mistake would be harmless."""
    faults: tuple[str, ...] = ()
    """Faults that are drawn more often than usual: only one of them reveals the mistake."""
    always: tuple[str, ...] = ()
    """Properties of every drawn job: names of ``Kind``."""
    deaths: tuple[str, ...] = ()
    """Effects before which drivers die often: the beginnings of their details."""


MUTANTS = [
    Mutant(
        "no fence: a driver whose launch is not the newest one goes on",
        "core/record.py",
        "if launch is None or launch.tag != event.tag or record.holder != event.holder:",
        "if launch is None:",
        "process,sink",
        faults=("lie",),
    ),
    Mutant(
        "a closed epoch goes on: its driver begins and records",
        "core/record.py",
        "        if record.phase is Phase.RUNNING:\n            return rule(record, event)\n",
        "        if True:\n            return rule(record, event)\n",
        "process,sink",
        faults=("lie",),
    ),
    Mutant(
        "a stop request is not seen by the swap that begins a batch",
        "core/record.py",
        "    if record.stop is not None:\n        return Refused(Refusal.STOP_REQUESTED",
        "    if False:\n        return Refused(Refusal.STOP_REQUESTED",
    ),
    Mutant(
        "claim without a launch: a cancelled launch can be claimed",
        "core/record.py",
        "    if record.phase is not Phase.LAUNCHING:\n        if record.holder == event.holder",
        "    if record.phase not in (Phase.LAUNCHING, Phase.STOPPED):\n        if record.holder == event.holder",
    ),
    Mutant(
        "adoption without fingerprint: any launch may be claimed",
        "core/record.py",
        '    if launch is None or launch.tag != event.tag:\n        return Refused(Refusal.FENCED, f"the newest',
        '    if launch is None:\n        return Refused(Refusal.FENCED, f"the newest',
        "process,sink",
        # A driver that claims the launch of another one is fenced by its first batch: that guard is removed too.
        and_wrong=(
            ("core/record.py", "if launch is None or launch.tag != event.tag or record", "if launch is None or record"),
        ),
        faults=("hang",),
    ),
    Mutant(
        "stale plan applied: a launch asks neither for the generation nor for the epoch of its plan",
        "core/record.py",
        "if record.generation != event.generation or event.launch.epoch != record.epoch + 1:",
        "if False:",
        # Whoever acted since the plan has taken the lease: that guard is removed too.
        and_wrong=(
            (
                "core/record.py",
                "lease is None or lease.operation != event.operation:\n            holder",
                "lease is None:\n            holder",
            ),
            (
                "operations/lease.py",
                "    if lease is None or lease.operation != world.operation:\n        raise TakenOver(",
                "    if lease is None:\n        raise TakenOver(",
            ),
        ),
    ),
    Mutant(
        "no lease: any operation closes, reconciles and launches",
        "core/record.py",
        "if lease is None or lease.operation != event.operation:\n            holder",
        "if lease is None:\n            holder",
        # A task checks who holds the lease whenever it reads the record: that check is removed too.
        and_wrong=(
            (
                "operations/lease.py",
                "    if lease is None or lease.operation != world.operation:\n        raise TakenOver(",
                "    if lease is None:\n        raise TakenOver(",
            ),
        ),
    ),
    Mutant(
        "cut forgotten: what was begun and not recorded is not named",
        "core/record.py",
        "    cuts = _with_cut(record.cuts, event.cut)\n",
        "    cuts = record.cuts\n",
    ),
    Mutant(
        "a cancelled launch moves the position",
        "core/record.py",
        "return _acted(replace(record, phase=Phase.STOPPED, ended=ended), event.at_ms)",
        "moved = Recorded(record.epoch, record.launch.tag)  # type: ignore[union-attr]\n"
        "    return _acted(replace(record, phase=Phase.STOPPED, ended=ended, recorded=moved), event.at_ms)",
    ),
    Mutant(
        "a second run of a batch in one epoch does not count",
        "core/record.py",
        "replace(batch, count=begun.count + event.again)",
        "replace(batch, count=begun.count)",
        # The program calls `run` again only after an error that Spark raises. An error of the user's function ends it.
        "sink",
        faults=("error", "lost answer"),
        always=("runs_again",),
    ),
    Mutant(
        "check without set: a swap does not compare",
        "stores/memory.py",
        "            if self._control.get(key) != expected:\n                return False\n            if facts",
        "            if facts",
    ),
    Mutant(
        "a batch is recorded before its output",
        "runtime/foreach_batch.py",
        "                self._process(frame, batch_id)\n",
        "                self._epoch.record(batch)\n                self._process(frame, batch_id)\n",
        "process",
    ),
    Mutant(
        "a batch begins without a swap",
        "runtime/held_epoch.py",
        "            self._change(BeginBatch(",
        "            (lambda *_, **__: None)(BeginBatch(",
    ),
    Mutant(
        "a batch that was recorded before is run again",
        "runtime/foreach_batch.py",
        "if self._epoch.is_finished(batch):",
        "if False:",
        "process",
    ),
    Mutant(
        "the batch recorded before is forgotten where an epoch without a batch comes in between",
        "operations/submitting.py",
        "    if recorded is None or recorded.batch_id is not None:\n        return recorded\n",
        "    if True:\n        return recorded\n",
        "process",
        # One driver dies between the record of a batch and Spark's commit, the next one before its first batch. The one
        # after it begins the recorded batch again, which is not where its plan starts: that guard is removed too.
        and_wrong=(("runtime/held_epoch.py", "        if moved:\n", "        if False:\n"),),
        deaths=("create commits/", "names offsets"),
    ),
    Mutant(
        "order by clock: a row stands where the driver's clock says",
        "core/batch.py",
        "return batch_time_ms if newest_row_time_ms is None else max(batch_time_ms, newest_row_time_ms + 1)",
        "return batch_time_ms",
    ),
    Mutant(
        "what Spark committed and nobody recorded is taken for cut off",
        "operations/lease.py",
        "if batch is not None and is_same_query and log.is_committed(begun.batch_id):",
        "if False:",
        "sink",
    ),
    Mutant(
        "a missing row of the history is not completed",
        "operations/lease.py",
        "    if batch is not None:\n        world.store.append(epoch.claim.stream, batch)\n",
        "    if False:\n        world.store.append(epoch.claim.stream, batch)\n",
    ),
    Mutant(
        "unknown is taken for dead",
        "operations/lease.py",
        "    if is_running(epoch) is not False:\n        return None\n",
        "    if is_running(epoch):\n        return None\n",
    ),
    Mutant(
        "launch forgotten: what became of an epoch is not kept before the next launch",
        "operations/submitting.py",
        "        world.control.keep_epoch(last)\n",
        "        pass\n",
    ),
    Mutant(
        "launched although the start that was applied is gone",
        "operations/submitting.py",
        "    if world.pipeline.tracked:\n        return\n    expected = ",
        "    if True:\n        return\n    expected = ",
        "untracked,dstream",
    ),
    Mutant(
        "announced and not applied: a rewind is not announced",
        "operations/submitting.py",
        "announced=plan.announced if before is None else (),",
        "announced=(),",
    ),
    Mutant(
        "a stop does not cancel a launch that nobody has claimed",
        "operations/lease.py",
        "            world.cell.change(Cancel(world.operation, clock.now_ms()))\n",
        "            return record\n",
    ),
    Mutant(
        "a new partition starts at its end",
        "core/plan.py",
        "start, reason = 0, StartReason.NEW_PARTITION",
        "start, reason = live.end, StartReason.NEW_PARTITION",
        # The records that it omits would be refused as skipped: that count is removed too.
        and_wrong=(
            (
                "core/plan.py",
                "unread = stood if stood is not None else 0 if partition.topic in read.topics else max(",
                "unread = stood if stood is not None else max(",
            ),
        ),
    ),
    Mutant(
        "offset clamped: what retention has deleted is not counted",
        "core/plan.py",
        "    lost = max(0, min(start, live.begin) - unread)\n",
        "    lost = 0\n",
    ),
    Mutant(
        "half a plant: a move of an untracked job is not noted before it",
        "operations/applying.py",
        "    world.cell.change(Intend(world.operation, plan.fingerprint, clock.now_ms(), token, writer))\n",
        "",
        "untracked,dstream",
    ),
    Mutant(
        "the audit does not see what is read a second time",
        "core/audit.py",
        "        cursor.read.add(cursor.position, end)\n",
        "",
    ),
]


def planted(mutant: Mutant) -> dict[str, str]:
    """Return the sources with the mistake, by file.

    :raises ValueError: the text to replace is missing, or occurs several times.
    """
    sources: dict[str, str] = {}
    for file, right, wrong in ((mutant.file, mutant.right, mutant.wrong), *mutant.and_wrong):
        source = sources.get(file) or (ROOT / PACKAGE / file).read_text()
        if source.count(right) != 1:
            raise ValueError(f"{mutant.what!r} can no longer be planted in {file}: write it anew")
        sources[file] = source.replace(right, wrong)
    return sources


def hunt(mutant: Mutant, seeds: int) -> str:
    """Return the first seed that finds a mistake, with its finding; empty if none of ``seeds`` does.

    The seed is run without the mistake too: if it fails then as well, it says nothing about the mistake, and the hunt
    continues.
    """
    sources = planted(mutant)
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for name in (PACKAGE, "tests"):
            left_out = shutil.ignore_patterns("__pycache__", "e2e", "integration")
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=left_out)
        for file, source in sources.items():
            (Path(folder) / PACKAGE / file).write_text(source)
        first = 1
        while found := _first_failure(Path(folder), first, seeds, mutant):
            seed = int(found.partition(":")[0])
            known = _first_failure(ROOT, seed, seed, mutant)
            if not known:
                return found
            print(f"seed {seed} fails without the mistake too: {known}", flush=True)
            first = seed + 1
    return ""


def _first_failure(folder: Path, first: int, last: int, mutant: Mutant) -> str:
    hints = json.dumps({"faults": mutant.faults, "always": mutant.always, "deaths": mutant.deaths})
    ended = subprocess.run(
        [sys.executable, "-B", "-c", HUNT, str(first), str(last), mutant.kinds, hints],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode and not ended.stdout:
        print(f"the simulation itself ends: {ended.stderr.strip()[-600:]}", flush=True)
    return ended.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Hunt all mutants; return 1 if one of them was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many histories may be needed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="only mutants whose words have this in them")
    options = parser.parse_args(arguments)
    chosen = [each for each in MUTANTS if options.only in each.what]
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda each: _hunted(each, options.seeds), chosen))
    print(f"{sum(map(bool, found))} of {len(chosen)} mutants found in {time.monotonic() - began:.0f} s")
    return 0 if all(found) else 1


def _hunted(mutant: Mutant, seeds: int) -> bool:
    """Hunt one mutant, print the outcome, and return whether the mutant was found."""
    began = time.monotonic()
    found = hunt(mutant, seeds)
    said = f"found by seed {found}" if found else "NOT FOUND"
    print(f"{mutant.what}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
