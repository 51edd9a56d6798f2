"""Apply a restart plan: create the checkpoint that the job starts from, if the state is unchanged since the plan."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import committed_entry, read_state
from airflow_provider_offsets.checkpoint.seed import close, seed
from airflow_provider_offsets.checkpoint.swap import swap_in
from airflow_provider_offsets.core.epoch import Cut
from airflow_provider_offsets.core.location import plain_path, resolved
from airflow_provider_offsets.core.record.events import EndWrite
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.restart.model import Preconditions, RestartForm, RestartPlan
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import ModeUnsupported, PlanRefused, StateChanged
from airflow_provider_offsets.operations.lease import keep_lease, require_lease
from airflow_provider_offsets.operations.moving import keep_move, note_move
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.protocols import PositionStore, WritablePositionStore

APPLIED = "applied"


@dataclass(frozen=True)
class Applied:
    """A plan that was applied, and the checkpoint that the job will start from."""

    plan: RestartPlan
    checkpoint: str
    """Empty for a job that keeps its offsets elsewhere."""
    next_batch_id: int | None = None
    """Id of the job's first batch, if its checkpoint determines that id."""
    cut: Cut | None = None
    """The batch of a tracked job that was started before, and not recorded. The job that started it may still commit
    it."""


def apply_plan(session: Session, plan: RestartPlan) -> Applied:
    """Prepare the submit of ``plan``, record that, and return the result. The operation must hold the lease.

    A repeated call returns the same result. For a tracked job, the stored position moves when the launch is claimed: a
    seeded checkpoint is a new directory with the plan's fingerprint in its name. The checkpoint that the job leaves is
    closed, so that nobody continues there. Every later plan can still read the position in it.

    An untracked job starts from the position in its own store, so this function moves that position. The record names
    the move before the store changes. Until the job starts, every plan uses the position before the move.

    :param session: the session of the operation.
    :param plan: the plan to apply.
    :raises PlanRefused: the plan has problems.
    :raises StateChanged: the job is not stopped, or a precondition of the plan no longer holds; the message names each
        one.
    :raises TakenOver: another operation took the pipeline over.
    """
    if plan.problems:
        raise PlanRefused(plan.problems)
    done = recorded_application(session)
    if done is not None and session.has_launched():
        return done
    if session.pipeline.tracked:
        seen = _require_unchanged(session, plan)
        applied = Applied(plan, _prepare_checkpoint(session, plan), cut=_in_flight(seen, plan))
        if applied.checkpoint != plan.seen.checkpoint:
            _close_left(session, plan)
    else:
        applied = _move(session, plan, _note_move(session, plan))
    session.control.record_step(session.operation, APPLIED, applied)
    return applied


def _in_flight(seen: Observation, plan: RestartPlan) -> Cut | None:
    """Return the started batch of a tracked job, with what a job that was not tracked before had in flight beside it.

    Only a snapshot knows the latter if the stored offset of a partition is gone. The plan has counted it.
    """
    cut = seen.cut
    if seen.epoch is not None and seen.epoch.claim.tracked:
        return cut  # the epochs of a tracked job have their cut-off batches
    cut_off = () if cut is None else cut.ranges
    beside = tuple(each for each in seen.in_flight if each.count and each not in cut_off)
    if not beside:
        return cut
    return replace(cut or Cut(plan.last_batch_id + 1, "", 1, "", ()), ranges=(*cut_off, *beside))


def recorded_application(session: Session) -> Applied | None:
    """Return the plan that the operation applied last, or None."""
    return session.control.step(session.operation, APPLIED, Applied)


def _require_unchanged(session: Session, plan: RestartPlan) -> Observation:
    seen = session.observe()
    record = session.cell.read()
    if record is not None:
        keep_lease(session, record)
    if record is None or record.phase is not Phase.STOPPED:
        raise StateChanged(
            seen=f"pipeline {seen.pipeline!r} is {record.phase.value if record else 'unknown'}",
            expected="a stopped job, and the lease of this operation",
            do="stop the job with StopStreamingJobOperator",
        )
    now = Preconditions.of(seen)
    if plan.form is not RestartForm.RESUME and plan.seen.closed_by is None and now.closed_by == session.operation:
        now = replace(now, closed_by=None)  # by an earlier try of this task
    if changes := plan.seen.changes(now):
        raise StateChanged(
            seen=f"the state has changed since plan {plan.fingerprint}: {'; '.join(changes)}",
            expected="the state that the plan saw",
            do="plan again",
        )
    return seen


def require_opened(session: Session, plan: RestartPlan) -> None:
    """Raise if an untracked job opens another checkpoint than the plan saw.

    :param session: the session of the operation.
    :param plan: the plan to apply.
    :raises StateChanged: ``job.checkpoint`` was changed since.
    """
    if plan.seen.opens != session.opens:
        raise StateChanged(
            seen=f"the job opens {session.opens!r}",
            expected=f"the planned checkpoint {plan.seen.opens!r}",
            do="plan again",
        )


