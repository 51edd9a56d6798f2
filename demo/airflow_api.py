"""A client for the parts of Airflow's REST API that the demo and its check need."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

UNFINISHED = ("queued", "running")
TIMEOUT_S = 300.0
"""Seconds for which a busy Airflow is retried."""
PAUSE_S = 0.5


class Airflow:
    """One DAG of an Airflow with the simple auth manager.

    A request without an answer, or answered by a server error, is retried, so every request must be safe to send twice.

    :param url: such as ``http://127.0.0.1:8080``.
    :param dag_id: id of the DAG.
    :param password: password of the user ``admin``; empty if everyone has access (the stack's Airflow, on the loopback
        interface).
    """

    def __init__(self, url: str, dag_id: str, password: str = "") -> None:
        self.url, self.dag_id = url, dag_id
        # trust_env: a proxy from the environment cannot reach this machine.
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        login = (
            ("POST", "/auth/token", {"username": "admin", "password": password}) if password else ("GET", "/auth/token")
        )
        self.token: str = self._json(*login)["access_token"]
        """The session's token, which Airflow's pages read from the cookie ``_token``."""
        self._client.headers["Authorization"] = f"Bearer {self.token}"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def page(self) -> str:
        """URL of the DAG's page in Airflow's UI."""
        return f"{self.url}/dags/{self.dag_id}"

    def is_known(self) -> bool:
        """Return whether Airflow has parsed the DAG."""
        reply = self._sent("GET", f"/api/v2/dags/{self.dag_id}")
        return reply.status_code == httpx.codes.OK and not reply.json()["is_stale"]

    def import_errors(self) -> list[str]:
        """Return Airflow's errors for DAG files that it cannot import."""
        errors = self._json("GET", "/api/v2/importErrors")["import_errors"]
        return [f"{each['filename']}: {each['stack_trace'].strip().splitlines()[-1]}" for each in errors]

    def unpause(self) -> None:
        """Unpause the DAG, so that runs start."""
        self._json("PATCH", f"/api/v2/dags/{self.dag_id}", {"is_paused": False})

    def pause(self) -> None:
        """Pause the DAG, so that no further run starts."""
        self._json("PATCH", f"/api/v2/dags/{self.dag_id}", {"is_paused": True})

    def cancel_backfills(self) -> None:
        """Cancel the unfinished backfills of the DAG; their queued runs fail."""
        for backfill in self._json("GET", f"/api/v2/backfills?dag_id={self.dag_id}")["backfills"]:
            if backfill["completed_at"] is None:
                self._sent("PUT", f"/api/v2/backfills/{backfill['id']}/cancel")

    def trigger(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Trigger a run. An existing run with the same id counts as this run.

        :param params: params of the run, by name.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(params)}
        _require_done(self._sent("POST", self._runs, body))

    def unfinished_runs(self) -> list[str]:
        """Return the ids of queued and running runs."""
        query = "&".join(f"state={state}" for state in UNFINISHED)
        return [run["dag_run_id"] for run in self._json("GET", f"{self._runs}?{query}")["dag_runs"]]

    def runs(self) -> list[dict[str, Any]]:
        """Return the newest hundred runs as the API does: dag_run_id, run_type, state, queued_at."""
        return list(self._json("GET", f"{self._runs}?limit=100&order_by=-run_after")["dag_runs"])

    def end_run(self, run_id: str) -> None:
        """Mark a run as failed, which ends its running tasks."""
        self._json("PATCH", f"{self._runs}/{run_id}", {"state": "failed"})

    def end_task(self, run_id: str, task_id: str) -> None:
        """Mark a task as successful, whatever the task waits for."""
        _require_done(self._sent("PATCH", f"{self._runs}/{run_id}/taskInstances/{task_id}", {"new_state": "success"}))

    def reject(self, run_id: str, task_id: str) -> None:
        """Answer *Reject* to a task that waits for approval."""
        body = {"chosen_options": ["Reject"], "params_input": {}}
        _require_done(self._sent("PATCH", f"{self._runs}/{run_id}/taskInstances/{task_id}/-1/hitlDetails", body))

    def state(self, run_id: str) -> str:
        """Return the state of a run."""
        return str(self._json("GET", f"{self._runs}/{run_id}")["state"])

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the tasks of a run by id, as the API does: state, start_date, duration, try_number."""
        return {each["task_id"]: each for each in self.all_tasks(run_id)}

    def all_tasks(self, run_id: str) -> list[dict[str, Any]]:
        """Return the tasks of a run, with each mapped task instance separately."""
        return list(self._json("GET", f"{self._runs}/{run_id}/taskInstances")["task_instances"])

    def result(self, run_id: str, task_id: str) -> Any:
        """Return the return value of a task, or None if the task returned nothing."""
        reply = self._sent("GET", f"{self._runs}/{run_id}/taskInstances/{task_id}/xcomEntries/return_value")
        if reply.status_code == httpx.codes.NOT_FOUND:
            return None
        return _require_good(reply).json()["value"]

    def log_tail(self, run_id: str, task_id: str, lines: int = 25) -> str:
        """Return the last log lines of a task's newest try."""
        attempt = self.tasks(run_id)[task_id]["try_number"]
        path = f"{self._runs}/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        content = self._json("GET", path)["content"]
        said = [line for entry in content for line in _said(entry)]
        return "\n".join(said[-lines:])

    @property
    def _runs(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns"

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _require_good(self._sent(method, path, body)).json()

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                reply = self._client.request(method, path, json=body, headers={"Accept": "application/json"})
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if not reply.is_server_error or time.monotonic() > deadline:
                    return reply
            time.sleep(PAUSE_S)


def _require_good(reply: httpx.Response) -> httpx.Response:
    if reply.is_error:
        asked = f"{reply.request.method} {reply.request.url.path}"
        raise httpx.HTTPStatusError(
            f"{asked}: {reply.status_code} {reply.text[:500]}", request=reply.request, response=reply
        )
    return reply


def _require_done(reply: httpx.Response) -> None:
    """Raise on an error, but accept a conflict: an earlier request was carried out, and only its answer was lost."""
    if reply.status_code != httpx.codes.CONFLICT:
        _require_good(reply)


def _said(entry: Any) -> list[str]:
    """Return the lines of one log entry: its event and its errors."""
    if not isinstance(entry, Mapping):
        return str(entry).splitlines()
    errors = [f"{each.get('exc_type')}: {each.get('exc_value')}" for each in entry.get("error_detail") or []]
    said = [line for text in (str(entry.get("event", "")), *errors) for line in text.splitlines()]
    return [line for line in said if not line.startswith("::")]  # fold markers of Airflow's UI
