"""Imports point down only, and reading a DAG file loads nothing heavy.

The Spark driver has no Airflow, and the DAG processor reads every file repeatedly. These tests read the source for both
rules, and check the second one by a real import in a process of its own as well.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Set
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_offsets"
HEAVY = {"pyspark", "confluent_kafka", "happybase", "kazoo", "sqlalchemy", "deltalake", "pyiceberg"}
SHELLS = (
    "operators",
    "sensors",
    "connections",
    "hooks",
    "factories",
    "triggers",
    "plugin",
    "timetables",
    "cli",
    "get_provider_info",
)
WITHOUT_AIRFLOW = (
    "core",
    "runtime",
    "stores",
    "checkpoint",
    "ledgers",
    "control",
    "backends",
    "committer",
    "kafka",
    "operations",
    "reports",
    "errors",
    "clock",
    "testing",
)

FROM_THE_BOTTOM = (
    ("errors", "clock", "__version__"),
    ("core",),
    ("stores", "kafka", "checkpoint", "ledgers"),
    ("control", "backends", "committer", "testing"),
    ("runtime",),
    ("operations", "reports"),
    ("hooks",),  # and nothing of operations: see below
    ("connections",),
    ("operators", "sensors", "triggers", "links", "plugin", "timetables", "get_provider_info"),
    ("factories",),
    ("cli",),
    ("__main__",),
)
RANK = {layer: rank for rank, layers in enumerate(FROM_THE_BOTTOM) for layer in layers}


def layer_of(name: str) -> str:
    """Return the folder or file directly below the package."""
    return name.split(".")[1]


def modules() -> dict[str, Path]:
    """Return every module of the package, by its dotted name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def in_layer(*layers: str) -> list[str]:
    """Return the modules of these folders or files."""
    return [name for name in MODULES if name != PACKAGE and layer_of(name) in layers]


