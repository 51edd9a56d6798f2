"""A Structured Streaming query whose every batch is fenced, recorded, and can be stopped in between.

For each batch: check the fence and the stop request → write it → record it. With ``process=`` the batch is recorded
before Spark commits it (see ``foreach_batch``), with ``sink=`` after (see ``native_sink``).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery, ProcessBatch
from airflow_provider_offsets.runtime.hadoop_files import HadoopCheckpoint
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.native_sink import NativeSinkQuery, SinkOf, pause_of, writer_of
from airflow_provider_offsets.runtime.settings import Settings, read_settings
from airflow_provider_offsets.stores import open_store

OURS = {"assign", "subscribe", "subscribepattern", "kafka.group.id", "kafka.isolation.level"}
"""Options of the Kafka source that the plan decides, beside those that begin with ``starting``. Spark ignores case."""


class TrackedStream:
    """The tracked life of one streaming query: claims its epoch on entry, closes it on exit.

    ::

        with TrackedStream(spark) as stream:
            records = stream.read_kafka()
            stream.run(transform(records), process=write)

    ``write(batch, batch_id)`` is a ``foreachBatch`` function. ``stream.epoch`` is there for sinks that can refuse an
    older writer: a driver that was cut off from the world inside this function can only be fenced by its sink.

    Or, with a sink of Spark's own::

            stream.run(transform(records), sink=lambda writer: writer.format("parquet").option("path", "/data/orders"))

    :param spark: a classic session, submitted by ``SubmitStreamingJobOperator``.
    :param settings: taken from the session's conf if left out.
    :raises Fenced: another driver holds the epoch; nothing was read, and nothing recorded but what the epoch before
        had finished.
    :raises ModeUnsupported: the session is a Spark Connect client.
    :raises InputRefused: the driver was started by hand, without an epoch to claim.
    """

    def __init__(self, spark: Any, settings: Settings | None = None) -> None:
        self._spark = spark
        self._settings = settings or read_settings(spark)
        self._store = open_store(self._settings.secrets.store_url)
        self._epoch = HeldEpoch(
            self._settings,
            self._store,
            lambda claim: BatchLog(HadoopCheckpoint(spark, claim.checkpoint), claim.start),
        )

    def __enter__(self) -> Self:
        try:
            self._epoch.claim()
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._epoch.close(error)
        finally:
            self._store.close()

    @property
    def epoch(self) -> int:
        """The number of the epoch that this driver holds."""
        return self._epoch.number

    def read_kafka(self, **options: str) -> Any:
        """Give the stream of the pipeline's topics, as a DataFrame of Spark's Kafka source.

        :param options: of that source, added to those of the connection, such as ``maxOffsetsPerTrigger="20000"``.
        :raises InputRefused: an option that the plan decides, or one that hides loss.
        """
        refused = [
            f"{key}={value!r}"
            for key, value in options.items()
            if key.lower() in OURS
            or key.lower().startswith("starting")
            or (key.lower() == "failondataloss" and value.lower() != "true")
        ]
        if refused:
            raise InputRefused(
                seen=f"read_kafka was given {', '.join(refused)}",
                expected="options that neither choose what is read nor hide what is lost",
                do="say topics and read_committed in the pipeline, and the start in the DAG run; accept loss by name in"
                " the plan",
            )
        claim = self._settings.claim
        reader = self._spark.readStream.format("kafka").options(**self._settings.secrets.kafka_options, **options)
        return reader.options(**self._subscription(), startingOffsets=claim.start.to_json()).load()

    def run(
        self, frame: Any, *, process: ProcessBatch | None = None, sink: SinkOf | None = None, **trigger: Any
    ) -> None:
        """Run the query until it is asked to stop, is fenced, or fails.

        :param frame: what came of ``read_kafka``, transformed. One Kafka source.
        :param process: called for each batch that is not recorded yet; when it returns, its output must be finished.
        :param sink: instead of ``process``: given a ``DataStreamWriter``, gives it back with the format and options of
            a sink of Spark's own. Each batch is then a short query of its own on the one checkpoint, so
            ``minOffsetsPerTrigger`` waits for nothing, and a watermark shows with the next batch that has records.
        :param trigger: as for ``DataStreamWriter.trigger``, such as ``processingTime="1 second"``; beside ``sink`` no
            other one.
        :raises Fenced: a newer epoch has the word; nothing of this one was recorded after it noticed.
        :raises StoreUnreachable: the store did not answer for ``store_patience_s``; the query was ended first.
        :raises InputRefused: both ``process`` and ``sink``, or none; a ``sink`` that decides what the runtime does.
        """
        if (process is None) == (sink is None):
            raise InputRefused(
                seen=f"run() was given {'neither process= nor' if process is None else 'both process= and'} sink=",
                expected="one of them",
                do="give process= a foreachBatch function, or sink= a function that names a sink of Spark's own",
            )
        if process is not None:
            writer = self._owned(frame.writeStream)
            ForeachBatchQuery(self._epoch, process).run(writer.trigger(**trigger) if trigger else writer)
        else:
            assert sink is not None
            interval_s = pause_of(trigger, self._interval_ms)
            NativeSinkQuery(self._epoch, interval_s).run(self._owned(writer_of(sink, frame)))
        if self._epoch.ending is EndedHow.FENCED:
            self._epoch.check_fence()

    def _owned(self, writer: Any) -> Any:
        return writer.queryName(self._settings.pipeline).option("checkpointLocation", self._settings.claim.checkpoint)

    def _interval_ms(self, text: str) -> int:
        return int(self._spark._jvm.org.apache.spark.sql.streaming.Trigger.ProcessingTime(text).intervalMs())

    def _subscription(self) -> dict[str, str]:
        start = self._settings.claim.start
        if self._settings.subscription is Subscription.SUBSCRIBE:
            return {"subscribe": ",".join(self._settings.stream.topics)}
        assigned = ",".join(
            f'"{topic}":[{",".join(str(number) for number in start.of_topic(topic))}]' for topic in start.topics
        )
        return {"assign": f"{{{assigned}}}"}
