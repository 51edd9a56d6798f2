"""The lab of untracked jobs: Spark's file sink, stopped by a marker file."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from tests.e2e.lab import DEADLINE_S, Lab, wait_for

ARCHIVE = Path(__file__).parents[2] / "jobs" / "archive_flights.py"


@dataclass
class UntrackedLab(Lab):
    """``jobs/archive_flights.py`` with its checkpoint."""

    application: str = str(ARCHIVE)
    offsets_in: tuple[str, ...] = ("checkpoint",)
    max_offsets_per_trigger: int = 20_000
    checkpoint_of_job: str = ""
    """The program's name of the checkpoint, if that is not in ``home``."""

    @property
    def job(self) -> SparkJob:
        """The job: its program, which names its own checkpoint."""
        arguments = {
            "--bootstrap-servers": self.bootstrap,
            "--topic": self.topic,
            "--folder": str(self.home),
            "--max-offsets-per-trigger": str(self.max_offsets_per_trigger),
        }
        if self.checkpoint_of_job:
            arguments["--checkpoint"] = self.checkpoint_of_job
        return replace(super().job, arguments=tuple(each for pair in arguments.items() for each in pair))

    @property
    def pipeline(self) -> StreamingPipeline:
        """The pipeline as the operators get it."""
        return StreamingPipeline(
            name=self.topic,
            topics=(self.topic,),
            job=self.job,
            tracked=False,
            offsets_in=self.offsets_in,
            store_conn_id="offsets_default",
            stop=self.stop_policy,
            start_timeout_s=DEADLINE_S,
            policy=self.policy,
            rollback=self.rollback,
        )

    @property
    def output(self) -> Path:
        """The folder of the file sink."""
        return self.home / "output"

    def evidence(self) -> Counter[tuple[int, int]]:
        """Return how often each (partition, offset) is in the sink's output."""
        return committed_records(self.output)

    def wait_until_idle(self) -> None:
        """Wait until the checkpoint's position is the end of the topic."""
        end = self.observe().live.end
        wait_for(lambda: self.observe().stored == end, "the checkpoint to stand at the end")


def committed_records(output: Path) -> Counter[tuple[int, int]]:
    """Return how often each (partition, offset) is in the files that a file sink's own log names.

    Spark reads only these files.
    """
    found: Counter[tuple[int, int]] = Counter()
    named: set[str] = set()
    for batch in (output / "_spark_metadata").glob("[0-9]*"):
        entries = [json.loads(line) for line in batch.read_text().splitlines()[1:]]
        named |= {entry["path"].removeprefix("file://") for entry in entries if entry["action"] == "add"}
    for file in named:
        for line in Path(file).read_text().splitlines():
            record = json.loads(line)
            found[record["partition"], record["offset"]] += 1
    return found
