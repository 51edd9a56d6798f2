"""Plan a restart, and record the plan under its operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.start import require_start
from airflow_provider_offsets.checkpoint.swap import can_be_seeded
from airflow_provider_offsets.core.known import known_batch
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.restart.checks import AS_A_NEW_ONE
from airflow_provider_offsets.core.restart.choice import weigh
from airflow_provider_offsets.core.restart.comparison import Comparison, compare_stores, resolve_conflicts
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPlan, RestartPolicy
from airflow_provider_offsets.core.restart.planner import plan_restart, with_runway
from airflow_provider_offsets.core.selectors.parse import parse_start
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import CheckpointError, InputRefused
from airflow_provider_offsets.operations.lease import require_unknown
from airflow_provider_offsets.operations.ownership import require_own
from airflow_provider_offsets.operations.retention import measure_runway
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.sources import SessionSources
from airflow_provider_offsets.stores.protocols import ExpiringPositions, LeaderEpochs

PLAN = "plan"
COMPARISON = "comparison"


def make_plan(session: Session, start: str, policy: RestartPolicy, *, window_s: int = 0) -> RestartPlan:
    """Return the plan of a restart, and record it as the operation's newest plan. Nothing else is changed.

    If the operation has already launched its epoch, the plan of that launch is returned: a new plan would describe the
    running job.

    :param session: the session of the operation.
    :param start: selectors, such as ``committed`` or ``as-of:2026-11-01T00:00Z | earliest``.
    :param policy: how many lost and skipped offsets are accepted, and how store conflicts are resolved.
    :param window_s: seconds for which the job will stay stopped. The plan has a problem if Kafka deletes unread records
        within that time.
    :raises SelectorError: ``start`` is malformed, or names something that does not exist.
    :raises InputRefused: the operation has launched its epoch from another ``start``.
    """
    if session.has_launched():
        planned = recorded_plan(session)
        if planned is not None:
            _require_same_start(session, planned, start)
            return planned
    plan, seen = draft_plan(session, start, policy, window_s=window_s)
    session.control.record_step(session.operation, COMPARISON, compare_stores(seen))
    session.control.record_step(session.operation, PLAN, plan)
    return plan


def _require_same_start(session: Session, planned: RestartPlan, start: str) -> None:
    """Raise if a run is run again with another start: its tasks would succeed, and the job would not move.

    :raises InputRefused: the plan of the launch has another start.
    """
    asked = str(parse_start(start))
    if planned.selector not in (start, asked) and str(parse_start(planned.selector)) != asked:
        raise InputRefused(
            seen=f"start {asked!r} was given, and operation {session.operation!r} has started the job from"
            f" {planned.selector!r} already",
            expected="the same start when a run is run again",
            do="trigger a new run, with a run id of its own. Nothing was stopped or moved",
        )


def draft_plan(
    session: Session, start: str, policy: RestartPolicy, *, window_s: int = 0
) -> tuple[RestartPlan, Observation]:
    """Return the plan of a restart, and the observation behind it, without changing or recording the plan.

    :param session: the session of the operation.
    :param start: selectors, as for :func:`make_plan`.
    :param policy: as for :func:`make_plan`.
    :param window_s: as for :func:`make_plan`.
    :raises SelectorError: ``start`` is malformed, or names something that does not exist.
    :raises StateLost: the pipeline has a history but no record, or another pipeline owns what it uses: it was renamed,
        or the control store was lost.
    """
    asked = parse_start(start)
    has_record = session.control.record() is not None
    require_own(session)
    if not has_record:
        require_unknown(session)
    seen = session.observe()
    sources = SessionSources(session, position=resolve_conflicts(seen, policy.on_conflict)[0])
    chosen = asked.choose(seen, sources)
    ends = seen.live.end
    if any(each.offset > ends.get(partition, each.offset) for partition, each in chosen.items()):
        # Kafka answered after the observation, so its offsets may lie beyond the observed ends.
        seen = replace(seen, live=session.live_topics())
    choice = weigh(asked, chosen, seen, policy.on_conflict)
    known = known_leader_epochs(session, seen)
    plan = plan_restart(
        choice.wanted,
        seen,
        policy,
        selector=start,
        chosen_by=choice.chosen_by,
        known_leader_epochs=known,
        known_batch=known_batch(seen, session.control.snapshots(), session.control.epochs()),
        named=choice.named,
    )
    of_the_file = (
        *_group_problems(session, seen),
        *_place_problems(session, plan),
        *_start_problems(session, plan),
        *_history_problems(session),
    )
    plan = replace(plan, problems=(*choice.problems, *plan.problems, *of_the_file))
    settings = session.kafka.settings(session.pipeline.topics)
    runway = measure_runway(session.kafka, plan.start, seen.live, settings, at_ms=clock.now_ms(), window_s=window_s)
    return with_runway(plan, runway, settings, policy, read_committed=session.pipeline.read_committed), seen


def known_leader_epochs(session: Session, seen: Observation) -> dict[TopicPartition, int]:
    """Return the highest leader epoch of each partition that was noted since the newest epoch began.

    The sources are the submit, snapshots, and stores that keep leader epochs with their offsets. Earlier leader epochs
    need no check, because the newest start has already taken them into account.

    :param session: the session of the operation.
    :param seen: the state at the time of the plan.
    """
    noted = [] if seen.epoch is None else [seen.epoch.claim.leader_epochs]
    noted += [
        snapshot.seen.live.leader_epochs
        for snapshot in session.control.snapshots()
        if snapshot.seen.epoch_number == seen.epoch_number
    ]
    found = [
        (TopicPartition(topic, number), epoch)
        for epochs in noted
        for topic, of_topic in epochs.items()
        for number, epoch in enumerate(of_topic)
        if epoch is not None
    ]
    for store in session.kept_in.values():
        if isinstance(store, LeaderEpochs):
            found += store.leader_epochs(session.pipeline.stream).items()
    return dict(sorted(found))  # the highest epoch of a partition comes last, and wins


def _group_problems(session: Session, seen: Observation) -> Iterator[Problem]:
    """Yield a problem if the pipeline has another group id than its newest epoch, under which its offsets are kept."""
    if seen.epoch is None or seen.epoch.claim.stream.group_id == session.pipeline.group_id:
        return
    group_id = seen.epoch.claim.stream.group_id
    yield Problem(
        ProblemKind.GROUP_CHANGED,
        f"the pipeline has group_id {session.pipeline.group_id!r}, and the offsets of epoch {seen.epoch_number} are"
        f" stored under {group_id!r}. Write 'group_id: {group_id}' in pipelines.yaml, or {AS_A_NEW_ONE}",
    )


def _place_problems(session: Session, plan: RestartPlan) -> Iterator[Problem]:
    """Yield a problem if an untracked job's checkpoint cannot be replaced in its place, while the job still runs."""
    location = session.pipeline.job.checkpoint
    if plan.authoritative == CHECKPOINT and plan.form is not RestartForm.RESUME and not can_be_seeded(location):
        yield Problem(
            ProblemKind.CHECKPOINT_STAYS,
            f"{plan.form_reason}, and the file system of {location} cannot move a folder in one step. Start from"
            " 'committed' with unchanged partitions, or keep the checkpoint on HDFS. Or let the program use a new"
            " checkpoint, and describe it as a new pipeline",
        )


