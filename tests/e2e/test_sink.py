"""Tracked jobs with a sink of Spark's own: what the sink finally holds against what was produced."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic

from airflow_provider_offsets.backends.process import signal_group
from airflow_provider_offsets.core.snapshot import Observation
from tests.e2e.lab import DEADLINE_S, Lab, wait_for

JOB = Path(__file__).with_name("sink_job.py")


@dataclass
class SinkLab:
    """A lab whose job writes to one of Spark's sinks, and what that sink holds."""

    lab: Lab
    output: Callable[[], Counter[tuple[int, int]]]

    @property
    def lost(self) -> set[tuple[int, int]]:
        """The records that the sink does not hold."""
        return {(p, offset) for p, count in self.lab.produced.items() for offset in range(count)} - set(self.output())

    @property
    def twice(self) -> Counter[int]:
        """How many records the sink holds more than once, by partition."""
        return Counter(partition for (partition, _), count in self.output().items() for _ in range(count - 1))

    def wait_until_written(self) -> None:
        """Wait until the sink holds every record, and the driver reports that it is idle."""
        wait_for(lambda: not self.lost, "every record in the sink")
        self.lab.wait_until_idle()

    def hold(self) -> None:
        """Hold the next batch in its middle, once records are produced."""
        (self.lab.home / "hold").touch()

    def kill_in_the_middle(self) -> None:
        """Kill the driver while its batch is held."""
        wait_for((self.lab.home / "hold.happened").exists, "a batch in its middle")
        signal_group(self.lab.epoch.holder, signal.SIGKILL)
        self.lab.wait_until_gone()
        self.release()

    def release(self) -> None:
        """Release a held batch."""
        for name in ("hold", "hold.happened"):
            (self.lab.home / name).unlink(missing_ok=True)


def with_job(lab: Lab, *arguments: str) -> Lab:
    """Return the lab with the job of this module."""
    lab.application, lab.arguments = str(JOB), arguments
    return lab


@pytest.fixture
def files(make_lab: Callable[..., Lab]) -> SinkLab:
    """Return a lab with the file sink."""
    lab = with_job(make_lab(), "json", "-")
    return SinkLab(lab, lambda: files_of(lab.home / "output"))


@pytest.fixture
def kafka(make_lab: Callable[..., Lab]) -> Iterator[SinkLab]:
    """Yield a lab with the Kafka sink."""
    lab = make_lab()
    with_job(lab, "kafka", lab.bootstrap)
    topic = f"{lab.topic}-output"
    [each.result() for each in lab.admin.create_topics([NewTopic(topic, 1, 1)]).values()]
    yield SinkLab(lab, lambda: records_of(lab.bootstrap, topic))
    [each.result() for each in lab.admin.delete_topics([topic]).values()]


def files_of(folder: Path) -> Counter[tuple[int, int]]:
    """Return the content of the files that the sink's own log names; other files are left from interrupted batches.

    The log is read as Spark reads it: from the last compaction on, and without a missing id.
    """
    log = folder / "_spark_metadata"
    names = {int(each.name.partition(".")[0]): each for each in log.glob("[0-9]*")} if log.is_dir() else {}
    if not names:
        return Counter()
    compacted = max((number for number, each in names.items() if each.suffix == ".compact"), default=0)
    entries = [names[number].read_text().splitlines()[1:] for number in range(compacted, max(names) + 1)]
    paths = [json.loads(line)["path"].removeprefix("file://") for lines in entries for line in lines]
    found: Counter[tuple[int, int]] = Counter()
    for path in map(Path, paths):
        partition = int(path.parent.name.partition("=")[2])
        found.update((partition, json.loads(line)["offset"]) for line in path.read_text().splitlines())
    return found


