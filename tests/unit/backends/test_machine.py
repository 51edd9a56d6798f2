"""The real machine and the simulated one report the same about processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_offsets.backends import process
from airflow_provider_offsets.backends.machine import LocalMachine, Machine
from airflow_provider_offsets.backends.process import identify
from airflow_provider_offsets.core.epoch import ProcessIdentity
from tests.contract.machine_contract import MachineContract, Place
from tests.simulation.platform import Markers, ProcessTable
from tests.simulation.product import SimMachine
from tests.simulation.scheduler import Simulation

LEADS = """
import signal, subprocess, sys
helper = subprocess.Popen(["sleep", "600"], process_group=None if sys.argv[1] == "in its group" else 0)
print(helper.pid, flush=True)
signal.pause()
"""
DEADLINE_S = 60
"""Only a failing test waits this long: a busy machine is no failure."""


class ThisMachine:
    """Real processes, which are children of the test."""

    def __init__(self, folder: Path) -> None:
        self.machine: Machine = LocalMachine()
        self._log, self._started = folder / "log", list[ProcessIdentity]()

    def start(self) -> ProcessIdentity:
        return self._spawn("sleep", "600")

    def start_with_helper(self, *, in_its_group: bool = False) -> tuple[ProcessIdentity, ProcessIdentity]:
        leader = self._spawn(sys.executable, "-c", LEADS, "in its group" if in_its_group else "apart")
        self.wait_until(lambda: self._log.read_text().endswith("\n"))
        helper = identify(int(self._log.read_text()))
        assert helper is not None
        return leader, helper

    def _spawn(self, *command: str) -> ProcessIdentity:
        found = self.machine.spawn(command, log=str(self._log), env=dict(os.environ))
        assert found is not None
        self._started.append(found)
        return found

    def end(self, process: ProcessIdentity, *, is_waited_for: bool) -> None:
        os.kill(process.pid, signal.SIGKILL)
        if is_waited_for:
            os.waitpid(process.pid, 0)
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def clean(self) -> None:
        for each in self._started:
            self.machine.signal_session(each, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(each.pid, 0)


class SimulatedPlace:
    """Actors, and one that observes them from the same host."""

    def __init__(self) -> None:
        self._sim = Simulation()
        self._table = ProcessTable(self._sim, lambda command: self._wait)
        self._inner = SimMachine(self._sim, self._table, Markers(self._sim))
        self.machine = cast(Machine, self)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self._ask(lambda: getattr(self._inner, name)(*arguments, **options))

    def _wait(self) -> None:
        self._sim.wait_for(lambda: False)

    def _ask(self, question: Callable[[], Any]) -> Any:
        asker = self._sim.spawn("asker", question)
        self._sim.run(stops=lambda: asker.is_gone)
        assert asker.error is None
        return asker.result

    def start(self) -> ProcessIdentity:
        return self.machine.spawn(["spark-submit"], log="log", env={})  # type: ignore[return-value]

    def start_with_helper(self, *, in_its_group: bool = False) -> tuple[ProcessIdentity, ProcessIdentity]:
        leader = self.start()
        helper = self._sim.spawn("helper", self._wait)
        self._table.leaders[helper.process] = leader.pid
        return leader, ProcessIdentity(*self._table.identity(helper.process))

    def end(self, process: ProcessIdentity, *, is_waited_for: bool) -> None:
        self._sim.kill_process(process.pid)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        assert holds(), "a signal takes no time here"


class TestLocalMachine(MachineContract):
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        monkeypatch.setattr(process, "_machine_id", lambda: "this machine")  # a container may have none
        made = ThisMachine(tmp_path)
        yield made
        made.clean()


class TestSimulatedMachine(MachineContract):
    @pytest.fixture
    def place(self) -> Place:
        return SimulatedPlace()
