"""Checks of a restart plan: each yields the problems that it finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import takewhile

from airflow_provider_offsets.core.known import is_other_cluster, known_offsets, recreated_topics, replaced
from airflow_provider_offsets.core.listing import SHOWN, first_few
from airflow_provider_offsets.core.position import Position, TopicPartition, missing_partitions
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.restart.model import PartitionPlan, RestartForm, RestartPolicy
from airflow_provider_offsets.core.runway import Runway, duration
from airflow_provider_offsets.core.selectors.parse import COMMITTED
from airflow_provider_offsets.core.selectors.resolve import Offsets
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    HISTORY,
    CheckpointState,
    KnownIdentity,
    KnownPosition,
    Observation,
)

AS_A_NEW_ONE = (
    "describe the job as a new pipeline, with another name, group_id, checkpoint and marker, and for Spark's file sink"
    " with another output folder"
)
"""The remedy if stored offsets have no meaning: epochs belong to a pipeline's name, and history to its group id. Batch
ids begin at 0 again, and a file sink skips a batch whose id is in its ``_spark_metadata``."""


def unlisted_problems(seen: Observation) -> Iterator[Problem]:
    """Yield a problem if an untracked job reads topics that its pipeline does not list, by its checkpoint.

    A seeded checkpoint would have no offsets of these topics, so the program would read them again from the beginning.
    A topic of the newest epoch that the pipeline does not list any more was removed on purpose.
    """
    checkpoint = None if seen.is_tracked else seen.newest_checkpoint
    if checkpoint is None or seen.kept[0].store != CHECKPOINT:
        return
    listed = {topic.name for topic in seen.live.topics}
    listed.update(() if seen.epoch is None else seen.epoch.claim.stream.topics)
    read = {*checkpoint.committed.topics, *(checkpoint.planned or Position()).topics}
    if unlisted := sorted(read - listed):
        yield Problem(
            ProblemKind.TOPIC_UNLISTED,
            f"{checkpoint.location} has offsets of {', '.join(unlisted)}, which the pipeline does not list. List in"
            " 'topics' everything that the program reads. Otherwise a restart at other offsets would make the program"
            " read these topics again from their beginning",
        )


def identity_problems(seen: Observation) -> Iterator[Problem]:
    """Yield a problem if the stored offsets are of another cluster, or of a topic that was recreated."""
    live = seen.live.identity
    for known in seen.identities:
        if known.identity.cluster_id != live.cluster_id:
            yield Problem(
                ProblemKind.WRONG_CLUSTER,
                f"the stored offsets are of cluster {known.identity.cluster_id!r} according to {known.source}, and the"
                f" connection leads to {live.cluster_id!r}. Correct the Kafka connection. If the topics have moved to"
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
            f"topic {topic!r} had id {known.identity.topic_ids[topic]} according to {known.source}, and has"
            f" {live.topic_ids[topic]} now: it was deleted and created again. Offsets of the old topic do not apply to"
            f" the new one: {delete}"
            f"{AS_A_NEW_ONE}{_unless_wrong(known, seen)}",
        )


def _unless_wrong(known: KnownIdentity, seen: Observation) -> str:
    """Return the remedy for a misleading snapshot, taken through a wrong connection or before a manual correction."""
    if not known.snapshot:
        return ""
    return (
        ". If this snapshot has wrong offsets or a wrong cluster, remove it: 'airflow offsets snapshots prune"
        f" --pipeline {seen.pipeline} --snapshot {known.snapshot} --apply'"
    )


def offsets_without_partition(wanted: Position, seen: Observation) -> Position:
    """Return stored or chosen offsets of partitions that a topic of the pipeline does not have.

    :param wanted: the chosen offsets.
    :param seen: stores and live topics.
    """
    live, topics = seen.live.partitions, {topic.name for topic in seen.live.topics}
    named = (seen.stored or Position()).updated(wanted)
    return Position({each: offset for each, offset in named.items() if each not in live and each.topic in topics})


def dropped_topics(seen: Observation) -> Iterator[str]:
    """Yield a note for each topic with stored offsets that the pipeline does not read any more."""
    topics, stored = {topic.name for topic in seen.live.topics}, set((seen.stored or Position()).topics)
    read = stored.union(*(known.identity.topic_ids for known in seen.identities))
    for topic in sorted(read - topics):
        offsets = "stored" if topic in stored else "known"
        yield f"{topic}: has {offsets} offsets, is no longer a topic of the pipeline, and is not read"


def gone_problems(
    start: Position, seen: Observation, named: Collection[TopicPartition], selector: str
) -> Iterator[Problem]:
    """Yield a problem if a first start or a fallback would replace known positions.

    :param start: the planned start of each partition.
    :param seen: stores and live topics.
    :param named: the partitions whose start a person named.
    :param selector: the selector's text, for the message.
    """
    gone = replaced(start, seen, named)
    writers = {partition: each.operation for each in seen.late for partition in each.doubtful}
    late = {partition: known for partition, known in gone.items() if partition in writers}
    if late:
        yield _late_problem(start, seen, late, writers, selector)
    gone = {partition: known for partition, known in gone.items() if partition not in writers}
    if not gone:
        return
    store = HISTORY if seen.is_tracked else seen.kept[0].store
    expires = "" if seen.is_tracked or not seen.kept[0].expires else f" ({seen.kept[0].expires})"
    lacks = _lacks(seen)
    shown = first_few(
        (
            f"{partition} was at {'' if known.exact else 'least at '}{known.position[partition]} according to"
            f" {known.source}, and would start at {start[partition]}"
            for partition, known in gone.items()
        ),
        separator="; ",
    )
    has_rest = bool(seen.stored) and not seen.is_progress_lost
    kept = None if seen.is_tracked else seen.kept[0].position
    if kept is not None and (held := [f"{partition} {kept[partition]}" for partition in gone if partition in kept]):
        shown += f" ({store} has {first_few(held)})"
    selectors = {known.selector for known in gone.values()}
    # One snapshot is a remedy if it knows all that is gone; partitions that are still stored keep their offsets.
    ways = [f"'{f'{COMMITTED} | ' if has_rest else ''}{each}'" for each in selectors if each and len(selectors) == 1]
    if len(gone) <= SHOWN:
        there = Position({partition: known.position[partition] for partition, known in gone.items()})
        ways = [f"'{Offsets(there)} | {selector or COMMITTED}'", *ways]
    yield Problem(
        ProblemKind.POSITION_GONE,
        f"{store}{expires} {lacks} {len(gone)} partition(s) that the pipeline has read: {shown}. A first"
        " start or a fallback does not replace a known position. To continue there, start from"
        f" {' or '.join(ways) or 'offsets:'}. To read everything again, start from 'earliest'. Name any other start"
        " first, as in 'offsets:…' or 'latest', and accept the records before it as skipped",
    )


def _lacks(seen: Observation) -> str:
    """Return what is wrong with the store of a pipeline whose position is gone."""
    if seen.former_store:
        return (
            f"is not the store {seen.former_store!r} in which epoch {seen.epoch_number} kept its offsets (to use them,"
            " add that store to offsets_in, after this one), and may lack the newest position of"
        )
    if seen.is_progress_lost:
        return f"does not show how far epoch {seen.epoch_number} has read"
    if any(seen.is_put_back(partition.topic) for partition in seen.outdated):
        return "has another offset than the known one of"
    if seen.outdated:
        return "was moved back, or restored from an older copy: it is behind the known position of"
    return "has no offset of"


def _late_problem(
    start: Position,
    seen: Observation,
    late: Mapping[TopicPartition, KnownPosition],
    writers: Mapping[TopicPartition, str],
    selector: str,
) -> Problem:
    kept = seen.kept[0]
    stored = kept.position or Position()
    shown = first_few(
        (
            f"{partition} was at {'' if known.exact else 'least at '}{known.position[partition]} according to"
            f" {known.source}, and {kept.store} has {stored[partition]}"
            for partition, known in late.items()
        ),
        separator="; ",
    )
    there = Position({partition: known.position[partition] for partition, known in late.items()})
    skipped = sum(max(0, stored[partition] - offset) for partition, offset in there.items())
    again = sum(max(0, offset - stored[partition]) for partition, offset in there.items())
    here = Position({partition: stored[partition] for partition in late})
    by = " and ".join(repr(each) for each in sorted({writers[partition] for partition in late}))
    return Problem(
        ProblemKind.LATE_WRITE,
        f"operation {by} was taken over while it wrote {len(late)} partition(s) to {kept.store}, and may have written"
        f" them after the job had started: {shown}. A start from the stored offsets may skip {skipped} offsets and"
        f" replay {again}. To continue from the last known position of the job, start from"
        f" '{Offsets(there)} | {selector or COMMITTED}'. If the job itself reached the stored offsets, start from"
        f" '{Offsets(here)} | {selector or COMMITTED}', and accept {skipped} offsets as skipped",
    )


def shape_problems(wanted: Position, seen: Observation) -> Iterator[Problem]:
    """Yield problems of offsets that do not match the partitions and the ends of the topics.

    :param wanted: the chosen offsets.
    :param seen: stores and live topics.
    """
    live, known = seen.live.partitions, known_offsets(seen)
    named = (seen.stored or Position()).updated(wanted)
    if gone := offsets_without_partition(wanted, seen):
        yield Problem(
            ProblemKind.PARTITIONS_GONE,
            f"{', '.join(map(str, gone))} have stored offsets, but do not exist in the topic. Kafka never removes"
            f" partitions, so the topic was recreated: {AS_A_NEW_ONE}",
        )
    for topic in seen.live.topics:
        for hole in takewhile(live.__contains__, missing_partitions(named, topic.name)):
            if hole in known:
                continue
            yield Problem(
                ProblemKind.PARTITION_MISSING,
                f"{hole} has no stored offset, but later partitions of its topic have one, so it is not new. Name its"
                " start with 'offsets:', and accept the records before it as skipped",
            )
    past = {key: offset for key, offset in wanted.items() if key in live and offset > live[key].end}
    ends = Position({partition: live[partition].end for partition in past})
    for partition, offset in past.items():
        yield Problem(
            ProblemKind.OFFSET_PAST_END,
            f"{partition} would start at {offset}, but its log ends at {ends[partition]}: the log was truncated, or"
            f" the offsets are of another topic. To read only new records, start from '{Offsets(ends)} | {COMMITTED}'."
            " To read earlier records again, name earlier offsets",
        )


def leader_problems(wanted: Position, seen: Observation, known: Mapping[TopicPartition, int]) -> Iterator[Problem]:
    """Yield a problem for each partition whose leader epoch went back.

    A leader epoch only increases. If one went back, the cluster was restored from an earlier state. Then the record at
    the stored offset may differ from the one that was read. A recreated topic begins with a new epoch.

    :param wanted: the chosen offsets.
    :param seen: stores and live topics.
    :param known: the greatest leader epoch of each partition that was observed since the job started.
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
                f"the leader epoch of {partition} was {before} and is {now}: its log was restored from an earlier"
                " state. Records at and before the stored offset may differ from those that were read. Find out where"
                " the log was truncated, and start before that with 'shift:' or 'offsets:'",
            )


