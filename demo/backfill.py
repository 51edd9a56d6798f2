"""``make demo-backfill``: a program with a bug processed January 2013 live, and the fixed program backfills the month.

Run with ``python -m demo.backfill``. The month has five intervals of a week. ``airflow backfill create`` runs two of
them at a time, while the live job continues with the fixed program. The check shares no code with the package: it reads
the topic, the table, and the evidence of what was read.
"""

import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import httpx
from confluent_kafka.admin import AdminClient
from tabulate import tabulate

import stack
from demo import PIPELINE, TOPIC, check, fresh
from demo.airflow_api import UNFINISHED, Airflow
from demo.backfill_command import create_backfill
from demo.feed import Feed, read_flights
from demo.progress import DemoFailed, Progress, wait_for
from demo.sink_command import sink_verdict
from demo.story import OUTPUT, bring_up, store_url

END_MS = int(datetime(2013, 2, 1, 5, tzinfo=UTC).timestamp() * 1000)
"""End of January 2013 in New York."""
FROM, TO = "2012-12-30", "2013-01-31"
WITH_BUG = "delay_alerts_with_bug.py"
VERDICTS = ("cancelled", "on time", "late", "very late")
READINGS = "SELECT count(*) FROM evidence WHERE (epoch = 0) = ?"
"""Counts the rows of evidence. Replays hold no epoch, so their evidence has epoch 0."""

Place = tuple[int, int]
"""Partition and offset."""


