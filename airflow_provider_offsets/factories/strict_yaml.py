"""Strict reader of a YAML file that a person writes. Every mistake is kept with its line and key.

YAML itself is generous: the last of two equal keys wins, ``010`` is 8, ``1:30`` is 90, and a no-break space belongs to
a name. Here each of these is a mistake. ``${NAME}`` is replaced by an environment variable.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_offsets.core.hidden import hidden_character
from airflow_provider_offsets.errors import PipelineFileError

Keys = tuple[str | int, ...]
"""Path of a value in a file: keys of mappings, and places in lists."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<has>:-(?P<default>[^{}]*))?\})")
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NO_ARGUMENT = re.compile("[\0\ud800-\udfff]")
"""Characters that no argument of a process can have."""
LARGEST = 200_000
"""Greatest number of values in a file, with its aliases written out: a thousand pipelines of 200 values."""
_INT, _TIME = "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader for the types of JSON. It keeps a timestamp as text, as a quoted one is."""

    def time_text(self, node: yaml.ScalarNode) -> str:
        """Return a timestamp as the file has it; in ISO 8601 if the file has another of YAML's forms.

        A date that does not exist stays as it is, so that it is refused with its key.
        """
        text = str(node.value)
        try:
            datetime.datetime.fromisoformat(text)
        except ValueError:
            with suppress(AttributeError, ValueError):
                return str(self.construct_yaml_timestamp(node).isoformat())
        return text

    def no_json(self, node: yaml.Node) -> Any:
        """Refuse a type that JSON does not have."""
        return self.construct_undefined(node)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value, and give the mistake of a scalar its place."""
        try:
            return super().construct_object(node, deep)
        except (KeyError, ValueError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


_Loader.add_constructor(_TIME, _Loader.time_text)
for _type in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_type}", _Loader.no_json)


class YamlFile:
    """Content of a YAML file, with the mistakes that are known so far.

    :param path: the file.
    :param environment: values of the variables.
    :param is_free: whether the value at a path is passed on as it is, and may have hidden characters.
    :raises PipelineFileError: the file cannot be read, or is no YAML: then nothing more can be said of it.
    """

    def __init__(self, path: Path, environment: Mapping[str, str], is_free: Callable[[Keys], bool]) -> None:
        self.path = path
        self.mistakes: list[tuple[int, PipelineFileError]] = []
        self._environment = environment
        self._is_free = is_free
        text = _text_of(path)
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            if root is None:
                raise PipelineFileError(
                    seen=f"{path} is empty",
                    expected="'pipelines:' with at least one pipeline",
                    do="add a pipeline to the file",
                )
            if (values := _written_out(root, {})) > LARGEST:
                raise PipelineFileError(
                    seen=f"{path.name} has {values:,} values, with its aliases written out",
                    expected=f"at most {LARGEST:,}",
                    do="remove aliases of what has aliases itself, or divide the file",
                )
            self.root: yaml.Node = root
            for keys, node in _each_once(root):
                self._visit(keys, node)
            self.data: Any = loader.construct_document(root)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self._no_yaml(error, text) from error

    def refuse(self, keys: Sequence[str | int], *, seen: str, expected: str, do: str, line: int | None = None) -> None:
        """Note a mistake with its place.

        :param keys: path of the value.
        :param seen: as for any error of this package.
        :param expected: the same.
        :param do: the same.
        :param line: line of the mistake; that of the deepest of ``keys`` in the file by default.
        """
        line = line or self.line(keys)
        place = f"{self.path.name}, line {line}, key {'.'.join(map(str, keys)) or '(top)'}"
        mistake = PipelineFileError(seen=f"{place}: {seen}", expected=expected, do=do)
        if str(mistake) not in {str(known) for _, known in self.mistakes}:
            self.mistakes.append((line, mistake))

    def require_right(self) -> None:
        """Raise if the file has mistakes.

        :raises PipelineFileError: all mistakes, in the order of their lines.
        """
        if self.mistakes:
            ordered = [mistake for _, mistake in sorted(self.mistakes, key=lambda each: each[0])]
            raise PipelineFileError.joined(self.path.name, ordered)

    def has_mistake_at(self, *keys: str | int) -> bool:
        """Check whether a mistake was noted for these keys or below them."""
        here = ".".join(map(str, keys))
        return any(re.search(rf", key {re.escape(here)}[.:]", str(mistake)) for _, mistake in self.mistakes)

    def right_part(self, keys: Keys, value: Any) -> Any:
        """Return a value without those parts of it that have a mistake.

        :param keys: path of the value.
        :param value: a value of the file.
        """
        if isinstance(value, dict):
            return {
                key: self.right_part((*keys, key), each) for key, each in value.items() if self._is_right(*keys, key)
            }
        if isinstance(value, list):
            parts = enumerate(value)
            return [self.right_part((*keys, place), each) for place, each in parts if self._is_right(*keys, place)]
        return value

    def _is_right(self, *keys: str | int) -> bool:
        here = ".".join(map(str, keys))
        return not any(f", key {here}: " in str(mistake) for _, mistake in self.mistakes)

    def line(self, keys: Sequence[str | int], *, where_used: bool = False) -> int:
        """Return the line, from 1, of the deepest of ``keys`` that exists.

        :param keys: path of the value.
        :param where_used: return the line of an alias or a merge instead of the line with the content.
        """
        node, line = self.root, self.root.start_mark.line
        for key in keys:
            below = _below(node, key)
            if below is None or (where_used and below[0] < line):
                break
            line, node = below
            if where_used and node.start_mark.line < line:
                break
        return line + 1

    def _visit(self, keys: Keys, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            self._visit_keys(keys, node)
        elif isinstance(node, yaml.ScalarNode):
            self._visit_value(keys, node)

    def _visit_keys(self, keys: Keys, node: yaml.MappingNode) -> None:
        found: set[str] = set()
        for key, _ in node.value:
            here, text = (*keys, str(key.value)), str(key.value)
            if text in found:
                self.refuse(
                    here,
                    seen="the key appears twice",
                    expected="each key once",
                    do="remove or rename one of the two",
                    line=key.start_mark.line + 1,
                )
            found.add(text)
            if hidden := hidden_character(text):
                self._refuse_hidden(here, text, hidden, line=key.start_mark.line + 1)
            if "${" in text:
                self.refuse(
                    here, seen="the key has a variable", expected="variables in values only", do="write out the key"
                )
            if key.tag == _INT:
                self._require_plain_number(here, text)

    def _visit_value(self, keys: Keys, node: yaml.ScalarNode) -> None:
        text = str(node.value)
        if "{{" in text or "{%" in text:
            self.refuse(
                keys,
                seen=f"{text!r} is a template of Jinja, which Airflow does not fill in here",
                expected="the value itself",
                do="use an environment variable, as in ${NAME}",
            )
        elif "$" in text:
            node.value = self._filled_in(keys, text)
            if node.style is None and node.value != text:
                node.tag = _resolver.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
        if node.tag == _INT:
            self._require_plain_number(keys, node.value)
        hidden = hidden_character(str(node.value))
        if hidden and (not self._is_free(keys) or _NO_ARGUMENT.search(node.value)):
            self._refuse_hidden(keys, node.value, hidden, line=node.start_mark.line + 1)

    def _filled_in(self, keys: Keys, text: str) -> str:
        """Return a value with its variables replaced."""

        def value(found: re.Match[str]) -> str:
            if found["dollar"]:
                return "$"
            known = self._environment.get(found["name"], "")
            if not known and found["has"] is None:
                self.refuse(
                    keys,
                    seen=f"the environment variable {found['name']} is "
                    f"{'empty' if found['name'] in self._environment else 'not set'}",
                    expected="a value for it in each process of Airflow that reads this file",
                    do=f"set the variable, or write a default as in ${{{found['name']}:-value}}",
                )
                return found[0]
            return known or found["default"] or ""

        if "$" in _VARIABLE.sub("", text):
            self.refuse(
                keys,
                seen=f"{text!r} has a '$' that begins no variable",
                expected="${NAME}, ${NAME:-default}, or '$$' for the character itself",
                do="correct the value",
            )
            return text
        return _VARIABLE.sub(value, text)

    def _require_plain_number(self, keys: Keys, text: str) -> None:
        if not _PLAIN_NUMBER.fullmatch(text):
            self.refuse(
                keys,
                seen=f"the number {text} is not written in plain decimal digits, and YAML reads it as another one",
                expected="a whole number such as 10, or text in quotes",
                do="write out the number, or quote the text",
            )

    def _refuse_hidden(self, keys: Keys, text: str, hidden: str, line: int) -> None:
        self.refuse(
            keys,
            seen=f"{text!r} has {hidden}",
            expected="text without hidden characters",
            do="remove the character",
            line=line,
        )

    def _no_yaml(self, error: Exception, text: str) -> PipelineFileError:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        number = text.count("\n", 0, position) if isinstance(position, int) else getattr(mark, "line", None)
        line = "" if number is None else f", line {number + 1}"
        words = "it is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "problem", None)
        if isinstance(error, yaml.reader.ReaderError):
            words = f"the character U+{error.character:04X} is not allowed"
        return PipelineFileError(
            seen=f"{self.path.name}{line}: {words or error}", expected="valid YAML", do="correct the line"
        )


_resolver = yaml.SafeLoader("")


def _text_of(path: Path) -> str:
    """Return the text of the file, without its byte order mark.

    :raises PipelineFileError: there is no such file, or it cannot be read as UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise PipelineFileError(
            seen=f"{path} does not exist",
            expected="a file of pipelines",
            do="create the file, or correct its path in the DAG file",
        ) from error
    except UnicodeDecodeError as error:
        raise PipelineFileError(
            seen=f"{path.name} is not in UTF-8: {error.reason} at byte {error.start}",
            expected="valid YAML in UTF-8",
            do="save the file in UTF-8",
        ) from error
    except OSError as error:
        raise PipelineFileError(
            seen=f"{path} cannot be read: {error.strerror or error}",
            expected="a file of pipelines that this user may read",
            do="correct the path or the rights of the file",
        ) from error


