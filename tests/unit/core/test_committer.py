"""Which output committers keep two jobs apart that write to one folder, and whose scratch folders may be removed."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from airflow_provider_offsets.committer import JAR, SOURCE
from airflow_provider_offsets.core.committer import (
    CLOUD_PROTOCOL,
    COMMITTER,
    COMMITTER_KEYS,
    CONSULTED,
    OWNER,
    PROTOCOL,
    SPARK_PROTOCOL,
    committer_conf,
    live_owner,
    shard_owner,
    shared_scratch,
    takes_committer,
)

EVERY, PARQUET = COMMITTER_KEYS
S3A = {
    PROTOCOL: CLOUD_PROTOCOL,
    PARQUET: "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter",
    "spark.hadoop.fs.s3a.committer.name": "magic",
    "spark.hadoop.fs.s3a.committer.abort.pending.uploads": "false",
}
FACTORY = "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a"


def without(conf: dict[str, str], key: str) -> dict[str, str]:
    return {each: value for each, value in conf.items() if each != key}


@pytest.mark.parametrize(
    ("why", "conf", "is_taken", "shared"),
    [
        ("the usual case: nobody chooses a committer", {"spark.ui.enabled": "false"}, True, ""),
        ("Spark's own protocol uses the committer that is set", {PROTOCOL: SPARK_PROTOCOL}, True, ""),
        (
            "another attempt id and no cleanup do not matter: the committer does not use them",
            {"spark.hadoop.mapreduce.job.application.attempt.id": "7"},
            True,
            "",
        ),
        (
            "Hadoop's committer by name",
            {EVERY: "org.x.FileOutputCommitter"},
            False,
            f"{EVERY}=org.x.FileOutputCommitter",
        ),
        ("a committer for Parquet only", {PARQUET: "com.x.Fast"}, False, f"{PARQUET}=com.x.Fast"),
        ("an unknown protocol", {PROTOCOL: "com.x.Protocol"}, False, f"{PROTOCOL}=com.x.Protocol"),
        ("S3A's committers have an id per job", S3A, False, ""),
        (
            "the same, with the factory by name",
            {**S3A, FACTORY: "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory"},
            False,
            "",
        ),
        (
            "S3A without a committer's name may be Hadoop's",
            without(S3A, "spark.hadoop.fs.s3a.committer.name"),
            False,
            "unset",
        ),
        (
            "S3A's committer 'file' is Hadoop's",
            {**S3A, "spark.hadoop.fs.s3a.committer.name": "file"},
            False,
            "name=file",
        ),
        (
            "S3A aborts the uploads of others by default",
            without(S3A, "spark.hadoop.fs.s3a.committer.abort.pending.uploads"),
            False,
            "aborts the uploads of other jobs",
        ),
        (
            "the manifest committer removes all of _temporary",
            {**S3A, FACTORY: "org.apache.hadoop.mapreduce.lib.output.committer.manifest.ManifestCommitterFactory"},
            False,
            "ManifestCommitterFactory",
        ),
    ],
)
def test_a_conf_that_shares_its_scratch_folder_is_named(
    why: str, conf: dict[str, str], is_taken: bool, shared: str
) -> None:
    assert takes_committer(conf) is is_taken
    launched = {**conf, **committer_conf("owner.1" if is_taken else "")}

    found = shared_scratch(launched)

    assert shared in found
    assert bool(found) is bool(shared), why
    consulted = {key: value for key, value in launched.items() if key in CONSULTED}
    assert shared_scratch(consulted) == found, "the driver asks its session for these keys alone"


def test_a_session_whose_program_removed_the_committer_shares_its_scratch_folder() -> None:
    assert shared_scratch({PARQUET: COMMITTER}) == f"{EVERY}=unset"


def test_without_an_owner_nothing_is_set() -> None:
    assert committer_conf("") == {}
    assert committer_conf("a.1") == {OWNER: "a.1", EVERY: COMMITTER, PARQUET: COMMITTER}


def supersedes(newer: str, older: str) -> bool:
    """Return what ``removeSuperseded`` of the committer decides."""
    group = newer[: newer.rindex(".") + 1]
    return older.startswith(group) and len(older) == len(newer) and older < newer


RUN, AGAIN, OTHER = "backfill/day#abc#1", "backfill/day#def#2", "backfill/next#abc#1"


@pytest.mark.parametrize(
    ("why", "newer", "older", "is_superseded"),
    [
        ("an earlier epoch is over", live_owner("i", 10), live_owner("i", 9), True),
        ("a later epoch is not", live_owner("i", 9), live_owner("i", 10), False),
        ("nor is the same one", live_owner("i", 9), live_owner("i", 9), False),
        ("another pipeline, or one in another store", live_owner("i", 10), live_owner("j", 9), False),
        ("an earlier try of the shard is over", shard_owner("i", RUN, 0, 2), shard_owner("i", RUN, 0, 1), True),
        ("all tries of an earlier attempt are", shard_owner("i", AGAIN, 0, 1), shard_owner("i", RUN, 0, 9), True),
        ("another shard runs beside it", shard_owner("i", RUN, 1, 2), shard_owner("i", RUN, 0, 1), False),
        ("another interval, too", shard_owner("i", AGAIN, 0, 2), shard_owner("i", OTHER, 0, 1), False),
        ("the live job, too", shard_owner("i", RUN, 0, 1), live_owner("i", 1), False),
        ("a replay beside the live job", live_owner("i", 2), shard_owner("i", RUN, 0, 1), False),
    ],
)
def test_only_launches_that_are_over_are_superseded(why: str, newer: str, older: str, is_superseded: bool) -> None:
    assert supersedes(newer, older) is is_superseded, why


def test_the_jar_is_of_the_source_beside_it() -> None:
    with zipfile.ZipFile(JAR) as jar:
        manifest = jar.read("META-INF/MANIFEST.MF").decode()
        assert f"{COMMITTER.replace('.', '/')}.class" in jar.namelist()
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()
    assert f"Source-SHA256: {digest}\n" in manifest, "run `make committer`"
