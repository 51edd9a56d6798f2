"""The operator that applies a restart plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.errors import StateChanged
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.planning import recorded_plan
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class ApplyOffsetsOperator(PipelineOperator):
    """Operator that applies the newest plan of its operation, if the state is unchanged since that plan.

    This operator creates the checkpoint that the job starts from. It does not change stored offsets: the epoch that the
    driver claims contains the starting position.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Apply the newest plan of the operation.

        :returns: ``fingerprint`` and ``form`` of the plan, and ``checkpoint``: the location that the job will start
            from.
        :raises StateChanged: the operation has no plan, the job is not stopped, or a precondition no longer holds.
        :raises PlanRefused: the plan has problems.
        :raises TakenOver: another operation took the pipeline over.
        """
        plan = recorded_plan(session)
        if plan is None:
            raise StateChanged(
                seen=f"operation {self.operation!r} has no plan",
                expected="a PlanRestartOperator before this task, with the same operation",
                do="add it to the DAG, or run its task",
            )
        applied = apply_plan(session, plan)
        self.log.info("Applied plan %s: %s from %s", plan.fingerprint, plan.form.value, applied.checkpoint)
        return {"fingerprint": plan.fingerprint, "form": plan.form.value, "checkpoint": applied.checkpoint}
