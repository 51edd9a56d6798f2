"""A query whose batches run the user's function; each batch starts and is recorded inside Spark's own callback.

- Returning from ``foreachBatch`` commits the batch. So a stop *before* a batch raises out of the callback.
  ``offsets/N+1`` then stays planned, and the next epoch runs that batch first (tried on Spark 4.2.0).
- ``query.stop()`` interrupts a running batch, so it is called only while the query is idle.
- A batch is recorded only if the JVM still answers after the user's function (see ``jvm``).
- A batch that is already recorded does not run again: its output was complete before it was recorded. Spark asks for
  such a batch if the driver died between the record and Spark's commit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.errors import CheckpointError, StopRequested
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.jvm import require_jvm
from airflow_provider_offsets.runtime.write_count import WriteCount

log = logging.getLogger(__name__)

WAITING = {"Waiting for data to arrive", "Waiting for next trigger"}
"""Spark's status messages for an idle query. With a trigger interval, the second one is the usual one."""

ProcessBatch = Callable[[Any, int], None]


class _EndQuery(Exception):
    """Raised out of the callback to end the query before a batch. Users never see it."""


class ForeachBatchQuery:
    """One query that runs until it is asked to stop, is fenced, or fails.

    :param epoch: the claimed epoch under which the query runs.
    :param process: the user's ``foreachBatch`` function.
    """

    def __init__(self, epoch: HeldEpoch, process: ProcessBatch) -> None:
        self._epoch = epoch
        self._process = process
        # The callback thread and the watching thread coordinate under this lock: no user function starts once the
        # query is ending, and the query is never stopped while a function runs.
        self._between = threading.Condition()
        self._is_busy = False
        self._is_ending = False
        self._failure: BaseException | None = None

    def run(self, writer: Any) -> None:
        """Start the query of ``writer`` and watch it until it ends.

        :raises Fenced: this driver no longer holds the epoch.
        """
        query = writer.foreachBatch(self._run_batch).start()
        try:
            self._watch(query)
        except BaseException:
            self._end_between_batches(query)
            raise

    def _run_batch(self, frame: Any, batch_id: int) -> None:
        """Run one batch. Spark calls this on a thread of its own."""
        self._enter_batch()
        try:
            batch = self._planned(batch_id)
            if self._is_left_out(batch):
                self._require_no_stop()
            else:
                self._epoch.begin(batch)
                self._epoch.running = batch
                with WriteCount(frame.sparkSession) as written:
                    self._process(frame, batch_id)
                    rows = written.rows()
                require_jvm(frame.sparkSession)
                self._epoch.record(batch, rows=rows)
            self._epoch.last = batch
        except StopRequested:
            self._epoch.ending = EndedHow.STOPPED
            raise
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._epoch.running = None
            with self._between:
                self._is_busy = False
                self._between.notify_all()

    def _enter_batch(self) -> None:
        with self._between:
            if self._is_ending:
                raise _EndQuery
            self._is_busy = True

    def _planned(self, batch_id: int) -> Batch:
        batch = self._epoch.log.batch(batch_id, epoch=self._epoch.number, after=self._epoch.last)
        if batch is not None:
            return batch
        raise CheckpointError(
            seen=f"{self._epoch.log.files.location}/offsets/{batch_id} does not exist while batch {batch_id} runs",
            expected="the offset log that Spark writes before each batch",
            do="turn off real-time mode and asynchronous progress tracking for tracked jobs",
        )

    def _is_left_out(self, batch: Batch) -> bool:
        """Return whether Spark may commit this batch without running it."""
        if self._epoch.last is None and self._epoch.log.is_filler(batch):
            log.info("Batch %d is the empty first batch of a seeded checkpoint; it is not run", batch.batch_id)
            return True
        if self._epoch.is_finished(batch):
            log.info("Batch %d is recorded already; it is not run again", batch.batch_id)
            return True
        return False

    def _require_no_stop(self) -> None:
        """Raise if a batch that is not started in the record must not be committed.

        :raises StopRequested: the job was asked to stop.
        :raises Fenced: another driver may be running on this checkpoint.
        """
        if self._epoch.is_stop_requested():
            raise StopRequested(
                seen="the driver was asked to stop", expected="no stop request", do="No action needed: the driver ends."
            )

    def _watch(self, query: Any) -> None:
        """Send heartbeats, report an idle query, and stop the query on request, until the query ends."""
        next_beat = 0.0
        while not self._is_over(query):
            if clock.monotonic_s() >= next_beat:
                self._epoch.beat()
                next_beat = clock.monotonic_s() + self._epoch.settings.heartbeat_interval_s
            if self._epoch.is_stop_requested():
                if not self._is_busy:
                    self._end_between_batches(query)
                    self._epoch.ending = EndedHow.STOPPED
                    return
            else:
                self._acknowledge_idle(query)

    def _is_over(self, query: Any) -> bool:
        try:
            return bool(query.awaitTermination(self._epoch.settings.poll_interval_s))
        except Exception:
            if self._epoch.ending is EndedHow.STOPPED:
                return True
            if self._failure is None:
                raise
            # Spark wraps an exception from our callback in one of its own and keeps only its text.
            raise self._failure from None

    def _end_between_batches(self, query: Any) -> None:
        """End the query from outside its callback: block new batches, wait for the running one, then stop the query."""
        with self._between:
            self._is_ending = True
            self._between.wait_for(lambda: not self._is_busy)
        query.stop()

    def _acknowledge_idle(self, query: Any) -> None:
        """Record that there is nothing to read, unless a batch starts meanwhile."""
        with self._between:
            status = query.status
            if not self._is_busy and not status["isDataAvailable"] and status["message"] in WAITING:
                self._epoch.idle()
