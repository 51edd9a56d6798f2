"""A marker file: asks an untracked job to stop, if its program looks for such a file."""

from __future__ import annotations

import fsspec


def place_marker(location: str, text: str) -> None:
    """Write or replace the marker on any file system that fsspec supports (``/path``, ``hdfs://…``).

    :param location: path or URL of the marker.
    :param text: content for people who find the file.
    """
    file_system, path = fsspec.core.url_to_fs(location)
    file_system.makedirs(file_system._parent(path), exist_ok=True)
    file_system.pipe_file(path, text.encode())


def remove_marker(location: str) -> None:
    """Remove the marker if it exists. A job that finds the marker when it starts ends at once."""
    file_system, path = fsspec.core.url_to_fs(location)
    if file_system.exists(path):
        file_system.rm_file(path)
