"""A query that a known bug of Spark ended is started again under its epoch, once; any other failure ends the driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.errors import Fenced
from airflow_provider_offsets.runtime import live_query
from airflow_provider_offsets.runtime.known_bugs import BugsMet
from airflow_provider_offsets.runtime.live_query import LiveQuery
from tests.unit.core.observations import at
from tests.unit.runtime.lab import QUERY, Frame, Lab, planned, running_as

TRACE = """org.apache.spark.sql.streaming.StreamingQueryException: [STREAM_FAILED] Query [id = x, runId = y] terminated
Caused by: java.lang.NullPointerException: Cannot invoke "scala.collection.IterableOps.map(scala.Function1)" because \
the return value of "scala.Option.get()" is null
\tat org.apache.spark.sql.kafka010.KafkaMicroBatchStream$.metrics(KafkaMicroBatchStream.scala:520)
\tat org.apache.spark.sql.kafka010.KafkaMicroBatchStream.metrics(KafkaMicroBatchStream.scala:367)
\tat org.apache.spark.sql.execution.streaming.runtime.ProgressContext.extractSourceProgress(ProgressReporter.scala:1)
"""


class StreamingQueryException(Exception):
    """PySpark's exception, whose text is the message alone."""

    def __init__(self, trace: str) -> None:
        super().__init__("[STREAM_FAILED] Query terminated with exception")
        self._stackTrace = trace


NPE = StreamingQueryException(TRACE)


@pytest.mark.parametrize(
    ("why", "version", "error", "issue"),
    [
        ("the first release with it", "4.1.0", NPE, "SPARK-55271"),
        ("the last one", "4.1.2", NPE, "SPARK-55271"),
        ("of a vendor", "4.1.1-amzn-0", NPE, "SPARK-55271"),
        ("a release with the fix", "4.2.0", NPE, None),
        ("a later fix of 4.1", "4.1.3", NPE, None),
        ("no prefix of a number", "4.1.10", NPE, None),
        ("another method of that class", "4.1.1", StreamingQueryException(TRACE.replace(".metrics(", ".plan(")), None),
        ("another exception", "4.1.1", StreamingQueryException(TRACE.replace("NullPointer", "OutOfBounds")), None),
        ("a user's own", "4.1.1", ValueError("NullPointerException"), None),
    ],
)
def test_what_is_a_known_bug(why: str, version: str, error: Exception, issue: str | None) -> None:
    met = BugsMet(version)

    found = met.excuse(error)

    assert (found and found.issue) == issue
    assert met.excuse(error) is None, "once for each"


class Spark:
    """A session whose every query runs the next of ``batches``: planned, written, committed, and then it may die."""

    def __init__(self, lab: Lab, batches: list[int | None], version: str = "4.1.1") -> None:
        self.lab, self.batches, self.version = lab, batches, version
        self.deaths: dict[int, Exception] = {}
        self.written: list[int] = []
        self.function: Callable[[Any, int], None] | None = None
        self.is_planned_by_seed = False

    @property
    def writeStream(self) -> Spark:
        return self

    def queryName(self, name: str) -> Spark:
        return self

    def option(self, key: str, value: str) -> Spark:
        return self

    def trigger(self, **trigger: str) -> Spark:
        return self

    def foreachBatch(self, function: Callable[[Any, int], None]) -> Spark:
        self.function = function
        return self

    def start(self) -> Query:
        return Query(self)


class Query:
    """One query."""

    def __init__(self, spark: Spark) -> None:
        self.spark = spark
        self.status = {"message": "Waiting for next trigger", "isDataAvailable": False}
        self.lastProgress = None

    def awaitTermination(self, timeout: float) -> bool:
        spark = self.spark
        batch_id = spark.batches.pop(0) if spark.batches else None
        if batch_id is None:
            spark.lab.stop()
            return False
        if spark.lab.log().batch(batch_id, epoch=1) is None:
            spark.lab.plan(batch_id, 10 * batch_id + 10, 10 * batch_id + 10)
        if spark.function is not None:
            spark.function(Frame(), batch_id)
        else:
            spark.written.append(batch_id)
        spark.lab.checkpoint().create(f"commits/{batch_id}", "v1\n{}")
        if batch_id in spark.deaths:
            raise spark.deaths.pop(batch_id)
        return False

    def stop(self) -> None:
        pass


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def live(lab: Lab, spark: Spark, monkeypatch: pytest.MonkeyPatch) -> LiveQuery:
    """Return the newest launch's query, claimed."""
    monkeypatch.setattr(live_query, "HadoopCheckpoint", lambda session, location: open_checkpoint(location))
    made = LiveQuery(spark, lab.hold().settings, lab.store)
    with running_as(2):
        made.claim()
    return made


