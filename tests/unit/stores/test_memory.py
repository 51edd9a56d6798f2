"""The contract over the store in memory."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.stores.memory import MemoryStore
from tests.contract.position_contract import AtomicPositionContract
from tests.contract.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryPositions(AtomicPositionContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
