"""Files that several Spark applications append to one folder at once: none is lost, and none is there twice."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pyspark
import pytest

from airflow_provider_offsets.committer import JAR
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.committer import COMMITTER, committer_conf, live_owner, shard_owner
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.operators import ReplayOffsetsOperator
from stack import needs
from tests.e2e.lab import DEADLINE_S, Lab, Task, act, wait_for

HERE = Path(__file__).parent
SCRATCH = "_offsets_temporary"
QUICK = {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}


def rows(out: Path, *columns: str) -> Counter[tuple[Any, ...]]:
    """Return how often each row is in the files of a folder."""
    found: Counter[tuple[Any, ...]] = Counter()
    for file in out.rglob("*.parquet"):
        if not any(part.startswith("_") for part in file.relative_to(out).parts):
            table = parquet.ParquetFile(file).read(columns=list(columns)).to_pydict()
            found.update(zip(*table.values(), strict=True))
    return found


class Applications:
    """Spark applications that append to the folder ``out`` of a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.out = home / "out"
        self._open = ExitStack()

    def start(self, name: str, writes: int, conf: dict[str, str]) -> None:
        confs = [word for key, value in (QUICK | conf).items() for word in ("--conf", f"{key}={value}")]
        command = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]", *confs]
        command += ["--jars", str(JAR), str(HERE / "append_job.py"), str(self.home), name, str(writes)]
        log = self._open.enter_context((self.home / f"{name}.log").open("w"))
        env = os.environ | {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        self._open.callback(process.wait)
        self._open.callback(process.kill)

    def open(self, write: str) -> None:
        """Wait until a write has opened a file, and its other task has ended."""
        wait_for((self.home / f"{write}.open").exists, f"{write} to open a file")
        done = [f"{scratch}/**/task_*_m_000001/*.parquet" for scratch in ("_temporary", SCRATCH)]
        wait_for(lambda: [each for pattern in done for each in self.out.glob(pattern)], f"the other task of {write}")

    def end(self, write: str, how: str = "ok") -> None:
        """End the wait of a write, and wait until it has ended as expected."""
        if how == "failed":
            (self.home / f"{write}.fail").touch()
        (self.home / f"{write}.go").touch()
        wait_for((self.home / f"{write}.{how}").exists, f"{write} to be {how}")

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def applications(tmp_path: Path) -> Iterator[Applications]:
    started = Applications(tmp_path)
    yield started
    started.close()


HADOOP = "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitter"
EXPECTED = {
    # The reasons for the package's committer. It can go when these lines change.
    (HADOOP,): """\
beside a commit | b ok, a ok, more failed | day=0/b0 day=0/more0 day=1/a1
beside an abort | a ok | day=2/a2
written again after a failure | again ok | day=0/again0
scratch folder removed in between | late ok, a ok | day=1/a1
after a launch that was killed | next ok, beside failed | day=0/beside0 day=0/dead0 day=1/next1
""",
    # An attempt id per launch, and no cleanup: an abort removes what all others have open.
    (HADOOP, "attempts"): """\
beside a commit | b ok, a ok, more ok | day=0/a0 day=0/b0 day=0/more0 day=1/a1
beside an abort | a ok | day=2/a2
written again after a failure | again ok | day=0/again0
scratch folder removed in between | late ok, a ok | day=1/a1
after a launch that was killed | next ok, beside ok | day=0/beside0 day=1/next1
""",
    (COMMITTER,): """\
beside a commit | b ok, a ok, more ok | day=0/a0 day=0/b0 day=0/more0 day=1/a1
beside an abort | a ok | day=0/a0 day=1/a1 day=2/a2
written again after a failure | again ok | day=0/again0
scratch folder removed in between | late failed, a failed |
after a launch that was killed | next ok, beside ok | day=0/beside0 day=1/next1
""",
}


@pytest.mark.parametrize("arguments", EXPECTED, ids=["Hadoop's", "Hadoop's with attempt ids", "the package's"])
def test_writes_to_one_folder_in_an_exact_order(arguments: tuple[str, ...]) -> None:
    jars = f"{Path(pyspark.__file__).parent}/jars/*:{JAR}"
    command = [needs.java(), "-XX:TieredStopAtLevel=1", "-cp", jars, str(HERE / "Committers.java"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    said = [line.rstrip() for line in done.stdout.splitlines() if " | " in line or line.startswith("left")]
    assert said[:-1] == EXPECTED[arguments].splitlines()
    assert said[-1] == "left: false"


def test_a_write_is_complete_beside_commits_and_aborts_of_another_application(applications: Applications) -> None:
    left = applications.out / SCRATCH / live_owner("store", 6)
    (left / "write" / "task_1").mkdir(parents=True)
    beside = applications.out / SCRATCH / shard_owner("store", "day#abc#1", 1, 1)
    beside.mkdir(parents=True)
    applications.start("a", 1, committer_conf(live_owner("store", 7)))
    applications.start("b", 3, committer_conf(shard_owner("store", "day#abc#1", 0, 1)))
    applications.open("a-0")
    applications.open("b-0")

    applications.end("b-0")
    applications.open("b-1")
    applications.end("b-1", "failed")
    applications.open("b-2")
    applications.end("a-0")
    applications.end("b-2")

    found = Counter(name for (name,) in rows(applications.out, "write").elements())
    assert found == {"a-0": 100, "b-0": 100, "b-2": 100}, "nothing lost, and nothing of the failed write is there"
    assert [each.name for each in (applications.out / SCRATCH).iterdir()] == [beside.name], "of another shard"


def test_a_naive_writer_replays_in_parallel_shards_beside_the_live_job(make_lab: Any) -> None:
    """Case A1: the audit was right, and no row of the replay was in the folder."""
    lab: Lab = make_lab(application=str(HERE / "files_job.py"))
    out = lab.home / "out"
    lab.produce(120, 0, 1, 2)
    ranges = (((0, 0, 90), (1, 0, 10)), ((1, 10, 80), (2, 5, 35)))
    lab.maintain()
    run_id = f"{lab.topic}/run-1#abc#1"

    shards = [_replay(lab, run_id, number, each) for number, each in enumerate(ranges)]
    for each in shards:
        each.join(DEADLINE_S)
        assert each.exitcode == 0
    lab.wait_until_idle()

    found = rows(out, "run_id", "partition", "offset")
    live = {("", partition, offset): 1 for partition in range(3) for offset in range(120)}
    replayed = {(run_id, p, offset): 1 for shard in ranges for p, start, end in shard for offset in range(start, end)}
    assert found == live | replayed
    assert not list(out.glob("day=*/day=*"))
    assert not (out / SCRATCH).exists()
    assert lab.audit()["unexplained"] == 0


def _replay(lab: Lab, run_id: str, number: int, ranges: tuple[tuple[int, int, int], ...]) -> Any:
    shard = Shard(number, tuple(OffsetRange(lab.topic, *each) for each in ranges))
    settings = {"shard": codec.plain(shard), "run_id": run_id}
    task: Task = lab.task(ReplayOffsetsOperator, f"{lab.topic}/run-1", **settings)
    # A shard that waits until the live job has caught up would write alone.
    pipeline = replace(lab.pipeline, backfill=replace(lab.pipeline.backfill, yield_to_live=False))
    task.settings["pipeline"] = pipeline
    process = multiprocessing.get_context("spawn").Process(target=act, args=(task,))
    process.start()
    return process
