"""Checkpoint folders on this machine, or on any file system that ``fsspec`` opens.

Two kinds of file systems create a file atomically and never overwrite another one:

- Local disks and HDFS rename a file in one step, and refuse if the target exists. They rename a whole folder the same
  way.
- Object stores put an object in one step, on the condition that it does not exist. They cannot rename a folder.

Checkpoints on other file systems (FTP, SMB, a cache before another file system) can be read but not written.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from airflow_provider_offsets.checkpoint.log import CheckpointFiles
from airflow_provider_offsets.core.location import local_path, normal_url, resolved, scheme_of
from airflow_provider_offsets.errors import (
    CheckpointError,
    OffsetsError,
    StateChanged,
    StoreClientMissing,
    StoreDenied,
    StoreUnreachable,
)

MOVING = frozenset({"hdfs", "webhdfs"})
PUTTING = frozenset({"s3", "s3a", "gs", "gcs", "memory"})
REMOVED = ".removed"
"""Suffix of a folder that is being removed."""

EXTRAS = {"hdfs": "hdfs", "webhdfs": "hdfs", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extra of this provider that installs the library of the file system."""


class CheckpointFolder(CheckpointFiles, Protocol):
    """Read and write access to one checkpoint folder."""

    moves: bool
    """Whether the file system can rename a folder in one step."""

    def create(self, path: str, text: str) -> bool:
        """Write a new file atomically, and return whether it was written.

        :param path: relative to the folder.
        :returns: False if the file exists; its content is unchanged.
        """
        ...

    def exists(self) -> bool:
        """Check whether anything exists at the location."""
        ...

    def written_ms(self, path: str) -> int | None:
        """Return when a file was written (ms, by the clock of the file system), or None if the file does not exist."""
        ...

    def move_to(self, location: str) -> None:
        """Rename the folder in one step to a location where nothing exists.

        :raises StateChanged: something exists there.
        """
        ...

    def remove(self) -> None:
        """Remove the folder with its content, on a file system that can rename folders.

        The folder is renamed first, so nobody ever reads half a checkpoint. Repeating the call finishes a removal that
        was interrupted.
        """
        ...


FILE_SYSTEMS: dict[str, Callable[[str], CheckpointFolder]] = {}
"""File systems in addition to those of fsspec, by the scheme of their URLs. A simulation adds its own."""


def open_checkpoint(location: str) -> CheckpointFolder:
    """Return the checkpoint folder at a path or a URL (``hdfs:``, ``webhdfs:``, ``s3:``, ``s3a:``, ``gs:``, …).

    The folder need not exist. Credentials come from where the library of the file system looks for them: its
    environment variables and files, or the configuration of fsspec. The location must not contain any, because it is
    written to logs and records.

    :raises CheckpointError: the file system is unknown, the location contains a password, or Spark would open another
        folder.
    :raises StoreClientMissing: the library of the file system is not installed.
    :raises StoreUnreachable: the file system does not answer.
    """
    _require_same_as_hadoop(location)
    if _is_local(location):
        return LocalCheckpoint(location)
    scheme = scheme_of(location)
    if (opener := FILE_SYSTEMS.get(scheme)) is not None:
        return opener(location)
    before_path = location.partition("://")[2].partition("/")[0]
    has_password = ":" in before_path.rpartition("@")[0]
    if has_password or location.startswith(f"{scheme}::"):
        raise CheckpointError(
            seen=f"checkpoint {scheme}://… has {'a password' if has_password else 'chained file systems'}",
            expected="the plain URL of a folder",
            do="pass credentials in the environment of the library of that file system",
        )
    return RemoteCheckpoint(location, *_opened(normal_url(location), scheme))


