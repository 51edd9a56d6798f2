"""The operators that plan the replay of a data interval, and audit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from airflow_provider_offsets import clock
from airflow_provider_offsets.connections import ledger_reader, make_launcher
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.audit.rows import rows_written
from airflow_provider_offsets.core.moments import read_moment
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.replay.audit import total_of
from airflow_provider_offsets.core.replay.boundary import OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.core.restart.accepted import read_counts
from airflow_provider_offsets.errors import AuditFailed, InputRefused, PlanRefused, StateChanged
from airflow_provider_offsets.operations.backfilling import (
    Waiting,
    audit_recorded_replay,
    make_replay_plan,
    recorded_replay_plan,
    replay_audits,
)
from airflow_provider_offsets.operations.sink_auditing import audit_sink
from airflow_provider_offsets.operators.audit import require_sink
from airflow_provider_offsets.operators.base import PipelineOperator, attempt_key
from airflow_provider_offsets.reports import MARKDOWN, replay_audit_report, replay_plan_report, sink_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session

WAIT_S = 30
"""Seconds until the end of an open interval is checked again."""


class PlanBackfillOperator(PipelineOperator):
    """Operator that fixes the boundaries of a data interval, and divides it into shards for dynamic task mapping.

    A retry returns the recorded plan. A clear starts a new attempt with its own run id between the same boundaries. In
    addition to the list, XCom has ``run_id`` and ``plan``.

    :param pipeline: the pipeline.
    :param begin: start of the interval, with its time zone. The data interval of the DAG run is used if both are empty.
    :param end: end of the interval, with its time zone.
    :param accept_lost: highest accepted number of offsets deleted by retention, by topic, as for a restart.
    :param on_open: ``close`` or ``wait``; the pipeline's setting if empty.
    :param records_per_shard: the pipeline's setting if empty.
    """

    template_fields: Sequence[str] = (
        *PipelineOperator.template_fields,
        "begin",
        "end",
        "accept_lost",
        "on_open",
        "records_per_shard",
    )

    def __init__(
        self,
        *,
        pipeline: StreamingPipeline,
        begin: str = "",
        end: str = "",
        accept_lost: Mapping[str, int] | str = "",
        on_open: str = "",
        records_per_shard: str | int = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.begin = begin
        self.end = end
        self.accept_lost = accept_lost
        self.on_open = on_open
        self.records_per_shard = records_per_shard

    def act(self, session: Session, context: Context) -> list[dict[str, Any]]:
        """Plan the replay, and wait in the triggerer if the interval is open and ``on_open`` is ``wait``.

        :returns: the shards for dynamic task mapping, each with ``number`` and ``ranges``.
        :raises PlanRefused: the plan has problems.
        :raises InputRefused: the interval has one end only, is malformed or has not started; or ``on_open`` or a count
            is malformed. Also for an untracked pipeline, or a topic whose records have no timestamp.
        :raises NoHistory: boundaries by batch time, and the history begins after the interval.
        :raises ModeUnsupported: the job could not be submitted in its mode.
        :raises Fenced: a later attempt was already planned.
        :raises ConcurrentAttempt: another attempt was planned meanwhile. Retriable.
        :raises PartitionUnavailable: the cluster does not show a partition that a boundary names. Retriable.
        """
        policy = self._policy()
        make_launcher(session.pipeline, self.executor)  # raises now what each shard would raise
        made = make_replay_plan(
            session,
            _interval(self.begin, self.end, context),
            policy,
            attempt_key=attempt_key(context),
            accept_lost=read_counts(self.accept_lost, "accept_lost"),
            now_ms=clock.now_ms(),
        )
        if isinstance(made, Waiting):
            self.log.info("Waiting: %s", made.reason)
            self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=WAIT_S)), method_name="execute_complete")
        assert isinstance(made, ReplayPlan)
        self.log.info("\n%s", replay_plan_report(made))
        if made.problems:
            raise PlanRefused(made.problems)
        context["ti"].xcom_push("run_id", made.run_id)
        context["ti"].xcom_push("plan", _summary(made))
        return [codec.plain(shard) for shard in made.shards]

    def _policy(self) -> BackfillPolicy:
        """Return the policy of the pipeline with what this run sets.

        :raises InputRefused: ``on_open`` or ``records_per_shard`` is malformed.
        """
        policy = self.pipeline.backfill
        choices = [each.value for each in OnOpen]
        if self.on_open and self.on_open not in choices:
            raise InputRefused(
                seen=f"'on_open' is {self.on_open!r}",
                expected=f"one of {', '.join(choices)}",
                do="correct 'on_open'",
            )
        count = str(self.records_per_shard or policy.records_per_shard)
        if not count.isdecimal() or int(count) == 0:
            raise InputRefused(
                seen=f"'records_per_shard' is {count!r}",
                expected="a whole number of records, at least 1",
                do="write the number as in 1000000",
            )
        return replace(policy, on_open=OnOpen(self.on_open or policy.on_open), records_per_shard=int(count))

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Plan again after a wait in the triggerer.

        :param context: Airflow's task context.
        :param event: not used: only time has passed.
        :returns: the shards, as ``act``.
        """
        return self.execute(context)


