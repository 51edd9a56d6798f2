"""Bugs of Spark that end a healthy query once: the driver starts the query again, under the same epoch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBug:
    """A bug that ends a query whose next start goes on.

    :ivar issue: its number in Spark's tracker.
    :ivar versions: of Spark, as a pattern for the whole text.
    :ivar trace: pattern of what it leaves in the JVM's stack trace.
    """

    issue: str
    versions: re.Pattern[str]
    trace: re.Pattern[str]


KNOWN_BUGS = (
    # The query that resumes a planned batch never asks Kafka for the ends before it reports its progress, after the
    # commit of that batch (seen on 4.1.1; SPARK-57438 is the same; 4.2.0 has the fix).
    KnownBug(
        issue="SPARK-55271",
        versions=re.compile(r"4\.1\.[0-2](\D.*)?"),
        trace=re.compile(r"NullPointerException.*\bat \S+\.KafkaMicroBatchStream\S*\.metrics\(", re.DOTALL),
    ),
)


class BugsMet:
    """The known bugs that one driver has met: each is excused once.

    :param version: of Spark.
    """

    def __init__(self, version: str) -> None:
        self._left = [bug for bug in KNOWN_BUGS if bug.versions.fullmatch(version)]

    def excuse(self, error: BaseException) -> KnownBug | None:
        """Return the bug that ended a query, if it may be started again; None for any other error, and the second time.

        :param error: what PySpark raised; the JVM's stack trace is not in its text by default.
        """
        trace = f"{error}\n{getattr(error, '_stackTrace', '')}"
        found = next((bug for bug in self._left if bug.trace.search(trace)), None)
        if found is not None:
            self._left.remove(found)
        return found