def imports(tree: ast.Module, *, whole: bool) -> set[str]:
    """Return the modules that a module imports, by dotted name; ``from a import b`` yields ``a`` and ``a.b``.

    :param tree: the module, parsed.
    :param whole: include imports in functions too. Imports under ``if TYPE_CHECKING:`` never run and are omitted.
    """
    found: set[str] = set()
    for node in _running(tree, whole=whole):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _running(node: ast.AST, *, whole: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue  # no import is below an expression
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for each in child.orelse:
                yield from (each, *_running(each, whole=whole))
            continue
        if not whole and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from _running(child, whole=whole)


@functools.cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def imported_by(name: str, *, whole: bool = False) -> frozenset[str]:
    """Return the modules that a module imports. Cached, because most tests ask for most modules."""
    return frozenset(imports(parsed(name), whole=whole))


def loaded_by(name: str) -> dict[str, tuple[str, ...]]:
    """Return all modules that an import loads through our own modules, with the path to each for the message."""
    ways: dict[str, tuple[str, ...]] = {name: (name,)}
    waiting = [name]
    while waiting:
        here = waiting.pop()
        for each in imported_by(here):
            if each in ways:
                continue
            ways[each] = (*ways[here], each)
            if each in MODULES:
                waiting.append(each)
    return ways


def roots(names: Set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("source", "whole", "found"),
    [
        ("import a.b", False, {"a.b"}),
        ("from a import b", False, {"a", "a.b"}),
        ("def f():\n    import a", False, set()),
        ("def f():\n    import a", True, {"a"}),
        ("class C:\n    import a", False, {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", False, {"a", "b"}),
        ("if TYPE_CHECKING:\n    import a", True, set()),
        ("if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", False, {"b"}),
    ],
)
def test_imports_are_found(source: str, whole: bool, found: set[str]) -> None:
    """The test of the test."""
    assert imports(ast.parse(source), whole=whole) == found


@pytest.mark.parametrize("name", in_layer("core", "errors"))
def test_core_knows_the_standard_library_and_itself(name: str) -> None:
    ours = {each for each in imported_by(name, whole=True) if each.startswith(PACKAGE)}
    allowed = (f"{PACKAGE}.core", f"{PACKAGE}.errors")

    assert roots(imported_by(name, whole=True)) - {PACKAGE} <= sys.stdlib_module_names
    assert [each for each in ours if not each.startswith(allowed)] == []


@pytest.mark.parametrize("name", in_layer("core"))
def test_core_has_no_clock_and_no_io(name: str) -> None:
    doors = {"time", "datetime", "os", "io", "pathlib", "socket", "subprocess", "random", "logging", "threading"}

    if name == f"{PACKAGE}.core.moments":  # reads and writes times, and never reads a clock
        doors -= {"datetime"}
        assert not re.search(r"\.(now|utcnow|today)\b", MODULES[name].read_text())

    assert roots(imported_by(name, whole=True)) & doors == set()


@pytest.mark.parametrize("name", in_layer(*WITHOUT_AIRFLOW))
def test_the_driver_needs_no_airflow(name: str) -> None:
    assert "airflow" not in roots(imported_by(name, whole=True))
    assert [way for each, way in loaded_by(name).items() if each.partition(".")[0] == "airflow"] == []


@pytest.mark.parametrize("name", in_layer(*WITHOUT_AIRFLOW))
def test_pyspark_is_imported_when_a_driver_runs(name: str) -> None:
    assert [way for each, way in loaded_by(name).items() if each.partition(".")[0] == "pyspark"] == []


@pytest.mark.parametrize("name", in_layer(*SHELLS))
def test_the_shells_load_nothing_heavy(name: str) -> None:
    heavy = [" -> ".join(way) for each, way in loaded_by(name).items() if each.partition(".")[0] in HEAVY]

    assert heavy == []


def test_importing_the_package_loads_nothing_else() -> None:
    """Its public names are imported when they are first used: see ``test_api.py`` for the same in a real process."""
    assert roots(imported_by(PACKAGE, whole=True)) <= sys.stdlib_module_names


@pytest.mark.parametrize("name", [name for name in MODULES if name != PACKAGE])
def test_imports_point_down(name: str) -> None:
    here = RANK[layer_of(name)]
    ours = [each for each in imported_by(name, whole=True) if each.startswith(f"{PACKAGE}.")]

    assert [each for each in ours if RANK[layer_of(each)] > here] == []


@pytest.mark.parametrize("name", in_layer("hooks"))
def test_hooks_know_no_operation(name: str) -> None:
    """A hook turns a connection into a client or a command; ``connections`` hands them to the operations."""
    above = (f"{PACKAGE}.operations", f"{PACKAGE}.reports")

    assert [each for each in imported_by(name, whole=True) if each.startswith(above)] == []


def test_a_launcher_is_made_in_one_place() -> None:
    """Operators ask ``connections`` for a launcher, so that all check the same and use the same command."""
    spark = f"{PACKAGE}.hooks.spark"

    assert [name for name in MODULES if spark in imported_by(name, whole=True)] == [f"{PACKAGE}.connections"]


def needed_by(name: str) -> set[str]:
    """Return the modules of ours that must be there before this one; a package counts only for what it holds itself."""
    found = {each for each in imported_by(name) if each in MODULES and each not in (name, PACKAGE)}
    return {each for each in found if not any(other.startswith(f"{each}.") for other in found)}


def folder_of(name: str) -> str:
    """Return the folder or file below the package, and below ``core``, which holds several."""
    return ".".join(name.split(".")[1:3]) if layer_of(name) == "core" else layer_of(name)


def test_neither_modules_nor_folders_import_in_a_circle() -> None:
    """An import in a function does not count: by then, both modules are there."""
    modules = {name: needed_by(name) for name in MODULES if name != PACKAGE}
    folders: dict[str, set[str]] = {}
    for name, needed in modules.items():
        folders.setdefault(folder_of(name), set()).update(map(folder_of, needed))
    for folder, needed in folders.items():
        needed.discard(folder)

    TopologicalSorter(modules).prepare()
    TopologicalSorter(folders).prepare()


LOOK = """
import json, runpy, sys
import airflow.sdk
from airflow.sdk import DAG
before = set(sys.modules)
runpy.run_path(sys.argv[1])
print(json.dumps({"before": sorted(before), "after": sorted(sys.modules)}))
"""


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.name)
def test_reading_a_dag_file_loads_nothing_heavy(path: Path, tmp_path: Path) -> None:
    """Airflow itself may have loaded some of them by then: ``import airflow.sdk`` alone brings sqlalchemy in 3.3.2."""
    process = subprocess.run(
        [sys.executable, "-c", LOOK, str(path)],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    loaded = json.loads(process.stdout.splitlines()[-1])
    new = set(loaded["after"]) - set(loaded["before"])

    assert f"{PACKAGE}.factories" in roots_of_two(new), "the file was read, and is one of ours"
    assert roots(new) & HEAVY == set()


def roots_of_two(names: set[str]) -> set[str]:
    return {".".join(name.split(".")[:2]) for name in names}
