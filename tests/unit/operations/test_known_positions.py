"""A missing position that the pipeline's records know: cases B1 to B3, and the planning half of A9.

From the loss to the audit: the plan refuses, each way out that it names is taken, and the audit is compared with it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry, read_state
from airflow_provider_offsets.core.audit.report import AuditReport
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPlan, RestartPolicy
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED
from airflow_provider_offsets.errors import DriverSilent
from airflow_provider_offsets.operations.applying import apply_plan
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import take_lease
from airflow_provider_offsets.operations.planning import draft_plan
from airflow_provider_offsets.testing import FakeKafka
from tests.unit.operations.lab import TOPIC, Lab, install
from tests.unit.operations.steps import apply, plan, start, stop, submit

GONE, SKIP = ProblemKind.POSITION_GONE, ProblemKind.SKIP
KINDS = [pytest.param(("checkpoint",), id="in its checkpoint"), pytest.param(("elsewhere",), id="elsewhere")]
DAY = "2026-11-{:02}T00:00:00Z"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda offsets_in=(), **more: install(Lab(tmp_path, offsets_in=offsets_in, **more), monkeypatch)


def snapshot(lab: Lab, operation: str = "second", moment: str = WHEN_STOPPED, day: int = 1) -> None:
    lab.session(operation).take_snapshot(moment, reason="", taken_at=DAY.format(day))


def rested(lab: Lab) -> Lab:
    """Return a job that has read 100 records of both partitions and was stopped; 50 more have come since."""
    start(lab)
    for _ in range(3):
        lab.tick()
    stop(lab, "second")
    snapshot(lab)
    lab.feed(50)
    return lab


def lose(lab: Lab) -> None:
    """Lose the position, by expiry of the group's offsets or by removal of the folder."""
    lab.kept.offsets = None
    shutil.rmtree(lab.folder / "checkpoint", ignore_errors=True)


def write_checkpoint(lab: Lab, ends: list[Position], committed: int) -> None:
    """Write the checkpoint of an unmanaged job with this many planned and committed batches."""
    folder = lab.folder / "checkpoint"
    files = {"metadata": '{"id":"query-0"}', "sources/0/0": f"\0v1\n{lab.at(0, 0).to_json()}"}
    for number, end in enumerate(ends):
        metadata = {"batchWatermarkMs": 0, "batchTimestampMs": 1000 + number, "conf": {}}
        files[f"offsets/{number}"] = LogEntry(metadata, (end,)).to_text()
        if number < committed:
            files[f"commits/{number}"] = 'v1\n{"nextBatchWatermarkMs":0}'
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def kinds(made: RestartPlan) -> list[ProblemKind]:
    return [problem.kind for problem in made.problems]


def audited(lab: Lab) -> AuditReport:
    return audit_history(lab.session("audit"))


def go_on(lab: Lab, how: str, policy: RestartPolicy | None = None) -> AuditReport:
    """Plan, apply, submit, read all records, and audit."""
    session = lab.session("second")
    planned = draft_plan(session, how, policy or RestartPolicy())[0]
    assert planned.problems == ()
    submit(lab, apply_plan(session, planned), "second")
    for _ in range(3):
        lab.tick()
    assert lab.session().observe().stored == lab.at(150, 150)
    return audited(lab)


class TestB1ThePositionIsGone:
    @pytest.fixture(params=KINDS)
    def lab(self, request: pytest.FixtureRequest, make: Any) -> Lab:
        made = rested(make(request.param))
        lose(made)
        return made

    @pytest.mark.parametrize(
        ("how", "skipped", "replay"),
        [
            ("committed", 0, 200),
            ("committed | latest", 100, 0),
            ("committed | earliest", 0, 200),
            ("shift:-10 | latest", 100, 0),
        ],
    )
    def test_neither_a_first_start_nor_a_fallback_takes_its_place(
        self, how: str, skipped: int, replay: int, lab: Lab
    ) -> None:
        made = plan(lab, how, "third")

        assert kinds(made) == [GONE, *([SKIP] if skipped else [])]
        assert (
            "flights[0] was at 100 according to snapshot second#stopped of 2026-11-01T00:00:00Z"
            in made.problems[0].message
        )
        assert (made.skipped, made.replay) == (skipped, replay)

    @pytest.mark.parametrize("which", [0, 1], ids=["the offsets", "the snapshot"])
    def test_the_way_out_that_is_named_goes_on_exactly_there(self, which: int, lab: Lab) -> None:
        message = plan(lab, "committed | latest", "third").problems[0].message
        way = re.findall(r"'([^']+)'", message.partition("To continue there")[2])[which]

        found = go_on(lab, way)

        assert (found.lost, found.skipped, found.replayed, found.unexplained) == (0, 0, 0, ())

    def test_all_again_is_counted_and_explained(self, lab: Lab) -> None:
        found = go_on(lab, "earliest")

        assert (found.lost, found.skipped, found.replayed, found.unexplained) == (0, 0, 200, ())

    def test_the_end_by_name_and_count_is_a_skip(self, lab: Lab) -> None:
        refused = plan(lab, "latest", "third")
        found = go_on(lab, "latest", RestartPolicy(accept_skipped={TOPIC: 100}))

        assert kinds(refused) == [SKIP]
        assert (found.lost, found.skipped, found.replayed, found.unexplained) == (0, 100, 0, ())

    def test_a_snapshot_that_is_taken_after_the_loss_hides_nothing(self, lab: Lab) -> None:
        """Each maintenance takes a snapshot before it plans."""
        snapshot(lab, "third", "before", day=2)

        assert kinds(plan(lab, "committed | latest", "third")) == [GONE, SKIP]


