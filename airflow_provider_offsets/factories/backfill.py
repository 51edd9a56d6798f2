"""The backfill DAGs: data intervals replayed beside the live job, by the same program."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TriggerRule, chain
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable

from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.replay.boundary import OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.factories.restart import (
    ACCEPTED,
    REASON,
    Restart,
    approve_param,
    new_dag,
    planned_and_stopped,
    restarted,
)
from airflow_provider_offsets.factories.schedules import interval_of, require_since
from airflow_provider_offsets.operators import AuditBackfillOperator, PlanBackfillOperator, ReplayOffsetsOperator
from airflow_provider_offsets.timetables import AskedCronTimetable, AskedDeltaTimetable

Timetable = CronDataIntervalTimetable | DeltaDataIntervalTimetable | AskedCronTimetable | AskedDeltaTimetable

DOC = """### Backfill of `{name}`

Replays data intervals in full, by the program that runs live or by another version of it, while the live job
continues. Airflow's backfill gives each run its interval (`airflow backfill create`, the UI, the REST API). If you
trigger a run by hand, fill in **from** and **to**.

`plan_backfill → replay (one Spark job for each shard) → audit_backfill`

The ends of an interval are frozen once. So neighbouring intervals share no record and leave no gap, in whatever order
they run. The sink receives records again, under a run id. It has to recognize a known record by
`(topic, partition, offset)`, or keep runs apart. A run that is cleared or reprocessed gets a new run id, and replays
the same records. If a shard dies, only that shard is retried, under the same run id.
"""


THEN_LIVE = """### Everything from a time on, and then live: `{name}`

Replays what was written since **from**, by the program or by **application**, while the live job goes on; then stops
that one, and starts the program exactly where the replay ended: no gap, and nothing twice by the new version.

`plan_backfill → replay (one Spark job for each shard) → audit_backfill → preflight → snapshot_before → plan →
approve → stop → snapshot_stopped → replan → apply → submit → watch → audit`

