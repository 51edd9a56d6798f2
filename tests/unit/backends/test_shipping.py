"""What is shipped to the driver: one zip, the same bytes for the same code, for a Python without packages."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_offsets.backends import shipping
from airflow_provider_offsets.backends.shipping import runtime_zip


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the zip, which no test changes."""
    return runtime_zip(tmp_path_factory.mktemp("shipped") / "logs")


def bare_python(code: str, shipped: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code on a Python that has the zip and the standard library, and no site-packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(shipped)!r})\n{code}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def test_equal_content_has_an_equal_name(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    again = runtime_zip(tmp_path / "elsewhere")

    assert again.name == shipped.name
    assert again.read_bytes() == shipped.read_bytes()


def test_other_content_has_another_name(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "_ENTRY", "errors")

    assert runtime_zip(tmp_path / "logs").name != shipped.name


def test_one_that_is_there_is_left_alone(shipped: Path) -> None:
    """A driver may be reading the file."""
    before = shipped.stat()

    assert runtime_zip(shipped.parent) == shipped
    assert shipped.stat() == before
    assert list(shipped.parent.iterdir()) == [shipped], "and nothing half done stays"


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node, except those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr) and not is_for_type_checkers(child):
            yield child
            yield from running(child)


def test_what_the_driver_imports_is_in_it(tmp_path: Path) -> None:
    """A package that a driver's module imports is shipped without being listed anywhere."""
    root = tmp_path / "airflow_provider_offsets"
    for name, source in {
        "runtime/__init__.py": "",
        "runtime/stream.py": "def f():\n    from airflow_provider_offsets.backends.yarn import kill",
        "backends/__init__.py": "import airflow_provider_offsets.clock",
        "backends/yarn.py": "from airflow_provider_offsets import errors",
        "clock.py": "",
        "errors.py": "",
        "operations/__init__.py": "import airflow_provider_offsets.runtime",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)

    assert {str(file.relative_to(root)) for file in shipping._shipped(root)} == {
        "runtime/__init__.py",
        "runtime/stream.py",
        "backends/__init__.py",
        "backends/yarn.py",
        "clock.py",
        "errors.py",
    }


def test_nothing_in_it_imports_airflow_or_what_only_airflow_needs(shipped: Path) -> None:
    with zipfile.ZipFile(shipped) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}

    above = ("operations", "hooks", "operators", "sensors", "triggers", "factories", "plugin", "reports", "kafka")
    shipped_parts = {each.split("/")[1].removesuffix(".py") for each in sources}
    assert shipped_parts.isdisjoint(above)
    for name, source in sources.items():
        for node in running(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert [each for each in names if each.partition(".")[0] == "airflow"] == [], name
            ours = [each.split(".")[1] for each in names if each.startswith("airflow_provider_offsets.")]
            assert set(ours) <= shipped_parts, name


def test_a_python_with_nothing_installed_imports_it(shipped: Path, tmp_path: Path) -> None:
    done = bare_python(
        "import airflow_provider_offsets.stores.memory\n"
        "from airflow_provider_offsets import Fenced, TrackedStream\n"
        "print(TrackedStream.__module__, airflow_provider_offsets.__file__)",
        shipped,
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    module, file = done.stdout.split()
    assert module == "airflow_provider_offsets.runtime.tracked_stream"
    assert file.startswith(str(shipped)), "the test of the test: it is the zip that was imported"


@pytest.mark.parametrize(
    ("url", "client"),
    [
        ("sqlite:////tmp/offsets.db", "SQLAlchemy"),
        ("postgresql://me@db/offsets", "SQLAlchemy"),
        ("hbase://t/x", "happybase"),
    ],
)
def test_a_client_that_the_driver_s_python_lacks_is_named(url: str, client: str, shipped: Path, tmp_path: Path) -> None:
    done = bare_python(
        f"from airflow_provider_offsets.stores import open_store\nopen_store({url!r})", shipped, tmp_path
    )

    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("airflow_provider_offsets.errors.StoreClientMissing:"), done.stderr
    assert client in last
