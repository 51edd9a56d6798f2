"""Take a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.compare import Verdict, compare_stores
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import stores_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World


class SnapshotOffsetsOperator(PipelineOperator):
    """Stores where the pipeline stands, with all that gives it a meaning, and gives the snapshot's id.

    Nothing is committed and no consumer group is joined. Run again, it gives the snapshot that it took.

    :param moment: tells the snapshots of one operation apart, such as ``before``. The one of ``at-rest``
        is what the audit of an untouched job goes by.
    :param snapshot_label: a name for people, as in ``snapshot:<label>``; no other snapshot of the pipeline may have it.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "snapshot_label")

    def __init__(self, *, moment: str = "snapshot", snapshot_label: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moment = moment
        self.snapshot_label = snapshot_label

    def act(self, world: World, context: Context) -> dict[str, Any]:
        """Return ``id``, ``label``, ``position``, ``epoch``, what was in flight, and on how many partitions the stores
        agree."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        snapshot = world.take_snapshot(self.moment, reason=self.reason or "", taken_at=now, label=self.snapshot_label)
        seen = snapshot.seen
        self.log.info("Snapshot %s, taken at %s: %s", snapshot.id, snapshot.taken_at, snapshot.position.to_json())
        comparison = compare_stores(seen)
        self.log.info("\n%s", stores_report(comparison))
        return {
            "id": snapshot.id,
            "label": snapshot.label,
            "position": snapshot.position.to_plain(),
            "epoch": seen.epoch_number,
            "committed_batch_id": None if seen.checkpoint is None else seen.checkpoint.committed_batch_id,
            "in_flight": codec.plain(seen.in_flight),
            "cluster_id": seen.live.cluster_id,
            "stores": {verdict.value: comparison.count(verdict) for verdict in Verdict},
        }
