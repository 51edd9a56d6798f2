"""The base of this provider's operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import BaseOperator

from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.recovery import is_recovery
from airflow_provider_offsets.errors import NothingToRecover, OffsetsError, TakenOver
from airflow_provider_offsets.operations.lease import of_attempt

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session

OPERATION = "{{ dag.dag_id }}/{{ run_id }}"
"""By default, the tasks of one DAG run are one operation."""


@contextmanager
def fail_at_once(operation: str = "") -> Iterator[None]:
    """Convert errors for Airflow: an error that no retry can fix fails the task at once, any other is retried.

    A recovery is skipped if it has nothing to start or another operation has taken over. A person is then already
    working on the job, and needs no alert. Any other operation that lost the pipeline to another one fails.

    :param operation: id of the task's operation.
    :raises AirflowFailException: the error is not retriable.
    :raises AirflowSkipException: the recovery is not needed.
    """
    try:
        yield
    except OffsetsError as error:
        if error.retriable:
            raise
        is_nothing = isinstance(error, NothingToRecover)
        if is_nothing or (isinstance(error, TakenOver) and is_recovery(operation)):
            raise AirflowSkipException(f"{type(error).__name__}: {error}") from error
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def attempt_key(context: Context) -> str:
    """Return a key that all tries of one attempt at a task share.

    The key contains ``max_tries``, which a clear changes, and the start of the DAG run, which changes if an ended run
    starts again.
    """
    return f"{context['ti'].max_tries}@{context['dag_run'].start_date}"


class PipelineOperator(BaseOperator):
    """Base class of operators: one step of an operation on a pipeline.

    :param pipeline: the pipeline.
    :param operation: id of the operation; the DAG run by default. The offset store records every step under this id. A
        step can be repeated safely under the same id.
    :param reason: reason for the records; the DAG run's ``reason`` param by default.
    :param application: another version of the pipeline's program for this step, in the directory of
        ``job.application``. Only steps that check or start the job use it.
    """

    template_fields: Sequence[str] = ("operation", "reason", "application")

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        operation: str = OPERATION,
        reason: str = "{{ params.get('reason') or '' }}",
        application: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.operation = operation
        self.reason = reason
        self.application = application

    def act(self, session: Session, context: Context) -> Any:
        """Perform the step of this operator, and return the value for XCom.

        :param session: the session of the operation on the pipeline.
        :param context: Airflow's task context.
        :raises OffsetsError: the step was refused or failed; ``execute`` converts the error for Airflow.
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Open a session, act, and close the session. An error that no retry can fix fails the task at once.

        :returns: the result of ``act``, which Airflow stores as an XCom.
        :raises AirflowFailException: an error that no retry can fix.
        :raises AirflowSkipException: a recovery that is not needed.
        :raises OffsetsError: a retriable error.
        """
        with (
            fail_at_once(self.operation),
            open_session(self.pipeline.with_application(self.application), self.operation) as session,
        ):
            session = self.attempt(session, context)
            kind = context["dag"].dag_id if "dag" in context else self.task_id
            session.control.open_operation(Operation(session.operation, kind, self.reason))
            return self.act(session, context)

    def attempt(self, session: Session, context: Context) -> Session:
        """Return the session of the newest attempt of this run.

        :param session: the session of the operation.
        :param context: Airflow's task context.
        """
        return of_attempt(session)
