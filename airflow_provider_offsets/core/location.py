"""Locations of checkpoints, and their spellings."""

from __future__ import annotations

import posixpath
import re

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)


def local_path(location: str) -> str:
    """Return the path of a location on this machine, as Hadoop's ``Path`` reads it: ``#`` and ``?`` belong to the name.

    :param location: a path, or a URL of the scheme ``file``.
    """
    path = re.sub("^file:(//[^/]*)?", "", location)
    return path if path == location else re.sub("^/+", "/", path)


def plain_path(location: str) -> str:
    """Return a path or URL in its shortest form, so that two spellings of one folder are equal.

    Hadoop ignores the case of scheme and host.
    """
    url = _URL.fullmatch(local_path(location))
    if url is not None:
        scheme, host, path = url.groups()
        return f"{scheme.lower()}://{host.lower()}{_normal(path or '/')}"
    return _normal(local_path(location))


def above(location: str) -> tuple[str, str]:
    """Return the folder in which a location is, and the name of the location there.

    :param location: a path, or a URL with a path.
    """
    url = _URL.fullmatch(local_path(location))
    root, path = (f"{url[1]}://{url[2]}", url[3]) if url is not None else ("", local_path(location))
    folder, _, name = path.rstrip("/").rpartition("/")
    if not folder and (root or path.startswith("/")):
        folder = "/"
    return f"{root}{folder}" or ".", name


def _normal(path: str) -> str:
    # POSIX leaves the meaning of two slashes at the start open, so normpath keeps both.
    return re.sub("^//", "/", posixpath.normpath(path))
