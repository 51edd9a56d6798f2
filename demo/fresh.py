"""A fresh start: nothing of an earlier demo runs, and nothing of it is left but Airflow's own records of its runs."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka.admin import AdminClient, NewTopic

from demo import PARTITIONS_BEFORE, PIPELINE, PIPELINES, TOPIC
from demo.airflow_api import Airflow
from demo.progress import DemoFailed, Progress, wait_for

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".stack" / "demo"
"""Checkpoints and output of the job; ``dags/pipelines.yaml`` and ``jobs/delay_alerts.py`` name the same."""

EMBEDDED = ROOT / ".stack" / "airflow" / "offsets.db"
"""Where pipelines have their control cells that name no store: in the folder of the stack's Airflow."""

_ENDED = ("success", "failed", "upstream_failed", "skipped", "removed", None)


def end_earlier_runs(airflow: Airflow, progress: Progress) -> None:
    """End runs of the DAG that an earlier demo left, and wait until none of their tasks runs."""
    for run_id in airflow.unfinished_runs():
        airflow.end_run(run_id)
        wait_for(
            f"the tasks of run {run_id} to end",
            lambda run_id=run_id: all(task["state"] in _ENDED for task in airflow.tasks(run_id).values()),
            limit_s=300,
        )
        progress.say(f"ended run {run_id} of an earlier demo")


def stop_earlier_jobs(progress: Progress) -> None:
    """End the demo's job if one runs, whichever store it was started with: SIGTERM, and SIGKILL if that is not heard.

    The process group is spark-submit, its JVM and its Python, and nothing else: it was launched in its own session.
    """
    if not _signalled(signal.SIGTERM, progress):
        return
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not list(_drivers()):
            return
        time.sleep(0.2)
    _signalled(signal.SIGKILL, progress)
    wait_for("the job of an earlier demo to end", lambda: not list(_drivers()), limit_s=60)


def _signalled(number: signal.Signals, progress: Progress) -> bool:
    """Send a signal to the job's process groups, and say whether there were any."""
    found = list(_drivers())
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
            progress.say(f"sent {number.name} to the job of an earlier demo, pid {pid}")
    return bool(found)


def _drivers() -> Iterator[int]:
    """The pids of spark-submits of this checkout's jobs, whichever version of a program, and the copies of them that a
    rollback runs. Each leads a process group of its own."""
    wanted = {f"spark.offsets.pipeline={name}" for name in PIPELINES}
    folders = (f"{ROOT / 'jobs'}{os.sep}", f"{ROOT / '.stack' / 'logs' / 'drivers' / 'applications'}{os.sep}")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = set((entry / "cmdline").read_bytes().decode(errors="replace").split("\0"))
            is_ours = wanted & arguments and any(each.startswith(folders) for each in arguments)
            if is_ours and os.getpgid(int(entry.name)) == int(entry.name):
                yield int(entry.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def remake_topic(admin: AdminClient) -> None:
    """Delete the topic if it is there, and create it."""
    if TOPIC in admin.list_topics(timeout=120).topics:
        admin.delete_topics([TOPIC])[TOPIC].result(timeout=120)
        wait_for(f"topic {TOPIC} to go", lambda: TOPIC not in admin.list_topics(timeout=120).topics, limit_s=120)
    make_topic(admin)


def make_topic(admin: AdminClient) -> None:
    """Create the topic, empty, with three partitions that keep their records for ever."""
    # The timestamps are of all of 2013. Without retention.ms=-1 Kafka would delete every record within minutes, and
    # without segment.ms it would begin a new segment for every week of them.
    config = {"retention.ms": "-1", "segment.ms": str(20 * 365 * 24 * 3600 * 1000)}
    new = NewTopic(TOPIC, num_partitions=PARTITIONS_BEFORE, replication_factor=1, config=config)
    admin.create_topics([new])[TOPIC].result(timeout=120)
    wait_for(f"topic {TOPIC} to come", lambda: TOPIC in admin.list_topics(timeout=120).topics, limit_s=120)


def clear_files() -> None:
    """Remove checkpoints and output of the job."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


def create_store(url: str) -> None:
    """Create the store's tables as a person would, with the package's command line.

    :raises DemoFailed: what that command says.
    """
    argv = [sys.executable, "-m", "airflow_provider_offsets.stores", "create", url]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DemoFailed(f"the store cannot be created (make clean removes what is there): {ended.stderr.strip()}")


def clear_store(url: str) -> None:
    """Remove the rows of the demo's pipelines from the store, and from the one of those that name none. Those of
    other pipelines stay."""
    if EMBEDDED.exists():
        _clear_sqlite(EMBEDDED)
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        _clear_sqlite(Path(url.removeprefix("sqlite:///")))
    else:
        _clear_hbase(parts.hostname or "", parts.port or 9090, parts.path[1:])


_TABLES = {"offsets_batches": "group_id", "offsets_prepared": "group_id", "offsets_control": "pipeline"}
"""The tables of a SQLite store, and the column that says whose a row is. An older file lacks one of them."""


def _clear_sqlite(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, column in _TABLES.items():
            for name in PIPELINES if table in tables else ():
                database.execute(f"DELETE FROM {table} WHERE {column} = ?", [name])  # noqa: S608 - our own names


def _clear_hbase(host: str, port: int, table: str) -> None:
    import happybase

    ours = {table: _DECK_KEY, f"{table}_batches": _DECK_KEY, f"{table}_control": re.compile(f"{PIPELINE}:".encode())}
    with closing(happybase.Connection(host, port)) as connection:
        for name, pattern in ours.items():
            rows = connection.table(name)
            keys = [key for key, _ in rows.scan() if pattern.match(key)]
            with rows.batch() as batch:
                for key in keys:
                    batch.delete(key)


_DECK_KEY = re.compile(f"{TOPIC}:{PIPELINE}:[0-9]{{13}}$".encode())
