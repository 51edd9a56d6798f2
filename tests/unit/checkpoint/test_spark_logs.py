"""Checkpoints that Spark 4.2.0 wrote itself, byte by byte (``spark_logs/record.py``), and what is read of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import batch_ids, committed_entry, log_entries, read_initial, read_state
from airflow_provider_offsets.checkpoint.seed import require_micro_batches, seed
from airflow_provider_offsets.checkpoint.swap import read_in_place, swap_in
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import CheckpointError
from tests.unit.core.observations import at

HERE = Path(__file__).parent / "spark_logs"
MICRO_BATCHES = ["plain", "cut_off", "asynchronous", "several_sources", "stateful"]


class Recorded:
    """A checkpoint as it was, with its times; and what the query itself reported about its last batch with records."""

    def __init__(self, kind: str, folder: Path) -> None:
        recording: dict[str, Any] = json.loads((HERE / f"{kind}.json").read_text())
        for name, content in recording["files"].items():
            file = folder / kind / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode("latin-1"))
            os.utime(file, ns=(0, recording["written_ms"][name] * 1_000_000))
        self.place = str(folder / kind)
        self.folder = open_checkpoint(self.place)
        self.batch_id: int = recording["said"]["batch_id"]
        ends = [json.loads(each) for each in recording["said"]["ends"] if each]
        kafka = [Position.from_plain(each) for each in ends if "logOffset" not in each]
        self.end = Position({partition: offset for source in kafka for partition, offset in source.items()})


@pytest.fixture
def recorded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    return Recorded(request.param, tmp_path)


@pytest.mark.parametrize("recorded", ["plain", "several_sources", "stateful"], indirect=True)
def test_the_position_is_the_one_that_the_query_reported(recorded: Recorded) -> None:
    state = read_in_place(recorded.place)

    assert state is not None
    assert (state.committed_batch_id, state.committed) == (recorded.batch_id, recorded.end)
    assert (state.planned_batch_id, state.closed_by, state.asynchronous) == (None, None, False)


@pytest.mark.parametrize("recorded", ["cut_off"], indirect=True)
def test_a_batch_that_died_is_in_flight(recorded: Recorded) -> None:
    state = read_in_place(recorded.place)

    assert state is not None
    assert (state.committed_batch_id, state.committed) == (1, recorded.end)
    assert state.planned_batch_id == 2
    assert state.planned is not None
    assert all(offset > recorded.end[partition] for partition, offset in state.planned.items())


@pytest.mark.parametrize("recorded", ["asynchronous"], indirect=True)
def test_gaps_of_asynchronous_progress_and_what_was_sent_out_beyond_it(recorded: Recorded) -> None:
    ids = batch_ids(recorded.folder, "offsets")
    state = read_in_place(recorded.place)

    assert ids != list(range(len(ids))), "otherwise this is no recording of it"
    assert state is not None
    assert state.asynchronous
    assert state.committed_batch_id == ids[-1] <= recorded.batch_id
    assert all(offset <= recorded.end[partition] for partition, offset in state.committed.items())


@pytest.mark.parametrize("recorded", ["several_sources"], indirect=True)
def test_several_sources_are_one_position_and_the_files_of_the_other_are_carried_over(recorded: Recorded) -> None:
    before = committed_entry(recorded.folder)
    assert before is not None
    assert [isinstance(each, str) for each in before.sources] == [False, True, False]
    start = Position({partition: 0 for partition in recorded.end})

    swap_in(recorded.place, tag="t", query_id="q", last_batch_id=recorded.batch_id, start=start)

    after = committed_entry(open_checkpoint(recorded.place))
    assert after is not None
    assert after.end == start
    assert after.sources[1] == before.sources[1]
    read = [name for name in recorded.folder.names("sources/1") if not name.startswith(".")]
    assert read
    old = open_checkpoint(f"{recorded.place}-before-t")
    assert [recorded.folder.text(f"sources/1/{name}") for name in read] == [
        old.text(f"sources/1/{name}") for name in read
    ]


@pytest.mark.parametrize("recorded", ["stateful"], indirect=True)
def test_state_is_seen_and_not_left_behind(recorded: Recorded) -> None:
    state = read_in_place(recorded.place)

    assert state is not None
    assert state.stateful
    with pytest.raises(CheckpointError, match="holds state that belongs to its offsets"):
        swap_in(recorded.place, tag="t", query_id="q", last_batch_id=recorded.batch_id, start=at(1))


@pytest.mark.parametrize("recorded", ["real_time"], indirect=True)
def test_real_time_mode_is_refused_though_its_log_reads_like_any_other(recorded: Recorded) -> None:
    state = read_state(recorded.folder)
    assert state is not None
    assert state.committed_batch_id == recorded.batch_id

    with pytest.raises(CheckpointError, match="real-time mode"):
        read_in_place(recorded.place)


@pytest.mark.parametrize("recorded", ["continuous"], indirect=True)
def test_continuous_processing_is_refused(recorded: Recorded) -> None:
    with pytest.raises(CheckpointError, match="continuous processing"):
        read_in_place(recorded.place)


@pytest.mark.parametrize("recorded", MICRO_BATCHES, indirect=True)
def test_ordinary_queries_are_not_taken_for_real_time_mode(recorded: Recorded) -> None:
    require_micro_batches(recorded.folder)


@pytest.mark.parametrize("recorded", [*MICRO_BATCHES, "real_time"], indirect=True)
def test_every_entry_is_written_back_as_it_was(recorded: Recorded) -> None:
    for batch_id, entry, _ in log_entries(recorded.folder):
        again = [json.loads(line) if line.startswith("{") else line for line in entry.to_text().splitlines()]
        text = recorded.folder.text(f"offsets/{batch_id}")
        assert text is not None
        assert again == [json.loads(line) if line.startswith("{") else line for line in text.splitlines()]


@pytest.mark.parametrize("recorded", ["plain", "cut_off", "asynchronous", "real_time"], indirect=True)
def test_it_begins_where_its_source_says_in_the_form_that_a_seed_has(recorded: Recorded, tmp_path: Path) -> None:
    initial = read_initial(recorded.folder)
    assert initial is not None
    target = open_checkpoint(str(tmp_path / "seeded"))
    seed(target, query_id="q", last_batch_id=-1, start=initial, like=None)

    assert target.text("sources/0/0") == recorded.folder.text("sources/0/0")
