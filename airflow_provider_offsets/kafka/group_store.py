"""Committed offsets of a consumer group, read and written through confluent_kafka's clients.

Jobs on Kafka's own consumer, and DStreams with ``commitAsync``, keep their position here. Kafka keeps one position per
group and no history. Kafka deletes the position some days after the group's last member left, and offers no
compare-and-set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaException, TopicCollection
from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicPartition as Asked

# confluent_kafka re-exports these names without the explicit form that mypy requires.
from confluent_kafka.admin import AclOperation, ConfigResource  # type: ignore[attr-defined]

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.listing import first_few
from airflow_provider_offsets.core.live import LivePartition
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import (
    InputRefused,
    KafkaError,
    KafkaUnreachable,
    StateChanged,
    StoreDenied,
    StoreInUse,
)
from airflow_provider_offsets.kafka.calls import SILENCE, AdminCalls, Clients, Commit, code_of
from airflow_provider_offsets.kafka.reader import KafkaReader
from airflow_provider_offsets.stores import rules

if TYPE_CHECKING:
    from confluent_kafka.admin import ConsumerGroupDescription  # type: ignore[attr-defined]

_Live = Mapping[TopicPartition, LivePartition]

_WHEN_STOPPED = (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
"""The broker reports a group that it does not have as dead."""
_DENIED = {Code.CLUSTER_AUTHORIZATION_FAILED, Code.GROUP_AUTHORIZATION_FAILED, Code.TOPIC_AUTHORIZATION_FAILED}
_HAS_MEMBERS = {
    Code.FENCED_INSTANCE_ID,
    Code.FENCED_MEMBER_EPOCH,
    Code.ILLEGAL_GENERATION,
    Code.NON_EMPTY_GROUP,
    Code.REBALANCE_IN_PROGRESS,
    Code.STALE_MEMBER_EPOCH,
    Code.UNKNOWN_MEMBER_ID,
}
_RETENTION = "offsets.retention.minutes"
_MINUTES_A_DAY = 24 * 60


class KafkaGroupStore:
    """Position store in Kafka's consumer groups. Reading joins no group and commits nothing.

    Errors of the cluster are those of ``KafkaReader``: ``KafkaUnreachable`` (retriable), ``TopicMissing``,
    ``PartitionUnavailable``.

    :param clients: such as ``open_clients`` yields. The code that opened the clients closes them.
    :param timeout_s: time limit of each request.
    """

    kind = "kafka"

    def __init__(self, clients: Clients, timeout_s: float = 30.0) -> None:
        self._calls = AdminCalls(clients, timeout_s)
        self._reader = KafkaReader(clients, timeout_s)

    def __repr__(self) -> str:
        return f"KafkaGroupStore({self._calls.where!r})"

    def position(self, stream: Stream) -> Position | None:
        """Return the committed offsets of the group in the stream's topics, or None if the group has none.

        A partition without a commit is omitted: no consumer has reached the partition yet, or the commit has expired.
        A commit for a partition that the topic does not have is ignored.

        :raises TopicMissing: a topic does not exist; a mistyped topic would otherwise look like an empty store.
        :raises StoreDenied: this user may not describe the group.
        """
        stream = rules.check_stream(stream)
        with _denials(stream):
            return self._reader.committed(stream.group_id, stream.topics) or None

    def leader_epochs(self, stream: Stream) -> dict[TopicPartition, int]:
        """Return the leader epochs that were committed with the offsets, for partitions whose committer knew the epoch.

        :raises TopicMissing: as ``position`` does.
        """
        stream = rules.check_stream(stream)
        with _denials(stream):
            live = self._reader.live_topics(stream.topics).partitions
            commits = self._calls.commits(stream.group_id, list(live), self._calls.deadline())
        epochs = {partition: commit.leader_epoch for partition, commit in commits.items()}
        return {partition: epoch for partition, epoch in epochs.items() if epoch is not None and epoch >= 0}

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Set the group's offsets in one request while the group has no members, and read them back.

        Kafka has no compare-and-set. Three checks replace it. The group must be empty. The broker refuses the request
        if a member joins meanwhile. The offsets that are read back must equal the written ones. A second writer at the
        same moment that is no member may still be overwritten.

        The leader epoch and the committer's metadata of a partition stay if its offset does not change. A partition
        that is set to the end of its log gets the leader epoch of the end. The epoch of any other offset is unknown.

        :param position: the offsets to write.
        :param expected: the position that the group must have now; None for a group without commits.
        :raises InputRefused: an offset is outside of what the partition retains, or a partition is not in the topic.
            The broker would accept such an offset, and the next consumer would apply its ``auto.offset.reset``.
        :raises StoreInUse: the group has members, or its state is unknown.
        :raises KafkaUnreachable: no broker answered, or the answer was lost and the new offsets were not stored.
        """
        stream = rules.check_stream(stream)
        with _denials(stream):
            live, commits = self._checked(stream, position, expected)
            if _position(commits) == position:
                return
            request = [_asked(each, end, commits.get(each), live) for each, end in position.items()]
            try:
                self._alter(stream.group_id, request)
            except KafkaUnreachable:
                # The answer was lost: read the group to learn whether the write happened.
                if self.position(stream) != position:
                    raise
            self._require_written(stream, position)

    def check_write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Raise what ``write`` would raise now. Nothing is written."""
        stream = rules.check_stream(stream)
        with _denials(stream):
            self._checked(stream, position, expected)

    def _checked(
        self, stream: Stream, position: Position, expected: Position | None
    ) -> tuple[_Live, Mapping[TopicPartition, Commit]]:
        """Return the live partitions and the commits, after checking that the position may be written."""
        rules.check_position(stream, position)
        live = self._reader.live_topics(stream.topics).partitions
        commits = self._calls.commits(stream.group_id, list(live), self._calls.deadline())
        stored = _position(commits)
        if stored != position:
            self._require_empty(stream.group_id)
            rules.is_to_be_written(stored, position, expected)
            _require_within(live, position)
            self._require_leave(stream)
        return live, commits

    def expires(self, stream: Stream) -> str:
        """Return a sentence about when Kafka deletes the group's offsets (``offsets.retention.minutes``, KIP-211)."""
        rules.check_stream(stream)
        minutes = self._retention_minutes()
        kept = (
            f"{_duration(minutes)} ({_RETENTION}={minutes})"
            if minutes is not None
            else f"{_RETENTION} of the brokers (7 days by default; this user may not see it)"
        )
        return (
            f"Kafka deletes the offsets of group {stream.group_id!r} {kept} after its last member left;"
            " of a group that never had members, that long after each commit"
        )

    def _retention_minutes(self) -> int | None:
        """Return the broker's setting, or None if this user may not read it: many clusters do not grant that."""
        deadline = self._calls.deadline()
        [cluster] = self._calls.ask(
            lambda timeout: {"": self._calls.admin.describe_cluster(request_timeout=timeout)}, deadline
        ).values()
        if isinstance(cluster, KafkaException):
            raise self._calls.refusal(cluster, "the cluster")
        broker = ConfigResource(ConfigResource.Type.BROKER, str(cluster.nodes[0].id))
        [settings] = self._calls.ask(
            lambda timeout: self._calls.admin.describe_configs([broker], request_timeout=timeout), deadline
        ).values()
        if isinstance(settings, KafkaException):
            if code_of(settings) in _DENIED:
                return None
            raise self._calls.refusal(settings, f"the settings of broker {broker.name}")
        return int(settings[_RETENTION].value) if _RETENTION in settings else None

    def _require_empty(self, group_id: str) -> None:
        group: KafkaException | ConsumerGroupDescription = self._calls.ask(
            lambda timeout: self._calls.admin.describe_consumer_groups([group_id], request_timeout=timeout),
            self._calls.deadline(),
        )[group_id]
        if isinstance(group, KafkaException):
            if code_of(group) == Code.GROUP_ID_NOT_FOUND:
                return
            raise self._calls.refusal(group, f"consumer group {group_id!r}")
        if group.state not in _WHEN_STOPPED:
            members = ", ".join(f"{each.client_id} at {each.host}" for each in group.members[:5]) or "none named"
            raise _in_use(group_id, f"is in state {group.state.name} (members: {members})")

    def _require_leave(self, stream: Stream) -> None:
        """Check that this user may write every topic: the broker would otherwise write only some of the partitions."""
        if len(stream.topics) < 2:
            return
        asked = TopicCollection(list(stream.topics))
        answers = self._calls.ask(
            lambda timeout: self._calls.admin.describe_topics(
                asked, include_authorized_operations=True, request_timeout=timeout
            ),
            self._calls.deadline(),
        )
        for name, topic in answers.items():
            if isinstance(topic, KafkaException):
                raise self._calls.refusal(topic, f"topic {name!r}")
            if topic.authorized_operations is not None and AclOperation.READ not in topic.authorized_operations:
                raise _denied(stream, f"there is no READ on topic {name!r}; nothing was written")

    def _alter(self, group_id: str, request: list[Asked]) -> None:
        answer = self._calls.ask(
            lambda timeout: self._calls.admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group_id, request)], request_timeout=timeout
            ),
            self._calls.deadline(),
        )[group_id]
        # The broker rarely refuses the request as a whole: for an active group it refuses each partition.
        refused = (
            [answer]
            if isinstance(answer, KafkaException)
            else [KafkaException(each.error) for each in answer.topic_partitions if each.error is not None]
        )
        if not refused:
            return
        if any(code_of(each) in _HAS_MEMBERS for each in refused):
            raise _in_use(group_id, f"got a member before the write ({refused[0].args[0].name()})")
        if denied := [each for each in refused if code_of(each) in _DENIED | SILENCE]:
            raise self._calls.refusal(denied[0], f"consumer group {group_id!r}")
        if isinstance(answer, KafkaException):
            raise self._calls.refusal(answer, f"consumer group {group_id!r}")
        named = [
            f"{each.topic}[{each.partition}]: {each.error.name()}" for each in answer.topic_partitions if each.error
        ]
        raise KafkaError(
            seen=f"Kafka refused {len(named)} of {len(request)} partitions of group {group_id!r}: " + first_few(named),
            expected="all partitions to be written; the other ones may have been written",
            do="read the group's offsets, fix the named errors, and plan again",
        ) from refused[0]

    def _require_written(self, stream: Stream, position: Position) -> None:
        found = self.position(stream)
        if found != position:
            raise StateChanged(
                seen=f"group {stream.group_id!r} has {rules.said(found)} right after the write",
                expected=rules.said(position),
                do="find out who else commits to this group, stop that program, and plan again",
            )