def _each_once(root: yaml.Node) -> Iterator[tuple[Keys, yaml.Node]]:
    """Yield each value of a file with its path: an anchored one once, by the first of its paths."""
    seen: set[int] = set()
    waiting: list[tuple[Keys, yaml.Node]] = [((), root)]
    while waiting:
        keys, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield keys, node
        if isinstance(node, yaml.MappingNode):
            below = [((*keys, str(key.value)), value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            below = [((*keys, place), value) for place, value in enumerate(node.value)]
        else:
            below = []
        waiting.extend(reversed(below))


def _written_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values at and below a node, where each alias counts as what it names.

    :param node: the node.
    :param known: the numbers of other nodes, by their identities; a node that contains itself counts once.
    """
    if id(node) not in known:
        known[id(node)] = 1
        below = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_written_out(each, known) for each in below)
    return known[id(node)]


def _below(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    """Return line and node of a key, or of a place in a list; None if there is none."""
    if isinstance(node, yaml.MappingNode):
        found = [pair for pair in node.value if str(pair[0].value) == str(key)]
        return (found[-1][0].start_mark.line, found[-1][1]) if found else None
    if isinstance(node, yaml.SequenceNode) and str(key).isdecimal() and int(key) < len(node.value):
        below = node.value[int(key)]
        return below.start_mark.line, below
    return None
