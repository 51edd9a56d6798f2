"""Pack the parts of this package that a Spark driver needs into one zip for ``--py-files``."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import airflow_provider_offsets

_PACKAGE = airflow_provider_offsets.__name__
_ENTRY = "runtime"
"""What a driver imports. Everything that it imports in turn is shipped with it, package by package."""


def runtime_zip(folder: Path) -> Path:
    """Return the path of the zip, after writing it to ``folder`` if missing. Equal content has an equal name."""
    content = _content()
    target = folder / f"airflow_provider_offsets-{hashlib.sha256(content).hexdigest()[:12]}.zip"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    return target


def _content() -> bytes:
    root = Path(airflow_provider_offsets.__file__).parent
    files = [root / "__init__.py", *_shipped(root)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files):
            # Fixed timestamps, so that equal files result in an equal zip.
            archive.writestr(zipfile.ZipInfo(str(file.relative_to(root.parent))), file.read_bytes())
    return buffer.getvalue()


def _shipped(root: Path) -> list[Path]:
    """Return the files of all packages and modules below ``root`` that ``_ENTRY`` reaches by imports."""
    found: dict[str, list[Path]] = {}
    waiting = {_ENTRY}
    while waiting:
        name = waiting.pop()
        found[name] = sorted((root / name).rglob("*.py")) or [root / f"{name}.py"]
        waiting |= {each for file in found[name] for each in _imported(file.read_bytes())} - set(found)
    return [file for files in found.values() for file in files]


@lru_cache(maxsize=1000)
def _imported(source: bytes) -> frozenset[str]:
    """Return the packages and modules directly below ours that the source of a file imports."""
    names: set[str] = set()
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            names.update(f"{_PACKAGE}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return frozenset(name.split(".")[1] for name in names if name.startswith(f"{_PACKAGE}."))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node. Expressions, which are most of the nodes, contain none."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)
