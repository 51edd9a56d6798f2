"""What Kafka said about the topics of a pipeline, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_offsets.core.position import Position, TopicPartition


@dataclass(frozen=True)
class LivePartition:
    """The offsets of one partition that can be read: ``[begin, end)``."""

    begin: int
    end: int
    leader_epoch: int | None = None


@dataclass(frozen=True)
class LiveTopic:
    """One topic. Partition ``n`` is ``partitions[n]``: Kafka numbers them from 0 without gaps, and only ever adds."""

    name: str
    topic_id: str
    """Given by the cluster at creation: a topic that was deleted and made again has another (KIP-516)."""
    partitions: tuple[LivePartition, ...]


@dataclass(frozen=True)
class LiveTopics:
    """All topics of a pipeline in one cluster."""

    cluster_id: str
    topics: tuple[LiveTopic, ...]

    @property
    def partitions(self) -> dict[TopicPartition, LivePartition]:
        """Every partition, sorted."""
        return {
            TopicPartition(topic.name, number): partition
            for topic in sorted(self.topics, key=lambda each: each.name)
            for number, partition in enumerate(topic.partitions)
        }

    @property
    def begin(self) -> Position:
        """The first offset of each partition that retention has left."""
        return Position({partition: live.begin for partition, live in self.partitions.items()})

    @property
    def end(self) -> Position:
        """The offset after the last record of each partition."""
        return Position({partition: live.end for partition, live in self.partitions.items()})

    @property
    def leader_epochs(self) -> dict[str, tuple[int | None, ...]]:
        """The leader epoch of each partition, by topic; None where the cluster does not tell it."""
        return {topic.name: tuple(each.leader_epoch for each in topic.partitions) for topic in self.topics}

    @property
    def identity(self) -> TopicIdentity:
        """Which cluster and which topics these are, whatever their names."""
        return TopicIdentity(self.cluster_id, {topic.name: topic.topic_id for topic in self.topics})


@dataclass(frozen=True)
class TopicSettings:
    """How long Kafka keeps the records of a topic."""

    cleanup_policy: str = "delete"
    """``delete``, ``compact``, or both with a comma; empty (Kafka 4) for neither."""
    retention_ms: int = 7 * 24 * 3_600_000
    """Below 0: time alone deletes nothing."""
    retention_bytes: int = -1
    """Of each partition. Below 0: size alone deletes nothing."""
    timestamp_type: str = "CreateTime"
    """Whose clock gives the time that retention goes by: ``CreateTime`` the producer's, ``LogAppendTime`` the
    broker's."""

    @property
    def is_compacted(self) -> bool:
        """Say whether records go when a later one has their key: offsets stay, without a record."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Say whether records go with their age or number."""
        return "delete" in self.cleanup_policy and (self.retention_ms >= 0 or self.retention_bytes >= 0)


@dataclass(frozen=True)
class TopicIdentity:
    """Which cluster and topics offsets belong to: they mean nothing in any other."""

    cluster_id: str
    topic_ids: dict[str, str]
