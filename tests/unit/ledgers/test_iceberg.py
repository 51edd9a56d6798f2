"""Iceberg tables: recordings of Iceberg 1.11.0 on Spark 4.1.1 (``data/record.py``), catalogs, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import iceberg
from tests.unit.ledgers.sinks import QUERY, IcebergSink, key, made, recorded, rows


@pytest.fixture
def sink(tmp_path: Path) -> IcebergSink:
    made_sink = made("iceberg", tmp_path)
    assert isinstance(made_sink, IcebergSink)
    return made_sink


def read(name: str, folder: Path) -> Ledger:
    """Return the ledger of a recording."""
    return iceberg.read(str(recorded(name, folder)))


def summary(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the snapshots of a recording, as its metadata has them."""
    [file] = (recorded(name, folder) / "metadata").glob("*.metadata.json")
    snapshots: list[dict[str, Any]] = json.loads(file.read_text())["snapshots"]
    return snapshots


class TestRecorded:
    def test_a_streaming_query_is_named_by_query_and_epoch(self, tmp_path: Path) -> None:
        ledger = read("iceberg_streaming", tmp_path)

        assert [(each.batch_id, each.rows, each.pipeline) for each in ledger.written] == [
            (0, 3, ""),
            (1, 5, ""),  # it ran twice: Iceberg's sink absorbs that
            (2, 0, ""),
        ]
        assert len({each.query_id for each in ledger.written} - {""}) == 1
        assert ledger.missing_before == ""

    def test_a_delete_counts_the_rows_that_it_did_not_copy_and_a_compaction_counts_nothing(
        self, tmp_path: Path
    ) -> None:
        ledger = read("iceberg_streaming", tmp_path)

        assert [(each.what, each.rows) for each in ledger.removed] == [("overwrite", 1)]
        assert ledger.unnamed == ()

    def test_foreach_batch_is_named_by_its_key(self, tmp_path: Path) -> None:
        ledger = read("iceberg_foreach_batch", tmp_path)

        assert [(each.batch_id, each.rows) for each in ledger.written] == [(0, 3), (0, 3), (1, 0), (2, 1)]
        assert {(each.pipeline, each.query_id) for each in ledger.written} == {("orders", QUERY)}
        assert [each.digest for each in ledger.written] == [f"{n:016x}" for n in (0, 0, 1, 2)]
        times = [each["timestamp-ms"] for each in summary(tmp_path, "iceberg_foreach_batch")]
        assert [each.at_ms for each in ledger.written] == [times[0], times[1], times[3], times[-1]]

    def test_an_append_without_a_key_is_unnamed(self, tmp_path: Path) -> None:
        [plain] = read("iceberg_foreach_batch", tmp_path).unnamed

        third = summary(tmp_path, "iceberg_foreach_batch")[2]
        assert (plain.place, plain.at_ms) == (f"snapshot {third['snapshot-id']}", third["timestamp-ms"])

    def test_an_update_removes_rows_that_are_not_counted_and_merge_on_read_counts_its_deletes(
        self, tmp_path: Path
    ) -> None:
        ledger = read("iceberg_foreach_batch", tmp_path)

        assert [each.rows for each in ledger.removed] == [None, 1]

    def test_a_batch_that_was_rolled_back_is_removed_unless_it_was_written_again(self, tmp_path: Path) -> None:
        before, after = (read(f"iceberg_{name}", tmp_path) for name in ("foreach_batch", "rolled_back"))

        new = [each for each in after.removed if each not in before.removed]
        assert [each.batch_id for each in after.written][-2:] == [2, 4]
        assert [(each.rows, "rolled back" in each.what) for each in new] == [(4, True)], "batch 3"

    def test_snapshots_that_expired_are_named(self, tmp_path: Path) -> None:
        ledger = read("iceberg_expired", tmp_path)

        oldest = min(summary(tmp_path, "iceberg_expired"), key=lambda each: int(each["timestamp-ms"]))
        assert ledger.written[-1].batch_id == 4
        assert ledger.missing_before == f"snapshot {oldest['snapshot-id']}"
        assert ledger.begins_at_ms == oldest["timestamp-ms"]

    def test_a_snapshot_that_a_tag_kept_from_expiring_is_no_removal(self, tmp_path: Path) -> None:
        """It may have been an ancestor: those between it and the oldest ancestor have expired."""
        folder = recorded("iceberg_expired", tmp_path)
        [file] = (folder / "metadata").glob("*.metadata.json")
        metadata = json.loads(file.read_text())
        before = iceberg.read(str(folder))
        kept = summary(tmp_path / "other", "iceberg_foreach_batch")[0]
        metadata["snapshots"].insert(0, kept)
        file.write_text(json.dumps(metadata))

        assert iceberg.read(str(folder)) == before

    def test_a_staged_snapshot_is_not_in_the_table_until_it_is_published(self, tmp_path: Path) -> None:
        staged, published = (read(f"iceberg_{name}", tmp_path) for name in ("staged", "published"))

        assert [each.batch_id for each in staged.written][-2:] == [4, 6]
        assert staged.removed[0].rows == 2
        assert [each.batch_id for each in published.written][-3:] == [4, 6, 5]
        assert staged.removed[0] not in published.removed


