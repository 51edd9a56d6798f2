"""Ask a person whether a plan may be carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApproveRestartOperator(ApprovalOperator):
    """Shows the plan of another task to a person, and waits for *Approve* or *Reject* if the run's ``approve`` is on.

    Rejected, all that comes after it is skipped and the job runs on. What is approved is the plan as it was shown, of a
    job that still runs: the plan at rest is made anew, and refused if it would lose or skip more than is accepted.

    :param plan_task_id: the task whose plan is shown.
    """

    def __init__(self, *, plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(
            subject="{{ dag.dag_id }}: may this plan be carried out?",
            body="{{ params.get('reason') or '' }}\n\n"
            f"{{{{ (ti.xcom_pull(task_ids='{plan_task_id}') or {{}}).get('markdown', '') }}}}",
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Ask and wait, or go on at once."""
        if not context["params"]["approve"]:
            return None
        return super().execute(context)
