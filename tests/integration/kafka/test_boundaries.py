"""Data intervals of a real topic: a frozen boundary stays where it is, whatever happens to the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.moments import read_moment
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.backfilling import make_replay_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster

DAY_MS = 86_400_000
FIRST_MS = read_moment("2013-01-01T00:00Z")
NOW_MS = read_moment("2026-11-01T00:00Z")
KEPT = {"retention.ms": "-1", "segment.ms": str(20 * 365 * DAY_MS)}
"""The broker would delete records of 2013 immediately otherwise."""


class Days:
    """A pipeline on a real topic, and its days."""

    def __init__(self, cluster: RealCluster, topic: str, folder: Path) -> None:
        self.cluster, self.topic, self.folder = cluster, topic, folder
        self.store = MemoryStore()

    def append(self, partition: int, day: float, count: int) -> None:
        self.cluster.append(self.topic, partition, count, timestamp_ms=FIRST_MS + int(day * DAY_MS))

    def plan(self, day: int, *, key: str = "1", read_committed: bool = False, **more: int) -> ReplayPlan:
        job = SparkJob("/job.py", str(self.folder / "checkpoint"))
        pipeline = StreamingPipeline("p", (self.topic,), job, read_committed=read_committed)
        session = Session(pipeline, f"backfill__p/{day}", self.store, KafkaReader(self.cluster.clients, DEADLINE_S))
        session.control.open_operation(Operation(session.operation, "backfill__p", "a test"))
        interval = Interval(FIRST_MS + day * DAY_MS, FIRST_MS + (day + 1) * DAY_MS)
        made = make_replay_plan(
            session,
            interval,
            BackfillPolicy(),
            attempt_key=key,
            accept_lost={self.topic: more.get("lost", 0)},
            now_ms=NOW_MS,
        )
        assert isinstance(made, ReplayPlan)
        return made

    def at(self, *offsets: int) -> Position:
        return Position({TopicPartition(self.topic, number): offset for number, offset in enumerate(offsets)})


@pytest.fixture
def days(cluster: RealCluster, topic: str, tmp_path: Path) -> Days:
    """Return three days: ten records of each in partition 0, and only those of the second day in partition 1."""
    cluster.create_topic(topic, 2, **KEPT)
    made = Days(cluster, topic, tmp_path)
    for day in range(3):
        made.append(0, day + 0.5, 10)
    made.append(1, 1.5, 7)
    return made


def test_days_tile_though_records_come_late_and_partitions_are_added_in_between(days: Days) -> None:
    last = days.plan(2)
    assert [each.closed_at for each in last.open_boundaries] == [30, 7]
    days.append(0, 1.5, 3)
    days.cluster.add_partitions(days.topic, 3)
    days.append(2, 0.5, 4)
    first, second, after = days.plan(0), days.plan(1), days.plan(3)

    assert (first.begin, first.end) == (days.at(0, 0, 0), days.at(10, 0, 0))
    assert (second.begin, second.end) == (first.end, days.at(20, 7, 0))
    assert (last.begin, last.end) == (days.at(20, 7), days.at(30, 7))
    assert (after.begin, after.end) == (days.at(30, 7, 0), days.at(33, 7, 4))
    assert [each.records_expected for each in (first, second, last, after)] == [10, 17, 10, 7]


def test_what_retention_deletes_is_counted(days: Days) -> None:
    days.plan(0)
    days.cluster.delete_records_before(days.topic, 0, 14)

    [problem] = days.plan(1).problems
    assert f"accept_lost={days.topic}:4" in problem.message
    accepted = days.plan(1, lost=4)
    assert (accepted.problems, accepted.records_expected) == ((), 13)


def test_an_interval_before_all_that_is_left_is_refused(days: Days) -> None:
    days.cluster.delete_records_before(days.topic, 0, 20)

    made = days.plan(0)

    assert made.records_expected == 0
    assert f"accept_lost={days.topic}:20" in made.problems[0].message


def test_readers_of_committed_records_go_no_further_than_the_oldest_open_transaction(days: Days) -> None:
    days.cluster.begin_transaction(days.topic, 0)
    days.append(0, 3.5, 5)

    open_ = days.plan(3, read_committed=True)
    days.cluster.end_transaction(days.topic, 0)

    assert open_.end == days.at(30, 7)
    following = days.plan(4, read_committed=True)
    assert following.begin == days.at(30, 7)
    assert following.end == days.at(35, 7), "the marker of the end is of today, and Kafka takes it for a record"
    assert following.upper_bounds == (days.topic,)


def test_two_records_of_one_millisecond_are_on_one_side(days: Days) -> None:
    days.append(0, 3, 2)

    assert days.plan(2).end == days.at(30, 7)
    assert days.plan(3).end == days.at(32, 7)
