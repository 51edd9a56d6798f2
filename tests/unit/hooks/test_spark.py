"""The command line of a submit, and what is refused before anything is stopped."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets.backends.jars import local_jars
from airflow_provider_offsets.backends.preflight import PROGRAM
from airflow_provider_offsets.core.committer import committer_conf
from airflow_provider_offsets.core.pipeline import StopPolicy, StreamingPipeline
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported
from airflow_provider_offsets.hooks.spark import SparkJobHook
from tests.unit.airflow_versions import no_object
from tests.unit.conftest import Connect
from tests.unit.operations.lab import Lab

SQLITE, POSTGRES = "sqlite:////tmp/offsets.db", "postgresql://me:hunter2@db/offsets"


@pytest.fixture
def pipeline(lab: Lab, spark_submit: Path, connect: Connect) -> StreamingPipeline:
    Path(lab.pipeline.job.application).write_text("")
    connect("spark_default", "spark", host="local[2]")
    return lab.pipeline


def with_job(pipeline: StreamingPipeline, **more: Any) -> StreamingPipeline:
    return replace(pipeline, job=replace(pipeline.job, **more))


class TestModes:
    @pytest.mark.parametrize(
        ("master", "store"),
        [
            ("local", SQLITE),
            ("local[2]", SQLITE),
            ("local[*]", POSTGRES),
            ("spark://master.example", POSTGRES),
            ("yarn", POSTGRES),
        ],
    )
    def test_these_are_taken(self, master: str, store: str, pipeline: StreamingPipeline, connect: Connect) -> None:
        connect("spark_default", "spark", host=master)

        SparkJobHook(pipeline).check(store)

    @pytest.mark.parametrize(
        ("why", "connection", "store", "words"),
        [
            ("Spark Connect", {"host": "sc://spark.example"}, POSTGRES, "is Spark Connect"),
            (
                "cluster mode, by extra",
                {"host": "yarn", "extra": {"deploy-mode": "cluster"}},
                POSTGRES,
                "has deploy mode 'cluster'",
            ),
            ("SQLite is a file of one host", {"host": "spark://master.example"}, SQLITE, "SQLite store and master"),
            (
                "Kubernetes, which the submit cannot reach yet",
                {"host": "k8s://https://api:6443"},
                POSTGRES,
                "is Kubernetes",
            ),
            ("SQLite is a file of one host", {"host": "yarn"}, SQLITE, "has a SQLite store and master 'yarn'"),
            ("a bracket is missing", {"host": "local[*"}, POSTGRES, "is none that spark-submit takes"),
            ("another case", {"host": "Local[2]"}, POSTGRES, "is none that spark-submit takes"),
            ("a mode of Spark 1", {"host": "yarn-client"}, POSTGRES, "is none that spark-submit takes"),
            ("removed from Spark", {"host": "mesos://m:5050"}, POSTGRES, "is none that spark-submit takes"),
            ("a port makes it spark://yarn:8088", {"host": "yarn", "port": 8088}, SQLITE, "'spark://yarn:8088'"),
            ("no host", {}, POSTGRES, "Master 'spark://'"),
            ("a blank", {"host": " local[2]"}, POSTGRES, "is none that spark-submit takes"),
        ],
    )
    def test_these_are_refused(
        self,
        why: str,
        connection: dict[str, Any],
        store: str,
        words: str,
        pipeline: StreamingPipeline,
        connect: Connect,
    ) -> None:
        connect("spark_default", "spark", **connection)

        with pytest.raises(ModeUnsupported, match=words) as refused:
            SparkJobHook(pipeline).check(store)
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize(("conn_type", "host"), [("k8s", "api"), ("mesos", "m"), ("kafka", "broker"), ("yarn", "")])
    def test_a_connection_of_another_type(
        self, conn_type: str, host: str, pipeline: StreamingPipeline, connect: Connect
    ) -> None:
        connect("spark_default", conn_type, host=host)

        with pytest.raises(ModeUnsupported, match=f"Master '{conn_type}://{host}'"):
            SparkJobHook(pipeline).check(POSTGRES)

    def test_cluster_mode_by_conf(self, pipeline: StreamingPipeline) -> None:
        """Without ``deploy-mode`` in the connection, spark-submit takes the conf."""
        with pytest.raises(ModeUnsupported, match="has deploy mode 'cluster'"):
            SparkJobHook(with_job(pipeline, conf={"spark.submit.deployMode": "cluster"})).check(POSTGRES)

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ([1], no_object("it is a list")),
            ("{", no_object("cannot be read")),
            ('{"deploy-mode": "client", "deploy-mode": "client"}', "'deploy-mode' appears twice"),
            ({"deploy-mode": "client "}, "'deploy-mode' has a space"),
            ({"spark-home": "/opt/spark"}, "Spark connection 'spark_default' cannot be used: .*`spark-home`"),
            ({"spark-binary": "spark5-submit"}, "Spark connection 'spark_default' cannot be used: .*spark-binary"),
            ({"deploy_mode": "cluster"}, "'spark_default' has 'deploy_mode'. Expected only deploy-mode, keytab,"),
            ({"rest-port": "x"}, "Spark connection 'spark_default' cannot be used"),
        ],
    )
    def test_an_extra_that_is_wrong_is_refused(
        self, extra: Any, words: str, pipeline: StreamingPipeline, connect: Connect
    ) -> None:
        connect("spark_default", "spark", host="local[2]", extra=extra)

        with pytest.raises(InputRefused, match=words):
            SparkJobHook(pipeline).check(POSTGRES)

    @pytest.mark.parametrize(
        ("executor", "taken"),
        [
            ("LocalExecutor", True),
            ("KubernetesExecutor", False),
            ("CeleryExecutor", False),
            ("LocalExecutor,KubernetesExecutor", True),
            ("local:airflow.executors.local_executor.LocalExecutor, KubernetesExecutor", True),
            ("LocalExecutor;team=KubernetesExecutor", True),
            ("KubernetesExecutor,LocalExecutor", False),
            ("LocalKubernetesExecutor", False),
            ("airflow.providers.edge3.executors.EdgeExecutor", False),
            ("airflow.providers.amazon.aws.executors.ecs.AwsEcsExecutor", False),
            ("airflow.providers.amazon.aws.executors.batch.AwsBatchExecutor,LocalExecutor", False),
            ("lambda:airflow.providers.amazon.aws.executors.aws_lambda.AwsLambdaExecutor", False),
            ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", False),
        ],
    )
    def test_an_executor_that_takes_the_driver_away_is_refused(
        self, executor: str, taken: bool, pipeline: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
        if taken:
            SparkJobHook(pipeline).check(SQLITE)
        else:
            with pytest.raises(ModeUnsupported, match=r"Airflow uses the executor.*Run this DAG with LocalExecutor"):
                SparkJobHook(pipeline).check(SQLITE)

    @pytest.mark.parametrize(
        ("named", "taken"),
        [("LocalExecutor", True), ("local", True), ("KubernetesExecutor", False), ("pods", False), (None, False)],
    )
    def test_a_task_may_name_its_executor(
        self, named: str | None, taken: bool, pipeline: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = ("pods:x.KubernetesExecutor", "local:airflow.executors.local_executor.LocalExecutor")
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", ",".join(paths))
        if taken:
            SparkJobHook(pipeline).check(SQLITE, named)
        else:
            with pytest.raises(ModeUnsupported, match="KubernetesExecutor' for this task"):
                SparkJobHook(pipeline).check(SQLITE, named)


class TestFolders:
    @pytest.mark.parametrize("location", ["/proc/nope", "file:///proc/nope/c", "/proc/version/c"])
    @pytest.mark.parametrize("key", ["checkpoint", "log_dir"])
    def test_one_that_nobody_can_create_is_refused(
        self, key: str, location: str, pipeline: StreamingPipeline, tmp_path: Path
    ) -> None:
        more = {"log_dir": str(tmp_path / "logs"), key: location}

        with pytest.raises(InputRefused, match=rf"job\.{key} of pipeline .*/proc.*cannot be created: /proc"):
            SparkJobHook(with_job(pipeline, **more)).check(SQLITE)

    def test_so_is_a_marker(self, pipeline: StreamingPipeline) -> None:
        with pytest.raises(InputRefused, match=r"stop\.marker of pipeline .*'/proc/nope' cannot be created"):
            SparkJobHook(untracked(pipeline, StopPolicy(marker="/proc/nope/stop"))).check(SQLITE)

    def test_one_that_can_be_created_is_not(self, pipeline: StreamingPipeline, tmp_path: Path) -> None:
        SparkJobHook(with_job(pipeline, checkpoint=str(tmp_path / "a" / "b"), log_dir="")).check(SQLITE)

        assert not (tmp_path / "a").exists()
        assert not list(tmp_path.glob(".offsets-*"))


class TestVersions:
    """The findings themselves are in ``tests/unit/core/test_connector.py``."""

    PACKAGE = "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"

    @pytest.fixture(params=["a distribution", "pip", "SPARK_HOME"])
    def core(self, request: pytest.FixtureRequest, spark_submit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the folder of Spark's own jars."""
        home = spark_submit.parent.parent
        if request.param == "SPARK_HOME":
            home = home / "elsewhere"
            monkeypatch.setenv("SPARK_HOME", str(home))
        else:
            monkeypatch.delenv("SPARK_HOME", raising=False)
        if request.param == "pip":
            home = home / "lib" / "python3.11" / "site-packages" / "pyspark"
        jars = home / "jars"
        jars.mkdir(parents=True)
        return jars

    @pytest.mark.parametrize(
        "job", [{"packages": f"a:b:1,{PACKAGE}"}, {"conf": {"spark.jars.packages": PACKAGE}}], ids=["packages", "conf"]
    )
    def test_a_connector_that_breaks_is_refused(
        self, job: dict[str, Any], core: Path, pipeline: StreamingPipeline
    ) -> None:
        (core / "spark-core_2.13-4.1.1.jar").touch()

        with pytest.raises(InputRefused, match=r"needs Spark 4\.2, and Spark is 4\.1\.1"):
            SparkJobHook(with_job(pipeline, **job)).check(SQLITE)

        SparkJobHook(untracked(with_job(pipeline, **job), StopPolicy(signal_timeout_s=60))).check(SQLITE)

    def test_an_untested_version_is_a_warning(
        self, core: Path, pipeline: StreamingPipeline, caplog: pytest.LogCaptureFixture
    ) -> None:
        (core / "spark-core_2.13-4.4.0.jar").touch()

        SparkJobHook(pipeline).check(SQLITE)

        assert "Spark 4.4.0 is outside of the tested versions. Expected Spark 3.5 to 4.3." in caplog.text


