"""Count the records that the actions of a user's function really read of a DataFrame.

The first action that ends fills Spark's own ``Observation``, so an ``isEmpty()`` before the real work would leave it at
1. So the DataFrame is marked with an observed count, and a listener keeps the largest count of any action.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any

from airflow_provider_offsets.errors import InputRefused

log = logging.getLogger(__name__)

MARK = "spark_offsets_replayed"
STATEFUL = {
    "Aggregate",
    "Deduplicate",
    "DeduplicateWithinWatermark",
    "Distinct",
    "FlatMapGroupsInPandasWithState",
    "FlatMapGroupsWithState",
    "GlobalLimit",
    "TransformWithState",
    "TransformWithStateInPySpark",
}
"""Logical plan nodes for which a streaming query keeps state. A join keeps state if it reads the source twice."""


def marked(frame: Any) -> Any:
    """Return a DataFrame whose reads are counted."""
    from pyspark.sql import functions as f

    return frame.observe(MARK, f.count(f.lit(1)))


def refuse_stateful(frame: Any) -> None:
    """Raise if a live query with the transforms of a marked DataFrame would keep state.

    :raises InputRefused: the transforms keep state (the message names them), or the DataFrame is not marked.
    """
    found: set[str] = set()
    if not _walk(frame._jdf.queryExecution().analyzed(), found):
        raise InputRefused(
            seen="run() was given a frame that does not come from stream.read_kafka()",
            expected="the records of this shard, transformed",
            do="read with stream.read_kafka() in a replay, too",
        )
    if found:
        raise InputRefused(
            seen=f"the program uses {', '.join(sorted(found))} between read_kafka() and run()",
            expected="transforms without state, because a shard does not contain the earlier records",
            do="reprocess such a job from the beginning of its state, with the DAG reprocess__<pipeline>",
        )


def _walk(plan: Any, found: set[str]) -> bool:
    """Return whether ``plan`` reads the source, and add to ``found`` the nodes that keep state over the source."""
    children = plan.children()
    reading = [_walk(children.apply(index), found) for index in range(children.size())]
    name = plan.getClass().getSimpleName()
    if (name in STATEFUL and any(reading)) or (name == "Join" and sum(reading) > 1):
        found.add(name)
    return any(reading) or (name == "CollectMetrics" and plan.name() == MARK)


class ReadCount:
    """A listener that, while open, keeps the largest marked count that one action has read.

    The listener sees only what runs through SQL. The count stays 0 for a function that reads ``frame.rdd``, reads in
    another session, or does not read at all.
    """

    def __init__(self, spark: Any) -> None:
        self._spark = spark
        self._most = 0

    def __enter__(self) -> ReadCount:
        from pyspark.java_gateway import ensure_callback_server_started

        ensure_callback_server_started(self._spark.sparkContext._gateway)
        self._listeners.register(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listeners.unregister(self)

    def most(self) -> int:
        """Return the largest count, after Spark has reported every action that ended."""
        from py4j.protocol import Py4JError

        try:
            self._spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
        except Py4JError as error:
            log.warning("Spark has not confirmed that it reported all actions: %s", error)
        return self._most

    def so_far(self) -> int:
        """Return about how many records the running action has read, as its executors report. For display only."""
        from py4j.protocol import Py4JError

        try:
            return max(self._most, self._reported())
        except Py4JError as error:  # the status store behind Spark's UI is not a public interface
            log.debug("no progress: %s", error)
            return self._most

    def onSuccess(self, action: str, execution: Any, duration_ns: int) -> None:  # Java's names
        """Keep the count of an action that ended.

        :param action: name of the action, for example ``collect``.
        :param execution: Spark's ``QueryExecution``.
        :param duration_ns: duration of the action, in nanoseconds.
        """
        found = execution.observedMetrics().get(MARK)
        if found.isDefined():
            self._most = max(self._most, found.get().getLong(0))

    def onFailure(self, action: str, execution: Any, error: Any) -> None:
        """Ignore an action that failed.

        :param action: name of the action, for example ``collect``.
        :param execution: Spark's ``QueryExecution``.
        :param error: the exception of the action.
        """

    class Java:
        """The Java interface that this class implements, in the form that py4j looks for."""

        implements = ("org.apache.spark.sql.util.QueryExecutionListener",)

    @property
    def _listeners(self) -> Any:
        return self._spark._jsparkSession.listenerManager()

    def _reported(self) -> int:
        store = self._spark._jsparkSession.sharedState().statusStore()
        executions = store.executionsList()
        most = 0
        for at in range(executions.size()):
            execution = executions.apply(at)
            if execution.completionTime().isDefined():
                continue
            values = store.executionMetrics(execution.executionId())
            nodes = store.planGraph(execution.executionId()).allNodes()
            for node in (nodes.apply(index) for index in range(nodes.size())):
                if "kafka" in node.name().lower():
                    most = max(most, _rows(node.metrics(), values))
        return most


def _rows(metrics: Any, values: Any) -> int:
    for metric in (metrics.apply(index) for index in range(metrics.size())):
        if metric.name() == "number of output rows":
            text = values.get(metric.accumulatorId())
            return int(text.get().replace(",", "")) if text.isDefined() else 0
    return 0
