"""Effect of writing one store's position to another, partition by partition, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition, first_missing
from airflow_provider_offsets.core.problem import Problem, ProblemKind


@dataclass(frozen=True)
class TransferRow:
    """One partition: the offset to write, the offset now, and the offset after the write. None: no offset."""

    topic: str
    partition: int
    brought: int | None
    now: int | None
    after: int | None
    replay: int = 0
    """Offsets that a job replays if it starts from the target."""
    skipped: int = 0
    """Offsets that a job skips if it starts from the target, assuming that the target's current offset is right. A
    partition that the target does not name begins at 0 if the target names others of its topic (Cloudera's slides,
    third case)."""

    @property
    def key(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True)
class Transfer:
    """Planned write of a position to a store, with all problems."""

    group_id: str
    now: Position | None
    """Current position of the target: the write expects to find it there."""
    after: Position
    rows: tuple[TransferRow, ...]
    problems: tuple[Problem, ...]

    @property
    def replay(self) -> int:
        """Number of offsets that would be replayed."""
        return sum(row.replay for row in self.rows)

    @property
    def skipped(self) -> int:
        """Number of offsets that would be skipped, assuming that the target's current position is right."""
        return sum(row.skipped for row in self.rows)

    @property
    def changed(self) -> int:
        """Number of partitions whose offset would change."""
        return sum(row.after != row.now for row in self.rows)


def plan_transfer(
    group_id: str,
    brought: Position,
    now: Position | None,
    *,
    accept_skipped: Mapping[str, int] | None = None,
    live: LiveTopics | None = None,
    identity: TopicIdentity | None = None,
) -> Transfer:
    """Return the effect of writing ``brought`` over ``now``.

    A smaller offset causes replay, which is allowed. A greater offset skips what the target's job has not read, if the
    target is right. So skipping is a problem unless accepted by topic and count. An empty store accepts everything.

    :param group_id: the group to write.
    :param brought: the position to write.
    :param now: the target's current position; None if the target is empty.
    :param accept_skipped: ``{topic: greatest count of offsets}``.
    :param live: the live topics if the cluster was asked: then offsets past their ends are refused.
    :param identity: cluster and topic ids of ``brought``, if its source names them.
    """
    there = now or Position()
    rows = tuple(_row(partition, brought, there) for partition in sorted({*brought, *there}))
    problems = (*_shape(rows, brought), *_skips(rows, accept_skipped or {}), *_foreign(brought, live, identity))
    return Transfer(group_id, now, brought, rows, problems)


def _row(partition: TopicPartition, brought: Position, now: Position) -> TransferRow:
    after, there = brought.get(partition), now.get(partition)
    begins = there if there is not None else 0 if partition.topic in now.topics else None
    moves = 0 if after is None or begins is None else after - begins
    return TransferRow(*partition, after, there, after, replay=max(0, -moves), skipped=max(0, moves))


def _shape(rows: tuple[TransferRow, ...], brought: Position) -> Iterator[Problem]:
    left_out = [row.key for row in rows if row.brought is None]
    if left_out:
        yield Problem(
            ProblemKind.PARTITION_MISSING,
            f"the target has {first_few(left_out)}, which the source does not name. A position is written as a whole,"
            " so complete the offsets of the source",
        )
    if missing := first_missing(brought):
        yield Problem(
            ProblemKind.PARTITION_MISSING,
            f"the source does not name {first_few(missing)}, but names later partitions of that topic. Complete the"
            " offsets of the source",
        )


def _skips(rows: tuple[TransferRow, ...], accepted: Mapping[str, int]) -> Iterator[Problem]:
    for topic in sorted({row.topic for row in rows}):
        mine = [row for row in rows if row.topic == topic and row.skipped]
        skipped = sum(row.skipped for row in mine)
        if skipped > accepted.get(topic, 0):
            yield Problem(
                ProblemKind.SKIP,
                f"{skipped} offsets of {topic!r} would be skipped according to the target"
                f" ({first_few(row.key for row in mine)}), and {accepted.get(topic, 0)} are accepted. To accept them,"
                f" add '--accept-skipped {topic}={skipped}'",
            )


def _foreign(brought: Position, live: LiveTopics | None, identity: TopicIdentity | None) -> Iterator[Problem]:
    if live is None:
        return
    here = live.identity
    if identity is not None and identity.cluster_id != here.cluster_id:
        yield Problem(
            ProblemKind.WRONG_CLUSTER,
            f"the offsets are of cluster {identity.cluster_id!r}, and the connection leads to {here.cluster_id!r}, to"
            " which they do not apply. Correct the Kafka connection",
        )
        return
    known = {} if identity is None else identity.topic_ids
    for topic in brought.topics:
        if known.get(topic, here.topic_ids.get(topic)) != here.topic_ids.get(topic):
            yield Problem(
                ProblemKind.TOPIC_RECREATED,
                f"topic {topic!r} had id {known[topic]} and has {here.topic_ids.get(topic)} now: it was deleted and"
                " created again. Take offsets of the new topic, because these do not apply to it",
            )
    if gone := [each for each in brought if each not in live.partitions]:
        words = f"the cluster does not have {first_few(gone)}. Correct the offsets of the source"
        yield Problem(ProblemKind.PARTITIONS_GONE, words)
    if past := [each for each in brought if each in live.partitions and brought[each] > live.partitions[each].end]:
        yield Problem(
            ProblemKind.OFFSET_PAST_END,
            f"{first_few(past)} would start past the end of the log: the log was truncated, or the offsets are of"
            " another topic. Correct the offsets of the source",
        )
