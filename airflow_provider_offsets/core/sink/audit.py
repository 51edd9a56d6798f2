"""Comparison of a pipeline's history with the ledger of its sink: which batches are in one, in both, or in it twice.

A batch and a write belong together if they have the same query id, batch id, and, where the sink has it, digest of the
ranges that were read. The name of the pipeline does not matter: it may have been renamed since. Spark's file sinks name
no query. There, a write belongs to a batch only if it is not older.
"""

from __future__ import annotations

import enum
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

from airflow_provider_offsets.core.sink.ledger import Ledger, Unnamed, Written

LISTED = 1_000
"""Maximum number of findings that a report lists."""
CLOCK_BACK_MS = 600_000
"""By how much a write that names no query may be older than its batch: the driver's clock may have been set back."""

Id = tuple[str, int]
"""Query id and batch id; in a replay run id and number of the shard."""


@dataclass(frozen=True)
class RecordedOutput:
    """A batch or a shard that the pipeline has recorded as complete."""

    query_id: str
    """In a replay the run id."""
    batch_id: int
    """In a replay the number of the shard."""
    digest: str
    records: int
    """Number of offsets that it read."""
    at_ms: int
    """Time of the batch by the driver's clock, in milliseconds since 1970."""
    is_new: bool = False
    """Whether it was recorded after the ledger was read, so that the ledger need not have it."""

    def __str__(self) -> str:
        return f"batch {self.batch_id} of query {self.query_id}"


class SinkFindingKind(enum.Enum):
    """Kind of a difference between history and sink."""

    OUTPUT_LOST = "output lost"
    """Only the history has the batch."""
    NOT_RECORDED = "not recorded"
    """Only the sink has the batch, and no run of the job has started it."""
    CUT_OFF = "cut off"
    """Only the sink has the batch. A run has started it and not recorded it, so the records may be in the sink again
    under another batch."""
    TWICE = "twice"
    """The sink has the batch in more than one write."""
    REMOVED = "removed"
    """Somebody has removed rows from the sink."""


@dataclass(frozen=True)
class SinkFinding:
    """One difference between history and sink."""

    kind: SinkFindingKind
    what: str
    """The batch, or the operation that removed rows."""
    place: str
    """Where the sink says so; empty if only the history has the batch."""
    records: int | None = None
    """Number of offsets that the batch read; None if the history does not have it."""
    rows: int | None = None
    """Number of rows written or removed; None if the sink does not say."""
    is_explained: bool = False
    """Whether the pipeline's records explain it."""


class SinkVerdict(enum.Enum):
    """Result of the comparison."""

    PROVEN = "proven"
    """The sink has every batch of the history from ``SinkReport.since`` on, and no other one."""
    NOT_PROVEN = "not proven"
    """The sink cannot show it. ``SinkReport.reasons`` say why."""
    REFUTED = "refuted"
    """A batch is lost, not recorded, or there twice without an explanation."""


@dataclass(frozen=True)
class SinkReport:
    """Comparison of a history with a sink. Counts are of batches, where nothing else is said."""

    sink: str
    """Format and location of the sink, for people."""
    verdict: SinkVerdict
    reasons: tuple[str, ...] = ()
    """Why the sink proves nothing, or not everything."""
    since: str = ""
    """The first batch that the sink proves; empty if that is the first one of the history."""
    batches: int = 0
    """In the history and in the sink."""
    records: int = 0
    """Number of offsets that these batches read."""
    rows: int | None = None
    """Number of rows that the sink says were written for them; None if it does not say for each."""
    lost: int = 0
    not_recorded: int = 0
    cut_off: int = 0
    twice: int = 0
    removals: int = 0
    """Number of operations that removed rows."""
    unproven: int = 0
    """Batches that the sink may have had before its metadata begins, or without a name."""
    others: int = 0
    """Number of writes of other programs and pipelines."""
    findings: tuple[SinkFinding, ...] = ()
    """The first ``LISTED``."""


