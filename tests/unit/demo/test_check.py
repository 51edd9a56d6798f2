"""The demo's independent check, on constructed cases: each of its findings can occur, and only where it should."""

import pytest

from demo.check import (
    Announcement,
    CheckImpossible,
    CutOff,
    Finding,
    announcements,
    judge,
    problems,
    table,
    total,
    verdict,
)
from demo.check import Maintenance as Run

P0, P1 = ("flights", 0), ("flights", 1)
BACK_TO_2 = Announcement(P0, start=2, count=2, epoch=2)


def judged(read, announced=(), there=range(4), place=P0):
    return judge({place: set(there)}, {place: read}, announced)[place]


def counts(found):
    return found.lost, found.duplicated, found.unexplained, found.replayed.total()


ONCE = {0: [1], 1: [1], 2: [1], 3: [1]}
REPLAYED = {0: [1], 1: [1], 2: [1, 2], 3: [1, 2]}


@pytest.mark.parametrize(
    ("read", "announced", "expected"),
    [
        pytest.param(ONCE, [], (0, 0, 0, 0), id="all once"),
        pytest.param({0: [1], 1: [1], 3: [1]}, [], (1, 0, 0, 0), id="one lost"),
        pytest.param({}, [], (4, 0, 0, 0), id="a partition that was never read"),
        pytest.param({**ONCE, 2: [1, 1]}, [], (0, 1, 0, 0), id="duplicated by one epoch"),
        pytest.param({**ONCE, 2: [1, 2]}, [], (0, 1, 0, 0), id="read again, unannounced"),
        pytest.param(REPLAYED, [BACK_TO_2], (0, 0, 0, 2), id="announced replay"),
        pytest.param({**REPLAYED, 1: [1, 2]}, [BACK_TO_2], (0, 1, 0, 2), id="one beyond the announced range"),
        pytest.param(
            {**REPLAYED, 1: [1, 2]},
            [Announcement(P0, 1, 2, epoch=2)],
            (0, 1, 0, 2),
            id="one behind the announced range",
        ),
        pytest.param({**REPLAYED, 3: [2]}, [BACK_TO_2], (0, 0, 1, 1), id="announced as read again, read first by it"),
        pytest.param({**REPLAYED, 3: [1, 2, 2]}, [BACK_TO_2], (0, 1, 0, 2), id="announced once, read again twice"),
        pytest.param({**REPLAYED, 3: [1, 3]}, [BACK_TO_2], (0, 0, 0, 2), id="replayed by the epoch after"),
        pytest.param(ONCE, [BACK_TO_2], (0, 0, 2, 0), id="announced replay that did not happen"),
        pytest.param({**REPLAYED, 3: [1]}, [BACK_TO_2], (0, 0, 1, 1), id="announced replay that was cut short"),
        pytest.param(
            {**REPLAYED, 3: [1, 1]}, [BACK_TO_2], (0, 1, 1, 1), id="duplicate hidden in a replay that did not happen"
        ),
        pytest.param({**REPLAYED, 3: []}, [BACK_TO_2], (1, 0, 1, 1), id="lost although announced"),
        pytest.param({**ONCE, 9: [1]}, [], (0, 0, 1, 0), id="evidence of a record that is not there"),
        pytest.param({**ONCE, 9: [1, 2]}, [], (0, 0, 2, 0), id="the same twice"),
        pytest.param(
            {**ONCE, 3: [1, 2, 3]},
            [Announcement(P0, 3, 1, epoch=2), Announcement(P0, 3, 1, epoch=3)],
            (0, 0, 0, 2),
            id="two announcements, two replays",
        ),
        pytest.param(
            {**ONCE, 3: [1, 2]},
            [Announcement(P0, 3, 1, epoch=2), Announcement(P0, 3, 1, epoch=3)],
            (0, 0, 1, 1),
            id="two announcements, one replay",
        ),
        pytest.param(ONCE, [Announcement(P0, 4, 1, epoch=2)], (0, 0, 1, 0), id="announced beyond the topic"),
    ],
)
def test_counts_what_became_of_each_record(read, announced, expected):
    assert counts(judged(read, announced)) == expected


