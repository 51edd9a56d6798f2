"""Processes on this machine, known by more than their pid."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from airflow_provider_offsets.core.epoch import ProcessIdentity


class _Stat(NamedTuple):
    session: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        # The name in field 2 may hold spaces and brackets, so count from its closing bracket.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else _Stat(int(fields[2]), int(fields[18]))


def identify(pid: int) -> ProcessIdentity | None:
    """Return the identity of a process on this machine; None if there is none, or only its zombie is left."""
    found = _stat(pid)
    if found is None:
        return None
    return ProcessIdentity(socket.gethostname(), _boot_id(), pid, found.start_ticks, _namespaces())


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespaces() -> tuple[str, ...]:
    """Return the namespaces that say whether a pid and a host name mean the same here: that of the pids first."""
    return tuple(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "uts", "net"))


def _is_of_here(process: ProcessIdentity) -> bool | None:
    """Return whether a process would be seen from here if it lived: False if it ended with its machine or container.

    A process of another PID namespace is not seen. If it has the UTS or the network namespace of this one, both share
    a host name: two containers on the machine's network, or in one pod. Then nobody can tell whether it lives: None.
    With namespaces of its own it was in a container of this host name, and there is one of that name at a time: it
    ended before this one was started.
    """
    if process.host != socket.gethostname():
        return None
    if process.boot_id != _boot_id():
        return False
    here = _namespaces()
    if process.namespaces[:1] == here[:1]:
        return True
    shares_name = not process.namespaces or bool(set(process.namespaces) & set(here))
    return None if shares_name else False


def this_process() -> ProcessIdentity:
    """Return the identity of the process that asks."""
    found = identify(os.getpid())
    assert found is not None
    return found


def session_leader() -> ProcessIdentity:
    """Return the identity of the process that leads this session, or of this process if that one is gone."""
    return identify(os.getsid(0)) or this_process()


def spawn(command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
    """Start ``command`` in a session of its own, writing to ``log``, and return its identity; None if it is gone.

    It keeps nothing of the caller: no pipe, no open file, no controlling terminal.

    :param env: the whole environment of the process.
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
    """The open files that a child would get: a pipe of whoever started this process, kept open, hangs its reader."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def is_alive(process: ProcessIdentity) -> bool | None:
    """Return whether a process lives; None if it cannot be seen from here: on another machine, or in another container.

    A reboot ends every process of the boot before it, and the restart of a container every process of the one before:
    pids count from 1 again there, but no process has the start of an earlier one. A container has to keep its host name
    over restarts, and no second one may have it at the same time.
    """
    if not (is_of_here := _is_of_here(process)):
        return is_of_here
    found = _stat(process.pid)
    return found is not None and found.start_ticks == process.start_ticks


def signal_group(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the process group of ``process``, and return whether it was there to get it.

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


def is_session_alive(leader: ProcessIdentity) -> bool | None:
    """Return whether a process, or any other of the session that it leads, lives; None if it cannot be seen from here.

    A JVM that ends leaves the Python program that it runs for a moment, which may still write.
    """
    return bool(_session(leader)) if _is_of_here(leader) is not None else None


def signal_leader(leader: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to the leader of a session alone, or to all that it left there; return whether anybody got it.

    A JVM has helpers of a moment (Hadoop runs ``chmod`` and ``readlink``): one that gets the signal too fails the batch
    that the JVM would have finished.
    """
    members = _session(leader)
    return _signal({leader.pid: leader.start_ticks} if leader.pid in members else members, number)


def signal_session(leader: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to all processes of a session, in whichever group they are; return whether anybody got it."""
    return _signal(_session(leader), number)


def _session(leader: ProcessIdentity) -> dict[int, int]:
    """Return the processes of a session, as pid and start; none if its number is another's by now.

    Linux gives no pid away whose session still has members, but a container that is started again counts from 1: what
    started before its first process was of the one before, and ended with that.
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
                # Read after the handle is open: from here on the pid cannot be another's.
                found = _stat(pid)
                if found is not None and found.start_ticks == start_ticks:
                    signal.pidfd_send_signal(handle, number)
                    was_sent = True
            finally:
                os.close(handle)
    return was_sent