class BackfillStory:
    """One run of the demo."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._say = progress, progress.say
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")

    def tell(self) -> bool:
        """Run the demo from beginning to end, print its verdict, and return whether the check found no problem.

        :raises DemoFailed: a step failed or timed out.
        """
        bring_up(["kafka", "airflow"], "sqlite", self._say)
        endpoints = stack.endpoints()
        self._bootstrap = endpoints["kafka"]["bootstrap_servers"]
        self._env = dict(endpoints["airflow"]["env"])
        self._dags = {
            kind: Airflow(endpoints["airflow"]["url"], f"{kind}__{PIPELINE}")
            for kind in ("maintenance", "reprocess", "backfill")
        }
        self._begin_afresh()
        total = self._feed()

        self._run("reprocess", {"start": "earliest", "application": WITH_BUG, "reason": "ship the bug"})
        self._wait_for_readings(live=True, total=total)
        before = self._table()
        self._say(f"{WITH_BUG} has processed January: {total:,} flights")
        self._run("maintenance", {"reason": "the fixed program"})
        self._backfill()
        self._wait_for_readings(live=False, total=total)
        return self._check(before, sink_verdict(self._env))

    def _begin_afresh(self) -> None:
        for airflow in self._dags.values():
            try:
                wait_for(f"DAG {airflow.dag_id} in Airflow", airflow.is_known, limit_s=300)
            except DemoFailed as error:
                raise DemoFailed("\n".join([str(error), *airflow.import_errors()])) from error
            fresh.end_earlier_runs(airflow, self._progress)
        fresh.stop_earlier_jobs(self._progress)
        fresh.remake_topic(AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 4}))
        fresh.clear_files()
        url = store_url(self._env)
        fresh.create_store(url)
        fresh.clear_store(url)
        for airflow in self._dags.values():
            airflow.unpause()
        self._say(f"fresh: topic {TOPIC}, store {url}")

    def _feed(self) -> int:
        feed = Feed(self._bootstrap, TOPIC, [each for each in read_flights() if each.scheduled_ms < END_MS], pace_s=1)
        feed.start()
        feed.hurry()
        wait_for("Kafka to acknowledge every flight", feed.is_done, limit_s=600, meanwhile=feed.check)
        self._say(f"Kafka has the {feed.total:,} flights of January 2013, with the times of their departures")
        return feed.total

    def _run(self, kind: str, params: dict[str, str]) -> None:
        airflow, run_id = self._dags[kind], f"demo-{self._stamp}"
        airflow.trigger(run_id, params)
        self._say(f"{airflow.dag_id}: triggered, {json.dumps(params)}")
        self._follow(airflow, run_id)
        submitted = airflow.result(run_id, "submit") or {}
        self._say(f"{airflow.dag_id}: epoch {submitted.get('epoch')}, {submitted.get('how')}")

    def _follow(self, airflow: Airflow, run_id: str) -> None:
        state = wait_for(
            f"{airflow.dag_id} to end",
            lambda: None if (found := airflow.state(run_id)) in UNFINISHED else found,
            limit_s=900,
        )
        if state != "success":
            failed = [each["task_id"] for each in airflow.tasks(run_id).values() if each["state"] == "failed"]
            logs = "\n".join(airflow.log_tail(run_id, each) for each in failed)
            raise DemoFailed(f"{airflow.dag_id}, run {run_id}: {state}; {', '.join(failed)}\n{logs}")

    def _backfill(self) -> None:
        """Backfill with Airflow's command line, as a person would, and follow all runs to their end."""
        airflow = self._dags["backfill"]
        began = datetime.now(UTC)
        self._say(" ".join(create_backfill(airflow, self._env, FROM, TO)))
        counted: set[str] = set()

        def runs() -> list[str] | None:
            all_runs = [each for each in airflow.runs() if each["run_type"] == "backfill" and _is_new(each, began)]
            for each in all_runs:
                run_id = each["dag_run_id"]
                if each["state"] == "success" and run_id not in counted:
                    counted.add(run_id)
                    self._say(f"{run_id}: {self._audited(run_id)}")
                if each["state"] == "failed":
                    self._follow(airflow, run_id)
            over = len(all_runs) == len(self._weeks()) and all(each["state"] == "success" for each in all_runs)
            return sorted(counted) if over else None

        found = wait_for("the backfill to end", runs, limit_s=1800, every_s=2)
        self._say(f"{len(found)} intervals are replayed")

    @staticmethod
    def _weeks() -> range:
        """Return one entry per Sunday from FROM to TO."""
        return range(0, (datetime.fromisoformat(TO) - datetime.fromisoformat(FROM)).days + 1, 7)

    def _audited(self, run_id: str) -> str:
        found = self._dags["backfill"].result(run_id, "audit_backfill") or {}
        return ", ".join(f"{key} {value}" for key, value in found.items() if isinstance(value, int))

    def _wait_for_readings(self, *, live: bool, total: int) -> None:
        def all_read() -> bool:
            return OUTPUT.exists() and self._ask(READINGS, 0 if live else 1)[0][0] >= total

        wait_for(f"{total:,} records to be read", all_read, limit_s=900, every_s=1)

    def _table(self) -> Counter[str]:
        return Counter(dict(self._ask("SELECT verdict, count(*) FROM alerts GROUP BY verdict")))

    @staticmethod
    def _ask(query: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(f"file:{OUTPUT}?mode=ro", uri=True, timeout=30)) as database:
            try:
                return database.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return [(0,)]
                raise

    def _check(self, before: Counter[str], sink: str) -> bool:
        self._say("the check: every record of the topic against the table, and the evidence of what was read")
        wanted = _expected(self._bootstrap)
        rows = {
            (partition, offset): verdict
            for partition, offset, verdict in self._ask("SELECT partition, offset, verdict FROM alerts")
        }
        live, replayed = (self._readings(epoch_is_0=each) for each in (False, True))
        lost = (
            len(wanted.keys() - rows.keys()) + len(wanted.keys() - live.keys()) + len(wanted.keys() - replayed.keys())
        )
        duplicated = sum(count - 1 for readings in (live, replayed) for count in readings.values())
        wrong = sum(verdict != wanted.get(place) for place, verdict in rows.items())
        after, right = self._table(), Counter(wanted.values())
        table = [(verdict, before[verdict], after[verdict], right[verdict]) for verdict in VERDICTS]
        print(f"\n{tabulate(table, ('verdict', 'before', 'after', 'by the check'), intfmt=',')}\n")
        changed = sum(abs(before[each] - right[each]) for each in VERDICTS) // 2
        print(f"The bug had at least {changed:,} flights wrong. {self._dags['backfill'].page} · make down stops all")
        print(
            f"verdict: lost={lost} duplicated={duplicated} wrong={wrong} records={len(wanted)} sink={sink}", flush=True
        )
        return not (lost or duplicated or wrong) and changed > 0 and sink == "proven"

    def _readings(self, *, epoch_is_0: bool) -> Counter[Place]:
        query = "SELECT partition, offset FROM evidence WHERE (epoch = 0) = ?"
        return Counter(self._ask(query, int(epoch_is_0)))


def _is_new(run: dict, began: datetime) -> bool:
    """Return whether a run was queued after the backfill began. A reprocessed run keeps its id."""
    queued = run.get("queued_at") or run.get("run_after")
    return datetime.fromisoformat(queued) >= began


def _expected(bootstrap: str) -> dict[Place, str]:
    """Read the topic with a plain consumer, and return the correct verdict of each record, computed here."""
    return {
        (partition, offset): _verdict(json.loads(value)["dep_delay"])
        for partition, offset, value in check.read_values(bootstrap, TOPIC)
    }


def _verdict(delay: float | None) -> str:
    if delay is None:
        return "cancelled"
    return "on time" if delay < 15 else "late" if delay < 60 else "very late"


def main() -> int:
    """Run the demo and return the exit code: 0 only if no record is lost, duplicated or wrong."""
    progress = Progress()
    try:
        return 0 if BackfillStory(progress).tell() else 1
    except (DemoFailed, check.CheckImpossible, httpx.HTTPError) as error:
        progress.say(f"the demo failed: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
