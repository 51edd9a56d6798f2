"""The operator that asks a person to approve a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApproveRestartOperator(ApprovalOperator):
    """Operator that shows the plan of another task to a person, and waits for *Approve* or *Reject*.

    The operator waits only if the run's param ``approve`` is on. After *Reject*, Airflow skips all downstream tasks and
    the job keeps running. The person approves the plan as shown, made while the job runs. After the stop the restart is
    planned again. That plan is refused if it would lose or skip more than accepted.

    :param plan_task_id: id of the task whose plan is shown.
    """

    def __init__(self, *, plan_task_id: str = "plan", **kwargs: Any) -> None:
        super().__init__(
            subject="{{ dag.dag_id }}: may this plan be carried out?",
            body="{{ params.get('reason') or '' }}\n\n"
            f"{{{{ (ti.xcom_pull(task_ids='{plan_task_id}') or {{}}).get('markdown', '') }}}}",
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Ask and wait for the answer, or return at once if no approval is required.

        :returns: None without an approval. Otherwise the task is deferred, and ``ApprovalOperator`` evaluates the
            answer.
        """
        if not context["params"]["approve"]:
            return None
        return super().execute(context)
