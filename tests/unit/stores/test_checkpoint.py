"""Spark's offset log: what is read of it, what is refused, and what is written. The shapes are Spark 4.2's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, WorldChanged
from airflow_provider_offsets.stores.checkpoint import (
    CLOSED_BY,
    LocalCheckpoint,
    LogEntry,
    close,
    last_entry,
    parse_entry,
    read_entry,
    read_initial,
    read_query_id,
    read_state,
    seed,
)
from tests.unit.core.worlds import at

METADATA = {"batchWatermarkMs": 0, "batchTimestampMs": 1_700_000_000_000, "conf": {"spark.sql.shuffle.partitions": "2"}}
META = json.dumps(METADATA)
ENDS = '{"flights":{"1":60,"0":40}}'
ENTRY = f"v1\n{META}\n{ENDS}"
COMMIT = 'v1\n{"nextBatchWatermarkMs":0}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is read back by this very process."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def write(folder: Path, files: dict[str, str]) -> LocalCheckpoint:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return LocalCheckpoint(str(folder))


def entry(*ends: int, **more: Any) -> str:
    return LogEntry({**METADATA, **more}, at(*ends)).to_text()


def log(folder: Path, planned: dict[int, str], committed: tuple[int, ...], **more: str) -> LocalCheckpoint:
    files = {"metadata": '{"id":"query-1"}', "sources/0/0": f"\0v1\n{at(0, 0).to_json()}"}
    files |= {f"offsets/{number}": text for number, text in planned.items()}
    files |= {f"commits/{number}": COMMIT for number in committed}
    return write(folder, files | more)


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


class TestEntry:
    def test_it_is_read(self) -> None:
        found = parse_entry(ENTRY, "here")

        assert found.end == at(40, 60)
        assert found.batch_time_ms == 1_700_000_000_000
        assert found.closed_by is None

    def test_it_is_written_as_it_was_read(self) -> None:
        assert parse_entry(parse_entry(ENTRY, "here").to_text(), "here") == parse_entry(ENTRY, "here")

    @pytest.mark.parametrize(
        ("why", "text", "seen"),
        [
            ("a later version", ENTRY.replace("v1", "v2", 1), "begins with 'v2'"),
            ("cut off before anything was written", "", "begins with ''"),
            ("two Kafka sources", f"{ENTRY}\n{ENDS}", "the offsets of 2 sources"),
            ("cut off after the version", "v1", "the offsets of 0 sources"),
            ("no source", f"v1\n{META}", "the offsets of 0 sources"),
            ("a source that has nothing yet, as Spark writes it", f"v1\n{META}\n-", "cannot be read"),
            ("one source of two that has nothing yet", f"{ENTRY}\n-", "the offsets of 2 sources"),
            ("a rate source", f"v1\n{META}\n17", "cannot be read"),
            ("a file source", f'v1\n{META}\n{{"logOffset":3}}', "cannot be read"),
            ("metadata that is not JSON", f"v1\nnope\n{ENDS}", "cannot be read"),
            ("cut off in the middle", ENTRY[:-5], "cannot be read"),
            ("an offset that is a wish", f'v1\n{META}\n{{"flights":{{"0":-1}}}}', "cannot be read"),
            ("an offset that is text", f'v1\n{META}\n{{"flights":{{"0":"7"}}}}', "cannot be read"),
        ],
    )
    def test_what_was_not_tried_is_refused(self, why: str, text: str, seen: str) -> None:
        with pytest.raises(CheckpointError, match=f"file:/here/offsets/3.*{seen}"):
            parse_entry(text, "file:/here/offsets/3")


class TestState:
    @pytest.mark.parametrize(
        ("why", "planned", "committed", "batch_id", "stands", "planned_id"),
        [
            ("at rest", {0: entry(10, 10), 1: entry(40, 60)}, (0, 1), 1, at(40, 60), None),
            ("a planned batch is no fact", {0: entry(10, 10), 1: entry(40, 60)}, (0,), 0, at(10, 10), 1),
            ("planned, and nothing done yet", {0: entry(10, 10)}, (), UNSTARTED, at(0, 0), 0),
            ("begun, and nothing planned yet", {}, (), UNSTARTED, at(0, 0), None),
            ("older entries are purged by Spark", {7: entry(10, 10), 8: entry(40, 60)}, (7, 8), 8, at(40, 60), None),
            ("a gap in the plans is no trouble", {0: entry(1, 1), 2: entry(40, 60)}, (0, 2), 2, at(40, 60), None),
            ("a commit whose plan is gone does not count", {0: entry(10, 10)}, (0, 1), 0, at(10, 10), None),
            (
                "past 9, names are not sorted as text",
                {9: entry(1, 1), 10: entry(40, 60)},
                (9, 10),
                10,
                at(40, 60),
                None,
            ),
        ],
    )
    def test_it_stands_at_the_greatest_batch_that_both_logs_have(
        self,
        why: str,
        planned: dict[int, str],
        committed: tuple[int, ...],
        batch_id: int,
        stands: Position,
        planned_id: int | None,
        folder: Path,
    ) -> None:
        state = read_state(log(folder, planned, committed))

        assert state is not None
        assert (state.committed_batch_id, state.committed, state.planned_batch_id) == (batch_id, stands, planned_id)
        assert state.query_id == "query-1"
        assert state.closed_by is None
        assert state.stateful is False
        assert (state.planned is None) is (planned_id is None)

    @pytest.mark.parametrize(
        "name",
        [".1.crc", ".1.7a1b.tmp", "1.crc", ".1.7a1b.tmp.crc", "1.tmp", "x", "-1"],
    )
    def test_what_is_not_a_number_is_not_a_batch(self, name: str, folder: Path) -> None:
        more = {f"offsets/{name}": "garbage", f"commits/{name}": "garbage"}
        state = read_state(log(folder, {0: entry(10, 10)}, (0,), **more))

        assert state is not None
        assert (state.committed_batch_id, state.planned_batch_id) == (0, None)

    @pytest.mark.parametrize(
        ("why", "files"),
        [
            ("no folder", {}),
            ("an empty log", {"metadata": '{"id":"query-1"}'}),
            ("offsets of nobody's query", {"offsets/0": ENTRY, "commits/0": COMMIT}),
        ],
    )
    def test_what_does_not_say_where_to_go_on_is_none(self, why: str, files: dict[str, str], folder: Path) -> None:
        assert read_state(write(folder, files)) is None

    @pytest.mark.parametrize(
        ("why", "files", "seen"),
        [
            ("metadata that is not JSON", {"metadata": "nope"}, "/metadata cannot be read"),
            ("metadata without an id", {"metadata": "{}"}, "/metadata cannot be read"),
            ("initial offsets of a later version", {"metadata": '{"id":"q"}', "sources/0/0": "\0v3\n{}"}, "'v3'"),
            ("initial offsets that are none", {"metadata": '{"id":"q"}', "sources/0/0": "\0v1\nnope"}, "sources/0/0"),
            (
                "the batch that it stands at",
                {"metadata": '{"id":"q"}', "offsets/0": "v1\nnope", "commits/0": COMMIT},
                "offsets/0",
            ),
        ],
    )
    def test_what_cannot_be_read_is_named(self, why: str, files: dict[str, str], seen: str, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=seen):
            read_state(write(folder, files))

    def test_bytes_that_are_no_text_are_named(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))
        (folder / "offsets/0").write_bytes(b"\xff\xfe")

        with pytest.raises(CheckpointError, match="offsets/0 cannot be read"):
            read_state(checkpoint)

    def test_state_makes_it_stateful(self, folder: Path) -> None:
        state = read_state(log(folder, {0: entry(10, 10)}, (0,), **{"state/0/0/1.delta": "x"}))

        assert state is not None
        assert state.stateful is True

    def test_the_zero_byte_of_the_initial_offsets_may_be_left_out(self, folder: Path) -> None:
        """Spark's own reader takes both."""
        assert read_initial(write(folder, {"sources/0/0": f"v1\n{ENDS}"})) == at(40, 60)

    @pytest.mark.parametrize("location", ["hdfs://namenode/checkpoint", "s3a://bucket/checkpoint"])
    def test_a_file_system_that_was_not_tried_is_refused(self, location: str) -> None:
        with pytest.raises(CheckpointError, match="a local path"):
            LocalCheckpoint(location)

    def test_a_file_url_is_a_local_path(self, folder: Path) -> None:
        log(folder, {0: entry(10, 10)}, (0,))

        assert read_query_id(LocalCheckpoint(f"file://{folder}")) == "query-1"

    def test_last_entry_is_what_spark_wrote(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0, 1))
        close(checkpoint, "op")

        assert last_entry(checkpoint) == read_entry(checkpoint, 1)
        assert last_entry(LocalCheckpoint(str(folder / "nowhere"))) is None


