"""How an operation observes a pipeline: in which order it reads, and whose rows it ignores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.core.audit.report import DiscontinuityKind
from airflow_provider_offsets.core.audit.window import AuditWindow, Bound
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import KafkaUnreachable, StateChanged, StoreDataError, TopicMissing
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.session import Session
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab


def zombie_writes(lab: Lab) -> None:
    """Make the driver of epoch 1 continue after epoch 2 was claimed, and record what it had read."""
    batch = Batch(lab.at(900, 900), 9000, 77, "query-1", 1, lab.at(100, 100))
    lab.store.append(lab.pipeline.stream, batch)


class TestZombies:
    @pytest.fixture(autouse=True)
    def second_epoch(self, lab: Lab) -> None:
        steps.start(lab, operation="first")
        steps.stop(lab)
        lab.feed(50)
        steps.submit(lab, steps.apply(lab))

    def test_the_newest_batch_is_not_theirs(self, lab: Lab) -> None:
        zombie_writes(lab)

        seen = lab.session("look").observe()

        assert seen.processed is not None
        assert (seen.processed.epoch, seen.processed.end) == (2, lab.at(150, 150))
        assert seen.stored == lab.at(150, 150)

    def test_the_audit_names_them_and_goes_by_the_others(self, lab: Lab) -> None:
        before = audit_history(lab.session("look"))
        zombie_writes(lab)

        found = audit_history(lab.session("look"))

        assert (found.partitions, found.batches, found.lost) == (before.partitions, 2, 0)
        assert (before.unexplained_count, found.unexplained_count) == (0, 1600)
        assert {(each.kind, each.epoch, each.clue) for each in found.unexplained} == {
            (DiscontinuityKind.OVERLAP, 1, "batch 77 was recorded after epoch 2 had been claimed")
        }

    def test_they_do_not_hide_what_comes_after_them(self, lab: Lab) -> None:
        zombie_writes(lab)
        lab.feed(5)
        lab.tick()

        assert lab.session("look").observe().stored == lab.at(155, 155)


class TestObserve:
    def test_before_anything_happened(self, lab: Lab) -> None:
        seen = lab.session().observe()

        assert (seen.checkpoint, seen.processed, seen.epoch, seen.stored) == (None, None, None, None)
        assert seen.live.end == lab.at(100, 100)

    def test_a_job_that_runs_meanwhile_has_a_consistent_observation(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the reading of the checkpoint and that of the record, two batches pass, repeatedly."""
        steps.start(lab)
        left = [2, 2]

        def busy(files: Any) -> Any:
            found = read_state(files)
            for _ in range(left.pop() if left else 0):
                lab.feed(10)
                lab.tick()
            return found

        monkeypatch.setattr("airflow_provider_offsets.operations.session.read_state", busy)
        seen = lab.session("look").observe()

        assert seen.checkpoint is not None
        assert seen.processed is not None
        assert seen.processed.batch_id == seen.checkpoint.committed_batch_id == 4
        assert seen.stored == seen.checkpoint.committed

    @pytest.mark.parametrize("tries", [1, 2])
    def test_a_job_that_is_stopped_meanwhile_is_observed_again(
        self, tries: int, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise positions of one epoch would be kept with the record of another."""
        steps.start(lab)
        live_topics, left = Session.live_topics, [1]

        def busy(session: Session) -> LiveTopics:
            if left and left.pop():
                steps.stop(lab)
            return live_topics(session)

        monkeypatch.setattr(Session, "live_topics", busy)
        monkeypatch.setattr("airflow_provider_offsets.operations.session.MOST_TRIES", tries)
        if tries == 1:
            with pytest.raises(StateChanged, match="changed during each of 1 observations"):
                lab.session("look").observe()
        else:
            assert lab.session("look").observe().phase is Phase.STOPPED

    def test_the_checkpoint_of_the_newest_epoch_is_the_one_that_counts(self, lab: Lab) -> None:
        steps.start(lab, operation="first")
        steps.stop(lab)
        applied = steps.apply(lab, "shift:-30")
        steps.submit(lab, applied)

        seen = lab.session("look").observe()

        assert seen.checkpoint is not None
        assert seen.checkpoint.location == applied.checkpoint

    @pytest.mark.parametrize("error", [KafkaUnreachable, TopicMissing])
    def test_what_kafka_cannot_say_is_raised(self, error: type[Exception], lab: Lab) -> None:
        lab.kafka.fail_with(error(seen="no broker", expected="one", do="start it"))  # type: ignore[call-arg]

        with pytest.raises(error, match="No broker"):
            lab.session().observe()

    def test_looking_leaves_no_trace(self, lab: Lab) -> None:
        steps.start(lab)
        session = lab.session("look")
        cells = dict(lab.store.scan(lab.pipeline.name, ""))

        session.observe()

        assert dict(lab.store.scan(lab.pipeline.name, "")) == cells
        assert len(lab.kafka.committed(lab.pipeline.group_id, [TOPIC])) == 0


class TestSnapshot:
    def test_a_snapshot_has_its_operation_and_label(self, lab: Lab) -> None:
        steps.start(lab)

        taken = lab.session().take_snapshot("before", reason="upgrade", taken_at="2026-01-01T00:00:00Z")

        assert taken.id == "op#before"
        assert taken.position == lab.at(100, 100)
        assert taken.is_whole
        assert lab.control.snapshot("op#before") == taken

    def test_taken_again_it_is_the_first_one(self, lab: Lab) -> None:
        """A retry must not move what people may want to go back to."""
        steps.start(lab)
        taken: list[Snapshot] = []
        for minute in range(2):
            lab.feed(10)
            lab.tick()
            taken.append(lab.session().take_snapshot("before", reason="", taken_at=f"2026-01-01T00:0{minute}:00Z"))

        assert taken[0] == taken[1]


class TestAudit:
    def test_an_empty_history_is_whole(self, lab: Lab) -> None:
        report = audit_history(lab.session())

        assert (report.batches, report.lost, report.unexplained_count) == (0, 0, 0)

    def test_a_replay_is_explained_by_its_operation(self, lab: Lab) -> None:
        steps.start(lab, operation="first")
        steps.stop(lab)
        steps.submit(lab, steps.apply(lab, "shift:-30"))
        lab.tick()

        report = audit_history(lab.session("look"))

        assert (report.replayed, report.lost, report.unexplained_count) == (60, 0, 0)
        assert {each.explanation for each in report.discontinuities} == {"announced by op"}

    def test_a_hole_that_nobody_announced_is_a_loss(self, lab: Lab) -> None:
        steps.start(lab)
        stream = lab.pipeline.stream
        lab.store.append(stream, Batch(lab.at(100, 150), 9000, 9, "query-1", 1, lab.at(100, 110)))

        report = audit_history(lab.session("look"))

        assert (report.lost, report.unexplained_count) == (10, 10)

    def test_a_batch_that_was_cut_off_counts_as_read_twice_at_most(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(20)
        batch = lab.driver.plan()
        assert batch is not None
        lab.driver.begin(batch)
        lab.driver.die()
        steps.stop(lab)
        started = steps.submit(lab, steps.apply(lab))

        report = audit_history(lab.session("look"))

        assert started.how == "processed batch 1"
        assert (report.replayed_at_most, report.lost, report.unexplained_count) == (40, 0, 0)


class TestWhatTheAuditDetects:
    """The audit of a job that ran, some of whose rows were removed, changed, or added behind its back."""

    @pytest.fixture(autouse=True)
    def three_batches(self, lab: Lab) -> None:
        steps.start(lab)
        for _ in range(2):
            lab.feed(50)
            lab.tick()

    def rows(self, lab: Lab) -> list[Batch]:
        return lab.store._histories[lab.pipeline.stream.group_id]

    def test_a_missing_batch(self, lab: Lab) -> None:
        del self.rows(lab)[1]

        found = audit_history(lab.session("look"))

        assert (found.lost, {each.clue for each in found.unexplained}) == (100, {"batch 1 is missing"})

    def test_a_changed_row(self, lab: Lab) -> None:
        rows = self.rows(lab)
        rows[1] = replace(rows[1], end=lab.at(150, 149))

        [found] = audit_history(lab.session("look")).unexplained

        assert (str(found.range), found.clue) == ("flights[1] 149..150", "batch 1 or 2 is a changed row")

    def test_a_changed_newest_row_moves_no_plan(self, lab: Lab) -> None:
        """A plan uses the batch that the record names."""
        self.rows(lab)[-1] = replace(self.rows(lab)[-1], end=lab.at(200, 230))

        assert lab.session("look").observe().stored == lab.at(200, 200)

    def test_the_facts_of_the_recorded_batch_were_changed(self, lab: Lab) -> None:
        """The record has the digest of the position that it names: no other position is used."""
        last = self.rows(lab)[-1]
        assert last.row_time_ms is not None
        changed = replace(last, end=lab.at(200, 170))
        lab.store._facts[lab.pipeline.stream.group_id, last.row_time_ms] = [changed]

        with pytest.raises(StoreDataError, match=r"facts of batch 2.*digest"):
            lab.session("look").observe()
        lab.driver.die()
        with pytest.raises(StoreDataError, match=r"facts of batch 2.*digest"):
            steps.stop(lab)

    def test_a_position_written_into_the_history_by_hand(self, lab: Lab) -> None:
        steps.stop(lab)
        lab.store.write(lab.pipeline.stream, lab.at(180, 200), expected=lab.at(200, 200))

        [found] = audit_history(lab.session("look")).unexplained

        assert lab.session("look").observe().stored == lab.at(200, 200), "nobody goes by it"
        assert (found.kind, str(found.range)) == (DiscontinuityKind.MOVED, "flights[0] 180..200")

    def test_a_checkpoint_moved_by_hand(self, lab: Lab) -> None:
        """A driver that checked nothing else began where its checkpoint says, and not where its plan starts it."""
        steps.stop(lab)
        applied = steps.apply(lab)
        entry = Path(applied.checkpoint) / "offsets" / "2"
        entry.write_text(entry.read_text().replace('"0":200', '"0":170'))
        lab.feed(10)
        steps.submit(lab, applied)

        [found] = audit_history(lab.session("look")).unexplained

        assert (found.kind, str(found.range)) == (DiscontinuityKind.REPLAY, "flights[0] 170..200")
        assert "epoch 2 starts at another offset" in found.clue

    def test_within_a_window(self, lab: Lab) -> None:
        del self.rows(lab)[1]

        first = audit_history(lab.session("look"), AuditWindow(until=Bound.read("batch:0")))
        second = audit_history(lab.session("look"), AuditWindow(since=Bound.read("batch:1")))

        assert (first.batches, first.lost) == (1, 0)
        assert (second.batches, second.lost) == (1, 100)