What the live job has read beyond the end of the replay is read again by the new one: the plan counts it, the audit
names the run that announced it. The version that is named here is for this run: the next maintenance starts what
`job.application` says.
"""

RUN_ID = "{{ ti.xcom_pull(task_ids='plan_backfill', key='run_id') }}"
APPLICATION = "{{ params.application or '' }}"
STARTED_AT = "{{ dag_run.start_date.isoformat(timespec='milliseconds') }}"
REPLAYED_TO = "offsets:{{ ti.xcom_pull(task_ids='plan_backfill', key='plan')['end'] | tojson }} | earliest"
"""A partition created after the boundary was fixed was not replayed: the job reads it from its beginning."""


def backfill_dag(
    pipeline: StreamingPipeline,
    *,
    after_audit: Callable[[str], Any] | None = None,
    retries: int = 2,
    **dag: Any,
) -> DAG:
    """Return the DAG ``backfill__<pipeline>``.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``backfill`` has the intervals and
        limits.
    :param after_audit: called with the run id in a separate task after the audit has succeeded, for a sink that swaps
        in the replayed output.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``; ``max_active_runs`` limits how many intervals run at a time (3 by
        default).
    :raises InputRefused: ``backfill.interval`` or ``backfill.since`` is malformed, or the pipeline is untracked.
    """
    _require_tracked(pipeline, "backfill")
    policy = pipeline.backfill
    own = {"schedule": _timetable(policy), "params": _params(), "max_active_runs": 3, **_since(policy)}
    with new_dag("backfill", pipeline, DOC, retries=retries, **{**own, **dag}) as made:
        interval = {"begin": "{{ params['from'] or '' }}", "end": "{{ params['to'] or '' }}"}
        *_, audit = line = _replayed(pipeline, **interval, on_open="{{ params.on_open or '' }}")
        chain(*line)
        if after_audit is not None:
            audit >> PythonOperator(
                task_id="after_audit",
                python_callable=after_audit,
                op_args=["{{ ti.xcom_pull(task_ids='audit_backfill')['run_id'] }}"],
            )
    return made


def backfill_then_live_dag(pipeline: StreamingPipeline, *, retries: int = 2, **dag: Any) -> DAG:
    """Return the DAG ``backfill_then_live__<pipeline>``: replay records since a time by a new version, then go live.

    :param pipeline: the pipeline, such as ``load_pipelines(file)["orders"]``. Its ``backfill`` has the limits of a
        shard.
    :param retries: retries of every task. Each task is safe to repeat; an error that no retry can fix fails at once.
    :param dag: further arguments of ``DAG``.
    :raises InputRefused: the pipeline is untracked.
    """
    _require_tracked(pipeline, "backfill_then_live")
    with new_dag(
        "backfill_then_live", pipeline, THEN_LIVE, retries=retries, **{"params": _params_then_live(pipeline), **dag}
    ) as made:
        replayed = _replayed(pipeline, begin="{{ params['from'] }}", end=STARTED_AT, on_open=OnOpen.CLOSE.value)
        # A cleared run is a new attempt, with a run id of its own. It starts the live job where that attempt ends.
        restart = Restart(
            pipeline,
            REPLAYED_TO,
            accept_skipped=ACCEPTED["accept_skipped"],
            application=APPLICATION,
            operation=RUN_ID,
        )
        chain(*replayed, *planned_and_stopped(restart), *restarted(restart))
    return made


def _replayed(pipeline: StreamingPipeline, **interval: str) -> list[Any]:
    """Return the tasks that plan a replay, replay each shard, and audit the replay."""
    policy = pipeline.backfill
    plan = PlanBackfillOperator(
        task_id="plan_backfill",
        pipeline=pipeline,
        application=APPLICATION,
        accept_lost="{{ params.accept_lost or '' }}",
        records_per_shard="{{ params.records_per_shard or '' }}",
        **interval,
    )
    replay = ReplayOffsetsOperator.partial(
        task_id="replay",
        pipeline=pipeline,
        application=APPLICATION,
        run_id=RUN_ID,
        max_active_tis_per_dagrun=policy.parallel_shards,
        **({"pool": policy.pool} if policy.pool else {}),
    ).expand(shard=plan.output)
    # An interval without records has no shard. Airflow then skips the mapped task, and the audit reports zero
    # records.
    audit = AuditBackfillOperator(task_id="audit_backfill", pipeline=pipeline, trigger_rule=TriggerRule.NONE_FAILED)
    return [plan, replay, audit]


def _timetable(policy: BackfillPolicy) -> Timetable:
    interval = interval_of("backfill.interval", policy.interval)
    if isinstance(interval, timedelta):
        return DeltaDataIntervalTimetable(interval) if policy.automatic else AskedDeltaTimetable(interval)
    return (CronDataIntervalTimetable if policy.automatic else AskedCronTimetable)(interval, timezone="UTC")


def _since(policy: BackfillPolicy) -> dict[str, Any]:
    require_since(policy)
    return {"start_date": datetime.fromisoformat(policy.since), "catchup": True} if policy.since else {}


def _require_tracked(pipeline: StreamingPipeline, kind: str) -> None:
    """Raise for an untracked pipeline: only a program with ``TrackedStream`` can replay a range.

    :raises InputRefused: the pipeline is untracked.
    """
    if not pipeline.tracked:
        raise InputRefused(
            seen=f"pipeline {pipeline.name!r} is untracked, and {kind}__{pipeline.name} was asked for",
            expected="a tracked pipeline, because only a program with TrackedStream replays a range",
            do="create this DAG for tracked pipelines only: 'if pipeline.tracked'",
        )


def _params_then_live(pipeline: StreamingPipeline) -> dict[str, Param]:
    shared = _params()
    return {
        "reason": REASON,
        "from": Param(
            type="string",
            minLength=1,
            title="From",
            description="Replay the records since this time. Include a time zone, as in 2026-11-01T00:00Z.",
        ),
        **{key: shared[key] for key in ("application", "accept_lost", "records_per_shard")},
        "accept_skipped": Param(
            None,
            type=["null", "string"],
            title="Accepted as skipped",
            description="How many offsets, which the replay has read, the live job may skip at its start: orders:10.",
        ),
        "approve": approve_param(pipeline),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Replay, and end after the plan of the live job."
        ),
    }


def _params() -> dict[str, Param]:
    return {
        "reason": REASON,
        "from": Param(
            None,
            type=["null", "string"],
            title="From",
            description="Start of the interval: 2026-11-01T00:00Z. If empty, the run's data interval applies.",
        ),
        "to": Param(None, type=["null", "string"], title="To", description="End of the interval, with a time zone."),
        "application": Param(
            None,
            type=["null", "string"],
            title="Application",
            description="Another version of the program, in the folder of job.application.",
        ),
        "accept_lost": Param(
            None,
            type=["null", "string"],
            title="Accepted as lost",
            description="How many offsets of the interval may be deleted by retention: flights:3, orders:10.",
        ),
        "on_open": Param(
            None,
            type=["null", "string"],
            enum=[None, "close", "wait"],
            title="If no record is at the end yet",
            description="close: end the interval at the end of the log; the audit reports it. wait: wait for it.",
        ),
        "records_per_shard": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Records per shard",
            description="About how many records one Spark job reads. If empty, the pipeline's value applies.",
        ),
    }
