"""The sensor that waits until a job has died."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import PokeReturnValue

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations.recovering import DeathWatch, find_death
from airflow_provider_offsets.operators.base import fail_at_once
from airflow_provider_offsets.operators.recover import lease_timeout_s
from airflow_provider_offsets.runtime.retry import retry
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.triggers.streaming_job import RETRY_TIMEOUT_S, SILENT, JobDiedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

YEAR_S = 365 * 24 * 3600


class JobDiedSensor(PipelineSensor):
    """Sensor that waits until the pipeline's job has been dead for the pipeline's ``recovery.confirm_s``.

    A job is dead if its driver reported a failure, or if its process has ended on this machine. These are not dead:

    - a driver on another machine whose heartbeat is silent;
    - a job that a person asked to stop;
    - a job whose recovery was given up, until a person has started it;
    - a job that an operation works on, or whose submit was killed, while Airflow may still retry that task. That lasts
      for ``task_instance_heartbeat_timeout`` plus two minutes.

    A triggerer on another machine than the driver watches the heartbeat, and wakes this task when the heartbeat is
    silent. The task then checks from its own machine, and waits in the triggerer again unless the job is dead.

    The sensor returns ``epoch``, ``how`` the job died, and its ``message``.

    :param pipeline: the pipeline.
    :param timeout: seconds to wait; a year by default.
    """

    def __init__(self, *, pipeline: StreamingPipeline, timeout: float = YEAR_S, **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, timeout=timeout, **kwargs)
        self._times = {"confirm_s": pipeline.recovery.confirm_s, "lease_timeout_s": lease_timeout_s()}
        self._watch = DeathWatch(**self._times)

    def execute(self, context: Context) -> Any:
        """Wait here or in the triggerer.

        :returns: ``epoch``, ``how`` the job died, and its ``message``.
        """
        if not self.deferrable:
            return super().execute(context)
        self._wait_in_triggerer()

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Continue after the triggerer, and check from here a silent job that the triggerer cannot see.

        :param context: Airflow's task context.
        :param event: the event of ``JobDiedTrigger``; with ``status`` *silent*, this task checks from its own machine.
        :returns: ``status``, ``epoch``, ``how`` the job died, and its ``message``.
        :raises AirflowFailException: the trigger timed out or failed.
        """
        if event["status"] != SILENT:
            return super().execute_complete(context, event)
        with fail_at_once(), self.store() as store:
            control = Control(store, self.pipeline.name)
            death = retry(
                lambda: find_death(control, lease_timeout_s=lease_timeout_s()), retry_timeout_s=RETRY_TIMEOUT_S
            )
        if death is None:
            self.log.info(
                "The heartbeat is silent, but this machine cannot see whether the driver is dead; still waiting"
            )
            self._wait_in_triggerer()
        return {"status": "reached", **asdict(death)}

    def _wait_in_triggerer(self) -> NoReturn:
        self.defer(
            trigger=JobDiedTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                timeout_s=self.timeout,
                **self._times,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 60),
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once whether the job has been dead for ``recovery.confirm_s``.

        :returns: whether it has, and then ``epoch``, ``how`` and ``message`` as XCom.
        """
        with self.store() as store:
            death = self._watch.observe(Control(store, self.pipeline.name))
        return PokeReturnValue(is_done=death is not None, xcom_value=None if death is None else asdict(death))
