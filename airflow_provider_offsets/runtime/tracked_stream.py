"""A Structured Streaming query whose batches are fenced, recorded, and stoppable in between.

The same program also replays a part of the records. For each batch, the runtime does three steps:

1. Start the batch in the pipeline's record. This step fails if the driver is fenced or asked to stop.
2. Write the batch.
3. Record the batch.

With ``process=`` a batch is recorded before Spark commits it (see ``foreach_batch``), with ``sink=`` after (see
``native_sink``). A replay is one bounded read (see ``shard_replay``). The driver's settings decide between live query
and replay.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.runtime.foreach_batch import ProcessBatch
from airflow_provider_offsets.runtime.live_query import LiveQuery
from airflow_provider_offsets.runtime.native_sink import SinkOf
from airflow_provider_offsets.runtime.settings import ReplaySettings, Settings, read_settings
from airflow_provider_offsets.runtime.shard_replay import ShardReplay
from airflow_provider_offsets.stores import open_store

OURS = {"assign", "subscribe", "subscribepattern", "kafka.group.id", "kafka.isolation.level"}
"""Options of the Kafka source that the plan sets, in addition to those that begin with ``starting`` or ``ending``.

Spark ignores the case of option names.
"""


class TrackedStream:
    """Context manager for one tracked streaming query: claims its epoch on entry, closes the epoch on exit.

    ```python
    with TrackedStream(spark) as stream:
        records = stream.read_kafka()
        stream.run(transform(records), process=write)
    ```

    ``write(batch, batch_id)`` is a ``foreachBatch`` function. Pass ``stream.epoch`` to a sink that can refuse an older
    writer: only the sink can fence a driver that loses its network inside this function.

    Or, with one of Spark's own sinks:

    ```python
    stream.run(transform(records), sink=lambda writer: writer.format("parquet").option("path", "/data/orders"))
    ```

    In a replay the same program reads one shard as a bounded DataFrame, and ``write`` is called once. Then
    ``stream.is_replay`` is true, and ``stream.run_id`` lets a sink keep replays apart.

    :param spark: a classic session, submitted by ``SubmitStreamingJobOperator`` or ``ReplayOffsetsOperator``.
    :param settings: read from the session's conf if omitted.
    :raises Fenced: the launch was cancelled, or another driver holds the epoch or the try of the shard. Nothing was
        read or written.
    :raises ModeUnsupported: the session is a Spark Connect client.
    :raises InputRefused: the driver was started by hand, without an epoch to claim.
    """

    def __init__(self, spark: Any, settings: Settings | ReplaySettings | None = None) -> None:
        settings = settings or read_settings(spark)
        self._kafka_options = settings.secrets.kafka_options
        self._store = open_store(settings.secrets.store_url)
        self._live: LiveQuery | None = None
        self._replay: ShardReplay | None = None
        if isinstance(settings, ReplaySettings):
            self._replay = ShardReplay(spark, settings, self._store)
        else:
            self._live = LiveQuery(spark, settings, self._store)

    def __enter__(self) -> TrackedStream:
        try:
            self._mode.claim()
        except BaseException:
            self._store.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._mode.close(error)
        finally:
            self._store.close()

    @property
    def epoch(self) -> int:
        """Number of the epoch that this driver holds; 0 in a replay, which holds no epoch."""
        return 0 if self._live is None else self._live.epoch

    @property
    def is_replay(self) -> bool:
        """Whether this driver replays a shard beside the live job."""
        return self._replay is not None

    @property
    def run_id(self) -> str:
        """Id of the run that a replay belongs to; empty in a live job.

        Each attempt at an interval has its own id. All shards and automatic retries of an attempt share it.
        """
        return "" if self._replay is None else self._replay.run_id

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """Offset ranges of the replayed shard; empty in a live job, where each batch has its own.

        A sink can use the ranges to overwrite what was written for them before.
        """
        return () if self._replay is None else self._replay.ranges

    @property
    def query_id(self) -> str:
        """Id of the streaming query, as its checkpoint has it; in a replay the run id.

        The id is empty before the first batch of a new checkpoint. It stays the same when the job restarts on its
        checkpoint, or on one that a restart plan has seeded. A fresh start begins another query.
        """
        return self._mode.query_id

    @property
    def batch_key(self) -> str:
        """Key of the running batch: ``<pipeline>:<query id>:<batch id>:<16 hex digits of the ranges>``.

        A sink without a ledger of its own can store the key together with the rows. The key stays the same when the
        batch is tried again, and no batch with other ranges has it. In a replay, run id and shard number are in the
        place of query id and batch id.

        :raises InputRefused: no function of the program runs for a batch, or the live job was given ``sink=``.
        """
        return str(self._mode.output.key)

    def write_options(self, format: str) -> dict[str, str]:
        """Return the writer options that make the output of the running batch findable in a table.

        ```python
        def write(batch, batch_id):
            batch.write.format("delta").options(**stream.write_options("delta")).mode("append").save(path)
        ```

        With ``delta``, a write that the table has already is skipped when the batch is tried again. So pass the options
        to *one* write of each table and batch: Delta would skip a second one. With ``iceberg``, look the key up in the
        table's snapshots before you write, because Iceberg writes a batch that is tried again a second time.

        :param format: ``delta`` or ``iceberg``.
        :raises InputRefused: another format; or no function of the program runs for a batch; or the live job was given
            ``sink=``, because Spark's own sinks identify batches themselves.
        """
        return self._mode.output.write_options(format)

    def read_kafka(self, **options: str) -> Any:
        """Return the records of the pipeline's topics as a DataFrame of Spark's Kafka source.

        The DataFrame is a stream in a live job. In a replay it is bounded to the shard and has the same columns.

        :param options: options of that source, added to those of the connection, such as
            ``maxOffsetsPerTrigger="20000"``. A replay ignores those that limit a micro-batch.
        :raises InputRefused: an option that the plan sets, or one that hides data loss.
        """
        refused = [
            f"{key}={value!r}"
            for key, value in options.items()
            if key.lower() in OURS
            or key.lower().startswith(("starting", "ending"))
            or (key.lower() == "failondataloss" and value.lower() != "true")
        ]
        if refused:
            raise InputRefused(
                seen=f"read_kafka was given {', '.join(refused)}",
                expected="only options that neither choose the records nor hide a loss",
                do="set topics and read_committed in the pipeline, and the start in the DAG run; accept a loss in the"
                " plan",
            )
        return self._mode.read(self._kafka_options, options)

    def run(
        self,
        frame: Any,
        *,
        process: ProcessBatch | None = None,
        sink: SinkOf | None = None,
        replay_sink: ProcessBatch | None = None,
        **trigger: Any,
    ) -> None:
        """Run the query until the job is asked to stop, is fenced, or fails; in a replay, process the shard.

        :param frame: the DataFrame of ``read_kafka``, transformed. It has one Kafka source.
        :param process: called for each batch that is not recorded yet. Its output must be complete when it returns. A
            replay calls it once, with a negative batch id that stays the same when the shard is retried.
        :param sink: alternative to ``process``: receives a ``DataStreamWriter`` and returns it with the format and
            options of one of Spark's own sinks. Each batch is then a short query of its own on the one checkpoint. So
            ``minOffsetsPerTrigger`` has no effect, and a watermark takes effect with the next batch that has records.
        :param replay_sink: only with ``sink``: called by a replay as ``process`` would be. Spark's own sinks identify
            batches by a checkpoint, which a replay does not have.
        :param trigger: as for ``DataStreamWriter.trigger``, such as ``processingTime="1 second"``, the only one allowed
            with ``sink``. A replay ignores it.
        :raises Fenced: a newer epoch or try is active. Nothing of this driver was recorded since.
        :raises StateChanged: another job has written to the checkpoint since the plan. No batch was started.
        :raises RecordRestored: the control store was restored or removed; the query was ended.
        :raises StoreUnreachable: the store did not answer for ``store_retry_timeout_s``; the query was ended first.
        :raises InputRefused: both or neither of ``process`` and ``sink``; a ``sink`` that sets what the runtime sets.
            In a replay also: transforms that keep state, or a ``sink`` without a ``replay_sink``.
        """
        if (process is None) == (sink is None):
            raise InputRefused(
                seen=f"run() was given {'neither process= nor' if process is None else 'both process= and'} sink=",
                expected="exactly one of them",
                do="pass a foreachBatch function as process=, or a function that names a sink of Spark as sink=",
            )
        if process is not None and replay_sink is not None:
            raise InputRefused(
                seen="run() was given process= and replay_sink=",
                expected="only process=, which a replay calls, too",
                do="read stream.is_replay in that function",
            )
        if self._live is not None:
            self._live.run(frame, process, sink, trigger)
            return
        assert self._replay is not None
        write = process or replay_sink
        if write is None:
            raise InputRefused(
                seen="run() was given sink= and no replay_sink=, in a replay",
                expected="replay_sink=, because Spark's own sinks identify a batch by the checkpoint of the live job",
                do="pass as replay_sink= a function (frame, batch_id) that writes to another output, or by a key",
            )
        self._replay.run(frame, write)

    @property
    def _mode(self) -> LiveQuery | ShardReplay:
        mode = self._live or self._replay
        assert mode is not None
        return mode
