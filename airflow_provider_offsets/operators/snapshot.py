"""The operator that takes a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.restart.comparison import Agreement, compare_stores
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import stores_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class SnapshotOffsetsOperator(PipelineOperator):
    """Operator that stores the position of the pipeline with its context, and returns the snapshot's id.

    This operator commits nothing and joins no consumer group. A repeated run returns the snapshot that already exists.

    :param pipeline: the pipeline.
    :param moment: distinguishes the snapshots of one operation, such as ``before``. The audit of an untracked job
        relies on the snapshot ``stopped``.
    :param snapshot_label: name for people, as in ``snapshot:<label>``. It must be unique among the pipeline's
        snapshots.
    """

    template_fields: Sequence[str] = (*PipelineOperator.template_fields, "snapshot_label")

    def __init__(
        self, *, pipeline: StreamingPipeline, moment: str = "snapshot", snapshot_label: str = "", **kwargs: Any
    ) -> None:
        super().__init__(pipeline=pipeline, **kwargs)
        self.moment = moment
        self.snapshot_label = snapshot_label

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Take the snapshot, or return the one that this operation has already taken at this moment.

        :returns: ``id``, ``label``, ``position``, ``epoch``, ``committed_batch_id``, the ranges ``in_flight``,
            ``cluster_id``, and ``stores``: per verdict the number of partitions on which the stores agree or differ.
        :raises InputRefused: the label is taken or malformed.
        :raises StateChanged: the lease or the phase of the pipeline changed during each try to read everything.
        """
        snapshot = session.take_snapshot(
            self.moment, reason=self.reason or "", taken_at=clock.now_text(), label=self.snapshot_label
        )
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
            "stores": {agreement.value: comparison.count(agreement) for agreement in Agreement},
        }