RM = "yarn_resourcemanager_webapp_address"


def untracked(pipeline: StreamingPipeline, stop_policy: StopPolicy) -> StreamingPipeline:
    return replace(pipeline, tracked=False, offsets_in=("checkpoint",), store_conn_id="", stop=stop_policy)


class TestYarn:
    @pytest.mark.parametrize(
        ("why", "host", "extra", "address"),
        [
            ("as Hadoop's own setting has it", "yarn", {RM: "rm.example:8088"}, "http://rm.example:8088"),
            ("as a URL", "yarn", {RM: "https://rm.example:8090/"}, "https://rm.example:8090"),
            ("nobody says it", "yarn", {}, ""),
            ("it runs elsewhere", "local[2]", {RM: "rm.example:8088"}, ""),
        ],
    )
    def test_where_the_resource_manager_answers(
        self, why: str, host: str, extra: dict[str, str], address: str, pipeline: StreamingPipeline, connect: Connect
    ) -> None:
        connect("spark_default", "spark", host=host, extra=extra)

        assert SparkJobHook(pipeline).resource_manager == address

    def test_cluster_mode_is_taken_of_an_untracked_job_that_yarn_stops(
        self, pipeline: StreamingPipeline, connect: Connect
    ) -> None:
        connect("spark_default", "spark", host="yarn", extra={RM: "rm.example:8088", "deploy-mode": "cluster"})
        spark = SparkJobHook(untracked(pipeline, StopPolicy(cluster_timeout_s=60)))

        spark.check(SQLITE)

        argv = spark.command({})
        assert argv[argv.index("--deploy-mode") + 1] == "cluster"
        assert "spark.yarn.maxAppAttempts=1" in argv, "a second try would start in the middle of the epoch"

    @pytest.mark.parametrize(
        ("why", "extra", "stop_policy", "error", "words"),
        [
            (
                "nobody knows whom to ask",
                {},
                StopPolicy(cluster_timeout_s=60),
                InputRefused,
                "stop.cluster_timeout_s, and its master is 'yarn'.*Add the extra yarn_resourcemanager_webapp_address",
            ),
            (
                "nobody could see what outlives spark-submit",
                {"deploy-mode": "cluster"},
                StopPolicy(marker="/stop"),
                ModeUnsupported,
                "has deploy mode 'cluster'",
            ),
            (
                "SIGTERM reaches spark-submit, and not the driver",
                {RM: "rm.example:8088", "deploy-mode": "cluster"},
                StopPolicy(signal_timeout_s=60, cluster_timeout_s=60),
                ModeUnsupported,
                "signals reach spark-submit, not the driver",
            ),
            (
                "SIGKILL neither",
                {RM: "rm.example:8088", "deploy-mode": "cluster"},
                StopPolicy(kill_timeout_s=60, cluster_timeout_s=60),
                ModeUnsupported,
                "signals reach spark-submit, not the driver",
            ),
        ],
    )
    def test_a_stop_policy_that_could_not_stop_the_job_is_refused(
        self,
        why: str,
        extra: dict[str, str],
        stop_policy: StopPolicy,
        error: type[InputRefused],
        words: str,
        pipeline: StreamingPipeline,
        connect: Connect,
    ) -> None:
        connect("spark_default", "spark", host="yarn", extra=extra)

        with pytest.raises(error, match=words):
            SparkJobHook(untracked(pipeline, stop_policy)).check(SQLITE)