@dataclass
class _Comparison:
    """State of one pass over the history."""

    ledger: Ledger
    by_id: dict[Id, list[Written]]
    started: Set[Id]
    begins_at_ms: int | None
    """Time from which on the sink is known to exist, and its metadata to be complete; None if nothing shows that."""
    findings: list[SinkFinding] = field(default_factory=list)
    counts: dict[SinkFindingKind, int] = field(default_factory=lambda: defaultdict(int))
    batches: int = 0
    records: int = 0
    rows: int | None = 0
    unproven: int = 0
    older: int = 0
    """Number of batches whose only write names no query, and is a little older than the batch."""
    since: str = ""
    has_unexplained: bool = False
    lowest_ids: dict[str, int] = field(default_factory=dict)
    """For each query of the history its lowest batch id; under the empty name that of all of them."""
    began_at_ms: int | None = None
    """Time of the first batch of the history."""

    def read(self, recorded: RecordedOutput) -> None:
        """Process the next batch of the history."""
        if self.began_at_ms is None:
            self.began_at_ms = recorded.at_ms
        for query_id in (recorded.query_id, ""):
            lowest = self.lowest_ids.setdefault(query_id, recorded.batch_id)
            self.lowest_ids[query_id] = min(lowest, recorded.batch_id)
        found = self._take(recorded)
        if found:
            self._in_both(recorded, found)
        elif self._take(recorded, CLOCK_BACK_MS):
            self.older += 1
        elif recorded.records and not recorded.is_new:
            self._only_recorded(recorded)

    def add(self, finding: SinkFinding) -> None:
        """Add a finding: count it, and list it if there are not too many."""
        self.counts[finding.kind] += 1
        self.has_unexplained |= not finding.is_explained and finding.kind is not SinkFindingKind.REMOVED
        if len(self.findings) < LISTED:
            self.findings.append(finding)

    def is_of_history(self, written: Written) -> bool:
        """Return whether a write that belongs to no batch of the history should belong to one.

        It does not if it was written before the history began, or by another pipeline.
        """
        if self.began_at_ms is not None and written.at_ms is not None and written.at_ms < self.began_at_ms:
            return False
        lowest = self.lowest_ids.get(written.query_id)
        if lowest is None:
            return bool(written.pipeline) or any(written.query_id == query_id for query_id, _ in self.started)
        return written.batch_id >= lowest

    def _take(self, recorded: RecordedOutput, clock_back_ms: int = 0) -> list[Written]:
        """Take the writes of a batch out of those that are left."""
        ids = (recorded.query_id, recorded.batch_id), ("", recorded.batch_id)
        taken = []
        for each in ids:
            candidates = self.by_id.pop(each, [])
            mine = [written for written in candidates if _belong_together(recorded, written, clock_back_ms)]
            taken += mine
            if rest := [written for written in candidates if written not in mine]:
                self.by_id[each] = rest
        return taken

    def _in_both(self, recorded: RecordedOutput, found: list[Written]) -> None:
        if not self.batches and self.unproven:
            self.since = str(recorded)
        self.batches += 1
        self.records += recorded.records
        known = [each.rows for each in found if each.rows is not None]
        self.rows = None if self.rows is None or len(known) < len(found) else self.rows + sum(known)
        # A MERGE of a batch that the table has already is a write of no rows.
        found = [each for each in found if each.rows != 0]
        if len(found) > 1:
            is_explained = (recorded.query_id, recorded.batch_id) in self.started
            places = ", ".join(each.place for each in found)
            rows = sum(known) if len(known) == len(found) else None
            self.add(SinkFinding(SinkFindingKind.TWICE, str(recorded), places, recorded.records, rows, is_explained))

    def _only_recorded(self, recorded: RecordedOutput) -> None:
        if not self.batches and self._may_be_there(recorded):
            self.unproven += 1
        else:
            self.add(SinkFinding(SinkFindingKind.OUTPUT_LOST, str(recorded), "", recorded.records))

    def _may_be_there(self, recorded: RecordedOutput) -> bool:
        """Return whether the batch may be in the sink without a name, or in another sink that the job had before."""
        is_before = self.begins_at_ms is None or recorded.at_ms <= self.begins_at_ms
        return is_before or any(_is_not_older(each, recorded) for each in self.ledger.unnamed)


