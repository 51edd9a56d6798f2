"""How a mistake gets into the package: a process imports a module of it from a changed source.

Nothing is written: the files of the package stay as they are.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_offsets"


@dataclass(frozen=True)
class Change:
    """One change of the source: a text that occurs once in a file below the package, and what replaces it."""

    file: str
    right: str
    wrong: str


def with_changes(changes: Sequence[Change]) -> dict[str, str]:
    """Return the changed sources, by file.

    :raises ValueError: the text to replace is missing, or occurs several times.
    """
    sources: dict[str, str] = {}
    for change in changes:
        source = sources.get(change.file) or (ROOT / PACKAGE / change.file).read_text()
        if (count := source.count(change.right)) != 1:
            raise ValueError(
                f"The mistake can no longer be planted: {change.file} has the text {change.right!r} {count} times."
                " Expected once. Write the mistake for the changed source."
            )
        sources[change.file] = source.replace(change.right, change.wrong)
    return sources


def plant(sources: Mapping[str, str]) -> None:
    """Make this process import the package with changed sources.

    :raises RuntimeError: the process has imported the package already.
    """
    if loaded := [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        raise RuntimeError(f"Nothing can be planted: {loaded[0]} is imported already. Plant in a new process.")
    sys.meta_path.insert(0, _Finder(sources))


def in_fork(function: Callable[..., str], *arguments: Any) -> str:
    """Return what a function returns in a fork of this process, so that this process imports nothing of the package."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as fork:
        return fork.submit(function, *arguments).result()


class _Finder(MetaPathFinder):
    """The modules whose source has a mistake."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._files = {f"{PACKAGE}.{file.removesuffix('.py').replace('/', '.')}": file for file in sources}
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if (file := self._files.get(fullname)) is None:
            return None
        where = str(ROOT / PACKAGE / file)
        return spec_from_file_location(fullname, where, loader=_Loader(fullname, where, self._sources[file]))


class _Loader(SourceFileLoader):
    """A module's loader that compiles the changed source."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)
