"""The root package is the public API: every name works, is documented, and is loaded only when it is used."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_offsets as package
from airflow_provider_offsets import errors, factories, operators, sensors

ROOT = Path(__file__).parents[2]
PACKAGE = package.__name__
SOURCE = Path(package.__file__)
EXAMPLES = sorted(path.stem for path in (ROOT / "tests" / "typing").glob("*.py") if path.stem != "__init__")
NAMES = sorted(set(package.__all__) - {"__version__", "testing"})


def documented() -> list[str]:
    """Return the names that docs/api.md describes."""
    return re.findall(rf"^::: {PACKAGE}\.([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)


def imported_for_type_checkers() -> dict[str, str]:
    """Return the names that type checkers see, with their modules."""
    tree = ast.parse(SOURCE.read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def test_what_is_exported_is_documented_and_the_other_way_round() -> None:
    promised = [name for name in package.__all__ if name not in ("__version__", "testing")]
    promised += [f"testing.{name}" for name in package.testing.__all__]

    assert set(promised) - set(documented()) == set(), "exported, and not on the page"
    assert set(documented()) - set(promised) == set(), "on the page, and not exported"
    assert len(documented()) == len(promised), "each once"


def test_type_checkers_see_what_is_loaded() -> None:
    seen = imported_for_type_checkers()

    assert sorted({*seen, "__version__"}) == sorted(package.__all__)
    assert {name: module for name, module in seen.items() if name != "testing"} == package._MODULE_OF


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_has_a_docstring(name: str) -> None:
    found = getattr(package, name)

    assert found.__name__ == name
    assert found.__module__.startswith(f"{PACKAGE}.")
    assert inspect.getdoc(found)
    assert name in dir(package)


@pytest.mark.parametrize("layer", [factories, operators, sensors])
def test_no_factory_operator_or_sensor_is_missing(layer: Any) -> None:
    assert set(layer.__all__) <= set(package.__all__)


def test_no_error_is_missing() -> None:
    kinds = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}

    assert "OffsetsError" in kinds, "the test of the test: the errors were found"
    assert kinds <= set(package.__all__)


def test_what_a_caller_has_to_pass_is_public() -> None:
    """The classes in the signatures of public classes and functions; only the runtime passes settings."""
    private = {
        (name, word)
        for name in NAMES
        for parameter in inspect.signature(getattr(package, name)).parameters.values()
        for word in re.findall(r"[A-Z]\w+", str(parameter.annotation))
        if word in ours() and word not in package.__all__
    }

    assert private == {("TrackedStream", "ReplaySettings"), ("TrackedStream", "Settings")}


@functools.cache
def ours() -> set[str]:
    """Return the name of each class of the package."""
    sources = [path.read_text() for path in SOURCE.parent.rglob("*.py")]
    return {name for source in sources for name in re.findall(r"^ *class (\w+)", source, re.MULTILINE)}


def test_a_misspelled_name_is_answered_with_the_right_one() -> None:
    done = python(f"import {PACKAGE}\n{PACKAGE}.TrackedStrem")

    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        f"AttributeError: module '{PACKAGE}' has no public name 'TrackedStrem'; the API reference (docs/api.md) lists"
        " all of them. Did you mean: 'TrackedStream'?"
    )


def python(code: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, where the import of some packages fails as if they were not installed."""
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_loads_nothing_else() -> None:
    done = python(
        f"import json\nbefore = set(sys.modules)\nimport {PACKAGE}\nprint(json.dumps([*set(sys.modules) - before]))"
    )

    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert PACKAGE in loaded, "the test of the test"
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {PACKAGE}
    assert [name for name in loaded if name.startswith(f"{PACKAGE}.")] == []


@pytest.mark.parametrize("name", ["OffsetsError", "Position", "StreamingPipeline", "TrackedStream", "testing"])
def test_a_spark_driver_needs_no_airflow(name: str) -> None:
    done = python(f"from {PACKAGE} import {name}\nprint({name}.__name__)", without=("airflow",))

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(name)


def test_what_needs_airflow_says_so() -> None:
    done = python(f"from {PACKAGE} import maintenance_dag", without=("airflow",))

    assert "ModuleNotFoundError" in done.stderr
    assert "airflow" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_type_checked_examples_use_the_public_api_alone(example: str) -> None:
    tree = ast.parse((ROOT / "tests" / "typing" / f"{example}.py").read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]

    assert PACKAGE in modules
    assert [module for module in modules if module.startswith(f"{PACKAGE}.")] == []


def test_the_type_checked_dag_files_make_dags() -> None:
    kinds = ("maintenance", "reprocess", "recovery", "rehearsal", "snapshots", "backfill", "backfill_then_live")

    by_factories = vars(importlib.import_module("tests.typing.dags_by_factories"))
    in_python = vars(importlib.import_module("tests.typing.pipeline_in_python"))

    assert {f"{kind}__delay_alerts" for kind in kinds} <= by_factories.keys()
    assert in_python["maintenance"].dag_id == "maintenance__orders"
    assert in_python["move_orders"].task_ids[-1] == "runway"


def test_the_type_checked_test_passes() -> None:
    tests = importlib.import_module("tests.typing.test_lag")

    tests.test_a_batch_brings_the_job_nearer()
    tests.test_a_missing_topic_is_an_error()


SHOWN = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "dags").glob("*.py"),
    *(ROOT / "jobs").glob("*.py"),
]


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.name)
def test_what_users_read_imports_from_the_root(file: Path) -> None:
    shown = re.findall(rf"^ *(?:from|import) {PACKAGE}\S* .*$", file.read_text(), re.MULTILINE)

    assert [line for line in shown if f"{PACKAGE}." in line] == []
