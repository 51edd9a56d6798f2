"""Public functions with more than one argument document each argument, the result and the errors that they raise.

The fields of the docstring do so: ``:param x:``, ``:returns:``, ``:raises X:``. The words Return, Yield and Check also
document the result. A method that repeats one of its base class or of a protocol of the package inherits its docs.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "airflow_provider_offsets"
RESULT = re.compile(r"\b(Return|return|Yield|yield)s?\b|\ACheck|:(returns|yields):")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function or method, with the class that it belongs to."""

    file: str
    owner: ast.ClassDef | None
    node: Function

    @property
    def name(self) -> str:
        """The name with its file and line, as an editor opens it."""
        owner = f"{self.owner.name}." if self.owner else ""
        return f"{self.file}:{self.node.lineno} {owner}{self.node.name}"

    @property
    def docstring(self) -> str:
        """The docstring, empty if there is none."""
        return ast.get_docstring(self.node) or ""

    @property
    def arguments(self) -> list[str]:
        """The names of the arguments, without ``self`` and ``cls``."""
        given = self.node.args
        names = [each.arg for each in (*given.posonlyargs, *given.args)]
        if self.owner and "staticmethod" not in decorators(self.node):
            names = names[1:]
        names += [each.arg for each in given.kwonlyargs]
        return names + [each.arg for each in (given.vararg, given.kwarg) if each]


def decorators(node: Function) -> set[str]:
    """Return the decorators of a function, without their arguments."""
    return {ast.unparse(each).partition("(")[0] for each in node.decorator_list}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return the public modules of the package."""
    found = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: ast.parse(path.read_text()) for name, path in found.items() if not re.search(r"(^|/)_(?!_)", name)}


@functools.cache
def classes() -> dict[str, ast.ClassDef]:
    """Return the classes of the package by name."""
    return {node.name: node for tree in modules().values() for node in tree.body if isinstance(node, ast.ClassDef)}


@functools.cache
def functions() -> list[Documented]:
    """Return the public functions and methods that have more than one argument."""
    found = [
        Documented(file, owner, node)
        for file, tree in modules().items()
        for owner, body in bodies(tree)
        for node in body
        if isinstance(node, Function) and not node.name.startswith("_") and "overload" not in decorators(node)
    ]
    return [each for each in found if len(each.arguments) > 1]


def bodies(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | None, list[ast.stmt]]]:
    """Yield the body of a module, and of each of its public classes."""
    yield None, tree.body
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node, node.body


def base_names(owner: ast.ClassDef) -> list[str]:
    """Return the names of the bases of a class, without modules and type arguments."""
    return [ast.unparse(each).partition("[")[0].rpartition(".")[2] for each in owner.bases]


def inherits(function: Documented) -> bool:
    """Check whether a base class, or a protocol of the package, has this method with the same arguments."""
    if function.owner is None:
        return False
    bases = [classes()[name] for name in base_names(function.owner) if name in classes()]
    protocols = [each for each in classes().values() if "Protocol" in base_names(each)]
    for owner in (*bases, *protocols):
        same = [each for each in owner.body if isinstance(each, Function) and each.name == function.node.name]
        if owner is not function.owner and any(
            Documented("", owner, each).arguments == function.arguments for each in same
        ):
            return True
        if owner in bases and inherits(Documented(function.file, owner, function.node)):
            return True
    return False


def raised(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names of the classes that these statements raise, outside of nested functions."""
    for node in body:
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name[0].isupper() and name != "AssertionError":
                yield name
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            if not isinstance(node, Function | ast.ClassDef):
                yield from raised(getattr(node, field, []))


def undocumented(function: Documented) -> Iterator[str]:
    """Yield what the docstring of a function lacks."""
    yield from (name for name in function.arguments if f":param {name}:" not in function.docstring)
    result = ast.unparse(function.node.returns) if function.node.returns else "None"
    if result not in ("None", "NoReturn", "Never") and not RESULT.search(function.docstring):
        yield "the result"
    named = " ".join(re.findall(r":raises ([^:]+):", function.docstring))
    yield from (f"raises {name}" for name in sorted(set(raised(function.node.body))) if name not in named)


def test_the_functions_were_found() -> None:
    names = [each.name.partition(" ")[2] for each in functions()]

    assert len(names) > 300
    assert {"maintenance_dag", "plan_restart", "HBaseStore.append", "TrackedStream.run"} <= set(names)
    assert sum(map(inherits, functions())) > 20


def test_each_argument_result_and_error_is_documented() -> None:
    found = [
        f"{each.name}: {', '.join(lacking)}"
        for each in functions()
        if not inherits(each) and (lacking := list(undocumented(each)))
    ]

    assert found == [], "add :param x:, :returns: or :raises X: to the docstring"


@pytest.mark.parametrize(
    ("docstring", "lacking"),
    [
        ("Return it.\n\n:param a: one.\n:param b: two.\n:raises ValueError: if not.", []),
        ("Return it.\n\n:param a: one.\n:raises KeyError, ValueError: if not.", ["b"]),
        ("Write it.\n\n:param a: one.\n:param b: two.\n:raises ValueError: if not.", ["the result"]),
        ("Return it.\n\n:param a: one.\n:param b: two.", ["raises ValueError"]),
    ],
)
def test_what_is_missing_is_named(docstring: str, lacking: list[str]) -> None:
    source = (
        f"def f(a: int, *, b: int) -> int:\n    {docstring!r}\n    if a:\n        raise ValueError(b)\n    return a\n"
    )
    [node] = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)

    assert list(undocumented(Documented("f.py", None, node))) == lacking
