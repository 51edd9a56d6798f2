"""The spark-submit command of a pipeline's job, from the pipeline's Spark connection."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.get_provider_info import get_provider_info as spark_provider_info
from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.common.compat.sdk import conf as airflow_conf

from airflow_provider_offsets.backends.jars import local_jars
from airflow_provider_offsets.backends.preflight import PROGRAM
from airflow_provider_offsets.backends.shipping import runtime_zip
from airflow_provider_offsets.committer import JAR
from airflow_provider_offsets.core.committer import OWNER
from airflow_provider_offsets.core.connector import version_findings
from airflow_provider_offsets.core.location import local_path, scheme_of
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.errors import InputRefused, ModeUnsupported
from airflow_provider_offsets.hooks.connection import find_connection, read_extra

if TYPE_CHECKING:
    from airflow.sdk import Connection

log = logging.getLogger(__name__)

_LEAVES_DRIVERS = ("LocalExecutor", "SequentialExecutor")
"""Executors that run tasks on the scheduler's machine. Workers and pods of the others may end with their task."""


YARN_ADDRESS = "yarn_resourcemanager_webapp_address"
"""Key of the extra that has the web address of YARN's ResourceManager, as in the Spark provider."""

_EXTRA = {"queue", "deploy-mode", "spark-binary", "namespace", "principal", "keytab", "rest-scheme", "rest-port"}
"""Keys that ``SparkSubmitHook`` reads, besides those that the form of the installed Spark provider has."""

_MASTER = re.compile(r"local(\[(\*|\d+)( *, *\d+)?\])?|local-cluster\[.+\]|yarn|spark://[^\s/]+")
"""Masters that spark-submit takes, other than those that are refused by name."""


