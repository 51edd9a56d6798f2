"""The sensor that waits until a job is in a state."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations.job_state import JobObservation, JobState, observe_job
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.triggers.streaming_job import JobStateTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class StreamingJobSensor(PipelineSensor):
    """Sensor that waits until the pipeline's job is in a state.

    *Ended*: its driver has ended. *Stopped*: its last batch is accounted for, too. *Dead*: its process has ended, and
    its epoch is still open. A driver on another machine with a silent heartbeat is *unknown*, however long the silence
    lasts.

    :param pipeline: the pipeline.
    :param state: ``launching``, ``running``, ``ended``, ``stopped`` or ``dead``.
    """

    def __init__(self, *, pipeline: StreamingPipeline, state: str = JobState.RUNNING.value, **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.state = JobState(state)
        self._before: JobObservation | None = None

    def execute(self, context: Context) -> Any:
        """Wait here or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=JobStateTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                state=self.state.value,
                timeout_s=self.timeout,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 60),
        )

    def poke(self, context: Context) -> bool:
        """Check once whether the job is in the awaited state."""
        with self.store() as store:
            self._before = observe_job(Control(store, self.pipeline.name), self._before)
        self.log.info("Epoch %d: %s, %s", self._before.epoch, self._before.state.value, self._before.detail)
        return self._before.is_in(self.state)
