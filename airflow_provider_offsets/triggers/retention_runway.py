"""The trigger that waits until unread records of a stopped job are about to be deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.hooks.connection import await_connection
from airflow_provider_offsets.hooks.kafka import open_kafka
from airflow_provider_offsets.operations.retention import RunwayWatch, WatchState
from airflow_provider_offsets.triggers.streaming_job import StoreTrigger

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_offsets.stores.protocols import OffsetStore


class RetentionRunwayTrigger(StoreTrigger):
    """Trigger that fires when the retention runway of a stopped job is short, or when there is nothing left to watch.

    :param store_conn_id: an ``offsets`` connection; resolved in the triggerer.
    :param pipeline: name of the pipeline.
    :param kafka_conn_id: a ``kafka`` connection; resolved in the triggerer.
    :param watch: the ``RunwayWatch`` to check, as returned by ``codec.plain``.
    :param timeout_s: seconds after which an event with ``status`` *timeout* is sent. None waits as long as Airflow
        allows.
    """

    poll_s = 30.0

    def __init__(
        self,
        *,
        store_conn_id: str,
        pipeline: str,
        kafka_conn_id: str,
        watch: dict[str, Any],
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(store_conn_id=store_conn_id, pipeline=pipeline, timeout_s=timeout_s)
        self.kafka_conn_id = kafka_conn_id
        self.watch = watch
        self._connection: Connection | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {**super().arguments(), "kafka_conn_id": self.kafka_conn_id, "watch": self.watch}

    async def prepare(self) -> None:
        """Load the connection on the triggerer's own thread."""
        self._connection = await await_connection(self.kafka_conn_id)

    def observe(self, store: OffsetStore) -> dict[str, Any] | None:
        """Check once. The clients are closed again, because the thread that opened them has to close them."""
        from airflow_provider_offsets.kafka.reader import KafkaReader

        with open_kafka(self.kafka_conn_id, self._connection) as clients:
            watch = codec.build(RunwayWatch, self.watch, "watch")
            found = watch.observe(Control(store, self.pipeline), KafkaReader(clients), at_ms=clock.now_ms())
        if found.state is WatchState.LONG:
            return None
        return {"status": "reached" if found.state is WatchState.SHORT else found.state.value, **found.values}
