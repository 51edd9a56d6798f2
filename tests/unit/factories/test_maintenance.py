"""The maintenance DAG: its steps in order, its form, and what a bad ``pipelines.yaml`` looks like in Airflow."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, ParamValidationError, TaskDeferred
from airflow.providers.standard.sensors.date_time import DateTimeSensor
from airflow.sdk import DAG, TriggerRule, dag, task

from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.factories import (
    backfill_dag,
    maintenance_dag,
    recovery_dag,
    rehearsal_dag,
    reprocess_dag,
    snapshots_dag,
)
from airflow_provider_offsets.factories.maintenance import WINDOW_END
from airflow_provider_offsets.factories.restart import is_no_dry_run, refuse_unknown_params
from tests.unit.airflow_versions import dag_bag

DAGS = Path(__file__).parents[3] / "dags"
KINDS = ("maintenance", "reprocess", "recovery", "rehearsal", "snapshots")
REPLAYS = ("backfill", "backfill_then_live")
STEPS = [
    "preflight",
    "snapshot_before",
    "plan",
    "continue_unless_dry_run",
    "approve",
    "stop",
    "snapshot_stopped",
    "wait_out_window",
    "replan",
    "apply",
    "submit",
    "watch",
    "audit",
]
UNDO = ["roll_back", "audit_rollback"]
"""The tasks beside the linear steps, for an unhealthy job."""


@pytest.fixture(scope="module")
def pipeline() -> StreamingPipeline:
    return StreamingPipeline("alerts", ("flights",), SparkJob("/job.py", "/checkpoint"))


@pytest.fixture(scope="module")
def made(pipeline: StreamingPipeline) -> DAG:
    return maintenance_dag(pipeline)


def in_order(made: DAG) -> list[str]:
    """Return the tasks of a linear DAG, without those of the rollback."""
    [here] = made.roots
    found = [here.task_id]
    while following_ids := here.downstream_task_ids - {*UNDO}:
        [following] = following_ids
        here = made.get_task(following)
        found.append(following)
    return found


class TestShape:
    def test_its_steps(self, made: DAG) -> None:
        assert in_order(made) == STEPS
        assert sorted(made.task_ids) == sorted([*STEPS, *UNDO])

    def test_it_is_started_by_hand_and_one_at_a_time(self, made: DAG) -> None:
        assert (made.dag_id, made.schedule, made.max_active_runs, made.catchup) == (
            "maintenance__alerts",
            None,
            1,
            False,
        )

    def test_every_step_is_retried(self, made: DAG) -> None:
        assert {task.retries for task in made.tasks} == {2}

    def test_all_steps_of_a_run_are_one_operation(self, made: DAG) -> None:
        ours = [step for step in made.tasks if hasattr(step, "operation")]

        assert len(ours) == 12
        assert {step.operation for step in ours} == {"{{ dag.dag_id }}/{{ run_id }}"}

    def test_what_is_passed_on_wins(self, pipeline: StreamingPipeline) -> None:
        other = maintenance_dag(pipeline, retries=5, dag_id="mine", tags=["x"], max_active_tasks=1)

        assert (other.dag_id, other.tags, other.get_task("submit").retries) == ("mine", {"x"}, 5)

    def test_its_words_name_the_pipeline(self, made: DAG) -> None:
        assert "Maintenance of `alerts`" in str(made.doc_md)


class TestUndo:
    """Which tasks run when. ``tests/e2e/test_airflow.py`` shows what Airflow does with these rules."""

    def test_it_begins_once_the_submit_or_the_watch_has_failed(self, made: DAG) -> None:
        roll_back: Any = made.get_task("roll_back")

        assert roll_back.upstream_task_ids == {"submit", "watch"}
        assert roll_back.trigger_rule == TriggerRule.ONE_FAILED
        assert roll_back.automatic, "and it looks itself whether it is meant"
        assert roll_back.fails

    def test_the_audit_of_a_rollback_comes_after_one_that_has_failed_the_run(self, made: DAG) -> None:
        audit = made.get_task("audit_rollback")

        assert audit.upstream_task_ids == {"roll_back"}
        assert audit.trigger_rule == TriggerRule.ALL_FAILED

    def test_a_run_fails_with_its_watch_whatever_the_undoing_does(self, made: DAG) -> None:
        """The state of a run is that of its last tasks, and this task does not run unless the watch succeeded."""
        audit = made.get_task("audit")

        assert audit in made.leaves
        assert audit.upstream_task_ids == {"watch"}
        assert audit.trigger_rule == TriggerRule.ALL_SUCCESS

    def test_the_watch_holds_no_worker(self, made: DAG) -> None:
        watch: Any = made.get_task("watch")

        assert watch.deferrable


class TestForm:
    def test_its_fields(self, made: DAG) -> None:
        defaults = {name: made.params[name] for name in made.params}

        assert defaults == {
            "reason": None,
            "window_s": 0,
            "start": "committed",
            "accept_lost": None,
            "accept_skipped": None,
            "approve": False,
            "take_over": False,
            "dry_run": False,
        }
        assert made.params.get_param("reason").schema["type"] == ["null", "string"], "the form takes an empty one too"
        for name in defaults:
            shown = made.params.get_param(name)
            assert shown.schema["title"]
            assert shown.description

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("window_s", -1),
            ("window_s", 10**12),
            ("window_s", "soon"),
            ("window_s", 1.5),
            ("start", ""),
            ("start", 7),
            ("dry_run", "no"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, field: str, value: Any, made: DAG) -> None:
        with pytest.raises(ParamValidationError):
            made.params.get_param(field).resolve(value)

    @pytest.mark.parametrize("asked", [True, False])
    def test_taking_over_is_for_the_stop(self, asked: bool, pipeline: StreamingPipeline, made: DAG) -> None:
        stop: Any = maintenance_dag(pipeline).get_task("stop")

        stop.render_template_fields({"params": {"take_over": asked}, "dag": made, "run_id": "r"})

        assert str(stop.take_over) in (("True",) if asked else ("", "False"))

    def test_a_dry_run_ends_after_the_plan(self) -> None:
        assert is_no_dry_run(params={"dry_run": True}) is False
        assert is_no_dry_run(params={"dry_run": False}) is True
        assert STEPS.index("continue_unless_dry_run") == STEPS.index("plan") + 1


class TestWindow:
    @pytest.mark.parametrize(
        ("window_s", "rest", "over"),
        [(0, timedelta(0), True), (60, timedelta(seconds=30), False), (60, timedelta(seconds=61), True)],
    )
    def test_it_counts_from_the_moment_of_the_stop(self, window_s: int, rest: timedelta, over: bool, made: DAG) -> None:
        since = (datetime.now(UTC) - rest).isoformat(timespec="milliseconds")
        sensor = made.get_task("wait_out_window")
        assert isinstance(sensor, DateTimeSensor)
        ti = SimpleNamespace(xcom_pull=lambda task_ids: {"stop": {"stopped_since": since}}[task_ids])
        context: Any = {
            "ti": ti,
            "params": {"window_s": window_s},
            "macros": SimpleNamespace(datetime=datetime, timedelta=timedelta),
        }
        target = sensor.render_template(WINDOW_END, context)
        sensor.target_time = target

        assert sensor.poke(context) is over

    def test_one_that_is_over_goes_on_at_once_and_a_longer_one_holds_no_worker(self, made: DAG) -> None:
        sensor = made.get_task("wait_out_window")
        assert isinstance(sensor, DateTimeSensor)
        sensor.target_time = datetime.now(UTC) - timedelta(seconds=1)
        sensor.execute({})

        sensor.target_time = datetime.now(UTC) + timedelta(hours=1)
        with pytest.raises(TaskDeferred):
            sensor.execute({})

    def test_people_put_their_own_work_there(self, pipeline: StreamingPipeline) -> None:
        @task
        def add_partitions() -> None: ...

        @task
        def deploy() -> None: ...

        made = maintenance_dag(pipeline, window=lambda: add_partitions() >> deploy())

        expected = STEPS.copy()
        expected[expected.index("wait_out_window") : expected.index("replan")] = ["add_partitions", "deploy"]
        assert in_order(made) == expected
        assert made.task_group.children["maintenance_window"].children.keys() == {"add_partitions", "deploy"}  # type: ignore[attr-defined]


class TestInAirflow:
    def test_the_dags_of_this_repository_have_no_import_errors(self) -> None:
        bag = dag_bag(DAGS)

        assert bag.import_errors == {}
        every = {f"{kind}__{name}" for kind in KINDS for name in ("archive_flights", "delay_alerts")}
        assert set(bag.dags) == {*every, *(f"{kind}__delay_alerts" for kind in REPLAYS)}, (
            "an untracked job cannot be given a range"
        )
        # Airflow refuses a DAG with such a task if any plugin listens, as OpenLineage's does.
        tasks = [task for dag in bag.dags.values() for task in dag.tasks]
        assert [each.task_id for each in tasks if getattr(each, "end_from_trigger", False)] == []

    def test_a_bad_file_is_an_import_error_that_names_line_key_and_fix(self, tmp_path: Path) -> None:
        shutil.copy(DAGS / "offsets.py", tmp_path)
        text = (DAGS / "pipelines.yaml").read_text().replace("checkpoint:", "checkpiont:")
        (tmp_path / "pipelines.yaml").write_text(text)
        line = 1 + next(number for number, words in enumerate(text.splitlines()) if "checkpiont:" in words)

        bag = dag_bag(tmp_path)

        [error] = bag.import_errors.values()
        last = error.strip().splitlines()[-1]
        assert "PipelineFileError: pipelines.yaml" in last
        assert f"line {line}, key pipelines.delay_alerts.job.checkpiont" in last
        assert "Remove 'checkpiont' or correct its spelling" in last
        assert bag.dags == {}

    def test_each_pipeline_has_its_dags(self, tmp_path: Path) -> None:
        shutil.copy(DAGS / "offsets.py", tmp_path)
        one = "  {name}:\n    topics: [flights]\n    job: {{application: a.py, checkpoint: {name}}}\n"
        (tmp_path / "pipelines.yaml").write_text("pipelines:\n" + one.format(name="a") + one.format(name="b.c"))

        bag = dag_bag(tmp_path)

        assert bag.import_errors == {}
        assert set(bag.dags) == {f"{kind}__{name}" for kind in (*KINDS, *REPLAYS) for name in ("a", "b.c")}


@pytest.mark.parametrize("make", [maintenance_dag, reprocess_dag, rehearsal_dag])
def test_what_a_run_accepts_reaches_its_plans(make: Any, pipeline: StreamingPipeline) -> None:
    made: DAG = make(pipeline)
    given = {
        "start": "earliest",
        "accept_lost": "flights:3",
        "accept_skipped": "flights:4",
        "reason": "",
        "application": "",
    }
    assert {"accept_lost", "accept_skipped"} <= set(made.params)
    for name in ("plan", "replan"):
        if made.has_task(name):
            planned: Any = made.get_task(name)
            planned.render_template_fields({"params": given, "dag": made, "run_id": "r"})
            assert (planned.accept_lost, planned.accept_skipped) == ("flights:3", "flights:4")


class TestTrigger:
    """A param that the DAG does not have would be ignored by Airflow, and the run would start the job elsewhere."""

    @pytest.mark.parametrize("conf", [None, {}, {"start": "earliest", "window_s": 5}])
    def test_the_params_of_the_form_are_taken(self, conf: Any, made: DAG) -> None:
        self.begin(made, conf)

    def test_another_one_is_refused_in_the_first_task(self, made: DAG) -> None:
        with pytest.raises(AirflowFailException, match=r"triggered with 'strat'.*only accept_lost.*'start' is similar"):
            self.begin(made, {"strat": "earliest"})

    def test_and_only_there(self, made: DAG) -> None:
        self.begin(made, {"strat": "earliest"}, "roll_back")

    def begin(self, made: DAG, conf: Any, task_id: str = "preflight") -> None:
        first: Any = made.get_task(task_id)
        first._pre_execute_hook({"dag": made, "task": first, "dag_run": SimpleNamespace(conf=conf)})

    def test_every_dag_has_the_check(self, pipeline: StreamingPipeline) -> None:
        for make in (maintenance_dag, reprocess_dag, recovery_dag, rehearsal_dag, snapshots_dag, backfill_dag):
            root: Any = make(pipeline).roots[0]
            assert root._pre_execute_hook is refuse_unknown_params


def test_the_tasks_work_in_a_dag_of_your_own(pipeline: StreamingPipeline) -> None:
    """The operators need nothing that only the factory provides."""
    from airflow_provider_offsets.operators import SnapshotOffsetsOperator

    @dag(schedule="@hourly")
    def hourly() -> None:
        SnapshotOffsetsOperator(task_id="snapshot", pipeline=pipeline)

    assert hourly().task_ids == ["snapshot"]
