"""One process that outlives us: started in a session of its own, known by pid *and* start time, stopped as a session.

A pid alone says little, because the system uses it again. Nothing here sends a signal to a process whose start
time is not the one on record, and nothing looks for processes by name.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from stack.problem import Problem

_DEAD = frozenset("ZXx")


@dataclass(frozen=True)
class Process:
    """What identifies a started process for as long as the machine runs."""

    pid: int
    started: int
    """Clock ticks from boot to the start of the process, as /proc has it."""
    boot: str
    """The boot that those ticks count from."""

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        seen = _stat(self.pid)
        return self.boot == _boot() and seen is not None and seen.started == self.started

    def as_json(self) -> dict[str, object]:
        """The fields as they stand in ``stack.json``."""
        return asdict(self)


class _Stat(NamedTuple):
    session: int
    started: int


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold blanks and brackets
    return None if fields[0] in _DEAD else _Stat(session=int(fields[3]), started=int(fields[19]))


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Process:
    """Start ``argv`` in a session of its own, with its output in ``log``; the log before is kept as ``<log>.1``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    with log.open("wb") as out:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    seen = _stat(child.pid)
    child.returncode = 0  # it is meant to outlive us: no warning when the handle goes
    if seen is None:
        raise Problem(f"{argv[0]} ended at once", do=f"read {log}")
    return Process(pid=child.pid, started=seen.started, boot=_boot())


def stop(process: Process, *, patience: float) -> None:
    """End the process and all others of its session: SIGTERM, wait for ``patience`` seconds, SIGKILL."""
    _signal(_members(process), signal.SIGTERM)
    deadline = time.monotonic() + patience
    while members := _members(process):
        if time.monotonic() > deadline:
            _signal(members, signal.SIGKILL)
            deadline += 1.0
        time.sleep(0.1)


def _members(process: Process) -> dict[int, int]:
    """The processes of the session, as pid -> start time; empty if its number has gone to somebody else."""
    leader = _stat(process.pid)
    if process.boot != _boot() or (leader is not None and leader.started != process.started):
        return {}
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    seen = ((pid, _stat(pid)) for pid in pids)
    return {
        pid: stat.started
        for pid, stat in seen
        if stat is not None and stat.session == process.pid and stat.started >= process.started
    }


def _signal(members: Mapping[int, int], number: signal.Signals) -> None:
    for pid, started in members.items():
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            seen = _stat(pid)  # read after the handle is open: from here on the pid cannot change hands
            if seen is not None and seen.started == started:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log, for a person."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:])
