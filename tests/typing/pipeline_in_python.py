"""A DAG file with a pipeline in Python, and a DAG of single operators and sensors."""

from datetime import timedelta

from airflow.sdk import DAG, chain

from airflow_provider_offsets import (
    ApplyOffsetsOperator,
    AuditOffsetsOperator,
    BackfillPolicy,
    BoundaryBy,
    KeepPolicy,
    OffsetsReachedSensor,
    OnConflict,
    OnOpen,
    PlanRestartOperator,
    RecoveryPolicy,
    RestartPolicy,
    RetentionRunwaySensor,
    RollbackPolicy,
    Schedules,
    SnapshotOffsetsOperator,
    SparkJob,
    StopPolicy,
    StopStreamingJobOperator,
    StreamingJobSensor,
    StreamingPipeline,
    SubmitStreamingJobOperator,
    Subscription,
    WatchStreamingJobOperator,
    maintenance_dag,
)

ORDERS = StreamingPipeline(
    name="orders",
    topics=("orders", "refunds"),
    job=SparkJob(
        application="/opt/jobs/orders.py",
        checkpoint="hdfs://nameservice1/checkpoints/orders",
        arguments=("--output", "/data/orders"),
        conf={"spark.executor.memory": "4g"},
        log_dir="/var/log/orders",
    ),
    subscription=Subscription.ASSIGN,
    stop=StopPolicy(graceful_timeout_s=600, signal_timeout_s=60),
    policy=RestartPolicy(accept_lost={"refunds": 10}, on_conflict=OnConflict.SMALLEST),
    recovery=RecoveryPolicy(tries=2),
    rollback=RollbackPolicy(automatic=True, watch_s=120),
    keep=KeepPolicy(days=30, checkpoints=3),
    backfill=BackfillPolicy(interval="PT6H", by=BoundaryBy.RECORD_TIME, on_open=OnOpen.WAIT),
    schedules=Schedules(recovery="@continuous", snapshots="@hourly"),
    start="snapshot:before-2.1 | earliest",
)

maintenance = maintenance_dag(ORDERS)

with DAG("move_orders", schedule=None) as move_orders:
    chain(
        SnapshotOffsetsOperator(task_id="snapshot", pipeline=ORDERS),
        PlanRestartOperator(task_id="plan", pipeline=ORDERS, start="timestamp:2026-11-01T00:00Z"),
        StopStreamingJobOperator(task_id="stop", pipeline=ORDERS),
        ApplyOffsetsOperator(task_id="apply", pipeline=ORDERS, retries=3, retry_delay=timedelta(seconds=30)),
        SubmitStreamingJobOperator(task_id="submit", pipeline=ORDERS),
        WatchStreamingJobOperator(task_id="watch", pipeline=ORDERS),
        StreamingJobSensor(task_id="running", pipeline=ORDERS, state="running", deferrable=True),
        OffsetsReachedSensor(task_id="caught_up", pipeline=ORDERS, offsets="end"),
        AuditOffsetsOperator(task_id="audit", pipeline=ORDERS),
    )
    RetentionRunwaySensor(task_id="runway", pipeline=ORDERS, at_least_s=6 * 3600)
