"""What all operators of this provider share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.recovery import is_recovery
from airflow_provider_offsets.errors import NothingToRecover, OffsetsError, TakenOver
from airflow_provider_offsets.hooks.world import open_world
from airflow_provider_offsets.operations.lease import of_attempt

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World

OPERATION = "{{ dag.dag_id }}/{{ run_id }}"
"""The tasks of one DAG run are one operation, unless they are told otherwise."""


@contextmanager
def fail_at_once(operation: str = "") -> Iterator[None]:
    """Let an error that no retry can mend fail the task at once, and one that may pass be retried.

    A recovery that has nothing to start, or that another operation took the pipeline from, is skipped: a person is at
    work on the job, and need not be alerted. Any other operation that was taken over fails.

    :param operation: whose task it is.
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
    """Return what all tries of one attempt at a task have in common: a clear changes ``max_tries``, and a run that had
    ended begins once more."""
    return f"{context['ti'].max_tries}@{context['dag_run'].start_date}"


class PipelineOperator(BaseOperator):
    """Base: one act of an operation on a pipeline.

    :param pipeline: the pipeline.
    :param operation: id of the operation; the DAG run by default. Every act is recorded under it in the offset store,
        and is safe to repeat under the same id.
    :param reason: why, for the records; the DAG run's ``reason`` param by default.
    :param application: another version of the pipeline's program for this act, in the folder of ``job.application``;
        for what checks or starts the job.
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

    def act(self, world: World, context: Context) -> Any:
        """Do the one thing that this operator is for, and give what goes to XCom."""
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Open a session, act, close. An error that no retry can mend fails the task at once."""
        with (
            fail_at_once(self.operation),
            open_world(self.pipeline.with_application(self.application), self.operation) as world,
        ):
            session = self.session(world, context)
            kind = context["dag"].dag_id if "dag" in context else self.task_id
            session.control.open_operation(Operation(session.operation, kind, self.reason))
            return self.act(session, context)

    def session(self, world: World, context: Context) -> World:
        """Return the session of the newest attempt of this run."""
        return of_attempt(world)