class SparkJobHook:
    """Builder of a pipeline's spark-submit command that refuses settings which would break the guarantees.

    The Spark provider's own hook builds the command. Its ``submit()`` is not used: it blocks until the driver ends, and
    kills the driver with the task.
    """

    def __init__(self, pipeline: StreamingPipeline) -> None:
        self.pipeline = pipeline

    def check(self, store_url: str, executor: str | None = None) -> None:
        """Raise if a mode or file would fail later, before anything is stopped or written.

        :param store_url: URL of the offset store.
        :param executor: the executor that the task names; None for Airflow's default, the first one of its list.
        :raises ModeUnsupported: Spark Connect; cluster mode, except for an untracked job on YARN; SQLite with a remote
            master; an Airflow executor whose workers end with their tasks.
        :raises InputRefused: the application, a jar or spark-submit does not exist; or a folder cannot be created; or
            the Kafka connector is known not to work with this Spark; or the stop policy uses YARN, and the connection
            lacks the address of its ResourceManager; or the extra of the connection has a key that nothing reads.
        """
        # Only the launcher on this machine uses the store of an untracked job; the job itself never does.
        used_by_driver = store_url if self.pipeline.tracked else ""
        _check_mode(self.pipeline.name, self._master, used_by_driver)
        _check_extra(self._extra, self.pipeline.job.spark_conn_id)
        self._check_cluster()
        _check_executor(airflow_conf.get("core", "executor", fallback="LocalExecutor"), executor)
        self._check_folders()
        binary = self._extra.get("spark-binary", "spark-submit")
        self._check_files(binary)
        if self.pipeline.tracked:
            self._check_versions(binary)

    @property
    def resource_manager(self) -> str:
        """Web address of YARN's ResourceManager; empty if the job runs elsewhere or the connection lacks it."""
        address = str(self._extra.get(YARN_ADDRESS) or "").strip().rstrip("/")
        if not address or not self._master.startswith("yarn"):
            return ""
        return address if "://" in address else f"http://{address}"

    @cached_property
    def _connection(self) -> Connection:
        return find_connection(self.pipeline.job.spark_conn_id)

    @property
    def _extra(self) -> dict[str, Any]:
        return read_extra(self._connection)

    @cached_property
    def _master(self) -> str:
        """The master as the Spark provider reads it from host, port and type of the connection."""
        conn_id, host = self._connection.conn_id, self._connection.host or ""
        if "k8s" in (self._connection.conn_type, host.partition(":")[0]):
            return f"k8s://{host.removeprefix('k8s://')}"  # the provider imports its client, which may not be here
        try:
            read_extra(self._connection)
            command = SparkSubmitHook(conn_id=conn_id)._build_spark_submit_command("")
        except (AirflowException, TypeError, ValueError) as error:
            raise InputRefused(
                seen=f"Spark connection {conn_id!r} cannot be used: {error}",
                expected="a master, and the extra of a Spark connection",
                do="correct the connection",
            ) from error
        return str(command[command.index("--master") + 1])

    @property
    def _deploy_mode(self) -> str:
        return self._extra.get("deploy-mode") or self.pipeline.job.conf.get("spark.submit.deployMode") or "client"

    @property
    def _is_cluster_mode(self) -> bool:
        return self._deploy_mode != "client"

    def command(self, conf: Mapping[str, str]) -> list[str]:
        """Return the argument vector that starts the job with ``conf`` in addition to its own conf.

        The zip of the runtime, which a tracked job needs, is written to the directory of the job's logs.

        :param conf: Spark settings of this launch. They win over settings of the same name.
        """
        jars = [str(JAR)] if OWNER in conf else []
        return self._submit(self.pipeline.job.application, conf, jars, self.pipeline.job.arguments)

    def preflight_command(self, modules: Sequence[str]) -> list[str]:
        """Return the argument vector that runs the program of the preflight, with what the job is submitted with.

        :param modules: the Python modules that the program imports.
        """
        command = self._submit(str(PROGRAM), {}, [], modules)
        # The last ones win, also over spark.submit.deployMode in the conf of the job.
        at = command.index(str(PROGRAM))
        return [*command[:at], "--master", "local[1]", "--deploy-mode", "client", *command[at:]]

    def _submit(
        self, application: str, conf: Mapping[str, str], jars: Sequence[str], arguments: Sequence[str]
    ) -> list[str]:
        job = self.pipeline.job
        shipped = str(runtime_zip(Path(job.folder_for_logs))) if self.pipeline.tracked else ""
        # YARN would otherwise restart a driver that ended in the middle of its epoch.
        once = {"spark.yarn.maxAppAttempts": "1"} if self._is_cluster_mode else {}
        hook = SparkSubmitHook(
            conf={**job.conf, **once, **conf},
            conn_id=job.spark_conn_id,
            py_files=",".join(each for each in (shipped, job.py_files) if each),
            jars=",".join([*local_jars(job.jars), *jars]) or None,
            packages=job.packages or None,
            java_class=(job.main_class or None) if application == job.application else None,
            name=self.pipeline.name,
            application_args=list(arguments),
        )
        # This private method is the only one of that hook that builds the command without running it.
        return list(hook._build_spark_submit_command(application))

    def _check_cluster(self) -> None:
        name, stop = self.pipeline.name, self.pipeline.stop
        if stop.cluster_timeout_s and not self.resource_manager:
            raise InputRefused(
                seen=f"pipeline {name!r} has stop.cluster_timeout_s, and its master is {self._master!r}",
                expected="master yarn, and the web address of its ResourceManager in the Spark connection",
                do="add the extra yarn_resourcemanager_webapp_address (http://host:8088), or remove cluster_timeout_s",
            )
        if not self._is_cluster_mode:
            return
        if self.pipeline.tracked or not self.resource_manager:
            raise ModeUnsupported(
                seen=f"pipeline {name!r} has deploy mode {self._deploy_mode!r}",
                expected="client; or cluster for an untracked job on YARN whose ResourceManager's web address is in the"
                " Spark connection (extra yarn_resourcemanager_webapp_address)",
                do="set deploy-mode to client in the Spark connection or in job.conf, or add that address",
            )
        if stop.signal_timeout_s or stop.kill_timeout_s:
            raise ModeUnsupported(
                seen=f"pipeline {name!r} runs in cluster mode, and has stop.signal_timeout_s or stop.kill_timeout_s",
                expected="stop.marker or stop.cluster_timeout_s, because signals reach spark-submit, not the driver",
                do="set stop.cluster_timeout_s instead",
            )

    def _check_folders(self) -> None:
        """Raise if a folder on this machine cannot be created, after a try to create a folder where it would be."""
        job, marker = self.pipeline.job, self.pipeline.stop.marker
        named = {"job.log_dir" if job.log_dir else "job.checkpoint": job.folder_for_logs}
        if self.pipeline.tracked:
            named["job.checkpoint"] = job.checkpoint
        if marker:
            named["stop.marker"] = str(Path(local_path(marker)).parent) if "://" not in local_path(marker) else marker
        for key, location in named.items():
            folder = local_path(location)
            if "://" in folder or not (why := _why_not_created(Path(folder))):
                continue
            raise InputRefused(
                seen=f"{key} of pipeline {self.pipeline.name!r}: {folder!r} cannot be created: {why}",
                expected="a folder that the user of Airflow's tasks may create and write on this machine",
                do=f"correct {key}, or the rights of the folder",
            )

    def _check_files(self, binary: str) -> None:
        job = self.pipeline.job
        if not Path(job.application).is_file() or not os.access(job.application, os.R_OK):
            raise InputRefused(
                seen=f"application {job.application!r} of pipeline {self.pipeline.name!r} is not a file",
                expected="the Spark program, on this machine, which the user of Airflow's tasks may read",
                do="correct job.application",
            )
        archives = local_jars(job.jars) + [job.application] * job.application.endswith(".jar")
        for each in archives:
            if scheme_of(each) == "" and not _is_archive(each):
                raise InputRefused(
                    seen=f"{each!r} of pipeline {self.pipeline.name!r} cannot be opened as a jar",
                    expected="a jar that the user of Airflow's tasks may read",
                    do="copy the jar to this machine again, or correct its rights",
                )
        for each in filter(None, job.py_files.split(",")):
            path = Path(local_path(each))
            is_whole = _is_archive(str(path)) if path.suffix in (".zip", ".egg") and path.is_file() else path.exists()
            if scheme_of(each) in ("", "file") and not is_whole:
                raise InputRefused(
                    seen=f"{each!r} in job.py_files of pipeline {self.pipeline.name!r} does not exist, or is damaged",
                    expected="Python modules (.py, .zip, .egg) on this machine",
                    do="correct job.py_files, or copy the file to this machine",
                )
        if shutil.which(binary) is None:
            raise InputRefused(
                seen=f"the PATH of Airflow's worker ({sys.prefix}) has no {binary!r}",
                expected="Spark's own command",
                do="install pyspark beside Airflow, or put Spark's bin folder on the PATH",
            )

    def _check_versions(self, binary: str) -> None:
        """Raise if Spark and its Kafka connector are known not to work together, and warn if they are not tested."""
        job = self.pipeline.job
        lists = (job.packages, job.jars, *(job.conf.get(key, "") for key in ("spark.jars.packages", "spark.jars")))
        jars = [each.strip() for each in ",".join(lists).split(",")]
        for finding in version_findings(_core_jar(binary), jars):
            if finding.breaks:
                raise InputRefused(seen=finding.seen, expected=finding.expected, do=finding.do)
            log.warning("%s", finding)


