"""Submit a job from an applied plan, and make sure that it started."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import Claim, Ended, Epoch, YarnApplication
from airflow_provider_offsets.core.plan import reconcile
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import DriverDied, DriverSilent, Fenced, OffsetsError, WorldChanged
from airflow_provider_offsets.jobs.detached import Launch, launch
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.operations.applying import Applied
from airflow_provider_offsets.operations.keeping import keep_version
from airflow_provider_offsets.operations.starting import first_sign, stands_idle
from airflow_provider_offsets.operations.stopping import end_if_over
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.runtime.claiming import claiming_command
from airflow_provider_offsets.runtime.settings import Secrets, Settings

LAUNCHED, STARTED = "launched", "started"
SUBMIT_FAILED = "submit failed"
"""The step of an operation whose submit no retry can help: the number of the epoch that it had started."""
POLL_S = 0.2

BuildCommand = Callable[[Mapping[str, str]], Sequence[str]]
"""Gives the spark-submit command line for the conf that carries the driver's settings."""


@dataclass(frozen=True)
class Started:
    """A job that runs."""

    epoch: int
    how: str
    """What shows it: ``processed batch <n>``, or ``idle`` at its start with nothing to read."""
    batch_id: int | None
    log: str
    start: Position


def submit_job(
    world: World,
    applied: Applied,
    build_command: BuildCommand,
    secrets: Secrets,
    *,
    resource_manager: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> Started:
    """Start the job and give how it started: after its first batch, or once it says that there is nothing to read.

    Safe to repeat and to kill: the driver claims its epoch itself, by compare-and-set. A driver that a killed task
    left behind is adopted if it has the epoch of this operation, and loses the race if it comes later.

    :param resource_manager: the web address of YARN's, for a job that runs there: its application gets its own tag.
    :raises DriverDied: with the driver's own last lines, as soon as it is gone.
    :raises DriverSilent: within ``start_timeout_s`` it neither processed a batch nor said that it is idle.
    :raises Fenced: another operation claimed the epoch.
    """
    with _noting_failure(world):
        for is_last_try in (False, True):
            launched = _running(world, applied) or _launch(world, applied, build_command, secrets, resource_manager)
            say(f"driver log: {launched.log}")
            try:
                started = _await_start(world, applied, launched, say)
                world.control.record_step(world.operation, STARTED, started)
                return started
            except DriverDied:
                # Spark dies unless startingOffsets names exactly the partitions there are: one may have come since.
                if is_last_try or not _partitions_came(world, applied, launched):
                    raise
                say("partitions were added during the start; trying once more")
    raise AssertionError("the last try returns or raises")


@contextmanager
def _noting_failure(world: World) -> Iterator[None]:
    """Note what no retry can help, for the recovery: a submit that was killed is tried again, and waited for."""
    try:
        yield
    except OffsetsError as error:
        if not error.retriable and (mine := world.started_epoch()) is not None:
            world.control.record_step(world.operation, SUBMIT_FAILED, mine.number)
        raise


def _running(world: World, applied: Applied) -> Launch | None:
    """The driver that an earlier try of this operation launched, if it lives or has the epoch."""
    recorded = world.control.step(world.operation, LAUNCHED, Launch)
    epoch = world.started_epoch()
    if epoch is None:
        return recorded if recorded is not None and recorded.is_alive else None
    if end_if_over(world.control, epoch, at_ms=clock.now_ms()) is None:
        return Launch(epoch.claim.launch, epoch.holder, str(_log(world, epoch.number, epoch.claim.launch)))
    if first_sign(world, epoch, applied) is not None:
        raise WorldChanged(
            seen=f"epoch {epoch.number}, which this operation started, has processed batches and is over",
            expected="an operation whose job still runs, or never processed a batch",
            do="start another operation: it plans from where the job stands now",
        )
    return None


def _launch(
    world: World, applied: Applied, build_command: BuildCommand, secrets: Secrets, resource_manager: str
) -> Launch:
    live = world.live_topics()
    if live.identity != applied.plan.seen.identity:
        raise WorldChanged(
            seen=f"topics are {live.identity}",
            expected=f"{applied.plan.seen.identity}, as planned",
            do="plan again",
        )
    kept = keep_version(world.pipeline.job)
    launch_id = f"{world.operation}@{uuid.uuid4().hex[:8]}"
    claim = Claim(
        number=_next_epoch(world, applied),
        operation=world.operation,
        launch=launch_id,
        checkpoint=applied.checkpoint,
        start=reconcile(applied.plan.start, live),
        identity=live.identity,
        announced=applied.plan.announced,
        application_digest=kept.application.digest,
        version=kept.digest,
        tracked=world.pipeline.tracked,
        stood=applied.plan.seen.stored,
        leader_epochs=live.leader_epochs,
        yarn=YarnApplication(resource_manager, _yarn_tag(world, launch_id)) if resource_manager else None,
    )
    pipeline, log = world.pipeline, _log(world, claim.number, launch_id)
    settings = Settings(pipeline.name, pipeline.stream, pipeline.subscription, claim, secrets)
    settings_file = _settings_file(log)
    command = build_command({**settings.conf(settings_file), **_yarn_conf(world, claim)})
    if not pipeline.tracked:
        command = claiming_command(settings_file, command)
        if pipeline.stop.marker:
            machine().remove_marker(pipeline.stop.marker)
    _remove_settings_of_earlier_tries(world)
    settings.write(settings_file)
    try:
        launched = launch(launch_id, command, log=str(log), env=driver_environment())
    except OSError:
        settings_file.unlink()
        raise
    world.control.record_step(world.operation, LAUNCHED, launched)
    return launched


def _log(world: World, epoch: int, launch_id: str) -> Path:
    folder = Path(world.pipeline.job.folder_for_logs)
    return folder / f"{world.pipeline.name}-epoch-{epoch:05d}-{_tag(world)}-{launch_id.rpartition('@')[2]}.log"


def _tag(world: World) -> str:
    """What the files of one operation have in common: its id may hold what a file name may not."""
    return hashlib.sha256(world.operation.encode()).hexdigest()[:8]


def _yarn_tag(world: World, launch_id: str) -> str:
    """A tag that no other launch has, whatever pipelines share the cluster."""
    return f"offsets-{hashlib.sha256(f'{world.pipeline.name}#{launch_id}'.encode()).hexdigest()[:40]}"


def _yarn_conf(world: World, claim: Claim) -> dict[str, str]:
    if claim.yarn is None:
        return {}
    own = world.pipeline.job.conf.get("spark.yarn.tags", "")
    return {"spark.yarn.tags": f"{own},{claim.yarn.tag}" if own else claim.yarn.tag}


def _settings_file(log: Path) -> Path:
    return log.with_suffix(".settings.json")


def _remove_settings_of_earlier_tries(world: World) -> None:
    """They hold secrets, and the driver that would have removed them may never have come. An orphan that looks for
    its own after this dies, and one that has read it loses the race for the epoch, or wins it and is adopted."""
    folder = Path(world.pipeline.job.folder_for_logs)
    for left in folder.glob(f"{world.pipeline.name}-epoch-*-{_tag(world)}-*.settings.json"):
        left.unlink(missing_ok=True)


def _next_epoch(world: World, applied: Applied) -> int:
    """The number to claim: after the epoch that the plan saw, or after one of this operation that died at its start."""
    mine = world.started_epoch()
    return (applied.plan.seen.epoch if mine is None else mine.number) + 1


def driver_environment() -> dict[str, str]:
    """This process's environment without Airflow's own settings: they hold connections and the metadata database."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "_AIRFLOW", "__AIRFLOW"))}


def _await_start(world: World, applied: Applied, launched: Launch, say: Callable[[str], None]) -> Started:
    began = said_at = clock.monotonic_s()
    timeout_s = world.pipeline.start_timeout_s
    number = None
    while clock.monotonic_s() < began + timeout_s:
        # Liveness first, then the records: what a driver recorded just before it ended is not missed.
        alive = launched.is_alive
        epoch = _claimed(world, applied, launched)
        if epoch is not None:
            number = epoch.number
            ended = end_if_over(world.control, epoch, at_ms=clock.now_ms())
            if (started := _started(world, epoch, applied, launched)) is not None:
                return started
            if ended is not None:
                raise _died(launched, f"epoch {epoch.number} {ended.how.value}", ended)
        elif not alive:
            _require_unclaimed(world, applied)
            raise _died(launched, f"the driver of {world.pipeline.name!r} ended before its first batch")
        if clock.monotonic_s() >= said_at + 5:
            said_at = clock.monotonic_s()
            say(f"{said_at - began:.0f} s: {'epoch ' + str(number) + ' claimed' if number else 'driver starting'}")
        clock.sleep(POLL_S)
    raise DriverSilent(
        seen=f"after {timeout_s} s the driver {f'has epoch {number}' if number else 'claimed no epoch'}, and neither"
        f" processed a batch nor said that it is idle; its log {launched.log!r} ends:\n{launched.log_tail()}",
        expected="a first batch",
        do="look at its log; it was left running: raise start_timeout_s and run this task again to adopt it",
    )


def _claimed(world: World, applied: Applied, launched: Launch) -> Epoch | None:
    """The epoch of this operation that is watched: of the driver that was launched, or of an orphan that was faster.

    Not one that an earlier driver of this operation held, and that was over before this one was launched.
    """
    epoch = world.started_epoch()
    if epoch is None or epoch.claim.launch == launched.id or world.control.ended(epoch.number) is None:
        return epoch
    return epoch if first_sign(world, epoch, applied) is not None else None


def _started(world: World, epoch: Epoch, applied: Applied, launched: Launch) -> Started | None:
    sign = first_sign(world, epoch, applied) or stands_idle(world, epoch)
    return None if sign is None else Started(epoch.number, sign.how, sign.batch_id, launched.log, epoch.claim.start)


def _require_unclaimed(world: World, applied: Applied) -> None:
    newest = world.control.newest_epoch()
    if newest is not None and newest.number > applied.plan.seen.epoch and newest.claim.operation != world.operation:
        raise Fenced(
            seen=f"epoch {newest.number} of {world.pipeline.name!r} was claimed by {newest.claim.operation!r}",
            expected=f"it free for {world.operation!r}",
            do="nothing, the job runs; or start another operation, which stops it first",
        )


def _died(launched: Launch, seen: str, ended: Ended | None = None) -> DriverDied:
    # The driver removes this file, which holds secrets, once it has read it; this one may not have come so far.
    _settings_file(Path(launched.log)).unlink(missing_ok=True)
    tail = launched.log_tail()
    said = f" and says {ended.message!r}" if ended is not None and ended.message else ""
    return DriverDied(
        seen=f"{seen}{said}; its log ends:\n{tail}\n",
        expected="a first batch, or the driver idle at its start",
        do=f"mend what it says and run this task again; the whole log is {launched.log}",
        log_tail=tail,
    )


def _partitions_came(world: World, applied: Applied, launched: Launch) -> bool:
    if "startingOffsets" not in launched.log_tail(lines=200):
        return False
    return bool(set(world.live_topics().partitions) - set(applied.plan.start))
