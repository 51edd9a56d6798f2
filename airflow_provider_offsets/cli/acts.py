"""The functions behind the commands. Each opens what it needs, calls one operation, prints the result, and closes."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from airflow.utils.cli import suppress_logs_and_warning

from airflow_provider_offsets.cli import naming
from airflow_provider_offsets.cli.ending import REFUSED, command, end, note, show, style_of
from airflow_provider_offsets.connections import ledger_reader, open_session, preflight_probes
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Operation
from airflow_provider_offsets.core.interchange import GroupPosition, read_positions, to_csv, to_json
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.preflight import problems_in
from airflow_provider_offsets.core.replay.audit import total_of
from airflow_provider_offsets.core.restart.accepted import read_seconds
from airflow_provider_offsets.core.restart.comparison import Comparison, compare_stores
from airflow_provider_offsets.core.sink.audit import SinkReport, SinkVerdict, unread_sink
from airflow_provider_offsets.core.transfer import Transfer, plan_transfer
from airflow_provider_offsets.errors import InputRefused, PlanRefused
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.backfilling import replay_audits
from airflow_provider_offsets.operations.ending import end_epoch, plan_end
from airflow_provider_offsets.operations.planning import draft_plan
from airflow_provider_offsets.operations.preflight import run_preflight
from airflow_provider_offsets.operations.renaming import plan_release, plan_rename, release, rename
from airflow_provider_offsets.operations.sink_auditing import audit_sink
from airflow_provider_offsets.operations.transferring import check_write, finish_interrupted, read_position, writable
from airflow_provider_offsets.reports import (
    audit_json,
    audit_report,
    backfill_report,
    comparison_report,
    end_report,
    plan_json,
    plan_report,
    preflight_report,
    release_report,
    rename_report,
    sink_report,
    transfer_report,
)

CONFLICT = "stores contradict each other"


@suppress_logs_and_warning
def backfill_offsets(args: Namespace) -> None:
    """Run ``airflow offsets backfill``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with naming.store_of(pipeline) as store:
            audits = replay_audits(ReplayControl(store, pipeline.name))
        total = total_of(audits.values())
        data = {"runs": {run: codec.plain(each) for run, each in audits.items()}, "total": codec.plain(total)}
        show(args.output, data, backfill_report(audits, total, style_of(args.output)))


@suppress_logs_and_warning
def compare_offsets(args: Namespace) -> None:
    """Run ``airflow offsets compare``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with open_session(pipeline, "airflow offsets compare") as session:
            earlier, seen = None, session.observe()
            if seen.is_running:
                earlier, seen = seen, session.observe()
        is_same_run = earlier is not None and earlier.epoch_number == seen.epoch_number
        comparison = compare_stores(seen, earlier if is_same_run else None)
        show(args.output, _comparison(comparison), comparison_report(comparison, style_of(args.output)))
        if comparison.conflicts:
            end(REFUSED, CONFLICT)


@suppress_logs_and_warning
def plan_offsets(args: Namespace) -> None:
    """Run ``airflow offsets plan``."""
    with command(args):
        pipeline = naming.pipeline(args)
        window_s = read_seconds(args.window_s, "--window-s")
        lost = naming.counts(args.accept_lost, "--accept-lost")
        policy = pipeline.policy.accepting(lost, naming.counts(args.accept_skipped))
        start = pipeline.start if args.start is None else args.start
        with open_session(pipeline, "airflow offsets plan") as session:
            plan, _ = draft_plan(session, start, policy, window_s=window_s)
        show(args.output, plan_json(plan), plan_report(plan, style_of(args.output)))
        if plan.problems:
            end(REFUSED, f"{len(plan.problems)} problem(s)")


@suppress_logs_and_warning
def preflight_offsets(args: Namespace) -> None:
    """Run ``airflow offsets preflight``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with open_session(pipeline, "airflow offsets preflight") as session:
            session.control.open_operation(Operation(session.operation, "preflight", ""))
            findings = run_preflight(session, preflight_probes(pipeline), report=note)
        show(args.output, codec.plain(findings), preflight_report(findings, style_of(args.output)))
        if problems := problems_in(findings):
            end(REFUSED, f"{len(problems)} problem(s)")


@suppress_logs_and_warning
def audit_offsets(args: Namespace) -> None:
    """Run ``airflow offsets audit``."""
    with command(args):
        pipeline, window = naming.pipeline(args), naming.window(args)
        if args.sink and (args.since or args.until):
            raise InputRefused(
                seen="--sink was given together with --since or --until",
                expected="one of them, because the sink is compared with the whole history",
                do="omit --since and --until, or --sink",
            )
        with open_session(pipeline, "airflow offsets audit") as session:
            report = audit_history(session, window)
            sink = audit_sink(session, ledger_reader(pipeline)) if args.sink else _unread(pipeline)
        style = style_of(args.output)
        data = {**audit_json(report), "sink": codec.plain(sink)}
        show(args.output, data, f"{audit_report(report, style)}\n\n{sink_report(sink, style)}")
        if report.unexplained_places:
            places = f"{report.unexplained_places:,} place(s)"
            end(REFUSED, f"{report.unexplained_count:,} offsets in {places} without an explanation")
        if args.sink and sink.verdict is not SinkVerdict.PROVEN:
            end(REFUSED, f"the sink is {sink.verdict.value}")


@suppress_logs_and_warning
def copy_offsets(args: Namespace) -> None:
    """Run ``airflow offsets copy``."""
    with command(args):
        stream = naming.stream(args)
        written = Stream(args.to_group or stream.group_id, stream.topics)
        accepted = naming.counts(args.accept_skipped)
        with naming.opened(args.source) as source:
            brought = GroupPosition(written.group_id, read_position(source, stream))
        _bring(args, "copy", [brought], accepted)


