"""Control records of replays, in any ``ControlStore``.

| control record | written by | content |
|---|---|---|
| ``replay/<run>`` | a task that plans, by compare-and-set | the attempts of a replay, see ``core.replay.attempt`` |
| ``replay-plan/<run id>/<digest>`` | the same task, before that, once | a plan, valid if the record names it |
| ``replay-shard/<run id>/<n>`` | tasks and drivers of a shard, by compare-and-set | the record of shard n |
| ``replay-progress/<run id>/<n>/<try>`` | the driver of that try | a sign of life; no decision depends on it |
| ``replay-audit/<run id>`` | a task that audits | the audit |

Frozen boundaries are in ``control.boundaries``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from airflow_provider_offsets.control.cells import load_cell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.replay.attempt import (
    AttemptRefusal,
    ReplayAttempt,
    ReplayRecord,
    add_attempt,
    attempt_of,
    replay_of,
)
from airflow_provider_offsets.core.replay.audit import ReplayAudit
from airflow_provider_offsets.core.replay.claim import ShardClaim, ShardProgress
from airflow_provider_offsets.core.replay.model import ReplayPlan
from airflow_provider_offsets.core.replay.shard import (
    ShardEvent,
    ShardRecord,
    ShardRefusal,
    ShardRefused,
    SupersedeShard,
    shard_transition,
)
from airflow_provider_offsets.errors import (
    ConcurrentAttempt,
    Fenced,
    InputRefused,
    OffsetsError,
    StateChanged,
)
from airflow_provider_offsets.stores.protocols import ControlStore

T = TypeVar("T")


class ReplayControl:
    """Typed access to the control records of one pipeline's replays."""

    def __init__(self, store: ControlStore, pipeline: str) -> None:
        self._store = store
        self.pipeline = pipeline

    def replay(self, operation: str) -> ReplayRecord | None:
        """Return the attempts of an operation's replay, or None before the first plan."""
        return self._get(ReplayRecord, f"replay/{replay_of(operation)}")

    def replays(self, prefix: str = "") -> Iterator[tuple[str, ReplayRecord]]:
        """Yield the id and the record of all replays of operations whose id begins with ``prefix``, sorted by id."""
        for name, text in self._store.scan(self.pipeline, f"replay/{prefix}"):
            yield name.removeprefix("replay/"), load_cell(ReplayRecord, self.pipeline, name, text)

    def plan(self, attempt: ReplayAttempt) -> ReplayPlan:
        """Return the plan of an attempt that a record names."""
        name = f"replay-plan/{attempt.run_id}/{attempt.plan}"
        return load_cell(ReplayPlan, self.pipeline, name, self._store.get(self.pipeline, name))

    def newest_plan(self, operation: str) -> ReplayPlan | None:
        """Return the plan of the newest attempt of an operation's replay, or None before the first attempt."""
        record = self.replay(operation)
        return None if record is None else self.plan(record.newest)

    def record_plan(self, operation: str, plan: ReplayPlan) -> ReplayPlan:
        """Store a plan as that of the newest attempt, and return the attempt's plan, which is the first one stored.

        :param operation: id of the operation.
        :param plan: names its attempt.
        :raises Fenced: a later attempt superseded the attempt of this plan.
        :raises ConcurrentAttempt: another attempt was planned after the number of this one was chosen.
        """
        attempt, name = attempt_of(plan), f"replay/{replay_of(operation)}"
        cell = f"replay-plan/{attempt.run_id}/{attempt.plan}"
        self._store.check_and_put(self.pipeline, cell, None, codec.dumps(plan))
        while True:
            text = self._store.get(self.pipeline, name)
            record = None if text is None else load_cell(ReplayRecord, self.pipeline, name, text)
            after = add_attempt(record, attempt)
            if isinstance(after, AttemptRefusal):
                assert record is not None
                raise _not_newest(after, attempt, record)
            if after == record or self._store.check_and_put(self.pipeline, name, text, codec.dumps(after)):
                return plan if after.newest == attempt else self.plan(after.newest)

    def supersede_earlier(self, operation: str, *, at_ms: int) -> None:
        """Fence every shard of the attempts before the newest one, including shards that were never launched.

        Afterwards no driver of an earlier attempt can start or record. Safe to repeat.

        :param operation: id of the operation whose attempts these are.
        :param at_ms: the current time, for the record.
        """
        record = self.replay(operation)
        if record is None:
            return
        supersede = SupersedeShard(record.newest.run_id, at_ms)
        for earlier in (each for each in record.earlier if not each.has_problems):
            there = self.shards(earlier.run_id)
            for number in range(earlier.shards):
                if shard_transition(there.get(number, ShardRecord()), supersede) != there.get(number):
                    self.change_shard(earlier.run_id, number, supersede)

    def audit(self, run_id: str) -> ReplayAudit | None:
        """Return the stored audit of an attempt, or None."""
        return self._get(ReplayAudit, f"replay-audit/{run_id}")

    def keep_audit(self, audit: ReplayAudit) -> None:
        """Store the audit of an attempt, unless a clean one is stored."""
        name, text = f"replay-audit/{audit.run_id}", codec.dumps(audit)
        while True:
            current = self._store.get(self.pipeline, name)
            if current is not None and load_cell(ReplayAudit, self.pipeline, name, current).is_clean:
                return
            if self._store.check_and_put(self.pipeline, name, current, text):
                return

    def shard(self, run_id: str, number: int) -> ShardRecord:
        """Return the record of a shard, which is empty before its first launch.

        :param run_id: id of the attempt.
        :param number: number of the shard, from 0 up.
        """
        return self._get(ShardRecord, _shard(run_id, number)) or ShardRecord()

    def shards(self, run_id: str) -> dict[int, ShardRecord]:
        """Return the records of all shards of an attempt that were launched or superseded, by number."""
        return {number: record for _, number, record in self._shards(f"replay-shard/{run_id}/")}

    def shards_of(self, operation: str) -> Iterator[tuple[str, int, ShardRecord]]:
        """Yield the run id, the number and the record of all shards in all attempts of an operation's replay."""
        mine = replay_of(operation)
        found = self._shards(f"replay-shard/{mine}#")
        return (each for each in found if each[0].rsplit("#", 2)[0] == mine)

    def change_shard(self, run_id: str, number: int, event: ShardEvent) -> ShardRecord:
        """Return the record of a shard after ``event``. Safe to repeat.

        :param run_id: id of the attempt.
        :param number: of the shard.
        :param event: what happens to the shard.
        :raises StoreUnreachable: no answer arrived; the record may have been changed. Repeat the call with the same
            event.
        :raises InputRefused: the shard has other ranges.
        :raises StateChanged: another version of the program was launched for the shard.
        :raises Fenced: the driver's try is over.
        """
        name = _shard(run_id, number)
        while True:
            text = self._store.get(self.pipeline, name)
            record = ShardRecord() if text is None else load_cell(ShardRecord, self.pipeline, name, text)
            after = shard_transition(record, event)
            if isinstance(after, ShardRefused):
                raise _refused(run_id, number, after)
            if after == record or self._store.check_and_put(self.pipeline, name, text, codec.dumps(after)):
                return after

    def progress(self, run_id: str, shard: int, number: int) -> ShardProgress | None:
        """Return the last reported progress of a try, or None.

        :param run_id: id of the attempt.
        :param shard: number of the shard, from 0 up.
        :param number: of the try.
        """
        return self._get(ShardProgress, _try(run_id, shard, number))

    def note_progress(self, claim: ShardClaim, progress: ShardProgress) -> None:
        """Write the progress of a try. Only the driver of the try calls this.

        :param claim: claim of the driver that runs the try.
        :param progress: replaces the previous progress of the try.
        """
        name, text = _try(claim.run_id, claim.shard.number, claim.number), codec.dumps(progress)
        current = self._store.get(self.pipeline, name)
        while not self._store.check_and_put(self.pipeline, name, current, text):
            current = self._store.get(self.pipeline, name)

    def _shards(self, prefix: str) -> Iterator[tuple[str, int, ShardRecord]]:
        for name, text in self._store.scan(self.pipeline, prefix):
            run_id, _, number = name.removeprefix("replay-shard/").rpartition("/")
            yield run_id, int(number), load_cell(ShardRecord, self.pipeline, name, text)

    def _get(self, kind: type[T], name: str) -> T | None:
        text = self._store.get(self.pipeline, name)
        return None if text is None else load_cell(kind, self.pipeline, name, text)


