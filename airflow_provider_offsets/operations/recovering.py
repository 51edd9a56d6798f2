"""Detect that a job is dead, and decide whether to restart it automatically."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.record.events import CloseDead, TakeToRecover
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.record.transition import acted_lately, epoch_to_recover
from airflow_provider_offsets.core.recovery import DEATHS, RECOVERY, ROLLBACK, RecoveryPolicy, is_recovery, recovery_of
from airflow_provider_offsets.errors import NothingToRecover, RecoveryGivenUp, RollbackRefused
from airflow_provider_offsets.operations.job_state import JobObservation, JobState, end_of, has_job, observe_job
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S, close_and_reconcile, release_lease
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.versions import keep_version, restored_job, why_not_as_it_ran

TRIES, GIVEN_UP = "tries", "given up"
SILENT_S = 10.0
"""Shortest silence that counts, in seconds: several heartbeats."""


@dataclass(frozen=True)
class Death:
    """An epoch that ended unintentionally."""

    epoch: int
    how: str
    message: str


def find_death(control: Control, *, lease_timeout_s: float = LEASE_TIMEOUT_S) -> Death | None:
    """Return a death that a recovery may handle; None if there is none, or it cannot be determined from here.

    A driver is dead if it reported a failure, or if its process has exited. These jobs belong to somebody else:

    - a job that a person asked to stop, before or after its death, belongs to that operation;
    - a job whose operation acted recently, such as a killed submit that may be retried, belongs to that operation;
    - a job whose recovery was given up belongs to a person.

    Nothing is changed.

    :param control: control records of the pipeline.
    :param lease_timeout_s: an operation that acted within this many seconds is not disturbed.
    """
    record = control.record()
    epoch = None if record is None else epoch_to_recover(record)
    if record is None or epoch is None or acted_lately(record, clock.now_ms(), int(lease_timeout_s * 1000)):
        return None
    ended = end_of(control, epoch)
    if ended is None or ended.how not in DEATHS or is_given_up(control, epoch):
        return None
    return Death(epoch, ended.how.value, ended.message)


def is_given_up(control: Control, epoch: int) -> bool:
    """Return whether the recovery from the death of an epoch was given up.

    :param control: the control store of the pipeline.
    :param epoch: number of the epoch that died.
    """
    return control.step(recovery_of(epoch), GIVEN_UP, str) is not None


class DeathWatch:
    """A watch that confirms a death once the same epoch was dead for a while.

    :param confirm_s: seconds by this machine's own clock, from the first check that found the death.
    :param lease_timeout_s: an operation that acted within this many seconds is not disturbed.
    """

    def __init__(self, confirm_s: float, lease_timeout_s: float) -> None:
        self._confirm_s, self._lease_timeout_s = confirm_s, lease_timeout_s
        self._first: tuple[int, float] | None = None

    def observe(self, control: Control) -> Death | None:
        """Check once; return the death once it is confirmed."""
        death = find_death(control, lease_timeout_s=self._lease_timeout_s)
        if death is None:
            self._first = None
            return None
        if self._first is None or self._first[0] != death.epoch:
            self._first = (death.epoch, clock.monotonic_s())
        return death if clock.monotonic_s() >= self._first[1] + self._confirm_s else None


class SilenceWatch:
    """A watch for a job whose process is not visible from here and whose heartbeat is silent.

    Silence is not death: it requires a check on the driver's machine, where the process is visible.

    :param silent_s: seconds of silence that are reported; at least ``SILENT_S``.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = max(silent_s, SILENT_S)
        self._seen: JobObservation | None = None
        self._since: float | None = None

    def observe(self, control: Control) -> bool:
        """Check once; return whether the job has been silent for long enough."""
        self._seen = observe_job(control, self._seen)
        if self._seen.state is not JobState.UNKNOWN or not _may_be_recovered(control, self._seen.epoch):
            self._since = None
            return False
        now = clock.monotonic_s()
        self._since = now if self._since is None else self._since
        return now >= self._since + self._silent_s


def _may_be_recovered(control: Control, epoch: int) -> bool:
    record = control.record()
    return record is not None and epoch_to_recover(record) == epoch and not is_given_up(control, epoch)


@dataclass(frozen=True)
class Tries:
    """When each run tried to recover, in milliseconds since 1970, by run id."""

    at_ms: dict[str, int]


