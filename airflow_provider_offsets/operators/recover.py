"""Begin the recovery of a job that died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_provider_offsets.operations.recovering import begin_recovery
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World

RETRY_S = 120
"""Within this Airflow runs a task again, once it has missed its heartbeats for long enough."""


class BeginRecoveryOperator(PipelineOperator):
    """Takes the pipeline of a job that died, for one more try to start it, or gives up, by the pipeline's ``recovery``.

    What was given up stays so, over all runs, until a person has started the job. It is *skipped*, and with it what
    comes after it, if the job runs again, somebody wants it stopped, or another operation is at work on it.

    :param epoch: the epoch that died, as ``JobDiedSensor`` gives it.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "epoch")

    def __init__(self, *, epoch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epoch = epoch

    def act(self, world: World, context: Context) -> dict[str, Any]:
        """Return ``epoch`` and ``tries``: how many were made to recover from its death, with this one."""
        policy, run = self.pipeline.recovery, str(context["run_id"])
        tries = begin_recovery(world, int(self.epoch), run, policy, lease_timeout_s=lease_timeout_s())
        self.log.info("Try %d to recover from the death of epoch %s", tries, self.epoch)
        return {"epoch": int(self.epoch), "tries": tries}


def lease_timeout_s() -> int:
    """Return how long an operation that acted is left alone: so long until Airflow has run its task again, if that was
    killed."""
    return conf.getint("scheduler", "task_instance_heartbeat_timeout") + RETRY_S
