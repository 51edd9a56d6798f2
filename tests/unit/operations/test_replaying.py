"""A shard is replayed once, whatever dies: its task, its driver, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import EndedHow, Operation, ProcessIdentity
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.replay import Interval, Replayed, ReplayPlan, Shard
from airflow_provider_offsets.core.replaying import ShardEnded, progress_text, replay_batch_id
from airflow_provider_offsets.errors import Fenced, InputRefused, ShardFailed
from airflow_provider_offsets.jobs import machine
from airflow_provider_offsets.jobs.detached import Launch
from airflow_provider_offsets.jobs.machine import LocalMachine
from airflow_provider_offsets.operations import replaying
from airflow_provider_offsets.operations.replaying import ShardReplaying
from airflow_provider_offsets.operations.world import World
from airflow_provider_offsets.runtime.settings import FILE_KEY, RUN_ID_KEY, ReplaySettings
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.testing import FakeKafka, MemoryStore
from tests.unit.operations.lab import HERE, SECRETS, Clock, Crash, Fuse, FusedStore

OPERATION = "backfill__alerts/day-3"
RUN_1, RUN_2 = f"{OPERATION}#abc#1", f"{OPERATION}#abc#2"
SHARD = Shard(0, (OffsetRange("flights", 0, 5, 25), OffsetRange("flights", 1, 0, 10)))

Step = Callable[["Driver"], None]


@dataclass
class Driver:
    """A launched driver: at each tick it does the next of its steps, and then is gone."""

    lab: Lab
    process: ProcessIdentity
    settings: ReplaySettings
    steps: list[Step]

    def tick(self) -> None:
        if self.process in self.lab.alive:
            try:
                self.steps.pop(0)(self)
            except Fenced:
                self.die()

    def claim(self) -> None:
        self.lab.control.claim_shard(self.settings.claim, self.process, at_ms=1)
        self.lab.control.check_shard_fence(self.settings.claim)

    def write(self) -> None:
        claim = self.settings.claim
        self.lab.written.append(replay_batch_id(claim.run_id, claim.shard.number))

    def record(self) -> None:
        claim = self.settings.claim
        self.lab.control.check_shard_fence(claim)
        self.lab.control.record_replayed(Replayed(claim.run_id, claim.shard.number, claim.shard.ranges, 30, 30))

    def end(self, how: EndedHow = EndedHow.FINISHED, message: str = "", *, retriable: bool = True) -> None:
        self.lab.control.end_shard(self.settings.claim, ShardEnded(how, 1, message, retriable))
        self.die()

    def die(self) -> None:
        self.lab.alive.discard(self.process)


def whole() -> list[Step]:
    return [Driver.claim, Driver.write, Driver.record, Driver.end]


@dataclass
class Lab:
    """One machine with a store, and the drivers that were launched on it."""

    folder: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: Clock = field(default_factory=Clock)
    alive: set[ProcessIdentity] = field(default_factory=set)
    drivers: list[Driver] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    fuse: Fuse = field(default_factory=Fuse)
    next_steps: Callable[[], list[Step]] = whole

    def __post_init__(self) -> None:
        (self.folder / "job.py").write_text("the program")
        self.clock.on_tick = lambda: [driver.tick() for driver in list(self.drivers)]
        Control(self.store, "alerts").open_operation(Operation(OPERATION, "backfill", ""))

    @property
    def control(self) -> Control:
        return Control(self.store, "alerts")

    def task(self, run_id: str = RUN_1, shard: Shard = SHARD) -> ShardReplaying:
        job = SparkJob(str(self.folder / "job.py"), str(self.folder / "checkpoint"), log_dir=str(self.folder / "logs"))
        pipeline = StreamingPipeline("alerts", ("flights",), job)
        world = World(pipeline, OPERATION, FusedStore(self.store, self.fuse), FakeKafka())
        return ShardReplaying(world, shard, run_id, self.command, SECRETS, self.said.append)

    def command(self, conf: Mapping[str, str]) -> list[str]:
        assert conf[RUN_ID_KEY].startswith(OPERATION)
        return ["spark-submit", conf[FILE_KEY]]

    def launch(self, launch_id: str, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> Launch:
        file = Path(command[-1])
        settings = codec.loads(ReplaySettings, file.read_text())
        file.unlink()
        process = ProcessIdentity(HERE, "boot-1", 100 + len(self.drivers), 7)
        self.alive.add(process)
        self.drivers.append(Driver(self, process, settings, self.next_steps()))
        return self.fuse.write(lambda: Launch(launch_id, process, log))

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        return process in self.alive if process.host == HERE else None

    def signal_session(self, process: ProcessIdentity, number: int) -> bool:
        there = process in self.alive
        self.alive.discard(process)
        return there


class Machine(LocalMachine):
    """The lab as the machine that the task runs on."""

    def __init__(self, lab: Lab) -> None:
        self.is_alive = self.is_session_alive = lab.is_alive
        self.signal_session = lab.signal_session


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    monkeypatch.setattr(replaying, "launch", lab.launch)
    with clock.installed(lab.clock), machine.installed(Machine(lab)):
        yield lab


def test_a_shard_is_launched_watched_and_recorded_once(lab: Lab) -> None:
    replayed = lab.task().run()

    assert (replayed.run_id, replayed.ranges, replayed.records_read) == (RUN_1, SHARD.ranges, 30)
    assert lab.task().run() == replayed
    assert len(lab.drivers) == 1, "a shard that is finished is not run again"
    assert lab.written == [replay_batch_id(RUN_1, 0)]


@pytest.mark.parametrize(
    ("dies_after", "wrote"),
    [(0, 1), (1, 1), (2, 2)],
    ids=["before its claim", "before it wrote", "before its record"],
)
def test_a_driver_that_dies_is_followed_by_another_with_the_same_ids(dies_after: int, wrote: int, lab: Lab) -> None:
    lab.next_steps = lambda: [*whole()[:dies_after], Driver.die]
    with pytest.raises(ShardFailed) as failed:
        lab.task().run()
    assert failed.value.retriable

    lab.next_steps = whole
    assert lab.task().run().records_read == 30
    assert lab.written == [replay_batch_id(RUN_1, 0)] * wrote


def test_a_driver_that_dies_right_after_its_record_has_finished(lab: Lab) -> None:
    lab.next_steps = lambda: [*whole()[:3], Driver.die]

    assert lab.task().run().records_read == 30


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 4))
def test_a_task_that_is_killed_at_any_write_leaves_no_twin(at: int, after: bool, lab: Lab) -> None:
    lab.fuse.at, lab.fuse.after = at, after
    try:
        with lab.fuse.lit():
            lab.task().run()
    except Crash:
        lab.clock.sleep(1)

    assert lab.task().run().records_read == 30
    assert lab.written == [replay_batch_id(RUN_1, 0)], "two drivers race for one claim, and one writes"


def test_a_driver_that_lives_is_adopted(lab: Lab) -> None:
    lab.next_steps = lambda: [Driver.claim, *[lambda driver: None] * 40, Driver.write, Driver.record, Driver.end]
    lab.fuse.at = 1  # the launch
    with pytest.raises(Crash), lab.fuse.lit():
        lab.task().run()
    lab.clock.sleep(1)

    assert lab.task().run().records_read == 30
    assert len(lab.drivers) == 1
    assert any("is being replayed already" in line for line in lab.said)
    assert any("nothing read yet" in line for line in lab.said)


def test_what_the_runtime_refused_is_not_tried_again(lab: Lab) -> None:
    def refuse(driver: Driver) -> None:
        driver.end(EndedHow.FAILED, "InputRefused: stateful", retriable=False)

    lab.next_steps = lambda: [Driver.claim, refuse]
    with pytest.raises(InputRefused, match="InputRefused: stateful"):
        lab.task().run()


def test_a_new_attempt_ends_the_drivers_of_the_one_before(lab: Lab) -> None:
    lab.next_steps = lambda: [Driver.claim, *[lambda driver: None] * 1000]
    lab.fuse.at = 1
    with pytest.raises(Crash), lab.fuse.lit():
        lab.task(RUN_1).run()
    lab.clock.sleep(1)
    [old] = lab.drivers

    lab.next_steps = whole
    assert lab.task(RUN_2).run().run_id == RUN_2
    assert not lab.is_alive(old.process)
    with pytest.raises(Fenced, match="superseded by"):
        old.record()
    assert lab.control.replayed(RUN_1, 0) is None


def test_a_driver_records_nothing_once_its_operation_was_planned_anew(lab: Lab) -> None:
    def plan_anew(driver: Driver) -> None:
        nowhere, day = Position(), Interval(0, 86_400_000)
        plan = ReplayPlan("alerts", OPERATION, RUN_2, 2, "key", day, nowhere, nowhere, (), "job.py", "version")
        lab.control.record_replay_plan(OPERATION, plan)

    lab.next_steps = lambda: [Driver.claim, Driver.write, plan_anew, Driver.record]

    with pytest.raises(ShardFailed):
        lab.task(RUN_1).run()

    assert lab.control.replayed(RUN_1, 0) is None
    with pytest.raises(Fenced, match="planned anew"):
        lab.task(RUN_1).run()


def test_a_driver_on_another_host_is_not_taken_for_dead(lab: Lab) -> None:
    lab.next_steps = lambda: [Driver.claim, *[lambda driver: None] * 10, Driver.write, Driver.record, Driver.end]
    lab.fuse.at = 1
    with pytest.raises(Crash), lab.fuse.lit():
        lab.task().run()
    [driver] = lab.drivers
    lab.alive.discard(driver.process)
    driver.process = replace(driver.process, host="worker-2")
    lab.alive.add(driver.process)
    lab.clock.sleep(1)

    assert lab.task().run().records_read == 30
    assert len(lab.drivers) == 1


@pytest.mark.parametrize(
    ("how", "error", "seen"),
    [
        ({"run_id": "somebody-else#abc#1"}, InputRefused, "run id"),
        ({"shard": Shard(0, (OffsetRange("flights", 0, 5, 26),))}, InputRefused, "has replayed"),
    ],
    ids=["a run id of another operation", "other ranges under a number that is replayed"],
)
def test_refused(how: dict[str, Any], error: type[Exception], seen: str, lab: Lab) -> None:
    lab.task().run()
    with pytest.raises(error, match=seen):
        lab.task(**how).run()
    assert len(lab.drivers) == 1


def test_batch_ids_are_below_every_live_one_and_differ() -> None:
    ids = {replay_batch_id(run_id, shard) for run_id in (RUN_1, RUN_2) for shard in range(1000)}

    assert len(ids) == 2000
    assert max(ids) < 0
    assert min(ids) >= -(2**63)


def test_progress_has_rate_and_time_left() -> None:
    assert progress_text(250_000, 1_000_000, 10_000) == "250,000 of 1,000,000 records, 25,000 a second, 30 s left"
    assert progress_text(0, 10, 500) == "0 of 10 records, 0 a second"
