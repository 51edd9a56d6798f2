"""Positions of a pipeline by its records and other stores, for partitions whose stored offset is gone.

The store that starts the job can lose a position: its rows expired, its folder was removed, the offsets of one topic
were deleted. Other sources may still know the position: snapshots, launches, the history, the other stores of
``offsets_in``. If any of them knows the offset of a partition, no first start and no fallback may replace that offset.
:func:`replaced` finds the partitions where one would. The rule is the same for every store and every record, by topic
and by partition.

Three orders determine which record is used. A launch by this provider outranks everything before it, for the partitions
that it names. Of the snapshots of one epoch the newest counts. The stores of ``offsets_in`` are read now, and offsets
only grow in one epoch. So a store with a greater offset than the newest record is right. A launch that rewound the job
is the exception: a second store may not have moved since. That is possible if its offset is not greater than the
position before that launch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Claim, Cut, Epoch
from airflow_provider_offsets.core.late import written_offsets
from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition, ranges_between
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    UNSTARTED,
    WHEN_STOPPED,
    CheckpointState,
    KeptPosition,
    KnownBatch,
    KnownIdentity,
    KnownPosition,
    Observation,
    Snapshot,
)


def needs_records(seen: Observation) -> bool:
    """Check whether the stores alone lack a partition's position, or the topic id of its offsets.

    Reading all snapshots is slow, and most observations need none of them.
    """
    if seen.epoch is None or not seen.is_tracked or _without_offset(seen):
        return True
    return any(topic.name not in seen.epoch.claim.identity.topic_ids for topic in seen.live.topics)


def with_records(
    seen: Observation, snapshots: Iterable[Snapshot], epochs: Iterable[Epoch], history: Iterable[Batch] = ()
) -> Observation:
    """Return ``seen`` with what the pipeline's records know beyond its stores.

    :param seen: stores and live topics.
    :param snapshots: all complete snapshots of the pipeline, in any order.
    :param epochs: all launches of the pipeline, in any order.
    :param history: the newest row of each topic in the history of a tracked job.
    """
    taken = list(snapshots)
    claimed = sorted((each for each in epochs if each.holder is not None), key=lambda each: each.number)
    identities = tuple(_identities(taken, claimed))
    same = {topic.name for topic in seen.live.topics} - _recreated(identities, seen.live).keys()
    best: dict[TopicPartition, KnownPosition] = {}
    if not is_other_cluster(identities, seen.live):
        records = [*_of_snapshots(taken, seen.live), *_of_launches(claimed, seen)]
        records.sort(key=lambda each: each[0], reverse=True)
        records += _of_removed_topics(claimed, records)
        records.sort(key=lambda each: each[0], reverse=True)
        rows = [] if seen.is_progress_lost else [*_of_history(history, claimed)]
        now = [*_of_other_stores(seen, claimed)]
        for partition in _without_offset(seen):
            if partition.topic in same and (found := _best(partition, records, rows, now)) is not None:
                best[partition] = found
        if seen.opens_another:
            # Offsets only grow in one epoch: a checkpoint that is not behind its records is the moved one.
            stored = seen.stored or Position()
            best = {key: each for key, each in best.items() if each.position[key] > stored.get(key, UNSTARTED)}
        elif seen.former_store and not seen.is_tracked:
            stored = seen.stored or Position()
            best = {key: each for key, each in best.items() if not each.exact or each.position[key] != stored.get(key)}
        else:
            best.update({**_ahead(seen, records), **_moved_while_out(seen, records, rows, same)})
    seen = replace(seen, known=tuple(_by_source(best, seen)), known_identities=identities)
    return replace(seen, cut=seen.cut or _cut_before(seen, known_batch(seen, taken, claimed)))


def known_batch(seen: Observation, snapshots: Iterable[Snapshot], epochs: Iterable[Epoch]) -> KnownBatch | None:
    """Return the greatest batch id that snapshots and launches know, if the newest epoch's checkpoint is gone or older.

    Sinks may identify a batch by its id, and drop new records under an id that they have. Every snapshot counts:
    another location, cluster or topic in it does not show that the job had another sink.

    :param seen: stores, checkpoint and live topics.
    :param snapshots: all complete snapshots of the pipeline, in any order.
    :param epochs: all launches of the pipeline, in any order.
    """
    if seen.checkpoint is not None and not seen.opens_another and not seen.outdated:
        return None
    if not seen.is_tracked and seen.kept[0].store != CHECKPOINT:
        return None
    return _greatest(snapshots, epochs)


def evidence(snapshots: Iterable[Snapshot], epochs: Iterable[Epoch]) -> frozenset[str]:
    """Return the ids of the snapshots that alone know a partition's position, its topic id, or the greatest batch id.

    Without them, a position or a checkpoint that is lost later would look like a first start.

    :param snapshots: all complete snapshots of the pipeline, in any order.
    :param epochs: all launches of the pipeline, in any order.
    """
    taken = list(snapshots)
    claimed = sorted((each for each in epochs if each.holder is not None), key=lambda each: each.number)
    found = {known.snapshot for known in _identities(taken, claimed) if known.snapshot}
    if (batch := _greatest(taken, claimed)) is not None and batch.snapshot:
        found.add(batch.snapshot)
    records = [(_rank(each), each.id, each.position, _identity_of(each)) for each in taken if _tells(each)]
    records += [((each.number, False, 0, 0, ""), "", each.claim.start, each.claim.identity) for each in claimed]
    covered: set[tuple[str, str | None, TopicPartition]] = set()
    for _, id_, position, identity in sorted(records, key=lambda each: each[0], reverse=True):
        named = {(identity.cluster_id, identity.topic_ids.get(each.topic), each) for each in position}
        if id_ and not named <= covered:
            found.add(id_)
        covered |= named
    return frozenset(found)


def first_when_stopped(snapshots: Iterable[Snapshot]) -> dict[int, Snapshot]:
    """Return the first snapshot of the stopped job after each epoch, by the epoch's number.

    A late task may take its snapshot of a job that is running again, or while the pipeline does not name the store of
    its position. Such a snapshot is ignored.
    """
    found: dict[int, Snapshot] = {}
    for each in sorted(snapshots, key=_order):
        if each.moment == WHEN_STOPPED and each.seen.phase is Phase.STOPPED and _tells(each):
            found.setdefault(each.seen.epoch_number, each)
    return found


def known_offsets(seen: Observation) -> dict[TopicPartition, KnownPosition]:
    """Return the known offset, with its source, of each partition whose stored offset is gone."""
    return {partition: each for each in seen.known for partition in each.position}


def replaced(
    starts: Mapping[TopicPartition, int], seen: Observation, named: Collection[TopicPartition]
) -> dict[TopicPartition, KnownPosition]:
    """Return the partitions whose known position a first start or a fallback would replace, with the known position.

    A start at exactly the known offset replaces nothing. The known offset may be only a lower bound of what the job has
    read. Then a start there replaces nothing only in a partition that the store lacks beside others. Most likely the
    job read nothing from such a partition.

    :param starts: starting offset of each partition.
    :param seen: the observation, with what is known.
    :param named: the partitions whose start a person chose, instead of leaving it to the stores or to a fallback.
    """
    stored = seen.stored or Position()

    def goes_on(partition: TopicPartition, known: KnownPosition) -> bool:
        is_unread = bool(stored) and partition not in stored and _is_read(partition, seen)
        return starts[partition] == known.position[partition] and (known.exact or is_unread)

    return {
        partition: known
        for partition, known in known_offsets(seen).items()
        if partition in starts and partition not in named and not goes_on(partition, known)
    }


def recreated_topics(seen: Observation) -> dict[str, KnownIdentity]:
    """Return the topics whose id differs from that of the pipeline's offsets, with the source of the earlier id.

    Returns nothing for another cluster, where every topic has another id.
    """
    return {} if is_other_cluster(seen.identities, seen.live) else _recreated(seen.identities, seen.live)


def is_other_cluster(identities: Sequence[KnownIdentity], live: LiveTopics) -> bool:
    """Check whether the offsets of the pipeline belong to another cluster than the topics.

    :param identities: clusters and topic ids that the pipeline's records name.
    :param live: the topics as Kafka has them now.
    """
    return any(known.identity.cluster_id != live.cluster_id for known in identities)


def _is_read(partition: TopicPartition, seen: Observation) -> bool:
    """Check whether the newest epoch reads the partition's topic.

    The store lacks any other topic, whatever an earlier epoch has read of it.
    """
    return seen.epoch is None or partition.topic in seen.epoch.claim.start.topics


def left_in_removed_topics(epochs: Iterable[Epoch]) -> Position:
    """Return where the job had stopped in topics that a command has moved, and that no epoch has read since.

    The launch that reads such a topic again announces what the command has replayed or skipped.

    :param epochs: all launches of the pipeline, the oldest first.
    """
    left: dict[TopicPartition, int] = {}
    for claim in (each.claim for each in epochs if each.holder is not None):
        left = {**(claim.left_at or Position()), **left}
        left = {key: offset for key, offset in left.items() if key.topic not in claim.start.topics}
    return Position(left)


def adopted_batch(
    checkpoint: CheckpointState | None, processed: Batch | None, live: LiveTopics, first: Claim | None
) -> Cut | None:
    """Return the batch whose output may exist in part since before the job was tracked, or None.

    It is unknown whether that batch was started, so it counts as started. It is over once a tracked launch has started
    a batch.

    :param checkpoint: of the newest launch, or of the job before its first launch.
    :param processed: the batch that was recorded last.
    :param live: the live topics.
    :param first: the first launch of the tracked job; None before it.
    """
    if checkpoint is None:
        return None
    batch_id, end, why = checkpoint.planned_batch_id, checkpoint.planned, ""
    if first is None and checkpoint.asynchronous:
        batch_id, why = checkpoint.last_batch_id + 1, "its checkpoint was written asynchronously"
        end = checkpoint.committed.updated(
            {partition: max(offset, checkpoint.committed.get(partition, 0)) for partition, offset in live.end.items()}
        )
    if batch_id is None or end is None:
        return None
    if first is not None and batch_id > (
        UNSTARTED if first.last_planned_batch_id is None else first.last_planned_batch_id
    ):
        return None
    if processed is not None and (processed.query_id, processed.batch_id) == (checkpoint.query_id, batch_id):
        return None
    ranges = tuple(each for each in ranges_between(checkpoint.committed, end) if each.count)
    return Cut(batch_id, checkpoint.query_id, 1, why, ranges) if ranges else None


def _cut_before(seen: Observation, batch: KnownBatch | None) -> Cut | None:
    """Return what may be in the output after the known offsets, for a job that was not tracked before, or None.

    It is the same batch as that of :func:`adopted_batch`, for a checkpoint that is gone.
    """
    if seen.checkpoint is not None or not seen.is_tracked or (seen.epoch is not None and seen.epoch.claim.tracked):
        return None
    ranges = tuple(each for known in seen.known for each in known.in_flight if each.count)
    batch_id = (UNSTARTED if batch is None else batch.completed_id) + 1
    return Cut(batch_id, "", 1, "its checkpoint is gone", ranges) if ranges else None


def _greatest(snapshots: Iterable[Snapshot], epochs: Iterable[Epoch]) -> KnownBatch | None:
    """Return the greatest known batch id: by a launch if one knows it, otherwise by the newest snapshot that does."""
    found = [
        KnownBatch(each, f"epoch {epoch.number}")
        for epoch in epochs
        if epoch.holder is not None
        for each in _completed_in(epoch)
    ]
    for snapshot in sorted(snapshots, key=lambda each: (_taken_ms(each), each.id), reverse=True):
        completed_id, checkpoint = snapshot.seen.completed_batch_id, snapshot.seen.newest_checkpoint
        if completed_id is not None:
            # An asynchronous checkpoint has gaps: the planned id may be greater by more than one.
            planned_id = UNSTARTED if checkpoint is None else checkpoint.last_batch_id
            found.append(KnownBatch(max(completed_id, planned_id - 1), _words(snapshot), snapshot.id))
    return max(found, key=lambda each: (each.completed_id, not each.snapshot), default=None)


def _completed_in(epoch: Epoch) -> Iterator[int]:
    if epoch.last_batch_id is not None:
        yield epoch.last_batch_id
    if epoch.claim.last_planned_batch_id is not None:
        yield epoch.claim.last_planned_batch_id - 1
    yield from (cut.batch_id - 1 for cut in epoch.cuts)


def _without_offset(seen: Observation) -> list[TopicPartition]:
    """Return the partitions whose progress no store knows, or may not know."""
    stored = seen.stored or Position()
    is_doubtful = seen.is_progress_lost or seen.opens_another or seen.former_store != ""
    return [partition for partition in seen.live.partitions if is_doubtful or partition not in stored]


def _ahead(seen: Observation, records: Sequence[tuple[_Rank, KnownPosition]]) -> dict[TopicPartition, KnownPosition]:
    """Return what the newest record of an untracked job's newest epoch knows beyond the job's own store.

    Offsets only grow in one epoch. So somebody has moved the position back, or restored an older state of the store.

    :param records: the newest one first.
    """
    if seen.is_tracked or seen.is_running or seen.moved is not None or seen.late or seen.left is not None:
        return {}
    stored = seen.stored or Position()
    newest: dict[TopicPartition, KnownPosition] = {}
    for rank, known in records:
        if rank[0] == seen.epoch_number:
            newest = {**dict.fromkeys(known.position, known), **newest}
    there = (key for key in seen.live.partitions if key in stored and key in newest)
    return {key: newest[key] for key in there if newest[key].position[key] > stored[key]}


def _moved_while_out(
    seen: Observation,
    records: Sequence[tuple[_Rank, KnownPosition]],
    rows: Sequence[tuple[int, KnownPosition]],
    topics: Collection[str],
) -> dict[TopicPartition, KnownPosition]:
    """Return what the records know of topics that were put back, where an untracked job's store has other offsets.

    The newest epoch does not read such a topic. So its offset in the store may be of a restart that was given up, or
    older than an epoch with another store. Or a person has moved it.

    :param records: the newest one first.
    :param rows: rows of the history, each with its epoch.
    :param topics: the topics that were not recreated.
    """
    if seen.is_tracked:
        return {}
    there = (seen.stored or Position()).items()
    stored = {key: offset for key, offset in there if key in seen.live.partitions and key.topic in topics}
    found = {key: _best(key, records, rows, ()) for key in stored if seen.is_put_back(key.topic)}
    return {
        key: known
        for key, known in found.items()
        if known is not None
        and (known.position[key] > stored[key] or (known.exact and known.position[key] != stored[key]))
    }


def _recreated(identities: Sequence[KnownIdentity], live: LiveTopics) -> dict[str, KnownIdentity]:
    now = live.identity.topic_ids
    return {
        topic: known
        for known in identities
        for topic, topic_id in known.identity.topic_ids.items()
        if now.get(topic, topic_id) != topic_id
    }


def _identities(snapshots: Sequence[Snapshot], epochs: Sequence[Epoch]) -> Iterator[KnownIdentity]:
    """Yield the identity of each topic's offsets with its source.

    The source is the newest launch that names the topic. For a topic without a launch it is the *oldest* snapshot with
    an offset of the topic. Only a launch makes sure that stored offsets belong to the present topic. A snapshot taken
    after the topic was recreated has the new id beside the old offset.
    """
    covered: set[str] = set()
    for epoch in reversed(epochs):
        claim = epoch.claim
        if claim.identity.cluster_id == epochs[-1].claim.identity.cluster_id:
            yield from _uncovered(f"the launch of epoch {epoch.number}", claim.identity, covered)
    for snapshot in sorted(snapshots, key=_order):
        live = snapshot.seen.live.identity
        if epochs and live.cluster_id != epochs[-1].claim.identity.cluster_id:
            continue  # the launch determined the cluster
        topics = set(snapshot.position.topics)
        of_offsets = {topic: topic_id for topic, topic_id in live.topic_ids.items() if topic in topics}
        yield from _uncovered(_words(snapshot), TopicIdentity(live.cluster_id, of_offsets), covered, snapshot.id)


def _uncovered(source: str, identity: TopicIdentity, covered: set[str], snapshot: str = "") -> Iterator[KnownIdentity]:
    topic_ids = {topic: topic_id for topic, topic_id in identity.topic_ids.items() if topic not in covered}
    covered.update(topic_ids)
    if topic_ids:
        yield KnownIdentity(source, TopicIdentity(identity.cluster_id, topic_ids), snapshot)


_Rank = tuple[int, bool, int, int, str]
"""Epoch; whether it is from after the epoch's launch; generation of the pipeline's record; time in ms; id.

