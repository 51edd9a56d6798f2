"""Wait until a job has died."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import PokeReturnValue

from airflow_provider_offsets.operations.recovering import DeathWatch
from airflow_provider_offsets.sensors.base import PipelineSensor
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.triggers.streaming_job import JobDiedTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

YEAR_S = 365 * 24 * 3600


class JobDiedSensor(PipelineSensor):
    """Waits until the pipeline's job is dead, and was so for the ``recovery.confirm_s`` of the pipeline.

    Dead means that its driver said that it failed, or that its process was seen to be gone from this machine (where
    the triggerer runs, if deferred). A driver on another machine that is silent is not dead; nor is a job that somebody
    asked to stop, and one whose recovery was given up is no longer looked at until a person has started it.

    It gives ``epoch``, ``how`` it died and its ``message``. Unless told otherwise it waits for a year.
    """

    def __init__(self, *, timeout: float = YEAR_S, **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self._watch = DeathWatch(self.pipeline.recovery.confirm_s)

    def execute(self, context: Context) -> Any:
        """Wait here, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        self.defer(
            trigger=JobDiedTrigger(
                store_conn_id=self.pipeline.store_conn_id,
                pipeline=self.pipeline.name,
                confirm_s=self.pipeline.recovery.confirm_s,
                timeout_s=self.timeout,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout + 60),
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        with self.store() as store:
            death = self._watch.look(Control(store, self.pipeline.name))
        return PokeReturnValue(is_done=death is not None, xcom_value=None if death is None else asdict(death))
