"""Runs of a maintenance DAG: triggered, reported task by task, and explained when they fail."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from demo import TOPIC
from demo.airflow_api import UNFINISHED, Airflow
from demo.progress import DemoFailed, Progress, wait_for

DETAILS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "plan": lambda plan: f"{plan['form']}, {plan['replay']:,} to replay, {plan['lost']} lost",
    "stop": lambda stop: f"{stop['how']}, last batch {stop['last_batch_id']}",
    "replan": lambda plan: (
        f"{plan['form']} ({plan['form_reason']}), {len(plan['start'][TOPIC])} partitions,"
        f" {plan['replay']:,} to replay, {plan['lost']} lost"
    ),
    "submit": lambda job: f"epoch {job['epoch']}, {job['how']}",
    "watch": lambda watched: f"{watched['health']}, {watched['reason']}",
    "audit": lambda audit: (
        f"{audit['records']:,} records, lost {audit['lost']}, replayed {audit['replayed']:,},"
        f" unexplained {audit['unexplained']}"
    ),
}
"""Description of a task's result, by task id."""

Tasks = Mapping[str, Mapping[str, Any]]


class Runs:
    """The runs that one program triggers.

    :param meanwhile: called repeatedly during a run; an exception in it ends the wait.
    """

    def __init__(self, airflow: Airflow, progress: Progress, meanwhile: Callable[[], object]) -> None:
        self._airflow, self._say, self._meanwhile = airflow, progress.say, meanwhile
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.ids: dict[str, str] = {}
        """Run ids by display name."""

    def trigger(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        limit_s: float,
        watch: Callable[[str, Tasks], None] = lambda run_id, tasks: None,
    ) -> None:
        """Trigger one run of the DAG and follow the run to its end.

        :param name: display name of the run.
        :param params: params of the run.
        :param limit_s: seconds to wait at most.
        :param watch: called with the run's id and tasks, after newly finished tasks were printed.
        :raises DemoFailed: the run failed (with the last log lines of its failed tasks) or timed out.
        """
        run_id = f"demo-{self._stamp}-{name.replace(' ', '-')}"
        self.ids[name] = run_id
        self._airflow.trigger(run_id, {"reason": name, **params})
        self._say(f"{name}: triggered, run {run_id} {json.dumps(params) if params else ''}".rstrip())
        done: set[str] = set()

        def follow() -> str | None:
            state = self._airflow.state(run_id)  # read before the tasks: then all tasks of an ended run are reported
            tasks = self._airflow.tasks(run_id)
            for task_id in _newly_done(tasks, done):
                self._say(f"{name}: {task_id} {self._detail(run_id, task_id)}".rstrip())
            watch(run_id, tasks)
            return None if state in UNFINISHED else state

        if wait_for(f"{name} to end", follow, limit_s=limit_s, every_s=0.5, meanwhile=self._meanwhile) != "success":
            raise DemoFailed(self._failure(run_id))

    def _detail(self, run_id: str, task_id: str) -> str:
        describe = DETAILS.get(task_id)
        result = self._airflow.result(run_id, task_id) if describe else None
        return f"· {describe(result)}" if describe and result is not None else ""

    def _failure(self, run_id: str) -> str:
        tasks = self._airflow.tasks(run_id)
        failed = [task_id for task_id, task in tasks.items() if task["state"] == "failed"]
        logs = [
            f"task {task_id} of {run_id} failed; its log ends:\n{self._airflow.log_tail(run_id, task_id)}"
            for task_id in failed
        ]
        return "\n".join(logs) or f"run {run_id} ended as {self._airflow.state(run_id)}"


def _newly_done(tasks: Tasks, done: set[str]) -> list[str]:
    ordered = sorted(tasks.values(), key=lambda task: task["end_date"] or "")
    new = [task["task_id"] for task in ordered if task["state"] == "success" and task["task_id"] not in done]
    done.update(new)
    return new
