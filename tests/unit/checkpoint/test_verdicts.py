"""Verdicts on odd checkpoint folders, which are Spark's: ``tests/e2e/test_checkpoint_verdicts.py`` starts it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import OffsetsError
from tests.unit.checkpoint.folders import ODD_FOLDERS, REFUSED, TOPIC, OddFolder, generated, verdict, write

FOLDERS = [pytest.param(each, id=each.case) for each in ODD_FOLDERS]


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: the same process reads what it has written."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("odd", FOLDERS)
def test_it_is_resumed_as_spark_resumes_it_or_refused(odd: OddFolder, tmp_path: Path) -> None:
    location = write(tmp_path / "checkpoint", odd)

    assert verdict(location, asynchronous=odd.asynchronous) == odd.first


@pytest.mark.parametrize("odd", FOLDERS)
def test_a_write_is_complete_or_changes_nothing(odd: OddFolder, tmp_path: Path) -> None:
    """C2: no entry is planted, and nothing is left beside the folder, unless the position is written."""
    location = write(tmp_path / "checkpoint", odd)
    above = (tmp_path / "checkpoint" / odd.folder).parent
    before = tree(tmp_path)
    wanted = Position.from_plain({TOPIC: {"0": 3, "1": 1}})
    store, stream = CheckpointPositions(location), Stream("group", (TOPIC,))

    try:
        store.write(stream, wanted, expected=store.position(stream))
    except OffsetsError:
        assert tree(tmp_path) == before
        return

    assert store.position(stream) == wanted
    assert verdict(location) is not REFUSED
    assert len(list(above.iterdir())) == 1 + bool(odd.files), "the new one, and the old one beside it"


@pytest.mark.hypothesis
@pytest.mark.parametrize("seed", range(300))
def test_a_generated_folder_has_a_verdict(seed: int, tmp_path: Path) -> None:
    """Any verdict will do: without Spark, only an error that is none of this package's can be seen."""
    verdict(write(tmp_path / "checkpoint", generated(seed)))
