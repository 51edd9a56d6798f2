"""The launcher of an untracked program claims its launch first, and becomes the program only if it may."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_offsets.backends.process import this_process
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.record.model import Phase
from airflow_provider_offsets.runtime import claiming
from airflow_provider_offsets.runtime.settings import Secrets, Settings
from tests.unit.runtime.lab import AWAY, Lab

PROGRAM = ["spark-submit", "job.py"]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path)
    monkeypatch.setattr(claiming, "open_store", lambda url: made.store)
    return made


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the programs that the process would have become."""
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, argv: seen.append(argv))
    return seen


def start(folder: Path, claim: Claim) -> str | None:
    """Start the process of a launch; return its output."""
    settings = Settings("alerts", Subscription.SUBSCRIBE, claim, Secrets("memory:", {}), store_retry_timeout_s=0.0)
    file = folder / "settings.json"
    settings.write(file)
    said: str | None = claiming.main([str(file), *PROGRAM])
    return said


def test_it_claims_and_becomes_the_program(tmp_path: Path, lab: Lab, became: list[list[str]]) -> None:
    start(tmp_path, lab.launch(tracked=False))

    assert (lab.record.phase, lab.record.holder, became) == (Phase.RUNNING, this_process(), [PROGRAM])


@pytest.mark.parametrize(
    ("why", "meanwhile", "said"),
    [
        ("it was cancelled while it waited in a queue", lambda lab: lab.close("m"), "epoch 1 was cancelled"),
        ("a later launch took its place", lambda lab: lab.launch(), "the newest launch is epoch 2"),
        ("another process of the same launch was faster", lambda lab: lab.held(pid=2), "claimed by pid 2"),
    ],
)
def test_a_launch_that_is_not_free_starts_nothing(
    why: str, meanwhile: Callable[[Lab], None], said: str, tmp_path: Path, lab: Lab, became: list[list[str]]
) -> None:
    claim = lab.launch(tracked=False)
    meanwhile(lab)
    before = lab.record

    answer = start(tmp_path, claim)

    assert answer is not None
    assert answer.startswith("Fenced: ")
    assert said in answer
    assert (became, lab.record) == ([], before)


def test_a_store_that_does_not_answer_starts_nothing(tmp_path: Path, lab: Lab, became: list[list[str]]) -> None:
    claim = lab.launch(tracked=False)

    def away(side: str, act: str) -> None:
        raise AWAY

    lab.store.fate = away

    assert start(tmp_path, claim) == f"StoreUnreachable: {AWAY}"
    assert became == []


def test_settings_that_are_gone_start_nothing(tmp_path: Path, lab: Lab, became: list[list[str]]) -> None:
    assert claiming.main([str(tmp_path / "settings.json"), *PROGRAM]).startswith("InputRefused: ")
    assert became == []
