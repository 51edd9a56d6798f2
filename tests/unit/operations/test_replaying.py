"""A shard is replayed once, whether its task, its driver, or both of them die or run twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends import machine
from airflow_provider_offsets.backends.machine import LocalMachine
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.record.events import Rename, TakeLease
from airflow_provider_offsets.core.replay.claim import ShardProgress, progress_text, replay_batch_id
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, Replayed, ReplayPlan, Shard
from airflow_provider_offsets.core.replay.shard import (
    ClaimShard,
    EndShard,
    RecordShard,
    ShardEvent,
    ShardPhase,
    ShardRead,
    StartShard,
    TryEnded,
)
from airflow_provider_offsets.errors import (
    Fenced,
    InputRefused,
    OffsetsError,
    PipelineRenamed,
    ShardFailed,
    StateChanged,
)
from airflow_provider_offsets.operations.backfilling import audit_recorded_replay, make_replay_plan
from airflow_provider_offsets.operations.replaying import ShardReplaying
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher
from airflow_provider_offsets.runtime.settings import FILE_KEY, RUN_ID_KEY, ReplaySettings, Secrets
from airflow_provider_offsets.testing import FakeKafka, MemoryStore
from tests.unit.stepping import Fault, Stepped, Task

HERE, ELSEWHERE = "worker-1", "worker-2"
OPERATION = "backfill__alerts/day-3"
RUN_1, RUN_2 = f"{OPERATION}#abc#1", f"{OPERATION}#abc#2"
SHARD = Shard(0, (OffsetRange("flights", 0, 5, 25), OffsetRange("flights", 1, 0, 10)))
SECRETS = Secrets("postgresql://me:hunter2@db/offsets", {"kafka.bootstrap.servers": "broker:9092"})
SILENT = FakeKafka()

Step = Callable[["Driver"], None]


@dataclass
class Driver:
    """A launched driver: at each tick it does the next of its steps, and then exits."""

    lab: Lab
    process: ProcessIdentity
    settings: ReplaySettings
    steps: list[Step]

    def tick(self) -> None:
        if self.process in self.lab.alive and self.steps:
            try:
                self.steps.pop(0)(self)
            except Fenced:
                self.die()

    def claim(self) -> None:
        self._change(ClaimShard(self.tag, self.process))

    def begin(self) -> None:
        """Begin the shard, and write immediately."""
        self._change(StartShard(self.tag, self.process, f"run of {self.process.pid}"))
        self.lab.written.append(self.settings.claim.run_id)

    def record(self) -> None:
        self._change(RecordShard(self.tag, self.process, f"run of {self.process.pid}", ShardRead(30)))

    def end(self, how: EndedHow = EndedHow.FINISHED, message: str = "", *, retriable: bool = True) -> None:
        self._change(EndShard(self.tag, self.process, TryEnded(how, 1, message, retriable)))
        self.die()

    def rest(self) -> None:
        """Do nothing."""

    def die(self) -> None:
        self.lab.alive.discard(self.process)

    @property
    def tag(self) -> str:
        return self.settings.claim.tag

    def _change(self, event: ShardEvent) -> None:
        self.lab.control.change_shard(self.settings.claim.run_id, self.settings.claim.shard.number, event)


def whole() -> list[Step]:
    return [Driver.claim, Driver.begin, Driver.record, Driver.end]


@dataclass
class Lab:
    """One machine with a store, and the drivers that were launched on it."""

    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    kafka: FakeKafka = field(default_factory=FakeKafka)
    now_s: float = 1000.0
    alive: set[ProcessIdentity] = field(default_factory=set)
    drivers: list[Driver] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    """The run id of each call of the program's function, in order."""
    said: list[str] = field(default_factory=list)
    next_steps: Callable[[], list[Step]] = whole
    is_slow: bool = False
    """Whether drivers continue only when a test says so."""

    def __post_init__(self) -> None:
        (self.folder / "job.py").write_text("the program")
        self.kafka.create_topic("flights", partitions=2)
        for partition in (0, 1):
            self.kafka.append("flights", partition, 30, timestamp_ms=150)

    @property
    def control(self) -> ReplayControl:
        return ReplayControl(self.store, "alerts")

    def session(self, *, stepped: bool = False) -> Session:
        job = SparkJob(str(self.folder / "job.py"), str(self.folder / "checkpoint"), log_dir=str(self.folder / "logs"))
        store: Any = Stepped(self.store) if stepped else self.store
        return Session(StreamingPipeline("alerts", ("flights",), job), OPERATION, store, self.kafka)

    def replaying(self, run_id: str = RUN_1, shard: Shard = SHARD, *, stepped: bool = False) -> ShardReplaying:
        launcher = Launcher(self.command, SECRETS)
        return ShardReplaying(self.session(stepped=stepped), shard, run_id, launcher, self.said.append)

    def task(self, run_id: str = RUN_1, shard: Shard = SHARD, name: str = "task") -> Task:
        """Return a task that is about to have its first effect."""
        return Task(name, self.replaying(run_id, shard, stepped=True).run)

    def plan(self, key: str) -> ReplayPlan:
        """Plan an attempt at the interval that holds all records."""
        made = make_replay_plan(
            self.session(), Interval(100, 200), BackfillPolicy(records_per_shard=30), attempt_key=key, now_ms=1_000
        )
        assert isinstance(made, ReplayPlan)
        return made

    def command(self, conf: Mapping[str, str]) -> list[str]:
        assert conf[RUN_ID_KEY].startswith(OPERATION)
        return ["spark-submit", conf[FILE_KEY]]

    def tick(self) -> None:
        for driver in list(self.drivers):
            driver.tick()

    # The clock

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if not self.is_slow:
            self.tick()

    # The machine

    def spawn(self, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
        file = Path(command[-1])
        process = ProcessIdentity(HERE, "boot-1", 100 + len(self.drivers), 7)
        if not file.exists():
            return process  # and dead: a later launch has removed its settings
        settings = codec.loads(ReplaySettings, file.read_text())
        file.unlink()
        self.alive.add(process)
        self.drivers.append(Driver(self, process, settings, self.next_steps()))
        return process

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        return process in self.alive if process.host == HERE else None

    def signal_session(self, process: ProcessIdentity, number: int) -> bool:
        there = process in self.alive and process.host == HERE
        self.alive -= {process} if there else set()
        return there


class SteppedMachine(LocalMachine):
    """The lab as the machine that operations run on, whose calls are effects."""

    def __init__(self, lab: Lab) -> None:
        stepped = Stepped(lab)
        self.spawn, self.signal_session = stepped.spawn, stepped.signal_session
        self.is_alive = self.is_session_alive = lab.is_alive


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(clock.installed(SteppedClock(lab)))
        stack.enter_context(machine.installed(SteppedMachine(lab)))
        yield lab


class SteppedClock:
    """The lab's clock, on which a sleep is an effect."""

    def __init__(self, lab: Lab) -> None:
        self.now_ms, self.monotonic_s, self.sleep = lab.now_ms, lab.monotonic_s, Stepped(lab).sleep


def test_a_shard_is_launched_watched_and_recorded_once(lab: Lab) -> None:
    replayed = lab.replaying().run()

    assert (replayed.run_id, replayed.ranges, replayed.records_read) == (RUN_1, SHARD.ranges, 30)
    assert lab.replaying().run() == replayed
    assert lab.written == [RUN_1]
    assert len(lab.drivers) == 1, "a shard that is finished is not run again"


@pytest.mark.parametrize(
    ("dies_after", "wrote"),
    [(0, 1), (1, 1), (2, 2)],
    ids=["before its claim", "before it wrote", "before its record"],
)
def test_a_driver_that_dies_is_followed_by_another_under_the_same_run_id(dies_after: int, wrote: int, lab: Lab) -> None:
    lab.next_steps = lambda: [*whole()[:dies_after], Driver.die]
    with pytest.raises(ShardFailed, match="try 1 died") as failed:
        lab.replaying().run()
    assert failed.value.retriable

    lab.next_steps = whole
    assert lab.replaying().run().records_read == 30
    assert lab.written == [RUN_1] * wrote
    assert lab.control.shard(RUN_1, 0).started == wrote, "and each that may have written is counted"


def test_a_driver_that_dies_right_after_its_record_has_finished(lab: Lab) -> None:
    lab.next_steps = lambda: [*whole()[:3], Driver.die]

    assert lab.replaying().run().records_read == 30


def test_what_the_runtime_refused_is_not_tried_again(lab: Lab) -> None:
    def refuse(driver: Driver) -> None:
        driver.end(EndedHow.FAILED, "InputRefused: stateful", retriable=False)

    lab.next_steps = lambda: [Driver.claim, refuse]
    with pytest.raises(InputRefused, match="InputRefused: stateful"):
        lab.replaying().run()


EFFECTS = 16
"""More effects than a task has until its driver works."""


class TestATaskThatDies:
    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_anywhere_leaves_no_twin(self, lab: Lab, steps: int) -> None:
        dies = lab.task()
        for _ in range(steps):
            if not dies.is_over:
                dies.step()
        dies.kill()

        assert lab.replaying().run().records_read == 30
        for _ in range(5):
            lab.tick()
        assert lab.written == [RUN_1], "a driver that it left has written, or the next one; never both"
        assert list(lab.folder.rglob("*.settings.json")) == [], "which hold secrets"

    @pytest.mark.parametrize("fault", Fault)
    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_of_a_lost_answer_is_run_again(self, lab: Lab, steps: int, fault: Fault) -> None:
        task = lab.task()
        for _ in range(steps):
            if not task.is_over:
                task.step()
        if not task.is_over and task.next_effect.startswith(("get", "check_and_put", "scan")):
            task.step(fault)
            assert task.error is not None
            assert task.error.retriable
        task.kill()

        assert lab.replaying().run().records_read == 30
        assert lab.written == [RUN_1]

    def test_leaves_a_driver_that_is_adopted(self, lab: Lab) -> None:
        lab.next_steps = lambda: [Driver.claim, *[Driver.rest] * 30, Driver.begin, Driver.record, Driver.end]
        dies = lab.task()
        dies.until("sleep")
        dies.step()
        dies.kill()

        assert lab.replaying().run().records_read == 30
        assert len(lab.drivers) == 1
        assert any("is being replayed already" in line for line in lab.said)
        assert any("nothing read yet" in line for line in lab.said)

    def test_leaves_a_launch_that_is_cancelled_and_can_never_be_claimed(self, lab: Lab) -> None:
        """A17: the driver of the previous launch comes late, after the shard's next driver."""
        lab.is_slow = True
        dies = lab.task()
        dies.until("sleep")
        dies.kill()
        [late] = lab.drivers
        task = lab.task()
        task.until("sleep")
        [_, driver] = lab.drivers

        with pytest.raises(Fenced):
            late.claim()
        for step in whole():
            step(driver)
        with pytest.raises(Fenced):
            late.claim()
        assert task.finish().records_read == 30


class TestTwoTasksAtOnce:
    """A second task of the same shard comes between any two effects of the first one."""

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_one_driver_writes_and_both_end_well(self, lab: Lab, steps: int) -> None:
        one = lab.task(name="one")
        for _ in range(steps):
            if not one.is_over:
                one.step()

        other = lab.task(name="other").finish()

        assert one.finish() == other
        for _ in range(5):
            lab.tick()
        assert lab.written == [RUN_1]
        assert lab.control.shard(RUN_1, 0).started == 1

    @pytest.mark.parametrize("ahead", range(EFFECTS))
    def test_step_by_step(self, lab: Lab, ahead: int) -> None:
        one, other = lab.task(name="one"), lab.task(name="other")
        for _ in range(ahead):
            if not one.is_over:
                one.step()
        while not (one.is_over and other.is_over):
            for each in (one, other):
                if not each.is_over:
                    each.step()

        assert one.finish() == other.finish()
        assert lab.written == [RUN_1]

    def test_a_task_that_follows_another_one_does_not_wait_for_ever(self, lab: Lab) -> None:
        """The other task died between its launch and its process."""
        follows, dies = lab.task(name="follows"), lab.task(name="dies")
        follows.until("check_and_put replay-shard")
        dies.until("spawn")
        dies.kill()

        with pytest.raises(ShardFailed, match="no driver has claimed it for 180 s") as failed:
            follows.finish()
        assert failed.value.retriable
        assert lab.replaying().run().records_read == 30

    def test_a_task_whose_launch_another_one_cancelled_goes_on_with_the_launch_of_that_one(self, lab: Lab) -> None:
        lab.is_slow = True
        one = lab.task(name="one")
        one.until("sleep")
        other = lab.task(name="other")
        other.until("check_and_put replay-shard")
        other.step()
        assert lab.control.shard(RUN_1, 0).phase is ShardPhase.WAITING
        for _ in range(20):
            one.step()
        lab.is_slow = False

        assert other.finish() == one.finish()

    def test_the_process_of_a_cancelled_launch_is_ended(self, lab: Lab) -> None:
        lab.is_slow = True
        one = lab.task(name="one")
        one.until("sleep")
        other = lab.task(name="other")
        other.until("sleep")
        [cancelled, driver] = lab.drivers

        one.step()
        one.until("sleep")

        assert lab.alive == {driver.process}
        assert cancelled.settings.claim.number == 1


class TestADriverTakenForDead:
    """The driver was reported dead but lives: the close has fenced its record."""

    def test_can_neither_begin_nor_record(self, lab: Lab) -> None:
        lab.is_slow = True
        task = lab.task()
        task.until("sleep")
        [old] = lab.drivers
        old.claim()
        old.begin()
        old.die()
        with pytest.raises(ShardFailed):
            task.finish()

        with pytest.raises(Fenced):
            old.record()
        lab.is_slow = False
        assert lab.replaying().run().records_read == 30
        with pytest.raises(Fenced):
            old.begin()
        assert lab.control.shard(RUN_1, 0).started == 2

    def test_is_named_by_the_audit(self, lab: Lab) -> None:
        plan = lab.plan("1")
        lab.next_steps = lambda: [Driver.claim, Driver.begin, Driver.die]
        with pytest.raises(ShardFailed):
            lab.replaying(plan.run_id, plan.shards[1]).run()
        lab.next_steps = whole
        for shard in plan.shards:
            lab.replaying(plan.run_id, shard).run()

        audit = audit_recorded_replay(lab.control, plan)
        assert (audit.findings, audit.cut_off) == ((), (1,))

    def test_on_another_host_is_not_taken_for_dead(self, lab: Lab) -> None:
        lab.next_steps = lambda: [Driver.claim, *[Driver.rest] * 10, Driver.begin, Driver.record, Driver.end]
        dies = lab.task()
        dies.until("spawn")
        dies.step()
        dies.kill()
        [driver] = lab.drivers
        lab.alive.discard(driver.process)
        driver.process = replace(driver.process, host=ELSEWHERE)
        lab.alive.add(driver.process)
        lab.tick()

        assert lab.replaying().run().records_read == 30
        assert len(lab.drivers) == 1


class TestANewAttempt:
    """The run was cleared and planned again while tasks and drivers of the previous attempt are at any step."""

    @pytest.mark.parametrize("ticks", range(3))
    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_nothing_of_the_attempt_before_is_written_after_it(self, lab: Lab, steps: int, ticks: int) -> None:
        first = lab.plan("1")
        lab.is_slow = True
        old = lab.task(first.run_id, first.shards[0], "old")
        for _ in range(steps):
            old.step()
        for _ in range(ticks):
            lab.tick()
        second = lab.plan("2")
        lab.is_slow = False

        replayed = lab.replaying(second.run_id, second.shards[0]).run()

        with pytest.raises(OffsetsError) as ended:
            old.finish()
        assert isinstance(ended.value, Fenced | ShardFailed)
        for _ in range(5):
            lab.tick()
        assert replayed.run_id == second.run_id
        assert lab.written in ([second.run_id], [first.run_id, second.run_id])
        assert lab.control.shard(first.run_id, 0).phase is ShardPhase.SUPERSEDED

    def test_a_driver_in_its_work_is_ended_before_the_new_one_begins(self, lab: Lab) -> None:
        first = lab.plan("1")
        lab.next_steps = lambda: [Driver.claim, Driver.begin, *[Driver.rest] * 1000]
        dies = lab.task(first.run_id, first.shards[0])
        for _ in range(EFFECTS):
            dies.step()
        dies.kill()
        [old] = lab.drivers
        assert old.process in lab.alive
        second = lab.plan("2")

        lab.next_steps = whole
        lab.replaying(second.run_id, second.shards[0]).run()

        assert old.process not in lab.alive
        with pytest.raises(Fenced, match="a later attempt replays the interval"):
            old.record()
        assert lab.written == [first.run_id, second.run_id]

    def test_a_driver_on_another_host_is_given_time_to_see_it(self, lab: Lab) -> None:
        first = lab.plan("1")
        lab.is_slow = True
        dies = lab.task(first.run_id, first.shards[0])
        dies.until("sleep")
        dies.kill()
        [old] = lab.drivers
        old.process = replace(old.process, host=ELSEWHERE)
        old.claim()
        second = lab.plan("2")
        task = lab.task(second.run_id, second.shards[0])
        task.until("sleep")
        assert len(lab.drivers) == 1, "the new driver is not launched yet"

        old.end(EndedHow.FENCED)
        lab.is_slow = False
        assert task.finish().run_id == second.run_id
        assert lab.now_s < 1010

    def test_a_driver_that_cannot_see_it_holds_it_back_no_longer_than_that(self, lab: Lab) -> None:
        first = lab.plan("1")
        lab.next_steps = lambda: [Driver.rest] * 1000
        dies = lab.task(first.run_id, first.shards[0])
        dies.until("sleep")
        dies.kill()
        [old] = lab.drivers
        old.process = replace(old.process, host=ELSEWHERE)
        old.claim()
        second = lab.plan("2")

        lab.next_steps = whole
        assert lab.replaying(second.run_id, second.shards[0]).run().run_id == second.run_id

    @pytest.mark.parametrize("steps", range(EFFECTS))
    def test_a_task_of_the_attempt_before_never_ends_what_the_new_one_does(self, lab: Lab, steps: int) -> None:
        first = lab.plan("1")
        old = lab.task(first.run_id, first.shards[1], "old")
        for _ in range(steps):
            if not old.is_over:
                old.step()
        second = lab.plan("2")
        lab.next_steps = lambda: [Driver.claim, Driver.begin, *[Driver.rest] * 5, Driver.record, Driver.end]
        new = lab.task(second.run_id, second.shards[0], "new")
        new.until("sleep")
        new.step()

        with suppress(OffsetsError):  # unless its shard was finished before
            old.finish()
        assert new.finish().records_read == 30

    def test_what_the_attempt_before_has_finished_stays(self, lab: Lab) -> None:
        first = lab.plan("1")
        done = lab.replaying(first.run_id, first.shards[0]).run()
        second = lab.plan("2")
        lab.replaying(second.run_id, second.shards[0]).run()

        assert lab.replaying(first.run_id, first.shards[0]).run() == done


class TestRefused:
    @pytest.mark.parametrize("run_id", ["somebody-else#abc#1", f"{OPERATION}#abc", OPERATION, f"{OPERATION}#abc#x"])
    def test_a_run_id_that_is_not_of_this_operation(self, lab: Lab, run_id: str) -> None:
        with pytest.raises(InputRefused, match="Run id"):
            lab.replaying(run_id)

    @pytest.mark.parametrize("state", ["replayed", "at work"])
    def test_other_ranges_under_the_same_number(self, lab: Lab, state: str) -> None:
        """A13: a driver of an older plan is never adopted for another plan."""
        if state == "replayed":
            lab.replaying().run()
        else:
            lab.task().until("sleep")
        other = Shard(0, (OffsetRange("flights", 0, 5, 26),))

        with pytest.raises(InputRefused, match="was launched with other ranges"):
            lab.replaying(shard=other).run()
        assert len(lab.drivers) == 1

    def test_another_version_of_the_program_than_planned(self, lab: Lab) -> None:
        plan = lab.plan("1")
        (lab.folder / "job.py").write_text("another program")

        with pytest.raises(StateChanged, match="one run replays one version"):
            lab.replaying(plan.run_id, plan.shards[0]).run()

    def test_a_topic_that_was_recreated_since_the_plan(self, lab: Lab) -> None:
        plan = lab.plan("1")
        lab.kafka.recreate_topic("flights", partitions=2)

        with pytest.raises(StateChanged, match="recreated topic"):
            lab.replaying(plan.run_id, plan.shards[0]).run()

    def test_a_pipeline_that_was_renamed_since_the_plan(self, lab: Lab) -> None:
        """Its record is under the new name: nobody would count what is replayed under the old one."""
        plan = lab.plan("1")
        cell = lab.session().cell
        cell.create()
        cell.change(TakeLease("rename", 0, 1000))
        cell.change(Rename("rename", "arrivals"))

        with pytest.raises(PipelineRenamed, match="'arrivals'"):
            lab.replaying(plan.run_id, plan.shards[0]).run()
        assert lab.drivers == []
        with pytest.raises(PipelineRenamed, match="'arrivals'"):
            lab.plan("2")

    def test_a_plan_of_before(self, lab: Lab) -> None:
        first, second = lab.plan("1"), lab.plan("2")

        with pytest.raises(Fenced, match=f"planned again, as '{second.run_id}'"):
            lab.replaying(first.run_id, first.shards[0]).run()

    def test_a_process_that_cannot_be_started_leaves_no_launch(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: Any, **__: Any) -> None:
            raise FileNotFoundError("spark-submit")

        monkeypatch.setattr(machine.machine(), "spawn", missing)
        with pytest.raises(FileNotFoundError):
            lab.replaying().run()

        assert lab.control.shard(RUN_1, 0).phase is ShardPhase.WAITING
        assert list(lab.folder.rglob("*.settings.json")) == []


def test_all_attempts_of_an_operation_are_one_replay(lab: Lab) -> None:
    """An operation that was cleared ends in ``@2``, and its replay continues under the name of the run."""
    plan = lab.plan("1")
    session = replace(lab.session(), operation=f"{OPERATION}@2")

    launcher = Launcher(lab.command, SECRETS)
    replayed: Replayed = ShardReplaying(session, plan.shards[0], plan.run_id, launcher).run()

    assert replayed.run_id == plan.run_id


def test_a_task_that_is_ended_ends_its_driver(lab: Lab) -> None:
    lab.is_slow = True
    replaying = lab.replaying(stepped=True)
    task = Task("task", replaying.run)
    task.until("sleep")
    replaying.end_driver()

    assert lab.alive == set()
    with pytest.raises(ShardFailed):
        task.finish()


def test_how_far_the_other_shards_are_is_said(lab: Lab) -> None:
    plan = lab.plan("1")
    lab.replaying(plan.run_id, plan.shards[0]).run()
    lab.next_steps = lambda: [Driver.claim, note_progress, *[Driver.rest] * 30, Driver.begin, Driver.record, Driver.end]

    def note_progress(driver: Driver) -> None:
        lab.control.note_progress(driver.settings.claim, ShardProgress(1, 10, 1_000))

    lab.replaying(plan.run_id, plan.shards[1]).run()

    assert "shard 1: 10 of 30 records, 10 a second, 2 s left; shards finished: 1 of 2, 30 records" in lab.said


def test_batch_ids_are_below_every_live_one_and_differ() -> None:
    ids = {replay_batch_id(run_id, shard) for run_id in (RUN_1, RUN_2) for shard in range(1000)}

    assert len(ids) == 2000
    assert max(ids) < 0
    assert min(ids) >= -(2**63)


def test_progress_has_rate_and_time_left() -> None:
    assert progress_text(250_000, 1_000_000, 10_000) == "250,000 of 1,000,000 records, 25,000 a second, 30 s left"
    assert progress_text(0, 10, 500) == "0 of 10 records, 0 a second"
