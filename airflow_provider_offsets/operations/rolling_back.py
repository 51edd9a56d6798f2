"""Undo an operation: restart the previous version from the previous position.

A rollback is an operation of its own, ``<operation>#rollback``, with the usual steps: stop, plan, apply, submit. So
each step is recorded, safe to repeat, and refused if it would lose a record. Replayed records are announced to the
audit. The output of the bad version is not undone: the rollback names its ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import Epoch, Operation
from airflow_provider_offsets.core.known import known_batch
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between
from airflow_provider_offsets.core.record.model import PipelineRecord
from airflow_provider_offsets.core.recovery import ROLLBACK, is_recovery, recovered_epoch, run_and_attempt
from airflow_provider_offsets.core.restart.model import RestartPlan
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.snapshot import UNSTARTED, WHEN_STOPPED, Observation, snapshot_id
from airflow_provider_offsets.errors import Fenced, RollbackRefused, StateChanged
from airflow_provider_offsets.operations.applying import apply_plan, recorded_application
from airflow_provider_offsets.operations.health import in_hands_of
from airflow_provider_offsets.operations.planning import PLAN, known_leader_epochs, recorded_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from airflow_provider_offsets.operations.submitting import Launcher, Started, submit_job
from airflow_provider_offsets.operations.versions import restored_job, why_not_as_it_ran

OUTPUT = "output"
ROLLED_BACK = "rolled back"
UNCHANGED = "Nothing was changed."
STOPPED = "The job is stopped."


@dataclass(frozen=True)
class Target:
    """What a rollback goes back to."""

    epoch: int
    """Epoch of the restored version: the newest good one before the operation, or the newest one without a good one."""
    version: str
    position: Position
    """Position of the pipeline before the run started anything."""
    undone: tuple[int, ...] = ()
    """Epochs that all attempts of the run started; empty if no driver claimed a launch of it."""

    def choose(self, seen: Observation) -> Position:
        """Return the previous position for the topics as observed now; a partition created since starts at 0."""
        topics = self.position.topics
        new = {each: 0 for each in seen.live.partitions if each.topic in topics and each not in self.position}
        return self.position.updated(new)


@dataclass(frozen=True)
class Output:
    """What the undone epochs have read. Their output is in the sink, and stays there."""

    finished: tuple[OffsetRange, ...] = ()
    in_part: tuple[OffsetRange, ...] = ()
    """Ranges of an interrupted batch, whose output may be incomplete."""


@dataclass(frozen=True)
class Rollback:
    """An operation that was undone."""

    epoch: int
    """Epoch that runs now."""
    target: int
    """Epoch whose version was restored."""
    version: str
    undone: tuple[int, ...]
    start: Position
    replay: int
    output: Output
    log: str


def roll_back(
    session: Session,
    launcher_of: Callable[[StreamingPipeline], Launcher],
    *,
    reason: str,
    report: Callable[[str], None] = lambda line: None,
) -> Rollback:
    """Undo the operation of ``session``, and return what runs afterwards.

    Safe to repeat, and safe if the process is killed anywhere: the steps are recorded under the rollback's own
    operation. Nothing is stopped before it is known that the rollback is possible.

    :param session: the session of the operation to undo.
    :param launcher_of: returns the launcher of a pipeline's job, or raises.
    :param reason: reason for the records.
    :param report: called with the progress.
    :raises RollbackRefused: the previous version or position cannot be restored, or the operation started nothing. The
        message says whether the job is stopped.
    :raises Fenced: another operation has started or stopped the job since, or works on it.
    :raises TakenOver: another operation took the pipeline over meanwhile.
    :raises StopTimedOut: the bad version did not stop in time; the stop request remains.
    :raises DriverFailed: the previous version does not start either.
    """
    back = replace(session, operation=f"{session.operation}{ROLLBACK}")
    back.control.open_operation(Operation(back.operation, "rollback", reason))
    done = back.control.step(back.operation, ROLLED_BACK, Rollback)
    if done is not None:
        return done
    for is_last_try in (False, True):
        before = session.cell.read()
        target = find_target(session, back.operation)
        old = _with_version(back, target)
        launcher = launcher_of(old.pipeline)
        plan = None if is_last_try else _started_plan(old)
        try:
            plan = plan or _stop_and_plan(old, target, before, reason, report)
            started = submit_job(old, apply_plan(old, plan), launcher, report=report)
            return _record(old, target, plan, started)
        except StateChanged as changed:
            if is_last_try:
                raise
            report(f"planning again, because the state has changed: {changed.seen}")
    raise AssertionError("the last try returns or raises")


def find_target(session: Session, rollback: str) -> Target:
    """Return what a rollback of this session's operation goes back to.

    :param session: the session of the operation to undo.
    :param rollback: id of the rollback's own operation.
    :raises RollbackRefused: the operation has started nothing, or there is nothing to go back to.
    :raises Fenced: another operation has started or stopped the job since, or works on it.
    """
    applied = recorded_application(session)
    if applied is None:
        raise _refused(session, "it has applied no plan, so there is nothing to undo", UNCHANGED)
    if by := in_hands_of(session):
        raise Fenced(
            seen=f"operation {by!r} has started or stopped the job of {session.operation!r} since",
            expected="no other operation on the job since then",
            do="Nothing was undone: the job is as that operation left it. If that version is still the one to undo,"
            " deploy the previous version and run a maintenance:"
            f" 'snapshot:{snapshot_id(session.operation, WHEN_STOPPED)}' starts at the position before this operation.",
        )
    epochs = [epoch for epoch in session.control.epochs() if epoch.holder is not None]
    while epochs and epochs[-1].claim.operation == rollback:
        epochs.pop()
    earlier, undone = _split(session, epochs)
    before = _previous(session, earlier)
    if before is None:
        raise _refused(session, "it is the first start of the pipeline: there is no previous version", UNCHANGED)
    stood = undone[0].claim.stood if undone else applied.plan.stood
    if not before.claim.version or stood is None:
        raise _refused(
            session, f"epoch {before.number} was started by an earlier release, which kept no copy", UNCHANGED
        )
    if changed := why_not_as_it_ran(session.pipeline, before.claim):
        raise _refused(session, changed, UNCHANGED)
    return Target(before.number, before.claim.version, stood, tuple(epoch.number for epoch in undone))


def _split(session: Session, epochs: Sequence[Epoch]) -> tuple[list[Epoch], list[Epoch]]:
    """Return the epochs before the operation, and those that its run started last, in all its attempts.

    An attempt that a watch found good is not undone with a later one. A recovery that started the run's version again
    counts as the run.
    """
    record = session.control.record()
    good = 0 if record is None else record.good
    started_by, run = {epoch.number: _run_of(epoch, epochs) for epoch in epochs}, run_and_attempt(session.operation)[0]
    earlier, undone = list(epochs), list[Epoch]()
    while earlier and started_by[earlier[-1].number] == run:
        if earlier[-1].number == good and earlier[-1].claim.operation != session.operation:
            break
        undone.insert(0, earlier.pop())
    return earlier, undone


def _run_of(epoch: Epoch, epochs: Sequence[Epoch]) -> str:
    """Return the run that deployed the version of an epoch."""
    operation = epoch.claim.operation
    if is_recovery(operation):
        dead = next((each for each in epochs if each.number == recovered_epoch(operation)), None)
        if dead is not None and dead.claim.version == epoch.claim.version:
            return _run_of(dead, epochs)
    return run_and_attempt(operation)[0]


def _previous(session: Session, epochs: Sequence[Epoch]) -> Epoch | None:
    """Return the epoch of the previous version: the newest epoch that a watch found good, else the newest one."""
    record = session.control.record()
    good = 0 if record is None else record.good
    return next((epoch for epoch in epochs if epoch.number == good), epochs[-1] if epochs else None)


def why_no_way_back(session: Session) -> str:
    """Return why the version before this operation could not be restored; empty if it could."""
    claimed = [epoch for epoch in session.control.epochs() if epoch.holder is not None]
    before = _previous(session, _split(session, claimed)[0])
    if before is None:
        return "there is no previous version"
    if not before.claim.version:
        return f"epoch {before.number} was started by an earlier release, which kept no copy"
    try:
        restored_job(session.pipeline.job, before.claim.version)
    except RollbackRefused as refused:
        return refused.seen
    return why_not_as_it_ran(session.pipeline, before.claim)


def _with_version(back: Session, target: Target) -> Session:
    job = restored_job(back.pipeline.job, target.version)
    return replace(back, pipeline=replace(back.pipeline, job=job))


def _started_plan(back: Session) -> RestartPlan | None:
    """Return the plan of a killed try, because a restart that has started must be finished, not planned again."""
    record, plan = back.cell.read(), recorded_plan(back)
    if record is None or plan is None or plan.problems:
        return None
    return plan if back.has_launched() or record.generation == plan.seen.generation else None


def _stop_and_plan(
    back: Session, target: Target, before: PipelineRecord | None, reason: str, report: Callable[[str], None]
) -> RestartPlan:
    """Stop the job unless another operation has acted on it since ``before``, and record the plan of the rollback."""
    _plan(back, target, back.observe(), UNCHANGED)
    asked = ask_to_stop(back, reason=reason, since=before)
    if not isinstance(asked, StopResult):
        report(f"asked epoch {asked.number} to stop")
        asked = await_stop(back, asked, back.pipeline.stop, report=report)
    report(f"epoch {asked.epoch}: {asked.how}")
    back.take_snapshot(WHEN_STOPPED, reason=reason, taken_at=clock.now_text())
    seen = back.observe()
    plan = _plan(back, target, seen, STOPPED)
    back.control.record_step(back.operation, OUTPUT, _output(back, target, seen))
    back.control.record_step(back.operation, PLAN, plan)
    return plan


def _record(back: Session, target: Target, plan: RestartPlan, started: Started) -> Rollback:
    done = Rollback(
        epoch=started.epoch,
        target=target.epoch,
        version=target.version,
        undone=target.undone,
        start=started.start,
        replay=plan.replay,
        output=back.control.step(back.operation, OUTPUT, Output) or Output(),
        log=started.log,
    )
    back.control.record_step(back.operation, ROLLED_BACK, done)
    return done


def _plan(back: Session, target: Target, seen: Observation, state: str) -> RestartPlan:
    """Return the plan of the rollback, without recording the plan.

    The plan accepts offsets that it only seems to skip: if the operation had rewound the job, the previous version has
    already read the records up to its own position.

    :param seen: the observation from which to plan.
    :param state: what a refusal says about the job.
    :raises RollbackRefused: the previous position can no longer be read.
    """
    wanted = target.choose(seen)
    plan_with = partial(
        plan_restart,
        wanted,
        seen,
        selector=f"as after epoch {target.epoch}",
        known_leader_epochs=known_leader_epochs(back, seen),
        known_batch=known_batch(seen, back.control.snapshots(), back.control.epochs()),
        named=wanted,
    )
    policy = back.pipeline.policy
    rows = plan_with(policy).rows
    read = {topic: sum(row.skipped for row in rows if row.topic == topic) for topic in {row.topic for row in rows}}
    plan = plan_with(replace(policy, accept_skipped=read))
    if plan.problems:
        raise _refused(back, "; ".join(map(str, plan.problems)), state)
    return plan


def _output(back: Session, target: Target, seen: Observation) -> Output:
    """Return what the undone epochs have read, as observed after they are stopped and reconciled."""
    undone = [epoch for epoch in back.control.epochs() if epoch.number in target.undone]
    if not undone or seen.stored is None:
        return Output()
    stood = [*(epoch.claim.stood or Position() for epoch in undone[1:]), seen.stored]
    ranges = [each for epoch, end in zip(undone, stood, strict=True) for each in _read(epoch.claim.start, end)]
    return Output(_merged(ranges), _cut_off(undone) if seen.is_tracked else seen.in_flight)


def _read(start: Position, end: Position) -> tuple[OffsetRange, ...]:
    return ranges_between(start, Position({each: max(offset, start.get(each, 0)) for each, offset in end.items()}))


def _merged(ranges: Iterable[OffsetRange]) -> tuple[OffsetRange, ...]:
    """Return the same offsets as ranges in ascending order that do not touch, without empty ones."""
    merged: list[OffsetRange] = []
    for each in sorted(
        (each for each in ranges if each.count), key=lambda each: (each.topic, each.partition, each.start)
    ):
        last = merged[-1] if merged else None
        if last is None or (last.topic, last.partition) != (each.topic, each.partition) or last.end < each.start:
            merged.append(each)
        elif last.end < each.end:
            merged[-1] = replace(last, end=each.end)
    return tuple(merged)


def _cut_off(epochs: Sequence[Epoch]) -> tuple[OffsetRange, ...]:
    """Return the ranges of the batches that were started and never recorded."""
    return tuple(
        each
        for epoch in epochs
        for cut in epoch.cuts
        if cut.batch_id > (UNSTARTED if epoch.last_batch_id is None else epoch.last_batch_id)
        for each in cut.ranges
    )


def _refused(session: Session, seen: str, state: str) -> RollbackRefused:
    return RollbackRefused(
        seen=f"operation {session.operation!r} cannot be rolled back: {seen}. {state}",
        expected="a previous version and position",
        do="fix the job, and run a maintenance with the start that you need",
    )
