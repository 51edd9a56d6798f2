"""Attempts of a replay: which of several plans of one interval is valid."""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import ATTEMPT
from airflow_provider_offsets.core.replay.model import Interval, ReplayPlan

_ATTEMPT = re.compile(rf"{ATTEMPT}\d+$")


def replay_of(operation: str) -> str:
    """Return the name under which the replays of an operation are recorded: all attempts of a run share it.

    :param operation: ``<dag>/<run>``, with ``@<n>`` for the attempts after the first.
    """
    return _ATTEMPT.sub("", operation)


# Attempts of a replay


@dataclass(frozen=True)
class ReplayAttempt:
    """One attempt at an interval. Its plan is an immutable control record."""

    number: int
    """From 1. A clear makes a new attempt; an automatic retry does not."""
    key: str
    """Equal for all tries of the attempt, and different from every other attempt's."""
    interval: Interval
    run_id: str
    plan: str
    """Digest of the plan."""
    shards: int
    has_problems: bool = False
    """Whether the plan was refused: then it has no shards, and the attempt may plan again."""
    topic_ids: dict[str, str] = field(default_factory=dict)
    """Id of each topic, by name."""

    def is_of(self, key: str, interval: Interval) -> bool:
        """Check whether a task with this key and interval is a try of this attempt.

        :param key: key of the attempt that the task belongs to.
        :param interval: data interval of the task.
        """
        return (self.key, self.interval) == (key, interval)


@dataclass(frozen=True)
class ReplayRecord:
    """Attempts of one replay. Only the shards of the newest attempt may be launched."""

    newest: ReplayAttempt
    earlier: tuple[ReplayAttempt, ...] = ()
    """The superseded attempts, the first one first."""

    @property
    def attempts(self) -> tuple[ReplayAttempt, ...]:
        """All attempts, the first one first."""
        return (*self.earlier, self.newest)


class AttemptRefusal(enum.Enum):
    """Why an attempt is not the newest one, and cannot become it."""

    SUPERSEDED = "a later attempt superseded it"
    CONCURRENT = "another attempt was planned at the same time"


def next_attempt_number(record: ReplayRecord | None, key: str, interval: Interval) -> int:
    """Return the number of the attempt for a plan.

    :param record: the attempts so far; None before the first plan.
    :param key: key that the tries of one attempt share.
    :param interval: data interval of the plan.
    """
    if record is None:
        return 1
    return record.newest.number + (not record.newest.is_of(key, interval))


def add_attempt(record: ReplayRecord | None, attempt: ReplayAttempt) -> ReplayRecord | AttemptRefusal:
    """Return the record with ``attempt`` as its newest attempt, unchanged if the attempt has a plan already.

    If two tasks plan one attempt at the same time, the first one wins, and the other one uses its plan. A plan with
    problems has no shards, so a later plan of the same attempt replaces it.

    :param record: the record of the replay; None before its first attempt.
    :param attempt: the planned attempt.
    :returns: the record, or :class:`AttemptRefusal` if a newer attempt exists, or another one was planned at the
        same time.
    """
    if record is None:
        return ReplayRecord(attempt)
    newest = record.newest
    if newest.is_of(attempt.key, attempt.interval):
        return replace(record, newest=attempt) if newest.has_problems else record
    if any(each.is_of(attempt.key, attempt.interval) for each in record.earlier):
        return AttemptRefusal.SUPERSEDED
    if attempt.number != newest.number + 1:
        return AttemptRefusal.CONCURRENT
    return ReplayRecord(attempt, record.attempts)


def attempt_of(plan: ReplayPlan) -> ReplayAttempt:
    """Return the attempt of a plan."""
    return ReplayAttempt(
        number=plan.attempt,
        key=plan.attempt_key,
        interval=plan.interval,
        run_id=plan.run_id,
        plan=plan_digest_of(plan),
        shards=len(plan.shards),
        has_problems=bool(plan.problems),
        topic_ids=plan.topic_ids,
    )


def plan_digest_of(plan: ReplayPlan) -> str:
    """Return the digest of a plan's content, used as its name."""
    return hashlib.sha256(codec.dumps(plan).encode()).hexdigest()[:16]
