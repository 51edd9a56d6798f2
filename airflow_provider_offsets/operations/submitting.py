"""Submit a job from an applied plan, and check that it started."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.detached import Launch, launch
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.committer import live_owner, takes_committer
from airflow_provider_offsets.core.epoch import Claim, Cut, Ended, Epoch, Recorded, YarnApplication
from airflow_provider_offsets.core.known import left_in_removed_topics
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import LaunchEpoch
from airflow_provider_offsets.core.record.model import EpochLaunch, Phase, PipelineRecord
from airflow_provider_offsets.core.restart.checks import AS_A_NEW_ONE
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPlan
from airflow_provider_offsets.core.restart.planner import with_new_partitions
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import (
    DriverDied,
    DriverSilent,
    OffsetsError,
    RecordChanged,
    StateChanged,
    TakenOver,
)
from airflow_provider_offsets.operations.applying import Applied, require_opened
from airflow_provider_offsets.operations.lease import (
    close_if_over,
    complete_history,
    is_running,
    keep_lease,
    reconcile,
    release_lease,
    require_lease,
    take_lease,
)
from airflow_provider_offsets.operations.ownership import claim_own
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.starting import first_sign, has_output
from airflow_provider_offsets.operations.versions import keep_version
from airflow_provider_offsets.runtime.claiming import claiming_command
from airflow_provider_offsets.runtime.settings import Secrets, Settings

LAUNCHED, STARTED = "launched", "started"
POLL_S = 0.2
FETCH_TIMEOUT_S = 900
"""Seconds for the download of the packages of a job."""

BuildCommand = Callable[[Mapping[str, str]], Sequence[str]]
"""Returns the spark-submit command line for the conf that points to the driver's settings."""


@dataclass(frozen=True)
class Started:
    """A running job."""

    epoch: int
    how: str
    """Evidence of the start: ``processed batch <n>``, or ``idle`` at its start with nothing to read."""
    batch_id: int | None
    log: str
    start: Position


@dataclass(frozen=True)
class Launcher:
    """How the job of a pipeline is launched."""

    build_command: BuildCommand
    secrets: Secrets
    resource_manager: str = ""
    """Web address of YARN's ResourceManager, for a job on YARN: its application gets a tag of its own."""


