"""Plan of a restart, partition by partition, before anything moves.

The three cases of Cloudera's slide "Starting Streaming Jobs with Known Offsets" are rows here: first time, no change in
partitions, more partitions. No offset is changed silently: every difference between the wanted and the possible start
is counted. Loss and skipping are problems unless accepted by topic and count. Replay is allowed.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Announced
from airflow_provider_offsets.core.known import is_other_cluster, known_offsets, recreated_topics, replaced
from airflow_provider_offsets.core.live import LivePartition, LiveTopics, TopicIdentity, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.runway import Runway, duration
from airflow_provider_offsets.core.selector import Offsets, missing_partitions
from airflow_provider_offsets.core.selector_text import COMMITTED
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    HISTORY,
    UNSTARTED,
    CheckpointState,
    KeptPosition,
    KnownBatch,
    KnownIdentity,
    KnownPosition,
    Observation,
)
from airflow_provider_offsets.errors import WorldChanged


class RestartForm(enum.Enum):
    """Form of a restart: the way in which the job gets its start."""

    RESUME = "resume"
    """The same checkpoint; Spark continues by itself."""
    REPOSITION = "reposition"
    """A checkpoint seeded with the chosen offsets beside the old one, which is closed. Query id and batch ids
    continue."""
    FRESH = "fresh"
    """A new checkpoint, and ``startingOffsets`` that name every partition. For an untracked job: a seeded checkpoint at
    the job's own location, because its program sets its own ``startingOffsets``."""
    WRITE = "write"
    """For jobs that keep their offsets elsewhere: the start is written to the store that they read."""


class StartReason(enum.Enum):
    """Why a partition starts at its offset."""

    FIRST_START = "first start: from the first offset there is"
    STORED = "goes on where it stands"
    NEW_PARTITION = "new partition: from offset 0"
    CHOSEN = "as the selector says"
    RETENTION = "retention has deleted what comes before"


class ProblemKind(enum.Enum):
    """Why a plan is refused."""

    LOSS = "loss"
    SKIP = "skip"
    OFFSET_PAST_END = "offset past the end"
    LEADER_EPOCH_BACK = "leader epoch gone back"
    TOPIC_RECREATED = "topic recreated"
    WRONG_CLUSTER = "wrong cluster"
    PARTITIONS_GONE = "partitions gone"
    PARTITION_MISSING = "partition missing from the stored position"
    STATEFUL_REPOSITION = "stateful query asked to reposition"
    POSITION_GONE = "stored position gone"
    LATE_WRITE = "stored position written late"
    STORES_DISAGREE = "checkpoint is ahead of the history"
    STORES_CONFLICT = "stores contradict each other"
    CHECKPOINT_STAYS = "checkpoint cannot be exchanged"
    GROUP_CHANGED = "group id changed"
    WINDOW_TOO_LONG = "window longer than the runway"
    NO_START = "no start named"


TRUNCATION = (ProblemKind.OFFSET_PAST_END, ProblemKind.LEADER_EPOCH_BACK)
"""The only two signs of a truncated log that are visible from outside. Without them, truncation is *unknown*, never
*ok*. A log that was cut, and has grown past the stored offset under a newer leader, looks like any other."""


SHOWN = 10
"""Maximum number of partitions that a problem names one by one."""

AS_A_NEW_ONE = (
    "describe the job as a new pipeline, with another name, group_id and checkpoint, and for Spark's file sink with"
    " another output folder"
)
"""The remedy if stored offsets have no meaning: epochs belong to a pipeline's name, and history to its group id. Batch
ids begin at 0 again, and a file sink skips a batch whose id is in its ``_spark_metadata``."""


@dataclass(frozen=True)
class Problem:
    """One reason to refuse the plan: what was found, and the remedy."""

    kind: ProblemKind
    message: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.message}"


class OnConflict(enum.Enum):
    """Policy for a start that is left to the stores if they contradict each other."""

    REFUSE = "refuse"
    RULING_STORE = "ruling-store"
    SMALLEST = "smallest"
    """The smallest offset of each partition in any store: replays, and never skips."""


@dataclass(frozen=True)
class RestartPolicy:
    """Accepted loss and skipping, as topic and maximum count of offsets: ``{topic: count}``."""

    accept_lost: dict[str, int] = field(default_factory=dict)
    accept_skipped: dict[str, int] = field(default_factory=dict)
    on_conflict: OnConflict = OnConflict.REFUSE

    def accepting(self, lost: Mapping[str, int], skipped: Mapping[str, int]) -> RestartPolicy:
        """Return this policy with the counts of one run replacing its own, for the topics that the run names.

        :param lost: accepted loss, ``{topic: count}``.
        :param skipped: accepted skipping, ``{topic: count}``.
        """
        return replace(
            self,
            accept_lost={**self.accept_lost, **lost},
            accept_skipped={**self.accept_skipped, **skipped},
        )


