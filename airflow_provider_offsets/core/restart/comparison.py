"""Comparison of a pipeline's stores, partition by partition: they agree, lag as expected, or conflict.

Each store is compared with the authoritative one. A difference is an expected lag if a rule below explains it, and a
conflict otherwise. The rules are small functions of one pair of stores and one partition, each with its source.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from airflow_provider_offsets.core.known import known_offsets
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.restart.model import OnConflict
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY, KeptPosition, Observation


class Agreement(enum.Enum):
    """Result of comparing two stores in one partition."""

    AGREE = "agree"
    EXPECTED_LAG = "expected lag"
    """The offsets differ for a known reason: neither store is wrong."""
    CONFLICT = "conflict"


@dataclass(frozen=True)
class PartitionComparison:
    """One partition in every store."""

    topic: str
    partition: int
    offsets: tuple[int | None, ...]
    """In the order of ``Comparison.stores``; None if the store does not name the partition."""
    agreement: Agreement
    why: str = ""
    """Which store differs and why; empty if all agree."""

    @property
    def key(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True)
class Comparison:
    """Comparison of all stores of a pipeline."""

    pipeline: str
    stores: tuple[str, ...]
    """The authoritative one first. Its offsets are the pipeline's position. For a tracked job that was rewound and has
    run no batch since, that position differs from the newest row of the history."""
    running: bool
    rows: tuple[PartitionComparison, ...]
    expiring: tuple[str, ...] = ()
    """For each store whose position expires: one sentence with the cause and the time."""

    @property
    def authoritative(self) -> str:
        """The authoritative store."""
        return self.stores[0]

    @property
    def conflicts(self) -> tuple[PartitionComparison, ...]:
        """The partitions with contradicting stores."""
        return tuple(row for row in self.rows if row.agreement is Agreement.CONFLICT)

    def count(self, agreement: Agreement) -> int:
        """Return the number of partitions with that result."""
        return sum(row.agreement is agreement for row in self.rows)


def compare_stores(seen: Observation, earlier: Observation | None = None) -> Comparison:
    """Return the comparison of a pipeline's stores.

    While the job runs, its stores are read one after the other, so a difference may only be the time between two reads.
    A single observation then reports no conflict. The offsets of a stopped job do not move, so every difference counts.

    :param seen: the pipeline's stores and live topics.
    :param earlier: another observation of the same running job, completed before ``seen`` was started. A store that
        stood still while another one passed it is then a conflict. None if the job was restarted in between.
    """
    kept = _standing(seen)
    first = None if earlier is None or not seen.is_running else {each.store: each for each in _standing(earlier)}
    pairs = [_Pair(kept[0], other, seen, first) for other in kept[1:]]
    topics = {topic.name for topic in seen.live.topics}  # some stores also have topics that were taken out
    partitions = sorted({key for each in kept for key in each.position or () if key.topic in topics})
    return Comparison(
        pipeline=seen.pipeline,
        stores=tuple(each.store for each in kept),
        running=seen.is_running,
        rows=tuple(_row(partition, kept, pairs) for partition in partitions),
        expiring=tuple(f"{each.store}: {each.expires}" for each in kept if each.expires),
    )


def resolve_conflicts(
    seen: Observation, on_conflict: OnConflict, elsewhere: Collection[TopicPartition] = ()
) -> tuple[Position, tuple[Problem, ...]]:
    """Return the start that is left to the stores (``committed``), and the problems with it.

    Where stores agree, or lag as expected, the start is the pipeline's position. Where they contradict each other:
    ``refuse`` returns a problem. ``authoritative-store`` takes the offset of the authoritative store. ``smallest``
    takes the smallest offset of any store that names the partition, so it replays and never skips.

    Two cases are left to ``plan_restart``, which counts them itself. One is the checkpoint of a tracked job that is
    ahead of its history. The other is a partition whose offset the authoritative store has lost
    (``Observation.known``).

    :param seen: the pipeline's stores and live topics.
    :param on_conflict: what to do about stores that contradict each other.
    :param elsewhere: partitions whose start is not left to the stores; their conflicts are ignored.
    """
    position, known = seen.stored or Position(), known_offsets(seen)
    conflicts = [row for row in compare_stores(seen).conflicts if not _is_for_the_plan(row, seen)]
    conflicts = [row for row in conflicts if row.key not in elsewhere]
    if on_conflict is OnConflict.SMALLEST:
        return position.updated(
            {row.key: min(each for each in row.offsets if each is not None) for row in conflicts}
        ), ()
    conflicts = [row for row in conflicts if row.key not in known]
    if not conflicts or on_conflict is OnConflict.AUTHORITATIVE_STORE:
        return position, ()
    shown = first_few((f"{row.key}: {row.why}" for row in conflicts), separator="; ")
    return position, (
        Problem(
            ProblemKind.STORES_CONFLICT,
            f"{len(conflicts)} partition(s) differ from the authoritative store ({shown}). Find out"
            f" which store is right: 'airflow offsets compare --pipeline {seen.pipeline}' lists all. Copy its position"
            " to the other store, set on_conflict to authoritative-store or smallest, or name the start with"
            " 'offsets:'",
        ),
    )


def _is_for_the_plan(row: PartitionComparison, seen: Observation) -> bool:
    """Check whether only the checkpoint of a tracked job differs here, and is ahead; a new partition counts as at 0."""
    stores = [each.store for each in seen.kept]
    if not seen.is_tracked or CHECKPOINT not in stores:
        return False
    authoritative, offset = row.offsets[0], row.offsets[stores.index(CHECKPOINT)]
    if authoritative is None and row.topic not in (seen.stored or Position()).topics:
        return False
    others = [each for index, each in enumerate(row.offsets) if stores[index] != CHECKPOINT]
    return offset is not None and offset > (authoritative or 0) and set(others) == {authoritative}


def _standing(seen: Observation) -> tuple[KeptPosition, ...]:
    """Return the stores' positions, with that of a tracked job's history corrected.

    The newest row of the history may be of an epoch that ended elsewhere than at the pipeline's position.
    """
    if not seen.kept:
        return (KeptPosition(HISTORY, HISTORY, seen.stored),)
    if not seen.is_tracked:
        return seen.kept if seen.left is None else (replace(seen.kept[0], position=seen.stored), *seen.kept[1:])
    authoritative = replace(seen.kept[0], position=seen.stored)
    if seen.epoch is not None:
        authoritative = replace(authoritative, before=_before_processed(seen, seen.epoch.claim.start))
    return (authoritative, *seen.kept[1:])


def _before_processed(seen: Observation, epoch_start: Position) -> Position | None:
    """Return the position of the pipeline one batch earlier. A partition that was new in that batch began at 0."""
    processed = seen.processed
    if processed is None or processed.start is None or not _is_at_processed(seen):
        return None
    return epoch_start.updated({each: processed.start.get(each, 0) for each in processed.end})


def _is_at_processed(seen: Observation) -> bool:
    """Check whether the pipeline is at the end of its newest batch, also in a later epoch without a batch."""
    stored, processed = seen.stored, seen.processed
    if stored is None or processed is None:
        return False
    return all(stored.get(partition) == offset for partition, offset in processed.end.items())


@dataclass(frozen=True)
class _Pair:
    """The authoritative store, another one, and the observation of both."""

    authoritative: KeptPosition
    other: KeptPosition
    seen: Observation
    earlier: dict[str, KeptPosition] | None

    @cached_property
    def other_is_one_batch_behind(self) -> bool:
        return _is_one_batch_behind(self.other, self.authoritative)

    @cached_property
    def authoritative_is_one_batch_behind(self) -> bool:
        return _is_one_batch_behind(self.authoritative, self.other)


def _row(partition: TopicPartition, kept: Sequence[KeptPosition], pairs: Sequence[_Pair]) -> PartitionComparison:
    agreement, reasons = Agreement.AGREE, []
    for pair in pairs:
        there, authoritative = _offset(pair.other, partition), _offset(pair.authoritative, partition)
        if there == authoritative:
            continue
        why = next((found for rule in RULES if (found := rule(pair, partition))), "")
        if not why:
            agreement, why = Agreement.CONFLICT, _difference(authoritative, there, pair.authoritative.store)
        elif agreement is Agreement.AGREE:
            agreement = Agreement.EXPECTED_LAG
        reasons.append(f"{pair.other.store} {why}")
    return PartitionComparison(
        *partition, tuple(_offset(each, partition) for each in kept), agreement, "; ".join(reasons)
    )


def _offset(kept: KeptPosition | None, partition: TopicPartition) -> int | None:
    return None if kept is None or kept.position is None else kept.position.get(partition)


def _difference(authoritative: int | None, other: int | None, store: str) -> str:
    if authoritative is None:
        return f"has {other}, and {store} does not name it"
    if other is None:
        return f"does not name it, and {store} has {authoritative}"
    return f"is {abs(other - authoritative)} {'ahead' if other > authoritative else 'behind'}"


def _is_one_batch_behind(late: KeptPosition, ahead: KeptPosition) -> bool:
    """Check that all partitions are one batch behind: a mixture of two batches is no position of any time."""
    if late.position is None or ahead.before is None:
        return False
    named = {*late.position, *ahead.before}
    return all(late.position.get(partition, 0) == ahead.before.get(partition, 0) for partition in named)


def _commit_goes_with_the_next_batch(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a consumer group that is one batch behind because of ``commitAsync``.

    A DStream's ``commitAsync`` only queues the offsets. ``DirectKafkaInputDStream.compute`` sends the queue when the
    next batch is generated. So a group is one batch behind, permanently after the last batch.

    A job that was behind its own schedule when it was stopped loses the commits of several batches. That is not
    expected here: it looks the same as a store that was changed by hand.
    """
    if pair.other.kind == "kafka" and pair.other_is_one_batch_behind:
        return "is one batch behind: commitAsync sends a batch's offsets with the next batch"
    if pair.authoritative.kind == "kafka" and pair.authoritative_is_one_batch_behind:
        return (
            f"is one batch ahead: {pair.authoritative.store} gets a batch's offsets by commitAsync, with the next batch"
        )
    return ""


