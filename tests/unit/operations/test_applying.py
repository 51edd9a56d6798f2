"""A plan is applied only to the state for which it was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import committed_entry, read_state
from airflow_provider_offsets.checkpoint.seed import close
from airflow_provider_offsets.core.restart.model import RestartForm, RestartPlan, RestartPolicy
from airflow_provider_offsets.errors import InputRefused, PlanRefused, SelectorError, StateChanged, TakenOver
from airflow_provider_offsets.operations import applying
from airflow_provider_offsets.operations.applying import apply_plan, recorded_application
from airflow_provider_offsets.operations.lease import LEASE_TIMEOUT_S, release_lease, take_lease
from airflow_provider_offsets.operations.planning import make_plan, recorded_plan
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab
from tests.unit.operations.test_crash import checkpoints


@pytest.fixture
def stopped(lab: Lab) -> None:
    """Run a job until it has read 100 of each partition, and stop it by ``op``."""
    steps.start(lab, operation="first")
    steps.stop(lab, "op")


def another_epoch(lab: Lab) -> None:
    """Take the pipeline over by another operation that starts it, stop it, and take it back."""
    steps.stop(lab, "other", take_over=True)
    steps.submit(lab, steps.apply(lab, operation="other"), "other")
    steps.stop(lab, "third")
    take_lease(lab.session("op"), take_over=True)


def another_operation(lab: Lab) -> None:
    """Take the pipeline over by another operation that changes nothing visible, and take it back."""
    take_lease(lab.session("other"), take_over=True)
    release_lease(lab.session("other"))
    take_lease(lab.session("op"))


def another_topic(lab: Lab) -> None:
    lab.kafka.recreate_topic(TOPIC, 2)


def another_planned_batch(lab: Lab) -> None:
    checkpoint = open_checkpoint(lab.pipeline.job.checkpoint)
    entry = committed_entry(checkpoint)
    assert entry is not None
    checkpoint.create("offsets/1", entry.to_text())


def another_commit(lab: Lab) -> None:
    another_planned_batch(lab)
    open_checkpoint(lab.pipeline.job.checkpoint).create("commits/1", "v1\n{}")


def closed_by_another(lab: Lab) -> None:
    close(open_checkpoint(lab.pipeline.job.checkpoint), "other")


def gone(lab: Lab) -> None:
    for file in Path(lab.pipeline.job.checkpoint).rglob("*/*"):
        if file.is_file():
            file.unlink()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (another_epoch, "epoch was 1 and is 2"),
        (another_operation, r"generation was \d+ and is \d+"),
        (another_topic, "identity was .*fake-topic-id-1.* and is .*fake-topic-id-2"),
        (another_planned_batch, "planned_batch_id was None and is 1"),
        (another_commit, "committed_batch_id was 0 and is 1"),
        (closed_by_another, "closed_by was None and is 'other'"),
        (gone, "checkpoint was '.*checkpoint' and is None"),
    ],
)
@pytest.mark.parametrize("start", ["committed", "shift:-30"])
def test_what_changed_since_the_plan_is_named_and_nothing_is_written(
    start: str, change: Callable[[Lab], None], named: str, stopped: None, lab: Lab
) -> None:
    plan = steps.plan(lab, start)
    change(lab)
    before = checkpoints(lab.folder)

    with pytest.raises(StateChanged, match=named):
        apply_plan(lab.session(), plan)

    assert checkpoints(lab.folder) == before
    assert recorded_application(lab.session()) is None


def test_records_that_come_meanwhile_are_no_change(stopped: None, lab: Lab) -> None:
    plan = steps.plan(lab)
    lab.feed(1000)

    assert apply_plan(lab.session(), plan).plan == plan


def test_a_plan_that_waits_for_a_person_is_no_change(stopped: None, lab: Lab) -> None:
    """The plan's lease is old, and nobody has taken it: the approval took hours."""
    plan = steps.plan(lab)
    lab.clock.now += 10 * LEASE_TIMEOUT_S

    assert apply_plan(lab.session(), plan).plan == plan
    assert lab.record.lease is not None
    assert lab.record.lease.acted_at_ms == lab.clock.now_ms(), "from here on it is at work again"


def test_a_job_that_runs_is_not_given_another_start(lab: Lab) -> None:
    steps.start(lab, operation="first")
    take_lease(lab.session())
    plan = steps.plan(lab, "shift:-30")
    before = checkpoints(lab.folder)

    with pytest.raises(StateChanged, match=r"Pipeline 'delay_alerts' is running.*StopStreamingJobOperator"):
        apply_plan(lab.session(), plan)

    assert checkpoints(lab.folder) == before


