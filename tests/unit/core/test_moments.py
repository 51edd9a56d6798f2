"""Times and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.core.moments import length_text, moment_text, read_length, read_moment

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01T01:00:00.250+01:00", 250),
        ("1970-01-01 02:00:00-01:00", 3 * HOUR),
        ("2026-11-01T00:00:00Z", 1_793_491_200_000),
        ("20261101T000000Z", 1_793_491_200_000),
    ],
)
def test_a_moment_has_a_zone(text: str, moment_ms: int) -> None:
    assert read_moment(text) == moment_ms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-11-01T00:00", "no time zone"),
        ("2026-11-01", "no time zone"),
        ("yesterday", "not a date and time"),
        ("", "not a date and time"),
        ("1793491200000", "not a date and time"),
        ("2026-11-01T00:00:00.0001Z", "finer than a millisecond"),
        ("1969-12-31T23:59:59Z", "between 1970 and 2286"),
        ("1970-01-01T00:00+01:00", "between 1970 and 2286"),
        ("9999-12-31T23:59-12:00", "between 1970 and 2286"),
        ("0001-01-01T00:00+12:00", "between 1970 and 2286"),
    ],
)
def test_what_is_no_moment_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_moment(text)


@pytest.mark.parametrize(
    ("text", "length_ms"),
    [
        ("PT1H", HOUR),
        ("PT1H30M", 90 * 60_000),
        ("PT90M", 90 * 60_000),
        ("P1D", 24 * HOUR),
        ("P1DT12H", 36 * HOUR),
        ("P2W", 14 * 24 * HOUR),
        ("PT0.5S", 500),
        ("PT1,250S", 1_250),
        ("PT0S", 0),
    ],
)
def test_a_duration_has_a_fixed_length(text: str, length_ms: int) -> None:
    assert read_length(text) == length_ms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("P1M", "years and months vary in length"),
        ("P1Y", "years and months vary in length"),
        ("P1Y2M3DT4H", "years and months vary in length"),
        ("P", "not a duration"),
        ("PT", "not a duration"),
        ("P1DT", "not a duration"),
        ("P1W2D", "not a duration"),
        ("PT1H ago", "not a duration"),
        ("-PT1H", "not a duration"),
        ("1h", "not a duration"),
        ("PT1.5H", "not a duration"),
        ("PT0.0001S", "not a duration"),
        ("pt1h", "not a duration"),
        ("PT١H", "not a duration"),
        ("", "not a duration"),
    ],
)
def test_what_is_no_duration_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_length(text)


@given(st.integers(0, LAST_TIME_MS))
def test_a_moment_comes_back_from_its_text(moment_ms: int) -> None:
    assert read_moment(moment_text(moment_ms)) == moment_ms


@given(st.integers(0, LAST_TIME_MS))
def test_a_duration_comes_back_from_its_text(length_ms: int) -> None:
    assert read_length(length_text(length_ms)) == length_ms


def test_texts_are_as_short_as_they_can_be() -> None:
    texts = [length_text(each) for each in (0, 500, HOUR, 24 * HOUR, 25 * HOUR + 1)]

    assert texts == ["PT0S", "PT0.5S", "PT1H", "P1D", "P1DT1H0.001S"]
    assert (moment_text(0), moment_text(250)) == ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.250Z")
