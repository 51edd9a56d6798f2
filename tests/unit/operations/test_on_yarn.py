"""A job on YARN is at rest once its process and its application are gone. What cannot be asked is not gone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, YarnApplication
from airflow_provider_offsets.core.pipeline import StopLadder
from airflow_provider_offsets.errors import StopTimedOut
from airflow_provider_offsets.operations import stopping
from airflow_provider_offsets.operations.submitting import submit_job
from airflow_provider_offsets.operations.watching import JobState, look
from tests.unit.operations import steps
from tests.unit.operations.lab import SECRETS, Lab, install

RM = "http://rm.example:8088"


@dataclass
class Yarn:
    """What the cluster says, and what it was told. ``left`` is what its nodes still run."""

    lab: Lab
    left: str = "application_1_0001 is RUNNING on YARN"
    told: list[YarnApplication] = field(default_factory=list)
    on_kill: Callable[[], None] = lambda: None

    def left_on_yarn(self, application: YarnApplication) -> str:
        assert not self.lab.alive, "asked last: a driver that lives may submit another one"
        return self.left

    def kill_on_yarn(self, application: YarnApplication) -> str:
        noted = self.lab.control.stop_rung(1)
        assert noted is not None
        assert noted.name == "a kill on YARN", "noted first: who is killed now leaves word of it"
        self.told.append(application)
        self.on_kill()
        return ""


@pytest.fixture(params=["tracked", "untouched"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    offsets_in = ("checkpoint",) if request.param == "untouched" else ()
    made = install(Lab(tmp_path, offsets_in=offsets_in), monkeypatch)
    made.stop = StopLadder(5, cluster_timeout_s=25)
    return made


@pytest.fixture
def yarn(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Yarn:
    made = Yarn(lab)
    monkeypatch.setattr(lab.machine, "left_on_yarn", made.left_on_yarn)
    monkeypatch.setattr(lab.machine, "kill_on_yarn", made.kill_on_yarn)
    return made


def start(lab: Lab, operation: str = "first") -> None:
    applied = steps.apply(lab, operation=operation)
    submit_job(lab.world(operation), applied, lab.command, SECRETS, resource_manager=RM)
    lab.driver.obeys = False
    lab.stalls = True


def test_each_launch_has_a_tag_of_its_own_beside_the_job_s(lab: Lab) -> None:
    lab.command = lambda conf: ["spark-submit", conf["spark.yarn.tags"], conf["spark.offsets.settings.file"]]  # type: ignore[method-assign]
    tags = []
    for operation in ("first", "second"):
        start(lab, operation)
        epoch = lab.control.newest_epoch()
        assert epoch is not None
        assert epoch.claim.yarn is not None
        assert epoch.claim.yarn.resource_manager == RM
        assert lab.commands[-1][-2] == epoch.claim.yarn.tag
        tags.append(epoch.claim.yarn.tag)
        lab.driver.end(EndedHow.STOPPED)

    assert len(set(tags)) == 2
    assert [tag for tag in tags if tag != tag.lower() or not tag.isascii() or len(tag) > 100] == [], "YARN's own rules"


def test_it_is_at_rest_once_its_containers_are_gone(lab: Lab, yarn: Yarn) -> None:
    start(lab)
    said = []

    def killed() -> None:
        lab.driver.die()
        yarn.left = "container_1_0001_01_000002 is RUNNING on node-1"

    def nodes() -> None:
        said.append(lab.control.ended(1))
        if len(said) > 30:
            yarn.left = ""

    yarn.on_kill = killed
    lab.clock.on_tick = nodes

    stopped = steps.stop(lab, "second")

    assert (stopped.how, stopped.message) == ("killed", "pid 100 on worker-1 is gone after a kill on YARN")
    assert set(said) == {None}, "nobody said so before"
    assert lab.signalled == []


@pytest.mark.parametrize("left", ["container_1_0001_01_000002 is KILLING on node-1", "unknown: YARN gave no answer"])
def test_what_is_left_or_unknown_is_never_at_rest(left: str, lab: Lab, yarn: Yarn) -> None:
    start(lab)
    lab.driver.die()
    yarn.left = left

    with pytest.raises(StopTimedOut, match=f"did not come to rest; {left}"):
        steps.stop(lab, "second")

    assert lab.control.ended(1) is None
    assert look(lab.control).state is JobState.RUNNING
    assert len(yarn.told) == 3, "at once, and every ten seconds: the ResourceManager may come back"
    yarn.left = ""
    assert steps.stop(lab, "second").how == "already killed"


def test_a_task_that_is_killed_after_it_asked_and_run_again_knows(lab: Lab, yarn: Yarn) -> None:
    class Killed(BaseException):
        pass

    def killed() -> None:
        raise Killed

    start(lab)
    yarn.on_kill = killed
    with pytest.raises(Killed):
        steps.stop(lab, "second")
    lab.driver.die()
    yarn.left = ""

    assert steps.stop(lab, "second").how == "already killed"


def test_it_comes_before_sigkill(lab: Lab, yarn: Yarn) -> None:
    lab.stop = StopLadder(5, 5, 5, cluster_timeout_s=5)
    start(lab)
    lab.clock.on_tick = lambda: lab.driver.die() if signal.SIGKILL in lab.signalled else None
    seen: list[list[int]] = []
    yarn.on_kill = lambda: seen.append(list(lab.signalled))
    yarn.left = ""

    assert steps.stop(lab, "second").how == "killed"
    assert seen == [[signal.SIGTERM]]
    assert lab.signalled == [signal.SIGTERM, signal.SIGKILL]


def test_one_that_was_started_without_a_tag_is_not_asked_for(lab: Lab, yarn: Yarn) -> None:
    steps.start(lab)
    lab.driver.obeys, lab.stalls = False, True
    said: list[str] = []
    epoch = lab.control.newest_epoch()
    assert epoch is not None
    lab.clock.on_tick = lambda: None

    with pytest.raises(StopTimedOut):
        stopping.await_stop(lab.world(), epoch, lab.stop, say=said.append)

    assert yarn.told == []
    assert said == ["epoch 1 was started without a tag for YARN: its application is not known"]
