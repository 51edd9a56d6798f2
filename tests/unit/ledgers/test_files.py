"""The log of file sinks: recordings of Spark 4.2.0 (``data/record.py``), other file systems, and what is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import files
from tests.unit.ledgers.sinks import FileSink, made, recorded


@pytest.fixture
def sink(tmp_path: Path) -> FileSink:
    made_sink = made("files", tmp_path)
    assert isinstance(made_sink, FileSink)
    return made_sink


@pytest.fixture
def remote(sink: FileSink) -> Iterator[str]:
    """Yield the URL of a copy of the sink on an object store."""
    root = f"/{uuid.uuid4().hex}"
    store = fsspec.filesystem("memory")
    for each in sink.folder.rglob("*"):
        if each.is_file():
            text = each.read_text().replace(sink.folder.as_uri(), f"memory:/{root}/sink")
            store.pipe_file(f"{root}/sink/{each.relative_to(sink.folder)}", text.encode())
    yield f"memory:/{root}/sink"
    store.rm(root, recursive=True)


class TestRecorded:
    def test_each_batch_is_named_once_also_one_that_ran_again_or_wrote_nothing(self, tmp_path: Path) -> None:
        ledger = files.read(str(recorded("files", tmp_path)))

        assert [each.place for each in ledger.written] == [f"_spark_metadata/{n}" for n in ("0", "1", "2.compact")]
        assert [each.batch_id for each in ledger.written] == [0, 1, 2]
        assert [each.at_ms is None for each in ledger.written] == [False, True, False], "batch 1 wrote no file"
        assert (ledger.removed, ledger.unnamed, ledger.missing_before) == ((), (), "")

    def test_a_compacted_log_is_complete_while_its_batches_are_there(self, tmp_path: Path) -> None:
        ledger = files.read(str(recorded("files_compacted", tmp_path)))

        assert [each.batch_id for each in ledger.written] == [0, 1, 2, 3]
        assert ledger.missing_before == ""

    def test_a_log_whose_beginning_spark_removed(self, tmp_path: Path) -> None:
        ledger = files.read(str(recorded("files_cleaned", tmp_path)))

        first = ledger.written[0]
        assert ledger.written[-1].batch_id == 6
        assert first.batch_id > 0
        assert (ledger.missing_before, ledger.begins_at_ms) == (first.place, first.at_ms)
        assert ledger.removed == ()

    @pytest.mark.parametrize("name", ["files", "files_compacted", "files_cleaned"])
    def test_a_file_that_is_gone_or_cut_is_found_in_a_folder_with_an_escaped_name(
        self, name: str, tmp_path: Path
    ) -> None:
        folder = recorded(name, tmp_path)
        gone, cut = sorted(folder.glob("part=a b%25*/part-*.csv"))[:2]
        gone.unlink()
        cut.write_bytes(cut.read_bytes()[:-1])

        found = {each.place: each.what for each in files.read(str(folder)).removed}

        assert found.keys() == {str(each.relative_to(folder)) for each in (gone, cut)}
        assert found[str(gone.relative_to(folder))] == "file is gone"
        assert "bytes" in found[str(cut.relative_to(folder))]


class TestOtherFileSystems:
    def test_an_object_store(self, remote: str) -> None:
        ledger = files.read(remote)

        assert [each.batch_id for each in ledger.written] == [0, 1]
        assert ledger.removed == ()

    def test_a_file_that_is_gone(self, remote: str) -> None:
        fsspec.filesystem("memory").rm(f"{remote.removeprefix('memory:/')}/part-00000-1.txt")

        assert [each.place for each in files.read(remote).removed] == ["part-00000-1.txt"]

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(LedgerUnreadable, match="does not exist"):
            files.read("memory://nothing/here")

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (PermissionError("access denied to s3://b"), "Grant read access"),
            (ConnectionError("no route"), "start what does not answer"),
            (ImportError("Install s3fs"), r"airflow-provider-offsets\[s3\]"),
        ],
    )
    def test_one_that_does_not_answer(self, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("fsspec.core.url_to_fs", failing)

        with pytest.raises(LedgerUnreadable, match=words):
            files.read("s3://bucket/sink")


def test_the_spellings_of_a_location(sink: FileSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sink.folder.parent)

    for location in (f"{sink.folder}/", sink.folder.as_uri(), f"file:{sink.folder}", "sink", "./sink"):
        ledger = files.read(location)
        assert (len(ledger.written), ledger.removed) == (2, ()), location


def test_other_files_of_the_log_are_left_alone(sink: FileSink) -> None:
    for name in (".1.crc", ".1.5e2a.tmp", "2.compact.tmp", "_tmp"):
        (sink.folder / "_spark_metadata" / name).write_text("{")

    assert len(files.read(str(sink.folder)).written) == 2


def test_a_query_that_ran_no_batch_yet(tmp_path: Path) -> None:
    (tmp_path / "_spark_metadata").mkdir()

    assert files.read(str(tmp_path)).written == ()


def test_a_file_that_spark_removed_itself_is_no_removal(sink: FileSink) -> None:
    entry = sink.entry("part-00000-0.txt")
    sink.log("2", entry | {"path": (sink.folder / "compacted.txt").as_uri(), "action": "delete"})

    assert files.read(str(sink.folder)).removed == ()


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("empty", ""),
        ("another version", "v2\n"),
        ("no JSON", "v1\n{"),
        ("no object", "v1\n7"),
        ("no path", 'v1\n{"size": 1}'),
        ("a size that is no number", json.dumps({"path": "x", "size": "many", "modificationTime": 0, "action": "add"})),
    ],
)
def test_a_log_that_cannot_be_parsed_is_refused(sink: FileSink, reason: str, text: str) -> None:
    (sink.folder / "_spark_metadata" / "1").write_text(text)

    with pytest.raises(LedgerUnreadable, match="_spark_metadata/1 cannot be parsed"):
        files.read(str(sink.folder))


def test_a_log_of_bytes_is_refused(sink: FileSink) -> None:
    (sink.folder / "_spark_metadata" / "1").write_bytes(b"v1\n\xff")

    with pytest.raises(LedgerUnreadable, match="cannot be parsed"):
        files.read(str(sink.folder))


def test_a_folder_that_was_moved_is_refused(sink: FileSink) -> None:
    """All of its files would look as if they were gone."""
    moved = sink.folder.rename(sink.folder.parent / "moved")

    with pytest.raises(LedgerUnreadable, match="not in this folder"):
        files.read(str(moved))
