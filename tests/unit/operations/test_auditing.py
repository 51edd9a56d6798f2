"""The audit of a pipeline counts recorded rows and launches with their outcomes, and ignores foreign rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry
from airflow_provider_offsets.core.audit.report import DiscontinuityKind
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import AskToStop, StartBatch
from airflow_provider_offsets.core.record.model import StartedBatch
from airflow_provider_offsets.core.snapshot import WHEN_STOPPED
from airflow_provider_offsets.errors import DriverDied, DriverSilent, StateLost
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.lease import close_and_reconcile, take_lease
from airflow_provider_offsets.operations.session import Session
from tests.unit.operations import steps
from tests.unit.operations.lab import Lab, install

CUT_OFF = DiscontinuityKind.CUT_OFF


def begin_batch(lab: Lab) -> None:
    """Make the driver begin batch 1, which reads 50 offsets of each partition, and stop there."""
    lab.driver.begin(Batch(lab.at(150, 150), 1001, 1, "query-1", lab.driver.epoch, lab.at(100, 100)))


class TestOfficialRows:
    def test_a_batch_is_in_it_before_its_row_is(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its driver recorded it, and died before it wrote the row."""
        steps.start(lab)
        lab.feed(50)
        monkeypatch.setattr(lab.store, "append", lambda stream, batch: batch)
        swap = lab.store.swap
        monkeypatch.setattr(lab.store, "swap", lambda *a, append=None, **more: swap(*a, **more))
        lab.tick()
        rows = list(lab.store.oldest_first(lab.pipeline.stream))

        report = audit_history(lab.session("audit"))

        assert len(rows) == 1
        assert (report.batches, report.records, report.lost, report.unexplained) == (2, 300, 0, ())

    def test_what_a_job_records_meanwhile_is_left_out(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows of an epoch that began after the epochs were read would look like those of a foreign writer."""
        steps.start(lab)
        oldest_first = lab.store.oldest_first

        def restarted_meanwhile(*arguments: Any, **more: Any) -> Iterator[Batch]:
            monkeypatch.setattr(lab.store, "oldest_first", oldest_first)
            steps.stop(lab)
            steps.submit(lab, steps.apply(lab, "shift:-10"))
            lab.feed(10)
            lab.tick()
            lab.tick()
            yield from oldest_first(*arguments, **more)

        monkeypatch.setattr(lab.store, "oldest_first", restarted_meanwhile)
        first = audit_history(lab.session("audit"))
        second = audit_history(lab.session("audit"))

        assert (first.batches, first.unexplained) == (1, ())
        assert (second.batches, second.replayed, second.unexplained) == (3, 20, ())

    def test_rows_that_the_record_does_not_know_are_no_progress(self, lab: Lab) -> None:
        """The control store was restored from a backup, or another pipeline writes the history."""
        steps.start(lab)
        lab.store.append(lab.pipeline.stream, Batch(lab.at(150, 150), 9000, 7, "query-9", 5, lab.at(100, 100), 9000))

        assert audit_history(lab.session("audit")).unexplained_count == 100

    @pytest.mark.parametrize("change", [{"topics": ("returns",)}, {"group_id": "other"}], ids=["topics", "group_id"])
    def test_the_rows_of_an_epoch_belong_to_the_stream_of_its_launch(self, change: dict[str, Any], lab: Lab) -> None:
        """Somebody changed group or topics in ``pipelines.yaml``; another job has rows under the new ones."""
        steps.rest(lab)
        lab.kafka.create_topic("returns", partitions=1)
        edited = replace(lab.session("audit"), pipeline=replace(lab.pipeline, **change))
        end = Position({TopicPartition(edited.pipeline.topics[0], 0): 7})
        lab.store.append(edited.pipeline.stream, Batch(end, 9000))

        report = audit_history(edited)

        assert (report.batches, report.records, report.lost, report.unexplained) == (1, 200, 0, ())


class TestStartedBatch:
    @pytest.mark.parametrize(
        ("state", "at_most"),
        [
            ("running", 0),
            ("dead, and nobody has accounted for it", 0),
            ("ended, and nobody has accounted for it", 100),
            ("stopped", 100),
        ],
    )
    def test_it_is_cut_off_once_its_epoch_has_ended(self, state: str, at_most: int, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(50)
        begin_batch(lab)
        if state.startswith("dead"):
            lab.driver.die()
        elif state != "running":
            lab.driver.end(EndedHow.FAILED)
        if state == "stopped":
            steps.stop(lab)

        report = audit_history(lab.session("audit"))

        assert (report.replayed_at_most, report.lost, report.unexplained) == (at_most, 0, ())

    def test_it_is_counted_once_for_each_start(self, lab: Lab) -> None:
        """A program that calls stream.run() again after a failed query runs the batch twice in one epoch."""
        steps.start(lab)
        lab.feed(50)
        batch = Batch(lab.at(150, 150), 1001, 1, "query-1", 1, lab.at(100, 100))
        for run in ("run-1", "run-2"):
            placed = lab.driver.begin(batch, run)
        lab.driver.record(placed, "run-2")

        report = audit_history(lab.session("audit"))

        assert (report.batches, report.replayed_at_most, report.replayed, report.unexplained) == (2, 100, 0, ())


class TestNativeSink:
    """Under ``sink=`` a batch begins before Spark plans it: only the checkpoint has its ranges."""

    def begin(self, lab: Lab, run: str = "run-1") -> None:
        claim, cell = lab.driver.settings.claim, lab.driver.cell
        cell.change(StartBatch(claim.tag, lab.driver.process, StartedBatch(1, "query-1", 1001, run)))

    def plan(self, lab: Lab, *, committed: bool) -> None:
        """Make Spark plan batch 1, of 50 offsets of each partition, and write it."""
        checkpoint = open_checkpoint(lab.driver.settings.claim.checkpoint)
        entry = LogEntry({"batchWatermarkMs": 0, "batchTimestampMs": 1001, "conf": {}}, (lab.at(150, 150),))
        checkpoint.create("offsets/1", entry.to_text())
        if committed:
            checkpoint.create("commits/1", 'v1\n{"nextBatchWatermarkMs":0}')

    @pytest.mark.parametrize("is_resumed", [False, True], ids=["at once", "by the driver that resumed it"])
    def test_what_spark_committed_and_nobody_recorded_is_no_loss(self, is_resumed: bool, lab: Lab) -> None:
        """The driver died between commits/1 and the record: whoever accounts for its epoch records the batch."""
        steps.start(lab)
        lab.feed(50)
        self.begin(lab)
        self.plan(lab, committed=not is_resumed)
        if is_resumed:
            lab.driver.end(EndedHow.FAILED)
            steps.stop(lab, "op")
            lab.on_launch = lambda driver: driver._claim()
            lab.clock.on_tick = lambda: None
            with pytest.raises(DriverSilent):
                steps.submit(lab, steps.apply(lab))
            self.begin(lab, "run-2")
            self.plan(lab, committed=True)
        lab.driver.end(EndedHow.FAILED)

        before = audit_history(lab.session("audit"))
        steps.stop(lab, "next", take_over=True)
        after = audit_history(lab.session("audit"))

        assert (before.batches, before.lost, before.unexplained) == (1, 0, ())
        assert (after.batches, after.records, after.lost, after.unexplained) == (2, 300, 0, ())
        assert after.replayed_at_most == (100 if is_resumed else 0), "the first driver may have written it too"

    def test_what_was_never_planned_is_no_cut(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(50)
        self.begin(lab)
        lab.driver.end(EndedHow.FAILED)

        before = audit_history(lab.session("audit"))
        steps.stop(lab)
        after = audit_history(lab.session("audit"))

        assert before == after
        assert after.replayed_at_most == 0

    def test_without_its_checkpoint_all_that_it_could_have_read_is_named(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(50)
        self.begin(lab)
        lab.driver.end(EndedHow.FAILED)
        shutil.rmtree(lab.driver.settings.claim.checkpoint)

        before = audit_history(lab.session("audit"))
        steps.stop(lab)
        after = audit_history(lab.session("audit"))

        assert [each.replayed_at_most for each in (before, after)] == [100, 100]
        assert {each.kind for each in after.discontinuities} == {CUT_OFF}


def test_a_launch_that_nobody_claimed_announces_nothing(lab: Lab) -> None:
    """A rewind was planned and launched; its driver died before its claim, and another operation resumed the job."""
    steps.start(lab)
    steps.stop(lab)
    lab.on_launch = lambda driver: driver.die("SyntaxError")
    with pytest.raises(DriverDied):
        steps.submit(lab, steps.apply(lab, "shift:-50"))
    lab.on_launch = lambda driver: None
    steps.stop(lab, "next")
    steps.submit(lab, steps.apply(lab, operation="next"), "next")
    lab.feed(10)
    lab.tick()

    report = audit_history(lab.session("audit"))

    assert (report.replayed, report.skipped, report.lost, report.unexplained) == (0, 0, 0, ())


class TestRenamed:
    """The history is stored by group and topics, epochs by the pipeline's name."""

    def renamed(self, lab: Lab) -> Session:
        session = lab.session("audit")
        return replace(session, pipeline=replace(session.pipeline, name="alerts", group_id=lab.pipeline.group_id))

    def test_a_history_without_a_record_is_refused_with_a_way_out(self, lab: Lab) -> None:
        steps.start(lab)

        with pytest.raises(StateLost, match=r"airflow offsets rename delay_alerts alerts"):
            audit_history(self.renamed(lab))

    def test_rows_of_a_job_without_epochs_need_none(self, lab: Lab) -> None:
        lab.store.append(lab.pipeline.stream, Batch(lab.at(40, 40), 2))

        assert audit_history(self.renamed(lab)).cloudera_rows == 1


class TestUntracked:
    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        lab = install(Lab(tmp_path / "lab", offsets_in=("checkpoint",)), monkeypatch)
        lab.wipe()
        return lab

    def maintain(self, lab: Lab, operation: str, start: str = "committed") -> None:
        steps.stop(lab, operation, take_over=True)
        lab.session(operation).take_snapshot(WHEN_STOPPED, reason="", taken_at="2026-01-01T00:00:00Z")
        steps.submit(lab, steps.apply(lab, start, operation), operation)

    def read(self, lab: Lab, count: int) -> None:
        lab.feed(count)
        for _ in range(3):
            lab.tick()

    def test_a_run_that_is_cleared_after_another_one_is_an_attempt_of_its_own(self, lab: Lab) -> None:
        """It once used the first attempt's snapshot of the stopped job, and called everything read since then lost."""
        steps.start(lab)
        self.maintain(lab, "one")
        self.read(lab, 50)
        self.maintain(lab, "two")
        self.read(lab, 50)
        self.maintain(lab, "one@2")
        self.read(lab, 50)

        report = audit_history(lab.session("audit"))

        assert (report.batches, report.lost, report.replayed, report.unexplained) == (4, 0, 0, ())

    def test_a_snapshot_of_another_moment_is_not_gone_by(self, lab: Lab) -> None:
        """The same problem in a record of an earlier release, which let an operation come back after another one."""
        steps.start(lab)
        self.maintain(lab, "one")
        self.read(lab, 50)
        self.maintain(lab, "two")
        self.read(lab, 50)
        one = lab.session("one")
        take_lease(one, take_over=True)
        one.cell.change(AskToStop("one", "", lab.clock.now_ms()))
        lab.driver.die()
        close_and_reconcile(one)
        steps.submit(lab, steps.apply(lab, operation="one"), "one")
        self.read(lab, 50)

        report = audit_history(lab.session("audit"))

        assert (report.lost, report.replayed, report.unexplained) == (0, 0, ())

    def test_a_launch_that_nobody_claimed_is_no_epoch(self, lab: Lab) -> None:
        steps.start(lab)
        self.read(lab, 10)
        steps.stop(lab, "op")
        lab.on_launch = lambda driver: driver.die("SyntaxError")
        with pytest.raises(DriverDied):
            steps.submit(lab, steps.apply(lab, "shift:-50"))
        lab.on_launch = lambda driver: None
        self.maintain(lab, "next")
        self.read(lab, 10)

        report = audit_history(lab.session("audit"))

        assert (report.batches, report.lost, report.replayed, report.unexplained) == (2, 0, 0, ())

    def test_under_another_name_it_is_refused_with_a_way_out(self, lab: Lab) -> None:
        """It has no rows, but its checkpoint belongs to the previous name."""
        steps.start(lab)
        self.maintain(lab, "one")
        session = lab.session("audit")

        renamed = replace(session, pipeline=replace(session.pipeline, name="archive"))

        for act in (audit_history, take_lease):
            with pytest.raises(StateLost, match="airflow offsets rename delay_alerts archive"):
                act(renamed)
