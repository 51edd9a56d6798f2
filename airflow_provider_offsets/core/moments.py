"""Timestamps and durations as people write them (ISO 8601), in whole milliseconds."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from airflow_provider_offsets.core.limits import LAST_TIME_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MS = timedelta(milliseconds=1)
_DAY_MS, _HOUR_MS, _MINUTE_MS, _SECOND_MS = 86_400_000, 3_600_000, 60_000, 1_000
_LENGTH = re.compile(
    r"P(?=[\dT])(?:(?P<weeks>\d{1,5})W|(?:(?P<days>\d{1,6})D)?(?:T(?=\d)(?:(?P<hours>\d{1,8})H)?(?:(?P<minutes>\d{1,9})M)?"
    r"(?:(?P<seconds>\d{1,12})(?:[.,](?P<fraction>\d{1,3}))?S)?)?)",
    re.ASCII,
)


def whole_moment_ms(text: str) -> int:
    """Return the milliseconds since 1970 of a date and time that a program wrote, rounded down.

    :raises ValueError: as ``read_moment``.
    """
    return read_moment(_moment(text).isoformat(timespec="milliseconds"))


def read_moment(text: str) -> int:
    """Return the milliseconds since 1970 of a date and time with its zone, such as ``2026-11-01T00:00Z``.

    :raises ValueError: another form, no zone, finer than a millisecond, or not between 1970 and 2286.
    """
    try:
        moment = _moment(text.strip(" "))
    except ValueError as error:
        raise ValueError("it is not a date and time of ISO 8601") from error
    if moment.utcoffset() is None:
        raise ValueError("it has no time zone")
    since = moment - _EPOCH
    if since % _MS:
        raise ValueError("it is finer than a millisecond")
    moment_ms = since // _MS
    if not 0 <= moment_ms <= LAST_TIME_MS:
        raise ValueError("it is not between 1970 and 2286")
    return moment_ms


def _moment(text: str) -> datetime:
    """Return a date and time of ISO 8601. Python reads no ``Z`` of its own before 3.11."""
    return datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)


def moment_text(moment_ms: int) -> str:
    """Return a timestamp in UTC, such as ``2026-11-01T00:00:00Z``."""
    moment = _EPOCH + moment_ms * _MS
    spec = "milliseconds" if moment_ms % _SECOND_MS else "seconds"
    return moment.isoformat(timespec=spec).replace("+00:00", "Z")


def read_length(text: str) -> int:
    """Return the milliseconds of a duration, such as ``PT1H30M``, ``P7D`` or ``P2W``. A day has 24 hours.

    :raises ValueError: another form, or years or months, whose length varies.
    """
    text = text.strip(" ")
    if re.match(r"P[^T]*\d[YM]", text):
        raise ValueError("years and months vary in length")
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise ValueError("it is not a duration of ISO 8601")
    of = {name: int(digits) for name, digits in found.groupdict("0").items() if name != "fraction"}
    whole_ms = (of["weeks"] * 7 + of["days"]) * _DAY_MS + of["hours"] * _HOUR_MS + of["minutes"] * _MINUTE_MS
    return whole_ms + of["seconds"] * _SECOND_MS + int((found["fraction"] or "").ljust(3, "0"))


def length_text(length_ms: int) -> str:
    """Return a duration in days, hours, minutes and seconds, such as ``P1DT2H``."""
    days, rest = divmod(length_ms, _DAY_MS)
    hours, rest = divmod(rest, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    seconds, ms = divmod(rest, _SECOND_MS)
    exact = f"{seconds}.{ms:03}".rstrip("0") if ms else str(seconds)
    of_day = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M")) if count)
    of_day += f"{exact}S" if seconds or ms or not (days or of_day) else ""
    return f"P{f'{days}D' if days else ''}{f'T{of_day}' if of_day else ''}"
