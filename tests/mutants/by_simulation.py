"""Mistakes that would lose or duplicate records, each of which the simulation has to find."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.mutants.planting import Change, in_fork, plant, with_changes

SEEDS = 2000
"""How many histories may be needed."""
KINDS = "process,sink,untracked,dstream"


@dataclass(frozen=True)
class Mutant:
    """One change of the source, and the seed of a history that reveals it."""

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
    seed: int = 1
    """The first seed that found the mistake. It is tried first; a change of the simulation can change its history."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What is changed."""
        return (Change(self.file, self.right, self.wrong), *(Change(*each) for each in self.and_wrong))


MUTANTS = [
    Mutant(
        "a driver whose launch is not the newest one continues",
        "core/record/transition.py",
        "if launch is None or launch.tag != event.tag or record.holder != event.holder:",
        "if launch is None:",
        "process,sink",
        faults=("lie",),
        seed=79,
    ),
    Mutant(
        "a driver begins and records batches after its epoch was closed",
        "core/record/transition.py",
        "        if record.phase is Phase.RUNNING:\n            return rule(record, event)\n",
        "        if True:\n            return rule(record, event)\n",
        "process,sink",
        faults=("lie",),
        seed=3,
    ),
    Mutant(
        "the swap that begins a batch does not check for a stop request",
        "core/record/transition.py",
        "    if record.stop is not None:\n        return Refused(Refusal.STOP_REQUESTED",
        "    if False:\n        return Refused(Refusal.STOP_REQUESTED",
        seed=41,
    ),
    Mutant(
        "a late try of a stop task stops the job of a later operation",
        "operations/stopping.py",
        "    asked_by = _asked_by(record)\n",
        "    return\n    asked_by = _asked_by(record)\n",
        "late",
        seed=4,
    ),
    Mutant(
        "a cancelled launch can be claimed",
        "core/record/transition.py",
        "    if record.phase is not Phase.LAUNCHING:\n        if record.holder == event.holder",
        "    if record.phase not in (Phase.LAUNCHING, Phase.STOPPED):\n        if record.holder == event.holder",
        seed=279,
    ),
    Mutant(
        "a driver may claim a launch of another plan",
        "core/record/transition.py",
        '    if launch is None or launch.tag != event.tag:\n        return Refused(Refusal.FENCED, f"the newest',
        '    if launch is None:\n        return Refused(Refusal.FENCED, f"the newest',
        "process,sink",
        # A driver that claims the launch of another one is fenced by its first batch: that guard is removed too.
        and_wrong=(
            (
                "core/record/transition.py",
                "if launch is None or launch.tag != event.tag or record",
                "if launch is None or record",
            ),
        ),
        faults=("hang",),
        seed=306,
    ),
    Mutant(
        "a launch does not compare the generation and the epoch of its plan",
        "core/record/transition.py",
        "if record.generation != event.generation or event.launch.epoch != record.epoch + 1:",
        "if False:",
        # Whoever acted since the plan has taken the lease: that guard is removed too.
        and_wrong=(
            (
                "core/record/transition.py",
                "lease is None or lease.operation != event.operation:\n            holder",
                "lease is None:\n            holder",
            ),
            (
                "operations/lease.py",
                "    if lease is None or lease.operation != session.operation:\n        raise TakenOver(",
                "    if lease is None:\n        raise TakenOver(",
            ),
        ),
        seed=29,
    ),
    Mutant(
        "an operation closes, reconciles and launches without the lease",
        "core/record/transition.py",
        "if lease is None or lease.operation != event.operation:\n            holder",
        "if lease is None:\n            holder",
        # A task checks who holds the lease whenever it reads the record: that check is removed too.
        and_wrong=(
            (
                "operations/lease.py",
                "    if lease is None or lease.operation != session.operation:\n        raise TakenOver(",
                "    if lease is None:\n        raise TakenOver(",
            ),
        ),
        seed=29,
    ),
    Mutant(
        "a batch that began and was not recorded is not counted as cut off",
        "core/record/transition.py",
        "    cuts = _with_cut(record.cuts, event.cut)\n",
        "    cuts = record.cuts\n",
        seed=55,
    ),
    Mutant(
        "a cancelled launch moves the position",
        "core/record/transition.py",
        "return _acted(replace(record, phase=Phase.STOPPED, ended=ended), event.at_ms)",
        "moved = Recorded(record.epoch, record.launch.tag)  # type: ignore[union-attr]\n"
        "    return _acted(replace(record, phase=Phase.STOPPED, ended=ended, recorded=moved), event.at_ms)",
        seed=164,
    ),
    Mutant(
        "the second run of a batch in one epoch is not counted",
        "core/record/transition.py",
        "replace(batch, count=started.count + event.again)",
        "replace(batch, count=started.count)",
        # The program calls `run` again only after an error that Spark raises. An error of the user's function ends it.
        "sink",
        faults=("error", "lost answer"),
        always=("runs_again",),
        seed=3,
    ),
    Mutant(
        "a swap does not compare",
        "stores/memory.py",
        "            if self._control.get(key) != expected:\n                return False\n            if facts",
        "            if facts",
    ),
    Mutant(
        "a batch is recorded before its output",
        "runtime/foreach_batch.py",
        "                    self._process(frame, batch_id)\n",
        "                    self._epoch.record(batch)\n                    self._process(frame, batch_id)\n",
        "process",
    ),
    Mutant(
        "a batch begins without a swap",
        "runtime/held_epoch.py",
        "            self._change(StartBatch(",
        "            (lambda *_, **__: None)(StartBatch(",
        seed=3,
    ),
    Mutant(
        "a batch that was recorded before is run again",
        "runtime/foreach_batch.py",
        "if self._epoch.is_finished(batch):",
        "if False:",
        "process",
        seed=1207,
    ),
    Mutant(
        "the last recorded batch is lost when an epoch without a batch follows",
        "operations/submitting.py",
        "    if recorded is None or recorded.batch_id is not None:\n        return recorded\n",
        "    if True:\n        return recorded\n",
        "process",
        # One driver dies between the record of a batch and Spark's commit, the next one before its first batch. The one
        # after it begins the recorded batch again, which is not where its plan starts: that guard is removed too.
        and_wrong=(("runtime/held_epoch.py", "        if moved:\n", "        if False:\n"),),
        deaths=("create commits/", "names offsets"),
        seed=5,
    ),
    Mutant(
        "the rows of the history are ordered by the driver's clock",
        "core/batch.py",
        "return batch_time_ms if newest_row_time_ms is None else max(batch_time_ms, newest_row_time_ms + 1)",
        "return batch_time_ms",
        seed=37,
    ),
    Mutant(
        "a missing row of the history is not added",
        "operations/lease.py",
        "    if batch is not None:\n        session.store.append(epoch.claim.stream, batch)\n",
        "    if False:\n        session.store.append(epoch.claim.stream, batch)\n",
        seed=96,
    ),
    Mutant(
        "a driver of unknown state counts as dead",
        "operations/lease.py",
        "    if is_running(epoch) is not False:\n        return None\n",
        "    if is_running(epoch):\n        return None\n",
        seed=10,
    ),
    Mutant(
        "the result of an epoch is not stored before the next launch",
        "operations/submitting.py",
        "        session.control.keep_epoch(last)\n",
        "        pass\n",
        seed=2,
    ),
    Mutant(
        "a job is launched although the applied start is gone",
        "operations/submitting.py",
        "    require_opened(session, plan)\n    expected = ",
        "    return\n    expected = ",
        "untracked,dstream",
        seed=39,
    ),
    Mutant(
        "a rewind is not announced",
        "operations/submitting.py",
        "announced=plan.announced_from(left_at) if before is None else (),",
        "announced=(),",
        seed=2,
    ),
    Mutant(
        "a stop does not cancel a launch that nobody has claimed",
        "operations/lease.py",
        "            session.cell.change(CancelLaunch(session.operation, clock.now_ms(), record.epoch))\n",
        "            return record\n",
        seed=47,
    ),
    Mutant(
        "a new partition starts at its end",
        "core/restart/planner.py",
        "start, reason = 0, StartReason.NEW_PARTITION",
        "start, reason = live.end, StartReason.NEW_PARTITION",
        # The records that it omits would be refused as skipped: that count is removed too.
        and_wrong=(
            (
                "core/restart/planner.py",
                "unread = stood if stood is not None else 0 if partition.topic in read.topics else max(",
                "unread = stood if stood is not None else max(",
            ),
        ),
        seed=20,
    ),
    Mutant(
        "records that retention has deleted are not counted",
        "core/restart/planner.py",
        "    lost = max(0, min(start, live.begin) - unread)\n",
        "    lost = 0\n",
        seed=83,
    ),
    Mutant(
        "the position of an untracked job is moved before the record names the move",
        "operations/applying.py",
        "    note_move(session, plan.fingerprint, token)\n",
        "",
        "untracked,dstream",
        seed=2,
    ),
    Mutant(
        "the audit does not see what is read a second time",
        "core/audit/walk.py",
        "        cursor.read.add(cursor.position, end)\n",
        "",
        seed=2,
    ),
]


