"""The sensor that waits until unread records of a stopped job are about to be deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException
from airflow.sdk import PokeReturnValue

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.errors import RunwayUnknown
from airflow_provider_offsets.operations.job_state import JobState, observe_job
from airflow_provider_offsets.operations.retention import RunwayWatch, WatchState
from airflow_provider_offsets.operators.base import fail_at_once
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.triggers.retention_runway import RetentionRunwayTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

YEAR_S = 365 * 24 * 3600


class RetentionRunwaySensor(PipelineSensor):
    """Sensor that watches a stopped job until Kafka will delete unread records in less than ``at_least_s``.

    The next task is the alert, or the start of the job. This task and its downstream tasks are *skipped* as soon as the
    job runs again, or if no record is ever deleted. The task fails and is retried if the retention time cannot be
    determined: unknown is not enough. The sensor returns ``runway_s`` and a ``summary`` for people.

    :param pipeline: the pipeline.
    :param at_least_s: seconds that a person needs to bring the job back.
    :param timeout: seconds to wait; a year by default.
    :param poke_interval: seconds between two checks of a sensor that is not deferrable.
    """

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        at_least_s: int,
        timeout: float = YEAR_S,
        poke_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, timeout=timeout, poke_interval=poke_interval, **kwargs)
        self.at_least_s = at_least_s
        self._watch: RunwayWatch | None = None

    def execute(self, context: Context) -> Any:
        """Read the position of the job, then wait here or in the triggerer.

        :returns: ``runway_s`` and ``summary``.
        :raises AirflowSkipException: the job runs, or there is nothing left to watch.
        """
        with fail_at_once():
            self._watch = self._new_watch()
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=RetentionRunwayTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                kafka_conn_id=self.pipeline.kafka_conn_id,
                watch=codec.plain(self._watch),
                timeout_s=self.timeout,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 60),
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once whether the runway is shorter than ``at_least_s``.

        :returns: whether it is, and then ``runway_s`` and ``summary`` as XCom.
        :raises AirflowSkipException: the job runs again, or there is nothing left to watch.
        :raises RunwayUnknown: the retention time of a partition cannot be determined. Retriable.
        """
        assert self._watch is not None
        with open_session(self.pipeline, "") as session:
            found = self._watch.observe(session.control, session.kafka, at_ms=clock.now_ms())
        self.log.info("Runway: %s", found.summary)
        if found.state is WatchState.OVER:
            raise AirflowSkipException(found.summary)
        is_short = found.state is WatchState.SHORT
        return PokeReturnValue(is_done=is_short, xcom_value=found.values if is_short else None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the triggerer.

        :param context: Airflow's task context.
        :param event: the event of ``RetentionRunwayTrigger``.
        :returns: ``runway_s`` and ``summary``.
        :raises AirflowSkipException: the job runs again, or there is nothing left to watch.
        :raises AirflowException: the retention time cannot be determined; Airflow runs the task again.
        :raises AirflowFailException: the trigger timed out or failed otherwise.
        """
        if event["status"] == WatchState.OVER.value:
            raise AirflowSkipException(event["summary"])
        if event.get("error_type") == RunwayUnknown.__name__:
            raise AirflowException(event["message"])
        given = super().execute_complete(context, event)
        return {key: value for key, value in given.items() if key != "status"}

    def _new_watch(self) -> RunwayWatch:
        """Return the watch from the position of the job, which does not move while the job is stopped."""
        with open_session(self.pipeline, "") as session:
            state = observe_job(session.control)
            if state.state is JobState.RUNNING:
                raise AirflowSkipException(f"the job is running: epoch {state.epoch}, {state.detail}")
            seen = session.observe()
        return RunwayWatch(
            start=seen.stored or seen.live.begin,
            topics=self.pipeline.topics,
            read_committed=self.pipeline.read_committed,
            epoch=seen.epoch_number,
            at_least_s=self.at_least_s,
        )
