"""In-memory implementations for tests, including those of users: they work, they are not mocks."""

from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.testing.fake_kafka import FakeKafka

__all__ = ["FakeKafka", "MemoryStore"]