class TestB1IsGoneBeforeTheJobIsStopped:
    """The snapshot of the stopped job finds no position; a snapshot of the running job has the latest known one."""

    @pytest.fixture(params=[True, False], ids=["with a snapshot of the stopped job", "without one"])
    def lab(self, request: pytest.FixtureRequest, make: Any) -> Lab:
        lab: Lab = make(("elsewhere",))
        start(lab)
        for _ in range(3):
            lab.tick()
        snapshot(lab, "second", "before")
        stop(lab, "second")
        lose(lab)
        if request.param:
            snapshot(lab, "second", day=2)
        lab.feed(50)
        return lab

    def test_the_audit_goes_by_what_is_known(self, lab: Lab) -> None:
        before = audited(lab)
        found = go_on(lab, "snapshot:second#before")

        assert (before.lost, before.records) == (0, 200)
        assert (found.lost, found.replayed, found.unexplained) == (0, 0, ())
        assert found.replayed_at_most <= 100, "it may have read on until it was stopped"

    def test_what_is_read_again_is_announced(self, lab: Lab) -> None:
        found = go_on(lab, "earliest")

        assert (found.lost, found.replayed, found.unexplained) == (0, 200, ())


class TestB1BeforeTheFirstStart:
    """Only snapshots know the job: this provider has never started it."""

    def test_an_untracked_job(self, make: Any) -> None:
        lab = make(("checkpoint",))
        write_checkpoint(lab, [lab.at(100, 100)], 1)
        snapshot(lab, "by hand", "by-hand")
        lab.feed(50)
        lose(lab)

        made = plan(lab, "committed | latest")

        assert kinds(made) == [GONE, SKIP]
        assert "was at least at 100 according to snapshot by hand#by-hand" in made.problems[0].message
        assert plan(lab, "snapshot:by hand#by-hand").problems == ()
        assert plan(lab, "snapshot:by hand#by-hand").replay_at_most == 100, "it ran on since, nobody knows how far"

    def test_a_job_that_is_tracked_from_now_on(self, make: Any) -> None:
        lab = make()
        write_checkpoint(lab, [lab.at(100, 100)], 1)
        snapshot(lab, "by hand")
        lab.feed(50)
        lose(lab)

        assert kinds(plan(lab, "committed | latest")) == [GONE, SKIP]
        assert kinds(plan(lab, "committed")) == [GONE]
        assert plan(lab, "snapshot:by hand#stopped").start == lab.at(100, 100)

        take_lease(lab.session("second"))
        found = go_on(lab, "latest", RestartPolicy(accept_skipped={TOPIC: 100}))
        lab.feed(10)
        lab.tick()

        assert (found.lost, audited(lab).lost, audited(lab).skipped) == (0, 0, 100)
        assert audited(lab).unexplained == ()

    def test_nothing_is_known_so_a_fallback_is_a_first_start(self, make: Any) -> None:
        lab = make(("checkpoint",))
        snapshot(lab, "by hand", "by-hand")

        assert plan(lab, "committed | latest").problems == ()


