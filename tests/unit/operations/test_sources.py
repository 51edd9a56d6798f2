"""What selectors learn from stores and Kafka, and plans that are made from it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.moments import moment_text
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
from airflow_provider_offsets.errors import NoHistory, SelectorError, StoreUnreachable
from airflow_provider_offsets.operations import sources
from airflow_provider_offsets.operations.planning import make_plan, recorded_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.sources import SessionSources
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, TOPIC, Crash, Lab, install

HOUR_MS = 3_600_000


def sources_of(lab: Lab, operation: str = "op") -> SessionSources:
    return SessionSources(lab.session(operation), Position())


def wanted(lab: Lab, start: str, operation: str = "op") -> list[int | None]:
    return [row.wanted for row in steps.plan(lab, start, operation).rows]


class TestAsOf:
    """Times in the history: one row of the lab's first batch is at 1000 ms, the second at 1001."""

    @pytest.fixture
    def twice(self, lab: Lab) -> Lab:
        """Return a history of two batches: up to 100, up to 150."""
        steps.start(lab)
        lab.feed(50)
        lab.tick()
        return lab

    @pytest.mark.parametrize(
        ("time_ms", "offsets"), [(999, None), (1000, (100, 100)), (1001, (150, 150)), (10**12, (150, 150))]
    )
    def test_the_last_batch_at_or_before(self, twice: Lab, time_ms: int, offsets: tuple[int, int] | None) -> None:
        past = sources_of(twice).as_of(time_ms)

        assert (None if past is None else past.position) == (None if offsets is None else twice.at(*offsets))

    def test_it_says_which_batch_and_of_which_topics(self, twice: Lab) -> None:
        past = sources_of(twice).as_of(1000)

        assert past is not None
        assert past.source == "after batch 0 of 1970-01-01T00:00:01Z"
        assert past.identity == twice.kafka.live_topics([TOPIC]).identity

    def test_order_is_that_of_the_history_and_not_of_a_clock_that_went_back(self, twice: Lab) -> None:
        late = Batch(twice.at(170, 170), 400, 2, "query-1", 1, twice.at(150, 150))
        recorded = twice.store.append(twice.pipeline.stream, late)
        assert recorded.row_time_ms == 1002

        past = sources_of(twice).as_of(500)
        later = sources_of(twice).as_of(1002)

        assert past is None, "at 500 ms nothing was recorded, whatever that driver's clock said"
        assert later is not None
        assert later.position == twice.at(170, 170)

    def test_rows_that_the_job_does_not_go_by_are_left_out(self, twice: Lab) -> None:
        """Somebody wrote into the history of a job that has epochs; rows from before its epochs are the job's own."""
        stream = twice.pipeline.stream
        twice.store.append(stream, Batch(twice.at(40, 40), 2, row_time_ms=2))
        twice.store.append(stream, Batch(twice.at(950, 950), 2_000_000, row_time_ms=2_000_000))

        now, long_ago = sources_of(twice).as_of(10**12), sources_of(twice).as_of(500)

        assert now is not None
        assert now.position == twice.at(150, 150)
        assert long_ago is not None
        assert long_ago.position == twice.at(40, 40)

    def test_cloudera_rows_are_combined_topic_by_topic(self, lab: Lab) -> None:
        of_refunds = Position({TopicPartition("refunds", 0): 7})
        stream = replace(lab.pipeline.stream, topics=(TOPIC, "refunds"))
        lab.store.append(stream, Batch(lab.at(10, 20), 1000))
        lab.store.append(stream, Batch(of_refunds, 1001))
        lab.store.append(stream, Batch(lab.at(30, 40), 1002))
        session = lab.session()
        session = replace(session, pipeline=replace(session.pipeline, topics=(TOPIC, "refunds")))

        past = SessionSources(session, Position()).as_of(1001)

        assert past is not None
        assert past.position == lab.at(10, 20).updated(of_refunds)
        assert past.source == "after a row of 1970-01-01T00:00:01.001Z"
        assert past.identity is None

    def test_a_plan_goes_back_to_it_and_reads_new_partitions_from_0(self, twice: Lab) -> None:
        twice.kafka.add_partitions(TOPIC, 3)
        twice.feed(5, 2)
        twice.tick()

        plan = steps.plan(twice, "as-of:1970-01-01T00:00:01Z | latest")

        assert ([row.start for row in plan.rows], plan.replay, plan.problems) == ([100, 100, 0], 50 + 50 + 5, ())
        assert plan.rows[2].chosen_by == (
            "as-of:1970-01-01T00:00:01Z (after batch 0 of 1970-01-01T00:00:01Z; not read by then)"
        )

    def test_a_history_that_does_not_answer_is_no_empty_one(self, twice: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        def silent(*_: Any, **__: Any) -> Any:
            raise StoreUnreachable(seen="nothing", expected="an answer", do="wait")

        session = twice.session()
        monkeypatch.setattr(twice.store, "newest_first", silent)

        with pytest.raises(StoreUnreachable):
            SessionSources(session, Position()).as_of(1000)


class TestAsOfAnUntrackedJob:
    @pytest.fixture
    def lab(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
        return install(Lab(tmp_path, offsets_in=("checkpoint",)), monkeypatch)

    def test_its_snapshots_serve(self, lab: Lab) -> None:
        steps.start(lab)
        for day, count in enumerate((0, 40, 60), start=1):
            lab.feed(count or 1)
            lab.tick()
            lab.session(f"day-{day}").take_snapshot("before", reason="", taken_at=f"2026-01-0{day}T12:00:00.5+00:00")

        plan = steps.plan(lab, "as-of:2026-01-03T12:00:00Z")

        assert [row.start for row in plan.rows] == [141, 141]
        assert plan.rows[0].chosen_by == (
            "as-of:2026-01-03T12:00:00Z (by snapshot day-2#before of 2026-01-02T12:00:00.500Z)"
        )
        assert sources_of(lab).as_of(0) is None, "before the first one nobody can say"

    def test_without_any_it_is_refused_whatever_the_fallback(self, lab: Lab) -> None:
        steps.start(lab)

        with pytest.raises(NoHistory, match="'as-of:' was used for 'delay_alerts', which has neither"):
            steps.plan(lab, "as-of:2026-01-03T12:00:00Z | earliest")

    def test_one_that_keeps_a_history_elsewhere_is_asked_there(self, lab: Lab) -> None:
        kept = MemoryStore()
        kept.append(lab.pipeline.stream, Batch(lab.at(10, 20), 1000))
        kept.append(lab.pipeline.stream, Batch(lab.at(30, 40), 2000))
        session = lab.session()
        session = Session(
            replace(session.pipeline, offsets_in=("checkpoint", "hbase_old")),
            session.operation,
            session.store,
            session.kafka,
            {"hbase_old": kept},
        )

        past = SessionSources(session, Position()).as_of(1999)

        assert past is not None
        assert (past.position, past.source) == (lab.at(10, 20), "after a row of 1970-01-01T00:00:01Z in hbase_old")


class TestDuration:
    @pytest.fixture
    def records(self, lab: Lab) -> Lab:
        """Return ten records an hour, the last of them now."""
        steps.rest(lab)
        lab.clock.now = 10_000_000.0
        now_ms = lab.clock.now_ms()
        for hours in (3, 2, 1, 0):
            for partition in (0, 1):
                lab.kafka.append(TOPIC, partition, 10, timestamp_ms=now_ms - hours * HOUR_MS)
        return lab

    def test_it_counts_from_the_first_plan_of_the_operation(self, records: Lab) -> None:
        assert wanted(records, "duration:PT2H") == [110, 110]
        records.clock.now += 3600

        assert wanted(records, "duration:PT2H") == [110, 110], "replanned after the window"
        assert wanted(records, "duration:PT2H", "another operation") == [120, 120]

    def test_a_plan_that_was_killed_right_after_it_asked_for_the_time_asks_no_more(self, records: Lab) -> None:
        session = records.session()
        records.fuse.at, records.fuse.after = 1, True
        with pytest.raises(Crash), records.fuse.lit():
            make_plan(session, "duration:PT2H", RestartPolicy())
        assert recorded_plan(session) is None
        records.clock.now += 3600

        assert wanted(records, "duration:PT2H") == [110, 110]

    def test_the_other_selectors_leave_no_time_behind(self, records: Lab) -> None:
        steps.plan(records, "shift:-10")

        assert records.control.step("op", sources.ASKED_AT, int) is None


class TestWhatKafkaSays:
    def test_records_that_arrived_after_the_observation_are_not_offsets_past_the_end(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Times and commits are requested after the ends: the plan requests the ends again, and clamps nothing."""
        steps.rest(lab)
        real, answers = lab.kafka.committed, []

        def committed(group_id: str, topics: Any) -> Position:
            answers.append(group_id)
            lab.feed(30)
            lab.kafka.commit("other", lab.at(130, 120))
            return real(group_id, topics)

        monkeypatch.setattr(lab.kafka, "committed", committed)
        plan = steps.plan(lab, "group:other")

        assert answers == ["other"]
        assert [(row.start, row.end) for row in plan.rows] == [(130, 130), (120, 130)]
        assert {problem.kind for problem in plan.problems} == {ProblemKind.SKIP}

    def test_a_commit_past_the_end_is_a_problem_all_the_same(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.kafka.commit("other", lab.at(130, 100))

        kinds = {problem.kind for problem in steps.plan(lab, "group:other").problems}

        assert ProblemKind.OFFSET_PAST_END in kinds

    def test_a_time_after_the_last_record_is_shown_and_refused(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.kafka.append(TOPIC, 0, 5, timestamp_ms=2000)
        lab.kafka.append(TOPIC, 1, 5, timestamp_ms=5000)

        plan = steps.plan(lab, f"timestamp:{moment_text(5000)}")

        assert [(row.start, row.skipped) for row in plan.rows] == [(105, 5), (100, 0)]
        assert "no record at or after 1970-01-01T00:00:05Z: its end" in plan.rows[0].why
        assert [problem.kind for problem in plan.problems] == [ProblemKind.SKIP]

    def test_a_reader_of_committed_records_starts_before_what_is_still_open(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.kafka.begin_transaction(TOPIC, 0)
        lab.kafka.append(TOPIC, 0, 5, timestamp_ms=5000)
        lab.more["read_committed"] = True

        plan = steps.plan(lab, f"timestamp:{moment_text(5000)}")

        assert [(row.start, row.end) for row in plan.rows] == [(100, 100), (100, 100)]
        assert plan.problems == ()


class TestShift:
    def test_it_shifts_from_the_resolved_position_of_the_stores(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With ``smallest`` it shifts from the smallest position. It once used another one, and skipped the rest."""
        lab = install(Lab(tmp_path, offsets_in=("checkpoint", "elsewhere")), monkeypatch)
        steps.start(lab)
        for _ in range(3):
            lab.tick()
        steps.stop(lab, "second")
        lab.kept.offsets = lab.at(70, 100)

        def starts(on_conflict: OnConflict) -> list[int]:
            plan = make_plan(lab.session("third"), "shift:-5", RestartPolicy(on_conflict=on_conflict))
            assert plan.problems == ()
            return [row.start for row in plan.rows]

        assert starts(OnConflict.SMALLEST) == [65, 95]
        assert starts(OnConflict.AUTHORITATIVE_STORE) == [95, 95]
        [problem] = make_plan(lab.session("third"), "shift:-5", RestartPolicy()).problems
        assert problem.kind is ProblemKind.STORES_CONFLICT


class TestFiles:
    def test_one_is_read_where_the_plan_is_made(self, lab: Lab, tmp_path: Path) -> None:
        steps.rest(lab)
        file = tmp_path / "offsets.csv"
        file.write_text(f'"{TOPIC}",0,60\n')

        plan = steps.plan(lab, f"file:{file}")

        assert [row.start for row in plan.rows] == [60, 100]
        assert plan.problems == ()

    @pytest.mark.parametrize(
        ("why", "make", "words"),
        [
            ("it is not there", lambda file: None, "No such file or directory"),
            ("a folder", lambda file: file.mkdir(), "it is no ordinary file"),
            ("a pipe would be waited for for ever", os.mkfifo, "it is no ordinary file"),
            ("no text", lambda file: file.write_bytes(b"\xff\xfe"), "it is not UTF-8"),
            (
                "by mistake the data itself",
                lambda file: file.write_bytes(b"flights,0,1\n"),
                "it has more than 10 bytes",
            ),
        ],
    )
    def test_what_cannot_be_read_is_refused_before_anything_is_stopped(
        self, why: str, make: Any, words: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sources, "LARGEST_FILE", 10)
        make(tmp_path / "file")

        with pytest.raises(SelectorError, match=words) as caught:
            steps.plan(lab, f"committed | file:{tmp_path / 'file'}")

        assert f"'file:{tmp_path / 'file'}'" in caught.value.seen, why


def test_what_is_asked_leaves_no_trace(lab: Lab) -> None:
    steps.rest(lab)
    snapshot = lab.session("yesterday").take_snapshot("before", reason="", taken_at="2026-01-01T00:00:00Z")
    lab.kafka.commit("other", lab.at(50, 50))
    cells = dict(lab.store.scan(NAME, ""))

    steps.plan(lab, f"as-of:2026-01-01T00:00Z | timestamp:2026-01-01T00:00Z | group:other | snapshot:{snapshot.id}")

    changed = {name for name, text in lab.store.scan(NAME, "") if cells.get(name) != text}
    assert changed == {"operation/op"}
    assert lab.kafka.committed("other", [TOPIC]) == lab.at(50, 50)
