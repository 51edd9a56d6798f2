"""A checkpoint as a position store: the contract, and what only a checkpoint does."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry, read_query_id, read_state
from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.limits import LAST_OFFSET
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.errors import CheckpointError, InputRefused, StateChanged, StoreDenied
from airflow_provider_offsets.stores.protocols import WritablePositionStore
from airflow_provider_offsets.stores.rules import check_stream
from tests.contract.position_contract import PositionContract
from tests.contract.store_contract import EXAMPLES
from tests.unit.checkpoint.test_files import nobody_may_enter
from tests.unit.core.observations import TOPIC, at

STREAM = Stream("group", (TOPIC,))
COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync: the same process reads what it has written."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


class CheckpointOfEachGroup:
    """A checkpoint belongs to one job: here each group has its own."""

    kind = "checkpoint"

    def __init__(self, root: str) -> None:
        self._root = root

    def position(self, stream: Stream) -> Position | None:
        return self._of(stream).position(stream)

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        self._of(stream).write(stream, position, expected=expected)

    def _of(self, stream: Stream) -> CheckpointPositions:
        check_stream(stream)
        return CheckpointPositions(f"{self._root}/{hashlib.sha256(stream.group_id.encode()).hexdigest()[:20]}")


class TestContract(PositionContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> CheckpointOfEachGroup:
        return CheckpointOfEachGroup(str(tmp_path))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a checkpoint that has committed batch 4 of two topics, and planned batch 5."""
    folder = tmp_path / "checkpoint"
    files = {"metadata": '{"id":"query-1"}', "sources/0/0": f"\0v1\n{at(0, 0).to_json()}"}
    for number, ends in ((4, at(40, 60)), (5, at(50, 70))):
        entry = LogEntry({"batchTimestampMs": number}, (ends.updated(at(number, topic="other")),))
        files[f"offsets/{number}"] = entry.to_text()
    for name, text in {**files, "commits/4": COMMIT}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_it_is_the_committed_position_of_the_streams_topics(place: Path) -> None:
    store = CheckpointPositions(str(place))

    assert store.position(STREAM) == at(40, 60)
    assert store.position(Stream("any group", ("other",))) == at(4, topic="other")
    assert store.position(Stream("group", ("elsewhere",))) is None
    assert store.position(Stream("group", (TOPIC, "other"))) == at(40, 60).updated(at(4, topic="other"))


def test_reading_leaves_no_trace(place: Path) -> None:
    before = tree(place.parent)

    CheckpointPositions(str(place)).position(STREAM)
    CheckpointPositions(f"{place}-2").position(STREAM)

    assert tree(place.parent) == before
    assert [each.name for each in place.parent.iterdir()] == ["checkpoint"]


def test_a_written_one_takes_the_place_and_keeps_what_was_not_asked_for(place: Path) -> None:
    CheckpointPositions(str(place)).write(STREAM, at(30, 60, 0), expected=at(40, 60))

    state = read_state(open_checkpoint(str(place)))
    assert state is not None
    assert state.committed == at(30, 60, 0).updated(at(4, topic="other"))
    assert (state.query_id, state.committed_batch_id, state.planned) == ("query-1", 4, state.committed)
    [old] = place.parent.glob("checkpoint-before-*")
    kept = read_state(open_checkpoint(str(old)))
    assert kept is not None
    assert (kept.committed_batch_id, kept.planned_batch_id) == (4, 5)


def test_a_new_one_has_a_query_id_of_its_own(tmp_path: Path) -> None:
    """Otherwise a sink that knows batches by query and id would skip its first batches as known ones."""
    ids = set()
    for _ in range(2):
        CheckpointPositions(str(tmp_path / "c")).write(STREAM, at(1), expected=None)
        ids.add(read_query_id(open_checkpoint(str(tmp_path / "c"))))
        shutil.rmtree(tmp_path / "c")

    assert len(ids) == 2


