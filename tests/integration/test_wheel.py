"""The wheel in an empty environment with Airflow: it is discovered without errors, and its DAGs import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "airflow-provider-offsets"
# A build leaves files in the folder of the sources, so it is done in a copy.
SOURCES = ("airflow_provider_offsets", "setup.cfg", "pyproject.toml", "LICENSE", "README.md")


def run(argv: Sequence[str | Path], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a program to its end, and return its output; a failure shows its error output."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).exists():
            run(["cp", "-r", ROOT / name, folder], cwd=folder)
    run([sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", folder], cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the wheel and its dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    env = dict(os.environ)
    if "PIP_INDEX_URL" in env:  # uv has its own name for the same setting
        env.setdefault("UV_DEFAULT_INDEX", env["PIP_INDEX_URL"])
    run([sys.executable, "-m", "venv", folder], cwd=folder)
    uv = Path(sys.executable).with_name("uv")
    install = [uv, "pip", "install", "--python"] if uv.exists() else [sys.executable, "-m", "pip", "--python"]
    end = [wheel, "-c", ROOT / "constraints.txt"]
    python = folder / "bin" / "python"
    run([*install, python, *([] if uv.exists() else ["install"]), *end], cwd=folder, env=env)
    return folder


@pytest.fixture(scope="module")
def airflow(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the process environment of that Airflow: its own home, and the DAGs of this repository."""
    home = tmp_path_factory.mktemp("airflow")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    return clean | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_it_holds_all_that_is_not_python_too(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()

    assert "airflow_provider_offsets/py.typed" in names
    assert "airflow_provider_offsets/factories/pipelines.schema.json" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"airflow_provider_offsets"}
    assert [name for name in names if "__pycache__" in name or "test_" in name] == []
    assert "License-Expression: Apache-2.0" in metadata


def test_airflow_lists_the_provider(environment: Path, airflow: dict[str, str]) -> None:
    said = run(["airflow", "providers", "list", "-o", "json"], cwd=environment, env=airflow)
    listed = json.loads(said[said.index("[{") :])

    [provider] = [each for each in listed if each["package_name"] == NAME]
    assert provider["description"].startswith("Leakproof Kafka to Spark streaming")


def test_airflow_lists_the_connection_type(environment: Path, airflow: dict[str, str]) -> None:
    said = run(["airflow", "providers", "hooks", "-o", "json"], cwd=environment, env=airflow)
    listed = json.loads(said[said.index("[{") :])

    [hook] = [each for each in listed if each["connection_type"] == "offsets"]
    assert hook["package_name"] == NAME


def test_airflow_loads_the_plugin_without_an_error(environment: Path, airflow: dict[str, str]) -> None:
    said = run(["airflow", "plugins", "-o", "json"], cwd=environment, env=airflow)
    listed = json.loads(said[said.index("[{") :])

    assert "offsets" in [each["name"] for each in listed]
    look = "from airflow import plugins_manager as m; import json; print(json.dumps(m.get_import_errors()))"
    assert json.loads(run(["python", "-c", look], cwd=environment, env=airflow).splitlines()[-1]) == {}


LOOK = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
import airflow_provider_offsets
bag = DagBag(dag_folder=sys.argv[1])
found = {"errors": bag.import_errors, "dags": sorted(bag.dags), "file": airflow_provider_offsets.__file__}
print(json.dumps(found))
"""


def test_the_dags_of_this_repository_import(environment: Path, airflow: dict[str, str]) -> None:
    said = run(["python", "-c", LOOK, ROOT / "dags"], cwd=environment, env=airflow)
    found = json.loads(said.splitlines()[-1])

    assert found["errors"] == {}
    assert found["dags"] == [
        "backfill__delay_alerts",  # an untracked job cannot read a given range
        "backfill_then_live__delay_alerts",
        *(
            f"{kind}__{pipeline}"
            for kind in ("maintenance", "recovery", "rehearsal", "reprocess", "snapshots")
            for pipeline in ("archive_flights", "delay_alerts")
        ),
    ]
    assert found["file"].startswith(str(environment)), "the test of the test: it is the wheel that was imported"
