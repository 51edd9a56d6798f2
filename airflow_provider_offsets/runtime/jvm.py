"""Whether Spark's JVM is still there, after a user's function.

``DataFrame.collect()`` reads rows from a socket until it ends. If the JVM is killed meanwhile it ends early, and the
function is given a part of its rows for the whole, with no error (``_load_from_socket`` and ``Serializer.load_stream``,
seen on PySpark 4.2.0). So nothing is recorded as finished before the JVM has answered once more.
"""

from __future__ import annotations

from typing import Any


def require_jvm(spark: Any) -> None:
    """Ask the JVM of a session for something; what py4j raises if it is gone ends the query, or the shard."""
    spark.conf.get("spark.app.id", "")
