"""Spark's offset log: what is read of it, what is refused, and what is written, in the formats of Spark 4.2."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from airflow_provider_offsets.checkpoint.files import CheckpointFolder, LocalCheckpoint, open_checkpoint
from airflow_provider_offsets.checkpoint.log import (
    CLOSED,
    CLOSED_BY,
    SEEDED,
    LogEntry,
    committed_entry,
    log_entries,
    parse_entry,
    read_entry,
    read_initial,
    read_only_source,
    read_state,
)
from airflow_provider_offsets.checkpoint.seed import close, seed
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.errors import CheckpointError, StateChanged, StoreUnreachable
from tests.unit.core.observations import at

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
    """Skip fsync: the same process reads what it has written."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def write(folder: Path, files: dict[str, str]) -> CheckpointFolder:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return open_checkpoint(str(folder))


def entry(*ends: int, **more: Any) -> str:
    return LogEntry({**METADATA, **more}, (at(*ends),)).to_text()


def log(folder: Path, planned: dict[int, str], committed: tuple[int, ...], **more: str) -> CheckpointFolder:
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

    def test_it_is_read_as_spark_reads_it(self) -> None:
        """Spark's reader accepts the line ends of Windows, and takes 0 for a batch time that is not there."""
        assert parse_entry(ENTRY.replace("\n", "\r\n"), "here") == parse_entry(ENTRY, "here")
        assert parse_entry(ENTRY.replace("\n", "\r"), "here") == parse_entry(ENTRY, "here")
        assert parse_entry(f"v1\n[]\n{ENDS}", "here").metadata == {}
        assert parse_entry(f'v1\n{{"batchTimestampMs":null}}\n{ENDS} rest', "here").batch_time_ms == 0
        assert parse_entry(f"v1\n{{}}\n{ENDS}", "here").batch_time_ms == 0

    def test_it_is_written_as_it_was_read(self) -> None:
        assert parse_entry(parse_entry(ENTRY, "here").to_text(), "here") == parse_entry(ENTRY, "here")

    @pytest.mark.parametrize(
        ("why", "text", "seen"),
        [
            ("a later version", ENTRY.replace("v1", "v3", 1), "begins with 'v3'"),
            ("version 2 without names", ENTRY.replace("v1", "v2", 1).replace(ENDS, "17"), "has the line '17'"),
            ("a byte order mark", f"\ufeff{ENTRY}", "begins with '\\\\ufeffv1'"),
            ("an empty file, as a machine that lost its power leaves it", "", "is empty"),
            (
                "two Kafka sources that read one partition",
                f"{ENTRY}\n{ENDS}",
                r"two Kafka sources .* read flights\[0\]",
            ),
            ("cut off after the version", "v1", "cannot be read"),
            ("cut off in the metadata", f"v1\n{META[:9]}", "cannot be read"),
            ("cut off before the sources", f"v1\n{META}", "the offsets of 0 sources"),
            ("continuous processing, which has epochs", f"v1\n\n{ENDS}", "like the log of continuous processing"),
            ("a source that has nothing yet, as Spark writes it", f"v1\n{META}\n-", "1 sources, .* Kafka source"),
            ("a rate source", f"v1\n{META}\n17", "none of them is a Kafka source"),
            ("a file source", f'v1\n{META}\n{{"logOffset":3}}', "none of them is a Kafka source"),
            ("metadata that is not JSON", f"v1\nnope\n{ENDS}", "cannot be read"),
            ("metadata that is null", f"v1\nnull\n{ENDS}", "no batch metadata"),
            ("a batch time that is text", f'v1\n{{"batchTimestampMs":"x"}}\n{ENDS}', "is 'x', not a number"),
            ("confs that are no object", f'v1\n{{"conf":[]}}\n{ENDS}', "conf is"),
            ("cut off in the middle", ENTRY[:-5], "cannot be read"),
            ("a second source that is cut off", f'{ENTRY}\n{{"log', "cannot be read"),
            ("an offset that no 64 bits hold", f'v1\n{META}\n{{"flights":{{"0":{2**63}}}}}', "Kafka counts to"),
            ("a partition below 0", f'v1\n{META}\n{{"flights":{{"-1":1}}}}', "cannot be read"),
            ("an offset that is a wish", f'v1\n{META}\n{{"flights":{{"0":-1}}}}', "cannot be read"),
            ("an offset that is text", f'v1\n{META}\n{{"flights":{{"0":"7"}}}}', "cannot be read"),
        ],
    )
    def test_what_was_not_tried_is_refused(self, why: str, text: str, seen: str) -> None:
        with pytest.raises(CheckpointError, match=f"file:/here/offsets/3.*{seen}"):
            parse_entry(text, "file:/here/offsets/3")


