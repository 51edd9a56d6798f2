"""Inputs of ``pipelines.yaml`` that a person gets wrong: all are refused at load, each with its line and its fix."""

from __future__ import annotations

import gc
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.moments import read_moment
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.errors import InputRefused, PipelineFileError
from airflow_provider_offsets.factories import backfill_dag, backfill_then_live_dag, load_pipelines, snapshots_dag
from airflow_provider_offsets.factories.pipelines import Pipelines
from airflow_provider_offsets.factories.schedules import interval_of, schedule_of

SMALL = """\
pipelines:
  alerts:
    topics: [flights]
    job:
      application: a.py
      checkpoint: c
"""
LATER = SMALL.partition("\n")[2].replace("alerts", "later").replace("checkpoint: c", "checkpoint: d")


def load(folder: Path, text: str, name: str = "pipelines.yaml") -> Pipelines:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return load_pipelines(file)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(PipelineFileError) as refused:
        load(folder, text)
    return str(refused.value)


def with_key(line: str) -> str:
    return f"{SMALL}    {line}\n"


class TestAllAtOnce:
    TEXT = """\
pipelines:
  alerts:
    topics: [flights, 'orders.*']
    group_id: ' lead'
    start_timeout_s: 3m
    job:
      application: a.py
      checkpiont: c
      checkpoint: ${CKPT_OF_NOBODY}/c
    schedules: {rehearsal: every day, snapshots: '61 * * * *'}
  later:
    topics: [flights]
    tracked: false
    job: {application: b.py, checkpoint: ~/c}
"""

    def test_each_mistake_is_named_with_line_key_and_fix_in_the_order_of_the_file(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, self.TEXT)

        assert "pipelines.yaml has 9 mistakes" in said
        places = [
            "line 3, key pipelines.alerts.topics.1",
            "line 4, key pipelines.alerts.group_id",
            "line 5, key pipelines.alerts.start_timeout_s",
            "line 8, key pipelines.alerts.job.checkpiont",
            "line 9, key pipelines.alerts.job.checkpoint",
            "line 10, key pipelines.alerts.schedules.rehearsal",
            "line 10, key pipelines.alerts.schedules.snapshots",
            "line 11, key pipelines.later: untracked pipeline 'later' has no stop.marker",
            "line 14, key pipelines.later.job.checkpoint",
        ]
        found = [said.find(f"pipelines.yaml, {place}") for place in places]
        assert -1 not in found
        assert found == sorted(found)
        listed = re.split(r" \(\d\) ", said)[1:]
        assert len(listed) == 9
        assert all(". Expected " in each and each.endswith(".") for each in listed)
        assert "\n" not in said, "Airflow shows the last line of an error first"

    def test_what_two_pipelines_share_is_named_beside_their_other_mistakes(self, tmp_path: Path) -> None:
        text = SMALL.replace("topics", "tracket: true\n    topics") + LATER.replace(
            "checkpoint: d", "checkpoint: c\n    start_timeout_s: 3m\n    schedules: {snapshots: every day}"
        )

        said = refusal(tmp_path, text)

        for words in (
            "key pipelines.alerts.tracket",
            "line 12, key pipelines.later.job.checkpoint: pipeline 'alerts' uses the checkpoint",
            "line 13, key pipelines.later.start_timeout_s",
            "line 14, key pipelines.later.schedules.snapshots",
        ):
            assert words in said

    def test_the_mistakes_are_there_for_programs_too(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineFileError) as refused:
            load(tmp_path, self.TEXT)

        assert len(refused.value.parts) == 9

    def test_fields_that_contradict_each_other_are_all_named(self) -> None:
        with pytest.raises(InputRefused) as refused:
            StreamingPipeline("a b", ("x*",), SparkJob("/a.py"), group_id="g\u200b", start="erliest", tracked=False)

        said = str(refused.value)
        words = ("'a b' is not valid", "'x*'", "zero width space", "'erliest'", "checkpoint of", "no stop.marker")
        assert all(each in said for each in words)


