"""The operator that removes what the pipeline's policy does not retain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class PruneOffsetsOperator(PipelineOperator):
    """Operator that removes snapshots, checkpoints and program versions which the pipeline's ``keep`` does not retain.

    Without ``keep`` nothing is removed. Always retained are the newest snapshot that a job can start from, snapshots
    with a label, and the running and previous checkpoint and version. A repeated run continues.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Remove the snapshots, checkpoints and program versions that ``keep`` does not retain.

        :returns: the removed ``snapshots``, ``checkpoints`` and ``versions``; and ``retained``: what the policy would
            not have retained, each with the reason.
        """
        found = find_prunable(session.control, self.pipeline, at_ms=clock.now_ms())
        done = remove(session.control, self.pipeline, found, report=self.log.info)
        for each in done.retained:
            self.log.warning("Not removed: %s", each)
        self.log.info(
            "Removed %d snapshot(s), %d checkpoint(s), %d version(s)",
            len(done.snapshots),
            len(done.checkpoints),
            len(done.versions),
        )
        return dict(codec.plain(done))
