"""The operator that watches a streaming job after its submit."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.health import Health, judge
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations.health import HealthWindow, pause, record_verdict, take_sample, watched_epoch
from airflow_provider_offsets.operators.base import PipelineOperator, fail_at_once
from airflow_provider_offsets.triggers.streaming_job import EpochEndedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session

SAMPLES = 4
"""Number of samples of the job within ``watch_s``; the history has what happened in between."""

SHORT_S = 10
"""Seconds below which a pause does not justify deferring, which itself takes seconds."""


class WatchStreamingJobOperator(PipelineOperator):
    """Operator that watches the started job for the time in ``rollback``, and fails if the job is unhealthy.

    Unhealthy means dead, stalled while records wait, or going backwards. A healthy epoch is marked as good, for later
    rollbacks. This operator only reads. A killed or cleared try starts its watch again. A job that a person stops
    meanwhile is not judged.

    :param pipeline: the pipeline.
    :param deferrable: wait between two samples in the triggerer, which sees the end of the driver at once. Not used if
        samples are less than 10 s apart.
    """

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.deferrable = deferrable

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Watch the job until a verdict, here or with waits in the triggerer.

        :returns: ``epoch``, and the verdict: ``health``, ``rule``, ``reason`` and ``warnings``.
        :raises JobUnhealthy: the job is unhealthy.
        :raises StateChanged: the operation has started no epoch.
        """
        return self._watch(session, HealthWindow(watched_epoch(session).number, ()))

    def execute_complete(self, context: Context, event: dict[str, Any], window: str = "") -> dict[str, Any]:
        """Take the next sample after the triggerer, whatever event it sent.

        ``airflow dags test`` of Airflow 3.3.2 drops the window. The watch then begins again, and waits in this process.

        :param context: Airflow's task context.
        :param event: not used: the epoch is read again.
        :param window: previous samples of the watched epoch, as JSON; empty if Airflow dropped them.
        :returns: the verdict, as ``act``.
        :raises AirflowFailException: an error that no retry can fix, such as ``JobUnhealthy``.
        """
        if not window:
            self.deferrable = False
            return dict(self.execute(context))
        with fail_at_once(), open_session(self.pipeline, self.operation) as session:
            return self._watch(self.attempt(session, context), codec.loads(HealthWindow, window))

    def _watch(self, session: Session, window: HealthWindow) -> dict[str, Any]:
        epoch = next(each for each in session.control.epochs() if each.number == window.epoch)
        policy = self.pipeline.rollback
        while True:
            window = window.seen_again(take_sample(session, epoch, at_s=clock.now_ms() / 1000))
            verdict = judge(window.samples, policy)
            self.log.info("Epoch %d: %s, %s", epoch.number, verdict.health.value, verdict.reason)
            if verdict.health is not Health.TOO_EARLY:
                break
            self._wait(session, epoch, window, min(policy.watch_s, policy.stall_s) / SAMPLES)
        for warning in verdict.warnings:
            self.log.warning("%s", warning)
        record_verdict(session, epoch, verdict)
        return {"epoch": epoch.number, **codec.plain(verdict)}

    def _wait(self, session: Session, epoch: Epoch, window: HealthWindow, seconds: float) -> None:
        if not self.deferrable or seconds < SHORT_S:
            pause(session, epoch, seconds)
            return
        self.defer(
            trigger=EpochEndedTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                epoch=epoch.number,
                timeout_s=seconds,
            ),
            method_name="execute_complete",
            kwargs={"window": codec.dumps(window)},
            timeout=timedelta(seconds=seconds + 60),
        )
