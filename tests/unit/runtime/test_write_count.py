"""What Spark's reports about actions say of the rows that a batch wrote; no failure to count breaks a batch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows, WriteCount

FILES = "Execute InsertIntoHadoopFsRelationCommand"


class Metric:
    """Scala's ``Option`` of a metric, and the metric."""

    def __init__(self, number: int | None) -> None:
        self._number = number

    def isDefined(self) -> bool:
        return self._number is not None

    def get(self) -> Metric:
        return self

    def value(self) -> int:
        assert self._number is not None
        return self._number


@dataclass
class Node:
    """A node of a physical plan, and the action that runs it."""

    name: str
    rows: int | None = None
    below: Node | None = None

    def executedPlan(self) -> Node:
        """Return the plan of the action, or of adaptive execution."""
        return self if self.below is None else self.below

    plan = executedPlan

    def nodeName(self) -> str:
        return self.name

    def metrics(self) -> dict[str, Metric]:
        return {"numOutputRows": Metric(self.rows)}


class Broken:
    """An action whose plan cannot be read."""

    def executedPlan(self) -> Node:
        raise ValueError("no plan")


def action(name: str, rows: int | None = None, *, adaptive: bool = False) -> Node:
    """Return an action with this node at the root of its plan, with or without adaptive execution around it."""
    root = Node(name, rows)
    if adaptive:
        root = Node("AdaptiveSparkPlan", below=Node("ResultQueryStage", below=root))
    return Node("action", below=root)


@dataclass
class Spark:
    """A session whose listener bus makes late reports while somebody waits for it."""

    is_stuck: bool = False
    is_gone: bool = False
    listeners: list[Any] = field(default_factory=list)
    late: list[Callable[[], None]] = field(default_factory=list)

    @property
    def sparkContext(self) -> Spark:
        if self.is_gone:
            raise ConnectionRefusedError("the JVM is gone")
        return self

    _gateway = _jsc = _jsparkSession = property(lambda self: self)

    def sc(self) -> Spark:
        return self

    listenerBus = listenerManager = sc

    def register(self, listener: Any) -> None:
        self.listeners.append(listener)

    def unregister(self, listener: Any) -> None:
        self.listeners.remove(listener)

    def waitUntilEmpty(self, timeout_ms: int) -> None:
        if self.is_stuck:
            raise NotEmpty(f"not empty after {timeout_ms} ms")
        for report in self.late:
            report()


class NotEmpty(Exception):
    """What py4j raises for Java's ``TimeoutException``."""


@pytest.fixture(autouse=True)
def _no_jvm(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = type("gateway", (), {"ensure_callback_server_started": staticmethod(lambda gateway: None)})
    monkeypatch.setitem(sys.modules, "pyspark.java_gateway", gateway)


@pytest.mark.parametrize(
    ("why", "actions", "rows"),
    [
        ("no action", [], Rows(None, saw_none=True)),
        ("only reads", [action("Exchange", 9, adaptive=True), action("CollectLimit")], Rows(None, saw_none=True)),
        ("files", [action(FILES, 7)], Rows(7, saw_none=False)),
        ("files, by adaptive execution", [action(FILES, 7, adaptive=True)], Rows(7, saw_none=False)),
        ("two tables", [action(FILES, 7), action("AppendData", 5)], Rows(12, saw_none=False)),
        ("a write without a row", [action(FILES, 0)], Rows(0, saw_none=True)),
        ("JDBC has no count", [action("Execute SaveIntoDataSourceCommand")], UNKNOWN),
        ("JDBC after files", [action(FILES, 7), action("Execute SaveIntoDataSourceCommand")], Rows(7, saw_none=False)),
        ("JDBC, and no row in files", [action(FILES, 0), action("Execute SaveIntoDataSourceCommand")], UNKNOWN),
        ("a V2 table without a count", [action("AppendData")], UNKNOWN),
        ("a view is no write", [action("Execute CreateViewCommand")], Rows(None, saw_none=True)),
    ],
)
def test_the_rows_of_a_batch(why: str, actions: list[Node], rows: Rows) -> None:
    spark = Spark()

    with WriteCount(spark) as written:
        for each in actions:
            spark.listeners[0].onSuccess("command", each, 1)
        written.onFailure("command", action(FILES, 100), ValueError())
        found = written.rows()

    assert found == rows
    assert spark.listeners == []


def test_it_waits_until_spark_has_reported_all_that_ended() -> None:
    """Spark reports a write after the write command has returned."""
    spark = Spark()

    with WriteCount(spark) as written:
        spark.late = [partial(written.onSuccess, "command", action(FILES, 7), 1)]
        found = written.rows()

    assert found == Rows(7, saw_none=False)


@pytest.mark.parametrize(
    ("why", "break_it"),
    [
        ("Spark reports nothing for long", lambda spark, written: setattr(spark, "is_stuck", True)),
        ("a plan cannot be read", lambda spark, written: written.onSuccess("command", Broken(), 1)),
        ("the JVM is gone", lambda spark, written: setattr(spark, "is_gone", True)),
    ],
)
def test_a_failure_to_count_is_logged_and_leaves_no_count(
    why: str, break_it: Callable[[Spark, WriteCount], None], caplog: pytest.LogCaptureFixture
) -> None:
    spark = Spark()

    with WriteCount(spark) as written:
        written.onSuccess("command", action(FILES, 7), 1)
        break_it(spark, written)
        found = written.rows()

    assert found == UNKNOWN
    assert caplog.text.count("are not counted") == 1


def test_a_session_without_a_listener_breaks_no_batch(caplog: pytest.LogCaptureFixture) -> None:
    with WriteCount(Spark(is_gone=True)) as written:
        assert written.rows() == UNKNOWN

    assert "the JVM is gone" in caplog.text