def _is_archive(path: str) -> bool:
    """Check whether a file can be read as a zip, which a jar is."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def _core_jar(binary: str) -> str:
    """Return the name of the jar that has Spark's version, as ``spark-submit`` finds it; empty if it is elsewhere."""
    home = os.environ.get("SPARK_HOME")
    base = Path(shutil.which(binary) or binary).resolve().parent.parent
    homes = [Path(home)] if home else [base, *base.glob("lib/python*/site-packages/pyspark")]
    return next((each.name for folder in homes for each in sorted(folder.glob("jars/spark-core_*.jar"))), "")


def _check_mode(pipeline: str, master: str, store_url: str) -> None:
    if master == "sc" or master.startswith("sc:"):
        raise ModeUnsupported(
            seen=f"master {master!r} of pipeline {pipeline!r} is Spark Connect",
            expected="a classic session, because a stop between batches needs the driver's own process",
            do="use a local[n], spark:// or yarn master in the Spark connection",
        )
    if master.startswith("k8s"):
        raise ModeUnsupported(
            seen=f"master {master!r} of pipeline {pipeline!r} is Kubernetes",
            expected="a master whose driver runs beside its task, or YARN",
            do="use a local[n], spark:// or yarn master in the Spark connection",
        )
    if not _MASTER.fullmatch(master):
        raise ModeUnsupported(
            seen=f"master {master!r} of pipeline {pipeline!r} is none that spark-submit takes",
            expected="local, local[n], yarn (without a port), or spark://host:port",
            do="correct host and port of the Spark connection",
        )
    if store_url.startswith("sqlite:") and not master.startswith("local"):
        raise ModeUnsupported(
            seen=f"pipeline {pipeline!r} has a SQLite store and master {master!r}",
            expected="a store that every host can reach, because SQLite is a file on one host",
            do="point the offsets connection at postgresql:// or hbase://, or use a local[n] master",
        )


def _check_extra(extra: Mapping[str, Any], conn_id: str) -> None:
    info = spark_provider_info()  # type: ignore[no-untyped-call]  # the provider's own file
    forms = (each for each in info["connection-types"] if each["connection-type"] == "spark")
    known = _EXTRA.union(*(form.get("conn-fields", ()) for form in forms), {YARN_ADDRESS})
    if unknown := sorted(set(extra) - known):
        raise InputRefused(
            seen=f"the extra of connection {conn_id!r} has {', '.join(map(repr, unknown))}",
            expected=f"only {', '.join(sorted(known))}",
            do="remove it, or correct its spelling",
        )


def _check_executor(configured: str, named: str | None) -> None:
    """Raise unless the executor of the task leaves a driver alone after the task.

    :param configured: ``[core] executor``: names with commas; each may have an alias, as in ``alias:module.Class``.
    :param named: alias, name or path that the task names; None for the first of ``configured``.
    """
    listed = [each.strip() for each in configured.partition(";")[0].split(",")]
    by_alias = {each.partition(":")[0]: each.partition(":")[2] for each in listed if ":" in each}
    executor = by_alias.get(named, named) if named else listed[0].rpartition(":")[2]
    if executor.rpartition(".")[2] not in _LEAVES_DRIVERS:
        raise ModeUnsupported(
            seen=f"Airflow uses the executor {executor!r} for this task, of {configured!r}",
            expected="an executor whose machines keep running, because a driver in client mode runs beside its task",
            do="run this DAG with LocalExecutor, because the end of a worker or of its pod ends the driver."
            " Name it first in [core] executor, or as 'executor' in the default_args of the DAG",
        )


def _why_not_created(folder: Path) -> str:
    """Return why a folder cannot be created or written, or an empty text."""
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            return f"{there} is a file"
        if there == folder:
            return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written"
        with tempfile.TemporaryDirectory(prefix=".offsets-", dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror or error}"
