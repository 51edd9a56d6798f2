"""The live query of a pipeline, under its epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.pipeline import Subscription
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
    """The query that reads on and on, batch by batch."""

    def __init__(self, spark: Any, settings: Settings, store: OffsetStore) -> None:
        self._spark = spark
        self._settings = settings
        claim = settings.claim
        self._epoch = HeldEpoch(settings, store, BatchLog(HadoopCheckpoint(spark, claim.checkpoint), claim.start))
        self._bugs = BugsMet(str(spark.version))

    @property
    def epoch(self) -> int:
        """The number of its epoch."""
        return self._epoch.number

    def claim(self) -> None:
        """Claim the epoch.

        :raises Fenced: its launch was cancelled, or another driver holds it.
        """
        self._epoch.claim()

    def close(self, error: BaseException | None) -> None:
        """Record the end of the epoch."""
        self._epoch.close(error)

    def read(self, kafka_options: dict[str, str], options: dict[str, str]) -> Any:
        """Return the stream of the pipeline's topics."""
        reader = self._spark.readStream.format("kafka").options(**kafka_options, **options)
        start = self._settings.claim.start
        return reader.options(**self._subscription(), startingOffsets=start.to_json()).load()

    def run(self, frame: Any, process: ProcessBatch | None, sink: SinkOf | None, trigger: dict[str, Any]) -> None:
        """Run until asked to stop, fenced, or failed; one of ``process`` and ``sink`` is given.

        :raises Fenced: the epoch is not this driver's any more.
        """
        if process is not None:
            owned = self._owned(frame.writeStream)
            writer = owned.trigger(**trigger) if trigger else owned
            self._run(lambda: ForeachBatchQuery(self._epoch, process).run(writer))
        else:
            assert sink is not None
            interval_s = pause_of(trigger, self._interval_ms)
            writer = self._owned(writer_of(sink, frame))
            self._run(lambda: NativeSinkQuery(self._epoch, interval_s).run(writer))

    def _run(self, query: Callable[[], None]) -> None:
        """Run a query, and once more where a known bug of Spark ended it."""
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
                log.warning("%s ended the query; starting it again under epoch %d: %s", bug.issue, self.epoch, error)

    def _owned(self, writer: Any) -> Any:
        return writer.queryName(self._settings.pipeline).option("checkpointLocation", self._settings.claim.checkpoint)

    def _interval_ms(self, text: str) -> int:
        return int(self._spark._jvm.org.apache.spark.sql.streaming.Trigger.ProcessingTime(text).intervalMs())

    def _subscription(self) -> dict[str, str]:
        if self._settings.subscription is Subscription.SUBSCRIBE:
            return {"subscribe": ",".join(self._settings.claim.stream.topics)}
        return {"assign": assign_option(self._settings.claim.start)}
