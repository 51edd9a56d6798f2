"""Read access to the folder of a sink, on this machine or on any file system that ``fsspec`` opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_provider_offsets.core.location import local_path
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import refusals

EXTRAS = {"hdfs": "hdfs", "webhdfs": "hdfs", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extra of this provider that installs the library of the file system."""


class Folder:
    """The folder of a sink. Nothing is opened before the first call.

    :param location: a path or a URL, without credentials.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._scheme = urlsplit(location).scheme
        self._opened: tuple[Any, str] | None = None

    def sizes(self, folder: str) -> dict[str, int] | None:
        """Return the size of each file of a folder by its name, or None if the folder does not exist.

        :param folder: relative to this one; empty for itself. Folders in it are omitted.
        :raises LedgerUnreadable: no access, or no answer.
        """
        with self._errors(folder):
            files, root = self._open()
            path = f"{root}/{folder}".rstrip("/")
            try:
                listed = files.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return {each["name"].rpartition("/")[2]: each["size"] for each in listed if each["type"] == "file"}

    def exists(self) -> bool:
        """Check whether there is anything at the location.

        :raises LedgerUnreadable: no access, or no answer.
        """
        with self._errors(""):
            files, root = self._open()
            try:
                files.info(root or "/")
            except FileNotFoundError:
                return False
            return True

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        :param path: relative to this folder.
        :raises LedgerUnreadable: there is no such file, no access, or no answer.
        """
        with self._errors(path):
            files, root = self._open()
            content: bytes = files.cat_file(f"{root}/{path}")
            return content

    def relative(self, url: str) -> str | None:
        """Return the path relative to this folder of a file that Spark names, or None if it is elsewhere.

        :param url: as Hadoop's ``Path`` writes it, with percent signs for special characters.
        """
        root = self._open()[1] if self._scheme in ("", "file") else urlsplit(self.location).path.rstrip("/")
        path = unquote(urlsplit(url).path)
        return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            import fsspec  # imported late: a driver has no fsspec

            if self._scheme in ("", "file"):
                files = fsspec.filesystem("file")
                self._opened = files, str(files._strip_protocol(local_path(self.location)))
            else:
                files, root = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
                self._opened = files, str(root).rstrip("/")
        return self._opened

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Convert exceptions of a file system to the error of this package."""
        where = f"{self.location}/{path}".rstrip("/")
        try:
            yield
        except ImportError as error:
            raise refusals.library_missing(f"a folder on {self._scheme}", EXTRAS.get(self._scheme), error) from error
        except PermissionError as error:
            raise refusals.denied(where, error) from error
        except FileNotFoundError as error:
            raise LedgerUnreadable(
                seen=f"{where} does not exist",
                expected="a file that the metadata of the sink names",
                do="restore the file, or run the audit again if the job has just removed it",
            ) from error
        except Exception as error:  # each library has its own exceptions, such as botocore's and the HTTP clients'
            raise refusals.no_answer(where, error) from error
