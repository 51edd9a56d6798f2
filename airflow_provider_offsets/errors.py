"""Errors that this provider raises on purpose.

Each message is three sentences: what was *seen*, what was *expected*, and what to *do*. Catch a branch, not a leaf:

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
    ├── LedgerUnreadable              the metadata of a sink cannot be read
    ├── PlanRefused                   the plan has problems; ``problems`` holds all of them
    ├── PreflightFailed               a start of the job would fail; nothing was stopped
    ├── StateChanged                  the state differs from what the plan saw
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

import re
from collections.abc import Sequence
from typing import ClassVar

# A word, and not a value such as a path, an option or "flights[3]": those keep their first letter.
_FIRST_WORD = re.compile(r"[a-z]+(?=[ ,;]|$)")


class OffsetsError(Exception):
    """Base of all errors of this provider, whose message is three sentences: what was found, expected, and to do.

    :param seen: what was found, as a clause without its full stop, values quoted.
    :param expected: what was required instead, as the object of "Expected".
    :param do: what a person should do next, as a clause that begins with a verb, or "No action needed".
    """

    retriable: ClassVar[bool] = False

    def __init__(self, *, seen: str, expected: str, do: str) -> None:
        self.seen = seen
        self.expected = expected
        self.do = do
        super().__init__(f"{_sentence(seen)}{_sentence(f'Expected {expected}')}{_sentence(do).rstrip()}")


class InputRefused(OffsetsError):
    """Input from a person cannot be used, such as a missing application or connection field. Nothing was changed.

    What to do: Correct what the message names.

    ``parts`` holds each mistake on its own if the message has several.
    """

    parts: tuple[InputRefused, ...] = ()

    @classmethod
    def joined(cls, what: str, mistakes: Sequence[InputRefused]) -> InputRefused:
        """Return one error for all mistakes. A single mistake keeps its message.

        :param what: what has the mistakes, such as a file.
        :param mistakes: at least one.
        """
        first = mistakes[0]
        if len(mistakes) == 1:
            error = cls(seen=first.seen, expected=first.expected, do=first.do)
        else:
            # On one line, because Airflow's pages and logs show the last line of an error first.
            listed = " ".join(f"({number}) {str(each).strip()}" for number, each in enumerate(mistakes, start=1))
            error = cls(
                seen=f"{what} has {len(mistakes)} mistakes: {listed}",
                expected="none",
                do="correct each of them",
            )
        error.parts = tuple(mistakes)
        return error


class PipelineFileError(InputRefused):
    """``pipelines.yaml`` is invalid. For each mistake, the message names file, line, key and fix.

    What to do: Correct each line.
    """


class UnknownPipeline(InputRefused):
    """No pipeline has that name.

    What to do: Correct the name, or add the pipeline to ``pipelines.yaml``.
    """


class SelectorError(InputRefused):
    """A start selector cannot be parsed. The message quotes the wrong part.

    What to do: Correct the selector.
    """


class ModeUnsupported(InputRefused):
    """The guarantees cannot be kept in this mode, so nothing was started.

    Unsupported are Spark Connect, cluster mode of a job that is tracked or not on YARN, SQLite with a remote master,
    and an executor that ends the driver.

    What to do: Follow the message.
    """


class NoHistory(InputRefused):
    """The request needs a history, and the pipeline has none.

    What to do: Track the job, or ask for something else.
    """


class StoreError(OffsetsError):
    """Base of the errors of an offset store."""


class StoreUnreachable(StoreError):
    """The store does not answer.

    What to do: Start the store, or correct its connection.
    """

    retriable = True


class StoreLayoutError(StoreError):
    """The table, column family or file does not exist, or belongs to another program.

    What to do: Run the command in the message, which creates it.
    """


class StoreDataError(StoreError):
    """A row holds content that no writer of this layout writes, such as an offset that is not a number.

    What to do: Find out who else writes to the store.
    """


class PositionExpired(StoreError):
    """The store has deleted the position after its time, for example by the TTL of an HBase table.

    This is no first start, so nothing was started.

    What to do: Write the position of a snapshot to the store. Or delete all other traces of the pipeline, and start it
    from the beginning.
    """


class StoreClientMissing(StoreError):
    """The running Python lacks the client library of the store. The message names the Python.

    What to do: Install the package there.
    """


class StoreDenied(StoreError):
    """The user may not read or write in the store.

    What to do: Grant the right.
    """


class StoreInUse(StoreError):
    """A running job uses what would be written, such as an active consumer group. Nothing was written.

    What to do: Stop the job first.
    """


class BatchConflict(StoreError):
    """The batch is already recorded with other offsets. The recorded ones are unchanged.

    What to do: Find out who changed the checkpoint by hand.
    """


class SnapshotNotFound(StoreError):
    """No snapshot has that id or label. The message names the newest ones.

    What to do: Correct the id. A snapshot that was pruned cannot be restored.
    """


class KafkaError(OffsetsError):
    """Base of the errors of Kafka."""


class KafkaUnreachable(KafkaError):
    """No broker answers.

    What to do: Start a broker, or correct the connection.
    """

    retriable = True


class TopicMissing(KafkaError):
    """Topics of the pipeline do not exist in this cluster.

    What to do: Correct ``topics``, or create them.
    """


class RunwayUnknown(KafkaError):
    """It is unknown how long Kafka retains the records that a job has not read.

    What to do: Grant the rights that the message names, or watch the job by other means.
    """

    retriable = True


class PartitionUnavailable(KafkaError):
    """A partition has no leader, or a broker does not know a new partition yet.

    What to do: Wait until the partition has a leader.
    """

    retriable = True


class CheckpointError(OffsetsError):
    """A checkpoint cannot be read, or has a version or mode that was not tried.

    What to do: Follow the message.
    """


class LedgerUnreadable(OffsetsError):
    """The metadata of a sink cannot be read: no such table or folder, another format, no access, a missing library.

    The audit cannot say what the sink holds. Nothing was changed.

    What to do: Follow the message.
    """


class PlanRefused(OffsetsError):
    """The plan has problems. The message lists all of them.

    What to do: Solve each problem as its text says, and plan again.

    ``problems`` holds the ``Problem`` values of the plan.
    """

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems)
        super().__init__(
            seen=f"{len(self.problems)} problem(s) in the plan: {listed}",
            expected="a plan without problems",
            do="solve each problem as its text says, and plan again",
        )


class PreflightFailed(OffsetsError):
    """A start of the job would fail. The message lists why. Nothing was stopped.

    What to do: Solve each problem as its text says, and run the preflight again.
    """

    def __init__(self, problems: Sequence[object]) -> None:
        listed = "; ".join(str(problem) for problem in problems)
        super().__init__(
            seen=f"a start of the job would fail: {listed}",
            expected="everything that a start needs, before the job is stopped",
            do="solve each problem as its text says, and run the preflight again",
        )


class StateChanged(OffsetsError):
    """A precondition of the plan no longer holds: position, topic, checkpoint or epoch. The message names each change.

    What to do: Plan again.
    """


class NothingToRecover(StateChanged):
    """The job is not known to be dead, was asked to stop, or another operation is changing it.

    The tasks of the recovery are skipped.

    What to do: No action needed.
    """


class RecordChanged(StateChanged):
    """Another actor changed the pipeline's record between a check and the act after it. Nothing was changed.

    What to do: Run the task again. If its plan is refused as stale, run the operation again from its stop task.
    """


class RecordRestored(StateChanged):
    """The pipeline's record is older than one that was read before: its control store was restored or removed.

    What to do: Find out who did it, stop the job, and plan from a start that you name.
    """


class StateLost(StateChanged):
    """The record of the pipeline was lost, or the pipeline was renamed, or two pipelines use the same resource.

    The pipeline has a history and no record, or another pipeline owns its checkpoint, history or stored position.

    What to do: Restore the control store. If the pipeline had another name, run ``airflow offsets rename``.
    """


class PipelineRenamed(StateChanged):
    """The pipeline has a new name, which the message contains.

    What to do: Use the new name.
    """


class ConcurrentAttempt(StateChanged):
    """Another attempt at the interval was planned at the same time. Nothing was recorded.

    What to do: No action needed: Airflow runs the task again.
    """

    retriable = True


class LeaseHeld(OffsetsError):
    """Another operation acted on the pipeline recently. Nothing was changed.

    What to do: Wait until it has ended, or set ``take_over``.
    """


class TakenOver(OffsetsError):
    """Another operation took the pipeline over. This one has changed nothing since.

    What to do: No action needed if the other operation continues.
    """


class StopRequested(OffsetsError):
    """The driver was asked to stop. Raised only inside a driver, which then ends its epoch.

    What to do: No action needed.
    """


class Fenced(OffsetsError):
    """The launch of a driver was cancelled, its epoch was closed, or a newer epoch was claimed.

    Also raised if a task belongs to a replay that was planned again, or if another operation has the job that a
    rollback would change.

    What to do: No action needed, or start another operation.
    """


class StopTimedOut(OffsetsError):
    """The job did not stop in time, or it is unknown whether its YARN application has ended.

    The stop request stays pending, and the job may still be running.

    What to do: Increase the timeout, or allow another stop stage. Repair what does not answer. If the driver is gone
    for good with its machine, verify that, and run ``airflow offsets end``.
    """


class RecoveryGivenUp(OffsetsError):
    """The job died as often as its recovery may restart it. It is left as it is.

    What to do: Fix the job, and start it with its maintenance DAG.
    """


class DriverFailed(OffsetsError):
    """Base of the errors of a driver that did not reach its first batch, or the end of its shard."""


class DriverDied(DriverFailed):
    """The driver ended before its first batch. ``log_tail`` holds the last lines of its log.

    What to do: Fix the cause, and run the task again.
    """

    def __init__(self, *, seen: str, expected: str, do: str, log_tail: str = "") -> None:
        self.log_tail = log_tail
        super().__init__(seen=seen, expected=expected, do=do)


class DriverSilent(DriverFailed):
    """The driver is alive, but has neither processed a batch nor reported that it is idle. It was left running.

    What to do: Read its log. Run the task again to adopt the driver.
    """


class ShardFailed(DriverFailed):
    """The driver of a replay ended before its shard was complete. The message has the last lines of its log.

    What to do: Fix the cause, and run the task again. The run id stays the same.
    """

    retriable = True


class JobUnhealthy(OffsetsError):
    """A job that was started has died, is stalled, or its position went back. It is left as it is.

    What to do: Roll the job back, or fix it and run the maintenance again.
    """


class RollbackRefused(OffsetsError):
    """The previous version or the previous position cannot be restored. The message names what was changed.

    What to do: Follow the message.
    """


class RolledBack(OffsetsError):
    """The previous version is running again, from the previous position. The operation itself has failed.

    What to do: Fix the new version. Reprocess the ranges that the message names.
    """


class AuditFailed(OffsetsError):
    """Records were lost, or duplicated without an explanation.

    What to do: Compare the output with the ranges in the message.
    """


def _sentence(words: str) -> str:
    """Return the clause as a sentence, with the space or the line break that separates it from the next one.

    :param words: a clause; one that ends with a line break, such as the end of a log, gets no full stop.
    """
    text = words[:1].upper() + words[1:] if _FIRST_WORD.match(words) else words
    if text.endswith("\n"):
        return text
    return f"{text} " if text.endswith((".", "…")) else f"{text}. "
