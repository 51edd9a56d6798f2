"""The crash law: a task that is killed at any write and run again ends as a run that nobody killed.

Tasks are killed before and directly after each write: to the control store, to a checkpoint, and of the driver's
settings. They are killed at the launch too, whose driver then is an orphan that nobody has recorded.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPlan, RestartPolicy
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.operations.applying import Applied, apply_plan, recorded_application
from airflow_provider_offsets.operations.planning import make_plan, recorded_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from airflow_provider_offsets.operations.submitting import submit_job
from tests.unit.operations.lab import Crash, Fuse, Lab, Moment, install, kills

Step = Callable[[Lab, Session], Any]


@dataclass(frozen=True)
class Story:
    """A chain of steps that leads to one kind of restart."""

    form: RestartForm
    start: str
    ran_before: bool = True
    offsets_in: tuple[str, ...] = ()


STORIES = {
    "tracked, first start": Story(RestartForm.FRESH, "committed", ran_before=False),
    "tracked, goes on": Story(RestartForm.RESUME, "committed"),
    "tracked, rewound": Story(RestartForm.REPOSITION, "shift:-30"),
    "checkpoint, first start": Story(RestartForm.FRESH, "committed", ran_before=False, offsets_in=("checkpoint",)),
    "checkpoint, goes on": Story(RestartForm.RESUME, "committed", offsets_in=("checkpoint",)),
    "checkpoint, rewound": Story(RestartForm.REPOSITION, "shift:-30", offsets_in=("checkpoint",)),
    "elsewhere, first start": Story(RestartForm.WRITE, "committed", ran_before=False, offsets_in=("elsewhere",)),
    "elsewhere, goes on": Story(RestartForm.RESUME, "committed", offsets_in=("elsewhere",)),
    "elsewhere, rewound": Story(RestartForm.WRITE, "shift:-30", offsets_in=("elsewhere",)),
}


def stop(lab: Lab, session: Session) -> None:
    asked = ask_to_stop(session, reason="")
    if not isinstance(asked, StopResult):
        await_stop(session, asked, lab.pipeline.stop)


def plan(start: str) -> Step:
    return lambda lab, session: make_plan(session, start, RestartPolicy())


def snapshot(label: str) -> Step:
    return lambda lab, session: session.take_snapshot(label, reason="", taken_at="2026-01-01T00:00:00Z")


def apply(lab: Lab, session: Session) -> None:
    planned = recorded_plan(session)
    assert planned is not None
    apply_plan(session, planned)


def submit(lab: Lab, session: Session) -> None:
    applied = recorded_application(session)
    assert applied is not None
    submit_job(session, applied, lab.launcher)


def chain(start: str) -> list[tuple[str, Step]]:
    """Return the steps of the maintenance DAG, by name."""
    return [
        ("snapshot_before", snapshot("before")),
        ("plan", plan(start)),
        ("stop", stop),
        ("snapshot_stopped", snapshot("stopped")),
        ("replan", plan(start)),
        ("apply", apply),
        ("submit", submit),
    ]


def ran_before(lab: Lab) -> None:
    """Make the pipeline run a first epoch with batches, and add records that nobody has read yet."""
    for _, step in chain("committed"):
        step(lab, lab.session("first"))
    lab.feed(50)


@dataclass
class Told:
    """A story that nobody killed, with what it takes to tell it again from each of its steps on."""

    story: Story
    writes: Fuse = field(default_factory=Fuse)
    before_step: list[tuple[int, Moment]] = field(default_factory=list)
    """The writes before each step, and the lab at that time."""
    end: dict[str, Any] = field(default_factory=dict)


def tell(story: Story, lab: Lab) -> Told:
    """Run the chain undisturbed, after what ran before."""
    if story.ran_before:
        ran_before(lab)
    told = Told(story, Fuse(state=lab.state))
    lab.fuse = told.writes
    for _, step in chain(story.start):
        told.before_step.append((told.writes.writes, Moment(lab)))
        with told.writes.lit():
            step(lab, lab.session())
    run_until_idle(lab)
    assert not lab.had_two_drivers, "up to a kill, it does not matter which driver acts first"
    told.end = end_state(lab)
    return told


def tell_killed(told: Told, k: int, after: bool, newest_first: bool, patch: pytest.MonkeyPatch) -> tuple[Lab, str]:
    """Run the chain from the step with the write ``k`` on, run that step again, and return the lab and the step."""
    first = max(number for number, (writes, _) in enumerate(told.before_step) if writes < k)
    writes, moment = told.before_step[first]
    crash = Fuse(k, after, writes=writes)
    lab = install(moment.copy(crash), patch)
    lab.newest_first = newest_first
    [(killed, step), *rest] = chain(told.story.start)[first:]
    with pytest.raises(Crash), crash.lit():
        step(lab, lab.session())
    for _, each in [(killed, step), *rest]:
        each(lab, lab.session())
    run_until_idle(lab)
    return lab, killed


def run_until_idle(lab: Lab) -> None:
    """Wait until the drivers have read all records; a slow orphan attempts its claim too."""
    for _ in range(4):
        lab.tick()


def end_state(lab: Lab) -> dict[str, Any]:
    """Return everything in which two end states may differ for a person, without launch numbers and processes."""
    operation = lab.control.operation("op")
    assert operation is not None
    planned, applied = lab.control.step("op", "plan", RestartPlan), lab.control.step("op", "applied", Applied)
    return {
        "epochs": [anonymous(epoch) for epoch in lab.control.epochs()],
        "batches": list(lab.store.oldest_first(lab.pipeline.stream)),
        "checkpoints": checkpoints(lab.folder),
        "kept elsewhere": lab.kept.offsets,
        "steps": sorted(operation.steps),
        "plan": planned,
        "applied": applied,
        "snapshots": [timeless(lab.control.snapshot(f"op#{moment}")) for moment in ("before", "stopped")],
        "drivers that live": len(lab.alive),
    }


def anonymous(epoch: Epoch) -> Epoch:
    before = epoch.claim.recorded_before
    return replace(
        epoch,
        claim=replace(epoch.claim, tag="", scratch="", recorded_before=before and replace(before, tag="")),
        holder=epoch.holder and replace(epoch.holder, pid=0),
        claimed_at_ms=0,
        ended=epoch.ended and replace(epoch.ended, at_ms=0, message=""),
    )


def timeless(snapshot: Snapshot) -> Snapshot:
    """Return the state without the time at which somebody saw a job dead: it differs between equal ends."""
    seen = snapshot.seen
    return replace(snapshot, seen=replace(seen, epoch=seen.epoch and anonymous(seen.epoch)), checksum="")


def checkpoints(folder: Path) -> dict[str, str]:
    """Return every file of every checkpoint folder by its path, without temporary files of a killed writer."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for root in folder.glob("checkpoint*")
        for file in sorted(root.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }


