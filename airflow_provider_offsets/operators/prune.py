"""Remove what the pipeline's policy does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.operations.pruning import find_prunable, remove
from airflow_provider_offsets.operators.base import PipelineOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.world import World


class PruneOffsetsOperator(PipelineOperator):
    """Removes snapshots, old checkpoints and old versions of the program that the pipeline's ``keep`` does not keep.

    Without ``keep`` nothing is removed. The newest snapshot that a job can be started from always stays, and so do
    those with a label, the checkpoint and the version that run, and those before them. Run again, it goes on.
    """

    def act(self, world: World, context: Context) -> dict[str, Any]:
        """Return what was removed: ``snapshots``, ``checkpoints``, ``versions``; and what was ``retained``, and why."""
        found = find_prunable(world.control, self.pipeline, at_ms=clock.now_ms())
        done = remove(world.control, self.pipeline, found, say=self.log.info)
        for each in done.retained:
            self.log.warning("not removed: %s", each)
        self.log.info(
            "Removed %d snapshot(s), %d checkpoint(s), %d version(s)",
            len(done.snapshots),
            len(done.checkpoints),
            len(done.versions),
        )
        return dict(codec.plain(done))
