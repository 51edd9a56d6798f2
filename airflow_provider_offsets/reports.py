"""Reports of plans, audits and stores for people: text tables for task logs, Markdown for Airflow's UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.preflight import Finding
from airflow_provider_offsets.core.pruning import Prunable
from airflow_provider_offsets.core.replay.audit import BackfillTotal, ReplayAudit
from airflow_provider_offsets.core.replay.model import ReplayPlan
from airflow_provider_offsets.core.restart.comparison import Agreement, Comparison
from airflow_provider_offsets.core.restart.model import RestartPlan
from airflow_provider_offsets.core.sink.audit import SinkReport
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.core.transfer import Transfer
from airflow_provider_offsets.operations.ending import Ending

TEXT, MARKDOWN = "simple", "github"
PLAN_HEADERS = ("topic", "partition", "begin", "end", "stored", "start", "replay", "skip", "lost", "reason")
NUMBERS = {"begin", "end", "stored", "wanted", "start", "replay", "skip", "lost"}
WANTED = "wanted"
"""Additional column, shown if a start differs from the requested one."""
TRUNCATION = {
    "seen": "Truncation: found; see the problems.",
    "unknown": "Truncation: unknown. No offset lies past an end and no leader epoch went back; a log that was"
    " truncated and has grown again would look the same.",
}
UNTRACKED = (
    "An untracked job, managed by its position in {authoritative}. Guaranteed: it starts exactly here, new partitions"
    " at 0; this provider launches it once at a time; nothing is lost. Not guaranteed: a copy that is started by hand"
    " is not fenced; a stop may cut off a batch, which is then replayed; the audit compares epochs, not batches."
)
BY_EPOCHS = (
    "Audited by epochs and the snapshots of the stopped job. An untracked job keeps no history, so neither its batches"
    " nor the interval of a backfill can be audited."
)
VERIFY = (
    "WARNING – Verify on its machine that the driver does not run. If its machine is gone, verify that the machine"
    " cannot come back."
)
TRACKED_LIVES = (
    "A driver that is still running may write its batch in parallel with the next job. It is fenced when it next starts"
    " or records a batch."
)
UNTRACKED_LIVES = "A driver that is still running reads and writes in parallel with the next job: nothing fences it."
NOTHING_FOUND = "Every batch begins at the end of the previous one: nothing was lost, skipped or replayed."
SINK_HEADERS = ("kind", "what", "where", "records read", "rows", "explanation")
AUDIT_HEADERS = ("kind", "topic", "partition", "from", "to", "count", "epoch", "explanation")


def plan_report(plan: RestartPlan, style: str = TEXT) -> str:
    """Return the report of a restart plan: its partitions, totals and problems.

    :param plan: the plan.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    also = [
        f"{plan.replay_at_most:,} more at most, of a batch that was cut off" if plan.replay_at_most else "",
        f"{plan.unreplayable:,} requested for replay, but deleted" if plan.unreplayable else "",
        f"upper bounds for {', '.join(plan.upper_bounds)}" if plan.upper_bounds else "",
    ]
    lines = [
        f"Plan {plan.fingerprint} of {plan.pipeline}: start {plan.selector or 'as given'}, {plan.form.value}"
        f" ({plan.form_reason}).",
        *([UNTRACKED.format(authoritative=plan.authoritative)] if plan.authoritative else []),
        _plan_table(plan, style),
        "; ".join(
            [f"Total: {plan.replay:,} to replay, {plan.skipped:,} to skip, {plan.lost:,} lost", *filter(None, also)]
        ),
        *([f"Runway: {plan.runway.summary}."] if plan.runway is not None else []),
        TRUNCATION[plan.truncation],
        *(f"- {note}" for note in plan.notes),
        *(f"- PROBLEM – {problem}" for problem in plan.problems),
    ]
    return "\n\n".join(lines)