@pytest.mark.parametrize(
    ("why", "start", "problem"),
    [
        ("unread records would be skipped", "shift:+10", "skip"),
        ("nothing is there to read from", 'offsets:{"flights":{"0":900}}', "offset past the end"),
    ],
)
def test_a_plan_with_problems_cannot_be_applied(why: str, start: str, problem: str, stopped: None, lab: Lab) -> None:
    lab.feed(50)
    plan = steps.plan(lab, start)
    before = checkpoints(lab.folder)

    with pytest.raises(PlanRefused, match=problem) as refused:
        apply_plan(lab.session(), plan)

    assert refused.value.problems == plan.problems
    assert checkpoints(lab.folder) == before
    assert recorded_application(lab.session()) is None


class TestForms:
    def test_resume_touches_no_file(self, stopped: None, lab: Lab) -> None:
        before = checkpoints(lab.folder)

        applied = steps.apply(lab)

        assert applied.plan.form is RestartForm.RESUME
        assert applied.checkpoint == lab.pipeline.job.checkpoint
        assert checkpoints(lab.folder) == before

    def test_reposition_seeds_a_folder_of_its_plan_and_closes_the_old_one(self, stopped: None, lab: Lab) -> None:
        """A job that knows no record may still run on the old folder, or be started there by hand."""
        before = checkpoints(lab.folder)

        applied = steps.apply(lab, "shift:-30")

        assert applied.checkpoint == f"{lab.pipeline.job.checkpoint}-{applied.plan.fingerprint}"
        old, new = (read_state(open_checkpoint(each)) for each in (lab.pipeline.job.checkpoint, applied.checkpoint))
        assert old is not None
        assert new is not None
        assert {name: text for name, text in checkpoints(lab.folder).items() if name in before} == before
        assert (new.committed, new.closed_by, new.query_id) == (lab.at(70, 70), None, old.query_id)
        assert (new.committed_batch_id, new.planned_batch_id) == (old.committed_batch_id, old.committed_batch_id + 1)
        assert (old.committed, old.closed_by) == (lab.at(100, 100), "op")

    def test_fresh_leaves_the_folder_to_spark(self, lab: Lab) -> None:
        take_lease(lab.session())

        applied = steps.apply(lab)

        assert applied.plan.form is RestartForm.FRESH
        assert applied.checkpoint == lab.pipeline.job.checkpoint
        assert checkpoints(lab.folder) == {}

    def test_the_position_moves_when_the_launch_is_claimed_and_not_before(self, stopped: None, lab: Lab) -> None:
        """Applied, but never started: the next plan counts the replayed records from the end of the output."""
        steps.apply(lab, "shift:-30")

        assert lab.session().observe().stored == lab.at(100, 100)
        assert steps.apply(lab, "shift:-40").plan.replay == 80

    def test_applied_twice_it_is_the_same(self, stopped: None, lab: Lab) -> None:
        plan = steps.plan(lab, "shift:-30")

        first = apply_plan(lab.session(), plan)
        content = checkpoints(lab.folder)

        assert apply_plan(lab.session(), plan) == first == recorded_application(lab.session())
        assert checkpoints(lab.folder) == content

    def test_once_the_job_runs_it_is_what_was_applied(self, stopped: None, lab: Lab) -> None:
        """The task is cleared and run again after the submit."""
        plan = steps.plan(lab, "shift:-30")
        applied = apply_plan(lab.session(), plan)
        steps.submit(lab, applied)

        assert apply_plan(lab.session(), plan) == applied


