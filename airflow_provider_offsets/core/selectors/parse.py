"""Parser of a start from the text or the YAML that a person wrote. Errors quote the wrong part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.core.moments import read_length, read_moment
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.selectors.model import StartSelector
from airflow_provider_offsets.core.selectors.resolve import (
    AsOf,
    AtTimestamp,
    Before,
    Committed,
    Earliest,
    FromFile,
    FromGroup,
    FromSnapshot,
    Latest,
    Offsets,
    Shift,
    Start,
)
from airflow_provider_offsets.errors import SelectorError

FORMS = (
    "committed, earliest, latest, snapshot:<id or label>, as-of:<time>, timestamp:<time>, duration:<ISO 8601>,"
    " shift:<±n>, offsets:<json>, file:<path> or group:<id>"
)
"""Forms of a selector, for messages and trigger forms."""

COMMITTED = "committed"
"""The default start."""

FALLBACK = "|"
"""Separator between selectors."""
_WHOLE = re.compile(r"[+-]?\d{1,19}", re.ASCII)


def parse_start(text: str) -> Start:
    """Return the start that ``text`` describes: one selector, or several separated by ``|``.

    A list of offsets (``offsets:``, ``file:``) at the end is followed by ``committed``. So a partition that the list
    does not name keeps its position.

    :raises SelectorError: a part cannot be read; the message quotes the part.
    """
    if hidden := hidden_character(text, inside_only=True):
        raise SelectorError(
            seen=f"start {text!r} has {hidden}",
            expected="a selector without hidden characters",
            do="remove the character; for a group of such a name, use 'offsets:'",
        )
    parts = [_parse_one(part.strip(), text) for part in text.split(FALLBACK)]
    if isinstance(parts[-1], (Offsets, FromFile)):
        parts.append(Committed())
    return Start(tuple(parts))


def start_text(value: Any) -> str:
    """Return the text of a start from YAML: a string, or a list of strings and one-key mappings.

    :raises SelectorError: a part cannot be read; the message quotes the part.
    """
    if isinstance(value, str):
        parse_start(value)
        return value
    if not isinstance(value, list) or not value:
        raise SelectorError(
            seen=f"start {value!r} is not valid",
            expected="a selector, or a list of selectors in the order of precedence",
            do="write it as in 'committed', or as in ['as-of:2026-11-01T00:00Z', 'earliest']",
        )
    return str(parse_start(f" {FALLBACK} ".join(map(_item_text, value))))


def _item_text(item: Any) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, Mapping) or len(item) != 1:
        raise SelectorError(
            seen=f"a start contains {item!r}",
            expected="a selector as text, or as a key with a value",
            do="write it as in 'earliest', or as in {as-of: 2026-11-01T00:00Z}",
        )
    [(word, value)] = item.items()
    if hasattr(value, "isoformat"):  # YAML parses a value that looks like a time
        value = value.isoformat()
    elif isinstance(value, Mapping):
        value = json.dumps(value)
    elif not (value is None or isinstance(value, str) or type(value) is int):
        raise SelectorError(
            seen=f"a start contains {word!r} with {value!r}, which is a {type(value).__name__}",
            expected="text, a whole number, or for 'offsets' a mapping",
            do="quote the text, as in {group: 'no'}",
        )
    elif isinstance(value, str) and value != value.strip():
        raise SelectorError(
            seen=f"a start contains {word!r} with {value!r}",
            expected="a value without spaces at its ends, which Kafka's clients cut off",
            do="correct the value; for a group of such a name, use 'offsets:'",
        )
    text = str(word) if value is None else f"{word}:{value}"
    if FALLBACK in text:
        raise SelectorError(
            seen=f"a start contains {text!r}",
            expected=f"a name without {FALLBACK!r}, which stands between selectors",
            do="write each fallback as its own item; for such a group or file, use 'offsets:'",
        )
    return text


def _parse_one(text: str, whole: str) -> StartSelector:
    word, colon, rest = text.partition(":")
    if not colon and word in _PLAIN:
        return _PLAIN[word]
    if colon and word in _WITH_VALUE:
        return _WITH_VALUE[word](rest if word in _NAMED else rest.strip())
    within = "" if text == whole.strip() else f" in {whole!r}"
    raise SelectorError(
        seen=f"start selector {text!r}{within} is unknown",
        expected=FORMS,
        do="""write one of these, such as 'committed' or 'offsets:{"flights":{"0":123}}'""",
    )


def _as_of(text: str) -> StartSelector:
    return AsOf(_moment("as-of:", text))


def _timestamp(text: str) -> StartSelector:
    return AtTimestamp(_moment("timestamp:", text))


def _moment(word: str, text: str) -> int:
    try:
        return read_moment(text)
    except ValueError as error:
        raise SelectorError(
            seen=f"{word!r} is followed by {text!r}: {error}",
            expected="a date and time with its zone, in ISO 8601",
            do=f"write it as in '{word}2026-11-01T00:00Z' or '{word}2026-11-01T01:00:00.000+01:00'",
        ) from error


def _duration(text: str) -> StartSelector:
    try:
        return Before(read_length(text))
    except ValueError as error:
        raise SelectorError(
            seen=f"'duration:' is followed by {text!r}: {error}",
            expected="weeks, or days, hours, minutes and seconds, in ISO 8601",
            do="write it as in 'duration:PT1H30M', 'duration:P7D' or 'duration:P2W'",
        ) from error


def _shift(text: str) -> StartSelector:
    if not _WHOLE.fullmatch(text):
        raise SelectorError(
            seen=f"'shift:' is followed by {text!r}",
            expected="a whole number, negative to go back",
            do="write the number as in 'shift:-1000'",
        )
    return Shift(int(text))


def _offsets(text: str) -> StartSelector:
    try:
        position = Position.from_json(text)
    except ValueError as error:
        raise SelectorError(
            seen=f"'offsets:' is followed by {text!r}: {error}",
            expected="""{"topic":{"partition":offset}} with whole numbers from 0 up""",
            do="""write it as in 'offsets:{"flights":{"0":123}}'""",
        ) from error
    if not position:
        raise SelectorError(
            seen=f"'offsets:' is followed by {text!r}, which names no partition",
            expected="at least one partition",
            do="name a partition, or write 'committed'",
        )
    return Offsets(position)


def _snapshot(text: str) -> StartSelector:
    return FromSnapshot(_name("snapshot:", text, "the id or the label of a snapshot", "snapshot:op#stopped"))


def _group(text: str) -> StartSelector:
    return FromGroup(_name("group:", text, "a consumer group", "group:orders-v1"))


def _name(word: str, text: str, expected: str, example: str) -> str:
    if text != text.strip() and text.strip():
        raise SelectorError(
            seen=f"{word!r} is followed by {text!r}",
            expected=f"{expected}, without a space at its start",
            do=f"write it as in {example!r}; for a group of such a name, use 'offsets:'",
        )
    if not text.strip():
        raise SelectorError(
            seen=f"{word!r} is followed by nothing", expected=expected, do=f"write it as in {example!r}"
        )
    return text


def _file(text: str) -> StartSelector:
    path, _, group_id = text.rpartition("#") if "#" in text else (text, "", "")
    if not path.startswith("/") or not path.isprintable():
        raise SelectorError(
            seen=f"'file:' is followed by {text!r}",
            expected="the whole path of a file on the machine where the task runs",
            do="write it as in 'file:/data/offsets.csv', or 'file:/data/offsets.csv#group' if it has several groups",
        )
    return FromFile(path, group_id)


_NAMED = ("snapshot", "group")
"""Selectors with a name, to which a space would belong."""
_PLAIN: dict[str, StartSelector] = {"committed": Committed(), "earliest": Earliest(), "latest": Latest()}
_WITH_VALUE: dict[str, Callable[[str], StartSelector]] = {
    "snapshot": _snapshot,
    "as-of": _as_of,
    "timestamp": _timestamp,
    "duration": _duration,
    "shift": _shift,
    "offsets": _offsets,
    "file": _file,
    "group": _group,
}
