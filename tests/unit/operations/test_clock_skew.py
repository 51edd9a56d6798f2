"""The clock of one host is wrong by five minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.operations.sources import SessionSources
from tests.unit.operations.lab import Lab, install
from tests.unit.operations.steps import start, stop

CLAIMED_S, MINUTE_S = 100_000.0, 60


@pytest.mark.parametrize("off_s", [-5 * MINUTE_S, 0, 5 * MINUTE_S])
def test_a_row_of_a_foreign_writer_is_no_position_of_the_pipeline(
    off_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver claims by a clock that is ahead, so the row that somebody writes later seems older than the claim."""
    lab = install(Lab(tmp_path), monkeypatch)
    lab.clock.now = CLAIMED_S
    lab.store.append(lab.pipeline.stream, Batch(lab.at(40, 40), int(CLAIMED_S - 10) * 1000))
    lab.clock.now = CLAIMED_S + off_s
    start(lab)
    lab.tick()
    lab.clock.now = CLAIMED_S + 10 * MINUTE_S
    stop(lab, "second")
    lab.store.append(lab.pipeline.stream, Batch(lab.at(70, 70), int(CLAIMED_S + MINUTE_S) * 1000))

    found = SessionSources(lab.session("third"), Position()).as_of(int(CLAIMED_S + 2 * MINUTE_S) * 1000)

    assert found is not None
    assert found.position == lab.at(100, 100)
