"""A replay in a driver without Spark: what it requests from Spark, and what it records."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.committer import COMMITTER_KEYS, committer_conf
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.claim import ShardClaim, replay_batch_id
from airflow_provider_offsets.core.replay.model import Shard
from airflow_provider_offsets.core.replay.shard import (
    CancelShard,
    CloseShard,
    LaunchShard,
    ShardEvent,
    ShardPhase,
    ShardRecord,
    SupersedeShard,
    TryEnded,
    digest_of_ranges,
)
from airflow_provider_offsets.errors import Fenced, InputRefused, StoreUnreachable
from airflow_provider_offsets.runtime import TrackedStream, read_count, shard_replay
from airflow_provider_offsets.runtime.settings import FILE_KEY, ReplaySettings, Secrets, read_settings
from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows
from airflow_provider_offsets.stores import open_store
from tests.unit.runtime.test_settings import ClassicSession

RUN = "backfill/day#abc#1"
SHARD = Shard(3, (OffsetRange("flights", 0, 5, 25), OffsetRange("flights", 2, 0, 10), OffsetRange("trains", 1, 7, 8)))


class Seq(list):
    """The part of Scala's ``Seq`` that is used here."""

    def size(self) -> int:
        return len(self)

    def apply(self, index: int) -> Any:
        return self[index]


class Node:
    """A node of a logical plan."""

    def __init__(self, kind: str, *children: Node, mark: str = "") -> None:
        self._kind, self._children, self._mark = kind, children, mark

    def children(self) -> Seq:
        return Seq(self._children)

    def getClass(self) -> Any:  # Java's name
        return type("Class", (), {"getSimpleName": lambda _: self._kind})()

    def name(self) -> str:
        return self._mark


SOURCE = Node("CollectMetrics", Node("LogicalRelation"), mark=read_count.MARK)


@dataclass
class Frame:
    plan: Node = SOURCE
    there: int = 31
    """The count of a separate pass."""

    @property
    def _jdf(self) -> Any:
        execution = type("Execution", (), {"analyzed": lambda _: self.plan})()
        return type("Frame", (), {"queryExecution": lambda _: execution})()

    def count(self) -> int:
        return self.there


@dataclass
class Spark:
    """A session that records the options of a read, and returns a frame."""

    options: dict[str, str] = field(default_factory=dict)
    has_jvm: bool = True
    set: dict[str, str] = field(default_factory=lambda: committer_conf("ours.1"))
    rows: Rows = UNKNOWN

    @property
    def conf(self) -> Spark:
        return self

    def get(self, key: str, default: str | None) -> str | None:
        if not self.has_jvm:
            raise ConnectionRefusedError("the JVM is gone")
        return self.set.get(key, default)

    @property
    def read(self) -> Any:
        outer = self

        class Reader:
            def format(self, name: str) -> Reader:
                assert name == "kafka"
                return self

            def options(self, **options: str) -> Reader:
                outer.options |= options
                return self

            def load(self) -> Frame:
                return Frame()

        return Reader()


@dataclass
class Counted:
    """A substitute for the listener: what the program's actions read."""

    most_read: int

    def __call__(self, spark: Any) -> Counted:
        return self

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def most(self) -> int:
        return self.most_read

    def so_far(self) -> int:
        return self.most_read


