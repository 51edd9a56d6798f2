"""What is asked before a stop: each answer, and that nothing of the job is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import LocalCheckpoint
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.preflight import PACKAGE_RUNTIME, Driver, Finding, Outcome
from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from airflow_provider_offsets.errors import DriverFailed, InputRefused, LedgerUnreadable, StoreDenied
from airflow_provider_offsets.operations import preflight
from airflow_provider_offsets.operations.preflight import Probes, run_preflight
from tests.unit.operations import steps
from tests.unit.operations.lab import TOPIC, Lab, install

DRIVER = Driver("4.2.0", "4.2.0", "3.11", "spark-sql-kafka-0-10_2.13-4.2.0.jar", {})


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that were run to see the driver."""
    run: list[list[str]] = []

    def see(command: list[str], *_: Any, **__: Any) -> Driver:
        run.append(command)
        return DRIVER

    monkeypatch.setattr(preflight, "see_driver", see)
    return run


def probes(**changed: Any) -> Probes:
    given: dict[str, Any] = {
        "check_mode": lambda: None,
        "driver_command": list,
        "store_url": "postgresql+psycopg://db/offsets",
        "read_ledger": unreadable,
    }
    return Probes(**{**given, **changed})


def unreadable(sink: Sink) -> Ledger:
    raise LedgerUnreadable(seen=f"{sink.location} has no log", expected="a Delta table", do="correct sink.location")


def asked(lab: Lab, **changed: Any) -> dict[str, Finding]:
    session = lab.session("check")
    return {each.subject: each for each in run_preflight(session, probes(**changed), report=lambda line: None)}


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


REFUSED = InputRefused(seen="application 'jobs/x.py' is not a file", expected="the program", do="correct it")


def test_a_job_that_can_start(lab: Lab, commands: list[list[str]]) -> None:
    steps.start(lab)
    before = lab.session("look").observe()

    found = asked(lab)

    assert {name: each.outcome for name, each in found.items() if name != "sink"} == dict.fromkeys(
        ("mode and files", "checkpoint", "Kafka", "stop", "packages", "spark", "Kafka connector", "driver's Python"),
        Outcome.OK,
    ) | {"store": Outcome.OK}
    assert found["sink"].outcome is Outcome.WARNING
    assert "names no sink" in found["sink"].seen
    assert commands == [[PACKAGE_RUNTIME, "sqlalchemy", "psycopg"]], "what the driver of this store imports"
    assert lab.session("look").observe().stored == before.stored
    assert not list(Path(lab.pipeline.job.checkpoint).parent.glob("*preflight*")), "the folder is removed again"


@pytest.mark.parametrize(
    ("offsets_in", "outcome", "words"),
    [
        ((), Outcome.WARNING, "it can be asked to stop, and not be killed"),
        (("checkpoint",), Outcome.PROBLEM, "nothing else tells the end of an untracked job"),
    ],
    ids=["tracked: its end is recorded", "untracked: YARN may say that all is gone, and the epoch stays open (E9)"],
)
def test_a_job_of_another_machine(
    offsets_in: tuple[str, ...],
    outcome: Outcome,
    words: str,
    tmp_path: Path,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = install(Lab(tmp_path, offsets_in=offsets_in), monkeypatch)
    steps.start(lab)
    for sees in ("is_alive", "is_session_alive"):
        monkeypatch.setattr(lab.machine, sees, lambda process: None)

    found = asked(lab)["stop"]

    assert (found.outcome, words in found.seen) == (outcome, True)
    assert "which is not visible from" in found.seen


def test_without_a_mode_that_fits_no_driver_is_run(lab: Lab, commands: list[list[str]]) -> None:
    found = asked(lab, check_mode=raising(REFUSED))

    assert found["mode and files"].outcome is Outcome.PROBLEM
    assert found["mode and files"].do == "correct it"
    assert (commands, "packages" in found) == ([], False)


def test_packages_that_cannot_be_fetched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = DriverFailed(seen="unresolved dependency a#b;1", expected="packages", do="correct job.packages")
    monkeypatch.setattr(preflight, "see_driver", raising(failed))

    found = asked(lab)

    assert found["packages"].outcome is Outcome.PROBLEM
    assert "unresolved dependency a#b;1" in found["packages"].seen
    assert "spark" not in found


def test_for_an_application_in_a_jar_no_driver_is_run(lab: Lab, commands: list[list[str]]) -> None:
    """Its Spark may have no Python, which the program of the preflight needs."""
    lab.application = "job.jar"

    found = asked(lab)

    assert (commands, found["packages"].outcome) == ([], Outcome.WARNING)
    assert "Kafka connector" not in found


def test_what_a_killed_preflight_has_left_is_removed_by_its_retry(
    lab: Lab, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> list[Path]:
        return list(Path(lab.pipeline.job.checkpoint).parent.glob("*preflight*"))

    with monkeypatch.context() as patch:
        patch.setattr(LocalCheckpoint, "remove", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            asked(lab)
    assert left() != []

    assert asked(lab)["checkpoint"].outcome is Outcome.OK
    assert left() == []


def test_a_checkpoint_that_no_folder_can_be_beside(lab: Lab, commands: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lab.checkpoint = f"{tmp_path}/file/checkpoint"

    assert asked(lab)["checkpoint"].outcome is Outcome.PROBLEM


def test_a_store_that_refuses_the_write(lab: Lab, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    denied = StoreDenied(seen="user 'ro' may not write", expected="the right to write", do="grant it")
    monkeypatch.setattr(Control, "record_step", raising(denied))

    stored = asked(lab)["store"]

    assert (stored.outcome, stored.do) == (Outcome.PROBLEM, "grant it")


def test_a_topic_that_does_not_exist(lab: Lab, commands: list[list[str]]) -> None:
    lab.kafka.delete_topic(TOPIC)

    assert asked(lab)["Kafka"].outcome is Outcome.PROBLEM


def test_a_sink_that_cannot_be_read_is_a_warning(lab: Lab, commands: list[list[str]]) -> None:
    """At the first start of a job there is no table yet."""
    lab.more["sink"] = Sink(SinkFormat.DELTA, "/data/orders")

    found = asked(lab)["sink"]

    assert found.outcome is Outcome.WARNING
    assert found.seen == "/data/orders has no log"