def _start_problems(session: Session, plan: RestartPlan) -> Iterator[Problem]:
    """Yield a problem if Spark would refuse the checkpoint on which the job continues or begins."""
    pipeline = session.pipeline
    location = plan.seen.checkpoint if plan.form is RestartForm.RESUME else None
    if plan.form is RestartForm.FRESH and pipeline.tracked and plan.seen.checkpoint is None:
        location = pipeline.job.checkpoint
    if not location or not (pipeline.tracked or CHECKPOINT in pipeline.offsets_in):
        return
    try:
        require_start(open_checkpoint(location), may_have_gaps=not pipeline.tracked)
    except CheckpointError as error:
        yield Problem(ProblemKind.NO_RESUME, str(error))


def _history_problems(session: Session) -> Iterator[Problem]:
    """Yield a problem if the store deletes rows of a tracked job's history after a time.

    Each audit would report the deleted batches as lost.
    """
    store = session.store
    if not session.pipeline.tracked or not isinstance(store, ExpiringPositions):
        return
    if expires := store.expires(session.pipeline.stream):
        yield Problem(
            ProblemKind.HISTORY_EXPIRES,
            f"the history of a tracked job must keep all its batches, and {expires}. Set the time to live of the"
            " table's family 'offsets' to FOREVER (HBase shell: alter), or give the pipeline a store of its own",
        )


def recorded_plan(session: Session) -> RestartPlan | None:
    """Return the newest plan of the operation, or None."""
    return session.control.step(session.operation, PLAN, RestartPlan)


def recorded_comparison(session: Session) -> Comparison | None:
    """Return what the operation's newest plan saw in the pipeline's stores, or None."""
    return session.control.step(session.operation, COMPARISON, Comparison)
