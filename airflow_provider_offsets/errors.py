"""Every error that this provider raises on purpose.

Each message says what was *seen*, what was *expected*, and what to *do*. Catch a branch, not a leaf:

    OffsetsError
    ├── InputRefused              what a person wrote is wrong, before anything was touched
    │   ├── PipelineFileError         pipelines.yaml does not hold
    │   ├── UnknownPipeline           no pipeline of that name
    │   ├── SelectorError             a start selector that cannot be read
    │   ├── ModeUnsupported           Spark Connect, a remote master with SQLite, …
    │   └── NoHistory                 asked for what only a history knows, of a pipeline that keeps none
    ├── StoreError
    │   ├── StoreUnreachable          retriable
    │   ├── StoreLayoutError          the table, family or file is not ours, or not there
    │   ├── StoreDataError            a row holds what no writer of ours writes
    │   ├── PositionExpired           the store has deleted what it knew: no first start
    │   ├── StoreClientMissing        this Python lacks the store's client library
    │   ├── StoreDenied               the store does not let this user read or write there
    │   ├── StoreInUse                a running job holds what would be written
    │   ├── BatchConflict             other content under a batch that is already recorded
    │   └── SnapshotNotFound
    ├── KafkaError
    │   ├── KafkaUnreachable          retriable
    │   ├── TopicMissing
    │   ├── RunwayUnknown             retriable: nobody can say how long Kafka keeps what is unread
    │   └── PartitionUnavailable      retriable: a partition has no leader just now
    ├── CheckpointError               a checkpoint that cannot be read, or is not one that we know
    ├── PlanRefused                   the plan has problems; ``problems`` holds them all
    ├── WorldChanged                  what the plan saw is not what is there now
    │   ├── NothingToRecover              the pipeline is not a recovery's to start
    │   ├── RecordChanged                 another actor changed the record between a look at it and an act
    │   ├── RecordRestored                the control store was restored, or removed
    │   ├── StateLost                     a pipeline has a history and no record
    │   └── PipelineRenamed               the pipeline has another name now
    ├── LeaseHeld                     another operation is at work on the pipeline
    ├── TakenOver                     another operation took the pipeline over
    ├── Fenced                        a newer epoch of the pipeline has the word
    ├── StopRequested                 the driver was asked to stop: inside the driver only
    ├── StopTimedOut
    ├── RecoveryGivenUp               a job died again and again; a person has to look
    ├── DriverFailed
    │   ├── DriverDied                ``log_tail`` holds its own last lines
    │   ├── DriverSilent              it lives, but neither processed a batch nor said that it is idle
    │   └── ShardFailed               retriable: the driver of a replay ended before its shard was finished
    ├── JobUnhealthy                  a job that was started runs badly, or not any more
    ├── RollbackRefused               the version or the position of before cannot be brought back
    ├── RolledBack                    the operation was undone: the version of before runs again
    └── AuditFailed                   records are lost, or read twice with nothing to explain it

``retriable`` says whether the same call may succeed later with nothing changed by a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class OffsetsError(Exception):
    """Base of all errors here: *seen · expected · do this*.

    :param seen: what was found, values quoted.
    :param expected: what had to be there instead.
    :param do: the next thing for a person to do.
    """

    retriable: ClassVar[bool] = False

    def __init__(self, *, seen: str, expected: str, do: str) -> None:
        self.seen = seen
        self.expected = expected
        self.do = do
        super().__init__(f"{seen} · expected: {expected} · do this: {do}")


class InputRefused(OffsetsError):
    """What a person wrote cannot be used. Nothing was touched."""


class PipelineFileError(InputRefused):
    """``pipelines.yaml`` does not hold: the message names file, line, key and fix."""


class UnknownPipeline(InputRefused):
    """No pipeline of that name."""


class SelectorError(InputRefused):
    """A start selector that cannot be read. The message quotes the part that is wrong."""


class ModeUnsupported(InputRefused):
    """A combination in which the guarantees cannot be kept, so it is not begun."""


class NoHistory(InputRefused):
    """Asked for what only a history knows, of a pipeline that keeps none."""


class StoreError(OffsetsError):
    """Base of what goes wrong with an offset store."""


class StoreUnreachable(StoreError):
    """The store does not answer."""

    retriable = True


class StoreLayoutError(StoreError):
    """The table, column family or file is not there, or is not of our making."""


class StoreDataError(StoreError):
    """A row holds what no writer of this layout writes, such as an offset that is not a number."""


class PositionExpired(StoreError):
    """The store held a position, and deleted it after its time. Not a first start: nothing was begun."""


class StoreClientMissing(StoreError):
    """The Python that runs this lacks the client library of the store."""


class StoreDenied(StoreError):
    """The store does not let this user read or write there."""


class StoreInUse(StoreError):
    """A running job holds what would be written, such as an active consumer group. Nothing was written."""


class BatchConflict(StoreError):
    """The batch is recorded already, with other offsets. The recorded one stands."""


class SnapshotNotFound(StoreError):
    """No snapshot of that id in this store."""


class KafkaError(OffsetsError):
    """Base of what goes wrong with Kafka."""


class KafkaUnreachable(KafkaError):
    """No broker answers."""

    retriable = True


class TopicMissing(KafkaError):
    """A topic of the pipeline does not exist in this cluster."""


class RunwayUnknown(KafkaError):
    """Nobody can say how long Kafka keeps what a job has not read."""

    retriable = True


class PartitionUnavailable(KafkaError):
    """A partition cannot be asked just now, mostly because it has no leader."""

    retriable = True


class CheckpointError(OffsetsError):
    """A checkpoint that cannot be read, or of a version or mode that was not tried."""


class PlanRefused(OffsetsError):
    """The plan has problems; all of them are named together.

    ``problems`` holds the ``Problem`` values of the plan.
    """

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems)
        super().__init__(
            seen=f"{len(self.problems)} problem(s) in the plan: {listed}",
            expected="a start that loses and skips nothing",
            do="mend each as it says, and run the plan again",
        )


class WorldChanged(OffsetsError):
    """The stored position, the topic, the checkpoint or the epoch is not what the plan saw."""


class NothingToRecover(WorldChanged):
    """The job was not found dead, or somebody wants it stopped, or another operation is at work on it."""


class RecordChanged(WorldChanged):
    """The pipeline's record is in another state than the one that was looked at. Nothing was changed."""