Hosts have different clocks, so the times of two snapshots only decide within one generation."""


def _of_snapshots(snapshots: Iterable[Snapshot], live: LiveTopics) -> Iterator[tuple[_Rank, KnownPosition]]:
    for snapshot in snapshots:
        if not _tells(snapshot):
            continue
        position = _of_same_topics(snapshot.position, _identity_of(snapshot), live)
        exact = snapshot.moment == WHEN_STOPPED
        known = KnownPosition(
            _words(snapshot),
            position,
            exact,
            snapshot.seen.in_flight if exact else (),
            f"snapshot:{snapshot.label or snapshot.id}",
        )
        yield _rank(snapshot), known


def _identity_of(snapshot: Snapshot) -> TopicIdentity:
    """Return cluster and topics of a snapshot's offsets.

    A topic that the pipeline no longer had then is the one that the snapshot's epoch read.
    """
    live, epoch = snapshot.seen.live.identity, snapshot.seen.epoch
    if epoch is None or epoch.claim.identity.cluster_id != live.cluster_id:
        return live
    return replace(live, topic_ids={**epoch.claim.identity.topic_ids, **live.topic_ids})


def _rank(snapshot: Snapshot) -> _Rank:
    return snapshot.seen.epoch_number, True, *_order(snapshot)


def _order(snapshot: Snapshot) -> tuple[int, int, str]:
    return snapshot.seen.generation, _taken_ms(snapshot), snapshot.id


def _tells(snapshot: Snapshot) -> bool:
    """Check whether the position was still stored when the snapshot was taken."""
    return not snapshot.seen.is_progress_lost


def _of_launches(epochs: Iterable[Epoch], seen: Observation) -> Iterator[tuple[_Rank, KnownPosition]]:
    for epoch in epochs:
        claim = epoch.claim
        position = _of_same_topics(claim.start, claim.identity, seen.live)
        yield (epoch.number, False, 0, 0, ""), KnownPosition(f"the launch of epoch {epoch.number}", position)


def _of_removed_topics(
    epochs: Iterable[Epoch], records: Sequence[tuple[_Rank, KnownPosition]]
) -> Iterator[tuple[_Rank, KnownPosition]]:
    """Yield where launches found the topics that they do not read, unless an earlier record shows that exactly.

    :param records: the other records, the newest one first.
    """
    for epoch in epochs:
        stood, topics = epoch.claim.stood or Position(), epoch.claim.start.topics
        others = Position({key: offset for key, offset in stood.items() if key.topic not in topics})
        known = {key: _before(epoch.number, key, records) for key in others}
        new = Position({key: offset for key, offset in others.items() if known[key] != offset})
        if new:
            yield (epoch.number, False, 0, 0, ""), KnownPosition(f"the launch of epoch {epoch.number}", new, exact=True)


def _before(number: int, key: TopicPartition, records: Sequence[tuple[_Rank, KnownPosition]]) -> int | None:
    """Return the offset of the newest record before an epoch if that record is exact, otherwise None."""
    newest = next((known for rank, known in records if rank[0] < number and key in known.position), None)
    return newest.position[key] if newest is not None and newest.exact else None


def _of_history(rows: Iterable[Batch], epochs: Sequence[Epoch]) -> Iterator[tuple[int, KnownPosition]]:
    """Yield the end of each row with the epoch that wrote the row.

    A row without an epoch is of the job before it was tracked, so it is older than the first tracked launch after that.
    """
    untracked = max((each.number for each in epochs if not each.claim.tracked), default=0)
    for row in rows:
        yield untracked if row.epoch is None else row.epoch, KnownPosition("the history", row.end, exact=True)


def _of_same_topics(position: Position, identity: TopicIdentity, live: LiveTopics) -> Position:
    """Return the offsets of topics that still exist: offsets of another cluster or a deleted topic have no meaning."""
    if identity.cluster_id != live.cluster_id:
        return Position()
    now = live.identity.topic_ids
    same = {topic for topic, topic_id in identity.topic_ids.items() if now.get(topic) == topic_id}
    return Position({partition: offset for partition, offset in position.items() if partition.topic in same})


def _of_other_stores(seen: Observation, epochs: Sequence[Epoch]) -> Iterator[KnownPosition]:
    """Yield the positions of the other stores, without offsets from before a launch rewound the job.

    No job has started from offsets that a move has written there since. The position before that move counts.

    A launch names all existing partitions of its topics. So a partition that the history of its epoch lacks is new, and
    a checkpoint with that partition is ahead of the history. That is another problem, and no lost position.
    """
    has_progress = seen.is_tracked and seen.epoch is not None and not seen.is_progress_lost
    topics = set((seen.stored or Position()).topics) if has_progress else set()
    for kept in seen.kept[1:]:
        if kept.position is not None and seen.former_store in ("", kept.store):
            offsets = {
                key: offset
                for key, offset in kept.position.items()
                if not _may_be_stale(key, offset, epochs) and not (kept.kind == CHECKPOINT and key.topic in topics)
            }
            moved = seen.moved
            if moved is not None and (written := written_offsets(moved, Position(offsets))):
                offsets = {key: offset for key, offset in offsets.items() if key not in written}
                left = moved.left_at or moved.stood or Position()
                before = Position({key: left[key] for key in written if key in left})
                yield KnownPosition(f"the move of {moved.operation}", before, exact=True)
            yield KnownPosition(_store_words(kept), Position(offsets), exact=True)


def _may_be_stale(partition: TopicPartition, offset: int, epochs: Sequence[Epoch]) -> bool:
    claims = [each.claim for each in reversed(epochs) if partition in each.claim.start]
    for claim, earlier in zip_longest(claims, claims[1:]):
        stood = None if claim.stood is None else claim.stood.get(partition, 0)
        if stood is not None and claims[0].start[partition] < offset <= stood:
            return True
        if earlier is None or earlier.start[partition] != stood:
            return False  # the earlier epoch has read something, and may have moved the store
    return False


def _best(
    partition: TopicPartition,
    records: Sequence[tuple[_Rank, KnownPosition]],
    rows: Sequence[tuple[int, KnownPosition]],
    now: Sequence[KnownPosition],
) -> KnownPosition | None:
    """Return the best known position of one partition.

    :param records: the newest one first.
    :param rows: rows of the history, each with its epoch. A row of an earlier epoch than the newest record does not
        count, because a launch since then may have moved the position.
    :param now: positions of the stores that are read now.
    """
    newest = next(((rank[0], known) for rank, known in records if partition in known.position), None)
    recorded = [*([] if newest is None else [newest]), *(each for each in rows if partition in each[1].position)]
    last = max((number for number, _ in recorded), default=0)
    candidates = [known for known in now if partition in known.position]
    candidates += [known for number, known in recorded if number == last]
    return max(candidates, key=lambda each: (each.position[partition], each.exact, bool(each.selector)), default=None)


def _by_source(best: Mapping[TopicPartition, KnownPosition], seen: Observation) -> Iterator[KnownPosition]:
    """Yield what is known, each partition once, grouped by source."""
    live_end = seen.live.end
    # If a store of a stopped job names every partition that was read, nothing was read of a partition that it lacks.
    checkpoint = seen.newest_checkpoint
    is_synchronous = checkpoint is None or not checkpoint.asynchronous
    names_all = seen.is_tracked or (seen.kept[0].store == CHECKPOINT and not seen.is_running and is_synchronous)
    has_rest = names_all and bool(seen.stored) and not seen.is_progress_lost
    for source, known in {each.source: each for each in best.values()}.items():
        offsets = {key: each.position[key] for key, each in best.items() if each.source == source}
        if known.exact and known.selector:
            in_flight = tuple(each for each in known.in_flight if (each.topic, each.partition) in offsets)
        elif known.exact and seen.is_tracked and seen.epoch is not None and seen.epoch.claim.tracked:
            in_flight = ()
        else:
            in_flight = tuple(
                OffsetRange(*key, offset, live_end[key])
                for key, offset in offsets.items()
                if offset < live_end[key]
                and not (has_rest and not known.selector and (seen.is_tracked or _is_read(key, seen)))
            )
        yield replace(known, position=Position(offsets), in_flight=in_flight)


def _words(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.id}" + (f" of {snapshot.taken_at}" if snapshot.taken_at else "")


def _store_words(kept: KeptPosition) -> str:
    return f"the {kept.store}" if kept.store == kept.kind else f"store {kept.store}"


def _taken_ms(snapshot: Snapshot) -> int:
    return snapshot.taken_ms if snapshot.taken_at else 0
