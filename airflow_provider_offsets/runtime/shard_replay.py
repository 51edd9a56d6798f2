"""The replay of one shard by the user's own program: a bounded read, one call of the function, one record.

Nothing of the live job is touched: no epoch is claimed, no history written, no checkpoint opened.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.replay import Replayed
from airflow_provider_offsets.core.replaying import ShardEnded, ShardProgress, replay_batch_id
from airflow_provider_offsets.errors import Fenced, InputRefused, OffsetsError
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.runtime.foreach_batch import ProcessBatch
from airflow_provider_offsets.runtime.insist import insist
from airflow_provider_offsets.runtime.jvm import require_jvm
from airflow_provider_offsets.runtime.read_count import ReadCount, marked, refuse_stateful
from airflow_provider_offsets.runtime.settings import ReplaySettings
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import OffsetStore

T = TypeVar("T")
log = logging.getLogger(__name__)

OF_TRIGGERS = {"maxoffsetspertrigger", "minoffsetspertrigger", "maxtriggerdelay"}
"""Options of the Kafka source that say how big a micro-batch is: a shard is one read."""


class ShardReplay:
    """One try to replay one shard."""

    def __init__(self, spark: Any, settings: ReplaySettings, store: OffsetStore) -> None:
        self._spark = spark
        self._settings = settings
        self._claim = settings.claim
        self._control = Control(store, settings.pipeline)
        self._source: Any = None
        self._fenced: Fenced | None = None
        self._is_recorded = False

    @property
    def run_id(self) -> str:
        """The run that this shard belongs to."""
        return self._claim.run_id

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """What it reads."""
        return self._claim.shard.ranges

    def claim(self) -> None:
        """Claim this try.

        :raises Fenced: another driver has it, or the run was superseded.
        """
        holder = machine().session_leader()
        self._insist(lambda: self._control.claim_shard(self._claim, holder, at_ms=clock.now_ms()))
        self._check_fence()
        log.info("Claimed try %d of shard %d of %r", self._claim.number, self._claim.shard.number, self.run_id)

    def read(self, kafka_options: dict[str, str], options: dict[str, str]) -> Any:
        """Give the records of the shard, as a DataFrame of Spark's Kafka source."""
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

        :raises Fenced: the try lost the word; nothing is recorded.
        :raises InputRefused: the transforms keep state, or ``frame`` does not come of ``read_kafka``.
        """
        shard = self._claim.shard
        refuse_stateful(frame)
        self._check_fence()
        began = clock.monotonic_s()
        with ReadCount(self._spark) as count, self._alive(count, began):
            try:
                process(frame, replay_batch_id(self.run_id, shard.number))
            except BaseException:
                if self._fenced is not None:
                    raise self._fenced from None
                raise
            read = count.most()
        require_jvm(self._spark)
        elapsed_ms = round((clock.monotonic_s() - began) * 1000)
        counted_apart = read < shard.record_count
        if counted_apart:
            log.info("The program's actions read %d of %d offsets; counting once", read, shard.record_count)
            read = max(read, self._source.count())
        self._check_fence()
        replayed = Replayed(
            run_id=self.run_id,
            shard=shard.number,
            ranges=shard.ranges,
            records_read=read,
            records_expected=shard.record_count,
            application_version=self._claim.application_version,
            log=self._claim.log,
            elapsed_ms=elapsed_ms,
            counted_apart=counted_apart,
        )
        self._insist(lambda: self._control.record_replayed(replayed))
        self._is_recorded = True
        log.info("Shard %d is replayed: %d records read", shard.number, read)

    def close(self, error: BaseException | None) -> None:
        """Record the end of this try."""
        how = EndedHow.FINISHED if self._is_recorded else EndedHow.FAILED
        message = "the program ended without stream.run()"
        if error is not None:
            how = EndedHow.FENCED if isinstance(error, Fenced) else how
            message = f"{type(error).__name__}: {error}"[:2000]
        ended = ShardEnded(
            how=how,
            at_ms=clock.now_ms(),
            message="" if self._is_recorded and error is None else message,
            retriable=not isinstance(error, InputRefused),
        )
        self._insist(lambda: self._control.end_shard(self._claim, ended))

    def _check_fence(self) -> None:
        self._insist(lambda: self._control.check_shard_fence(self._claim))

    @contextlib.contextmanager
    def _alive(self, count: ReadCount, began: float) -> Iterator[None]:
        """Say how far the shard is, and cut the work short once the word is lost, from a thread of its own."""
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
                self._control.check_shard_fence(self._claim)
                self._control.note_progress(self._claim, progress)
            except Fenced as error:
                self._fenced = error
                self._spark.sparkContext.cancelAllJobs()
                return
            except OffsetsError as error:  # what decides is asked again, with patience, before the record
                log.warning("No sign of life: %s", error)

    def _insist(self, call: Callable[[], T]) -> T:
        return insist(call, patience_s=self._settings.store_patience_s)


def assign_option(position: Position) -> str:
    """Give what Spark's Kafka source calls ``assign``: the partitions of ``position``, topic by topic."""
    assigned = ",".join(
        f'"{topic}":[{",".join(str(number) for number in position.of_topic(topic))}]' for topic in position.topics
    )
    return f"{{{assigned}}}"
