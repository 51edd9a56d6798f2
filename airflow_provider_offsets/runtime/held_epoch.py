"""What a driver does under its epoch, with any kind of sink: claim, start, record, go idle, end.

Each of these steps is one compare-and-swap of the pipeline's record. The step itself fails if the epoch was closed or
the job was asked to stop. The driver reads the record only to see a stop request while no batch starts.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.checkpoint.log import batch_ids
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Batch, digest_of, next_row_time_ms
from airflow_provider_offsets.core.epoch import Claim, Ended, EndedHow, Heartbeat, ProcessIdentity, Recorded
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import ClaimLaunch, EndEpoch, Event, GoIdle, RecordBatch, StartBatch
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord, StartedBatch
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import BatchConflict, Fenced, RecordRestored, StateChanged
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.retry import retry
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows
from airflow_provider_offsets.stores.protocols import OffsetStore

T = TypeVar("T")
log = logging.getLogger(__name__)


class HeldEpoch:
    """The epoch that this driver holds. Every store call is retried for ``store_retry_timeout_s`` before it fails.

    :param settings: settings of the driver, with the claim of its launch.
    :param store: offset store of the pipeline.
    :param log: log of the checkpoint that the epoch runs on.
    """

    def __init__(self, settings: Settings, store: OffsetStore, log: BatchLog) -> None:
        self.settings = settings
        self.log = log
        self.last: Batch | None = None
        """Last batch that this epoch processed, or skipped because it was already recorded."""
        self.running: Batch | None = None
        """Batch for which the program's function runs now."""
        self.ending: EndedHow | None = None
        """How the latest run of the query ended; None while it runs."""
        self._control = Control(store, settings.pipeline)
        self._cell = self._control.cell
        self._lock = threading.RLock()  # Spark's callback thread and the watching thread share the cell
        self._holder: ProcessIdentity | None = None
        self._run = ""
        self._may_have_run = True
        """Whether a batch that an earlier run started may have been written."""
        self._is_at_start = True
        self._beats = 0

    @property
    def number(self) -> int:
        """Number of the epoch."""
        return self.settings.claim.number

    def claim(self) -> None:
        """Claim the launch that this driver was started for. Nothing is written before the claim.

        :raises Fenced: the launch was cancelled, a newer launch exists, or another process has claimed the launch.
        """
        self._holder = machine().this_process()
        self._change(ClaimLaunch(self._claim.tag, self._holder, clock.now_ms()))
        log.info("Claimed epoch %d of pipeline %r", self.number, self.settings.pipeline)

    def start_run(self) -> None:
        """Prepare one run of the query: account for what an earlier run in this process left behind.

        A batch that the earlier run started and Spark committed is complete, so it is recorded. A batch that Spark
        planned but did not commit counts as repeated when it starts again. A batch that Spark never planned does not.

        :raises Fenced: this driver no longer holds the epoch.
        :raises StateChanged: another job has written to the checkpoint since the plan, or somebody has removed it.
        """
        if not self._run or self.last is not None:
            self.require_own_log()
        started = self._record.started
        planned = None if started is None else self.log.batch(started.batch_id, epoch=self.number, after=self.last)
        if planned is not None and self.log.is_committed(planned.batch_id or 0):
            self.record_committed(planned)
        self._may_have_run = started is None or planned is not None
        self._run, self.ending = uuid.uuid4().hex, None

    def require_own_log(self) -> None:
        """Raise if the checkpoint is not the one that this epoch has run on, or that its plan saw.

        A query on an empty checkpoint would begin again at the start of the epoch.

        :raises StateChanged: somebody has removed or replaced the checkpoint, or another job has written to it.
        """
        if self.last is None:
            self._require_planned_log()
        elif not self.log.has(self.last.batch_id or 0):
            raise StateChanged(
                seen=f"the checkpoint {self.log.files.location} no longer has batch {self.last.batch_id}",
                expected=f"the log of epoch {self.number}",
                do="find out who removed or replaced the checkpoint; then plan again",
            )

    def is_stop_requested(self) -> bool:
        """Return whether the job was asked to stop. Reads the record once.

        :raises Fenced: this driver no longer holds the epoch.
        """
        self._retry(self._cell.read)
        record = self._record
        tag = None if record.launch is None else record.launch.tag
        if (tag, record.holder, record.phase) != (self._claim.tag, self._holder, Phase.RUNNING):
            ended = f"was closed: {record.ended.message!r}" if record.ended is not None else "is not the newest one"
            raise Fenced(
                seen=f"epoch {self.number} of pipeline {self.settings.pipeline!r} {ended}; the newest launch is epoch"
                f" {record.epoch}",
                expected="the newest launch, held by this driver",
                do="No action needed: this driver ends, and records nothing.",
            )
        return record.stop is not None

    def is_finished(self, batch: Batch) -> bool:
        """Return whether this epoch or an earlier one has already recorded a batch that Spark asks for.

        Only the newest recorded batch can be such a batch: the driver ended before Spark committed it.

        :raises BatchConflict: the batch was recorded with other offsets.
        """
        recorded = self._record.recorded
        newest = recorded if recorded is not None and recorded.batch_id is not None else self._claim.recorded_before
        if newest is None or (newest.query_id, newest.batch_id) != (batch.query_id, batch.batch_id):
            return False
        if newest.digest == digest_of(batch):
            return True
        raise BatchConflict(
            seen=f"batch {batch.batch_id} of query {batch.query_id} reads {batch.start} to {batch.end}",
            expected=f"the offsets that epoch {newest.epoch} recorded for it, in the row of {newest.row_time_ms}",
            do="find out who changed the checkpoint by hand, and restart from a position that you name",
        )

    def begin(self, batch: Batch) -> None:
        """Start a batch: store its offsets and mark it as started in the record, before any of its output is written.

        :raises StopRequested: the job was asked to stop.
        :raises Fenced: this driver no longer holds the epoch.
        :raises StateChanged: the first batch of the epoch does not start at the planned position.
        """
        self._require_start(batch.start or Position())
        placed = batch.at_row(next_row_time_ms(batch.batch_time_ms, self._record.last_row_time_ms))
        started = StartedBatch(
            batch_id=batch.batch_id or 0,
            query_id=batch.query_id or "",
            batch_time_ms=batch.batch_time_ms,
            run=self._run,
            row_time_ms=placed.row_time_ms,
            digest=digest_of(batch),
        )
        self._begin(started, prepare=placed)

    def begin_unplanned(self, batch_id: int) -> None:
        """Start a batch whose end offsets Spark has not planned yet.

        :raises: as :meth:`begin`.
        """
        self._require_start(self.log.start_of(batch_id, after=self.last))
        self._begin(StartedBatch(batch_id, self.log.query_id, clock.now_ms(), self._run))

    def record_committed(self, batch: Batch, rows: Mapping[int, Rows] | None = None) -> Batch:
        """Record the started batch, which Spark has committed, and account for what Spark ran after it (``sink=``).

        A superseded driver that still lives may commit the started batch just before Spark reads the log. Spark then
        runs the next batch instead, which this epoch did not start. That batch starts in the record together with the
        step that records the one before it. It is recorded too if Spark has committed it.

        :param batch: the started batch, as the log has it.
        :param rows: rows that the sink reported, by batch id.
        :returns: the last batch that was recorded.
        :raises Fenced: this driver no longer holds the epoch.
        """
        following: Batch | None = batch
        while following is not None and self.log.is_committed(following.batch_id or 0):
            batch = following
            following = self.log.batch((batch.batch_id or 0) + 1, epoch=self.number, after=batch)
            self.record(batch, following, rows=(rows or {}).get(batch.batch_id or 0, UNKNOWN))
            self.last = batch
        return batch

    def record(self, batch: Batch, following: Batch | None = None, *, rows: Rows = UNKNOWN) -> None:
        """Record the started batch as processed: its output is complete.

        :param batch: the started batch.
        :param following: the next batch, if Spark has planned it already under a native sink. It counts as started.
        :param rows: rows that the batch wrote, as far as Spark knows.
        :raises Fenced: this driver no longer holds the epoch.
        """
        started = self._record.started
        assert started is not None, "a batch begins before it is recorded"
        is_kept = started.row_time_ms is not None
        row_time_ms = started.row_time_ms or next_row_time_ms(batch.batch_time_ms, self._record.last_row_time_ms)
        placed = batch.at_row(row_time_ms)
        recorded = Recorded(
            epoch=self.number,
            tag=self._claim.tag,
            batch_id=batch.batch_id,
            query_id=batch.query_id or "",
            row_time_ms=row_time_ms,
            digest=digest_of(batch),
        )
        next_started = None
        if following is not None:
            next_started = StartedBatch(following.batch_id or 0, following.query_id or "", clock.now_ms(), started.run)
        is_empty = rows.saw_none and batch.record_count > 0
        event = RecordBatch(self._claim.tag, self._me, started.run, recorded, next_started, rows.count, is_empty)
        self._change(event, prepare=None if is_kept else placed, append=placed)

    def idle(self) -> None:
        """Record that the driver is ready and has nothing to read. Writes once until the next batch starts.

        :raises Fenced: this driver no longer holds the epoch.
        """
        if not self._record.idle:
            self._change(GoIdle(self._claim.tag, self._me))

    def beat(self) -> None:
        """Send a heartbeat."""
        self._beats += 1
        heartbeat = Heartbeat(self._beats, clock.now_ms(), None if self.last is None else self.last.batch_id)
        self._retry(lambda: self._control.beat(self.number, heartbeat))

    def close(self, error: BaseException | None) -> None:
        """End this epoch in the record.

        :param error: the exception that ends the program, if any. If the record cannot be ended as well, only this
            error is raised and the other is logged.
        :raises Fenced: the program ended without error, and this driver no longer holds the epoch.
        :raises RecordRestored: the program ended without error, and the control store was restored or removed.
        """
        ended = Ended(
            how=self.ending or (EndedHow.FINISHED if error is None else EndedHow.FAILED),
            at_ms=clock.now_ms(),
            last_batch_id=UNSTARTED if self.last is None else self.last.batch_id,
            message="" if error is None else f"{type(error).__name__}: {error}"[:2000],
        )
        try:
            self._change(EndEpoch(self._claim.tag, self._me, ended))
        except (Fenced, RecordRestored) as refused:
            if error is None:
                raise
            log.warning("The end of epoch %d was not recorded: %s", self.number, refused)
            return
        recorded = self._record.ended
        assert recorded is not None
        log.info("Epoch %d ended: %s", self.number, recorded.how.value)

    @property
    def _claim(self) -> Claim:
        return self.settings.claim

    @property
    def _me(self) -> ProcessIdentity:
        assert self._holder is not None, "an epoch is claimed first"
        return self._holder

    @property
    def _record(self) -> PipelineRecord:
        """Record as this driver last saw it."""
        assert self._cell.seen is not None, "an epoch is claimed first"
        return self._cell.seen

    def _begin(self, started: StartedBatch, *, prepare: Batch | None = None) -> None:
        try:
            self._change(StartBatch(self._claim.tag, self._me, started, again=self._may_have_run), prepare=prepare)
        except BatchConflict:
            self.is_stop_requested()  # a later epoch may have stored a batch there: then this driver is fenced
            raise
        self._is_at_start = False

    def _change(self, event: Event, *, prepare: Batch | None = None, append: Batch | None = None) -> None:
        stream = self._claim.stream
        self._retry(lambda: self._cell.change(event, stream=stream, prepare=prepare, append=append))

    def _retry(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, retrying an unreachable store for ``store_retry_timeout_s``."""

        def locked() -> T:
            with self._lock:
                return call()

        return retry(locked, retry_timeout_s=self.settings.store_retry_timeout_s)

    def _require_planned_log(self) -> None:
        """Raise if the checkpoint's newest batch differs from the one at the time of the plan.

        :raises StateChanged: another job writes to the checkpoint, or the checkpoint is gone.
        """
        planned_id = self._claim.last_planned_batch_id
        if planned_id is None:
            return
        newest_id = max(batch_ids(self.log.files, "offsets"), default=UNSTARTED)
        if newest_id != planned_id:
            raise StateChanged(
                seen=f"the newest batch of the checkpoint {self.log.files.location} is {newest_id}",
                expected=f"batch {planned_id}, as planned for epoch {self.number}",
                do="find out which other job runs on this checkpoint, and stop it; then plan again",
            )

    def _require_start(self, start: Position) -> None:
        """Raise if the first batch of the epoch does not start at the planned position.

        :raises StateChanged: at least one partition starts at another offset.
        """
        planned = self._claim.start
        if not self._is_at_start:
            return
        moved = [each for each in start if each in planned and start[each] != planned[each]]
        if moved:
            shown = first_few(f"{each} at {start[each]} instead of {planned[each]}" for each in moved)
            raise StateChanged(
                seen=f"the first batch of epoch {self.number} would begin with {shown}",
                expected="the planned start",
                do="find out which other job runs on this checkpoint, and stop it; then plan again",
            )
