"""Check after a user's function that Spark's JVM still runs.

``DataFrame.collect()`` reads rows from a socket until the socket closes. If the JVM is killed, the socket closes early.
The function then gets only some of its rows, without an error (``_load_from_socket`` and ``Serializer.load_stream``,
seen on PySpark 4.2.0). So the JVM has to answer once more before any output is recorded as complete.
"""

from __future__ import annotations

from typing import Any


def require_jvm(spark: Any) -> None:
    """Raise py4j's error if the JVM of a session is gone; the error ends the query or the shard."""
    spark.conf.get("spark.app.id", "")
