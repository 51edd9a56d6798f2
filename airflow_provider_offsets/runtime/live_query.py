"""The live query of a pipeline, under its epoch."""

from __future__ import annotations

from typing import Any

from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery, ProcessBatch
from airflow_provider_offsets.runtime.hadoop_files import HadoopCheckpoint
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.native_sink import NativeSinkQuery, SinkOf, pause_of, writer_of
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.runtime.shard_replay import assign_option
from airflow_provider_offsets.stores.protocols import OffsetStore


class LiveQuery:
    """The query that reads on and on, batch by batch."""

    def __init__(self, spark: Any, settings: Settings, store: OffsetStore) -> None:
        self._spark = spark
        self._settings = settings
        self._epoch = HeldEpoch(
            settings, store, lambda claim: BatchLog(HadoopCheckpoint(spark, claim.checkpoint), claim.start)
        )

    @property
    def epoch(self) -> int:
        """The number of its epoch."""
        return self._epoch.number

    def claim(self) -> None:
        """Claim the epoch.

        :raises Fenced: another driver holds it.
        """
        self._epoch.claim()

    def close(self, error: BaseException | None) -> None:
        """Record the end of the epoch."""
        self._epoch.close(error)

    def read(self, kafka_options: dict[str, str], options: dict[str, str]) -> Any:
        """Give the stream of the pipeline's topics."""
        reader = self._spark.readStream.format("kafka").options(**kafka_options, **options)
        start = self._settings.claim.start
        return reader.options(**self._subscription(), startingOffsets=start.to_json()).load()

    def run(self, frame: Any, process: ProcessBatch | None, sink: SinkOf | None, trigger: dict[str, Any]) -> None:
        """Run until asked to stop, fenced, or failed; one of ``process`` and ``sink`` is given.

        :raises Fenced: a newer epoch has the word.
        """
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
        if self._settings.subscription is Subscription.SUBSCRIBE:
            return {"subscribe": ",".join(self._settings.stream.topics)}
        return {"assign": assign_option(self._settings.claim.start)}
