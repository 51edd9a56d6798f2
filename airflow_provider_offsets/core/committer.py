"""The output committer of tracked jobs: which writes of files beside each other are safe.

Spark writes files through Hadoop's ``FileOutputCommitter``, whose scratch folder ``<out>/_temporary/0`` is the same for
all applications. A job commit or an abort of one application removes the open files of the others, whose tasks then
succeed without output. So a tracked launch, live or replay, uses the committer of this package. Each write
has a scratch folder of its own there, below the folder of its *owner*, which is the launch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from airflow_provider_offsets.core.replay.model import attempt_number

COMMITTER = "offsets.PrivateScratchCommitter"
"""Class in the jar of ``airflow_provider_offsets.committer``."""
OWNER = "spark.hadoop.offsets.scratch.owner"
COMMITTER_KEYS = ("spark.sql.sources.outputCommitterClass", "spark.sql.parquet.output.committer.class")
"""The second one replaces the first one in writes of Parquet."""
PROTOCOL = "spark.sql.sources.commitProtocolClass"
SPARK_PROTOCOL = "org.apache.spark.sql.execution.datasources.SQLHadoopMapReduceCommitProtocol"
CLOUD_PROTOCOL = "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol"
"""Takes its committer from Hadoop's factories, and ignores ``COMMITTER_KEYS``."""

_FACTORY = "mapreduce.outputcommitter.factory."
_S3A_FACTORY = "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"
_S3A_NAME, _S3A_ABORT = "fs.s3a.committer.name", "fs.s3a.committer.abort.pending.uploads"
_S3A_COMMITTERS = ("directory", "magic", "partitioned")
"""The S3A committers with an id per job (HADOOP-17318). The fourth one, ``file``, is Hadoop's."""
_HADOOP = "spark.hadoop."

CONSULTED = (
    PROTOCOL,
    *COMMITTER_KEYS,
    *(f"{_HADOOP}{each}" for each in (f"{_FACTORY}class", f"{_FACTORY}scheme.s3a", _S3A_NAME, _S3A_ABORT)),
)
"""Keys that :func:`shared_scratch` reads."""


def live_owner(incarnation: str, epoch: int) -> str:
    """Return the name of a live launch as an owner. A later epoch removes what the earlier ones left.

    :param incarnation: of the pipeline's record: equal names of two control stores are different owners.
    :param epoch: number of the epoch.
    """
    return f"{_digest(incarnation, 'live')}.{epoch:012d}"


def shard_owner(incarnation: str, run_id: str, shard: int, number: int) -> str:
    """Return the name of a try of a shard as an owner. A later try removes what the earlier ones of its shard left.

    :param incarnation: of the pipeline's record; something random if there is no record.
    :param run_id: of the attempt.
    :param shard: number of the shard.
    :param number: number of the try.
    """
    replay = run_id.rsplit("#", 2)[0]
    return f"{_digest(incarnation, replay, str(shard))}.{attempt_number(run_id):06d}{number:06d}"


def takes_committer(conf: Mapping[str, str]) -> bool:
    """Return whether a launch sets this package's committer: the job's conf chooses none itself.

    :param conf: the conf of the pipeline's job.
    """
    return conf.get(PROTOCOL, SPARK_PROTOCOL) == SPARK_PROTOCOL and not any(key in conf for key in COMMITTER_KEYS)


def committer_conf(owner: str) -> dict[str, str]:
    """Return the Spark conf by which a launch writes files; empty without an owner.

    :param owner: as :func:`live_owner` or :func:`shard_owner` returns it.
    """
    if not owner:
        return {}
    return {OWNER: owner, **dict.fromkeys(COMMITTER_KEYS, COMMITTER)}


def shared_scratch(conf: Mapping[str, str]) -> str:
    """Return why two jobs with this conf may remove each other's open files; empty if they cannot.

    :param conf: the settings of a launch, including those of :func:`committer_conf`.
    """
    protocol = conf.get(PROTOCOL, SPARK_PROTOCOL)
    if protocol == SPARK_PROTOCOL:
        other = [f"{key}={conf.get(key, 'unset')}" for key in COMMITTER_KEYS if conf.get(key) != COMMITTER]
        return ", ".join(other)
    if protocol != CLOUD_PROTOCOL:
        return f"{PROTOCOL}={protocol}"
    factories = {key: value for key, value in _hadoop(conf).items() if key.startswith(_FACTORY)}
    if other := [f"{key}={value}" for key, value in factories.items() if value != _S3A_FACTORY]:
        return f"{PROTOCOL}={protocol} with {', '.join(sorted(other))}"
    # Without a factory, Hadoop's default for s3a:// is that of S3A.
    hadoop = _hadoop(conf)
    if hadoop.get(_S3A_NAME) not in _S3A_COMMITTERS:
        return f"{_S3A_NAME}={hadoop.get(_S3A_NAME, 'unset')}, and not one of {', '.join(_S3A_COMMITTERS)}"
    if hadoop.get(_S3A_ABORT, "true").lower() != "false":
        return f"{_S3A_ABORT} is not false, so a job commit aborts the uploads of other jobs"
    return ""


def _hadoop(conf: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(_HADOOP): value for key, value in conf.items()}


def _digest(*parts: str) -> str:
    return hashlib.sha256("#".join(parts).encode()).hexdigest()[:16]