def records_of(bootstrap: str, topic: str) -> Counter[tuple[int, int]]:
    """Return what a topic of one partition holds."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "reads-only", "enable.auto.commit": False}
    found: Counter[tuple[int, int]] = Counter()
    with closing(Consumer(settings)) as consumer:
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)
        consumer.assign([TopicPartition(topic, 0, begin)])
        position = begin
        while position < end:
            message = consumer.poll(DEADLINE_S)
            assert message is not None
            assert message.error() is None
            value = json.loads(message.value())
            found[value["partition"], value["offset"]] += 1
            position = message.offset() + 1
    return found


def test_file_sink(files: SinkLab) -> None:
    lab = files.lab
    lab.produce(20, 0, 1, 2)
    assert lab.maintain()["how"] == "processed batch 0"
    files.wait_until_written()

    # Stopped while data flows: the batch that runs is finished and recorded, and the next one does not begin.
    files.hold()
    lab.produce(60, 0, 1, 2)
    wait_for((lab.home / "hold.happened").exists, "a batch in its middle")
    running = lab.started.batch_id
    operation = lab.operation()
    lab.plan(operation)
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(lab.stop, operation)
        wait_for(lambda: lab.record.stop, "the request")
        files.release()
        stopped = stopping.result()
    assert (stopped["how"], stopped["last_batch_id"]) == ("stopped", running)
    rest = lab.observe()
    assert rest.processed is not None
    assert rest.processed.batch_id == running
    assert rest.in_flight == ()
    assert set(files.output()) == {(p, o) for (_, p), end in (rest.stored or {}).items() for o in range(end)}
    assert files.lost, "the batches after it would have written the rest"

    # The topic grows meanwhile.
    lab.grow(5)
    lab.produce(20, 3, 4)
    resumed = lab.maintain()
    assert resumed["plan"]["form"] == "resume"
    assert resumed["plan"]["replay_at_most"] == 0
    files.wait_until_written()

    # Killed in the middle of a batch: replayed at most; this sink recognizes the batch by its id.
    files.hold()
    lab.produce(4, 0, 1, 2, 3, 4)
    files.kill_in_the_middle()
    planned = in_flight_count(lab.observe())
    restarted = lab.maintain()
    assert restarted["plan"]["form"] == "resume"
    assert restarted["plan"]["replay_at_most"] == planned > 0
    files.wait_until_written()

    # Killed after Spark's commit, before the record: nothing is replayed, and the next driver records the batch.
    lab.faults({"epoch": 3, "batch": batches_of(lab, 3) + 1, "at": "committed"})
    lab.produce(3, 0, 1)
    lab.wait_until_gone()
    behind = lab.observe()
    assert behind.checkpoint is not None
    assert behind.checkpoint.committed_batch_id == (last_batch_of(lab, 3) or 0) + 1
    restarted = lab.maintain()
    assert restarted["plan"]["form"] == "resume"
    assert restarted["plan"]["replay_at_most"] == 0
    assert last_batch_of(lab, 3) == behind.checkpoint.committed_batch_id
    files.wait_until_written()
    assert files.twice == {}

    # Interrupted again, and rewound: the sink takes no new batch for an old one, and misses no id.
    files.hold()
    lab.produce(20, 0, 1, 2, 3, 4)
    files.kill_in_the_middle()
    cut_off = in_flight_count(lab.observe())
    rewound = lab.maintain("shift:-5")
    assert rewound["plan"]["form"] == "reposition"
    lab.produce(1, 0, 1, 2, 3, 4)
    files.wait_until_written()
    assert files.twice == dict.fromkeys(range(5), 5)
    audit = lab.audit()
    assert (audit["rows_written"], audit["warnings"]) == (None, []), "Spark's file sink does not count"
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert (audit["replayed"], audit["replayed_at_most"]) == (25, planned + cut_off)


def test_kafka_sink(kafka: SinkLab) -> None:
    lab = kafka.lab
    lab.produce(20, 0, 1, 2)
    lab.maintain()
    kafka.wait_until_written()

    # Killed in the middle of a batch, part of which is in the topic already.
    kafka.hold()
    lab.produce(15, 0, 1, 2)
    wait_for(lambda: kafka.output().total() > 60, "a part of the batch in the topic")
    kafka.kill_in_the_middle()
    cut_off = in_flight_count(lab.observe())

    # Rewound from there: the interrupted batch is replayed too, under another id.
    rewound = lab.maintain("shift:-5")
    assert rewound["plan"]["form"] == "reposition"
    assert rewound["plan"]["replay_at_most"] == cut_off > 0
    kafka.wait_until_written()
    assert 15 < kafka.twice.total() <= 15 + cut_off
    audit = lab.audit()
    assert (audit["lost"], audit["unexplained"]) == (0, 0)
    assert (audit["replayed"], audit["replayed_at_most"]) == (15, cut_off)
    assert (audit["rows_written"], audit["warnings"]) == (60 + 45 + 15, []), "of the batches that were recorded"

    # An idle job stops at once.
    twice = kafka.twice
    assert lab.stop(lab.operation())["how"] == "stopped"
    assert lab.maintain()["how"] == "idle"
    lab.produce(5, 0, 1, 2)
    kafka.wait_until_written()
    assert kafka.twice == twice


def in_flight_count(seen: Observation) -> int:
    """Return the offsets that may be partly written."""
    return sum(each.count for each in seen.in_flight)


def batches_of(lab: Lab, epoch: int) -> int:
    """Return how many batches of an epoch the history has."""
    return sum(batch.epoch == epoch for batch in lab.store.oldest_first(lab.pipeline.stream))


def last_batch_of(lab: Lab, epoch: int) -> int | None:
    """Return the id of the last batch of an epoch in the history."""
    return max(batch.batch_id or 0 for batch in lab.store.oldest_first(lab.pipeline.stream) if batch.epoch == epoch)