@pytest.mark.parametrize(
    ("read", "cut_off", "expected"),
    [
        pytest.param(
            {**ONCE, 2: [1, 2]}, [CutOff(P0, 2, 4, epoch=1)], (0, 0, 1), id="read again after its batch was cut"
        ),
        pytest.param(ONCE, [CutOff(P0, 2, 4, epoch=1)], (0, 0, 0), id="at most: it was cut before it wrote"),
        pytest.param({**ONCE, 1: [1, 2]}, [CutOff(P0, 2, 4, epoch=1)], (0, 1, 0), id="one behind the batch"),
        pytest.param({**ONCE, 2: [1, 1]}, [CutOff(P0, 2, 4, epoch=1)], (0, 1, 0), id="twice by the epoch that was cut"),
        pytest.param({**ONCE, 2: [1, 2, 3]}, [CutOff(P0, 2, 4, epoch=1)], (0, 1, 1), id="cut once, read again twice"),
        pytest.param({0: [1], 1: [1], 3: [1]}, [CutOff(P0, 2, 4, epoch=1)], (1, 0, 0), id="it excuses no loss"),
    ],
)
def test_a_batch_that_was_cut_off_excuses_one_reading_more(read, cut_off, expected):
    found = judge({P0: set(range(4))}, {P0: read}, [], cut_off)[P0]
    assert (found.lost, found.duplicated, found.cut_off) == expected


def test_tells_read_once_from_read_again():
    found = judged(REPLAYED, [BACK_TO_2])
    assert (found.records, found.read_once, found.read_again, found.announced) == (4, 2, 2, 2)


def test_does_not_explain_one_partition_by_the_announcement_of_another():
    found = judge({P0: {3}, P1: {3}}, {P0: {3: [1]}, P1: {3: [1, 2]}}, [Announcement(P0, 3, 1, epoch=2)])
    assert counts(found[P0]) == (0, 0, 1, 0)
    assert counts(found[P1]) == (0, 1, 0, 0)


def test_sees_evidence_of_a_partition_that_the_topic_does_not_have():
    assert counts(judge({P0: {0}}, {P0: {0: [1]}, P1: {0: [1]}}, [])[P1]) == (0, 0, 1, 0)


def test_the_verdict_is_the_sum_of_all_partitions():
    there = {P0: set(range(4)), P1: set(range(2))}
    found = judge(there, {P0: REPLAYED, P1: {0: [1], 1: [1]}}, [BACK_TO_2])
    line = verdict(total(found.values()), 12.34, "proven")
    assert line == "verdict: lost=0 duplicated=0 unexplained=0 replayed=2 records=6 downtime_s=12.3 sink=proven"
    assert problems(found, there, there) == []


@pytest.mark.parametrize(
    ("read", "announced", "word"),
    [
        ({**REPLAYED, 0: []}, [BACK_TO_2], "1 lost"),
        ({**REPLAYED, 0: [1, 1]}, [BACK_TO_2], "1 duplicated"),
        ({**REPLAYED, 3: [1]}, [BACK_TO_2], "1 unexplained"),
        (ONCE, [], "no announced replay"),
    ],
)
def test_names_each_problem(read, announced, word):
    there = {P0: set(range(4))}
    (said,) = problems({P0: judged(read, announced)}, there, there)
    assert word in said


@pytest.mark.parametrize("alerts", [{P0: {0, 1, 2}}, {P0: {0, 1, 2, 3, 4}}, {P0: {0, 1, 2, 3}, P1: {0}}, {}])
def test_wants_one_alert_for_each_record(alerts):
    there = {P0: set(range(4))}
    (said,) = problems({P0: judged(REPLAYED, [BACK_TO_2])}, alerts, there)
    assert "alerts table" in said


def test_reads_announcements_from_a_plan():
    plan = {
        "replay": 2,
        "announced": [
            {"topic": "flights", "partition": 0, "start": 2, "replay": 2},
            {"topic": "flights", "partition": 1, "start": 7, "replay": 0},
        ],
    }
    assert announcements(plan, epoch=2) == [BACK_TO_2]


def test_refuses_a_plan_whose_total_is_not_that_of_its_partitions():
    plan = {"replay": 3, "announced": [{"topic": "flights", "partition": 0, "start": 2, "replay": 2}]}
    with pytest.raises(CheckImpossible, match="announces 3 in all"):
        announcements(plan, epoch=2)


def test_downtime_is_from_the_last_batch_before_to_the_first_after():
    run = Run("maintenance 1", 2, (BACK_TO_2,), "10:00:00.000", last_before_ms=1_000, first_after_ms=13_500)
    assert run.downtime_s == 12.5
    shown = table({P0: judged(REPLAYED, [BACK_TO_2])}, [run])
    assert "12.5" in shown
    assert "flights-0" in shown


def test_shows_partitions_alone_where_no_maintenance_is_named():
    shown = table({P0: judged(REPLAYED, [BACK_TO_2])}, [])
    assert "flights-0" in shown
    assert "downtime" not in shown.lower()


def test_knows_no_downtime_without_a_batch_on_both_sides():
    with pytest.raises(CheckImpossible, match="maintenance 1"):
        _ = Run("maintenance 1", 2, (), "10:00:00.000", last_before_ms=None, first_after_ms=1).downtime_s


def test_nothing_found_is_nothing():
    assert total([]) == Finding()