@dataclass
class Driver:
    """One driver of the shard, its store and its Spark."""

    url: str
    spark: Spark = field(default_factory=Spark)
    calls: list[tuple[Any, int]] = field(default_factory=list)
    retry_timeout_s: float = 0.0

    def launch(self, tag: str = "tag-1") -> TrackedStream:
        """Record a launch, and return what its driver enters."""
        self.change(LaunchShard(tag, "ranges", "digest", "/logs/1.log"))
        return self.stream(tag)

    def stream(self, tag: str = "tag-1") -> TrackedStream:
        claim = ShardClaim(RUN, SHARD, 1, tag, "backfill/day", "/logs/1.log", "digest")
        secrets = Secrets(self.url, {"kafka.bootstrap.servers": "broker:9092"})
        return TrackedStream(
            self.spark, ReplaySettings("alerts", claim, secrets, store_retry_timeout_s=self.retry_timeout_s)
        )

    def write(self, frame: Any, batch_id: int) -> None:
        self.calls.append((frame, batch_id))

    def change(self, event: ShardEvent) -> None:
        with closing(open_store(self.url)) as store:
            ReplayControl(store, "alerts").change_shard(RUN, SHARD.number, event)

    @property
    def record(self) -> ShardRecord:
        with closing(open_store(self.url)) as store:
            return ReplayControl(store, "alerts").shard(RUN, SHARD.number)

    @property
    def ended(self) -> TryEnded:
        """How the newest try ended."""
        newest = self.record.newest
        assert newest is not None
        assert newest.ended is not None
        return newest.ended


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setattr(shard_replay, "marked", lambda frame: frame)
    monkeypatch.setattr(shard_replay, "ReadCount", Counted(31))
    driver = Driver(f"sqlite:///{tmp_path}/offsets.db")
    with closing(open_store(driver.url)) as store:
        store.create()
    return driver


def test_what_spark_is_asked_to_read_is_the_shard_and_no_more(driver: Driver) -> None:
    with driver.launch() as stream:
        stream.read_kafka(maxOffsetsPerTrigger="10", minPartitions="8")

    asked = driver.spark.options
    assert json.loads(asked["assign"]) == {"flights": [0, 2], "trains": [1]}
    assert json.loads(asked["startingOffsets"]) == {"flights": {"0": 5, "2": 0}, "trains": {"1": 7}}
    assert json.loads(asked["endingOffsets"]) == {"flights": {"0": 25, "2": 10}, "trains": {"1": 8}}
    assert asked["failOnDataLoss"] == "true"
    assert asked["kafka.bootstrap.servers"] == "broker:9092"
    assert asked["minPartitions"] == "8"
    assert "maxOffsetsPerTrigger" not in asked


def test_the_program_sees_a_replay_and_is_called_once(driver: Driver) -> None:
    with driver.launch() as stream:
        assert (stream.is_replay, stream.run_id, stream.epoch, stream.ranges) == (True, RUN, 0, SHARD.ranges)
        frame = stream.read_kafka()
        stream.run(frame, process=driver.write, processingTime="1 second")

    assert driver.calls == [(frame, replay_batch_id(RUN, 3))]
    record = driver.record
    assert record.read is not None
    assert (record.phase, record.started) == (ShardPhase.REPLAYED, 1)
    assert (record.read.records_read, record.read.counted_apart) == (31, False)
    assert driver.ended.how is EndedHow.FINISHED
    with closing(open_store(driver.url)) as store:
        assert Control(store, "alerts").record() is None, "no epoch is claimed"


def test_what_identifies_a_shard_while_its_function_runs(driver: Driver) -> None:
    """Its tries have the same key, so a sink that has the rows of an earlier try can recognise them."""
    found: list[tuple[str, str, str]] = []

    def write(frame: Any, batch_id: int) -> None:
        found.append((stream.query_id, stream.batch_key, stream.write_options("delta")["txnAppId"]))
        if len(found) == 1:
            raise ValueError("the sink is down")

    with pytest.raises(ValueError, match="the sink is down"), driver.launch() as stream:
        stream.run(stream.read_kafka(), process=write)
    with driver.launch("tag-2") as stream:
        stream.run(stream.read_kafka(), process=write)
        with pytest.raises(InputRefused, match="process= or replay_sink="):
            stream.write_options("delta")

    assert found == [(RUN, f"alerts:{RUN}:3:{digest_of_ranges(SHARD.ranges)}", f"{RUN}/3")] * 2


def test_what_the_program_did_not_read_is_counted(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_replay, "ReadCount", Counted(4))
    with driver.launch() as stream:
        stream.run(stream.read_kafka(), process=driver.write)

    read = driver.record.read
    assert read is not None
    assert (read.records_read, read.counted_apart) == (31, True)


