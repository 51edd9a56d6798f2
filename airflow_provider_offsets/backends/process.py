"""Processes on this machine, identified by more than their pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from airflow_provider_offsets.core.epoch import ProcessIdentity

MACHINE_ID = Path("/etc/machine-id")
MOUNTS = Path("/proc/self/mountinfo")
_PIDS_OF_A_MACHINE = "pid:[4026531836]"
"""PID namespace of a machine without a container: Linux's ``PROC_PID_INIT_INO``."""


class _Stat(NamedTuple):
    session: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        # The name in field 2 may contain spaces and brackets, so count the fields from its closing bracket.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else _Stat(int(fields[2]), int(fields[18]))


def _is_hidden(number: int) -> bool:
    """Return whether ``/proc`` hides a process or process group of this number, which belongs to another user.

    The mount option ``hidepid`` does so.
    """
    if os.access(f"/proc/{number}/stat", os.R_OK):
        return False
    for send in (os.kill, os.killpg):
        try:
            send(number, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            return True
    return False


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a process on this machine, or None if it does not exist or is a zombie."""
    found = _stat(pid)
    if found is None:
        return None
    return ProcessIdentity(socket.gethostname(), _boot_id(), pid, found.start_ticks, _namespaces(), _machine_id())


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespaces() -> tuple[str, ...]:
    """Return the namespaces in which a pid and a host name are unique. The PID namespace comes first."""
    return tuple(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "uts", "net"))


def _machine_id() -> str:
    """Return the id of this machine, or an empty string if it is unknown.

    A container sees the file of its image, which is the same on every machine. Its id counts only if the file, or the
    file that it links to, is mounted.
    """
    try:
        found = MACHINE_ID.read_text().strip()
    except OSError:
        return ""
    is_known = found not in ("", "uninitialized")  # systemd writes this word before the first boot has ended
    return found if is_known and (_namespaces()[0] == _PIDS_OF_A_MACHINE or _is_mounted(MACHINE_ID)) else ""


def _is_mounted(file: Path) -> bool:
    real, points = file.resolve(), (line.split()[4] for line in MOUNTS.read_text().splitlines())
    return any(point != "/" and real.is_relative_to(point) for point in points)


def _is_of_here(process: ProcessIdentity) -> bool | None:
    """Return whether a live process would be visible from here; False if it ended with its machine or container.

    A process of another boot ended with it, if it ran on this machine. Only the machine id tells this machine from
    another one of the same host name, on which the process may be alive: None.

    Processes of another PID namespace are not visible. There are two cases:

    - The process shares the UTS or network namespace, hence a host name: two containers on the host network or in one
      pod. Nobody can tell whether the process is alive: None.
    - The process has namespaces of its own. Then it ran in a container with this host name, and only one container has
      that name at a time. That container ended before this one started: False.
    """
    if process.host != socket.gethostname():
        return None
    if process.boot_id != _boot_id():
        return False if process.machine_id and process.machine_id == _machine_id() else None
    here = _namespaces()
    if process.namespaces[:1] == here[:1]:
        return True
    shares_name = not process.namespaces or bool(set(process.namespaces) & set(here))
    return None if shares_name else False


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    found = identify(os.getpid())
    assert found is not None
    return found


def session_leader() -> ProcessIdentity:
    """Return the identity of the leader of this session, or of this process if the leader has ended."""
    return identify(os.getsid(0)) or this_process()


def spawn(command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
    """Start ``command`` in a session of its own, and return its identity, or None if it ended at once.

    The process inherits nothing from the caller: no pipe, no open file, no controlling terminal.

    :param command: argument vector of the process.
    :param log: path of the file that the command appends its output to.
    :param env: the complete environment of the process.
    :raises FileNotFoundError: the program is not on the PATH.
    """
    pid = os.posix_spawnp(
        command[0],
        list(command),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited_files()),
        ],
        setsid=True,
    )
    return identify(pid)


def _inherited_files() -> list[int]:
    """Return the open files that a child would inherit. A pipe that the child keeps open would block its reader."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def is_alive(process: ProcessIdentity) -> bool | None:
    """Return whether a process is alive; None if it runs on another machine or in a container that is not visible.

    None too if a process of another user has that pid, and ``/proc`` hides it.

    A reboot ends every process of this machine's previous boot. A restart of a container ends every process of its
    previous run: pids start at 1 again, but start times differ. A container must keep its host name over restarts,
    and no two containers of a machine may have the same host name at the same time.
    """
    if not (is_of_here := _is_of_here(process)):
        return is_of_here
    found = _stat(process.pid)
    if found is None and _is_hidden(process.pid):
        return None
    return found is not None and found.start_ticks == process.start_ticks


def signal_group(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the process group of ``process``, and return whether the process existed.

    A driver is launched in a session of its own, so the group contains only spark-submit, its JVM and its Python. The
    identity is checked just before, so that a process with a reused pid gets no signal.

    :param process: a process of the group, with the identity that was recorded.
    :param number: the signal to send.
    """
    if not is_alive(process):
        return False
    try:
        os.killpg(os.getpgid(process.pid), number)
    except ProcessLookupError:
        return False
    return True


def is_session_alive(leader: ProcessIdentity) -> bool | None:
    """Return whether a process or any other process of its session is alive; None if they are not visible from here.

    A JVM that ends leaves its Python program running for a moment, and that program may still write.
    """
    if not (is_of_here := _is_of_here(leader)):
        return is_of_here
    if _session(leader):
        return True
    return None if _is_hidden(leader.pid) else False


def signal_leader(leader: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the session leader, or if it has ended to its session; return whether a process received it.

    A JVM runs short-lived helpers (Hadoop runs ``chmod`` and ``readlink``). A helper that received the signal would
    fail the batch that the JVM could have finished.

    :param leader: identity of the session's first process.
    :param number: the signal to send.
    """
    members = _session(leader)
    return _signal({leader.pid: leader.start_ticks} if leader.pid in members else members, number)


def signal_session(leader: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to all processes of a session, in any process group; return whether any process received it.

    :param leader: identity of the session's first process.
    :param number: the signal to send.
    """
    return _signal(_session(leader), number)


def _session(leader: ProcessIdentity) -> dict[int, int]:
    """Return the processes of a session as pid and start time; empty if the session's number was reused.

    Linux does not reuse a pid while its session has members, but a restarted container counts from 1 again. A process
    that started before the container's first process belonged to the previous run of the container, and has ended.
    """
    found, first = _stat(leader.pid), _stat(1)
    given_away = found is not None and found.start_ticks != leader.start_ticks
    of_earlier_container = first is not None and leader.start_ticks < first.start_ticks
    if not _is_of_here(leader) or given_away or of_earlier_container:
        return {}
    seen = {int(each): _stat(int(each)) for each in os.listdir("/proc") if each.isdigit()}
    return {
        pid: stat.start_ticks
        for pid, stat in seen.items()
        if stat is not None and stat.session == leader.pid and stat.start_ticks >= leader.start_ticks
    }


def _signal(processes: dict[int, int], number: signal.Signals) -> bool:
    was_sent = False
    for pid, start_ticks in processes.items():
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                # Read after opening the handle: from here on the pid cannot refer to another process.
                found = _stat(pid)
                if found is not None and found.start_ticks == start_ticks:
                    signal.pidfd_send_signal(handle, number)
                    was_sent = True
            finally:
                os.close(handle)
    return was_sent
