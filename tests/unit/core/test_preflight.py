"""Findings about a driver, from what a process saw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_offsets.core.preflight import PACKAGE_RUNTIME, Driver, Outcome, driver_findings, problems_in

GOOD = Driver("4.2.0", "4.2.0", "3.11.7 (/usr/bin/python3)", "spark-sql-kafka-0-10_2.13-4.2.0.jar", {})


def test_a_driver_that_has_all_it_needs_has_no_problem() -> None:
    findings = list(driver_findings(GOOD))

    assert [each.outcome for each in findings] == [Outcome.OK] * 3
    assert {each.subject for each in findings} == {"spark", "Kafka connector", "driver's Python"}


@pytest.mark.parametrize(
    ("driver", "seen", "do"),
    [
        # pip has overwritten pyspark with pyspark-client of another version (E10).
        (replace(GOOD, spark="4.2.1"), "runs Spark 4.2.1, and its Python imports PySpark 4.2.0", "pyspark==4.2.1"),
        # Neither job.jars nor job.packages has the connector (E5).
        (replace(GOOD, connector=""), "no jar and no package", "spark-sql-kafka-0-10_2.13:4.2.0"),
        # The cluster's Python has no client of the store.
        (replace(GOOD, missing={"happybase": "ModuleNotFoundError"}), "cannot import happybase", "install happybase"),
        # The cluster's Python is too old.
        (replace(GOOD, missing={PACKAGE_RUNTIME: "SyntaxError"}), f"cannot import {PACKAGE_RUNTIME}", "PYSPARK_PYTHON"),
    ],
)
def test_what_a_start_would_fail_for_is_a_problem(driver: Driver, seen: str, do: str) -> None:
    [problem] = problems_in(driver_findings(driver))

    assert seen in problem.seen
    assert do in problem.do
