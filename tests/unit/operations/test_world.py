"""How an operation looks at its world: what is read in which order, and whose rows are ignored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.audit import Bound, DiscontinuityKind, Window
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import is_zombie
from airflow_provider_offsets.core.snapshot import Snapshot
from airflow_provider_offsets.errors import KafkaUnreachable, StoreUnreachable, TopicMissing
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.world import newest_batch
from tests.unit.core.worlds import at, epoch
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab


def row(number: int | None, row_time_ms: int | None) -> Batch:
    return Batch(at(10, 10), 1000, 4, "query-1", number, at(0, 0), row_time_ms)


@pytest.mark.parametrize(
    ("why", "batch", "claimed_after", "zombie"),
    [
        ("its own row", row(2, 2000), 1500, False),
        ("a row from before the claim", row(1, 1500), 1500, False),
        ("a row that an older epoch wrote after the claim", row(1, 1501), 1500, True),
        ("a row of a job without this provider, after the claim", row(None, 1501), 1500, True),
        ("a row that is there though the history was empty at the claim", row(1, 1), None, True),
        ("a batch that was never placed cannot be judged", row(1, None), 1500, False),
    ],
)
def test_whose_rows_are_ignored(why: str, batch: Batch, claimed_after: int | None, zombie: bool) -> None:
    newest = replace(epoch(at(0, 0), 2), after_row_time_ms=claimed_after)

    assert is_zombie(batch, newest) is zombie
    assert is_zombie(batch, None) is False


def zombie_writes(lab: Lab) -> None:
    """The driver of epoch 1 wakes up, after epoch 2 was claimed, and records what it had read."""
    batch = Batch(lab.at(900, 900), 9000, 77, "query-1", 1, lab.at(100, 100))
    lab.store.append(lab.pipeline.stream, batch)


class TestZombies:
    @pytest.fixture(autouse=True)
    def second_epoch(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.feed(50)
        steps.submit(lab, steps.apply(lab))

    def test_the_newest_batch_is_not_theirs(self, lab: Lab) -> None:
        zombie_writes(lab)

        newest = newest_batch(lab.store, lab.pipeline.stream, lab.control.newest_epoch())

        assert newest is not None
        assert (newest.epoch, newest.end) == (2, lab.at(150, 150))
        assert lab.world("look").observe().stored == lab.at(150, 150)

    def test_the_audit_names_them_and_goes_by_the_others(self, lab: Lab) -> None:
        before = audit_history(lab.world("look"))
        zombie_writes(lab)

        found = audit_history(lab.world("look"))

        assert (found.partitions, found.batches, found.lost) == (before.partitions, 2, 0)
        assert (before.unexplained_count, found.unexplained_count) == (0, 1600)
        assert {(each.kind, each.epoch, each.clue) for each in found.unexplained} == {
            (DiscontinuityKind.OVERLAP, 1, "batch 77 was recorded after epoch 2 had been claimed")
        }

    def test_they_do_not_hide_what_comes_after_them(self, lab: Lab) -> None:
        zombie_writes(lab)
        lab.feed(5)
        lab.tick()

        assert lab.world("look").observe().stored == lab.at(155, 155)


class TestObserve:
    def test_before_anything_happened(self, lab: Lab) -> None:
        seen = lab.world().observe()

        assert (seen.checkpoint, seen.processed, seen.epoch, seen.stored) == (None, None, None, None)
        assert seen.live.end == lab.at(100, 100)

    def test_a_job_that_runs_on_meanwhile_does_not_look_torn(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the look at the checkpoint and the look at the history, two batches pass."""
        steps.start(lab)
        newest_first, left = lab.store.newest_first, [2, 2]

        def busy(*arguments: Any, **more: Any) -> Any:
            for _ in range(left.pop() if left else 0):
                lab.feed(10)
                lab.tick()
            return newest_first(*arguments, **more)

        monkeypatch.setattr(lab.store, "newest_first", busy)
        seen = lab.world("look").observe()

        assert seen.checkpoint is not None
        assert seen.processed is not None
        assert seen.processed.batch_id == seen.checkpoint.committed_batch_id == 4
        assert seen.stored == seen.checkpoint.committed

    def test_the_checkpoint_of_the_newest_epoch_is_the_one_that_counts(self, lab: Lab) -> None:
        steps.rest(lab)
        applied = steps.apply(lab, "shift:-30")
        steps.submit(lab, applied)

        seen = lab.world("look").observe()

        assert seen.checkpoint is not None
        assert seen.checkpoint.location == applied.checkpoint

    @pytest.mark.parametrize("error", [KafkaUnreachable, TopicMissing])
    def test_what_kafka_cannot_say_is_raised(self, error: type[Exception], lab: Lab) -> None:
        lab.kafka.fail_with(error(seen="no broker", expected="one", do="start it"))  # type: ignore[call-arg]

        with pytest.raises(error, match="no broker"):
            lab.world().observe()

    def test_looking_leaves_no_trace(self, lab: Lab) -> None:
        steps.start(lab)
        world = lab.world("look")
        cells = dict(lab.store.scan(lab.pipeline.name, ""))

        world.observe()

        assert dict(lab.store.scan(lab.pipeline.name, "")) == cells
        assert len(lab.kafka.committed(lab.pipeline.group_id, [TOPIC])) == 0


