"""Our selectors beside ``kafka-consumer-groups --reset-offsets`` (dry run), on one real topic, partition by partition.

docs/selectors.md has the same table for people. The topic and the group, from which both start:

| partition | begins | ends | records | committed |
|---|---|---|---|---|
| 0 | 3 (the head is deleted) | 10 | offsets 3, 4 three hours ago; 5 to 9 one hour ago | 6 |
| 1 | 0 | 10 | three hours ago | 8 |
| 2 | 0 | 0 | none | 0 |
| 3 | 0 | 6 | one hour ago | nothing: it was added, and nobody has read it |
"""

from __future__ import annotations

import csv
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.pipeline import SparkJob, StopPolicy, StreamingPipeline
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import RestartPlan, RestartPolicy
from airflow_provider_offsets.kafka.group_store import KafkaGroupStore
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.planning import make_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster
from tests.integration.kafka_tool import kafka_consumer_groups

HOUR_MS = 3_600_000
LOSS, SKIP, PAST_END = ProblemKind.LOSS, ProblemKind.SKIP, ProblemKind.OFFSET_PAST_END
NEW = "a new partition is read from 0; Kafka's tool goes to its end, and its records are lost"


@dataclass(frozen=True)
class Place:
    """The topic, the group, and a pipeline whose position is that of the group."""

    cluster: RealCluster
    topic: str
    group: str
    now_ms: int
    folder: Path

    def plan(self, start: str) -> RestartPlan:
        job = SparkJob("/job.py", log_dir=str(self.folder))
        stop = StopPolicy(signal_timeout_s=1)
        pipeline = StreamingPipeline(
            "orders", (self.topic,), job, tracked=False, offsets_in=("group",), group_id=self.group, stop=stop
        )
        clients = self.cluster.clients
        kept_in = {"group": KafkaGroupStore(clients, DEADLINE_S)}
        session = Session(pipeline, "op", MemoryStore(), KafkaReader(clients, DEADLINE_S), kept_in)
        session.control.open_operation(Operation("op", "maintenance", "a test"))
        return make_plan(session, start, RestartPolicy())

    def tool(self, *option: str, partitions: str = "") -> list[int | None]:
        """Return what Kafka's tool would set, with None for a partition that it leaves unchanged."""
        words = ["--reset-offsets", "--dry-run", "--export", "--group", self.group]
        words += [] if option[0] == "--from-file" else ["--topic", f"{self.topic}{partitions}"]
        printed = kafka_consumer_groups(self.cluster.bootstrap_servers, *words, *option)
        rows = [row for row in csv.reader(printed.splitlines()) if row and row[0] == self.topic]
        found = {int(row[1]): int(row[2]) for row in rows}
        return [found.get(number) for number in range(4)]


