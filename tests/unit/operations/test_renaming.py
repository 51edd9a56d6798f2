"""A pipeline gets another name: everything continues under the new name, and nothing ever acts under both."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.control.owners import owners_of
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Operation, ProcessIdentity
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.record.model import RECORD, PipelineRecord
from airflow_provider_offsets.core.replay.model import Interval, ReplayPlan, cut_shards
from airflow_provider_offsets.core.replay.shard import ClaimShard, LaunchShard, RecordShard, ShardRead, StartShard
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.errors import (
    Fenced,
    InputRefused,
    LeaseHeld,
    OffsetsError,
    PipelineRenamed,
    StateLost,
    StoreInUse,
)
from airflow_provider_offsets.operations import renaming
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import release_lease, take_lease
from airflow_provider_offsets.operations.ownership import claim_own
from airflow_provider_offsets.operations.planning import draft_plan, make_plan
from airflow_provider_offsets.operations.renaming import Renaming, plan_release, plan_rename, release, rename
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.stopping import ask_to_stop
from airflow_provider_offsets.operations.submitting import submit_job
from tests.unit.operations import steps
from tests.unit.operations.lab import HERE, NAME, TOPIC, Crash, Driver, Fuse, FusedStore, Lab, Moment, install

NEW = "alerts"


def under(lab: Lab, name: str, operation: str = "rename") -> Session:
    """Return a session of the pipeline as pipelines.yaml has it after its name was changed there."""
    pipeline = replace(lab.pipeline, name=name, group_id=lab.pipeline.group_id)
    return Session(pipeline, operation, FusedStore(lab.store, lab.fuse), lab.kafka)  # type: ignore[arg-type]


def apart(pipeline: StreamingPipeline) -> StreamingPipeline:
    """Return the pipeline with a checkpoint and a group of its own."""
    return replace(pipeline, group_id="apart", job=replace(pipeline.job, checkpoint=f"{pipeline.job.checkpoint}-apart"))


def another(lab: Lab, name: str) -> Session:
    """Return a session of a pipeline with a record, which now uses the checkpoint of another pipeline."""
    session = under(lab, name, "release")
    own = replace(session, pipeline=apart(session.pipeline), operation="earlier")
    take_lease(own)
    release_lease(own)
    return replace(session, pipeline=replace(session.pipeline, group_id="apart"))


def stopped(lab: Lab) -> None:
    """Run two epochs, take a snapshot, stop the job, and release the operation's lease."""
    steps.start(lab, operation="first")
    lab.session("first").take_snapshot("before", reason="", taken_at="2026-01-01T00:00:00Z", label="good")
    steps.stop(lab, "second")
    steps.submit(lab, steps.apply(lab, "shift:-30", "second"), "second")
    for _ in range(3):
        lab.tick()
    steps.stop(lab, "third")
    release_lease(lab.session("third"))


def cells(lab: Lab, name: str) -> dict[str, str]:
    return {cell: text for cell, text in lab.store.scan(name, "") if cell != RECORD}


def record(lab: Lab, name: str) -> PipelineRecord:
    text = lab.store.get(name, RECORD)
    assert text is not None
    return codec.loads(PipelineRecord, text)


def run_on(lab: Lab, name: str) -> None:
    """Start the job under a name, and run it until it has read more."""
    session = under(lab, name, "next")
    session.control.open_operation(Operation("next", "maintenance", "a test"))
    ask_to_stop(session, reason="a test")
    plan = make_plan(session, "committed", RestartPolicy())
    lab.feed(10)
    submit_job(session, apply_plan(session, plan), lab.launcher)
    lab.tick()


def test_everything_goes_on_under_the_new_name(lab: Lab) -> None:
    stopped(lab)
    before = cells(lab, NAME)

    planned = plan_rename(under(lab, NEW), NAME)
    assert planned == Renaming(NAME, NEW, epoch=2, cells=len(before), done=False)
    assert cells(lab, NEW) == {}, "nothing is changed by looking"
    done = rename(under(lab, NEW), NAME)

    assert done == replace(planned, done=True)
    assert before.items() <= cells(lab, NEW).items()
    run_on(lab, NEW)
    session = under(lab, NEW, "audit")
    assert session.control.named_snapshot("good").position == lab.at(100, 100)
    report = audit_history(session)
    assert (report.lost, report.replayed, report.unexplained) == (0, 60, ())
    now = record(lab, NEW)
    assert (now.epoch, now.incarnation) == (3, record(lab, NAME).incarnation)
    assert rename(under(lab, NEW), NAME).done, "done again it changes nothing"
    assert record(lab, NEW) == now


