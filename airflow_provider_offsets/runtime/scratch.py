"""Check that files which a replay writes are safe from the other jobs that write to the same folder."""

from __future__ import annotations

from typing import Any

from airflow_provider_offsets.core.committer import CONSULTED, PROTOCOL, SPARK_PROTOCOL, shared_scratch
from airflow_provider_offsets.errors import InputRefused


def refuse_shared_scratch(spark: Any) -> None:
    """Raise if what the session writes to a folder could be removed by another job that writes there.

    The plan has checked the pipeline's conf. The installation and the program may set more.

    :raises InputRefused: the session uses another output committer that is not known to be safe.
    """
    found = {key: spark.conf.get(key, None) for key in CONSULTED}
    if why := shared_scratch({key: value for key, value in found.items() if value is not None}):
        raise InputRefused(
            seen=f"the program or this Spark installation sets {why}",
            expected="an output committer whose open files no other job removes",
            do=f"remove that setting, or set {PROTOCOL} to {SPARK_PROTOCOL} in job.conf; then restart the job",
        )