def run(query: LiveQuery, spark: Spark, is_sink: bool) -> None:
    if is_sink:
        query.run(spark, None, lambda writer: writer, {})
    else:
        query.run(spark, lambda frame, batch_id: spark.written.append(batch_id), None, {})


@pytest.mark.parametrize("is_sink", [False, True])
def test_after_a_resumed_batch_the_query_goes_on(
    is_sink: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SPARK-55271: Spark commits the interrupted batch, and dies before it reports its progress."""
    lab.held().begin(planned(0))
    lab.plan(0, 10, 10)
    lab.launch(last_planned_batch_id=0)
    spark = Spark(lab, [0, 1])
    spark.deaths = {0: NPE}
    query = live(lab, spark, monkeypatch)

    run(query, spark, is_sink)
    query.close(None)

    assert spark.written == [0, 1]
    assert lab.recorded == [(0, 2, at(10, 10)), (1, 2, at(20, 20))]
    assert lab.cuts == [(0, 1)], "that of the epoch before, and none of this one"
    assert lab.record.ended is not None
    assert (lab.record.epoch, lab.record.ended.how) == (2, EndedHow.STOPPED)
    assert "SPARK-55271 ended the query; restarting it under epoch 2" in caplog.text


@pytest.mark.parametrize("is_sink", [False, True])
def test_after_a_seeded_start_the_query_goes_on(is_sink: bool, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(lab.checkpoint(), query_id=QUERY, last_batch_id=-1, start=at(10, 10), like=None)
    lab.launch(start=at(10, 10), last_planned_batch_id=0)
    spark = Spark(lab, [0, 1])
    spark.deaths = {0: NPE}
    query = live(lab, spark, monkeypatch)

    run(query, spark, is_sink)

    assert lab.recorded == [(1, 1, at(20, 20))]


@pytest.mark.parametrize("is_sink", [False, True])
@pytest.mark.parametrize(
    ("why", "deaths"),
    [("a second time", {0: NPE, 1: NPE}), ("of something else", {1: StreamingQueryException("OutOfMemoryError")})],
)
def test_what_dies(why: str, deaths: dict[int, Exception], is_sink: bool, lab: Lab, monkeypatch: Any) -> None:
    lab.launch()
    spark = Spark(lab, [0, 1, 2])
    spark.deaths = dict(deaths)
    query = live(lab, spark, monkeypatch)

    with pytest.raises(StreamingQueryException) as failed:
        run(query, spark, is_sink)
    query.close(failed.value)
    lab.launch()

    assert spark.written == [0, 1]
    assert [batch_id for batch_id, *_ in lab.recorded] == [0, 1], "what was committed is recorded by the next operation"
    assert next(lab.control.kept_epochs()).ended.how is EndedHow.FAILED  # type: ignore[union-attr]


def test_a_fenced_driver_starts_nothing_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch was committed, and the operation that closed its epoch has recorded the batch by then."""
    lab.launch()
    spark = Spark(lab, [0, 1])

    class Overtaken(StreamingQueryException):
        def __str__(self) -> str:
            if lab.record.epoch == 1:
                lab.launch()
            return super().__str__()

    spark.deaths = {0: Overtaken(TRACE)}
    query = live(lab, spark, monkeypatch)

    with pytest.raises(Fenced):
        run(query, spark, is_sink=True)

    assert (spark.written, lab.recorded) == ([0], [(0, 1, at(10, 10))])
