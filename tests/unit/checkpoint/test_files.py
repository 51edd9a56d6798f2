"""Checkpoint folders on local disks and on what fsspec opens: one behaviour, and errors of this package."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_offsets.checkpoint import files as checkpoint_files
from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.seed import seed
from airflow_provider_offsets.errors import (
    CheckpointError,
    OffsetsError,
    StateChanged,
    StoreClientMissing,
    StoreDenied,
    StoreUnreachable,
)
from tests.unit.core.observations import at


@pytest.fixture(params=["local", "memory", "moving"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield a location on a local disk, on an object store, and on a file system that moves files, as HDFS does."""
    if request.param == "local":
        yield str(tmp_path / "checkpoint")
        return
    if request.param == "moving":
        monkeypatch.setattr(checkpoint_files, "MOVING", {"memory"})
        monkeypatch.setattr(MemoryFileSystem, "mv", moved_like_webhdfs)
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}/checkpoint"
    files = fsspec.filesystem("memory")
    if files.exists(root):
        files.rm(root, recursive=True)


def moved_like_webhdfs(files: Any, source: str, target: str) -> None:
    """Move files as WebHDFS does: an existing target stays unchanged, without an error."""
    if not files.exists(target):
        files.copy(source, target, recursive=True)
        files.rm(source, recursive=True)


@pytest.fixture
def folder(location: str) -> CheckpointFolder:
    return open_checkpoint(location)


