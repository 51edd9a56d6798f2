"""The message of an error: three sentences, whose values keep their spelling."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.errors import OffsetsError


@pytest.mark.parametrize(
    ("reason", "parts", "message"),
    [
        (
            "each clause becomes a sentence",
            ("pipeline 'a' has no record", "a record", "run the stop task"),
            "Pipeline 'a' has no record. Expected a record. Run the stop task.",
        ),
        (
            "a partition, a path or a key keeps its first letter",
            ("flights[3] has no leader", "a leader", "job.log_dir is missing: add it"),
            "flights[3] has no leader. Expected a leader. job.log_dir is missing: add it.",
        ),
        (
            "a sentence that has its full stop gets no second one",
            ("nothing at /c", "a folder", "No action needed. Or plan again."),
            "Nothing at /c. Expected a folder. No action needed. Or plan again.",
        ),
        (
            "what follows a log begins on a line of its own",
            ("the log ends:\nKilled\n", "a first batch", "read the log"),
            "The log ends:\nKilled\nExpected a first batch. Read the log.",
        ),
        ("one word", ("nothing", "YAML", "wait"), "Nothing. Expected YAML. Wait."),
    ],
)
def test_a_message_is_three_sentences(reason: str, parts: tuple[str, str, str], message: str) -> None:
    seen, expected, do = parts

    error = OffsetsError(seen=seen, expected=expected, do=do)

    assert str(error) == message, reason
    assert (error.seen, error.expected, error.do) == parts
