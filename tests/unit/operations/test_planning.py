"""What a plan uses besides the state of the moment."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.problem import Problem, ProblemKind
from airflow_provider_offsets.core.restart.model import RestartPolicy
from airflow_provider_offsets.errors import PartitionUnavailable
from airflow_provider_offsets.operations.planning import draft_plan, known_leader_epochs, make_plan, recorded_plan
from tests.contract.fake_hbase import FakeHBase
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab

FIRST = TopicPartition(TOPIC, 0)


def kinds(lab: Lab, start: str = "committed") -> list[ProblemKind]:
    return [problem.kind for problem in steps.plan(lab, start, "look").problems]


class TestLeaderEpochs:
    def test_the_submit_notes_them(self, lab: Lab) -> None:
        lab.kafka.set_leader_epoch(TOPIC, 0, 7)
        steps.rest(lab)
        assert kinds(lab) == []

        lab.kafka.set_leader_epoch(TOPIC, 0, 6)

        assert kinds(lab) == [ProblemKind.LEADER_EPOCH_BACK]
        assert kinds(lab, "shift:-10") == [], "a start further back reads again what may have been replaced"

    def test_a_leader_epoch_that_a_snapshot_saw_after_the_submit(self, lab: Lab) -> None:
        steps.start(lab)
        lab.kafka.set_leader_epoch(TOPIC, 0, 9)
        lab.session("yesterday").take_snapshot("before", reason="", taken_at="")
        lab.kafka.set_leader_epoch(TOPIC, 0, 8)
        lab.session("today").take_snapshot("before", reason="", taken_at="")

        assert kinds(lab) == [ProblemKind.LEADER_EPOCH_BACK], "the snapshot of today hides nothing"

    def test_a_new_start_accounts_for_it(self, lab: Lab) -> None:
        lab.kafka.set_leader_epoch(TOPIC, 0, 9)
        steps.start(lab)
        lab.session("yesterday").take_snapshot("before", reason="", taken_at="")
        steps.stop(lab, "op")
        lab.kafka.set_leader_epoch(TOPIC, 0, 8)
        steps.submit(lab, steps.apply(lab, "shift:-10"))

        assert kinds(lab) == []
        seen = lab.session("look").observe()
        assert known_leader_epochs(lab.session("look"), seen) == {FIRST: 8, TopicPartition(TOPIC, 1): 0}


class TestRetention:
    def test_the_runway_is_in_the_plan(self, lab: Lab) -> None:
        """The lab's clock stands at 1,000 s; its records are of 1970."""
        lab.kafka.set_config(TOPIC, **{"retention.ms": "4600000"})

        runway = steps.plan(lab).runway

        assert runway is not None
        assert {each.seconds for each in runway.partitions} == {3_600}
        assert runway.summary == "at least 1 h (flights[0]: retention.ms=4600000, CreateTime)"

    def test_after_a_rewind_it_is_that_of_what_is_read_again(self, lab: Lab) -> None:
        steps.rest(lab)
        lab.kafka.set_config(TOPIC, **{"retention.ms": "4600000"})

        def least(start: str) -> int | None:
            runway = steps.plan(lab, start).runway
            assert runway is not None
            assert runway.least is not None
            return runway.least.seconds

        assert least("committed") == 4_600, "nothing is unread; what comes is kept that long"
        assert 3_500 < (least("shift:-1") or 0) <= 3_600, "and that of the records is an hour"

    @pytest.mark.parametrize(
        ("why", "retention_ms", "window_s", "accept_lost", "problems"),
        [
            ("no window, no problem", "1001000", 0, 0, []),
            ("all records are kept beyond it", "4600000", 3_600, 0, []),
            ("by a second they are not", "4600000", 3_601, 0, [ProblemKind.WINDOW_TOO_LONG]),
            ("one of 200 at risk is not accepted", "4600000", 3_601, 199, [ProblemKind.WINDOW_TOO_LONG]),
            ("as many as are at risk are accepted", "4600000", 3_601, 200, []),
            ("what is still to come cannot be counted", "4600000", 4_601, 10**6, [ProblemKind.WINDOW_TOO_LONG]),
            ("nothing is deleted by time", "-1", 10**6, 0, []),
        ],
    )
    def test_a_window(
        self, why: str, retention_ms: str, window_s: int, accept_lost: int, problems: list[ProblemKind], lab: Lab
    ) -> None:
        lab.kafka.set_config(TOPIC, **{"retention.ms": retention_ms})
        policy = RestartPolicy(accept_lost={TOPIC: accept_lost})

        plan = make_plan(lab.session(), "committed", policy, window_s=window_s)

        assert [problem.kind for problem in plan.problems] == problems

    def test_only_the_records_that_do_not_outlive_the_window_are_at_risk(self, lab: Lab) -> None:
        lab.kafka.append(TOPIC, 0, 50, timestamp_ms=900_000)
        lab.kafka.set_config(TOPIC, **{"retention.ms": "2000000"})

        plan = make_plan(lab.session(), "committed", RestartPolicy(), window_s=1_500)

        assert plan.runway is not None
        assert [each.at_risk for each in plan.runway.partitions] == [100, 100]
        [problem] = plan.problems
        assert (
            "would stay stopped for 25 min, and Kafka retains the first unread record at least 16 min"
            in problem.message
        )
        assert problem.message.endswith(", or set accept_lost=flights:200 to accept the records that are at risk now")

    def test_a_plan_that_was_recorded_is_the_same_read_back(self, lab: Lab) -> None:
        plan = make_plan(lab.session(), "committed", RestartPolicy(), window_s=10)

        assert recorded_plan(lab.session()) == plan


