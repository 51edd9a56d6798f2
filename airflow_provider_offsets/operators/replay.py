"""The operator that replays one shard of a data interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import make_launcher
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.health import HELD_BY, Sample, why_hold_back
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.operations.health import HealthWindow, take_sample
from airflow_provider_offsets.operations.replaying import ShardReplaying
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


SAMPLE_EVERY_S = 10
"""Seconds until the live job is checked again, before a shard starts."""


class ReplayOffsetsOperator(PipelineOperator):
    """Operator that replays one shard with the pipeline's own program, as a bounded Spark job beside the live job.

    Succeeds when the output of the shard is complete. After a killed task, the next try adopts the running driver, or
    launches another with the same run id if the driver is dead. A complete shard does not run again under its run id.
    If the task is ended (marked failed, cleared, timed out), its driver is ended too.

    :param pipeline: the pipeline.
    :param shard: ``{"number": 0, "ranges": [{"topic": …, "partition": …, "start": …, "end": …}]}``; mapped.
    :param run_id: id of the run that sinks receive, from the operation's replay plan.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "run_id", "shard")

    def __init__(self, *, pipeline: StreamingPipeline, shard: Mapping[str, Any], run_id: str, **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.shard = shard
        self.run_id = run_id
        self._replaying: ShardReplaying | None = None
        self._samples: tuple[Sample, ...] = ()
        self._waits_here = False

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Replay the shard, and return once its output is complete.

        A shard that was not launched yet waits in the triggerer while the live job falls behind, if
        ``backfill.yield_to_live`` is on.

        :returns: ``records_read`` and ``records_expected``, the ``ranges``, ``elapsed_ms`` (run time of the program),
            ``log`` (path of the driver's log), and the ids of run, shard and program.
        :raises ShardFailed: the driver exited before its output was complete. Retriable.
        :raises InputRefused: the shard or run id does not belong to the operation's plan, or the runtime refused the
            program.
        :raises ModeUnsupported: the job could not be submitted in its mode.
        :raises Fenced: a later attempt replays the interval.
        :raises StateChanged: the program or a topic differs from the plan.
        """
        launcher = make_launcher(session.pipeline, self.executor)
        shard = self._read_shard()
        record = ReplayControl(session.store, session.pipeline.name).shard(self.run_id, shard.number)
        if self.pipeline.backfill.yield_to_live and record.newest is None:
            self._hold_back(session)
        self._replaying = ShardReplaying(session, shard, self.run_id, launcher, self.log.info)
        try:
            replayed = self._replaying.run()
        except (KeyboardInterrupt, SystemExit):
            self._replaying.end_driver()
            raise
        self.log.info(
            "Shard %d: %s records read of %s expected, in %.1f s",
            replayed.shard,
            f"{replayed.records_read:,}",
            f"{replayed.records_expected:,}",
            replayed.elapsed_ms / 1000,
        )
        return dict(codec.plain(replayed))

    def execute_complete(self, context: Context, event: Any, window: str = "") -> Any:
        """Check the live job again after the triggerer.

        ``airflow dags test`` of Airflow 3.3.2 drops the window. The shard then waits in this process.

        :param context: Airflow's task context.
        :param event: not used: only time has passed.
        :param window: previous samples of the live job, as JSON; empty if Airflow dropped them.
        :returns: the counts, as ``act``.
        """
        self._samples = codec.loads(HealthWindow, window).samples if window else ()
        self._waits_here = not window
        return self.execute(context)

    def _hold_back(self, session: Session) -> None:
        """Wait, in the triggerer if possible, while the live job falls behind; return at once if it does not run."""
        while (epoch := session.claimed_epoch()) is not None and epoch.ended is None:
            self._samples = (*self._samples, take_sample(session, epoch, at_s=clock.now_ms() / 1000))[-HELD_BY:]
            why = why_hold_back(self._samples)
            if why == "":
                return
            self.log.info(
                "Waiting for the live job: %s", why or "it has unread records; checking whether it catches up"
            )
            if self._waits_here:
                clock.sleep(SAMPLE_EVERY_S)
                continue
            self.defer(
                trigger=TimeDeltaTrigger(timedelta(seconds=SAMPLE_EVERY_S)),
                method_name="execute_complete",
                kwargs={"window": codec.dumps(HealthWindow(epoch.number, self._samples))},
            )

    def on_kill(self) -> None:
        """End the driver together with the task."""
        if self._replaying is not None:
            self._replaying.end_driver()

    def _read_shard(self) -> Shard:
        try:
            found: Shard = codec.build(Shard, self.shard, "shard")
        except ValueError as error:
            raise InputRefused(
                seen=str(error),
                expected='{"number": 0, "ranges": [{"topic": "t", "partition": 0, "start": 0, "end": 9}]}',
                do="map this operator over the output of the plan task",
            ) from error
        return found
