"""A marker file: asks an untracked job to stop, if its program looks for such a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec

from airflow_provider_offsets.errors import InputRefused, StoreUnreachable


def place_marker(location: str, text: str) -> None:
    """Write or replace the marker on any file system that fsspec supports (``/path``, ``hdfs://…``).

    :param location: path or URL of the marker.
    :param text: content for people who find the file.
    :raises InputRefused: the file cannot be created there.
    :raises StoreUnreachable: the file system does not answer.
    """
    with _as_our_error(location):
        file_system, path = fsspec.core.url_to_fs(location)
        file_system.makedirs(file_system._parent(path), exist_ok=True)
        file_system.pipe_file(path, text.encode())


def remove_marker(location: str) -> None:
    """Remove the marker if it exists. A job that finds the marker when it starts ends at once."""
    with _as_our_error(location):
        file_system, path = fsspec.core.url_to_fs(location)
        if file_system.exists(path):
            file_system.rm_file(path)


@contextmanager
def _as_our_error(location: str) -> Iterator[None]:
    """Convert the error of a file system: a path that cannot be is not tried again, and any other error is."""
    try:
        yield
    except (
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
        ImportError,
        ValueError,
    ) as error:
        raise InputRefused(
            seen=f"marker {location!r}: {error}",
            expected="a file that the user of Airflow's tasks may create and remove",
            do="correct stop.marker, or the rights of its folder",
        ) from error
    except OSError as error:
        raise StoreUnreachable(
            seen=f"marker {location!r}: {error}",
            expected="an answer from the file system",
            do="repair the file system, and run the task again",
        ) from error
