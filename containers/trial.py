"""``make compose-test``: containers from nothing, maintenances in which everything is killed once, and the check.

The test has its own project, settings, ports and volumes. So it does not affect an installation, and it removes
everything it created.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewPartitions
from tabulate import tabulate

from containers import base, checks, settings
from containers.compose import Project, docker, images, unwell
from demo import DAG_ID, PARTITIONS_AFTER, PARTITIONS_BEFORE, PIPELINE, TOPIC, check
from demo.airflow_api import Airflow
from demo.progress import DemoFailed, Progress, wait_for
from demo.runs import Runs, Tasks
from stack.places import STATE
from stack.ports import free

NAME = "offsets-trial"
FOLDER = STATE / "compose-test"
SERVICES = (
    "kafka",
    "hbase",
    "postgres",
    "spark-master",
    "spark-worker",
    "init",
    "api-server",
    "scheduler",
    "dag-processor",
    "triggerer",
)
IMAGES = ("kafka", "hbase", "postgres", "spark", "airflow")
OURS = (base.IMAGE, *(f"offsets-{one}:latest" for one in IMAGES))
MEMORY_GIB = 6.0
"""Highest memory usage; the limits allow slightly more."""
RECOVERY = f"recovery__{PIPELINE}"
OUTPUT = "/opt/offsets/.stack/demo/output.db"
WINDOW, WINDOW_S = "wait_out_window", 900
LIMIT_S = 900
FIRST_RECORDS = 10_000


@dataclass(frozen=True)
class Blow:
    """Services to kill and restart, once a task of the second maintenance is in one of these states."""

    task: str
    states: tuple[str, ...]
    services: tuple[str, ...]


BLOWS = (
    Blow("plan", ("running", "success", "up_for_retry"), ("spark-worker", "spark-master")),
    Blow(
        WINDOW, ("deferred",), ("kafka", "hbase", "postgres", "api-server", "dag-processor", "triggerer", "scheduler")
    ),
)
"""Kills each server once: Spark's while batches run and the job is about to stop, the others while it is stopped."""
DEADLY = ("kafka", "hbase", "scheduler")
"""Services that are killed again later, while the job runs. The job may die too, and then has to recover."""

NEWEST_OPERATION = """
import os, sys, time
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.control.pipeline import Control
pipeline, wanted = sys.argv[1:]
control = Control(open_store(os.environ["OFFSETS_STORE_URL"]), pipeline)
deadline = time.monotonic() + 120
while (newest := control.claimed_epoch(control.record()).claim.operation) != wanted and wanted:
    if time.monotonic() > deadline:
        break
    time.sleep(0.05)
print(newest)
"""
"""Prints the operation that claimed the newest launch, after waiting for the wanted operation if there is one."""

ANNOUNCED = """
import json, os, sys
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.control.pipeline import Control
epochs = Control(open_store(os.environ["OFFSETS_STORE_URL"]), sys.argv[1]).epochs()
claimed = [each for each in epochs if each.holder is not None]
print(json.dumps([[a.topic, a.partition, a.start, a.replay, e.number] for e in claimed for a in e.claim.announced]))
"""
"""Prints what the plan of each claimed epoch announced: of a maintenance, a recovery or a rollback."""


