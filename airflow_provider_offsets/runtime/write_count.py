"""Count the rows that Spark says the write commands of one batch wrote.

Spark reports each action that ended to a listener, with its physical plan. The plan of a write has the metric
``numOutputRows`` at its root. On Spark 4.2.0, that is so for file formats, ``INSERT INTO``, ``saveAsTable`` and V2
tables. The plan of a write to JDBC, Delta or Kafka has no such metric. ``foreachPartition`` is no write to Spark.

A failure to count never breaks a batch: it is logged, and the batch has no count.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

ROWS = "numOutputRows"
WRITES = {
    "AppendData",
    "AtomicCreateTableAsSelect",
    "AtomicReplaceTableAsSelect",
    "CreateTableAsSelect",
    "Execute DeleteCommand",
    "Execute InsertIntoDataSourceCommand",
    "Execute InsertIntoHadoopFsRelationCommand",
    "Execute InsertIntoHiveTable",
    "Execute MergeIntoCommand",
    "Execute SaveIntoDataSourceCommand",
    "Execute UpdateCommand",
    "OverwriteByExpression",
    "OverwritePartitionsDynamic",
    "ReplaceData",
    "ReplaceTableAsSelect",
    "WriteDelta",
}
"""Names of the physical plan nodes that write. Some of them have no count."""
WRAPPERS = {"AdaptiveSparkPlan": "executedPlan", "ResultQueryStage": "plan"}
"""Names of the nodes that adaptive execution puts around the root, and their method that returns the node below."""
READS = {"collect", "collectToPython", "count", "foreachPartition", "head", "isEmpty", "take", "toLocalIterator"}
"""Names of frequent actions that read. Their plans need no look."""
LONGEST_WAIT_MS = 5_000
"""Longest time to wait for Spark's reports, per batch."""


@dataclass(frozen=True)
class Rows:
    """Rows that one batch wrote, as far as Spark knows."""

    count: int | None
    """None if Spark saw no write, or has no count."""
    saw_none: bool
    """Whether Spark saw that no row was written, or no write at all."""


UNKNOWN = Rows(None, saw_none=False)


class WriteCount:
    """A listener that, while open, adds up the rows of the write commands that end in one session.

    :param spark: session of the batch.
    """

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._rows: int | None = None
        self._has_uncounted = False
        self._failure: Exception | None = None

    def __enter__(self) -> WriteCount:
        try:
            from pyspark.java_gateway import ensure_callback_server_started

            ensure_callback_server_started(self._spark.sparkContext._gateway)
            self._listeners.register(self)
        except Exception as error:
            self._fails(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Exception):  # a session whose JVM is gone has no listeners
            self._listeners.unregister(self)

    def rows(self) -> Rows:
        """Return the rows, after Spark has reported every action that ended."""
        if self._failure is None:
            try:
                self._wait()
            except Exception as error:
                self._fails(error)
        if self._failure is not None or (self._has_uncounted and not self._rows):
            return UNKNOWN
        return Rows(self._rows, saw_none=not self._rows)

    def onSuccess(self, action: str, execution: Any, duration_ns: int) -> None:  # Java's names
        """Add the rows of an action that ended, if it was a write.

        :param action: name of the action, for example ``command``.
        :param execution: Spark's ``QueryExecution``.
        :param duration_ns: duration of the action, in nanoseconds.
        """
        if action in READS:
            return
        try:
            self._add(execution)
        except Exception as error:
            self._fails(error)

    def onFailure(self, action: str, execution: Any, error: Any) -> None:
        """Ignore an action that failed.

        :param action: name of the action, for example ``command``.
        :param execution: Spark's ``QueryExecution``.
        :param error: the exception of the action.
        """

    class Java:
        """The Java interface that this class implements, in the form that py4j looks for."""

        implements = ("org.apache.spark.sql.util.QueryExecutionListener",)

    @property
    def _listeners(self) -> Any:
        return self._spark._jsparkSession.listenerManager()

    def _add(self, execution: Any) -> None:
        """Add the rows of a plan whose root writes. Each step is a call into the JVM, so there are few of them."""
        node = execution.executedPlan()
        name = node.nodeName()
        while name in WRAPPERS:
            node = getattr(node, WRAPPERS[name])()
            name = node.nodeName()
        if name not in WRITES:
            return
        found = node.metrics().get(ROWS)
        if found.isDefined():
            self._rows = (self._rows or 0) + int(found.get().value())
        else:
            self._has_uncounted = True

    def _wait(self) -> None:
        """Wait until Spark has reported every action that ended.

        Spark looks every 10 ms. After 50 writes on two busy cores, this took 23 ms at least and 36 ms as the median. To
        look more often took longer there, because each look is a call into the JVM with an exception.

        :raises Py4JJavaError: Spark has not reported all in time.
        """
        self._spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(LONGEST_WAIT_MS)

    def _fails(self, error: Exception) -> None:
        if self._failure is None:
            log.warning("The rows that this batch wrote are not counted: %s", error)
        self._failure = error
