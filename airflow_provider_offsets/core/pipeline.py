"""Configuration of a pipeline: its topics, its connections, its job."""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.health import HealthPolicy
from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.location import local_path, plain_path, resolved
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.recovery import RecoveryPolicy
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.core.selectors.parse import COMMITTED, parse_start
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.core.snapshot import CHECKPOINT, HISTORY
from airflow_provider_offsets.errors import InputRefused, SelectorError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Subscription(enum.Enum):
    """Option of Spark's Kafka source that selects what to read."""

    SUBSCRIBE = "subscribe"
    """By topic: Spark finds new partitions while it runs."""
    ASSIGN = "assign"
    """By partition: Spark never finds a new one, so each submit names all partitions that exist then."""


@dataclass(frozen=True)
class SparkJob:
    """Spark program, and the options to submit it."""

    application: str
    checkpoint: str = ""
    """The folder of the checkpoint: a path, or a URL that fsspec opens. Empty for a job without a checkpoint. For a
    tracked job this is the first checkpoint: seeded ones are written beside it, with a suffix. For an untracked job a
    seeded checkpoint is written here, and the old one is moved aside."""
    main_class: str = ""
    """The class to run, if the application is a jar."""
    spark_conn_id: str = "spark_default"
    arguments: tuple[str, ...] = ()
    conf: dict[str, str] = field(default_factory=dict)
    jars: str = ""
    """Comma-separated, as for ``spark-submit --jars``; ``*`` in a file name is expanded at the submit."""
    packages: str = ""
    py_files: str = ""
    log_dir: str = ""
    """Folder on this machine for the drivers' logs; beside the checkpoint if empty."""

    @property
    def folder_for_logs(self) -> str:
        """Folder for the drivers' logs and for the files that a submit passes to its driver."""
        return local_path(self.log_dir or f"{resolved(self.checkpoint)}.logs")


@dataclass(frozen=True)
class StopPolicy:
    """Stop policy of a running job. Each stage has its timeout; a stage without a timeout is not allowed."""

    graceful_timeout_s: int = 300
    """Until the driver acknowledges that it stopped between two batches; for an untracked job, until the process has
    exited."""
    signal_timeout_s: int | None = None
    """Timeout after SIGTERM for the process to exit. Batches that SIGTERM interrupts are replayed."""
    kill_timeout_s: int | None = None
    """Timeout after SIGKILL for the process to exit."""
    marker: str = ""
    """For untracked jobs: a file that makes the job stop. It is created to stop the job, and removed before a start."""
    cluster_timeout_s: int | None = None
    """Timeout after a kill through YARN until the containers are gone. This stage comes before SIGKILL."""


@dataclass(frozen=True)
class Schedules:
    """Schedules of a pipeline's DAGs: cron expressions or Airflow's presets. None: the DAG runs only by hand."""

    recovery: str | None = None
    """``@continuous`` watches all the time."""
    rehearsal: str | None = None
    snapshots: str | None = None


@dataclass(frozen=True)
class RollbackPolicy(HealthPolicy):
    """Watch of a new start, and the reaction if the job is unhealthy."""

    automatic: bool = False
    """Whether the previous version and the previous position are restored at once. A rollback replays what the bad
    version has read, so a person should decide. If False, the run fails and the job is left as it is."""


