"""What the comparison of a history with the ledger of its sink says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.sink.audit import (
    LISTED,
    RecordedOutput,
    SinkFindingKind,
    SinkReport,
    SinkVerdict,
    compare_with_ledger,
    unread_sink,
)
from airflow_provider_offsets.core.sink.ledger import Ledger, Removed, Unnamed, Written

Q, OLD, RUN = "query", "older-query", "backfill__orders/scheduled__2026-11-01#1#1"
PROVEN, NOT_PROVEN, REFUTED = SinkVerdict.PROVEN, SinkVerdict.NOT_PROVEN, SinkVerdict.REFUTED


def batch(number: int, *, query: str = Q, digest: str = "", records: int = 20, is_new: bool = False) -> RecordedOutput:
    """Return a batch that began at ``1000 * number``."""
    return RecordedOutput(query, number, digest or f"digest-{query}-{number}", records, 1000 * number, is_new)


def write(
    number: int, *, query: str = Q, pipeline: str = "orders", digest: str = "", at_ms: int | None = None
) -> Written:
    """Return the write of a batch, 500 ms after the batch began."""
    at_ms = 1000 * number + 500 if at_ms is None else at_ms
    return Written(query, number, f"version {number}", 20, pipeline, digest, at_ms)


def keyed(number: int, query: str = Q) -> Written:
    """Return a write that names its batch by a batch key."""
    return write(number, query=query, digest=f"digest-{query}-{number}")


def of_spark(number: int, query: str = Q) -> Written:
    """Return a write of one of Spark's own sinks, which names no pipeline and no ranges."""
    return write(number, query=query, pipeline="")


def of_files(number: int, at_ms: int | None = None) -> Written:
    """Return a write of Spark's file sink, which does not name the query either."""
    return write(number, query="", pipeline="", at_ms=at_ms)


@dataclass(frozen=True)
class Case:
    """A history and a ledger, and what must be said of them."""

    why: str
    recorded: list[RecordedOutput]
    ledger: Ledger
    verdict: SinkVerdict
    counts: dict[str, int] = field(default_factory=dict)
    started: frozenset[tuple[str, int]] = frozenset()
    since: str = ""
    was_untracked: bool = False


