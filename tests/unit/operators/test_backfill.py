"""The operators of a backfill: the source of the interval, the difference of retry and clear, values in XCom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Replayed, Shard
from airflow_provider_offsets.operations.backfilling import recorded_replay_plan
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operators import AuditBackfillOperator, PlanBackfillOperator, ReplayOffsetsOperator, base
from airflow_provider_offsets.testing.fake_kafka import FakeKafka
from tests.unit.conftest import Connect
from tests.unit.operations import steps
from tests.unit.operations.lab import NAME, TOPIC, Lab
from tests.unit.operations.shards import replay_shard

DAY_MS = 86_400_000
START = datetime(2026, 11, 3, tzinfo=UTC)
START_MS = int(START.timestamp()) * 1000
OPERATION = "backfill__p/run-1"


@pytest.fixture(autouse=True)
def airflow(lab: Lab, connect: Connect, spark_submit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set up Airflow's connections and what is behind them: five records a day for four days."""
    Path(lab.pipeline.job.application).write_text("")
    (lab.folder / "job_2.py").write_text("mended")
    connect("offsets_default", "offsets", extra={"url": "postgresql://offsets@db.example/offsets"})
    connect("kafka_default", "kafka", extra={"bootstrap.servers": "broker.example:9092"})
    connect("spark_default", "spark", host="local[2]")
    lab.kafka = FakeKafka()
    lab.kafka.create_topic(TOPIC, partitions=1)
    for day in (-1, 0, 1, 2):
        lab.kafka.append(TOPIC, 0, 5, timestamp_ms=START_MS + day * DAY_MS + 1)

    @contextmanager
    def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
        yield Session(pipeline, operation, lab.store, lab.kafka)

    monkeypatch.setattr(base, "open_session", open_session)
    lab.clock.now = (START_MS + 10 * DAY_MS) / 1000


class Run:
    """What Airflow passes to a task of one DAG run."""

    def __init__(self, days: tuple[int, int] | None = (0, 1)) -> None:
        at = (
            [None, None]
            if days is None
            else [datetime.fromtimestamp((START_MS + d * DAY_MS) / 1000, UTC) for d in days]
        )
        self.dag_run = SimpleNamespace(
            run_id="run-1", data_interval_start=at[0], data_interval_end=at[1], start_date=START
        )
        self.pushed: dict[str, Any] = {}
        self.max_tries = 2

    @property
    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(max_tries=self.max_tries, xcom_push=self.pushed.__setitem__)
        return {"ti": ti, "dag_run": self.dag_run, "params": {}}

    def cleared(self) -> Run:
        """Return the run as Airflow has it after a clear."""
        self.max_tries += 1
        return self


def plan(lab: Lab, run: Run, **more: Any) -> list[dict[str, Any]]:
    task = PlanBackfillOperator(task_id="task", pipeline=lab.pipeline, operation=OPERATION, reason="", **more)
    given: list[dict[str, Any]] = task.execute(run.context)  # type: ignore[arg-type]  # what Airflow's has is not asked
    return given


def test_it_gives_the_shards_of_the_run_s_interval(lab: Lab) -> None:
    run = Run()

    shards = plan(lab, run, records_per_shard=3)

    assert [codec.build(Shard, each, "shard") for each in shards] == [
        Shard(0, (OffsetRange(TOPIC, 0, 5, 8),)),
        Shard(1, (OffsetRange(TOPIC, 0, 8, 10),)),
    ]
    assert run.pushed["run_id"].startswith(f"{OPERATION}#")
    shown = run.pushed["plan"]
    assert (shown["records"], shown["shards"], shown["attempt"], shown["is_exact"]) == (5, 2, 1, True)
    assert shown["markdown"].count("|") > 5


def test_from_and_to_win_over_it(lab: Lab) -> None:
    [shard] = plan(lab, Run(None), begin="2026-11-04T00:00Z", end="2026-11-06T01:00+01:00")

    assert shard["ranges"][0] == {"topic": TOPIC, "partition": 0, "start": 10, "end": 20}


