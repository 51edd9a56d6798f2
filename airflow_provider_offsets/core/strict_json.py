"""The one reader of JSON that a person or another tool wrote: a file, a field of a form, a selector, a connection."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_offsets.core.hidden import hidden_character

BYTE_ORDER_MARK = "\ufeff"


def read_json(text: str, *, may_hide: bool = False) -> Any:
    """Return the content of a JSON text. A byte order mark before it is ignored.

    :param text: the text.
    :param may_hide: whether texts in it may have hidden characters, such as the line breaks of a certificate.
    :raises ValueError: the text is not JSON, or is nested too deeply. Also if a key appears twice, because the last one
        would win; if a key or a text has a hidden character; and for ``NaN`` and ``Infinity``.
    """
    try:
        data = json.loads(
            text.removeprefix(BYTE_ORDER_MARK), object_pairs_hook=_each_key_once, parse_constant=_no_number
        )
        if not may_hide:
            _require_visible(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f"character {error.pos} (line {error.lineno} column {error.colno})"
        raise ValueError(f"{error.msg} at {place}") from error
    return data


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} appears twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _require_visible(data: Any) -> None:
    if isinstance(data, str):
        if hidden := hidden_character(data):
            raise ValueError(f"{data!r} has {hidden}")
    elif isinstance(data, dict):
        for key, value in data.items():
            _require_visible(key)
            _require_visible(value)
    elif isinstance(data, list):
        for value in data:
            _require_visible(value)
