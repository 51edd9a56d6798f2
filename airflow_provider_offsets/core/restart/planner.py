"""Plan of a restart, partition by partition, before anything moves.

The three cases of Cloudera's slide "Starting Streaming Jobs with Known Offsets" are rows here: first time, no change in
partitions, more partitions. No offset is changed silently: every difference between the wanted and the possible start
is counted. Loss and skipping are problems unless accepted by topic and count. Replay is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.known import known_offsets, recreated_topics
from airflow_provider_offsets.core.live import LivePartition, LiveTopics, TopicSettings
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.restart.checks import (
    AS_A_NEW_ONE,
    count_problems,
    dropped_topics,
    form_problems,
    gone_problems,
    identity_problems,
    leader_problems,
    offsets_without_partition,
    shape_problems,
    unlisted_problems,
    untracked_problems,
    window_problems,
)
from airflow_provider_offsets.core.restart.model import (
    PartitionPlan,
    Preconditions,
    RestartForm,
    RestartPlan,
    RestartPolicy,
    StartReason,
)
from airflow_provider_offsets.core.runway import Runway
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    UNSTARTED,
    CheckpointState,
    KeptPosition,
    KnownBatch,
    KnownIdentity,
    KnownPosition,
    Observation,
)
from airflow_provider_offsets.errors import StateChanged


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
    :param seen: stores, checkpoint and live topics at the time of the plan.
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
        *identity_problems(seen),
        *gone_problems(start, seen, named, selector),
        *shape_problems(wanted, seen),
        *leader_problems(wanted, seen, known_leader_epochs or {}),
        *count_problems(rows, policy or RestartPolicy()),
        *form_problems(form, wanted, seen, named, selector),
        *untracked_problems(wanted, seen),
        *unlisted_problems(seen),
    )
    return RestartPlan(
        pipeline=seen.pipeline,
        selector=selector,
        form=form,
        form_reason=form_reason,
        rows=rows,
        problems=problems,
        seen=Preconditions.of(seen),
        authoritative="" if seen.is_tracked else seen.kept[0].store,
        kept=None if seen.is_tracked else seen.kept[0].position,
        last_batch_id=UNSTARTED if completed_id is None else completed_id,
        query_id=_query_id(seen),
        replay_at_most=sum(each.count for each in seen.in_flight),
        gone=offsets_without_partition(wanted, seen),
        accounts_for=tuple(each.token for each in seen.late),
        notes=(
            *dropped_topics(seen),
            *_fresh_notes(form, rows, seen, named),
            *_known_batch_notes(seen, known_batch),
        ),
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

    :param plan: the plan without these effects.
    :param runway: how long unread records are retained.
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
        problems=(*plan.problems, *window_problems(runway, policy or RestartPolicy())),
    )


def with_new_partitions(start: Position, live: LiveTopics) -> Position:
    """Return ``start`` with the partitions that were created after the plan, at 0 (law 3).

    :param start: starting offsets of the plan.
    :param live: the live topics.
    :raises StateChanged: retention has already deleted the first records of such a partition.
    """
    new = {partition: there.begin for partition, there in live.partitions.items() if partition not in start}
    truncated = [f"{partition} begins at {begin}" for partition, begin in new.items() if begin > 0]
    if truncated:
        raise StateChanged(
            seen=f"partitions that are new since the plan have lost their first records: {', '.join(truncated)}",
            expected="new partitions that can be read from offset 0",
            do="plan again. The new plan counts the lost records, so that you can accept them",
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
            return RestartForm.REPOSITION, f"{_opens_another(seen)}; a seeded checkpoint continues there"
        if completed_id is None:
            return RestartForm.FRESH, "there is no checkpoint to continue from"
        return RestartForm.REPOSITION, "the checkpoint is missing; a seeded checkpoint continues the batch ids"
    return _form_on(checkpoint, start, seen, completed_id)


def _form_on(
    checkpoint: CheckpointState, start: Position, seen: Observation, completed_id: int | None
) -> tuple[RestartForm, str]:
    """Return the form of a restart of a job that opens ``checkpoint``."""
    if checkpoint.closed_by is not None:
        return RestartForm.REPOSITION, f"the checkpoint was closed by {checkpoint.closed_by}"
    goes_on_at = _resume_position(checkpoint, seen.processed)
    moved = [partition for partition, offset in start.items() if goes_on_at.get(partition, 0) != offset]
    if moved:
        return RestartForm.REPOSITION, f"{len(moved)} partition(s) start at other offsets than the checkpoint has"
    if dropped := [partition for partition in goes_on_at if partition not in start]:
        return RestartForm.REPOSITION, f"the checkpoint holds {len(dropped)} partition(s) that the job no longer reads"
    if seen.left is not None and seen.left.committed_batch_id > checkpoint.committed_batch_id:
        return RestartForm.REPOSITION, f"{_opens_another(seen)}, and the batch ids there are greater"
    if seen.outdated and completed_id is not None and completed_id > checkpoint.last_batch_id:
        return RestartForm.REPOSITION, f"batch {completed_id} is complete, and the checkpoint does not have it"
    if lacking := _not_planned(checkpoint):
        return (
            RestartForm.REPOSITION,
            f"batch {checkpoint.planned_batch_id} was planned without {len(lacking)} partition(s) that the batch before"
            " it has, and Spark fails on it",
        )
    return (
        RestartForm.RESUME,
        f"the checkpoint is at the start of the job, after batch {checkpoint.committed_batch_id}",
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
        return RestartForm.RESUME, f"{kept.store} already has this start"
    if kept.position is None:
        return RestartForm.WRITE, f"{kept.store} has nothing stored yet"
    moved = [partition for partition, offset in start.items() if kept.position.get(partition) != offset]
    return RestartForm.WRITE, f"{len(moved)} partition(s) start at other offsets than {kept.store} has"


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


def _fresh_notes(
    form: RestartForm, rows: Collection[PartitionPlan], seen: Observation, named: Collection[TopicPartition]
) -> Iterator[str]:
    """Yield a note if batch ids begin again, and the sink may have batches with these ids.

    A person who names offsets may restart a job whose stores and records are gone: nothing else shows that it has run.
    A start at the earliest offsets is the usual start of a new job.
    """
    if form is not RestartForm.FRESH:
        return
    if seen.epoch is not None and not seen.epoch.claim.tracked:
        why = f"the checkpoint of epoch {seen.epoch_number} is gone, and no record has the id of its newest batch"
    elif seen.epoch is not None or seen.stored is not None or seen.known:
        why = "the pipeline has run before, and there is no checkpoint to continue from"
    elif any(row.key in named and row.start > row.begin for row in rows):
        why = "the start names offsets, and there is no checkpoint to continue from"
    else:
        return
    yield (
        f"{why}: batch ids begin again at 0. A sink that drops batches by their id drops new records without a word:"
        " Delta with a constant txnAppId and the batch id as txnVersion, and Spark's file sinks in a folder with an"
        " older _spark_metadata. If the program writes to one, use stream.write_options or stream.batch_key, or"
        f" {AS_A_NEW_ONE}"
    )


def _known_batch_notes(seen: Observation, known_batch: KnownBatch | None) -> Iterator[str]:
    if known_batch is None or known_batch.completed_id == seen.completed_batch_id:
        return
    has_run_unrecorded = seen.epoch is not None and not seen.epoch.claim.tracked
    if known_batch.completed_id == _completed_batch_id(seen, known_batch) and (
        known_batch.snapshot or has_run_unrecorded
    ):
        yield (
            f"the checkpoint is gone; by {known_batch.source}, batch {known_batch.completed_id} was complete, and the"
            " batch ids continue after it. If the job has run later batches since, a sink that identifies a batch by"
            " its id may drop records: compare the newest batch id in the sink, and if it is greater by more than one,"
            f" {AS_A_NEW_ONE}"
        )
