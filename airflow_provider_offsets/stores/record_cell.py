"""The pipeline's record in its cell: read, and changed by compare-and-set."""

from __future__ import annotations

import uuid
from dataclasses import replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.record import (
    RECORD,
    Already,
    Event,
    Next,
    PipelineRecord,
    Refusal,
    Refused,
    transition,
)
from airflow_provider_offsets.errors import (
    Fenced,
    LeaseHeld,
    NothingToRecover,
    OffsetsError,
    PipelineRenamed,
    RecordChanged,
    RecordRestored,
    StopRequested,
    StoreDataError,
    StoreUnreachable,
    TakenOver,
    WorldChanged,
)
from airflow_provider_offsets.stores.protocols import OffsetStore


class RecordCell:
    """The record of one pipeline, as one actor sees it. Not to be shared between threads.

    An actor that swaps again does so without reading: it reads when a swap fails, which is when somebody else acted.
    """

    def __init__(self, store: OffsetStore, pipeline: str) -> None:
        self._store = store
        self._pipeline = pipeline
        self._text: str | None = None
        """The text that a swap expects to find; None: it must be read first."""
        self._seen: PipelineRecord | None = None
        self._unanswered: dict[str, Event] = {}
        """Tokens of swaps that got no answer, since the last one that got one, with what they were for."""

    def read(self) -> PipelineRecord | None:
        """Return the record as it is now; None if there is none.

        :raises RecordRestored: it is older than one that this actor has seen, or of another incarnation.
        :raises StoreDataError: the cell holds something else.
        """
        text = self._store.get(self._pipeline, RECORD)
        record = None if text is None else self._load(text)
        if self._seen is not None and not _follows(self._seen, record):
            raise self._restored(self._seen, record)
        self._text, self._seen = text, record
        return record

    @property
    def seen(self) -> PipelineRecord | None:
        """The record as this actor has seen it last; None before the first read."""
        return self._seen

    def create(self) -> PipelineRecord:
        """Return the record, created if there is none. The caller has made sure that none was lost."""
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
        """Return the record of a pipeline that had another name, which goes on here. Safe to repeat.

        A record here that was renamed itself is replaced: the pipeline gets an old name back.

        :param record: the one under the other name, which is marked as renamed.
        :raises WorldChanged: another pipeline has this name or had it, or the pipeline has got a third one since.
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
                raise WorldChanged(
                    seen=f"pipeline {self._pipeline!r} has a record of its own, of epoch {there.epoch}{now}",
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
        """Return the record after ``event``. Safe to repeat, also if an answer was lost.

        :param stream: of the batches that follow.
        :param prepare: a batch whose facts are kept before the swap.
        :param append: a batch whose row is added to the history after the swap.
        :raises StoreUnreachable: nobody knows whether the record was changed: repeat the call.
        :raises RecordRestored: see ``read``.
        :raises RecordChanged: the record is in a state in which the event is not possible.
        :raises WorldChanged: there is no record.
        :raises LeaseHeld: another operation acted lately, and ``take_over`` was not given.
        :raises TakenOver: the operation does not hold the lease any more.
        :raises NothingToRecover: the pipeline is not a recovery's to start.
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
                # The record tells whether it was done. If the store still does not answer, the read says so.
                if not may_ask_again:
                    raise
                may_ask_again = False

    def _decide(self, event: Event) -> tuple[PipelineRecord, Next | Already]:
        """Return the record and what ``event`` makes of it.

        What is kept of the record may be old: it is good for a swap, which then fails, and never for a refusal.
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
        try:
            return codec.loads(PipelineRecord, text)
        except ValueError as error:
            raise StoreDataError(
                seen=f"control cell {RECORD!r} of pipeline {self._pipeline!r} holds {text[:80]!r}: {error}",
                expected="the JSON of a PipelineRecord",
                do="find who else writes to the control table; it belongs to this provider alone",
            ) from error

    def _restored(self, before: PipelineRecord, record: PipelineRecord | None) -> OffsetsError:
        return RecordRestored(
            seen=f"the record of pipeline {self._pipeline!r} is {_words(record)}, and was {_words(before)}",
            expected="a record that only grows",
            do="find out who restored or removed the control store; stop the job, and plan from a start that you name",
        )

    def _no_record(self) -> OffsetsError:
        return WorldChanged(
            seen=f"pipeline {self._pipeline!r} has no record in its control store",
            expected="the record that the first operation creates",
            do="run a maintenance of the pipeline",
        )

    def _refused(self, refused: Refused, record: PipelineRecord) -> OffsetsError:
        kind, expected, do = _ERRORS[refused.why]
        return kind(
            seen=f"pipeline {self._pipeline!r}, epoch {record.epoch}: {refused.detail}", expected=expected, do=do
        )


_NO_ACTION = "No action needed: the other one carries on."
_ERRORS: dict[Refusal, tuple[type[OffsetsError], str, str]] = {
    Refusal.LEASE_HELD: (
        LeaseHeld,
        "no other operation at work on this pipeline",
        "wait until it has ended, or set take_over to take the pipeline over: its next act is then refused",
    ),
    Refusal.LEASE_LOST: (TakenOver, "the lease of this operation", _NO_ACTION),
    Refusal.NOT_TO_RECOVER: (
        NothingToRecover,
        "a job that died, that nobody asked to stop and that no operation works on",
        "No action needed: a recovery starts only what died by itself.",
    ),
    Refusal.FENCED: (Fenced, "the newest launch of the pipeline", _NO_ACTION),
    Refusal.CANCELLED: (Fenced, "a launch that stands", _NO_ACTION),
    Refusal.STOP_REQUESTED: (StopRequested, "a job that nobody asked to stop", "No action needed: the driver ends."),
    Refusal.RENAMED: (PipelineRenamed, "the name that the pipeline has now", "use that name"),
    Refusal.STATE_CHANGED: (RecordChanged, "the record as this act needs it", "run the task again, or plan again"),
}


def _follows(before: PipelineRecord, record: PipelineRecord | None) -> bool:
    """Return whether ``record`` is ``before``, or came after it. Of one version there is one token."""
    if record is None or record.incarnation != before.incarnation:
        return False
    return record.version > before.version or (record.version, record.token) == (before.version, before.token)


def _words(record: PipelineRecord | None) -> str:
    return "gone" if record is None else f"version {record.version} of incarnation {record.incarnation[:8]}"