@pytest.mark.parametrize(
    ("days", "more", "words"),
    [
        pytest.param(None, {}, "has no data interval", id="by hand, and nothing filled in"),
        pytest.param((0, 0), {}, "has no data interval", id="a run of a DAG without intervals"),
        pytest.param(None, {"begin": "2026-11-04T00:00Z"}, "Only 'from' is set", id="one end"),
        pytest.param(
            None, {"begin": "2026-11-04T00:00", "end": "2026-11-05T00:00Z"}, "'from'.*it has no time zone", id="naive"
        ),
        pytest.param(None, {"begin": "2026-11-04T00:00Z", "end": "tomorrow"}, "'to'.*not a date", id="no time at all"),
        pytest.param(
            None, {"begin": "2026-11-05T00:00Z", "end": "2026-11-04T00:00Z"}, "ends before its start", id="backwards"
        ),
        pytest.param(None, {"begin": "2027-01-01T00:00Z", "end": "2027-01-02T00:00Z"}, "has started", id="the future"),
        pytest.param((0, 1), {"accept_lost": "flights"}, "accept_lost", id="a count that is none"),
        pytest.param((0, 1), {"on_open": "later"}, "'on_open' is 'later'.*one of", id="an unknown choice"),
        pytest.param((0, 1), {"records_per_shard": "many"}, "'records_per_shard' is 'many'", id="no number"),
        pytest.param((0, 1), {"records_per_shard": "-5"}, "'records_per_shard' is '-5'", id="a number below 1"),
        pytest.param((0, 1), {"application": "../job.py"}, "where job.application is", id="a program from elsewhere"),
    ],
)
def test_what_a_person_wrote_wrong_fails_at_once(
    lab: Lab, days: tuple[int, int] | None, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(AirflowFailException, match=words):
        plan(lab, Run(days), **more)


def test_a_retry_has_the_run_id_of_before_and_a_clear_another_one(lab: Lab) -> None:
    run = Run()
    plan(lab, run)
    first = run.pushed["run_id"]

    plan(lab, run)
    assert run.pushed["run_id"] == first
    plan(lab, run.cleared())
    assert run.pushed["run_id"] != first
    assert run.pushed["plan"]["attempt"] == 2


def test_a_run_that_began_once_more_under_the_same_id_is_another_attempt(lab: Lab) -> None:
    """Airflow's own records of the first run were deleted, with their counters."""
    run, again = Run(), Run()
    plan(lab, run)
    again.dag_run.start_date = datetime(2026, 12, 1, tzinfo=UTC)

    plan(lab, again)

    assert again.pushed["plan"]["attempt"] == 2


def test_another_version_of_the_program_has_another_run_id(lab: Lab) -> None:
    run = Run()
    plan(lab, run)
    first = run.pushed["run_id"]

    plan(lab, run.cleared(), application="job_2.py")

    assert first.split("#")[1] != run.pushed["run_id"].split("#")[1]


def test_it_waits_in_the_triggerer_where_that_is_wanted(lab: Lab) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        plan(lab, Run((2, 3)), on_open="wait")

    assert deferred.value.method_name == "execute_complete"
    lab.kafka.append(TOPIC, 0, 1, timestamp_ms=START_MS + 3 * DAY_MS)
    [shard] = plan(lab, Run((2, 3)), on_open="wait")
    assert shard["ranges"][0]["end"] == 20


def test_what_retention_has_deleted_fails_at_once_with_its_count(lab: Lab) -> None:
    plan(lab, Run((0, 1)))
    lab.kafka.delete_records_before(TOPIC, 0, 7)

    with pytest.raises(AirflowFailException, match="accept_lost=flights:2"):
        plan(lab, Run((0, 1)).cleared())
    [shard] = plan(lab, Run((0, 1)).cleared(), accept_lost="flights:2")
    assert shard["ranges"][0]["start"] == 7


class TestAudit:
    def audit(self, lab: Lab) -> dict[str, Any]:
        task = AuditBackfillOperator(task_id="task", pipeline=lab.pipeline, operation=OPERATION, reason="")
        given: dict[str, Any] = task.execute({})  # type: ignore[typeddict-item]  # what Airflow's has is not asked
        return given

    def replayed(self, lab: Lab, read: int) -> None:
        made = recorded_replay_plan(Session(lab.pipeline, OPERATION, lab.store, lab.kafka))
        assert made is not None
        for shard in made.shards:
            replay_shard(ReplayControl(lab.store, NAME), made.run_id, shard, read)

    def test_all_was_read(self, lab: Lab) -> None:
        plan(lab, Run())
        self.replayed(lab, 5)

        shown = self.audit(lab)

        assert (shown["records_read"], shown["records_expected"], shown["findings"]) == (5, 5, [])
        assert shown["total"]["intervals_done"] == 1
        assert shown["markdown"].startswith(f"Replay {shown['run_id']} of 2026-11-03")

    def test_one_record_is_missing(self, lab: Lab) -> None:
        plan(lab, Run())
        self.replayed(lab, 4)

        with pytest.raises(AirflowFailException, match="shard 0: read 4 records, expected 5"):
            self.audit(lab)

    def test_records_that_another_run_was_given_too_are_named_with_their_number(self, lab: Lab) -> None:
        task = PlanBackfillOperator(task_id="task", pipeline=lab.pipeline, operation="backfill__p/run-0", reason="")
        task.execute(Run((0, 2)).context)  # type: ignore[arg-type]  # what Airflow's has is not asked
        control = ReplayControl(lab.store, NAME)
        other = control.newest_plan("backfill__p/run-0")
        assert other is not None
        replay_shard(control, other.run_id, other.shards[0])
        plan(lab, Run((1, 2)))
        self.replayed(lab, 5)

        shown = self.audit(lab)

        assert [(each["run_id"], each["records"]) for each in shown["also_replayed"]] == [(other.run_id, 5)]
        assert f"Replayed twice: 5 records also by '{other.run_id}'" in shown["markdown"]

    def test_zero_records_are_no_failure(self, lab: Lab) -> None:
        assert plan(lab, Run(None), begin="2026-11-03T01:00Z", end="2026-11-03T02:00Z") == []

        shown = self.audit(lab)

        assert (shown["records_read"], shown["shards"]) == (0, 0)

    def test_partitions_that_were_closed_at_the_end_of_the_log_are_named(self, lab: Lab) -> None:
        plan(lab, Run((2, 3)))
        self.replayed(lab, 5)

        shown = self.audit(lab)

        assert shown["open_boundaries"] == [{"topic": TOPIC, "partition": 0, "closed_at": 20}]
        assert "Closed at the end of the log" in shown["markdown"]

    def test_nothing_was_planned(self, lab: Lab) -> None:
        with pytest.raises(AirflowFailException, match="has planned no replay"):
            self.audit(lab)


class TestYieldToTheLiveJob:
    """A shard starts only while the live job keeps up."""

    @pytest.fixture
    def started(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Return the numbers of the shards that were started."""
        found: list[int] = []

        class Replaying:
            def __init__(self, session: Session, shard: Shard, *_: Any) -> None:
                self.shard = shard

            def run(self) -> Replayed:
                found.append(self.shard.number)
                return Replayed("run", self.shard.number, self.shard.ranges, 1, 1)

        monkeypatch.setattr("airflow_provider_offsets.operators.replay.ShardReplaying", Replaying)
        return found

    def task(self, lab: Lab) -> ReplayOffsetsOperator:
        shard = codec.plain(Shard(3, (OffsetRange(TOPIC, 0, 0, 1),)))
        return ReplayOffsetsOperator(
            task_id="task", pipeline=lab.pipeline, operation=OPERATION, reason="", run_id="run", shard=shard
        )

    def looked(self, lab: Lab, times: int) -> str:
        """Check this many times, each time in another process, as Airflow does; return the state of the wait."""
        window = ""
        for _ in range(times):
            lab.kafka.append(TOPIC, 0, 5)
            with pytest.raises(TaskDeferred) as deferred:
                self.go_on(lab, window)
            window = deferred.value.kwargs["window"]  # type: ignore[index]  # it is given
        return window

    def go_on(self, lab: Lab, window: str = "") -> None:
        context: Any = {}
        if window:
            self.task(lab).execute_complete(context, None, window)
        else:
            self.task(lab).execute(context)

    def test_without_a_live_job_it_begins(self, lab: Lab, started: list[int]) -> None:
        self.go_on(lab)

        assert started == [3]

    def test_where_the_live_job_has_read_all_it_begins(self, lab: Lab, started: list[int]) -> None:
        steps.start(lab)

        self.go_on(lab)

        assert started == [3]

    def test_while_it_falls_behind_no_shard_is_started(self, lab: Lab, started: list[int]) -> None:
        steps.start(lab)

        window = self.looked(lab, 5)

        assert started == []
        lab.tick()
        self.go_on(lab, window)
        assert started == [3], "it has caught up"

    def test_airflow_dags_test_drops_the_window(
        self, lab: Lab, started: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps.start(lab)
        lab.kafka.append(TOPIC, 0, 5)
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            assert started == []
            lab.tick() if len(waited) == 3 else lab.kafka.append(TOPIC, 0, 5)

        monkeypatch.setattr("airflow_provider_offsets.clock.sleep", sleep)
        self.task(lab).execute_complete({}, None)  # type: ignore[typeddict-item]

        assert (started, waited) == ([3], [10, 10, 10])

    def test_unless_the_pipeline_says_so(self, lab: Lab, started: list[int]) -> None:
        steps.start(lab)
        lab.kafka.append(TOPIC, 0, 5)
        lab.more["backfill"] = BackfillPolicy(yield_to_live=False)

        self.go_on(lab)

        assert started == [3]