@pytest.mark.parametrize(
    ("why", "rows", "found"),
    [
        ("Spark counted them", Rows(20, saw_none=False), (20, False)),
        ("a write without a row", Rows(0, saw_none=True), (0, True)),
        ("no write that Spark saw", Rows(None, saw_none=True), (None, True)),
        ("the count failed", UNKNOWN, (None, False)),
    ],
)
def test_what_spark_says_a_shard_wrote_is_recorded(
    why: str, rows: Rows, found: tuple[int | None, bool], driver: Driver
) -> None:
    driver.spark.rows = rows
    with driver.launch() as stream:
        stream.run(stream.read_kafka(), process=driver.write)

    read = driver.record.read
    assert read is not None
    assert (read.rows_written, read.is_empty) == found


def test_a_shard_whose_jvm_was_killed_under_it_is_not_recorded(driver: Driver) -> None:
    """Spark may have reported the whole action before; the function got only a part of its rows nevertheless."""

    def process(frame: Any, batch_id: int) -> None:
        driver.spark.has_jvm = False

    with pytest.raises(ConnectionRefusedError), driver.launch() as stream:
        stream.run(stream.read_kafka(), process=process)

    assert driver.record.read is None
    assert (driver.ended.how, driver.ended.retriable) == (EndedHow.FAILED, True)


def test_a_sink_of_sparks_own_needs_a_way_to_write_replays(driver: Driver) -> None:
    with pytest.raises(InputRefused, match="no replay_sink="), driver.launch() as stream:
        stream.run(stream.read_kafka(), sink=lambda writer: writer)
    assert (driver.ended.how, driver.ended.retriable) == (EndedHow.FAILED, False)

    with driver.launch("tag-2") as stream:
        stream.run(stream.read_kafka(), sink=lambda writer: writer, replay_sink=driver.write)
    assert len(driver.calls) == 1


def test_a_program_that_fails_records_nothing_and_says_why(driver: Driver) -> None:
    def fails(frame: Any, batch_id: int) -> None:
        raise ValueError("the sink is down")

    with pytest.raises(ValueError, match="the sink is down"), driver.launch() as stream:
        stream.run(stream.read_kafka(), process=fails)

    assert driver.record.read is None
    assert (driver.ended.how, driver.ended.retriable) == (EndedHow.FAILED, True)
    assert "the sink is down" in driver.ended.message


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (SupersedeShard("backfill/day#def#2", 1), "was superseded by 'backfill/day#def#2'"),
        (
            CloseShard("tag-1", TryEnded(EndedHow.DIED, 1, "its process is gone")),
            "try 1 ended, died: its process is gone",
        ),
    ],
    ids=["superseded", "taken for dead"],
)
def test_a_driver_whose_try_is_over_in_its_work_records_nothing(driver: Driver, event: ShardEvent, why: str) -> None:
    with pytest.raises(Fenced, match=why), driver.launch() as stream:
        stream.run(stream.read_kafka(), process=lambda frame, batch_id: driver.change(event))

    assert driver.record.read is None
    assert driver.record.phase is not ShardPhase.REPLAYED


@pytest.mark.parametrize(
    "event",
    [CancelShard("tag-1", TryEnded(EndedHow.CANCELLED, 1)), SupersedeShard("backfill/day#def#2", 1)],
    ids=["cancelled", "superseded"],
)
def test_a_driver_whose_launch_is_void_claims_nothing(driver: Driver, event: ShardEvent) -> None:
    late = driver.launch()
    driver.change(event)

    with pytest.raises(Fenced):
        late.__enter__()


def test_a_driver_that_is_superseded_before_it_begins_calls_nothing(driver: Driver) -> None:
    def program() -> None:
        with driver.launch() as stream:
            driver.change(SupersedeShard("backfill/day#def#2", 1))
            stream.run(stream.read_kafka(), process=driver.write)

    with pytest.raises(Fenced):
        program()
    assert driver.calls == []


def test_a_shard_is_replayed_once(driver: Driver) -> None:
    def program() -> None:
        with driver.launch() as stream:
            stream.run(stream.read_kafka(), process=driver.write)
            stream.run(stream.read_kafka(), process=driver.write)

    with pytest.raises(Fenced, match="the shard is replayed already"):
        program()
    assert len(driver.calls) == 1
    assert driver.record.phase is ShardPhase.REPLAYED