class AuditBackfillOperator(PipelineOperator):
    """Operator that verifies that a data interval was replayed completely.

    The shards must cover the interval, and each must have read the expected records.

    Fails otherwise. The report names the partitions whose boundary was the end of the log, and the progress over all
    intervals of the pipeline.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Audit the newest attempt of the operation's replay.

        :returns: the fields of the audit as JSON values; ``total`` over all intervals of this DAG; ``sink``: the
            comparison with the sink, as JSON values; and ``markdown``.
        :raises StateChanged: the operation has planned no replay.
        :raises AuditFailed: the shards do not cover the interval, or a shard is incomplete or read another number of
            records. Or a batch or shard that only the history or only the sink has.
        """
        plan = recorded_replay_plan(session)
        if plan is None:
            raise StateChanged(
                seen=f"operation {self.operation!r} has planned no replay",
                expected="a PlanBackfillOperator before this task, with the same operation",
                do="add it to the DAG, or run its task",
            )
        control = ReplayControl(session.store, session.pipeline.name)
        counts_live = rows_written(session.control.epochs()) is not None
        audit = audit_recorded_replay(control, plan, counts_live=counts_live)
        control.keep_audit(audit)
        total = total_of(replay_audits(control, f"{self.operation.partition('/')[0]}/").values())
        self.log.info("\n%s", replay_audit_report(audit))
        self.log.info("All intervals: %s", total)
        if not audit.is_clean:
            raise AuditFailed(
                seen=f"{len(audit.findings)} finding(s) in a replay:\n{replay_audit_report(audit)}\n",
                expected="shards that cover the interval once, each with all of its records",
                do="run the missing shards. If a topic has transactions, set read_committed: true, because its counts"
                " are then upper bounds",
            )
        sink = audit_sink(session, ledger_reader(self.pipeline))
        self.log.info("\n%s", sink_report(sink))
        require_sink(sink)
        return {
            **codec.plain(audit),
            "total": codec.plain(total),
            "sink": codec.plain(sink),
            "markdown": f"{replay_audit_report(audit, MARKDOWN)}\n\n{sink_report(sink, MARKDOWN)}",
        }


def _summary(plan: ReplayPlan) -> dict[str, Any]:
    return {
        "run_id": plan.run_id,
        "attempt": plan.attempt,
        "interval": codec.plain(plan.interval),
        "begin": plan.begin.to_plain(),
        "end": plan.end.to_plain(),
        "shards": len(plan.shards),
        "records": plan.records_expected,
        "is_exact": plan.is_exact,
        "application_version": plan.application_version,
        "open_boundaries": codec.plain(plan.open_boundaries),
        "notes": list(plan.notes),
        "markdown": replay_plan_report(plan, MARKDOWN),
    }


def _interval(begin: str, end: str, context: Context) -> Interval:
    if bool(begin) != bool(end):
        raise InputRefused(
            seen=f"only '{'from' if begin else 'to'}' is set, to {begin or end!r}",
            expected="both ends of the interval, or none",
            do="fill in 'from' and 'to'",
        )
    if begin:
        return Interval(_moment(begin, "from"), _moment(end, "to"))
    run = context["dag_run"]
    start, until = run.data_interval_start, run.data_interval_end
    if start is None or until is None or start == until:
        raise InputRefused(
            seen=f"run {run.run_id!r} has no data interval",
            expected="an interval",
            do="fill in 'from' and 'to', or use Airflow's backfill, which gives each run its interval",
        )
    return Interval(_ms(start), _ms(until))


def _moment(text: str, name: str) -> int:
    try:
        return read_moment(text)
    except ValueError as error:
        raise InputRefused(
            seen=f"'{name}' is {text!r}: {error}",
            expected="a date and time with a time zone",
            do="write it as in 2026-11-01T00:00Z",
        ) from error


def _ms(moment: datetime) -> int:
    return read_moment(moment.isoformat(timespec="milliseconds"))
