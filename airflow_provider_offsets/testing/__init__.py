"""In-memory stand-ins for tests, those of users included: they work, they are not mocks."""

from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.testing.fake_kafka import FakeKafka

__all__ = ["FakeKafka", "MemoryStore"]