def test_a_program_that_calls_run_again_after_a_failure_is_counted(driver: Driver) -> None:
    def fails(frame: Any, batch_id: int) -> None:
        raise ValueError("the sink is down")

    with driver.launch() as stream:
        with pytest.raises(ValueError, match="the sink is down"):
            stream.run(stream.read_kafka(), process=fails)
        stream.run(stream.read_kafka(), process=driver.write)

    assert (driver.record.phase, driver.record.started) == (ShardPhase.REPLAYED, 2)


def test_a_program_that_chooses_another_committer_is_not_called(driver: Driver) -> None:
    driver.spark.set[COMMITTER_KEYS[0]] = "com.x.Fast"

    def program() -> None:
        with driver.launch() as stream:
            stream.run(stream.read_kafka(), process=driver.write)

    with pytest.raises(InputRefused, match=r"outputCommitterClass=com\.x\.Fast"):
        program()
    assert driver.calls == []
    assert (driver.record.started, driver.ended.retriable) == (0, False)


@pytest.mark.parametrize("call", range(1, 5), ids=["claim", "begin", "record", "end"])
def test_an_answer_that_was_lost_is_no_fence(driver: Driver, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap succeeded, but the store's answer was lost: at the next request, the driver finds its own swap."""
    driver.retry_timeout_s = 30
    stream = driver.launch()
    change, calls = ReplayControl.change_shard, []

    def lose(self: ReplayControl, *args: Any) -> ShardRecord:
        calls.append(args)
        found = change(self, *args)
        if len(calls) == call:
            raise StoreUnreachable(seen="no answer", expected="an answer", do="ask again")
        return found

    monkeypatch.setattr(ReplayControl, "change_shard", lose)
    monkeypatch.setattr("airflow_provider_offsets.runtime.retry.FIRST_WAIT_S", 0.0)
    with stream:
        stream.run(stream.read_kafka(), process=driver.write)

    assert len(calls) == 5
    assert (driver.record.phase, driver.record.started) == (ShardPhase.REPLAYED, 1)
    assert driver.ended.how is EndedHow.FINISHED


def node(kind: str, *children: Node) -> Node:
    return Node(kind, *children)


@pytest.mark.parametrize(
    ("plan", "refused"),
    [
        (node("Project", SOURCE), ""),
        (node("Project", node("Aggregate", SOURCE)), "Aggregate"),
        (node("Deduplicate", node("Filter", SOURCE)), "Deduplicate"),
        (node("Join", SOURCE, node("Aggregate", node("LogicalRelation"))), ""),
        (node("Join", SOURCE, node("Project", SOURCE)), "Join"),
        (node("Union", SOURCE, SOURCE), ""),
        (node("GlobalLimit", SOURCE), "GlobalLimit"),
        (node("Project", node("LogicalRelation")), "does not come from"),
    ],
    ids=[
        "a projection",
        "an aggregate keeps state",
        "so does a deduplication",
        "a join with a table that is aggregated does not",
        "a join of the stream with itself does",
        "a union of it with itself does not",
        "a limit counts",
        "another frame",
    ],
)
def test_transforms_that_keep_state_are_refused(plan: Node, refused: str) -> None:
    if not refused:
        read_count.refuse_stateful(Frame(plan))
        return
    with pytest.raises(InputRefused, match=refused):
        read_count.refuse_stateful(Frame(plan))


def test_the_driver_of_a_replay_reads_what_its_task_wrote(driver: Driver, tmp_path: Path) -> None:
    claim = ShardClaim(RUN, SHARD, 1, "tag-1", "backfill/day", "/logs/1.log", scratch="abc.1")
    settings = ReplaySettings("alerts", claim, Secrets("postgresql://me:hunter2@db/offsets"))
    file = tmp_path / "logs" / "1.settings.json"
    settings.write(file)

    conf = settings.conf(file)
    assert "hunter2" not in json.dumps(conf)
    assert committer_conf("abc.1").items() <= conf.items()
    assert read_settings(ClassicSession(conf)) == settings
    assert not Path(conf[FILE_KEY]).exists()
