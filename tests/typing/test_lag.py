"""A user's own check of how far a job is behind, and its test with Kafka and the store in memory."""

import pytest

from airflow_provider_offsets import Batch, Position, Stream, TopicMissing, TopicPartition, testing

STREAM = Stream("orders", ("orders",))


def records_behind(kafka: testing.FakeKafka, store: testing.MemoryStore) -> int:
    """Return how many offsets of the topic the job has not processed."""
    live, position = kafka.live_topics(STREAM.topics), store.position(STREAM) or Position()
    return sum(end - position.get(partition, 0) for partition, end in live.end.items())


def test_a_batch_brings_the_job_nearer() -> None:
    kafka, store = testing.FakeKafka(), testing.MemoryStore()
    kafka.create_topic("orders", partitions=2)
    kafka.append("orders", 0, count=100)
    kafka.append("orders", 1, count=20)
    before = records_behind(kafka, store)

    store.append(STREAM, Batch(end=Position({TopicPartition("orders", 0): 70}), batch_time_ms=1_790_000_000_000))

    assert (before, records_behind(kafka, store)) == (120, 50)


def test_a_missing_topic_is_an_error() -> None:
    with pytest.raises(TopicMissing, match="orders"):
        records_behind(testing.FakeKafka(), testing.MemoryStore())
