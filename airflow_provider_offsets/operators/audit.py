"""The operator that audits a pipeline's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.errors import AuditFailed
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import MARKDOWN, audit_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class AuditOffsetsOperator(PipelineOperator):
    """Operator that verifies from the history that ranges are contiguous: nothing lost, every replay explained.

    Fails if records were lost, or if no operation announced a discontinuity. Fails too if the history has epochs but
    the pipeline has no record: the pipeline was renamed, or its control store was lost.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Audit the whole history of the pipeline.

        :returns: ``batches``; ``records``: offsets read, counted as often as they were read; the counts of offsets
            ``lost``, ``replayed``, ``replayed_at_most``, ``skipped`` and ``unexplained``; the ``discontinuities`` as
            JSON values; and ``markdown``.
        :raises AuditFailed: a discontinuity that no operation announced.
        :raises StateLost: the history has epochs and the pipeline has no record, or another pipeline owns the history.
        """
        report = audit_history(session)
        self.log.info("\n%s", audit_report(report))
        if report.unexplained_places:
            raise AuditFailed(
                seen=f"{report.unexplained_count} offsets in {report.unexplained_places} places without an"
                f" explanation; {report.lost} offsets are lost, including accepted ones:\n{audit_report(report)}\n",
                expected="ranges without gap or overlap, except where an operation announced one",
                do="compare the output with these ranges, and reprocess missing records with start 'offsets:<json>'",
            )
        return {
            "batches": report.batches,
            "records": report.records,
            "lost": report.lost,
            "replayed": report.replayed,
            "replayed_at_most": report.replayed_at_most,
            "skipped": report.skipped,
            "unexplained": report.unexplained_count,
            "discontinuities": codec.plain(report.discontinuities),
            "markdown": audit_report(report, MARKDOWN),
        }
