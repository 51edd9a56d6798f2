"""Names of recovery and rollback operations, and the limit of automatic restarts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import ATTEMPT, EndedHow

RECOVERY = "recovery/"

ROLLBACK = "#rollback"
"""Suffix of a rollback's id, after the id of the operation that is rolled back."""

_ATTEMPT = re.compile(rf"(?P<run>.*?)(?:#[^#{ATTEMPT}]*#(?P<replay>\d+))?(?:{ATTEMPT}(?P<number>\d+))?", re.DOTALL)

DEATHS = (EndedHow.DIED, EndedHow.FAILED)
"""Unwanted ends of an epoch."""


def recovery_of(epoch: int) -> str:
    """Return the id of the operation that recovers from the death of an epoch, the same for every attempt."""
    return f"{RECOVERY}{epoch:08d}"


def is_recovery(operation: str) -> bool:
    """Check whether an operation is a recovery."""
    return operation.startswith(RECOVERY)


def recovered_epoch(operation: str) -> int:
    """Return the epoch whose death a recovery handles."""
    return int(operation.removeprefix(RECOVERY).partition(ATTEMPT)[0])


def is_rollback_of(operation: str, other: str) -> bool:
    """Check whether an operation is the rollback of the other one.

    :param operation: id of the operation that may be a rollback.
    :param other: id of the operation that may have been rolled back.
    """
    return operation == f"{other}{ROLLBACK}"


def run_and_attempt(operation: str) -> tuple[str, tuple[int, int]]:
    """Return the run of an operation, and a number that is greater for a later attempt at the run.

    ``<run>@2`` is the second attempt. A run that replays before it starts the job names each attempt by the run id of
    its replay, as in ``<run>#<version>#2``.
    """
    found = _ATTEMPT.fullmatch(operation)
    assert found is not None, "any text is a run"
    return found["run"], (int(found["replay"] or 1), int(found["number"] or 1))


@dataclass(frozen=True)
class RecoveryPolicy:
    """Limit of restarts per time; then the recovery gives up (OTP's supervisors: *maximum restart intensity*).

    Without a limit, a job that dies on every start would be restarted for ever, and each start may replay a batch.
    """

    tries: int = 3
    within_s: int = 3600
    confirm_s: int = 30
    """Time for which a job has to be observed dead before the recovery starts it."""

    def allows(self, tries_ms: Iterable[int], now_ms: int) -> bool:
        """Check whether one more attempt is allowed.

        :param tries_ms: times of the known attempts, in any order, by the clocks of the machines that made them. An
            attempt in the future counts.
        :param now_ms: current time, in milliseconds since 1970.
        """
        return sum(tried_ms > now_ms - self.within_s * 1000 for tried_ms in tries_ms) < self.tries
