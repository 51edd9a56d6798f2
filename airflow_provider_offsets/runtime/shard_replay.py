"""The replay of one shard by the user's own program: one bounded read, one call of the function, one record.

A driver claims the launch of its tag and marks the shard as started before it calls the function. It records the shard
when the output is complete. Each step is one compare-and-swap of the shard's record, which also fences: once a try has
ended, its driver can do none of these steps.

A replay does not touch the live job: no epoch is claimed, no history is written, no checkpoint is opened.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.replay.claim import ShardProgress, replay_batch_id
from airflow_provider_offsets.core.replay.shard import (
    ClaimShard,
    EndShard,
    RecordShard,
    ShardEvent,
    ShardPhase,
    ShardRead,
    ShardRecord,
    StartShard,
    TryEnded,
)
from airflow_provider_offsets.core.sink.output import Output, no_output, output_of_shard
from airflow_provider_offsets.errors import Fenced, InputRefused, OffsetsError
from airflow_provider_offsets.runtime.foreach_batch import ProcessBatch
from airflow_provider_offsets.runtime.jvm import require_jvm
from airflow_provider_offsets.runtime.read_count import ReadCount, marked, refuse_stateful
from airflow_provider_offsets.runtime.retry import retry
from airflow_provider_offsets.runtime.scratch import refuse_shared_scratch
from airflow_provider_offsets.runtime.settings import ReplaySettings
from airflow_provider_offsets.runtime.write_count import WriteCount
from airflow_provider_offsets.stores.protocols import ControlStore

T = TypeVar("T")
log = logging.getLogger(__name__)

OF_TRIGGERS = {"maxoffsetspertrigger", "minoffsetspertrigger", "maxtriggerdelay"}
"""Options of the Kafka source that limit a micro-batch. A replay ignores them, because a shard is one read."""


class ShardReplay:
    """One try to replay one shard."""

    def __init__(self, spark: Any, settings: ReplaySettings, store: ControlStore) -> None:
        self._spark = spark
        self._settings = settings
        self._claim = settings.claim
        self._control = ReplayControl(store, settings.pipeline)
        self._holder = machine().session_leader()
        self._source: Any = None
        self._fenced: Fenced | None = None
        self._is_processing = False

    @property
    def run_id(self) -> str:
        """Id of the run that this shard belongs to."""
        return self._claim.run_id

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """Offset ranges that this shard reads."""
        return self._claim.shard.ranges

    @property
    def query_id(self) -> str:
        """Run id of the replay, which has no checkpoint and so no query id."""
        return self.run_id

    @property
    def output(self) -> Output:
        """Output of the shard.

        :raises InputRefused: no function of the program runs for the shard.
        """
        if self._is_processing:
            return output_of_shard(self._settings.pipeline, self.run_id, self._claim.shard)
        raise no_output("use them in the function that is passed to run() as process= or replay_sink=")

    def claim(self) -> None:
        """Claim the launch that this driver was started for.

        :raises Fenced: the launch was cancelled or superseded, or another driver has claimed it.
        """
        self._change(ClaimShard(self._claim.tag, self._holder))
        log.info("Claimed try %d of shard %d of %r", self._claim.number, self._claim.shard.number, self.run_id)

    def read(self, kafka_options: dict[str, str], options: dict[str, str]) -> Any:
        """Return the records of the shard as a DataFrame of Spark's Kafka source.

        :param kafka_options: options of the Kafka connection.
        :param options: further options of the source; those that limit a micro-batch are ignored.
        """
        ranges = self._claim.shard.ranges
        start = Position({TopicPartition(each.topic, each.partition): each.start for each in ranges})
        end = Position({TopicPartition(each.topic, each.partition): each.end for each in ranges})
        kept = {key: value for key, value in options.items() if key.lower() not in OF_TRIGGERS}
        reader = self._spark.read.format("kafka").options(**kafka_options, **kept)
        self._source = reader.options(
            assign=assign_option(start),
            startingOffsets=start.to_json(),
            endingOffsets=end.to_json(),
            failOnDataLoss="true",
        ).load()
        return marked(self._source)

    def run(self, frame: Any, process: ProcessBatch) -> None:
        """Call ``process`` once, and record the shard.

        :param frame: the DataFrame of :meth:`read`, transformed.
        :param process: called with the DataFrame and the batch id of the shard.
        :raises Fenced: the shard's record says that this try has ended; nothing is recorded.
        :raises InputRefused: the transforms keep state; ``frame`` does not derive from ``read_kafka``; or the session
            uses an output committer that shares its scratch folder.
        """
        shard = self._claim.shard
        refuse_stateful(frame)
        refuse_shared_scratch(self._spark)
        run = uuid.uuid4().hex
        self._change(StartShard(self._claim.tag, self._holder, run))
        began = clock.monotonic_s()
        with ReadCount(self._spark) as count, WriteCount(self._spark) as written, self._alive(count, began):
            self._is_processing = True
            try:
                process(frame, replay_batch_id(self.run_id, shard.number))
            except BaseException:
                if self._fenced is not None:
                    raise self._fenced from None
                raise
            finally:
                self._is_processing = False
            read, rows = count.most(), written.rows()
        require_jvm(self._spark)
        elapsed_ms = round((clock.monotonic_s() - began) * 1000)
        counted_apart = read < shard.record_count
        if counted_apart:
            log.info("The program's actions read %d of %d offsets; counting once", read, shard.record_count)
            read = max(read, self._source.count())
        done = ShardRead(read, elapsed_ms, counted_apart, rows.count, is_empty=rows.saw_none and read > 0)
        self._change(RecordShard(self._claim.tag, self._holder, run, done))
        log.info("Shard %d is replayed: %d records read", shard.number, read)

    def close(self, error: BaseException | None) -> None:
        """Record the end of this try. A shard that is already recorded as replayed stays replayed."""
        how, message = EndedHow.FAILED, "the program ended without stream.run()"
        if error is not None:
            how = EndedHow.FENCED if isinstance(error, Fenced) else how
            message = f"{type(error).__name__}: {error}"[:2000]
        elif self._retry(self._record).phase is ShardPhase.REPLAYED:
            how, message = EndedHow.FINISHED, ""
        ended = TryEnded(how, clock.now_ms(), message, retriable=not isinstance(error, InputRefused))
        self._change(EndShard(self._claim.tag, self._holder, ended))

    @contextlib.contextmanager
    def _alive(self, count: ReadCount, began: float) -> Iterator[None]:
        """Report progress from a separate thread, and cancel the work once this try has ended by the shard's record."""
        over = threading.Event()
        thread = threading.Thread(target=self._live, args=(count, began, over), name="signs-of-life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _live(self, count: ReadCount, began: float, over: threading.Event) -> None:
        beats = 0
        while not over.wait(self._settings.heartbeat_interval_s):
            beats += 1
            read = min(count.so_far(), self._claim.shard.record_count)
            progress = ShardProgress(beats, read, round((clock.monotonic_s() - began) * 1000))
            try:
                record = self._record()
                if self._holds(record):
                    self._control.note_progress(self._claim, progress)
                    continue
            except OffsetsError as error:  # only the final swap decides, and it is retried for longer
                log.warning("The heartbeat was not written: %s", error)
                continue
            self._fenced = Fenced(
                seen=f"shard {self._claim.shard.number} of {self.run_id!r} is {record.phase.value}: {record.newest}",
                expected=f"try {self._claim.number} to be the running one",
                do="No action needed: this driver ends, and records nothing.",
            )
            self._spark.sparkContext.cancelAllJobs()
            return

    def _record(self) -> ShardRecord:
        return self._control.shard(self.run_id, self._claim.shard.number)

    def _holds(self, record: ShardRecord) -> bool:
        newest = record.newest
        return record.phase is ShardPhase.RUNNING and newest is not None and newest.tag == self._claim.tag

    def _change(self, event: ShardEvent) -> None:
        number = self._claim.shard.number
        self._retry(lambda: self._control.change_shard(self.run_id, number, event))

    def _retry(self, call: Callable[[], T]) -> T:
        return retry(call, retry_timeout_s=self._settings.store_retry_timeout_s)


def assign_option(position: Position) -> str:
    """Return the value of the Kafka source option ``assign``: the partitions of ``position`` by topic, as JSON."""
    assigned = ",".join(
        f'"{topic}":[{",".join(str(number) for number in position.of_topic(topic))}]' for topic in position.topics
    )
    return f"{{{assigned}}}"
