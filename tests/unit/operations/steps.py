"""The steps of a maintenance, as the operators take them."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.restart.model import RestartPlan, RestartPolicy
from airflow_provider_offsets.operations.applying import Applied, apply_plan
from airflow_provider_offsets.operations.planning import make_plan
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from airflow_provider_offsets.operations.submitting import Started, submit_job
from tests.unit.operations.lab import Crash, Lab


def plan(lab: Lab, start: str = "committed", operation: str = "op") -> RestartPlan:
    return make_plan(lab.session(operation), start, RestartPolicy())


def apply(lab: Lab, start: str = "committed", operation: str = "op") -> Applied:
    return apply_plan(lab.session(operation), plan(lab, start, operation))


def submit(lab: Lab, applied: Applied, operation: str = "op") -> Started:
    return submit_job(lab.session(operation), applied, lab.launcher)


def start(lab: Lab, start: str = "committed", operation: str = "first") -> Started:
    """Stop the job, plan, apply and submit: the job then runs, and has read all records."""
    stop(lab, operation)
    return submit(lab, apply(lab, start, operation), operation)


def launch(lab: Lab, start: str = "committed", operation: str = "launcher") -> None:
    """Stop the job, plan, apply, launch, and be killed; the driver waits in a queue."""
    stop(lab, operation, take_over=True)
    launch_applied(lab, apply(lab, start, operation), operation)


def launch_applied(lab: Lab, applied: Applied, operation: str = "op") -> None:
    """Launch, and be killed before the first check of the driver."""

    def killed(line: str) -> None:
        raise Crash(line)

    with pytest.raises(Crash):
        submit_job(lab.session(operation), applied, lab.launcher, report=killed)


def stop(lab: Lab, operation: str = "op", *, take_over: bool = False) -> StopResult:
    session = lab.session(operation)
    asked = ask_to_stop(session, reason="upgrade", take_over=take_over)
    return asked if isinstance(asked, StopResult) else await_stop(session, asked, lab.stop)


def rest(lab: Lab) -> None:
    """Run a pipeline, and stop it by another operation."""
    start(lab, operation="first")
    stop(lab, operation="second")
