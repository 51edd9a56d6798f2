"""Problems of a plan: why it is refused, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ProblemKind(enum.Enum):
    """Why a plan is refused."""

    LOSS = "loss"
    SKIP = "skip"
    OFFSET_PAST_END = "offset past the end"
    LEADER_EPOCH_BACK = "leader epoch gone back"
    TOPIC_RECREATED = "topic recreated"
    WRONG_CLUSTER = "wrong cluster"
    PARTITIONS_GONE = "partitions gone"
    PARTITION_MISSING = "partition missing from the stored position"
    STATEFUL_REPOSITION = "stateful query asked to reposition"
    POSITION_GONE = "stored position gone"
    LATE_WRITE = "stored position written late"
    STORES_DISAGREE = "checkpoint is ahead of the history"
    STORES_CONFLICT = "stores contradict each other"
    CHECKPOINT_STAYS = "checkpoint cannot be exchanged"
    NO_RESUME = "Spark does not start on the checkpoint"
    TOPIC_UNLISTED = "topic not listed"
    GROUP_CHANGED = "group id changed"
    WINDOW_TOO_LONG = "window longer than the runway"
    HISTORY_EXPIRES = "history expires"
    NO_START = "no start named"
    SHARED_SCRATCH = "scratch folder shared with another job"


TRUNCATION = (ProblemKind.OFFSET_PAST_END, ProblemKind.LEADER_EPOCH_BACK)
"""The only two signs of a truncated log that are visible from outside. Without them, truncation is *unknown*, never
*ok*. A log that was cut, and has grown past the stored offset under a newer leader, looks like any other."""


@dataclass(frozen=True)
class Problem:
    """One reason to refuse the plan: what was found, and the remedy."""

    kind: ProblemKind
    message: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.message}"
