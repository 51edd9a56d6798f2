"""Whether Spark and its Kafka connector fit together, by their versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FIRST_TESTED, LAST_TESTED = (3, 5), (4, 3)
"""The first and the last minor version of Spark that tracked jobs are tested with: see docs/versions.md."""
LAST_CONNECTOR = (4, 2, 0)
"""The newest connector that existed on Maven Central when the versions were tested, on 2026-11-30."""
TESTED_TOGETHER = {((4, 3), (4, 2))}
"""Minor versions of Spark and of the connector that differ and were tested together."""

_CONNECTOR = re.compile(r"\bspark-sql-kafka-0-10(?:-assembly)?_(\d+\.\d+)[:-](\d+)\.(\d+)\.(\d+)")
_SPARK = re.compile(r"\bspark-core_(\d+\.\d+)-(\d+)\.(\d+)\.(\d+)[^/]*\.jar$")


@dataclass(frozen=True)
class VersionFinding:
    """Versions that do not fit together, or that were not tested.

    :ivar breaks: whether the job is known to fail.
    """

    breaks: bool
    seen: str
    expected: str
    do: str

    def __str__(self) -> str:
        return f"{self.seen}. Expected {self.expected}. {self.do[:1].upper()}{self.do[1:]}."


@dataclass(frozen=True)
class _Version:
    scala: str
    number: tuple[int, int, int]

    @property
    def minor(self) -> tuple[int, int]:
        return self.number[:2]

    def __str__(self) -> str:
        return ".".join(map(str, self.number))


def version_findings(core_jar: str, jars: Iterable[str]) -> Iterator[VersionFinding]:
    """Yield what is wrong with the versions of a tracked job's Spark and Kafka connector; nothing if they are unknown.

    :param core_jar: name of the jar in Spark's own folder that has its versions: ``spark-core_2.13-4.2.0.jar``.
    :param jars: jars of the job: Maven coordinates, paths and URLs.
    """
    spark = _version(_SPARK, core_jar)
    if spark is None:
        return
    if not FIRST_TESTED <= spark.minor <= LAST_TESTED:
        yield VersionFinding(
            breaks=False,
            seen=f"Spark {spark} is outside of the tested versions",
            expected=f"Spark {_dotted(FIRST_TESTED)} to {_dotted(LAST_TESTED)}",
            do="rehearse a maintenance before you rely on it",
        )
    for jar in jars:
        connector = _version(_CONNECTOR, jar)
        if connector is not None:
            yield from _pair_findings(spark, connector, jar)


def _pair_findings(spark: _Version, connector: _Version, jar: str) -> Iterator[VersionFinding]:
    fitting = f"spark-sql-kafka-0-10_{spark.scala}:{_dotted(min(spark.number, LAST_CONNECTOR))}"
    if connector.scala != spark.scala:
        yield VersionFinding(
            breaks=True,
            seen=f"the Kafka connector {jar} is for Scala {connector.scala}, and Spark {spark} has Scala {spark.scala}",
            expected="the connector of Spark's own Scala",
            do=f"use {fitting}",
        )
    elif connector.minor >= (4, 2) > spark.minor:
        yield VersionFinding(
            breaks=True,
            seen=f"the Kafka connector {jar} needs Spark 4.2, and Spark is {spark}: the query would end with"
            " NoSuchMethodError, HDFSMetadataLog",
            expected="the connector of Spark's own version",
            do=f"use {fitting}, or a newer Spark",
        )
    elif connector.number > LAST_CONNECTOR and ":" in jar and "://" not in jar:
        yield VersionFinding(
            breaks=False,
            seen=f"the Kafka connector {jar} did not exist when this provider was tested",
            expected=f"a version up to {_dotted(LAST_CONNECTOR)}, or spark-submit ends with 'unresolved dependency'",
            do=f"check that Maven has it, or use {fitting}",
        )
    elif connector.minor != spark.minor and (spark.minor, connector.minor) not in TESTED_TOGETHER:
        yield VersionFinding(
            breaks=False,
            seen=f"the Kafka connector {jar} was not tested with Spark {spark}",
            expected="the connector of Spark's own version",
            do=f"use {fitting}",
        )


def _version(pattern: re.Pattern[str], name: str) -> _Version | None:
    found = pattern.search(name)
    return None if found is None else _Version(found[1], (int(found[2]), int(found[3]), int(found[4])))


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
