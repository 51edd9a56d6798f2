"""``python -m bench``: how long the plan of an interval of 10,000 partitions takes. It judges nothing."""

import os
import platform
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.replay import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.operations.backfilling import make_replay_plan
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.testing import FakeKafka

PLANNED = 10_000


def main() -> None:
    """Measure, and print what came out."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plan(Path(folder))


def plan(folder: Path) -> None:
    """Plan one interval of a topic with 10,000 partitions, five times; Kafka's own answers are not in it."""
    kafka = FakeKafka()
    kafka.create_topic("wide", partitions=PLANNED)
    for partition in range(PLANNED):
        for day in range(3):
            kafka.append("wide", partition, 1_000 + partition % 7, timestamp_ms=day * 86_400_000)
    program = folder / "job.py"
    program.write_text("")
    job = SparkJob(str(program), str(folder / "checkpoint"))
    pipeline = StreamingPipeline("wide", ("wide",), job)
    with closing(_store(folder / "plan.db")) as store:
        taken = []
        for number in range(5):
            world = World(pipeline, f"bench/{number}", store, kafka)
            world.control.open_operation(Operation(world.operation, "bench", ""))
            began, worked = time.perf_counter(), time.process_time()
            made = make_replay_plan(
                world,
                Interval((number % 2) * 86_400_000, (number % 2 + 1) * 86_400_000),
                BackfillPolicy(),
                attempt_key="1",
                now_ms=10 * 86_400_000,
            )
            taken.append((time.perf_counter() - began, time.process_time() - worked))
            assert isinstance(made, ReplayPlan), made
            assert sum(shard.record_count for shard in made.shards) > PLANNED * 1_000
    wall_s, processor_s = (statistics.median(each) for each in zip(*taken, strict=True))
    print(
        f"\nplan of {PLANNED:,} partitions in {len(made.shards)} shards: {wall_s:.2f} s (goal < 1); of it this process"
    )
    print(f"worked {processor_s:.2f} s. Medians of 5; boundaries frozen in SQLite and the plan recorded each time\n")


def _store(file: Path):
    store = open_store(f"sqlite:///{file}")
    store.create()
    return store


if __name__ == "__main__":
    main()