class TestHistoryThatExpires:
    """A table with the time to live of the slides loses the batches that an audit needs; the facts beside it do not."""

    TABLE = "stream_offsets"

    def problems(self, lab: Lab, server: FakeHBase) -> list[Problem]:
        plan, _ = draft_plan(lab.session(store=server.store(self.TABLE)), "committed", RestartPolicy())
        return list(plan.problems)

    def test_a_tracked_job_is_not_started_on_it(self, lab: Lab) -> None:
        server = FakeHBase()
        assert self.problems(lab, server) == [], "the test of the test: the table keeps its rows"
        server.time_to_live_s[self.TABLE] = 2_592_000

        [problem] = self.problems(lab, server)

        assert problem.kind is ProblemKind.HISTORY_EXPIRES
        assert "HBase deletes each row of 'stream_offsets' 2592000 s after it was written" in problem.message
        assert "FOREVER" in problem.message

    def test_an_untracked_job_keeps_no_batches_in_it(self, lab: Lab) -> None:
        lab.more |= {"tracked": False, "offsets_in": ("checkpoint",)}
        lab.stop = StopPolicy(marker="/stop")
        server = FakeHBase()
        server.time_to_live_s[self.TABLE] = 2_592_000

        assert ProblemKind.HISTORY_EXPIRES not in [problem.kind for problem in self.problems(lab, server)]


def test_a_compacted_topic_has_counts_that_are_upper_bounds(lab: Lab) -> None:
    assert steps.plan(lab).upper_bounds == ()
    lab.kafka.set_config(TOPIC, **{"cleanup.policy": "compact"})

    plan = steps.plan(lab)

    assert plan.upper_bounds == (TOPIC,)
    assert "flights: compacted, so some offsets have no record; counts are upper bounds" in plan.notes
    assert plan.runway is not None
    assert "compaction leaves the last record of each key" in plan.runway.summary


def test_committed_records_only(lab: Lab) -> None:
    """The job cannot see the end of the log while a transaction is open, and neither may its plan."""
    lab.kafka.begin_transaction(TOPIC, 0)
    lab.feed(7, 0)

    def ends_and_bounds() -> tuple[Position, tuple[str, ...]]:
        plan = steps.plan(lab)
        return Position({row.key: row.end for row in plan.rows}), plan.upper_bounds

    assert ends_and_bounds() == (lab.at(107, 100), ())
    lab.more["read_committed"] = True
    assert ends_and_bounds() == (lab.at(100, 100), (TOPIC,))
    assert "last stable offsets" in " ".join(steps.plan(lab).notes)
    lab.kafka.end_transaction(TOPIC, 0)
    assert ends_and_bounds() == (lab.at(108, 100), (TOPIC,))


def test_a_partition_without_leader_is_no_plan_but_an_error_that_passes(lab: Lab) -> None:
    lab.kafka.fail_with(
        PartitionUnavailable(seen="flights[1] cannot be asked (no leader)", expected="a leader", do="wait for it")
    )

    with pytest.raises(PartitionUnavailable, match=r"flights\[1\].*\. Expected a leader\. Wait") as caught:
        steps.plan(lab)

    assert caught.value.retriable


class TestCheckpoint:
    """What Spark refuses at a start is in the plan, while the job still runs."""

    @pytest.mark.parametrize(
        ("why", "files", "seen"),
        [
            ("C7: a name that Spark takes for a batch", {"offsets/07": "x"}, "'07', which Spark takes for batch 7"),
            ("C7: checksums of a file that was removed", {"offsets/.1.crc": "x"}, "offsets holds .1.crc, and no 1"),
        ],
    )
    def test_a_resume_is_refused_and_a_new_checkpoint_is_not(
        self, why: str, files: dict[str, str], seen: str, lab: Lab
    ) -> None:
        steps.start(lab)
        lab.tick()
        for path, text in files.items():
            (lab.folder / "checkpoint" / path).write_text(text)

        [problem] = steps.plan(lab).problems

        assert problem.kind is ProblemKind.NO_RESUME
        assert seen in problem.message
        assert lab.driver.is_alive
        assert kinds(lab, "shift:-10") == []

    def test_a_gap_is_refused_where_no_query_is_asynchronous(self, lab: Lab) -> None:
        """C4: TrackedStream cannot run with asynchronous progress, so somebody removed the files."""
        steps.start(lab)
        for _ in range(6):
            lab.feed(5)
            lab.tick()
        checkpoint = lab.folder / "checkpoint"
        newest = max(int(each.name) for each in (checkpoint / "offsets").iterdir())
        for log in ("offsets", "commits"):
            (checkpoint / log / str(newest - 1)).unlink(missing_ok=True)

        [problem] = steps.plan(lab).problems

        assert problem.kind is ProblemKind.NO_RESUME
        assert "and none between them" in problem.message

    def test_what_lies_in_the_folder_of_a_first_start_is_refused(self, lab: Lab) -> None:
        (lab.folder / "checkpoint" / "offsets").mkdir(parents=True)
        (lab.folder / "checkpoint" / "offsets" / ".0.tmp").write_text("x")

        [problem] = steps.plan(lab).problems

        assert problem.kind is ProblemKind.NO_RESUME
        assert "holds '.0.tmp', and offsets holds no batch" in problem.message