class TestSharing:
    UNTRACKED = """\
pipelines:
  one:
    topics: [a]
    tracked: false
    stop: {marker: /m/stop}
    job: {application: a.py, checkpoint: /ck/one}
"""

    @pytest.mark.parametrize("spelling", ["/ck/x/../c", "/ck/c/", "file:/ck/c", "file:///ck/c", "file:///ck/./x/../c/"])
    def test_a_checkpoint_in_another_spelling(self, spelling: str, tmp_path: Path) -> None:
        text = SMALL.replace("checkpoint: c", "checkpoint: /ck/c") + LATER.replace(
            "checkpoint: d", f"checkpoint: {spelling}\n      log_dir: logs"
        )

        said = refusal(tmp_path, text)

        assert "line 11, key pipelines.later.job.checkpoint: pipeline 'alerts' uses the checkpoint /ck/c too" in said

    @pytest.mark.parametrize("prefix", ["", "file:", "file://"])
    def test_a_checkpoint_behind_a_link(self, prefix: str, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        text = SMALL.replace("checkpoint: c", "checkpoint: real/c") + LATER.replace(
            "checkpoint: d", f"checkpoint: {prefix}{tmp_path}/link/c"
        )

        assert "pipeline 'alerts' uses the checkpoint" in refusal(tmp_path, text)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("hdfs://nn:8020/ck/c", "HDFS://NN:8020/ck//c/"),
            ("s3a://bucket/c", "s3://bucket/c"),
            ("s3://bucket/c", "s3n://bucket/x/../c"),
        ],
    )
    def test_a_url_in_another_spelling(self, one: str, other: str, tmp_path: Path) -> None:
        text = SMALL.replace("checkpoint: c", f"checkpoint: {one}\n      log_dir: l1") + LATER.replace(
            "checkpoint: d", f"checkpoint: {other}\n      log_dir: l2"
        )

        assert "key pipelines.later.job.checkpoint: pipeline 'alerts' uses the checkpoint" in refusal(tmp_path, text)

    def test_an_alias_is_reported_where_it_is_used(self, tmp_path: Path) -> None:
        text = """\
pipelines:
  one:
    topics: [a]
    job: &job
      application: a.py
      checkpoint: c
  two:
    topics: [b]
    job: *job
"""

        said = refusal(tmp_path, text)

        assert "pipelines.yaml, line 9, key pipelines.two.job.checkpoint: pipeline 'one' uses the checkpoint" in said

    def test_defaults_that_are_merged_in_may_be_shared_and_a_checkpoint_in_them_may_not(self, tmp_path: Path) -> None:
        text = """\
pipelines:
  one: &one
    topics: [a]
    job: {application: a.py, checkpoint: c}
  two:
    <<: *one
    topics: [b]
"""

        assert "line 5, key pipelines.two.job.checkpoint: pipeline 'one' uses" in refusal(tmp_path, text)
        both = load(tmp_path, text + "    job: {application: a.py, checkpoint: d}\n")
        assert both["two"].topics == ("b",)

    def test_a_marker(self, tmp_path: Path) -> None:
        other = self.UNTRACKED.partition("\n")[2].replace("one", "two").replace("[a]", "[b]").replace("/m/", "/m/./")

        said = refusal(tmp_path, self.UNTRACKED + other)

        assert "line 10, key pipelines.two.stop.marker: pipeline 'one' uses the marker /m/stop too" in said

    def test_a_marker_that_is_the_checkpoint_of_another(self, tmp_path: Path) -> None:
        other = (
            self.UNTRACKED.partition("\n")[2].replace("one", "two").replace("[a]", "[b]").replace("/m/stop", "/ck/one")
        )

        assert "pipeline 'one' uses the checkpoint /ck/one too" in refusal(tmp_path, self.UNTRACKED + other)

    @pytest.mark.parametrize(
        ("why", "line", "key"),
        [
            (
                "submit removes the marker",
                "stop: {marker: ./a.py}",
                "stop.marker: the same pipeline uses the app",
            ),
            (
                "a folder is no file",
                "stop: {marker: c}",
                "stop.marker: the same pipeline uses the check",
            ),
            ("a checkpoint is moved aside", "  log_dir: c", "job.log_dir: the same pipeline uses the checkpoint"),
            (
                "rows of the sink",
                "sink: {format: files, location: c}",
                "sink.location: the same pipeline uses the check",
            ),
        ],
    )
    def test_one_location_for_two_purposes(self, why: str, line: str, key: str, tmp_path: Path) -> None:
        assert f"key pipelines.alerts.{key}" in refusal(tmp_path, with_key(line)), why

    def test_the_program_of_one_pipeline_as_the_marker_of_another(self, tmp_path: Path) -> None:
        said = refusal(tmp_path, SMALL + LATER.replace("a.py", "b.py") + "    stop: {marker: a.py}\n")

        assert "key pipelines.later.stop.marker: pipeline 'alerts' uses the application" in said
        assert len(load(tmp_path, SMALL + LATER)) == 2, "two pipelines may run one program"

    @pytest.mark.parametrize(
        ("outer", "inner"),
        [("/ck", "/ck/later"), ("hdfs://nn/ck", "hdfs://NN:8020/ck/x/later"), ("/ck/a/b", "file:///ck/a/./b/c")],
    )
    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize("files", [1, 2])
    def test_a_checkpoint_in_another_one_which_is_moved_or_removed_as_a_whole(
        self, files: int, is_first: bool, outer: str, inner: str, tmp_path: Path
    ) -> None:
        places = (outer, inner) if is_first else (inner, outer)
        one = SMALL.replace("checkpoint: c", f"checkpoint: {places[0]}\n      log_dir: l1")
        other = LATER.replace("checkpoint: d", f"checkpoint: {places[1]}\n      log_dir: l2")
        first = load(tmp_path, one, "first.yaml") if files == 2 else None

        said = refusal(tmp_path, f"pipelines:\n{other}" if first else one + other)

        assert "job.checkpoint: " in said
        assert ("it holds the checkpoint" if files == 2 and not is_first else "it is in the checkpoint") in said

    def test_folders_beside_each_other(self, tmp_path: Path) -> None:
        one = SMALL.replace("checkpoint: c", "checkpoint: /ck/a\n      log_dir: /ck/a.logs")
        other = LATER.replace("checkpoint: d", "checkpoint: /ck/a-b\n      log_dir: /ck/b.logs")

        assert len(load(tmp_path, one + other)) == 2

    @pytest.mark.parametrize("pruned", ["alerts", "later"])
    def test_a_log_folder_that_is_pruned(self, pruned: str, tmp_path: Path) -> None:
        both = {"alerts": SMALL, "later": LATER}
        logs = {name: f"{text}      log_dir: logs\n" for name, text in both.items()}
        assert len(load(tmp_path, "".join(logs.values()))) == 2, "nothing is pruned"
        logs[pruned] += "    keep: {versions: 3}\n"

        said = refusal(tmp_path, "".join(logs.values()))

        assert "key pipelines.later.job.log_dir: pipeline 'alerts' uses the log folder" in said

    def test_the_folder_of_a_file_sink(self, tmp_path: Path) -> None:
        sink = "    sink: {format: files, location: out}\n"

        assert "key pipelines.later.sink.location: pipeline 'alerts' uses the sink" in refusal(
            tmp_path, SMALL + sink + LATER + sink
        )
        table = sink.replace("files", "delta")
        assert len(load(tmp_path, SMALL + table + LATER + table)) == 2, "the log of a table names each batch"

    @pytest.mark.parametrize(
        ("why", "here", "there", "words"),
        [
            (
                "checkpoint",
                "checkpoint: /ck/c",
                "checkpoint: file:///ck/c/\n      log_dir: l",
                "the checkpoint /ck/c too",
            ),
            (
                "group",
                "checkpoint: c\n    group_id: g",
                "checkpoint: d\n    group_id: g",
                "the group 'g' on topic 'flights'",
            ),
        ],
    )
    def test_another_file_of_the_same_process(
        self, why: str, here: str, there: str, words: str, tmp_path: Path
    ) -> None:
        first = load(tmp_path, SMALL.replace("checkpoint: c", here), "first.yaml")
        (tmp_path / "second.yaml").write_text(f"pipelines:\n{LATER.replace('checkpoint: d', there)}")

        with pytest.raises(PipelineFileError) as refused:
            load_pipelines(tmp_path / "second.yaml")

        assert f"pipeline 'alerts' of {tmp_path}/first.yaml uses the" in str(refused.value), first
        assert words in str(refused.value)

    def test_one_name_in_two_files_is_one_record(self, tmp_path: Path) -> None:
        first = load(tmp_path, SMALL, "first.yaml")
        text = SMALL.replace("[flights]", "[orders]").replace("checkpoint: c", "checkpoint: d")
        (tmp_path / "second.yaml").write_text(text)

        with pytest.raises(PipelineFileError, match=r"'alerts' of .*first.yaml uses the control records of its name"):
            load_pipelines(tmp_path / "second.yaml")
        assert list(first) == ["alerts"]

    def test_two_clusters_have_topics_of_the_same_names(self, tmp_path: Path) -> None:
        first = load(tmp_path, SMALL.replace("job:", "group_id: g\n    job:"), "eu.yaml")
        there = LATER.replace("job:", "group_id: g\n    kafka_conn_id: us\n    store_conn_id: us\n    job:")

        second = load(tmp_path, f"pipelines:\n{there}", "us.yaml")

        assert (list(first), list(second)) == (["alerts"], ["later"])

    def test_a_file_that_is_read_again_or_is_no_longer_used_shares_nothing(self, tmp_path: Path) -> None:
        first = load(tmp_path, SMALL, "first.yaml")
        first = load(tmp_path, SMALL, "first.yaml")
        assert first["alerts"]
        first = load(tmp_path, LATER.join(["pipelines:\n", ""]), "first.yaml")

        second = load(tmp_path, SMALL, "second.yaml")
        del second
        gc.collect()
        assert load(tmp_path, SMALL, "third.yaml")


