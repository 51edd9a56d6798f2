"""A Structured Streaming query whose every batch is fenced, recorded, and can be stopped in between; and, with the
same program, the replay of a part of its records.

For each batch: begin it in the pipeline's record, which is refused to a driver that is fenced or asked to stop → write
it → record it. With ``process=`` the batch is recorded before Spark commits it (see ``foreach_batch``), with ``sink=``
after (see ``native_sink``). A replay is one bounded read (see ``shard_replay``). The settings of the driver decide
which of the two it is.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.runtime.foreach_batch import ProcessBatch
from airflow_provider_offsets.runtime.live_query import LiveQuery
from airflow_provider_offsets.runtime.native_sink import SinkOf
from airflow_provider_offsets.runtime.settings import ReplaySettings, Settings, read_settings
from airflow_provider_offsets.runtime.shard_replay import ShardReplay
from airflow_provider_offsets.stores import open_store

OURS = {"assign", "subscribe", "subscribepattern", "kafka.group.id", "kafka.isolation.level"}
"""Options of the Kafka source that the plan decides, beside those that begin with ``starting`` or ``ending``. Spark
ignores case."""


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

    In a replay the same program reads one shard as a bounded frame, and ``write`` is called once. Then
    ``stream.is_replay`` is true, and ``stream.run_id`` is for sinks that keep replays apart.

    :param spark: a classic session, submitted by ``SubmitStreamingJobOperator`` or ``ReplayOffsetsOperator``.
    :param settings: taken from the session's conf if left out.
    :raises Fenced: the launch was cancelled, or another driver holds the epoch, or the try of the shard. Nothing was
        read and nothing written.
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

    def __enter__(self) -> Self:
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
        """The number of the epoch that this driver holds; 0 in a replay, which holds none."""
        return 0 if self._live is None else self._live.epoch

    @property
    def is_replay(self) -> bool:
        """Whether this is the replay of a shard, beside the live job."""
        return self._replay is not None

    @property
    def run_id(self) -> str:
        """The run that a replay belongs to: another one for each attempt at an interval, the same for all shards and
        automatic retries of an attempt. Empty in a live job."""
        return "" if self._replay is None else self._replay.run_id

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """What a replay reads: the ranges of its shard, for sinks that put them in the place of what was there. Empty
        in a live job, whose every batch has others."""
        return () if self._replay is None else self._replay.ranges

    def read_kafka(self, **options: str) -> Any:
        """Give the stream of the pipeline's topics, as a DataFrame of Spark's Kafka source; in a replay the records of
        the shard, as a bounded one with the same columns.

        :param options: of that source, added to those of the connection, such as ``maxOffsetsPerTrigger="20000"``,
            which a replay leaves out.
        :raises InputRefused: an option that the plan decides, or one that hides loss.
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
                expected="options that neither choose what is read nor hide what is lost",
                do="say topics and read_committed in the pipeline, and the start in the DAG run; accept loss by name in"
                " the plan",
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
        """Run the query until it is asked to stop, is fenced, or fails; in a replay, process the shard.

        :param frame: what came of ``read_kafka``, transformed. One Kafka source.
        :param process: called for each batch that is not recorded yet; when it returns, its output must be finished.
            In a replay it is called once, with a batch id below 0 that is the same when the shard is tried again.
        :param sink: instead of ``process``: given a ``DataStreamWriter``, gives it back with the format and options of
            a sink of Spark's own. Each batch is then a short query of its own on the one checkpoint, so
            ``minOffsetsPerTrigger`` waits for nothing, and a watermark shows with the next batch that has records.
        :param replay_sink: beside ``sink``: what a replay calls, as it would call ``process``. A sink of Spark's own
            knows its batches by a checkpoint, which a replay has not.
        :param trigger: as for ``DataStreamWriter.trigger``, such as ``processingTime="1 second"``; beside ``sink`` no
            other one. A replay has none.
        :raises Fenced: a newer epoch, or try, is active. Nothing of this one was recorded since.
        :raises WorldChanged: another job has written the checkpoint since the plan. No batch was begun.
        :raises RecordRestored: the control store was restored or removed; the query was ended.
        :raises StoreUnreachable: the store did not answer for ``store_patience_s``; the query was ended first.
        :raises InputRefused: both ``process`` and ``sink``, or none; a ``sink`` that decides what the runtime does; in
            a replay, transforms that keep state, or a ``sink`` without a ``replay_sink``.
        """
        if (process is None) == (sink is None):
            raise InputRefused(
                seen=f"run() was given {'neither process= nor' if process is None else 'both process= and'} sink=",
                expected="one of them",
                do="give process= a foreachBatch function, or sink= a function that names a sink of Spark's own",
            )
        if process is not None and replay_sink is not None:
            raise InputRefused(
                seen="run() was given process= and replay_sink=",
                expected="process= alone, which a replay calls too",
                do="ask stream.is_replay in that function",
            )
        if self._live is not None:
            self._live.run(frame, process, sink, trigger)
            return
        assert self._replay is not None
        write = process or replay_sink
        if write is None:
            raise InputRefused(
                seen="run() was given sink= and no replay_sink=, in a replay",
                expected="a way to write a shard: Spark's own sinks know a batch by the checkpoint of the live job",
                do="give replay_sink= a function (frame, batch_id) that writes to a place of its own, or by a key",
            )
        self._replay.run(frame, write)

    @property
    def _mode(self) -> LiveQuery | ShardReplay:
        mode = self._live or self._replay
        assert mode is not None
        return mode