@pytest.fixture(scope="module")
def place(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    name, now_ms = f"selectors-{uuid.uuid4().hex[:10]}", time.time_ns() // 1_000_000
    cluster = RealCluster(bootstrap_servers)
    cluster.create_topic(name, 4, **{"retention.ms": "-1"})
    for partition, hours, count in [(0, 3, 5), (0, 1, 5), (1, 3, 10), (3, 1, 6)]:
        cluster.append(name, partition, count, timestamp_ms=now_ms - hours * HOUR_MS)
    cluster.delete_records_before(name, 0, 3)
    cluster.commit(f"{name}-g", {TopicPartition(name, number): offset for number, offset in enumerate((6, 8, 0))})
    yield Place(cluster, name, f"{name}-g", now_ms, tmp_path_factory.mktemp("selectors"))
    cluster.clean()


@dataclass(frozen=True)
class Row:
    """One option of Kafka's tool, and the selector for the same purpose."""

    option: tuple[str, ...]
    start: str
    kafka: tuple[int | None, ...]
    ours: tuple[int, ...]
    differs: tuple[tuple[int, str], ...] = ()
    """The partitions that differ deliberately, and why."""
    problems: frozenset[ProblemKind] = frozenset()
    """The problem of our plan, unless it can be accepted and is."""
    partitions: str = ""
    """The partitions in the call of Kafka's tool; empty for all."""


ROWS = [
    Row(("--to-current",), "committed", (6, 8, 0, 6), (6, 8, 0, 0), ((3, NEW),)),
    Row(("--to-earliest",), "earliest", (3, 0, 0, 0), (3, 0, 0, 0)),
    Row(("--to-latest",), "latest", (10, 10, 0, 6), (10, 10, 0, 6), problems=frozenset({SKIP})),
    Row(
        ("--to-datetime", "{two hours ago}"),
        "timestamp:{two hours ago}",
        (5, 10, 0, 0),
        (5, 10, 0, 0),
        problems=frozenset({SKIP}),
    ),
    Row(("--by-duration", "PT4H"), "duration:PT4H", (3, 0, 0, 0), (3, 0, 0, 0)),
    Row(("--by-duration", "PT2H"), "duration:PT2H", (5, 10, 0, 0), (5, 10, 0, 0), problems=frozenset({SKIP})),
    Row(
        ("--shift-by", "-5"),
        "shift:-5",
        (3, 3, 0, None),
        (1, 3, 0, 0),
        (
            (0, "begins at 3: Kafka's tool clamps to it; here 2 are missing, which is refused unless accepted"),
            (3, "new: read from 0; Kafka's tool was not asked for it, because it refuses to"),
        ),
        frozenset({LOSS}),
        ":0,1,2",
    ),
    Row(
        ("--shift-by", "5"),
        "shift:+5",
        (10, 10, 0, None),
        (11, 13, 5, 0),
        (
            (0, "past the end: Kafka's tool clamps to it; here it is refused"),
            (1, "past the end: Kafka's tool clamps to it; here it is refused"),
            (2, "past the end: Kafka's tool clamps to it; here it is refused"),
            (3, "new: read from 0; Kafka's tool was not asked for it, because it refuses to"),
        ),
        frozenset({SKIP, PAST_END}),
        ":0,1,2",
    ),
    Row(
        ("--to-offset", "8"),
        'offsets:{{"{topic}":{{"0":8,"1":8,"2":8,"3":8}}}}',
        (8, 8, 0, 6),
        (8, 8, 8, 8),
        (
            (2, "past the end: Kafka's tool clamps to it; here it is refused"),
            (3, "past the end: Kafka's tool clamps to it; here it is refused"),
        ),
        frozenset({SKIP, PAST_END}),
    ),
    Row(
        ("--from-file", "{file}"),
        "file:{file}",
        (4, 10, None, None),
        (4, 99, 0, 0),
        (
            (1, "past the end: Kafka's tool clamps to it; here it is refused"),
            (2, "not named: its position stays the same in both; Kafka's tool does not list it"),
            (3, "not named, and new: from 0; Kafka's tool leaves it without a commit"),
        ),
        frozenset({SKIP, PAST_END}),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[" ".join(row.option) for row in ROWS])
def test_beside_kafka_s_own_tool(row: Row, place: Place) -> None:
    file = place.folder / "offsets.csv"
    file.write_text(f"{place.topic},0,4\n{place.topic},1,99\n")
    two_hours_ago = moment_text(place.now_ms - 2 * HOUR_MS)
    # A date for Kafka's tool has milliseconds.
    theirs = two_hours_ago if "." in two_hours_ago else two_hours_ago.replace("Z", ".000Z")
    words = [each.replace("{two hours ago}", theirs).replace("{file}", str(file)) for each in row.option]
    start = row.start.replace("{two hours ago}", two_hours_ago).replace("{file}", str(file))
    start = start.format(topic=place.topic) if "{topic}" in start else start

    printed, plan = place.tool(*words, partitions=row.partitions), place.plan(start)

    assert tuple(printed) == row.kafka
    assert tuple(each.wanted for each in plan.rows) == row.ours
    differing = [number for number, pair in enumerate(zip(row.kafka, row.ours, strict=True)) if pair[0] != pair[1]]
    assert differing == [number for number, _ in row.differs]
    assert {problem.kind for problem in plan.problems} == set(row.problems)


def test_a_time_after_the_last_record_is_said(place: Place) -> None:
    plan = place.plan("duration:PT2H")

    said = [number for number, row in enumerate(plan.rows) if "no record at or after" in row.why]
    assert said == [1], "the empty one has nothing to say"
    assert plan.rows[1].skipped == 2


def test_a_shift_of_what_was_never_committed(place: Place) -> None:
    """Kafka's tool refuses the whole call; this provider reads a new partition from 0."""
    with pytest.raises(AssertionError, match=f"{place.topic}-3 since there is no current committed offset"):
        place.tool("--shift-by", "-1")

    assert [row.start for row in place.plan("shift:-1").rows] == [5, 7, 0, 0]


def test_the_commits_of_another_group_are_a_start_without_joining_it(place: Place) -> None:
    other = f"{place.topic}-other"
    place.cluster.commit(other, {TopicPartition(place.topic, 0): 5, TopicPartition(place.topic, 1): 3})

    plan = place.plan(f"group:{other} | committed")

    assert [row.start for row in plan.rows] == [5, 3, 0, 0]
    assert [row.chosen_by for row in plan.rows] == [f"group:{other}", f"group:{other}", "", ""]
    [problem] = place.plan(f"group:{other}").problems
    assert (problem.kind, f"{place.topic}[2]. " in problem.message) == (ProblemKind.NO_START, True)
    described = place.cluster.admin.describe_consumer_groups([other])[other].result()
    assert (described.members, described.state.name) == ([], "EMPTY")
