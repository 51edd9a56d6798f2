"""The maintenance DAG: stop a job, run your maintenance, restart the job where it stopped, and audit the restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, Param, TaskGroup, chain

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.factories.restart import (
    ACCEPT_LOST,
    ACCEPT_SKIPPED,
    ACCEPTED,
    DRY_RUN,
    REASON,
    START_FORMS,
    TAKE_OVER,
    Restart,
    approve_param,
    new_dag,
    planned_and_stopped,
    restarted,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

WINDOW_END = (
    "{{ macros.datetime.fromisoformat(ti.xcom_pull(task_ids='stop')['stopped_since'])"
    " + macros.timedelta(seconds=params.window_s) }}"
)

LONGEST_WINDOW_S = 31 * 86_400
"""A greater number is a mistake, such as milliseconds, and is found before the job is stopped."""

DOC = """### Maintenance of `{name}`

Stops the job between two batches, keeps it stopped for the maintenance window, and starts it where it stopped, or at
**start**. The job is stopped only after a plan without problems: a plan that would lose or skip records fails. The
first run of a pipeline finds nothing to stop, and starts the job.

`preflight → snapshot_before → plan → approve → stop → snapshot_stopped → maintenance_window → replan → apply →
submit → watch → audit`

If `submit` or `watch` fails and `rollback.automatic` of the pipeline is on, `roll_back` restores the previous version
and position, `audit_rollback` counts the replayed records, and the run fails with the reason.

The plan and the audit are tables in the logs of their tasks, and Markdown in their XComs.
"""


def maintenance_dag(
    pipeline: StreamingPipeline, *, window: Callable[[], Any] | None = None, retries: int = 2, **dag: Any
) -> DAG:
    """Return the DAG ``maintenance__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``.
    :param window: called inside the task group ``maintenance_window`` to create the tasks of your own maintenance (add
        partitions, deploy, …). Without it, the window waits for the length that the run's params set.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``.
    """
    with new_dag("maintenance", pipeline, DOC, retries=retries, **{"params": _params(pipeline), **dag}) as made:
        restart = Restart(pipeline, start="{{ params.start }}", **ACCEPTED)
        stopped = planned_and_stopped(restart)
        with TaskGroup("maintenance_window", prefix_group_id=False) as maintenance_window:
            (window or wait_out_window)()
        chain(*stopped, maintenance_window, *restarted(restart))
    return made


def wait_out_window() -> None:
    """Create the task that waits for the end of the window, which begins when the job is stopped."""
    MaintenanceWindowSensor(task_id="wait_out_window", target_time=WINDOW_END)


class MaintenanceWindowSensor(DateTimeSensorAsync):
    """Sensor that waits in the triggerer for the end of a maintenance window, but not if it has passed."""

    def execute(self, context: Context) -> None:  # type: ignore[override]  # it may return, which the base never does
        """Wait, or return at once if the time has passed: deferring takes seconds, and the job is stopped meanwhile."""
        if not self.poke(context):
            super().execute(context)


def _params(pipeline: StreamingPipeline) -> dict[str, Param]:
    return {
        "reason": REASON,
        "window_s": Param(
            0,
            type="integer",
            minimum=0,
            maximum=LONGEST_WINDOW_S,
            title="Maintenance window (seconds)",
            description="How long the job stays stopped before the restart is planned again and the job is submitted.",
        ),
        "start": Param(pipeline.start, type="string", minLength=1, title="Start", description=START_FORMS),
        "accept_lost": ACCEPT_LOST,
        "accept_skipped": ACCEPT_SKIPPED,
        "approve": approve_param(pipeline),
        "take_over": TAKE_OVER,
        "dry_run": DRY_RUN,
    }