class TestFolder:
    def test_the_spellings_of_a_location(self, sink: IcebergSink, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(sink.folder.parent)

        for location in (f"{sink.folder}/", sink.folder.as_uri(), f"file:{sink.folder}", "sink", "./sink"):
            assert len(iceberg.read(location).written) == 2, location

    def test_an_empty_table(self, tmp_path: Path) -> None:
        empty = IcebergSink(tmp_path / "sink")
        with empty.table():
            pass

        assert iceberg.read(str(empty.folder)) == Ledger()

    def test_the_tenth_version_is_newer_than_the_ninth(self, sink: IcebergSink) -> None:
        for batch_id in range(2, 11):
            sink.put(batch_id, 1)

        assert [each.batch_id for each in iceberg.read(str(sink.folder)).written] == list(range(11))

    def test_compressed_metadata(self, tmp_path: Path) -> None:
        folder = recorded("iceberg_streaming", tmp_path)
        [plain] = (folder / "metadata").glob("*.metadata.json")
        plain.with_name("v6.gz.metadata.json").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

        assert len(iceberg.read(str(folder)).written) == 3

    def test_two_newest_files_are_refused(self, sink: IcebergSink) -> None:
        """The commit of one of them failed, and only the catalog knows which one."""
        newest = max((sink.folder / "metadata").glob("*.metadata.json"))
        newest.with_name(f"{newest.name[:5]}-orphan.metadata.json").write_bytes(newest.read_bytes())

        with pytest.raises(LedgerUnreadable, match="<catalog>:<table>"):
            iceberg.read(str(sink.folder))

    def test_a_newest_file_that_is_gone_is_refused(self, tmp_path: Path) -> None:
        folder = recorded("iceberg_streaming", tmp_path)
        (folder / "metadata" / "version-hint.text").write_text("7")

        with pytest.raises(LedgerUnreadable, match="version 7"):
            iceberg.read(str(folder))

    def test_a_summary_of_another_program(self, sink: IcebergSink) -> None:
        with sink.table() as table:
            table.append(rows(1), snapshot_properties={"offsets.batch": "load of monday"})
            table.append(rows(1), snapshot_properties={"spark.sql.streaming.queryId": "q"})

        ledger = iceberg.read(str(sink.folder))

        assert (len(ledger.written), len(ledger.unnamed)) == (2, 2)

    def test_an_overwrite_of_another_program_removes_rows(self, sink: IcebergSink) -> None:
        with sink.table() as table:
            table.overwrite(rows(1))

        ledger = iceberg.read(str(sink.folder))

        assert sum(each.rows or 0 for each in ledger.removed) == 5

    def test_a_table_that_was_replaced_has_lost_its_batches(self, sink: IcebergSink) -> None:
        newest = max((sink.folder / "metadata").glob("*.metadata.json"))
        metadata = json.loads(newest.read_text())
        first, second = metadata["snapshots"]
        del second["parent-snapshot-id"]
        newest.write_text(json.dumps(metadata))

        ledger = iceberg.read(str(sink.folder))

        assert [each.batch_id for each in ledger.written] == [1]
        assert [each.place for each in ledger.removed] == [f"snapshot {first['snapshot-id']}"]
        assert ledger.missing_before == ""


class TestCatalog:
    @pytest.fixture
    def catalog(self, sink: IcebergSink, monkeypatch: pytest.MonkeyPatch) -> str:
        from pyiceberg.utils.config import Config

        monkeypatch.setenv("PYICEBERG_CATALOG__TEST__URI", f"sqlite:///{sink.folder.parent}/catalog.db")
        monkeypatch.setenv("PYICEBERG_CATALOG__BROKEN__URI", "sqlite:////nothing/here.db")
        monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        return "test"

    def test_a_table_of_a_catalog(self, catalog: str) -> None:
        ledger = iceberg.read(f"{catalog}:db.t")

        assert [str(each.batch_id) for each in ledger.written] == ["0", "1"]
        assert ledger.written[0].digest == key(0)[-16:]

    @pytest.mark.parametrize("table", ["db.nothing", "nothing.t"])
    def test_a_table_that_is_not_there(self, catalog: str, table: str) -> None:
        with pytest.raises(LedgerUnreadable, match=f"Catalog 'test' has no table '{table}'"):
            iceberg.read(f"{catalog}:{table}")

    def test_no_table_of_the_catalog_itself_is_created(self, catalog: str, sink: IcebergSink) -> None:
        file = sink.folder.parent / "catalog.db"
        file.unlink()
        file.touch()

        with pytest.raises(LedgerUnreadable):
            iceberg.read(f"{catalog}:db.t")

        assert file.read_bytes() == b""

    @pytest.mark.usefixtures("catalog")
    @pytest.mark.parametrize("name", ["nosuch", "broken"])
    def test_a_catalog_that_is_not_configured_or_does_not_answer(self, name: str) -> None:
        with pytest.raises(LedgerUnreadable, match=f"{name}:db.t cannot be read"):
            iceberg.read(f"{name}:db.t")

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            ("ForbiddenError", "may not be read"),
            ("UnauthorizedError", "may not be read"),
            ("OSError", "cannot be read"),
        ],
    )
    def test_a_catalog_that_denies(self, error: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyiceberg import exceptions

        def failing(name: str, **_: str) -> None:
            raise getattr(exceptions, error, OSError)("no")

        monkeypatch.setattr("pyiceberg.catalog.load_catalog", failing)

        with pytest.raises(LedgerUnreadable, match=words):
            iceberg.read("rest:db.t")
