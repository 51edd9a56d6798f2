"""The base of this provider's sensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, conf
from airflow.sdk import BaseSensorOperator

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.operators.base import fail_at_once

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.stores.protocols import OffsetStore


class PipelineSensor(BaseSensorOperator):
    """Base class of sensors that wait for a condition of a pipeline, in the triggerer if ``deferrable``.

    :param pipeline: the pipeline.
    """

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.deferrable = deferrable

    @contextmanager
    def store(self) -> Iterator[OffsetStore]:
        """Yield the open store of the pipeline, and close it on exit.

        :raises StoreError: the store is unreachable, or its tables do not exist.
        """
        store = OffsetsHook(self.pipeline.store_conn_id).get_conn()
        try:
            yield store
        finally:
            store.close()

    def execute(self, context: Context) -> Any:
        """Wait until the condition holds. An error that no retry can fix fails the task at once.

        :returns: the value of the last check for XCom, if the sensor has one.
        :raises AirflowFailException: an error that no retry can fix.
        :raises OffsetsError: a retriable error.
        """
        with fail_at_once():
            return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the triggerer.

        :param context: Airflow's task context.
        :param event: the event of the trigger, with its ``status``.
        :returns: the event, as XCom.
        :raises AirflowFailException: the trigger timed out or failed.
        """
        if event["status"] != "reached":
            raise AirflowFailException(f"{event.get('error_type', event['status'])}: {event.get('message')}")
        return event