def window_problems(runway: Runway, policy: RestartPolicy) -> Iterator[Problem]:
    """Yield a problem for each topic that loses unread records while the job is stopped.

    :param runway: how long unread records are retained.
    :param policy: accepted loss per topic.
    """
    if not runway.window_s:
        return
    for topic in sorted({each.topic for each in runway.partitions}):
        risky = [each for each in runway.partitions if each.topic == topic and each.at_risk != 0]
        counts = [each.at_risk for each in risky if each.at_risk is not None]
        if not risky or (len(counts) == len(risky) and sum(counts) <= policy.accept_lost.get(topic, 0)):
            continue
        least = min(risky, key=lambda each: each.seconds or 0)
        ways = ["Shorten the window", f"raise the retention of {topic!r}"]
        if len(counts) == len(risky):
            ways.append(f"set accept_lost={topic}:{sum(counts)} to accept the records that are at risk now")
        yield Problem(
            ProblemKind.WINDOW_TOO_LONG,
            f"the job would stay stopped for {duration(runway.window_s)}, and Kafka retains the first unread record"
            f" {least}. {', or '.join(ways)}",
        )


def count_problems(rows: tuple[PartitionPlan, ...], policy: RestartPolicy) -> Iterator[Problem]:
    """Yield a problem for each topic that loses or skips more records than the policy accepts.

    :param rows: the planned start of each partition, with its counts.
    :param policy: accepted loss and skipping per topic.
    """
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
        f"{count} offsets of {topic!r} would be {word} ({where}), and {accepted.get(topic, 0)} are accepted."
        f" To accept them, set accept_{word}={topic}:{count}"
    )