def begin_recovery(
    session: Session, epoch: int, run: str, policy: RecoveryPolicy, *, lease_timeout_s: float = LEASE_TIMEOUT_S
) -> int:
    """Take the pipeline's lease to recover from the death of ``epoch``, reconcile its last batch, and count the try.

    The same run counts once, however often its task is retried. Nothing changes if this recovery's job already runs.

    :param session: the session of the recovery.
    :param epoch: number of the dead epoch, as found from this or another machine.
    :param run: id of the DAG run that tries.
    :param policy: how many tries are allowed.
    :param lease_timeout_s: an operation that acted within this many seconds is not disturbed.
    :returns: how many tries were made for this death, including this one.
    :raises RecoveryGivenUp: the policy allows no further try. This is recorded, so no recovery tries again until a
        person has started the job.
    :raises NothingToRecover: the job lives, a person has started it or wants it stopped, or another operation works on
        it.
    """
    record = session.cell.read()
    if record is not None and _is_recovered(session, record):
        return len(_tries(session).at_ms)
    if record is not None and record.phase is Phase.RUNNING and has_job(session.control, record):
        raise _lives(session, record.epoch)
    record = session.cell.change(TakeToRecover(session.operation, epoch, clock.now_ms(), int(lease_timeout_s * 1000)))
    tries = _tries(session)
    if run not in tries.at_ms:
        made = [at for each in _recoveries(session.control) for at in each.at_ms.values()]
        if is_given_up(session.control, epoch) or not policy.allows(made, clock.now_ms()):
            raise _given_up(session, epoch, policy)
        tries = replace(tries, at_ms={**tries.at_ms, run: clock.now_ms()})
        session.control.record_step(session.operation, TRIES, tries)
    _close_unseen(session, record, epoch)
    if close_and_reconcile(session).phase is not Phase.STOPPED:
        release_lease(session)
        raise _lives(session, epoch)
    return len(tries.at_ms)


def _is_recovered(session: Session, record: PipelineRecord) -> bool:
    """Return whether the running job is the one that this recovery started."""
    is_mine = record.launch is not None and record.launch.operation == session.operation
    return is_mine and record.phase is Phase.RUNNING and has_job(session.control, record) is not False


def _close_unseen(session: Session, record: PipelineRecord, epoch: int) -> None:
    """Close the epoch if its driver is not visible from here. A dead process that was seen elsewhere stays dead."""
    if record.phase is not Phase.RUNNING or record.epoch != epoch or has_job(session.control, record) is not None:
        return
    assert record.holder is not None
    words = f"pid {record.holder.pid} on {record.holder.host} was seen to be gone"
    session.cell.change(
        CloseDead(session.operation, record.holder, Ended(EndedHow.DIED, clock.now_ms(), message=words))
    )


def _lives(session: Session, epoch: int) -> NothingToRecover:
    return NothingToRecover(
        seen=f"the job of epoch {epoch} of {session.pipeline.name!r} is not dead",
        expected="a job that died",
        do="No action needed.",
    )


def _tries(session: Session) -> Tries:
    return session.control.step(session.operation, TRIES, Tries) or Tries({})


def as_it_ran(session: Session) -> Session:
    """Return the session of a recovery, with the program that died if a rollback had restored that program.

    The program is restored only if the version that the rollback undid is still deployed. Any other session is returned
    unchanged: by default a recovery starts the deployed program.

    :raises RollbackRefused: the copy of that program is missing, or the pipeline is described otherwise now.
    """
    claimed = [epoch for epoch in session.control.epochs() if epoch.holder is not None]
    before = [epoch for epoch in claimed if epoch.claim.operation != session.operation]
    by_hand = [epoch for epoch in before if not is_recovery(epoch.claim.operation)]
    if not is_recovery(session.operation) or not by_hand:
        return session
    undone_operation, rolled_back, _ = by_hand[-1].claim.operation.partition(ROLLBACK)
    if not rolled_back:
        return session
    # A version counts as undone even if no driver claimed its launch.
    undone = {epoch.claim.version for epoch in session.control.epochs() if epoch.claim.operation == undone_operation}
    job = session.pipeline.job
    if undone and keep_version(job).digest not in undone:
        return session
    died = before[-1].claim
    if changed := why_not_as_it_ran(session.pipeline, died):
        raise RollbackRefused(
            seen=f"the program that a rollback restored cannot be started again: {changed}",
            expected="the pipeline as it was described when that program ran",
            do=f"start the program that you want with maintenance__{session.pipeline.name}",
        )
    return replace(session, pipeline=replace(session.pipeline, job=restored_job(job, died.version)))


def _given_up(session: Session, epoch: int, policy: RecoveryPolicy) -> RecoveryGivenUp:
    ended = end_of(session.control, epoch)
    said = "" if ended is None else f"; epoch {epoch} {ended.how.value}: {ended.message}"
    session.control.record_step(session.operation, GIVEN_UP, f"after {policy.tries} tries within {policy.within_s} s")
    release_lease(session)
    return RecoveryGivenUp(
        seen=f"{session.pipeline.name!r} was restarted {policy.tries} times within {policy.within_s} s{said}",
        expected="a job that keeps running",
        do=f"fix the job, and start it with maintenance__{session.pipeline.name}. The recovery then watches it again",
    )


def _recoveries(control: Control) -> list[Tries]:
    ids = [operation.id for operation in control.operations() if operation.id.startswith(RECOVERY)]
    return [tries for each in ids if (tries := control.step(each, TRIES, Tries)) is not None]