class LocalCheckpoint:
    """Checkpoint folder on this machine, or on a mount that all machines share. See ``open_checkpoint``."""

    moves = True

    def __init__(self, location: str) -> None:
        self.location = location
        self._root = os.path.normpath(local_path(location))

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, or an empty list if the folder does not exist."""
        with _as_checkpoint_error(f"{self.location}/{folder}"), suppress(FileNotFoundError):
            return os.listdir(os.path.join(self._root, folder))
        return []

    def text(self, path: str) -> str | None:
        """Return the text of a file, or None if the file does not exist."""
        where = f"{self.location}/{path}"
        name = os.path.join(self._root, path)
        with _as_checkpoint_error(where), suppress(FileNotFoundError):
            return _decoded(Path(name).read_bytes(), where)
        return None

    def create(self, path: str, text: str) -> bool:
        """Write a new file atomically, and return whether it was written."""
        target = Path(self._root, path)
        with _as_checkpoint_error(f"{self.location}/{path}"):
            _make_folder(target.parent)
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(temporary, 0o644)  # the driver may run as another user
                os.link(temporary, target)
                _sync_folder(target.parent)
                return True
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)

    def exists(self) -> bool:
        """Check whether anything exists at the location."""
        with _as_checkpoint_error(self.location):
            return os.path.exists(self._root)

    def written_ms(self, path: str) -> int | None:
        """Return when a file was written, or copied here (ms), or None if the file does not exist."""
        with _as_checkpoint_error(f"{self.location}/{path}"), suppress(FileNotFoundError):
            return os.stat(os.path.join(self._root, path)).st_mtime_ns // 1_000_000
        return None

    def move_to(self, location: str) -> None:
        """Rename the folder in one step to a location where nothing or an empty folder exists."""
        target = LocalCheckpoint(location)
        with _as_checkpoint_error(f"{self.location} to {location}"):
            try:
                os.rename(self._root, target._root)
            except (FileExistsError, NotADirectoryError) as error:
                raise _in_the_way(self.location, location) from error
            except OSError as error:
                if target.names(""):
                    raise _in_the_way(self.location, location) from error
                raise
            _sync_folder(Path(self._root).parent)

    def remove(self) -> None:
        """Remove the folder with its content, after renaming it."""
        aside = LocalCheckpoint(f"{resolved(self.location)}{REMOVED}")
        if self.exists():
            self.move_to(aside.location)
        with _as_checkpoint_error(aside.location), suppress(FileNotFoundError):
            shutil.rmtree(aside._root)


class RemoteCheckpoint:
    """Checkpoint folder on a file system that fsspec opens. See ``open_checkpoint``."""

    def __init__(self, location: str, file_system: Any, root: str) -> None:
        self.location = location
        self._scheme = scheme_of(location)
        self.moves = self._scheme in MOVING
        self._files = file_system
        self._root = root.rstrip("/")

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, or an empty list if the folder does not exist."""
        path = self._path(folder)
        with _as_checkpoint_error(f"{self.location}/{folder}"), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            listed = [self._plain(each) for each in self._files.ls(path, detail=False)]
            return [each.rpartition("/")[2] for each in listed if each != self._plain(path)]
        return []

    def text(self, path: str) -> str | None:
        """Return the text of a file, or None if the file does not exist."""
        where = f"{self.location}/{path}"
        with _as_checkpoint_error(where), suppress(FileNotFoundError):
            return _decoded(self._files.cat_file(self._path(path)), where)
        return None

    def create(self, path: str, text: str) -> bool:
        """Write a new file atomically, and return whether it was written."""
        with _as_checkpoint_error(f"{self.location}/{path}"):
            if self.moves:
                return self._create_by_moving(self._path(path), text.encode())
            if self._scheme not in PUTTING:
                raise CheckpointError(
                    seen=f"{self.location} is on a file system to which no checkpoint is written",
                    expected="a local path, hdfs, webhdfs, s3 or gs, because another file system may show half a file",
                    do="seed the checkpoint on one of these, and copy it from there",
                )
            try:
                self._files.pipe_file(self._path(path), text.encode(), mode="create")
            except FileExistsError:
                return False
            return True

    def exists(self) -> bool:
        """Check whether anything exists at the location."""
        with _as_checkpoint_error(self.location):
            return self._is_there(self._root)

    def written_ms(self, path: str) -> int | None:
        """Return when a file was written (ms, by the clock of the file system), or None if the file does not exist."""
        with _as_checkpoint_error(f"{self.location}/{path}"), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            return int(self._files.modified(self._path(path)).timestamp() * 1000)
        return None

    def move_to(self, location: str) -> None:
        """Rename the folder in one step to a location where nothing exists.

        HDFS silently moves a folder *into* an existing one. So the target is checked before and after the call.
        """
        target = RemoteCheckpoint(location, self._files, self._files._strip_protocol(normal_url(location)))
        if target.exists():
            raise _in_the_way(self.location, location)
        with _as_checkpoint_error(f"{self.location} to {location}"):
            self._files.mv(self._root, target._root)
        if self._root.rpartition("/")[2] in target.names("") or self.exists():
            raise _in_the_way(self.location, location)

    def remove(self) -> None:
        """Remove the folder with its content, after renaming it."""
        aside = RemoteCheckpoint(f"{resolved(self.location)}{REMOVED}", self._files, f"{self._root}{REMOVED}")
        if self.exists():
            self.move_to(aside.location)
        if aside.exists():
            with _as_checkpoint_error(aside.location):
                self._files.rm(aside._root, recursive=True)

    def _create_by_moving(self, target: str, content: bytes) -> bool:
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4()}.tmp"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.pipe_file(temporary, content)
            with suppress(FileExistsError):
                self._files.mv(temporary, target)
            # WebHDFS answers "false" if the target exists, and fsspec hides that: then the temporary file is still
            # there.
            return not self._is_there(temporary)
        finally:
            if self._is_there(temporary):
                self._files.rm_file(temporary)

    def _is_there(self, path: str) -> bool:
        """Check whether a path exists. Needed because fsspec's own ``exists`` treats every error as False."""
        self._files.invalidate_cache()
        try:
            self._files.info(path)
        except FileNotFoundError:
            return False
        return True

    def _plain(self, path: str) -> str:
        return str(self._files._strip_protocol(path)).rstrip("/")

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}".rstrip("/") or "/"


