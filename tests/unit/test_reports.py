"""Plans and audits as people read them."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.compare import compare_stores
from airflow_provider_offsets.core.plan import plan_restart
from airflow_provider_offsets.core.snapshot import KeptPosition
from airflow_provider_offsets.core.transfer import plan_transfer
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.reports import (
    MARKDOWN,
    TEXT,
    audit_report,
    comparison_report,
    plan_report,
    transfer_report,
)
from tests.unit.core.worlds import at, live, running, seen
from tests.unit.operations import steps
from tests.unit.operations.lab import Lab


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_a_plan_shows_each_partition_the_totals_and_the_problems(style: str) -> None:
    there = running(live((0, 12_000), (50, 100)), at(10_000, 40))
    plan = plan_restart(at(9_000, 40), there, selector="offsets:…")

    shown = plan_report(plan, style)

    assert f"Plan {plan.fingerprint} of flights-pipeline: start offsets:…, reposition" in shown
    for word in ("flights", "12,000", "10,000", "9,000", "1,000", "retention has deleted"):
        assert word in shown
    assert "In all: 1,000 to replay, 0 to skip, 10 lost" in shown
    assert "- PROBLEM – loss: 10 offsets of 'flights' would be lost (flights[1] 10) and 0 are accepted" in shown
    assert ("|---" in shown) is (style == MARKDOWN)


def test_a_partition_that_was_never_read_has_a_dash() -> None:
    there = running(live((0, 100), (0, 100), (0, 5)), at(40, 60))

    assert "–" in plan_report(plan_restart(at(40, 60), there))


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_an_audit_shows_what_was_read_and_every_jump(style: str, lab: Lab) -> None:
    steps.rest(lab)
    steps.submit(lab, steps.apply(lab, "shift:-30"))
    lab.tick()

    shown = audit_report(audit_history(lab.world("look")), style)

    assert "Audit of delay_alerts: 3 batches, 260 records read." in shown
    assert "announced by op" in shown
    assert shown.endswith("lost=0 replayed=60 skipped=0 unexplained=0 replayed_at_most=0")
    assert ("|---" in shown) is (style == MARKDOWN)


def test_a_whole_history_says_so(lab: Lab) -> None:
    steps.start(lab)

    assert "Every range begins where the one before it ends." in audit_report(audit_history(lab.world("look")))


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_a_comparison_shows_every_store_the_verdict_and_why(style: str) -> None:
    kept = (
        KeptPosition("hbase_default", "hbase", at(12_000, 90), at(1_000, 90)),
        KeptPosition("kafka_default", "kafka", at(1_000, 90), perishes="expires in 7 days"),
        KeptPosition("zookeeper", "zookeeper", at(12_000)),
    )

    shown = comparison_report(compare_stores(seen(live((0, 1)), kept=kept)), style)

    assert shown.startswith("Stores of flights-pipeline, at rest: 0 agree, 1 expected lag, 1 conflict.")
    for word in ("hbase_default (rules)", "12,000", "one batch behind", "zookeeper does not name it", "–"):
        assert word in shown
    assert "- kafka_default: expires in 7 days" in shown
    assert ("|---" in shown) is (style == MARKDOWN)


def test_a_comparison_of_nothing_says_so() -> None:
    kept = (KeptPosition("history", "history", None),)

    assert "No store has a position." in comparison_report(compare_stores(seen(live((0, 1)), kept=kept)))


def test_a_transfer_shows_what_comes_what_is_there_and_what_speaks_against_it() -> None:
    shown = transfer_report(plan_transfer("g", at(50, 2_000), at(60)))

    assert shown.startswith("Group g: 2 of 2 partition(s) to write.")
    assert "In all: 10 to replay, 2,000 to skip" in shown
    assert "- PROBLEM – skip: 2000 offsets of 'flights' would be skipped" in shown
