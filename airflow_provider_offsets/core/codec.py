"""JSON for the frozen dataclasses of this package: one text form, the same bytes for equal values.

A field is encoded by its declared type, so a value that is read back equals the value that was written. Unknown
keys are ignored (a newer writer may know more); a missing key takes the field's default, or is an error.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SCALARS = (int, str, bool, float)
"""Looked at first: ten thousand partitions are mostly numbers."""


def dumps(value: Any) -> str:
    """Give the JSON text of a dataclass: keys sorted, no spaces, so that equal values give equal text."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def loads(kind: type[T], text: str) -> T:
    """Give the value of type ``kind`` that ``text`` holds.

    :raises ValueError: ``text`` is not JSON, or not of that shape; the message names the field.
    """
    return typing.cast(T, build(kind, json.loads(text), kind.__name__))


def plain(value: Any) -> Any:
    """Give ``value`` as dicts, lists, strings and numbers, ready for XCom or a page."""
    kind: Any = type(value)
    return value if kind in SCALARS else _plainer(kind)(value)


@functools.cache
def _plainer(kind: type) -> Callable[[Any], Any]:
    """Return what makes values of a type plain. A type is looked at once: there are few types, and many values."""
    if hasattr(kind, "to_plain"):
        return lambda value: value.to_plain()
    if issubclass(kind, enum.Enum):
        return lambda value: value.value
    if dataclasses.is_dataclass(kind):
        names = _names(kind)
        return lambda value: {name: plain(getattr(value, name)) for name in names}
    if issubclass(kind, Mapping):
        return lambda value: {str(key): plain(item) for key, item in value.items()}
    if issubclass(kind, tuple | list):
        return lambda value: [plain(item) for item in value]
    return lambda value: value


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def build(kind: Any, data: Any, where: str) -> Any:
    """Give ``data`` (as ``plain`` made it) as a value of the declared type ``kind``; ``where`` names it in errors."""
    if type(data) is kind and kind in SCALARS:
        return data
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        [inner] = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        return build(inner, data, where)
    if hasattr(kind, "from_plain"):
        return kind.from_plain(data)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), data, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(data)
    if origin is not None:
        return _build_container(kind, origin, data, where)
    return _build_scalar(kind, data, where)


def _build_scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if kind in (int, str, bool) and type(data) is not kind:
        raise ValueError(f"{where} is {data!r}, expected {kind.__name__}")
    return data


def _build_container(kind: Any, origin: type, data: Any, where: str) -> Any:
    arguments = typing.get_args(kind)
    if origin is tuple:
        _check(data, list, "a list", where)
        return tuple(build(arguments[0], each, f"{where}[{index}]") for index, each in enumerate(data))
    if issubclass(origin, Mapping):
        _check(data, Mapping, "an object", where)
        return {str(key): build(arguments[1], each, f"{where}.{key}") for key, each in data.items()}
    return data


def _check(data: Any, kind: type, words: str, where: str) -> None:
    if not isinstance(data, kind):
        raise ValueError(f"{where} is {data!r}, expected {words}")


def _build_dataclass(kind: type, data: Any, where: str) -> Any:
    _check(data, Mapping, "an object", where)
    hints = _hints(kind)
    values = {name: build(hints[name], data[name], f"{where}.{name}") for name in _names(kind) if name in data}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where} lacks a field: {error}") from error