CASES = [
    Case("each batch once", [batch(0), batch(1)], Ledger((keyed(0), keyed(1))), PROVEN, {"batches": 2, "records": 40}),
    Case("nothing was recorded, and nothing written", [], Ledger(), PROVEN),
    Case("a batch without records need not be written", [batch(0), batch(1, records=0)], Ledger((keyed(0),)), PROVEN),
    Case("Spark's own sink names query and batch", [batch(0)], Ledger((of_spark(0),)), PROVEN, {"batches": 1}),
    Case("the file sink names only the batch", [batch(0)], Ledger((of_files(0),)), PROVEN, {"batches": 1}),
    Case("the last batch has no output", [batch(0), batch(1)], Ledger((keyed(0),)), REFUTED, {"lost": 1}),
    Case(
        "the first batch has no output, or the job had another sink then",
        [batch(0), batch(1)],
        Ledger((keyed(1),)),
        PROVEN,
        {"lost": 0, "unproven": 1, "batches": 1},
        since=f"batch 1 of query {Q}",
    ),
    Case(
        "the first batch has no output, and the sink has an older write",
        [batch(1), batch(2)],
        Ledger((of_spark(0, "foreign"), keyed(2))),
        REFUTED,
        {"lost": 1, "unproven": 0, "others": 1},
    ),
    Case(
        "no write names a batch, and nothing shows that the job wrote there",
        [batch(0)],
        Ledger(),
        NOT_PROVEN,
        {"lost": 0, "unproven": 1},
    ),
    Case(
        "a batch id that was used again for other ranges is not that batch",
        [batch(0, digest="other")],
        Ledger((keyed(0),)),
        REFUTED,
        {"unproven": 1, "not_recorded": 1},
    ),
    Case(
        "A19: Delta dropped the batches of a fresh start, and the writes of the run before it name no batch",
        [batch(5), batch(6)],
        Ledger(unnamed=(Unnamed("version 0", 1000), Unnamed("version 1", 4999))),
        REFUTED,
        {"lost": 2, "others": 2},
    ),
    Case(
        "a file sink dropped the batches of a fresh start: its log has older ones with the same ids",
        [batch(700), batch(701)],
        Ledger((of_files(700, at_ms=100), of_files(701, at_ms=200))),
        REFUTED,
        {"lost": 2, "others": 2, "not_recorded": 0},
    ),
    Case(
        "a file sink has a batch from a minute before: a clock was set back, or the batch was dropped",
        [batch(70), batch(71)],
        Ledger((of_files(70, at_ms=10_000), of_files(71))),
        NOT_PROVEN,
        {"lost": 0, "unproven": 1, "batches": 1},
    ),
    Case(
        "write options were added later: a write that names no batch may be the older batch",
        [batch(0), batch(1)],
        Ledger((keyed(1),), unnamed=(Unnamed("version 0", 500),)),
        PROVEN,
        {"batches": 1, "unproven": 1, "lost": 0},
        since=f"batch 1 of query {Q}",
    ),
    Case(
        "no write names a batch",
        [batch(0), batch(1)],
        Ledger(unnamed=(Unnamed("version 0", 500), Unnamed("version 1", 1500))),
        NOT_PROVEN,
        {"unproven": 2, "lost": 0},
    ),
    Case(
        "another program writes there too, and this one names its batches",
        [batch(0), batch(1), batch(2)],
        Ledger((keyed(0), keyed(2)), unnamed=(Unnamed("version 9", 9000),)),
        REFUTED,
        {"lost": 1, "others": 1},
    ),
    Case(
        "the beginning of the log was cleaned up",
        [batch(0), batch(1), batch(2)],
        Ledger((keyed(2),), missing_before="version 2", begins_at_ms=2500),
        PROVEN,
        {"batches": 1, "unproven": 2},
        since=f"batch 2 of query {Q}",
    ),
    Case(
        "the beginning was cleaned up, and a later batch has no output",
        [batch(0), batch(2), batch(3)],
        Ledger((keyed(2),), missing_before="version 2", begins_at_ms=2500),
        REFUTED,
        {"unproven": 1, "lost": 1},
        since=f"batch 2 of query {Q}",
    ),
    Case(
        "all of the log was cleaned up",
        [batch(0)],
        Ledger(missing_before="version 7", begins_at_ms=None),
        NOT_PROVEN,
        {"unproven": 1},
    ),
    Case("only the sink has it", [batch(0)], Ledger((keyed(0), keyed(1))), REFUTED, {"not_recorded": 1}),
    Case(
        "a batch that was cut off after its write is explained",
        [batch(0)],
        Ledger((keyed(0), keyed(1))),
        PROVEN,
        {"cut_off": 1, "not_recorded": 0},
        started=frozenset({(Q, 1)}),
    ),
    Case(
        "so is one in a sink that does not name the query",
        [batch(0)],
        Ledger((of_files(0), of_files(1))),
        PROVEN,
        {"cut_off": 1},
        started=frozenset({(Q, 1)}),
    ),
    Case("twice, and nobody tried it again", [batch(0)], Ledger((keyed(0), keyed(0))), REFUTED, {"twice": 1}),
    Case(
        "twice, because it was tried again",
        [batch(0)],
        Ledger((keyed(0), keyed(0))),
        PROVEN,
        {"twice": 1, "batches": 1},
        started=frozenset({(Q, 0)}),
    ),
    Case(
        "a MERGE of a batch that was tried again writes no row, and the second one is no duplicate",
        [batch(0)],
        Ledger((keyed(0), Written(Q, 0, "version 1", 0, "orders", f"digest-{Q}-0", 900))),
        PROVEN,
        {"twice": 0, "batches": 1},
    ),
    Case(
        "a batch of another pipeline",
        [batch(0)],
        Ledger((keyed(0), write(9, pipeline="parcels"))),
        PROVEN,
        {"others": 1},
    ),
    Case("a query of another job", [batch(0)], Ledger((of_spark(0), of_spark(9, "foreign"))), PROVEN, {"others": 1}),
    Case(
        "the job had written before it was tracked, under the same query",
        [batch(5)],
        Ledger((of_spark(3), of_spark(4), of_spark(5))),
        PROVEN,
        {"others": 2, "not_recorded": 0},
    ),
    Case(
        "the store was lost: the pipeline's older batches are there, and are older than the history",
        [batch(5)],
        Ledger((keyed(1, OLD), keyed(5))),
        PROVEN,
        {"others": 1},
    ),
    Case(
        "somebody runs the program under this pipeline's name with another store",
        [batch(5)],
        Ledger((keyed(5), write(0, query="unknown", at_ms=9000))),
        REFUTED,
        {"not_recorded": 1},
    ),
    Case(
        "the pipeline was renamed: its older writes have the former name",
        [batch(0), batch(1)],
        Ledger((write(0, pipeline="parcels", digest=f"digest-{Q}-0"), keyed(1))),
        PROVEN,
        {"batches": 2, "others": 0},
    ),
    Case(
        "a batch that was recorded after the sink was read need not be there",
        [batch(0), batch(1, is_new=True)],
        Ledger((keyed(0),)),
        PROVEN,
        {"lost": 0},
    ),
    Case(
        "the empty first batch of a seeded checkpoint is in the sink, and not recorded",
        [batch(0), batch(2)],
        Ledger((of_files(0), Written("", 1, "_spark_metadata/1", 0, at_ms=1500), of_files(2))),
        PROVEN,
        {"batches": 2, "not_recorded": 0},
    ),
    Case(
        "the program ran without being tracked for a time, and Spark's sink does not name the pipeline",
        [batch(0), batch(3)],
        Ledger((of_spark(0), of_spark(1), of_spark(2), of_spark(3))),
        PROVEN,
        {"others": 2, "not_recorded": 0},
        was_untracked=True,
    ),
    Case(
        "a batch was started before Spark had assigned the id of its query, and was cut off",
        [batch(0), batch(1, query=OLD)],
        Ledger((of_spark(0), of_spark(1, OLD), of_spark(1))),
        PROVEN,
        {"cut_off": 1},
        started=frozenset({("", 1)}),
    ),
    Case("a shard of a replay", [batch(0, query=RUN)], Ledger((keyed(0, RUN),)), PROVEN, {"batches": 1}),
    Case(
        "A1: the shard was replayed, and the sink has nothing of it",
        [batch(0), batch(1, query=RUN)],
        Ledger((keyed(0),)),
        REFUTED,
        {"lost": 1},
    ),
    Case(
        "a row was deleted by hand",
        [batch(0)],
        Ledger((keyed(0),), removed=(Removed("version 8", "DELETE", 1),)),
        NOT_PROVEN,
        {"removals": 1, "lost": 0},
    ),
]


