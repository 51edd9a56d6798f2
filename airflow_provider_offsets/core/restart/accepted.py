"""Parsers for what a person accepts by number: offset counts by topic, and durations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.strict_json import read_json
from airflow_provider_offsets.errors import InputRefused

TOPIC = re.compile("[A-Za-z0-9._-]{1,249}", re.ASCII)
COUNT = re.compile(rf"(?P<topic>{TOPIC.pattern})\s*:\s*(?P<count>[0-9]{{1,18}})", re.ASCII)


def read_counts(given: Any, name: str) -> dict[str, int]:
    """Return the accepted maximum count of offsets, by topic.

    :param given: ``{"flights": 3}``, the same as JSON text, or ``flights:3, orders:10``; an empty value accepts
        nothing.
    :param name: name of the setting, for the error message.
    :raises InputRefused: a part cannot be read; the message quotes the part.
    """
    if not given:
        return {}
    if isinstance(given, str):
        if hidden := hidden_character(given, inside_only=True):
            raise _refused(name, f"{given!r} with {hidden}")
        text = given.strip()
        given = _object(text, name) if text.startswith("{") else _pairs(text, name)
    if not isinstance(given, Mapping):
        raise _refused(name, f"{given!r}")
    for topic, count in given.items():
        if not isinstance(topic, str) or not TOPIC.fullmatch(topic) or type(count) is not int or count < 0:
            raise _refused(name, f"{topic!r}: {count!r}")
    return dict(given)


def read_seconds(given: Any, name: str) -> int:
    """Return a duration as a whole number of seconds, 0 or more; 0 for an empty value.

    :param given: a number, its text, or an empty value.
    :param name: name of the setting, for the error message.
    :raises InputRefused: the value is no such number; the message quotes the value.
    """
    text = str(given if given is not None else "").strip(" ")
    if isinstance(given, bool) or not re.fullmatch(r"[0-9]{0,9}", text, re.ASCII):
        raise InputRefused(
            seen=f"{name} is {given!r}",
            expected="a whole number of seconds, of at most 9 digits",
            do="write the seconds as in 1800",
        )
    return int(text or 0)


def _object(text: str, name: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise _refused(name, f"{text!r} ({error})") from error


def _pairs(text: str, name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        found = COUNT.fullmatch(part)
        if found is None or found["topic"] in counts:
            raise _refused(name, f"{part!r}{' a second time' if found else ''} in {text!r}")
        counts[found["topic"]] = int(found["count"])
    return counts


def _refused(name: str, seen: str) -> InputRefused:
    return InputRefused(
        seen=f"{name} has {seen}",
        expected="each topic once, with the greatest count of offsets that is accepted",
        do='write the counts as in flights:3, orders:10, or {"flights": 3, "orders": 10}',
    )