def form_problems(
    form: RestartForm, wanted: Position, seen: Observation, named: Collection[TopicPartition], selector: str
) -> Iterator[Problem]:
    """Yield problems of the way in which the job starts: its state, or a checkpoint ahead of the history.

    :param form: how the job is to start.
    :param wanted: the chosen offsets.
    :param seen: stores, checkpoint and live topics.
    :param named: the partitions whose start a person named.
    :param selector: the selector's text, for the message.
    """
    checkpoint, stored, known = seen.newest_checkpoint, seen.stored or Position(), known_offsets(seen)
    if checkpoint is None:
        return
    if seen.left is not None and seen.checkpoint is not None:
        yield from _left_problems(seen.left, seen.checkpoint, seen, named, selector)
    if checkpoint.stateful and form is not RestartForm.RESUME:
        yield Problem(
            ProblemKind.STATEFUL_REPOSITION,
            f"{checkpoint.location} holds state that belongs to its offsets. Start from 'committed' with unchanged"
            f" partitions, or {AS_A_NEW_ONE}. The new pipeline begins without state",
        )
    # Only for a start that is left to the history: a person who names a start has checked it. A partition that the
    # history lacks is new, and counts as at 0.
    ahead = {
        partition: offset
        for partition, offset in checkpoint.committed.items()
        if partition.topic in stored.topics and partition not in known and partition not in named
        if not seen.is_moved_to(partition, offset)
        if offset > stored.get(partition, 0) == wanted.get(partition, 0)
    }
    if ahead and seen.is_tracked:
        there = Position(ahead)
        here = Position({partition: stored.get(partition, 0) for partition in ahead})
        shown = ", ".join(f"{partition} {offset} > {here[partition]}" for partition, offset in ahead.items())
        yield Problem(
            ProblemKind.STORES_DISAGREE,
            f"Spark has committed later offsets than the history has recorded ({shown}), so the history lacks rows."
            f" Check the output. If it contains these records, start from '{Offsets(there)} | {selector or COMMITTED}'"
            f" and accept the difference as skipped. If not, start from '{Offsets(here)} | {selector or COMMITTED}'",
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
    shown = first_few(f"{partition} {offset} and {here[partition]}" for partition, offset in other.items())
    yield Problem(
        ProblemKind.STORES_CONFLICT,
        f"{opened.location}, which the job opens now, and {left.location}, on which epoch {seen.epoch_number} ran, have"
        f" different offsets ({shown}). If the job has run on {opened.location} since then, start from"
        f" '{Offsets(there)} | {selector or COMMITTED}'. If not, start from"
        f" '{Offsets(here)} | {selector or COMMITTED}'",
    )


def untracked_problems(wanted: Position, seen: Observation) -> Iterator[Problem]:
    """Yield a problem if an untracked job may have run before and its store has no position.

    :param wanted: the chosen offsets.
    :param seen: stores and live topics.
    """
    if seen.is_tracked or wanted or seen.stored is not None or (seen.epoch is None and not seen.kept[0].expires):
        return
    if seen.known:
        return  # gone_problems names what is known
    kept = seen.kept[0]
    known = "the job has run before" if seen.epoch is not None else "it is unknown whether the job has run before"
    yield Problem(
        ProblemKind.POSITION_GONE,
        f"{kept.store} has no stored position, and {known} ({kept.expires or 'it was removed'}). If this is the"
        " first start, or if all records may be read again, start from 'earliest'. Otherwise name the start with"
        " 'offsets:'",
    )