class TestFiles:
    @pytest.mark.parametrize(
        ("why", "change", "words"),
        [
            ("mistyped", lambda it: with_job(it, application="/nowhere/job.py"), "'/nowhere/job.py'.*is not a file"),
            ("a folder", lambda it: with_job(it, application="/"), "'/'.*is not a file"),
            ("a jar", lambda it: with_job(it, jars="/nowhere/a.jar"), "Jar '/nowhere/a.jar' does not exist"),
            ("a pattern", lambda it: with_job(it, jars="/nowhere/*.jar"), r"Jar '/nowhere/\*.jar' does not exist"),
        ],
    )
    def test_what_is_not_there_is_named(
        self,
        why: str,
        change: Callable[[StreamingPipeline], StreamingPipeline],
        words: str,
        pipeline: StreamingPipeline,
    ) -> None:
        with pytest.raises(InputRefused, match=words):
            SparkJobHook(change(pipeline)).check(SQLITE)

    @pytest.mark.parametrize(
        ("why", "key", "name", "words"),
        [
            ("a folder", "jars", "folder.jar", "is not a file"),
            ("a pipe, for which a copy would wait for ever", "jars", "pipe.jar", "is not a file"),
            ("a link to nothing", "jars", "link.jar", "does not exist|is not a file"),
            ("a download that was cut off", "jars", "cut.jar", "cannot be opened as a jar"),
            ("the same, as a URL", "jars", "file://cut.jar", "cannot be opened as a jar"),
            ("the program itself", "application", "cut.jar", "cannot be opened as a jar"),
            ("a pipe", "application", "pipe.jar", "is not a file"),
            ("not there", "py_files", "nope.py", "does not exist, or is damaged"),
            ("cut off", "py_files", "cut.zip", "does not exist, or is damaged"),
        ],
    )
    def test_what_cannot_be_read_is_named_before_the_stop(
        self, why: str, key: str, name: str, words: str, pipeline: StreamingPipeline, tmp_path: Path
    ) -> None:
        (tmp_path / "folder.jar").mkdir()
        os.mkfifo(tmp_path / "pipe.jar")
        (tmp_path / "link.jar").symlink_to("nowhere")
        for each in ("cut.jar", "cut.zip"):
            (tmp_path / each).write_bytes(b"PK\x03\x04")
        prefix, _, file = name.rpartition("//")

        with pytest.raises(InputRefused, match=words):
            SparkJobHook(with_job(pipeline, **{key: f"{prefix}{'//' if prefix else ''}{tmp_path / file}"})).check(
                SQLITE
            )

    def test_what_can_be_read_is_not(self, pipeline: StreamingPipeline, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.jar", "w") as jar:
            jar.writestr("META-INF/MANIFEST.MF", "")

        SparkJobHook(
            with_job(pipeline, jars=f"file:{tmp_path}/a.jar,hdfs://nn/b.jar", py_files=f"{tmp_path},local:/x.py")
        ).check(SQLITE)

    def test_no_spark_submit(
        self, pipeline: StreamingPipeline, spark_submit: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(spark_submit.parent))
        spark_submit.unlink()

        with pytest.raises(InputRefused, match=r"The PATH of .* has no 'spark-submit'.*Install pyspark beside Airflow"):
            SparkJobHook(pipeline).check(SQLITE)


class TestCommand:
    def command(self, pipeline: StreamingPipeline) -> list[str]:
        conf = {"spark.offsets.settings.file": "/logs/1.settings.json", "spark.offsets.pipeline": pipeline.name}
        return SparkJobHook(pipeline).command(conf)

    def test_it_is_what_spark_submit_takes(self, pipeline: StreamingPipeline, tmp_path: Path) -> None:
        for name in ("a.jar", "b.jar", "c.txt"):
            (tmp_path / name).write_text("")
        full = with_job(
            pipeline,
            arguments=("--output", "a file"),
            conf={"spark.ui.enabled": "false"},
            jars=f"{tmp_path}/*.jar",
            packages="org.example:thing:1",
            py_files="/more.py",
        )

        argv = self.command(full)

        pairs = {argv[index]: argv[index + 1] for index in range(len(argv) - 1) if argv[index].startswith("--")}
        confs = {argv[index + 1] for index, word in enumerate(argv) if word == "--conf"}
        assert argv[0] == "spark-submit"
        assert pairs["--master"] == "local[2]"
        assert pairs["--name"] == "delay_alerts"
        assert pairs["--jars"] == f"{tmp_path}/a.jar,{tmp_path}/b.jar"
        assert pairs["--packages"] == "org.example:thing:1"
        shipped, more = pairs["--py-files"].split(",")
        assert Path(shipped).is_file()
        assert Path(shipped).parent == Path(full.job.folder_for_logs)
        assert more == "/more.py"
        assert {"spark.ui.enabled=false", "spark.offsets.pipeline=delay_alerts"} <= confs
        assert argv[-3:] == [full.job.application, "--output", "a file"]

    def test_a_launch_with_the_package_s_committer_has_its_jar(
        self, pipeline: StreamingPipeline, tmp_path: Path
    ) -> None:
        (tmp_path / "a.jar").write_text("")
        argv = SparkJobHook(with_job(pipeline, jars=f"{tmp_path}/a.jar")).command(committer_conf("abc.1"))

        own, committer = argv[argv.index("--jars") + 1].split(",")
        assert own == f"{tmp_path}/a.jar"
        assert zipfile.is_zipfile(committer)

    def test_the_settings_win_over_a_conf_of_the_same_name(self, pipeline: StreamingPipeline) -> None:
        argv = self.command(with_job(pipeline, conf={"spark.offsets.pipeline": "other"}))

        assert "spark.offsets.pipeline=delay_alerts" in argv
        assert "spark.offsets.pipeline=other" not in argv

    def test_no_connection_s_password_is_in_it(self, pipeline: StreamingPipeline, connect: Connect) -> None:
        connect("spark_default", "spark", host="local[2]", login="me", password="hunter2-hunter2")
        connect("offsets_default", "offsets", extra={"url": POSTGRES}, password="hunter2-hunter2")
        connect("kafka_default", "kafka", extra={"sasl.password": "hunter2-hunter2"})

        assert "hunter2" not in json.dumps(self.command(pipeline))

    def test_a_preflight_takes_the_same_jars_packages_and_conf_but_no_cluster(
        self, pipeline: StreamingPipeline, connect: Connect
    ) -> None:
        connect("spark_default", "spark", host="yarn", extra={"deploy-mode": "client"})
        changed = with_job(pipeline, packages="a:b:1", conf={"spark.jars.repositories": "https://repo"})

        argv = SparkJobHook(changed).preflight_command(["sqlalchemy"])

        assert argv[-6:-2] == ["--master", "local[1]", "--deploy-mode", "client"], "the last ones win"
        assert argv[argv.index("--packages") + 1] == "a:b:1"
        assert "spark.jars.repositories=https://repo" in argv
        assert argv[-2:] == [str(PROGRAM), "sqlalchemy"]

    def test_a_jar_by_url_is_left_to_spark(self) -> None:
        assert local_jars("https://repo.example/a.jar,hdfs://b/*.jar") == [
            "https://repo.example/a.jar",
            "hdfs://b/*.jar",
        ]
