"""Replay one shard in a bounded job of its own, and wait until its output is complete."""

from __future__ import annotations

import hashlib
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.detached import Launch, launch
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.committer import shard_owner, takes_committer
from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.replay.attempt import replay_of
from airflow_provider_offsets.core.replay.claim import ShardClaim, progress_text
from airflow_provider_offsets.core.replay.model import Replayed, ReplayPlan, Shard, attempt_number
from airflow_provider_offsets.core.replay.shard import (
    CancelShard,
    CloseShard,
    LaunchShard,
    ShardEvent,
    ShardPhase,
    ShardRecord,
    ShardTry,
    SupersedeShard,
    TryEnded,
    digest_of_ranges,
)
from airflow_provider_offsets.errors import Fenced, InputRefused, OffsetsError, ShardFailed, StateChanged
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher, driver_environment
from airflow_provider_offsets.operations.versions import keep_version
from airflow_provider_offsets.runtime.settings import ReplaySettings

POLL_S = 0.5
SAY_S = 10
TERM_S = 10
"""Seconds that a driver has after SIGTERM before it gets SIGKILL."""
KILL_S = 30
SETTINGS = ".settings.json"
"""Suffix of the file with a driver's settings, which is beside the driver's log."""

Report = Callable[[str], None]


def _no_report(line: str) -> None:
    pass


