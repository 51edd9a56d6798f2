"""A job on YARN counts as stopped once its process and its application have ended; an unreachable one does not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import Epoch, YarnApplication
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.errors import StopTimedOut
from airflow_provider_offsets.operations.job_state import JobState, observe_job
from airflow_provider_offsets.operations.lease import take_lease
from airflow_provider_offsets.operations.stopping import ask_to_stop, await_stop
from airflow_provider_offsets.operations.submitting import Launcher, submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import SECRETS, Crash, Lab, install

RM = "http://rm.example:8088"


@dataclass
class Yarn:
    """The cluster's answers, and the requests it received. ``left`` is what its nodes still run."""

    lab: Lab
    left: str = "application_1_0001 is RUNNING on YARN"
    told: list[YarnApplication] = field(default_factory=list)
    on_kill: Callable[[], None] = lambda: None

    def left_on_yarn(self, application: YarnApplication) -> str:
        holder = self.lab.record.holder
        assert holder not in self.lab.alive, "asked last: a driver that lives may submit another one"
        return self.left

    def kill_on_yarn(self, application: YarnApplication) -> str:
        stop = self.lab.record.stop
        assert stop is not None
        assert stop.stage is not None
        assert stop.stage.name == "a kill on YARN", "noted first: a task that is killed now leaves a note of it"
        self.told.append(application)
        self.on_kill()
        return ""


@pytest.fixture(params=["tracked", "untracked"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    offsets_in = ("checkpoint",) if request.param == "untracked" else ()
    made = install(Lab(tmp_path, offsets_in=offsets_in), monkeypatch)
    made.stop = StopPolicy(5, cluster_timeout_s=25)
    return made


@pytest.fixture
def yarn(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Yarn:
    made = Yarn(lab)
    monkeypatch.setattr(lab.machine, "left_on_yarn", made.left_on_yarn)
    monkeypatch.setattr(lab.machine, "kill_on_yarn", made.kill_on_yarn)
    return made


def start(lab: Lab, operation: str = "first") -> None:
    session = lab.session(operation)
    take_lease(session)
    submit_job(session, steps.apply(lab, operation=operation), Launcher(lab.command, SECRETS, RM))
    lab.driver.obeys = False
    lab.stalls = True


def test_each_launch_has_a_tag_of_its_own_beside_the_job_s(lab: Lab, yarn: Yarn) -> None:
    lab.command = lambda conf: ["spark-submit", conf["spark.yarn.tags"], conf["spark.offsets.settings.file"]]  # type: ignore[method-assign]
    yarn.left = ""
    tags = []
    for operation in ("first", "second"):
        start(lab, operation)
        application = lab.epoch.claim.yarn
        assert application is not None
        assert application.resource_manager == RM
        assert lab.commands[-1][-2] == application.tag
        tags.append(application.tag)
        lab.driver.die()
        lab.stalls = False
        steps.stop(lab, "second")

    assert len(set(tags)) == 2
    assert [tag for tag in tags if tag != tag.lower() or not tag.isascii() or len(tag) > 100] == [], "YARN's own rules"


def test_it_is_stopped_once_its_containers_are_gone(lab: Lab, yarn: Yarn) -> None:
    start(lab)
    said = []

    def killed() -> None:
        lab.driver.die()
        yarn.left = "container_1_0001_01_000002 is RUNNING on node-1"

    def nodes() -> None:
        said.append(lab.epoch.ended)
        if len(said) > 30:
            yarn.left = ""

    yarn.on_kill = killed
    lab.clock.on_tick = nodes

    stopped = steps.stop(lab, "second")

    assert (stopped.how, stopped.message) == ("killed", "pid 100 on worker-1 is gone after a kill on YARN")
    assert set(said) == {None}, "nobody said so before"
    assert lab.signalled == []


def test_a_job_that_nobody_has_claimed_is_not_started_though_yarn_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untracked job with nothing to read counts as started some time after its claim, not after 1970."""
    lab = install(Lab(tmp_path, offsets_in=("checkpoint",)), monkeypatch)
    yarn = Yarn(lab, left="unknown: YARN gave no answer")
    monkeypatch.setattr(lab.machine, "left_on_yarn", yarn.left_on_yarn)
    steps.start(lab)
    steps.stop(lab, "second")

    started = submit_job(
        lab.session("second"), steps.apply(lab, operation="second"), Launcher(lab.command, SECRETS, RM)
    )

    assert started.how == "runs for 15 s, with nothing to read"
    assert lab.record.phase is Phase.RUNNING


@pytest.mark.parametrize("left", ["container_1_0001_01_000002 is KILLING on node-1", "unknown: YARN gave no answer"])
def test_what_is_left_or_unknown_is_never_stopped(left: str, lab: Lab, yarn: Yarn) -> None:
    start(lab)
    lab.driver.die()
    yarn.left = left

    with pytest.raises(StopTimedOut, match=f"did not stop; {left}"):
        steps.stop(lab, "second")

    assert lab.epoch.ended is None
    assert observe_job(lab.control).state is JobState.RUNNING
    assert len(yarn.told) == 3, "at once, and every ten seconds: the ResourceManager may come back"
    yarn.left = ""
    assert steps.stop(lab, "second").how == "already killed"


def test_a_task_that_is_killed_after_it_asked_and_run_again_knows(lab: Lab, yarn: Yarn) -> None:
    def killed() -> None:
        raise Crash("after the kill on YARN")

    start(lab)
    yarn.on_kill = killed
    with pytest.raises(Crash):
        steps.stop(lab, "second")
    lab.driver.die()
    yarn.left = ""

    assert steps.stop(lab, "second").how == "already killed"


def test_it_comes_before_sigkill(lab: Lab, yarn: Yarn) -> None:
    lab.stop = StopPolicy(5, 5, 5, cluster_timeout_s=5)
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
    asked = ask_to_stop(lab.session(), reason="")
    assert isinstance(asked, Epoch)

    with pytest.raises(StopTimedOut):
        await_stop(lab.session(), asked, lab.stop, report=said.append)

    assert yarn.told == []
    assert said == ["epoch 1 was started without a tag for YARN: its application is not known"]
