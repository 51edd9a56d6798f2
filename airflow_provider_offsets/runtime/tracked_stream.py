"""A Structured Streaming query whose every batch is fenced, recorded, and can be stopped in between.

For each batch: check the fence and the stop request → the user's function → record the batch → Spark commits it.

- Returning from ``foreachBatch`` commits the batch, so a stop *before* a batch is an exception out of the callback:
  ``offsets/N+1`` stays planned, and is what the next epoch runs first (tried on Spark 4.2.0).
- ``query.stop()`` cuts a running batch, so it is called on an idle query only.
- A batch that the history has already is not run again: its output was finished before it was recorded. Spark asks
  for it when the driver died between the record and Spark's own commit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, DriverState, Ended, EndedHow, Epoch, Heartbeat
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import BatchConflict, CheckpointError, Fenced, InputRefused
from airflow_provider_offsets.jobs.process import this_process
from airflow_provider_offsets.runtime.hadoop_files import HadoopCheckpoint
from airflow_provider_offsets.runtime.insist import insist
from airflow_provider_offsets.runtime.settings import Settings, read_settings
from airflow_provider_offsets.stores import open_store
from airflow_provider_offsets.stores.checkpoint import read_entry, read_initial, read_query_id, read_state
from airflow_provider_offsets.stores.control import Control

T = TypeVar("T")
log = logging.getLogger(__name__)

OURS = {"assign", "subscribe", "subscribepattern", "kafka.group.id"}
"""Options of the Kafka source that the plan decides, beside those that begin with ``starting``. Spark ignores case."""

WAITING = {"Waiting for data to arrive", "Waiting for next trigger"}
"""What Spark says of a query that does nothing. With a trigger interval it is mostly the second one."""

ProcessBatch = Callable[[Any, int], None]


class _EndQuery(Exception):
    """Raised out of the callback to end the query before a batch. Never seen by a user."""


class TrackedStream:
    """The tracked life of one streaming query: claims its epoch on entry, closes it on exit.

    ::

        with TrackedStream(spark) as stream:
            records = stream.read_kafka()
            stream.run(transform(records), process=write)

    ``write(batch, batch_id)`` is a ``foreachBatch`` function. ``stream.epoch`` is there for sinks that can refuse an
    older writer: a driver that was cut off from the world inside this function can only be fenced by its sink.

    :param spark: a classic session, submitted by ``SubmitStreamingJobOperator``.
    :param settings: taken from the session's conf if left out.
    :raises Fenced: another driver holds the epoch; nothing was read or written.
    :raises ModeUnsupported: the session is a Spark Connect client.
    :raises InputRefused: the driver was started by hand, without an epoch to claim.
    """

    def __init__(self, spark: Any, settings: Settings | None = None) -> None:
        self._spark = spark
        self._settings = settings or read_settings(spark)
        self._store = open_store(self._settings.secrets.store_url)
        self._control = Control(self._store, self._settings.pipeline)
        self._files = HadoopCheckpoint(spark, self._settings.claim.checkpoint)
        self._last: Batch | None = None
        self._query_id = ""
        self._beats = 0
        # The callback thread and the watching one agree under this lock: a user's function never begins once the
        # query is being ended, and the query is never stopped while one runs.
        self._between = threading.Condition()
        self._busy = False
        self._ending: EndedHow | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        try:
            self._insist(self._claim)
        except BaseException:
            self._store.close()
            raise
        log.info("Claimed epoch %d of pipeline %r", self.epoch, self._settings.pipeline)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._close_epoch(error)
        finally:
            self._store.close()

    @property
    def epoch(self) -> int:
        """The number of the epoch that this driver holds."""
        return self._settings.claim.number

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
                do="say topics and start in the pipeline and the DAG run; accept loss by name in the plan",
            )
        claim = self._settings.claim
        reader = self._spark.readStream.format("kafka").options(**self._settings.secrets.kafka_options, **options)
        return reader.options(**self._subscription(), startingOffsets=claim.start.to_json()).load()

    def run(self, frame: Any, *, process: ProcessBatch, **trigger: Any) -> None:
        """Run the query until it is asked to stop, is fenced, or fails.

        :param frame: what came of ``read_kafka``, transformed. One Kafka source.
        :param process: called for each batch that is not recorded yet; when it returns, its output must be finished.
        :param trigger: as for ``DataStreamWriter.trigger``, such as ``processingTime="1 second"``.
        :raises Fenced: a newer epoch has the word; nothing of this one was written after it noticed.
        :raises StoreUnreachable: the store did not answer for ``store_patience_s``; the query was ended first.
        """
        writer = frame.writeStream.queryName(self._settings.pipeline)
        writer = writer.option("checkpointLocation", self._settings.claim.checkpoint)
        if trigger:
            writer = writer.trigger(**trigger)
        query = writer.foreachBatch(lambda batch, batch_id: self._run_batch(process, batch, batch_id)).start()
        try:
            self._watch(query)
        except BaseException as error:
            how = EndedHow.FENCED if isinstance(error, Fenced) else EndedHow.FAILED
            self._end_between_batches(query, how)
            raise
        if self._ending is EndedHow.FENCED:
            self._insist(lambda: self._control.check_fence(self.epoch))

    def _claim(self) -> Epoch:
        newest = next(self._store.newest_first(self._settings.stream), None)
        return self._control.claim_epoch(
            self._settings.claim,
            this_process(),
            at_ms=_now_ms(),
            after_row_time_ms=None if newest is None else newest.row_time_ms,
        )

    def _subscription(self) -> dict[str, str]:
        start = self._settings.claim.start
        if self._settings.subscription is Subscription.SUBSCRIBE:
            return {"subscribe": ",".join(self._settings.stream.topics)}
        assigned = ",".join(
            f'"{topic}":[{",".join(str(number) for number in start.of_topic(topic))}]' for topic in start.topics
        )
        return {"assign": f"{{{assigned}}}"}

    def _run_batch(self, process: ProcessBatch, frame: Any, batch_id: int) -> None:
        """Spark's callback: one batch, on Spark's own thread."""
        try:
            self._enter_batch()
            try:
                batch = self._planned(batch_id)
                if self._is_recorded(batch):
                    log.info("Batch %d is recorded already; it is not run again", batch_id)
                else:
                    begun = BegunBatch(batch_id, self._query_id, batch.batch_time_ms, batch.ranges)
                    self._insist(lambda: self._control.begin(self.epoch, begun))
                    process(frame, batch_id)
                    self._record(batch)
                self._last = batch
            finally:
                with self._between:
                    self._busy = False
                    self._between.notify_all()
        except _EndQuery:
            raise
        except BaseException as error:
            self._failure = error
            raise

    def _enter_batch(self) -> None:
        ending = self._insist(self._asked_to_end)
        with self._between:
            self._ending = self._ending or ending
            if self._ending is not None:
                raise _EndQuery(self._ending.value)
            self._busy = True

    def _asked_to_end(self) -> EndedHow | None:
        try:
            self._control.check_fence(self.epoch)
        except Fenced:
            return EndedHow.FENCED
        return None if self._control.stop_request(self.epoch) is None else EndedHow.STOPPED

    def _planned(self, batch_id: int) -> Batch:
        """The batch as the checkpoint's own log has it: never from the data, which may be empty or compacted."""
        if not self._query_id:
            self._query_id = read_query_id(self._files) or ""
        entry = read_entry(self._files, batch_id)
        if entry is None:
            raise CheckpointError(
                seen=f"{self._files.location}/offsets/{batch_id} is not there while batch {batch_id} runs",
                expected="the offset log that Spark writes before each batch",
                do="turn off real-time mode and asynchronous progress tracking for tracked jobs",
            )
        return Batch(
            start=self._end_before(batch_id),
            end=entry.end,
            batch_time_ms=entry.batch_time_ms,
            batch_id=batch_id,
            query_id=self._query_id,
            epoch=self.epoch,
        )

    def _end_before(self, batch_id: int) -> Position:
        if self._last is not None and self._last.batch_id == batch_id - 1:
            return self._last.end
        previous = read_entry(self._files, batch_id - 1) if batch_id > 0 else None
        found = read_initial(self._files) if previous is None else previous.end
        return found if found is not None else self._settings.claim.start

    def _is_recorded(self, batch: Batch) -> bool:
        batch_id = batch.batch_id
        assert batch_id is not None
        found: Batch | None = self._insist(
            lambda: self._store.find(self._settings.stream, self._query_id, batch_id, batch.batch_time_ms)
        )
        if found is None or found.has_same_offsets(batch):
            return found is not None
        raise BatchConflict(
            seen=f"batch {batch_id} of query {self._query_id} reads {batch.start} to {batch.end}",
            expected=f"{found.start} to {found.end}, as it is recorded",
            do="find who changed the checkpoint by hand; restart from a chosen position",
        )

    def _record(self, batch: Batch) -> None:
        self._insist(lambda: self._control.check_fence(self.epoch))
        self._insist(lambda: self._store.append(self._settings.stream, batch))

    def _watch(self, query: Any) -> None:
        """Beat, and stop an idle query that is asked to end, until the query is over."""
        next_beat = 0.0
        while not self._is_over(query):
            if time.monotonic() >= next_beat:
                self._beat(query)
                next_beat = time.monotonic() + self._settings.heartbeat_interval_s
            ending = self._insist(self._asked_to_end)
            if ending is not None and not self._busy:
                self._end_between_batches(query, ending)
                return

    def _is_over(self, query: Any) -> bool:
        try:
            return bool(query.awaitTermination(self._settings.poll_interval_s))
        except Exception:
            if self._ending is not None:
                return True
            if self._failure is None:
                raise
            # Spark wraps what our callback raised in its own exception and keeps only the text of it.
            raise self._failure from None

    def _end_between_batches(self, query: Any, how: EndedHow) -> None:
        """End the query from outside its callback: let no further batch begin, let the running one finish, stop."""
        with self._between:
            self._ending = self._ending or how
            self._between.wait_for(lambda: not self._busy)
        query.stop()

    def _beat(self, query: Any) -> None:
        self._beats += 1
        position = self._position() if self._is_idle(query) else None
        heartbeat = Heartbeat(
            beat=self._beats,
            state=DriverState.PROCESSING if position is None else DriverState.IDLE,
            at_ms=_now_ms(),
            last_batch_id=None if self._last is None else self._last.batch_id,
            position=position,
        )
        self._insist(lambda: self._control.beat(self.epoch, heartbeat))

    def _is_idle(self, query: Any) -> bool:
        status = query.status
        with self._between:
            waits = not status["isDataAvailable"] and status["message"] in WAITING
            return waits and not self._busy

    def _position(self) -> Position | None:
        if self._last is not None:
            return self._last.end
        # Before the first batch of this epoch: one that is planned already is still to come.
        state = read_state(self._files)
        if state is None or state.committed_batch_id == UNSTARTED or state.planned_batch_id is not None:
            return None
        return state.committed

    def _close_epoch(self, error: BaseException | None) -> None:
        how = self._ending or (EndedHow.FINISHED if error is None else EndedHow.FAILED)
        ended = Ended(
            how=how,
            at_ms=_now_ms(),
            last_batch_id=UNSTARTED if self._last is None else self._last.batch_id,
            position=None if self._last is None else self._last.end,
            message="" if error is None else f"{type(error).__name__}: {error}"[:2000],
        )
        standing = self._insist(lambda: self._control.end(self.epoch, ended))
        log.info("Epoch %d ended: %s", self.epoch, standing.how.value)

    def _insist(self, call: Callable[[], T]) -> T:
        return insist(call, patience_s=self._settings.store_patience_s)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
