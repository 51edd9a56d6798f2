"""The DAGs beside the maintenance: their steps, when they run, and what their forms accept."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ParamValidationError
from airflow.sdk import DAG
from airflow.timetables.base import TimeRestriction
from airflow.timetables.simple import ContinuousTimetable

from airflow_provider_offsets.core.pipeline import Schedules, SparkJob, StreamingPipeline
from airflow_provider_offsets.factories import (
    maintenance_dag,
    recovery_dag,
    rehearsal_dag,
    reprocess_dag,
    snapshots_dag,
)
from airflow_provider_offsets.operators import PlanRestartOperator
from tests.unit.factories.test_maintenance import UNDO, in_order

PIPELINE = StreamingPipeline(
    "alerts",
    ("flights",),
    SparkJob("/jobs/alerts.py", "/checkpoint"),
    schedules=Schedules(recovery="@continuous", rehearsal="0 6 * * *", snapshots="@hourly"),
)
ACTS = ["replan", "apply", "submit", "watch", "audit"]
BEFORE = ["preflight", "snapshot_before", "plan", "continue_unless_dry_run", "approve", "stop", "snapshot_stopped"]


@pytest.mark.parametrize(
    ("made", "steps", "beside"),
    [
        (reprocess_dag(PIPELINE), [*BEFORE, *ACTS], UNDO),
        (recovery_dag(PIPELINE), ["await_death", "begin_recovery", "snapshot_stopped", *ACTS], []),
        (rehearsal_dag(PIPELINE), ["preflight", "plan"], []),
        (snapshots_dag(PIPELINE), ["snapshot", "prune"], []),
    ],
    ids=lambda each: each.dag_id if isinstance(each, DAG) else "",
)
def test_their_steps(made: DAG, steps: list[str], beside: list[str]) -> None:
    """A recovery has nothing to go back to: it starts what ran before."""
    assert in_order(made) == steps
    assert sorted(made.task_ids) == sorted([*steps, *beside])
    assert made.max_active_runs == 1
    assert "`alerts`" in str(made.doc_md)


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (maintenance_dag, None),
        (reprocess_dag, None),
        (recovery_dag, "@continuous"),
        (rehearsal_dag, "0 6 * * *"),
        (snapshots_dag, "@hourly"),
    ],
)
def test_when_they_run(make: Any, schedule: str | None) -> None:
    assert make(PIPELINE).schedule == schedule


def test_a_second_watch_follows_the_first() -> None:
    """Airflow creates no run with the logical date of another run."""
    restriction = TimeRestriction(recovery_dag(PIPELINE).start_date, None, catchup=False)  # type: ignore[arg-type]
    timetable = ContinuousTimetable()
    first = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert first is not None
    second = timetable.next_dagrun_info(last_automated_data_interval=first.data_interval, restriction=restriction)
    assert second is not None

    assert second.logical_date > first.logical_date


def test_what_is_passed_on_wins() -> None:
    assert rehearsal_dag(PIPELINE, schedule="@weekly", dag_id="mine").schedule == "@weekly"
    assert recovery_dag(PIPELINE, retries=7).get_task("submit").retries == 7


class TestReprocess:
    made = reprocess_dag(PIPELINE)

    def test_a_person_has_to_say_where_to_start(self) -> None:
        start = self.made.params.get_param("start")

        with pytest.raises(ParamValidationError):
            start.resolve()
        assert start.resolve("shift:-100") == "shift:-100"

    def test_another_version_is_checked_before_the_stop_and_is_what_is_submitted(self) -> None:
        context = {"params": {"application": "alerts_2.py", "start": "earliest", "reason": ""}}
        for name in ("plan", "replan", "submit"):
            task: Any = reprocess_dag(PIPELINE).get_task(name)
            task.render_template_fields({**context, "dag": self.made, "run_id": "r"})
            assert task.application == "alerts_2.py", name

    def test_it_can_take_the_pipeline_over(self) -> None:
        assert self.made.params["take_over"] is False

    def test_none_is_the_version_of_the_pipeline(self) -> None:
        task: Any = reprocess_dag(PIPELINE).get_task("submit")
        task.render_template_fields({"params": {"application": None, "reason": ""}, "dag": self.made, "run_id": "r"})
        assert task.application == ""


class TestRecovery:
    made = recovery_dag(PIPELINE)

    def test_its_operation_is_that_of_the_epoch_that_died(self) -> None:
        """Two runs, and every retry, recover from one death once."""
        context = {
            "params": {},
            "dag": self.made,
            "run_id": "r",
            "ti": type("Ti", (), {"xcom_pull": lambda self, task_ids: {"await_death": {"epoch": 7}}[task_ids]})(),
        }
        for name in ("begin_recovery", "snapshot_stopped", *ACTS):
            task: Any = recovery_dag(PIPELINE).get_task(name)
            task.render_template_fields(context)
            assert task.operation == "recovery/00000007", name

    def test_it_waits_without_a_worker_and_continues_at_the_position_of_the_job(self) -> None:
        sensor: Any = self.made.get_task("await_death")
        plan = self.made.get_task("replan")

        assert sensor.deferrable
        assert isinstance(plan, PlanRestartOperator)
        assert plan.start == "committed"


class TestSnapshots:
    @pytest.mark.parametrize(("given", "label"), [("before-2.1", "before-2.1"), (None, "")])
    def test_a_run_may_give_it_a_label(self, given: str | None, label: str) -> None:
        made = snapshots_dag(PIPELINE)
        assert made.params.get_param("label").resolve(given) == given
        task: Any = made.get_task("snapshot")

        task.render_template_fields({"params": {"label": given, "reason": ""}, "dag": made, "run_id": "r"})

        assert task.snapshot_label == label

    def test_what_is_no_name_is_refused(self) -> None:
        with pytest.raises(ParamValidationError):
            snapshots_dag(PIPELINE).params.get_param("label").resolve("a b")

    def test_one_that_fails_leaves_everything_where_it_is(self) -> None:
        assert snapshots_dag(PIPELINE).get_task("prune").trigger_rule == "all_success"


class TestApproval:
    @pytest.mark.parametrize(("of_pipeline", "default"), [(True, True), (False, False)])
    def test_the_pipeline_says_and_a_run_may_say_otherwise(self, of_pipeline: bool, default: bool) -> None:
        pipeline = StreamingPipeline("a", ("t",), SparkJob("/a.py", "/c"), approve=of_pipeline)

        for make in (maintenance_dag, reprocess_dag):
            assert make(pipeline).params["approve"] is default

    def test_the_plan_is_what_a_person_sees(self) -> None:
        ti = type("Ti", (), {"xcom_pull": lambda self, task_ids: {"plan": {"markdown": "| topic |"}}[task_ids]})()
        task: Any = maintenance_dag(PIPELINE).get_task("approve")
        task.render_template_fields({"params": {"reason": "upgrade"}, "ti": ti, "dag": self.made})

        assert "upgrade" in task.body
        assert "| topic |" in task.body
        assert task.subject.startswith("maintenance__alerts")

    made = maintenance_dag(PIPELINE)

    def test_nobody_is_asked_unless_the_run_says_so(self) -> None:
        task: Any = maintenance_dag(PIPELINE).get_task("approve")

        assert task.execute({"params": {"approve": False}}) is None

    def test_it_comes_before_anything_is_stopped(self) -> None:
        assert self.made.get_task("stop").upstream_task_ids == {"approve"}
