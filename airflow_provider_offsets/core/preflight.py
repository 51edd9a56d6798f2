"""Findings of a preflight: what a start of the job needs, asked while the job still runs."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PACKAGE_RUNTIME = "airflow_provider_offsets.runtime"
"""The module that a tracked job imports. spark-submit ships it, so it can fail only on too old a Python."""


class Outcome(enum.Enum):
    """Answer to one question of a preflight."""

    OK = "ok"
    WARNING = "warning"
    """The start may work. A person should look at it."""
    PROBLEM = "problem"
    """The start would fail."""


@dataclass(frozen=True)
class Finding:
    """One question of a preflight, and its answer."""

    subject: str
    """What was looked at, such as ``checkpoint``."""
    outcome: Outcome
    seen: str
    do: str = ""
    """What a person should do; empty if there is nothing to do."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.seen}" + (f" ({self.do})" if self.do else "")


@dataclass(frozen=True)
class Driver:
    """What a process sees that spark-submit starts with the jars, packages and files of a job."""

    spark: str
    """Version of Spark's jars, such as ``4.2.0``."""
    pyspark: str
    """Version of the PySpark that this process imports."""
    python: str
    """Version and path of the driver's Python."""
    connector: str
    """File name of the jar with Spark's Kafka source; empty if there is none."""
    missing: dict[str, str]
    """The error by module, for each needed module that cannot be imported."""


def problems_in(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings for which a start would fail."""
    return tuple(each for each in findings if each.outcome is Outcome.PROBLEM)


def driver_findings(driver: Driver) -> Iterator[Finding]:
    """Yield the findings about Spark, the driver's Python and the Kafka connector."""
    if driver.pyspark == driver.spark:
        yield Finding("spark", Outcome.OK, f"Spark {driver.spark}")
    else:
        yield Finding(
            "spark",
            Outcome.PROBLEM,
            f"spark-submit runs Spark {driver.spark}, and its Python imports PySpark {driver.pyspark}",
            "install one version only: uninstall pyspark and pyspark-client, then install pyspark"
            f"=={driver.spark}, or correct SPARK_HOME",
        )
    if driver.connector:
        yield Finding("Kafka connector", Outcome.OK, driver.connector)
    else:
        yield Finding(
            "Kafka connector",
            Outcome.PROBLEM,
            "no jar and no package of the job has Spark's Kafka source",
            f"add org.apache.spark:spark-sql-kafka-0-10_2.13:{driver.spark} to job.packages, or its jars to job.jars"
            " (Scala 2.12 for Spark 3.5)",
        )
    if not driver.missing:
        yield Finding("driver's Python", Outcome.OK, driver.python)
    for module, error in driver.missing.items():
        yield Finding(
            "driver's Python",
            Outcome.PROBLEM,
            f"Python {driver.python} cannot import {module}: {error}",
            "use Python 3.9 or newer for the driver (PYSPARK_PYTHON)"
            if module == PACKAGE_RUNTIME
            else f"install {module} in that Python: the driver writes to the offset store",
        )