class RecordRestored(WorldChanged):
    """The pipeline's record is older than one that was seen: its control store was restored, or removed."""


class StateLost(WorldChanged):
    """The pipeline has a history, and its control store has no record of it: it was lost, or the pipeline renamed."""


class PipelineRenamed(WorldChanged):
    """The pipeline has another name now: its record goes on under that one."""


class ConcurrentAttempt(WorldChanged):
    """Another attempt at the interval was planned at the same time. Nothing was recorded."""

    retriable = True


class LeaseHeld(OffsetsError):
    """Another operation acted on the pipeline lately. Nothing was changed."""


class TakenOver(OffsetsError):
    """Another operation took the pipeline over. This one has changed nothing since."""


class StopRequested(OffsetsError):
    """The driver was asked to stop. Raised inside a driver only, which then ends its epoch."""


class Fenced(OffsetsError):
    """A newer epoch of the pipeline was claimed, or this one was closed."""


class StopTimedOut(OffsetsError):
    """The job was asked to stop and did not acknowledge in time. It may still run."""


class RecoveryGivenUp(OffsetsError):
    """A job died as often as its recovery may start it. It is left as it is."""


class DriverFailed(OffsetsError):
    """Base: the driver did not get as far as its first batch, or the end of its shard."""


class DriverDied(DriverFailed):
    """The driver ended before its first batch. ``log_tail`` holds its own last lines."""

    def __init__(self, *, seen: str, expected: str, do: str, log_tail: str = "") -> None:
        self.log_tail = log_tail
        super().__init__(seen=seen, expected=expected, do=do)


class DriverSilent(DriverFailed):
    """The driver lives, but within the time it neither processed a batch nor said that it stands idle."""


class ShardFailed(DriverFailed):
    """The driver of a replay ended before the output of its shard was finished. The next try has the same run id."""

    retriable = True


class JobUnhealthy(OffsetsError):
    """A job that was started has died, stands still, or went back. It is left as it is."""


class RollbackRefused(OffsetsError):
    """The version or the position of before cannot be brought back. The message says what was touched."""


class RolledBack(OffsetsError):
    """The version of before runs again, from the position of before. The operation itself has failed."""


class AuditFailed(OffsetsError):
    """Records are lost, or read twice with nothing to explain it."""
