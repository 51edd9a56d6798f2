"""A client-mode driver that outlives the task that launched it.

The Spark provider's own hook waits for its child process and kills it with SIGKILL when the task ends. A child that has
its own session, its own log file and no pipe to the task keeps running.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.core.epoch import ProcessIdentity

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Launch:
    """A launched driver, as the control store records it."""

    id: str
    process: ProcessIdentity | None
    """None if the process had ended before it could be identified."""
    log: str

    @property
    def is_alive(self) -> bool:
        """Whether spark-submit still runs. False if it runs on another host: then epoch and heartbeat decide."""
        return self.process is not None and bool(machine().is_alive(self.process))

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the driver's log, without empty lines and without Spark's INFO lines."""
        try:
            with Path(self.log).open("rb") as file:
                file.seek(max(0, os.path.getsize(self.log) - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        said = [line for line in text.splitlines() if line.strip() and " INFO " not in line]
        return "\n".join(said[-lines:])


def launch(launch_id: str, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> Launch:
    """Start ``command`` in a session of its own, and return the launch.

    :param launch_id: id of the launch in the control store.
    :param command: argument vector of the job.
    :param log: path of the file that the command writes its output to.
    :param env: the complete environment of the driver.
    :raises FileNotFoundError: the program is not on the PATH.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return Launch(launch_id, machine().spawn(command, log=log, env=env), log)
