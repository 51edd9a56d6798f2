"""A seeded checkpoint replaces another one: completely or not at all, wherever it is interrupted."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_offsets.checkpoint import files as checkpoint_files
from airflow_provider_offsets.checkpoint import swap
from airflow_provider_offsets.checkpoint.files import CheckpointFolder, LocalCheckpoint, open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry, log_entries, read_query_id, read_state
from airflow_provider_offsets.checkpoint.seed import close
from airflow_provider_offsets.checkpoint.swap import can_be_seeded, cut_off_swap, read_in_place, swap_in
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, StateChanged
from tests.unit.core.observations import at

COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'
SWAP: dict[str, Any] = {"tag": "t1", "query_id": "query-1", "last_batch_id": 5, "start": at(30, 60)}


class Killed(BaseException):
    """SIGKILL, as closely as a test can imitate it."""


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: the same process reads what it has written."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a checkpoint that has committed batch 4 and planned batch 5, of a Kafka and a file source."""
    folder = tmp_path / "checkpoint"
    files = {"metadata": '{"id":"query-1"}', "sources/0/0": f"\0v1\n{at(0, 0).to_json()}", "sources/1/0": "v1\nfiles"}
    for number, ends in ((3, at(10, 10)), (4, at(40, 60)), (5, at(50, 70))):
        entry = LogEntry({"batchTimestampMs": number, "conf": {"a": "b"}}, (ends, f'{{"logOffset":{number}}}'))
        files[f"offsets/{number}"] = entry.to_text()
    files |= {f"commits/{number}": COMMIT for number in (3, 4)}
    write(folder, files)
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def beside(place: Path) -> list[str]:
    return sorted(each.name for each in place.parent.iterdir())


def test_it_may_continue_a_checkpoint_at_another_location(place: Path) -> None:
    """Its other sources and the conf of its batches are copied, as for a swap in place."""
    there = place.parent / "moved"

    assert swap_in(str(there), like=str(place), **SWAP) == 7

    state = read_state(open_checkpoint(str(there)))
    assert state is not None
    assert (state.query_id, state.committed_batch_id, state.committed) == ("query-1", 5, at(30, 60))
    entries = [entry for _, entry, _ in log_entries(open_checkpoint(str(there)))]
    assert [(entry.metadata["conf"]["a"], entry.sources[1]) for entry in entries] == [("b", '{"logOffset":4}')] * 2
    assert (there / "sources/1/0").read_text() == "v1\nfiles"
    assert place.exists()


def test_it_goes_on_at_the_start_with_later_ids(place: Path) -> None:
    assert swap_in(str(place), **SWAP) == 7

    state = read_state(open_checkpoint(str(place)))
    assert state is not None
    assert (state.query_id, state.committed_batch_id, state.committed) == ("query-1", 5, at(30, 60))
    assert (state.planned_batch_id, state.planned, state.closed_by) == (6, at(30, 60), None)


def test_the_old_one_stays_beside_it_and_is_closed(place: Path) -> None:
    before = tree(place)

    swap_in(str(place), **SWAP)

    assert beside(place) == ["checkpoint", "checkpoint-before-t1"]
    after = tree(place.with_name("checkpoint-before-t1"))
    assert {name: text for name, text in after.items() if name in before} == before
    assert set(after) - set(before) == {"offsets/6"}
    [*_, (_, plant, _)] = log_entries(open_checkpoint(f"{place}-before-t1"))
    assert plant.closed_by == "t1"


def test_another_source_continues_at_the_committed_offset_not_at_the_planned_one(place: Path) -> None:
    swap_in(str(place), **SWAP)

    [(_, seeded, _), _] = log_entries(open_checkpoint(str(place)))
    assert seeded.sources == (at(30, 60), '{"logOffset":4}')
    assert (place / "sources/1/0").read_text() == "v1\nfiles"


@pytest.mark.parametrize("what_it_writes_next", ["commits/5", "offsets/6"])
def test_a_driver_on_the_old_one_finds_its_next_file_written(place: Path, what_it_writes_next: str) -> None:
    """Spark dies of that (``CONCURRENT_STREAM_LOG_UPDATE``), in the batch that it runs or in its next one."""
    swap_in(str(place), **SWAP)

    assert open_checkpoint(str(place)).create(what_it_writes_next, "") is False


