"""The arguments of ``run``, before anything is claimed or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from airflow_provider_offsets.errors import InputRefused
from airflow_provider_offsets.runtime import TrackedStream
from airflow_provider_offsets.runtime.settings import Secrets, Settings
from airflow_provider_offsets.stores import open_store
from tests.unit.runtime.lab import Lab


@pytest.mark.parametrize(
    ("given", "seen"),
    [({}, "neither process= nor sink="), ({"process": print, "sink": print}, "both process= and sink=")],
)
def test_one_of_process_and_sink(given: dict[str, Any], seen: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/offsets.db"
    store = open_store(url)
    store.create()
    store.close()
    lab = Lab(tmp_path)
    known = lab.hold(lab.launch()).settings
    settings = Settings(known.pipeline, known.subscription, known.claim, Secrets(url))

    stream = TrackedStream(mock.MagicMock(), settings)
    with pytest.raises(InputRefused, match=f"was given {seen}"):
        stream.run(None, **given)
