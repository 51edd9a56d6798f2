"""The functions behind ``airflow offsets snapshots``."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.utils.cli import suppress_logs_and_warning

from airflow_provider_offsets import clock
from airflow_provider_offsets.cli import naming
from airflow_provider_offsets.cli.ending import REFUSED, command, end, show, style_of
from airflow_provider_offsets.connections import open_session
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.pruning import Prunable
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.hooks.offsets import OffsetsHook
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.reports import prune_report, snapshots_report


@suppress_logs_and_warning
def list_snapshots(args: Namespace) -> None:
    """Run ``airflow offsets snapshots list``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with _control(pipeline) as control:
            found = sorted(control.snapshots(), key=lambda each: (each.taken_ms, each.id))
        show(args.output, [_as_data(each) for each in found], snapshots_report(found, style_of(args.output)))


@suppress_logs_and_warning
def take_snapshot(args: Namespace) -> None:
    """Run ``airflow offsets snapshots take``."""
    with command(args):
        with open_session(naming.pipeline(args), naming.operation("snapshots take")) as session:
            taken = session.take_snapshot(
                "by-hand", reason=args.reason or "", taken_at=clock.now_text(), label=args.label or ""
            )
        show(args.output, _as_data(taken), snapshots_report([taken], style_of(args.output)))


@suppress_logs_and_warning
def prune_snapshots(args: Namespace) -> None:
    """Run ``airflow offsets snapshots prune``."""
    with command(args):
        pipeline = naming.pipeline(args)
        with _control(pipeline) as control:
            named = [control.named_snapshot(each).id for each in args.snapshots or ()]
            found = find_prunable(control, pipeline, at_ms=clock.now_ms(), named=named)
            gone = remove(control, pipeline, found) if args.apply else Prunable(retained=found.retained)
        data = {"found": codec.plain(found), "removed": codec.plain(gone), "applied": args.apply}
        show(args.output, data, prune_report(found, gone if args.apply else None))
        if args.apply and len(gone.retained) > len(found.retained):
            end(REFUSED, f"{len(gone.retained) - len(found.retained)} could not be removed")


def _as_data(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "label": snapshot.label,
        "taken_at": snapshot.taken_at,
        "operation": snapshot.operation,
        "moment": snapshot.moment,
        "reason": snapshot.reason,
        "epoch": snapshot.seen.epoch_number,
        "position": snapshot.position.to_plain(),
        "cluster_id": snapshot.seen.live.cluster_id,
    }


@contextmanager
def _control(pipeline: StreamingPipeline) -> Iterator[Control]:
    with contextlib.closing(OffsetsHook(pipeline.store_conn_id).get_conn()) as store:
        yield Control(store, pipeline.name)
