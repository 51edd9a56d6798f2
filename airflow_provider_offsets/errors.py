"""Errors that this provider raises on purpose.

Each message has three parts: what was *seen*, what was *expected*, and what to *do*. Catch a branch, not a leaf:

    OffsetsError
    ├── InputRefused              input from a person cannot be used; nothing was touched
    │   ├── PipelineFileError         pipelines.yaml is invalid
    │   ├── UnknownPipeline           no pipeline has that name
    │   ├── SelectorError             a start selector cannot be read
    │   ├── ModeUnsupported           Spark Connect, a remote master with SQLite, …
    │   └── NoHistory                 the request needs a history, and the pipeline keeps none
    ├── StoreError
    │   ├── StoreUnreachable          retriable
    │   ├── StoreLayoutError          the table, family or file is another program's, or does not exist
    │   ├── StoreDataError            a row holds content that this provider never writes
    │   ├── PositionExpired           the stored position has expired: no first start
    │   ├── StoreClientMissing        this Python lacks the store's client library
    │   ├── StoreDenied               the store does not let this user read or write there
    │   ├── StoreInUse                a running job uses what would be written
    │   ├── BatchConflict             a batch is already recorded with other content
    │   └── SnapshotNotFound
    ├── KafkaError
    │   ├── KafkaUnreachable          retriable
    │   ├── TopicMissing
    │   ├── RunwayUnknown             retriable: how long Kafka retains unread records is unknown
    │   └── PartitionUnavailable      retriable: a partition has no leader at the moment
    ├── CheckpointError               a checkpoint cannot be read, or is of an unknown kind
    ├── PlanRefused                   the plan has problems; ``problems`` holds all of them
    ├── WorldChanged                  the state differs from what the plan saw
    │   ├── NothingToRecover              a recovery may not start the pipeline
    │   ├── RecordChanged                 another actor changed the record between check and action
    │   ├── RecordRestored                the control store was restored or removed
    │   ├── StateLost                     a pipeline has a history and no record
    │   ├── PipelineRenamed               the pipeline has another name now
    │   └── ConcurrentAttempt             retriable: another attempt was planned at the same time
    ├── LeaseHeld                     another operation works on the pipeline
    ├── TakenOver                     another operation took the pipeline over
    ├── Fenced                        the driver's epoch was fenced by a newer epoch, or closed
    ├── StopRequested                 the driver was asked to stop: inside the driver only
    ├── StopTimedOut
    ├── RecoveryGivenUp               a job died repeatedly; a person has to look into it
    ├── DriverFailed
    │   ├── DriverDied                ``log_tail`` holds the last lines of its log
    │   ├── DriverSilent              it is alive, but has neither processed a batch nor reported that it is idle
    │   └── ShardFailed               retriable: the driver of a replay ended before its shard was complete
    ├── JobUnhealthy                  a job that was started is unhealthy or dead
    ├── RollbackRefused               the previous version or the previous position cannot be restored
    ├── RolledBack                    the operation was undone: the previous version is running again
    └── AuditFailed                   records are lost, or duplicated without an explanation

``retriable`` means that the same call may succeed later although no person has changed anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class OffsetsError(Exception):
    """Base of all errors of this provider: *seen · expected · do this*.

    :param seen: what was found, values quoted.
    :param expected: what was required instead.
    :param do: what a person should do next.
    """

    retriable: ClassVar[bool] = False

    def __init__(self, *, seen: str, expected: str, do: str) -> None:
        self.seen = seen
        self.expected = expected
        self.do = do
        super().__init__(f"{seen} · expected: {expected} · do this: {do}")


class InputRefused(OffsetsError):
    """Input from a person cannot be used. Nothing was touched."""


class PipelineFileError(InputRefused):
    """``pipelines.yaml`` is invalid: the message names file, line, key and fix."""


class UnknownPipeline(InputRefused):
    """No pipeline has that name."""


class SelectorError(InputRefused):
    """A start selector cannot be read. The message quotes the wrong part."""


class ModeUnsupported(InputRefused):
    """The guarantees cannot be kept in this combination, so nothing was started."""


class NoHistory(InputRefused):
    """The request needs a history, and the pipeline keeps none."""


class StoreError(OffsetsError):
    """Base of errors of an offset store."""


class StoreUnreachable(StoreError):
    """The store does not answer."""

    retriable = True


class StoreLayoutError(StoreError):
    """The table, column family or file does not exist, or belongs to another program."""


class StoreDataError(StoreError):
    """A row holds content that no writer of this layout writes, such as an offset that is not a number."""


class PositionExpired(StoreError):
    """The store held a position, which has expired. This is no first start: nothing was started."""


class StoreClientMissing(StoreError):
    """The running Python lacks the client library of the store."""


class StoreDenied(StoreError):
    """The store does not let this user read or write there."""


class StoreInUse(StoreError):
    """A running job uses what would be written, such as an active consumer group. Nothing was written."""


class BatchConflict(StoreError):
    """The batch is already recorded with other offsets. The recorded one is unchanged."""


class SnapshotNotFound(StoreError):
    """The store has no snapshot of that id."""


class KafkaError(OffsetsError):
    """Base of errors of Kafka."""


class KafkaUnreachable(KafkaError):
    """No broker answers."""

    retriable = True


class TopicMissing(KafkaError):
    """A topic of the pipeline does not exist in this cluster."""


class RunwayUnknown(KafkaError):
    """It is unknown how long Kafka retains the records that a job has not read."""

    retriable = True


class PartitionUnavailable(KafkaError):
    """A partition cannot be read at the moment, mostly because it has no leader."""

    retriable = True


class CheckpointError(OffsetsError):
    """A checkpoint cannot be read, or is of a version or mode that was not tried."""


class PlanRefused(OffsetsError):
    """The plan has problems; the message names all of them.

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
    """The stored position, the topic, the checkpoint or the epoch differs from what the plan saw."""


