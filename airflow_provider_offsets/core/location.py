"""Locations of checkpoints, and their spellings."""

from __future__ import annotations

import posixpath
import re


def plain_path(location: str) -> str:
    """Return a path or URL in its shortest form, so that two spellings of one folder are equal."""
    scheme, separator, path = re.sub("^file:(//)?", "", location).rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(path)}"