def plan_json(plan: RestartPlan) -> dict[str, Any]:
    """Return the tables of the plan and further details as JSON values; see docs/plan.md."""
    ways = {} if plan.runway is None else {(each.topic, each.partition): each for each in plan.runway.partitions}
    rows = []
    for row in plan.rows:
        way = ways.get((row.topic, row.partition))
        rows.append(
            {
                **codec.plain(row),
                "new": row.is_new,
                "upper_bounds": row.topic in plan.upper_bounds,
                "runway_s": None if way is None else way.seconds,
                "runway_kind": None if way is None else way.kind.value,
            }
        )
    runway = None if plan.runway is None else {**codec.plain(plan.runway), "summary": plan.runway.summary}
    return {
        "pipeline": plan.pipeline,
        "selector": plan.selector,
        "fingerprint": plan.fingerprint,
        "form": plan.form.value,
        "form_reason": plan.form_reason,
        "authoritative": plan.authoritative,
        "start": plan.start.to_plain(),
        "replay": plan.replay,
        "replay_at_most": plan.replay_at_most,
        "skipped": plan.skipped,
        "lost": plan.lost,
        "unreplayable": plan.unreplayable,
        "upper_bounds": list(plan.upper_bounds),
        "truncation": plan.truncation,
        "rows": rows,
        "gone": plan.gone.to_plain(),
        "announced": codec.plain(plan.announced),
        "runway": runway,
        "notes": list(plan.notes),
        "problems": codec.plain(plan.problems),
        "seen": codec.plain(plan.seen),
        "last_batch_id": plan.last_batch_id,
        "query_id": plan.query_id,
    }


def _plan_table(plan: RestartPlan, style: str) -> str:
    """Return the table of a plan.

    A word may replace an offset. *new*: the partition was never read. *lost*: its stored offset is gone.
    *gone*: the topic no longer has the partition.
    """
    rows: list[tuple[Any, ...]] = [
        (
            row.topic,
            row.partition,
            row.begin,
            row.end,
            "new" if row.is_new else "lost" if row.known is not None else f"{row.stored:,}",
            "–" if row.wanted is None else f"{row.wanted:,}",
            row.start,
            row.replay,
            row.skipped,
            row.lost,
            row.why,
        )
        for row in plan.rows
    ]
    rows += [
        (each.topic, each.partition, "–", "–", f"{offset:,}", "–", "gone", "–", "–", "–", "the topic does not have it")
        for each, offset in plan.gone.items()
    ]
    at = PLAN_HEADERS.index("start")
    headers = (*PLAN_HEADERS[:at], WANTED, *PLAN_HEADERS[at:])
    if all(row.wanted in (None, row.start) for row in plan.rows):
        headers, rows = PLAN_HEADERS, [(*row[:at], *row[at + 1 :]) for row in rows]
    # Text among numbers would make tabulate align the whole column to the left.
    sides = ["right" if header in NUMBERS else "global" for header in headers]
    return str(tabulate(rows, headers, tablefmt=style, intfmt=",", colalign=sides))


def audit_report(report: AuditReport, style: str = TEXT) -> str:
    """Return the report of an audit: what each partition read, and each place where its ranges are not contiguous.

    :param report: the audit.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    partitions = [(each.topic, each.partition, each.start, each.end, each.batches) for each in report.partitions]
    found = [
        (
            each.kind.value,
            each.range.topic,
            each.range.partition,
            each.range.start,
            each.range.end,
            each.range.count,
            each.epoch,
            each.explanation or ": ".join(filter(None, ("UNEXPLAINED", each.clue))),
        )
        for each in report.discontinuities
    ]
    counted = f"{report.batches:,} {'epochs' if report.by_epochs else 'batches'}"
    lines = [
        f"Audit of {report.pipeline}: {counted}, {report.records:,} records read.",
        *([BY_EPOCHS] if report.by_epochs else []),
        _table(("topic", "partition", "from", "to", "batches"), partitions, style),
        _table(AUDIT_HEADERS, found, style) if found else NOTHING_FOUND,
        *([f"{report.unlisted:,} more places are counted, but not listed."] if report.unlisted else []),
        *_rows_lines(report),
        f"lost={report.lost} replayed={report.replayed} skipped={report.skipped}"
        f" unexplained={report.unexplained_count} replayed_at_most={report.replayed_at_most}",
    ]
    return "\n\n".join(lines)


def preflight_report(findings: Sequence[Finding], style: str = TEXT) -> str:
    """Return one line for each question of a preflight.

    :param findings: the findings.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [(each.outcome.value, each.subject, each.seen, each.do) for each in findings]
    return str(tabulate(rows, ("result", "subject", "found", "what to do"), tablefmt=style))


