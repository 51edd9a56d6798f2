"""Pipeline's record in the control store: read, and changed by compare-and-set."""

from __future__ import annotations

import uuid
from dataclasses import replace

from airflow_provider_offsets.control.cells import load_cell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.record.events import Event
from airflow_provider_offsets.core.record.model import RECORD, Already, Next, PipelineRecord, Refusal, Refused
from airflow_provider_offsets.core.record.transition import transition
from airflow_provider_offsets.errors import (
    Fenced,
    LeaseHeld,
    NothingToRecover,
    OffsetsError,
    PipelineRenamed,
    RecordChanged,
    RecordRestored,
    StateChanged,
    StopRequested,
    StoreUnreachable,
    TakenOver,
)
from airflow_provider_offsets.stores.protocols import OffsetStore


class RecordCell:
    """Record of one pipeline, as one actor sees it. Not safe to share between threads.

    An actor that swaps again does not read before. It reads only after a failed swap, which means that another actor
    changed the record.
    """

    def __init__(self, store: OffsetStore, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._text: str | None = None
        """The text that a swap expects; None: read the record first."""
        self._seen: PipelineRecord | None = None
        self._unanswered: dict[str, Event] = {}
        """Tokens of swaps whose answer was lost, with their events, since the last swap with an answer."""

    def read(self) -> PipelineRecord | None:
        """Return the current record, or None if there is none.

        :raises RecordRestored: the record is older than one that this actor has seen, or of another incarnation.
        :raises StoreDataError: the text is no record.
        """
        text = self._store.get(self._pipeline, RECORD)
        record = None if text is None else self._load(text)
        if self._seen is not None and not _follows(self._seen, record):
            raise self._restored(self._seen, record)
        self._text, self._seen = text, record
        return record

    @property
    def seen(self) -> PipelineRecord | None:
        """The record as this actor saw it last; None before the first read."""
        return self._seen

    def create(self) -> PipelineRecord:
        """Return the record, creating it if there is none. The caller must be sure that no record was lost."""
        new = codec.dumps(PipelineRecord(incarnation=uuid.uuid4().hex))
        try:
            self._store.check_and_put(self._pipeline, RECORD, None, new)
        except StoreUnreachable:
            if self.read() is None:
                raise
        found = self.read()
        assert found is not None
        return found

    def continue_from(self, record: PipelineRecord) -> PipelineRecord:
        """Return the record of a renamed pipeline, stored under its new name. Safe to repeat.

        A record under the new name that is itself marked as renamed is replaced: the pipeline gets an old name back.

        :param record: the record under the old name, which is marked as renamed.
        :raises StateChanged: another pipeline has or had the new name, or the pipeline was renamed again.
        """
        new = replace(record, version=record.version + 1, generation=record.generation + 1, lease=None, renamed_to="")
        while True:
            text = self._store.get(self._pipeline, RECORD)
            there = None if text is None else self._load(text)
            is_same = there is not None and there.incarnation == record.incarnation
            if there is not None and is_same and not there.renamed_to:
                return there
            if there is not None and (not is_same or there.version > record.version):
                now = f", and was renamed to {there.renamed_to!r}" if there.renamed_to else ""
                raise StateChanged(
                    seen=f"pipeline {self._pipeline!r} already has a record, of epoch {there.epoch}{now}",
                    expected="a name that no pipeline of this control store has",
                    do="choose another name",
                )
            after = replace(new, token=uuid.uuid4().hex)
            if self._store.check_and_put(self._pipeline, RECORD, text, codec.dumps(after)):
                return after

    def change(
        self,
        event: Event,
        *,
        stream: Stream | None = None,
        prepare: Batch | None = None,
        append: Batch | None = None,
    ) -> PipelineRecord:
        """Return the record after ``event``. Safe to repeat, also after a lost answer.

        :param event: the transition to make.
        :param stream: of the batches below.
        :param prepare: a batch whose facts are stored before the swap.
        :param append: a batch whose row is added to the history after the swap.
        :raises StoreUnreachable: no answer arrived; the record may have been changed: repeat the call.
        :raises RecordRestored: see ``read``.
        :raises RecordChanged: the state of the record does not allow the event.
        :raises StateChanged: there is no record.
        :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
        :raises TakenOver: the operation no longer holds the lease.
        :raises NothingToRecover: a recovery may not start the pipeline.
        :raises Fenced: the driver does not hold the newest launch.
        :raises StopRequested: the driver was asked to stop.
        """
        may_ask_again = True
        while True:
            record, outcome = self._decide(event)
            if isinstance(outcome, Already):
                if append is not None and stream is not None:
                    self._store.append(stream, append)
                return record
            after = replace(outcome.record, token=uuid.uuid4().hex)
            try:
                if self._swap(event, after, stream, prepare, append):
                    return after
            except StoreUnreachable:
                # The record shows whether the swap happened. If the store still does not answer, the read raises.
                if not may_ask_again:
                    raise
                may_ask_again = False

    def _decide(self, event: Event) -> tuple[PipelineRecord, Next | Already]:
        """Return the record, and the effect of ``event`` on it.

        The cached record may be old: that is good enough for a swap, which then fails, but not for a refusal.
        """
        if self._text is not None and self._seen is not None:
            outcome = transition(self._seen, event)
            if isinstance(outcome, Next):
                return self._seen, outcome
        record = self.read()
        if record is None:
            raise self._no_record()
        if self._unanswered.get(record.token) == event:
            return record, Already()
        outcome = transition(record, event)
        if isinstance(outcome, Refused):
            raise self._refused(outcome, record)
        return record, outcome

    def _swap(
        self, event: Event, after: PipelineRecord, stream: Stream | None, prepare: Batch | None, append: Batch | None
    ) -> bool:
        text, expected = codec.dumps(after), self._text
        self._text = None
        self._unanswered[after.token] = event
        if not self._store.swap(self._pipeline, RECORD, expected, text, stream=stream, prepare=prepare, append=append):
            del self._unanswered[after.token]
            return False
        self._text, self._seen, self._unanswered = text, after, {}
        return True

    def _load(self, text: str) -> PipelineRecord:
        return load_cell(PipelineRecord, self._pipeline, RECORD, text)

    def _restored(self, before: PipelineRecord, record: PipelineRecord | None) -> OffsetsError:
        return RecordRestored(
            seen=f"the record of pipeline {self._pipeline!r} is now {_words(record)}, and was {_words(before)}",
            expected="a record that only moves forward",
            do="find out who restored or removed the control store; stop the job, and plan from a start that you name",
        )

    def _no_record(self) -> OffsetsError:
        return StateChanged(
            seen=f"pipeline {self._pipeline!r} has no record in its control store",
            expected="the record that the first operation creates",
            do="run a maintenance of the pipeline",
        )

    def _refused(self, refused: Refused, record: PipelineRecord) -> OffsetsError:
        kind, expected, do = _ERRORS[refused.why]
        return kind(
            seen=f"pipeline {self._pipeline!r}, epoch {record.epoch}: {refused.detail}", expected=expected, do=do
        )


_NO_ACTION = "No action needed: another operation or driver continues."
_ERRORS: dict[Refusal, tuple[type[OffsetsError], str, str]] = {
    Refusal.LEASE_HELD: (
        LeaseHeld,
        "no other operation on this pipeline",
        "wait until it has ended, or set take_over, after which its next act is refused",
    ),
    Refusal.LEASE_LOST: (TakenOver, "the lease of this operation", _NO_ACTION),
    Refusal.NOT_TO_RECOVER: (
        NothingToRecover,
        "a job that died, without a stop request and without an operation on it",
        "No action needed: a recovery starts only jobs that died by themselves.",
    ),
    Refusal.FENCED: (Fenced, "the newest launch of the pipeline", _NO_ACTION),
    Refusal.CANCELLED: (Fenced, "a launch that was not cancelled", _NO_ACTION),
    Refusal.STOP_REQUESTED: (StopRequested, "a job without a stop request", "No action needed: the driver ends."),
    Refusal.STOPPED_SINCE: (
        TakenOver,
        "no stop request of another operation since this one took the lease",
        "No action needed if the job should stay stopped. Otherwise run this operation again from its stop task.",
    ),
    Refusal.RENAMED: (PipelineRenamed, "the present name of the pipeline", "use that name"),
    Refusal.STATE_CHANGED: (RecordChanged, "a record that allows this step", "run the task again, or plan again"),
}


def _follows(before: PipelineRecord, record: PipelineRecord | None) -> bool:
    """Check whether ``record`` is ``before`` or a later version of it. Each version has one token."""
    if record is None or record.incarnation != before.incarnation:
        return False
    return record.version > before.version or (record.version, record.token) == (before.version, before.token)


def _words(record: PipelineRecord | None) -> str:
    return "gone" if record is None else f"version {record.version} of incarnation {record.incarnation[:8]}"