def compare_with_ledger(
    sink: str,
    pipeline: str,
    recorded: Iterable[RecordedOutput],
    ledger: Ledger,
    started: Set[Id],
    *,
    was_untracked: bool = False,
) -> SinkReport:
    """Return the comparison of what a pipeline recorded with what its sink says.

    :param sink: format and location of the sink, for the report.
    :param pipeline: name of the pipeline.
    :param recorded: batches and shards of the history, in the order of their times. Memory does not grow with them.
    :param ledger: metadata of the sink, read after the newest batch that is not marked as new was recorded.
    :param started: batches and shards that were started more than once, or started and not recorded. The query id
        is empty if Spark had not assigned it yet.
    :param was_untracked: whether the job ran without being tracked at times. The history has no batches of these times,
        so a write that does not name the pipeline may be one of them.
    """
    by_id: dict[Id, list[Written]] = defaultdict(list)
    for written in ledger.written:
        by_id[written.query_id, written.batch_id].append(written)
    state = _Comparison(ledger, dict(by_id), started, _begins_at_ms(ledger))
    others = 0
    for each in recorded:
        state.read(each)
    for written in itertools.chain.from_iterable(state.by_id.values()):
        if written.rows == 0:
            continue  # Spark runs an empty first batch on a seeded checkpoint, which is not recorded
        is_named = written.pipeline == pipeline
        may_be = is_named or not (written.pipeline or was_untracked)
        if may_be and state.is_of_history(written):
            state.add(_only_written(written, started))
        else:
            others += 1
    for removed in ledger.removed:
        state.add(SinkFinding(SinkFindingKind.REMOVED, removed.what, removed.place, None, removed.rows))
    return _report(sink, state, others + len(ledger.unnamed))


def _report(sink: str, state: _Comparison, others: int) -> SinkReport:
    reasons = tuple(_reasons(state))
    is_shown = state.batches or not (state.unproven or state.findings)
    removals = state.counts[SinkFindingKind.REMOVED]
    verdict = SinkVerdict.PROVEN if is_shown and not (removals or state.older) else SinkVerdict.NOT_PROVEN
    return SinkReport(
        sink=sink,
        verdict=SinkVerdict.REFUTED if state.has_unexplained else verdict,
        reasons=reasons,
        since=state.since,
        batches=state.batches,
        records=state.records,
        rows=state.rows,
        lost=state.counts[SinkFindingKind.OUTPUT_LOST],
        not_recorded=state.counts[SinkFindingKind.NOT_RECORDED],
        cut_off=state.counts[SinkFindingKind.CUT_OFF],
        twice=state.counts[SinkFindingKind.TWICE],
        removals=removals,
        unproven=state.unproven + state.older,
        others=others,
        findings=tuple(state.findings),
    )


def _reasons(state: _Comparison) -> Iterator[str]:
    if state.unproven and state.ledger.missing_before:
        yield f"its metadata begins at {state.ledger.missing_before}"
    elif state.unproven and not state.ledger.unnamed:
        yield "it has no older write" if state.batches else "no write names a batch"
    if state.unproven and state.ledger.unnamed:
        first = state.ledger.unnamed[0].place
        yield f"{len(state.ledger.unnamed):,} writes name no batch, the first one in {first}: use stream.write_options"
    if state.older:
        yield (
            f"{state.older:,} batches are older there than in the history: the driver's clock was set back, or the sink"
            " had their ids from an earlier start and dropped them"
        )
    if state.counts[SinkFindingKind.REMOVED]:
        yield "rows were removed after they had been written"


def _begins_at_ms(ledger: Ledger) -> int | None:
    """Return the time of the oldest write that the ledger shows, whoever wrote it, or None."""
    if ledger.begins_at_ms is not None:
        return ledger.begins_at_ms
    times = [each.at_ms for each in ledger.written] + [each.at_ms for each in ledger.unnamed]
    return min((each for each in times if each is not None), default=None)


def unread_sink(sink: str, why: str) -> SinkReport:
    """Return the report of a sink that was not read.

    :param sink: format and location of the sink; empty if the pipeline names none.
    :param why: the reason, as a clause.
    """
    return SinkReport(sink, SinkVerdict.NOT_PROVEN, (why,))


def _only_written(written: Written, started: Set[Id]) -> SinkFinding:
    what = f"batch {written.batch_id} of query {written.query_id or '(not named)'}"
    if any(written.batch_id == id_ and "" in (written.query_id, query_id) for query_id, id_ in started) or (
        (written.query_id, written.batch_id) in started
    ):
        return SinkFinding(SinkFindingKind.CUT_OFF, what, written.place, None, written.rows, is_explained=True)
    return SinkFinding(SinkFindingKind.NOT_RECORDED, what, written.place, None, written.rows)


def _belong_together(recorded: RecordedOutput, written: Written, clock_back_ms: int) -> bool:
    if written.digest and written.digest != recorded.digest:
        return False
    return bool(written.query_id) or written.at_ms is None or written.at_ms >= recorded.at_ms - clock_back_ms


def _is_not_older(write: Unnamed, recorded: RecordedOutput) -> bool:
    return write.at_ms is None or write.at_ms >= recorded.at_ms
