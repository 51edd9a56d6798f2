"""Remove what an earlier demo left: its runs, job, topic, files and rows. Airflow's records of its runs stay."""

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
"""Checkpoints and output of the job; ``dags/pipelines.yaml`` and ``jobs/delay_alerts.py`` use the same directory."""

EMBEDDED = ROOT / ".stack" / "airflow" / "offsets.db"
"""Store of the control records of pipelines without a store, in the directory of the stack's Airflow."""

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
    """End the demo's job if it runs, with any store: SIGTERM first, SIGKILL if the job does not react.

    The process group contains only spark-submit, its JVM and its Python, because it was launched in its own session.
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
    """Send a signal to the job's process groups, and return whether there were any."""
    found = list(_drivers())
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
            progress.say(f"sent {number.name} to the job of an earlier demo, pid {pid}")
    return bool(found)


def _drivers() -> Iterator[int]:
    """Yield the pids of spark-submit processes of this checkout's jobs.

    These include every version of a program, and the copies that a rollback runs. Each process leads its process group.
    """
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
    """Delete the topic if it exists, and create it."""
    if TOPIC in admin.list_topics(timeout=120).topics:
        admin.delete_topics([TOPIC])[TOPIC].result(timeout=120)
        wait_for(f"topic {TOPIC} to go", lambda: TOPIC not in admin.list_topics(timeout=120).topics, limit_s=120)
    make_topic(admin)


def make_topic(admin: AdminClient) -> None:
    """Create the empty topic, with three partitions that retain their records forever."""
    # The timestamps cover all of 2013. Without retention.ms=-1, Kafka would delete every record within minutes.
    # Without segment.ms, Kafka would start a new segment for every week of records.
    config = {"retention.ms": "-1", "segment.ms": str(20 * 365 * 24 * 3600 * 1000)}
    new = NewTopic(TOPIC, num_partitions=PARTITIONS_BEFORE, replication_factor=1, config=config)
    admin.create_topics([new])[TOPIC].result(timeout=120)
    wait_for(f"topic {TOPIC} to come", lambda: TOPIC in admin.list_topics(timeout=120).topics, limit_s=120)


def clear_files() -> None:
    """Remove checkpoints and output of the job."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)


def create_store(url: str) -> None:
    """Create the store's tables with the package's command line, as a person would.

    :raises DemoFailed: the command failed; the message has its output.
    """
    argv = [sys.executable, "-m", "airflow_provider_offsets.stores", "create", url]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DemoFailed(f"the store cannot be created (make clean removes what is there): {ended.stderr.strip()}")


def clear_store(url: str) -> None:
    """Remove the rows of the demo's pipelines from their store and from the default store.

    Rows of other pipelines stay.
    """
    if EMBEDDED.exists():
        _clear_sqlite(EMBEDDED)
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        _clear_sqlite(Path(url.removeprefix("sqlite:///")))
    else:
        _clear_hbase(parts.hostname or "", parts.port or 9090, parts.path[1:])


_TABLES = {"offsets_batches": "group_id", "offsets_prepared": "group_id", "offsets_control": "pipeline"}
"""Tables of a SQLite store, and the column that identifies a row's owner. An older file may lack a table."""


def _clear_sqlite(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, column in _TABLES.items():
            for name in PIPELINES if table in tables else ():
                database.execute(f"DELETE FROM {table} WHERE {column} = ?", [name])  # noqa: S608 - our own names


def _clear_hbase(host: str, port: int, table: str) -> None:
    import happybase

    ours = {table: _ROW_KEY, f"{table}_batches": _ROW_KEY, f"{table}_control": re.compile(f"{PIPELINE}:".encode())}
    with closing(happybase.Connection(host, port)) as connection:
        for name, pattern in ours.items():
            rows = connection.table(name)
            keys = [key for key, _ in rows.scan() if pattern.match(key)]
            with rows.batch() as batch:
                for key in keys:
                    batch.delete(key)


_ROW_KEY = re.compile(f"{TOPIC}:{PIPELINE}:[0-9]{{13}}$".encode())
