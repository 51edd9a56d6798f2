"""Mistakes that a type checker reports to users.

Each comment names the error that mypy must report there: a comment without its error is an error of mypy.
"""

from pyspark.sql import DataFrame, SparkSession

import airflow_provider_offsets
from airflow_provider_offsets import (
    ApplyOffsetsOperator,
    BackfillPolicy,
    OffsetsReachedSensor,
    PlanBackfillOperator,
    PlanRestartOperator,
    RollBackOperator,
    SnapshotOffsetsOperator,
    SparkJob,
    StopPolicy,
    StopStreamingJobOperator,
    StreamingPipeline,
    TrackedStream,
    WatchStreamingJobOperator,
    backfill_dag,
    load_pipelines,
    maintenance_dag,
    testing,
)

JOB = SparkJob(application="/opt/jobs/orders.py", checkpoint="/data/checkpoints/orders")
ORDERS = StreamingPipeline(name="orders", topics=("orders",), job=JOB)


def pipelines_in_python() -> None:
    StreamingPipeline(name="orders", topics="orders", job=JOB)  # type: ignore[arg-type]  # a text, not a tuple of them
    StreamingPipeline(name="orders", topics=("orders",))  # type: ignore[call-arg]  # no job
    SparkJob(application="/opt/jobs/orders.py", argument=("--fast",))  # type: ignore[call-arg]  # arguments
    StopPolicy(graceful_timeout_s="5 minutes")  # type: ignore[arg-type]
    BackfillPolicy(on_open="wait")  # type: ignore[arg-type]  # OnOpen.WAIT
    ORDERS.approve = True  # type: ignore[misc]  # a pipeline does not change


def private_names() -> None:
    airflow_provider_offsets.open_store("sqlite:////data/offsets.db")  # type: ignore[attr-defined]
    testing.SqlStore()  # type: ignore[attr-defined]


def dag_files(folder: str) -> None:
    load_pipelines([folder])  # type: ignore[arg-type]
    maintenance_dag("orders")  # type: ignore[arg-type]  # the name of a pipeline, not the pipeline
    maintenance_dag(ORDERS, lambda: None)  # type: ignore[call-arg]  # window= by its name
    backfill_dag(ORDERS, after_audit=lambda: None)  # type: ignore[arg-type,misc]  # it is called with the run id


def dags_by_operators() -> None:
    ApplyOffsetsOperator(task_id="apply")  # type: ignore[call-arg]  # no pipeline
    StopStreamingJobOperator(task_id="stop", deferrable=True)  # type: ignore[call-arg]
    WatchStreamingJobOperator(task_id="watch")  # type: ignore[call-arg]
    RollBackOperator(task_id="roll_back", automatic=True)  # type: ignore[call-arg]
    OffsetsReachedSensor(task_id="caught_up")  # type: ignore[call-arg]
    PlanRestartOperator(task_id="plan", pipeline="orders")  # type: ignore[arg-type]  # its name
    SnapshotOffsetsOperator(task_id="snapshot", pipeline=JOB)  # type: ignore[arg-type]
    PlanBackfillOperator(task_id="plan", pipeline=ORDERS, on_open=None)  # type: ignore[arg-type]


def jobs(spark: SparkSession) -> None:
    def write_without_id(batch: DataFrame) -> None: ...

    def write(batch: DataFrame, batch_id: int) -> None: ...

    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger=20_000)  # type: ignore[arg-type]  # Spark's options are text
        stream.run(records, process=write_without_id)  # type: ignore[arg-type]
        stream.run(records, write)  # type: ignore[call-arg]  # process= or sink=
        stream.epoch = 4  # type: ignore[misc]  # claimed on entry


def tests() -> None:
    testing.FakeKafka().append("orders", "0", count=1)  # type: ignore[arg-type]