def sink_report(report: SinkReport, style: str = TEXT) -> str:
    """Return what the sink's own metadata shows about the batches of the history.

    :param report: the comparison of the history with the sink.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (
            each.kind.value,
            each.what,
            each.place or "–",
            _or_dash(each.records),
            _or_dash(each.rows),
            "a run that was cut off" if each.is_explained else "UNEXPLAINED",
        )
        for each in report.findings
    ]
    written = "an unknown number of" if report.rows is None else f"{report.rows:,}"
    others = f" {report.others:,} writes are of others." if report.others else ""
    lines = [
        f"Sink {report.sink}: {report.verdict.value}." if report.sink else f"Sink {report.verdict.value}.",
        *(f"- {reason}" for reason in report.reasons),
        *([f"Proven from {report.since} on; {report.unproven:,} batches before it are not."] if report.since else []),
        *(
            [
                f"{report.batches:,} batches are in the history and in the sink: {report.records:,} records read,"
                f" {written} rows written.{others}"
            ]
            if report.batches or report.others
            else []
        ),
        *([_table(SINK_HEADERS, rows, style)] if rows else []),
        f"sink={report.verdict.value.replace(' ', '-')} batches={report.batches} output_lost={report.lost}"
        f" not_recorded={report.not_recorded} twice={report.twice} cut_off={report.cut_off}"
        f" removals={report.removals} unproven={report.unproven}",
    ]
    return "\n\n".join(lines)


def _rows_lines(report: AuditReport) -> list[str]:
    uncounted = f"; batches without a count: {report.uncounted_batches:,}" if report.uncounted_batches else ""
    counted = [] if report.rows_written is None else [f"Spark counted {report.rows_written:,} rows written{uncounted}."]
    return counted + [f"WARNING – {each}." for each in report.warnings]


def audit_json(report: AuditReport) -> dict[str, Any]:
    """Return everything in the tables of the audit as JSON values; see docs/cli.md."""
    return {
        **{key: value for key, value in codec.plain(report).items() if not key.startswith("unexplained")},
        "unexplained": report.unexplained_count,
        "unexplained_places": report.unexplained_places,
        "discontinuities": [
            {**codec.plain(each), "count": each.range.count, "explained": each.is_explained}
            for each in report.discontinuities
        ],
    }


def stores_report(comparison: Comparison) -> str:
    """Return the comparison if stores differ, or one line if they agree, for the log of another operation."""
    if comparison.count(Agreement.AGREE) < len(comparison.rows):
        return comparison_report(comparison)
    return "\n".join(
        [
            f"{len(comparison.rows):,} partitions agree in {', '.join(comparison.stores)};"
            f" {comparison.authoritative} is authoritative.",
            *comparison.expiring,
        ]
    )


def comparison_report(comparison: Comparison, style: str = TEXT) -> str:
    """Return each store's offset per partition, whether they agree and why; the authoritative store comes first.

    :param comparison: the comparison of a pipeline's stores.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (row.topic, row.partition, *map(_or_dash, row.offsets), row.agreement.value, row.why) for row in comparison.rows
    ]
    stores = (f"{comparison.authoritative} (authoritative)", *comparison.stores[1:])
    counts = ", ".join(f"{comparison.count(agreement):,} {agreement.value}" for agreement in Agreement)
    lines = [
        f"Stores of {comparison.pipeline}, {'which runs' if comparison.running else 'stopped'}: {counts}.",
        _table(("topic", "partition", *stores, "agreement", "why"), rows, style)
        if rows
        else "No store has a position.",
        *(f"- {sentence}" for sentence in comparison.expiring),
    ]
    return "\n\n".join(lines)


