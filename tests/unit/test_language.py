"""The project is written in plain English: retired openings of docstrings and retired words do not come back."""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = {".cfg", ".conf", ".css", ".java", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".xml", ".yaml", ".yml"}
NOT_OURS = {"build", "dist", "node_modules", "site", "__pycache__"}
"""Folders that no person writes. Folders with a leading dot are none of the project's either, except ``.github``."""

OPENING = re.compile(r"(Give|Say|Tell|Let)s?\b")
"""Verbs that mean a person's words. A docstring says what the code does: return, raise, write, wait until."""

GONE_EVERYWHERE = {
    "begun batch": "started batch",
    "(has|holder of|lost) the word": "the active epoch; an epoch was fenced",
    "nobody rewrote": "untracked",
    "what rules": "the authoritative store",
    "head eaten": "truncated log",
    "(does|runs) badly": "unhealthy, stalled or dead",
    "h[oe]lds? back": "throttle, or yield to the live job",
    "cut at an instant": "boundary",
    "deck row": "row of the Cloudera row layout",
    "people agree on": "the name of the store",
    "say nothing if": "raise if, or a sentence with whether",
    "superfluous": "prunable",
    "spared": "retained",
    "world changed": "state changed",
    "(WorldChanged|open_world)": "StateChanged, open_session",
    "(ruling|mind_live|insist|begun|untouched)": "authoritative, yield_to_live, retry, started, untracked",
    "perish(es|ing|able)?": "expire, expired",
    "(stop)?ladders?": "stop policy",
    "made (again|anew)": "recreated, or planned again",
    "eaten": "truncated, deleted by retention",
    "left out": "skipped or omitted",
    "of before": "previous",
    "c[ao]mes? to rest": "stop, stopped",
    "rungs?": "stop stage",
    "where it stands": "its position",
    "what is told": "the offsets, the answer",
    "offsets? that (is|are) still there": "earliest retained offset",
    "its word": "the stop request, the acknowledgement",
    "at rest": "stopped",
    "read twice": "replayed, or duplicated",
}
"""Patterns that no text of the project matches, with what to write. A space also stands for the end of a line."""

GONE_FROM_NAMES = {
    "begun": "started",
    "deck": "cloudera, for the row layout",
    "decks": "cloudera, for the row layout",
    "eaten": "truncated, or deleted by retention",
    "insist": "retry",
    "ladder": "stop_policy",
    "looks": "observations, or samples",
    "mind": "yield_to_live",
    "patience": "timeout",
    "perish": "expire",
    "perishes": "expires",
    "rung": "stop_stage",
    "ruling": "authoritative",
    "settle": "reconcile, or account for",
    "settled": "reconciled, or resolved",
    "settles": "reconciles, or accounts for",
    "spared": "retained",
    "stands": "position",
    "superfluous": "prunable",
    "told": "what the value holds",
    "untouched": "untracked",
    "wish": "sentinel",
    "wishes": "sentinels",
}
"""Words that are no part of a name in the package: of a module, class, function, argument, attribute or variable."""

TABLE_OF_NAMES = "docs/decisions/0036-folders-and-names.md"
ALLOWED = {
    (TABLE_OF_NAMES, "(WorldChanged|open_world)"): "the table of old and new names",
    (TABLE_OF_NAMES, "(ruling|mind_live|insist|begun|untouched)"): "the table of old and new names",
    (TABLE_OF_NAMES, "perish(es|ing|able)?"): "the table of old and new names",
    (TABLE_OF_NAMES, "(stop)?ladders?"): "the table of old and new names",
}
"""Where a retired word is right: file and pattern, with the reason."""


def files(*suffixes: str) -> Iterator[Path]:
    """Yield the files of the project with one of these suffixes."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            each
            for each in below
            if each == ".github" or not (each.startswith(".") or each in NOT_OURS or each.endswith(".egg-info"))
        ]
        yield from (Path(folder, name) for name in names if Path(name).suffix in suffixes)


def docstrings_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, of attributes and constants too."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else ():
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                yield each.lineno, each.value.value


def places_of(pattern: str, texts: Mapping[str, list[tuple[int, str]]]) -> list[str]:
    """Return ``file:line`` for each match that is not allowed."""
    spaced = pattern.replace(" ", r"[\s#>*]+")
    word = re.compile(rf"\b{spaced}\b", re.IGNORECASE)
    return [
        f"{file}:{line + text.count(chr(10), 0, match.start())}"
        for file, each in texts.items()
        if (file, pattern) not in ALLOWED
        for line, text in each
        for match in word.finditer(text)
    ]


@functools.cache
def everything() -> dict[str, list[tuple[int, str]]]:
    """Return the text of each file but this one, which is the list."""
    found = (file for file in files(*TEXT) if file != Path(__file__))
    return {str(file.relative_to(ROOT)): [(1, file.read_text(errors="replace"))] for file in found}


@functools.cache
def docstrings() -> dict[str, list[tuple[int, str]]]:
    """Return the docstrings of each Python file."""
    return {file: list(docstrings_of(each[0][1])) for file, each in everything().items() if file.endswith(".py")}


def names_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each class, function, argument, attribute and variable that a Python file defines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def words_of(name: str) -> list[str]:
    """Return the words of a name in snake case or camel case, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def test_the_texts_were_found() -> None:
    assert {"README.md", "docs/index.md", "ruff.toml", "airflow_provider_offsets/cli/commands.py"} <= set(everything())
    assert sum(map(len, docstrings().values())) > 2_000


def test_no_docstring_begins_with_a_person_s_words() -> None:
    found = [
        f"{file}:{line}: {text.split(maxsplit=1)[0]}"
        for file, each in docstrings().items()
        for line, text in each
        if OPENING.match(text.lstrip())
    ]

    assert found == [], "write what the code does: Return, Yield, Raise, Write, Check whether, Wait until"


@pytest.mark.parametrize(("pattern", "instead"), GONE_EVERYWHERE.items(), ids=str)
def test_a_retired_word_is_nowhere(pattern: str, instead: str) -> None:
    assert places_of(pattern, everything()) == [], f"write: {instead}"


def test_a_retired_word_is_part_of_no_name() -> None:
    package = {
        file: each[0][1] for file, each in everything().items() if re.match(r"airflow_provider_offsets/.*py$", file)
    }
    named = [(f"{file}:{line}", name) for file, source in package.items() for line, name in names_of(source)]
    named += [(file, Path(file).stem) for file in package]

    assert ("airflow_provider_offsets/core/epoch.py", "epoch") in named
    assert len(named) > 5_000
    found = [f"{place} {name}: {word}" for place, name in named for word in words_of(name) if word in GONE_FROM_NAMES]
    assert found == [], f"write instead: {GONE_FROM_NAMES}"


def test_the_words_of_a_name() -> None:
    assert words_of("_LONGEST_PAUSE_S") == ["longest", "pause", "s"]
    assert words_of("StopPolicy") == ["stop", "policy"]
    assert words_of("HBaseStore") == ["h", "base", "store"]


@pytest.mark.parametrize(("file", "pattern"), ALLOWED)
def test_what_is_allowed_is_still_needed(file: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ALLOWED, (file, pattern))

    assert places_of(pattern, {file: everything()[file]})
