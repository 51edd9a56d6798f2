"""Stores side by side, as a table: the position of each, the verdict, and why that verdict is right.

Whoever changes a row changes its reason too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow, Epoch, RecordedMove
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.comparison import Agreement, Comparison, compare_stores, resolve_conflicts
from airflow_provider_offsets.core.restart.model import OnConflict
from airflow_provider_offsets.core.snapshot import KeptPosition, Observation
from tests.unit.core.observations import QUERY, at, epoch, live, seen

AGREE, LAG, CONFLICT = Agreement.AGREE, Agreement.EXPECTED_LAG, Agreement.CONFLICT
TWO = live((0, 1_000), (0, 1_000))
ENDED = Ended(EndedHow.STOPPED, 1)


def kept(kind: str, position: Position | None, before: Position | None = None, expires: str = "") -> KeptPosition:
    return KeptPosition(kind, kind, position, before, expires)


def when_stopped(*stores: KeptPosition, **more: Any) -> Observation:
    return seen(TWO, kept=stores, **more)


def running(*stores: KeptPosition, **more: Any) -> Observation:
    return when_stopped(*stores, epoch=epoch(at(0, 0)), **more)


def moved_epoch(stood: Position, start: Position) -> Epoch:
    made = epoch(start)
    return replace(made, claim=replace(made.claim, stood=stood))


@dataclass(frozen=True)
class Case:
    """One state of the stores, the verdict of each partition, and a word of the reason that a person reads."""

    why: str
    seen: Observation
    verdicts: tuple[Agreement, ...]
    says: str = ""
    earlier: Observation | None = None
    resolved: dict[OnConflict, Position] = field(default_factory=dict)


MOVED = RecordedMove("op", "f", stood=at(200, 90), kept=at(200, 90), to=at(50, 50))
HBASE = kept("hbase", at(200, 90), at(100, 80))

CASES = [
    Case("one store cannot disagree", when_stopped(kept("zookeeper", at(1, 2))), (AGREE, AGREE)),
    Case("the same everywhere", when_stopped(HBASE, kept("kafka", at(200, 90))), (AGREE, AGREE)),
    # commitAsync.
    Case(
        "commitAsync sends the offsets of a batch with the next batch: after a clean stop the group is one behind",
        when_stopped(HBASE, kept("kafka", at(100, 80))),
        (LAG, LAG),
        "kafka is one batch behind: commitAsync",
    ),
    Case(
        "the last batch read one partition only: the other one agrees",
        when_stopped(kept("hbase", at(200, 90), at(100, 90)), kept("kafka", at(100, 90))),
        (LAG, AGREE),
        "one batch behind",
    ),
    Case(
        "the partition appeared in the last batch: the group does not know it yet",
        when_stopped(kept("hbase", at(200, 90), at(100)), kept("kafka", at(100))),
        (LAG, LAG),
        "one batch behind",
    ),
    Case(
        "the group rules and lags: the other store has the batch that it will get",
        when_stopped(kept("kafka", at(100, 80)), HBASE),
        (LAG, LAG),
        "hbase is one batch ahead: kafka gets",
    ),
    Case(
        "behind by more than a batch: nobody can tell a long queue of commits from a store that was changed by hand",
        when_stopped(HBASE, kept("kafka", at(60, 80))),
        (CONFLICT, CONFLICT),
        "kafka is 140 behind",
    ),
    Case(
        "one partition of this batch and one of the batch before: a commit has all of a batch, so no lag explains it",
        when_stopped(HBASE, kept("kafka", at(100, 90))),
        (CONFLICT, AGREE),
        "kafka is 100 behind",
    ),
    Case(
        "within the batch: neither its start nor its end",
        when_stopped(HBASE, kept("kafka", at(150, 80))),
        (CONFLICT, CONFLICT),
        "kafka is 50 behind",
    ),
    Case(
        "the authoritative store does not know where it stood a batch before, so nobody can say that it is one batch",
        when_stopped(kept("zookeeper", at(200, 90)), kept("kafka", at(100, 80))),
        (CONFLICT, CONFLICT),
        "kafka is 100 behind",
    ),
    Case(
        "only a group lags by commitAsync: a znode that is one batch behind was not written",
        when_stopped(HBASE, kept("zookeeper", at(100, 80))),
        (CONFLICT, CONFLICT),
        "zookeeper is 100 behind",
    ),
    Case(
        "ahead of the store that rules: a start from there skips, if the authoritative one is right",
        when_stopped(HBASE, kept("kafka", at(300, 90))),
        (CONFLICT, AGREE),
        "kafka is 100 ahead",
    ),
    # Spark's own log.
    Case(
        "a crash between the record and Spark's commit: the log is one batch behind the history",
        when_stopped(
            kept("history", at(200, 90), at(100, 80)),
            kept("checkpoint", at(100, 80)),
            processed=Batch(at(200, 90), 1, 4, QUERY, 1, at(100, 80)),
        ),
        (LAG, LAG),
        "Spark has not committed it",
    ),
    Case(
        "the same, where the log rules: an untracked job that records its offsets itself",
        when_stopped(kept("checkpoint", at(100, 80)), HBASE),
        (LAG, LAG),
        "hbase is one batch ahead",
    ),
    Case(
        "Spark committed what the history does not have: its rows are gone, and no order of writing explains that",
        when_stopped(
            kept("history", at(100, 80), at(50, 80)),
            kept("checkpoint", at(200, 90)),
            processed=Batch(at(100, 80), 1, 4, QUERY, 1, at(50, 80)),
        ),
        (CONFLICT, CONFLICT),
        "checkpoint is 100 ahead",
    ),
    Case(
        "a tracked job that was rewound and has run no batch since stands where it was rewound to, as its seeded"
        " checkpoint says; the newest row of the history is of the epoch before",
        when_stopped(
            kept("history", at(200, 90), at(100, 80)),
            kept("checkpoint", at(50, 50)),
            processed=Batch(at(200, 90), 1, 4, QUERY, 1, at(100, 80)),
            epoch=epoch(at(50, 50), 2),
            ended=ENDED,
        ),
        (AGREE, AGREE),
    ),
    # New partitions, and stores without a position.
    Case(
        "a new partition of which nothing was read: one store names it with 0, the other not yet",
        when_stopped(kept("hbase", at(200, 0), at(200)), kept("zookeeper", at(200))),
        (AGREE, LAG),
        "new partition",
    ),
    Case(
        "the same, where the authoritative store is the one that does not name it",
        when_stopped(kept("zookeeper", at(200)), kept("kafka", at(200, 0))),
        (AGREE, LAG),
        "new partition",
    ),
    Case(
        "a partition that was read and that a store does not name: half a position",
        when_stopped(kept("zookeeper", at(200, 90)), kept("kafka", at(200))),
        (AGREE, CONFLICT),
        "kafka does not name it, and zookeeper has 90",
    ),
    Case(
        "a partition that the authoritative store does not name and another has read: it would be read again from 0",
        when_stopped(kept("zookeeper", at(200)), kept("kafka", at(200, 90))),
        (AGREE, CONFLICT),
        "kafka has 90, and zookeeper does not name it",
    ),
    Case(
        "nothing is stored there, which contradicts nobody; that the commits may have expired is said",
        when_stopped(HBASE, kept("kafka", None, expires="the group expires")),
        (LAG, LAG),
        "kafka has nothing stored (the group expires)",
    ),
    Case(
        "nothing stored in the store that *rules* makes the next start a first start: that contradicts",
        when_stopped(kept("kafka", None), kept("zookeeper", at(200, 90))),
        (CONFLICT, CONFLICT),
        "zookeeper has 200, and kafka does not name it",
    ),
    # Moved by this provider.
    Case(
        "apply moved the authoritative store, and the job was not started there yet: the other stands where it stood",
        when_stopped(kept("zookeeper", at(50, 50)), kept("kafka", at(200, 90)), moved=MOVED),
        (LAG, LAG),
        "kafka is still at the position from which op moved zookeeper",
    ),
    Case(
        "moved, and the other one stands at neither place",
        when_stopped(kept("zookeeper", at(50, 50)), kept("kafka", at(170, 90)), moved=MOVED),
        (CONFLICT, LAG),
        "kafka is 120 ahead",
    ),
    Case(
        "moved, and then the authoritative store was changed by somebody else: the move explains nothing any more",
        when_stopped(kept("zookeeper", at(60, 60)), kept("kafka", at(200, 90)), moved=MOVED),
        (CONFLICT, CONFLICT),
        "kafka is 140 ahead",
    ),
    Case(
        "moved, started, and stopped after one batch: commitAsync has not told the group of it",
        when_stopped(
            kept("hbase", at(120, 50), at(50, 50)),
            kept("kafka", at(200, 90)),
            epoch=moved_epoch(at(200, 90), at(50, 50)),
            ended=ENDED,
        ),
        (LAG, LAG),
        "from which operation-1 moved hbase",
    ),
    Case(
        "never moved: that the other one stands where the epoch began is no excuse for it",
        when_stopped(
            kept("hbase", at(200, 90), at(100, 80)),
            kept("zookeeper", at(100, 80)),
            epoch=moved_epoch(at(100, 80), at(100, 80)),
            ended=ENDED,
        ),
        (CONFLICT, CONFLICT),
        "zookeeper is 100 behind",
    ),
    # A running job.
    Case(
        "it runs, and the stores are read one after the other: any difference may be the time between",
        running(HBASE, kept("kafka", at(400, 95))),
        (LAG, LAG),
        "another moment of the running job",
    ),
    Case(
        "it runs, and a rule says more than motion does",
        running(HBASE, kept("kafka", at(100, 80))),
        (LAG, LAG),
        "one batch behind",
    ),
    Case(
        "it was stopped by then: the same difference is a conflict",
        running(HBASE, kept("kafka", at(400, 95)), ended=ENDED),
        (CONFLICT, CONFLICT),
        "kafka is 200 ahead",
    ),
    Case(
        "two looks: the one reached at the second look what the other had at the first, so it may be motion",
        running(kept("zookeeper", at(300, 90)), kept("hbase", at(250, 90), at(240, 90))),
        (LAG, AGREE),
        "another moment",
        earlier=running(kept("zookeeper", at(240, 90)), kept("hbase", at(200, 90), at(190, 90))),
    ),
    Case(
        "two looks: it stands behind what the other one had at the first look: no motion explains it",
        running(kept("hbase", at(300, 90), at(250, 90)), kept("zookeeper", at(120, 90))),
        (CONFLICT, AGREE),
        "zookeeper is 180 behind",
        earlier=running(kept("hbase", at(200, 90), at(150, 90)), kept("zookeeper", at(120, 90))),
    ),
    Case(
        "two looks: it is the authoritative one that was passed by",
        running(kept("zookeeper", at(120, 90)), kept("hbase", at(300, 90), at(250, 90))),
        (CONFLICT, AGREE),
        "hbase is 180 ahead",
        earlier=running(kept("zookeeper", at(120, 90)), kept("hbase", at(200, 90), at(150, 90))),
    ),
    Case(
        "two looks: a group may lag a batch, so it is held against where the last batch of the first look began",
        running(kept("hbase", at(300, 90), at(250, 90)), kept("kafka", at(150, 90))),
        (LAG, AGREE),
        "another moment",
        earlier=running(kept("hbase", at(200, 90), at(150, 90)), kept("kafka", at(100, 90))),
    ),
    Case(
        "two looks: a group that is behind even that",
        running(kept("hbase", at(300, 90), at(250, 90)), kept("kafka", at(149, 90))),
        (CONFLICT, AGREE),
        "kafka is 151 behind",
        earlier=running(kept("hbase", at(200, 90), at(150, 90)), kept("kafka", at(149, 90))),
    ),
    Case(
        "two looks at a group beside a store that does not know its batches: nobody can say",
        running(kept("zookeeper", at(300, 90)), kept("kafka", at(149, 90))),
        (LAG, AGREE),
        "another moment",
        earlier=running(kept("zookeeper", at(200, 90)), kept("kafka", at(149, 90))),
    ),
    Case(
        "two samples, and it was stopped at the second: an earlier one is of no use then",
        running(HBASE, kept("kafka", at(400, 95)), ended=ENDED),
        (CONFLICT, CONFLICT),
        "kafka is 200 ahead",
        earlier=running(HBASE, kept("kafka", at(400, 95))),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_verdict(case: Case) -> None:
    comparison = compare_stores(case.seen, case.earlier)

    assert tuple(row.agreement for row in comparison.rows) == case.verdicts
    if case.says:
        assert case.says in " / ".join(row.why for row in comparison.rows)
    for row in comparison.rows:
        assert bool(row.why) is (row.agreement is not AGREE), "what differs is explained, what agrees is not"


def test_a_comparison_shows_what_each_store_has_and_which_one_rules() -> None:
    comparison = compare_stores(when_stopped(HBASE, kept("kafka", at(100)), kept("zookeeper", None)))

    assert (comparison.authoritative, comparison.stores) == ("hbase", ("hbase", "kafka", "zookeeper"))
    assert [row.offsets for row in comparison.rows] == [(200, 100, None), (90, None, None)]
    assert comparison.conflicts == (comparison.rows[0], comparison.rows[1])
    assert codec.loads(Comparison, codec.dumps(comparison)) == comparison


def test_the_worst_verdict_of_a_partition_counts_and_every_store_is_explained() -> None:
    [row, _] = compare_stores(when_stopped(HBASE, kept("kafka", at(100, 80)), kept("zookeeper", at(210, 90)))).rows

    assert row.agreement is CONFLICT
    assert "kafka is one batch behind" in row.why
    assert "zookeeper is 10 ahead" in row.why


def test_what_expires_is_reported_even_if_all_stores_agree() -> None:
    comparison = compare_stores(when_stopped(HBASE, kept("kafka", at(200, 90), expires="expires in 7 days")))

    assert comparison.expiring == ("kafka: expires in 7 days",)


def test_a_topic_that_was_taken_out_of_the_pipeline_is_not_compared() -> None:
    """A checkpoint has its offsets, and the other store is asked for the topics of the pipeline only."""
    with_more = HBASE.position.updated(at(5, topic="cancelled")) if HBASE.position else None
    comparison = compare_stores(when_stopped(kept("checkpoint", with_more), kept("zookeeper", HBASE.position)))

    assert [row.topic for row in comparison.rows] == ["flights", "flights"]
    assert comparison.conflicts == ()


def test_a_pipeline_before_its_first_start_has_nothing_to_compare() -> None:
    assert compare_stores(when_stopped(kept("history", None), kept("checkpoint", None))).rows == ()
    assert compare_stores(seen(TWO)).stores == ("history",)


# Starts that are left to the stores.

BEHIND = kept("zookeeper", at(150, 95))


def test_a_conflict_is_refused_unless_a_person_says_what_to_go_by() -> None:
    position, [problem] = resolve_conflicts(when_stopped(HBASE, BEHIND), OnConflict.REFUSE)

    assert position == at(200, 90)
    assert problem.kind is ProblemKind.STORES_CONFLICT
    assert "flights[0]: zookeeper is 50 behind" in problem.message
    assert "airflow offsets compare --pipeline flights-pipeline" in problem.message


def test_the_authoritative_store_decides() -> None:
    assert resolve_conflicts(when_stopped(HBASE, BEHIND), OnConflict.AUTHORITATIVE_STORE) == (at(200, 90), ())


def test_the_smallest_offset_of_each_partition_in_conflict_is_taken() -> None:
    assert resolve_conflicts(when_stopped(HBASE, BEHIND), OnConflict.SMALLEST) == (at(150, 90), ())


def test_an_expected_lag_is_no_reason_to_replay() -> None:
    """The batch that is missing in the group is in the output: the authoritative store has it."""
    for on_conflict in OnConflict:
        assert resolve_conflicts(when_stopped(HBASE, kept("kafka", at(100, 80))), on_conflict) == (at(200, 90), ())


def test_a_store_that_does_not_name_a_partition_is_not_asked_about_it() -> None:
    session = when_stopped(kept("kafka", None), kept("zookeeper", at(200, 90)), kept("hbase", at(150)))

    assert resolve_conflicts(session, OnConflict.SMALLEST) == (at(150, 90), ())
    assert resolve_conflicts(session, OnConflict.AUTHORITATIVE_STORE) == (Position(), ())


def test_a_running_job_is_not_refused_for_its_motion() -> None:
    assert resolve_conflicts(running(HBASE, kept("kafka", at(400, 95))), OnConflict.REFUSE) == (at(200, 90), ())


def test_after_a_move_the_position_is_unchanged() -> None:
    session = when_stopped(kept("zookeeper", at(50, 50)), kept("kafka", at(200, 90)), moved=MOVED)

    assert resolve_conflicts(session, OnConflict.REFUSE) == (at(200, 90), ())


def test_a_log_ahead_of_the_history_is_left_to_the_plan() -> None:
    """The plan counts that difference itself, and counting it once is enough."""
    rows = Batch(at(100, 80), 1, 4, QUERY, 1, at(50, 80))
    session = when_stopped(kept("history", at(100, 80)), kept("checkpoint", at(200, 90)), processed=rows)

    assert resolve_conflicts(session, OnConflict.REFUSE) == (at(100, 80), ())


def test_a_problem_names_a_few_of_ten_thousand_partitions() -> None:
    many = at(*range(1, 10_001))
    session = seen(TWO, kept=(kept("hbase", many), kept("kafka", at(*range(2, 10_002)))))

    [problem] = resolve_conflicts(session, OnConflict.REFUSE)[1]

    assert problem.message.startswith("10000 partition(s)")
    assert "and 9990 more" in problem.message
    assert len(problem.message) < 1_000


offsets = st.one_of(st.none(), st.integers(0, 5))
positions = st.one_of(st.none(), st.builds(at, offsets, offsets, offsets))
stores = st.lists(
    st.builds(kept, st.sampled_from(["hbase", "kafka", "zookeeper", "checkpoint"]), positions, positions),
    min_size=1,
    max_size=4,
)


@given(stores)
def test_the_smallest_never_skips_and_agreement_is_equality(given_stores: list[KeptPosition]) -> None:
    session = when_stopped(*(replace(each, store=f"{each.kind}-{number}") for number, each in enumerate(given_stores)))

    resolved, problems = resolve_conflicts(session, OnConflict.SMALLEST)

    assert problems == ()
    for row in compare_stores(session).rows:
        assert (row.agreement is AGREE) is (len(set(row.offsets)) == 1)
        authoritative = row.offsets[0]
        if authoritative is not None:
            assert resolved[row.key] <= authoritative
        if row.agreement is CONFLICT:
            assert resolved[row.key] == min(each for each in row.offsets if each is not None)


@given(stores)
def test_a_start_is_refused_if_and_only_if_a_conflict_is_shown(given_stores: list[KeptPosition]) -> None:
    session = when_stopped(*given_stores)

    assert bool(resolve_conflicts(session, OnConflict.REFUSE)[1]) is bool(compare_stores(session).conflicts)


@given(stores, st.one_of(st.none(), stores))
def test_one_observation_of_a_running_job_never_shows_a_conflict(
    given_stores: list[KeptPosition], earlier: list[KeptPosition] | None
) -> None:
    assert compare_stores(running(*given_stores)).conflicts == ()


@given(
    batches=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    kinds=st.permutations(["hbase", "kafka", "checkpoint", "zookeeper"]),
    data=st.data(),
)
def test_two_observations_of_stores_that_only_move_show_no_conflict(
    batches: list[int], kinds: list[str], data: st.DataObject
) -> None:
    """One true list of batches. Each store is read at its own moment, and second readings follow all first ones."""
    ends = [sum(batches[:number]) for number in range(len(batches) + 1)]

    def look(since: int) -> tuple[int, list[KeptPosition]]:
        read, latest = [], since
        for kind in kinds[:2]:
            moment = data.draw(st.integers(since, len(batches)))
            late = data.draw(st.integers(0, 1)) if kind in ("kafka", "checkpoint") else 0
            there = max(0, moment - late)
            read.append(kept(kind, at(ends[there]), at(ends[max(0, there - 1)]) if kind == "hbase" else None))
            latest = max(latest, moment)
        return latest, read

    latest, first = look(0)
    _, second = look(latest)

    assert compare_stores(running(*second), running(*first)).conflicts == ()
