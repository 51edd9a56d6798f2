"""The machine that operations and drivers run on: its processes, how a driver is launched, and what is asked of YARN.

Everything that leaves the control store and the checkpoints goes through here, so a simulation can install a machine
of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from airflow_provider_offsets.core.epoch import ProcessIdentity, YarnApplication
from airflow_provider_offsets.jobs import process


class Machine(Protocol):
    """What this package asks of a machine. ``None`` instead of a truth value means: cannot be known from here."""

    def this_process(self) -> ProcessIdentity:
        """Return the identity of the process that asks."""
        ...

    def session_leader(self) -> ProcessIdentity:
        """Return the identity of the process that leads the session of the one that asks, or of the latter."""
        ...

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        """Return whether a process lives."""
        ...

    def is_session_alive(self, leader: ProcessIdentity) -> bool | None:
        """Return whether any process of the session that ``leader`` leads lives."""
        ...

    def signal_group(self, process: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to the process group of ``process``. Return whether it was there."""
        ...

    def signal_leader(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to the leader of a session, or to all that it left. Return whether anybody got it."""
        ...

    def signal_session(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        """Send a signal to all processes of a session. Return whether anybody got it."""
        ...

    def spawn(self, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
        """Start ``command`` in a session of its own. Return its identity, or None if it was gone at once."""
        ...

    def left_on_yarn(self, application: YarnApplication) -> str:
        """Return what is left of an application on YARN, for people; empty if nothing is."""
        ...

    def kill_on_yarn(self, application: YarnApplication) -> str:
        """Kill an application on YARN. Return what went wrong, for people."""
        ...

    def place_marker(self, location: str, text: str) -> None:
        """Write the marker file that asks an untracked job to stop."""
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

    # A driver has neither fsspec nor httpx: what needs them is imported late.

    def left_on_yarn(self, application: YarnApplication) -> str:
        """Return what is left of an application on YARN; see ``jobs.yarn``."""
        from airflow_provider_offsets.jobs import yarn

        return yarn.left_on_yarn(application)

    def kill_on_yarn(self, application: YarnApplication) -> str:
        """Kill an application on YARN; see ``jobs.yarn``."""
        from airflow_provider_offsets.jobs import yarn

        return yarn.kill_on_yarn(application)

    def place_marker(self, location: str, text: str) -> None:
        """Write a marker file; see ``jobs.marker``."""
        from airflow_provider_offsets.jobs import marker

        marker.place_marker(location, text)

    def remove_marker(self, location: str) -> None:
        """Remove a marker file; see ``jobs.marker``."""
        from airflow_provider_offsets.jobs import marker

        marker.remove_marker(location)


_machine: Machine = LocalMachine()


def machine() -> Machine:
    """Return the machine that is installed: the local one, unless a simulation installed another."""
    return _machine


@contextmanager
def installed(other: Machine) -> Iterator[None]:
    """Let this process run on another machine, as a simulation does."""
    global _machine
    before, _machine = _machine, other
    try:
        yield
    finally:
        _machine = before
