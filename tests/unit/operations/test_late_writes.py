"""A task hangs between its note of a move and the write to the job's own store, and another one takes over.

The write then comes late, and what it leaves in the store is not the position of the job.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.epoch import EndedHow, ProcessIdentity
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.errors import StateChanged, TakenOver
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.lease import release_lease, take_lease
from airflow_provider_offsets.operations.planning import draft_plan
from airflow_provider_offsets.operations.renaming import release, rename
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from tests.unit.operations.lab import HERE, NAME, TOPIC, Crash, KeptElsewhere, Lab, install
from tests.unit.operations.steps import apply, launch, plan, stop, submit
from tests.unit.operations.test_known_positions import audited, kinds, rested, snapshot

LATE = ProblemKind.LATE_WRITE


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a stopped job that has read 100 of each partition, and 50 more records have come since."""
    return rested(install(Lab(tmp_path, offsets_in=("elsewhere",)), monkeypatch))


def claims_only(lab: Lab) -> None:
    """Make B's driver claim, before it has stored anything."""
    lab.driver.tick = lab.driver._claim  # type: ignore[method-assign]
    lab.driver.tick()


def write_late(lab: Lab, start: str, meanwhile: Any = claims_only) -> None:
    """Run the case: A hangs before its write, B takes over and launches at 100, something happens, A wakes up."""
    session, write = lab.session("second"), lab.kept.write
    made = draft_plan(session, start, RestartPolicy(accept_skipped={TOPIC: 100}))[0]
    assert made.problems == ()

    def late(stream: Any, position: Position, *, expected: Position | None) -> None:
        lab.kept.write = write  # type: ignore[method-assign]
        launch(lab, operation="B")
        meanwhile(lab)
        write(stream, position, expected=expected)

    lab.kept.write = late  # type: ignore[method-assign]
    with pytest.raises(TakenOver):
        apply_plan(session, made)


def died(lab: Lab) -> None:
    """Kill the driver; the next operation stops what is left."""
    lab.driver.die()
    stop(lab, "third", take_over=True)
    snapshot(lab, "third", day=3)


def go_on(lab: Lab, how: str, policy: RestartPolicy | None = None) -> Any:
    session = lab.session("third")
    made = draft_plan(session, how, policy or RestartPolicy())[0]
    assert made.problems == ()
    submit(lab, apply_plan(session, made), "third")
    for _ in range(3):
        lab.tick()
    return audited(lab)


@pytest.mark.parametrize(("start", "said"), [("shift:+50", 150), ("shift:-30", 70)], ids=["forward", "back"])
class TestTheJobHasStoredNothingYet:
    def test_the_next_plan_names_it(self, start: str, said: int, lab: Lab) -> None:
        write_late(lab, start)
        died(lab)

        made = plan(lab, "committed", "third")

        assert lab.kept.offsets == lab.at(said, said)
        assert kinds(made) == [LATE]
        assert "operation 'second' was taken over" in made.problems[0].message
        assert f"flights[0] was at least at 100 according to the launch of epoch 2, and elsewhere has {said}" in str(
            made.problems[0]
        )

    def test_the_way_out_that_is_named_leaves_nothing_out(self, start: str, said: int, lab: Lab) -> None:
        write_late(lab, start)
        died(lab)
        message = plan(lab, "committed", "third").problems[0].message
        way = re.findall(r"'(offsets:[^']+)'", message)[0]

        found = go_on(lab, way)

        assert lab.driver.settings.claim.start == lab.at(100, 100)
        assert (found.lost, found.skipped, found.replayed, found.unexplained) == (0, 0, 0, ())
        assert found.replayed_at_most <= 100, "what the job had read and not stored"
        assert lab.record.writes == (), "the plan has accounted for it"

    def test_what_the_store_says_is_a_skip_or_a_replay_by_name(self, start: str, said: int, lab: Lab) -> None:
        write_late(lab, start)
        died(lab)
        message = plan(lab, "committed", "third").problems[0].message
        way = re.findall(r"'(offsets:[^']+)'", message)[1]
        skipped = 2 * max(0, said - 100)

        found = go_on(lab, way, RestartPolicy(accept_skipped={TOPIC: skipped}))

        assert (found.lost, found.skipped, found.unexplained) == (0, skipped, ())
        assert found.replayed == 2 * max(0, 100 - said)

    def test_the_audit_does_not_take_it_for_the_job_s(self, start: str, said: int, lab: Lab) -> None:
        write_late(lab, start)
        died(lab)

        found = audited(lab)

        assert (found.lost, found.skipped, found.records, found.unexplained) == (0, 0, 200, ())


