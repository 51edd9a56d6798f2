"""A query whose batches go through the user's function: each begins and is recorded in Spark's own callback.

- Returning from ``foreachBatch`` commits the batch, so a stop *before* a batch is an exception out of the callback:
  ``offsets/N+1`` stays planned, and is what the next epoch runs first (tried on Spark 4.2.0).
- ``query.stop()`` cuts a running batch, so it is called on an idle query only.
- A batch is recorded only if the JVM still answers after the user's function (see ``jvm``).
- A batch that was recorded before is not run again: its output was finished before it was recorded. Spark asks for it
  when the driver died between the record and Spark's own commit.
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

log = logging.getLogger(__name__)

WAITING = {"Waiting for data to arrive", "Waiting for next trigger"}
"""Spark's messages for a query that does nothing. With a trigger interval it is mostly the second one."""

ProcessBatch = Callable[[Any, int], None]


class _EndQuery(Exception):
    """Raised out of the callback to end the query before a batch. Never seen by a user."""


class ForeachBatchQuery:
    """One query that runs until it is asked to stop, is fenced, or fails."""

    def __init__(self, epoch: HeldEpoch, process: ProcessBatch) -> None:
        self._epoch = epoch
        self._process = process
        # The callback thread and the watching one agree under this lock: a user's function never begins once the
        # query is being ended, and the query is never stopped while one runs.
        self._between = threading.Condition()
        self._is_busy = False
        self._is_ending = False
        self._failure: BaseException | None = None

    def run(self, writer: Any) -> None:
        """Start the query of ``writer`` and stay with it until it is over.

        :raises Fenced: the epoch is not this driver's any more.
        """
        query = writer.foreachBatch(self._run_batch).start()
        try:
            self._watch(query)
        except BaseException:
            self._end_between_batches(query)
            raise

    def _run_batch(self, frame: Any, batch_id: int) -> None:
        """Spark's callback: one batch, on Spark's own thread."""
        self._enter_batch()
        try:
            batch = self._planned(batch_id)
            if self._is_left_out(batch):
                self._require_no_stop()
            else:
                self._epoch.begin(batch)
                self._process(frame, batch_id)
                require_jvm(frame.sparkSession)
                self._epoch.record(batch)
            self._epoch.last = batch
        except StopRequested:
            self._epoch.ending = EndedHow.STOPPED
            raise
        except BaseException as error:
            self._failure = error
            raise
        finally:
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
            seen=f"{self._epoch.log.files.location}/offsets/{batch_id} is not there while batch {batch_id} runs",
            expected="the offset log that Spark writes before each batch",
            do="turn off real-time mode and asynchronous progress tracking for tracked jobs",
        )

    def _is_left_out(self, batch: Batch) -> bool:
        """Return whether Spark may commit a batch without running it."""
        if self._epoch.last is None and self._epoch.log.is_filler(batch):
            log.info("Batch %d has no records; it is between the old checkpoint and this one", batch.batch_id)
            return True
        if self._epoch.is_finished(batch):
            log.info("Batch %d is recorded already; it is not run again", batch.batch_id)
            return True
        return False

    def _require_no_stop(self) -> None:
        """Return if a batch that does not begin in the record may be committed.

        :raises StopRequested: the job was asked to stop.
        :raises Fenced: another driver may run on this checkpoint.
        """
        if self._epoch.is_stop_requested():
            raise StopRequested(seen="a stop request", expected="none", do="No action needed: the driver ends.")

    def _watch(self, query: Any) -> None:
        """Give signs of life, acknowledge an idle query, and stop it on request, until the query is over."""
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
            # Spark wraps what our callback raised in its own exception and keeps only the text of it.
            raise self._failure from None

    def _end_between_batches(self, query: Any) -> None:
        """End the query from outside its callback: let no further batch begin, let the running one finish, stop."""
        with self._between:
            self._is_ending = True
            self._between.wait_for(lambda: not self._is_busy)
        query.stop()

    def _acknowledge_idle(self, query: Any) -> None:
        """Acknowledge that there is nothing to read, unless a batch begins meanwhile."""
        with self._between:
            status = query.status
            if not self._is_busy and not status["isDataAvailable"] and status["message"] in WAITING:
                self._epoch.idle()
