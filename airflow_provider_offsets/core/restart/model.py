"""Restart plan and its parts: frozen values."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Announced
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import TRUNCATION, Problem
from airflow_provider_offsets.core.runway import Runway
from airflow_provider_offsets.core.snapshot import (
    UNSTARTED,
    Observation,
)


class RestartForm(enum.Enum):
    """Form of a restart: the way in which the job gets its start."""

    RESUME = "resume"
    """The same checkpoint; Spark continues by itself."""
    REPOSITION = "reposition"
    """A checkpoint seeded with the chosen offsets beside the old one, which is closed. Query id and batch ids
    continue."""
    FRESH = "fresh"
    """A new checkpoint, and ``startingOffsets`` that name every partition. For an untracked job: a seeded checkpoint at
    the job's own location, because its program sets its own ``startingOffsets``."""
    WRITE = "write"
    """For jobs that keep their offsets elsewhere: the start is written to the store that they read."""


class StartReason(enum.Enum):
    """Why a partition starts at its offset."""

    FIRST_START = "first start: from the earliest retained offset"
    STORED = "continues at its position"
    NEW_PARTITION = "new partition: from offset 0"
    CHOSEN = "as the selector says"
    RETENTION = "retention has deleted the earlier records"


class OnConflict(enum.Enum):
    """Policy for a start that is left to the stores if they contradict each other."""

    REFUSE = "refuse"
    AUTHORITATIVE_STORE = "authoritative-store"
    SMALLEST = "smallest"
    """The smallest offset of each partition in any store: replays, and never skips."""


@dataclass(frozen=True)
class RestartPolicy:
    """Accepted loss and skipping, as topic and maximum count of offsets: ``{topic: count}``."""

    accept_lost: dict[str, int] = field(default_factory=dict)
    accept_skipped: dict[str, int] = field(default_factory=dict)
    on_conflict: OnConflict = OnConflict.REFUSE

    def accepting(self, lost: Mapping[str, int], skipped: Mapping[str, int]) -> RestartPolicy:
        """Return this policy with the counts of one run replacing its own, for the topics that the run names.

        :param lost: accepted loss, ``{topic: count}``.
        :param skipped: accepted skipping, ``{topic: count}``.
        """
        return replace(
            self,
            accept_lost={**self.accept_lost, **lost},
            accept_skipped={**self.accept_skipped, **skipped},
        )


@dataclass(frozen=True)
class PartitionPlan:
    """Restart of one partition. Counts are of offsets."""

    topic: str
    partition: int
    begin: int
    end: int
    stored: int | None
    """The pipeline's offset; None for a partition that it never read, or whose stored offset is gone."""
    wanted: int | None
    """Offset that the selector chose; None if it chose none."""
    start: int
    reason: StartReason
    replay: int = 0
    """Offsets below ``stored`` that are replayed."""
    skipped: int = 0
    """Unread offsets that are skipped by choice."""
    lost: int = 0
    """Unread offsets that retention has deleted."""
    unreplayable: int = 0
    """Offsets to replay that retention has deleted."""
    recreated: bool = False
    """Whether the topic has another id than the topic that ``stored`` belongs to."""
    chosen_by: str = ""
    """The selector that chose this start, with its note; empty if that is obvious."""
    known: int | None = None
    """The pipeline's offset by another source, if the stored offset is gone. Counts then use it."""
    known_by: str = ""
    """Description of that source."""

    @property
    def is_new(self) -> bool:
        """Whether no store and no other source shows that the pipeline has read the partition."""
        return self.stored is None and self.known is None

    @property
    def why(self) -> str:
        """The reason, as text."""
        chosen = f"chosen by {self.chosen_by}" if self.chosen_by else ""
        reason = "" if chosen and self.reason is StartReason.CHOSEN else self.reason.value
        known = "" if self.known is None else f"known at {self.known:,} by {self.known_by}"
        return "; ".join(filter(None, (reason, chosen, known, "topic recreated" if self.recreated else "")))

    @property
    def missing(self) -> int:
        """Offsets that the start wants and Kafka no longer has."""
        return self.lost + self.unreplayable

    @property
    def key(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)

    def announced_from(self, stood: int) -> Announced:
        """Return what this restart and a command before it replay, skip and lose, counted from offset ``stood``."""
        passed_over = max(0, self.start - stood)
        lost = min(self.lost, passed_over)
        return Announced(self.topic, self.partition, self.start, max(0, stood - self.start), passed_over - lost, lost)


