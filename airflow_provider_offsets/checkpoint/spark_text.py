"""Text of log files as Spark reads it: lines, version numbers and JSON.

Each function follows one that Spark calls, and accepts exactly what that one accepts (tried with 4.2.0):

- Scala's ``Source.getLines``: lines end with LF, CRLF or CR.
- ``MetadataVersionUtil.validateVersion``: ``v`` and Java's ``Integer.parseInt``.
- json4s with Jackson: text after the first value is ignored, and a byte order mark is an error. json4s reads a key that
  appears twice as a list, Jackson's own mapper (Kafka's source) takes the last one.
"""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_offsets.core.limits import LAST_OFFSET
from airflow_provider_offsets.core.position import Position, TopicPartition

_LINE_END = re.compile("\r\n|\r|\n")
_VERSION = re.compile(r"v\+?(\d{1,9})")
_WHOLE = re.compile(r"\+?\d+")
_SPACE = " \t\r\n"


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends. An end of line at the very end begins no further line."""
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def version_of(line: str) -> int | None:
    """Return the version in the first line of a log file, or None if the line holds none."""
    found = _VERSION.fullmatch(line)
    return None if found is None else int(found[1]) or None


def batch_id_of(name: str) -> int | None:
    """Return the batch id that Spark reads from a file name (Java's ``Long.parseLong``), or None for other names.

    Names such as ``+7``, ``07`` and digits of other scripts count too. Negative ids never come last, so Spark reads
    none of them, and they are None here.
    """
    number = int(name) if _WHOLE.fullmatch(name) else LAST_OFFSET + 1
    return number if number <= LAST_OFFSET else None


def json_of(text: str) -> Any:
    """Return the first JSON value of a text, as json4s reads it. The values of a repeated key become a list.

    :raises ValueError: the text does not begin with a JSON value.
    """
    return _first_value(text, _repeated_as_list)


def offsets_of(text: str) -> Any:
    """Return the first JSON value of a text, as Jackson reads Kafka's offsets. The last of repeated keys counts.

    :raises ValueError: the text does not begin with a JSON value.
    """
    return _first_value(text, dict)


def long_of(data: Any, key: str) -> int:
    """Return a whole number in an object that json4s reads. A missing number and null are 0, a fraction is cut off.

    :param data: the object, or another value, which has no keys.
    :param key: name of the number.
    :raises ValueError: the value is no number.
    """
    value = data.get(key) if isinstance(data, dict) else None
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} is {value!r}, not a number")
    return int(value)


def position_of(data: Any) -> Position:
    """Return the offsets of a Kafka source. A fraction is cut off, and null is 0, as in Spark.

    :raises ValueError: the data has another shape, or an offset is outside of what Kafka counts.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{data!r} holds no offsets of Kafka")
    offsets: dict[TopicPartition, int] = {}
    for topic, partitions in data.items():
        if not isinstance(partitions, dict):
            raise ValueError(f"{topic!r} holds no partitions, but {partitions!r}")
        for number, offset in partitions.items():
            offsets[TopicPartition(topic, int(number))] = long_of(partitions, number)
            if offsets[TopicPartition(topic, int(number))] > LAST_OFFSET:
                raise ValueError(f"{topic}[{number}] holds {offset}, and Kafka counts to {LAST_OFFSET}")
    return Position(offsets)


def _first_value(text: str, pairs: Any) -> Any:
    decoder = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=_refused)
    return decoder.raw_decode(text.lstrip(_SPACE))[0]


def _repeated_as_list(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = [found[key], value] if key in found else value
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