class TestVariables:
    def test_they_are_filled_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OFFSETS_ROOT", "/prod")
        monkeypatch.delenv("OFFSETS_TIMEOUT", raising=False)
        text = with_key("start_timeout_s: ${OFFSETS_TIMEOUT:-90}").replace(
            "checkpoint: c", "checkpoint: ${OFFSETS_ROOT}/c\n      arguments: ['--price', '$$5', '${OFFSETS_NONE:-}']"
        )

        pipeline = load(tmp_path, text)["alerts"]

        assert pipeline.job.checkpoint == "/prod/c"
        assert pipeline.start_timeout_s == 90, "a number, as if it were written there"
        assert pipeline.job.arguments == ("--price", "$5", "")

    def test_text_in_quotes_stays_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OFFSETS_GROUP", "7")

        assert load(tmp_path, with_key("group_id: '${OFFSETS_GROUP}'"))["alerts"].group_id == "7"
        assert "7 is not of type 'string'" in refusal(tmp_path, with_key("group_id: ${OFFSETS_GROUP}"))

    def test_one_file_serves_two_environments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = SMALL.replace("checkpoint: c", "checkpoint: ${OFFSETS_ROOT:-/dev-data}/c")
        monkeypatch.delenv("OFFSETS_ROOT", raising=False)
        assert load(tmp_path, text)["alerts"].job.checkpoint == "/dev-data/c"

        monkeypatch.setenv("OFFSETS_ROOT", "hdfs://nn/prod")
        pipeline = load(tmp_path, text.replace("a.py", "a.py\n      log_dir: logs"))["alerts"]
        assert pipeline.job.checkpoint == "hdfs://nn/prod/c"

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("${OFFSETS_NONE}/c", "the environment variable OFFSETS_NONE is not set"),
            ("${OFFSETS_EMPTY}/c", "the environment variable OFFSETS_EMPTY is empty"),
            ("$OFFSETS_ROOT/c", "has a '$' that begins no variable"),
            ("${OFFSETS_ROOT", "has a '$' that begins no variable"),
            ("${OFFSETS_ROOT-x}/c", "has a '$' that begins no variable"),
            ("${1}/c", "has a '$' that begins no variable"),
            ("'{{ var.value.ck }}/c'", "is a template of Jinja"),
            ("'{% if x %}/c'", "is a template of Jinja"),
            ("~/c", "begins with '~'"),
            ("~airflow/c", "begins with '~'"),
            ("file:~/c", "begins with '~'"),
            ("file:///~/c", "begins with '~'"),
            ("${OFFSETS_TILDE}/c", "begins with '~'"),
            ("'C:\\data\\c'", "is a path of Windows"),
            ("file:c", "is no whole path"),
            ("'file:'", "is no whole path"),
            ("file://host/c", "is no whole path"),
            ("FILE:/c", "is no whole path"),
            ("hdfs:/c", "has a scheme and no '://'"),
            ("'orders:v2'", "has a scheme and no '://'"),
            ("hdfs://[nn/c", "cannot be read"),
            ("${OFFSETS_BLANK}/c", "a line break"),
        ],
    )
    def test_nothing_is_taken_for_the_name_of_a_folder(
        self, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OFFSETS_NONE", "OFFSETS_EMPTY", "OFFSETS_ROOT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OFFSETS_EMPTY", "")
        monkeypatch.setenv("OFFSETS_TILDE", "~")
        monkeypatch.setenv("OFFSETS_BLANK", "/ck\n")

        said = refusal(tmp_path, SMALL.replace("checkpoint: c", f"checkpoint: {value}"))

        assert "pipelines.yaml, line 6, key pipelines.alerts.job.checkpoint: " in said
        assert words in said

    @pytest.mark.parametrize("key", ["application", "log_dir", "jars", "py_files", "marker", "location"])
    def test_no_path_begins_with_a_tilde(self, key: str, tmp_path: Path) -> None:
        text = SMALL.replace(
            "application: a.py\n", "application: a.py\n      log_dir: l\n      jars: [j]\n      py_files: [p]\n"
        )
        text += "    tracked: false\n    stop: {marker: m}\n    sink: {format: delta, location: s}\n"
        old, new = {
            "application": ("application: a.py", "application: ~/a.py"),
            "log_dir": ("log_dir: l", "log_dir: ~/l"),
            "jars": ("jars: [j]", "jars: [~/j]"),
            "py_files": ("py_files: [p]", "py_files: [~/p]"),
            "marker": ("marker: m", "marker: ~/m"),
            "location": ("location: s", "location: ~/s"),
        }[key]

        said = refusal(tmp_path, text.replace(old, new))

        assert f".{key}" in said
        assert "begins with '~'" in said


class TestText:
    @pytest.mark.parametrize(
        ("line", "key", "hidden"),
        [
            ("group_id: ' lead'", "group_id", "a space (U+0020) at its start"),
            ("group_id: 'lead '", "group_id", "a space (U+0020) at its end"),
            ("group_id: lead\u00a0", "group_id", "a no-break space (U+00A0) at its end"),
            ("group_id: le\u200bad", "group_id", "a zero width space (U+200B) after 'le'"),
            ("group_id: '\ufefflead'", "group_id", "a byte order mark (U+FEFF) at its start"),
            ('group_id: "lead\\t"', "group_id", "a tab (U+0009) at its end"),
            ("group_id: |\n      lead", "group_id", "a line break (U+000A) at its end"),
            ("kafka_conn_id: 'kafka '", "kafka_conn_id", "a space (U+0020) at its end"),
            ("start: 'earliest\u00a0'", "start", "a no-break space"),
            ("start: [{group: 'lead\u2060'}]", "start.0.group", "a word joiner"),
            ("'tracked\u200b': true", "tracked\u200b", "a zero width space"),
            ("stop: {marker: '/m '}", "stop.marker", "a space"),
            ("accept_lost: {'flights ': 3}", "accept_lost.flights ", "a space"),
            ("job.x: \u00ad", "job.x", "a soft hyphen"),
            ('group_id: "\\ud800"', "group_id", "a half of a character (U+D800)"),
        ],
    )
    def test_hidden_characters_at_any_depth(self, line: str, key: str, hidden: str, tmp_path: Path) -> None:
        said = refusal(tmp_path, with_key(line))

        assert f"key pipelines.alerts.{key}: " in said
        assert hidden in said

    def test_what_is_passed_on_to_the_program_stays_as_it_is(self, tmp_path: Path) -> None:
        text = SMALL.replace(
            "checkpoint: c", "checkpoint: c\n      arguments: [' ', \"\\u00a0\"]\n      conf: {spark.x: ' '}"
        )

        job = load(tmp_path, text)["alerts"].job

        assert (job.arguments, job.conf) == ((" ", "\u00a0"), {"spark.x": " "})

    @pytest.mark.parametrize("character", ["\\0", "\\ud800"])
    def test_what_no_process_can_be_passed_is_refused(self, character: str, tmp_path: Path) -> None:
        """``Popen`` raises a bare ``ValueError`` for it, in the submit."""
        for key in (f'arguments: ["a{character}"]', f'conf: {{spark.x: "a{character}"}}'):
            text = SMALL.replace("checkpoint: c", f"checkpoint: c\n      {key}")

            assert "line 7, key pipelines.alerts.job." in refusal(tmp_path, text)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8))
    def test_a_text_is_either_visible_or_refused(self, text: str) -> None:
        """The law behind the table: what is trimmed, or drawn as nothing, never passes."""
        if not hidden_character(text):
            assert text == text.strip()
            assert not set(text) & set("\ufeff\u200b\u00a0")

    def test_a_byte_order_mark_before_the_file_is_nothing(self, tmp_path: Path) -> None:
        assert list(load(tmp_path, f"\ufeff{SMALL}")) == ["alerts"]

    @pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
    def test_another_encoding(self, encoding: str, tmp_path: Path) -> None:
        (tmp_path / "p.yaml").write_bytes(SMALL.replace("flights", "flügé").encode(encoding))

        with pytest.raises(PipelineFileError, match=r"is not in UTF-8.*Save the file in UTF-8"):
            load_pipelines(tmp_path / "p.yaml")

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineFileError, match="cannot be read: Is a directory"):
            load_pipelines(tmp_path)


