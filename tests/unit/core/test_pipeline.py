"""Another version of a pipeline's program is accepted only from the folder of that program."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from airflow_provider_offsets.errors import InputRefused


def pipeline(application: str) -> StreamingPipeline:
    return StreamingPipeline("alerts", ("flights",), SparkJob(application, "/checkpoint"))


@pytest.mark.parametrize(
    ("of_pipeline", "given", "expected", "reason"),
    [
        ("/jobs/alerts.py", "", "/jobs/alerts.py", "nothing was asked for"),
        ("/jobs/alerts.py", "alerts_2.py", "/jobs/alerts_2.py", "a file beside it"),
        ("/jobs/alerts.py", "/jobs/old/alerts.py", "/jobs/old/alerts.py", "below its folder"),
        ("/jobs/alerts.py", "old/../alerts_2.py", "/jobs/alerts_2.py", "it stays inside"),
    ],
)
def test_a_version_from_the_same_folder(of_pipeline: str, given: str, expected: str, reason: str) -> None:
    assert pipeline(of_pipeline).with_application(given).job.application == expected, reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("/etc/passwd", "somewhere else"),
        ("../evil.py", "out of the folder"),
        ("old/../../evil.py", "out of it by a detour"),
        ("/jobs2/alerts.py", "a folder whose name only begins alike"),
        ("https://evil.example/a.py", "Spark would fetch and run it"),
    ],
)
def test_nothing_else_is_executed(given: str, reason: str) -> None:
    with pytest.raises(InputRefused, match=r"for pipeline 'alerts'\. Expected a file in '/jobs'"):
        pipeline("/jobs/alerts.py").with_application(given)