@suppress_logs_and_warning
def import_offsets(args: Namespace) -> None:
    """Run ``airflow offsets import``."""
    with command(args):
        given = sys.stdin.read() if args.input == "-" else _text_of(args.input)
        naming.require_visible(args.group, "--group")
        group = args.group or (naming.pipeline(args).group_id if args.pipeline else "")
        _bring(args, "import", read_positions(given, group_id=group), naming.counts(args.accept_skipped))


@suppress_logs_and_warning
def export_offsets(args: Namespace) -> None:
    """Run ``airflow offsets export``."""
    with command(args):
        topics = naming.stream(args, args.groups).topics
        groups = args.groups or [naming.pipeline(args).group_id]
        with naming.opened(args.source) as source:
            found = [GroupPosition(each, read_position(source, Stream(each, topics))) for each in groups]
        live = naming.live(args, topics)
        identity = None if live is None else live.identity
        named = [GroupPosition(each.group_id, each.position, identity, args.source) for each in found]
        print(to_csv(named) if args.output == "csv" else f"{to_json(named)}\n", end="")


@suppress_logs_and_warning
def rename_offsets(args: Namespace) -> None:
    """Run ``airflow offsets rename``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with open_session(pipeline, f"airflow offsets rename {args.old} {pipeline.name}") as session:
            found = (
                rename(session, args.old, take_over=args.take_over) if args.apply else plan_rename(session, args.old)
            )
        show(args.output, codec.plain(found), rename_report(found.old, found.new, found.epoch, found.cells, found.done))


@suppress_logs_and_warning
def release_offsets(args: Namespace) -> None:
    """Run ``airflow offsets release``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with open_session(pipeline, f"airflow offsets release {args.old} {pipeline.name}") as session:
            found = (
                release(session, args.old, take_over=args.take_over) if args.apply else plan_release(session, args.old)
            )
        data = {"owner": args.old, "pipeline": pipeline.name, "released": list(found), "done": args.apply}
        show(args.output, data, release_report(args.old, pipeline.name, found, args.apply))


@suppress_logs_and_warning
def end_offsets(args: Namespace) -> None:
    """Run ``airflow offsets end``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with open_session(pipeline, f"airflow offsets end {pipeline.name} --epoch {args.epoch}") as session:
            found = (
                end_epoch(session, args.epoch, reason=args.reason or "", take_over=args.take_over)
                if args.apply
                else plan_end(session, args.epoch)
            )
        show(args.output, codec.plain(found), end_report(found))


def _unread(pipeline: StreamingPipeline) -> SinkReport:
    if pipeline.sink is None:
        return unread_sink("", "the pipeline names no sink")
    return unread_sink(str(pipeline.sink), "not read; --sink reads it")


def _bring(args: Namespace, command_name: str, groups: Sequence[GroupPosition], accepted: dict[str, int]) -> None:
    """Show what writing these positions to the target would change, then write one group after another if asked to."""
    topics = tuple(sorted({topic for each in groups for topic in each.position.topics}))
    live = naming.live(args, topics)
    done: list[str] = []
    with naming.opened(args.target) as target, ExitStack() as held:
        if args.apply:
            writable(target)
            write = held.enter_context(naming.stopped(args, command_name, [_stream_of(each) for each in groups]))
            finish_interrupted(target)
        planned = [
            plan_transfer(
                each.group_id,
                each.position,
                target.position(_stream_of(each)),
                accept_skipped=accepted,
                live=live,
                identity=each.identity,
            )
            for each in groups
        ]
        problems = [problem for each in planned for problem in each.problems]
        try:
            if args.apply:
                if problems:
                    raise PlanRefused(problems)
                for each, transfer in zip(groups, planned, strict=True):
                    write(target, _stream_of(each), transfer)
                    done.append(each.group_id)
            for each, transfer in () if args.apply else zip(groups, planned, strict=True):
                check_write(target, _stream_of(each), transfer)  # so that a dry run says what --apply would say
        finally:
            _show_transfers(args, planned, done)
    if problems:
        end(REFUSED, f"{len(problems)} problem(s)")


def _stream_of(group: GroupPosition) -> Stream:
    return Stream(group.group_id, group.position.topics)


def _show_transfers(args: Namespace, transfers: list[Transfer], done: list[str]) -> None:
    reports = [transfer_report(each, style_of(args.output)) for each in transfers]
    if args.apply:
        reports.append(f"Written: {', '.join(done) or 'nothing'}.")
    else:
        reports.append("Nothing was written: this is a dry run. --apply writes it.")
    data = [
        {
            "group_id": each.group_id,
            "written": each.group_id in done,
            "changed": each.changed,
            "replay": each.replay,
            "skipped": each.skipped,
            "rows": codec.plain(each.rows),
            "problems": [str(problem) for problem in each.problems],
        }
        for each in transfers
    ]
    show(args.output, data, "\n\n".join(reports))


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        **codec.plain(comparison),
        "authoritative": comparison.authoritative,
        "rows": [
            {**codec.plain(row), "offsets": dict(zip(comparison.stores, row.offsets, strict=True))}
            for row in comparison.rows
        ],
    }


def _text_of(file: str) -> str:
    try:
        return Path(file).read_bytes().decode()
    except (OSError, ValueError) as error:
        raise InputRefused(
            seen=f"{file} cannot be read: {error}",
            expected="a readable file in UTF-8",
            do="correct the name of the file",
        ) from error