def fresh_lab(folder: Path, story: Story) -> Lab:
    """Return a lab in the same folder for every run: the folder's name is part of plans, and so of fingerprints."""
    made = Lab(folder, offsets_in=story.offsets_in)
    made.wipe()
    return made


@pytest.fixture(scope="module")
def tell_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Story], Told]:
    folder = tmp_path_factory.mktemp("stories") / "lab"

    @functools.cache
    def told(story: Story) -> Told:
        with pytest.MonkeyPatch.context() as patch:
            return tell(story, install(fresh_lab(folder, story), patch))

    return told


@pytest.mark.sweep
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_a_task_killed_at_any_write_and_run_again_ends_the_same(
    story: Story, tell_once: Callable[[Story], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a kill leaves an orphan, it claims before its twin in one run, and after it in another."""

    def attempt(k: int, after: bool, newest_first: bool = False) -> tuple[Lab, str]:
        with monkeypatch.context() as patch:
            return tell_killed(told, k, after, newest_first, patch)

    told = tell_once(story)
    expected = told.end
    assert expected["applied"].plan.form is story.form, (
        "the test of the test: the chain leads to the form it is named after"
    )
    assert expected["drivers that live"] == 1
    killed_in: list[str] = []
    orphans = 0
    for k, after in kills(told.writes):
        lab, name = attempt(k, after)
        killed_in.append(name)
        assert end_state(lab) == expected, f"killed {name!r} {'after' if after else 'before'} its write {k}"
        if lab.had_two_drivers:
            orphans += 1
            lab, _ = attempt(k, after, newest_first=True)
            assert end_state(lab) == expected, f"killed {name!r} at its write {k}, and the orphan claims last"
    assert set(killed_in) == {name for name, _ in chain("")}
    assert killed_in.count("submit") >= 4, "opening the operation, the settings, the launch, its record"
    assert orphans == 1, "a kill between the launch and its record, and no other, leaves an orphan"


KILLS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12)


@settings(max_examples=25, deadline=None)
@given(story=st.sampled_from(list(STORIES.values())), kills=KILLS, newest_first=st.booleans())
def test_killed_again_and_again_it_ends_the_same(
    story: Story, kills: list[tuple[int, bool]], newest_first: bool, tell_once: Callable[[Story], Told]
) -> None:
    """Each try of a step uses the next of ``kills``, until they are used up."""
    told, left = tell_once(story), list(kills)
    with pytest.MonkeyPatch.context() as patch:
        lab = install(told.before_step[0][1].copy(), patch)
        lab.newest_first = newest_first
        for _, step in chain(story.start):
            while True:
                lab.fuse = Fuse(*left.pop(0)) if left else Fuse()
                try:
                    with lab.fuse.lit():
                        step(lab, lab.session())
                    break
                except Crash:
                    continue
        run_until_idle(lab)
        assert end_state(lab) == told.end


def test_a_driver_that_nobody_recorded_leaves_no_twin(lab: Lab) -> None:
    """The task is killed between launch and record: two drivers were launched then, and one epoch was claimed."""
    fuse = Fuse()
    for name, step in chain("committed"):
        if name == "submit":
            writes = ["claim", "launch in the record", "settings", "launch", "step"]
            fuse = lab.fuse = Fuse(at=2 + writes.index("launch"), after=True)
        try:
            with fuse.lit():
                step(lab, lab.session())
        except Crash:
            step(lab, lab.session())
    run_until_idle(lab)

    assert fuse.is_blown
    assert len(lab.drivers) == 2
    assert len(lab.alive) == 1
    assert len(list(lab.control.epochs())) == 1
    batches = list(lab.store.oldest_first(lab.pipeline.stream))
    assert [batch.epoch for batch in batches] == [1]
    assert json.loads(batches[0].end.to_json()) == {"flights": {"0": 100, "1": 100}}