def transfer_report(transfer: Transfer, style: str = TEXT) -> str:
    """Return what a copy or an import writes, partition by partition, and its problems.

    :param transfer: the planned copy or import of one group.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (row.topic, row.partition, *map(_or_dash, (row.brought, row.now, row.after)), row.replay, row.skipped)
        for row in transfer.rows
    ]
    lines = [
        f"Group {transfer.group_id}: {transfer.changed:,} of {len(rows):,} partition(s) to write.",
        _table(("topic", "partition", "source", "target", "after", "replay", "skip"), rows, style),
        f"Total: {transfer.replay:,} to replay, {transfer.skipped:,} to skip, compared with the target",
        *(f"- PROBLEM – {problem}" for problem in transfer.problems),
    ]
    return "\n\n".join(lines)


def rename_report(old: str, new: str, epoch: int, cells: int, done: bool) -> str:
    """Return what a rename would do, or has done.

    :param old: name of the pipeline before the rename.
    :param new: name of the pipeline after the rename.
    :param epoch: number of the newest launch of the pipeline.
    :param cells: number of control records that are copied.
    :param done: whether the rename was applied.
    """
    if done:
        return f"The pipeline {old!r} is {new!r} now, with {cells:,} control cells, up to epoch {epoch}."
    return (
        f"The pipeline {old!r} would become {new!r}, with {cells:,} control cells, up to epoch {epoch}.\n"
        "Nothing was changed: this is a dry run. --apply renames it."
    )


def release_report(owner: str, new: str, released: Sequence[str], done: bool) -> str:
    """Return what a release would take from a pipeline, or has taken.

    :param owner: name of the pipeline that owns it.
    :param new: name of the pipeline that uses it now.
    :param released: the resources.
    :param done: whether they were released.
    """
    if not released:
        return f"The pipeline {owner!r} owns nothing that {new!r} uses."
    lines = [
        f"The pipeline {owner!r} {'has released' if done else 'would release'}:",
        *(f"- {each}" for each in released),
    ]
    return "\n".join(lines if done else [*lines, "Nothing was changed: this is a dry run. --apply releases it."])


def end_report(ending: Ending) -> str:
    """Return what the end of an epoch by a person's statement would do, or has done.

    :param ending: what ``plan_end`` or ``end_epoch`` returned.
    """
    epoch = f"Epoch {ending.epoch} of {ending.pipeline!r}"
    if ending.ended is not None:
        ended = f"{epoch} has ended: {ending.ended.how.value}, {ending.ended.message or 'by its driver'}."
        return ended if ending.done else f"{ended}\nIts last batch is not reconciled yet. --apply reconciles it."
    lines = [
        f"{epoch} would be closed. Its driver, {ending.driver}, cannot be observed from here.",
        *([f"Its application cannot be observed either: {ending.left_on_yarn}."] if ending.left_on_yarn else []),
        VERIFY,
        TRACKED_LIVES if ending.tracked else UNTRACKED_LIVES,
        "Nothing was changed: this is a dry run. --apply states that the driver does not run, and closes the epoch.",
    ]
    return "\n".join(lines)


def snapshots_report(snapshots: Sequence[Snapshot], style: str = TEXT) -> str:
    """Return the table of a pipeline's snapshots.

    :param snapshots: one row each, in this order.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (
            each.taken_at,
            each.label or "–",
            each.seen.epoch_number,
            len(each.position),
            sum(each.position.values()),
            each.reason or "–",
            each.id,
        )
        for each in snapshots
    ]
    headers = ("taken at", "label", "epoch", "partitions", "offsets", "reason", "id")
    return _table(headers, rows, style) if rows else "There is no snapshot."


def prune_report(found: Prunable, gone: Prunable | None) -> str:
    """Return one line per prunable item, and whether it was removed.

    :param found: what the policy does not retain.
    :param gone: what was removed; None in a dry run.
    """
    lines = []
    for kind in ("snapshots", "checkpoints", "versions"):
        removed = getattr(gone or Prunable(), kind)
        for each in getattr(found, kind):
            word = "would be removed" if gone is None else "removed" if each in removed else "NOT removed"
            lines.append(f"{kind.removesuffix('s')} {each}: {word}")
    lines += [f"retained: {each}" for each in (gone or found).retained]
    if not lines:
        lines = ["Nothing to prune."]
    if gone is None:
        lines.append("Nothing was removed: this is a dry run. --apply removes it.")
    return "\n".join(lines)