class TestSources:
    OTHERS = (at(40, 60), '{"logOffset":3}', "-", "17", at(7, topic="other"))

    def test_kafka_sources_are_recognized_by_their_shape(self) -> None:
        text = LogEntry(METADATA, self.OTHERS).to_text()

        found = parse_entry(text, "here")

        assert found.sources == self.OTHERS
        assert found.kafka == {0: at(40, 60), 4: at(7, topic="other")}
        assert found.end == at(40, 60).updated(at(7, topic="other"))
        assert found.to_text() == text, "the others' lines are carried along as they are"

    def test_all_that_kafka_sources_began_with(self, folder: Path) -> None:
        files = {
            "sources/0/0": f"\0v1\n{at(1, 2).to_json()}",
            "sources/1/0": "v1\n1795477965848",
            "sources/2/0": 'v1\n{"path":"file:///in/1.txt","timestamp":1,"batchId":0}',
            "sources/3/9.compact": "garbage",
            "sources/4/0": f"\0v1\n{at(3, topic='other').to_json()}",
        }
        assert read_initial(write(folder, files)) == at(1, 2).updated(at(3, topic="other"))

    def test_a_tracked_job_reads_one(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(1, 1), 1: LogEntry(METADATA, self.OTHERS).to_text()}, ())

        assert read_only_source(checkpoint, 0) == read_entry(checkpoint, 0)
        assert read_only_source(checkpoint, 2) is None
        with pytest.raises(CheckpointError, match=r"offsets/1 holds the offsets of 5 sources"):
            read_only_source(checkpoint, 1)


