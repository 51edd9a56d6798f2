"""The driver's Python may be 3.9: clusters have one of their own, and pip does not choose what is shipped to it.

mypy checks the package for Python 3.10, the oldest one that it knows. So these tests look for what Python 3.10 added.
``tests/versions`` starts the archive on each Python.
"""

from __future__ import annotations

import ast
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_offsets
from airflow_provider_offsets.backends import shipping

ROOT = Path(airflow_provider_offsets.__file__).parent
OLDEST = (3, 9)
SHIPPED = [ROOT / "__init__.py", *shipping._shipped(ROOT)]

NAMES = {
    "builtins": {"aiter", "anext", "EncodingWarning"},
    "contextlib": {"aclosing"},
    "dataclasses": {"KW_ONLY"},
    "importlib.metadata": {"packages_distributions"},
    "inspect": {"get_annotations"},
    "itertools": {"pairwise"},
    "sys": {"orig_argv", "stdlib_module_names"},
    "types": {"EllipsisType", "NoneType", "NotImplementedType", "UnionType"},
    "typing": {"Concatenate", "ParamSpec", "TypeAlias", "TypeGuard", "is_typeddict"},
}
METHODS = {"bit_count", "hardlink_to", "total"}
"""Of ``int``, ``Path`` and ``Counter``."""
KEYWORDS = {
    "AttributeError": {"name", "obj"},
    "NameError": {"name"},
    "bisect": {"key"},
    "bisect_left": {"key"},
    "bisect_right": {"key"},
    "dataclass": {"kw_only", "match_args", "slots"},
    "glob": {"dir_fd", "root_dir"},
    "iglob": {"dir_fd", "root_dir"},
    "insort": {"key"},
    "insort_left": {"key"},
    "insort_right": {"key"},
    "TemporaryDirectory": {"ignore_cleanup_errors"},
    "write_text": {"newline"},
    "zip": {"strict"},
}
TYPES = {"bool", "bytes", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple"}


def newer(source: str) -> list[str]:
    """Return what a module has that Python 3.9 lacks: syntax, names, arguments, and unions that are evaluated."""
    try:
        tree = ast.parse(source, feature_version=OLDEST)
    except SyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    names = [f"{node.lineno}: {what}" for node in ast.walk(tree) for what in _newer(node)]
    return [*names, *(f"{line}: a union of types" for line in sorted(set(_unions(tree))))]


def _newer(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield from (each.name for each in node.names if each.name in NAMES.get(node.module or "", ()))
    elif isinstance(node, ast.Attribute):
        if node.attr in NAMES.get(ast.unparse(node.value), ()):
            yield ast.unparse(node)
        elif node.attr in METHODS:
            yield f".{node.attr}"
    elif isinstance(node, ast.Name) and node.id in NAMES["builtins"]:
        yield node.id
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        yield from (f"{name}({each.arg}=)" for each in node.keywords if each.arg in KEYWORDS.get(name, ()))


def _unions(node: ast.AST) -> Iterator[int]:
    """Yield the lines with ``|`` between types, except in annotations, which are not evaluated."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and (_is_type(node.left) or _is_type(node.right)):
        yield node.lineno
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _unions(child)


def _is_type(node: ast.expr) -> bool:
    """Return whether an operand is a type, or None: a class by its name, or a container of types."""
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    name = ast.unparse(node).rpartition(".")[2]
    return name in TYPES or name == "None" or (name[:1].isupper() and not name.isupper())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("match a:\n    case 1: pass", ["2: Pattern matching is only supported in Python 3.10 and greater"]),
        ("from itertools import chain, pairwise", ["1: pairwise"]),
        ("import types\nkind = types.NoneType", ["2: types.NoneType"]),
        ("from typing import Any, TypeAlias", ["1: TypeAlias"]),
        ("zip(a, b, strict=True)", ["1: zip(strict=)"]),
        ("csv.reader(a, strict=True)", []),
        ("bisect.bisect_right(a, 1, key=f)", ["1: bisect_right(key=)"]),
        ("sorted(a, key=f)", []),
        ("raise AttributeError('no', name='a')", ["1: AttributeError(name=)"]),
        ("@dataclass(frozen=True, slots=True)\nclass A: pass", ["1: dataclass(slots=)"]),
        ("Counter(a).total()", ["1: .total"]),
        ("isinstance(a, int | str)", ["1: a union of types"]),
        ("Outcome = Next | Already", ["1: a union of types"]),
        ("T = TypeVar('T', bound=dict[str, int] | None)", ["1: a union of types"]),
        ("def f(a: int | None = None) -> str | None: pass", []),
        ("class A:\n    b: int | None = None", []),
        ("flags = os.O_WRONLY | os.O_CREAT", []),
        ("both = {1} | some.late", []),
    ],
)
def test_what_is_newer_is_found(source: str, found: list[str]) -> None:
    """The test of the test."""
    assert newer(source) == found


def test_a_driver_on_python_3_9_can_run_all_that_is_shipped() -> None:
    wrong = {str(file.relative_to(ROOT)): newer(file.read_text()) for file in SHIPPED}

    assert {file: found for file, found in wrong.items() if found} == {}
    assert len(wrong) > 100, "the test of the test"


def test_annotations_are_not_evaluated() -> None:
    """Python 3.9 cannot evaluate ``int | None``."""
    future = "from __future__ import annotations\n"
    without = [file for file in SHIPPED if "|" in file.read_text() and future not in file.read_text()]

    assert without == []


def test_an_older_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))

    with pytest.raises(ImportError, match=r"^the Python of this Spark driver is 3\.8; .* 3\.9 or newer: name one .*$"):
        runpy.run_path(str(ROOT / "__init__.py"))


def test_ruff_keeps_it_so() -> None:
    """For another target, ``ruff check --fix`` puts the newer forms back."""
    targets = tomllib.loads((ROOT.parent / "ruff.toml").read_text())["per-file-target-version"]
    matched = {file for pattern in targets for file in ROOT.parent.glob(pattern.replace("/**", "/**/*.py"))}

    assert set(targets.values()) == {f"py{OLDEST[0]}{OLDEST[1]}"}
    assert matched == set(SHIPPED)
