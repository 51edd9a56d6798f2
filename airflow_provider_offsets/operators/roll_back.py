"""The operator that rolls back an operation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_offsets.connections import make_launcher
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.errors import RolledBack
from airflow_provider_offsets.operations.health import in_hands_of, why_unhealthy
from airflow_provider_offsets.operations.rolling_back import Rollback, roll_back
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class RollBackOperator(PipelineOperator):
    """Operator that restarts the version and position from before an operation, then fails, as the operation did.

    The version is that of the newest earlier epoch that a watch found good; without such an epoch, that of the newest
    earlier epoch. Nothing is stopped before a way back is known. Retrying and clearing are safe: the steps are recorded
    under a separate operation, ``<operation>#rollback``. A job that another operation has started or stopped since is
    not touched.

    :param pipeline: the pipeline.
    :param automatic: for a task that runs if the submit or the watch failed. Skipped unless ``rollback.automatic`` is
        on and the records show that the job is unhealthy. Skipped too if an earlier task failed, so that nothing was
        submitted: Airflow runs such a task then as well. A watch also fails if it cannot read the job's state.
    :param fails: whether the task fails once the previous version runs. False if the run exists for the rollback.
    """

    def __init__(
        self, *, pipeline: StreamingPipeline, automatic: bool = False, fails: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.automatic = automatic
        self.fails = fails

    def execute(self, context: Context) -> Any:
        """Roll back. An automatic rollback opens no connection unless a task before it has failed itself.

        :param context: Airflow's task context.
        :returns: as ``act``.
        :raises AirflowSkipException: ``automatic`` is set, and no automatic rollback is due.
        :raises AirflowFailException: an error that no retry can fix, such as ``RolledBack``.
        """
        if self.automatic and not self._has_failed_before(context):
            raise AirflowSkipException("nothing is rolled back, because the operation has not come to its submit")
        return super().execute(context)

    def _has_failed_before(self, context: Context) -> bool:
        """Check whether a task before this one has run and failed: ONE_FAILED also counts *upstream_failed*."""
        run_id = context.get("run_id")
        if run_id is None or not self.upstream_task_ids:
            return True  # called by hand, or alone in its DAG
        states = context["ti"].get_task_states(
            dag_id=self.dag_id, task_ids=sorted(self.upstream_task_ids), run_ids=[run_id]
        )
        return "failed" in states.get(run_id, {}).values()

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Roll back, and return what runs now; raise if ``fails`` is set.

        :returns: ``why``, and the fields of the rollback: the ``epoch`` that runs now, its ``target`` epoch and
            ``version``, its ``start``, the offsets to ``replay``, the ``undone`` epochs and their ``output``, and the
            path ``log``.
        :raises RolledBack: the rollback succeeded and ``fails`` is set.
        :raises AirflowSkipException: ``automatic`` is set, and no automatic rollback is due.
        :raises RollbackRefused: the previous version or position cannot be restored.
        :raises Fenced: another operation has started or stopped the job since, or works on it.
        :raises TakenOver: another operation took the pipeline over meanwhile.
        :raises StopTimedOut: the bad version did not stop in time; the stop request remains.
        :raises DriverFailed: the previous version does not start either.
        """
        why = why_unhealthy(session)
        if self.automatic:
            self._skip_unless_due(why, in_hands_of(session))
        why = why or self.reason or "on request"
        self.log.info("Rolling back operation %r: %s", self.operation, why)
        done = roll_back(session, partial(make_launcher, executor=self.executor), reason=why, report=self.log.info)
        self.log.info("%s\n%s", _what_runs(done), _not_undone(done))
        if self.fails:
            raise RolledBack(
                seen=f"operation {self.operation!r} was undone, {why}. {_what_runs(done)}",
                expected="a healthy job",
                do=f"correct the new version (its epochs: {list(done.undone) or 'none'}). {_not_undone(done)}",
            )
        return {"why": why, **codec.plain(done)}

    def _skip_unless_due(self, why: str, other: str) -> None:
        if other:
            raise AirflowSkipException(f"nothing is rolled back, because {other!r} has taken the pipeline over")
        if not why:
            raise AirflowSkipException(
                "nothing is rolled back, because no job of this operation is known to be unhealthy"
            )
        if not self.pipeline.rollback.automatic:
            raise AirflowSkipException(f"{why}; nothing is rolled back, because rollback.automatic is off")


def _what_runs(done: Rollback) -> str:
    return (
        f"The version of epoch {done.target} ({done.version[:12]}) runs again, as epoch {done.epoch}, from"
        f" {done.start.to_json()}; {done.replay:,} offsets are replayed"
    )


def _not_undone(done: Rollback) -> str:
    if not done.output.finished and not done.output.in_part:
        return "The undone version finished no batch, so it has no output"
    finished, in_part = (", ".join(map(str, each)) for each in (done.output.finished, done.output.in_part))
    return "Outputs of the undone version remain: " + "; ".join(
        [*([finished] if finished else []), *([f"possibly in part {in_part}"] if in_part else [])]
    )
