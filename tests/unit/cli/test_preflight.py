"""``airflow offsets preflight``, as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_offsets.cli import acts
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.operations import preflight
from airflow_provider_offsets.operations.session import Session
from tests.unit.cli.test_commands import run
from tests.unit.operations.lab import Lab
from tests.unit.operations.test_preflight import DRIVER, probes


def test_in_a_new_store(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first command of a guide: nothing of the pipeline is stored yet. A second one gives the same."""

    @contextmanager
    def open_session(pipeline: StreamingPipeline, operation: str) -> Iterator[Session]:
        yield Session(pipeline, operation, lab.store, lab.kafka)

    monkeypatch.setattr(acts, "open_session", open_session)
    monkeypatch.setattr(acts, "preflight_probes", lambda pipeline: probes())
    monkeypatch.setattr(acts.naming, "pipeline", lambda args: lab.pipeline)
    monkeypatch.setattr(preflight, "see_driver", lambda *_, **__: DRIVER)

    for _ in range(2):
        assert run("preflight", "delay_alerts", "-o", "json") == 0
        found = {each["subject"]: each["outcome"] for each in json.loads(capsys.readouterr().out)}
        assert found["store"] == "ok"
