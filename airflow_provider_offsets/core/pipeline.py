"""What a person says of a pipeline: its topics, its connections, its job."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.plan import RestartPolicy
from airflow_provider_offsets.errors import InputRefused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Subscription(enum.Enum):
    """How Spark's Kafka source is told what to read."""

    SUBSCRIBE = "subscribe"
    """By topic: Spark finds new partitions by itself once it runs."""
    ASSIGN = "assign"
    """By partition: Spark never sees a new one, so each submit names all that there are then."""


@dataclass(frozen=True)
class SparkJob:
    """The Spark program, and how it is submitted."""

    application: str
    checkpoint: str
    """The folder of the first checkpoint. Seeded ones are written beside it, with a suffix."""
    spark_conn_id: str = "spark_default"
    arguments: tuple[str, ...] = ()
    conf: dict[str, str] = field(default_factory=dict)
    jars: str = ""
    """Comma-separated, as for ``spark-submit --jars``; ``*`` in a file name is expanded at the submit."""
    packages: str = ""
    py_files: str = ""
    log_dir: str = ""
    """Where the drivers' logs go; beside the checkpoint if empty."""

    @property
    def folder_for_logs(self) -> str:
        """Where the drivers' logs, and what a submit hands to its driver, are put."""
        return self.log_dir or f"{self.checkpoint.rstrip('/')}.logs"


@dataclass(frozen=True)
class StopLadder:
    """How a running job is stopped. Each rung has its time; a rung without one is not allowed."""

    graceful_timeout_s: int = 300
    """Until the driver acknowledges that it stopped between two batches."""
    signal_timeout_s: int | None = None
    """SIGTERM, and this long for the process to go. What it cuts off is replayed."""
    kill_timeout_s: int | None = None
    """SIGKILL, and this long."""


@dataclass(frozen=True)
class StreamingPipeline:
    """One Kafka to Spark streaming job, and all that is needed to stop and start it without losing records.

    :raises InputRefused: a name that could not stand in a row key, or no topic.
    """

    name: str
    topics: tuple[str, ...]
    job: SparkJob
    group_id: str = ""
    """Stands in the history's row keys; the pipeline's name if empty. May hold ``:``."""
    subscription: Subscription = Subscription.SUBSCRIBE
    kafka_conn_id: str = "kafka_default"
    store_conn_id: str = "offsets_default"
    stop: StopLadder = field(default_factory=StopLadder)
    start_timeout_s: int = 180
    """Until the first batch of a new epoch is processed, or its driver says that it stands idle."""
    policy: RestartPolicy = field(default_factory=RestartPolicy)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InputRefused(
                seen=f"pipeline name {self.name!r}",
                expected="a letter or digit, then up to 99 letters, digits, '_', '.' or '-'",
                do="rename the pipeline",
            )
        if not self.topics or not all(TOPIC.fullmatch(topic) for topic in self.topics):
            raise InputRefused(
                seen=f"topics {list(self.topics)!r} of pipeline {self.name!r}",
                expected="at least one name of 1 to 249 letters, digits, '.', '_' or '-' (Kafka's own rule)",
                do="correct 'topics'",
            )
        if not self.group_id:
            object.__setattr__(self, "group_id", self.name)

    @property
    def stream(self) -> Stream:
        """What its history belongs to."""
        return Stream(self.group_id, tuple(sorted(self.topics)))
