"""A person ends an epoch whose driver nobody can observe; every other epoch has a better way to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, Heartbeat
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.errors import (
    InputRefused,
    LeaseHeld,
    OffsetsError,
    PipelineRenamed,
    RecordChanged,
    StopTimedOut,
    StoreInUse,
    TakenOver,
)
from airflow_provider_offsets.operations.ending import Ending, end_epoch, plan_end
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S, release_lease, take_lease
from airflow_provider_offsets.operations.recovering import find_death
from airflow_provider_offsets.operations.submitting import Launcher, submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import ELSEWHERE, SECRETS, Crash, Driver, Fuse, Lab, install, kills
from tests.unit.operations.test_renaming import NEW, rename, under

END = "airflow offsets end delay_alerts 1"
STATED = f"a person stated that pid 100 on {ELSEWHERE} does not run: the machine was sold"


@pytest.fixture(params=["tracked", "checkpoint", "elsewhere"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    offsets_in = () if request.param == "tracked" else (request.param,)
    return install(Lab(tmp_path, offsets_in=offsets_in), monkeypatch)


def claim_elsewhere(driver: Driver) -> None:
    """Claim from a machine that cannot be observed from here."""
    driver.lab.alive.discard(driver.process)
    driver.process = replace(driver.process, host=ELSEWHERE)
    driver._claim()


def unknown(lab: Lab) -> None:
    """Start a job whose driver is unknown from then on."""
    lab.on_launch = claim_elsewhere
    steps.launch(lab, operation="first")
    lab.on_launch = lambda driver: None
    release_lease(lab.session("first"))


def end(lab: Lab, number: int = 1, *, take_over: bool = False) -> Ending:
    return end_epoch(lab.session(END), number, reason="the machine was sold", take_over=take_over)


def goes_on(lab: Lab) -> None:
    """Start the job again, which reads all records."""
    lab.feed(10)
    steps.start(lab, operation="next")
    assert lab.record.phase is Phase.RUNNING
    assert lab.record.epoch == 2


def test_the_epoch_is_closed_reconciled_and_free(lab: Lab) -> None:
    unknown(lab)
    before = lab.record
    tracked = before.launch is not None and before.launch.tracked

    planned = plan_end(lab.session(END), 1)
    assert planned == Ending("delay_alerts", 1, f"pid 100 on {ELSEWHERE}", tracked)
    assert lab.record == before, "nothing is changed by looking"
    done = end(lab)

    assert done.done
    assert done.ended is not None
    assert (done.ended.how, done.ended.message) == (EndedHow.DIED, STATED)
    assert (lab.record.phase, lab.record.lease, lab.record.ended) == (Phase.STOPPED, None, done.ended)
    after = lab.record
    assert end(lab) == plan_end(lab.session(END), 1) == done, "done again it changes nothing"
    assert lab.record == after
    goes_on(lab)


def test_also_after_a_stop_that_timed_out_which_names_this_way_out(lab: Lab) -> None:
    unknown(lab)
    lab.stop = replace(lab.stop, signal_timeout_s=5)
    with pytest.raises(StopTimedOut, match=r"run 'airflow offsets end delay_alerts --epoch 1'"):
        steps.stop(lab, "stop")

    with pytest.raises(LeaseHeld):
        end(lab)
    assert end(lab, take_over=True).done

    assert lab.record.stop is not None, "whoever asked for a stop wants the job to stay stopped"
    lab.clock.now += 2 * LEASE_TIMEOUT_S
    assert find_death(lab.control) is None
    assert steps.stop(lab, "stop").how == "already died", "the stop task that is run again finds the job stopped"
    release_lease(lab.session("stop"))
    goes_on(lab)


def test_a_recovery_may_start_a_job_that_nobody_wants_stopped(lab: Lab) -> None:
    unknown(lab)
    assert find_death(lab.control) is None
    end(lab)

    death = find_death(lab.control)
    assert death is not None
    assert (death.epoch, death.message) == (1, STATED)


def test_a_tracked_driver_that_still_lives_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = install(Lab(tmp_path), monkeypatch)
    unknown(lab)
    late = lab.driver
    batch = late.begin(late.plan() or pytest.fail("there is a batch"))
    end(lab)
    assert [cut.batch_id for cut in lab.record.cuts] == [0]
    goes_on(lab)

    for act in (lambda: late.record(batch), lambda: late.begin(batch)):
        with pytest.raises(OffsetsError, match="newest launch is epoch 2"):
            act()


def test_a_heartbeat_shows_life_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = install(Lab(tmp_path), monkeypatch)
    unknown(lab)
    beats = iter(range(1, 1000))
    lab.clock.on_tick = lambda: lab.control.beat(1, Heartbeat(next(beats), 1))
    lab.clock.on_tick()

    for act in (plan_end, end_epoch):
        with pytest.raises(StoreInUse, match="Epoch 1 of pipeline 'delay_alerts' is running"):
            act(lab.session(END), 1)
    assert lab.record.phase is Phase.RUNNING
    assert lab.holder == ""


REFUSED: dict[str, tuple[Callable[[Lab], object], type[OffsetsError], str]] = {
    "never ran": (lambda lab: None, InputRefused, "is no epoch"),
    "took a lease only": (lambda lab: take_lease(lab.session("other")), InputRefused, "is no epoch"),
    "lives": (lambda lab: steps.start(lab), StoreInUse, "Run the task 'stop' of maintenance__delay_alerts"),
    "was seen dead": (lambda lab: (steps.start(lab), lab.driver.die()), InputRefused, "it closes the epoch"),
    "waits for a driver": (lambda lab: steps.launch(lab), InputRefused, "which cancels the launch"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_any_other_epoch_has_a_better_way(case: str, lab: Lab) -> None:
    arrange, error, words = REFUSED[case]
    arrange(lab)
    before = lab.control.record()

    for act in (plan_end, end_epoch):
        with pytest.raises(error, match=words):
            act(lab.session(END), 1)
    assert lab.control.record() == before


@pytest.mark.parametrize("number", [0, 2])
def test_another_number_is_refused(number: int, lab: Lab) -> None:
    unknown(lab)

    with pytest.raises(InputRefused, match=f"Epoch {number} was named, and the newest one of .* is epoch 1"):
        end(lab, number)
    assert lab.record.phase is Phase.RUNNING


def test_a_renamed_pipeline_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = install(Lab(tmp_path), monkeypatch)
    unknown(lab)
    end(lab)
    rename(under(lab, NEW), "delay_alerts")

    with pytest.raises(PipelineRenamed, match=NEW):
        end(lab)


class TestOnYarn:
    @pytest.fixture
    def job(self, lab: Lab) -> Lab:
        session = lab.session("first")
        take_lease(session)
        lab.on_launch = claim_elsewhere

        def killed(line: str) -> None:
            raise Crash(line)

        with pytest.raises(Crash):
            submit_job(
                session, steps.apply(lab, operation="first"), Launcher(lab.command, SECRETS, "http://rm"), report=killed
            )
        release_lease(lab.session("first"))
        return lab

    def test_an_application_that_yarn_shows_is_to_be_killed(self, job: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(job.machine, "left_on_yarn", lambda application: "application_1 is RUNNING on YARN")

        with pytest.raises(StoreInUse, match=r"application_1 is RUNNING.*Allow stop\.cluster_timeout_s"):
            end(job)
        assert job.record.phase is Phase.RUNNING

    @pytest.mark.parametrize("left", ["", "unknown: YARN at http://rm gave no answer"])
    def test_one_that_is_gone_or_unknown_is_left_to_the_person(
        self, left: str, job: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job.machine, "left_on_yarn", lambda application: left)

        assert plan_end(job.session(END), 1).left_on_yarn == left
        assert end(job).done


class TestOthersAtWork:
    def test_the_driver_acknowledges_between_check_and_effect(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        unknown(lab)
        lab.interpose(
            monkeypatch, lambda: lab.interpose(monkeypatch, lambda: lab.driver.end(EndedHow.STOPPED, "its own words"))
        )

        done = end(lab)

        assert done.ended is not None
        assert done.ended.message == "its own words"
        assert lab.holder == ""

    def test_the_job_of_a_later_epoch_is_not_closed(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another operation stops and starts the job after the check, before the lease is taken."""
        unknown(lab)

        def restarted() -> None:
            lab.driver.end(EndedHow.STOPPED)
            steps.start(lab, operation="other")
            release_lease(lab.session("other"))

        lab.interpose(monkeypatch, restarted)

        with pytest.raises(RecordChanged, match="epoch 2 is running"):
            end(lab)
        assert (lab.record.phase, lab.record.epoch, lab.holder) == (Phase.RUNNING, 2, "")
        assert lab.driver.is_alive

    def test_one_that_takes_over_before_the_effect_wins(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        unknown(lab)
        lab.interpose(
            monkeypatch,
            lambda: lab.interpose(monkeypatch, lambda: take_lease(lab.session("other"), take_over=True)),
        )

        with pytest.raises(TakenOver):
            end(lab)
        assert (lab.record.phase, lab.holder) == (Phase.RUNNING, "other")


def arranged(folder: Path, offsets_in: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a job in its first batch, whose driver is unknown."""
    made = Lab(folder, offsets_in=offsets_in)
    made.wipe()
    install(made, monkeypatch)
    unknown(made)
    if not offsets_in:
        made.driver.begin(made.driver.plan() or pytest.fail("there is a batch"))
    return made


@pytest.mark.sweep
@pytest.mark.parametrize(
    "offsets_in", [(), ("checkpoint",), ("elsewhere",)], ids=["tracked", "checkpoint", "elsewhere"]
)
def test_killed_at_any_write_and_run_again_it_ends_the_same(
    offsets_in: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = arranged(tmp_path / "lab", offsets_in, monkeypatch)
    undisturbed.fuse = Fuse(state=undisturbed.state)
    with undisturbed.fuse.lit():
        end(undisturbed)
    expected = undisturbed.record
    tried = kills(undisturbed.fuse)
    assert len(tried) >= 4

    for at, after in tried:
        lab = arranged(tmp_path / "lab", offsets_in, monkeypatch)
        lab.fuse = Fuse(at, after)
        with pytest.raises(Crash), lab.fuse.lit():
            end(lab)
        assert end(lab).done
        record = lab.record
        assert (record.phase, record.lease, record.cuts) == (Phase.STOPPED, None, expected.cuts)
        assert record.ended is not None
        assert record.ended.message == STATED
