"""A preflight with the real spark-submit: what a job would die of after its stop is found while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_offsets.operators import PreflightOperator
from tests.e2e.lab import Lab, act


def outcomes(found: list[dict[str, str]]) -> dict[str, str]:
    return {each["subject"]: each["outcome"] for each in found}


def test_a_job_that_can_start(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()

    answer = act(lab.task(PreflightOperator, "check"))

    found = outcomes(answer["findings"])
    assert found.pop("sink") == "warning"
    assert set(found.values()) == {"ok"}
    seen = {each["subject"]: each["seen"] for each in answer["findings"]}
    assert seen["Kafka connector"].startswith("spark-sql-kafka-0-10_2.13-")
    assert seen["Kafka"].startswith("3 partitions of ")
    assert not lab.home.joinpath("checkpoint").exists(), "the job and its checkpoint are not touched"


def test_a_missing_connector_and_packages_that_do_not_exist_are_found_before_the_stop(
    make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    """E5: the plan passed, and the submit failed when the job was stopped."""
    lab = make_lab(jars="")
    lab.produce(5, 0)

    with pytest.raises(AirflowFailException, match="no jar and no package of the job has Spark's Kafka source"):
        act(lab.task(PreflightOperator, "check"))

    pipeline = replace(lab.pipeline, job=replace(lab.pipeline.job, packages="no.such.group:nothing:1"))
    with pytest.raises(AirflowFailException, match=r"unresolved dependency: no\.such\.group#nothing;1"):
        act(lab.task(PreflightOperator, "check", pipeline=pipeline))