@contextmanager
def _denials(stream: Stream) -> Iterator[None]:
    """Raise ``StoreDenied`` for authorization errors, and let other errors pass."""
    try:
        yield
    except KafkaError as error:
        cause = error.__cause__
        if isinstance(cause, KafkaException) and code_of(cause) in _DENIED:
            raise _denied(stream, cause.args[0].name()) from cause
        raise


def _denied(stream: Stream, why: str) -> StoreDenied:
    return StoreDenied(
        seen=f"Kafka denies the offsets of group {stream.group_id!r} to this user: {why}",
        expected="DESCRIBE on the group and its topics; to write, also READ on both",
        do="grant these to the user of the Kafka connection",
    )


def _position(commits: Mapping[TopicPartition, Commit]) -> Position | None:
    return Position({each: commit.offset for each, commit in commits.items()}) if commits else None


def _require_within(live: _Live, position: Position) -> None:
    """Refuse offsets that the broker would accept silently and that no consumer could continue from."""
    for each, offset in position.items():
        held = live.get(each)
        if held is None:
            raise _outside(f"{each}, which the topic does not have", "partitions of the topic as it is now")
        if not held.begin <= offset <= held.end:
            raise _outside(f"{each} -> {offset}", f"{held.begin} to {held.end}, what Kafka holds of it now")


def _outside(seen: str, expected: str) -> InputRefused:
    return InputRefused(
        seen=seen,
        expected=f"{expected}, because a consumer with any other offset applies its auto.offset.reset",
        do="plan again, and write a position that the plan allows. Nothing was written",
    )


def _asked(partition: TopicPartition, offset: int, commit: Commit | None, live: _Live) -> Asked:
    known: dict[str, Any] = {}
    if commit is not None and commit.offset == offset:
        known = {"leader_epoch": commit.leader_epoch, "metadata": commit.metadata}
    elif offset == live[partition].end:
        known = {"leader_epoch": live[partition].leader_epoch}
    return Asked(*partition, offset, **{name: value for name, value in known.items() if value is not None})


def _in_use(group_id: str, state: str) -> StoreInUse:
    return StoreInUse(
        seen=f"consumer group {group_id!r} {state}",
        expected="a group without members, because Kafka sets the offsets of no other group",
        do="stop the job, and try again; a killed job stays a member until its session.timeout.ms is over",
    )


def _duration(minutes: int) -> str:
    days, rest = divmod(minutes, _MINUTES_A_DAY)
    return f"{minutes} minutes" if rest else f"{days} day{'s' if days != 1 else ''}"