class NothingToRecover(WorldChanged):
    """The job is not known to be dead, was asked to stop, or is in the hands of another operation."""


class RecordChanged(WorldChanged):
    """The pipeline's record is in another state than the one that was read. Nothing was changed."""


class RecordRestored(WorldChanged):
    """The pipeline's record is older than one that was read before: its control store was restored or removed."""


class StateLost(WorldChanged):
    """The pipeline has a history, but its control store has no record: the record was lost, or the pipeline renamed."""


class PipelineRenamed(WorldChanged):
    """The pipeline has another name now: its record continues under that name."""


class ConcurrentAttempt(WorldChanged):
    """Another attempt at the interval was planned at the same time. Nothing was recorded."""

    retriable = True


class LeaseHeld(OffsetsError):
    """Another operation acted on the pipeline recently. Nothing was changed."""


class TakenOver(OffsetsError):
    """Another operation took the pipeline over. This one has changed nothing since."""


class StopRequested(OffsetsError):
    """The driver was asked to stop. Raised only inside a driver, which then ends its epoch."""


class Fenced(OffsetsError):
    """A newer epoch of the pipeline was claimed, or this one was closed."""


class StopTimedOut(OffsetsError):
    """The job was asked to stop and did not acknowledge in time. It may still be running."""


class RecoveryGivenUp(OffsetsError):
    """A job died as often as its recovery may restart it. It is left as it is."""


class DriverFailed(OffsetsError):
    """Base of errors of a driver that did not reach its first batch, or the end of its shard."""


class DriverDied(DriverFailed):
    """The driver ended before its first batch. ``log_tail`` holds the last lines of its log."""

    def __init__(self, *, seen: str, expected: str, do: str, log_tail: str = "") -> None:
        self.log_tail = log_tail
        super().__init__(seen=seen, expected=expected, do=do)


class DriverSilent(DriverFailed):
    """The driver is alive, but has neither processed a batch nor reported that it is idle within the time."""


class ShardFailed(DriverFailed):
    """The driver of a replay ended before the output of its shard was complete. The next try has the same run id."""

    retriable = True


class JobUnhealthy(OffsetsError):
    """A job that was started has died, is stalled, or went back. It is left as it is."""


class RollbackRefused(OffsetsError):
    """The previous version or the previous position cannot be restored. The message names what was changed."""


class RolledBack(OffsetsError):
    """The previous version is running again, from the previous position. The operation itself has failed."""


class AuditFailed(OffsetsError):
    """Records are lost, or duplicated without an explanation."""