def replay_plan_report(plan: ReplayPlan, style: str = TEXT) -> str:
    """Return what a replay reads: its partitions, the number of its shards, and its problems.

    :param plan: the replay plan.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (*key, plan.begin[key], end, end - plan.begin[key]) for key, end in plan.end.items() if end > plan.begin[key]
    ]
    counted = "records" if plan.is_exact else f"records at most (upper bounds for {', '.join(plan.upper_bounds)})"
    lines = [
        f"Replay of {plan.pipeline}, {plan.interval}, attempt {plan.attempt}: run id {plan.run_id}.",
        f"Program: {plan.application}, version {plan.application_version[:12]}.",
        _table(("topic", "partition", "from", "to", "count"), rows, style) if rows else "Nothing in any partition.",
        f"Total: {plan.records_expected:,} {counted}, in {len(plan.shards):,} shards",
        *(f"- {note}" for note in plan.notes),
        *(f"- PROBLEM – {problem}" for problem in plan.problems),
    ]
    return "\n\n".join(lines)


def replay_audit_report(audit: ReplayAudit, style: str = TEXT) -> str:
    """Return what was replayed of an interval, and the findings.

    :param audit: the audit of one interval.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [(each.topic, each.partition, each.closed_at) for each in audit.open_boundaries]
    bound = f" at most (upper bounds for {', '.join(audit.upper_bounds)})" if audit.upper_bounds else ""
    lines = [
        f"Replay {audit.run_id} of {audit.interval}: {audit.records_read:,} records read, {audit.records_expected:,}"
        f" expected{bound}; {audit.shards_done:,} of {audit.shards:,} shards.",
        *(
            [
                "Closed at the end of the log. Records that are written there later belong to the next interval:",
                _open_table(rows, style),
            ]
            if rows
            else []
        ),
        *(
            [f"Counted by an additional read, because the program read fewer records: shards {audit.counted_apart}."]
            if audit.counted_apart
            else []
        ),
        *(
            [f"Called again after a try that was cut off, and may have written a part: shards {audit.cut_off}."]
            if audit.cut_off
            else []
        ),
        *([] if audit.rows_written is None else [f"Spark counted {audit.rows_written:,} rows written."]),
        *(f"- WARNING – {warning}." for warning in audit.warnings),
        *(f"- Replayed twice: {each}." for each in audit.also_replayed),
        *(f"- {finding}" for finding in audit.findings),
    ]
    return "\n\n".join(lines)


def backfill_report(audits: Mapping[str, ReplayAudit], total: BackfillTotal, style: str = TEXT) -> str:
    """Return the progress of a pipeline's replays, run by run.

    :param audits: the audit of each run, by run.
    :param total: the counts over all runs.
    :param style: table format of tabulate: ``TEXT``, ``MARKDOWN`` or ``plain``.
    """
    rows = [
        (
            str(each.interval),
            run,
            each.run_id.rpartition("#")[2],
            f"{each.shards_done:,} of {each.shards:,}",
            each.records_read,
            each.records_expected,
            "done" if each.is_clean else "incomplete",
        )
        for run, each in sorted(audits.items(), key=lambda item: (item[1].interval.start_ms, item[0]))
    ]
    headers = ("interval", "run", "attempt", "shards", "read", "expected", "state")
    return f"{_table(headers, rows, style)}\n\nTotal: {total}" if rows else "No replay was planned."


def _open_table(rows: Sequence[Sequence[Any]], style: str) -> str:
    return _table(("topic", "partition", "closed at"), rows, style)


def _or_dash(offset: int | None) -> int | str:
    return "–" if offset is None else offset


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]], style: str) -> str:
    return tabulate(rows, headers, tablefmt=style, intfmt=",")
