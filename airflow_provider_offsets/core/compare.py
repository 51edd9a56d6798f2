"""What the stores of a pipeline say beside each other: agree, expected lag, or conflict, partition by partition.

Each store is held against the ruling one. A difference is an expected lag if a rule below explains it; what no rule
explains is a conflict. The rules are small functions of one pair of stores and one partition, each with its source.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from airflow_provider_offsets.core.known import known_offsets
from airflow_provider_offsets.core.plan import OnConflict, Problem, ProblemKind
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY, KeptPosition, Observation

SHOWN = 5
"""How many partitions a problem names; the report has them all."""


class Verdict(enum.Enum):
    """What two stores say of one partition, taken together."""

    AGREE = "agree"
    EXPECTED_LAG = "expected lag"
    """They differ, and it is known why: nothing is wrong with either."""
    CONFLICT = "conflict"


@dataclass(frozen=True)
class PartitionComparison:
    """One partition in every store."""

    topic: str
    partition: int
    offsets: tuple[int | None, ...]
    """In the order of ``Comparison.stores``; None where the store does not name the partition."""
    verdict: Verdict
    why: str = ""
    """Which store differs and why; empty if all agree."""

    @property
    def key(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True)
class Comparison:
    """All stores of a pipeline beside each other."""

    pipeline: str
    stores: tuple[str, ...]
    """The ruling one first. Its offsets are where the pipeline stands, which of a tracked job that was rewound and has
    run no batch since is not what the newest row of its history says."""
    running: bool
    rows: tuple[PartitionComparison, ...]
    perishing: tuple[str, ...] = ()
    """What deletes a stored position, and when: one sentence for each store that does."""

    @property
    def ruling(self) -> str:
        """The store that says where the job stands."""
        return self.stores[0]

    @property
    def conflicts(self) -> tuple[PartitionComparison, ...]:
        """The partitions that stores contradict each other about."""
        return tuple(row for row in self.rows if row.verdict is Verdict.CONFLICT)

    def count(self, verdict: Verdict) -> int:
        """How many partitions have that verdict."""
        return sum(row.verdict is verdict for row in self.rows)


def compare_stores(seen: Observation, earlier: Observation | None = None) -> Comparison:
    """Give what the stores of a pipeline say beside each other.

    While the job runs its stores are read one after the other, so a difference may be nothing but the time between two
    reads: one look alone calls nothing a conflict then. At rest nothing moves, and no difference passes for motion.

    :param earlier: another look at the same running job, begun and ended before ``seen`` was. What stood still while
        another store passed it by is no motion. Leave it out if the job was started anew in between.
    """
    kept = _standing(seen)
    first = None if earlier is None or not seen.is_running else {each.store: each for each in _standing(earlier)}
    pairs = [_Pair(kept[0], other, seen, first) for other in kept[1:]]
    partitions = sorted({partition for each in kept for partition in each.position or ()})
    return Comparison(
        pipeline=seen.pipeline,
        stores=tuple(each.store for each in kept),
        running=seen.is_running,
        rows=tuple(_row(partition, kept, pairs) for partition in partitions),
        perishing=tuple(f"{each.store}: {each.perishes}" for each in kept if each.perishes),
    )


def settle(
    seen: Observation, on_conflict: OnConflict, elsewhere: Collection[TopicPartition] = ()
) -> tuple[Position, tuple[Problem, ...]]:
    """Give where a start that is left to the stores (``committed``) begins, and what speaks against it.

    Where stores agree, or lag as expected, that is where the pipeline stands. Where they contradict each other:
    ``refuse`` gives a problem, ``ruling-store`` goes by the ruling one, and ``smallest`` takes the smallest offset that
    any store has of such a partition, so it replays and never skips; a store that does not name it is not asked.

    That the checkpoint of a tracked job is ahead of its history is left to ``plan_restart``, which counts it itself. So
    is a partition whose offset the ruling store has lost (``Observation.known``).

    :param elsewhere: partitions whose start is not left to the stores: what these say of them speaks against nothing.
    """
    stands, known = seen.stored or Position(), known_offsets(seen)
    conflicts = [row for row in compare_stores(seen).conflicts if not _is_for_the_plan(row, seen)]
    conflicts = [row for row in conflicts if row.key not in elsewhere]
    if on_conflict is OnConflict.SMALLEST:
        return stands.updated({row.key: min(each for each in row.offsets if each is not None) for row in conflicts}), ()
    conflicts = [row for row in conflicts if row.key not in known]
    if not conflicts or on_conflict is OnConflict.RULING_STORE:
        return stands, ()
    shown = "; ".join(f"{row.key}: {row.why}" for row in conflicts[:SHOWN])
    more = f"; and {len(conflicts) - SHOWN} more" if len(conflicts) > SHOWN else ""
    return stands, (
        Problem(
            ProblemKind.STORES_CONFLICT,
            f"{len(conflicts)} partition(s) have other offsets than the ruling store says ({shown}{more}); find out"
            f" which is true ('airflow offsets compare --pipeline {seen.pipeline}' shows all) and copy it over the"
            " other, or set on_conflict to ruling-store or smallest, or name the start with 'offsets:'",
        ),
    )


def _is_for_the_plan(row: PartitionComparison, seen: Observation) -> bool:
    """Only the checkpoint of a tracked job differs here, and it is ahead: also in a partition that is new, so at 0."""
    stores = [each.store for each in seen.kept]
    if not seen.is_tracked or CHECKPOINT not in stores:
        return False
    ruling, offset = row.offsets[0], row.offsets[stores.index(CHECKPOINT)]
    if ruling is None and row.topic not in (seen.stored or Position()).topics:
        return False
    others = [each for index, each in enumerate(row.offsets) if stores[index] != CHECKPOINT]
    return offset is not None and offset > (ruling or 0) and set(others) == {ruling}


def _standing(seen: Observation) -> tuple[KeptPosition, ...]:
    """What the stores say, the ruling one put right for a tracked job: the newest row of its history may be of an epoch
    that ended elsewhere than where the job stands now."""
    if not seen.kept:
        return (KeptPosition(HISTORY, HISTORY, seen.stored),)
    if not seen.is_tracked:
        return seen.kept
    ruling = replace(seen.kept[0], position=seen.stored)
    if seen.epoch is not None:
        ruling = replace(ruling, before=_before_processed(seen, seen.epoch.claim.start))
    return (ruling, *seen.kept[1:])


def _before_processed(seen: Observation, epoch_start: Position) -> Position | None:
    """Where the pipeline was one batch earlier. A partition that was new in that batch began at 0."""
    processed = seen.processed
    if processed is None or processed.start is None or not _is_at_processed(seen):
        return None
    return epoch_start.updated({each: processed.start.get(each, 0) for each in processed.end})


def _is_at_processed(seen: Observation) -> bool:
    """Whether the pipeline is where its newest batch ended: also under a later epoch that has recorded none yet."""
    stands, processed = seen.stored, seen.processed
    if stands is None or processed is None:
        return False
    return all(stands.get(partition) == offset for partition, offset in processed.end.items())


@dataclass(frozen=True)
class _Pair:
    """The ruling store, one other, and what bears on the two."""

    ruling: KeptPosition
    other: KeptPosition
    seen: Observation
    earlier: dict[str, KeptPosition] | None

    @cached_property
    def other_is_one_batch_behind(self) -> bool:
        return _is_one_batch_behind(self.other, self.ruling)

    @cached_property
    def ruling_is_one_batch_behind(self) -> bool:
        return _is_one_batch_behind(self.ruling, self.other)


def _row(partition: TopicPartition, kept: Sequence[KeptPosition], pairs: Sequence[_Pair]) -> PartitionComparison:
    verdict, reasons = Verdict.AGREE, []
    for pair in pairs:
        there, ruling = _offset(pair.other, partition), _offset(pair.ruling, partition)
        if there == ruling:
            continue
        why = next((found for rule in RULES if (found := rule(pair, partition))), "")
        if not why:
            verdict, why = Verdict.CONFLICT, _difference(ruling, there, pair.ruling.store)
        elif verdict is Verdict.AGREE:
            verdict = Verdict.EXPECTED_LAG
        reasons.append(f"{pair.other.store} {why}")
    return PartitionComparison(
        *partition, tuple(_offset(each, partition) for each in kept), verdict, "; ".join(reasons)
    )


def _offset(kept: KeptPosition | None, partition: TopicPartition) -> int | None:
    return None if kept is None or kept.position is None else kept.position.get(partition)


def _difference(ruling: int | None, other: int | None, store: str) -> str:
    if ruling is None:
        return f"has {other}, and {store} does not name it"
    if other is None:
        return f"does not name it, and {store} has {ruling}"
    return f"is {abs(other - ruling)} {'ahead' if other > ruling else 'behind'}"


def _is_one_batch_behind(late: KeptPosition, ahead: KeptPosition) -> bool:
    """As a whole: a mixture of two batches is of no moment at all."""
    if late.position is None or ahead.before is None:
        return False
    named = {*late.position, *ahead.before}
    return all(late.position.get(partition, 0) == ahead.before.get(partition, 0) for partition in named)


def _commit_goes_with_the_next_batch(pair: _Pair, partition: TopicPartition) -> str:
    """A DStream's ``commitAsync`` only queues the offsets; ``DirectKafkaInputDStream.compute`` sends what is queued
    when the next batch is made. So a group is one batch behind, for ever after the last one.

    A job that was behind its own schedule when it was stopped has several batches queued, and loses all their commits.
    That is not expected here: nobody could tell it from a store that was changed by hand.
    """
    if pair.other.kind == "kafka" and pair.other_is_one_batch_behind:
        return "is one batch behind: commitAsync sends a batch's offsets with the next batch"
    if pair.ruling.kind == "kafka" and pair.ruling_is_one_batch_behind:
        return f"is one batch ahead: {pair.ruling.store} gets a batch's offsets by commitAsync, with the next batch"
    return ""


def _commit_follows_the_record(pair: _Pair, partition: TopicPartition) -> str:
    """Spark writes ``commits/N`` after the batch's function has returned (``MicroBatchExecution``), and whoever records
    a batch in that function has done so before: in between, and after a crash there, the log is one batch behind."""
    if pair.other.kind == CHECKPOINT and pair.other_is_one_batch_behind:
        return "is one batch behind: the batch was recorded, and Spark has not committed it"
    if pair.ruling.kind == CHECKPOINT and pair.ruling_is_one_batch_behind:
        return "is one batch ahead: it has the batch, and Spark has not committed it"
    return ""


def _new_partition(pair: _Pair, partition: TopicPartition) -> str:
    """A partition that appeared begins at 0 (deck, third case); a store names it once something was read from it."""
    offsets = {_offset(pair.ruling, partition), _offset(pair.other, partition)}
    if pair.other.position is not None and pair.ruling.position is not None and offsets == {None, 0}:
        return "differs in a new partition only, of which nothing was read yet"
    return ""


def _nothing_stored(pair: _Pair, partition: TopicPartition) -> str:
    """A store without any position contradicts nobody: it was never written, or what it had has perished. A *ruling*
    store without one does: it makes the next start a first start."""
    if pair.other.position is None:
        return f"has nothing stored{f' ({pair.other.perishes})' if pair.other.perishes else ''}"
    return ""


def _moved_from_here(pair: _Pair, partition: TopicPartition) -> str:
    """A start that was moved is written to the ruling store alone. The others learn of it from the job, with its first
    batch, or with the one after it."""
    moved, epoch, there = pair.seen.moved, pair.seen.epoch, _offset(pair.other, partition)
    has_moved = moved is not None and moved.explains(pair.ruling.position)
    if has_moved and moved is not None and moved.stood is not None and there == moved.stood.get(partition):
        return f"still stands where {moved.operation} moved {pair.ruling.store} from"
    if epoch is None or epoch.claim.stood is None or there != epoch.claim.stood.get(partition):
        return ""
    before = None if pair.ruling.before is None else pair.ruling.before.get(partition)
    start = epoch.claim.start.get(partition)
    if start != there and start in (_offset(pair.ruling, partition), before):
        return f"still stands where {epoch.claim.operation} moved {pair.ruling.store} from"
    return ""


def _in_motion(pair: _Pair, partition: TopicPartition) -> str:
    """Two stores of a running job are read at two moments, and offsets only grow in an epoch.

    With two looks more can be said: what a store says at the second one is later than all that was said at the first,
    so a store that is *then* behind what another said before is behind indeed; but for the batch that it may lag.
    """
    if not pair.seen.is_running:
        return ""
    if pair.earlier is None or not (
        _is_left_behind(pair.other, pair.earlier.get(pair.ruling.store), partition)
        or _is_left_behind(pair.ruling, pair.earlier.get(pair.other.store), partition)
    ):
        return "was read at another moment of the running job"
    return ""


def _is_left_behind(late: KeptPosition, before: KeptPosition | None, partition: TopicPartition) -> bool:
    """Say whether ``late``, read last, is behind what another store said at the look before."""
    now, then = _offset(late, partition), _offset(before, partition)
    if before is None or now is None or then is None:
        return False
    if late.kind not in ("kafka", CHECKPOINT):
        return now < then
    # It may lag one batch: only a store that knows where that batch began can say that it is further behind.
    return before.before is not None and now < before.before.get(partition, 0)


RULES: tuple[Callable[[_Pair, TopicPartition], str], ...] = (
    _nothing_stored,
    _commit_goes_with_the_next_batch,
    _commit_follows_the_record,
    _new_partition,
    _moved_from_here,
    _in_motion,
)
"""The first that explains a difference is shown. Motion comes last: it explains anything while the job runs."""