@pytest.mark.parametrize("location", ["memory://positions/new", "local"])
def test_a_new_one_that_was_cut_off_is_finished(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = str(tmp_path / "new") if location == "local" else location
    kind = type(open_checkpoint(location))
    create, left = kind.create, [2]

    def create_two(files: CheckpointFolder, path: str, text: str) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return create(files, path, text)

    monkeypatch.setattr(kind, "create", create_two)
    with pytest.raises(KeyboardInterrupt):
        CheckpointPositions(location).write(STREAM, at(3), expected=None)
    monkeypatch.setattr(kind, "create", create)

    with pytest.raises(CheckpointError, match="if the folder was being seeded, do that again"):
        CheckpointPositions(location).position(STREAM)
    with pytest.raises(StateChanged, match="other content"):
        CheckpointPositions(location).write(STREAM, at(4), expected=None)
    CheckpointPositions(location).write(STREAM, at(3), expected=None)

    assert CheckpointPositions(location).position(STREAM) == at(3)


def test_an_exchange_that_was_cut_off_is_no_first_start(place: Path) -> None:
    """Between its two moves nothing exists at the location."""
    CheckpointPositions(str(place)).write(STREAM, at(30, 60), expected=at(40, 60))
    [old] = place.parent.glob("checkpoint-before-*")
    place.rename(str(old).replace("-before-", "-seeded-"))

    with pytest.raises(CheckpointError, match=r"the exchange .* was interrupted"):
        CheckpointPositions(str(place)).position(STREAM)

    CheckpointPositions(str(place)).write(STREAM, at(30, 60), expected=at(40, 60))
    assert CheckpointPositions(str(place)).position(STREAM) == at(30, 60)


def test_an_object_store_takes_a_new_one_and_no_exchange() -> None:
    store = CheckpointPositions("memory://positions/checkpoint")
    store.write(STREAM, at(1, 2), expected=None)
    store.write(STREAM, at(1, 2), expected=None)

    for write in (store.check_write, store.write):
        with pytest.raises(CheckpointError, match="a file system that moves a folder in one step"):
            write(STREAM, at(1, 1), expected=at(1, 2))
    assert store.position(STREAM) == at(1, 2)


@pytest.mark.parametrize(
    ("why", "files", "seen"),
    [
        ("incomplete", {"offsets/4": "v1\n{"}, "cannot be read"),
        ("an empty file", {"offsets/5": ""}, "offsets/5 is empty"),
        ("an unknown version", {"offsets/4": f"v7\n{{}}\n{at(1).to_json()}"}, "begins with 'v7'"),
        ("not JSON", {"metadata": "query-1"}, "metadata cannot be read"),
        ("a negative offset", {"offsets/4": 'v1\n{}\n{"flights":{"0":-1}}'}, "begin at 0"),
        ("an offset above 2^63-1", {"offsets/4": f'v1\n{{}}\n{{"flights":{{"0":{LAST_OFFSET + 1}}}}}'}, "counts to"),
        ("state", {"state/0/0/1.delta": "x"}, "holds state"),
    ],
)
def test_what_cannot_be_moved_is_left_as_it_is(why: str, files: dict[str, str], seen: str, place: Path) -> None:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    before = tree(place.parent)

    with pytest.raises(CheckpointError, match=seen):
        CheckpointPositions(str(place)).check_write(STREAM, at(30, 60), expected=at(40, 60))
    with pytest.raises(CheckpointError, match=seen):
        CheckpointPositions(str(place)).write(STREAM, at(30, 60), expected=at(40, 60))

    assert tree(place.parent) == before


def test_one_that_this_user_may_not_read_is_no_first_start(place: Path) -> None:
    before = tree(place.parent)
    with nobody_may_enter(place):
        with pytest.raises(StoreDenied):
            CheckpointPositions(str(place)).position(STREAM)
        with pytest.raises(StoreDenied):
            CheckpointPositions(str(place)).write(STREAM, at(30, 60), expected=None)
    assert tree(place.parent) == before


def test_a_query_that_has_not_started_is_left_alone(tmp_path: Path) -> None:
    open_checkpoint(str(tmp_path)).create("metadata", '{"id":"query-1"}')

    store = CheckpointPositions(str(tmp_path))
    for write in (store.check_write, store.write):
        with pytest.raises(CheckpointError, match="a query that has not started"):
            write(STREAM, at(30, 60), expected=None)
    with pytest.raises(InputRefused):
        CheckpointPositions(str(tmp_path)).write(STREAM, at(1, topic="elsewhere"), expected=None)


OFFSETS = st.dictionaries(
    st.tuples(st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True), st.integers(0, 9_999)).map(
        lambda each: TopicPartition(*each)
    ),
    st.integers(0, LAST_OFFSET),
    min_size=1,
    max_size=30,
)


@given(offsets=OFFSETS, last_batch_id=st.integers(-1, 10**12))
@EXAMPLES
def test_seeded_and_read_is_identity(tmp_path: Path, offsets: dict[TopicPartition, int], last_batch_id: int) -> None:
    target = open_checkpoint(str(tmp_path / "checkpoint"))

    following = seed(target, query_id="q", last_batch_id=last_batch_id, start=Position(offsets), like=None)

    state = read_state(target)
    shutil.rmtree(tmp_path / "checkpoint")
    assert state is not None
    assert (state.committed, state.committed_batch_id) == (Position(offsets), following - 2)
    assert following > last_batch_id + 1


def test_it_is_a_store_that_can_be_written(place: Path) -> None:
    assert isinstance(CheckpointPositions(str(place)), WritablePositionStore)


@pytest.mark.parametrize("location", ["/proc/nope/c", "/dev/null/c", f"/{'x' * 300}/c"])
def test_no_try_creates_a_folder_there(location: str) -> None:
    with pytest.raises(CheckpointError, match=r"Correct the location of the checkpoint|Name the folder"):
        CheckpointPositions(location).write(STREAM, at(1), expected=None)
