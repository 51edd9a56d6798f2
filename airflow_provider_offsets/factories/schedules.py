"""Schedules and data intervals as ``pipelines.yaml`` has them: a cron expression, a preset, or an ISO 8601 duration.

All of them count in UTC, whatever time zone Airflow has by default.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from airflow.exceptions import AirflowTimetableInvalid
from airflow.timetables.interval import CronDataIntervalTimetable
from pendulum import DateTime

from airflow_provider_offsets.core.moments import read_length, read_moment
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.errors import InputRefused

FIRST_DAY = datetime(2020, 1, 1, tzinfo=timezone.utc)
"""Start date of each DAG with a schedule. Its time zone is that of the cron expression.

Without a start date, Airflow's @continuous gives the second run the logical date of the first, and never runs it.
"""

_NO_INTERVAL = ("@once", "@continuous")
"""Presets of Airflow that are schedules, and that divide no time into intervals."""
_SHORTEST = timedelta(seconds=1)
_LONGEST = timedelta(days=3660)
"""Airflow's scheduler adds a length to a date, and subtracts it: a date has at most four digits of a year."""


def schedule_of(key: str, text: str | None) -> str | timedelta | None:
    """Return the schedule of a DAG, as Airflow takes it.

    :param key: name of the key, for the error message.
    :param text: cron expression, preset or duration; None for a DAG without a schedule.
    :raises InputRefused: the text is none of these.
    """
    if text is None or text in _NO_INTERVAL:
        return text
    return interval_of(key, text)


def interval_of(key: str, text: str) -> str | timedelta:
    """Return the length of a data interval, or its cron expression or preset.

    :param key: name of the key, for the error message.
    :param text: cron expression, preset or duration.
    :raises InputRefused: the text is none of these, has no date, or is shorter than a second.
    """
    if text in _NO_INTERVAL:
        raise _refused(key, text, "it divides no time into intervals")
    if text.startswith("P"):
        return _length_of(key, text)
    fields = len(text.split())
    if not text.startswith("@") and fields != 5:
        raise _refused(key, text, f"it has {fields} fields, and a cron expression has 5")
    if re.search(r"\bR\b", text):
        raise _refused(key, text, "its times are drawn by chance")
    try:
        timetable = CronDataIntervalTimetable(text, timezone="UTC")
        timetable.validate()
        timetable.infer_manual_data_interval(run_after=DateTime(2020, 1, 1, tzinfo=timezone.utc))
    except (AirflowTimetableInvalid, ValueError) as error:
        raise _refused(key, text, str(error)) from error
    return text


def _length_of(key: str, text: str) -> timedelta:
    try:
        length = timedelta(milliseconds=read_length(text))
    except ValueError as error:
        raise _refused(key, text, error) from error
    if length < _SHORTEST:
        raise _refused(key, text, "it is shorter than a second")
    if length > _LONGEST:
        raise _refused(key, text, "it is longer than ten years")
    return length


def require_since(policy: BackfillPolicy) -> None:
    """Raise if ``backfill.since`` is no time, or has no effect.

    :raises InputRefused: it is not a date and time with a zone, or ``automatic`` is off.
    """
    if not policy.since:
        return
    try:
        read_moment(policy.since)
    except ValueError as error:
        raise InputRefused(
            seen=f"backfill.since {policy.since!r}: {error}",
            expected="a date and time with its zone, as in 2026-11-01T00:00Z",
            do="correct backfill.since",
        ) from error
    if not policy.automatic:
        raise InputRefused(
            seen=f"backfill.since {policy.since!r}: automatic is off",
            expected="automatic: true beside it",
            do="correct backfill.since",
        )


def _refused(key: str, text: str, why: object) -> InputRefused:
    return InputRefused(
        seen=f"{key} {text!r}: {why}",
        expected="a cron expression of five fields (in UTC), a preset such as @daily, or a duration such as PT6H",
        do=f"correct {key}",
    )