@pytest.mark.parametrize(
    ("what", "act"),
    [
        ("an operation", lambda lab: steps.stop(lab, "fourth", take_over=True)),
        ("a plan", lambda lab: steps.plan(lab)),
        ("an audit", lambda lab: audit_history(lab.session("audit"))),
        ("a look", lambda lab: lab.control.record()),
    ],
)
def test_an_error_under_the_old_name_names_the_new_one(what: str, act: Callable[[Lab], object], lab: Lab) -> None:
    stopped(lab)
    rename(under(lab, NEW), NAME)

    with pytest.raises(PipelineRenamed, match=f"'{NEW}'"):
        act(lab)


def test_a_driver_that_comes_late_under_the_old_name_is_fenced(lab: Lab) -> None:
    """Its launch was made before the rename, which cancelled it."""
    steps.rest(lab)
    applied = steps.apply(lab, operation="second")

    def killed(driver: Driver) -> None:
        raise Crash

    lab.on_launch = killed
    with pytest.raises(Crash):
        steps.submit(lab, applied, "second")
    rename(under(lab, NEW), NAME, take_over=True)

    lab.tick()

    assert not lab.driver.epoch
    assert not lab.driver.is_alive


def test_it_can_get_its_old_name_back(lab: Lab) -> None:
    stopped(lab)
    rename(under(lab, NEW), NAME)
    run_on(lab, NEW)
    lab.driver.die()

    rename(under(lab, NAME, "back"), NEW, take_over=True)

    assert record(lab, NAME).epoch == 3
    assert record(lab, NAME).version > record(lab, NEW).version
    report = audit_history(under(lab, NAME, "audit"))
    assert (report.lost, report.unexplained) == (0, ())
    with pytest.raises(PipelineRenamed):
        under(lab, NEW).control.record()


def test_one_that_never_ran_is_renamed_too(lab: Lab) -> None:
    take_lease(lab.session("op"))

    assert rename(under(lab, NEW), NAME, take_over=True).epoch == 0


class TestRefused:
    def refuse(self, lab: Lab, kind: type[OffsetsError], *, take_over: bool = False, **more: str) -> str:
        before = dict(lab.store.scan(NAME, "")), dict(lab.store.scan(NEW, ""))
        session = under(lab, NEW)
        if more:
            session = replace(session, pipeline=replace(session.pipeline, **more))  # type: ignore[arg-type]
        with pytest.raises(kind) as refused:
            rename(session, NAME, take_over=take_over)
        assert (dict(lab.store.scan(NAME, "")), dict(lab.store.scan(NEW, ""))) == before
        return str(refused.value)

    def test_the_job_runs(self, lab: Lab) -> None:
        steps.start(lab)

        assert "Epoch 1 of pipeline 'delay_alerts' is running, or may be running" in self.refuse(lab, StoreInUse)

    def test_an_operation_is_at_work(self, lab: Lab) -> None:
        steps.rest(lab)

        assert "set take_over" in self.refuse(lab, LeaseHeld)
        assert rename(under(lab, NEW), NAME, take_over=True).done

    def test_there_is_no_such_pipeline(self, lab: Lab) -> None:
        assert "No pipeline 'delay_alerts'" in self.refuse(lab, InputRefused)

    def test_the_new_name_is_taken(self, lab: Lab) -> None:
        stopped(lab)
        under(lab, NEW).cell.create()

        assert "'alerts' already has a record" in self.refuse(lab, InputRefused)

    def test_another_pipeline_had_the_new_name(self, lab: Lab) -> None:
        """The other pipeline's epochs and snapshots still exist, and would be taken for those of this pipeline."""
        for name, former in ((NEW, ""), ("elsewhere", NEW)):
            other = under(lab, name, "other")
            other = replace(other, pipeline=apart(other.pipeline))
            take_lease(other) if not former else rename(other, former, take_over=True)
        stopped(lab)

        assert "'alerts' already has a record, of epoch 0, and was renamed to 'elsewhere'" in self.refuse(
            lab, InputRefused
        )

    def test_the_history_is_kept_under_another_group(self, lab: Lab) -> None:
        """The group of a pipeline that names none is its name."""
        stopped(lab)

        assert "Add group_id: delay_alerts" in self.refuse(lab, InputRefused, group_id=NEW)

    @pytest.mark.parametrize("old", [NEW, "", "a b"])
    def test_a_name_that_cannot_be_meant(self, old: str, lab: Lab) -> None:
        with pytest.raises(InputRefused, match="'airflow offsets rename OLD NEW'"):
            rename(under(lab, NEW), old)

    def test_it_has_a_third_name(self, lab: Lab) -> None:
        stopped(lab)
        rename(under(lab, "third"), NAME)

        assert "Run 'airflow offsets rename third alerts" in self.refuse(lab, PipelineRenamed)

    def test_it_has_gone_on_to_a_third_name_since(self, lab: Lab) -> None:
        """The first rename is requested again: the second name is not restored beside the third one."""
        stopped(lab)
        rename(under(lab, NEW), NAME)
        run_on(lab, NEW)
        lab.driver.die()
        rename(under(lab, "third"), NEW, take_over=True)

        assert "'alerts', which was then renamed to 'third'" in self.refuse(lab, PipelineRenamed)

    def test_a_replay_runs(self, lab: Lab) -> None:
        stopped(lab)
        replays = launch_shard(lab)
        replays.change_shard(RUN, 0, ClaimShard("tag", DRIVER))
        lab.alive.add(DRIVER)

        assert f"Shard 0 of '{RUN}' is being replayed" in self.refuse(lab, StoreInUse)
        lab.alive.discard(DRIVER)
        assert rename(under(lab, NEW), NAME).done


