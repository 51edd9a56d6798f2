"""The operator that begins the recovery of a dead job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations.recovering import begin_recovery
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session

RETRY_S = 120
"""Seconds within which Airflow retries a task that has missed its heartbeats for too long."""


class BeginRecoveryOperator(PipelineOperator):
    """Operator that takes the lease of a dead job's pipeline for one more try to start the job, or gives up.

    The pipeline's ``recovery`` policy decides. A recovery that was given up stays so over all runs, until a person
    starts the job. This task and its downstream tasks are *skipped* if the job runs again, a person wants it stopped,
    or another operation works on it.

    :param pipeline: the pipeline.
    :param epoch: number of the dead epoch, as returned by ``JobDiedSensor``.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "epoch")

    def __init__(self, *, pipeline: StreamingPipeline, epoch: str, **kwargs: Any) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.epoch = epoch

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Begin the recovery of the dead epoch, and count the try.

        :returns: ``epoch``, and ``tries``: the number of tries for this death, including this one.
        :raises RecoveryGivenUp: the ``recovery`` policy allows no further try.
        :raises NothingToRecover: the job lives, a person wants it stopped, or another operation works on it.
        """
        policy, run = self.pipeline.recovery, str(context["run_id"])
        tries = begin_recovery(session, int(self.epoch), run, policy, lease_timeout_s=lease_timeout_s())
        self.log.info("Try %d of a recovery, after the death of epoch %s", tries, self.epoch)
        return {"epoch": int(self.epoch), "tries": tries}


def lease_timeout_s() -> int:
    """Return the seconds for which the lease of an operation protects it.

    In this time, Airflow retries a task of the operation that was killed.
    """
    return int(conf.getint("scheduler", "task_instance_heartbeat_timeout")) + RETRY_S