@dataclass(frozen=True)
class PartitionPlan:
    """Restart of one partition. Counts are of offsets."""

    topic: str
    partition: int
    begin: int
    end: int
    stored: int | None
    """The pipeline's offset; None for a partition that it never read, or whose stored offset is gone."""
    wanted: int | None
    """Offset that the selector chose; None if it chose none."""
    start: int
    reason: StartReason
    replay: int = 0
    """Offsets below ``stored`` that are replayed."""
    skipped: int = 0
    """Unread offsets that are skipped by choice."""
    lost: int = 0
    """Unread offsets that retention has deleted."""
    unreplayable: int = 0
    """Offsets to replay that retention has deleted."""
    recreated: bool = False
    """Whether the topic has another id than the topic that ``stored`` belongs to."""
    chosen_by: str = ""
    """The selector that chose this start, with its note; empty if that is obvious."""
    known: int | None = None
    """The pipeline's offset by another source, if the stored offset is gone. Counts then use it."""
    known_by: str = ""
    """Description of that source."""

    @property
    def is_new(self) -> bool:
        """Whether no store and no other source shows that the pipeline has read the partition."""
        return self.stored is None and self.known is None

    @property
    def why(self) -> str:
        """The reason, as text."""
        chosen = f"chosen by {self.chosen_by}" if self.chosen_by else ""
        reason = "" if chosen and self.reason is StartReason.CHOSEN else self.reason.value
        known = "" if self.known is None else f"known at {self.known:,} by {self.known_by}"
        return "; ".join(filter(None, (reason, chosen, known, "topic recreated" if self.recreated else "")))

    @property
    def missing(self) -> int:
        """Offsets that the start wants and Kafka no longer has."""
        return self.lost + self.unreplayable

    @property
    def key(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True)
class Preconditions:
    """State that must be unchanged when the plan is applied."""

    generation: int
    """Generation of the pipeline's record: if it is unchanged, no other operation has held the lease and the job's
    phase is the same."""
    epoch: int
    """Number of the newest launch."""
    stored: Position | None
    identity: TopicIdentity
    checkpoint: str | None
    committed_batch_id: int | None
    planned_batch_id: int | None
    closed_by: str | None

    @classmethod
    def of(cls, seen: Observation) -> Preconditions:
        """Return the preconditions of a plan that was made from ``seen``."""
        checkpoint = seen.newest_checkpoint
        return cls(
            generation=seen.generation,
            epoch=seen.launched,
            stored=seen.stored,
            identity=seen.live.identity,
            checkpoint=None if checkpoint is None else checkpoint.location,
            committed_batch_id=None if checkpoint is None else checkpoint.committed_batch_id,
            planned_batch_id=None if checkpoint is None else checkpoint.planned_batch_id,
            closed_by=None if checkpoint is None else checkpoint.closed_by,
        )

    def changes(self, now: Preconditions) -> tuple[str, ...]:
        """Return what differs between these preconditions and ``now``, each with both values."""
        pairs = ((name, getattr(self, name), getattr(now, name)) for name in self.__dataclass_fields__)
        return tuple(f"{name} was {then!r} and is {later!r}" for name, then, later in pairs if then != later)


