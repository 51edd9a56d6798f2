"""Plans of a job with a history, on topics of a real broker with transactions or a recreated topic."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import RestartPlan, RestartPolicy, StartReason
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.planning import draft_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.testing import MemoryStore
from tests.contract.kafka_view import position
from tests.integration.kafka.conftest import DEADLINE_S, RealCluster
from tests.integration.recorded_job import record_one_batch

KEPT = {"retention.ms": "-1"}
"""The records of these tests are of 1970, and the broker checks for expired ones every five seconds."""


class Job:
    """A job that has read a topic up to ``stood``, in its first epoch."""

    def __init__(self, view: KafkaReader, topic: str, stood: Position, *, read_committed: bool = False) -> None:
        job = SparkJob("job.py", "/no/checkpoint/yet")
        self.pipeline = StreamingPipeline("plans", (topic,), job, read_committed=read_committed)
        self.session = Session(self.pipeline, "look", MemoryStore(), view)
        identity = view.live_topics([topic]).identity
        record_one_batch(self.session.store, "plans", self.pipeline.stream, identity, stood, job.checkpoint)

    def plan(self, start: str = "committed") -> RestartPlan:
        return draft_plan(self.session, start, RestartPolicy())[0]


def counts(plan: RestartPlan) -> list[tuple[int, int, int, int]]:
    return [(row.begin, row.end, row.start, row.replay) for row in plan.rows]


def test_a_compacted_topic(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    cluster.create_topic(topic, 1, **{"cleanup.policy": "compact"})
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for number in range(9):
        producer.produce(topic, b"value", key=str(number), partition=0)
    assert producer.flush(DEADLINE_S) == 0

    plan = Job(view, topic, position(topic, 5)).plan("shift:-2")

    assert (counts(plan), plan.upper_bounds, plan.problems) == ([(0, 9, 3, 2)], (topic,), ())
    assert any("compacted" in note for note in plan.notes)


@pytest.mark.parametrize(("read_committed", "end"), [(False, 11), (True, 5)])
def test_an_open_transaction_and_its_marker(
    read_committed: bool, end: int, cluster: RealCluster, view: KafkaReader, topic: str
) -> None:
    """With ``read_committed`` a job sees nothing of an open transaction, and afterwards one extra offset."""
    cluster.create_topic(topic, 1, **KEPT)
    cluster.append(topic, 0, 5)
    cluster.begin_transaction(topic, 0)
    cluster.append(topic, 0, 6)
    job = Job(view, topic, position(topic, 5), read_committed=read_committed)

    in_it = job.plan("latest")
    cluster.end_transaction(topic, 0)
    after_it = job.plan("latest")

    assert [row.end for row in in_it.rows] == [end]
    assert [row.end for row in after_it.rows] == [12]
    assert (in_it.skipped, after_it.skipped) == (end - 5, 7)
    assert after_it.upper_bounds == ((topic,) if read_committed else ())


def test_empty_and_emptied_and_new_partitions(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    cluster.create_topic(topic, 3, **KEPT)
    cluster.append(topic, 1, 8)
    cluster.append(topic, 2, 8)
    cluster.delete_records_before(topic, 1, 8)
    cluster.delete_records_before(topic, 2, 8)
    job = Job(view, topic, position(topic, 0, 8, 6))
    cluster.add_partitions(topic, 4)

    plan = job.plan()

    assert counts(plan) == [(0, 0, 0, 0), (8, 8, 8, 0), (8, 8, 8, 0), (0, 0, 0, 0)]
    assert [row.reason for row in plan.rows] == [
        StartReason.STORED,
        StartReason.STORED,
        StartReason.RETENTION,
        StartReason.NEW_PARTITION,
    ]
    assert ([problem.kind for problem in plan.problems], plan.lost) == ([ProblemKind.LOSS], 2)


def test_a_topic_that_was_made_again(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    """The recreated topic has as many records as before: the offsets look valid, and are not."""
    cluster.create_topic(topic, 1, **KEPT)
    cluster.append(topic, 0, 8)
    job = Job(view, topic, position(topic, 6))
    assert job.plan().problems == ()
    cluster.recreate_topic(topic, 1)
    cluster.append(topic, 0, 8)

    plan = job.plan()

    assert [problem.kind for problem in plan.problems] == [ProblemKind.TOPIC_RECREATED]
    assert [row.recreated for row in plan.rows] == [True]
