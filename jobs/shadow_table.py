"""A table that replays change only after their audit: they write to a shadow table, which is swapped in at once.

This example uses SQLite and needs only transactions, so any database with transactions will do. The program calls
``write_live`` and ``write_replay``; the DAG calls ``swap`` once the audit of a run has succeeded.

People read ``alerts``. ``alerts_replayed`` has the rows of replays by run id, and ``replays`` has the ranges that each
run has written. A range is swapped as a whole, so rows that the new program no longer creates disappear.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

ROW = "topic TEXT, partition INTEGER, offset INTEGER, flight TEXT, delay_minutes REAL, verdict TEXT"
TABLES = f"""
CREATE TABLE IF NOT EXISTS alerts ({ROW}, PRIMARY KEY (topic, partition, offset));
CREATE TABLE IF NOT EXISTS alerts_replayed (run_id TEXT, {ROW}, PRIMARY KEY (run_id, topic, partition, offset));
CREATE TABLE IF NOT EXISTS replays (
    run_id TEXT, topic TEXT, partition INTEGER, first INTEGER, past INTEGER,
    PRIMARY KEY (run_id, topic, partition, first)
);
"""


def create(output: Path) -> None:
    """Create the tables that do not exist."""
    with closing(sqlite3.connect(output, timeout=30)) as database:
        database.executescript(TABLES)


def write_live(output: Path, rows: Iterable[tuple]) -> None:
    """Write one batch of the live job in one transaction."""
    with closing(sqlite3.connect(output, timeout=30)) as database, database:
        database.executemany("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?, ?)", rows)


def write_replay(output: Path, run_id: str, ranges: Iterable[tuple], rows: Iterable[tuple]) -> None:
    """Write one shard in one transaction. A retry of the shard replaces the rows of its earlier try.

    :param ranges: ``(topic, partition, start, end)`` of what the shard reads.
    """
    with closing(sqlite3.connect(output, timeout=30)) as database, database:
        for topic, partition, start, end in ranges:
            database.execute(
                "DELETE FROM alerts_replayed WHERE run_id = ? AND topic = ? AND partition = ?"
                " AND offset >= ? AND offset < ?",
                (run_id, topic, partition, start, end),
            )
            database.execute(
                "INSERT OR REPLACE INTO replays VALUES (?, ?, ?, ?, ?)", (run_id, topic, partition, start, end)
            )
        database.executemany(
            "INSERT INTO alerts_replayed VALUES (?, ?, ?, ?, ?, ?, ?)", [(run_id, *row) for row in rows]
        )


def swap(output: Path, run_id: str) -> int:
    """Replace the rows of a run's ranges by the rows of the run, in one transaction; return how many were inserted.

    Safe to repeat: once swapped, a run has no ranges left.
    """
    with closing(sqlite3.connect(output, timeout=30)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "DELETE FROM alerts WHERE EXISTS (SELECT 1 FROM replays AS r WHERE r.run_id = ? AND r.topic = alerts.topic"
            " AND r.partition = alerts.partition AND alerts.offset >= r.first AND alerts.offset < r.past)",
            (run_id,),
        )
        swapped = database.execute(
            "INSERT INTO alerts SELECT topic, partition, offset, flight, delay_minutes, verdict"
            " FROM alerts_replayed WHERE run_id = ?",
            (run_id,),
        ).rowcount
        for table in ("alerts_replayed", "replays"):
            database.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))  # noqa: S608  # a name from above
    return swapped
