"""Concurrent backfill runs, on a topic that grows, ages and gets late records between any two of their steps.

What a user would miss:

- a record that no interval of a gapless series replays;
- a record that two intervals replay while neither audit reports it;
- a run that ends with an error that is not this package's.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_provider_offsets.control.boundaries import FrozenBoundaries
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import TopicPartition
from airflow_provider_offsets.core.replay.audit import ReplayAudit
from airflow_provider_offsets.core.replay.boundary import Boundary, OnOpen, TopicBoundaries
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.core.replay.shard import ClaimShard
from airflow_provider_offsets.errors import ConcurrentAttempt, Fenced, PartitionUnavailable, StoreUnreachable
from airflow_provider_offsets.operations import backfilling
from airflow_provider_offsets.operations.backfilling import Waiting, audit_recorded_replay, make_replay_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.testing.fake_kafka import FakeKafka
from tests.unit.operations.shards import DRIVER, replay_shard
from tests.unit.stepping import Fault, Stepped, Task

TOPIC = "flights"
NOW_MS = 10_000
POLICY = BackfillPolicy(records_per_shard=4)
ALL_LOST = {TOPIC: 10**6}

Record = tuple[int, int]
"""Partition and offset."""


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no copy of the program."""
    monkeypatch.setattr(backfilling, "keep_version", lambda job: SimpleNamespace(digest="version"))


@dataclass
class Backfills:
    """One topic, one store, and runs that stop before each of their effects."""

    store: MemoryStore = field(default_factory=MemoryStore)
    kafka: FakeKafka = field(default_factory=FakeKafka)

    def __post_init__(self) -> None:
        self.kafka.create_topic(TOPIC, partitions=1)

    @property
    def control(self) -> ReplayControl:
        return ReplayControl(self.store, "p")

    def session(self, operation: str, *, stepped: bool = False) -> Session:
        store: Any = Stepped(self.store) if stepped else self.store
        kafka: Any = Stepped(self.kafka) if stepped else self.kafka
        return Session(StreamingPipeline("p", (TOPIC,), SparkJob("/job.py", "/checkpoint")), operation, store, kafka)

    def run(
        self, start_ms: int, end_ms: int, operation: str, *, key: str = "1", policy: BackfillPolicy = POLICY
    ) -> Task:
        """Return a run that is about to have its first effect."""
        session = self.session(operation, stepped=True)
        return Task(
            operation,
            lambda: make_replay_plan(
                session, Interval(start_ms, end_ms), policy, attempt_key=key, accept_lost=ALL_LOST, now_ms=NOW_MS
            ),
        )

    def replay(self, plan: ReplayPlan) -> None:
        """Make a driver replay each shard of a plan."""
        for shard in plan.shards:
            replay_shard(self.control, plan.run_id, shard)

    def audit(self, plan: ReplayPlan) -> ReplayAudit:
        return audit_recorded_replay(self.control, plan)

    def boundaries(self) -> list[Boundary]:
        """Return every frozen boundary, by time."""
        [topic] = self.kafka.live_topics([TOPIC]).topics
        text = self.store.get("p", f"boundaries/{TOPIC}/{topic.topic_id}")
        instants = [] if text is None else sorted(map(int, codec.loads(TopicBoundaries, text).digests))
        found = [FrozenBoundaries(self.store, "p", topic).at(each) for each in instants]
        return [each for each in found if each is not None]


def read(plan: ReplayPlan) -> set[Record]:
    return {
        (each.partition, at) for shard in plan.shards for each in shard.ranges for at in range(each.start, each.end)
    }


@pytest.fixture
def backfills() -> Backfills:
    """Return a topic with ten records in each of four intervals of 100 ms."""
    made = Backfills()
    for at_ms in (150, 250, 350, 450):
        made.kafka.append(TOPIC, 0, 10, timestamp_ms=at_ms)
    return made


