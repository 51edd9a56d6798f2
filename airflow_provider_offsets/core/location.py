"""Locations of checkpoints, and their spellings."""

from __future__ import annotations

import posixpath
import re

_ROOT = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://[^/]*)?")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)


def local_path(location: str) -> str:
    """Return the path of a location on this machine, as Hadoop's ``Path`` reads it: ``#`` and ``?`` belong to the name.

    :param location: a path, or a URL of the scheme ``file``.
    """
    path = re.sub("^file:(//[^/]*)?", "", location)
    return path if path == location else re.sub("^/+", "/", path)


def scheme_of(location: str) -> str:
    """Return the scheme of a location in lower case, or an empty text for a path.

    As in Hadoop's ``Path``, a colon after the first ``/`` belongs to the path.
    """
    head, colon, _ = location.partition(":")
    return head.lower() if colon and "/" not in head else ""


def normal_url(location: str) -> str:
    """Return a URL whose path Hadoop's ``Path`` has normalized: without ``.``, ``..``, and slashes without a name.

    :param location: a URL with ``://``; anything else is returned unchanged.
    """
    url = _URL.fullmatch(location)
    if url is None:
        return location
    path = _normal(url[3]) if url[3] else ""
    return f"{url[1]}://{url[2]}{'' if path == '/' else path}"


def resolved(location: str) -> str:
    """Return a location without ``.``, ``..`` and slashes that name nothing, so that a suffix names a folder beside it.

    Scheme and host stay as they are, because Spark chooses a file system by them.
    """
    found = _ROOT.match(location)
    root, path = location[: found.end()] if found else "", location[found.end() :] if found else location
    segments = path.rstrip("/").split("/")
    if {".", ".."} & set(segments) or "" in segments[1:]:
        path = _normal(path)
    return root + (path.rstrip("/") or path[:1])


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
    plain = local_path(resolved(location))
    url = _URL.fullmatch(plain)
    root, path = (f"{url[1]}://{url[2]}", url[3]) if url is not None else ("", plain)
    folder, _, name = path.rstrip("/").rpartition("/")
    if not folder and (root or path.startswith("/")):
        folder = "/"
    return f"{root}{folder}" or ".", name


def _normal(path: str) -> str:
    # POSIX leaves the meaning of two slashes at the start open, so normpath keeps both.
    return re.sub("^//", "/", posixpath.normpath(path))