def compared(case: Case) -> SinkReport:
    return compare_with_ledger(
        "delta /data/orders", "orders", case.recorded, case.ledger, case.started, was_untracked=case.was_untracked
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_cases(case: Case) -> None:
    report = compared(case)
    assert report.verdict is case.verdict
    assert {name: getattr(report, name) for name in case.counts} == case.counts
    assert report.since == case.since


def test_a_report_names_what_is_missing_and_where() -> None:
    report = compared(next(case for case in CASES if case.why == "a row was deleted by hand"))
    (found,) = report.findings
    assert (found.kind, found.what, found.place, found.rows) == (SinkFindingKind.REMOVED, "DELETE", "version 8", 1)
    assert report.reasons == ("rows were removed after they had been written",)


def test_rows_are_unknown_if_one_write_does_not_say_them() -> None:
    silent = Written(Q, 1, "version 1", None, "orders", "", 1500)
    assert compare_with_ledger("x", "orders", [batch(0)], Ledger((keyed(0),)), set()).rows == 20
    assert compare_with_ledger("x", "orders", [batch(0), batch(1)], Ledger((keyed(0), silent)), set()).rows is None


def test_findings_are_counted_completely_and_listed_up_to_a_limit() -> None:
    report = compare_with_ledger(
        "x", "orders", map(batch, range(1, LISTED + 6)), Ledger((of_spark(0, "foreign"),)), set()
    )
    assert (report.lost, len(report.findings)) == (LISTED + 5, LISTED)


def test_a_sink_that_was_not_read_proves_nothing() -> None:
    assert unread_sink("", "the pipeline names no sink").verdict is NOT_PROVEN


@given(st.lists(st.sampled_from(("both", "history", "sink", "twice")), max_size=30))
def test_each_batch_is_counted_where_it_is(places: list[str]) -> None:
    # Batch 0 is in both, so that every later id belongs to the history.
    places = ["both", *places]
    recorded = [batch(number) for number, place in enumerate(places) if place != "sink"]
    written = [
        keyed(number)
        for number, place in enumerate(places)
        for _ in range({"both": 1, "history": 0, "sink": 1, "twice": 2}[place])
    ]
    report = compare_with_ledger("x", "orders", recorded, Ledger(tuple(written)), set())
    count = Counter(places)
    assert (report.lost, report.not_recorded, report.twice) == (count["history"], count["sink"], count["twice"])
    assert report.batches == count["both"] + count["twice"]
    assert (report.verdict is PROVEN) == (set(places) == {"both"})