@dataclass(frozen=True)
class RestartPlan:
    """Effect of a restart. Pure data; identified by ``fingerprint``."""

    pipeline: str
    selector: str
    form: RestartForm
    form_reason: str
    rows: tuple[PartitionPlan, ...]
    problems: tuple[Problem, ...]
    seen: Preconditions
    ruling: str = ""
    """The authoritative store of an untracked job; empty for a tracked one."""
    kept: Position | None = None
    """Position in an untracked job's authoritative store: a write expects it there."""
    last_batch_id: int = UNSTARTED
    """The greatest id of a batch whose output is complete. The output of the next one may exist in part. So a seeded
    checkpoint uses the next id for a batch without records, and continues after it."""
    query_id: str | None = None
    replay_at_most: int = 0
    """Offsets of an interrupted batch: its output may exist in part, and the batch is run again."""
    gone: Position = field(default_factory=Position)
    """Stored or chosen offsets of partitions that the topics do not have: neither read nor in ``rows``."""
    upper_bounds: tuple[str, ...] = ()
    """The topics whose counts are upper bounds: they have offsets without a record."""
    settles: tuple[str, ...] = ()
    """Tokens of the late writes that the plan accounts for."""
    notes: tuple[str, ...] = ()
    """Remarks for a reader of the plan that are no reason to refuse it."""
    runway: Runway | None = None
    """Retention of the records from the start on; None if Kafka was not asked."""

    @property
    def start(self) -> Position:
        """Starting offset of each partition."""
        return Position({row.key: row.start for row in self.rows})

    @property
    def stood(self) -> Position | None:
        """The pipeline's position when the plan was made, with known offsets where the stored ones are gone."""
        known = {row.key: row.known for row in self.rows if row.known is not None}
        return (self.seen.stored or Position()).updated(known) if known else self.seen.stored

    @property
    def replay(self) -> int:
        """Offsets that are replayed."""
        return sum(row.replay for row in self.rows)

    @property
    def skipped(self) -> int:
        """Offsets that are never read, by choice."""
        return sum(row.skipped for row in self.rows)

    @property
    def lost(self) -> int:
        """Offsets that are never read, because retention has deleted them."""
        return sum(row.lost for row in self.rows)

    @property
    def unreplayable(self) -> int:
        """Offsets to replay that retention has deleted."""
        return sum(row.unreplayable for row in self.rows)

    @property
    def truncation(self) -> str:
        """Whether a truncated log is known: ``seen`` or ``unknown``."""
        return "seen" if any(problem.kind in TRUNCATION for problem in self.problems) else "unknown"

    @property
    def announced(self) -> tuple[Announced, ...]:
        """The partitions that are not simply resumed, for the audit."""
        return tuple(
            Announced(row.topic, row.partition, row.start, row.replay, row.skipped, row.lost)
            for row in self.rows
            if row.replay or row.skipped or row.lost
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the decision and its preconditions, without end offsets, which always change."""
        decision = (self.pipeline, self.form.value, self.start.to_json(), codec.dumps(self.seen))
        return hashlib.sha256("\n".join(decision).encode()).hexdigest()[:16]


def plan_restart(
    wanted: Position,
    seen: Observation,
    policy: RestartPolicy | None = None,
    *,
    selector: str = "",
    known_leader_epochs: Mapping[TopicPartition, int] | None = None,
    known_batch: KnownBatch | None = None,
    chosen_by: Mapping[TopicPartition, str] | None = None,
    named: Collection[TopicPartition] = (),
) -> RestartPlan:
    """Return the plan of a restart from ``wanted``, in the state that was ``seen``.

    :param wanted: the offsets that the selectors chose. Partitions that it lacks and the pipeline never read are new.
    :param policy: accepted loss and skipping; None accepts none.
    :param selector: the selector's text, for people.
    :param known_leader_epochs: the greatest leader epoch of each partition that was observed since the job started.
    :param known_batch: the greatest batch id in the pipeline's records, if the checkpoint is gone.
    :param chosen_by: the selector that chose the start of each partition, for people.
    :param named: the partitions whose start a person chose, instead of leaving it to the stores or to a fallback.
    """
    named_by = chosen_by or {}
    read, wanted_topics = _Read.of(seen), frozenset(wanted.topics)
    rows = tuple(
        replace(_row(partition, live, wanted, wanted_topics, read), chosen_by=named_by.get(partition, ""))
        for partition, live in seen.live.partitions.items()
    )
    start = Position({row.key: row.start for row in rows})
    completed_id = _completed_batch_id(seen, known_batch)
    form, form_reason = _form(start, seen, completed_id)
    problems = (
        *_identity_problems(seen),
        *_gone_problems(start, seen, named, selector),
        *_shape_problems(wanted, seen),
        *_leader_problems(wanted, seen, known_leader_epochs or {}),
        *_count_problems(rows, policy or RestartPolicy()),
        *_form_problems(form, wanted, seen, named, selector),
        *_untouched_problems(wanted, seen),
    )
    return RestartPlan(
        pipeline=seen.pipeline,
        selector=selector,
        form=form,
        form_reason=form_reason,
        rows=rows,
        problems=problems,
        seen=Preconditions.of(seen),
        ruling="" if seen.is_tracked else seen.kept[0].store,
        kept=None if seen.is_tracked else seen.kept[0].position,
        last_batch_id=UNSTARTED if completed_id is None else completed_id,
        query_id=_query_id(seen),
        replay_at_most=sum(each.count for each in seen.in_flight),
        gone=_gone(wanted, seen),
        settles=tuple(each.token for each in seen.late),
        notes=(*_dropped_topics(seen), *_batch_id_notes(seen, known_batch)),
    )


def with_runway(
    plan: RestartPlan,
    runway: Runway,
    settings: Mapping[str, TopicSettings | None],
    policy: RestartPolicy | None = None,
    *,
    read_committed: bool = False,
) -> RestartPlan:
    """Return the plan with the effects of its topics' settings.

    The plan then shows which counts are upper bounds, and how long Kafka retains the records after the start. A
    retention shorter than the window is a problem.

    :param settings: settings of each topic; None for a topic whose settings this user may not read.
    :param policy: accepted loss. The count of a topic accepts a window that puts no more offsets at risk.
    :param read_committed: whether the job reads committed records only.
    """
    topics = sorted({row.topic for row in plan.rows})
    compacted = [topic for topic in topics if (found := settings.get(topic)) is not None and found.is_compacted]
    notes = [*plan.notes]
    if compacted:
        notes.append(f"{', '.join(compacted)}: compacted, so some offsets have no record; counts are upper bounds")
    if read_committed:
        notes.append(
            "ends are last stable offsets (isolation.level=read_committed); markers and aborted records have offsets"
            " too, so counts are upper bounds"
        )
    if hidden := [topic for topic in topics if settings.get(topic) is None]:
        notes.append(
            f"{', '.join(hidden)}: this user may not see the settings (DESCRIBE_CONFIGS); whether it is compacted"
            " and how long it keeps its records is unknown"
        )
    return replace(
        plan,
        upper_bounds=tuple(topics if read_committed else compacted),
        notes=tuple(notes),
        runway=runway,
        problems=(*plan.problems, *_window_problems(runway, policy or RestartPolicy())),
    )


def reconcile(start: Position, live: LiveTopics) -> Position:
    """Return ``start`` with the partitions that were created after the plan, at 0 (law 3).

    :param start: starting offsets of the plan.
    :param live: the live topics.
    :raises WorldChanged: retention has already deleted the first records of such a partition.
    """
    new = {partition: there.begin for partition, there in live.partitions.items() if partition not in start}
    eaten = [f"{partition} begins at {begin}" for partition, begin in new.items() if begin > 0]
    if eaten:
        raise WorldChanged(
            seen=f"new since the plan, and its head deleted already: {', '.join(eaten)}",
            expected="new partitions that can be read from offset 0",
            do="plan again: the plan counts what is lost, and it can be accepted there",
        )
    return start.updated(new)


@dataclass(frozen=True)
class _Read:
    """Offsets and topics that the pipeline has read, as far as any source shows."""

    stored: Position
    known: dict[TopicPartition, KnownPosition]
    recreated: dict[str, KnownIdentity]
    stored_topics: frozenset[str]
    topics: frozenset[str]
    """Topics that the pipeline has read: a new partition of these begins at 0."""

    @classmethod
    def of(cls, seen: Observation) -> _Read:
        stored, known, recreated = seen.stored or Position(), known_offsets(seen), recreated_topics(seen)
        topics = frozenset(stored.topics)
        return cls(stored, known, recreated, topics, topics.union(recreated, (each.topic for each in known)))


def _row(
    partition: TopicPartition, live: LivePartition, wanted: Position, wanted_topics: Collection[str], read: _Read
) -> PartitionPlan:
    topic_is_stored = partition.topic in read.stored_topics
    stored, want, known = read.stored.get(partition), wanted.get(partition), read.known.get(partition)
    stood = stored if known is None else known.position[partition]
    if want is None and not topic_is_stored and partition.topic not in wanted_topics:
        start, reason = live.begin, StartReason.FIRST_START
    elif want is None:
        start, reason = 0, StartReason.NEW_PARTITION
    else:
        is_new = stood is None and topic_is_stored and want == 0
        start, reason = want, StartReason.NEW_PARTITION if is_new else StartReason.CHOSEN
        reason = StartReason.STORED if want == stored else reason
    # Unread records begin at the pipeline's offset, or at 0 in a new partition of a topic that the pipeline has read.
    # In a topic that is read for the first time, nothing before the chosen start can be lost or skipped.
    unread = stood if stood is not None else 0 if partition.topic in read.topics else max(start, live.begin)
    if start < live.begin:
        start, reason = live.begin, StartReason.RETENTION
    lost = max(0, min(start, live.begin) - unread)
    return PartitionPlan(
        topic=partition.topic,
        partition=partition.partition,
        begin=live.begin,
        end=live.end,
        stored=stored,
        wanted=want,
        start=start,
        reason=reason,
        replay=max(0, (stood or 0) - start),
        skipped=max(0, start - unread) - lost,
        lost=lost,
        unreplayable=0 if want is None else max(0, min(unread, live.begin) - want),
        recreated=partition.topic in read.recreated,
        known=None if known is None else stood,
        known_by="" if known is None else known.source,
    )


def _form(start: Position, seen: Observation, completed_id: int | None) -> tuple[RestartForm, str]:
    checkpoint = seen.checkpoint
    if not seen.is_tracked and seen.kept[0].store != CHECKPOINT:
        return _form_of_write(start, seen.kept[0])
    if checkpoint is None:
        if seen.left is not None:
            return RestartForm.REPOSITION, f"{_opens_another(seen)}; a seeded one goes on from there"
        if completed_id is None:
            return RestartForm.FRESH, "there is no checkpoint to go on from"
        return RestartForm.REPOSITION, "the checkpoint is gone; a seeded one lets the batch ids go on"
    return _form_on(checkpoint, start, seen)


def _form_on(checkpoint: CheckpointState, start: Position, seen: Observation) -> tuple[RestartForm, str]:
    """Return the form of a restart of a job that opens ``checkpoint``."""
    if checkpoint.closed_by is not None:
        return RestartForm.REPOSITION, f"the checkpoint was closed by {checkpoint.closed_by}"
    goes_on_at = _resume_position(checkpoint, seen.processed)
    moved = [partition for partition, offset in start.items() if goes_on_at.get(partition, 0) != offset]
    if moved:
        return RestartForm.REPOSITION, f"{len(moved)} partition(s) start elsewhere than the checkpoint says"
    if dropped := [partition for partition in goes_on_at if partition not in start]:
        return RestartForm.REPOSITION, f"the checkpoint holds {len(dropped)} partition(s) that the job no longer reads"
    if seen.left is not None and seen.left.committed_batch_id > checkpoint.committed_batch_id:
        return RestartForm.REPOSITION, f"{_opens_another(seen)}, and the batch ids there are greater"
    if lacking := _not_planned(checkpoint):
        return (
            RestartForm.REPOSITION,
            f"batch {checkpoint.planned_batch_id} was planned without {len(lacking)} partition(s) that the batch before"
            " it has, and Spark fails on it",
        )
    return (
        RestartForm.RESUME,
        f"the checkpoint stands where the job starts, after batch {checkpoint.committed_batch_id}",
    )


def _opens_another(seen: Observation) -> str:
    assert seen.left is not None
    return f"epoch {seen.epoch_number} ran on {seen.left.location}, and the job opens another checkpoint now"


def _not_planned(checkpoint: CheckpointState) -> list[TopicPartition]:
    """Return the partitions that the planned batch lacks and the committed one has.

    Spark reports them as deleted and fails (``failOnDataLoss``), before it reads anything. The program had subscribed
    to fewer topics when it planned that batch.
    """
    planned = checkpoint.planned
    return [] if planned is None else [partition for partition in checkpoint.committed if partition not in planned]


def _form_of_write(start: Position, kept: KeptPosition) -> tuple[RestartForm, str]:
    if kept.position == start:
        return RestartForm.RESUME, f"{kept.store} says where the job starts"
    if kept.position is None:
        return RestartForm.WRITE, f"{kept.store} has nothing stored yet"
    moved = [partition for partition, offset in start.items() if kept.position.get(partition) != offset]
    return RestartForm.WRITE, f"{len(moved)} partition(s) start elsewhere than {kept.store} says"


def _resume_position(checkpoint: CheckpointState, processed: Batch | None) -> Position:
    """Return where Spark continues *and the runtime acts*.

    Spark runs a planned batch again even if the history has it, but then the runtime skips the batch.
    """
    planned_is_processed = (
        checkpoint.planned is not None
        and processed is not None
        and (processed.query_id, processed.batch_id) == (checkpoint.query_id, checkpoint.planned_batch_id)
    )
    return checkpoint.planned if planned_is_processed and checkpoint.planned is not None else checkpoint.committed


def _completed_batch_id(seen: Observation, known_batch: KnownBatch | None) -> int | None:
    ids = (seen.completed_batch_id, None if known_batch is None else known_batch.completed_id)
    return max((each for each in ids if each is not None), default=None)


def _query_id(seen: Observation) -> str | None:
    if seen.newest_checkpoint is not None:
        return seen.newest_checkpoint.query_id
    return None if seen.processed is None else seen.processed.query_id


def _identity_problems(seen: Observation) -> Iterator[Problem]:
    live = seen.live.identity
    for known in seen.identities:
        if known.identity.cluster_id != live.cluster_id:
            yield Problem(
                ProblemKind.WRONG_CLUSTER,
                f"the stored offsets are of cluster {known.identity.cluster_id!r} by {known.source}, and the"
                f" connection leads to {live.cluster_id!r}. Correct the Kafka connection; if the topics have moved to"
                f" that cluster, {AS_A_NEW_ONE}{_unless_wrong(known, seen)}",
            )
            return
    stored = {partition.topic for kept in seen.kept for partition in kept.position or ()}
    stored.update((seen.stored or Position()).topics)
    for topic, known in recreated_topics(seen).items():
        # If no start by this provider has read the topic, only an offset in a store can be of the old topic.
        if known.snapshot and topic not in stored:
            continue
        delete = "delete the stored offsets of this topic, which makes it a first start, or " if known.snapshot else ""
        yield Problem(
            ProblemKind.TOPIC_RECREATED,
            f"topic {topic!r} had id {known.identity.topic_ids[topic]} by {known.source}, and has"
            f" {live.topic_ids[topic]}: it was deleted and created again. Stored offsets mean nothing in it: {delete}"
            f"{AS_A_NEW_ONE}{_unless_wrong(known, seen)}",
        )


def _unless_wrong(known: KnownIdentity, seen: Observation) -> str:
    """Return the remedy for a misleading snapshot, taken through a wrong connection or before a manual correction."""
    if not known.snapshot:
        return ""
    return (
        ". If this snapshot tells nothing of the stored offsets, remove it: 'airflow offsets snapshots prune"
        f" --pipeline {seen.pipeline} --snapshot {known.snapshot} --apply'"
    )


def _gone(wanted: Position, seen: Observation) -> Position:
    """Return stored or chosen offsets of partitions that a topic of the pipeline does not have."""
    live, topics = seen.live.partitions, {topic.name for topic in seen.live.topics}
    named = (seen.stored or Position()).updated(wanted)
    return Position({each: offset for each, offset in named.items() if each not in live and each.topic in topics})


def _dropped_topics(seen: Observation) -> Iterator[str]:
    topics, stored = {topic.name for topic in seen.live.topics}, set((seen.stored or Position()).topics)
    read = stored.union(*(known.identity.topic_ids for known in seen.identities))
    for topic in sorted(read - topics):
        offsets = "stored" if topic in stored else "known"
        yield f"{topic}: has {offsets} offsets, is no topic of the pipeline any more, and is not read"


def _batch_id_notes(seen: Observation, known_batch: KnownBatch | None) -> Iterator[str]:
    if known_batch is None or not known_batch.snapshot or known_batch.completed_id == seen.completed_batch_id:
        return
    if known_batch.completed_id == _completed_batch_id(seen, known_batch):
        yield (
            f"the checkpoint is gone; by {known_batch.source}, batch {known_batch.completed_id} was complete, and the"
            " batch ids go on after it. If the job has run later batches since, a sink that identifies a batch by its"
            " id may drop records: compare the newest batch id in the sink, and if it is greater by more than one,"
            f" {AS_A_NEW_ONE}"
        )


def _gone_problems(
    start: Position, seen: Observation, named: Collection[TopicPartition], selector: str
) -> Iterator[Problem]:
    gone = replaced(start, seen, named)
    writers = {partition: each.operation for each in seen.late for partition in each.doubtful}
    late = {partition: known for partition, known in gone.items() if partition in writers}
    if late:
        yield _late_problem(start, seen, late, writers, selector)
    gone = {partition: known for partition, known in gone.items() if partition not in writers}
    if not gone:
        return
    store = HISTORY if seen.is_tracked else seen.kept[0].store
    perishes = "" if seen.is_tracked or not seen.kept[0].perishes else f" ({seen.kept[0].perishes})"
    lacks = f"does not tell how far epoch {seen.epoch_number} came in" if seen.is_progress_lost else "has no offset of"
    shown = "; ".join(
        f"{partition} stood at {'' if known.exact else 'least at '}{known.position[partition]} by {known.source} and"
        f" would start at {start[partition]}"
        for partition, known in list(gone.items())[:SHOWN]
    )
    more = f"; and {len(gone) - SHOWN} more" if len(gone) > SHOWN else ""
    has_rest = bool(seen.stored) and not seen.is_progress_lost
    selectors = {known.selector for known in gone.values()}
    # One snapshot is a remedy if it knows all that is gone; partitions that are still stored keep their offsets.
    ways = [f"'{f'{COMMITTED} | ' if has_rest else ''}{each}'" for each in selectors if each and len(selectors) == 1]
    if len(gone) <= SHOWN:
        there = Position({partition: known.position[partition] for partition, known in gone.items()})
        ways = [f"'{Offsets(there)} | {selector or COMMITTED}'", *ways]
    yield Problem(
        ProblemKind.POSITION_GONE,
        f"{store}{perishes} {lacks} {len(gone)} partition(s) that the pipeline has read: {shown}{more}. A known"
        " position is not replaced by a first start or a fallback. To go on there, start from"
        f" {' or '.join(ways) or 'offsets:'}; to read all again, from 'earliest'. Name any other start first, as in"
        " 'offsets:…' or 'latest', and accept what it leaves out as skipped",
    )


def _late_problem(
    start: Position,
    seen: Observation,
    late: Mapping[TopicPartition, KnownPosition],
    writers: Mapping[TopicPartition, str],
    selector: str,
) -> Problem:
    kept = seen.kept[0]
    said = kept.position or Position()
    shown = "; ".join(
        f"{partition} stood at {'' if known.exact else 'least at '}{known.position[partition]} by {known.source}, and"
        f" {kept.store} says {said[partition]}"
        for partition, known in list(late.items())[:SHOWN]
    )
    more = f"; and {len(late) - SHOWN} more" if len(late) > SHOWN else ""
    there = Position({partition: known.position[partition] for partition, known in late.items()})
    skipped = sum(max(0, said[partition] - offset) for partition, offset in there.items())
    again = sum(max(0, offset - said[partition]) for partition, offset in there.items())
    here = Position({partition: said[partition] for partition in late})
    by = " and ".join(repr(each) for each in sorted({writers[partition] for partition in late}))
    return Problem(
        ProblemKind.LATE_WRITE,
        f"operation {by} was taken over while it wrote {len(late)} partition(s) to {kept.store}, and may have written"
        f" them when the job ran already: {shown}{more}. A start from there may leave out {skipped} offsets and read"
        f" {again} again. To go on where the job is known to have stood, start from"
        f" '{Offsets(there)} | {selector or COMMITTED}'; if the job itself came to what the store says, from"
        f" '{Offsets(here)} | {selector or COMMITTED}', and accept {skipped} offsets as skipped",
    )


def _shape_problems(wanted: Position, seen: Observation) -> Iterator[Problem]:
    live, known = seen.live.partitions, known_offsets(seen)
    named = (seen.stored or Position()).updated(wanted)
    if gone := _gone(wanted, seen):
        yield Problem(
            ProblemKind.PARTITIONS_GONE,
            f"{', '.join(map(str, gone))} are stored and the topic does not have them; Kafka never removes partitions,"
            f" so the topic was made again; {AS_A_NEW_ONE}",
        )
    for topic in seen.live.topics:
        for hole in missing_partitions(named, topic.name, len(topic.partitions)):
            if hole in known:
                continue
            yield Problem(
                ProblemKind.PARTITION_MISSING,
                f"{hole} has no stored offset though partitions after it have, so it is not new;"
                " name its start with 'offsets:', and accept what lies before it as skipped",
            )
    past = {key: offset for key, offset in wanted.items() if key in live and offset > live[key].end}
    ends = Position({partition: live[partition].end for partition in past})
    for partition, offset in past.items():
        yield Problem(
            ProblemKind.OFFSET_PAST_END,
            f"{partition} is to start at {offset} and ends at {ends[partition]}: the log was truncated, or the offsets"
            f" are of another topic. To read what comes from now on, start from '{Offsets(ends)} | {COMMITTED}'; to"
            " read earlier records again, name earlier offsets",
        )


def _leader_problems(wanted: Position, seen: Observation, known: Mapping[TopicPartition, int]) -> Iterator[Problem]:
    """Yield a problem for each partition whose leader epoch went back.

    A leader epoch only increases. If one went back, the cluster was restored from an earlier state. Then the record at
    the stored offset may differ from the one that was read. A recreated topic begins with a new epoch.
    """
    stored, live, recreated = seen.last_known or Position(), seen.live.partitions, recreated_topics(seen)
    if is_other_cluster(seen.identities, seen.live):
        return
    for partition, offset in wanted.items():
        now = live[partition].leader_epoch if partition in live else None
        before = known.get(partition)
        # A start before the stored offset was chosen by a person, and replays what may have been replaced.
        if now is None or before is None or now >= before or partition.topic in recreated:
            continue
        if offset >= stored.get(partition, 0):
            yield Problem(
                ProblemKind.LEADER_EPOCH_BACK,
                f"the leader epoch of {partition} was {before} and is {now}: its log was brought back from before, and"
                " records at and before the stored offset may be others than those that were read; find out how far it"
                " was cut, and start before that with 'shift:' or 'offsets:'",
            )


def _window_problems(runway: Runway, policy: RestartPolicy) -> Iterator[Problem]:
    if not runway.window_s:
        return
    for topic in sorted({each.topic for each in runway.partitions}):
        risky = [each for each in runway.partitions if each.topic == topic and each.at_risk != 0]
        counts = [each.at_risk for each in risky if each.at_risk is not None]
        if not risky or (len(counts) == len(risky) and sum(counts) <= policy.accept_lost.get(topic, 0)):
            continue
        least = min(risky, key=lambda each: each.seconds or 0)
        ways = ["shorten the window", f"raise the retention of {topic!r}"]
        if len(counts) == len(risky):
            ways.append(f"accept_lost={topic}:{sum(counts)} accepts what is at risk now")
        yield Problem(
            ProblemKind.WINDOW_TOO_LONG,
            f"the job is to stay stopped for {duration(runway.window_s)}, and the first unread record is kept {least};"
            f" {', or '.join(ways)}",
        )


def _count_problems(rows: tuple[PartitionPlan, ...], policy: RestartPolicy) -> Iterator[Problem]:
    for topic in sorted({row.topic for row in rows}):
        mine = [row for row in rows if row.topic == topic]
        lost = {row.key: row.missing for row in mine if row.missing}
        if sum(lost.values()) > policy.accept_lost.get(topic, 0):
            yield Problem(ProblemKind.LOSS, _counted(lost, "lost", topic, policy.accept_lost))
        skipped = {row.key: row.skipped for row in mine if row.skipped}
        if sum(skipped.values()) > policy.accept_skipped.get(topic, 0):
            yield Problem(ProblemKind.SKIP, _counted(skipped, "skipped", topic, policy.accept_skipped))


def _counted(counts: Mapping[TopicPartition, int], word: str, topic: str, accepted: Mapping[str, int]) -> str:
    where, count = ", ".join(f"{partition} {count}" for partition, count in counts.items()), sum(counts.values())
    return (
        f"{count} offsets of {topic!r} would be {word} ({where}) and {accepted.get(topic, 0)} are accepted;"
        f" accept_{word}={topic}:{count} accepts them"
    )


def _form_problems(
    form: RestartForm, wanted: Position, seen: Observation, named: Collection[TopicPartition], selector: str
) -> Iterator[Problem]:
    checkpoint, stored, known = seen.newest_checkpoint, seen.stored or Position(), known_offsets(seen)
    if checkpoint is None:
        return
    if seen.left is not None and seen.checkpoint is not None:
        yield from _left_problems(seen.left, seen.checkpoint, seen, named, selector)
    if checkpoint.stateful and form is not RestartForm.RESUME:
        yield Problem(
            ProblemKind.STATEFUL_REPOSITION,
            f"{checkpoint.location} holds state that belongs to its offsets; start from 'committed' with its partitions"
            f" as they are, or {AS_A_NEW_ONE}: it begins without state",
        )
    # Only for a start that is left to the history: a person who names a start has checked it. A partition that the
    # history lacks is new, and counts as at 0.
    ahead = {
        partition: offset
        for partition, offset in checkpoint.committed.items()
        if partition.topic in stored.topics and partition not in known and partition not in named
        if offset > stored.get(partition, 0) == wanted.get(partition, 0)
    }
    if ahead and seen.is_tracked:
        there = Position(ahead)
        here = Position({partition: stored.get(partition, 0) for partition in ahead})
        shown = ", ".join(f"{partition} {offset} > {here[partition]}" for partition, offset in ahead.items())
        yield Problem(
            ProblemKind.STORES_DISAGREE,
            f"Spark committed further than the history has recorded ({shown}): rows of the history are missing. Look at"
            f" the output: if it is there, start from '{Offsets(there)} | {selector or COMMITTED}' and accept the"
            f" difference as skipped; if not, read it again, from '{Offsets(here)} | {selector or COMMITTED}'",
        )


def _left_problems(
    left: CheckpointState,
    opened: CheckpointState,
    seen: Observation,
    named: Collection[TopicPartition],
    selector: str,
) -> Iterator[Problem]:
    """Yield a problem if the checkpoint that the job opens now may know more than that of its newest epoch.

    An earlier checkpoint of the same query knows less, and so does one that an operation closed.
    """
    is_earlier = opened.query_id == left.query_id and opened.committed_batch_id <= left.committed_batch_id
    if is_earlier or opened.closed_by is not None:
        return
    other = {
        partition: offset
        for partition, offset in opened.committed.items()
        if partition not in named and offset != left.committed.get(partition, 0)
    }
    if not other:
        return
    there = Position(other)
    here = Position({partition: left.committed.get(partition, 0) for partition in other})
    shown = ", ".join(
        f"{partition} {offset} and {here[partition]}" for partition, offset in list(other.items())[:SHOWN]
    )
    more = f"; and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    yield Problem(
        ProblemKind.STORES_CONFLICT,
        f"{opened.location}, which the job opens now, and {left.location}, on which epoch {seen.epoch_number} ran, have"
        f" other offsets ({shown}{more}). If the job has run on {opened.location} since, start from"
        f" '{Offsets(there)} | {selector or COMMITTED}'; if not, from '{Offsets(here)} | {selector or COMMITTED}'",
    )


def _untouched_problems(wanted: Position, seen: Observation) -> Iterator[Problem]:
    if seen.is_tracked or wanted or seen.stored is not None or (seen.epoch is None and not seen.kept[0].perishes):
        return
    if seen.known:
        return  # _gone_problems names what is known
    kept = seen.kept[0]
    known = "the job has run before" if seen.epoch is not None else "nobody can tell whether the job has run before"
    yield Problem(
        ProblemKind.POSITION_GONE,
        f"{kept.store} has no stored position, and {known} ({kept.perishes or 'it was removed'}); start from 'earliest'"
        " if this is its first start or all may be read again, otherwise name the start with 'offsets:'",
    )