def _note_move(session: Session, plan: RestartPlan) -> str:
    """Record the move in advance if the state is unchanged since the plan, or find that this move has already started.

    :returns: the token of the following write; empty for a plan that does not write to the job's own store.
    """
    token = uuid.uuid4().hex if plan.form is RestartForm.WRITE else ""
    record = session.cell.read()
    if record is not None and record.intent is not None and record.intent.plan == plan.fingerprint:
        keep_lease(session, record)
        require_opened(session, plan)
    else:
        seen = _require_unchanged(session, plan)
        if plan.form is RestartForm.RESUME:
            return ""
        keep_move(session, seen, plan.fingerprint, plan.kept, plan.start, seen.left_at)
    note_move(session, plan.fingerprint, token)
    return token


def _move(session: Session, plan: RestartPlan, token: str) -> Applied:
    """Move an untracked job's position in the store that the job starts from. A repeated call changes nothing."""
    pipeline = session.pipeline
    if pipeline.authoritative != CHECKPOINT:
        if plan.form is RestartForm.WRITE:
            _write_start(session, plan, token)
        return Applied(plan, "")
    location = pipeline.job.checkpoint
    if plan.form is RestartForm.RESUME:
        return Applied(plan, location, plan.last_batch_id + 1)
    left = plan.seen.checkpoint or ""
    if left and plain_path(left) == session.opens:
        left = ""
    if left:
        _close_left(session, plan)
    next_batch_id = swap_in(
        location,
        tag=plan.fingerprint,
        query_id=_query_id(plan),
        last_batch_id=plan.last_batch_id,
        start=plan.start,
        like=left,
        require_lease=lambda: _require_intent(session, plan),
    )
    return Applied(plan, location, next_batch_id)


def _query_id(plan: RestartPlan) -> str:
    """Return the query id of the seeded checkpoint; a new one, equal in each try, if nothing knows the job's own."""
    return plan.query_id or str(uuid.uuid5(uuid.NAMESPACE_OID, plan.fingerprint))


def _require_intent(session: Session, plan: RestartPlan) -> None:
    """Raise unless the operation holds the lease and the record names this move.

    Two tries of a task may have two plans. The later intent contains the position of the job before the move.

    :raises TakenOver: this operation does not hold the lease.
    :raises StateChanged: the record names no move, or that of another plan.
    """
    record = session.cell.read()
    assert record is not None
    require_lease(session, record)
    if record.intent is None or record.intent.plan != plan.fingerprint:
        raise StateChanged(
            seen=f"the record names {'no move' if record.intent is None else f'the move of plan {record.intent.plan}'}",
            expected=f"the move of plan {plan.fingerprint}",
            do="No action needed: another try of this task moves the job.",
        )


def _write_start(session: Session, plan: RestartPlan, token: str) -> None:
    """Write the start to the job's own store, and record that the write has ended.

    That store has no lease. If another operation took over meanwhile, the write may have hit a running job. Then the
    pending write stays in the record, and the next plan reports it.
    """
    store = _writable(session.pipeline.authoritative, session.kept_in)
    try:
        store.write(session.pipeline.stream, plan.start, expected=plan.kept)
    except StateChanged:
        session.cell.change(EndWrite(token, is_written=False))
        raise
    require_lease(session, session.cell.change(EndWrite(token, is_written=True)))


def _writable(name: str, kept_in: Mapping[str, PositionStore]) -> WritablePositionStore:
    store = kept_in[name]
    if not isinstance(store, WritablePositionStore):
        raise ModeUnsupported(
            seen=f"store {name!r} ({store.kind}) cannot be written",
            expected="a store to which the start of the job can be written",
            do="name another store first in offsets_in",
        )
    return store


def _prepare_checkpoint(session: Session, plan: RestartPlan) -> str:
    """Return the checkpoint of the next epoch. A seeded checkpoint is a new directory, so no existing one changes."""
    base = session.pipeline.job.checkpoint
    if plan.form is RestartForm.RESUME:
        assert plan.seen.checkpoint is not None
        return plan.seen.checkpoint
    if plan.form is RestartForm.FRESH and read_state(open_checkpoint(base)) is None:
        return base
    beside = f"{resolved(base)}-{plan.fingerprint}"
    if plan.form is RestartForm.REPOSITION:
        old = open_checkpoint(plan.seen.checkpoint or base)
        seed(
            open_checkpoint(beside),
            query_id=_query_id(plan),
            last_batch_id=plan.last_batch_id,
            start=plan.start,
            like=committed_entry(old),
            sources_in=old,
        )
    return beside


def _close_left(session: Session, plan: RestartPlan) -> None:
    """Close the checkpoint that a job leaves.

    The record fences a tracked driver. It does not fence a job from before it was tracked, a ``spark-submit`` by hand,
    or an operation whose control store was lost.

    :raises TakenOver: this operation does not hold the lease.
    :raises StateChanged: a batch was planned or committed there since the plan.
    """
    left = plan.seen
    if left.checkpoint is None:
        return
    record = session.cell.read()
    assert record is not None
    require_lease(session, record)
    newest_id = left.committed_batch_id if left.planned_batch_id is None else left.planned_batch_id
    close(open_checkpoint(left.checkpoint), session.operation, after=newest_id)
    _require_unchanged(session, plan)
