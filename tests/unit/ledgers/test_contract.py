"""What every reader of a ledger does, on a real sink of each format."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from airflow_provider_offsets.errors import InputRefused, LedgerUnreadable
from airflow_provider_offsets.ledgers import read_ledger
from tests.unit.ledgers.sinks import KINDS, QUERY, ROWS, SinkUnderTest, content, made, removed_whole


@pytest.fixture(params=KINDS)
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> SinkUnderTest:
    return made(request.param, tmp_path)


def test_named_batches_are_found_in_their_order(sink: SinkUnderTest) -> None:
    ledger = read_ledger(sink.sink, sink.url)

    assert [each.batch_id for each in ledger.written] == [0, 1]
    assert len({each.place for each in ledger.written}) == 2
    assert (ledger.removed, ledger.unnamed, ledger.missing_before, ledger.begins_at_ms) == ((), (), "", None)


def test_what_the_sink_says_of_a_batch(sink: SinkUnderTest) -> None:
    found = read_ledger(sink.sink, sink.url).written[1]

    if sink.format is SinkFormat.FILES:  # Spark's log names no query, and no rows
        assert (found.pipeline, found.query_id, found.digest, found.rows) == ("", "", "", None)
    else:
        assert (found.pipeline, found.query_id, found.digest) == ("orders", QUERY, f"{1:016x}")
        assert found.rows == ROWS[1]
    if sink.format is not SinkFormat.BATCH_TABLE:
        assert found.at_ms is not None
        assert found.at_ms > 1_700_000_000_000


def test_a_removed_row_is_found(sink: SinkUnderTest) -> None:
    sink.remove()

    ledger = read_ledger(sink.sink, sink.url)

    [removed] = ledger.removed
    assert removed.rows == (1 if sink.counts_rows else None)
    assert removed.place
    assert removed.what
    assert [each.batch_id for each in ledger.written] == [0, 1], "the writes are still named"
    assert ledger.unnamed == ()


@pytest.mark.parametrize("sink", [each for each in KINDS if each != "batch_table"], indirect=True)
def test_a_beginning_that_was_removed_is_named(sink: SinkUnderTest) -> None:
    """Rows that were deleted from a batch table leave no trace: its batches are missing in the comparison."""
    complete = read_ledger(sink.sink, sink.url)
    sink.cut_off()

    ledger = read_ledger(sink.sink, sink.url)

    assert [each.batch_id for each in ledger.written] == [1]
    assert ledger.missing_before == ledger.written[0].place
    assert ledger.begins_at_ms == complete.written[1].at_ms
    assert ledger.removed == ()


def test_what_is_not_there_is_refused(sink: SinkUnderTest) -> None:
    removed_whole(sink)

    with pytest.raises(LedgerUnreadable) as raised:
        read_ledger(sink.sink, sink.url)

    assert str(sink.folder) in raised.value.seen
    assert not sink.folder.exists(), "nothing was created"


def test_metadata_that_cannot_be_parsed_is_refused(sink: SinkUnderTest) -> None:
    sink.break_metadata()

    with pytest.raises(LedgerUnreadable):
        read_ledger(sink.sink, sink.url)


@pytest.mark.parametrize("sink", [each for each in KINDS if each != "batch_table"], indirect=True)
def test_a_folder_of_another_program_is_refused(sink: SinkUnderTest) -> None:
    removed_whole(sink)
    sink.folder.mkdir()
    (sink.folder / "part-0.parquet").write_bytes(b"PAR1")

    with pytest.raises(LedgerUnreadable, match=sink.folder.name):
        read_ledger(sink.sink, sink.url)


@pytest.mark.parametrize(
    ("kind", "library", "extra"),
    [("delta", "deltalake", "[delta]"), ("iceberg", "pyiceberg", "[iceberg]"), ("batch_table", "sqlalchemy", "")],
)
def test_a_missing_library_is_named(
    kind: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = made(kind, tmp_path)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(f"No module named {library!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LedgerUnreadable) as raised:
        read_ledger(sink.sink, sink.url)
    monkeypatch.undo()

    assert library in raised.value.seen
    assert (f"pip install 'airflow-provider-offsets{extra}'" in raised.value.do) == bool(extra)


def test_nothing_is_written(sink: SinkUnderTest) -> None:
    sink.remove()
    before = content(sink.folder)

    read_ledger(sink.sink, sink.url)

    assert content(sink.folder) == before


@pytest.mark.parametrize("kind", [SinkFormat.DELTA, SinkFormat.ICEBERG, SinkFormat.FILES])
def test_a_location_with_a_password_is_refused_without_it(kind: SinkFormat) -> None:
    with pytest.raises(InputRefused) as raised:
        read_ledger(Sink(kind, "webhdfs://user:s3cret@host:9870/sink"))

    assert "s3cret" not in str(raised.value)


def test_a_batch_table_needs_a_url() -> None:
    with pytest.raises(InputRefused, match="'output'"):
        read_ledger(Sink(SinkFormat.BATCH_TABLE, conn_id="output", batch_table="batches"))
