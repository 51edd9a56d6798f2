"""The operator that audits a pipeline's history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.connections import ledger_reader
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.sink.audit import SinkReport, SinkVerdict
from airflow_provider_offsets.errors import AuditFailed
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.sink_auditing import audit_sink
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import MARKDOWN, audit_report, sink_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class AuditOffsetsOperator(PipelineOperator):
    """Operator that verifies from the history that ranges are contiguous: nothing lost, every replay explained.

    If the pipeline names its sink, the sink's own metadata must show the same batches. A sink that cannot show it is
    reported as not proven, and fails nothing.

    Fails if records were lost, or if no operation announced a discontinuity. Fails too if the history has epochs but
    the pipeline has no record: the pipeline was renamed, or its control store was lost.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Audit the whole history of the pipeline, and its sink.

        :returns: ``batches``; ``records``: offsets read, counted as often as they were read; the counts of offsets
            ``lost``, ``replayed``, ``replayed_at_most``, ``skipped`` and ``unexplained``; ``rows_written`` as Spark
            counted them, None if it counted none; the ``warnings`` about batches that wrote nothing; the
            ``discontinuities`` as JSON values; ``sink``: the comparison with the sink, as JSON values; and
            ``markdown``.
        :raises AuditFailed: a discontinuity that no operation announced, or a batch that only the history or only the
            sink has.
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
        sink = audit_sink(session, ledger_reader(self.pipeline))
        self.log.info("\n%s", sink_report(sink))
        require_sink(sink)
        return {
            "batches": report.batches,
            "records": report.records,
            "lost": report.lost,
            "replayed": report.replayed,
            "replayed_at_most": report.replayed_at_most,
            "skipped": report.skipped,
            "unexplained": report.unexplained_count,
            "rows_written": report.rows_written,
            "warnings": list(report.warnings),
            "discontinuities": codec.plain(report.discontinuities),
            "sink": codec.plain(sink),
            "markdown": f"{audit_report(report, MARKDOWN)}\n\n{sink_report(sink, MARKDOWN)}",
        }


def require_sink(sink: SinkReport) -> None:
    """Raise if the sink shows that a batch is lost, not recorded, or there twice.

    :raises AuditFailed: the message has the report.
    """
    if sink.verdict is SinkVerdict.REFUTED:
        raise AuditFailed(
            seen=f"history and sink differ: {sink.lost} batches only in the history, {sink.not_recorded} only in the"
            f" sink:\n{sink_report(sink)}\n",
            expected="each recorded batch once in the sink, and no other batch of this pipeline",
            do="find out who changed the sink or why the program wrote nothing, and reprocess the missing batches with"
            " the DAG reprocess__<pipeline>",
        )
