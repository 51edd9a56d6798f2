"""Replay one shard by a bounded job of its own, and stay with it until its output is finished."""

from __future__ import annotations

import hashlib
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.replay import Replayed, Shard
from airflow_provider_offsets.core.replaying import ShardClaim, ShardEnded, ShardTry, progress_text
from airflow_provider_offsets.errors import Fenced, InputRefused, ShardFailed, WorldChanged
from airflow_provider_offsets.jobs.detached import Launch, launch
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.operations.keeping import keep_version
from airflow_provider_offsets.operations.submitting import BuildCommand, driver_environment
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.runtime.settings import ReplaySettings, Secrets

POLL_S = 0.5
SAY_S = 10
TERM_S = 10
"""How long a driver that is ended has to go by itself."""
KILL_S = 30

Say = Callable[[str], None]


def _quiet(line: str) -> None:
    pass


class ShardReplaying:
    """The replay of one shard under one run id, as its task does it.

    Safe to repeat and to kill. A driver that a killed task left behind is adopted; one that is dead is followed by
    another with the same run id; a shard that is finished is left as it is.

    :param run_id: begins with ``<operation>#``.
    """

    def __init__(
        self, world: World, shard: Shard, run_id: str, build_command: BuildCommand, secrets: Secrets, say: Say = _quiet
    ) -> None:
        if not run_id.startswith(f"{world.operation}#"):
            raise InputRefused(
                seen=f"run id {run_id!r} of operation {world.operation!r}",
                expected=f"one that begins with '{world.operation}#': an attempt ends the drivers of those before it",
                do="give the run id of the operation's replay plan",
            )
        self._world, self._control = world, world.control
        self._shard, self._run_id = shard, run_id
        self._build_command, self._secrets, self._say = build_command, secrets, say
        self._launched: Launch | None = None
        self._driver: ProcessIdentity | None = None

    def run(self) -> Replayed:
        """Give what was read, once the output is finished.

        :raises ShardFailed: the driver ended before; with its own last lines. Retriable.
        :raises InputRefused: the runtime refused the program, or another shard was replayed under this number.
        :raises Fenced: the operation was planned anew.
        :raises WorldChanged: the program is not the one that was planned.
        """
        if (replayed := self._replayed()) is not None:
            self._say(f"shard {self._shard.number} was replayed before: {replayed.records_read:,} records")
            return replayed
        self._require_current()
        self._end_superseded()
        newest = self._control.newest_try(self._run_id, self._shard.number)
        if newest is None or self._over(newest) is not None:
            newest = None
            self._launch()
        else:
            self._say(f"shard {self._shard.number} is being replayed already, by pid {newest.holder.pid}")
        return self._watch(newest)

    def end_driver(self) -> None:
        """End the driver that this task launched or adopted. A bounded job has no reason to outlive its task.

        Touches no store: it is called where the task is interrupted, whatever it was doing. Whoever comes next sees
        the process gone.
        """
        driver = self._driver or (self._launched.process if self._launched is not None else None)
        if driver is not None:
            end_session(driver)

    def _replayed(self) -> Replayed | None:
        found = self._control.replayed(self._run_id, self._shard.number)
        if found is None or found.ranges == self._shard.ranges:
            return found
        raise InputRefused(
            seen=f"shard {self._shard.number} of {self._run_id!r} has replayed {', '.join(map(str, found.ranges))}",
            expected=", ".join(map(str, self._shard.ranges)),
            do="use another run id for other shards: clear the task that plans them",
        )

    def _require_current(self) -> None:
        plan = self._control.replay_plan(self._world.operation)
        if plan is not None and plan.run_id != self._run_id:
            raise Fenced(
                seen=f"operation {self._world.operation!r} was planned anew, as {plan.run_id!r}",
                expected=f"{self._run_id!r}, which this task was given",
                do="clear this task together with the one that plans",
            )

    def _end_superseded(self) -> None:
        """End what an earlier attempt of this operation left running: an older program must not write after this."""
        for each in self._control.tries_of(self._world.operation):
            if each.claim.run_id == self._run_id or self._over(each) is not None:
                continue
            self._control.end_shard(each.claim, _ended(EndedHow.KILLED, f"superseded by {self._run_id!r}"))
            self._say(
                f"ending pid {each.holder.pid}, which still replays shard {each.claim.shard.number} of an earlier"
                f" attempt, {each.claim.run_id!r}"
            )
            if not end_session(each.holder):
                raise ShardFailed(
                    seen=f"pid {each.holder.pid} on {each.holder.host!r} still runs, or cannot be seen from here",
                    expected="the drivers of earlier attempts gone: they may still write what is to be replaced",
                    do=f"end it on {each.holder.host!r}, and run this task again",
                )

    def _launch(self) -> None:
        kept = keep_version(self._world.pipeline.job)
        plan = self._control.replay_plan(self._world.operation)
        if plan is not None and plan.application_version != kept.digest:
            raise WorldChanged(
                seen=f"the program and its command are {kept.digest[:12]} now",
                expected=f"{plan.application_version[:12]}, as planned: one run replays one version",
                do="clear the task that plans, and all after it",
            )
        newest = self._control.newest_try(self._run_id, self._shard.number)
        launch_id = f"{self._run_id}/{self._shard.number}@{uuid.uuid4().hex[:8]}"
        log = self._files(launch_id.rpartition("@")[2])
        claim = ShardClaim(
            run_id=self._run_id,
            shard=self._shard,
            number=1 if newest is None else newest.claim.number + 1,
            operation=self._world.operation,
            launch=launch_id,
            log=str(log),
            application_version=kept.digest,
        )
        settings = ReplaySettings(self._world.pipeline.name, claim, self._secrets)
        settings_file = log.with_suffix(".settings.json")
        command = self._build_command(settings.conf(settings_file))
        self._remove_settings()
        settings.write(settings_file)
        try:
            self._launched = launch(launch_id, command, log=str(log), env=driver_environment())
        except OSError:
            settings_file.unlink()
            raise
        self._say(
            f"try {claim.number} of shard {self._shard.number}, {self._shard.record_count:,} offsets; driver log: {log}"
        )

    def _watch(self, adopted: ShardTry | None) -> Replayed:
        launched = self._launched
        began, said = clock.monotonic_s(), 0
        while True:
            # Liveness first, then the records: what a driver recorded just before it ended is not missed.
            alive = launched is not None and launched.is_alive
            newest = adopted or self._claimed(launched)
            ended = None
            if newest is not None:
                self._driver = newest.holder
                ended = self._over(newest)
            if (replayed := self._replayed()) is not None:
                self._settle()
                return replayed
            if newest is not None and ended is not None:
                raise self._failed(newest.claim.log, f"try {newest.claim.number} {ended.how.value}", ended)
            if newest is None and launched is not None and not alive:
                raise self._failed(launched.log, "the driver ended before it claimed its shard")
            if (waited_s := int(clock.monotonic_s() - began)) >= said + SAY_S:
                said = waited_s
                self._say(self._how_far(newest, waited_s))
            clock.sleep(POLL_S)

    def _claimed(self, launched: Launch | None) -> ShardTry | None:
        """The try that is watched: that of the driver that was launched, or of an orphan that was faster.

        Not one that was over before this launch.
        """
        newest = self._control.newest_try(self._run_id, self._shard.number)
        if newest is None or (launched is not None and newest.claim.launch == launched.id):
            return newest
        return newest if self._control.shard_ended(newest.claim) is None else None

    def _over(self, each: ShardTry) -> ShardEnded | None:
        """Give how a try ended; one whose driver is gone without a word is closed, which fences it if that is wrong."""
        ended = self._control.shard_ended(each.claim)
        if ended is None and machine().is_session_alive(each.holder) is False:
            ended = self._control.end_shard(each.claim, _ended(EndedHow.DIED, "its process is gone"))
        return ended

    def _how_far(self, newest: ShardTry | None, waited_s: int) -> str:
        shard = self._shard
        if newest is None:
            return f"shard {shard.number}: {waited_s} s, driver starting"
        progress = self._control.shard_progress(newest.claim)
        if progress is None:
            return f"shard {shard.number}: {waited_s} s, nothing read yet"
        text = f"shard {shard.number}: {progress_text(progress.records_read, shard.record_count, progress.elapsed_ms)}"
        plan = self._control.replay_plan(self._world.operation)
        if plan is None or len(plan.shards) < 2:
            return text
        done = [each.records_read for each in self._control.all_replayed(self._run_id)]
        return (
            f"{text}; shards finished: {len(done)} of {len(plan.shards)}, {sum(done):,} of"
            f" {plan.records_expected:,} records"
        )

    def _settle(self) -> None:
        """Wait for a driver that has recorded its shard to be gone: it has only Spark's own end before it."""
        driver = self._driver
        deadline = clock.monotonic_s() + KILL_S
        while driver is not None and machine().is_session_alive(driver) and clock.monotonic_s() < deadline:
            clock.sleep(POLL_S)

    def _failed(self, log: str, seen: str, ended: ShardEnded | None = None) -> ShardFailed | InputRefused:
        self._remove_settings()
        tail = Launch("", None, log).log_tail()
        said = f" and says {ended.message!r}" if ended is not None and ended.message else ""
        kind = ShardFailed if ended is None or ended.retriable else InputRefused
        return kind(
            seen=f"shard {self._shard.number} of {self._run_id!r}: {seen}{said}; its log ends:\n{tail}\n",
            expected="its output finished",
            do=f"mend what it says and run this task again, under the same run id; the whole log is {log}",
        )

    def _files(self, launch: str) -> Path:
        return self._folder / f"{self._prefix}-{launch}.log"

    def _remove_settings(self) -> None:
        """They hold secrets, and the driver that would have removed them may never have come."""
        for left in self._folder.glob(f"{self._prefix}-*.settings.json"):
            left.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return Path(self._world.pipeline.job.folder_for_logs)

    @property
    def _prefix(self) -> str:
        """What the files of one shard of one run have in common: a run id may hold what a file name may not."""
        tag = hashlib.sha256(self._run_id.encode()).hexdigest()[:8]
        return f"{self._world.pipeline.name}-replay-{tag}-shard-{self._shard.number:05d}"


def end_session(leader: ProcessIdentity) -> bool:
    """End all processes of a driver's session, by SIGTERM and then SIGKILL; say whether they are gone."""
    for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        if not machine().signal_session(leader, number):
            break
        deadline = clock.monotonic_s() + patience_s
        while machine().is_session_alive(leader) and clock.monotonic_s() < deadline:
            clock.sleep(0.1)
    return machine().is_session_alive(leader) is False


def _ended(how: EndedHow, message: str) -> ShardEnded:
    return ShardEnded(how, clock.now_ms(), message)
