"""Spark bugs that end a healthy query once; the driver restarts the query under the same epoch."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownBug:
    """A bug that ends a query which works again after a restart.

    :ivar issue: number in Spark's issue tracker. :ivar versions: pattern that matches the whole version string of every
        affected Spark. :ivar trace: pattern that matches the bug in the JVM's stack trace.
    """

    issue: str
    versions: re.Pattern[str]
    trace: re.Pattern[str]


KNOWN_BUGS = (
    # A query that resumes a planned batch reports its progress after the commit of that batch, without having asked
    # Kafka for the end offsets (seen on 4.1.1; SPARK-57438 is the same bug). The connectors 4.1.3 and 4.2.0 have the
    # fix, Some(null) became Option(null).
    KnownBug(
        issue="SPARK-55271",
        versions=re.compile(r"4\.1\.[0-2](\D.*)?"),
        trace=re.compile(r"NullPointerException.*\bat \S+\.KafkaMicroBatchStream\S*\.metrics\(", re.DOTALL),
    ),
)


class BugsMet:
    """The known bugs that one driver may still hit; each bug is excused once.

    :param version: Spark's version.
    """

    def __init__(self, version: str) -> None:
        self._left = [bug for bug in KNOWN_BUGS if bug.versions.fullmatch(version)]

    def excuse(self, error: BaseException) -> KnownBug | None:
        """Return the bug that ended a query if the query may be restarted; None for another error or a repeated bug.

        :param error: raised by PySpark; its text does not contain the JVM's stack trace by default.
        """
        trace = f"{error}\n{getattr(error, '_stackTrace', '')}"
        found = next((bug for bug in self._left if bug.trace.search(trace)), None)
        if found is not None:
            self._left.remove(found)
        return found
