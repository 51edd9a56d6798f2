"""A query in real-time mode is recognized by the times of its files, and refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_entry
from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.checkpoint.seed import require_micro_batches, seed
from airflow_provider_offsets.checkpoint.swap import read_in_place
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import CheckpointError
from tests.unit.core.observations import TOPIC, at

COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'
Batches = tuple[tuple[int, int, int | None], ...]
"""When each batch began, and when its two files were written."""

# Times of Spark 4.2.0, in milliseconds. The files have the same content in both modes.
ORDINARY: Batches = ((570, 579, 893), (1010, 1019, 1229), (6007, 6013, 6249), (11008, 11017, 11236))
REAL_TIME: Batches = ((1001, 6977, 7029), (7104, 12177, 12226), (12273, 17321, 17353), (17394, 22437, 22473))
BEGIN_MS = 1_795_494_336_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def write(folder: Path, files: dict[str, str]) -> CheckpointFolder:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return open_checkpoint(str(folder))


def later(batches: Batches, planned_ms: int, done_ms: int) -> Batches:
    return tuple((began, planned + planned_ms, (done or 0) + done_ms) for began, planned, done in batches)


def made(
    folder: Path, *batches: tuple[int, int, int | None], first_id: int = 0, copied_ms: int = 0
) -> CheckpointFolder:
    times = {"metadata": 500}
    for number, (began, planned, done) in enumerate(batches, first_id):
        text = f'v1\n{{"batchTimestampMs":{BEGIN_MS + began},"conf":{{}}}}\n{at(number).to_json()}'
        write(folder, {f"offsets/{number}": text})
        times[f"offsets/{number}"] = planned
        if done is not None:
            write(folder, {f"commits/{number}": COMMIT})
            times[f"commits/{number}"] = done
    made = write(folder, {"metadata": '{"id":"query-1"}'})
    for name, written in times.items():
        os.utime(folder / name, ns=(0, (BEGIN_MS + (copied_ms or written)) * 1_000_000))
    return made


def late(begin_ms: int, *late_ms: int, done_ms: int = 100) -> Batches:
    """Return consecutive batches, each written this much later, and committed ``done_ms`` after that."""
    batches: list[tuple[int, int, int | None]] = []
    for each_ms in late_ms:
        batches.append((begin_ms, begin_ms + each_ms, begin_ms + each_ms + done_ms))
        begin_ms += each_ms + done_ms + 10
    return tuple(batches)


@pytest.mark.parametrize("count", [3, 4])
def test_real_time_mode_is_recognized_after_ordinary_batches(count: int, folder: Path) -> None:
    require_micro_batches(made(folder, *ORDINARY[:count]))
    with pytest.raises(CheckpointError, match=r"real-time mode.* logged \d{4} ms or more after they began"):
        require_micro_batches(made(folder, *REAL_TIME[:count]))


def test_real_time_mode_is_recognized_after_the_log_was_cleaned_up(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="real-time mode"):
        require_micro_batches(made(folder, *REAL_TIME, first_id=120))


def test_real_time_mode_is_recognized_if_older_batches_were_ordinary(folder: Path) -> None:
    since = tuple((a + 20_000, b + 20_000, (c or 0) + 20_000) for a, b, c in REAL_TIME[1:4])
    with pytest.raises(CheckpointError, match="real-time mode"):
        require_micro_batches(made(folder, *ORDINARY, *since))


@pytest.mark.parametrize(
    ("why", "batches"),
    [
        ("no batch is over yet", ()),
        ("a batch is in flight, and runs for long", (*ORDINARY[:3], (11008, 11017, None))),
        ("a long batch came before it", (*ORDINARY[:2], (6007, 6013, 90_000), (90_001, 90_010, 90_300))),
        ("a long rest came before it", (*ORDINARY[:2], (90_001, 90_010, 90_300))),
        ("one file was late, the driver had stalled", (*ORDINARY[:3], (11008, 19_000, 19_200))),
        ("the first file was late", ((570, 68_000, 68_100),)),
        ("two files were late, one after the other", (*ORDINARY[:2], *late(6_000, 68_000, 68_000))),
        ("three were late, each by another time", (*ORDINARY[:2], *late(6_000, 5_000, 30_000, 68_000))),
        ("the file system is slow, with commits too", late(600, 6_000, 6_000, 6_000, 6_000, done_ms=6_000)),
        ("three were late, and the newest batch is in flight", (*late(600, 6_000, 6_000), (12_800, 19_000, None))),
        ("the job was real-time once, and is no longer", (*REAL_TIME, (30_000, 30_008, 30_200))),
        ("the clock of the file system is a second ahead", later(ORDINARY, 1000, 1000)),
        ("it is a second behind", later(ORDINARY, -1000, -1000)),
    ],
)
def test_other_late_files_are_not_taken_for_it(why: str, batches: Batches, folder: Path) -> None:
    require_micro_batches(made(folder, *batches))


@pytest.mark.parametrize("batches", [ORDINARY, ORDINARY[:1], REAL_TIME])
def test_copies_say_nothing(batches: Batches, folder: Path) -> None:
    require_micro_batches(made(folder, *batches, copied_ms=900_000))


def test_a_seeded_checkpoint_says_nothing(folder: Path) -> None:
    like = read_entry(made(folder / "old", *ORDINARY), 3)
    target = open_checkpoint(str(folder / "new"))
    seed(target, query_id="query-1", last_batch_id=3, start=at(5, 7), like=like)

    require_micro_batches(target)


def test_every_reader_of_a_job_that_nobody_rewrote_refuses_it(folder: Path) -> None:
    made(folder, *REAL_TIME)
    write(folder, {"sources/0/0": f"\0v1\n{at(0).to_json()}"})

    for read in (read_in_place, lambda each: CheckpointPositions(each).position(Stream("group", (TOPIC,)))):
        with pytest.raises(CheckpointError, match="real-time mode"):
            read(str(folder))
