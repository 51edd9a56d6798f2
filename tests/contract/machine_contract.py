"""The contract of every ``Machine`` for processes, run against this machine and against the simulation's process table.

A subclass defines the fixture ``place``, which starts and ends processes as a machine does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import pytest

from airflow_provider_offsets.backends.machine import Machine
from airflow_provider_offsets.core.epoch import ProcessIdentity


class Place(Protocol):
    """One host with its machine."""

    machine: Machine

    def start(self) -> ProcessIdentity:
        """Start a process that leads a session, as a driver is launched, and that waits."""
        ...

    def start_with_helper(self, *, in_its_group: bool = False) -> tuple[ProcessIdentity, ProcessIdentity]:
        """Start such a process with a second one in its session, like Spark's JVM with the Python program that it runs.

        :param in_its_group: whether the second process is in the same process group too.
        """
        ...

    def end(self, process: ProcessIdentity, *, is_waited_for: bool) -> None:
        """End only this process. A parent that does not wait for it leaves a zombie."""
        ...

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until the condition holds: a signal takes a moment."""
        ...


STRANGERS: list[tuple[str, Callable[[ProcessIdentity], dict[str, Any]], bool | None]] = [
    ("the pid was given away", lambda it: {"start_ticks": it.start_ticks - 1}, False),
    ("the machine was started anew", lambda it: {"boot_id": "another"}, False),
    (
        "the machine was started anew, and so was its container",
        lambda it: {"boot_id": "another", "namespaces": ("pid:[1]", *it.namespaces[1:])},
        False,
    ),
    ("another machine has this host name", lambda it: {"boot_id": "another", "machine_id": "another"}, None),
    (
        "a container of this host name on another machine",
        lambda it: {"boot_id": "another", "machine_id": "another", "namespaces": ("pid:[1]", "uts:[1]", "net:[1]")},
        None,
    ),
    ("nobody knows its machine", lambda it: {"boot_id": "another", "machine_id": ""}, None),
    ("it is on another machine: nobody can tell", lambda it: {"host": "elsewhere.example"}, None),
    (
        "another container on the machine's network",
        lambda it: {"namespaces": ("pid:[1]", "uts:[1]", it.namespaces[2])},
        None,
    ),
    (
        "a service with PIDs and a network of its own",
        lambda it: {"namespaces": ("pid:[1]", it.namespaces[1], "net:[1]")},
        None,
    ),
    ("nobody knows its namespaces", lambda it: {"namespaces": ()}, None),
    ("its container was started again", lambda it: {"namespaces": ("pid:[1]", "uts:[1]", "net:[1]")}, False),
]
SIGNALS = ["signal_group", "signal_leader", "signal_session"]


class MachineContract:
    """Subclass it as ``Test…`` and define the fixture ``place``."""

    def states(self, place: Place, process: ProcessIdentity) -> tuple[bool | None, bool | None]:
        return place.machine.is_alive(process), place.machine.is_session_alive(process)

    def signal(self, place: Place, name: str, process: ProcessIdentity) -> bool:
        return bool(getattr(place.machine, name)(process, signal.SIGKILL))

    def test_one_that_was_started_lives(self, place: Place) -> None:
        assert self.states(place, place.start()) == (True, True)

    @pytest.mark.parametrize("is_waited_for", [True, False], ids=["waited for", "a zombie"])
    def test_one_that_ended_does_not(self, is_waited_for: bool, place: Place) -> None:
        known = place.start()

        place.end(known, is_waited_for=is_waited_for)

        assert self.states(place, known) == (False, False)
        assert [self.signal(place, name, known) for name in SIGNALS] == [False, False, False]

    @pytest.mark.parametrize("is_waited_for", [True, False], ids=["waited for", "a zombie"])
    def test_a_session_outlives_its_leader(self, is_waited_for: bool, place: Place) -> None:
        leader, helper = place.start_with_helper()

        place.end(leader, is_waited_for=is_waited_for)

        assert self.states(place, leader) == (False, True)
        assert place.machine.is_alive(helper) is True
        assert self.signal(place, "signal_group", leader) is False, "nobody knows the group of one that is gone"
        assert place.machine.is_alive(helper) is True
        assert self.signal(place, "signal_leader", leader) is True, "what it left gets it"
        place.wait_until(lambda: self.states(place, leader) == (False, False))
        assert self.signal(place, "signal_leader", leader) is False

    def test_the_leader_alone_gets_a_signal(self, place: Place) -> None:
        leader, helper = place.start_with_helper()

        assert self.signal(place, "signal_leader", leader) is True

        place.wait_until(lambda: self.states(place, leader) == (False, True))
        assert place.machine.is_alive(helper) is True

    @pytest.mark.parametrize("name", ["signal_group", "signal_session"])
    def test_the_group_or_the_session_gets_a_signal(self, name: str, place: Place) -> None:
        leader, helper = place.start_with_helper(in_its_group=name == "signal_group")

        assert self.signal(place, name, leader) is True

        place.wait_until(lambda: self.states(place, leader) == (False, False))
        assert place.machine.is_alive(helper) is False

    @pytest.mark.parametrize(("why", "change", "alive"), STRANGERS)
    def test_a_pid_alone_is_not_enough(
        self, why: str, change: Callable[[ProcessIdentity], dict[str, Any]], alive: bool | None, place: Place
    ) -> None:
        known, helper = place.start_with_helper()
        stranger = replace(known, **change(known))

        assert self.states(place, stranger) == (alive, alive)
        assert [self.signal(place, name, stranger) for name in SIGNALS] == [False, False, False]
        assert (place.machine.is_alive(known), place.machine.is_alive(helper)) == (True, True)

    def test_one_in_the_same_pid_namespace_is_seen_whatever_its_network(self, place: Place) -> None:
        """Two containers that share their PIDs see each other's processes."""
        known = place.start()

        beside = replace(known, namespaces=(known.namespaces[0], "uts:[1]", "net:[1]"))

        assert self.states(place, beside) == (True, True)
