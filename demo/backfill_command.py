"""``airflow backfill create``, typed as often as an Airflow with SQLite needs."""

import os
import subprocess
import time
from collections.abc import Mapping

from demo import fresh
from demo.airflow_api import Airflow
from demo.progress import DemoFailed

PATIENCE_S = 300.0
LOCKED = "database is locked"


def create_backfill(airflow: Airflow, env: Mapping[str, str], first: str, last: str, *more: str) -> list[str]:
    """Create a backfill from one date to another, two runs at a time; gives what was typed.

    SQLite refuses a transaction that another one of Airflow has overtaken, at once and whatever its timeout. Then a
    part of the runs may be there: they are cancelled, and made anew by the next try. None begins before all are there,
    because the DAG is paused meanwhile.

    :raises DemoFailed: Airflow refused it.
    """
    argv = ["airflow", "backfill", "create", "--dag-id", airflow.dag_id, "--from-date", first, "--to-date", last]
    argv += ["--max-active-runs", "2", "--reprocess-behavior", "completed", *more]
    deadline = time.monotonic() + PATIENCE_S
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
