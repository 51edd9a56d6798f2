"""What a driver does under its epoch, whichever way its batches run: fence, records, signs of life."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Claim, DriverState, Ended, EndedHow, Heartbeat
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import BatchConflict, Fenced
from airflow_provider_offsets.jobs.machine import machine
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.insist import insist
from airflow_provider_offsets.runtime.settings import Settings
from airflow_provider_offsets.runtime.settling import settle
from airflow_provider_offsets.stores.checkpoint import read_state
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import OffsetStore

T = TypeVar("T")
log = logging.getLogger(__name__)


class HeldEpoch:
    """The epoch that this driver holds. Every call to the store is repeated for a while before it fails.

    :param log_of: gives the log of the checkpoint that a claim names.
    """

    def __init__(self, settings: Settings, store: OffsetStore, log_of: Callable[[Claim], BatchLog]) -> None:
        self.settings = settings
        self.log = log_of(settings.claim)
        self.last: Batch | None = None
        """The batch that this epoch finished last."""
        self.ending: EndedHow | None = None
        """Why no further batch begins."""
        self._store = store
        self._control = Control(store, settings.pipeline)
        self._log_of = log_of
        self._beats = 0

    @property
    def number(self) -> int:
        """Its number."""
        return self.settings.claim.number

    def claim(self) -> None:
        """Settle the epoch before, and claim this one.

        :raises Fenced: another driver holds it.
        """
        self.insist(self._settle_and_claim)
        log.info("Claimed epoch %d of pipeline %r", self.number, self.settings.pipeline)

    def asked_to_end(self) -> EndedHow | None:
        """Say whether no further batch is to begin, and why."""
        return self.insist(self._asked_to_end)

    def check_fence(self) -> None:
        """Return if this epoch still has the word.

        :raises Fenced: it has not.
        """
        self.insist(lambda: self._control.check_fence(self.number))

    def begin(self, batch: BegunBatch) -> None:
        """Note the batch that is about to begin."""
        self.insist(lambda: self._control.begin(self.number, batch))

    def is_recorded(self, batch: Batch) -> bool:
        """Say whether the history has this batch already.

        :raises BatchConflict: it has it, with other offsets.
        """
        batch_id, query_id = batch.batch_id, batch.query_id
        assert batch_id is not None
        assert query_id is not None
        found: Batch | None = self.insist(
            lambda: self._store.find(self.settings.stream, query_id, batch_id, batch.batch_time_ms)
        )
        if found is None or found.has_same_offsets(batch):
            return found is not None
        raise BatchConflict(
            seen=f"batch {batch_id} of query {query_id} reads {batch.start} to {batch.end}",
            expected=f"{found.start} to {found.end}, as it is recorded",
            do="find who changed the checkpoint by hand; restart from a chosen position",
        )

    def record(self, batch: Batch) -> None:
        """Record a finished batch, if this epoch still has the word.

        :raises Fenced: it has not.
        """
        self.check_fence()
        self.insist(lambda: self._store.append(self.settings.stream, batch))

    def beat(self, position: Position | None) -> None:
        """Give a sign of life; with the position if the driver stands idle there."""
        self._beats += 1
        heartbeat = Heartbeat(
            beat=self._beats,
            state=DriverState.PROCESSING if position is None else DriverState.IDLE,
            at_ms=clock.now_ms(),
            last_batch_id=None if self.last is None else self.last.batch_id,
            position=position,
        )
        self.insist(lambda: self._control.beat(self.number, heartbeat))

    def position(self) -> Position | None:
        """Give where the query stands; None if a batch is still to come that was planned before this epoch."""
        if self.last is not None:
            return self.last.end
        state = read_state(self.log.files)
        if state is None or state.committed_batch_id == UNSTARTED or state.planned_batch_id is not None:
            return None
        return state.committed

    def close(self, error: BaseException | None) -> None:
        """Record the end of this epoch."""
        how = self.ending or (EndedHow.FINISHED if error is None else EndedHow.FAILED)
        ended = Ended(
            how=how,
            at_ms=clock.now_ms(),
            last_batch_id=UNSTARTED if self.last is None else self.last.batch_id,
            position=None if self.last is None else self.last.end,
            message="" if error is None else f"{type(error).__name__}: {error}"[:2000],
        )
        standing = self.insist(lambda: self._control.end(self.number, ended))
        log.info("Epoch %d ended: %s", self.number, standing.how.value)

    def insist(self, call: Callable[[], T]) -> T:
        """Give what ``call`` gives, asking a store that is away again for ``store_patience_s``."""
        return insist(call, patience_s=self.settings.store_patience_s)

    def _settle_and_claim(self) -> None:
        before = self._control.epoch(self.number - 1)
        if before is not None:
            settle(self._control, self._store, self.settings.stream, before.number, self._log_of(before.claim))
        newest = next(self._store.newest_first(self.settings.stream), None)
        self._control.claim_epoch(
            self.settings.claim,
            machine().this_process(),
            at_ms=clock.now_ms(),
            after_row_time_ms=None if newest is None else newest.row_time_ms,
        )
        self._control.hand_on_stop(self.settings.claim)

    def _asked_to_end(self) -> EndedHow | None:
        try:
            self._control.check_fence(self.number)
        except Fenced:
            return EndedHow.FENCED
        return None if self._control.stop_request(self.number) is None else EndedHow.STOPPED
