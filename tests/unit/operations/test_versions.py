"""A kept version: the bytes of its files and its command, and a refusal where they have changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_offsets.core.pipeline import SparkJob
from airflow_provider_offsets.errors import InputRefused, RollbackRefused
from airflow_provider_offsets.operations.versions import keep_version, restored_job


@pytest.fixture
def job(tmp_path: Path) -> SparkJob:
    for name, text in (("job.py", "version 1"), ("shared.py", "helpers"), ("a.jar", "A"), ("b.jar", "B")):
        (tmp_path / name).write_text(text)
    return SparkJob(
        application=str(tmp_path / "job.py"),
        checkpoint=str(tmp_path / "checkpoint"),
        main_class="org.example.Job",
        arguments=("--output", "here"),
        conf={"spark.sql.shuffle.partitions": "2"},
        jars=f"{tmp_path}/*.jar,https://repo.example/c.jar",
        packages="org.example:thing:1",
        py_files=str(tmp_path / "shared.py"),
    )


def deploy_another(job: SparkJob, folder: Path) -> SparkJob:
    """Deploy other bytes in the same files with another command, as an upgrade does."""
    for file in (*folder.glob("*.py"), *folder.glob("*.jar")):
        file.write_text("version 2")
    return replace(job, arguments=(), conf={}, main_class="", packages="org.example:thing:2")


def text_of(paths: str) -> list[str]:
    return [path if "://" in path else Path(path).read_text() for path in paths.split(",")]


def test_program_and_command_come_back_whatever_was_deployed_since(job: SparkJob, tmp_path: Path) -> None:
    version = keep_version(job).digest

    restored = restored_job(deploy_another(job, tmp_path), version)

    assert text_of(restored.application) == ["version 1"]
    assert text_of(restored.py_files) == ["helpers"]
    assert text_of(restored.jars) == ["A", "B", "https://repo.example/c.jar"]
    assert Path(restored.py_files).name == "shared.py", "Python imports it by its name"
    assert (restored.main_class, restored.arguments) == ("org.example.Job", ("--output", "here"))
    assert (restored.conf, restored.packages) == ({"spark.sql.shuffle.partitions": "2"}, "org.example:thing:1")
    assert restored.checkpoint == job.checkpoint


def test_a_version_that_is_deployed_again_is_the_same_version(job: SparkJob, tmp_path: Path) -> None:
    """So it can be rolled back to again, and occupies no further space."""
    version = keep_version(job)
    restored = restored_job(deploy_another(job, tmp_path), version.digest)
    files = sorted((tmp_path / "checkpoint.logs").rglob("*"))

    assert keep_version(restored) == version
    assert sorted((tmp_path / "checkpoint.logs").rglob("*")) == files


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": ()},
        {"conf": {}},
        {"main_class": ""},
        {"packages": ""},
        {"jars": ""},
        {"py_files": ""},
    ],
)
def test_another_command_is_another_version(change: dict[str, object], job: SparkJob) -> None:
    assert keep_version(replace(job, **change)).digest != keep_version(job).digest  # type: ignore[arg-type]


def test_nobody_else_can_read_what_is_kept(job: SparkJob, tmp_path: Path) -> None:
    version = keep_version(job)

    folder = tmp_path / "checkpoint.logs" / "applications"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / f"{version.digest}.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda file: file.unlink(), "job.py is gone"),
        (lambda file: file.write_text("somebody's"), "job.py is not what was kept"),
    ],
)
def test_bytes_that_are_not_those_are_refused(harm: object, words: str, job: SparkJob) -> None:
    version = keep_version(job).digest
    copy = Path(restored_job(job, version).application)
    assert callable(harm)
    harm(copy)

    with pytest.raises(RollbackRefused, match=words):
        restored_job(job, version)

    keep_version(job)
    assert restored_job(job, version).application == str(copy), "a submit of the same bytes mends it"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "is gone"), ("{", "cannot be read"), ('{"application":{"name":"x.py","digest":"1"}}', "is not what was")],
)
def test_a_record_that_is_not_that_one_is_refused(text: str | None, words: str, job: SparkJob, tmp_path: Path) -> None:
    version = keep_version(job).digest
    record = tmp_path / "checkpoint.logs" / "applications" / f"{version}.json"
    record.unlink() if text is None else record.write_text(text)

    with pytest.raises(RollbackRefused, match=words):
        restored_job(job, version)


def test_a_program_that_is_elsewhere_is_named_and_not_kept(job: SparkJob) -> None:
    version = keep_version(replace(job, application="hdfs://nn/apps/job.py")).digest

    with pytest.raises(RollbackRefused, match=r"hdfs://nn/apps/job\.py was no file on the machine of the submit"):
        restored_job(job, version)


def test_a_pattern_without_a_jar_is_refused(job: SparkJob, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="does not exist"):
        keep_version(replace(job, jars=f"{tmp_path}/none-*.jar"))


def test_a_version_is_a_digest_and_never_a_path(job: SparkJob, tmp_path: Path) -> None:
    version = keep_version(job).digest
    record = tmp_path / "checkpoint.logs" / "applications" / f"{version}.json"
    record.rename(tmp_path / "elsewhere.json")

    with pytest.raises(RollbackRefused, match="is no digest"):
        restored_job(job, "../../elsewhere")
