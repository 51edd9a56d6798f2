"""Notice that a job is dead, and decide whether it may be started again by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import EndedHow, Epoch
from airflow_provider_offsets.core.recovery import RECOVERY, RecoveryPolicy, is_recovery, recovery_of
from airflow_provider_offsets.errors import RecoveryGivenUp, WorldChanged
from airflow_provider_offsets.operations.keeping import keep_version, restored_job
from airflow_provider_offsets.operations.rolling_back import ROLLBACK
from airflow_provider_offsets.operations.stopping import end_if_over
from airflow_provider_offsets.operations.submitting import STARTED, SUBMIT_FAILED, Started
from airflow_provider_offsets.operations.watching import JobLook, JobState, look
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.stores.control import Control

TRIES, GIVEN_UP = "tries", "given up"
DEATHS = (EndedHow.DIED, EndedHow.FAILED)
SILENT_S = 10.0
"""Silence of this length at least: several heartbeats."""


@dataclass(frozen=True)
class Death:
    """An epoch that ended and was not meant to."""

    epoch: int
    how: str
    message: str
    in_submit: bool
    """Its submit has neither seen it run nor failed: that task was killed too, and Airflow is to try it again."""


def find_death(control: Control, *, at_ms: int) -> Death | None:
    """Give the death of the newest epoch, or None if it lives, was stopped, or nobody can tell.

    Dead is what said so itself, or whose process was seen to be gone; that epoch is closed here, which fences it. One
    that somebody asked to stop, before or after its death, is in the hands of that operation; one that was given up is
    in the hands of a person.
    """
    epoch = control.newest_epoch()
    if epoch is None:
        return None
    ended = end_if_over(control, epoch, at_ms=at_ms)
    if ended is None or ended.how not in DEATHS or _is_in_other_hands(control, epoch):
        return None
    return Death(epoch.number, ended.how.value, ended.message, in_submit=_is_in_submit(control, epoch))


def _is_in_submit(control: Control, epoch: Epoch) -> bool:
    started = control.step(epoch.claim.operation, STARTED, Started)
    if started is not None and started.epoch == epoch.number:
        return False
    return control.step(epoch.claim.operation, SUBMIT_FAILED, int) != epoch.number


def _is_in_other_hands(control: Control, epoch: Epoch) -> bool:
    """Of whoever asked it to stop, or of a person after it was given up."""
    if control.standing_stop(epoch.claim) is not None:
        return True
    return control.step(recovery_of(epoch.number), GIVEN_UP, str) is not None


class DeathWatch:
    """Looks again and again, until the same epoch was seen dead for so long.

    :param confirm_s: by this machine's own clock, from the first look that saw it.
    :param resubmit_s: the same for one that died in its submit.
    """

    def __init__(self, confirm_s: float, resubmit_s: float) -> None:
        self._confirm_s, self._resubmit_s = confirm_s, resubmit_s
        self._first: tuple[Death, float] | None = None

    def look(self, control: Control) -> Death | None:
        """Look once; give the death once it is confirmed."""
        death = find_death(control, at_ms=clock.now_ms())
        if death is None:
            self._first = None
            return None
        if self._first is None or self._first[0].epoch != death.epoch:
            self._first = (death, clock.monotonic_s())
        confirm_s = self._resubmit_s if death.in_submit else self._confirm_s
        return death if clock.monotonic_s() >= self._first[1] + confirm_s else None


class SilenceWatch:
    """Looks again and again, until a job whose process cannot be seen from here gave no sign of life for so long.

    Silence is no death: it asks for a look from the machine of the driver, whose process is seen there.
    """

    def __init__(self, silent_s: float) -> None:
        self._silent_s = max(silent_s, SILENT_S)
        self._seen: JobLook | None = None
        self._since: float | None = None

    def look(self, control: Control) -> bool:
        """Look once; say whether it has been silent for so long."""
        self._seen = look(control, self._seen)
        epoch = control.epoch(self._seen.epoch) if self._seen.state is JobState.UNKNOWN else None
        if epoch is None or _is_in_other_hands(control, epoch):
            self._since = None
            return False
        now = clock.monotonic_s()
        self._since = now if self._since is None else self._since
        return now >= self._since + self._silent_s


@dataclass(frozen=True)
class Tries:
    """When a recovery was tried, in milliseconds since 1970, by the run that tried."""

    at_ms: dict[str, int]


def begin_recovery(world: World, epoch: int, run: str, policy: RecoveryPolicy, *, at_ms: int) -> int:
    """Record a try to recover from the death of ``epoch``, and give how many this operation has made with it.

    The same run counts once, however often its task is tried.

    :raises RecoveryGivenUp: as many tries as the policy allows were made. It is recorded: nobody tries again, until
        a person has started the job.
    :raises WorldChanged: somebody else has started the job since, or asked it to stop.
    """
    newest = world.control.newest_epoch()
    if newest is None or (newest.number != epoch and newest.claim.operation != world.operation):
        raise WorldChanged(
            seen=f"epoch {newest.number if newest else 0} of {world.pipeline.name!r}, claimed since epoch {epoch} died",
            expected=f"epoch {epoch} to be the newest one",
            do="nothing: somebody has started the job",
        )
    asked = world.control.standing_stop(newest.claim) if newest.number == epoch else None
    if asked is not None:
        raise WorldChanged(
            seen=f"{asked.operation!r} has asked epoch {epoch} of {world.pipeline.name!r} to stop since it died",
            expected="a job that nobody wants to be stopped",
            do="nothing: it is in the hands of that operation",
        )
    mine = world.control.step(world.operation, TRIES, Tries) or Tries({})
    if run not in mine.at_ms:
        made = [at for each in _recoveries(world.control) for at in each.at_ms.values()]
        if not policy.allows(made, at_ms):
            raise _given_up(world, epoch, policy)
        mine = replace(mine, at_ms={**mine.at_ms, run: at_ms})
        world.control.record_step(world.operation, TRIES, mine)
    return len(mine.at_ms)


def as_it_ran(world: World) -> World:
    """Give the world of a recovery with the program that died, if that was brought back by a rollback and the version
    that was undone is deployed still. Any other world is given as it is: a recovery starts what is deployed.

    :raises RollbackRefused: its copy is gone.
    """
    before = [epoch for epoch in world.control.epochs() if epoch.claim.operation != world.operation]
    by_hand = [epoch for epoch in before if not is_recovery(epoch.claim.operation)]
    if not is_recovery(world.operation) or not by_hand:
        return world
    undone_operation, rolled_back, _ = by_hand[-1].claim.operation.partition(ROLLBACK)
    if not rolled_back:
        return world
    undone = {epoch.claim.version for epoch in by_hand if epoch.claim.operation == undone_operation}
    job = world.pipeline.job
    if undone and keep_version(job).digest not in undone:
        return world
    return replace(world, pipeline=replace(world.pipeline, job=restored_job(job, before[-1].claim.version)))


def _given_up(world: World, epoch: int, policy: RecoveryPolicy) -> RecoveryGivenUp:
    ended = world.control.ended(epoch)
    said = "" if ended is None else f"; epoch {epoch} {ended.how.value}: {ended.message}"
    world.control.record_step(world.operation, GIVEN_UP, f"after {policy.tries} tries within {policy.within_s} s")
    return RecoveryGivenUp(
        seen=f"{world.pipeline.name!r} was started again {policy.tries} times within {policy.within_s} s{said}",
        expected="a job that lives",
        do=f"mend the job, and start it with maintenance__{world.pipeline.name}; from then on it is watched again",
    )


def _recoveries(control: Control) -> list[Tries]:
    ids = [operation.id for operation in control.operations() if operation.id.startswith(RECOVERY)]
    return [tries for each in ids if (tries := control.step(each, TRIES, Tries)) is not None]