class TestTypes:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("start_timeout_s: 010", "the number 010 is not written in plain decimal digits"),
            ("start_timeout_s: 1:30", "the number 1:30 is not"),
            ("start_timeout_s: 1_000", "the number 1_000 is not"),
            ("start_timeout_s: 0x10", "the number 0x10 is not"),
            ("start_timeout_s: 60.0", "60.0 is not of type 'integer'"),
            ("start_timeout_s: '60'", "'60' is not of type 'integer'"),
            ("start_timeout_s: 3m", "'3m' is not of type 'integer'"),
            ("start_timeout_s: PT3M", "'PT3M' is not of type 'integer'"),
            ("start_timeout_s: 180000", "180000 is greater than the maximum of 86400"),
            ("stop: {graceful_timeout_s: 300000}", "300000 is greater than the maximum"),
            ("start_timeout_s: true", "True is not of type 'integer'"),
            ("group_id: 7", "7 is not of type 'string'"),
            ("group_id:", "None is not of type 'string'"),
            ("approve: 'true'", "'true' is not of type 'boolean'"),
            ("offsets_in: [history, history]", "has non-unique elements"),
            ("start: [{offsets: {flights: {00: 5}}}]", "the number 00 is not"),
            ("start: [{offsets: {flights: {0: 010}}}]", "the number 010 is not"),
            ("start: [{offsets: {flights: {0: 5, '0': 9}}}]", "appears twice"),
            ("start: [{offsets: {flights: {0: 1.5}}}]", "holds 1.5"),
            ("start: [{group: [a]}]", "'group' with ['a'], which is a list"),
            ("start: [{group: no}]", "'group' with False, which is a bool"),
            ("start: [{snapshot: 1.0}]", "'snapshot' with 1.0, which is a float"),
            ("start: [{offsets: {flights: !!set {0}}}]", "line 7: could not determine a constructor for the tag"),
            ("group_id: !!binary aGVsbG8=", "line 7: could not determine a constructor for the tag"),
            ("approve: !!bool maybe", "line 7: 'maybe' is no bool"),
            ("start_timeout_s: !!int abc", "line 7: 'abc' is no int"),
            ("start_timeout_s: " + "9" * 5000, "line 7: '9999"),
        ],
    )
    def test_a_value_of_another_type_or_unit(self, line: str, words: str, tmp_path: Path) -> None:
        assert words in refusal(tmp_path, with_key(line))

    def test_a_mistyped_key_is_shown_its_like(self, tmp_path: Path) -> None:
        assert "Remove 'aprove' or correct its spelling; 'approve' is similar" in refusal(
            tmp_path, with_key("aprove: true")
        )


