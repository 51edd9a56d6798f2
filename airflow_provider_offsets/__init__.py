"""Leakproof Kafka to Spark streaming from Airflow.

The names in ``__all__`` are the public API. Each is imported from its module when it is first used. So ``import
airflow_provider_offsets`` loads nothing else, and works in a Spark driver, which has no Airflow.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 9):  # noqa: UP036  # a driver is not installed by pip, which would refuse this Python
    raise ImportError(
        "the Python of this Spark driver is {}.{}; airflow_provider_offsets needs 3.9 or newer: name one with the conf"
        " spark.pyspark.driver.python, or with PYSPARK_DRIVER_PYTHON".format(*sys.version_info)
    )

if TYPE_CHECKING:
    from airflow_provider_offsets import testing
    from airflow_provider_offsets.core.batch import Batch, Stream
    from airflow_provider_offsets.core.pipeline import (
        RollbackPolicy,
        Schedules,
        SparkJob,
        StopPolicy,
        StreamingPipeline,
        Subscription,
    )
    from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
    from airflow_provider_offsets.core.problem import Problem, ProblemKind
    from airflow_provider_offsets.core.pruning import KeepPolicy
    from airflow_provider_offsets.core.recovery import RecoveryPolicy
    from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen
    from airflow_provider_offsets.core.replay.model import BackfillPolicy
    from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
    from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
    from airflow_provider_offsets.errors import (
        AuditFailed,
        BatchConflict,
        CheckpointError,
        ConcurrentAttempt,
        DriverDied,
        DriverFailed,
        DriverSilent,
        Fenced,
        InputRefused,
        JobUnhealthy,
        KafkaError,
        KafkaUnreachable,
        LeaseHeld,
        LedgerUnreadable,
        ModeUnsupported,
        NoHistory,
        NothingToRecover,
        OffsetsError,
        PartitionUnavailable,
        PipelineFileError,
        PipelineRenamed,
        PlanRefused,
        PositionExpired,
        PreflightFailed,
        RecordChanged,
        RecordRestored,
        RecoveryGivenUp,
        RollbackRefused,
        RolledBack,
        RunwayUnknown,
        SelectorError,
        ShardFailed,
        SnapshotNotFound,
        StateChanged,
        StateLost,
        StopRequested,
        StopTimedOut,
        StoreClientMissing,
        StoreDataError,
        StoreDenied,
        StoreError,
        StoreInUse,
        StoreLayoutError,
        StoreUnreachable,
        TakenOver,
        TopicMissing,
        UnknownPipeline,
    )
    from airflow_provider_offsets.factories import (
        backfill_dag,
        backfill_then_live_dag,
        load_pipelines,
        maintenance_dag,
        recovery_dag,
        rehearsal_dag,
        reprocess_dag,
        snapshots_dag,
    )
    from airflow_provider_offsets.factories.pipelines import Pipelines
    from airflow_provider_offsets.operators import (
        ApplyOffsetsOperator,
        ApproveRestartOperator,
        AuditBackfillOperator,
        AuditOffsetsOperator,
        BeginRecoveryOperator,
        PlanBackfillOperator,
        PlanRestartOperator,
        PreflightOperator,
        PruneOffsetsOperator,
        ReplayOffsetsOperator,
        RollBackOperator,
        SnapshotOffsetsOperator,
        StopStreamingJobOperator,
        SubmitStreamingJobOperator,
        WatchStreamingJobOperator,
    )
    from airflow_provider_offsets.runtime import TrackedStream
    from airflow_provider_offsets.sensors import (
        JobDiedSensor,
        OffsetsReachedSensor,
        RetentionRunwaySensor,
        StreamingJobSensor,
    )
    from airflow_provider_offsets.triggers.streaming_job import (
        EpochEndedTrigger,
        JobDiedTrigger,
        JobStateTrigger,
        OffsetsReachedTrigger,
    )

__version__ = "0.1.0"

__all__ = [
    "ApplyOffsetsOperator",
    "ApproveRestartOperator",
    "AuditBackfillOperator",
    "AuditFailed",
    "AuditOffsetsOperator",
    "BackfillPolicy",
    "Batch",
    "BatchConflict",
    "BeginRecoveryOperator",
    "BoundaryBy",
    "CheckpointError",
    "ConcurrentAttempt",
    "DriverDied",
    "DriverFailed",
    "DriverSilent",
    "EpochEndedTrigger",
    "Fenced",
    "InputRefused",
    "JobDiedSensor",
    "JobDiedTrigger",
    "JobStateTrigger",
    "JobUnhealthy",
    "KafkaError",
    "KafkaUnreachable",
    "KeepPolicy",
    "LeaseHeld",
    "LedgerUnreadable",
    "ModeUnsupported",
    "NoHistory",
    "NothingToRecover",
    "OffsetRange",
    "OffsetsError",
    "OffsetsReachedSensor",
    "OffsetsReachedTrigger",
    "OnConflict",
    "OnOpen",
    "PartitionUnavailable",
    "PipelineFileError",
    "PipelineRenamed",
    "Pipelines",
    "PlanBackfillOperator",
    "PlanRefused",
    "PlanRestartOperator",
    "Position",
    "PositionExpired",
    "PreflightFailed",
    "PreflightOperator",
    "Problem",
    "ProblemKind",
    "PruneOffsetsOperator",
    "RecordChanged",
    "RecordRestored",
    "RecoveryGivenUp",
    "RecoveryPolicy",
    "ReplayOffsetsOperator",
    "RestartPolicy",
    "RetentionRunwaySensor",
    "RollBackOperator",
    "RollbackPolicy",
    "RollbackRefused",
    "RolledBack",
    "RunwayUnknown",
    "Schedules",
    "SelectorError",
    "ShardFailed",
    "Sink",
    "SinkFormat",
    "SnapshotNotFound",
    "SnapshotOffsetsOperator",
    "SparkJob",
    "StateChanged",
    "StateLost",
    "StopPolicy",
    "StopRequested",
    "StopStreamingJobOperator",
    "StopTimedOut",
    "StoreClientMissing",
    "StoreDataError",
    "StoreDenied",
    "StoreError",
    "StoreInUse",
    "StoreLayoutError",
    "StoreUnreachable",
    "Stream",
    "StreamingJobSensor",
    "StreamingPipeline",
    "SubmitStreamingJobOperator",
    "Subscription",
    "TakenOver",
    "TopicMissing",
    "TopicPartition",
    "TrackedStream",
    "UnknownPipeline",
    "WatchStreamingJobOperator",
    "__version__",
    "backfill_dag",
    "backfill_then_live_dag",
    "load_pipelines",
    "maintenance_dag",
    "recovery_dag",
    "rehearsal_dag",
    "reprocess_dag",
    "snapshots_dag",
    "testing",
]

_MODULE_OF = {
    "ApplyOffsetsOperator": "airflow_provider_offsets.operators",
    "ApproveRestartOperator": "airflow_provider_offsets.operators",
    "AuditBackfillOperator": "airflow_provider_offsets.operators",
    "AuditFailed": "airflow_provider_offsets.errors",
    "AuditOffsetsOperator": "airflow_provider_offsets.operators",
    "BackfillPolicy": "airflow_provider_offsets.core.replay.model",
    "Batch": "airflow_provider_offsets.core.batch",
    "BatchConflict": "airflow_provider_offsets.errors",
    "BeginRecoveryOperator": "airflow_provider_offsets.operators",
    "BoundaryBy": "airflow_provider_offsets.core.replay.boundary",
    "CheckpointError": "airflow_provider_offsets.errors",
    "ConcurrentAttempt": "airflow_provider_offsets.errors",
    "DriverDied": "airflow_provider_offsets.errors",
    "DriverFailed": "airflow_provider_offsets.errors",
    "DriverSilent": "airflow_provider_offsets.errors",
    "EpochEndedTrigger": "airflow_provider_offsets.triggers.streaming_job",
    "Fenced": "airflow_provider_offsets.errors",
    "InputRefused": "airflow_provider_offsets.errors",
    "JobDiedSensor": "airflow_provider_offsets.sensors",
    "JobDiedTrigger": "airflow_provider_offsets.triggers.streaming_job",
    "JobStateTrigger": "airflow_provider_offsets.triggers.streaming_job",
    "JobUnhealthy": "airflow_provider_offsets.errors",
    "KafkaError": "airflow_provider_offsets.errors",
    "KafkaUnreachable": "airflow_provider_offsets.errors",
    "KeepPolicy": "airflow_provider_offsets.core.pruning",
    "LeaseHeld": "airflow_provider_offsets.errors",
    "LedgerUnreadable": "airflow_provider_offsets.errors",
    "ModeUnsupported": "airflow_provider_offsets.errors",
    "NoHistory": "airflow_provider_offsets.errors",
    "NothingToRecover": "airflow_provider_offsets.errors",
    "OffsetRange": "airflow_provider_offsets.core.position",
    "OffsetsError": "airflow_provider_offsets.errors",
    "OffsetsReachedSensor": "airflow_provider_offsets.sensors",
    "OffsetsReachedTrigger": "airflow_provider_offsets.triggers.streaming_job",
    "OnConflict": "airflow_provider_offsets.core.restart.model",
    "OnOpen": "airflow_provider_offsets.core.replay.boundary",
    "PartitionUnavailable": "airflow_provider_offsets.errors",
    "PipelineFileError": "airflow_provider_offsets.errors",
    "PipelineRenamed": "airflow_provider_offsets.errors",
    "Pipelines": "airflow_provider_offsets.factories.pipelines",
    "PlanBackfillOperator": "airflow_provider_offsets.operators",
    "PlanRefused": "airflow_provider_offsets.errors",
    "PlanRestartOperator": "airflow_provider_offsets.operators",
    "PreflightFailed": "airflow_provider_offsets.errors",
    "PreflightOperator": "airflow_provider_offsets.operators",
    "Position": "airflow_provider_offsets.core.position",
    "PositionExpired": "airflow_provider_offsets.errors",
    "Problem": "airflow_provider_offsets.core.problem",
    "ProblemKind": "airflow_provider_offsets.core.problem",
    "PruneOffsetsOperator": "airflow_provider_offsets.operators",
    "RecordChanged": "airflow_provider_offsets.errors",
    "RecordRestored": "airflow_provider_offsets.errors",
    "RecoveryGivenUp": "airflow_provider_offsets.errors",
    "RecoveryPolicy": "airflow_provider_offsets.core.recovery",
    "ReplayOffsetsOperator": "airflow_provider_offsets.operators",
    "RestartPolicy": "airflow_provider_offsets.core.restart.model",
    "RetentionRunwaySensor": "airflow_provider_offsets.sensors",
    "RollBackOperator": "airflow_provider_offsets.operators",
    "RollbackPolicy": "airflow_provider_offsets.core.pipeline",
    "RollbackRefused": "airflow_provider_offsets.errors",
    "RolledBack": "airflow_provider_offsets.errors",
    "RunwayUnknown": "airflow_provider_offsets.errors",
    "Schedules": "airflow_provider_offsets.core.pipeline",
    "SelectorError": "airflow_provider_offsets.errors",
    "ShardFailed": "airflow_provider_offsets.errors",
    "SnapshotNotFound": "airflow_provider_offsets.errors",
    "Sink": "airflow_provider_offsets.core.sink.model",
    "SinkFormat": "airflow_provider_offsets.core.sink.model",
    "SnapshotOffsetsOperator": "airflow_provider_offsets.operators",
    "SparkJob": "airflow_provider_offsets.core.pipeline",
    "StateLost": "airflow_provider_offsets.errors",
    "StopPolicy": "airflow_provider_offsets.core.pipeline",
    "StopRequested": "airflow_provider_offsets.errors",
    "StopStreamingJobOperator": "airflow_provider_offsets.operators",
    "StopTimedOut": "airflow_provider_offsets.errors",
    "StoreClientMissing": "airflow_provider_offsets.errors",
    "StoreDataError": "airflow_provider_offsets.errors",
    "StoreDenied": "airflow_provider_offsets.errors",
    "StoreError": "airflow_provider_offsets.errors",
    "StoreInUse": "airflow_provider_offsets.errors",
    "StoreLayoutError": "airflow_provider_offsets.errors",
    "StoreUnreachable": "airflow_provider_offsets.errors",
    "Stream": "airflow_provider_offsets.core.batch",
    "StreamingJobSensor": "airflow_provider_offsets.sensors",
    "StreamingPipeline": "airflow_provider_offsets.core.pipeline",
    "SubmitStreamingJobOperator": "airflow_provider_offsets.operators",
    "Subscription": "airflow_provider_offsets.core.pipeline",
    "TakenOver": "airflow_provider_offsets.errors",
    "TopicMissing": "airflow_provider_offsets.errors",
    "TopicPartition": "airflow_provider_offsets.core.position",
    "TrackedStream": "airflow_provider_offsets.runtime",
    "UnknownPipeline": "airflow_provider_offsets.errors",
    "WatchStreamingJobOperator": "airflow_provider_offsets.operators",
    "StateChanged": "airflow_provider_offsets.errors",
    "backfill_dag": "airflow_provider_offsets.factories",
    "backfill_then_live_dag": "airflow_provider_offsets.factories",
    "load_pipelines": "airflow_provider_offsets.factories",
    "maintenance_dag": "airflow_provider_offsets.factories",
    "recovery_dag": "airflow_provider_offsets.factories",
    "rehearsal_dag": "airflow_provider_offsets.factories",
    "reprocess_dag": "airflow_provider_offsets.factories",
    "snapshots_dag": "airflow_provider_offsets.factories",
}


# Hidden from type checkers: they see the imports above, and report a name that is not among them.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Return a public name, after importing its module. Python calls this once per name: the value is kept.

        :raises AttributeError: this package does not export the name. Python adds the most similar name that it does.
        """
        if name == "testing":
            return importlib.import_module("airflow_provider_offsets.testing")
        if name not in _MODULE_OF:
            error = AttributeError(
                f"module {__name__!r} has no public name {name!r}; the API reference (docs/api.md) lists all of them"
            )
            # The constructor takes these since Python 3.10, which then suggests a similar name.
            error.name, error.obj = name, sys.modules[__name__]
            raise error
        value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return value


def __dir__() -> list[str]:
    """Return the loaded attributes and all public names."""
    return sorted({*globals(), *__all__})
