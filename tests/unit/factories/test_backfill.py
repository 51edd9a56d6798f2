"""The backfill DAG: its intervals as Airflow's backfills and scheduler see them, its tasks and its form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ParamValidationError
from airflow.sdk import DAG
from airflow.timetables.base import TimeRestriction

from airflow_provider_offsets.core.moments import read_moment
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.core.selectors.parse import parse_start
from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.factories import backfill_dag, backfill_then_live_dag
from airflow_provider_offsets.operators import PlanBackfillOperator
from tests.unit.airflow_versions import DagSerialization
from tests.unit.factories.test_other_dags import BEFORE

PIPELINE = StreamingPipeline("alerts", ("flights",), SparkJob("/jobs/alerts.py", "/checkpoint"))
FIRST = datetime(2013, 1, 1, tzinfo=UTC)


def made(**policy: Any) -> DAG:
    return backfill_dag(replace(PIPELINE, backfill=BackfillPolicy(**policy)))


def stored(dag: DAG) -> Any:
    """Return the DAG as Airflow's scheduler has it."""
    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


@pytest.mark.parametrize(("interval", "hours"), [("@daily", 24), ("0 */6 * * *", 6), ("P1D", 24), ("PT6H", 6)], ids=str)
@pytest.mark.parametrize("automatic", [False, True], ids=["asked", "automatic"])
def test_airflow_s_backfill_finds_its_intervals(interval: str, hours: int, automatic: bool) -> None:
    dag = stored(made(interval=interval, automatic=automatic))

    found = list(dag.iter_dagrun_infos_between(FIRST, FIRST + timedelta(hours=2 * hours)))

    assert dag.timetable.periodic
    assert [(each.data_interval.start, each.data_interval.end) for each in found] == [
        (FIRST + timedelta(hours=number * hours), FIRST + timedelta(hours=(number + 1) * hours)) for number in range(3)
    ]


@pytest.mark.parametrize("interval", ["@daily", "PT6H"])
@pytest.mark.parametrize("automatic", [False, True], ids=["asked", "automatic"])
def test_nothing_runs_by_itself_unless_it_is_said(interval: str, automatic: bool) -> None:
    dag = stored(made(interval=interval, automatic=automatic))

    following = dag.timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(None, None, catchup=dag.catchup)
    )

    assert (following is not None) is automatic


def test_what_lies_behind_is_caught_up() -> None:
    dag = made(automatic=True, since="2013-01-01T00:00Z")

    assert (dag.catchup, dag.start_date) == (True, FIRST)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        pytest.param({"interval": "P1M"}, "years and months", id="a month is of no one length"),
        pytest.param({"automatic": True, "since": "2013-01-01"}, "it has no time zone", id="a naive time"),
        pytest.param({"since": "2013-01-01T00:00Z"}, "automatic is off", id="since, and nothing runs by itself"),
    ],
)
def test_what_cannot_be_read_is_refused_where_the_file_is(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(InputRefused, match=words):
        made(**policy)


def test_its_tasks() -> None:
    dag = made(parallel_shards=3, pool="spark")

    assert dag.dag_id == "backfill__alerts"
    assert {task.task_id: set(task.downstream_task_ids) for task in dag.tasks} == {
        "plan_backfill": {"replay"},
        "replay": {"audit_backfill"},
        "audit_backfill": set(),
    }
    replay: Any = dag.get_task("replay")
    assert replay.is_mapped
    assert (replay.partial_kwargs["max_active_tis_per_dagrun"], replay.partial_kwargs["pool"]) == (3, "spark")
    assert dag.get_task("audit_backfill").trigger_rule == "none_failed", "an interval without records has no shard"


def test_what_comes_after_the_audit_is_called_with_the_run_id() -> None:
    dag = backfill_dag(PIPELINE, after_audit=print)

    task: Any = dag.get_task("after_audit")
    assert dag.get_task("audit_backfill").downstream_task_ids == {"after_audit"}
    assert "run_id" in task.op_args[0]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        pytest.param({}, ("", "", "", ""), id="the run's own interval"),
        pytest.param(
            {"from": "2013-01-01T00:00Z", "to": "2013-01-02T00:00Z", "on_open": "wait", "records_per_shard": 7},
            ("2013-01-01T00:00Z", "2013-01-02T00:00Z", "wait", "7"),
            id="by hand",
        ),
    ],
)
def test_its_form_is_what_is_planned(params: dict[str, Any], expected: tuple[str, ...]) -> None:
    dag = made()
    task = dag.get_task("plan_backfill")
    assert isinstance(task, PlanBackfillOperator)

    task.render_template_fields({"params": {**dag.params.dump(), **params}, "dag": dag, "run_id": "r"})  # type: ignore[typeddict-item]

    assert (task.begin, task.end, task.on_open, task.records_per_shard) == expected
    assert task.operation == "backfill__alerts/r"


class TestThenLive:
    made = backfill_then_live_dag(PIPELINE)

    def rendered(self, name: str) -> Any:
        plan = {"end": {"flights": {"0": 7, "1": 9}}}

        class Task:
            @staticmethod
            def xcom_pull(*, task_ids: str, key: str) -> Any:
                assert task_ids == "plan_backfill"
                return {"plan": plan, "run_id": "backfill_then_live__alerts/r#version#1"}[key]

        task: Any = backfill_then_live_dag(PIPELINE).get_task(name)
        run = SimpleNamespace(start_date=datetime(2026, 11, 3, 4, 5, 6, 789_123, UTC))
        params = {**{key: None for key in self.made.params}, "from": "2026-11-01T00:00Z"}
        task.render_template_fields({"ti": Task(), "dag_run": run, "dag": self.made, "run_id": "r", "params": params})
        return task

    def test_its_steps(self) -> None:
        line = [each.task_id for each in self.made.topological_sort() if "roll" not in each.task_id]

        assert line[:3] == ["plan_backfill", "replay", "audit_backfill"]
        assert line[3:] == [*BEFORE, "replan", "apply", "submit", "watch", "audit"]

    def test_it_replays_up_to_when_the_run_began(self) -> None:
        task = self.rendered("plan_backfill")

        assert (task.begin, task.end, task.on_open) == ("2026-11-01T00:00Z", "2026-11-03T04:05:06.789+00:00", "close")
        assert read_moment(task.end)

    @pytest.mark.parametrize("name", ["plan", "replan"])
    def test_the_live_job_starts_where_the_replay_ended(self, name: str) -> None:
        task = self.rendered(name)

        ends, rest = parse_start(task.start).parts
        assert str(ends) == 'offsets:{"flights":{"0":7,"1":9}}'
        assert str(rest) == "earliest"

    def test_a_run_that_is_cleared_starts_the_live_job_again(self) -> None:
        """Each attempt is an operation of its own for the live job: one operation starts the job only once."""
        of_the_replay = {"plan_backfill", "audit_backfill"}
        of_the_restart = {task.task_id for task in self.made.tasks if hasattr(task, "operation")} - of_the_replay

        assert {"snapshot_before", "stop", "submit", "roll_back", "audit_rollback"} < of_the_restart
        for name in of_the_restart:
            assert self.rendered(name).operation == "backfill_then_live__alerts/r#version#1", name
        for name in of_the_replay:
            assert self.rendered(name).operation == "backfill_then_live__alerts/r"

    def test_a_person_has_to_say_from_when(self) -> None:
        with pytest.raises(ParamValidationError):
            self.made.params.get_param("from").resolve()