def _shard(run_id: str, number: int) -> str:
    return f"replay-shard/{run_id}/{number:08d}"


def _try(run_id: str, shard: int, number: int) -> str:
    return f"replay-progress/{run_id}/{shard:08d}/{number:08d}"


def _refused(run_id: str, number: int, refused: ShardRefused) -> OffsetsError:
    kind, expected, do = _ERRORS[refused.why]
    return kind(seen=f"shard {number} of {run_id!r}: {refused.why.value}; {refused.detail}", expected=expected, do=do)


_OF_DRIVER = "a try that continues", "No action needed: this driver ends, and records nothing."
_ERRORS: dict[ShardRefusal, tuple[type[OffsetsError], str, str]] = {
    ShardRefusal.OTHER_RANGES: (
        InputRefused,
        "the ranges that were launched first under this run id and number",
        "clear the task that plans, which makes a new run id for the new shards",
    ),
    ShardRefusal.OTHER_VERSION: (
        StateChanged,
        "one version of the program for all tries of a shard",
        "clear the task that plans and all later tasks",
    ),
    ShardRefusal.REPLAYED: (Fenced, *_OF_DRIVER),
    ShardRefusal.CANCELLED: (Fenced, *_OF_DRIVER),
    ShardRefusal.FENCED: (Fenced, *_OF_DRIVER),
    ShardRefusal.SUPERSEDED: (Fenced, *_OF_DRIVER),
}


def _not_newest(why: AttemptRefusal, attempt: ReplayAttempt, record: ReplayRecord) -> OffsetsError:
    kind, do = {
        AttemptRefusal.SUPERSEDED: (Fenced, "No action needed. For another attempt, clear the task that plans."),
        AttemptRefusal.CONCURRENT: (ConcurrentAttempt, "run the task again, if Airflow does not"),
    }[why]
    return kind(
        seen=f"attempt {attempt.number} at {attempt.interval} was planned as {attempt.run_id!r}: {why.value}",
        expected=f"the newest attempt of the run, which is {record.newest.run_id!r}",
        do=do,
    )
