"""Claim a launch for a program that has no notion of epochs, then become that program.

Usage: ``python -m airflow_provider_offsets.runtime.claiming <settings file> spark-submit …``

The claiming process itself becomes spark-submit: ``exec`` keeps the pid and its start time. So a launch of an untracked
job has the guarantees of a tracked driver:

- of two processes started for one launch, only one claims the launch;
- no process claims a launch that was cancelled;
- the holder of an epoch is the process that runs the job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.record.events import ClaimLaunch
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.runtime.retry import retry
from airflow_provider_offsets.runtime.settings import Settings, take_settings
from airflow_provider_offsets.stores import open_store


def claiming_command(settings_file: Path, command: Sequence[str]) -> list[str]:
    """Return the argument vector that claims the launch and then becomes ``command``.

    :param settings_file: file with the settings of the launch.
    :param command: argument vector of an untracked job.
    """
    return [sys.executable, "-m", "airflow_provider_offsets.runtime.claiming", str(settings_file), *command]


def main(arguments: Sequence[str]) -> str:
    """Claim the launch and become the program; return the error message if the launch could not be claimed."""
    try:
        settings = take_settings(Path(arguments[0]), Settings)
        claim = ClaimLaunch(settings.claim.tag, machine().this_process(), clock.now_ms())
        store = open_store(settings.secrets.store_url)
        try:
            cell = Control(store, settings.pipeline).cell
            retry(lambda: cell.change(claim), retry_timeout_s=settings.store_retry_timeout_s)
        finally:
            store.close()
    except OffsetsError as error:
        return f"{type(error).__name__}: {error}"
    os.execvp(arguments[1], list(arguments[1:]))  # noqa: S606  # no shell is meant


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
