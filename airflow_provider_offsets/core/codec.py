"""JSON for the frozen dataclasses of this package: one text form, the same bytes for equal values.

The declared type of a field determines its encoding, so a value that is read back equals the written value. Unknown
keys are ignored, because a newer version may write more of them. A missing key takes the field's default; without a
default it is an error.
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
"""Types that are tested first: most values of ten thousand partitions are numbers."""

_UNCHANGED = (*SCALARS, types.NoneType)
"""Types whose values are their own plain form."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def dumps(value: Any) -> str:
    """Return the JSON text of a dataclass: keys sorted and no spaces, so that equal values have equal text."""
    return _ENCODER.encode(plain(value))


def loads(kind: type[T], text: str) -> T:
    """Return the value of type ``kind`` from its JSON text.

    :param kind: a dataclass.
    :param text: as :func:`dumps` returned it.
    :raises ValueError: ``text`` is not JSON or has another shape; the message names the field.
    """
    return typing.cast(T, build(kind, json.loads(text), kind.__name__))


def plain(value: Any) -> Any:
    """Return ``value`` as dicts, lists, strings and numbers, ready for XCom or a page."""
    kind: Any = type(value)
    return value if kind in _UNCHANGED else _plainer(kind)(value)


@functools.cache
def _plainer(kind: type) -> Callable[[Any], Any]:
    """Return the function that converts values of a type. Cached, because there are few types and many values."""
    if hasattr(kind, "to_plain"):
        return lambda value: value.to_plain()
    if issubclass(kind, enum.Enum):
        return lambda value: value.value
    if dataclasses.is_dataclass(kind):
        names = _names(kind)
        return lambda value: {
            name: item if type(item := getattr(value, name)) in _UNCHANGED else plain(item) for name in names
        }
    if issubclass(kind, Mapping):
        return lambda value: {str(key): plain(item) for key, item in value.items()}
    if issubclass(kind, tuple | list):
        return lambda value: [plain(item) for item in value]
    return lambda value: value


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the declared types of a dataclass's fields."""
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in _names(kind)}


def build(kind: Any, data: Any, where: str) -> Any:
    """Return the value of the declared type ``kind`` for ``data``.

    :param kind: a scalar type, dataclass, enum, union with None, or a container of these.
    :param data: as :func:`plain` returned it.
    :param where: path of the value, for error messages.
    :raises ValueError: ``data`` has another shape.
    """
    return data if type(data) is kind and kind in SCALARS else _builder(kind)(data, where)


_Builder = Callable[[Any, str], Any]


@functools.cache
def _builder(kind: Any) -> _Builder:
    """Return the function that builds values of a declared type. Cached, as :func:`_plainer` is."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        [inner] = [argument for argument in arguments if argument is not type(None)]
        return lambda data, where: None if data is None else build(inner, data, where)
    if hasattr(kind, "from_plain"):
        return lambda data, where: kind.from_plain(data)
    if dataclasses.is_dataclass(kind):
        return functools.partial(_build_dataclass, typing.cast(type, kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return lambda data, where: kind(data)
    if origin is tuple:
        return functools.partial(_build_tuple, arguments[0])
    if origin is not None and issubclass(origin, Mapping):
        return functools.partial(_build_mapping, arguments[1])
    if origin is not None:
        return lambda data, where: data
    return functools.partial(_build_scalar, kind)


def _build_scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if kind in (int, str, bool) and type(data) is not kind:
        raise ValueError(f"{where} is {data!r}, expected {kind.__name__}")
    return data


def _build_tuple(item: Any, data: Any, where: str) -> Any:
    _check(data, list, "a list", where)
    return tuple(build(item, each, f"{where}[{index}]") for index, each in enumerate(data))


def _build_mapping(item: Any, data: Any, where: str) -> Any:
    _check(data, Mapping, "an object", where)
    return {str(key): build(item, each, f"{where}.{key}") for key, each in data.items()}


def _check(data: Any, kind: type, words: str, where: str) -> None:
    if not isinstance(data, kind):
        raise ValueError(f"{where} is {data!r}, expected {words}")


def _build_dataclass(kind: type, data: Any, where: str) -> Any:
    _check(data, Mapping, "an object", where)
    values = {name: build(hint, data[name], f"{where}.{name}") for name, hint in _hints(kind).items() if name in data}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where} lacks a field: {error}") from error
