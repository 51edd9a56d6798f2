"""The jars of a job on this machine."""

from __future__ import annotations

import glob
import os

from airflow_provider_offsets.core.location import local_path, scheme_of
from airflow_provider_offsets.errors import InputRefused


def local_jars(patterns: str) -> list[str]:
    """Return the jars that a comma-separated list with wildcards names; a URL of another machine is unchanged.

    :raises InputRefused: a pattern matches no file, or something that is no file.
    """
    found: list[str] = []
    for pattern in filter(None, patterns.split(",")):
        if scheme_of(pattern) not in ("", "file"):
            found.append(pattern)
            continue
        matches = sorted(glob.glob(local_path(pattern)))
        broken = [each for each in matches if not os.path.isfile(each)]
        if not matches or broken:
            raise InputRefused(
                seen=f"jar {broken[0]!r} is not a file" if broken else f"jar {pattern!r} does not exist",
                expected="each entry of job.jars to match at least one file on this machine, and only files",
                do="correct job.jars, or copy the jar to this machine",
            )
        found.extend(matches)
    return found
