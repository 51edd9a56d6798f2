"""Which operation starts a job that died again by itself, how often, and when a person has to look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RECOVERY = "recovery/"


def recovery_of(epoch: int) -> str:
    """Give the id of the operation that recovers from the death of an epoch: whoever runs it, there is one."""
    return f"{RECOVERY}{epoch:08d}"


def is_recovery(operation: str) -> bool:
    """Say whether an operation is that of a recovery."""
    return operation.startswith(RECOVERY)


@dataclass(frozen=True)
class RecoveryPolicy:
    """So many tries within so long; then the recovery gives up (as OTP's supervisors do: *maximum restart intensity*).

    A job that dies on every start would otherwise be started for ever, and each start may read a batch twice.
    """

    tries: int = 3
    within_s: int = 3600
    confirm_s: int = 30
    """How long a job has to be seen dead before it is started."""

    def allows(self, tries_ms: Iterable[int], now_ms: int) -> bool:
        """Say whether one more try may be made.

        :param tries_ms: when the tries were made that are known, in any order, by the clocks of the machines that made
            them. One that lies in the future counts.
        """
        return sum(tried_ms > now_ms - self.within_s * 1000 for tried_ms in tries_ms) < self.tries