class TestSeed:
    @pytest.mark.parametrize("last", [UNSTARTED, 0, 1, 4, 99])
    def test_it_stands_at_the_start_and_ids_go_on(self, last: int, folder: Path) -> None:
        target = LocalCheckpoint(str(folder))

        following = seed(target, query_id="query-1", last_batch_id=last, start=at(5, 7), like=None)

        state = read_state(target)
        assert state is not None
        assert (state.committed, state.planned, state.query_id) == (at(5, 7), None, "query-1")
        assert state.committed_batch_id == following - 1
        assert following > last, "no batch id is ever used again"
        before = read_entry(target, following - 2)
        assert before is not None, "Spark asks for the last entry and for the one before"
        assert before.end == at(5, 7)
        assert {f"commits/{following - 1}", f"commits/{following - 2}"} <= content(folder).keys()

    def test_byte_for_byte(self, folder: Path) -> None:
        """As Spark's own writers do it: the zero byte, the version line, and no newline at the end."""
        seed(LocalCheckpoint(str(folder)), query_id="query-1", last_batch_id=4, start=at(5, 7), like=None)

        offsets = b'v1\n{"batchWatermarkMs":0,"batchTimestampMs":0,"conf":{}}\n{"flights":{"0":5,"1":7}}'
        commit = b'v1\n{"nextBatchWatermarkMs":0}'
        assert content(folder) == {
            "metadata": b'{"id": "query-1"}',
            "sources/0/0": b'\x00v1\n{"flights":{"0":5,"1":7}}',
            "offsets/4": offsets,
            "offsets/5": offsets,
            "commits/4": commit,
            "commits/5": commit,
        }

    def test_confs_of_the_old_query_are_carried_over(self, folder: Path) -> None:
        """Spark takes the number of shuffle partitions from here, and state depends on it."""
        target = LocalCheckpoint(str(folder))
        seed(target, query_id="q", last_batch_id=0, start=at(5), like=parse_entry(ENTRY, "old"))

        assert read_entry(target, 1).metadata == METADATA  # type: ignore[union-attr]

    def test_seeded_again_nothing_changes(self, folder: Path) -> None:
        for _ in range(2):
            seed(LocalCheckpoint(str(folder)), query_id="query-1", last_batch_id=4, start=at(5, 7), like=None)
            first = content(folder)

        assert content(folder) == first
        assert len(first) == 6

    @pytest.mark.parametrize("missing", ["metadata", "sources/0/0", "offsets/5", "commits/4", "commits/5"])
    def test_one_that_was_cut_off_is_finished(self, missing: str, folder: Path) -> None:
        target = LocalCheckpoint(str(folder))
        arguments: dict[str, Any] = {"query_id": "query-1", "last_batch_id": 4, "start": at(5, 7), "like": None}
        seed(target, **arguments)
        whole = content(folder)
        (folder / missing).unlink()

        seed(target, **arguments)

        assert content(folder) == whole

    @pytest.mark.parametrize(
        ("why", "change"),
        [
            ("another query's", {"query_id": "query-2"}),
            ("another start", {"start": at(6, 7)}),
            ("other confs", {"like": parse_entry(ENTRY, "old")}),
        ],
    )
    def test_it_never_writes_over_other_content(self, why: str, change: dict[str, Any], folder: Path) -> None:
        arguments: dict[str, Any] = {"query_id": "query-1", "last_batch_id": 4, "start": at(5, 7), "like": None}
        seed(LocalCheckpoint(str(folder)), **arguments)
        before = content(folder)

        with pytest.raises(WorldChanged, match="is there with other content"):
            seed(LocalCheckpoint(str(folder)), **{**arguments, **change})

        assert content(folder) == before


