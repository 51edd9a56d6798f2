"""The first day of an engineer: docs/install.md and docs/adopt.md, command by command, in an empty environment.

The commands, the YAML, the DAG file and the changed lines of the program come from the pages. Only addresses and
folders are replaced. ``make first-day`` runs this file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.conftest import endpoint
from tests.e2e.lab import wait_for
from tests.integration.test_wheel import wheel as wheel  # a fixture

pytestmark = pytest.mark.installation
ROOT = Path(__file__).parents[2]
DAG = "airflow dags test maintenance__orders"
PROGRAM = """
import sqlite3
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()

def transform(records):
    return records.select("partition", "offset")

def write(batch, batch_id):
    rows = [tuple(row) for row in batch.collect()]
    with sqlite3.connect("EVIDENCE", timeout=60) as database:
        database.execute("CREATE TABLE IF NOT EXISTS evidence (partition, offset)")
        database.executemany("INSERT INTO evidence VALUES (?, ?)", rows)

"""
PLAIN = """
options = {"kafka.bootstrap.servers": "localhost:9092", "subscribe": "orders", "startingOffsets": "earliest"}
records = spark.readStream.format("kafka").options(**options).load()
writer = transform(records).writeStream.foreachBatch(write).option("checkpointLocation", "/data/checkpoints/orders")
writer.start().awaitTermination()
"""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Return the commands of a page in their order."""
    text = "".join(blocks(page, "console"))
    return re.findall(r"^\$ (.+)$", text.replace("\\\n", " "), re.MULTILINE)


class Engineer:
    """A person with a shell, an empty virtual environment and an empty Airflow."""

    def __init__(self, home: Path, bootstrap: str, package: Path) -> None:
        self.home, self.bootstrap = home, bootstrap
        self.evidence = home / "evidence.db"
        self.produced: Counter[int] = Counter()
        self._there = {
            "/opt/airflow": f"{home}/airflow",
            "/var/lib/airflow": str(home),
            "/data/": f"{home}/data/",
            "localhost:9092": bootstrap,
            "EVIDENCE": str(self.evidence),
            "airflow-provider-offsets[spark]": f"{package}[spark]",
            "constraints.txt": str(ROOT / "constraints.txt"),
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
        path = f"{home}/env/bin{os.pathsep}{os.environ['PATH']}"
        self._env = clean | {"PATH": path, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    def here(self, text: str) -> str:
        """Return a text of a page with the addresses and folders of this machine."""
        for shown, own in self._there.items():
            text = text.replace(shown, own)
        return text

    def types(self, command: str) -> str:
        """Run a command of a page, and return what it printed."""
        if exported := re.fullmatch(r"export (\w+)=(\S+)", command):
            self._env[exported[1]] = self.here(exported[2])
            return ""
        done = subprocess.run(
            ["/bin/bash", "-c", self.here(command)],
            cwd=self.home,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def saves(self, file: str, text: str) -> None:
        """Write a text of a page to a file."""
        path = self.home / "airflow" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(text))

    @contextlib.contextmanager
    def old_job(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the job as it was before it was adopted, and kill it in the end."""
        self.saves("jobs/old_orders.py", PROGRAM + PLAIN)
        [connector] = re.findall(r'packages: \["([^"]+)"\]', blocks("adopt.md", "yaml")[0])
        command = ["spark-submit", "--master", "local[2]", "--packages", connector, "airflow/jobs/old_orders.py"]
        with (self.home / "old.log").open("ab") as log:
            job = subprocess.Popen(
                command, cwd=self.home, env=self._env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield job
        finally:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()

    def produce(self, count: int) -> None:
        """Add records to each partition of the topic."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for partition in range(3):
            for _ in range(count):
                producer.produce("orders", partition=partition, value=b"{}")
            self.produced[partition] += count
        assert producer.flush(60) == 0

    def read(self) -> Counter[tuple[int, int]]:
        """Return how often each record was written, by partition and offset."""
        if not self.evidence.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(self.evidence, timeout=60)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'").fetchone():
                return Counter()
            return Counter(database.execute("SELECT partition, offset FROM evidence").fetchall())

    def waits_until_read(self) -> None:
        """Wait until each record of the topic was written."""
        wanted = {(partition, offset) for partition, count in self.produced.items() for offset in range(count)}
        wait_for(lambda: wanted <= self.read().keys(), "the job to read the topic")

    def waits_until_committed(self) -> None:
        """Wait until the old job is between two batches."""
        checkpoint = self.home / "data" / "checkpoints" / "orders"

        def newest(log: str) -> int:
            return max((int(each.name) for each in (checkpoint / log).glob("[0-9]*")), default=-1)

        wait_for(lambda: newest("commits") == newest("offsets") >= 0, "the old job to be idle")

    def processes(self) -> list[int]:
        """Return the processes that run a program of this home."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{self.home}/airflow/jobs/orders.py".encode() in file.read_bytes().split(b"\0"):
                    found.append(int(file.parent.name))
        return found


@pytest.fixture(autouse=True)
def quick_starts() -> None:
    """Do without the class archive of the other tests: an empty environment has none."""


@pytest.fixture
def engineer(tmp_path: Path, wheel: Path) -> Iterator[Engineer]:
    """Yield a person whose topic ``orders`` is new."""
    bootstrap = endpoint("kafka", "bootstrap_servers")
    person = Engineer(tmp_path, bootstrap, wheel)
    (tmp_path / "data" / "checkpoints").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    with AdminClient({"bootstrap.servers": bootstrap}) as admin:
        admin.create_topics([NewTopic("orders", 3, 1)])["orders"].result()
        try:
            yield person
        finally:
            for pid in person.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            admin.delete_topics(["orders"])["orders"].result()
            shutil.rmtree(tmp_path / "env")


def test_from_pip_install_to_a_proven_maintenance(engineer: Engineer) -> None:
    install, adopt = commands("install.md"), commands("adopt.md")
    [pip] = [each for each in install if each.startswith("pip ")]
    after = install[install.index(pip) + 1 :]
    for command in install[: install.index(pip) + 1]:
        engineer.types(command)
    engineer.types("airflow db migrate")  # the page names it for an environment without Airflow
    printed = {command: engineer.types(command) for command in after}
    assert "airflow-provider-offsets" in printed["airflow providers list"]
    assert "Connection success" in printed["airflow connections test offsets_default"]

    engineer.saves("dags/pipelines.yaml", blocks("adopt.md", "yaml")[0])
    program, dag = (textwrap.dedent(each) for each in blocks("adopt.md", "python"))
    engineer.saves("jobs/orders.py", PROGRAM + program)
    engineer.saves("dags/maintenance.py", dag)

    with engineer.old_job():
        engineer.produce(20)
        engineer.waits_until_read()
        engineer.waits_until_committed()
        before = adopt[: adopt.index("airflow dags unpause maintenance__orders")]
        assert [each.split()[2] for each in before] == ["preflight", "plan"]
        plan = [engineer.types(command) for command in before][-1]
        assert "resume" in plan

    assert DAG in adopt, "the guide has a way without a scheduler"
    engineer.types(DAG)
    engineer.produce(10)
    engineer.waits_until_read()
    engineer.types(DAG)
    engineer.produce(10)
    engineer.waits_until_read()
    audit = engineer.types(adopt[-1])

    assert "lost=0 " in audit
    assert "unexplained=0 " in audit
    assert engineer.read().total() == sum(engineer.produced.values()) == 120, "each record was written once"
