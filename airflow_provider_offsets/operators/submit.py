"""The operator that submits a streaming job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.connections import make_launcher
from airflow_provider_offsets.errors import StateChanged
from airflow_provider_offsets.operations.applying import recorded_application
from airflow_provider_offsets.operations.recovering import as_it_ran
from airflow_provider_offsets.operations.submitting import submit_job
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class SubmitStreamingJobOperator(PipelineOperator):
    """Operator that starts the job from the applied plan, and leaves it running.

    Succeeds when the first batch of the new epoch is processed, or when the driver reports that it is idle at its
    start. Fails with the last lines of the driver's log as soon as the driver dies. Killing or clearing the task does
    not affect a running driver: the next try adopts it.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Submit the job, and return after its first batch, or once it reports that it is idle.

        :returns: ``epoch``, ``how`` it started, ``batch_id`` of its first batch (None if idle), its ``start``, and the
            path ``log`` of the driver's log.
        :raises StateChanged: the operation has applied no plan, a precondition no longer holds, or the job has ended
            again.
        :raises DriverDied: the driver exited before its first batch.
        :raises DriverSilent: the driver neither processed a batch nor reported that it is idle within
            ``start_timeout_s``.
        :raises TakenOver: another operation took the pipeline over.
        :raises ModeUnsupported: the job cannot be submitted in its mode.
        :raises InputRefused: a file for the submit does not exist.
        """
        session, applied = as_it_ran(session), recorded_application(session)
        if applied is None:
            raise StateChanged(
                seen=f"operation {self.operation!r} has applied no plan",
                expected="an ApplyOffsetsOperator before this task, with the same operation",
                do="add it to the DAG, or run its task",
            )
        started = submit_job(session, applied, make_launcher(session.pipeline, self.executor), report=self.log.info)
        self.log.info("Epoch %d is running: %s; driver log %s", started.epoch, started.how, started.log)
        return {
            "epoch": started.epoch,
            "how": started.how,
            "batch_id": started.batch_id,
            "start": started.start.to_plain(),
            "log": started.log,
        }
