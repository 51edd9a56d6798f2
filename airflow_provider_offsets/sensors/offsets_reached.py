"""The sensor that waits until a job has processed everything up to a position."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import NoHistory, SelectorError
from airflow_provider_offsets.operations.job_state import behind, short_of
from airflow_provider_offsets.operators.base import fail_at_once
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.triggers.streaming_job import OffsetsReachedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

END = "end"


class OffsetsReachedSensor(PipelineSensor):
    """Sensor that waits until the pipeline has processed every offset below a position.

    An untracked pipeline has no history. For such a pipeline the sensor reads the job's own offset store, and cannot be
    deferred.

    :param pipeline: the pipeline.
    :param offsets: the position as JSON, ``{"flights":{"0":123}}``; or ``end``: the end offsets of the topics when the
        task starts. They are fixed then, so that a busy topic does not move the target.
    """

    template_fields: Sequence[str] = ("offsets",)

    def __init__(self, *, pipeline: StreamingPipeline, offsets: str = END, **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.offsets = offsets
        self._target = Position()

    def execute(self, context: Context) -> Any:
        """Fix the target, then wait here or in the triggerer.

        :raises AirflowFailException: ``offsets`` is malformed (``SelectorError``), or the sensor is deferrable and the
            pipeline has no history (``NoHistory``).
        """
        with fail_at_once():
            self._require_history()
            self._target = self._goal()
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=OffsetsReachedTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                group_id=self.pipeline.stream.group_id,
                topics=list(self.pipeline.stream.topics),
                target=self._target.to_plain(),
                timeout_s=self.timeout,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 60),
        )

    def poke(self, context: Context) -> bool:
        """Check once whether no offset below the target is missing."""
        missing = self._missing()
        self.log.info("%d offsets to go in %d partitions", sum(missing.values()), len(missing))
        return not missing

    def _missing(self) -> dict[TopicPartition, int]:
        if not self.pipeline.tracked:
            with open_session(self.pipeline, "") as session:
                return short_of(session.observe().stored or Position(), self._target)
        with self.store() as store:
            return behind(Control(store, self.pipeline.name), store, self.pipeline.stream, self._target)

    def _require_history(self) -> None:
        if self.deferrable and not self.pipeline.tracked:
            raise NoHistory(
                seen=f"the sensor is deferrable, and pipeline {self.pipeline.name!r} keeps no history",
                expected="a tracked pipeline, because the triggerer can read only a history",
                do="set deferrable=False and mode='reschedule', so that the worker reads the job's own offset store",
            )

    def _goal(self) -> Position:
        if self.offsets == END:
            with open_session(self.pipeline, "") as session:
                return session.live_topics().end
        try:
            return Position.from_json(self.offsets)
        except ValueError as error:
            raise SelectorError(
                seen=f"'offsets' is {self.offsets!r}: {error}",
                expected='{"topic":{"partition":offset}}, or end',
                do="correct the sensor's 'offsets'",
            ) from error