class TestFolder:
    @pytest.mark.parametrize("location", ["local", "moving"], indirect=True)
    def test_one_that_is_removed(self, location: str, folder: CheckpointFolder) -> None:
        folder.create("metadata", "{}")
        folder.create("offsets/0", "v1")

        for _ in range(2):
            folder.remove()

        assert not folder.exists()
        assert not open_checkpoint(f"{location}.removed").exists()

    @pytest.mark.parametrize("location", ["local"], indirect=True)
    def test_one_whose_removal_was_cut_off_is_not_half_there(
        self, location: str, folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder.create("offsets/0", "v1")

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as cut_off:
            cut_off.setattr("shutil.rmtree", die)
            with pytest.raises(KeyboardInterrupt):
                folder.remove()

        assert not folder.exists()
        assert open_checkpoint(f"{location}.removed").text("offsets/0") == "v1"
        folder.remove()
        assert not open_checkpoint(f"{location}.removed").exists()

    def test_one_that_is_not_there(self, folder: CheckpointFolder) -> None:
        assert folder.exists() is False
        assert folder.names("offsets") == []
        assert folder.names("") == []
        assert folder.text("offsets/0") is None
        assert read_state(folder) is None

    def test_what_was_created_is_read(self, folder: CheckpointFolder, location: str) -> None:
        text = 'v1\n{"ünï":"\u2028"}\n'

        assert folder.create("offsets/0", text) is True
        assert folder.create("offsets/10", "") is True

        again = open_checkpoint(location)
        assert again.exists() is True
        assert sorted(again.names("offsets")) == ["0", "10"], "and nothing half done stays"
        assert again.names("") == ["offsets"]
        assert (again.text("offsets/0"), again.text("offsets/10")) == (text, "")

    def test_what_is_there_is_never_written_over(self, folder: CheckpointFolder) -> None:
        folder.create("offsets/0", "first")

        assert folder.create("offsets/0", "second") is False
        assert folder.text("offsets/0") == "first"
        assert folder.names("offsets") == ["0"]

    def test_a_slash_at_the_end_changes_nothing(self, location: str) -> None:
        open_checkpoint(f"{location}/").create("offsets/0", "text")

        assert open_checkpoint(location).names("offsets") == ["0"]

    def test_bytes_that_are_no_text_are_named(self, folder: CheckpointFolder, location: str) -> None:
        folder.create("offsets/0", "")
        with fsspec.open(f"{location}/offsets/0", "wb") as file:
            file.write(b"\xff\xfe")

        with pytest.raises(CheckpointError, match="offsets/0 cannot be read"):
            folder.text("offsets/0")

    def test_a_seeded_checkpoint_is_read_back(self, folder: CheckpointFolder) -> None:
        for _ in range(2):
            assert seed(folder, query_id="q", last_batch_id=8, start=at(5, 7), like=None) == 10

        state = read_state(folder)
        assert state is not None
        assert (state.committed_batch_id, state.committed, state.query_id) == (8, at(5, 7), "q")

    @pytest.mark.parametrize("location", ["local", "moving"], indirect=True)
    def test_it_moves_to_where_nothing_is(self, folder: CheckpointFolder, location: str) -> None:
        assert folder.moves
        folder.create("metadata", "ours")
        folder.move_to(f"{location}-2")

        assert folder.exists() is False
        assert open_checkpoint(f"{location}-2").text("metadata") == "ours"

        folder.create("metadata", "second")
        with pytest.raises(StateChanged, match="exists already, so"):
            folder.move_to(f"{location}-2")
        assert open_checkpoint(f"{location}-2").text("metadata") == "ours"
        assert folder.text("metadata") == "second"


class TestOpen:
    @pytest.mark.parametrize("form", ["file:{}", "file://{}", "{}"])
    def test_forms_of_a_local_path(self, form: str, tmp_path: Path) -> None:
        open_checkpoint(form.format(tmp_path)).create("metadata", "{}")

        assert (tmp_path / "metadata").read_text() == "{}"

    @pytest.mark.parametrize("form", ["file:{}", "file://{}", "{}"])
    @pytest.mark.parametrize("name", ["what?", "a#b", "50%", "a%20b", "a b"])
    def test_a_local_path_is_no_url(self, name: str, form: str, tmp_path: Path) -> None:
        """Hadoop's ``Path`` opens the same folder: it knows neither a query nor a fragment."""
        open_checkpoint(form.format(tmp_path / name)).create("metadata", "{}")

        assert (tmp_path / name / "metadata").exists()

    @pytest.mark.parametrize("name", ["what?", "a#b", "50%", "a%20b", "a b", "a:b", "[x"])
    def test_neither_is_the_path_of_another_file_system(self, name: str) -> None:
        root = uuid.uuid4().hex
        open_checkpoint(f"memory://{root}//./{name}/").create("metadata", "{}")

        files = fsspec.filesystem("memory")
        assert files.cat_file(f"/{root}/{name}/metadata") == b"{}"
        assert open_checkpoint(f"memory://{root}/b/../{name}").names("") == ["metadata"]
        files.rm(f"/{root}", recursive=True)

    def test_a_local_path_is_normalized_before_links_are_followed(self, tmp_path: Path) -> None:
        """Hadoop's ``Path`` does so, and the operating system the other way round."""
        (tmp_path / "elsewhere" / "in").mkdir(parents=True)
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "in")
        open_checkpoint(f"{tmp_path}/link/../ck").create("metadata", "{}")

        assert (tmp_path / "ck" / "metadata").exists()

    @pytest.mark.parametrize(
        ("why", "location", "error", "seen"),
        [
            ("nobody knows it", "nope://x/checkpoint", CheckpointError, "Protocol not known: nope"),
            ("a cache shows what was there", "simplecache::s3://b/c", CheckpointError, "chained file systems"),
            ("a password", "webhdfs://user:secret@host:9870/c", CheckpointError, "has a password"),
            ("Hadoop opens /c on host b", "//b/c", CheckpointError, "begin of a host name"),
            ("Hadoop opens /c on HDFS", "hdfs:/c", CheckpointError, "which fsspec reads as a local path"),
            ("Hadoop opens /c?d", "hdfs://host/c?d", CheckpointError, "where fsspec ends the path"),
        ],
    )
    def test_what_is_not_opened(self, why: str, location: str, error: type[OffsetsError], seen: str) -> None:
        with pytest.raises(error, match=seen) as refused:
            open_checkpoint(location)
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(("scheme", "extra"), [("hdfs", "hdfs"), ("webhdfs", "hdfs"), ("s3a", "s3"), ("gs", "gcs")])
    def test_a_library_that_is_missing_is_named_with_its_extra(
        self, scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(location: str, **_: Any) -> None:
            raise ImportError("no such library")

        monkeypatch.setattr(fsspec.core, "url_to_fs", missing)

        with pytest.raises(StoreClientMissing, match=rf"airflow-provider-offsets\[{extra}\]"):
            open_checkpoint(f"{scheme}://host/checkpoint")

    def test_hadoops_native_client_that_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(location: str, **_: Any) -> None:
            raise OSError("Unable to load libjvm")

        monkeypatch.setattr(fsspec.core, "url_to_fs", missing)

        with pytest.raises(StoreClientMissing, match="name the folder as webhdfs://"):
            open_checkpoint("hdfs://host/checkpoint")

    def test_drivers_need_no_fsspec(self) -> None:
        code = "import sys; sys.modules['fsspec'] = None; import airflow_provider_offsets.checkpoint.seed"

        subprocess.run([sys.executable, "-c", code], check=True)


class TestErrors:
    def test_a_file_system_that_may_show_half_a_file_is_not_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoint_files, "PUTTING", frozenset())

        with pytest.raises(CheckpointError, match="another file system may show half a file"):
            open_checkpoint("memory://half/checkpoint").create("metadata", "{}")
        assert not open_checkpoint("memory://half/checkpoint").exists()

    @pytest.mark.parametrize(
        ("raised", "error"),
        [
            (PermissionError("denied"), StoreDenied),
            (ConnectionError("refused"), StoreUnreachable),
            (TimeoutError("late"), StoreUnreachable),
            (RuntimeError("StandbyException"), StoreUnreachable),
            (IsADirectoryError("a folder"), CheckpointError),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    def test_each_call_turns_them_into_errors_of_ours(
        self, raised: Exception, error: type[OffsetsError], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise raised

        folder = open_checkpoint("memory://broken/checkpoint")
        for call in ("ls", "cat_file", "pipe_file", "info"):
            monkeypatch.setattr(MemoryFileSystem, call, fail)

        for act in (
            lambda: folder.names("offsets"),
            lambda: folder.text("metadata"),
            lambda: folder.create("metadata", "{}"),
            folder.exists,
        ):
            with pytest.raises(error, match="memory://broken/checkpoint"):
                act()

    def test_a_path_that_this_user_may_not_read(self, tmp_path: Path) -> None:
        location = tmp_path / "checkpoint"
        folder = open_checkpoint(str(location))
        folder.create("offsets/0", "text")
        with nobody_may_enter(location):
            for act in (lambda: folder.names("offsets"), lambda: folder.text("offsets/0"), lambda: read_state(folder)):
                with pytest.raises(StoreDenied, match="Permission denied"):
                    act()
            with pytest.raises(StoreDenied, match="Permission denied"):
                folder.create("offsets/1", "text")
        assert folder.names("offsets") == ["0"]

    @pytest.mark.parametrize("path", ["offsets", "offsets/0"])
    def test_a_file_where_a_folder_belongs_and_the_other_way_round(self, path: str, tmp_path: Path) -> None:
        (tmp_path / "offsets").mkdir() if path.count("/") else (tmp_path / "offsets").write_text("")
        folder = open_checkpoint(str(tmp_path))
        if path.count("/"):
            (tmp_path / path).mkdir()

        with pytest.raises(CheckpointError, match="the folder of a checkpoint"):
            folder.text(path) if path.count("/") else folder.names(path)


@contextmanager
def nobody_may_enter(folder: Path) -> Iterator[None]:
    """Deny this user a folder; root, whom nothing is denied, becomes another user."""
    folder.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