def _commit_follows_the_record(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a checkpoint that is one batch behind the recorded batch.

    Spark writes ``commits/N`` after the batch's function has returned (``MicroBatchExecution``), and a batch is
    recorded in that function. In between, and after a crash there, the log is one batch behind.
    """
    if pair.other.kind == CHECKPOINT and pair.other_is_one_batch_behind:
        return "is one batch behind: the batch was recorded, and Spark has not committed it"
    if pair.authoritative.kind == CHECKPOINT and pair.authoritative_is_one_batch_behind:
        return "is one batch ahead: it has the batch, and Spark has not committed it"
    return ""


def _new_partition(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a new partition: it begins at 0 (law 3), and a store names it once something was read from it."""
    offsets = {_offset(pair.authoritative, partition), _offset(pair.other, partition)}
    if pair.other.position is not None and pair.authoritative.position is not None and offsets == {None, 0}:
        return "differs in a new partition only, of which nothing was read yet"
    return ""


def _nothing_stored(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a store without any position: it was never written, or its position has expired.

    An *authoritative* store without a position is not explained: it makes the next start a first start.
    """
    if pair.other.position is None:
        return f"has nothing stored{f' ({pair.other.expires})' if pair.other.expires else ''}"
    return ""


def _moved_from_here(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a start that was moved: it is written to the authoritative store only.

    The job updates the other stores with its first batch, or with the one after it.
    """
    moved, epoch, there = pair.seen.moved, pair.seen.epoch, _offset(pair.other, partition)
    if moved is not None and pair.other.kind == CHECKPOINT and pair.seen.is_moved_to(partition, there):
        return f"is where {moved.operation} moved it, and no job has started there"
    has_moved = moved is not None and moved.explains(pair.authoritative.position)
    if has_moved and moved is not None and moved.stood is not None and there == moved.stood.get(partition):
        return f"is still at the position from which {moved.operation} moved {pair.authoritative.store}"
    if epoch is None or epoch.claim.stood is None or there != epoch.claim.stood.get(partition):
        return ""
    before = None if pair.authoritative.before is None else pair.authoritative.before.get(partition)
    start = epoch.claim.start.get(partition)
    if start != there and start in (_offset(pair.authoritative, partition), before):
        return f"is still at the position from which {epoch.claim.operation} moved {pair.authoritative.store}"
    return ""


def _in_motion(pair: _Pair, partition: TopicPartition) -> str:
    """Explain a difference by motion: two stores of a running job are read at two moments, and offsets only grow.

    With two observations, more is known: every value of the second one is later than all values of the first. So a
    store that is *then* behind the earlier value of another store is really behind, apart from the batch by which it
    may lag.
    """
    if not pair.seen.is_running:
        return ""
    if pair.earlier is None or not (
        _is_left_behind(pair.other, pair.earlier.get(pair.authoritative.store), partition)
        or _is_left_behind(pair.authoritative, pair.earlier.get(pair.other.store), partition)
    ):
        return "was read at another moment of the running job"
    return ""


def _is_left_behind(late: KeptPosition, before: KeptPosition | None, partition: TopicPartition) -> bool:
    """Check whether ``late``, read last, is behind the earlier value of another store."""
    now, then = _offset(late, partition), _offset(before, partition)
    if before is None or now is None or then is None:
        return False
    if late.kind not in ("kafka", CHECKPOINT):
        return now < then
    # It may lag by one batch: only a store that knows the start of that batch can show that it is further behind.
    return before.before is not None and now < before.before.get(partition, 0)


RULES: tuple[Callable[[_Pair, TopicPartition], str], ...] = (
    _nothing_stored,
    _commit_goes_with_the_next_batch,
    _commit_follows_the_record,
    _new_partition,
    _moved_from_here,
    _in_motion,
)
"""The first rule that explains a difference is shown. Motion comes last: it explains anything while the job runs."""
