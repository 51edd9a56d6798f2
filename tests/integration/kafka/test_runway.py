"""The runway, measured on a real broker.

A broker checks for old segments every five minutes, the broker of these tests every five seconds. Where a test needs
a deletion at a given moment, it uses ``deleteRecords``: the beginning of the partition moves in the same way.
"""

from __future__ import annotations

import time

import pytest

from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.runway import Runway, RunwayKind
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.operations.retention import measure_runway
from tests.contract.kafka_view import position
from tests.integration.kafka.conftest import RealCluster, until

MINUTE_MS = 60_000


def measured(view: KafkaReader, start: Position, now_ms: int, window_s: int = 0) -> Runway:
    [topic] = start.topics
    live, settings = view.live_topics([topic]), view.settings([topic])
    return measure_runway(view, start, live, settings, at_ms=now_ms, window_s=window_s)


def test_by_time(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    """The first partition has records of three times, the second one none."""
    now_ms = time.time_ns() // 1_000_000
    cluster.create_topic(topic, 2, **{"retention.ms": str(60 * MINUTE_MS)})
    for minutes_ago, count in ((40, 10), (30, 7), (20, 5)):
        cluster.append(topic, 0, count, timestamp_ms=now_ms - minutes_ago * MINUTE_MS)

    def seconds(*start: int) -> list[int | None]:
        return [each.seconds for each in measured(view, position(topic, *start), now_ms).partitions]

    assert seconds(0, 0) == [20 * 60, 60 * 60]
    assert seconds(10, 0) == [30 * 60, 60 * 60]
    assert seconds(22, 0) == [60 * 60, 60 * 60]
    assert [
        measured(view, position(topic, 0, 0), now_ms, window_s).partitions[0].at_risk
        for window_s in (20 * 60, 20 * 60 + 1, 30 * 60 + 1, 50 * 60, 60 * 60 + 1)
    ] == [0, 10, 17, 22, None]

    cluster.delete_records_before(topic, 0, 12)
    assert seconds(0, 0) == [30 * 60, 60 * 60], "of what is left"


def test_the_broker_deletes_nothing_before_the_runway_is_over(
    cluster: RealCluster, view: KafkaReader, topic: str
) -> None:
    cluster.create_topic(topic, 1, **{"retention.ms": "4000"})
    cluster.append(topic, 0, 5, timestamp_ms=time.time_ns() // 1_000_000)
    asked_ms = time.time_ns() // 1_000_000
    [runway] = measured(view, position(topic, 0), asked_ms).partitions
    assert runway.seconds is not None

    until(lambda: view.live_topics([topic]).begin == position(topic, 5), "the records deleted")

    assert time.time_ns() // 1_000_000 >= asked_ms + runway.seconds * 1000


def test_by_size(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    cluster.create_topic(topic, 1, **{"retention.ms": "-1", "retention.bytes": "1000000"})
    cluster.append(topic, 0, 400, timestamp_ms=now_ms - 90 * MINUTE_MS)
    cluster.append(topic, 0, 100, timestamp_ms=now_ms - 30 * MINUTE_MS)

    def found() -> tuple[RunwayKind, int | None]:
        [runway] = measured(view, position(topic, 450), now_ms).partitions
        return runway.kind, runway.seconds

    assert found() == (RunwayKind.UNKNOWN, None)
    cluster.delete_records_before(topic, 0, 250)
    assert found() == (RunwayKind.ABOUT, 2 * 3600)


@pytest.mark.parametrize(
    "config", [{"retention.ms": "-1"}, {"cleanup.policy": "compact"}], ids=["kept for ever", "compacted"]
)
def test_unlimited(cluster: RealCluster, view: KafkaReader, topic: str, config: dict[str, str]) -> None:
    cluster.create_topic(topic, 1, **config)

    runway = measured(view, position(topic, 0), time.time_ns() // 1_000_000, window_s=10**6)

    assert [(each.kind, each.at_risk) for each in runway.partitions] == [(RunwayKind.UNLIMITED, 0)]


def test_measuring_leaves_no_trace(cluster: RealCluster, view: KafkaReader, topic: str) -> None:
    cluster.create_topic(topic, 1)
    cluster.append(topic, 0, 3, timestamp_ms=time.time_ns() // 1_000_000)
    before = cluster.groups()

    measured(view, position(topic, 0), time.time_ns() // 1_000_000, window_s=60)

    assert {each for each in cluster.groups() - before if "airflow" in each or topic in each} == set()
    assert view.live_topics([topic]).begin[TopicPartition(topic, 0)] == 0
