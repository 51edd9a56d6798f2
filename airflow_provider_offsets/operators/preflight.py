"""The operator that asks everything that a start of the job needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.connections import preflight_probes
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.preflight import problems_in
from airflow_provider_offsets.errors import PreflightFailed
from airflow_provider_offsets.operations.preflight import run_preflight
from airflow_provider_offsets.operators.base import PipelineOperator
from airflow_provider_offsets.reports import MARKDOWN, preflight_report

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_offsets.operations.session import Session


class PreflightOperator(PipelineOperator):
    """Operator that asks, while the job still runs, everything that could fail after the job was stopped.

    It checks the files and the mode of the job, the folders of logs and checkpoints, Kafka, the store and the sink.
    It runs spark-submit with the jars and packages of the job, which downloads them, and looks for the Kafka connector
    and for what the driver imports. The job itself is not touched.
    """

    def act(self, session: Session, context: Context) -> dict[str, Any]:
        """Ask, and fail if a start would fail.

        :returns: ``findings`` as JSON values, and ``markdown``.
        :raises PreflightFailed: a start of the job would fail. The message lists why.
        """
        findings = run_preflight(session, preflight_probes(session.pipeline, self.executor), report=self.log.info)
        self.log.info("\n%s", preflight_report(findings))
        if problems := problems_in(findings):
            raise PreflightFailed(problems)
        return {"findings": codec.plain(findings), "markdown": preflight_report(findings, MARKDOWN)}