def test_a_job_may_begin_at_a_write_that_followed_its_launch(lab: Lab) -> None:
    """The job reads its start after A's write, and continues there: its own store does not show what it skipped."""
    write_late(lab, "shift:+20", lambda lab: None)
    lab.tick()
    lab.tick()
    died(lab)

    made = plan(lab, "committed", "third")

    assert lab.kept.offsets == lab.at(150, 150)
    assert kinds(made) == [LATE]
    assert "flights[0] was at least at 100 according to the launch of epoch 2" in made.problems[0].message
    assert go_on(lab, re.findall(r"'(offsets:[^']+)'", made.problems[0].message)[0]).lost == 0
    assert lab.driver.settings.claim.start == lab.at(100, 100)


class TestItComesBeforeTheLaunch:
    """A wakes up when B has planned, or applied, and has launched nothing yet."""

    @pytest.fixture
    def write(self, lab: Lab) -> Any:
        """Return what A is about to write when it hangs."""
        written, write = [], lab.kept.write
        made = draft_plan(lab.session("second"), "shift:+50", RestartPolicy(accept_skipped={TOPIC: 100}))[0]

        def hang(stream: Any, position: Position, *, expected: Position | None) -> None:
            written.append(lambda: write(stream, position, expected=expected))
            raise Crash("hangs")

        lab.kept.write = hang  # type: ignore[method-assign]
        with pytest.raises(Crash):
            apply_plan(lab.session("second"), made)
        lab.kept.write = write  # type: ignore[method-assign]
        return written[0]

    def test_nothing_is_launched_where_it_says(self, write: Any, lab: Lab) -> None:
        take_lease(lab.session("B"), take_over=True)
        applied = apply(lab, operation="B")
        write()

        with pytest.raises(StateChanged, match="authoritative store 'elsewhere' has"):
            submit(lab, applied, "B")

        assert len(lab.drivers) == 1

    def test_the_next_plan_goes_on_where_the_job_stood(self, write: Any, lab: Lab) -> None:
        take_lease(lab.session("B"), take_over=True)
        write()

        made = plan(lab, "committed", "B")

        assert (made.start, made.problems) == (lab.at(100, 100), ())


class TestNothingIsWrong:
    def test_a_job_that_has_stored_its_own_position_is_not_overwritten(self, lab: Lab) -> None:
        with pytest.raises(AssertionError):  # the refusal of the lab's store if the position is not the expected one
            write_late(lab, "shift:+20", lambda lab: (lab.tick(), lab.tick()))

        assert lab.kept.offsets == lab.at(150, 150)

    def test_a_snapshot_of_the_running_job_shows_that_the_job_reached_the_offsets(self, lab: Lab) -> None:
        def runs(lab: Lab) -> None:
            claims_only(lab)
            lab.kept.offsets = lab.at(130, 130)
            snapshot(lab, "watch", "running", day=2)
            lab.kept.offsets = lab.at(150, 150)
            raise Crash("A never wakes up")

        with pytest.raises(Crash):
            write_late(lab, "shift:+50", runs)
        died(lab)

        assert lab.record.writes != ()
        assert plan(lab, "committed", "third").problems == ()


def test_a_marker_that_a_submit_removes_late_is_placed_again(lab: Lab) -> None:
    """A try that found its launch unclaimed removes the marker, after another operation has stopped the job."""
    session = lab.session("B")
    launch(lab, operation="second")
    lab.driver.tick()
    asked = ask_to_stop(session, reason="", take_over=True)
    assert not isinstance(asked, StopResult)
    Path(lab.pipeline.stop.marker).unlink()

    stopped = await_stop(session, asked, replace(lab.stop, graceful_timeout_s=30))

    assert stopped.how == EndedHow.STOPPED.value


@pytest.mark.parametrize("act", [release, rename])
def test_another_store_does_not_show_that_it_never_happened(
    act: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release, or a rename whose pipelines.yaml also has another connection, does not open the store of the write."""
    writer = ProcessIdentity(HERE, "boot-1", 9999, 7)
    monkeypatch.setattr(lab.machine, "this_process", lambda: writer)
    lab.alive.add(writer)
    write_late(lab, "shift:+50")
    lab.alive.discard(writer)
    died(lab)
    release_lease(lab.session("third"))

    other = replace(lab.pipeline, name="other", group_id="apart" if act is release else lab.pipeline.group_id)
    act(Session(other, "op", lab.store, lab.kafka, {"elsewhere": KeptElsewhere(lab.fuse, lab.at(5, 5))}), NAME)

    session = lab.session("fourth")
    if act is rename:
        session = replace(session, pipeline=other)
    take_lease(session)
    assert kinds(draft_plan(session, "committed", RestartPolicy())[0]) == [LATE]
