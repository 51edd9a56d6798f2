"""From a data interval to the records that are read for it: stable boundaries, and refusals with their reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.replay.audit import total_of
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, OpenBoundary, ReplayPlan
from airflow_provider_offsets.core.restart.model import RestartPlan
from airflow_provider_offsets.errors import InputRefused, NoHistory, PlanRefused
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.backfilling import (
    Waiting,
    audit_recorded_replay,
    make_replay_plan,
    replay_audits,
)
from airflow_provider_offsets.runtime.write_count import Rows
from airflow_provider_offsets.testing.fake_kafka import FakeKafka
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, TOPIC, Lab
from tests.unit.operations.shards import replay_shard

NOW_MS = 1_000
POLICY = BackfillPolicy(records_per_shard=10)


@pytest.fixture
def days(lab: Lab) -> Lab:
    """Return a lab with five days of 100 ms, from 100 on: ten records a day in partition 0, five in partition 1."""
    lab.kafka = FakeKafka()
    lab.kafka.create_topic(TOPIC, partitions=2)
    for day in range(100, 600, 100):
        lab.kafka.append(TOPIC, 0, 10, timestamp_ms=day + 50)
        lab.kafka.append(TOPIC, 1, 5, timestamp_ms=day + 50)
    return lab


def plan(
    lab: Lab,
    start_ms: int,
    end_ms: int,
    policy: BackfillPolicy = POLICY,
    *,
    operation: str = "backfill__p/one",
    key: str = "2@monday",
    now_ms: int = NOW_MS,
    **more: Any,
) -> ReplayPlan:
    made = make_replay_plan(
        lab.session(operation), Interval(start_ms, end_ms), policy, attempt_key=key, now_ms=now_ms, **more
    )
    assert isinstance(made, ReplayPlan)
    return made


def control(lab: Lab) -> ReplayControl:
    return ReplayControl(lab.store, NAME)


def read(made: ReplayPlan) -> list[OffsetRange]:
    return sorted(each for shard in made.shards for each in shard.ranges)


def test_an_interval_is_read_by_record_time(days: Lab) -> None:
    made = plan(days, 200, 300)

    assert (made.begin, made.end) == (days.at(10, 5), days.at(20, 10))
    assert [shard.record_count for shard in made.shards] == [8, 7]
    assert made.records_expected == 15
    assert made.is_exact
    assert not made.problems


def test_neighbours_meet_though_the_log_has_moved_on(days: Lab) -> None:
    """A late record and retention come between the two runs: the boundary at 300 stays where the first run froze it."""
    later = plan(days, 300, 400, operation="backfill__p/later")
    days.kafka.append(TOPIC, 0, 3, timestamp_ms=250)
    days.kafka.delete_records_before(TOPIC, 0, 12)
    days.kafka.delete_records_before(TOPIC, 1, 12)

    earlier = plan(days, 200, 300, accept_lost={TOPIC: 24})

    assert earlier.end == later.begin == days.at(20, 10)


def with_conf(lab: Lab, monkeypatch: pytest.MonkeyPatch, **conf: str) -> None:
    pipeline = lab.pipeline
    changed = replace(pipeline, job=replace(pipeline.job, conf={key.replace("_", "."): conf[key] for key in conf}))
    monkeypatch.setattr(Lab, "pipeline", property(lambda self: changed))


def test_a_job_that_chooses_an_unsafe_committer_is_not_replayed(days: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with_conf(days, monkeypatch, spark_sql_sources_commitProtocolClass="com.x.Protocol")

    [problem] = plan(days, 200, 300).problems

    assert problem.kind is ProblemKind.SHARED_SCRATCH
    assert "spark.sql.sources.commitProtocolClass=com.x.Protocol" in problem.message
    assert "Remove the setting" in problem.message


def test_a_live_job_of_an_earlier_release_is_restarted_first(days: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(submitting, "live_owner", lambda incarnation, epoch: "")
        steps.start(days)

    [problem] = plan(days, 200, 300).problems
    assert problem.kind is ProblemKind.SHARED_SCRATCH
    assert f"maintenance__{NAME}" in problem.message

    steps.stop(days, "second")
    assert not plan(days, 200, 300).problems, "a job that is stopped writes nothing"

    steps.submit(days, steps.apply(days, operation="second"), "second")
    assert not plan(days, 200, 300, key="cleared").problems, "it has a scratch folder of its own now"


def test_a_retry_is_given_the_plan_and_a_clear_another_run_id(days: Lab) -> None:
    first = plan(days, 200, 300)

    assert plan(days, 200, 300) == first
    cleared = plan(days, 200, 300, key="5@monday")
    assert (first.attempt, cleared.attempt) == (1, 2)
    assert first.run_id != cleared.run_id
    assert cleared.shards == first.shards


def test_another_version_of_the_program_is_kept_apart(days: Lab) -> None:
    (days.folder / "job.py").write_text("one")
    first = plan(days, 200, 300, operation="backfill__p/a")
    (days.folder / "job.py").write_text("two")
    second = plan(days, 200, 300, operation="backfill__p/b")

    assert first.application_version != second.application_version
    assert first.run_id.partition("#")[2] != second.run_id.partition("#")[2]


def test_another_interval_under_the_same_run_is_another_attempt(days: Lab) -> None:
    first = plan(days, 200, 300)
    assert plan(days, 200, 400).attempt == first.attempt + 1


def test_a_boundary_past_the_last_record_is_closed_at_the_end_of_the_log_and_named(days: Lab) -> None:
    days.kafka.append(TOPIC, 1, 1, timestamp_ms=650)

    made = plan(days, 500, 600)

    assert made.open_boundaries == (OpenBoundary(TOPIC, 0, 50),)
    assert made.end == days.at(50, 25)
    assert "flights[0]: no record yet at or after the end of the interval" in made.notes[0]
    days.kafka.append(TOPIC, 0, 4, timestamp_ms=550)
    assert plan(days, 600, 700, operation="backfill__p/next").begin == made.end, "late ones are of the next interval"


def test_or_the_run_waits_until_every_partition_has_one(days: Lab) -> None:
    policy = replace(POLICY, on_open=OnOpen.WAIT)

    def look() -> ReplayPlan | Waiting:
        return make_replay_plan(days.session(), Interval(500, 600), policy, attempt_key="k", now_ms=NOW_MS)

    waiting = look()
    assert isinstance(waiting, Waiting)
    assert (
        waiting.reason
        == "nothing at or after 1970-01-01T00:00:00.600Z yet in 2 of 2 partitions: flights[0], flights[1]"
    )
    days.kafka.append(TOPIC, 0, 1, timestamp_ms=600)
    assert isinstance(look(), Waiting)
    days.kafka.append(TOPIC, 1, 1, timestamp_ms=601)
    made = look()
    assert isinstance(made, ReplayPlan)
    assert (made.end, made.open_boundaries) == (days.at(50, 25), ())


def test_a_run_that_waits_has_frozen_nothing_that_binds_its_neighbour(days: Lab) -> None:
    policy = replace(POLICY, on_open=OnOpen.WAIT)
    make_replay_plan(days.session(), Interval(500, 600), policy, attempt_key="k", now_ms=NOW_MS)
    days.kafka.append(TOPIC, 0, 1, timestamp_ms=550)

    assert plan(days, 500, 600).end == days.at(51, 25)


def test_in_the_future_all_is_open_whatever_the_clocks_of_producers_say(days: Lab) -> None:
    policy = replace(POLICY, on_open=OnOpen.WAIT)
    waiting = make_replay_plan(days.session(), Interval(200, 300), policy, attempt_key="k", now_ms=250)
    assert isinstance(waiting, Waiting)


def test_an_end_in_the_future_is_not_frozen_at_the_end_of_the_log(days: Lab) -> None:
    """It would leave every interval until then without records."""
    with pytest.raises(InputRefused, match="an interval that has ended"):
        plan(days, 500, NOW_MS + 3_600_001)

    days.kafka.append(TOPIC, 0, 10, timestamp_ms=1_500)
    assert plan(days, 1_000, 2_000, operation="backfill__p/next", now_ms=2_500).records_expected == 10


@pytest.mark.parametrize("by", BoundaryBy)
def test_a_record_of_the_future_does_not_hide_those_after_it(days: Lab, by: BoundaryBy) -> None:
    days.kafka.append(TOPIC, 0, 1, timestamp_ms=9_000_000)
    days.kafka.append(TOPIC, 0, 10, timestamp_ms=1_500)
    if by is BoundaryBy.BATCH_TIME:
        days.store.append(days.pipeline.stream, Batch(days.at(50, 25), 999, 0, "q", 1, days.at(0, 0)))
        days.store.append(days.pipeline.stream, Batch(days.at(61, 25), 1_600, 1, "q", 1, days.at(50, 25)))
        assert plan(days, 1_000, 2_000, replace(POLICY, by=by), now_ms=2_500).records_expected == 11
        return
    with pytest.raises(InputRefused, match=r"flights\[0\] has at offset 50 a record of 9000000 ms"):
        plan(days, 1_000, 2_000, now_ms=2_500)


def test_late_records_are_counted_to_their_interval(days: Lab) -> None:
    days.kafka.append(TOPIC, 0, 3, timestamp_ms=1_500)
    days.kafka.append(TOPIC, 0, 2, timestamp_ms=590)
    days.kafka.append(TOPIC, 0, 1, timestamp_ms=2_700)

    assert plan(days, 500, 600, replace(POLICY, late_s=2), now_ms=9_999).end.of_topic(TOPIC)[0] == 55


def test_a_partition_that_did_not_exist_yet_is_not_expected(days: Lab) -> None:
    plan(days, 200, 300, operation="backfill__p/before")
    days.kafka.add_partitions(TOPIC, 3)
    days.kafka.append(TOPIC, 2, 7, timestamp_ms=250)

    again = plan(days, 200, 300, key="cleared", operation="backfill__p/before")
    after = plan(days, 300, 1_000, operation="backfill__p/after", now_ms=2_000)

    assert again.records_expected == 15
    assert again.notes == ("flights[2]: not there yet when the end of the interval was frozen; none expected",)
    assert OffsetRange(TOPIC, 2, 0, 7) in read(after), "its records are after that instant, whatever their time"


class TestDeletedByRetention:
    def test_what_was_of_the_interval_is_refused_with_its_count(self, days: Lab) -> None:
        plan(days, 200, 300, operation="backfill__p/before")
        days.kafka.delete_records_before(TOPIC, 0, 13)

        made = plan(days, 200, 300)

        assert made.deleted == (OffsetRange(TOPIC, 0, 10, 13),)
        [problem] = made.problems
        assert problem.kind is ProblemKind.LOSS
        assert "3 offsets of 'flights'" in problem.message
        assert "accept_lost=flights:3" in problem.message

    def test_or_accepted_and_the_rest_is_read(self, days: Lab) -> None:
        plan(days, 200, 300, operation="backfill__p/before")
        days.kafka.delete_records_before(TOPIC, 0, 13)

        made = plan(days, 200, 300, accept_lost={TOPIC: 3})

        assert not made.problems
        assert read(made)[0].start == 13
        assert made.records_expected == 12
        findings = audit_recorded_replay(control(days), made).findings
        assert [each.partition(":")[0] for each in findings] == ["shard 0", "shard 1"], "and what is gone is no gap"

    def test_an_interval_wider_than_retention_is_not_taken_for_an_empty_one(self, days: Lab) -> None:
        """Nobody knows the times of deleted records: each of them may be in the interval."""
        days.kafka.delete_records_before(TOPIC, 0, 30)
        days.kafka.delete_records_before(TOPIC, 1, 15)

        made = plan(days, 200, 300)

        assert made.records_expected == 0
        assert made.deleted_before == (OffsetRange(TOPIC, 0, 0, 30), OffsetRange(TOPIC, 1, 0, 15))
        assert "accept_lost=flights:45" in made.problems[0].message

    def test_it_is_said_again_by_every_run_and_by_the_neighbours(self, days: Lab) -> None:
        days.kafka.delete_records_before(TOPIC, 0, 30)
        plan(days, 100, 200, operation="backfill__p/before")

        assert plan(days, 200, 300).problems
        assert plan(days, 200, 300, key="cleared").problems

    def test_what_lies_before_an_older_record_that_is_left_is_no_loss(self, days: Lab) -> None:
        days.kafka.delete_records_before(TOPIC, 0, 9)

        assert not plan(days, 200, 300).problems

    def test_a_plan_with_problems_is_planned_again(self, days: Lab) -> None:
        plan(days, 200, 300, operation="backfill__p/before")
        days.kafka.delete_records_before(TOPIC, 0, 13)
        assert plan(days, 200, 300).problems

        assert not plan(days, 200, 300, accept_lost={TOPIC: 3}).problems


class TestNothingToRead:
    def test_an_empty_interval_says_zero(self, days: Lab) -> None:
        made = plan(days, 210, 240)

        assert (made.shards, made.records_expected, made.problems) == ((), 0, ())
        assert made.notes[-1] == "no record in the interval: nothing to read"
        assert audit_recorded_replay(control(days), made).is_clean

    def test_a_topic_whose_records_are_all_older_says_of_when_they_are(self, days: Lab) -> None:
        made = plan(days, 700, 800)

        assert made.records_expected == 0
        assert made.notes[0] == "flights: its newest record is of 1970-01-01T00:00:00.550Z, before the interval"

    def test_a_topic_whose_records_have_no_time_is_refused(self, days: Lab) -> None:
        days.kafka = FakeKafka()
        days.kafka.create_topic(TOPIC, partitions=1)
        days.kafka.append(TOPIC, 0, 5, timestamp_ms=-1)

        with pytest.raises(InputRefused, match=r"have no time.*batch-time"):
            plan(days, 200, 300)

    def test_an_empty_topic_says_zero(self, days: Lab) -> None:
        days.kafka = FakeKafka()
        days.kafka.create_topic(TOPIC, partitions=1)

        assert plan(days, 200, 300).records_expected == 0


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "words"),
    [
        pytest.param(300, 200, "ends before its start", id="to before from"),
        pytest.param(300, 300, "ends before its start", id="no length"),
        pytest.param(1_000, 1_100, "an interval that has started", id="in the future"),
    ],
)
def test_an_interval_that_makes_no_sense_is_refused(days: Lab, start_ms: int, end_ms: int, words: str) -> None:
    with pytest.raises(InputRefused, match=words):
        plan(days, start_ms, end_ms)


def test_an_untracked_job_is_refused(days: Lab) -> None:
    days.more |= {"tracked": False, "offsets_in": ("checkpoint",)}
    days.stop = replace(days.stop, marker="/stop")

    with pytest.raises(InputRefused, match="is not tracked"):
        plan(days, 200, 300)


def test_compacted_topics_have_upper_bounds(days: Lab) -> None:
    days.kafka.set_config(TOPIC, **{"cleanup.policy": "compact"})

    made = plan(days, 200, 300)

    assert made.upper_bounds == (TOPIC,)
    assert not made.is_exact


class TestByBatchTime:
    policy = replace(POLICY, by=BoundaryBy.BATCH_TIME)

    def ran(self, lab: Lab, *rows: tuple[int, tuple[int, int]]) -> None:
        start = lab.at(3, 0)
        for number, (time_ms, ends) in enumerate(rows):
            lab.store.append(lab.pipeline.stream, Batch(lab.at(*ends), time_ms, number, "query-1", 1, start))
            start = lab.at(*ends)

    def test_an_interval_is_what_the_job_read_in_it(self, days: Lab) -> None:
        self.ran(days, (100, (10, 5)), (200, (20, 10)), (250, (25, 11)), (300, (40, 12)))

        made = plan(days, 200, 300, self.policy)

        assert (made.begin, made.end) == (days.at(10, 5), days.at(25, 11))

    def test_before_the_history_nothing_was_read(self, days: Lab) -> None:
        self.ran(days, (100, (10, 5)), (200, (20, 10)))

        assert plan(days, 50, 150, self.policy).begin == days.at(3, 0)

    def test_after_it_all_is_open(self, days: Lab) -> None:
        self.ran(days, (100, (10, 5)))

        made = plan(days, 50, 150, self.policy)

        assert made.end == days.at(10, 5)
        assert len(made.open_boundaries) == 2

    def test_without_a_history_it_is_refused(self, days: Lab) -> None:
        with pytest.raises(NoHistory):
            plan(days, 50, 150, self.policy)

    def test_what_is_frozen_by_record_time_stays_so_and_is_named(self, days: Lab) -> None:
        self.ran(days, (100, (10, 5)), (400, (20, 10)))
        by_record = plan(days, 200, 300, operation="backfill__p/before")

        made = plan(days, 200, 300, self.policy)

        assert (made.begin, made.end) == (by_record.begin, by_record.end)
        assert "was frozen by record-time" in made.notes[0]


NO_WRITE = Rows(None, saw_none=True)


class TestAudit:
    def done(self, lab: Lab, made: ReplayPlan, *numbers: int, less: int = 0) -> None:
        for number in numbers:
            shard = made.shards[number]
            replay_shard(control(lab), made.run_id, shard, shard.record_count - less)

    def test_all_that_was_expected_was_read(self, days: Lab) -> None:
        made = plan(days, 200, 300)
        self.done(days, made, 0, 1)

        audit = audit_recorded_replay(control(days), made)

        assert audit.is_clean
        assert (audit.records_read, audit.records_expected, audit.shards_done) == (15, 15, 2)

    def test_a_shard_that_is_missing(self, days: Lab) -> None:
        made = plan(days, 200, 300)
        self.done(days, made, 1)

        assert audit_recorded_replay(control(days), made).findings == (
            "shard 0: no driver has recorded that it is finished (8 offsets)",
        )

    def test_one_record_too_few(self, days: Lab) -> None:
        made = plan(days, 200, 300)
        self.done(days, made, 0)
        self.done(days, made, 1, less=1)

        assert audit_recorded_replay(control(days), made).findings == ("shard 1: read 6 records, expected 7",)

    @pytest.mark.parametrize(
        ("why", "rows", "counts_live", "total", "warnings"),
        [
            ("all is written", [Rows(8, False), Rows(7, False)], False, 15, ()),
            ("a program that writes without Spark", [NO_WRITE, NO_WRITE], False, None, ()),
            (
                "one shard wrote no row",
                [Rows(8, False), Rows(0, True)],
                False,
                8,
                ("shard 1 read records and Spark saw no row written",),
            ),
            (
                "one shard wrote nothing",
                [NO_WRITE, Rows(7, False)],
                False,
                7,
                ("shard 0 read records and Spark saw no row written",),
            ),
            (
                "only the live job writes",
                [NO_WRITE, NO_WRITE],
                True,
                None,
                (
                    "2 shards read records and Spark saw no row written, but it counts the rows that the live job"
                    " writes; the last one is shard 1",
                ),
            ),
        ],
    )
    def test_shards_that_wrote_nothing_are_a_warning_and_no_finding(
        self, why: str, rows: list[Rows], counts_live: bool, total: int | None, warnings: tuple[str, ...], days: Lab
    ) -> None:
        """A program may filter all records of a shard."""
        made = plan(days, 200, 300)
        for shard, each in zip(made.shards, rows, strict=True):
            replay_shard(control(days), made.run_id, shard, rows=each)

        audit = audit_recorded_replay(control(days), made, counts_live=counts_live)

        assert (audit.is_clean, audit.rows_written, audit.warnings) == (True, total, warnings)

    def test_fewer_are_no_finding_where_counts_are_upper_bounds(self, days: Lab) -> None:
        days.kafka.set_config(TOPIC, **{"cleanup.policy": "compact"})
        made = plan(days, 200, 300)
        self.done(days, made, 0, 1, less=2)

        audit = audit_recorded_replay(control(days), made)

        assert audit.is_clean
        assert audit.upper_bounds == (TOPIC,)

    def test_a_shard_that_finished_other_ranges(self, days: Lab) -> None:
        made = plan(days, 200, 300)
        self.done(days, made, 0, 1)
        first, second = made.shards

        swapped = replace(first, number=second.number), replace(second, number=first.number)
        findings = audit_recorded_replay(control(days), replace(made, shards=swapped)).findings

        assert any("finished other ranges than the planned ones" in each for each in findings)

    def test_shards_that_leave_a_gap(self, days: Lab) -> None:
        made = plan(days, 200, 300)
        self.done(days, made, 0, 1)
        first, second = made.shards
        cut = replace(first, ranges=(replace(first.ranges[0], start=first.ranges[0].start + 1),))

        findings = audit_recorded_replay(control(days), replace(made, shards=(cut, second))).findings

        assert "flights[0]: the next shard starts at 11, expected 10" in findings

    def test_what_another_attempt_has_read_does_not_count(self, days: Lab) -> None:
        self.done(days, plan(days, 200, 300), 0, 1)

        cleared = plan(days, 200, 300, key="cleared")

        assert audit_recorded_replay(control(days), cleared).shards_done == 0

    def test_a_long_backfill_has_one_total(self, days: Lab) -> None:
        for number, start_ms in enumerate((100, 200, 300)):
            made = plan(days, start_ms, start_ms + 100, operation=f"backfill__p/{number}")
            self.done(days, made, *range(2 - number))
        audits = replay_audits(control(days), "backfill__p/")
        control(days).keep_audit(audits["backfill__p/0"])
        plan(days, 100, 200, operation="backfill__p_2/0")
        assert replay_audits(control(days), "backfill__p/").keys() == audits.keys(), "of another DAG"

        total = total_of(replay_audits(control(days), "backfill__p/").values())

        assert str(total) == "1 of 3 intervals, 3 of 6 shards, 23 of 45 records"
        plan(days, 100, 200, operation="backfill__p/0", key="cleared")
        assert total_of(replay_audits(control(days), "backfill__p/").values()).intervals_done == 0


class TestThenLive:
    """A live job reads while everything since a time is replayed, and is then started where the replay ended."""

    def restart(self, lab: Lab, replayed: ReplayPlan, operation: str = "restart") -> RestartPlan:
        start = f"offsets:{replayed.end.to_json()} | earliest"
        steps.stop(lab, operation)
        applied = steps.apply(lab, start, operation)
        steps.submit(lab, applied, operation)
        return applied.plan

    def test_no_gap_and_nothing_twice_by_the_new_version(self, lab: Lab) -> None:
        steps.start(lab)
        replayed = plan(lab, 0, 500)
        lab.feed(30)
        lab.tick()
        lab.feed(5)

        made = self.restart(lab, replayed)

        assert (replayed.begin, replayed.end) == (lab.at(0, 0), lab.at(100, 100))
        assert lab.driver.settings.claim.start == replayed.end
        assert made.replay == 60, "what the old version read meanwhile, and the new one has to read"
        lab.tick()
        audit = audit_history(lab.session())
        assert (audit.lost, audit.skipped, audit.replayed, audit.unexplained_count) == (0, 0, 60, 0)

    def test_a_partition_that_was_made_meanwhile_is_read_from_its_beginning(self, lab: Lab) -> None:
        steps.start(lab)
        replayed = plan(lab, 0, 500)
        lab.kafka.add_partitions(TOPIC, 3)
        lab.feed(10, 2)
        lab.tick()

        self.restart(lab, replayed)

        assert lab.driver.settings.claim.start == lab.at(100, 100, 0)

    def test_a_job_behind_the_end_of_the_replay_skips_no_unread_records(self, lab: Lab) -> None:
        steps.start(lab)
        steps.stop(lab, "yesterday")
        lab.clock.now += 86_400
        lab.feed(30)
        replayed = plan(lab, 0, 500)

        with pytest.raises(PlanRefused, match="accept_skipped=flights:60"):
            self.restart(lab, replayed)
