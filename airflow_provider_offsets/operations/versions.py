"""Store copies of submitted programs, so that a rollback can restore them.

``<logs>/applications/<digest>/<file name>`` has the bytes of each local file, under the digest of its content.
``<logs>/applications/<version>.json`` has the files and the command of one version. Both are written before the launch
and never changed; the epoch's claim names the version. Other files that the program reads, and its Spark connection,
are not part of a version.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from airflow_provider_offsets.backends.jars import local_jars
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.location import plain_path
from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.core.snapshot import CHECKPOINT
from airflow_provider_offsets.errors import RollbackRefused

VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class KeptFile:
    """One file of a command."""

    name: str
    """File name, or the whole URL or path if it is not a file on this machine."""
    digest: str = ""
    """SHA-256 of the content; empty for a file that is named but not copied."""


@dataclass(frozen=True)
class KeptVersion:
    """A program and the command that submits it."""

    application: KeptFile
    main_class: str = ""
    arguments: tuple[str, ...] = ()
    conf: dict[str, str] = field(default_factory=dict)
    jars: tuple[KeptFile, ...] = ()
    packages: str = ""
    py_files: tuple[KeptFile, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of this version: equal programs with equal commands have the same digest."""
        return hashlib.sha256(codec.dumps(self).encode()).hexdigest()


def keep_version(job: SparkJob) -> KeptVersion:
    """Store the current version of ``job`` and return it. Safe to repeat, and safe if the process is killed."""
    folder = _folder(job)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = KeptVersion(
        application=_keep(folder, job.application),
        main_class=job.main_class,
        arguments=job.arguments,
        conf=job.conf,
        jars=tuple(_keep(folder, each) for each in local_jars(job.jars)),
        packages=job.packages,
        py_files=tuple(_keep(folder, each) for each in filter(None, job.py_files.split(","))),
    )
    draft = _draft(folder)
    draft.write_text(codec.dumps(version))
    draft.chmod(0o600)
    draft.replace(folder / f"{version.digest}.json")
    return version


def restored_job(job: SparkJob, version: str) -> SparkJob:
    """Return ``job`` with the program and the command of a stored version, after checking the copies.

    :param job: the job whose ``log_dir`` has the copies.
    :param version: fingerprint of the stored version.
    :raises RollbackRefused: a copy is missing or has changed; the message names every such copy.
    """
    folder = _folder(job)
    kept = _read(folder, version)
    wrong = [_wrong(folder, each) for each in _files(kept) if each.digest]
    if not kept.application.digest:
        wrong.append(f"{kept.application.name} was no file on the machine of the submit, and was not kept")
    if any(wrong):
        raise _refused(version, "; ".join(filter(None, wrong)), folder)
    return replace(
        job,
        application=_place(folder, kept.application),
        main_class=kept.main_class,
        arguments=kept.arguments,
        conf=kept.conf,
        jars=",".join(_place(folder, each) for each in kept.jars),
        packages=kept.packages,
        py_files=",".join(_place(folder, each) for each in kept.py_files),
    )


def why_not_as_it_ran(pipeline: StreamingPipeline, claim: Claim) -> str:
    """Return why the kept program of a launch cannot run as ``pipeline`` is described now; empty if it can.

    A version has a program and its command. Whether that program knows epochs, where it keeps its offsets, and which
    topics it reads by itself, is in ``pipelines.yaml`` only.

    :param pipeline: the pipeline as described now.
    :param claim: the launch whose version may be restored.
    """
    if claim.tracked != pipeline.tracked:
        return f"epoch {claim.number} ran with 'tracked: {str(claim.tracked).lower()}', which has been changed since"
    if claim.tracked:
        return ""
    if claim.store not in ("", pipeline.authoritative):
        return f"epoch {claim.number} kept its offsets in {claim.store!r}, and offsets_in has been changed since"
    if claim.stream.topics != pipeline.stream.topics:
        return f"epoch {claim.number} read the topics {list(claim.stream.topics)}, and topics has been changed since"
    location = pipeline.job.checkpoint
    if pipeline.authoritative == CHECKPOINT and plain_path(claim.checkpoint) != plain_path(location):
        return (
            f"epoch {claim.number} ran on the checkpoint {claim.checkpoint!r}, and job.checkpoint is {location!r} now"
        )
    return ""