def find(mutant: Mutant) -> tuple[bool, str]:
    """Return whether a history reveals the mistake, and what is printed about it.

    A seed counts only if its history has no finding without the mistake.
    """
    if found := _find(mutant, mutant.seed, mutant.seed):
        return True, f"found by seed {found}"
    if found := _find(mutant, 1, SEEDS):
        number = found.partition(":")[0]
        return True, f"found by seed {found}; seed {mutant.seed} no longer finds it, write seed={number} beside it"
    return False, f"NOT FOUND by seeds 1 to {SEEDS}"


def _find(mutant: Mutant, first: int, last: int) -> str:
    """Return the first of some seeds that finds a mistake, with its finding; empty if none does."""
    sources = with_changes(mutant.changes)
    while found := in_fork(_first_failure, sources, mutant, first, last):
        seed = int(found.partition(":")[0])
        if not in_fork(_first_failure, {}, mutant, seed, seed):
            return found
        first = seed + 1
    return ""


def _first_failure(sources: dict[str, str], mutant: Mutant, first: int, last: int) -> str:
    """Return the first of some seeds that fails on changed sources, with its finding; empty if none does."""
    logging.disable(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 20)  # the objects of a history become garbage only when it ends
    plant(sources)
    from tests.simulation import history

    history.FAULTS += mutant.faults * 10
    drawn_by_seed = history.draw_history

    def draw_with_hints(seed: int, modes: Sequence[str]) -> history.Draw:
        drawn = drawn_by_seed(seed, modes)
        drawn.kind = replace(drawn.kind, **dict.fromkeys(mutant.always, True))
        drawn.rates = replace(drawn.rates, deaths=mutant.deaths)
        return drawn

    history.draw_history = draw_with_hints
    for seed in range(first, last + 1):
        try:
            outcome = history.run_history(seed, tuple(mutant.kinds.split(",")))
            failure, detail = outcome.failure, outcome.detail.removeprefix(f"{outcome.failure}: ")
        except Exception as error:
            failure, detail = "the checker cannot go on", f"{type(error).__name__}: {error}"
        if failure:
            return f"{seed}: {failure}: {detail[:120]}"
    return ""
