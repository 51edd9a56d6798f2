"""The jars of a job on this machine."""

from __future__ import annotations

import glob

from airflow_provider_offsets.errors import InputRefused


def local_jars(patterns: str) -> list[str]:
    """Return the jars that a comma-separated list with wildcards names; a URL is returned unchanged.

    :raises InputRefused: a pattern matches no file.
    """
    found: list[str] = []
    for pattern in filter(None, patterns.split(",")):
        matches = sorted(glob.glob(pattern)) if "://" not in pattern else [pattern]
        if not matches:
            raise InputRefused(
                seen=f"jar {pattern!r} does not exist",
                expected="each entry of job.jars to match at least one file on this machine",
                do="correct job.jars, or copy the jar to this machine",
            )
        found.extend(matches)
    return found
