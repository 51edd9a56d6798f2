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
    def identity(self) -> TopicIdentity:
        """Which cluster and which topics these are, whatever their names."""
        return TopicIdentity(self.cluster_id, {topic.name: topic.topic_id for topic in self.topics})


@dataclass(frozen=True)
class TopicIdentity:
    """Which cluster and topics offsets belong to: they mean nothing in any other."""

    cluster_id: str
    topic_ids: dict[str, str]