class TestState:
    @pytest.mark.parametrize(
        ("why", "planned", "committed", "batch_id", "stands", "planned_id"),
        [
            ("stopped", {0: entry(10, 10), 1: entry(40, 60)}, (0, 1), 1, at(40, 60), None),
            ("a planned batch is no fact", {0: entry(10, 10), 1: entry(40, 60)}, (0,), 0, at(10, 10), 1),
            ("planned, and nothing done yet", {0: entry(10, 10)}, (), UNSTARTED, at(0, 0), 0),
            ("started, and nothing planned yet", {}, (), UNSTARTED, at(0, 0), None),
            ("older entries are purged by Spark", {7: entry(10, 10), 8: entry(40, 60)}, (7, 8), 8, at(40, 60), None),
            ("progress written now and then", {0: entry(1, 1), 4: entry(40, 60)}, (0, 4), 4, at(40, 60), None),
            ("and now and then a batch of all since", {0: entry(1, 1), 7: entry(40, 60)}, (0,), 0, at(1, 1), 7),
            (
                "commits of which the plans are purged",
                {2: entry(1, 1), 3: entry(40, 60)},
                (0, 1, 2, 3),
                3,
                at(40, 60),
                None,
            ),
            (
                "the last two commits are gone: Spark runs the newest batch only",
                {each: entry(each, each) for each in range(4)},
                (0, 1),
                2,
                at(2, 2),
                3,
            ),
            ("all commits are gone", {each: entry(each, each) for each in range(4)}, (), 2, at(2, 2), 3),
            (
                "a hole further down does not count",
                {each: entry(each, each) for each in (0, 1, 3, 4)},
                (0, 1, 2, 3, 4),
                4,
                at(4, 4),
                None,
            ),
            ("neither does an older file", {0: "", 1: entry(1, 1), 2: entry(2, 2)}, (0, 1, 2), 2, at(2, 2), None),
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
    def test_the_position_is_that_of_the_greatest_batch_in_both_logs(
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
        [".1.crc", ".1.7a1b.tmp", "1.crc", ".1.7a1b.tmp.crc", "1.tmp", "9.compact", "x", "-1", "+1", "01", "\u0661"],
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
        ],
    )
    def test_what_does_not_say_where_to_go_on_is_none(self, why: str, files: dict[str, str], folder: Path) -> None:
        assert read_state(write(folder, files)) is None

    @pytest.mark.parametrize(
        ("why", "files", "seen"),
        [
            (
                "a commit whose plan is gone",
                {"metadata": '{"id":"query-1"}', "offsets/0": ENTRY, "commits/0": COMMIT, "commits/1": COMMIT},
                "commits/1, and offsets/0 is its newest plan",
            ),
            (
                "commits without any plan",
                {"metadata": '{"id":"query-1"}', "sources/0/0": f"\0v1\n{ENDS}", "commits/0": COMMIT},
                "commits/0, and no offsets",
            ),
            ("metadata that is not JSON", {"metadata": "nope"}, "/metadata cannot be read"),
            ("metadata without an id", {"metadata": "{}"}, "/metadata cannot be read"),
            ("offsets of nobody's query", {"offsets/0": ENTRY, "commits/0": COMMIT}, "no metadata file"),
            ("initial offsets of a later version", {"metadata": '{"id":"q"}', "sources/0/0": "\0v3\n{}"}, "'v3'"),
            ("initial offsets that are empty", {"metadata": '{"id":"q"}', "sources/0/0": "\0"}, "sources/0/0 is empty"),
            ("a batch without a beginning", {"metadata": '{"id":"q"}', "offsets/0": ENTRY}, "planned batch 0, and its"),
            (
                "an empty entry after it",
                {"metadata": '{"id":"q"}', "offsets/0": ENTRY, "commits/0": COMMIT, "offsets/1": ""},
                "offsets/1 is empty",
            ),
            ("an empty commit", {"metadata": '{"id":"q"}', "offsets/0": ENTRY, "commits/0": ""}, "commits/0 is empty"),
            (
                "a commit that is cut off: a query does not start on it",
                {"metadata": '{"id":"q"}', "offsets/0": ENTRY, "commits/0": COMMIT[:-2]},
                "commits/0 cannot be read",
            ),
            (
                "a commit of a later version",
                {"metadata": '{"id":"q"}', "offsets/0": ENTRY, "commits/0": 'v4\n{"stateUniqueIds":{}}'},
                "commits/0 begins with 'v4'",
            ),
            (
                "a hole before the newest entry, and a commit without an entry",
                {
                    "metadata": '{"id":"q"}',
                    "sources/0/0": f"\0v1\n{ENDS}",
                    **{f"offsets/{each}": ENTRY for each in (2, 4)},
                    **{f"commits/{each}": COMMIT for each in (1, 2)},
                },
                "has offsets/4, and offsets/3 is missing",
            ),
            (
                "a hole before the newest entry of a stateful query, which is never asynchronous",
                {
                    "metadata": '{"id":"q"}',
                    "state/0/0/1.delta": "x",
                    **{f"offsets/{each}": ENTRY for each in (2, 4)},
                    "commits/2": COMMIT,
                },
                "has offsets/4, and offsets/3 is missing",
            ),
            (
                "the newest plan and its commit, without the plan before",
                {"metadata": '{"id":"q"}', "offsets/3": ENTRY, **{f"commits/{each}": COMMIT for each in (1, 2, 3)}},
                "has offsets/3, and offsets/2 is missing",
            ),
            ("no query id", {"metadata": '{"id":""}', "offsets/0": ENTRY}, "holds no query id"),
            ("a query id twice", {"metadata": '{"id":"a","id":"b"}', "offsets/0": ENTRY}, "holds no query id"),
            (
                "commits that somebody removed",
                {"metadata": '{"id":"q"}', "offsets/7": ENTRY, "sources/0/0": f"\0v1\n{ENDS}"},
                "offsets/7, and no committed entry",
            ),
            (
                "an entry that lacks a source",
                {"metadata": '{"id":"q"}', "offsets/0": f"{ENTRY}\n17", "commits/0": COMMIT, "offsets/1": ENTRY},
                "names 1 sources, the batch before it 2",
            ),
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

    @pytest.mark.parametrize(
        ("why", "files"),
        [
            ("an operation closed what was gone by then", {"offsets/3": ENTRY}),
            ("a late task finished its seeded checkpoint", {"offsets/4": ENTRY, "metadata": '{"id":"q"}'}),
        ],
    )
    def test_what_was_written_to_a_removed_checkpoint_has_a_way_out(
        self, why: str, files: dict[str, str], folder: Path
    ) -> None:
        with pytest.raises(CheckpointError, match=r"removed the checkpoint while .* remove what is left of it"):
            read_state(write(folder, files))

        shutil.rmtree(folder)

        assert read_state(open_checkpoint(str(folder))) is None

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
        """Spark's own reader accepts both."""
        assert read_initial(write(folder, {"sources/0/0": f"v1\n{ENDS}"})) == at(40, 60)

    def test_an_entry_that_spark_removes_meanwhile_is_no_start_from_the_begin(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A query with a small ``minBatchesToRetain`` runs on while its log is read from afar."""
        checkpoint = log(folder, {each: entry(each + 1, each + 1) for each in range(3)}, (0, 1, 2))
        text = LocalCheckpoint.text

        def run_three_batches_first(self: LocalCheckpoint, path: str) -> str | None:
            if path == "commits/2" and not (folder / "offsets/5").exists():
                log(folder, {each: entry(each + 1, each + 1) for each in (3, 4, 5)}, (3, 4, 5))
                for name in ("offsets", "commits"):
                    for each in range(4):
                        (folder / name / str(each)).unlink()
            return text(self, path)

        monkeypatch.setattr(LocalCheckpoint, "text", run_three_batches_first)
        state = read_state(checkpoint)

        assert state is not None
        assert (state.committed_batch_id, state.committed) == (5, at(6, 6))

    def test_an_entry_that_is_listed_and_not_there_is_named(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(1, 1)}, (0, 1))
        (folder / "offsets/1").symlink_to(folder / "nowhere")

        with pytest.raises(CheckpointError, match="offsets/1 is listed, and cannot be opened"):
            read_state(checkpoint)

    def test_what_cannot_be_read_is_left_as_it_is(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10), 1: ""}, (0,))
        before = content(folder)

        for act in (read_state, lambda files: close(files, "op"), lambda files: list(log_entries(files))):
            with pytest.raises(CheckpointError, match="offsets/1 is empty"):
                act(checkpoint)

        assert content(folder) == before

    def test_all_that_is_still_there_in_order(self, folder: Path) -> None:
        """Entries 9 and 12 are apart, as asynchronous progress writes them."""
        checkpoint = log(folder, {9: entry(1, 1), 12: entry(2, 2), 13: entry(3, 3)}, (8, 9, 12))
        close(checkpoint, "op")

        found = list(log_entries(checkpoint))

        assert [(batch_id, each.end, done) for batch_id, each, done in found] == [
            (9, at(1, 1), True),
            (12, at(2, 2), True),
            (13, at(3, 3), False),
            (14, at(3, 3), False),
        ]
        assert [each.closed_by for _, each, _ in found] == [None, None, None, "op"]

    def test_an_entry_is_read_when_it_is_asked_for(self, folder: Path) -> None:
        entries = log_entries(log(folder, {0: entry(1, 1), 1: "", 2: entry(2, 2)}, (0,)))

        assert next(entries)[0] == 0
        with pytest.raises(CheckpointError, match="offsets/1 is empty"):
            next(entries)

    def test_one_that_spark_removes_meanwhile_is_passed_over(self, folder: Path) -> None:
        entries = log_entries(log(folder, {0: entry(1, 1), 1: entry(2, 2), 2: entry(3, 3)}, (0, 1, 2)))
        next(entries)
        (folder / "offsets/1").unlink()

        assert [batch_id for batch_id, _, _ in entries] == [2]

    def test_committed_entry_is_what_spark_wrote(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0, 1))
        close(checkpoint, "op")

        assert committed_entry(checkpoint) == read_entry(checkpoint, 1)
        assert committed_entry(open_checkpoint(str(folder / "nowhere"))) is None


class TestSeed:
    @pytest.mark.parametrize("last", [UNSTARTED, 0, 1, 4, 99])
    def test_the_position_is_the_start_and_batch_ids_continue(self, last: int, folder: Path) -> None:
        target = open_checkpoint(str(folder))

        following = seed(target, query_id="query-1", last_batch_id=last, start=at(5, 7), like=None)

        state = read_state(target)
        assert state is not None
        assert (state.committed, state.planned, state.query_id) == (at(5, 7), at(5, 7), "query-1")
        assert (state.committed_batch_id, state.planned_batch_id) == (last, last + 1), "no sink misses an id"
        assert following == last + 2, "no records come under an id that was named before"
        before = read_entry(target, last)
        assert last == UNSTARTED or before is not None, "Spark asks for the planned entry and for the one before"

    def test_byte_for_byte(self, folder: Path) -> None:
        """Spark's own writers do so: the zero byte, the version line, and no newline at the end."""
        seed(open_checkpoint(str(folder)), query_id="query-1", last_batch_id=4, start=at(5, 7), like=None)

        confs = b'{"spark.sql.shuffle.partitions":"200","spark.offsets.seeded":"true"}'
        metadata = b'{"batchWatermarkMs":0,"batchTimestampMs":0,"conf":' + confs + b"}"
        offsets = b"v1\n" + metadata + b'\n{"flights":{"0":5,"1":7}}'
        commit = b'v1\n{"nextBatchWatermarkMs":0}'
        assert content(folder) == {
            "metadata": b'{"id": "query-1"}',
            "sources/0/0": b'\x00v1\n{"flights":{"0":5,"1":7}}',
            "offsets/4": offsets,
            "offsets/5": offsets,
            "commits/4": commit,
        }

    def test_a_log_of_version_2_stays_one(self, folder: Path) -> None:
        """Spark 4.2.0 started on such a seed. It writes no shuffle partitions itself, and does not start without."""
        metadata = {"batchTimestampMs": 7, "conf": {"a": "b"}, "sourceMetadataInfo": {}}
        like = parse_entry(f"v2\n{json.dumps(metadata)}\nflights:{ENDS}\nrate:17", "old")
        old = write(folder / "old", {"sources/rate/0": "v1\n5", "sources/1/0": "x"})
        target = open_checkpoint(str(folder / "new"))
        seed(target, query_id="q", last_batch_id=4, start=at(5, 7), like=like, sources_in=old)

        version, batch, *lines = (folder / "new/offsets/5").read_text().split("\n")
        assert (version, lines) == ("v2", ['flights:{"flights":{"0":5,"1":7}}', "rate:17"])
        assert json.loads(batch)["conf"] == {"spark.sql.shuffle.partitions": "200", "a": "b", SEEDED: "true"}
        assert sorted(
            str(each.relative_to(folder / "new/sources")) for each in (folder / "new/sources").glob("*/*")
        ) == [
            "flights/0",
            "rate/0",
        ]
        state = read_state(target)
        assert state is not None
        assert (state.committed_batch_id, state.committed, state.planned) == (4, at(5, 7), at(5, 7))
        assert close(target, "op") == 6
        closed = read_entry(target, 6)
        assert closed is not None
        assert (closed.names, closed.closed_by) == (("flights", "rate"), "op")

    def test_confs_of_the_old_query_are_carried_over(self, folder: Path) -> None:
        """Spark takes the number of shuffle partitions from here, and state depends on it."""
        target = open_checkpoint(str(folder))
        seed(target, query_id="q", last_batch_id=0, start=at(5), like=parse_entry(ENTRY, "old"))

        seeded = read_entry(target, 1)
        assert seeded is not None
        assert seeded.metadata == {**METADATA, "conf": {**METADATA["conf"], SEEDED: "true"}}  # type: ignore[dict-item]
        assert seeded.is_seeded
        assert not parse_entry(ENTRY, "old").is_seeded

    def test_marks_of_an_earlier_life_are_not_carried_over(self, folder: Path) -> None:
        target = open_checkpoint(str(folder))
        seed(target, query_id="q", last_batch_id=0, start=at(5), like=None)
        close(target, "op")

        plant = read_entry(target, 2)
        assert plant is not None
        assert (plant.closed_by, plant.is_seeded) == ("op", False)

    def test_nothing_of_it_counts_until_all_is_there(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spark refuses offsets without metadata, and so do we: the metadata is the last file."""
        target = open_checkpoint(str(folder))
        paths: list[str] = []
        create = target.create
        monkeypatch.setattr(target, "create", lambda path, text: paths.append(path) or create(path, text))

        seed(target, query_id="q", last_batch_id=0, start=at(5), like=None)

        assert paths[-1] == "metadata"

    @pytest.mark.parametrize("path", ["offsets/7", "commits/7"])
    def test_it_never_writes_among_the_files_of_another(self, path: str, folder: Path) -> None:
        target = write(folder, {path: ENTRY})
        before = content(folder)

        with pytest.raises(StateChanged, match=f"{path} exists with other content"):
            seed(target, query_id="query-1", last_batch_id=0, start=at(5, 7), like=None)

        assert content(folder) == before


class TestSeedOfSeveralSources:
    LIKE = LogEntry(METADATA, (at(40, 60), '{"logOffset":3}', at(None, 8, topic="other"), "-"))

    @pytest.fixture
    def old(self, tmp_path: Path) -> CheckpointFolder:
        files = {"sources/1/0": 'v1\n{"path":"a"}', "sources/1/9.compact": "v1\nall", "sources/1/.0.crc": "\x01"}
        return write(tmp_path / "old", files)

    def test_each_kafka_source_gets_its_own_and_the_others_stay(self, folder: Path, old: CheckpointFolder) -> None:
        target = open_checkpoint(str(folder))
        start = at(5, 7, 0).updated(at(1, 2, topic="other"))

        seed(target, query_id="q", last_batch_id=4, start=start, like=self.LIKE, sources_in=old)

        for batch_id in (4, 5):
            found = read_entry(target, batch_id)
            assert found is not None
            assert found.sources == (at(5, 7, 0), '{"logOffset":3}', at(1, 2, topic="other"), "-")
        state = read_state(target)
        assert state is not None
        assert state.committed == start
        assert sorted(name for name in content(folder) if name.startswith("sources")) == [
            "sources/0/0",
            "sources/1/0",
            "sources/1/9.compact",
            "sources/2/0",
        ]
        assert target.text("sources/1/9.compact") == "v1\nall"

    @pytest.mark.parametrize(
        ("why", "like", "topic", "seen"),
        [
            ("a topic that none reads", LIKE, "new", "0 of the query's 2 Kafka sources read topic 'new'"),
            (
                "a new partition of a topic that two share by partitions",
                LogEntry(METADATA, (at(1), at(None, 1))),
                "flights",
                "2 of the query's 2 Kafka sources",
            ),
        ],
    )
    def test_what_belongs_to_no_source_is_refused(
        self, why: str, like: LogEntry, topic: str, seen: str, folder: Path, old: CheckpointFolder
    ) -> None:
        with pytest.raises(CheckpointError, match=seen):
            seed(
                open_checkpoint(str(folder)),
                query_id="q",
                last_batch_id=4,
                start=at(None, None, 3, topic=topic),
                like=like,
                sources_in=old,
            )
        assert not folder.exists()

    def test_without_the_old_checkpoint_the_others_cannot_be_carried_over(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match="Source 1 of the query is not a Kafka source"):
            seed(open_checkpoint(str(folder)), query_id="q", last_batch_id=4, start=at(5, 7), like=self.LIKE)
        assert not folder.exists()


class TestSeedAgain:
    ARGUMENTS: ClassVar[dict[str, Any]] = {"query_id": "query-1", "last_batch_id": 4, "start": at(5, 7), "like": None}

    def test_seeded_again_nothing_changes(self, folder: Path) -> None:
        for _ in range(2):
            seed(open_checkpoint(str(folder)), **self.ARGUMENTS)
            first = content(folder)

        assert content(folder) == first
        assert len(first) == 5

    @pytest.mark.parametrize("missing", ["metadata", "sources/0/0", "offsets/4", "offsets/5", "commits/4"])
    def test_one_that_was_cut_off_is_finished(self, missing: str, folder: Path) -> None:
        target = open_checkpoint(str(folder))
        seed(target, **self.ARGUMENTS)
        whole = content(folder)
        (folder / missing).unlink()

        seed(target, **self.ARGUMENTS)

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
        seed(open_checkpoint(str(folder)), **self.ARGUMENTS)
        before = content(folder)

        with pytest.raises(StateChanged, match="exists with other content"):
            seed(open_checkpoint(str(folder)), **{**self.ARGUMENTS, **change})

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
        """The entry that follows the batch is written: a driver that runs that batch dies directly after it."""
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0,))

        assert close(checkpoint, "op") == 2

        state = read_state(checkpoint)
        assert state is not None
        assert (state.planned_batch_id, state.planned, state.closed_by) == (1, at(40, 60), "op")

    def test_closing_twice_keeps_the_first_mark(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))
        close(checkpoint, "op-1")
        first = content(folder)

        assert close(checkpoint, "op-2") == 1
        assert content(folder) == first

    def test_an_empty_one_has_nothing_to_close(self, folder: Path) -> None:
        assert close(open_checkpoint(str(folder)), "op") is None
        assert not folder.exists()

    def test_one_without_a_batch_is_closed_too(self, folder: Path) -> None:
        """An idle query has written its initial offsets, and plans batch 0 with the first record."""
        checkpoint = log(folder, {}, ())
        before = read_state(checkpoint)
        assert before is not None

        assert close(checkpoint, "op", after=UNSTARTED) == 0

        assert read_state(checkpoint) == replace(before, closed_by="op")

    def test_no_query_can_start_on_it(self, folder: Path) -> None:
        """Spark ends on a log version that it does not know. It would run an entry of version 1 without records."""
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))

        close(checkpoint, "op")

        assert (folder / "offsets/1").read_text().partition("\n")[0] == CLOSED

    def test_after_a_batch_that_the_caller_has_not_seen_it_stays_open(self, folder: Path) -> None:
        checkpoint = log(folder, {0: entry(10, 10), 1: entry(40, 60)}, (0,))
        before = content(folder)

        with pytest.raises(StateChanged, match=r"offsets/1 appeared while the checkpoint was closed"):
            close(checkpoint, "op", after=0)
        assert content(folder) == before
        assert close(checkpoint, "op", after=1) == 2

    def test_a_driver_that_plans_its_next_batch_meanwhile_wins(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = log(folder, {0: entry(10, 10)}, (0,))
        create = checkpoint.create

        def late(path: str, text: str) -> bool:
            write(folder, {path: entry(40, 60)})
            return create(path, text)

        monkeypatch.setattr(checkpoint, "create", late)

        with pytest.raises(StateChanged, match=r"offsets/1 appeared while the checkpoint was closed"):
            close(checkpoint, "op")
        assert read_entry(checkpoint, 1).closed_by is None  # type: ignore[union-attr]


class TestCreate:
    def test_it_is_whole_or_not_there(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint = open_checkpoint(str(folder))

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(StoreUnreachable, match="No space left"):
            checkpoint.create("offsets/0", ENTRY)

        assert content(folder) == {}

    def test_it_says_whether_it_was_there(self, folder: Path) -> None:
        checkpoint = open_checkpoint(str(folder))

        assert checkpoint.create("offsets/0", "one") is True
        assert checkpoint.create("offsets/0", "two") is False
        assert content(folder) == {"offsets/0": b"one"}
