"""Ask everything that could fail after a stop, while the job still runs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_provider_offsets.backends.preflight import see_driver
from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.core.location import resolved
from airflow_provider_offsets.core.preflight import PACKAGE_RUNTIME, Finding, Outcome, driver_findings
from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.errors import OffsetsError
from airflow_provider_offsets.operations.job_state import JobState, observe_job
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import FETCH_TIMEOUT_S, driver_environment, operation_tag

PREFLIGHT = "preflight"
_CLIENTS = {"sqlite": ("sqlalchemy",), "postgresql": ("sqlalchemy", "psycopg"), "hbase": ("happybase",)}
"""Modules that the driver needs to write to a store, by the scheme of the store's URL."""


@dataclass(frozen=True)
class Probes:
    """What a preflight asks outside of the session."""

    check_mode: Callable[[], None]
    """Raises if the job cannot be submitted in its mode, or a file of it does not exist."""
    driver_command: Callable[[list[str]], list[str]]
    """Returns the argument vector that runs the program of the preflight with these arguments."""
    store_url: str
    read_ledger: Callable[[Sink], Ledger]


def run_preflight(session: Session, probes: Probes, *, report: Callable[[str], None]) -> tuple[Finding, ...]:
    """Return what a start of the job would find. The job and its position are not touched.

    The packages of the job are downloaded to Ivy's cache, so that a start does not wait for them. The findings are
    recorded under the operation, which shows that the store can be written.

    :param session: the session of the operation.
    :param probes: what is asked outside of the session.
    :param report: called with the progress.
    """
    mode = _answer("mode and files", lambda: _checked(probes.check_mode))
    found = [
        mode,
        _answer("checkpoint", lambda: _writable_checkpoint(session)),
        _answer("Kafka", lambda: _topics(session)),
        _stop(session),
        *(_driver(session, probes, report) if mode.outcome is Outcome.OK else ()),
        _sink(session, probes),
    ]
    stored = _answer("store", lambda: _stored(session, found))
    return (*found, stored)


def _answer(subject: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, Outcome.OK, ask())
    except OffsetsError as error:
        return _problem(subject, error)


def _problem(subject: str, error: OffsetsError) -> Finding:
    return Finding(subject, Outcome.PROBLEM, f"{error.seen}; expected {error.expected}", error.do)


def _checked(check: Callable[[], None]) -> str:
    check()
    return "the master, the deploy mode and Airflow's executor fit, and all files of the job exist"


def _writable_checkpoint(session: Session) -> str:
    """Create and remove a folder beside the checkpoint, where a seeded one would be.

    Its name is that of the operation, so a retry removes what a killed task has left.
    """
    location = resolved(session.pipeline.job.checkpoint)
    if not location:
        return "the job has none"
    beside = open_checkpoint(f"{location}.{PREFLIGHT}-{operation_tag(session)}")
    try:
        beside.create("writable", "")
        return f"a folder beside {location} can be written"
    finally:
        beside.remove()


def _topics(session: Session) -> str:
    live = session.live_topics()
    return f"{len(live.partitions):,} partitions of {', '.join(session.pipeline.topics)}"


def _stop(session: Session) -> Finding:
    """Return whether this machine sees the end of the running job. A job of another machine is never *gone* for it."""
    job = observe_job(session.control)
    if job.state is not JobState.UNKNOWN:
        return Finding("stop", Outcome.OK, f"the job is {job.state.value}{job.detail and f': {job.detail}'}")
    seen = f"the job is {job.detail}, which is not visible from {socket.gethostname()}"
    if session.pipeline.tracked:
        return Finding("stop", Outcome.WARNING, f"{seen}: it can be asked to stop, and not be killed")
    return Finding(
        "stop",
        Outcome.PROBLEM,
        f"{seen}; nothing else tells the end of an untracked job",
        "run the DAG on the machine that started the job; or end the job there, and then use airflow offsets end",
    )


def _driver(session: Session, probes: Probes, report: Callable[[str], None]) -> Iterator[Finding]:
    job, is_tracked = session.pipeline.job, session.pipeline.tracked
    if job.application.endswith(".jar"):
        # The program of the preflight is Python, and a Spark that runs jars may have none.
        yield Finding("packages", Outcome.WARNING, "not looked at, because the application is a jar")
        return
    clients = _CLIENTS.get(urlsplit(probes.store_url).scheme.partition("+")[0], ()) if is_tracked else ()
    command = probes.driver_command([PACKAGE_RUNTIME, *clients] if is_tracked else [])
    try:
        driver = see_driver(command, driver_environment(), timeout_s=FETCH_TIMEOUT_S, report=report)
    except OffsetsError as error:
        yield _problem("packages", error)
        return
    yield Finding("packages", Outcome.OK, f"{job.packages} fetched" if job.packages else "the job has none")
    yield from driver_findings(driver)


def _sink(session: Session, probes: Probes) -> Finding:
    """Return what the audit could say about the sink. A start does not need it, so there is no problem."""
    sink = session.pipeline.sink
    if sink is None:
        return Finding(
            "sink",
            Outcome.WARNING,
            "the pipeline names no sink, so the audit cannot say what is in it",
            "choose a recipe for the sink (docs/sinks.md), and name it under 'sink'",
        )
    try:
        probes.read_ledger(sink)
    except OffsetsError as error:
        return Finding("sink", Outcome.WARNING, error.seen, f"if the job has written to it before, {error.do}")
    return Finding("sink", Outcome.OK, f"the metadata of {sink} can be read")


def _stored(session: Session, found: list[Finding]) -> str:
    session.control.record_step(session.operation, PREFLIGHT, tuple(found))
    return "can be written"
