"""What a driver does under its epoch, whichever way its batches run: claim, begin, record, go idle, end.

Each of these is one swap of the pipeline's record. A driver whose epoch was closed, or that was asked to stop, learns
of it from the very step that it is about to make. It reads the record only to see a stop request where no batch begins.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch, digest_of, next_row_time_ms
from airflow_provider_offsets.core.epoch import Claim, Ended, EndedHow, Heartbeat, ProcessIdentity, Recorded
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record import (
    BeginBatch,
    Begun,
    ClaimLaunch,
    EndEpoch,
    Event,
    GoIdle,
    Phase,
    PipelineRecord,
    RecordBatch,
)
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import BatchConflict, Fenced, RecordRestored, WorldChanged
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.insist import insist
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.stores.checkpoint import batch_ids
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import OffsetStore

T = TypeVar("T")
log = logging.getLogger(__name__)


class HeldEpoch:
    """The epoch that this driver holds. Every call to the store is repeated for a while before it fails.

    :param log: of the checkpoint that the epoch runs on.
    """

    def __init__(self, settings: Settings, store: OffsetStore, log: BatchLog) -> None:
        self.settings = settings
        self.log = log
        self.last: Batch | None = None
        """The batch that this epoch finished last, or left out because it was finished before."""
        self.ending: EndedHow | None = None
        """How the newest run of the query ended; None while it runs."""
        self._control = Control(store, settings.pipeline)
        self._cell = self._control.cell
        self._lock = threading.RLock()  # Spark's callback thread and the watching one share the cell
        self._holder: ProcessIdentity | None = None
        self._run = ""
        self._may_have_run = True
        """Whether a batch that an earlier run has begun may have been written."""
        self._is_at_start = True
        self._beats = 0

    @property
    def number(self) -> int:
        """Its number."""
        return self.settings.claim.number

    def claim(self) -> None:
        """Claim the launch that this driver was started for. Nothing is written before.

        :raises Fenced: the launch was cancelled, another one is newer, or another process has claimed it.
        """
        self._holder = machine().this_process()
        self._change(ClaimLaunch(self._claim.tag, self._holder, clock.now_ms()))
        log.info("Claimed epoch %d of pipeline %r", self.number, self.settings.pipeline)

    def start_run(self) -> None:
        """Prepare one run of the query: account for what an earlier run in this process left.

        A batch that the earlier run began and Spark committed is finished, so it is recorded. One that it began and
        that Spark did not commit is counted when it begins again, unless it was never planned.

        :raises Fenced: this driver does not hold the epoch any more.
        :raises WorldChanged: another job has written the checkpoint since the plan.
        """
        if not self._run:
            self._require_planned_log()
        begun = self._record.begun
        planned = None if begun is None else self.log.batch(begun.batch_id, epoch=self.number, after=self.last)
        if planned is not None and self.log.is_committed(planned.batch_id or 0):
            self.record(planned)
            self.last = planned
        self._may_have_run = begun is None or planned is not None
        self._run, self.ending = uuid.uuid4().hex, None

    def is_stop_requested(self) -> bool:
        """Return whether the job was asked to stop. One read of the record.

        :raises Fenced: this driver does not hold the epoch any more.
        """
        self._insist(self._cell.read)
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
        """Return whether a batch that Spark asks for was recorded before, by this epoch or by an earlier one.

        Only the newest recorded batch can be: Spark had no time to commit it.

        :raises BatchConflict: it was, with other offsets.
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
            do="find out who changed the checkpoint by hand; restart from a position that you name",
        )

    def begin(self, batch: Batch) -> None:
        """Begin a batch: keep what it is about to read, and note it in the record, before anything of it is written.

        :raises StopRequested: the job was asked to stop.
        :raises Fenced: this driver does not hold the epoch any more.
        :raises WorldChanged: it is the first batch of the epoch, and does not begin where the plan starts it.
        """
        self._require_start(batch.start or Position())
        placed = batch.at_row(next_row_time_ms(batch.batch_time_ms, self._record.last_row_time_ms))
        begun = Begun(
            batch_id=batch.batch_id or 0,
            query_id=batch.query_id or "",
            batch_time_ms=batch.batch_time_ms,
            run=self._run,
            row_time_ms=placed.row_time_ms,
            digest=digest_of(batch),
        )
        self._begin(begun, prepare=placed)

    def begin_unplanned(self, batch_id: int) -> None:
        """Begin a batch of which Spark has not planned the end yet.

        :raises: as ``begin``.
        """
        self._require_start(self.log.start_of(batch_id, after=self.last))
        self._begin(Begun(batch_id, self.log.query_id, clock.now_ms(), self._run))

    def record(self, batch: Batch) -> None:
        """Record the batch that has begun: its output is finished.

        :raises Fenced: this driver does not hold the epoch any more.
        """
        begun = self._record.begun
        assert begun is not None, "a batch begins before it is recorded"
        is_kept = begun.row_time_ms is not None
        row_time_ms = begun.row_time_ms or next_row_time_ms(batch.batch_time_ms, self._record.last_row_time_ms)
        placed = batch.at_row(row_time_ms)
        recorded = Recorded(
            epoch=self.number,
            tag=self._claim.tag,
            batch_id=batch.batch_id,
            query_id=batch.query_id or "",
            row_time_ms=row_time_ms,
            digest=digest_of(batch),
        )
        event = RecordBatch(self._claim.tag, self._me, begun.run, recorded)
        self._change(event, prepare=None if is_kept else placed, append=placed)

    def idle(self) -> None:
        """Acknowledge that the driver is ready and that there is nothing to read. Once until a batch begins.

        :raises Fenced: this driver does not hold the epoch any more.
        """
        if not self._record.idle:
            self._change(GoIdle(self._claim.tag, self._me))

    def beat(self) -> None:
        """Give a sign of life."""
        self._beats += 1
        heartbeat = Heartbeat(self._beats, clock.now_ms(), None if self.last is None else self.last.batch_id)
        self._insist(lambda: self._control.beat(self.number, heartbeat))

    def close(self, error: BaseException | None) -> None:
        """End this epoch in the record.

        :param error: what ends the program, if anything does. It is the one that counts: a record that is not this
            driver's any more is no second one.
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
            log.warning("Epoch %d was not ended: %s", self.number, refused)
            return
        stands = self._record.ended
        assert stands is not None
        log.info("Epoch %d ended: %s", self.number, stands.how.value)

    @property
    def _claim(self) -> Claim:
        return self.settings.claim

    @property
    def _me(self) -> ProcessIdentity:
        assert self._holder is not None, "an epoch is claimed first"
        return self._holder

    @property
    def _record(self) -> PipelineRecord:
        """The record as this driver has seen it last."""
        assert self._cell.seen is not None, "an epoch is claimed first"
        return self._cell.seen

    def _begin(self, begun: Begun, *, prepare: Batch | None = None) -> None:
        try:
            self._change(BeginBatch(self._claim.tag, self._me, begun, again=self._may_have_run), prepare=prepare)
        except BatchConflict:
            self.is_stop_requested()  # a later epoch may keep its batch there: then this driver is fenced
            raise
        self._is_at_start = False

    def _change(self, event: Event, *, prepare: Batch | None = None, append: Batch | None = None) -> None:
        stream = self._claim.stream
        self._insist(lambda: self._cell.change(event, stream=stream, prepare=prepare, append=append))

    def _insist(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, asking a store that is away again for ``store_patience_s``."""

        def locked() -> T:
            with self._lock:
                return call()

        return insist(locked, patience_s=self.settings.store_patience_s)

    def _require_planned_log(self) -> None:
        """Return if the checkpoint names no other batch than when this epoch was planned.

        :raises WorldChanged: it does: another job writes it, or it is gone.
        """
        planned_id = self._claim.last_planned_batch_id
        if planned_id is None:
            return
        newest_id = max(batch_ids(self.log.files, "offsets"), default=UNSTARTED)
        if newest_id != planned_id:
            raise WorldChanged(
                seen=f"the newest batch of the checkpoint {self.log.files.location} is {newest_id}",
                expected=f"{planned_id}, as planned for epoch {self.number}",
                do="find out which other job runs on this checkpoint, and stop it; then plan again",
            )

    def _require_start(self, start: Position) -> None:
        """Return if the epoch has begun a batch, or this start of its first one is the one that was planned."""
        planned = self._claim.start
        if not self._is_at_start:
            return
        moved = [each for each in start if each in planned and start[each] != planned[each]]
        if moved:
            shown = ", ".join(f"{each} at {start[each]} instead of {planned[each]}" for each in moved[:10])
            raise WorldChanged(
                seen=f"the first batch of epoch {self.number} would begin with {shown}",
                expected="the start of its plan",
                do="find out which other job runs on this checkpoint, and stop it; then plan again",
            )
