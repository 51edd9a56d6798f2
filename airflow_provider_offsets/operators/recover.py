"""Begin the recovery of a job that died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.operations.recovering import begin_recovery
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World


class BeginRecoveryOperator(PipelineOperator):
    """Allows one more try to start a job that died, or gives up, by the pipeline's ``recovery``.

    What was given up stays so, over all runs, until a person has started the job.

    :param epoch: the epoch that died, as ``JobDiedSensor`` gives it.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "epoch")

    def __init__(self, *, epoch: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epoch = epoch

    def act(self, world: World, context: Context) -> dict[str, Any]:
        """Give ``epoch`` and ``tries``: how many were made to recover from its death, with this one."""
        policy, run = self.pipeline.recovery, str(context["run_id"])
        tries = begin_recovery(world, int(self.epoch), run, policy, at_ms=clock.now_ms())
        self.log.info("Try %d to recover from the death of epoch %s", tries, self.epoch)
        return {"epoch": int(self.epoch), "tries": tries}
