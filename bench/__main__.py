"""``python -m bench``: measure a plan, and a replay against a hand-written ``spark.read`` of the same range.

The replay and the read are whole processes, measured from launch to end, and run alternately: other load on the machine
affects both. ``ReplayOffsetsOperator`` launches the replay, so the time of the replay includes claim, count, record and
monitoring.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tabulate import tabulate

import stack
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan, Shard
from airflow_provider_offsets.operations.backfilling import make_replay_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.testing import FakeKafka

HERE = Path(__file__).parent
PARTITIONS = 4
VALUE = json.dumps({"flight": 1545, "carrier": "UA", "origin": "EWR", "dest": "IAH", "dep_delay": 17.0}).encode()
CONF = {"spark.ui.enabled": "false"}
PLANNED = 10_000


def main() -> None:
    """Measure, and print the tables."""
    options = argparse.ArgumentParser(prog="python -m bench", description="Measure replays and plans.")
    options.add_argument("--records", type=int, default=2_000_000)
    options.add_argument("--pairs", type=int, default=3)
    chosen = options.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plan(Path(folder))
        replay(Path(folder), chosen.records, chosen.pairs)


def plan(folder: Path) -> None:
    """Plan one interval of a topic with 10,000 partitions, five times. A fake Kafka answers at once."""
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
            session = Session(pipeline, f"bench/{number}", store, kafka)
            session.control.open_operation(Operation(session.operation, "bench", ""))
            began, worked = time.perf_counter(), time.process_time()
            made = make_replay_plan(
                session,
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


def replay(folder: Path, records: int, pairs: int) -> None:
    """Replay a range and read it by hand, alternately."""
    bootstrap = stack.endpoints()["kafka"]["bootstrap_servers"]
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    with AdminClient({"bootstrap.servers": bootstrap}) as admin:
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(timeout=120)
        try:
            _fill(bootstrap, topic, records)
            _measure(folder, bootstrap, topic, records // PARTITIONS, pairs)
        finally:
            admin.delete_topics([topic])[topic].result(timeout=120)


def _measure(folder: Path, bootstrap: str, topic: str, per_partition: int, pairs: int) -> None:
    _connect(folder, bootstrap)
    from airflow_provider_offsets.operators import ReplayOffsetsOperator

    jars = ",".join(map(str, stack.jars("spark")))
    job = SparkJob(str(HERE / "tracked.py"), str(folder / "checkpoint"), conf=CONF, jars=jars)
    pipeline = StreamingPipeline("bench", (topic,), job)
    shard = Shard(0, tuple(OffsetRange(topic, number, 0, per_partition) for number in range(PARTITIONS)))
    end = Position({TopicPartition(topic, number): per_partition for number in range(PARTITIONS)})
    begin = Position(dict.fromkeys(end, 0))
    conf = [argument for key, value in CONF.items() for argument in ("--conf", f"{key}={value}")]
    argv = ["spark-submit", "--master", "local[2]", *conf, "--jars", jars, str(HERE / "by_hand.py")]
    argv += [bootstrap, topic, begin.to_json(), end.to_json()]
    rows = []
    for number in range(pairs + 1):
        began = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True)
        by_hand = time.perf_counter() - began
        began = time.perf_counter()
        done = ReplayOffsetsOperator(
            task_id="replay",
            pipeline=pipeline,
            operation="bench",
            reason="",
            shard=codec.plain(shard),
            run_id=f"bench#bench#{number}",
        ).execute({"params": {}})
        replayed = time.perf_counter() - began
        assert done["records_read"] == per_partition * PARTITIONS
        if number:  # the first pair warms the caches of the disk and the broker
            rows.append((number, by_hand, replayed, by_hand / replayed, done["elapsed_ms"] / 1000))
    print(tabulate(rows, ("pair", "by hand s", "replay s", "throughput", "of it the read s"), floatfmt=".2f"))
    median = statistics.median(row[3] for row in rows)
    print(
        f"\n{per_partition * PARTITIONS:,} records; throughput of a replay beside the hand-written read: {median:.2f}"
        " (median of the pairs; goal >= 0.95)"
    )


def _fill(bootstrap: str, topic: str, records: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 500_000})
    for number in range(records):
        while True:
            try:
                producer.produce(topic, VALUE, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(300) == 0


def _connect(folder: Path, bootstrap: str) -> None:
    """Set what Airflow's hooks read, in this process only."""
    url = f"sqlite:///{folder / 'offsets.db'}"
    _store(folder / "offsets.db").close()
    made = {
        "KAFKA_DEFAULT": {"conn_type": "kafka", "extra": {"bootstrap.servers": bootstrap}},
        "SPARK_DEFAULT": {"conn_type": "spark", "host": "local[2]"},
        "OFFSETS_DEFAULT": {"conn_type": "offsets", "extra": {"url": url}},
    }
    os.environ.update({f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in made.items()})
    os.environ["AIRFLOW_HOME"] = str(folder / "airflow")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _store(file: Path):
    store = open_store(f"sqlite:///{file}")
    store.create()
    return store


if __name__ == "__main__":
    main()