class TestClose:
    def test_it_plants_the_next_entry(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0, 1))

        assert close(checkpoint, "op") == 2

        plant = read_entry(checkpoint, 2)
        assert plant is not None
        assert (plant.closed_by, plant.end) == ("op", at(40, 60))
        assert plant.metadata["conf"] == {**METADATA["conf"], CLOSED_BY: "op"}  # type: ignore[dict-item]
        state = read_state(checkpoint)
        assert state is not None
        assert (state.committed_batch_id, state.planned_batch_id, state.closed_by) == (1, None, "op")

    def test_a_batch_that_was_planned_stays_planned(self, folder: Path) -> None:
        """The entry that follows it is planted: a driver that runs that batch dies right after it."""
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0,))

        assert close(checkpoint, "op") == 2

        state = read_state(checkpoint)
        assert state is not None
        assert (state.planned_batch_id, state.planned, state.closed_by) == (1, at(40, 60), "op")

    def test_closed_twice_the_first_stands(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))
        close(checkpoint, "op-1")
        first = content(folder)

        assert close(checkpoint, "op-2") == 1
        assert content(folder) == first

    def test_an_empty_one_has_nothing_to_close(self, folder: Path) -> None:
        assert close(LocalCheckpoint(str(folder)), "op") is None
        assert not folder.exists()

    def test_a_driver_that_plans_its_next_batch_meanwhile_wins(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))
        create = checkpoint.create

        def late(path: str, text: str) -> bool:
            write(folder, {path: entry(40, 60)})
            return create(path, text)

        monkeypatch.setattr(checkpoint, "create", late)

        with pytest.raises(WorldChanged, match=r"offsets/1 appeared while the checkpoint was closed"):
            close(checkpoint, "op")
        assert read_entry(checkpoint, 1).closed_by is None  # type: ignore[union-attr]


class TestCreate:
    def test_it_is_whole_or_not_there(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint = LocalCheckpoint(str(folder))

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.create("offsets/0", ENTRY)

        assert content(folder) == {}

    def test_it_says_whether_it_was_there(self, folder: Path) -> None:
        checkpoint = LocalCheckpoint(str(folder))

        assert checkpoint.create("offsets/0", "one") is True
        assert checkpoint.create("offsets/0", "two") is False
        assert content(folder) == {"offsets/0": b"one"}
