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
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SCALARS = (int, str, bool, float)
"""Types that are tested first: most values of ten thousand partitions are numbers."""

_UNCHANGED = (*SCALARS, type(None))
"""Types whose values are their own plain form."""

_OPTIONAL = re.compile(r"([\w.]+) \| None")
"""An optional value of a named type, in the text of an annotation."""

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
    if issubclass(kind, (tuple, list)):
        return lambda value: [plain(item) for item in value]
    return lambda value: value


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the declared types of a dataclass's fields.

    ``X | None`` is evaluated as ``Optional[X]``, because Python 3.9 has no ``|`` of types.

    :raises TypeError: another union.
    """
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        texts = {
            name: _OPTIONAL.sub(r"typing.Optional[\1]", text)
            for name, text in vars(base).get("__annotations__", {}).items()
            if name in _names(kind)
        }
        if unions := [f"{name}: {text}" for name, text in texts.items() if "|" in text]:
            raise TypeError(f"{base.__name__} has {', '.join(unions)}; the only unions are of a named type and None")
        declared = types.SimpleNamespace(__annotations__=texts)
        hints |= typing.get_type_hints(declared, vars(sys.modules[base.__module__]), {"typing": typing})
    return hints


def build(kind: Any, data: Any, where: str) -> Any:
    """Return the value of the declared type ``kind`` for ``data``.

    :param kind: a scalar type, dataclass, enum, union with None, or a container of these.
    :param data: as :func:`plain` returned it.
    :param where: path of the value, for error messages.
    :raises ValueError: ``data`` has another shape.
    """
    try:
        return _builder(kind)(data)
    except _Misfit as error:
        raise ValueError(f"{where}{error.path} {error.words}") from error


def unknown_key(kind: Any, data: Any, where: str = "") -> str:
    """Return the path of the first key of ``data`` that the declared type ``kind`` does not have; empty without one.

    :func:`build` ignores such a key. In a text from a person it is a mistake.

    :param kind: as for :func:`build`.
    :param data: as for :func:`build`.
    :param where: path of ``data``.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        [kind] = [argument for argument in arguments if argument is not type(None)]
        return unknown_key(kind, data, where)
    if origin is tuple and isinstance(data, list):
        return next(filter(None, (unknown_key(arguments[0], each, f"{where}[{n}]") for n, each in enumerate(data))), "")
    if hasattr(kind, "from_plain") or not dataclasses.is_dataclass(kind) or not isinstance(data, Mapping):
        return ""
    hints = _hints(typing.cast(type, kind))
    within = where and f"{where}."
    if unknown := [key for key in data if key not in hints]:
        return f"{within}{unknown[0]}"
    return next(filter(None, (unknown_key(hints[key], each, f"{within}{key}") for key, each in data.items())), "")


class _Misfit(ValueError):
    """Data of another shape. Its path is put together while it is raised, because data that fits needs none."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.path, self.words = "", words

    def below(self, part: str) -> _Misfit:
        """Return this error with one more part before its path."""
        self.path = part + self.path
        return self


_Builder = Callable[[Any], Any]


@functools.cache
def _builder(kind: Any) -> _Builder:
    """Return the function that builds values of a declared type. Cached, as :func:`_plainer` is."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        [inner] = [_builder(argument) for argument in arguments if argument is not type(None)]
        return lambda data: None if data is None else inner(data)
    if hasattr(kind, "from_plain"):
        return typing.cast(_Builder, kind.from_plain)
    if dataclasses.is_dataclass(kind):
        return _dataclass_builder(typing.cast(type, kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind
    if origin is tuple:
        return _tuple_builder(arguments[0])
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_builder(arguments[1])
    if kind in SCALARS:
        return _scalar_builder(kind)
    return lambda data: data


def _scalar_builder(kind: type) -> _Builder:
    def scalar(data: Any) -> Any:
        if type(data) is kind:
            return data
        if kind is float:
            return float(data) if type(data) is int else data
        raise _Misfit(f"is {data!r}, expected {kind.__name__}")

    return scalar


def _tuple_builder(item: Any) -> _Builder:
    build_item = _builder(item)

    def values(data: Any) -> Any:
        if not isinstance(data, list):
            raise _Misfit(f"is {data!r}, expected a list")
        built: list[Any] = []
        try:
            for each in data:
                built.append(build_item(each))
        except _Misfit as error:
            raise error.below(f"[{len(built)}]") from None
        return tuple(built)

    return values


def _mapping_builder(item: Any) -> _Builder:
    build_item = _builder(item)

    def mapping(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise _Misfit(f"is {data!r}, expected an object")
        built: dict[str, Any] = {}
        key: Any = ""
        try:
            for key, each in data.items():
                built[str(key)] = build_item(each)
        except _Misfit as error:
            raise error.below(f".{key}") from None
        return built

    return mapping


def _dataclass_builder(kind: type) -> _Builder:
    builders = {name: _builder(hint) for name, hint in _hints(kind).items()}

    def value(data: Any) -> Any:
        if type(data) is not dict and not isinstance(data, Mapping):
            raise _Misfit(f"is {data!r}, expected an object")
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, build_field in builders.items():
                if name in data:
                    values[name] = build_field(data[name])
        except _Misfit as error:
            raise error.below(f".{name}") from None
        try:
            return kind(**values)
        except TypeError as error:
            raise _Misfit(f"lacks a field: {error}") from error

    return value
