"""How long unread records are retained: what is known, what is estimated, and what cannot be known."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.live import TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.core.restart.planner import plan_restart, with_runway
from airflow_provider_offsets.core.runway import PartitionRunway, RetentionObservation, RunwayKind, duration, runway_of
from tests.unit.core.observations import TOPIC, at, live, running

AT_LEAST, ABOUT, UNLIMITED, UNKNOWN = RunwayKind
ONLY = TopicPartition(TOPIC, 0)
NOW_MS = 1_000_000_000
HOUR_MS = 3_600_000
BY_SIZE = TopicSettings(retention_ms=-1, retention_bytes=1_000)


@dataclass(frozen=True)
class Case:
    """One partition that holds ``[100, 1000)``, unread from 700 on, and what is reported of it."""

    why: str
    settings: TopicSettings | None
    kind: RunwayKind
    seconds: int | None
    age_ms: int | None = 2 * HOUR_MS
    """Timestamp of the first unread record; None: there is none."""
    hour_ago: int | None = 880
    outliving: int | None = None
    window_s: int = 0
    at_risk: int | None = 0
    begin: int = 100
    start: int = 700
    is_read: bool = True

    @property
    def runway(self) -> PartitionRunway:
        times = {ONLY: None if self.age_ms is None else NOW_MS - self.age_ms} if self.is_read else {}
        observed = RetentionObservation(
            NOW_MS, {TOPIC: self.settings}, times, {ONLY: self.hour_ago}, {ONLY: self.outliving}, self.window_s
        )
        [found] = runway_of(at(self.start), live((self.begin, 1000)), observed).partitions
        return found


def keeps(hours: float = -1, size: int = -1, policy: str = "delete") -> TopicSettings:
    return TopicSettings(policy, -1 if hours < 0 else int(hours * HOUR_MS), size)


CASES = [
    Case("by time: from the record's own time on", keeps(5), AT_LEAST, 3 * 3600),
    Case("by time: it may go at any moment", keeps(1), AT_LEAST, 0),
    Case(
        "by time: a record of tomorrow's date is kept for longer", keeps(5), AT_LEAST, 29 * 3600, age_ms=-24 * HOUR_MS
    ),
    Case("nothing is unread: what comes is kept that long", keeps(5), AT_LEAST, 5 * 3600, age_ms=None, start=1000),
    Case("only markers are unread: the same", keeps(5), AT_LEAST, 5 * 3600, age_ms=None),
    Case("the record could not be read", keeps(5), UNKNOWN, None, is_read=False),
    Case("the settings may not be seen", None, UNKNOWN, None),
    Case("nothing deletes", keeps(), UNLIMITED, None),
    Case("compacted: nothing goes with its age", keeps(1, 1_000, "compact"), UNLIMITED, None),
    Case("no policy at all", keeps(1, 1_000, ""), UNLIMITED, None),
    Case("compacted and deleted: goes with its age", keeps(5, policy="compact,delete"), AT_LEAST, 3 * 3600),
    Case("by size: 600 are before it, 120 came in the last hour", BY_SIZE, ABOUT, 5 * 3600),
    Case("by size: it is the oldest that there is", BY_SIZE, ABOUT, 0, start=100),
    Case("by size: nothing was deleted yet, so its measure is not known", BY_SIZE, UNKNOWN, None, begin=0),
    Case("by size: nothing came, so there is no rate", BY_SIZE, UNKNOWN, None, hour_ago=None),
    Case("by both: time is shorter, but size is no promise", keeps(4, 1_000), ABOUT, 2 * 3600),
    Case("by both: size is shorter", keeps(50, 1_000), ABOUT, 5 * 3600),
    Case("by both, one is unknown: the other one is no answer", keeps(4, 1_000), UNKNOWN, None, begin=0),
    # Records at risk within a window.
    Case("a window within it", keeps(5), AT_LEAST, 3 * 3600, window_s=3600, outliving=650),
    Case("a window beyond it", keeps(5), AT_LEAST, 3 * 3600, window_s=4 * 3600, outliving=820, at_risk=120),
    Case("a window that no record outlives", keeps(5), AT_LEAST, 3 * 3600, window_s=5 * 3600, at_risk=300),
    Case("a window that records to come do not outlive", keeps(5), AT_LEAST, 3 * 3600, window_s=18_001, at_risk=None),
    Case("by size, a window within it", BY_SIZE, ABOUT, 5 * 3600, window_s=5 * 3600),
    Case("by size, a window beyond it", BY_SIZE, ABOUT, 5 * 3600, window_s=6 * 3600, at_risk=120),
    Case(
        "by both, one is unknown: what is at risk by the other one stays so",
        keeps(5, 1_000),
        UNKNOWN,
        None,
        begin=0,
        window_s=4 * 3600,
        outliving=820,
        at_risk=120,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_runway(case: Case) -> None:
    runway = case.runway

    assert (runway.kind, runway.seconds, runway.at_risk) == (case.kind, case.seconds, case.at_risk), runway.why


def test_the_least_and_the_unknown_runway_are_in_one_line() -> None:
    observed = RetentionObservation(
        NOW_MS, {TOPIC: keeps(5)}, {TopicPartition(TOPIC, 0): NOW_MS - HOUR_MS, TopicPartition(TOPIC, 1): NOW_MS - 1}
    )

    runway = runway_of(at(0, 0, 0), live((0, 9), (0, 9), (0, 9)), observed)

    assert runway.least is not None
    assert (runway.least.partition, runway.least.seconds) == (0, 4 * 3600)
    assert runway.summary == (
        "at least 4 h (flights[0]: retention.ms=18000000, CreateTime);"
        " unknown for 1 partition(s) (flights[2]: its first unread record could not be read)"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (45, "45 s"), (60, "1 min"), (7_500, "2 h 5 min"), (86_399, "23 h 59 min"), (10**7, "115 d 17 h")],
)
def test_lengths_of_time(seconds: int, words: str) -> None:
    assert duration(seconds) == words


def test_two_topics_are_judged_and_accepted_apart() -> None:
    seen = running(live((0, 100), (0, 100)), at(40, 60))
    runway = runway_of(
        at(40, 60),
        seen.live,
        RetentionObservation(
            NOW_MS,
            {TOPIC: keeps(5)},
            {TopicPartition(TOPIC, 0): NOW_MS - 2 * HOUR_MS, TopicPartition(TOPIC, 1): NOW_MS},
            outliving={TopicPartition(TOPIC, 0): 47, TopicPartition(TOPIC, 1): 50},
            window_s=4 * 3600,
        ),
    )

    def problems(**accept_lost: int) -> int:
        plan = plan_restart(at(40, 60), seen)
        return len(with_runway(plan, runway, {TOPIC: keeps(5)}, RestartPolicy(accept_lost)).problems)

    assert [problems(), problems(flights=6), problems(flights=7), problems(other=7)] == [1, 1, 0, 1]


@dataclass(frozen=True)
class Log:
    """Segments of records with their times, as a broker deletes them: whole, once the newest record is old."""

    times: list[int]
    cuts: set[int] = field(default_factory=set)

    def begin_at(self, now_ms: int, retention_ms: int) -> int:
        begin = 0
        for end in sorted({len(self.times), *(cut for cut in self.cuts if cut < len(self.times))}):
            if now_ms - max(self.times[begin:end]) <= retention_ms:
                break
            begin = end
        return begin


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12),
    st.sets(st.integers(1, 11)),
    st.integers(0, 120),
    st.integers(0, 11),
    st.integers(100, 300),
    st.integers(1, 200),
)
def test_no_record_goes_before_its_runway_is_over(
    times_s: list[int], cuts: set[int], retention_s: int, start: int, now_s: int, later_s: int
) -> None:
    """The law holds however the segments are cut and the producers' clocks run.

    What is deleted first was not promised, and no more is deleted within a window than was reported to be at risk.
    """
    log = Log([each * 1000 for each in times_s], cuts)
    begin = log.begin_at(now_s * 1000, retention_s * 1000)
    start, end = min(max(start, begin), len(times_s)), len(times_s)
    settings = TopicSettings(retention_ms=retention_s * 1000)
    survivors = [at for at in range(begin, end) if times_s[at] >= now_s + later_s - retention_s]
    observed = RetentionObservation(
        now_s * 1000,
        {TOPIC: settings},
        {ONLY: log.times[start] if start < end else None},
        outliving={ONLY: survivors[0] if survivors else None},
        window_s=later_s,
    )
    [runway] = runway_of(Position({ONLY: start}), live((begin, end)), observed).partitions
    assert runway.seconds is not None
    deleted = max(0, log.begin_at((now_s + later_s) * 1000, retention_s * 1000) - start)

    if deleted:
        assert runway.seconds < later_s
    if runway.at_risk is not None:
        assert deleted <= runway.at_risk
