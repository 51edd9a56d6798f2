"""The maintenance DAG: stop a job, let somebody work, start it where it stopped, and prove it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, Param, TaskGroup, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import (
    DRY_RUN,
    REASON,
    START_FORMS,
    TAKE_OVER,
    approve_param,
    new_dag,
    planned_and_stopped,
    restarted,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

WINDOW_END = (
    "{{ macros.datetime.fromisoformat(ti.xcom_pull(task_ids='stop')['at_rest_since'])"
    " + macros.timedelta(seconds=params.window_s) }}"
)

DOC = """### Maintenance of `{name}`

Stops the job between two batches, keeps it stopped for the maintenance window, and starts it where it stopped – or
elsewhere, if **start** says so. Nothing is stopped before the plan is sound: a plan that would lose or skip records
fails. The first run of a pipeline starts its job: there is nothing to stop then.

`snapshot_before → plan → approve → stop → snapshot_at_rest → maintenance_window → replan → apply → submit → watch →
audit`

If `submit` or `watch` fails and `rollback.automatic` of the pipeline is on, `roll_back` brings back the version and the
position of before, `audit_rollback` counts what is read again, and the run fails with the reason.

The plan and the audit are tables in the logs of their tasks, and Markdown in their XComs.
"""


def maintenance_dag(
    pipeline: StreamingPipeline, *, window: Callable[[], Any] | None = None, retries: int = 2, **dag: Any
) -> DAG:
    """Return the DAG ``maintenance__<pipeline>``.

    :param window: called inside the task group ``maintenance_window`` to make the tasks of your own maintenance (add
        partitions, deploy, …); without it the window waits for the length that the run asks for.
    :param retries: of every task. Each is safe to repeat; what no retry can mend fails at once.
    :param dag: passed on to ``DAG``.
    """
    with new_dag("maintenance", pipeline, DOC, retries=retries, **{"params": _params(pipeline), **dag}) as made:
        stopped = planned_and_stopped(pipeline, start="{{ params.start }}")
        with TaskGroup("maintenance_window", prefix_group_id=False) as maintenance_window:
            (window or wait_out_window)()
        chain(*stopped, maintenance_window, *restarted(pipeline, start="{{ params.start }}"))
    return made


def wait_out_window() -> None:
    """Make the task that waits until the window, counted from the moment of rest, is over."""
    WindowSensor(task_id="wait_out_window", target_time=WINDOW_END, end_from_trigger=True)


class WindowSensor(DateTimeSensorAsync):
    """Waits in the triggerer, to the second and without a worker slot; not at all if the time has come already."""

    def execute(self, context: Context) -> None:  # type: ignore[override]  # it may return, which the base never does
        """Wait, or go on at once: the job is stopped, and a round through the triggerer takes seconds."""
        if not self.poke(context):
            super().execute(context)


def _params(pipeline: StreamingPipeline) -> dict[str, Param]:
    return {
        "reason": REASON,
        "window_s": Param(
            0,
            type="integer",
            minimum=0,
            title="Maintenance window (seconds)",
            description="How long the job stays stopped before it is planned anew and submitted.",
        ),
        "start": Param(pipeline.start, type="string", minLength=1, title="Start", description=START_FORMS),
        "approve": approve_param(pipeline),
        "take_over": TAKE_OVER,
        "dry_run": DRY_RUN,
    }