RUN = "backfill/run#v#1"
DRIVER = ProcessIdentity(HERE, "boot-1", 999, 7)


def launch_shard(lab: Lab) -> ReplayControl:
    """Launch a shard, as a task of a backfill does; the driver waits in a queue."""
    shards = cut_shards(lab.at(0, 0), lab.at(10, 10), records_per_shard=100, max_shards=9)
    replays = ReplayControl(lab.store, NAME)
    replays.record_plan(
        "backfill/run",
        ReplayPlan(
            NAME, "backfill/run", RUN, 1, "k", Interval(0, 1), lab.at(0, 0), lab.at(10, 10), shards, "job.py", "v"
        ),
    )
    replays.change_shard(RUN, 0, LaunchShard("tag", "ranges", "v", ""))
    return replays


class TestABackfillMeanwhile:
    """Nobody would count what the backfill wrote under the old name."""

    def test_a_launch_that_nobody_claimed_is_cancelled_under_both_names(self, lab: Lab) -> None:
        stopped(lab)
        launch_shard(lab)
        rename(under(lab, NEW), NAME)

        for name in (NAME, NEW):
            with pytest.raises(Fenced, match="the launch was cancelled"):
                ReplayControl(lab.store, name).change_shard(RUN, 0, ClaimShard("tag", DRIVER))

    def test_a_driver_that_begins_in_this_very_moment_is_fenced(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopped(lab)
        replays = ReplayControl(lab.store, NAME)
        give_up = renaming._give_up_name

        def driver_is_faster(*arguments: Any, **more: Any) -> PipelineRecord:
            launch_shard(lab)
            replays.change_shard(RUN, 0, ClaimShard("tag", DRIVER))
            replays.change_shard(RUN, 0, StartShard("tag", DRIVER, "call"))
            return give_up(*arguments, **more)

        monkeypatch.setattr(renaming, "_give_up_name", driver_is_faster)
        rename(under(lab, NEW), NAME)

        with pytest.raises(Fenced):
            replays.change_shard(RUN, 0, RecordShard("tag", DRIVER, "call", ShardRead(20)))
        assert ReplayControl(lab.store, NEW).shard(RUN, 0).started == 1, "the call that was cut off is still known"


def test_a_slow_try_does_not_put_back_what_changed_under_the_new_name(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another try has finished the rename, and a backfill continues under the new name."""
    stopped(lab)
    launch_shard(lab)
    copy = renaming._copy_cells

    def another_is_faster(session: Session, old: str) -> None:
        copy(session, old)
        if lab.control.cell.read().renamed_to:  # type: ignore[union-attr]
            monkeypatch.setattr(renaming, "_copy_cells", copy)
            rename(under(lab, NEW, "another"), NAME)
            ReplayControl(lab.store, NEW).change_shard(RUN, 0, LaunchShard("later", "ranges", "v", ""))
            copy(session, old)

    monkeypatch.setattr(renaming, "_copy_cells", another_is_faster)
    rename(under(lab, NEW), NAME)

    newest = ReplayControl(lab.store, NEW).shard(RUN, 0).newest
    assert newest is not None
    assert newest.tag == "later"


@pytest.mark.sweep
@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("state", ["stopped", "dead"])
def test_killed_at_any_write_nobody_acts_under_both_names_and_the_next_run_finishes_it(
    state: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before_it_is_renamed() -> Moment:
        with monkeypatch.context() as patch:
            lab = Lab(tmp_path / "lab")
            lab.wipe()
            install(lab, patch)
            if state == "stopped":
                stopped(lab)
            else:
                steps.start(lab)
                lab.driver.die()
            lab.kafka.append(TOPIC, 0, 1)
            return Moment(lab)

    def attempt(k: int) -> Fuse:
        with monkeypatch.context() as patch:
            fuse = Fuse(k, after)
            lab = install(moment.copy(fuse), patch)
            try:
                with fuse.lit():
                    rename(under(lab, NEW), NAME)
            except Crash:
                may_act = [each for each in (NAME, NEW) if acts(lab, each)]
                assert len(may_act) <= 1, f"killed {'after' if after else 'before'} write {k}"
                rename(under(lab, NEW), NAME)
            assert not acts(lab, NAME)
            run_on(lab, NEW)
            report = audit_history(under(lab, NEW, "audit"))
            assert (report.lost, report.unexplained) == (0, ())
        return fuse

    moment = before_it_is_renamed()
    kills = 0
    for k in itertools.count(1):
        if not attempt(k).is_blown:
            break
        kills += 1
    assert kills >= 8


def acts(lab: Lab, name: str) -> bool:
    """Return whether an operation that takes the pipeline over may act on it under a name."""
    session = under(lab, name, "somebody")
    try:
        draft_plan(session, "committed", session.pipeline.policy)
        before = session.cell.read()
        take_lease(session, take_over=True)
    except (StateLost, PipelineRenamed):
        return False
    if before is None:
        raise AssertionError("a record was created under a name that has a history")
    release_lease(session)
    return True


class TestOwned:
    """What the pipeline uses belongs to one name, from the first operation on."""

    def test_a_new_name_is_refused_before_anything_is_written(self, lab: Lab) -> None:
        take_lease(lab.session("op"))

        for act in (take_lease, lambda session: draft_plan(session, "committed", RestartPolicy()), audit_history):
            with pytest.raises(StateLost, match=f"run 'airflow offsets rename {NAME} {NEW}'"):
                act(under(lab, NEW))
        assert cells(lab, NEW) == {}
        assert lab.store.get(NEW, RECORD) is None

    def test_two_pipelines_may_not_use_the_same_folder_in_two_spellings(self, lab: Lab) -> None:
        take_lease(lab.session("op"))
        session = under(lab, NEW)
        session = replace(session, pipeline=apart(session.pipeline))
        take_lease(session)
        folder = f"file://{lab.pipeline.job.checkpoint}//"
        session = replace(
            session, pipeline=replace(session.pipeline, job=replace(session.pipeline.job, checkpoint=folder))
        )

        with pytest.raises(StateLost, match="two pipelines, give one of them another checkpoint or group_id"):
            take_lease(session)

    def test_a_launch_is_refused_that_another_pipeline_was_faster_to_claim(self, lab: Lab) -> None:
        """The submit task may have read another pipelines.yaml than the stop task."""
        take_lease(lab.session("op"))
        applied = steps.apply(lab)
        lab.store._control.pop(("_all", "owners"))
        take_lease(under(lab, "other"))

        with pytest.raises(StateLost):
            steps.submit(lab, applied)
        assert lab.drivers == []

    @pytest.mark.parametrize("goes_on", [True, False])
    def test_a_first_operation_killed_after_its_claim_goes_on_or_is_renamed(self, goes_on: bool, lab: Lab) -> None:
        lab.fuse = Fuse(1, after=True)
        session = lab.session("op")
        with lab.fuse.lit(), pytest.raises(Crash):
            take_lease(session)
        assert lab.store.get(NAME, RECORD) is None
        with pytest.raises(StateLost):
            take_lease(under(lab, NEW))

        if goes_on:
            assert take_lease(lab.session("op")).lease is not None
            return
        assert plan_rename(under(lab, NEW), NAME).epoch == 0
        assert rename(under(lab, NEW), NAME).done
        assert take_lease(under(lab, NEW)).epoch == 0


class TestRenamedAgain:
    """A rename is killed before it hands over, and the pipeline is renamed again before that rename is repeated."""

    @pytest.fixture
    def third(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Session:
        """Return a session of the pipeline under its third name."""

        def killed(*_: Any) -> None:
            raise Crash

        stopped(lab)
        with monkeypatch.context() as patch:
            patch.setattr(renaming, "_hand_over", killed)
            with pytest.raises(Crash):
                rename(under(lab, NEW), NAME)
        return under(lab, "third")

    def test_it_owns_what_each_earlier_name_owned(self, third: Session, lab: Lab) -> None:
        assert rename(third, NEW).done

        assert owners_of(lab.store, third.pipeline.resources) == dict.fromkeys(third.pipeline.resources, "third")
        run_on(lab, "third")
        with pytest.raises(PipelineRenamed):
            take_lease(lab.session("op"))

    def test_so_does_one_whose_second_rename_was_killed_too(
        self, third: Session, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(renaming, "hand_over", lambda *_, **__: None)
            rename(third, NEW)
        with pytest.raises(StateLost, match=f"rename {NAME} third"):
            take_lease(third)
        with pytest.raises(PipelineRenamed, match=f"rename {NEW} third"):
            rename(third, NAME)

        assert rename(third, NEW).done
        run_on(lab, "third")

    def test_what_another_pipeline_owns_stays_there(self, third: Session, lab: Lab) -> None:
        other = another(lab, "other")
        release(other, NAME)
        take_lease(other)

        assert rename(third, NEW).done
        with pytest.raises(StateLost, match="which pipeline 'other' owns"):
            take_lease(third)

    def test_a_name_that_was_given_up_releases_what_it_owns(self, third: Session, lab: Lab) -> None:
        other, resource = another(lab, "other"), f"checkpoint {lab.pipeline.job.checkpoint}"

        assert plan_release(other, NAME) == (resource,)
        assert release(other, NAME) == (resource,)
        assert take_lease(other).lease is not None


class TestReleased:
    """A pipeline no longer uses what it owns, and another pipeline shall use it."""

    @pytest.fixture
    def user(self, lab: Lab) -> Session:
        return another(lab, NEW)

    def test_a_pipeline_releases_nothing_for_itself(self, user: Session) -> None:
        with pytest.raises(InputRefused, match="'airflow offsets release OWNER PIPELINE'"):
            plan_release(user, NEW)

    def test_it_is_released_once_the_job_is_stopped(self, lab: Lab, user: Session) -> None:
        stopped(lab)
        with pytest.raises(StateLost, match=f"run 'airflow offsets release {NAME} {NEW}'"):
            take_lease(user)
        resource = f"checkpoint {lab.pipeline.job.checkpoint}"

        assert plan_release(user, NAME) == (resource,)
        with pytest.raises(StateLost):
            take_lease(user)
        assert release(user, NAME) == (resource,)
        assert release(user, NAME) == ()

        assert take_lease(user).lease is not None
        with pytest.raises(StateLost, match=f"which pipeline '{NEW}' owns"):
            take_lease(lab.session("op"))

    def test_a_running_job_keeps_what_it_uses(self, lab: Lab, user: Session) -> None:
        steps.start(lab)

        for act in (plan_release, release):
            with pytest.raises(StoreInUse, match="Epoch 1 of pipeline 'delay_alerts' is running"):
                act(user, NAME)
        with pytest.raises(StateLost):
            take_lease(user)

    def test_an_operation_of_the_owner_at_work_keeps_it(self, lab: Lab, user: Session) -> None:
        steps.rest(lab)

        with pytest.raises(LeaseHeld):
            release(user, NAME)
        assert release(user, NAME, take_over=True)
        assert lab.holder == ""

    def test_a_claim_without_a_record_is_released(self, lab: Lab, user: Session) -> None:
        claim_own(lab.session("op"))

        assert release(user, NAME)
        assert take_lease(user).lease is not None
