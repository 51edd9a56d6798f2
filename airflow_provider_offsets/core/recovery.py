"""Which operation starts a job that died again by itself, how often, and when a person has to look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from airflow_provider_offsets.core.epoch import ATTEMPT, EndedHow

RECOVERY = "recovery/"

ROLLBACK = "#rollback"
"""What the id of an operation's rollback has after that of the operation."""

DEATHS = (EndedHow.DIED, EndedHow.FAILED)
"""How an epoch ends that nobody wanted to end."""


def recovery_of(epoch: int) -> str:
    """Return the id of the operation that recovers from the death of an epoch: whoever runs it, there is one."""
    return f"{RECOVERY}{epoch:08d}"


def is_recovery(operation: str) -> bool:
    """Return whether an operation is a recovery."""
    return operation.startswith(RECOVERY)


def recovered_epoch(operation: str) -> int:
    """Return the epoch from whose death a recovery recovers."""
    return int(operation.removeprefix(RECOVERY).partition(ATTEMPT)[0])


def is_rollback_of(operation: str, other: str) -> bool:
    """Return whether an operation is a rollback of the other one."""
    return operation.partition(ROLLBACK)[0] == other and ROLLBACK in operation


@dataclass(frozen=True)
class RecoveryPolicy:
    """How many tries within how long; then the recovery gives up (OTP's supervisors: *maximum restart intensity*).

    A job that dies on every start would otherwise be started for ever, and each start may replay a batch.
    """

    tries: int = 3
    within_s: int = 3600
    confirm_s: int = 30
    """How long a job has to be seen dead before it is started."""

    def allows(self, tries_ms: Iterable[int], now_ms: int) -> bool:
        """Return whether one more try may be made.

        :param tries_ms: when the tries were made that are known, in any order, by the clocks of the machines that made
            them. One that lies in the future counts.
        """
        return sum(tried_ms > now_ms - self.within_s * 1000 for tried_ms in tries_ms) < self.tries