@dataclass
class Result:
    """Table of results, printed at the end."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, result: object) -> None:
        """Add a row."""
        self.rows.append((what, str(result)))

    def __str__(self) -> str:
        return str(tabulate(self.rows, ("step", "result"), tablefmt="github"))


class Trial:
    """One run of the test."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._say = progress, progress.say
        self._result = Result()
        self._before: set[str] = set()
        self._project: Project | None = None

    def run(self) -> bool:
        """Run the test, and return whether the check found no problem.

        :raises Problem: an error that a person must fix.
        :raises DemoFailed: a step failed or timed out.
        """
        self._prepare()
        self._build()
        self._bring_up()
        self._connect()
        self._runs.trigger("first start", {}, limit_s=LIMIT_S)
        self._wait_for_records(FIRST_RECORDS)
        self._runs.trigger(
            "maintenance 1", {"window_s": WINDOW_S}, limit_s=LIMIT_S, watch=self._when("stop", self._grow)
        )
        self._wait_for_records(self._processed() + FIRST_RECORDS)
        self._second_maintenance()
        self._kill_driver_in("submit", "maintenance 3")
        self._kill_driver_in("watch", "maintenance 4")
        self._kill_scheduler_in_submit("maintenance 5")
        self._kill_under_the_job("driver", self._kill_driver)
        for service in DEADLY:
            self._kill_under_the_job(service, lambda service=service: self._here.kill_and_start(service))
        return self._check()

    def remove(self, *, keep_images: bool) -> None:
        """Remove what the test created: containers, volumes, network, images, settings.

        :param keep_images: leave the images for another run.
        """
        if self._project is None:
            return
        self._project.run("--profile", "feed", "down", "--volumes", "--timeout", "5", log="compose-down", doing="down")
        (FOLDER / "env").unlink(missing_ok=True)
        if not keep_images:
            made = images() - self._before
            ours = [each for each in sorted(made) if each in OURS or ":" not in each]
            if ours:
                docker("rmi", *ours)
        self._say("stopped all containers, and removed what this test created")

    def _prepare(self) -> None:
        checks.require_available(Path("/proc/meminfo").read_text(encoding="ascii"), MEMORY_GIB)
        self._before = images()
        FOLDER.mkdir(parents=True, exist_ok=True)
        env = FOLDER / "env"
        env.unlink(missing_ok=True)
        self._password = settings.write(env=env)
        text = env.read_text(encoding="utf-8")
        for name in checks.PORTS:
            text = settings.changed(text, name, str(free(int(settings.parse(text)[name]))))
        text = settings.changed(text, "FEED_PACE_S", "600")
        env.write_text(text, encoding="utf-8")
        self._settings = settings.read(env)
        checks.require_ports(self._settings)
        self._project = Project(NAME, env)
        if self._project.health():
            self._say("removing what an earlier test left")
            self._project.run("--profile", "feed", "down", "--volumes", log="compose-down", doing="down")

    def _build(self) -> None:
        begin = time.monotonic()
        if base.is_there():
            how = "was there"
        elif base.pull():
            how = "pulled"
        else:
            base.make()
            how = "made by debootstrap"
        self._result.add(f"base image {base.IMAGE}", f"{how}, {time.monotonic() - begin:.0f} s")
        build_s = self._here.run(
            "build", log="compose-build", doing="building the images; see .stack/logs/compose-build.log"
        )
        self._say(f"built the images in {build_s:.0f} s")
        self._result.add("build of five images", f"{build_s:.0f} s")

    def _bring_up(self) -> None:
        begin = time.monotonic()
        self._here.run("up", "-d", log="compose-up", doing="up")
        self._wait_until_healthy()
        self._say(f"all healthy {time.monotonic() - begin:.0f} s after up")
        self._result.add("one `up` until all is healthy", f"{time.monotonic() - begin:.0f} s")
        for service in SERVICES:
            if service != "init" and (who := self._here.exec(service, "id", "-un").strip()) == "root":
                raise DemoFailed(f"{service} runs as {who}")

    def _wait_until_healthy(self) -> None:
        def healthy() -> bool:
            self._unwell = unwell(self._here.health(), SERVICES)
            return not self._unwell

        try:
            wait_for("all containers to be healthy", healthy, limit_s=LIMIT_S, every_s=2)
        except DemoFailed as error:
            raise DemoFailed(f"{error}: {', '.join(self._unwell)}") from error

    def _connect(self) -> None:
        url = f"http://{checks.HOST}:{self._settings['AIRFLOW_PORT']}"
        self._bootstrap = f"{checks.HOST}:{self._settings['KAFKA_PORT']}"
        self._admin = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 2})
        self._airflow = Airflow(url, DAG_ID, self._password)
        for dag in (self._airflow, Airflow(url, RECOVERY, self._password)):
            wait_for(f"DAG {dag.dag_id} in Airflow", dag.is_known, limit_s=LIMIT_S)
            dag.unpause()
        self._here.run("--profile", "feed", "up", "-d", "--no-deps", "feed", log="compose-up", doing="up feed")
        self._say("feeding; maintenance and recovery are unpaused")
        self._runs = Runs(self._airflow, self._progress, lambda: None)

    @property
    def _here(self) -> Project:
        assert self._project is not None
        return self._project

    def _when(self, task: str, act: Callable[[str], None]) -> Callable[[str, Tasks], None]:
        """Return a watch that calls ``act`` once, after a task has succeeded."""
        left = [act]

        def watch(run_id: str, tasks: Tasks) -> None:
            if left and tasks[task]["state"] == "success":
                left.pop()(run_id)

        return watch

    def _grow(self, run_id: str) -> None:
        """Add partitions while the job is stopped, wait for records in them, and end the maintenance window."""
        self._admin.create_partitions([NewPartitions(TOPIC, PARTITIONS_AFTER)])[TOPIC].result(timeout=120)
        new = range(PARTITIONS_BEFORE, PARTITIONS_AFTER)
        wait_for("records in the new partitions", lambda: all(self._has_records(each) for each in new), limit_s=300)
        self._end_window(self._airflow, run_id)
        self._say(f"the topic grew from {PARTITIONS_BEFORE} to {PARTITIONS_AFTER} partitions, with the job stopped")

    def _has_records(self, partition: int) -> bool:
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "trial", "log_level": 2})
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=20)
            return bool(high > low)
        except KafkaException:
            return False
        finally:
            consumer.close()

    def _end_window(self, airflow: Airflow, run_id: str) -> None:
        wait_for("the window to be open", lambda: airflow.tasks(run_id)[WINDOW]["state"] == "deferred", limit_s=LIMIT_S)
        airflow.end_task(run_id, WINDOW)

    def _second_maintenance(self) -> None:
        """Run a maintenance in which every container is killed once."""
        left = list(BLOWS)

        def watch(run_id: str, tasks: Tasks) -> None:
            if left and tasks[left[0].task]["state"] in left[0].states:
                blow = left.pop(0)
                for service in blow.services:
                    self._here.kill_and_start(service)
                    self._say(f"killed and started {service} while {blow.task} was {tasks[blow.task]['state']}")
                if blow.task == WINDOW:
                    self._wait_until_healthy()
                    self._end_window(self._airflow, run_id)
                    self._say("all healthy again; ended the window")

        self._runs.trigger("maintenance 2", {"window_s": WINDOW_S}, limit_s=2 * LIMIT_S, watch=watch)
        if left:
            raise DemoFailed(f"the maintenance ended before {left[0].services} could be killed in {left[0].task}")
        killed = [service for blow in BLOWS for service in blow.services]
        self._result.add(f"killed once in maintenance 2: {', '.join(killed)}", "succeeded")

    def _kill_driver_in(self, task: str, name: str) -> None:
        """Kill only the driver. A job that dies this early is rolled back as configured, and the run fails."""
        with suppress(DemoFailed):
            self._kill_in(task, name, self._kill_driver)
        newest, state = self._newest_operation(), self._airflow.state(self._runs.ids[name])
        if state != "failed" or newest != f"{self._operation(name)}#rollback":
            raise DemoFailed(f"{name} is {state}, and the job was started by {newest}: expected a rollback")
        self._say(f"{name} failed, and its rollback has started the job")
        self._result.add(f"killed driver in `{task}` of {name}", "rolled back, so the run failed as expected")

    def _kill_scheduler_in_submit(self, name: str) -> None:
        """Kill the scheduler's container, and with it the new driver and the task that waits for the driver."""
        begin = time.monotonic()
        self._kill_in("submit", name, lambda: self._here.kill_and_start("scheduler"))
        if (newest := self._newest_operation()) != self._operation(name):
            raise DemoFailed(f"the job was started by {newest}: expected Airflow to retry {name}")
        self._result.add(
            f"killed scheduler and driver in `submit` of {name}",
            f"succeeded after {time.monotonic() - begin:.0f} s, when Airflow had retried the task",
        )

    def _kill_in(self, task: str, name: str, kill: Callable[[], None]) -> None:
        """Run a maintenance, and kill something while a task runs; in submit, after the new driver's claim."""
        self._wait_for_records(self._processed() + 1)
        left = [kill]

        def watch(run_id: str, tasks: Tasks) -> None:
            if left and tasks[task]["state"] == "running":
                if task == "submit" and self._newest_operation(self._operation(name)) != self._operation(name):
                    raise DemoFailed(f"the driver of {name} has not claimed its epoch")
                left.pop()()
                self._say(f"killed it in {task}")

        self._runs.trigger(name, {}, limit_s=LIMIT_S, watch=watch)
        if left:
            raise DemoFailed(f"{name} ended before anything could be killed in {task}")

    def _operation(self, name: str) -> str:
        return f"{DAG_ID}/{self._runs.ids[name]}"

    def _newest_operation(self, wanted: str = "") -> str:
        return self._look(NEWEST_OPERATION, wanted)

    def _look(self, program: str, *arguments: str) -> str:
        """Run a program in the scheduler's container, which can read the store."""
        return self._here.exec("scheduler", "python", "-c", program, PIPELINE, *arguments).strip()

    def _kill_driver(self) -> None:
        self._here.exec("scheduler", "pkill", "-KILL", "-f", "org.apache.spark.deploy.SparkSubmit")

    def _kill_under_the_job(self, what: str, kill: Callable[[], None]) -> None:
        """Kill something while the job runs, and check that the job continues, by itself or by the recovery DAG."""
        self._wait_for_records(self._processed() + 1)
        before, batches = self._epoch(), self._batches()
        kill()
        begin = time.monotonic()
        self._say(f"killed {what} while epoch {before} runs")
        self._wait_until_healthy()

        def goes_on() -> bool:
            if what in {"driver", "scheduler"}:
                return self._epoch() > before
            return self._batches() > batches + 10

        wait_for(f"the job to continue after {what} was killed", goes_on, limit_s=LIMIT_S, every_s=2)
        seconds, epoch = time.monotonic() - begin, self._epoch()
        how = "by itself" if epoch == before else f"restarted by {RECOVERY}"
        self._say(f"the job continues after {seconds:.0f} s, {how}")
        self._result.add(f"killed {what} while the job runs", f"continues after {seconds:.0f} s, {how}")

    def _batches(self) -> int:
        return self._ask("SELECT count(*) FROM batches WHERE rows > 0")

    def _epoch(self) -> int:
        return self._ask("SELECT coalesce(max(epoch), 0) FROM batches")

    def _processed(self) -> int:
        return self._ask("SELECT count(*) FROM alerts")

    def _ask(self, query: str) -> int:
        """Query the job's output in the container; return 0 while the query fails."""
        program = (
            "import sqlite3, sys\n"
            "try: print(sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, timeout=30)"
            ".execute(sys.argv[2]).fetchone()[0])\n"
            "except sqlite3.OperationalError: print(0)"
        )
        return int(self._here.exec("scheduler", "python3", "-c", program, OUTPUT, query))

    def _wait_for_records(self, count: int) -> None:
        wait_for(f"{count:,} records to be processed", lambda: self._processed() >= count, limit_s=LIMIT_S, every_s=2)
        self._say(f"{self._processed():,} records processed")

    def _check(self) -> bool:
        """Stop the feed, wait until all is read, and compare every record of the topic with the evidence."""
        docker("stop", self._here.container("feed"))
        there = check.read_topic(self._bootstrap, TOPIC)
        total = sum(map(len, there.values()))
        wait_for("every record to be processed", lambda: self._processed() >= total, limit_s=LIMIT_S, every_s=5)
        final = Runs(self._airflow, self._progress, lambda: None)
        final.trigger("the last maintenance", {}, limit_s=LIMIT_S)
        announced = [
            check.Announcement((topic, partition), start, replay, epoch)
            for topic, partition, start, replay, epoch in json.loads(self._look(ANNOUNCED))
            if replay
        ]
        audit = self._airflow.result(final.ids["the last maintenance"], "audit")
        output = FOLDER / "output.db"
        self._copy_output(output)
        found = check.judge(there, check.read_evidence(output), announced, _cut_off(audit["discontinuities"]))
        whole = check.total(found.values())
        alerts = check.read_alerts(output)
        wrong = sum(len(alerts.get(place, set()) ^ there.get(place, set())) for place in {*alerts, *there})
        print(f"\n{check.table(found, [])}\n")
        self._result.add("records of the topic, in partitions", f"{total:,} in {len(there)}")
        self._result.add("lost", whole.lost)
        self._result.add("unexplained", whole.unexplained + whole.duplicated)
        self._result.add("replayed, as plans announced", f"{whole.replayed.total():,}")
        self._result.add("replayed, of batches that were cut off", f"{whole.cut_off:,}")
        self._result.add("the whole run", f"{self._progress.seconds / 60:.0f} min")
        print(f"{self._result}\n")
        sink = audit["sink"]["verdict"].replace(" ", "-")
        is_clean = not (whole.lost or whole.unexplained or whole.duplicated or wrong) and sink == "proven"
        good = is_clean and len(there) == PARTITIONS_AFTER
        print(
            f"verdict: lost={whole.lost} unexplained={whole.unexplained + whole.duplicated}"
            f" replayed={whole.replayed.total() + whole.cut_off} records={total} sink={sink}",
            flush=True,
        )
        return good

    def _copy_output(self, target: Path) -> None:
        program = (
            "import sqlite3, sys\n"
            "with sqlite3.connect(sys.argv[2]) as copy: sqlite3.connect(sys.argv[1], timeout=60).backup(copy)"
        )
        self._here.exec("scheduler", "python3", "-c", program, OUTPUT, "/tmp/output.db")  # noqa: S108 - in there
        with suppress(FileNotFoundError):
            target.unlink()
        docker("cp", f"{self._here.container('scheduler')}:/tmp/output.db", str(target))


def _cut_off(discontinuities: Sequence[dict[str, object]]) -> list[check.CutOff]:
    """Return the interrupted batches that an audit names."""
    return [
        check.CutOff(
            (each["range"]["topic"], each["range"]["partition"]),
            each["range"]["start"],
            each["range"]["end"],
            each["epoch"],
        )  # type: ignore[index,arg-type]
        for each in discontinuities
        if each["kind"] == "cut off"
    ]
