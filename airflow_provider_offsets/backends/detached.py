"""A client-mode driver that outlives the task that launched it.

The Spark provider's own hook waits for its child process and kills it with SIGKILL when the task ends. A child that has
its own session, its own log file and no pipe to the task keeps running.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.core.epoch import ProcessIdentity

TAIL_BYTES = 64 * 1024


_IVY = re.compile(
    r"^:: loading settings ::.*?(^:: USE VERBOSE[^\n]*|artifacts copied[^\n]*|\Z)", re.DOTALL | re.MULTILINE
)
"""What Ivy prints while spark-submit fetches the packages of a job: a line for each address that it tries."""


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
        """Return the last lines of the driver's log that :func:`said` keeps."""
        return said(self._log_end(), lines)

    @property
    def is_fetching_packages(self) -> bool:
        """Whether spark-submit still downloads the packages of the job, as far as the log shows."""
        log = self._log_end()
        return log.rfind(":: resolving dependencies ::") > log.rfind(":: resolution report ::")

    def _log_end(self) -> str:
        try:
            with Path(self.log).open("rb") as file:
                file.seek(max(0, os.path.getsize(self.log) - TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def said(text: str, lines: int = 20) -> str:
    """Return the last lines of a log that tell something: warnings, errors and what the program prints.

    Empty lines, Spark's INFO lines and what Ivy prints are omitted. If packages cannot be fetched, the error after
    Ivy's lines names them.

    :param text: the log.
    :param lines: greatest number of lines.
    """
    kept = [line for line in _IVY.sub("", text).splitlines() if line.strip() and " INFO " not in line]
    return "\n".join(kept[-lines:])


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
