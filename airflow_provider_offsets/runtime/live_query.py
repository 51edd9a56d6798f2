"""The live query of a pipeline, run under its epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.sink.output import Output, no_output, output_of_batch
from airflow_provider_offsets.errors import Fenced
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.foreach_batch import ForeachBatchQuery, ProcessBatch
from airflow_provider_offsets.runtime.hadoop_files import HadoopCheckpoint
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.known_bugs import BugsMet
from airflow_provider_offsets.runtime.native_sink import NativeSinkQuery, SinkOf, pause_of, writer_of
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.runtime.shard_replay import assign_option
from airflow_provider_offsets.stores.protocols import OffsetStore

log = logging.getLogger(__name__)


class LiveQuery:
    """The query that reads continuously, batch after batch."""

    def __init__(self, spark: Any, settings: Settings, store: OffsetStore) -> None:
        self._spark = spark
        self._settings = settings
        claim = settings.claim
        self._epoch = HeldEpoch(settings, store, BatchLog(HadoopCheckpoint(spark, claim.checkpoint), claim.start))
        self._bugs = BugsMet(str(spark.version))
        self._is_native = False

    @property
    def epoch(self) -> int:
        """Number of the claimed epoch."""
        return self._epoch.number

    @property
    def query_id(self) -> str:
        """Id of the streaming query, from its checkpoint; empty until Spark has assigned one."""
        return self._epoch.log.query_id

    @property
    def output(self) -> Output:
        """Output of the running batch.

        :raises InputRefused: no function of the program runs for a batch.
        """
        if self._epoch.running is not None:
            return output_of_batch(self._settings.pipeline, self._epoch.running)
        if self._is_native:
            raise no_output("use them with process=; with sink=, Spark's own sink identifies its batches itself")
        raise no_output("use them in the function that is passed to run() as process=")

    def claim(self) -> None:
        """Claim the epoch.

        :raises Fenced: the launch was cancelled, or another driver holds the epoch.
        """
        self._epoch.claim()

    def close(self, error: BaseException | None) -> None:
        """Record the end of the epoch.

        :param error: the exception that ends the program, if any.
        """
        self._epoch.close(error)

    def read(self, kafka_options: dict[str, str], options: dict[str, str]) -> Any:
        """Return the streaming DataFrame of the pipeline's topics.

        :param kafka_options: options of the Kafka connection.
        :param options: further options of Spark's Kafka source.
        """
        reader = self._spark.readStream.format("kafka").options(**kafka_options, **options)
        start = self._settings.claim.start
        return reader.options(**self._subscription(), startingOffsets=start.to_json()).load()

    def run(self, frame: Any, process: ProcessBatch | None, sink: SinkOf | None, trigger: dict[str, Any]) -> None:
        """Run until the job is asked to stop, is fenced, or fails.

        :param frame: the streaming DataFrame, transformed.
        :param process: the ``foreachBatch`` function, if there is no ``sink``.
        :param sink: the function that configures one of Spark's own sinks, if there is no ``process``.
        :param trigger: arguments of ``DataStreamWriter.trigger``.
        :raises Fenced: this driver no longer holds the epoch.
        """
        if process is not None:
            owned = self._owned(frame.writeStream)
            writer = owned.trigger(**trigger) if trigger else owned
            self._run(lambda: ForeachBatchQuery(self._epoch, process).run(writer))
        else:
            assert sink is not None
            self._is_native = True
            interval_s = pause_of(trigger, self._interval_ms)
            writer = self._owned(writer_of(sink, frame))
            self._run(lambda: NativeSinkQuery(self._epoch, interval_s).run(writer))

    def _run(self, query: Callable[[], None]) -> None:
        """Run a query, and restart it once per known Spark bug that ended it."""
        while True:
            try:
                self._epoch.start_run()
                query()
                return
            except BaseException as error:
                self._epoch.ending = EndedHow.FENCED if isinstance(error, Fenced) else EndedHow.FAILED
                bug = self._bugs.excuse(error)
                if bug is None:
                    raise
                log.warning("%s ended the query; restarting it under epoch %d: %s", bug.issue, self.epoch, error)

    def _owned(self, writer: Any) -> Any:
        return writer.queryName(self._settings.pipeline).option("checkpointLocation", self._settings.claim.checkpoint)

    def _interval_ms(self, text: str) -> int:
        return int(self._spark._jvm.org.apache.spark.sql.streaming.Trigger.ProcessingTime(text).intervalMs())

    def _subscription(self) -> dict[str, str]:
        if self._settings.subscription is Subscription.SUBSCRIBE:
            return {"subscribe": ",".join(self._settings.claim.stream.topics)}
        return {"assign": assign_option(self._settings.claim.start)}
