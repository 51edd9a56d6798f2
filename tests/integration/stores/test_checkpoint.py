"""Checkpoints on real file systems: a local disk, an HDFS over WebHDFS, and a fake of S3 that answers over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry, read_query_id, read_state
from airflow_provider_offsets.checkpoint.positions import CheckpointPositions
from airflow_provider_offsets.checkpoint.seed import close, require_micro_batches, seed
from airflow_provider_offsets.checkpoint.swap import can_be_seeded, cut_off_swap, read_in_place, swap_in
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, StateChanged, StoreDenied, StoreUnreachable
from stack.ports import free
from tests.contract.position_contract import PositionContract
from tests.contract.store_contract import in_threads
from tests.unit.checkpoint.test_positions import CheckpointOfEachGroup
from tests.unit.core.observations import TOPIC, at

COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'
SWAP: dict[str, Any] = {"tag": "t1", "query_id": "query-1", "last_batch_id": 5, "start": at(30, 60)}
MOVING = ["local", "hdfs"]


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a bucket. The environment that S3's library reads names its server, as a person would configure it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["local", "hdfs", "s3"])
def location(request: pytest.FixtureRequest) -> str:
    """Return a location without a checkpoint."""
    if request.param == "local":
        return f"{request.getfixturevalue('tmp_path')}/checkpoint"
    if request.param == "hdfs":
        return f"webhdfs://{request.getfixturevalue('hdfs')}/checkpoint"
    return f"{request.getfixturevalue('s3')}/folder/checkpoint"


@pytest.fixture
def folder(location: str) -> CheckpointFolder:
    return open_checkpoint(location)


def raw(location: str) -> tuple[Any, str]:
    """Return the file system itself, as another program uses it."""
    files, path = fsspec.core.url_to_fs(location)
    return files, str(path)


def write(location: str, texts: dict[str, str]) -> None:
    files, path = raw(location)
    for name, text in texts.items():
        files.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{path}/{name}", text.encode())


def tree(location: str) -> dict[str, bytes]:
    """Return every file below the parent folder of a location, whoever wrote it."""
    files, path = raw(location.rpartition("/")[0])
    files.invalidate_cache()
    if not files.exists(path):
        return {}
    found = {str(each): files.cat_file(each) for each in files.find(path)}
    return {name[name.index("checkpoint") :]: content for name, content in found.items() if "checkpoint" in name}


@pytest.fixture
def place(location: str) -> str:
    """Return a checkpoint that has committed batch 4 and planned batch 5, of a Kafka and a file source."""
    texts = {"metadata": '{"id":"query-1"}', "sources/0/0": f"\0v1\n{at(0, 0).to_json()}", "sources/1/0": "v1\nfiles"}
    for number, ends in ((3, at(10, 10)), (4, at(40, 60)), (5, at(50, 70))):
        entry = LogEntry({"batchTimestampMs": number, "conf": {"a": "b"}}, (ends, f'{{"logOffset":{number}}}'))
        texts[f"offsets/{number}"] = entry.to_text()
    write(location, texts | {f"commits/{number}": COMMIT for number in (3, 4)})
    return location


class TestContractOnHdfs(PositionContract):
    """The contract without its tests of group names: each group has a folder here, and its name never reaches HDFS."""

    test_written_and_read_is_identity_whatever_the_names = None  # type: ignore[assignment]
    test_a_group_never_sees_its_neighbours = None  # type: ignore[assignment]
    test_groups_that_cannot_be_stored = None  # type: ignore[assignment]
    test_topics_that_kafka_cannot_have = None  # type: ignore[assignment]

    @pytest.fixture
    def store(self, hdfs: str) -> CheckpointOfEachGroup:
        return CheckpointOfEachGroup(f"webhdfs://{hdfs}")


class TestEverywhere:
    def test_nothing_there_is_a_first_start_and_is_seeded(self, location: str) -> None:
        assert read_in_place(location) is None
        for _ in range(2):
            assert swap_in(location, **{**SWAP, "last_batch_id": UNSTARTED}) == 1

        state = read_in_place(location)
        assert state is not None
        assert (state.query_id, state.committed_batch_id, state.planned_batch_id) == ("query-1", UNSTARTED, 0)
        assert state.committed == state.planned == at(30, 60)
        assert len(tree(location)) == 3, "and nothing half done stays"

    def test_seeded_beside_and_closed_as_for_a_tracked_job(self, place: str) -> None:
        old, beside = open_checkpoint(place), open_checkpoint(f"{place}-0123")
        for _ in range(2):
            seed(beside, query_id="query-1", last_batch_id=4, start=at(5, 7), like=None)
            assert close(old, "operation") == 6

        new, closed = read_state(beside), read_state(old)
        assert new is not None
        assert closed is not None
        assert (new.committed_batch_id, new.committed, new.planned_batch_id) == (4, at(5, 7), 5)
        assert (closed.committed, closed.planned, closed.closed_by) == (at(40, 60), at(50, 70), "operation")

    def test_what_a_crash_leaves_is_passed_over(self, place: str) -> None:
        before = read_state(open_checkpoint(place))
        write(
            place,
            {
                "offsets/.5.crc": "crc\0",
                "offsets/.6.0b1e2a9e-6c2f-4b6e-9a53-1f3ed0a4f9d1.tmp": "v1",
                "commits/.5.tmp": "v1",
                "offsets/6.tmp": "v1",
                "offsets/_SUCCESS": "",
            },
        )

        assert read_state(open_checkpoint(place)) == before
        assert before is not None
        assert (before.committed_batch_id, before.planned_batch_id) == (4, 5)

    def test_an_empty_file_is_refused_and_stays(self, place: str) -> None:
        write(place, {"offsets/6": ""})
        before = tree(place)

        for act in (lambda: read_in_place(place), lambda: swap_in(place, **SWAP)):
            with pytest.raises(CheckpointError, match=r"offsets/6 is empty|moves a folder in one step"):
                act()
        assert tree(place) == before

    def test_eight_create_one_file_and_one_of_them_does(self, location: str) -> None:
        won = in_threads(lambda number: open_checkpoint(location).create("offsets/0", f"by {number}"), 8)

        [winner] = [number for number, is_mine in enumerate(won) if is_mine]
        assert tree(location) == {"checkpoint/offsets/0": f"by {winner}".encode()}

    def test_when_a_file_was_written(self, folder: CheckpointFolder) -> None:
        folder.create("metadata", "{}")
        first_ms = folder.written_ms("metadata")
        folder.create("offsets/0", "v1")
        second_ms = folder.written_ms("offsets/0")

        assert first_ms is not None
        assert second_ms is not None
        assert 0 <= second_ms - first_ms < 300_000
        assert folder.written_ms("offsets/1") is None

    def test_real_time_mode_is_recognized_on_remote_file_systems(self, folder: CheckpointFolder) -> None:
        folder.create("metadata", "{}")
        before = "metadata"
        for batch_id in range(3):
            before_ms = folder.written_ms(before)
            assert before_ms is not None
            began = LogEntry({"batchTimestampMs": before_ms - 4000, "conf": {}}, (at(batch_id),))
            folder.create(f"offsets/{batch_id}", began.to_text())
            before = f"commits/{batch_id}"
            folder.create(before, 'v1\n{"nextBatchWatermarkMs":0}')

        with pytest.raises(CheckpointError, match="real-time mode"):
            require_micro_batches(folder)


class TestExchange:
    @pytest.mark.parametrize("location", MOVING, indirect=True)
    def test_where_a_folder_can_be_moved(self, place: str) -> None:
        for _ in range(2):
            assert swap_in(place, **SWAP) == 7

        state = read_in_place(place)
        assert state is not None
        assert (state.committed_batch_id, state.committed, state.planned_batch_id) == (5, at(30, 60), 6)
        assert open_checkpoint(place).text("sources/1/0") == "v1\nfiles"
        old = read_state(open_checkpoint(f"{place}-before-t1"))
        assert old is not None
        assert (old.committed, old.closed_by) == (at(40, 60), "t1")

    @pytest.mark.parametrize("location", MOVING, indirect=True)
    @pytest.mark.parametrize("writes", [3, 7, 8])
    def test_cut_off_it_is_no_first_start_and_is_finished(
        self, place: str, writes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writes are six files, the file that closes the old checkpoint, and two moves."""
        with monkeypatch.context() as patched, suppress(Killed):
            die_after(writes, type(open_checkpoint(place)), patched)
            swap_in(place, **SWAP)
        if writes == 8:
            assert cut_off_swap(place) == "t1"
            with pytest.raises(CheckpointError, match="exchange for the checkpoint 't1' was interrupted"):
                read_in_place(place)
        else:
            state = read_in_place(place)
            assert state is not None
            assert state.committed == at(40, 60)

        assert swap_in(place, **SWAP) == 7
        state = read_in_place(place)
        assert state is not None
        assert state.committed == at(30, 60)

    @pytest.mark.parametrize("location", MOVING, indirect=True)
    def test_what_somebody_put_there_is_not_moved_over(self, place: str) -> None:
        made = open_checkpoint(f"{place}-2")
        made.create("metadata", "ours")
        before = tree(place)

        with pytest.raises(StateChanged, match="exists already, so"):
            made.move_to(place)

        assert tree(place) == before

    @pytest.mark.parametrize("location", MOVING, indirect=True)
    @pytest.mark.parametrize("moved_aside", [False, True], ids=["whole", "cut off after it was moved aside"])
    def test_one_that_is_removed_leaves_nothing_and_its_neighbours_stay(self, place: str, moved_aside: bool) -> None:
        made = open_checkpoint(f"{place}-2")
        made.create("metadata", "ours")
        neighbour = {name: text for name, text in tree(place).items() if name.startswith("checkpoint-2/")}
        if moved_aside:
            open_checkpoint(place).move_to(f"{place}.removed")

        for _ in range(2):
            open_checkpoint(place).remove()

        assert tree(place) == neighbour
        assert not open_checkpoint(f"{place}.removed").exists()

    @pytest.mark.parametrize("location", ["s3"], indirect=True)
    def test_in_an_object_store_what_is_there_stays(self, place: str) -> None:
        before = tree(place)

        assert not can_be_seeded(place)
        for act in (
            lambda: swap_in(place, **SWAP),
            lambda: CheckpointPositions(place).write(Stream("g", (TOPIC,)), at(1, 1), expected=at(40, 60)),
        ):
            with pytest.raises(CheckpointError, match="a file system that moves a folder in one step"):
                act()
        assert tree(place) == before


