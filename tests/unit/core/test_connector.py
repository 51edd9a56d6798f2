"""Versions of Spark and of its Kafka connector that do not fit together."""

from __future__ import annotations

import re

import pytest

from airflow_provider_offsets.core.connector import version_findings

CONNECTOR = "org.apache.spark:spark-sql-kafka-0-10_"


@pytest.mark.parametrize(
    ("spark", "jar", "breaks", "words"),
    [
        ("2.13-4.1.1", f"{CONNECTOR}2.13:4.2.0", True, r"NoSuchMethodError.*spark-sql-kafka-0-10_2\.13:4\.1\.1"),
        ("2.13-4.0.1", "/jars/spark-sql-kafka-0-10_2.13-4.2.0.jar", True, "needs Spark 4.2, and Spark is 4.0.1"),
        (
            "2.12-3.5.7",
            f"{CONNECTOR}2.13:3.5.7",
            True,
            r"and Spark 3\.5\.7 has Scala 2\.12.*Use \S+2\.12:3\.5\.7",
        ),
        ("2.13-4.2.0", "spark-sql-kafka-0-10-assembly_2.12-4.2.0.jar", True, r"has Scala 2\.13"),
        ("2.13-4.2.1", f"{CONNECTOR}2.13:4.2.1", False, r"'unresolved dependency'.*use spark-sql-kafka\S+:4\.2\.0"),
        ("2.13-4.3.0", f"{CONNECTOR}2.13:4.3.0", False, r"a version up to 4\.2\.0"),
        ("2.13-4.0.1", f"{CONNECTOR}2.13:3.5.7", False, r"not tested with Spark 4\.0\.1"),
        ("2.13-4.0.1", f"{CONNECTOR}2.13:4.1.1", False, r"not tested with Spark 4\.0\.1"),
    ],
)
def test_versions_that_do_not_fit(spark: str, jar: str, breaks: bool, words: str) -> None:
    [found] = version_findings(f"spark-core_{spark}.jar", ["other.jar", jar])

    assert found.breaks is breaks
    assert re.search(words, str(found)), str(found)


@pytest.mark.parametrize(
    ("spark", "jar"),
    [
        ("2.12-3.5.7", f"{CONNECTOR}2.12:3.5.7"),
        ("2.13-4.0.1", f"{CONNECTOR}2.13:4.0.0"),
        ("2.13-4.2.0", "/jars/spark-sql-kafka-0-10_2.13-4.2.0.jar"),
        ("2.13-4.2.1", "/jars/spark-sql-kafka-0-10_2.13-4.2.0.jar"),
        ("2.13-4.3.0", f"{CONNECTOR}2.13:4.2.0"),
        ("2.12-3.5.4.7.1.9.1000-103", f"{CONNECTOR}2.12:3.5.4.7.1.9.1000-103"),
        ("2.13-4.3.0", "/jars/spark-sql-kafka-0-10_2.13-4.3.0.jar"),
    ],
)
def test_versions_that_fit(spark: str, jar: str) -> None:
    assert list(version_findings(f"/opt/spark/jars/spark-core_{spark}.jar", [jar])) == []


@pytest.mark.parametrize("spark", ["2.12-3.4.4", "2.13-4.4.0", "2.13-5.0.0"])
def test_a_version_outside_of_the_tested_ones_is_named(spark: str) -> None:
    [found] = version_findings(f"spark-core_{spark}.jar", [])

    assert not found.breaks
    assert "Spark 3.5 to 4.3" in found.expected


def test_an_unknown_spark_has_no_findings() -> None:
    assert list(version_findings("", [f"{CONNECTOR}2.13:4.2.0"])) == []
