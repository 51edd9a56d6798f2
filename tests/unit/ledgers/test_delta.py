"""Delta tables: recordings of Delta 4.1.0 on Spark 4.1.1 (``data/record.py``), of delta-rs, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake

from airflow_provider_offsets.core.sink.ledger import Ledger, Removed
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import delta
from tests.unit.ledgers.sinks import QUERY, DeltaSink, key, made, named, recorded, rows


@pytest.fixture
def sink(tmp_path: Path) -> DeltaSink:
    made_sink = made("delta", tmp_path)
    assert isinstance(made_sink, DeltaSink)
    return made_sink


def read(name: str, folder: Path) -> Ledger:
    """Return the ledger of a recording."""
    return delta.read(str(recorded(name, folder)))


def version_of(place: str) -> int:
    return int(place.removeprefix("version "))


class TestRecorded:
    def test_a_streaming_query_is_named_by_query_and_epoch(self, tmp_path: Path) -> None:
        ledger = read("delta_streaming", tmp_path)

        assert [(each.place, each.batch_id, each.rows, each.pipeline) for each in ledger.written] == [
            ("version 0", 0, 3, ""),
            ("version 1", 1, 5, ""),  # it ran twice: Delta's sink absorbs that
            ("version 2", 2, 0, ""),
        ]
        assert len({each.query_id for each in ledger.written} - {""}) == 1
        assert ledger.missing_before == ""

    def test_a_delete_is_a_removal_and_optimize_is_none(self, tmp_path: Path) -> None:
        ledger = read("delta_streaming", tmp_path)

        assert ledger.removed == (Removed("version 3", "DELETE", 1),)
        assert ledger.unnamed == ()

    def test_foreach_batch_is_named_by_its_key(self, tmp_path: Path) -> None:
        ledger = read("delta_foreach_batch", tmp_path)

        assert [(each.batch_id, each.rows) for each in ledger.written] == [(0, 3), (1, 0), (2, 4), (3, 2), (4, 1)]
        assert {(each.pipeline, each.query_id) for each in ledger.written} == {("orders", QUERY)}
        assert [each.digest for each in ledger.written] == [f"{n:016x}" for n in range(5)]
        assert all(each.at_ms for each in ledger.written)

    def test_an_append_without_a_key_is_unnamed(self, tmp_path: Path) -> None:
        ledger = read("delta_foreach_batch", tmp_path)

        assert [each.place for each in ledger.unnamed] == ["version 1"]
        assert ledger.unnamed[0].at_ms is not None

    def test_an_update_a_delete_by_deletion_vector_and_a_merge_that_deletes_are_removals(self, tmp_path: Path) -> None:
        """An overwrite and a MERGE with a key are writes of that batch, whatever they replace."""
        ledger = read("delta_foreach_batch", tmp_path)

        assert [(each.what, each.rows) for each in ledger.removed] == [("UPDATE", 1), ("DELETE", 1), ("MERGE", 1)]

    def test_an_overwrite_without_a_key_is_a_removal(self, tmp_path: Path) -> None:
        before, after = (read(f"delta_{name}", tmp_path) for name in ("foreach_batch", "overwritten"))

        [new] = after.removed[len(before.removed) :]
        assert (new.what, new.rows) == ("WRITE (Overwrite)", None)
        assert after.written == before.written

    def test_a_restore_takes_back_what_came_after_its_version(self, tmp_path: Path) -> None:
        before, after = (read(f"delta_{name}", tmp_path) for name in ("overwritten", "restored"))

        assert after.written == before.written[:2], "of versions 0 and 2"
        assert after.unnamed == before.unnamed
        assert [each.place for each in after.removed] == [each.place for each in before.written[2:]]
        assert {each.what.rpartition(" in ")[0] for each in after.removed} == {"undone by RESTORE"}
        assert [each.rows for each in after.removed] == [4, 2, 1]

    def test_a_log_whose_beginning_was_cleaned_up(self, tmp_path: Path) -> None:
        ledger = read("delta_cleaned", tmp_path)

        folder = recorded("delta_cleaned", tmp_path)
        oldest = min(int(each.stem) for each in (folder / "_delta_log").glob("*.json") if each.stem.isdecimal())
        assert oldest > 0
        assert ledger.missing_before == f"version {oldest}"
        assert ledger.begins_at_ms is not None
        assert [(each.batch_id, each.rows) for each in ledger.written][-2:] == [(2, 3), (3, 4)]
        assert all(version_of(each.place) >= oldest for each in ledger.written)


class TestDeltaRs:
    """Tables of programs without Spark have metrics of other names."""

    @pytest.mark.parametrize(
        ("act", "what", "count"),
        [
            (lambda table: table.delete("n = 2"), "DELETE", 1),
            (lambda table: table.delete(), "DELETE", 5),
            (lambda table: table.update(predicate="n = 1", updates={"n": "9"}), "UPDATE", 2),
            (
                lambda table: (
                    table.merge(rows(1), "s.n = t.n", source_alias="s", target_alias="t")
                    .when_matched_delete()
                    .execute()
                ),
                "MERGE",
                2,
            ),
        ],
        ids=["delete", "delete all", "update", "merge"],
    )
    def test_a_removal(self, sink: DeltaSink, act: Callable[[Any], Any], what: str, count: int) -> None:
        act(DeltaTable(str(sink.folder)))

        assert delta.read(str(sink.folder)).removed == (Removed("version 2", what, count),)

    @pytest.mark.parametrize(
        "act",
        [
            lambda table: table.optimize.compact(),
            lambda table: table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False),
            lambda table: table.delete("n > 100"),
            lambda table: table.alter.set_table_properties({"delta.appendOnly": "false"}),
        ],
        ids=["optimize", "vacuum", "delete of nothing", "properties"],
    )
    def test_what_changes_no_row(self, sink: DeltaSink, act: Callable[[Any], Any]) -> None:
        before = delta.read(str(sink.folder))
        act(DeltaTable(str(sink.folder)))

        assert delta.read(str(sink.folder)) == before

    def test_a_merge_without_a_key_that_only_inserts_is_unnamed(self, sink: DeltaSink) -> None:
        merge = DeltaTable(str(sink.folder)).merge(rows(4), "s.n = t.n", source_alias="s", target_alias="t")
        merge.when_not_matched_insert_all().execute()

        ledger = delta.read(str(sink.folder))

        assert [each.place for each in ledger.unnamed] == ["version 2"]
        assert ledger.removed == ()

    def test_an_overwrite(self, sink: DeltaSink) -> None:
        write_deltalake(str(sink.folder), rows(1), mode="overwrite")

        assert delta.read(str(sink.folder)).removed == (Removed("version 2", "WRITE (Overwrite)"),)

    def test_a_first_overwrite_removes_nothing(self, tmp_path: Path) -> None:
        write_deltalake(str(tmp_path / "new"), rows(1), mode="overwrite")

        ledger = delta.read(str(tmp_path / "new"))

        assert ledger.removed == ()
        assert [each.place for each in ledger.unnamed] == ["version 0"]

    def test_a_batch_that_is_written_again_after_a_restore_is_no_removal(self, sink: DeltaSink) -> None:
        DeltaTable(str(sink.folder)).restore(0)
        sink.put(1, 2)

        ledger = delta.read(str(sink.folder))

        assert [each.place for each in ledger.written] == ["version 0", "version 3"]
        assert ledger.removed == ()

    def test_a_restore_takes_back_a_delete(self, sink: DeltaSink) -> None:
        before = delta.read(str(sink.folder))
        sink.remove()
        DeltaTable(str(sink.folder)).restore(1)

        assert delta.read(str(sink.folder)) == before

    @pytest.mark.parametrize(
        "metadata",
        ["load of monday", "{}", "[]", '{"offsets.batch": 7}', '{"offsets.batch": "load of monday"}'],
    )
    def test_metadata_of_another_program(self, sink: DeltaSink, metadata: str) -> None:
        properties = named("")
        properties.custom_metadata = {"userMetadata": metadata}
        write_deltalake(str(sink.folder), rows(1), mode="append", commit_properties=properties)

        assert [each.place for each in delta.read(str(sink.folder)).unnamed] == ["version 2"]


def test_a_restore_to_a_time_takes_back_an_unknown_number_of_rows() -> None:
    """Spark then writes no version."""
    write = {"version": 0, "operation": "WRITE", "userMetadata": json.dumps({"offsets.batch": key(0)})}
    restore = {
        "version": 1,
        "operation": "RESTORE",
        "operationParameters": {"version": None, "timestamp": "2026-11-30"},
    }

    ledger = delta.ledger_of([write, restore])

    assert len(ledger.written) == 1
    assert ledger.removed == (Removed("version 1", "RESTORE"),)


@pytest.mark.parametrize(
    ("operation", "is_removed", "is_unnamed"),
    [
        ("CREATE OR REPLACE TABLE AS SELECT", True, False),
        ("REPLACE TABLE", True, False),
        ("CREATE TABLE AS SELECT", False, True),
        ("WRITE", False, True),
        ("CREATE TABLE", False, False),
        ("SET TBLPROPERTIES", False, False),
        ("VACUUM END", False, False),
    ],
)
def test_a_commit_without_metrics(operation: str, is_removed: bool, is_unnamed: bool) -> None:
    """Spark writes none if ``spark.databricks.delta.history.metricsEnabled`` is off."""
    ledger = delta.ledger_of([{"version": 0, "operation": operation, "operationParameters": {}}])

    assert (bool(ledger.removed), bool(ledger.unnamed)) == (is_removed, is_unnamed)


def test_an_append_of_no_rows_without_a_key_is_no_write() -> None:
    """``foreachBatch`` makes such a commit for a batch whose rows were all filtered out."""
    metrics = {"numFiles": "1", "numOutputRows": "0"}

    ledger = delta.ledger_of([{"version": 0, "operation": "WRITE", "operationMetrics": metrics}])

    assert ledger == Ledger()


def test_a_commit_without_its_information_makes_the_beginning_unknown(sink: DeltaSink) -> None:
    """The library then counts one version too few: see the module."""
    sink.commit(0).write_text(
        "".join(line for line in sink.commit(0).read_text().splitlines(keepends=True) if "commitInfo" not in line)
    )

    assert delta.read(str(sink.folder)).missing_before == "version 1"


def test_the_spellings_of_a_location(sink: DeltaSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sink.folder.parent)

    for location in (f"{sink.folder}/", sink.folder.as_uri(), f"file:{sink.folder}", "sink", "./sink"):
        assert len(delta.read(location).written) == 2, location


@pytest.mark.parametrize("location", ["nosuch://host/table", "/no/such/folder"])
def test_a_location_without_a_table_is_refused(location: str) -> None:
    with pytest.raises(LedgerUnreadable, match="no Delta table"):
        delta.read(location)


def test_a_log_with_a_gap_is_refused(sink: DeltaSink) -> None:
    sink.put(2, 1)
    sink.commit(1).unlink()

    with pytest.raises(LedgerUnreadable):
        delta.read(str(sink.folder))


def test_a_log_without_commits_is_refused(sink: DeltaSink) -> None:
    shutil.rmtree(sink.folder / "_delta_log")
    (sink.folder / "_delta_log").mkdir()

    with pytest.raises(LedgerUnreadable):
        delta.read(str(sink.folder))


def test_no_access_is_named(sink: DeltaSink, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(location: str) -> None:
        raise PermissionError("access denied")

    monkeypatch.setattr("deltalake.DeltaTable", denied)

    with pytest.raises(LedgerUnreadable, match="may not be read"):
        delta.read(str(sink.folder))
