"""Processes on this machine, known by more than their pid."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from airflow_provider_offsets.core.epoch import ProcessIdentity


def identify(pid: int) -> ProcessIdentity | None:
    """Give the identity of a process on this machine; None if there is none, or only its zombie is left."""
    try:
        # The name in field 2 may hold spaces and brackets, so count from its closing bracket.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in "ZX":
        return None
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ProcessIdentity(socket.gethostname(), boot_id, pid, int(fields[18]))


def this_process() -> ProcessIdentity:
    """Give the identity of the process that asks."""
    found = identify(os.getpid())
    assert found is not None
    return found


def is_alive(process: ProcessIdentity) -> bool | None:
    """Say whether a process lives; None if it is on another machine and cannot be seen from here.

    A reboot ends every process of the boot before it.
    """
    if process.host != socket.gethostname():
        return None
    return identify(process.pid) == process


def signal_group(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the process group of ``process``, and say whether it was there to get it.

    A driver is launched in a session of its own, so the group is spark-submit, its JVM and its Python, and nothing
    else. The identity is checked just before: a pid that was given away in between is not touched.
    """
    if not is_alive(process):
        return False
    try:
        os.killpg(os.getpgid(process.pid), number)
    except ProcessLookupError:
        return False
    return True