@dataclass(frozen=True)
class Preconditions:
    """State that must be unchanged when the plan is applied."""

    generation: int
    """Generation of the pipeline's record: if it is unchanged, no other operation has held the lease and the job's
    phase is the same."""
    epoch: int
    """Number of the newest launch."""
    stored: Position | None
    identity: TopicIdentity
    checkpoint: str | None
    committed_batch_id: int | None
    planned_batch_id: int | None
    closed_by: str | None
    opens: str = ""
    """Location of the checkpoint that an untracked job opens."""

    @classmethod
    def of(cls, seen: Observation) -> Preconditions:
        """Return the preconditions of a plan that was made from ``seen``."""
        checkpoint = seen.newest_checkpoint
        return cls(
            generation=seen.generation,
            epoch=seen.launched,
            stored=seen.stored,
            identity=seen.live.identity,
            checkpoint=None if checkpoint is None else checkpoint.location,
            committed_batch_id=None if checkpoint is None else checkpoint.committed_batch_id,
            planned_batch_id=None if checkpoint is None else checkpoint.planned_batch_id,
            closed_by=None if checkpoint is None else checkpoint.closed_by,
            opens=seen.opens,
        )

    def changes(self, now: Preconditions) -> tuple[str, ...]:
        """Return what differs between these preconditions and ``now``, each with both values."""
        pairs = ((name, getattr(self, name), getattr(now, name)) for name in self.__dataclass_fields__)
        return tuple(f"{name} was {then!r} and is {later!r}" for name, then, later in pairs if then != later)


@dataclass(frozen=True)
class RestartPlan:
    """Effect of a restart. Pure data; identified by ``fingerprint``."""

    pipeline: str
    selector: str
    form: RestartForm
    form_reason: str
    rows: tuple[PartitionPlan, ...]
    problems: tuple[Problem, ...]
    seen: Preconditions
    authoritative: str = ""
    """The authoritative store of an untracked job; empty for a tracked one."""
    kept: Position | None = None
    """Position in an untracked job's authoritative store: a write expects it there."""
    last_batch_id: int = UNSTARTED
    """The greatest id of a batch whose output is complete. The output of the next one may exist in part. So a seeded
    checkpoint uses the next id for a batch without records, and continues after it."""
    query_id: str | None = None
    replay_at_most: int = 0
    """Offsets of an interrupted batch: its output may exist in part, and the batch is run again."""
    gone: Position = field(default_factory=Position)
    """Stored or chosen offsets of partitions that the topics do not have: neither read nor in ``rows``."""
    upper_bounds: tuple[str, ...] = ()
    """The topics whose counts are upper bounds: they have offsets without a record."""
    accounts_for: tuple[str, ...] = ()
    """Tokens of the late writes that the plan accounts for."""
    notes: tuple[str, ...] = ()
    """Remarks for a reader of the plan that are no reason to refuse it."""
    runway: Runway | None = None
    """Retention of the records from the start on; None if Kafka was not asked."""

    @property
    def start(self) -> Position:
        """Starting offset of each partition."""
        return Position({row.key: row.start for row in self.rows})

    @property
    def stood(self) -> Position | None:
        """The pipeline's position when the plan was made, with known offsets where the stored ones are gone."""
        known = {row.key: row.known for row in self.rows if row.known is not None}
        return (self.seen.stored or Position()).updated(known) if known else self.seen.stored

    @property
    def replay(self) -> int:
        """Offsets that are replayed."""
        return sum(row.replay for row in self.rows)

    @property
    def skipped(self) -> int:
        """Offsets that are never read, by choice."""
        return sum(row.skipped for row in self.rows)

    @property
    def lost(self) -> int:
        """Offsets that are never read, because retention has deleted them."""
        return sum(row.lost for row in self.rows)

    @property
    def unreplayable(self) -> int:
        """Offsets to replay that retention has deleted."""
        return sum(row.unreplayable for row in self.rows)

    @property
    def truncation(self) -> str:
        """Whether a truncated log is known: ``seen`` or ``unknown``."""
        return "seen" if any(problem.kind in TRUNCATION for problem in self.problems) else "unknown"

    @property
    def announced(self) -> tuple[Announced, ...]:
        """The partitions that are not simply resumed, for the audit."""
        return self.announced_from(None)

    def announced_from(self, left_at: Position | None) -> tuple[Announced, ...]:
        """Return the partitions that are not simply resumed, for the audit.

        :param left_at: where the job had stopped, if a command has moved its position since.
        """
        each = (
            Announced(row.topic, row.partition, row.start, row.replay, row.skipped, row.lost)
            if left_at is None or row.key not in left_at
            else row.announced_from(left_at[row.key])
            for row in self.rows
        )
        return tuple(found for found in each if found.replay or found.skipped or found.lost)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the decision and its preconditions, without end offsets, which always change."""
        decision = (self.pipeline, self.form.value, self.start.to_json(), codec.dumps(self.seen))
        return hashlib.sha256("\n".join(decision).encode()).hexdigest()[:16]