@dataclass(frozen=True)
class StreamingPipeline:
    """Kafka to Spark streaming job, with all that is needed to stop and start it without losing records.

    :raises InputRefused: a name does not fit a row key, there is no topic, or ``start`` cannot be read. Also if fields
        contradict each other, such as an untracked job without any stop stage.
    """

    name: str
    topics: tuple[str, ...]
    job: SparkJob
    tracked: bool = True
    """Whether the program uses ``TrackedStream``. An untracked job is managed from the stores where it keeps its
    offsets."""
    offsets_in: tuple[str, ...] = ()
    """Stores of the job's offsets, the authoritative store first. Values are ``history`` (tracked jobs),
    ``checkpoint``, and connection ids. A connection is of type ``offsets`` (a history or ZooKeeper) or ``kafka``
    (committed offsets of the group). Stores that are not named are not read. If empty: ``history`` for a tracked job,
    else ``checkpoint``."""
    group_id: str = ""
    """Part of the history's row keys; the pipeline's name if empty. May contain ``:``."""
    subscription: Subscription = Subscription.SUBSCRIBE
    read_committed: bool = False
    """Whether the job reads with ``kafka.isolation.level=read_committed``: then the topics end at the oldest open
    transaction. A tracked job gets that option; the program of an untracked job must set it itself."""
    kafka_conn_id: str = "kafka_default"
    store_conn_id: str = ""
    """An ``offsets`` connection for history and control; ``offsets_default`` if empty. An untracked job without this
    connection keeps its control records in a SQLite file in Airflow's folder: it has no history."""
    stop: StopPolicy = field(default_factory=StopPolicy)
    start_timeout_s: int = 180
    """Until the first batch of a new epoch is processed, or its driver reports that it is idle."""
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    approve: bool = False
    """Whether a person has to approve each plan before anything is stopped; a run may override this."""
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    schedules: Schedules = field(default_factory=Schedules)
    rollback: RollbackPolicy = field(default_factory=RollbackPolicy)
    keep: KeepPolicy = field(default_factory=KeepPolicy)
    """Retention of snapshots, old checkpoints and old versions of the program."""
    backfill: BackfillPolicy = field(default_factory=BackfillPolicy)
    sink: Sink | None = None
    """The sink whose metadata the audits compare with the history; None if the audits cannot read it."""
    start: str = COMMITTED
    """Selectors, as text, of every start that names no others."""

    def __post_init__(self) -> None:
        if not self.group_id:
            object.__setattr__(self, "group_id", self.name)
        if not self.offsets_in:
            object.__setattr__(self, "offsets_in", (HISTORY,) if self.tracked else (CHECKPOINT,))
        if self.tracked and not self.store_conn_id:
            object.__setattr__(self, "store_conn_id", "offsets_default")
        mistakes = [*self._mistakes_in_names(), *self._contradictions()]
        if len(mistakes) == 1:
            raise mistakes[0]
        if mistakes:
            raise InputRefused.joined(f"pipeline {self.name!r}", mistakes)

    def _mistakes_in_names(self) -> Iterator[InputRefused]:
        if not NAME.fullmatch(self.name):
            yield InputRefused(
                seen=f"pipeline name {self.name!r} is not valid",
                expected="a letter or digit, then up to 99 letters, digits, '_', '.' or '-'",
                do="rename the pipeline",
            )
        if not self.topics or not all(TOPIC.fullmatch(topic) for topic in self.topics):
            yield InputRefused(
                seen=f"topics {list(self.topics)!r} of pipeline {self.name!r} are not valid",
                expected="at least one name of 1 to 249 letters, digits, '.', '_' or '-' (Kafka's own rule)",
                do="correct 'topics'",
            )
        if hidden := hidden_character(self.group_id):
            yield InputRefused(
                seen=f"group_id {self.group_id!r} of pipeline {self.name!r} has {hidden}",
                expected="a group id without hidden characters, which some Kafka clients cut off and others do not",
                do="correct 'group_id'",
            )
        try:
            parse_start(self.start)
        except SelectorError as error:
            yield error

    def _contradictions(self) -> Iterator[InputRefused]:
        """Yield a mistake for each pair of fields that contradict each other."""
        if not self.job.checkpoint and (self.tracked or CHECKPOINT in self.offsets_in or not self.job.log_dir):
            yield InputRefused(
                seen=f"job.checkpoint of pipeline {self.name!r} is missing",
                expected="the folder of the checkpoint, or, for a job without one, offsets_in without 'checkpoint' and"
                " a log_dir",
                do="add job.checkpoint, or set both other keys",
            )
        if self.tracked and self.job.checkpoint.startswith("webhdfs:"):
            yield InputRefused(
                seen=f"tracked pipeline {self.name!r} has its checkpoint at {self.job.checkpoint!r}",
                expected="an hdfs:// URL, because Spark 4.2.0 cannot open a checkpoint with its own WebHDFS client",
                do="use an hdfs:// URL, and install Hadoop's native client where Airflow's tasks run",
            )
        if "://" in self.job.folder_for_logs:
            yield InputRefused(
                seen=f"pipeline {self.name!r} has its checkpoint at {self.job.checkpoint!r}, and no log_dir",
                expected="a folder on this machine for the logs of its drivers",
                do="add job.log_dir",
            )
        if not self.tracked and not (self.stop.marker or self.stop.signal_timeout_s or self.stop.cluster_timeout_s):
            yield InputRefused(
                seen=f"untracked pipeline {self.name!r} has no stop.marker, stop.signal_timeout_s or"
                " stop.cluster_timeout_s",
                expected="a way to stop a job that does not use this provider",
                do="name the file that the job checks, or set the timeout of a SIGTERM or of a kill on YARN",
            )
        if self.tracked != (self.authoritative == HISTORY):
            yield InputRefused(
                seen=f"pipeline {self.name!r} has {self.authoritative!r} first in offsets_in, tracked: {self.tracked}",
                expected=f"{HISTORY!r} first for a tracked job, and another store first for an untracked one",
                do="correct 'offsets_in' or 'tracked'",
            )

    def with_application(self, application: str) -> StreamingPipeline:
        """Return this pipeline with another version of its program.

        :param application: path in the folder of ``job.application``, or relative to that folder; empty changes
            nothing.
        :raises InputRefused: the path is outside of the folder. Otherwise a user who may trigger a run could execute
            any file.
        """
        if not application:
            return self
        folder = posixpath.dirname(self.job.application)
        path = posixpath.normpath(posixpath.join(folder, application))
        if "://" in application or posixpath.commonpath([folder or ".", path]) != (folder or "."):
            raise InputRefused(
                seen=f"application {application!r} was given for pipeline {self.name!r}",
                expected=f"a file in {folder!r}, where job.application is",
                do="put the new version into that folder, or change job.application in pipelines.yaml",
            )
        return replace(self, job=replace(self.job, application=path))

    @property
    def authoritative(self) -> str:
        """The authoritative store."""
        return self.offsets_in[0]

    @property
    def resources(self) -> tuple[str, ...]:
        """What no other pipeline may use: checkpoint, marker, and the history or stored position, topic by topic."""
        checkpoint = [checkpoint_resource(self.job.checkpoint)] if self.job.checkpoint else []
        if self.stop.marker:
            checkpoint.append(f"marker {plain_path(self.stop.marker)}")
        stored = () if self.authoritative == CHECKPOINT else stored_resources(self.authoritative, self.stream)
        return (*checkpoint, *stored)

    @property
    def stream(self) -> Stream:
        """The owner of the history's rows."""
        return Stream(self.group_id, tuple(sorted(self.topics)))


def checkpoint_resource(location: str) -> str:
    """Return the name of a checkpoint among the resources of pipelines."""
    return f"checkpoint {plain_path(location)}"


def stored_resources(store: str, stream: Stream) -> tuple[str, ...]:
    """Return the names of a stream's positions in a store, or in the history, among the resources of pipelines.

    :param store: kind of the store, for example ``zookeeper``, or ``history``.
    :param stream: group and topics.
    :returns: one name per topic.
    """
    kind = "history" if store == HISTORY else f"position in {store}"
    return tuple(f"{kind} of group {stream.group_id}, topic {each}" for each in stream.topics)