def grow(backfills: Backfills, at_ms: int = 150) -> None:
    """Add a partition with ten records of this time."""
    partitions = len(backfills.kafka.live_topics([TOPIC]).partitions)
    backfills.kafka.add_partitions(TOPIC, partitions + 1)
    backfills.kafka.append(TOPIC, partitions, 10, timestamp_ms=at_ms)


EFFECTS = 12
"""More effects than a run has before its plan is recorded."""


class TestATopicThatGrows:
    """Case A7: a new partition between two concurrent runs."""

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_no_two_intervals_replay_its_records_and_none_leaves_them_out(
        self, backfills: Backfills, steps: int
    ) -> None:
        slow = backfills.run(300, 400, "b/slow")
        for _ in range(steps):
            slow.step()
        grow(backfills)
        before = backfills.run(100, 200, "b/before").finish()
        after = slow.finish()
        between = backfills.run(200, 300, "b/between").finish()
        last = backfills.run(400, 500, "b/last").finish()

        plans = [before, between, after, last]
        assert Counter(each for plan in plans for each in read(plan)) == Counter(
            (partition, at) for partition, end in ((0, 40), (1, 10)) for at in range(end)
        )
        for plan in plans:
            backfills.replay(plan)
            audit = backfills.audit(plan)
            assert (audit.findings, audit.also_replayed) == ((), ())

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_the_interval_between_is_a_plan_and_no_bare_error(self, backfills: Backfills, steps: int) -> None:
        """The two neighbours run first, concurrently; then the interval whose two boundaries they have frozen."""
        slow = backfills.run(300, 400, "b/slow")
        for _ in range(steps):
            slow.step()
        grow(backfills)
        backfills.run(100, 200, "b/fast").finish()
        slow.finish()

        between = backfills.run(200, 300, "b/between").finish()

        assert read(between) == {(0, at) for at in range(10, 20)}

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_a_partition_that_a_boundary_of_somebody_else_names_is_planned(
        self, backfills: Backfills, steps: int
    ) -> None:
        """Others froze both boundaries, and they know the new partition: a run that did not know it reads it too."""
        slow = backfills.run(100, 200, "b/slow")
        for _ in range(steps):
            slow.step()
        grow(backfills)
        backfills.run(50, 100, "b/before").finish()
        backfills.run(200, 300, "b/after").finish()

        assert read(slow.finish()) >= {(1, at) for at in range(10)}

    def test_a_broker_that_does_not_know_it_yet_is_asked_again_and_then_refused_as_retriable(
        self, backfills: Backfills, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = backfills.kafka.live_topics([TOPIC])
        grow(backfills)
        backfills.run(100, 200, "b/one").finish()
        monkeypatch.setattr(backfills.kafka, "live_topics", lambda *_, **__: old)

        with pytest.raises(PartitionUnavailable, match=r"1 partitions of 'flights'.*all brokers know") as refused:
            backfills.run(200, 300, "b/two").finish()
        assert refused.value.retriable

    def test_a_topic_that_is_recreated_while_it_is_looked_at_is_looked_at_again(self, backfills: Backfills) -> None:
        grow(backfills)
        run = backfills.run(100, 200, "b/one")
        run.until("offsets_at")
        backfills.kafka.recreate_topic(TOPIC, partitions=2)
        backfills.kafka.append(TOPIC, 0, 5, timestamp_ms=150)

        assert read(run.finish()) == {(0, at) for at in range(5)}


class TestRetentionBetweenTheSteps:
    """Records that are deleted while a run observes the log are named as deleted, or as perhaps deleted."""

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_every_skipped_record_is_reported(self, backfills: Backfills, steps: int) -> None:
        run = backfills.run(100, 200, "b/one")
        for _ in range(steps):
            if not run.is_over:
                run.step()
        backfills.kafka.delete_records_before(TOPIC, 0, 5)
        plan = run.finish()

        named = {
            (each.partition, at) for each in (*plan.deleted, *plan.deleted_before) for at in range(each.start, each.end)
        }
        assert read(plan) | named >= {(0, at) for at in range(10)}

    def test_records_that_were_deleted_between_answer_and_observation_are_not_counted_as_older(
        self, backfills: Backfills
    ) -> None:
        """Kafka answers 20 for the instant 300. By then retention has deleted more: nobody knows the times below."""
        backfills.kafka.delete_records_before(TOPIC, 0, 20)
        run = backfills.run(300, 400, "b/one")
        run.until("live_topics")
        run.step()
        backfills.kafka.delete_records_before(TOPIC, 0, 22)

        [deleted] = run.finish().deleted_before
        assert (deleted.start, deleted.end) == (0, 22)

    def test_a_boundary_that_was_sure_bounds_what_is_unknown_after_it(self, backfills: Backfills) -> None:
        backfills.run(100, 200, "b/one").finish()
        backfills.kafka.delete_records_before(TOPIC, 0, 20)

        [deleted] = backfills.run(300, 400, "b/two").finish().deleted_before
        assert (deleted.start, deleted.end) == (10, 20)

    def test_and_one_that_was_not_does_not(self, backfills: Backfills) -> None:
        backfills.kafka.delete_records_before(TOPIC, 0, 5)
        backfills.run(50, 100, "b/one").finish()
        backfills.kafka.delete_records_before(TOPIC, 0, 20)

        [deleted] = backfills.run(300, 400, "b/two").finish().deleted_before
        assert (deleted.start, deleted.end) == (0, 20)


class TestIntervalsThatOverlap:
    """The audit of one of two runs names the records that both replay, with their number."""

    @pytest.mark.parametrize(
        ("interval", "count"),
        [
            pytest.param((100, 200), 10, id="repeated"),
            pytest.param((150, 350), 20, id="overlapping"),
            pytest.param((0, 1_000), 20, id="around it"),
            pytest.param((200, 300), 10, id="inside it"),
            pytest.param((300, 400), 0, id="next to it"),
            pytest.param((50, 100), 0, id="before it"),
        ],
    )
    def test_the_later_audit_names_the_earlier_run(
        self, backfills: Backfills, interval: tuple[int, int], count: int
    ) -> None:
        first, second = backfills.run(100, 300, "b/one").finish(), backfills.run(*interval, "other/two").finish()
        backfills.replay(first)
        assert backfills.audit(first).also_replayed == (), "nothing was given to the other program yet"
        backfills.replay(second)

        also = backfills.audit(second).also_replayed

        assert [(each.run_id, each.records) for each in also] == ([(first.run_id, count)] if count else [])
        assert len(read(first) & read(second)) == count
        assert backfills.audit(second).is_clean, "it was asked for"

    def test_an_earlier_attempt_is_named_as_far_as_it_ran(self, backfills: Backfills) -> None:
        first = backfills.run(100, 200, "b/one").finish()
        backfills.replay(first)
        second = backfills.run(100, 200, "b/one", key="2").finish()
        backfills.replay(second)

        [also] = backfills.audit(second).also_replayed
        assert (also.run_id, also.records) == (first.run_id, 10)
        assert str(also).startswith("10 records also by 'b/one#version#1'")

    def test_the_records_of_a_recreated_topic_are_others(self, backfills: Backfills) -> None:
        backfills.replay(backfills.run(100, 200, "b/one").finish())
        backfills.kafka.recreate_topic(TOPIC, partitions=1)
        backfills.kafka.append(TOPIC, 0, 10, timestamp_ms=150)
        second = backfills.run(100, 200, "b/two").finish()
        backfills.replay(second)

        assert backfills.audit(second).also_replayed == ()


class TestOneAttempt:
    """Whatever tasks plan concurrently: one attempt has one plan, and of two attempts one is the newest."""

    @pytest.mark.parametrize("steps", range(20))
    def test_two_tasks_of_one_attempt_are_given_one_plan(self, backfills: Backfills, steps: int) -> None:
        """The policy was changed in between: the second task alone would plan other shards."""
        slow = backfills.run(100, 200, "b/one", policy=BackfillPolicy(records_per_shard=3))
        for _ in range(steps):
            if not slow.is_over:
                slow.step()
        fast = backfills.run(100, 200, "b/one").finish()

        assert slow.finish() == fast == backfills.control.newest_plan("b/one")

    @pytest.mark.parametrize("steps", range(20))
    def test_a_task_of_an_attempt_before_never_becomes_the_newest(self, backfills: Backfills, steps: int) -> None:
        backfills.run(100, 200, "b/one", key="1").finish()
        slow = backfills.run(100, 200, "b/one", key="1")
        for _ in range(steps):
            if not slow.is_over:
                slow.step()
        newest = backfills.run(100, 200, "b/one", key="2").finish()
        with suppress(Fenced):
            slow.finish()

        with pytest.raises(Fenced, match="a later attempt superseded it"):
            backfills.run(100, 200, "b/one", key="1").finish()
        assert backfills.control.newest_plan("b/one") == newest

    def test_of_two_attempts_that_are_planned_at_once_one_is_refused_and_may_try_again(
        self, backfills: Backfills
    ) -> None:
        one = backfills.run(100, 200, "b/one", key="1")
        one.until("check_and_put replay/")
        other = backfills.run(100, 200, "b/one", key="2").finish()

        with pytest.raises(ConcurrentAttempt) as refused:
            one.finish()
        assert refused.value.retriable
        assert backfills.control.newest_plan("b/one") == other

    @pytest.mark.parametrize("steps", range(40))
    def test_a_planning_task_that_dies_anywhere_has_fenced_the_attempt_before_once_it_is_run_again(
        self, backfills: Backfills, steps: int
    ) -> None:
        first = backfills.run(100, 200, "b/one").finish()
        dies = backfills.run(100, 200, "b/one", key="2")
        for _ in range(steps):
            if not dies.is_over:
                dies.step()
        dies.kill()

        newest = backfills.run(100, 200, "b/one", key="2").finish()

        assert newest.attempt == 2
        assert {each.superseded_by for each in backfills.control.shards(first.run_id).values()} == {newest.run_id}
        assert len(backfills.control.shards(first.run_id)) == len(first.shards), "those without a launch too"
        with pytest.raises(Fenced, match="superseded"):
            backfills.control.change_shard(first.run_id, 0, ClaimShard("late", DRIVER))

    @pytest.mark.parametrize("fault", Fault)
    @pytest.mark.parametrize("steps", range(20))
    def test_an_answer_that_is_lost_anywhere_changes_nothing(
        self, backfills: Backfills, steps: int, fault: Fault
    ) -> None:
        run = backfills.run(100, 200, "b/one")
        for _ in range(steps):
            if not run.is_over:
                run.step()
        if not run.is_over:
            run.step(fault)
            assert isinstance(run.error, StoreUnreachable)

        again = backfills.run(100, 200, "b/one").finish()

        assert (again.attempt, read(again)) == (1, {(0, at) for at in range(10)})


def test_a_run_that_waits_freezes_nothing(backfills: Backfills) -> None:
    policy = BackfillPolicy(on_open=OnOpen.WAIT)

    assert isinstance(backfills.run(400, 500, "b/one", policy=policy).finish(), Waiting)
    assert backfills.boundaries() == []


@dataclass
class Run:
    """One run of the state machine below: its interval, and its newest task."""

    operation: str
    interval: Interval
    task: Task
    plan: ReplayPlan | None = None
    audits: list[ReplayAudit] = field(default_factory=list)


@dataclass
class Written:
    """One record in the model."""

    time_ms: int
    runs_before: int
    """How many runs had started when the record was written."""


class ConcurrentRuns(RuleBasedStateMachine):
    """Any interleaving of runs with growth, retention, late records, dead tasks and lost answers.

    The model is what was written, by partition. It shares no code with the product.
    """

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(backfilling, "keep_version", lambda job: SimpleNamespace(digest="version"))
        self.backfills = Backfills()
        self.runs: list[Run] = []
        self.written: list[list[Written]] = [[]]
        self.late: set[int] = set()
        """The partitions whose records are not in the order of their times."""
        self.frozen: dict[int, Boundary] = {}

    def teardown(self) -> None:
        try:
            self._finish()
            self._check()
        finally:
            for each in self.runs:
                each.task.kill()
            self._patch.undo()

    @rule(which=st.integers(0, 3), count=st.integers(1, 3), after_ms=st.integers(0, 20))
    def write(self, which: int, count: int, after_ms: int) -> None:
        """Write records in the order of their times."""
        log = self.written[which % len(self.written)]
        self._write(which, count, min(99, max((each.time_ms for each in log), default=0) + after_ms))

    @rule(which=st.integers(0, 3), count=st.integers(1, 2), time_ms=st.integers(0, 99))
    def write_late(self, which: int, count: int, time_ms: int) -> None:
        """Write records of any time."""
        self.late.add(which % len(self.written))
        self._write(which, count, time_ms)

    @precondition(lambda self: len(self.written) < 4)
    @rule(count=st.integers(0, 3), time_ms=st.integers(0, 60))
    def grow(self, count: int, time_ms: int) -> None:
        """Add a partition, which somebody writes to immediately."""
        self.written.append([])
        self.backfills.kafka.add_partitions(TOPIC, len(self.written))
        self._write(len(self.written) - 1, count, time_ms)

    @rule(which=st.integers(0, 3), count=st.integers(1, 5))
    def retain(self, which: int, count: int) -> None:
        """Delete records, as retention does."""
        number = which % len(self.written)
        there = self.backfills.kafka.live_topics([TOPIC]).partitions[TopicPartition(TOPIC, number)]
        self.backfills.kafka.delete_records_before(TOPIC, number, min(there.end, there.begin + count))

    @precondition(lambda self: len(self.runs) < 7)
    @rule(start=st.integers(0, 5), length=st.integers(1, 3), count=st.integers(0, 9))
    def begin(self, start: int, length: int, count: int) -> None:
        """Begin a run with any interval: new, adjacent, overlapping, or the same again. It may stop at any effect."""
        interval = Interval(start * 10, (start + length) * 10)
        operation = f"b/{len(self.runs)}"
        self.runs.append(Run(operation, interval, self._task(operation, interval)))
        for _ in range(count):
            if not self.runs[-1].task.is_over:
                self.runs[-1].task.step()
        self._settle(self.runs[-1])

    @precondition(lambda self: any(not each.task.is_over for each in self.runs))
    @rule(data=st.data(), count=st.integers(1, 4), fault=st.sampled_from([None, None, None, *Fault]))
    def step(self, data: st.DataObject, count: int, fault: Fault | None) -> None:
        """Execute the next effects of a run; the last one may fail, and then its task is run again."""
        run = data.draw(st.sampled_from([each for each in self.runs if not each.task.is_over]))
        for number in range(count):
            if not run.task.is_over:
                run.task.step(fault if number == count - 1 else None)
        self._settle(run)

    @precondition(lambda self: any(not each.task.is_over for each in self.runs))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Finish a run while the others are suspended."""
        self._finish_one(data.draw(st.sampled_from([each for each in self.runs if not each.task.is_over])))

    @precondition(lambda self: any(not each.task.is_over for each in self.runs))
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """Kill a task; Airflow runs it again."""
        run = data.draw(st.sampled_from([each for each in self.runs if not each.task.is_over]))
        run.task.kill()
        run.task = self._task(run.operation, run.interval)

    @precondition(lambda self: any(each.plan and not each.audits for each in self.runs))
    @rule(data=st.data())
    def replay_and_audit(self, data: st.DataObject) -> None:
        """Replay what a run has planned, and audit it."""
        run = data.draw(st.sampled_from([each for each in self.runs if each.plan and not each.audits]))
        self._replay(run)

    @invariant()
    def no_boundary_ever_changes(self) -> None:
        found = {each.instant_ms: each for each in self.backfills.boundaries()}
        assert self.frozen.items() <= found.items()
        self.frozen = found

    @invariant()
    def boundaries_grow_with_time(self) -> None:
        for earlier, later in pairwise(self.frozen[at] for at in sorted(self.frozen)):
            for number in range(len(self.written)):
                assert earlier.offset(number) <= later.offset(number)

    def _write(self, which: int, count: int, time_ms: int) -> None:
        number = which % len(self.written)
        self.backfills.kafka.append(TOPIC, number, count, timestamp_ms=time_ms)
        self.written[number] += [Written(time_ms, len(self.runs))] * count

    def _task(self, operation: str, interval: Interval) -> Task:
        return self.backfills.run(interval.start_ms, interval.end_ms, operation)

    def _settle(self, run: Run) -> None:
        if run.task.error is not None:
            assert run.task.error.retriable, run.task.error
            run.task = self._task(run.operation, run.interval)
        elif run.task.is_over:
            assert isinstance(run.task.result, ReplayPlan)
            assert run.task.result.problems == ()
            run.plan = run.task.result

    def _replay(self, run: Run) -> None:
        assert run.plan is not None
        self.backfills.replay(run.plan)
        run.audits.append(self.backfills.audit(run.plan))

    def _finish_one(self, run: Run) -> None:
        while run.plan is None:
            run.task.step()
            if run.task.is_over:
                self._settle(run)

    def _finish(self) -> None:
        for run in self.runs:
            self._finish_one(run)
        for run in self.runs:
            if not run.audits:
                self._replay(run)
        self.no_boundary_ever_changes()
        self.boundaries_grow_with_time()

    def _check(self) -> None:
        for run in self.runs:
            self._check_one(run)
        for one, other in combinations(self.runs, 2):
            self._check_two(one, other)
        for at_ms, boundary in self.frozen.items():
            self._check_times(at_ms, boundary)

    def _check_one(self, run: Run) -> None:
        """Check that a run reads what lies between its boundaries, except for what it names as deleted."""
        assert run.plan is not None
        [audit] = run.audits
        assert audit.findings == ()
        gone = {(each.partition, at) for each in run.plan.deleted for at in range(each.start, each.end)}
        begin, end = self.frozen[run.interval.start_ms], self.frozen[run.interval.end_ms]
        between = {
            (number, at)
            for number in range(len(self.written))
            for at in range(begin.offset(number), end.offset(number))
        }
        assert read(run.plan) | gone == between
        assert not read(run.plan) & gone

    def _check_two(self, one: Run, other: Run) -> None:
        """Check that two runs read one record only if their intervals overlap, and that one audit then counts it."""
        assert one.plan is not None
        assert other.plan is not None
        twice = len(read(one.plan) & read(other.plan))
        overlap = one.interval.start_ms < other.interval.end_ms and other.interval.start_ms < one.interval.end_ms
        assert overlap or not twice
        shown = {
            each.records
            for mine, its in ((one, other), (other, one))
            for each in mine.audits[0].also_replayed
            if its.plan is not None and each.run_id == its.plan.run_id
        }
        assert shown == ({twice} if twice else set())

    def _check_times(self, at_ms: int, boundary: Boundary) -> None:
        """Check boundaries by record times in a log that is in order.

        A record below a boundary is older than its instant. A record above it is not older, or was written after the
        begin of a run that froze a later instant.
        """
        first_later = min(
            (number for number, run in enumerate(self.runs) if run.interval.end_ms >= at_ms), default=len(self.runs)
        )
        live = self.backfills.kafka.live_topics([TOPIC]).partitions
        for number, log in enumerate(self.written):
            for at in range(live[TopicPartition(TOPIC, number)].begin, len(log)):
                if number in self.late:
                    continue
                if log[at].time_ms >= at_ms:
                    assert boundary.offset(number) <= at
                elif log[at].runs_before <= first_later:
                    assert boundary.offset(number) > at


TestConcurrentRuns = ConcurrentRuns.TestCase
TestConcurrentRuns.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
