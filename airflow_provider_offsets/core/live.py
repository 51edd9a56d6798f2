"""Topics of a pipeline as Kafka reports them at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from airflow_provider_offsets.core.position import Position, TopicPartition


@dataclass(frozen=True)
class LivePartition:
    """Readable offsets of one partition: ``[begin, end)``."""

    begin: int
    end: int
    leader_epoch: int | None = None


@dataclass(frozen=True)
class LiveTopic:
    """One topic. Partition ``n`` is ``partitions[n]``: Kafka numbers partitions from 0 without gaps, and keeps all."""

    name: str
    topic_id: str
    """Assigned by the cluster when the topic is created: a recreated topic has another id (KIP-516)."""
    partitions: tuple[LivePartition, ...]


@dataclass(frozen=True)
class LiveTopics:
    """All topics of a pipeline in one cluster."""

    cluster_id: str
    topics: tuple[LiveTopic, ...]

    @cached_property
    def partitions(self) -> dict[TopicPartition, LivePartition]:
        """Every partition, sorted."""
        return {
            TopicPartition(topic.name, number): partition
            for topic in sorted(self.topics, key=lambda each: each.name)
            for number, partition in enumerate(topic.partitions)
        }

    @cached_property
    def begin(self) -> Position:
        """The earliest retained offset of each partition."""
        return Position({partition: live.begin for partition, live in self.partitions.items()})

    @cached_property
    def end(self) -> Position:
        """The offset after the last record of each partition."""
        return Position({partition: live.end for partition, live in self.partitions.items()})

    @property
    def leader_epochs(self) -> dict[str, tuple[int | None, ...]]:
        """The leader epoch of each partition, by topic; None where the cluster does not report it."""
        return {topic.name: tuple(each.leader_epoch for each in topic.partitions) for topic in self.topics}

    @property
    def identity(self) -> TopicIdentity:
        """Ids of the cluster and the topics, which differ for recreated topics of the same names."""
        return TopicIdentity(self.cluster_id, {topic.name: topic.topic_id for topic in self.topics})


@dataclass(frozen=True)
class TopicSettings:
    """Retention settings of a topic."""

    cleanup_policy: str = "delete"
    """``delete``, ``compact``, or both with a comma; empty (Kafka 4) for neither."""
    retention_ms: int = 7 * 24 * 3_600_000
    """Below 0: no record is deleted by time."""
    retention_bytes: int = -1
    """Per partition. Below 0: no record is deleted by size."""
    timestamp_type: str = "CreateTime"
    """Clock of the timestamps that retention compares: ``CreateTime`` the producer's, ``LogAppendTime`` the broker's.
    """

    @property
    def is_compacted(self) -> bool:
        """Whether compaction removes records with an older value of a key: their offsets stay, without a record."""
        return "compact" in self.cleanup_policy

    @property
    def deletes(self) -> bool:
        """Whether retention deletes records by time or size."""
        return "delete" in self.cleanup_policy and (self.retention_ms >= 0 or self.retention_bytes >= 0)


@dataclass(frozen=True)
class TopicIdentity:
    """Cluster and topics that offsets belong to: offsets have no meaning elsewhere."""

    cluster_id: str
    topic_ids: dict[str, str]