class TestSnapshot:
    def test_it_stands_under_its_operation_and_label(self, lab: Lab) -> None:
        steps.start(lab)

        taken = lab.world().take_snapshot("before", reason="upgrade", taken_at="2026-01-01T00:00:00Z")

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
            taken.append(lab.world().take_snapshot("before", reason="", taken_at=f"2026-01-01T00:0{minute}:00Z"))

        assert taken[0] == taken[1]


class TestAudit:
    def test_an_empty_history_is_whole(self, lab: Lab) -> None:
        report = audit_history(lab.world())

        assert (report.batches, report.lost, report.unexplained_count) == (0, 0, 0)

    def test_a_replay_is_explained_by_its_operation(self, lab: Lab) -> None:
        steps.rest(lab)
        steps.submit(lab, steps.apply(lab, "shift:-30"))
        lab.tick()

        report = audit_history(lab.world("look"))

        assert (report.replayed, report.lost, report.unexplained_count) == (60, 0, 0)
        assert {each.explanation for each in report.discontinuities} == {"announced by op"}

    def test_a_hole_that_nobody_announced_is_a_loss(self, lab: Lab) -> None:
        steps.start(lab)
        stream = lab.pipeline.stream
        lab.store.append(stream, Batch(lab.at(100, 150), 9000, 9, "query-1", 1, lab.at(100, 110)))

        report = audit_history(lab.world("look"))

        assert (report.lost, report.unexplained_count) == (10, 10)

    def test_a_batch_that_was_cut_off_counts_as_read_twice_at_most(self, lab: Lab) -> None:
        steps.start(lab)
        lab.feed(20)
        append = lab.store.append

        def unreachable(*arguments: Any) -> Any:
            raise StoreUnreachable(seen="nobody", expected="an answer", do="start it")

        lab.store.append = unreachable  # type: ignore[method-assign]
        with pytest.raises(StoreUnreachable):
            lab.tick()
        lab.store.append = append  # type: ignore[method-assign]
        lab.driver.die()
        steps.stop(lab, "second")
        started = steps.submit(lab, steps.apply(lab))

        report = audit_history(lab.world("look"))

        assert started.how == "processed batch 1"
        assert (report.replayed_at_most, report.lost, report.unexplained_count) == (40, 0, 0)


class TestWhatTheAuditDetects:
    """With the rows of a job that ran, of which some are taken out, changed, or added behind its back."""

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

        found = audit_history(lab.world("look"))

        assert (found.lost, {each.clue for each in found.unexplained}) == (100, {"batch 1 is missing"})

    def test_a_changed_row(self, lab: Lab) -> None:
        rows = self.rows(lab)
        rows[1] = replace(rows[1], end=lab.at(150, 149))

        [found] = audit_history(lab.world("look")).unexplained

        assert (str(found.range), found.clue) == ("flights[1] 149..150", "batch 1 or 2 is a changed row")

    def test_a_changed_row_that_the_next_plan_would_go_by(self, lab: Lab) -> None:
        rows = self.rows(lab)
        there = rows[-1].batch_id, rows[-1].query_id
        rows[-1] = lab.store._by_identity[lab.pipeline.stream.group_id, there[1], there[0] or 0] = replace(
            rows[-1], end=lab.at(200, 230)
        )

        [found] = audit_history(lab.world("look")).unexplained

        assert (found.kind, str(found.range)) == (DiscontinuityKind.CHANGED, "flights[1] 200..230")

    def test_a_position_written_into_the_history_by_hand(self, lab: Lab) -> None:
        steps.stop(lab)
        lab.store.write(lab.pipeline.stream, lab.at(180, 200), expected=lab.at(200, 200))

        [found] = audit_history(lab.world("look")).unexplained

        assert lab.world("look").observe().stored == lab.at(200, 200), "nobody goes by it"
        assert (found.kind, str(found.range)) == (DiscontinuityKind.MOVED, "flights[0] 180..200")

    def test_a_checkpoint_moved_by_hand(self, lab: Lab) -> None:
        """The job is started where its checkpoint says, and that is not where the plan said that it would be."""
        steps.stop(lab)
        applied = steps.apply(lab)
        entry = Path(applied.checkpoint) / "offsets" / "2"
        entry.write_text(entry.read_text().replace('"0":200', '"0":170'))
        lab.feed(10)
        steps.submit(lab, applied)

        [found] = audit_history(lab.world("look")).unexplained

        assert (found.kind, str(found.range)) == (DiscontinuityKind.REPLAY, "flights[0] 170..200")
        assert "a position was moved by hand" in found.clue

    def test_within_a_window(self, lab: Lab) -> None:
        del self.rows(lab)[1]

        first = audit_history(lab.world("look"), Window(until=Bound.read("batch:0")))
        second = audit_history(lab.world("look"), Window(since=Bound.read("batch:1")))

        assert (first.batches, first.lost) == (1, 0)
        assert (second.batches, second.lost) == (1, 100)
