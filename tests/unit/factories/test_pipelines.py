"""``pipelines.yaml``: every mistake is reported by file, line, key and correction."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_offsets.core.pipeline import (
    RollbackPolicy,
    Schedules,
    SparkJob,
    StopPolicy,
    StreamingPipeline,
    Subscription,
)
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.recovery import RecoveryPolicy
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from airflow_provider_offsets.errors import PipelineFileError, UnknownPipeline
from airflow_provider_offsets.factories.pipelines import SCHEMA, load_pipelines

WHOLE = """\
pipelines:
  delay_alerts:
    topics: [flights, cancellations]
    subscription: assign
    tracked: false
    offsets_in: [zookeeper_old, kafka_prod, checkpoint]
    on_conflict: smallest
    start: [{as-of: 2026-11-01T00:00:00Z}, earliest]
    group_id: alerts:1
    read_committed: true
    kafka_conn_id: kafka_prod
    store_conn_id: offsets_prod
    start_timeout_s: 90
    job:
      application: jobs/alerts.py
      main_class: org.example.Alerts
      checkpoint: /data/checkpoints/alerts
      spark_conn_id: spark_prod
      arguments: [--output, out.db]
      conf:
        spark.ui.enabled: false
        spark.sql.shuffle.partitions: 2
        spark.app.note: text
      jars: [jars/*.jar, 'https://repo.example/a.jar']
      packages: ['org.example:thing:1']
      py_files: [more.py]
      log_dir: ../logs
    stop:
      graceful_timeout_s: 60
      marker: stop/alerts
      signal_timeout_s: 30
      cluster_timeout_s: 20
      kill_timeout_s: 10
    rollback: {watch_s: 30, stall_s: 90, automatic: true}
    keep: {snapshots: 50, days: 30, checkpoints: 3, versions: 4}
    accept_lost: {flights: 3}
    accept_skipped: {flights: 4}
    approve: true
    recovery:
      tries: 5
      within_s: 600
      confirm_s: 20
    schedules:
      recovery: '@continuous'
      rehearsal: 0 6 * * *
      snapshots: '@hourly'
    backfill:
      interval: PT6H
      automatic: true
      since: 2026-11-01T00:00Z
      by: batch-time
      late_s: 60
      on_open: wait
      records_per_shard: 500
      max_shards: 7
      parallel_shards: 3
      pool: spark
      yield_to_live: false
    sink:
      format: batch_table
      conn_id: warehouse
      batch_table: batches
      table: alerts
"""

SMALL = """\
pipelines:
  alerts:
    topics: [flights]
    job:
      application: a.py
      checkpoint: c
"""
LATER = SMALL.partition("\n")[2].replace("alerts", "later").replace("checkpoint: c", "checkpoint: d")


def load(folder: Path, text: str) -> Any:
    file = folder / "pipelines.yaml"
    file.write_text(text)
    return load_pipelines(file)


def test_every_key_is_taken(tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE)["delay_alerts"] == StreamingPipeline(
        name="delay_alerts",
        topics=("flights", "cancellations"),
        subscription=Subscription.ASSIGN,
        tracked=False,
        offsets_in=("zookeeper_old", "kafka_prod", "checkpoint"),
        group_id="alerts:1",
        read_committed=True,
        kafka_conn_id="kafka_prod",
        store_conn_id="offsets_prod",
        start_timeout_s=90,
        start="as-of:2026-11-01T00:00:00Z | earliest",
        job=SparkJob(
            application=str(tmp_path / "jobs/alerts.py"),
            main_class="org.example.Alerts",
            checkpoint="/data/checkpoints/alerts",
            spark_conn_id="spark_prod",
            arguments=("--output", "out.db"),
            conf={"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.app.note": "text"},
            jars=f"{tmp_path}/jars/*.jar,https://repo.example/a.jar",
            packages="org.example:thing:1",
            py_files=str(tmp_path / "more.py"),
            log_dir=str(tmp_path.parent / "logs"),
        ),
        stop=StopPolicy(60, 30, 10, str(tmp_path / "stop/alerts"), 20),
        rollback=RollbackPolicy(30, 90, automatic=True),
        policy=RestartPolicy({"flights": 3}, {"flights": 4}, OnConflict.SMALLEST),
        approve=True,
        keep=KeepPolicy(50, 30, 3, 4),
        recovery=RecoveryPolicy(5, 600, 20),
        schedules=Schedules("@continuous", "0 6 * * *", "@hourly"),
        backfill=BackfillPolicy(
            "PT6H",
            automatic=True,
            since="2026-11-01T00:00Z",
            by=BoundaryBy.BATCH_TIME,
            late_s=60,
            on_open=OnOpen.WAIT,
            records_per_shard=500,
            max_shards=7,
            parallel_shards=3,
            pool="spark",
            yield_to_live=False,
        ),
        sink=Sink(SinkFormat.BATCH_TABLE, conn_id="warehouse", batch_table="batches", table="alerts"),
    )


def test_the_folder_of_a_sink_begins_at_the_file_and_a_table_of_a_catalog_is_kept(tmp_path: Path) -> None:
    for location, read in (("lake/orders", f"{tmp_path}/lake/orders"), ("lake:sales.orders", "lake:sales.orders")):
        sink = f"    sink: {{format: iceberg, location: '{location}'}}\n"
        assert load(tmp_path, SMALL + sink)["alerts"].sink == Sink(SinkFormat.ICEBERG, read)


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ("{format: delta}", "missing location"),
        ("{format: batch_table, conn_id: warehouse}", "missing batch_table"),
        ("{format: files, location: out, table: orders}", "unknown table"),
    ],
)
def test_a_sink_has_the_keys_of_its_format(sink: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineFileError, match=said):
        load(tmp_path, f"{SMALL}    sink: {sink}\n")


def test_the_whole_one_has_every_key_of_the_schema() -> None:
    """The test of the previous test."""
    pipeline = json.loads(SCHEMA.read_text())["$defs"]["pipeline"]["properties"]

    for key in (*pipeline, *pipeline["job"]["properties"], *pipeline["stop"]["properties"]):
        assert f"{key}:" in WHOLE
    for key in pipeline["keep"]["properties"]:
        assert f"{key}: " in WHOLE
    for key in (
        *pipeline["recovery"]["properties"],
        *pipeline["schedules"]["properties"],
        *pipeline["backfill"]["properties"],
    ):
        assert f"      {key}:" in WHOLE


def test_most_keys_may_be_left_out(tmp_path: Path) -> None:
    pipeline = load(tmp_path, SMALL)["alerts"]

    assert pipeline == StreamingPipeline("alerts", ("flights",), SparkJob(str(tmp_path / "a.py"), str(tmp_path / "c")))
    assert pipeline.group_id == "alerts"
    assert pipeline.job.folder_for_logs == f"{tmp_path}/c.logs"


def test_relative_paths_begin_at_the_file_and_not_at_airflow_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pipelines.yaml").write_text(SMALL.replace("checkpoint: c", "checkpoint: ../c"))
    monkeypatch.chdir(tmp_path / "elsewhere")

    job = load_pipelines(Path("../pipelines.yaml"))["alerts"].job

    assert (job.application, job.checkpoint) == (str(tmp_path / "a.py"), str(tmp_path.parent / "c"))


@pytest.mark.parametrize("url", ["hdfs://namenode:8020/c", "s3a://bucket/c", "gs://bucket/c"])
def test_a_checkpoint_that_is_a_url_stays_as_it_is(url: str, tmp_path: Path) -> None:
    text = changed("      checkpoint: c", f"      checkpoint: {url}\n      log_dir: logs")

    job = load(tmp_path, text)["alerts"].job

    assert (job.checkpoint, job.folder_for_logs) == (url, str(tmp_path / "logs"))


def changed(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


@pytest.mark.parametrize(
    ("why", "text", "place", "words"),
    [
        ("empty", "", None, "is empty. Expected 'pipelines:'"),
        ("nothing but a remark", "# soon\n", None, "is empty"),
        (
            "aliases of aliases",
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdefgh")),
            None,
            "has 123,456,797 values, with its aliases written out. Expected at most 200,000",
        ),
        ("not YAML", "pipelines: [\n", "line 2", "Expected valid YAML. Correct the line"),
        ("a tab", "pipelines:\n\talerts: 1\n", "line 2", "Expected valid YAML"),
        ("a list", "- alerts\n", "line 1, key (top)", "is not of type 'object'"),
        ("no pipelines", "pipelines: {}\n", "line 1, key pipelines", "minProperties"),
        ("a mistyped top key", "pipeline:\n  alerts: {}\n", "line 1, key pipeline:", "Expected only pipelines"),
        (
            "a mistyped key of a pipeline",
            changed("    topics", "    topic: [flights]\n    topics"),
            "line 3, key pipelines.alerts.topic",
            "Remove 'topic' or correct its spelling",
        ),
        (
            "a pattern of topics",
            changed("    topics", "    subscribe_pattern: flights.*\n    topics"),
            "line 3, key pipelines.alerts.subscribe_pattern: a pattern",
            "Expected topics by name",
        ),
        (
            "a pattern by the name of the way",
            changed("    topics", "    subscription: pattern\n    topics"),
            "line 3, key pipelines.alerts.subscription: a pattern",
            "List the topics under 'topics'",
        ),
        (
            "a mistyped key of a job",
            changed("      checkpoint: c", "      checkpoint: c\n      checkpiont: d"),
            "line 7, key pipelines.alerts.job.checkpiont",
            "Expected only application, arguments, checkpoint, conf",
        ),
        (
            "a key in the wrong place",
            changed("      checkpoint: c", "      checkpoint: c\n      graceful_timeout_s: 5"),
            "line 7, key pipelines.alerts.job.graceful_timeout_s",
            "Remove 'graceful_timeout_s'",
        ),
        (
            "a checkpoint elsewhere, and no place here for logs",
            changed("      checkpoint: c", "      checkpoint: hdfs://namenode:8020/c"),
            "line 2, key pipelines.alerts: pipeline 'alerts' has its checkpoint at 'hdfs://namenode:8020/c'",
            "Add job.log_dir",
        ),
        (
            "a name that only Airflow can open, and the driver cannot",
            changed("      checkpoint: c", "      checkpoint: webhdfs://namenode:9870/c\n      log_dir: logs"),
            "line 2, key pipelines.alerts: tracked pipeline 'alerts' has its checkpoint at 'webhdfs:",
            "Use an hdfs:// URL",
        ),
        (
            "no topics",
            changed("    topics: [flights]\n", ""),
            "line 2, key pipelines.alerts",
            "'topics' is a required property. Expected the keys topics, job. Add the key",
        ),
        (
            "no checkpoint",
            changed("      checkpoint: c\n", ""),
            "line 2, key pipelines.alerts",
            "job.checkpoint of pipeline 'alerts' is missing",
        ),
        (
            "an empty list of topics",
            changed("[flights]", "[]"),
            "line 3, key pipelines.alerts.topics",
            "Kafka topics that the job reads, by name.",
        ),
        (
            "text where a list belongs",
            changed("[flights]", "flights"),
            "line 3, key pipelines.alerts.topics",
            "'flights' is not of type 'array'",
        ),
        (
            "a topic that Kafka would not take",
            changed("[flights]", "[fine, 'a b']"),
            "line 3, key pipelines.alerts.topics.1",
            "'a b' does not match",
        ),
        (
            "a number of seconds that is text",
            changed("    topics", "    start_timeout_s: soon\n    topics"),
            "line 3, key pipelines.alerts.start_timeout_s",
            "'soon' is not of type 'integer'",
        ),
        (
            "no time at all",
            changed("    topics", "    stop: {graceful_timeout_s: 0}\n    topics"),
            "line 3, key pipelines.alerts.stop.graceful_timeout_s",
            "0 is less than the minimum of 1",
        ),
        (
            "a subscription that is not tried yet",
            changed("    topics", "    subscription: subscribe_pattern\n    topics"),
            "line 3, key pipelines.alerts.subscription",
            "Option of Spark's Kafka source that selects what to read",
        ),
        (
            "loss that is accepted by no number",
            changed("    topics", "    accept_lost: {flights: all}\n    topics"),
            "line 3, key pipelines.alerts.accept_lost.flights",
            "'all' is not of type 'integer'",
        ),
        (
            "a mistyped key that has to be there",
            changed("checkpoint:", "checkpiont:"),
            "line 6, key pipelines.alerts.job.checkpiont",
            "Remove 'checkpiont' or correct its spelling",
        ),
        ("a name with a colon", changed("alerts:", "'a:b':"), "line 2, key pipelines.a:b", "'a:b' does not match"),
        ("a name with a space", changed("alerts:", "'a b':"), "line 2, key pipelines.a b", "'a b' does not match"),
        ("a name that is a number", changed("alerts:", "2026:"), "line 2, key pipelines.2026", "not of type 'string'"),
        (
            "a conf whose name is a number",
            changed("checkpoint: c", "checkpoint: c\n      conf:\n        1: x"),
            "line 8, key pipelines.alerts.job.conf.1",
            "1 is not of type 'string'",
        ),
        (
            "a tag that would make a Python object",
            "pipelines: !!python/name:os.system\n",
            "line 1",
            "Expected valid YAML",
        ),
        ("a character that YAML does not have", "pipelines: \x01\n", None, "Expected valid YAML"),
        ("a pipeline with nothing in it", "pipelines:\n  alerts:\n", "line 2, key pipelines.alerts", "None is not"),
        (
            "two pipelines that would write one history",
            SMALL + LATER.replace("    topics", "    group_id: alerts\n    topics"),
            "line 8, key pipelines.later.group_id",
            "pipeline 'alerts' uses the group 'alerts' on topic 'flights' too",
        ),
        (
            "two pipelines that would write one checkpoint, spelled in two ways",
            SMALL + LATER.replace("checkpoint: d", "checkpoint: ./x/../c/"),
            "line 11, key pipelines.later.job.checkpoint",
            "/c too. Expected a group id",
        ),
        (
            "two pipelines of one name: YAML would drop the first without a word",
            SMALL + SMALL.partition("\n")[2],
            "line 7, key pipelines.alerts",
            "appears twice",
        ),
        (
            "one key twice: YAML would drop the first without a word",
            changed("    topics", "    topics: [a]\n    topics"),
            "line 4, key pipelines.alerts.topics",
            "appears twice",
        ),
        (
            "one key twice in a list",
            changed("    topics", "    start: [{offsets: {a: {0: 1, 0: 9}}}]\n    topics"),
            "line 3, key pipelines.alerts.start.0.offsets.a.0",
            "appears twice",
        ),
    ],
)
def test_a_mistake_is_reported_with_line_key_and_fix(
    why: str, text: str, place: str | None, words: str, tmp_path: Path
) -> None:
    with pytest.raises(PipelineFileError) as refused:
        load(tmp_path, text)

    said = str(refused.value)
    assert "pipelines.yaml" in said
    assert place is None or f"pipelines.yaml, {place}" in said
    assert words in said
    assert ". Expected " in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PipelineFileError, match=r"none\.yaml does not exist.*Create the file, or correct its path"):
        load_pipelines(tmp_path / "none.yaml")


def test_two_pipelines_may_read_one_topic_in_groups_of_their_own(tmp_path: Path) -> None:
    pipelines = load(tmp_path, SMALL + LATER)

    assert list(pipelines) == ["alerts", "later"]
    assert len(pipelines) == 2


def test_the_error_of_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    pipelines = load(tmp_path, SMALL)

    assert "alert" not in pipelines
    with pytest.raises(UnknownPipeline, match=r"'alert' is not in the file\. Expected one of alerts .*pipelines\.yaml"):
        pipelines["alert"]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
