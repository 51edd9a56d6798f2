"""Verdicts by window, one row each with the reason why it is right.

After Burrow's ``caching_test.go``: whoever changes what a row expects changes its reason too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.health import (
    Health,
    HealthPolicy,
    Rule,
    Sample,
    Verdict,
    judge,
    went_back,
    why_hold_back,
)
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition

POLICY = HealthPolicy(watch_s=60, stall_s=120)


def at(*offsets: int) -> Position:
    return Position({TopicPartition("t", number): offset for number, offset in enumerate(offsets)})


def sample(
    at_s: float,
    position: tuple[int, ...] | int,
    end: tuple[int, ...] | int,
    batch: int | None = None,
    beat: int | None = None,
) -> Sample:
    """Return one sample; numbers stand for a single partition. A tracked driver sends a heartbeat once a second."""
    where = at(*position) if isinstance(position, tuple) else at(position)
    ends = at(*end) if isinstance(end, tuple) else at(end)
    return Sample(at_s, where, ends, batch, "query-1", int(at_s) + 1 if beat is None else beat)


def untracked(*samples: Sample) -> list[Sample]:
    return [replace(each, beat=None, last_batch_id=None, query_id=None) for each in samples]


def ended(how: EndedHow, message: str = "") -> Sample:
    return replace(sample(15, 50, 100, 2), ended=Ended(how, 1, message=message))


TABLE: dict[str, tuple[list[Sample], Health, Rule, str]] = {
    "the first sample says nothing": ([sample(0, 10, 100, 0)], Health.TOO_EARLY, Rule.OK, "there is no window yet"),
    "reads, and the time is not over": (
        [sample(0, 10, 100, 0), sample(30, 50, 100, 3)],
        Health.TOO_EARLY,
        Rule.OK,
        "a job may die later: it is watched for as long as the pipeline says",
    ),
    "reads, and the time is over": (
        [sample(0, 10, 100, 0), sample(30, 50, 100, 3), sample(60, 90, 100, 5)],
        Health.HEALTHY,
        Rule.OK,
        "progress up to the last sample",
    ),
    "idle topic": (
        [sample(0, 100, 100, 0), sample(30, 100, 100, 0), sample(60, 100, 100, 0)],
        Health.HEALTHY,
        Rule.OK,
        "no batch for 60 s, and nothing to read: that is no stop (Burrow's #38, #94)",
    ),
    "idle topic, for longer than anything may take": (
        [sample(0, 100, 100, 0), sample(500, 100, 100, 0)],
        Health.HEALTHY,
        Rule.OK,
        "as above: time alone makes nobody ill",
    ),
    "idle topic of an untracked job": (
        untracked(sample(0, 100, 100), sample(60, 100, 100)),
        Health.HEALTHY,
        Rule.OK,
        "it tells neither batches nor heartbeats, and nothing waits",
    ),
    "records came at last": (
        [sample(0, 100, 100, 0), sample(59, 100, 100, 0), sample(60, 100, 200, 0)],
        Health.HEALTHY,
        Rule.OK,
        "the lag was zero a moment ago (Burrow's first rule)",
    ),
    "long first batch": (
        [sample(0, 0, 100), sample(30, 0, 100), sample(60, 0, 100), sample(119, 0, 100)],
        Health.TOO_EARLY,
        Rule.OK,
        "a batch may take up to stall_s: it is watched on, beyond watch_s",
    ),
    "long first batch, finished": (
        [sample(0, 0, 100), sample(60, 0, 100), sample(115, 100, 100, 0)],
        Health.HEALTHY,
        Rule.OK,
        "it only took its time",
    ),
    "first batch never ends": (
        [sample(0, 0, 100), sample(60, 0, 100), sample(120, 0, 100)],
        Health.UNHEALTHY,
        Rule.STOP,
        "nothing for stall_s while records wait, though the driver's heart beats",
    ),
    "long later batch": (
        [sample(0, 10, 100, 0), sample(15, 40, 100, 2), sample(60, 40, 100, 2)],
        Health.TOO_EARLY,
        Rule.OK,
        "silent for 45 s after 15 s of progress: Burrow's stop, a doubt here until stall_s",
    ),
    "later batch never ends": (
        [sample(0, 10, 100, 0), sample(15, 40, 100, 2), sample(60, 40, 100, 2), sample(135, 40, 100, 2)],
        Health.UNHEALTHY,
        Rule.STOP,
        "the doubt lasted for stall_s",
    ),
    "pause shorter than the progress before it": (
        [sample(0, 10, 100, 0), sample(45, 40, 100, 9), sample(60, 40, 100, 9)],
        Health.HEALTHY,
        Rule.OK,
        "silence of 15 s after 45 s of progress is none, by Burrow's measure",
    ),
    "stop of an untracked job": (
        untracked(sample(0, 10, 100), sample(15, 40, 100), sample(140, 40, 100)),
        Health.UNHEALTHY,
        Rule.STOP,
        "its position tells as much",
    ),
    "one partition never moves": (
        [sample(0, (0, 0), (9, 9), 0), sample(60, (3, 0), (9, 9), 3), sample(120, (6, 0), (9, 9), 6)],
        Health.UNHEALTHY,
        Rule.STALL,
        "batches come, and one partition's offset is always the same while its records wait",
    ),
    "one partition has not moved yet": (
        [sample(0, (0, 0), (9, 9), 0), sample(60, (3, 0), (9, 9), 3)],
        Health.TOO_EARLY,
        Rule.OK,
        "a limited batch may leave a partition out for a while",
    ),
    "one partition is idle": (
        [sample(0, (0, 5), (9, 5), 0), sample(60, (3, 5), (9, 5), 3), sample(200, (6, 5), (9, 5), 6)],
        Health.HEALTHY,
        Rule.OK,
        "there is nothing in it to read",
    ),
    "batches without progress": (
        [sample(0, 10, 100, 0), sample(60, 10, 100, 5), sample(120, 10, 100, 9)],
        Health.UNHEALTHY,
        Rule.STALL,
        "commits come, and the offset does not move",
    ),
    "stalled, then read on": (
        [sample(0, (0, 0), (9, 9), 0), sample(60, (3, 0), (9, 9), 3), sample(70, (6, 2), (9, 9), 6)],
        Health.HEALTHY,
        Rule.OK,
        "the doubt was none",
    ),
    "went back": (
        [sample(0, 50, 100, 0), sample(5, 20, 100, 2)],
        Health.UNHEALTHY,
        Rule.REWIND,
        "at once: within an epoch nothing announces a rewind",
    ),
    "went back and has recovered": (
        [sample(0, 50, 100, 0), sample(5, 20, 100, 2), sample(60, 100, 100, 5)],
        Health.UNHEALTHY,
        Rule.REWIND,
        "Burrow forgives this; here records were replayed with nothing to explain it",
    ),
    "went back between two samples": (
        [sample(0, 50, 100, 0), replace(sample(5, 60, 100, 4), went_back=(OffsetRange("t", 0, 20, 55),))],
        Health.UNHEALTHY,
        Rule.REWIND,
        "the history knows what the samples did not see",
    ),
    "failed": ([sample(0, 50, 100, 0), ended(EndedHow.FAILED)], Health.UNHEALTHY, Rule.DEAD, "at once"),
    "died": ([sample(0, 50, 100, 0), ended(EndedHow.DIED)], Health.UNHEALTHY, Rule.DEAD, "seen to be gone"),
    "fenced": ([ended(EndedHow.FENCED)], Health.UNHEALTHY, Rule.DEAD, "closed from outside, and nobody says why"),
    "finished": ([ended(EndedHow.FINISHED)], Health.OVER, Rule.OK, "a bounded trigger has no more to do"),
    "stopped by somebody": (
        [replace(ended(EndedHow.STOPPED), superseded_by="another operation")],
        Health.OVER,
        Rule.OK,
        "a person's decision is never rolled back",
    ),
    "died after somebody asked it to stop": (
        [replace(ended(EndedHow.KILLED), superseded_by="another operation")],
        Health.OVER,
        Rule.OK,
        "that is what was asked for",
    ),
    "heart stands still, too short to tell": (
        [sample(0, 9, 9, 0, beat=7), sample(60, 9, 9, 0, beat=7)],
        Health.HEALTHY,
        Rule.OK,
        "an idle driver that the store did not hear for a while",
    ),
    "heart stands still": (
        [sample(0, 9, 9, 0, beat=7), sample(60, 9, 9, 0, beat=7), sample(120, 9, 9, 0, beat=7)],
        Health.UNHEALTHY,
        Rule.SILENT,
        "idle as far as anybody knows, and no sign of life",
    ),
    "another query": (
        [sample(0, 9, 100, 0), replace(sample(5, 9, 100, 0), query_id="query-2")],
        Health.UNHEALTHY,
        Rule.RESTART,
        "it left the checkpoint that was planned",
    ),
}


@pytest.mark.parametrize(("window", "health", "rule", "why"), TABLE.values(), ids=TABLE)
def test_verdict(window: list[Sample], health: Health, rule: Rule, why: str) -> None:
    verdict = judge(window, POLICY)

    assert (verdict.health, verdict.rule) == (health, rule), f"{why}; it says: {verdict.reason}"
    assert verdict.reason


@pytest.mark.parametrize(
    ("window", "warned"),
    [
        pytest.param([sample(0, 10, 100, 0), sample(60, 50, 200, 3)], True, id="reads, and more comes than it reads"),
        pytest.param([sample(0, 10, 100, 0), sample(60, 90, 150, 3)], False, id="catches up"),
        pytest.param(
            [sample(0, 10, 100, 0), sample(30, 99, 99, 2), sample(60, 99, 300, 2)], False, id="had caught up once"
        ),
    ],
)
def test_lag_that_only_grows_is_a_warning(window: list[Sample], warned: bool) -> None:
    """A slow version is slow, and a rollback would make it read even more."""
    verdict = judge(window, POLICY)

    assert verdict.health is Health.HEALTHY
    assert verdict.warnings == (("t[0] falls behind: 90 offsets waited at first, 150 do now",) if warned else ())


def test_a_reason_names_what_to_check() -> None:
    window = [sample(0, (0,) * 5, (100,) * 5), sample(130, (0,) * 5, (100,) * 5)]

    assert judge(window, POLICY) == Verdict(
        Health.UNHEALTHY,
        Rule.STOP,
        "no batch for 130 s while records wait:"
        " t[0] is at 0 of 100, t[1] is at 0 of 100, t[2] is at 0 of 100, and 2 more",
    )


def test_what_batches_read_again() -> None:
    def batch(start: Position, end: Position) -> Batch:
        return Batch(end, 1, 0, "query-1", 1, start)

    tiled = [batch(at(5), at(10)), batch(at(10), at(10)), batch(at(10, 0), at(20, 7))]

    assert went_back(at(5), tiled) == ()
    assert went_back(at(5), [*tiled, batch(at(15, 7), at(30, 9))]) == (OffsetRange("t", 0, 15, 20),)
    assert went_back(at(6), tiled) == (OffsetRange("t", 0, 5, 6),), "it began before the start that was planned"


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        pytest.param([sample(0, 100, 100)], "", id="no lag: at once"),
        pytest.param([sample(0, 10, 100)], None, id="one sample with lag does not tell"),
        pytest.param([sample(0, 10, 100), sample(10, 10, 100)], None, id="nor do two"),
        pytest.param([sample(0, 10, 100), sample(10, 50, 130), sample(20, 50, 150)], "", id="it caught up for a while"),
        pytest.param(
            [sample(0, 10, 100), sample(10, 130, 130), sample(20, 130, 150)], "", id="there was no lag at one time"
        ),
        pytest.param(
            [sample(0, 10, 100), sample(10, 20, 200), sample(20, 30, 300)],
            "270 offsets wait for the live job, 90 did 20 s ago",
            id="it reads, and falls behind",
        ),
        pytest.param(
            [sample(0, 10, 100), sample(10, 10, 100), sample(20, 10, 100)],
            "90 offsets wait for the live job, 90 did 20 s ago",
            id="it stands still",
        ),
        pytest.param(
            [sample(0, 90, 100), sample(10, 10, 100), sample(20, 10, 100), sample(30, 10, 110)],
            "100 offsets wait for the live job, 90 did 20 s ago",
            id="the newest three count",
        ),
        pytest.param([ended(EndedHow.DIED)], "", id="a job that is over is not slowed down"),
        pytest.param([replace(sample(0, 10, 100), superseded_by="op")], "", id="nor is one that was stopped"),
    ],
)
def test_no_load_is_put_beside_a_job_that_falls_behind(samples: list[Sample], words: str | None) -> None:
    assert why_hold_back(samples) == words