class TestB2PartOfThePositionIsGone:
    def test_one_partition(self, make: Any) -> None:
        lab = rested(make(("elsewhere",)))
        lab.kept.offsets = lab.at(100)

        made = plan(lab, operation="third")

        assert kinds(made) == [GONE]
        assert "flights[1] was at 100 according to snapshot second#stopped" in made.problems[0].message
        assert made.replay == 100
        found = go_on(lab, "committed | snapshot:second#stopped")
        assert (found.lost, found.replayed, found.unexplained) == (0, 0, ())

    def test_one_topic_and_another_store_knows_it(self, make: Any) -> None:
        """The commits of one of two topics were deleted by Kafka's own tool; a store of the job still has them."""
        lab = make(("checkpoint", "elsewhere"))
        write_checkpoint(lab, [lab.at(100)], 1)
        lab.kept.offsets = lab.at(100, 70)

        policy = RestartPolicy(on_conflict=OnConflict.AUTHORITATIVE_STORE)
        made = draft_plan(lab.session(), "committed", policy)[0]

        assert kinds(made) == [GONE]
        assert "flights[1] was at 70 according to store elsewhere" in made.problems[0].message

    def test_a_tracked_job_whose_rows_and_facts_are_gone(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """It happens when HBase has expired all cells of a table that was given a time to live."""
        lab = rested(make())
        monkeypatch.setattr(lab.store, "prepared", lambda stream, row_time_ms: None)
        monkeypatch.setattr(lab.store, "newest_first", lambda stream, **more: iter(()))

        made = plan(lab, "committed", "third")

        assert kinds(made) == [GONE]
        assert "history does not show how far epoch 1 has read 2 partition(s)" in made.problems[0].message
        assert "was at 100 according to" in made.problems[0].message
        assert plan(lab, "snapshot:second#stopped", "third").problems == ()


class TestB3TheTopicIsAnother:
    @pytest.fixture
    def lab(self, make: Any) -> Lab:
        lab: Lab = make(("elsewhere",))
        lab.kept.offsets = lab.at(40, 40)
        snapshot(lab, "yesterday")
        return lab

    def test_a_recreated_topic_that_only_a_snapshot_tells_of(self, lab: Lab) -> None:
        lab.kafka.recreate_topic(TOPIC, 2)
        lab.feed(100)

        made = plan(lab)

        assert kinds(made) == [ProblemKind.TOPIC_RECREATED]
        assert "according to snapshot yesterday#stopped" in made.problems[0].message

    def test_the_snapshot_of_the_maintenance_itself_proves_nothing(self, lab: Lab) -> None:
        lab.kafka.recreate_topic(TOPIC, 2)
        lab.feed(100)
        snapshot(lab, "op", "before", day=2)

        assert kinds(plan(lab)) == [ProblemKind.TOPIC_RECREATED]

    def test_without_its_stored_offsets_the_topic_is_a_first_start(self, lab: Lab) -> None:
        lab.kafka.recreate_topic(TOPIC, 2)
        lab.feed(100)
        lab.kept.offsets = None

        made = plan(lab)

        assert (made.problems, made.start) == ((), lab.at(0, 0))
        assert kinds(plan(lab, "committed | latest")) == [SKIP]

    def test_another_cluster_that_only_a_snapshot_tells_of(self, lab: Lab) -> None:
        lab.kafka = FakeKafka("other-cluster")
        lab.kafka.create_topic(TOPIC, partitions=2)
        lab.feed(100)

        assert kinds(plan(lab)) == [ProblemKind.WRONG_CLUSTER]

    def test_a_snapshot_that_tells_nothing_is_removed_as_the_problem_says(self, lab: Lab) -> None:
        lab.kafka.recreate_topic(TOPIC, 2)
        lab.feed(100)
        [problem] = plan(lab).problems
        found = re.search(r"--pipeline (\S+) --snapshot (\S+) --apply", problem.message)
        assert found is not None

        lab.control.remove_snapshot(found[2])

        assert found[1] == lab.pipeline.name
        assert plan(lab).problems == ()


class TestA9ABatchFromBeforeTheJobWasTracked:
    """The job's former driver was killed in batch 1, and then the program was given ``TrackedStream``."""

    @pytest.fixture
    def lab(self, make: Any) -> Lab:
        lab: Lab = make()
        write_checkpoint(lab, [lab.at(40, 60), lab.at(50, 70)], 1)
        return lab

    def test_it_may_be_partly_in_the_output(self, lab: Lab) -> None:
        made = plan(lab)

        assert (made.problems, made.start) == ((), lab.at(40, 60))
        assert made.replay_at_most == 20

    def test_it_still_may_after_a_driver_that_began_nothing(self, lab: Lab) -> None:
        lab.on_launch = lambda driver: setattr(driver, "tick", driver._claim)
        with pytest.raises(DriverSilent):
            start(lab)
        lab.driver.die()
        stop(lab, "second", take_over=True)

        assert plan(lab, operation="second").replay_at_most == 20

    def test_it_still_may_where_only_a_snapshot_knows_it(self, lab: Lab) -> None:
        snapshot(lab)
        lose(lab)

        start(lab, "snapshot:second#stopped", "third")
        stop(lab, "third")

        assert audited(lab).replayed_at_most == 20

    def test_once_it_is_recorded_it_is_not_in_flight(self, lab: Lab) -> None:
        start(lab)
        stop(lab, "second")

        made = plan(lab, operation="second")

        assert (made.replay_at_most, made.problems) == (0, ())
        assert audited(lab).replayed_at_most == 20

    def test_a_batch_that_a_tracked_driver_has_planned_and_not_started_is_not_in_flight(self, make: Any) -> None:
        lab = rested(make())
        planned = LogEntry({"batchWatermarkMs": 0, "batchTimestampMs": 1001, "conf": {}}, (lab.at(150, 150),))
        (lab.folder / "checkpoint" / "offsets" / "1").write_text(planned.to_text())

        made = plan(lab, operation="second")

        assert made.seen.planned_batch_id == 1
        assert made.replay_at_most == 0

    def test_a_job_that_was_managed_untracked_goes_on_in_its_checkpoint(self, make: Any) -> None:
        lab = rested(make(("checkpoint",)))
        lab.more = {}
        lab.offsets_in = ()

        made = plan(lab, operation="third")

        assert (made.problems, made.start, made.replay) == ((), lab.at(100, 100), 0)


@pytest.mark.parametrize("committed", [1, 2], ids=["killed in batch 1", "stopped after batch 1"])
@pytest.mark.parametrize("offsets_in", [(), ("checkpoint",)], ids=["tracked", "untracked"])
def test_no_batch_id_is_used_again_once_the_checkpoint_of_an_existing_job_is_gone(
    make: Any, offsets_in: tuple[str, ...], committed: int
) -> None:
    lab = make(offsets_in)
    write_checkpoint(lab, [lab.at(40, 60), lab.at(50, 70)], committed)
    snapshot(lab)
    stood = lab.session().observe().stored
    lose(lab)
    take_lease(lab.session("third"))

    applied = apply(lab, "snapshot:second#stopped", "third")

    state = read_state(open_checkpoint(applied.checkpoint))
    assert state is not None
    assert (state.committed_batch_id, state.planned_batch_id) == (committed - 1, committed)
    assert state.committed == state.planned == stood


def test_where_the_stores_tell_all_no_snapshot_is_read(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be hundreds of snapshots with thousands of partitions each, and sensors check every minute."""
    lab = rested(make())

    def read(control: Any) -> Any:
        raise AssertionError("snapshots were read")

    monkeypatch.setattr("airflow_provider_offsets.control.pipeline.Control.snapshots", read)
    lab.session("look").observe()


def test_apply_is_held_against_what_the_plan_knew(make: Any) -> None:
    lab = rested(make(("elsewhere",)))
    lose(lab)

    applied = apply(lab, "snapshot:second#stopped", "second")

    assert applied.plan.stood == lab.at(100, 100)
    assert lab.kept.offsets == lab.at(100, 100)


class TestB2TheNewestRowIsGone:
    """An older row of the same epoch is left, but neither the facts nor the checkpoint of the newest batch."""

    @pytest.mark.parametrize("how", ["committed", "committed | latest"])
    def test_the_older_row_is_not_the_position_that_the_job_reached(
        self, how: str, make: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab = make()
        start(lab)
        lab.tick()
        lab.feed(50)
        lab.tick()
        stop(lab, "second")
        snapshot(lab)
        gone_ms = lab.batches[-1].row_time_ms
        prepared, store = lab.store.prepared, lab.store
        monkeypatch.setattr(
            store, "prepared", lambda of, time_ms: None if time_ms == gone_ms else prepared(of, time_ms)
        )
        for name in ("newest_first", "oldest_first"):
            monkeypatch.setattr(store, name, without(gone_ms, getattr(store, name)))
        shutil.rmtree(lab.folder / "checkpoint")

        assert kinds(plan(lab, how, "third")) == [GONE]


def without(row_time_ms: int | None, read: Any) -> Any:
    """Return a reader of a history that omits one of its rows."""
    return lambda stream, **bounds: (row for row in read(stream, **bounds) if row.row_time_ms != row_time_ms)
