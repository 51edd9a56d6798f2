"""Airflow operators, one for each step of an operation: snapshot, plan, stop, apply, submit, and more."""

from airflow_provider_offsets.operators.apply import ApplyOffsetsOperator
from airflow_provider_offsets.operators.approve import ApproveRestartOperator
from airflow_provider_offsets.operators.audit import AuditOffsetsOperator
from airflow_provider_offsets.operators.backfill import AuditBackfillOperator, PlanBackfillOperator
from airflow_provider_offsets.operators.plan import PlanRestartOperator
from airflow_provider_offsets.operators.preflight import PreflightOperator
from airflow_provider_offsets.operators.prune import PruneOffsetsOperator
from airflow_provider_offsets.operators.recover import BeginRecoveryOperator
from airflow_provider_offsets.operators.replay import ReplayOffsetsOperator
from airflow_provider_offsets.operators.roll_back import RollBackOperator
from airflow_provider_offsets.operators.snapshot import SnapshotOffsetsOperator
from airflow_provider_offsets.operators.stop import StopStreamingJobOperator
from airflow_provider_offsets.operators.submit import SubmitStreamingJobOperator
from airflow_provider_offsets.operators.watch import WatchStreamingJobOperator

__all__ = [
    "ApplyOffsetsOperator",
    "ApproveRestartOperator",
    "AuditBackfillOperator",
    "AuditOffsetsOperator",
    "BeginRecoveryOperator",
    "PlanBackfillOperator",
    "PlanRestartOperator",
    "PreflightOperator",
    "PruneOffsetsOperator",
    "ReplayOffsetsOperator",
    "RollBackOperator",
    "SnapshotOffsetsOperator",
    "StopStreamingJobOperator",
    "SubmitStreamingJobOperator",
    "WatchStreamingJobOperator",
]
