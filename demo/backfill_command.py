"""``airflow backfill create``, repeated while Airflow's SQLite database is locked."""

import os
import subprocess
import time
from collections.abc import Mapping

from demo import fresh
from demo.airflow_api import Airflow
from demo.progress import DemoFailed

RETRY_TIMEOUT_S = 300.0
LOCKED = "database is locked"


def create_backfill(airflow: Airflow, env: Mapping[str, str], first: str, last: str, *more: str) -> list[str]:
    """Create a backfill between two dates with two runs at a time, and return the command.

    SQLite fails at once, whatever its timeout, if another transaction of Airflow has written meanwhile. Some of the
    runs may then exist: they are cancelled, and the next try creates them again. The DAG is paused until all runs
    exist, so no run starts before.

    :param env: environment variables of Airflow.
    :param first: first date of the backfill, as ``YYYY-MM-DD``.
    :param last: last date of the backfill.
    :param more: further arguments of the command.
    :raises DemoFailed: Airflow refused the command.
    """
    argv = ["airflow", "backfill", "create", "--dag-id", airflow.dag_id, "--from-date", first, "--to-date", last]
    argv += ["--max-active-runs", "2", "--reprocess-behavior", "completed", *more]
    deadline = time.monotonic() + RETRY_TIMEOUT_S
    airflow.pause()
    while True:
        airflow.cancel_backfills()
        done = subprocess.run(
            argv, cwd=fresh.ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            airflow.unpause()
            return argv
        if LOCKED not in done.stdout + done.stderr or time.monotonic() > deadline:
            raise DemoFailed(f"{' '.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
