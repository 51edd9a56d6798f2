"""The steps of the demo: start the job, feed it, take it through two maintenances, and check."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from confluent_kafka.admin import AdminClient, NewPartitions

import stack
from airflow_provider_offsets.kafka.calls import open_clients
from airflow_provider_offsets.kafka.reader import KafkaReader
from demo import DAG_ID, PARTITIONS_AFTER, PARTITIONS_BEFORE, TOPIC, check, cloudera_rows, fresh
from demo.airflow_api import Airflow
from demo.feed import Feed, Flight, read_flights
from demo.progress import DemoFailed, Progress, wait_for
from demo.runs import Runs, Tasks
from demo.sink_command import sink_verdict

PACE_S = 150
"""Time constant of the feed (s) during the maintenances; the rest follows as fast as Kafka accepts it."""
WINDOW_S = 600
"""Longest stop in the first maintenance, in seconds. The demo ends it once the new partitions have records."""
WINDOW = "wait_out_window"
SHIFT = -1_000
OUTPUT = fresh.FOLDER / "output.db"


class Story:
    """One run of the demo.

    :param store: ``sqlite`` or ``hbase``.
    """

    def __init__(self, store: str, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._say = progress.say
        self._feed: Feed | None = None

    def tell(self) -> bool:
        """Run the demo from beginning to end, print its verdict, and return whether the check found no problem.

        :raises DemoFailed: a step failed or timed out.
        """
        flights = _Reading()
        self._bring_up()
        self._begin_afresh()
        self._feed_with(flights.result())
        self._maintain("first start", {})
        self._wait("the first 10,000 records to be processed", lambda: self._readings() >= 10_000, limit_s=300)
        self._maintain("maintenance 1", {"window_s": WINDOW_S}, when_stopped=self._grow_topic)
        self._wait("1,000 records of every partition to be processed", self._can_shift, limit_s=300)
        self._maintain("maintenance 2", {"start": f"shift:{SHIFT}"})
        self._finish_feeding()
        return self._check()

    def leave(self) -> None:
        """Stop the feed if it runs. Servers and job keep running."""
        if self._feed is not None:
            self._feed.stop()

    def _bring_up(self) -> None:
        bring_up(["kafka", *(["hbase"] if self._store == "hbase" else []), "airflow"], self._store, self._say)
        endpoints = stack.endpoints()
        self._bootstrap = endpoints["kafka"]["bootstrap_servers"]
        self._env = endpoints["airflow"]["env"]
        self._url = store_url(self._env)
        self._admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 4})
        self._airflow = Airflow(endpoints["airflow"]["url"], DAG_ID)

    def _begin_afresh(self) -> None:
        try:
            wait_for(f"DAG {DAG_ID} in Airflow", self._airflow.is_known, limit_s=300)
        except DemoFailed as error:
            raise DemoFailed("\n".join([str(error), *self._airflow.import_errors()])) from error
        fresh.end_earlier_runs(self._airflow, self._progress)
        fresh.stop_earlier_jobs(self._progress)
        fresh.remake_topic(self._admin)
        fresh.clear_files()
        fresh.create_store(self._url)
        fresh.clear_store(self._url)
        self._airflow.unpause()
        self._say(f"fresh: topic {TOPIC} with {PARTITIONS_BEFORE} partitions, store {self._url}")

    def _feed_with(self, flights: list[Flight]) -> None:
        self._feed = Feed(self._bootstrap, TOPIC, flights, pace_s=PACE_S)
        self._feed.start()
        self._runs = Runs(self._airflow, self._progress, self._feed.check)
        self._say(f"feeding {self._feed.total:,} flights of 2013, {self._feed.total // PACE_S:,} a second at first")

    def _maintain(
        self, name: str, params: dict[str, Any], *, when_stopped: Callable[[str], None] | None = None
    ) -> None:
        """Trigger one run of the DAG and follow it to its end; call ``when_stopped`` once its stop has succeeded."""
        left = [when_stopped] if when_stopped is not None else []

        def watch(run_id: str, tasks: Tasks) -> None:
            if left and tasks["stop"]["state"] == "success":
                left.pop()(run_id)

        self._runs.trigger(name, params, limit_s=900, watch=watch)

    def _grow_topic(self, run_id: str) -> None:
        """Add partitions while the job is stopped, and wait for records in each of them before the resubmit."""
        self._admin.create_partitions([NewPartitions(TOPIC, PARTITIONS_AFTER)])[TOPIC].result(timeout=120)
        self._require_not_started(run_id, "replan", "the topic had grown")
        self._say(f"the topic grew from {PARTITIONS_BEFORE} to {PARTITIONS_AFTER} partitions, with the job stopped")

        def filled() -> dict[int, int] | None:
            ends = self._ends()
            self._require_not_started(run_id, "submit", "every new partition had records")
            new = {partition: ends.get(partition, 0) for partition in range(PARTITIONS_BEFORE, PARTITIONS_AFTER)}
            return new if all(new.values()) else None

        new = self._wait("records in the new partitions", filled, limit_s=300)
        counts = ", ".join(f"{count:,} in partition {partition}" for partition, count in new.items())
        self._say(f"the new partitions have records before the resubmit: {counts}")
        self._wait("the maintenance window to be open", lambda: self._window(run_id) == "deferred", limit_s=300)
        self._airflow.end_task(run_id, WINDOW)
        self._say("ended the maintenance window")

    def _window(self, run_id: str) -> str:
        return str(self._airflow.tasks(run_id)[WINDOW]["state"])

    def _require_not_started(self, run_id: str, task_id: str, event: str) -> None:
        if self._airflow.tasks(run_id)[task_id]["start_date"] is not None:
            raise DemoFailed(f"{task_id} began before {event}: this run shows nothing; the window is {WINDOW_S} s")

    def _ends(self) -> dict[int, int]:
        """Return the end offset of each partition, waiting until a new partition has a leader."""
        with open_clients({"bootstrap.servers": self._bootstrap, "log_level": 4}) as clients:
            return KafkaReader(clients).live_topics((TOPIC,)).end.of_topic(TOPIC)

    def _readings(self) -> int:
        """Return the number of reads in the evidence, whose rows are never removed."""
        return self._ask_output("SELECT coalesce(max(rowid), 0) FROM evidence")

    def _can_shift(self) -> bool:
        counted = self._ask_output(
            "SELECT count(*) FROM (SELECT partition FROM evidence GROUP BY partition HAVING count(*) > ?)", -SHIFT
        )
        return counted == PARTITIONS_AFTER

    def _ask_output(self, query: str, *values: int) -> int:
        if not OUTPUT.exists():
            return 0
        with closing(sqlite3.connect(f"file:{OUTPUT}?mode=ro", uri=True, timeout=30)) as database:
            try:
                return int(database.execute(query, values).fetchone()[0])
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return 0
                raise

    def _finish_feeding(self) -> None:
        assert self._feed is not None
        self._say(f"feeding the rest: {self._feed.acknowledged:,} of {self._feed.total:,} so far")
        self._feed.hurry()
        self._wait("Kafka to acknowledge every flight", self._feed.is_done, limit_s=600)
        total = self._feed.total
        self._say(f"Kafka has acknowledged all {total:,}")
        said = self._progress.seconds

        def processed() -> bool:
            nonlocal said
            count = self._ask_output("SELECT count(*) FROM alerts")
            if self._progress.seconds > said + 5 or count == total:
                said = self._progress.seconds
                self._say(f"processed {count:,} of {total:,}")
            return count == total

        self._wait("the job to process every record", processed, limit_s=900)

    def _wait(self, what: str, look: Callable[[], Any], *, limit_s: float, every_s: float = 0.5) -> Any:
        assert self._feed is not None
        return wait_for(what, look, limit_s=limit_s, every_s=every_s, meanwhile=self._feed.check)

    def _check(self) -> bool:
        assert self._feed is not None
        self._say("the check: every record of the topic against the job's evidence")
        there = check.read_topic(self._bootstrap, TOPIC)
        first_start, *maintenances = check.read_maintenances(self._airflow, self._runs.ids, OUTPUT)
        announced = [each for run in (first_start, *maintenances) for each in run.announced]
        found = check.judge(there, check.read_evidence(OUTPUT), announced)
        against = [*check.problems(found, check.read_alerts(OUTPUT), there), *self._shape_problems(there)]
        if self._store == "hbase":
            against += self._cloudera_problems()
        self._say("the sink: its table of batches against the history")
        if (sink := sink_verdict(self._env)) != "proven":
            against.append(f"the sink is {sink}")
        print(f"\n{check.table(found, maintenances)}\n")
        for problem in against:
            print(f"PROBLEM: {problem}")
        print(f"The DAG, its plans and audits: {self._airflow.page} · servers and job stay up until make down")
        print(check.verdict(check.total(found.values()), maintenances[0].downtime_s, sink), flush=True)
        return not against

    def _shape_problems(self, there: Mapping[check.Place, set[int]]) -> list[str]:
        assert self._feed is not None
        found = []
        if len(there) != PARTITIONS_AFTER or not all(there.values()):
            found.append(f"the topic has {len(there)} partitions with records, and should have {PARTITIONS_AFTER}")
        if (count := sum(map(len, there.values()))) != self._feed.acknowledged:
            found.append(f"the topic has {count:,} records, and Kafka acknowledged {self._feed.acknowledged:,}")
        return found

    def _cloudera_problems(self) -> list[str]:
        """Return what in the store's HBase table, read with happybase, differs from Cloudera's row layout."""
        ends = self._ends()

        def newest_is_last() -> list[cloudera_rows.Row]:
            rows = cloudera_rows.read_rows(self._url)
            ours = cloudera_rows.of_demo(rows)
            return rows if ours and not cloudera_rows.foreign(ours) and cloudera_rows.offsets(ours[-1]) == ends else []

        try:
            rows = self._wait("the newest row of HBase to name the topic's ends", newest_is_last, limit_s=120)
        except DemoFailed as error:
            return [str(error), *cloudera_rows.foreign(cloudera_rows.read_rows(self._url))[:5]]
        ours = cloudera_rows.of_demo(rows)
        key, cells = ours[-1]
        shown = " ".join(f"{cell.decode()}={value.decode()}" for cell, value in sorted(cells.items()))
        self._say(
            f"HBase, read with happybase: {len(ours)} rows in the Cloudera row layout;"
            f" the newest: {key.decode()} {shown}"
        )
        return [f"not in the Cloudera row layout: {each}" for each in cloudera_rows.foreign(rows)[:5]]


class _Reading:
    """A thread that reads the flights while the servers start."""

    def __init__(self) -> None:
        self._flights: list[Flight] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="flights", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._flights = read_flights()
        except BaseException as error:  # raised in result()
            self._error = error

    def result(self) -> list[Flight]:
        """Return the flights, waiting for them if necessary."""
        self._thread.join()
        if self._error is not None:
            raise DemoFailed(f"the flights cannot be read: {self._error!r}") from self._error
        return self._flights


def bring_up(servers: Sequence[str], store: str, say: Callable[[str], None]) -> None:
    """Start the servers that are not running, and wait until they respond.

    :param servers: names of the servers.
    :param store: ``sqlite`` or ``hbase``.
    :param say: prints one line of progress.
    :raises DemoFailed: a server did not start.
    """
    argv = [sys.executable, "-m", "stack", "up", *servers, "--store", store]
    with subprocess.Popen(
        argv, cwd=fresh.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as starting:
        assert starting.stdout is not None
        for line in starting.stdout:
            say(line.rstrip())
    if starting.returncode != 0:
        raise DemoFailed("the servers did not come up")


def store_url(env: Mapping[str, str]) -> str:
    """Return the store's URL, from the connection that the stack set for Airflow."""
    name = "AIRFLOW_CONN_OFFSETS_DEFAULT"
    if name not in env:
        raise DemoFailed(
            f"{name} is set in the environment ({len(os.environ[name])} characters); unset it for the demo"
        )
    return str(json.loads(env[name])["extra"]["url"])
