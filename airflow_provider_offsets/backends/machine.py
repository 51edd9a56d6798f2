"""The machine that operations and drivers run on: its processes, launching a driver, and requests to YARN.

Every effect outside the control store and the checkpoints goes through this module, so that a simulation can install a
machine of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from airflow_provider_offsets.backends import process
from airflow_provider_offsets.core.epoch import ProcessIdentity, YarnApplication


class Machine(Protocol):
    """The operations that this package needs of a machine.

    None in place of a truth value means that the answer cannot be determined from this machine. A process of another
    boot has ended only if it ran on this machine, by the machine id.
    """

    def this_process(self) -> ProcessIdentity:
        """Return the identity of the calling process."""
        ...

    def session_leader(self) -> ProcessIdentity:
        """Return the identity of the leader of the caller's session, or of the caller if the leader has ended."""
        ...

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        """Return whether a process is alive."""
        ...

    def is_session_alive(self, leader: ProcessIdentity) -> bool | None:
        """Return whether any process in the session of ``leader`` is alive."""
        ...

    def signal_group(self, process: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to the process group of ``process``. Return whether the process existed.

        :param process: a process of the group, with the identity that was recorded.
        :param number: the signal to send.
        """
        ...

    def signal_leader(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to a session's leader, or else to the rest of it. Return whether any process received it.

        :param leader: identity of the session's first process.
        :param number: the signal to send.
        """
        ...

    def signal_session(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to all processes of a session. Return whether any process received it.

        :param leader: identity of the session's first process.
        :param number: the signal to send.
        """
        ...

    def spawn(self, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
        """Start ``command`` in a session of its own. Return its identity, or None if it ended at once.

        :param command: argument vector of the process.
        :param log: path of the file that the process appends its output to.
        :param env: the complete environment of the process.
        :raises FileNotFoundError: the program is not on the PATH.
        """
        ...

    def left_on_yarn(self, application: YarnApplication) -> str:
        """Return a message about what is left of an application on YARN; empty if nothing is left."""
        ...

    def kill_on_yarn(self, application: YarnApplication) -> str:
        """Kill an application on YARN. Return an error message; empty if YARN accepted the request."""
        ...

    def place_marker(self, location: str, text: str) -> None:
        """Write the marker file that asks an untracked job to stop.

        :param location: path or URL of the marker file.
        :param text: content of the file.
        """
        ...

    def remove_marker(self, location: str) -> None:
        """Remove the marker file if it is there."""
        ...


class LocalMachine:
    """The machine that this process runs on."""

    this_process = staticmethod(process.this_process)
    session_leader = staticmethod(process.session_leader)
    is_alive = staticmethod(process.is_alive)
    is_session_alive = staticmethod(process.is_session_alive)
    signal_group = staticmethod(process.signal_group)
    signal_leader = staticmethod(process.signal_leader)
    signal_session = staticmethod(process.signal_session)
    spawn = staticmethod(process.spawn)

    # A driver's Python has neither fsspec nor httpx, so the modules that need them are imported late.

    def left_on_yarn(self, application: YarnApplication) -> str:
        """Return what is left of an application on YARN; see ``backends.yarn``."""
        from airflow_provider_offsets.backends import yarn

        return yarn.left_on_yarn(application)

    def kill_on_yarn(self, application: YarnApplication) -> str:
        """Kill an application on YARN; see ``backends.yarn``."""
        from airflow_provider_offsets.backends import yarn

        return yarn.kill_on_yarn(application)

    def place_marker(self, location: str, text: str) -> None:
        """Write a marker file; see ``backends.marker``."""
        from airflow_provider_offsets.backends import marker

        marker.place_marker(location, text)

    def remove_marker(self, location: str) -> None:
        """Remove a marker file; see ``backends.marker``."""
        from airflow_provider_offsets.backends import marker

        marker.remove_marker(location)


_machine: Machine = LocalMachine()


def machine() -> Machine:
    """Return the installed machine: the local one, unless a simulation has installed another."""
    return _machine


@contextmanager
def installed(other: Machine) -> Iterator[None]:
    """Replace the machine of this process while the context is open, as a simulation does."""
    global _machine
    before, _machine = _machine, other
    try:
        yield
    finally:
        _machine = before
