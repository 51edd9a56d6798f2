"""How often a job that died is started again, and what the names of operations say."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.recovery import RecoveryPolicy, run_and_attempt
from airflow_provider_offsets.core.replay.model import replay_run_id

NOW_MS = 10_000_000
POLICY = RecoveryPolicy(tries=2, within_s=60)


@pytest.mark.parametrize(
    ("tries_ms", "allowed", "reason"),
    [
        ([], True, "nothing was tried yet"),
        ([NOW_MS - 1], True, "one of two"),
        ([NOW_MS - 1, NOW_MS - 59_000], False, "two within the time"),
        ([NOW_MS - 1, NOW_MS - 60_000], True, "one of them is as old as the time is long: it no longer counts"),
        ([NOW_MS - 59_000, NOW_MS - 1], False, "the order says nothing"),
        ([NOW_MS + 5_000, NOW_MS], False, "another machine's clock is ahead: its try was made all the same"),
    ],
)
def test_so_many_tries_within_so_long(tries_ms: list[int], allowed: bool, reason: str) -> None:
    assert POLICY.allows(tries_ms, NOW_MS) is allowed, reason


@pytest.mark.parametrize(
    ("operation", "run", "attempt"),
    [
        ("dag/run", "dag/run", (1, 1)),
        ("dag/run@3", "dag/run", (1, 3)),
        (replay_run_id("dag/run", "0123456789abcdef", 2), "dag/run", (2, 1)),
        (replay_run_id("dag/run", "", 2) + "@4", "dag/run", (2, 4)),
        ("dag/run@2#rollback", "dag/run@2#rollback", (1, 1)),
        ("dag/run#0123456789ab#2#rollback", "dag/run#0123456789ab#2#rollback", (1, 1)),
    ],
)
def test_the_attempt_is_read_from_the_name(operation: str, run: str, attempt: tuple[int, int]) -> None:
    assert run_and_attempt(operation) == (run, attempt)
