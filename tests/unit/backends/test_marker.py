"""The marker that asks an untracked job to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_offsets.backends.marker import place_marker, remove_marker
from airflow_provider_offsets.errors import InputRefused


def test_it_is_created_with_its_folder_and_removed(tmp_path: Path) -> None:
    marker = tmp_path / "a" / "stop"

    place_marker(str(marker), "by me")
    assert marker.read_text() == "by me"

    remove_marker(str(marker))
    remove_marker(str(marker))
    assert not marker.exists()


@pytest.mark.parametrize("location", ["/proc/nope/stop", "/proc/version/stop", "nosuch://host/stop"])
def test_one_that_cannot_be_is_our_error_and_is_not_retried(location: str) -> None:
    with pytest.raises(InputRefused, match=f"(?i)marker '{location}'.*Correct stop.marker") as refused:
        place_marker(location, "by me")

    assert not refused.value.retriable
