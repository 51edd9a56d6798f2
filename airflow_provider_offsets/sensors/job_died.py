"""Wait until a job has died."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import PokeReturnValue

from airflow_provider_offsets.operations.recovering import DeathWatch, find_death
from airflow_provider_offsets.operators.base import fail_at_once
from airflow_provider_offsets.operators.recover import lease_timeout_s
from airflow_provider_offsets.runtime.insist import insist
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.triggers.streaming_job import PATIENCE_S, SILENT, JobDiedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

YEAR_S = 365 * 24 * 3600


class JobDiedSensor(PipelineSensor):
    """Waits until the pipeline's job is dead, and was so for the ``recovery.confirm_s`` of the pipeline.

    Dead means that its driver said that it failed, or that its process was seen to be gone from this machine. A driver
    on another machine that is silent is not dead; nor is a job that somebody asked to stop, and one whose recovery was
    given up is no longer looked at until a person has started it. One whose submit was killed with it is left to that
    submit, which Airflow runs again once it has missed its heartbeats for ``task_instance_heartbeat_timeout``; two
    minutes after that it counts as dead. So does a job that any other operation has in hand.

    A triggerer that does not run on the driver's machine watches the heartbeat, and wakes this task when that is
    silent: the task looks from where it runs, and waits on in the triggerer unless it sees a death.

    It returns ``epoch``, ``how`` it died, and its ``message``. Unless told otherwise it waits for a year.
    """

    def __init__(self, *, timeout: float = YEAR_S, **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self._times = {"confirm_s": self.pipeline.recovery.confirm_s, "lease_timeout_s": lease_timeout_s()}
        self._watch = DeathWatch(**self._times)

    def execute(self, context: Context) -> Any:
        """Wait here, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        self._wait_in_triggerer()

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take up again after the triggerer, and look at a job that is silent and cannot be seen from there."""
        if event["status"] != SILENT:
            return super().execute_complete(context, event)
        with fail_at_once(), self.store() as store:
            control = Control(store, self.pipeline.name)
            death = insist(lambda: find_death(control, lease_timeout_s=lease_timeout_s()), patience_s=PATIENCE_S)
        if death is None:
            self.log.info("No sign of life, but no death to be seen from here either: waiting on")
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
        """Look once."""
        with self.store() as store:
            death = self._watch.look(Control(store, self.pipeline.name))
        return PokeReturnValue(is_done=death is not None, xcom_value=None if death is None else asdict(death))
