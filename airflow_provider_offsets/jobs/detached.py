"""A driver in client mode that outlives the task that launched it.

The Spark provider's own hook waits for its child and kills it with SIGKILL when the task ends. A child in a session
of its own, with its own log file and no pipe to the task, goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_offsets.core.epoch import ProcessIdentity
from airflow_provider_offsets.jobs.machine import machine

TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Launch:
    """A launched driver, as the control store remembers it."""

    id: str
    process: ProcessIdentity | None
    """None if the process was gone before it could be looked at."""
    log: str

    @property
    def is_alive(self) -> bool:
        """Say whether spark-submit still lives. False for one launched on another host: its driver is judged by its
        epoch and heartbeat."""
        return self.process is not None and bool(machine().is_alive(self.process))

    def log_tail(self, lines: int = 20) -> str:
        """Give the last lines of the driver's log; Spark's progress chatter of level INFO is left out."""
        try:
            with Path(self.log).open("rb") as file:
                file.seek(max(0, os.path.getsize(self.log) - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        said = [line for line in text.splitlines() if line.strip() and " INFO " not in line]
        return "\n".join(said[-lines:])


def launch(launch_id: str, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> Launch:
    """Start ``command`` in a session of its own, writing to ``log``, and give what is known of it.

    :param env: the whole environment of the driver.
    :raises FileNotFoundError: the program is not on the PATH.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    return Launch(launch_id, machine().spawn(command, log=log, env=env), log)