class ShardReplaying:
    """The replay of one shard under one run id, as run by a task.

    Safe to repeat, to kill, and to run twice at once. A driver left by a killed task is adopted. A launch without a
    claim is cancelled, and a dead driver is closed; then another driver with the same run id follows. A complete shard
    is left as it is.

    :param session: the session of the operation.
    :param shard: the shard.
    :param run_id: run id of the operation's replay plan.
    :param launcher: how the job is launched.
    :param report: called with the progress.
    :raises InputRefused: ``run_id`` does not belong to this operation.
    """

    def __init__(
        self,
        session: Session,
        shard: Shard,
        run_id: str,
        launcher: Launcher,
        report: Report = _no_report,
    ) -> None:
        self._session = session
        self._control = ReplayControl(session.store, session.pipeline.name)
        self._replay = replay_of(session.operation)
        self._shard, self._run_id, self._ranges = shard, run_id, digest_of_ranges(shard.ranges)
        self._attempt = self._number_of(run_id)
        self._launcher, self._report = launcher, report
        self._launched: Launch | None = None
        self._tag = ""
        """Tag of the launch that this task recorded; empty if it recorded none."""
        self._driver: ProcessIdentity | None = None

    def run(self) -> Replayed:
        """Replay the shard, and return what was read once the output is complete.

        :raises ShardFailed: the driver exited before that; with the last lines of its log. Retriable.
        :raises InputRefused: the runtime refused the program, or another shard was launched under this number.
        :raises Fenced: a later attempt replays the interval.
        :raises StateChanged: the program or a topic differs from the plan.
        :raises PipelineRenamed: the pipeline has another name now.
        """
        record = self._record()
        if record.phase is ShardPhase.REPLAYED:
            self._report(f"shard {self._shard.number} was replayed before")
            return self._replayed(record)
        self._require_newest()
        self._end_earlier()
        if record.phase is ShardPhase.LAUNCHING:
            record = self._end_try(record, CancelShard, EndedHow.CANCELLED, "another try of its task began")
        if self._is_dead(record):
            record = self._end_try(record, CloseShard, EndedHow.DIED, "its process is gone")
        if record.phase is ShardPhase.WAITING:
            self._launch()
        elif (driver := record.driver) is not None:
            self._report(
                f"shard {self._shard.number} is being replayed already, by pid {driver.pid} on {driver.host!r}"
            )
        return self._watch()

    def end_driver(self) -> None:
        """End the driver that this task launched or adopted. A bounded job has no reason to outlive its task.

        This method does not use a store, because it runs when the task is interrupted at any point. A later try sees
        that the process has exited.
        """
        driver = self._driver or (self._launched.process if self._launched is not None else None)
        if driver is not None:
            end_session(driver)

    def _record(self) -> ShardRecord:
        record = self._control.shard(self._run_id, self._shard.number)
        if record.ranges not in ("", self._ranges):
            raise self._other_ranges(record.ranges)
        return record

    def _change(self, event: ShardEvent) -> ShardRecord:
        return self._control.change_shard(self._run_id, self._shard.number, event)

    def _end_try(
        self, record: ShardRecord, event: type[CancelShard | CloseShard], how: EndedHow, why: str
    ) -> ShardRecord:
        """End the newest try and return the record; a launch that was claimed meanwhile continues."""
        assert record.newest is not None
        return self._change(event(record.newest.tag, TryEnded(how, clock.now_ms(), why)))

    def _require_newest(self) -> ReplayPlan | None:
        """Return the plan of this attempt; None if the operation has no plan.

        :raises Fenced: a later attempt was planned.
        """
        record = self._control.replay(self._session.operation)
        if record is not None and record.newest.run_id != self._run_id:
            raise Fenced(
                seen=f"operation {self._session.operation!r} was planned again, as {record.newest.run_id!r}",
                expected=f"the run id of this task, {self._run_id!r}",
                do="clear this task together with the plan task",
            )
        return None if record is None else self._control.plan(record.newest)

    def _end_earlier(self) -> None:
        """End the drivers of earlier attempts: an older program must not write after this attempt has started."""
        for run_id, number, _ in list(self._control.shards_of(self._session.operation)):
            if self._number_of(run_id) >= self._attempt:
                continue
            after = self._control.change_shard(run_id, number, SupersedeShard(self._run_id, clock.now_ms()))
            if after.phase is ShardPhase.SUPERSEDED and after.newest is not None and after.driver is not None:
                self._end_superseded(run_id, number, after.newest.tag, after.driver)

    def _end_superseded(self, run_id: str, number: int, tag: str, driver: ProcessIdentity) -> None:
        """End a superseded driver. A driver that is not visible from here gets time to notice that it is superseded.

        A driver reads its record with each heartbeat, and then cancels its work. After that time it has exited or lost
        its connection to the store. Inside the program's function, only the sink can fence it.

        :raises ShardFailed: the driver still runs.
        """
        self._report(f"ending pid {driver.pid} on {driver.host!r}, which still replays shard {number} of {run_id!r}")
        if machine().is_session_alive(driver) is None:
            deadline_s = clock.monotonic_s() + KILL_S
            while self._control.shard(run_id, number).driver is not None and clock.monotonic_s() < deadline_s:
                clock.sleep(POLL_S)
        elif not end_session(driver):
            raise ShardFailed(
                seen=f"the driver of an earlier attempt still runs: pid {driver.pid} on {driver.host!r}",
                expected="all drivers of earlier attempts to have exited, because they may write again",
                do="end that process, and run this task again",
            )
        ended = TryEnded(EndedHow.KILLED, clock.now_ms(), f"superseded by {self._run_id!r}")
        self._control.change_shard(run_id, number, CloseShard(tag, ended))

    def _launch(self) -> None:
        """Record a launch, then start its process; do nothing if another task was faster."""
        plan, kept = self._require_newest(), keep_version(self._session.pipeline.job)
        if plan is not None:
            self._require_as_planned(plan, kept.digest)
        tag = uuid.uuid4().hex
        log = self._folder / f"{self._prefix}-{tag[:8]}.log"
        record = self._change(LaunchShard(tag, self._ranges, kept.digest, str(log)))
        newest = record.newest
        if newest is None or newest.tag != tag or record.phase is not ShardPhase.LAUNCHING:
            return
        pipeline = self._session.control.record()  # raises after a rename that missed this launch
        incarnation = tag if pipeline is None else pipeline.incarnation
        self._tag = tag
        claim = ShardClaim(
            run_id=self._run_id,
            shard=self._shard,
            number=newest.number,
            tag=tag,
            operation=self._session.operation,
            log=str(log),
            application_version=kept.digest,
            scratch=self._scratch(incarnation, newest.number),
        )
        try:
            self._launched = self._start(claim)
        except Exception as error:
            self._end_try(record, CancelShard, EndedHow.CANCELLED, f"its process was not started: {error}")
            raise
        self._report(
            f"try {claim.number} of shard {self._shard.number}, {self._shard.record_count:,} offsets; driver log: {log}"
        )

    def _scratch(self, incarnation: str, number: int) -> str:
        if not takes_committer(self._session.pipeline.job.conf):
            return ""
        return shard_owner(incarnation, self._run_id, self._shard.number, number)

    def _start(self, claim: ShardClaim) -> Launch:
        settings = ReplaySettings(self._session.pipeline.name, claim, self._launcher.secrets)
        file = Path(claim.log).with_suffix(SETTINGS)
        command = self._launcher.build_command(settings.conf(file))
        self._remove_left_settings()
        settings.write(file)
        try:
            return launch(claim.tag, command, log=claim.log, env=driver_environment())
        except OSError:
            file.unlink(missing_ok=True)
            raise

    def _require_as_planned(self, plan: ReplayPlan, version: str) -> None:
        if plan.application_version != version:
            raise StateChanged(
                seen=f"the program and its command now have version {version[:12]}",
                expected=f"the planned version {plan.application_version[:12]}, because one run replays one version",
                do="clear the plan task and all later tasks",
            )
        topic_ids = self._session.live_topics().identity.topic_ids
        if plan.topic_ids != topic_ids:
            raise StateChanged(
                seen=f"the ids of the topics are now {topic_ids}",
                expected=f"the planned ids {plan.topic_ids}, because the offsets of a recreated topic are unrelated",
                do="clear the plan task and all later tasks",
            )

    def _watch(self) -> Replayed:
        began_s = alone_since_s = clock.monotonic_s()
        said_s = 0
        while True:
            # Check liveness before the record, so that a claim made just before the process exits is not missed.
            is_alive = self._launched is not None and self._launched.is_alive
            record = self._record()
            self._driver = record.driver or self._driver
            if record.phase is ShardPhase.REPLAYED:
                self._wait_for_end(record)
                return self._replayed(record)
            if self._is_dead(record):
                self._end_try(record, CloseShard, EndedHow.DIED, "its process is gone")
                continue
            if self._is_mine(record) and record.phase is ShardPhase.LAUNCHING and not is_alive:
                self._end_try(record, CancelShard, EndedHow.DIED, "the driver ended before it claimed its shard")
                continue
            self._require_going_on(record)
            now_s = clock.monotonic_s()
            if record.phase is ShardPhase.RUNNING or (self._is_mine(record) and is_alive):
                alone_since_s = now_s
            elif now_s - alone_since_s > self._session.pipeline.start_timeout_s:
                raise self._nobody_comes(record)
            if (waited_s := int(now_s - began_s)) >= said_s + SAY_S:
                said_s = waited_s
                self._report(self._how_far(record, waited_s))
            clock.sleep(POLL_S)

    def _require_going_on(self, record: ShardRecord) -> None:
        """Raise if the newest try has ended, or the shard is superseded by a later attempt.

        A launch that another task of this shard has cancelled does not count as an end: that task launches the next
        one.
        """
        newest = record.newest
        if record.phase is ShardPhase.SUPERSEDED:
            raise Fenced(
                seen=f"shard {self._shard.number} of {self._run_id!r} was superseded by {record.superseded_by!r}",
                expected="the newest attempt of the operation",
                do="No action needed: the later attempt replays the interval.",
            )
        if newest is not None and not self._is_mine(record):
            self._end_own_process()
        if record.phase is ShardPhase.WAITING and newest is not None and newest.ended is not None:
            if newest.ended.how is not EndedHow.CANCELLED:
                raise self._failed(newest, newest.ended)
            self._end_own_process()

    def _end_own_process(self) -> None:
        """End the process of a cancelled launch, which can never claim its shard."""
        launched, self._launched = self._launched, None
        if launched is not None and launched.process is not None:
            end_session(launched.process)

    def _is_mine(self, record: ShardRecord) -> bool:
        return record.newest is not None and record.newest.tag == self._tag

    def _is_dead(self, record: ShardRecord) -> bool:
        """Return whether the driver of a running try has exited; False if the driver is not visible from here."""
        driver = record.driver
        if record.phase is not ShardPhase.RUNNING or driver is None:
            return False
        return machine().is_session_alive(driver) is False

    def _how_far(self, record: ShardRecord, waited_s: int) -> str:
        shard, newest = self._shard, record.newest
        if newest is None or record.phase is not ShardPhase.RUNNING:
            return f"shard {shard.number}: {waited_s} s, driver starting"
        progress = self._control.progress(self._run_id, shard.number, newest.number)
        if progress is None:
            return f"shard {shard.number}: {waited_s} s, nothing read yet"
        text = f"shard {shard.number}: {progress_text(progress.records_read, shard.record_count, progress.elapsed_ms)}"
        attempts = self._control.replay(self._session.operation)
        if attempts is None or attempts.newest.shards < 2:
            return text
        done = [each.read.records_read for each in self._control.shards(self._run_id).values() if each.read is not None]
        return f"{text}; shards finished: {len(done)} of {attempts.newest.shards}, {sum(done):,} records"

    def _wait_for_end(self, record: ShardRecord) -> None:
        """Wait until a driver that has recorded its shard exits. It only has to shut down Spark."""
        driver = record.driver
        deadline_s = clock.monotonic_s() + KILL_S
        while driver is not None and machine().is_session_alive(driver) and clock.monotonic_s() < deadline_s:
            clock.sleep(POLL_S)

    def _replayed(self, record: ShardRecord) -> Replayed:
        newest, read = record.newest, record.read
        assert newest is not None
        assert read is not None
        return Replayed(
            run_id=self._run_id,
            shard=self._shard.number,
            ranges=self._shard.ranges,
            records_read=read.records_read,
            records_expected=self._shard.record_count,
            application_version=record.application_version,
            log=newest.log,
            elapsed_ms=read.elapsed_ms,
            counted_apart=read.counted_apart,
        )

    def _failed(self, newest: ShardTry, ended: TryEnded) -> OffsetsError:
        Path(newest.log).with_suffix(SETTINGS).unlink(missing_ok=True)
        tail = Launch("", None, newest.log).log_tail()
        said = f" and says {ended.message!r}" if ended.message else ""
        kind = ShardFailed if ended.retriable else InputRefused
        return kind(
            seen=f"shard {self._shard.number} of {self._run_id!r}: try {newest.number} {ended.how.value}{said}; its log"
            f" ends:\n{tail}\n",
            expected="the shard to be complete",
            do=f"fix the cause, and run this task again under the same run id; the whole log is {newest.log}",
        )

    def _nobody_comes(self, record: ShardRecord) -> ShardFailed:
        """Cancel another task's launch that no driver claims, and return the error to raise."""
        if record.phase is ShardPhase.LAUNCHING:
            self._end_try(record, CancelShard, EndedHow.CANCELLED, "no driver claimed it in time")
        return ShardFailed(
            seen=f"shard {self._shard.number} of {self._run_id!r} was launched by another task, and no driver has"
            f" claimed it for {self._session.pipeline.start_timeout_s} s",
            expected="a driver that claims the shard, or another try of that task",
            do="run this task again, which launches a driver of its own",
        )

    def _other_ranges(self, digest: str) -> InputRefused:
        return InputRefused(
            seen=f"shard {self._shard.number} of {self._run_id!r} was launched with other ranges, digest {digest}",
            expected=f"the ranges {', '.join(map(str, self._shard.ranges))}, digest {self._ranges}",
            do="clear the plan task, which makes a new run id for the new shards",
        )

    def _number_of(self, run_id: str) -> int:
        if run_id.startswith(f"{self._replay}#"):
            try:
                return attempt_number(run_id)
            except ValueError:
                pass
        raise InputRefused(
            seen=f"run id {run_id!r} does not belong to operation {self._session.operation!r}",
            expected=f"'{self._replay}#<version>#<attempt>', because an attempt ends the drivers of earlier ones",
            do="pass the run id of the operation's replay plan",
        )

    def _remove_left_settings(self) -> None:
        """Remove the settings of earlier launches: they hold secrets, and their drivers may never have started."""
        for left in self._folder.glob(f"{self._prefix}-*{SETTINGS}"):
            left.unlink(missing_ok=True)

    @property
    def _folder(self) -> Path:
        return Path(self._session.pipeline.job.folder_for_logs)

    @property
    def _prefix(self) -> str:
        """Common prefix of the files of one shard. The run id may contain characters that file names cannot."""
        tag = hashlib.sha256(self._run_id.encode()).hexdigest()[:8]
        return f"{self._session.pipeline.name}-replay-{tag}-shard-{self._shard.number:05d}"


def end_session(leader: ProcessIdentity) -> bool:
    """End all processes of a driver's session with SIGTERM and then SIGKILL; return whether they have exited."""
    for number, retry_timeout_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        if not machine().signal_session(leader, number):
            break
        deadline_s = clock.monotonic_s() + retry_timeout_s
        while machine().is_session_alive(leader) and clock.monotonic_s() < deadline_s:
            clock.sleep(0.1)
    return machine().is_session_alive(leader) is False