def _is_local(location: str) -> bool:
    return scheme_of(location) in ("", "file")


def _require_same_as_hadoop(location: str) -> None:
    """Check that Spark finds the same folder at a location as this module, which does not use Hadoop's ``Path``.

    :raises CheckpointError: it is another folder. Then the job's checkpoint would look as if it did not exist.
    """
    is_local = _is_local(location)
    if re.match("//[^/]", location):
        seen, do = "begins with '//', which Hadoop reads as the begin of a host name", "remove one '/'"
    elif not is_local and not location.partition(":")[2].startswith(("//", ":")):
        seen, do = "has a scheme and no '://', which fsspec reads as a local path", "write '://' after the scheme"
    elif scheme_of(location) in MOVING and "?" in location:
        seen, do = "contains '?', where fsspec ends the path", "rename the folder"
    else:
        return
    raise CheckpointError(
        seen=f"checkpoint {location!r} {seen}",
        expected="a location that Spark and fsspec read in the same way, such as /folder or hdfs://host/folder",
        do=f"{do}, and correct job.checkpoint",
    )


def _opened(location: str, scheme: str) -> tuple[Any, str]:
    with _as_checkpoint_error(location):
        try:
            import fsspec  # imported late: a driver imports this module and has no fsspec

            file_system, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
        except ImportError as error:
            raise _client_missing(scheme, error) from error
        except ValueError as error:
            raise CheckpointError(
                seen=f"checkpoint {location!r}: {error}",
                expected="a local path, or a URL of a file system that fsspec knows",
                do="correct job.checkpoint",
            ) from error
    if not str(root).rstrip("/").endswith(path := location.partition("://")[2].partition("/")[2]):
        raise CheckpointError(
            seen=f"checkpoint {location!r} is {root!r} for the library of {scheme}",
            expected=f"a path that ends in {path!r}, which Spark opens",
            do="rename the folder, and correct job.checkpoint",
        )
    return file_system, str(root)


def _client_missing(scheme: str, error: Exception) -> StoreClientMissing:
    extra = EXTRAS.get(scheme)
    return StoreClientMissing(
        seen=f"the library for a {scheme} checkpoint cannot be loaded: {str(error).partition(chr(10))[0]}",
        expected="the library that fsspec needs for that file system",
        do=f"run `pip install 'airflow-provider-offsets[{extra}]'`" if extra else "install what fsspec names",
    )


@contextmanager
def _as_checkpoint_error(where: str) -> Iterator[None]:
    """Convert exceptions of a file system to errors of this package."""
    try:
        yield
    except OffsetsError:
        raise
    except PermissionError as error:
        raise _denied(where, error) from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise CheckpointError(
            seen=f"{where}: {error}", expected="the files of a checkpoint", do="name the folder of a checkpoint"
        ) from error
    except Exception as error:  # each library has its own exceptions, such as botocore's and the HTTP clients'
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.EROFS, errno.ELOOP):
            raise _impossible(error) from error
        if "libhdfs" in str(error) or "libjvm" in str(error):
            raise StoreClientMissing(
                seen=f"{where}: {str(error).partition(chr(10))[0]}",
                expected="Hadoop's native client: JAVA_HOME, HADOOP_HOME with libhdfs, and its jars on CLASSPATH",
                do="install it where Airflow's tasks run, or name the folder as webhdfs://<namenode>:9870/…",
            ) from error
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):  # of an HDFS data node
            raise _denied(where, error) from error
        raise StoreUnreachable(
            seen=f"{where}: {type(error).__name__}: {error}",
            expected="an answer from the file system",
            do="start the file system, and run the task again",
        ) from error


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it.

    :raises CheckpointError: no try can create it there, such as in ``/proc`` or on a read-only file system.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise _impossible(error) from error


def _impossible(error: OSError) -> CheckpointError:
    return CheckpointError(
        seen=f"a folder for a checkpoint cannot be there: {error}",
        expected="a location where the user of Airflow's tasks may create folders",
        do="correct the location of the checkpoint",
    )


def _denied(where: str, error: Exception) -> StoreDenied:
    return StoreDenied(
        seen=f"{where}: {error}",
        expected="a folder that this user may read, and may write if the checkpoint is to be seeded",
        do="grant access to the user that runs Airflow's tasks",
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _in_the_way(source: str, target: str) -> StateChanged:
    return StateChanged(
        seen=f"{target} exists already, so {source} cannot be moved there",
        expected="no folder of that name",
        do="stop the job that created it, move the folder away, and run the task again",
    )


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            seen=f"{where} cannot be read: {error}",
            expected="the text that Spark writes to this file",
            do="name the checkpoint of a query that reads Kafka, or restore the file",
        ) from error