def is_kept(job: SparkJob, version: str) -> bool:
    """Return whether a version is recorded.

    :param job: the job whose ``log_dir`` has the copies.
    :param version: fingerprint of the version.
    """
    return VERSION.fullmatch(version) is not None and (_folder(job) / f"{version}.json").is_file()


def kept_since_ms(job: SparkJob, version: str) -> int:
    """Return when a version was last stored, in milliseconds since 1970. Each submit stores it again.

    :param job: the job whose ``log_dir`` has the copies.
    :param version: fingerprint of a stored version.
    """
    return (_folder(job) / f"{version}.json").stat().st_mtime_ns // 1_000_000


def forget_version(job: SparkJob, version: str) -> None:
    """Remove the copies that no other stored version uses, and then the record of a version.

    Safe to repeat: after an interrupted call the record still exists, but a rollback to the version is refused.

    :param job: the job whose ``log_dir`` has the copies.
    :param version: fingerprint of the version to remove.
    :raises RollbackRefused: a record in the directory cannot be read, so the owners of the copies are unknown.
    """
    folder = _folder(job)
    others = {each.stem for each in folder.glob("*.json")} - {version}
    needed = {file.digest for other in others for file in _files(_read(folder, other))}
    for digest in {file.digest for file in _files(_read(folder, version))} - needed - {""}:
        shutil.rmtree(folder / digest, ignore_errors=True)
    (folder / f"{version}.json").unlink(missing_ok=True)


def _files(kept: KeptVersion) -> list[KeptFile]:
    return [kept.application, *kept.jars, *kept.py_files]


def _folder(job: SparkJob) -> Path:
    return Path(job.folder_for_logs) / "applications"


def _draft(folder: Path) -> Path:
    return folder / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"


def _keep(folder: Path, path: str) -> KeptFile:
    source = Path(path)
    if "://" in path or not source.is_file():
        return KeptFile(path)
    kept = KeptFile(source.name, _digest(source))
    if _wrong(folder, kept):
        # Use the digest of the copy, because a deployment may change the source while it is copied.
        draft = _draft(folder)
        shutil.copyfile(source, draft)
        kept = KeptFile(source.name, _digest(draft))
        target = Path(_place(folder, kept))
        target.parent.mkdir(mode=0o700, exist_ok=True)
        draft.replace(target)
    return kept


def _place(folder: Path, file: KeptFile) -> str:
    return str(folder / file.digest / file.name) if file.digest else file.name


def _wrong(folder: Path, file: KeptFile) -> str:
    """Return what is wrong with a copy; empty if the copy is intact."""
    path = Path(_place(folder, file))
    if not path.is_file():
        return f"{path} is gone"
    return "" if _digest(path) == file.digest else f"{path} is not what was kept"


def _read(folder: Path, version: str) -> KeptVersion:
    file = folder / f"{version}.json"
    if not VERSION.fullmatch(version):
        raise _refused(version, f"{version!r} is no digest", folder)
    try:
        kept = codec.loads(KeptVersion, file.read_text())
    except FileNotFoundError as error:
        raise _refused(version, f"{file} is gone", folder) from error
    except ValueError as error:
        raise _refused(version, f"{file} cannot be read: {error}", folder) from error
    if kept.digest != version:
        raise _refused(version, f"{file} is not what was kept", folder)
    return kept


def _refused(version: str, seen: str, folder: Path) -> RollbackRefused:
    return RollbackRefused(
        seen=f"version {version[:12]} cannot be restored: {seen}",
        expected=f"the copies that its submit kept in {folder}",
        do="deploy the previous program by hand, and run a maintenance with the start that you need",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        # mypy checks for Python 3.10; this module runs beside Airflow, on 3.11.
        return str(hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[attr-defined]