def test_where_nothing_is_the_seeded_one_is_put(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"

    for _ in range(2):
        assert swap_in(str(place), **{**SWAP, "last_batch_id": UNSTARTED}) == 1
        assert beside(place) == ["checkpoint"]

    state = read_state(open_checkpoint(str(place)))
    assert state is not None
    assert state.committed == at(30, 60)


def test_a_folder_that_is_empty_or_incomplete_is_moved_aside(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    write(place, {"metadata": '{"id":"query-1"}'})

    swap_in(str(place), **{**SWAP, "last_batch_id": UNSTARTED})

    assert beside(place) == ["checkpoint", "checkpoint-before-t1"]


def test_done_again_it_changes_nothing(place: Path) -> None:
    swap_in(str(place), **SWAP)
    first = tree(place.parent)

    assert swap_in(str(place), **SWAP) == 7

    assert tree(place.parent) == first


@pytest.mark.parametrize("writes", range(12))
@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_off_at_any_write_it_is_finished_by_the_same_call(
    place: Path, writes: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are seven files, the one that closes, and two moves; the last rows show that the test reaches the end."""
    expected = _swapped_elsewhere(place)
    left = [writes]
    finished = _run(place, left, when, monkeypatch)
    assert finished is (left[0] >= 0)
    monkeypatch.undo()
    monkeypatch.setattr("os.fsync", lambda handle: None)

    if not place.exists():
        assert cut_off_swap(str(place)) == "t1"
    else:
        assert cut_off_swap(str(place)) is None
        state = read_state(open_checkpoint(str(place)))
        assert state is not None
        assert state.committed in (at(40, 60), at(30, 60)), "the old one, or the seeded one: never a half"
    assert swap_in(str(place), **SWAP) == 7

    assert tree(place.parent) == expected
    assert cut_off_swap(str(place)) is None


def _swapped_elsewhere(place: Path) -> dict[str, bytes]:
    whole = place.parent / "whole"
    write(whole / "checkpoint", {name: text.decode() for name, text in tree(place).items()})
    swap_in(str(whole / "checkpoint"), **SWAP)
    found = tree(whole)
    for each in sorted(whole.rglob("*"), reverse=True):
        each.unlink() if each.is_file() else each.rmdir()
    whole.rmdir()
    return found


def _run(place: Path, left: list[int], when: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    def fused(act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0 and when == "before":
                raise Killed
            given = act(*arguments)
            if left[0] < 0:
                raise Killed
            return given

        return run

    monkeypatch.setattr(LocalCheckpoint, "create", fused(LocalCheckpoint.create))
    monkeypatch.setattr(LocalCheckpoint, "move_to", fused(LocalCheckpoint.move_to))
    try:
        swap_in(str(place), **SWAP)
    except Killed:
        return False
    return True


def test_a_batch_that_was_run_meanwhile_is_not_moved_aside(place: Path) -> None:
    write(place, {"offsets/6": (place / "offsets/5").read_text(), "commits/5": COMMIT, "commits/6": COMMIT})

    with pytest.raises(StateChanged, match="and its last batch was 5"):
        swap_in(str(place), **SWAP)

    assert not list(place.parent.glob("checkpoint-before-*"))


def test_a_batch_that_is_planned_while_it_is_closed_wins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = LocalCheckpoint.create

    def late(files: CheckpointFolder, path: str, text: str) -> bool:
        if files.location == str(place):
            write(place, {path: (place / "offsets/5").read_text()})
        return create(files, path, text)

    monkeypatch.setattr(LocalCheckpoint, "create", late)

    with pytest.raises(StateChanged, match="offsets/6 appeared while the checkpoint was closed"):
        swap_in(str(place), **SWAP)
    assert "checkpoint-before-t1" not in beside(place)


def test_one_that_was_closed_before_is_moved(place: Path) -> None:
    close(open_checkpoint(str(place)), "another operation, that got no further")

    assert swap_in(str(place), **SWAP) == 7


def test_state_is_not_left_behind(place: Path) -> None:
    write(place, {"state/0/0/1.delta": "x"})
    before = tree(place.parent)

    with pytest.raises(CheckpointError, match="holds state that belongs to its offsets"):
        swap_in(str(place), **SWAP)

    assert tree(place.parent) == before


def test_what_somebody_put_there_between_the_moves_is_not_moved_over(place: Path) -> None:
    swap_in(str(place), **SWAP)
    place.rename(f"{place}-seeded-t1")
    write(place, {"metadata": '{"id":"somebody"}'})
    before = tree(place.parent)

    with pytest.raises(StateChanged, match="exists already, so"):
        swap_in(str(place), **SWAP)

    assert tree(place.parent) == before


def test_another_swap_does_not_begin_in_the_middle_of_one(place: Path) -> None:
    swap_in(str(place), **SWAP)
    place.rename(f"{place}-seeded-t1")
    before = tree(place.parent)

    with pytest.raises(StateChanged, match="the swap 't1' was interrupted"):
        swap_in(str(place), **{**SWAP, "tag": "t2"})

    assert tree(place.parent) == before


@pytest.mark.parametrize("position", [at(30, 60), at(40, 60)], ids=["elsewhere", "where the old one stood"])
@pytest.mark.parametrize("hangs_in", ["create", "move_to"])
def test_a_caller_that_hangs_moves_no_checkpoint_of_another_one(
    place: Path, hangs_in: str, position: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs after it has closed the old checkpoint, or between its last check and its first move."""
    act = getattr(LocalCheckpoint, hangs_in)

    def superseded(files: CheckpointFolder, *arguments: Any) -> Any:
        if files.location != str(place):
            return act(files, *arguments)
        monkeypatch.undo()
        monkeypatch.setattr("os.fsync", lambda handle: None)
        closed = act(files, *arguments) if hangs_in == "create" else None
        swap_in(str(place), **{**SWAP, "tag": "t2", "start": position})
        return act(files, *arguments) if closed is None else closed

    monkeypatch.setattr(LocalCheckpoint, hangs_in, superseded)

    with pytest.raises(StateChanged, match="was replaced by another checkpoint in the meantime"):
        swap_in(str(place), **{**SWAP, "start": at(10, 10)})

    state = read_state(open_checkpoint(str(place)))
    assert state is not None
    assert (state.committed, state.closed_by) == (position, None)
    assert beside(place) == ["checkpoint", "checkpoint-before-t2", "checkpoint-seeded-t1"]


def test_killed_before_it_puts_back_anothers_checkpoint_it_does_so_when_it_is_run_again(place: Path) -> None:
    swap_in(str(place), **SWAP)
    place.rename(f"{place}-before-t2")
    shutil.copytree(f"{place}-before-t2", f"{place}-seeded-t2")

    with pytest.raises(StateChanged, match="was replaced by another checkpoint in the meantime"):
        swap_in(str(place), **{**SWAP, "tag": "t2"})

    assert beside(place) == ["checkpoint", "checkpoint-before-t1", "checkpoint-seeded-t2"]


def test_a_caller_that_was_superseded_closes_nothing(place: Path) -> None:
    before = tree(place)

    with pytest.raises(StateChanged, match="Another holder"):
        swap_in(str(place), **SWAP, require_lease=superseded_after(0))

    assert tree(place) == before


def superseded_after(calls: int) -> Callable[[], None]:
    """Return a check of the lease that passes this many times."""
    left = [calls]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StateChanged(seen="another holder", expected="the lease", do="No action needed.")

    return check


def test_a_caller_that_was_superseded_while_it_closed_moves_nothing(place: Path) -> None:
    """Its successor may have resumed the checkpoint before the close: then the job ends there, and skips nothing."""
    with pytest.raises(StateChanged, match="Another holder"):
        swap_in(str(place), **SWAP, require_lease=superseded_after(1))

    state = read_state(open_checkpoint(str(place)))
    assert state is not None
    assert (state.committed, state.closed_by) == (at(40, 60), "t1")
    assert beside(place) == ["checkpoint", "checkpoint-seeded-t1"]


@pytest.mark.parametrize("location", ["local", "memory://swap/superseded"])
def test_a_caller_that_was_superseded_puts_nothing_where_nothing_was(place: Path, location: str) -> None:
    location = f"{place}-new" if location == "local" else location

    with pytest.raises(StateChanged, match="Another holder"):
        swap_in(location, like=str(place), **SWAP, require_lease=superseded_after(0))

    assert read_query_id(open_checkpoint(location)) is None


@pytest.mark.parametrize("location", ["checkpoint", "file:checkpoint", "a/checkpoint"])
def test_a_swap_that_was_cut_off_is_found_in_a_relative_folder(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("before", "seeded"):
        open_checkpoint(f"{location}-{kind}-t1").create("metadata", "{}")

    assert cut_off_swap(location) == "t1"


@pytest.mark.parametrize("neighbour", ["checkpoint2-before-t1", "checkpoint-before", "other-checkpoint-before-t1"])
def test_a_neighbours_swap_is_not_taken_for_its_own(tmp_path: Path, neighbour: str) -> None:
    for name in (neighbour, neighbour.replace("before", "seeded")):
        (tmp_path / name).mkdir()

    assert cut_off_swap(str(tmp_path / "checkpoint")) is None


@pytest.fixture
def in_object_store() -> Iterator[str]:
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}/checkpoint"
    fsspec.filesystem("memory").rm(root, recursive=True)


def objects(location: str) -> dict[str, bytes]:
    memory = fsspec.filesystem("memory")
    return {name: memory.cat_file(name) for name in memory.find(location.rpartition("/")[0])}


@pytest.mark.parametrize("writes", range(5))
def test_in_an_object_store_it_is_put_where_nothing_is(
    in_object_store: str, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes are four files; the last row shows that the test reaches the end."""
    first = {**SWAP, "last_batch_id": UNSTARTED}
    left = [writes]
    pipe_file = MemoryFileSystem.pipe_file

    def dying(*arguments: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        pipe_file(*arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", dying)
    assert can_be_seeded(in_object_store)
    with suppress(Killed):
        swap_in(in_object_store, **first)
    monkeypatch.undo()
    is_there = read_query_id(open_checkpoint(in_object_store)) is not None
    assert is_there is (left[0] >= 0), "Spark does not begin before the last file is there"

    for _ in range(2):
        assert swap_in(in_object_store, **first) == 1

    state = read_in_place(in_object_store)
    assert state is not None
    assert (state.query_id, state.committed, state.planned_batch_id) == ("query-1", at(30, 60), 0)


def test_in_an_object_store_the_one_that_is_there_stays(in_object_store: str) -> None:
    swap_in(in_object_store, **SWAP)
    before = objects(in_object_store)

    assert not can_be_seeded(in_object_store)
    with pytest.raises(CheckpointError, match="a file system that moves a folder in one step"):
        swap_in(in_object_store, **{**SWAP, "start": at(31, 60), "tag": "t2"})

    assert objects(in_object_store) == before


def test_a_place_that_is_empty_in_the_middle_of_a_swap_is_no_first_start(place: Path) -> None:
    swap_in(str(place), **SWAP)
    place.rename(f"{place}-seeded-t1")

    with pytest.raises(CheckpointError, match="the exchange for the checkpoint 't1' was interrupted"):
        read_in_place(str(place))


def test_a_swap_that_is_finished_between_two_reads_is_no_first_start(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_in(str(place), **SWAP)
    place.rename(f"{place}-seeded-t1")

    def finished_meanwhile(location: str) -> None:
        Path(f"{place}-seeded-t1").rename(place)

    monkeypatch.setattr(swap, "cut_off_swap", finished_meanwhile)

    state = read_in_place(str(place))
    assert state is not None
    assert state.committed == at(30, 60)


def test_a_slash_at_the_end_changes_nothing(place: Path) -> None:
    swap_in(f"{place}/", **SWAP)

    assert beside(place) == ["checkpoint", "checkpoint-before-t1"]


def test_hdfs_moves_a_folder_into_one_that_is_there_and_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``rename`` does so where the target is a folder; here between our check and the move."""
    import fsspec

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(checkpoint_files, "MOVING", {"memory"})
    memory.pipe_file("/hdfs/seeded/metadata", b"{}")
    seeded = open_checkpoint("memory://hdfs/seeded")

    def into(_: Any, source: str, target: str) -> None:
        memory.pipe_file(f"{target}/seeded/metadata", b"{}")
        memory.rm(source, recursive=True)

    monkeypatch.setattr(type(memory), "mv", into)

    with pytest.raises(StateChanged, match="memory://hdfs/checkpoint exists already, so"):
        seeded.move_to("memory://hdfs/checkpoint")
    memory.rm("/hdfs", recursive=True)
