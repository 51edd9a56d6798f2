"""Plans and audits as people read them."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from airflow_provider_offsets.core.audit.walk import audit
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Ended, EndedHow
from airflow_provider_offsets.core.restart.comparison import compare_stores
from airflow_provider_offsets.core.restart.model import PartitionPlan, RestartPlan
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.snapshot import KeptPosition, KnownPosition
from airflow_provider_offsets.core.transfer import plan_transfer
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.ending import Ending
from airflow_provider_offsets.reports import (
    MARKDOWN,
    TEXT,
    audit_json,
    audit_report,
    comparison_report,
    end_report,
    plan_json,
    plan_report,
    transfer_report,
)
from tests.unit.core.observations import at, epoch, live, running, seen, untracked
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
    assert "Total: 1,000 to replay, 0 to skip, 10 lost" in shown
    assert "- PROBLEM – loss: 10 offsets of 'flights' would be lost (flights[1] 10), and 0 are accepted" in shown
    assert ("|---" in shown) is (style == MARKDOWN)


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_new_removed_and_lost_partitions_are_distinguished(style: str) -> None:
    new = plan_report(plan_restart(at(40, 60), running(live((0, 100), (0, 100), (0, 5)), at(40, 60))), style)
    gone = plan_report(plan_restart(at(40, 60), running(live((0, 100)), at(40, 60))), style)
    known = (KnownPosition("snapshot s", at(None, 60), exact=True),)
    half = untracked(live((0, 100), (0, 100)), at(40), store="zookeeper_old", known=known)
    lost = plan_report(plan_restart(at(40), half), style)

    def has(text: str, word: str) -> bool:
        return any(word in line.replace("|", " ").split()[4:6] for line in text.splitlines() if "flights" in line)

    assert (has(new, "new"), has(new, "gone")) == (True, False)
    assert (has(gone, "new"), has(gone, "gone")) == (False, True)
    assert (has(lost, "new"), has(lost, "lost")) == (False, True)
    assert "known at 60 by snapshot s" in lost


def test_what_was_wanted_has_a_column_where_it_is_not_what_comes() -> None:
    truncated = running(live((30, 100), (0, 100)), at(40, 60))

    assert "wanted" not in plan_report(plan_restart(at(40, 60), truncated)).splitlines()[2]
    [row] = [line for line in plan_report(plan_restart(at(11, 60), truncated)).splitlines() if " 11 " in line]
    assert row.split()[:7] == ["flights", "0", "30", "100", "40", "11", "30"]


def test_a_plan_never_calls_a_log_whole() -> None:
    """A log without a sign of truncation is reported as unknown."""
    shown = plan_report(plan_restart(at(40, 60), running(live((0, 100), (0, 100)), at(40, 60))))

    assert "Truncation: unknown." in shown


def test_the_json_of_a_plan_holds_all_that_its_fields_hold() -> None:
    there = running(live((0, 12_000), (50, 100), topic_id="id-9"), at(10_000, 40, 7))
    plan = plan_restart(at(9_000, 40), there, selector="offsets:…")

    given = plan_json(plan)

    assert json.loads(json.dumps(given)) == given
    left_out = {field.name for field in fields(RestartPlan)} - set(given)
    assert left_out == {"kept", "accounts_for"}, "what a write expects, and its tokens, are for the submit alone"
    assert set(given["rows"][0]) >= {field.name for field in fields(PartitionPlan)}
    assert [row["wanted"] for row in given["rows"]] == [9_000, 40]
    assert all(row["recreated"] for row in given["rows"])
    assert given["gone"] == {"flights": {"2": 7}}
    assert [problem["kind"] for problem in given["problems"]] == ["topic recreated", "partitions gone", "loss"]


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_an_audit_shows_what_was_read_and_every_jump(style: str, lab: Lab) -> None:
    steps.rest(lab)
    steps.submit(lab, steps.apply(lab, "shift:-30", "second"), "second")
    lab.tick()

    shown = audit_report(audit_history(lab.session("look")), style)

    assert "Audit of delay_alerts: 2 batches, 260 records read." in shown
    assert "announced by second" in shown
    assert shown.endswith("lost=0 replayed=60 skipped=0 unexplained=0 replayed_at_most=0")
    assert ("|---" in shown) is (style == MARKDOWN)


def test_an_audit_says_how_much_of_it_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_offsets.core.audit.report.LISTED", 1)
    holes = [Batch(at(number * 10 + 9), number, number, "query", 1, at(number * 10)) for number in range(4)]

    found = audit("flights", holes, [epoch(at(0))])

    assert "2 more places are counted, but not listed." in audit_report(found)
    given = audit_json(found)
    assert json.loads(json.dumps(given)) == given
    assert (given["lost"], given["unexplained"], given["unexplained_places"], given["unlisted"]) == (3, 3, 3, 2)
    assert len(given["discontinuities"]) == 1


def test_an_audit_says_what_spark_counted_and_which_batches_wrote_nothing() -> None:
    found = audit("flights", [], [])
    warned = replace(found, rows_written=1_200, uncounted_batches=3, warnings=("epoch 3: 2 batches read records",))

    assert "counted" not in audit_report(found)
    assert "Spark counted 1,200 rows written; batches without a count: 3.\n\nWARNING – epoch 3: 2" in audit_report(
        warned
    )
    assert audit_json(warned)["warnings"] == ["epoch 3: 2 batches read records"]


def test_a_whole_history_says_so(lab: Lab) -> None:
    steps.start(lab)

    assert "nothing was lost, skipped or replayed" in audit_report(audit_history(lab.session("look")))


@pytest.mark.parametrize("style", [TEXT, MARKDOWN])
def test_a_comparison_shows_every_store_whether_they_agree_and_why(style: str) -> None:
    kept = (
        KeptPosition("hbase_default", "hbase", at(12_000, 90), at(1_000, 90)),
        KeptPosition("kafka_default", "kafka", at(1_000, 90), expires="expires in 7 days"),
        KeptPosition("zookeeper", "zookeeper", at(12_000)),
    )

    shown = comparison_report(compare_stores(seen(live((0, 1)), kept=kept)), style)

    assert shown.startswith("Stores of flights-pipeline, stopped: 0 agree, 1 expected lag, 1 conflict.")
    for word in ("hbase_default (authoritative)", "12,000", "one batch behind", "zookeeper does not name it", "–"):
        assert word in shown
    assert "- kafka_default: expires in 7 days" in shown
    assert ("|---" in shown) is (style == MARKDOWN)


def test_a_comparison_of_nothing_says_so() -> None:
    kept = (KeptPosition("history", "history", None),)

    assert "No store has a position." in comparison_report(compare_stores(seen(live((0, 1)), kept=kept)))


def test_a_transfer_shows_what_comes_what_is_there_and_what_speaks_against_it() -> None:
    shown = transfer_report(plan_transfer("g", at(50, 2_000), at(60)))

    assert shown.startswith("Group g: 2 of 2 partition(s) to write.")
    assert "Total: 10 to replay, 2,000 to skip" in shown
    assert "- PROBLEM – skip: 2000 offsets of 'flights' would be skipped" in shown


def test_an_end_by_statement_warns_of_what_a_driver_that_lives_may_do() -> None:
    tracked = end_report(Ending("orders", 3, "pid 1 on worker-2", tracked=True))
    untracked = end_report(
        Ending("orders", 3, "pid 1 on worker-2", tracked=False, left_on_yarn="unknown: YARN gave no answer")
    )

    assert "may write its batch in parallel" in tracked
    assert "It is fenced when it next starts or records a batch." in tracked
    assert "nothing fences it" in untracked
    assert "Its application cannot be observed either: unknown: YARN gave no answer." in untracked
    for shown in (tracked, untracked):
        assert "WARNING – Verify on its machine that the driver does not run." in shown
        assert "Nothing was changed: this is a dry run." in shown


def test_an_end_that_was_cut_off_is_finished_by_apply() -> None:
    cut_off = Ending(
        "orders", 3, "pid 1 on worker-2", tracked=True, ended=Ended(EndedHow.DIED, 1, message="it is gone")
    )

    assert end_report(cut_off).splitlines() == [
        "Epoch 3 of 'orders' has ended: died, it is gone.",
        "Its last batch is not reconciled yet. --apply reconciles it.",
    ]
