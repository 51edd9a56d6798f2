"""Rename a pipeline, or release what it owns for another one.

After a rename, the record and everything that belongs to the pipeline continue under the new name.

The history is stored by group id and topics, but epochs by the pipeline's name. A new name alone would leave the
history unexplained and the newest epoch unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.control.owners import hand_over, owners_of, release_resources
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import NAME
from airflow_provider_offsets.core.record.events import Rename
from airflow_provider_offsets.core.record.model import RECORD, Phase, PipelineRecord
from airflow_provider_offsets.core.replay.shard import CancelShard, CloseShard, ShardPhase, TryEnded
from airflow_provider_offsets.errors import InputRefused, PipelineRenamed, StoreInUse
from airflow_provider_offsets.operations.job_state import has_job
from airflow_provider_offsets.operations.lease import close_newest, release_lease, retake_lease
from airflow_provider_offsets.operations.session import Session

RENAME_USAGE = "airflow offsets rename OLD NEW"
RELEASE_USAGE = "airflow offsets release OWNER PIPELINE"


@dataclass(frozen=True)
class Renaming:
    """What a rename would do, or has done."""

    old: str
    new: str
    epoch: int
    """Number of the newest launch; 0 if the pipeline never ran."""
    cells: int
    """Number of control records that are copied."""
    done: bool
    """Whether the pipeline already has the new name."""


def plan_rename(session: Session, old: str) -> Renaming:
    """Return what ``rename`` would do. Nothing is changed.

    :param session: a session of the pipeline under its new name.
    :param old: the pipeline's name in the control store.
    :raises InputRefused: no pipeline has the old name, another one has or had the new name, or the history is stored
        under another group id.
    :raises PipelineRenamed: the pipeline already has a third name.
    :raises StoreInUse: the job or a replay runs.
    """
    source = _as(session, old, RENAME_USAGE)
    record = _require_possible(session, source)
    cells = sum(1 for name, _ in session.store.scan(old, "") if name != RECORD)
    return Renaming(old, session.pipeline.name, record.epoch, cells, done=_is_done(session, record))


def rename(session: Session, old: str, *, take_over: bool = False) -> Renaming:
    """Rename the pipeline ``old`` to its name in ``session``, and return what was done.

    Safe to repeat, and safe if the process is killed anywhere. Once the old name is given up, no operation or driver
    acts under it. None acts under the new name before its record exists and it owns what the old name owned.

    :param session: a session of the pipeline under its new name.
    :param old: the pipeline's name in the control store.
    :param take_over: take the lease from an operation that acted recently.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    :raises InputRefused: as for ``plan_rename``, like all other errors.
    """
    planned = plan_rename(session, old)
    if planned.done:
        _hand_over(session, old)
        return planned
    source = _as(session, old, RENAME_USAGE)
    record = source.cell.create()
    if not record.renamed_to:
        record = _give_up_name(session, source, take_over=take_over)
    _end_replays(source)
    _copy_cells(session, old)
    RecordCell(session.store, session.pipeline.name).continue_from(record)
    _hand_over(session, old)
    return replace(planned, done=True)


def plan_release(session: Session, owner: str) -> tuple[str, ...]:
    """Return what ``release`` would take from a pipeline. Nothing is changed.

    :param session: a session of the pipeline that uses it now.
    :param owner: name of the pipeline that owns it.
    :raises InputRefused: the owner is this pipeline.
    :raises StoreInUse: the job of the owner runs, or may run.
    """
    source = _as(session, owner, RELEASE_USAGE)
    record = source.cell.read()
    if record is not None and not record.renamed_to:
        _require_no_job(source, record)
    owners = owners_of(session.store, session.pipeline.resources)
    return tuple(each for each, name in owners.items() if name == owner)


def release(session: Session, owner: str, *, take_over: bool = False) -> tuple[str, ...]:
    """Take what a pipeline uses from an owner that no longer uses it, and return it. Safe to repeat.

    The owner keeps its record and its other resources. It claims again what its next operation uses, if it is free.

    :param session: a session of the pipeline that uses it now.
    :param owner: name of the pipeline that owns it.
    :param take_over: take the owner's lease from an operation that acted recently.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    :raises InputRefused: as for ``plan_release``, like all other errors.
    """
    released = plan_release(session, owner)
    source = _as(session, owner, RELEASE_USAGE)
    record = source.cell.read()
    may_act = record is not None and not record.renamed_to
    if may_act:
        _hold_stopped(source, take_over=take_over)
    release_resources(session.store, owner, released)
    if may_act:
        release_lease(source)
    return released


def _as(session: Session, name: str, usage: str) -> Session:
    """Return the session of the pipeline under another name.

    :param session: a session of the pipeline.
    :param name: the other name.
    :param usage: the command with its arguments, for the message.
    """
    if not NAME.fullmatch(name) or name == session.pipeline.name:
        raise InputRefused(
            seen=f"the other name of pipeline {session.pipeline.name!r} is {name!r}",
            expected="two different names of pipelines",
            do=f"name both as in '{usage}'",
        )
    return replace(session, pipeline=replace(session.pipeline, name=name))


def _require_possible(session: Session, source: Session) -> PipelineRecord:
    old, new = source.pipeline.name, session.pipeline.name
    record = _record_of(session, source)
    if record.renamed_to not in ("", new):
        raise PipelineRenamed(
            seen=f"pipeline {old!r} was renamed to {record.renamed_to!r}",
            expected="the name that the pipeline has now",
            do=f"run 'airflow offsets rename {record.renamed_to} {new}'",
        )
    there = session.cell.read()
    if there is not None and there.incarnation != record.incarnation:
        had = f", and was renamed to {there.renamed_to!r}" if there.renamed_to else ""
        raise InputRefused(
            seen=f"pipeline {new!r} already has a record, of epoch {there.epoch}{had}",
            expected="a name that no other pipeline of this control store has or had, because its records still exist",
            do="choose another name",
        )
    if record.renamed_to and there is not None and there.renamed_to and there.version > record.version:
        raise PipelineRenamed(
            seen=f"pipeline {old!r} was renamed to {new!r}, which was then renamed to {there.renamed_to!r}",
            expected="the name that the pipeline has now",
            do=f"run 'airflow offsets rename NAME {new}' with its present name as NAME",
        )
    if record.launch is not None:
        group_id = source.control.claim(record.epoch, record.launch.tag).stream.group_id
        if group_id != session.pipeline.group_id:
            raise InputRefused(
                seen=f"pipeline {new!r} has group_id {session.pipeline.group_id!r}, and the history of {old!r} is kept"
                f" under {group_id!r}",
                expected="the same group_id under both names",
                do=f"add group_id: {group_id} to the pipeline {new!r}",
            )
    if not record.renamed_to:
        _require_no_job(source, record)
    return record


def _record_of(session: Session, source: Session) -> PipelineRecord:
    """Return the record under the old name; an empty one if its first operation was killed after it claimed.

    :raises InputRefused: no pipeline has the old name.
    """
    old = source.pipeline.name
    record = source.cell.read()
    if record is not None:
        return record
    if old in owners_of(session.store, session.pipeline.resources).values():
        return PipelineRecord(incarnation="")
    raise InputRefused(
        seen=f"no pipeline {old!r} is in the control store of {session.pipeline.name!r}",
        expected="the name under which the pipeline last ran",
        do="correct the name, or store_conn_id of the new pipeline",
    )


def _require_no_job(source: Session, record: PipelineRecord) -> None:
    """Raise if the job or a replay of the pipeline runs or may be running, because both use its old name."""
    old = source.pipeline.name
    if record.phase is Phase.RUNNING and has_job(source.control, record) is not False:
        raise StoreInUse(
            seen=f"epoch {record.epoch} of pipeline {old!r} is running, or may be running",
            expected="a stopped job",
            do=f"run the task 'stop' of maintenance__{old} first, with a pipelines.yaml that still names {old!r}",
        )
    replays = ReplayControl(source.store, old)
    for _, replay in replays.replays():
        for number, shard in replays.shards(replay.newest.run_id).items():
            driver = shard.driver if shard.phase is ShardPhase.RUNNING else None
            if driver is not None and machine().is_session_alive(driver) is not False:
                raise StoreInUse(
                    seen=f"shard {number} of {replay.newest.run_id!r} is being replayed, or may be",
                    expected="no replay of the pipeline",
                    do="wait until the backfill has ended, or end its tasks",
                )


def _is_done(session: Session, record: PipelineRecord) -> bool:
    there = session.cell.read()
    return bool(record.renamed_to) and there is not None and not there.renamed_to


def _give_up_name(session: Session, source: Session, *, take_over: bool) -> PipelineRecord:
    """Reconcile the last epoch, copy what belongs to the pipeline, and mark the old record as renamed."""
    old = source.pipeline.name
    record = _hold_stopped(source, take_over=take_over)
    if record.launch is not None:
        # This record prevents the new name from looking like a pipeline that never ran, wherever this process is
        # killed.
        source.control.keep_epoch(source.control.newest_launch(record))
    _copy_cells(session, old)
    return source.cell.change(Rename(source.operation, session.pipeline.name))


def _hold_stopped(source: Session, *, take_over: bool) -> PipelineRecord:
    """Take the lease, reconcile the last epoch, and return the record of the stopped pipeline.

    Its pending writes stay: the session may open another store than the one that the old name wrote to.
    """
    retake_lease(source, take_over=take_over)
    record = close_newest(source)
    if record.phase is not Phase.STOPPED:
        release_lease(source)
        _require_no_job(source, record)
    return record


def _end_replays(source: Session) -> None:
    """Fence the shards that a replay launched under the old name since the check: their records would be orphaned.

    Any later launch sees that the name was given up.
    """
    replays = ReplayControl(source.store, source.pipeline.name)
    ended = TryEnded(EndedHow.CANCELLED, clock.now_ms(), "the pipeline was renamed")
    for _, replay in replays.replays():
        run_id = replay.newest.run_id
        for number, shard in replays.shards(run_id).items():
            if shard.newest is not None and shard.phase in (ShardPhase.LAUNCHING, ShardPhase.RUNNING):
                replays.change_shard(run_id, number, CancelShard(shard.newest.tag, ended))
                replays.change_shard(run_id, number, CloseShard(shard.newest.tag, ended))


def _copy_cells(session: Session, old: str) -> None:
    """Copy all control records except the pipeline's record. Existing copies are from an earlier try of this rename.

    Another try may finish the rename meanwhile: from then on the pipeline changes its records under the new name.
    """
    new = session.pipeline.name
    for name, text in list(session.store.scan(old, "")):
        while name != RECORD and (there := session.store.get(new, name)) != text:
            record = session.cell.read()  # read after the cell: any later change makes the swap fail
            if record is not None and not record.renamed_to:
                return
            if session.store.check_and_put(new, name, there, text):
                break


def _hand_over(session: Session, old: str) -> None:
    """Transfer what the old name owns to the new name, unless the pipeline was renamed again meanwhile.

    An earlier name of the pipeline still owns something if a rename was killed before this step.
    """

    def has_new_name() -> bool:
        record = session.cell.read()
        return record is not None and not record.renamed_to

    owners = owners_of(session.store, session.pipeline.resources)
    for name in sorted({old, *(each for each in owners.values() if _is_earlier_name(session, each))}):
        hand_over(session.store, name, session.pipeline.name, is_due=has_new_name)


def _is_earlier_name(session: Session, name: str) -> bool:
    """Return whether the pipeline itself had this name, and gave it up."""
    record, before = session.cell.read(), RecordCell(session.store, name).read()
    if record is None or before is None:
        return False
    return bool(before.renamed_to) and before.incarnation == record.incarnation