class TestClosing:
    """The checkpoint that a tracked job leaves."""

    def test_a_start_further_on_closes_it_too(self, stopped: None, lab: Lab) -> None:
        lab.feed(50)
        plan = make_plan(lab.session(), "shift:+10", RestartPolicy(accept_skipped={TOPIC: 20}))

        apply_plan(lab.session(), plan)

        assert closer(lab.pipeline.job.checkpoint) == "op"

    def test_the_one_that_the_job_ran_on_is_closed_wherever_the_yaml_now_says(self, stopped: None, lab: Lab) -> None:
        left = lab.pipeline.job.checkpoint
        lab.checkpoint = str(lab.folder / "another")
        steps.apply(lab, "shift:-30")

        assert closer(left) == "op"

    def test_a_resume_of_the_same_operation_is_refused_then(self, stopped: None, lab: Lab) -> None:
        """A late try with an older plan: the checkpoint that it would resume is closed."""
        resume = steps.plan(lab)
        steps.apply(lab, "shift:-30")

        with pytest.raises(StateChanged, match="closed_by was None and is 'op'"):
            apply_plan(lab.session(), resume)

    def test_a_batch_that_is_planned_meanwhile_is_planned_around(
        self, stopped: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = steps.plan(lab, "shift:-30")
        monkeypatch.setattr(applying, "require_lease", lambda *arguments: another_planned_batch(lab))

        with pytest.raises(StateChanged, match="offsets/1 appeared while the checkpoint was closed"):
            apply_plan(lab.session(), plan)

        assert closer(lab.pipeline.job.checkpoint) is None
        assert recorded_application(lab.session()) is None

    def test_a_batch_that_is_committed_meanwhile_is_counted_by_the_next_plan(
        self, stopped: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        another_planned_batch(lab)
        plan = steps.plan(lab, "shift:-30")
        monkeypatch.setattr(applying, "require_lease", lambda *arguments: another_commit(lab))

        with pytest.raises(StateChanged, match="committed_batch_id was 0 and is 1"):
            apply_plan(lab.session(), plan)

        assert recorded_application(lab.session()) is None
        assert steps.apply(lab, "shift:-30").plan.last_batch_id == 1

    def test_who_has_lost_the_lease_closes_nothing(
        self, stopped: None, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = steps.plan(lab, "shift:-30")
        seed = applying.seed

        def seed_and_be_taken_over(*arguments: Any, **more: Any) -> int:
            following = seed(*arguments, **more)
            take_lease(lab.session("other"), take_over=True)
            return following

        monkeypatch.setattr(applying, "seed", seed_and_be_taken_over)

        with pytest.raises(TakenOver):
            apply_plan(lab.session(), plan)
        assert closer(lab.pipeline.job.checkpoint) is None

    def test_the_next_operation_goes_on_from_the_position_in_it(self, stopped: None, lab: Lab) -> None:
        steps.apply(lab, "shift:-30")
        take_lease(lab.session("next"), take_over=True)

        plan = steps.plan(lab, operation="next")

        assert (plan.form, plan.start, plan.problems) == (RestartForm.REPOSITION, lab.at(100, 100), ())


def closer(location: str) -> str | None:
    state = read_state(open_checkpoint(location))
    assert state is not None
    return state.closed_by


class TestPlanning:
    def test_the_plan_is_kept_with_its_operation(self, lab: Lab) -> None:
        plan = steps.plan(lab)

        assert recorded_plan(lab.session()) == plan
        assert recorded_plan(lab.session("other")) is None

    def test_planned_again_the_newest_one_counts(self, lab: Lab) -> None:
        steps.rest(lab)
        first, second = steps.plan(lab, "shift:-30"), steps.plan(lab, "shift:-10")

        assert first.fingerprint != second.fingerprint
        assert recorded_plan(lab.session()) == second

    def test_once_the_job_runs_it_is_the_plan_that_started_it(self, lab: Lab) -> None:
        take_lease(lab.session())
        started_by: RestartPlan = steps.plan(lab)
        steps.submit(lab, apply_plan(lab.session(), started_by))

        assert steps.plan(lab) == started_by
        with pytest.raises(InputRefused, match="Start 'earliest' was given"):
            steps.plan(lab, "earliest")

    def test_after_its_launch_was_cancelled_it_is_planned_again(self, stopped: None, lab: Lab) -> None:
        steps.launch(lab, "shift:-30", "op")
        steps.stop(lab, "other", take_over=True)

        assert steps.plan(lab, "shift:-10").start == lab.at(90, 90)

    @pytest.mark.parametrize("start", ["", "comitted", "offsets:", "shift:x", "newest", "earliest | newest"])
    def test_a_selector_that_cannot_be_read_leaves_no_plan(self, start: str, lab: Lab) -> None:
        with pytest.raises(SelectorError):
            steps.plan(lab, start)

        assert recorded_plan(lab.session()) is None

    def test_planning_changes_nothing_but_its_own_record(self, lab: Lab) -> None:
        steps.start(lab)
        before = checkpoints(lab.folder)
        cells = dict(lab.store.scan(lab.pipeline.name, ""))

        steps.plan(lab, "shift:-30")

        assert checkpoints(lab.folder) == before
        after = dict(lab.store.scan(lab.pipeline.name, ""))
        assert {name for name in after if after[name] != cells.get(name)} == {"operation/op"}