def submit_job(
    session: Session,
    applied: Applied,
    launcher: Launcher,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Started:
    """Start the job, and return how it started: after its first batch, or once it reports that it is idle.

    Safe to repeat, and safe if the process is killed. The pipeline's record has the launch before any process exists. A
    driver claims the launch of its own tag, so only one of two processes gets it. A driver left by a killed task is
    adopted if its launch belongs to this plan. A launch that ended before its first batch is followed by another.

    :param session: the session of the operation.
    :param applied: result of ``apply_plan``.
    :param launcher: how the job is launched.
    :param report: called with the progress.
    :raises DriverDied: the driver has exited; with the last lines of its log.
    :raises DriverSilent: within ``start_timeout_s`` the driver neither processed a batch nor reported that it is idle.
    :raises TakenOver: another operation took the pipeline over.
    :raises StateChanged: a precondition of the plan no longer holds, or the job ran and has ended.
    """
    _retake_lease(session, applied)
    with _releasing_on_failure(session):
        for is_last_try in (False, True):
            claim, launched = _adopt(session, applied, launcher) or _launch(session, applied, launcher)
            report(f"driver log: {launched.log}")
            try:
                started = _await_start(session, applied, claim, launched, report)
            except DriverDied:
                # Spark fails unless startingOffsets names exactly the existing partitions. One may have been added
                # meanwhile.
                if is_last_try or not _partitions_came(session, claim, launched):
                    raise
                report("partitions were added during the start; retrying once")
                continue
            _require_same_topics(session, claim)
            if not session.pipeline.tracked:
                release_lease(session)  # a tracked driver ends its launcher's lease itself
            session.control.record_step(session.operation, STARTED, started)
            return started
    raise AssertionError("the last try returns or raises")


def _require_same_topics(session: Session, claim: Claim) -> None:
    """Raise if a topic was recreated after the launch was checked and before the job read it.

    The job cannot notice that by itself: the old offsets mean other records, and what is before them is passed over.

    :raises StateChanged: a topic, or the cluster, has another id than at the launch.
    """
    was, now = claim.identity, session.live_topics().identity
    if now == was:
        return
    is_other_cluster = now.cluster_id != was.cluster_id
    topics = [topic for topic, id_ in was.topic_ids.items() if is_other_cluster or now.topic_ids.get(topic) != id_]
    old = Position({key: offset for key, offset in claim.start.items() if key.topic in topics})
    raise StateChanged(
        seen=f"{', '.join(map(repr, topics))} was recreated during the start: epoch {claim.number} may read the new"
        f" topic from the old offsets {old.to_json()}, and not the records before them",
        expected=f"the planned {was}",
        do=f"stop the job, and {AS_A_NEW_ONE}",
    )


@contextmanager
def _releasing_on_failure(session: Session) -> Iterator[None]:
    """Release the lease after an error that no retry can fix. A killed submit keeps the lease until it is retried."""
    try:
        yield
    except OffsetsError as error:
        if not error.retriable and not isinstance(error, TakenOver):
            release_lease(session)
        raise


def _retake_lease(session: Session, applied: Applied) -> None:
    """Take the lease again for this plan's launch without a first batch, unless another operation has acted since.

    A driver that was silent for too long was left running, and is adopted.

    :raises TakenOver: another operation has asked that launch to stop.
    """
    record = session.cell.read()
    if record is None or record.lease is not None or not _is_mine(session, record, applied):
        return
    epoch = session.control.newest_launch(record)
    is_running_well = record.phase is Phase.RUNNING and first_sign(session, record, epoch, applied) is not None
    if is_running_well and is_running(epoch) is not False:
        return
    if record.stop is not None:
        raise TakenOver(
            seen=f"{record.stop.operation!r} asked epoch {record.epoch} of {session.pipeline.name!r} to stop",
            expected="no other operation since this one launched that epoch",
            do="No action needed if the job should stay stopped. Otherwise run this operation from its stop task.",
        )
    take_lease(session)


def _adopt(session: Session, applied: Applied, launcher: Launcher) -> tuple[Claim, Launch] | None:
    """Return this plan's launch from an earlier try if it may still process a first batch, else None.

    :raises StateChanged: the launch has processed a batch, and has ended.
    :raises TakenOver: another operation holds the lease.
    """
    record = _over_or_not(session)
    if record.launch is None or not _is_mine(session, record, applied):
        return None
    epoch = session.control.newest_launch(record)
    claim = epoch.claim
    if record.phase is Phase.LAUNCHING:
        require_lease(session, record)
        recorded = session.control.step(session.operation, LAUNCHED, Launch)
        if recorded is not None and recorded.id == claim.tag and recorded.is_alive:
            return claim, recorded
        _require_start(session, applied, session.live_topics())
        # Nobody knows whether a process already exists. If there are two, only one can claim.
        return claim, _spawn(session, claim, launcher)
    if record.phase is Phase.RUNNING:
        return claim, Launch(claim.tag, record.holder, str(_log(session, claim)))
    if has_output(session, epoch, applied):
        raise StateChanged(
            seen=f"epoch {epoch.number}, which this operation started, has processed batches and is over",
            expected="an operation whose job still runs, or never processed a batch",
            do="start another operation: it plans from the position that the job has now",
        )
    return None


def _over_or_not(session: Session) -> PipelineRecord:
    """Return the record, after closing and reconciling an ended epoch if this operation holds the lease."""
    record = session.cell.read()
    while record is not None and record.lease is not None and record.lease.operation == session.operation:
        with suppress(RecordChanged):  # another try of this task was faster
            if record.phase is Phase.ENDED:
                reconcile(session, record)
            elif record.phase is not Phase.RUNNING or not close_if_over(session, record):
                break
        record = session.cell.read()
    if record is None:
        raise StateChanged(
            seen=f"pipeline {session.pipeline.name!r} has no record",
            expected="the record that the stop task creates",
            do="run this operation from its stop task",
        )
    return record


def _is_mine(session: Session, record: PipelineRecord, applied: Applied) -> bool:
    """Return whether the newest launch belongs to this operation and plan, and was not cancelled."""
    launch = record.launch
    is_mine = launch is not None and (launch.operation, launch.plan) == (session.operation, applied.plan.fingerprint)
    return is_mine and (record.phase is not Phase.STOPPED or record.holder is not None)


def _launch(session: Session, applied: Applied, launcher: Launcher) -> tuple[Claim, Launch]:
    record = session.cell.read()
    assert record is not None
    require_lease(session, record)
    # Recoveries have not taken the lease by ``take_lease``, and the stop task may have read another YAML.
    claim_own(session)
    claim = _claim(session, record, applied, launcher)
    plan = applied.plan
    is_again = _is_mine(session, record, applied)
    # A stored epoch never changes, so store it only in its final state. Otherwise the swap below is refused.
    if record.launch is not None and record.phase is Phase.STOPPED:
        last = session.control.newest_launch(record)
        complete_history(session, record, last)
        session.control.keep_epoch(last)
        claim = _with_earlier_moves(session, claim, plan, last)
    session.control.keep_claim(claim)
    newest = next(session.store.newest_first(session.pipeline.stream), None) if session.pipeline.tracked else None
    session.cell.change(
        LaunchEpoch(
            session.operation,
            record.generation if is_again else plan.seen.generation,
            EpochLaunch(
                claim.number,
                claim.tag,
                session.operation,
                plan.fingerprint,
                claim.checkpoint,
                claim.tracked,
                plan.accounts_for,
            ),
            clock.now_ms(),
            0 if newest is None else newest.row_time_ms or 0,
        )
    )
    return claim, _spawn(session, claim, launcher)


def _claim(session: Session, record: PipelineRecord, applied: Applied, launcher: Launcher) -> Claim:
    """Return the next launch of the plan: the first one, or another after a launch without a batch.

    Only the first launch announces the plan's discontinuities. Later launches start where the first one started, so
    they continue.
    """
    live = session.live_topics()
    plan = applied.plan
    _require_start(session, applied, live)
    left_at = None if record.intent is None else session.observe().left_at
    kept = keep_version(session.pipeline.job)
    tag = uuid.uuid4().hex
    before = session.control.newest_launch(record).claim if _is_mine(session, record, applied) else None
    resource_manager = launcher.resource_manager
    return Claim(
        number=record.epoch + 1,
        operation=session.operation,
        tag=tag,
        checkpoint=applied.checkpoint,
        start=with_new_partitions(plan.start, live),
        identity=live.identity,
        stream=session.pipeline.stream,
        plan=plan.fingerprint,
        announced=plan.announced_from(left_at) if before is None else (),
        application_digest=kept.application.digest,
        version=kept.digest,
        store=session.pipeline.authoritative,
        tracked=session.pipeline.tracked,
        stood=plan.stood if before is None else before.start,
        leader_epochs=live.leader_epochs,
        yarn=YarnApplication(resource_manager, _yarn_tag(session, tag)) if resource_manager else None,
        recorded_before=_recorded_before(session, record),
        last_planned_batch_id=_last_planned(session, applied, is_first=before is None),
        in_flight=_in_flight(session, record, applied),
        left_at=left_at,
        scratch=_scratch(session, record),
    )


def _scratch(session: Session, record: PipelineRecord) -> str:
    pipeline = session.pipeline
    has_own = pipeline.tracked and takes_committer(pipeline.job.conf)
    return live_owner(record.incarnation, record.epoch + 1) if has_own else ""


def _with_earlier_moves(session: Session, claim: Claim, plan: RestartPlan, last: Epoch) -> Claim:
    """Return the claim with what a command has moved in topics that no epoch has read since.

    Such a topic was taken out of the pipeline before the last launch, and is put back now.
    """
    topics = claim.start.topics
    if last.holder is not None and set(topics) <= set(last.claim.start.topics):
        return claim
    left = left_in_removed_topics(session.control.epochs())
    earlier = Position({key: offset for key, offset in left.items() if key.topic in topics})
    if not earlier:
        return claim
    left_at = (claim.left_at or Position()).updated(earlier)
    return replace(claim, left_at=left_at, announced=plan.announced_from(left_at))


def _require_start(session: Session, applied: Applied, live: LiveTopics) -> None:
    """Raise unless the job would find the applied start in these topics, and in the store that it reads.

    A tracked job receives its start. An untracked job without a stored start would begin as if it had never run.

    :raises StateChanged: a topic was recreated, or the store has no offset for a partition, or a different one.
    """
    plan = applied.plan
    if live.identity != plan.seen.identity:
        raise StateChanged(
            seen=f"the topics are {live.identity}", expected=f"the planned topics {plan.seen.identity}", do="plan again"
        )
    if session.pipeline.tracked:
        return
    require_opened(session, plan)
    expected = plan.kept if plan.form is RestartForm.RESUME else plan.start
    there = session.observe().kept[0].position
    if gone := [partition for partition in expected or () if there is None or partition not in there]:
        raise StateChanged(
            seen=f"the authoritative store {plan.authoritative!r} has no offset of {', '.join(map(str, gone))}",
            expected="the start that was applied",
            do="plan again",
        )
    if there is not None:
        moved = {key: offset for key, offset in there.items() if plan.start.get(key, offset) != offset}
        if moved:
            raise StateChanged(
                seen=f"the authoritative store {plan.authoritative!r} has {Position(moved).to_json()}",
                expected="the start that was applied",
                do="plan again, because a command or another task has written there since",
            )


def _in_flight(session: Session, record: PipelineRecord, applied: Applied) -> Cut | None:
    """Return what an earlier job had in flight, if neither the record nor a snapshot of the stopped job does.

    This concerns three launches: the first launch of a job, its first tracked launch, and an untracked launch after an
    epoch that this same operation started.
    """
    claimed = session.control.claimed_epoch(record)
    if not session.pipeline.tracked:
        is_unseen = claimed is None or claimed.claim.operation == session.operation
        ranges = session.observe().in_flight if is_unseen else ()
        return Cut(UNSTARTED, "", 1, "", ranges) if ranges else None
    if claimed is not None and claimed.claim.tracked:
        return None
    cut = applied.cut or session.observe().cut
    return None if cut is None else replace(cut, why=cut.why or "in flight before the job was tracked")


def _recorded_before(session: Session, record: PipelineRecord) -> Recorded | None:
    """Return the batch that was recorded last, even if later epochs recorded none."""
    recorded = record.recorded
    if recorded is None or recorded.batch_id is not None:
        return recorded
    return session.control.claim(recorded.epoch, recorded.tag).recorded_before


def _last_planned(session: Session, applied: Applied, *, is_first: bool) -> int | None:
    """Return the highest batch id in the checkpoint, which lets a driver detect another job on the same checkpoint.

    For a resumed checkpoint, this is the id that the plan saw. So a job that was started by hand since then is
    detected.
    """
    if not session.pipeline.tracked:
        return None
    plan = applied.plan
    if plan.form is RestartForm.RESUME and is_first:
        seen = plan.seen
        return seen.committed_batch_id if seen.planned_batch_id is None else seen.planned_batch_id
    state = read_state(open_checkpoint(applied.checkpoint))
    if state is None and plan.form is not RestartForm.FRESH:
        raise StateChanged(
            seen=f"{applied.checkpoint} does not exist",
            expected="the checkpoint that this plan starts from, because without it batch ids would begin at 0 again",
            do="plan again",
        )
    return None if state is None else state.last_batch_id


def _spawn(session: Session, claim: Claim, launcher: Launcher) -> Launch:
    """Start a process that claims a launch which the record already has."""
    pipeline, log = session.pipeline, _log(session, claim)
    settings = Settings(pipeline.name, pipeline.subscription, claim, launcher.secrets)
    settings_file = _settings_file(log)
    command = launcher.build_command({**settings.conf(settings_file), **_yarn_conf(session, claim)})
    if not pipeline.tracked:
        command = claiming_command(settings_file, command)
        if pipeline.stop.marker:
            machine().remove_marker(pipeline.stop.marker)
    _remove_settings_of_earlier_tries(session)
    settings.write(settings_file)
    try:
        launched = launch(claim.tag, command, log=str(log), env=driver_environment())
    except OSError:
        settings_file.unlink()
        raise
    session.control.record_step(session.operation, LAUNCHED, launched)
    return launched


def _log(session: Session, claim: Claim) -> Path:
    folder = Path(session.pipeline.job.folder_for_logs)
    return folder / f"{session.pipeline.name}-epoch-{claim.number:05d}-{operation_tag(session)}-{claim.tag[:8]}.log"


def operation_tag(session: Session) -> str:
    """Return the common part of the operation's file names: its id may contain characters that file names cannot."""
    return hashlib.sha256(session.operation.encode()).hexdigest()[:8]


def _yarn_tag(session: Session, launch_id: str) -> str:
    """Return a tag that no other launch has, whatever pipelines share the cluster."""
    return f"offsets-{hashlib.sha256(f'{session.pipeline.name}#{launch_id}'.encode()).hexdigest()[:40]}"


def _yarn_conf(session: Session, claim: Claim) -> dict[str, str]:
    if claim.yarn is None:
        return {}
    own = session.pipeline.job.conf.get("spark.yarn.tags", "")
    return {"spark.yarn.tags": f"{own},{claim.yarn.tag}" if own else claim.yarn.tag}


def _settings_file(log: Path) -> Path:
    return log.with_suffix(".settings.json")


def _remove_settings_of_earlier_tries(session: Session) -> None:
    """Remove settings files of earlier tries: they hold secrets, and their drivers may never have started.

    A late driver that no longer finds its file exits. A driver that has read its file competes for the epoch: it loses,
    or it wins and is adopted.
    """
    folder = Path(session.pipeline.job.folder_for_logs)
    for left in folder.glob(f"{session.pipeline.name}-epoch-*-{operation_tag(session)}-*.settings.json"):
        left.unlink(missing_ok=True)


def driver_environment() -> dict[str, str]:
    """Return this process's environment without Airflow's settings, which include connections and the database URL."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW", "__AIRFLOW"))}


def _await_start(
    session: Session, applied: Applied, claim: Claim, launched: Launch, report: Callable[[str], None]
) -> Started:
    began = said_at = clock.monotonic_s()
    fetch_until = began + (FETCH_TIMEOUT_S if session.pipeline.job.packages else 0)
    timeout_s = session.pipeline.start_timeout_s
    is_claimed = False
    while clock.monotonic_s() < began + timeout_s:
        if clock.monotonic_s() < fetch_until and not is_claimed and launched.is_fetching_packages:
            began = clock.monotonic_s()  # the timeout begins when the process has its packages
        # Check liveness before the record, so that a batch recorded just before the driver's exit is not missed.
        alive = launched.is_alive
        record = _over_or_not(session)
        epoch = _epoch_of(session, record, claim)
        if (sign := first_sign(session, record, epoch, applied)) is not None:
            return Started(epoch.number, sign.how, sign.batch_id, launched.log, claim.start)
        is_claimed = epoch.holder is not None
        if epoch.ended is not None and record.epoch == claim.number and is_claimed:
            raise _died(launched, f"epoch {epoch.number} {epoch.ended.how.value}", epoch.ended)
        if _has_been_idle(record, claim):
            return Started(epoch.number, "idle", None, launched.log, claim.start)
        require_lease(session, record)
        if not is_claimed and not alive:
            raise _died(launched, f"the driver of {session.pipeline.name!r} ended before it claimed its launch")
        keep_lease(session, record)
        if clock.monotonic_s() >= said_at + 5:
            said_at = clock.monotonic_s()
            report(f"{said_at - began:.0f} s: {f'epoch {claim.number} claimed' if is_claimed else 'driver starting'}")
        clock.sleep(POLL_S)
    raise DriverSilent(
        seen=f"after {timeout_s} s the driver {f'has epoch {claim.number}' if is_claimed else 'claimed no epoch'}, and"
        " neither processed a batch nor reported that it is idle; its log"
        f" {launched.log!r} ends:\n{launched.log_tail()}",
        expected="a first batch",
        do="read the log. The driver was left running: raise start_timeout_s, and run this task again to adopt it",
    )


def _has_been_idle(record: PipelineRecord, claim: Claim) -> bool:
    """Return whether a tracked driver without a recorded batch has ended the lease that this submit held.

    A driver does so when it is idle. It may have started a batch since the last check.
    """
    is_its_own = record.launch is not None and record.launch.tag == claim.tag
    return claim.tracked and is_its_own and record.phase is Phase.RUNNING and record.lease is None


def _epoch_of(session: Session, record: PipelineRecord, claim: Claim) -> Epoch:
    """Return the state of a launch of this operation, even if another operation has launched since."""
    if record.epoch == claim.number:
        return session.control.newest_launch(record)
    kept = session.control.kept_epoch(claim.number)
    assert kept is not None, "an epoch is kept before the next one is launched"
    return kept


def _died(launched: Launch, seen: str, ended: Ended | None = None) -> DriverDied:
    # The driver removes its settings file, which holds secrets, after reading it. This driver may not have reached
    # that.
    _settings_file(Path(launched.log)).unlink(missing_ok=True)
    tail = launched.log_tail()
    said = f" and says {ended.message!r}" if ended is not None and ended.message else ""
    return DriverDied(
        seen=f"{seen}{said}; its log ends:\n{tail}\n",
        expected="a first batch, or the driver idle at its start",
        do=f"fix the cause, and run this task again; the whole log is {launched.log}",
        log_tail=tail,
    )


def _partitions_came(session: Session, claim: Claim, launched: Launch) -> bool:
    if "startingOffsets" not in launched.log_tail(lines=200):
        return False
    return bool(set(session.live_topics().partitions) - set(claim.start))
