"""A process that outlives its parent: it has its own session, is known by pid *and* start time, and stops as a session.

A pid alone does not identify a process, because the system reuses pids. This module never signals a process with
another start time than the recorded one, and never looks for processes by name.
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
    """Identity of a started process, unique until the machine reboots."""

    pid: int
    started: int
    """Clock ticks from boot to the start of the process, from /proc."""
    boot: str
    """Id of the boot that the ticks count from."""

    @property
    def alive(self) -> bool:
        """Whether this process still runs."""
        seen = _stat(self.pid)
        return self.boot == _boot() and seen is not None and seen.started == self.started

    def as_json(self) -> dict[str, object]:
        """Return the fields as stored in ``stack.json``."""
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
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may contain blanks and brackets
    return None if fields[0] in _DEAD else _Stat(session=int(fields[3]), started=int(fields[19]))


def start(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Process:
    """Start ``argv`` in a session of its own, with its output in ``log``; a previous log is kept as ``<log>.1``.

    :param env: the complete environment; the caller's by default.
    :param cwd: working directory; the caller's by default.
    :raises Problem: the process ended at once.
    """
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
    child.returncode = 0  # the process outlives the parent: prevent a warning when the handle is deleted
    if seen is None:
        raise Problem(f"{argv[0]} ended immediately", expected="a process that keeps running", do=f"read {log}")
    return Process(pid=child.pid, started=seen.started, boot=_boot())


def stop(process: Process, *, timeout_s: float) -> None:
    """End the process and its session: SIGTERM, wait for up to ``timeout_s``, SIGKILL."""
    _signal(_members(process), signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while members := _members(process):
        if time.monotonic() > deadline:
            _signal(members, signal.SIGKILL)
            deadline += 1.0
        time.sleep(0.1)


def _members(process: Process) -> dict[int, int]:
    """Return the processes of the session, as pid -> start time; empty if the session's number was reused."""
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
            seen = _stat(pid)  # read after opening the handle: from here on the pid cannot refer to another process
            if seen is not None and seen.started == started:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def last_lines(log: Path, count: int = 12) -> str:
    """Return the last lines of a log."""
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:])
