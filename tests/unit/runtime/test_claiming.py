"""What launches an untouched program claims its epoch first, and becomes the program only if nobody minds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Claim, StopRequest
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.recovery import recovery_of
from airflow_provider_offsets.jobs.process import this_process
from airflow_provider_offsets.runtime import claiming
from airflow_provider_offsets.runtime.settings import Secrets, Settings
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.memory import MemoryStore
from tests.unit.core.worlds import IDENTITY, at

NAME = "archive_flights"
PROGRAM = ["spark-submit", "job.py"]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    store = MemoryStore()
    monkeypatch.setattr(claiming, "open_store", lambda url: store)
    return Control(store, NAME)


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that the process would have become."""
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, argv: seen.append(argv))
    return seen


def claim(number: int, operation: str = "op") -> Claim:
    return Claim(number, operation, f"{operation}@1", "/checkpoint", at(0, 0), IDENTITY, tracked=False)


def launch(folder: Path, asked: Claim) -> Any:
    settings = Settings(NAME, Stream(NAME, ("flights",)), Subscription.SUBSCRIBE, asked, Secrets("memory:", {}))
    file = folder / "settings.json"
    settings.write(file)
    return claiming.main([str(file), *PROGRAM])


def test_it_claims_and_becomes_the_program(tmp_path: Path, control: Control, became: list[list[str]]) -> None:
    launch(tmp_path, claim(1))

    epoch = control.epoch(1)
    assert epoch is not None
    assert (epoch.holder, became) == (this_process(), [PROGRAM])


def test_the_loser_of_a_race_starts_nothing(tmp_path: Path, control: Control, became: list[list[str]]) -> None:
    control.claim_epoch(claim(1, "other"), this_process(), at_ms=1)

    assert launch(tmp_path, claim(1)).startswith("Fenced: epoch 1")
    assert became == []


def test_a_recovery_starts_nothing_that_somebody_has_stopped_since(
    tmp_path: Path, control: Control, became: list[list[str]]
) -> None:
    control.claim_epoch(claim(1), this_process(), at_ms=1)
    control.request_stop(1, StopRequest("maintenance", "upgrade", 1))

    assert launch(tmp_path, claim(2, recovery_of(1))) == (
        "'maintenance' has asked the job to stop since its recovery began"
    )
    assert became == []
    assert control.stop_request(2) is not None, "so its end counts as a stop"


def test_whoever_stopped_it_may_start_it(tmp_path: Path, control: Control, became: list[list[str]]) -> None:
    control.claim_epoch(claim(1), this_process(), at_ms=1)
    control.request_stop(1, StopRequest("maintenance", "upgrade", 1))

    launch(tmp_path, claim(2, "maintenance"))

    assert (became, control.stop_request(2)) == ([PROGRAM], None)