class Killed(BaseException):
    """SIGKILL, as closely as a test can imitate it."""


def die_after(writes: int, kind: type, patched: pytest.MonkeyPatch) -> None:
    left = iter([True] * writes)
    for name in ("create", "move_to"):
        act: Callable[..., Any] = getattr(kind, name)

        def dying(*arguments: Any, act: Callable[..., Any] = act) -> Any:
            if not next(left, False):
                raise Killed
            return act(*arguments)

        patched.setattr(kind, name, dying)


class TestErrors:
    @pytest.mark.parametrize("scheme", ["webhdfs", "s3"])
    def test_a_server_that_does_not_answer(self, scheme: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
        nobody = f"127.0.0.1:{free(20_000)}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{nobody}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        fsspec.filesystem("s3").clear_instance_cache()
        place = f"webhdfs://{nobody}/checkpoint" if scheme == "webhdfs" else "s3://bucket/checkpoint"

        for act in acts_on(place):
            with pytest.raises(StoreUnreachable):
                act()
        fsspec.filesystem("s3").clear_instance_cache()

    def test_a_folder_that_this_user_may_not_enter(self, hdfs: str, monkeypatch: pytest.MonkeyPatch) -> None:
        place = f"webhdfs://{hdfs}/checkpoint"
        write(place, {"metadata": '{"id":"query-1"}', "offsets/0": "v1"})
        before = tree(place)
        with as_nobody(place, monkeypatch):
            for act in acts_on(place):
                with pytest.raises(StoreDenied):
                    act()
        assert tree(place) == before


def acts_on(place: str) -> list[Callable[[], Any]]:
    return [
        lambda: read_in_place(place),
        lambda: read_query_id(open_checkpoint(place)),
        lambda: open_checkpoint(place).names("offsets"),
        lambda: open_checkpoint(place).written_ms("metadata"),
        lambda: open_checkpoint(place).create("offsets/1", "v1"),
    ]


@contextmanager
def as_nobody(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the folder to others, and act as another user."""
    files, path = raw(place)
    files._call("SETPERMISSION", method="put", path=path, permission="700")
    with monkeypatch.context() as patched:
        patched.setitem(fsspec.config.conf, "webhdfs", {"user": "nobody"})
        yield


def test_the_stand_in_of_s3_refuses_a_second_put(s3: str) -> None:
    """The store relies on this there: a put on the condition that nothing exists (Amazon has it since 2024)."""
    files, path = raw(f"{s3}/object")
    files.pipe_file(path, b"first", mode="create")

    with pytest.raises(FileExistsError):
        files.pipe_file(path, b"second", mode="create")
    assert files.cat_file(path) == b"first"
