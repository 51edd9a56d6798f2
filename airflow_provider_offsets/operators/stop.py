"""The operator that stops a streaming job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations.lease import new_attempt, of_attempt
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from airflow_provider_offsets.operators.base import PipelineOperator, attempt_key, fail_at_once
from airflow_provider_offsets.triggers.streaming_job import EpochEndedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class StopStreamingJobOperator(PipelineOperator):
    """Operator that stops the job between two batches, and succeeds once the job is verified as stopped.

    A job that does not run is not an error. The pipeline's ``stop`` sets how long to wait, and whether a signal may
    follow. Marking the task as failed does not withdraw the stop request: the job still stops.

    The operation takes the lease of the pipeline. An operation that acted recently keeps its lease unless ``take_over``
    is set. A cleared task starts a new attempt and stops the job again.

    :param pipeline: the pipeline.
    :param deferrable: wait for the acknowledgement in the triggerer.
    :param take_over: take the lease from an operation that acted recently; the next step of that operation is refused.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "take_over")

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        take_over: bool | str = "{{ params.get('take_over') or '' }}",
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.deferrable = deferrable
        self.take_over = take_over

    def attempt(self, session: Session, context: Context) -> Session:
        """Return the session of this attempt, which is new if the task was cleared.

        :param session: the session of the operation.
        :param context: Airflow's task context, which identifies the attempt.
        """
        return new_attempt(session, attempt_key(context))

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Stop the job, here or with a wait in the triggerer.

        :returns: ``epoch``, ``how`` it stopped, ``last_batch_id`` (None if unknown), and the time ``stopped_since``.
        :raises LeaseHeld: another operation acted recently, and ``take_over`` is not set.
        :raises TakenOver: another operation took the pipeline over.
        :raises StopTimedOut: the job did not stop in time; the stop request remains.
        """
        asked = self._ask(session)
        if isinstance(asked, StopResult):
            return self._result(asked)
        assert asked.holder is not None
        self.log.info("Asked epoch %d (pid %d on %s) to stop", asked.number, asked.holder.pid, asked.holder.host)
        if self.deferrable and (asked.claim.tracked or self.pipeline.stop.marker):
            self._defer_until_ended(asked)
        return self._result(await_stop(session, asked, self.pipeline.stop, report=self.log.info))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the triggerer: the job ended, or its time is up and the next stop stage follows.

        If the triggerer could not read the store, the job still has its time: the graceful stage is waited for here.

        :param context: Airflow's task context.
        :param event: the event of ``EpochEndedTrigger``. The state of the job is read again, whatever the event says.
        :returns: the result, as ``act``.
        :raises AirflowFailException: an error that no retry can fix, such as ``StopTimedOut``.
        """
        self.log.info("Event of the trigger: %s", event)
        with fail_at_once(), open_session(self.pipeline, self.operation) as opened:
            session = of_attempt(opened)
            asked = self._ask(session)
            if isinstance(asked, StopResult):
                return self._result(asked)
            policy, was_waited_for = self.pipeline.stop, event["status"] != "error"
            return self._result(
                await_stop(session, asked, policy, is_graceful_over=was_waited_for, report=self.log.info)
            )

    def _ask(self, session: Session) -> StopResult | Epoch:
        return ask_to_stop(session, reason=self.reason, take_over=str(self.take_over).lower() in ("true", "1"))

    def _defer_until_ended(self, epoch: Epoch) -> None:
        self.defer(
            trigger=EpochEndedTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                epoch=epoch.number,
                timeout_s=self.pipeline.stop.graceful_timeout_s,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.pipeline.stop.graceful_timeout_s + 60),
        )

    def _result(self, stopped: StopResult) -> dict[str, Any]:
        self.log.info("Epoch %d: %s %s", stopped.epoch, stopped.how, stopped.message)
        return {
            "epoch": stopped.epoch,
            "how": stopped.how,
            "last_batch_id": stopped.last_batch_id,
            "stopped_since": clock.now_text(),
        }