class TestTimes:
    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
            ("2026-11-01 01:00:00 +01:00", "2026-11-01T00:00Z"),
            ("2026-11-01 01:00:00 +1", "2026-11-01T00:00Z"),
            ("'2026-11-01T00:00Z'", "2026-11-01T00:00Z"),
        ],
    )
    def test_a_timestamp_without_quotes_is_a_time(self, written: str, read: str, tmp_path: Path) -> None:
        entry = load(tmp_path, with_key(f"backfill: {{automatic: true, since: {written}}}"))["alerts"]
        assert read_moment(entry.backfill.since) == read_moment(read)
        assert backfill_dag(entry).start_date is not None
        starts = (
            f"start: as-of:{written}",
            f"start: [{{as-of: {written}}}, earliest]",
            f"start: [{{timestamp: {written}}}]",
        )
        for start in starts[0 if "'" not in written and " " not in written else 1 :]:
            assert "2026-" in load(tmp_path, with_key(start))["alerts"].start

    @pytest.mark.parametrize(
        ("since", "words"),
        [
            ("2026-11-01", "it has no time zone"),
            ("2026-11-01T00:00:00", "it has no time zone"),
            ("soon", "it is not a date and time"),
            ("2026-02-30T00:00:00Z", "it is not a date and time"),
            ("2026-13-01T00:00:00Z", "it is not a date and time"),
            ("2026-11-01T00:00:00+99:00", "it is not a date and time"),
            ("!!timestamp soon", "it is not a date and time"),
        ],
    )
    def test_a_time_has_its_zone(self, since: str, words: str, tmp_path: Path) -> None:
        said = refusal(tmp_path, with_key(f"backfill: {{automatic: true, since: {since}}}"))

        assert "line 7, key pipelines.alerts.backfill.since: " in said
        assert words in said

    @pytest.mark.parametrize(
        ("line", "key"),
        [
            ("schedules: {snapshots: '61 * * * *'}", "schedules.snapshots"),
            ("schedules: {rehearsal: every day}", "schedules.rehearsal"),
            ("schedules: {recovery: '@contineous'}", "schedules.recovery"),
            ("schedules: {snapshots: PT0S}", "schedules.snapshots"),
            ("schedules: {snapshots: P1M}", "schedules.snapshots"),
            ("schedules: {snapshots: '0 0 30 2 *'}", "schedules.snapshots"),
            ("schedules: {snapshots: '* * * * * *'}", "schedules.snapshots"),
            ("backfill: {interval: every day}", "backfill.interval"),
            ("backfill: {interval: '@once'}", "backfill.interval"),
            ("backfill: {interval: '@continuous'}", "backfill.interval"),
            ("backfill: {interval: PT0S}", "backfill.interval"),
            ("backfill: {interval: P999999D}", "backfill.interval"),
            ("schedules: {snapshots: PT999999999999S}", "schedules.snapshots"),
            ("backfill: {interval: PT0.5S}", "backfill.interval"),
            ("backfill: {interval: R * * * *}", "backfill.interval"),
            ("backfill: {since: 2026-11-01T00:00Z}", "backfill.since"),
        ],
    )
    def test_a_schedule_or_interval_is_checked_at_load(self, line: str, key: str, tmp_path: Path) -> None:
        said = refusal(tmp_path, with_key(line))

        assert f"pipelines.yaml, line 7, key pipelines.alerts.{key}: {key} " in said

    @pytest.mark.parametrize("text", ["0 6 * * *", "@hourly", "*/5 * * * mon-fri"])
    def test_what_airflow_takes(self, text: str) -> None:
        assert schedule_of("x", text) == interval_of("x", text) == text

    def test_a_duration_and_the_presets_of_schedules(self) -> None:
        assert schedule_of("x", "PT6H") == timedelta(hours=6)
        assert [schedule_of("x", each) for each in ("@once", "@continuous", None)] == ["@once", "@continuous", None]

    def test_schedules_count_in_utc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "Asia/Tokyo")
        made = snapshots_dag(load(tmp_path, with_key("schedules: {snapshots: 0 6 * * *}"))["alerts"])

        assert str(made.timezone) == "UTC"
        assert not made.catchup


class TestUntracked:
    @pytest.mark.parametrize("make", [backfill_dag, backfill_then_live_dag])
    def test_it_gets_no_dag_that_cannot_work(self, make: object, tmp_path: Path) -> None:
        pipeline = load(tmp_path, TestSharing.UNTRACKED)["one"]

        with pytest.raises(InputRefused, match=r"'one' is untracked, and backfill.*Create this DAG for tracked"):
            make(pipeline)  # type: ignore[operator]
