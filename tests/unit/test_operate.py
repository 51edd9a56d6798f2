"""docs/operate.md: a backup of a store in SQLite is restored, and the plan says what the restored store means."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.model import RestartForm
from airflow_provider_offsets.factories.pipelines import load_pipelines
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.stores import open_store
from tests.unit.operations import steps
from tests.unit.operations.lab import Lab, install

PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    folder = tmp_path / "lab"
    folder.mkdir()
    store = open_store(f"sqlite:///{tmp_path}/offsets.db")
    store.create()
    made = install(Lab(folder, store=store), monkeypatch)  # type: ignore[arg-type]  # the lab's own is in memory
    yield made
    made.store.close()


@pytest.mark.parametrize(
    ("variables", "topic", "approve", "checkpoint"),
    [
        ({}, "orders", False, "/data/checkpoints/orders"),
        (
            {"ORDERS_TOPIC": "orders-eu", "ORDERS_APPROVE": "true", "CHECKPOINTS": "/mnt/eu"},
            "orders-eu",
            True,
            "/mnt/eu/orders",
        ),
    ],
)
def test_one_file_for_several_environments(
    variables: dict[str, str],
    topic: str,
    approve: bool,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    [block] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "pipelines.yaml").write_text(block)

    orders = load_pipelines(tmp_path / "pipelines.yaml")["orders"]

    assert (orders.topics, orders.approve, orders.job.checkpoint) == ((topic,), approve, checkpoint)


def back_up(tmp_path: Path) -> Path:
    """Execute the SQL of the page."""
    [(shown, sql)] = re.findall(r'^\$ sqlite3 (\S+) "(VACUUM INTO .+)"$', PAGE, re.MULTILINE)
    with closing(sqlite3.connect(tmp_path / Path(shown).name)) as database:
        database.execute(sql.replace("/backup/", f"{tmp_path}/"))
    [backup] = tmp_path.glob("offsets-*.db")
    return backup


def restore(lab: Lab, backup: Path, tmp_path: Path) -> None:
    lab.store.close()
    backup.replace(tmp_path / "offsets.db")
    lab.store = open_store(f"sqlite:///{tmp_path}/offsets.db")  # type: ignore[assignment]


def test_a_backup_of_a_stopped_job_continues_where_the_job_stopped(lab: Lab, tmp_path: Path) -> None:
    steps.rest(lab)
    backup = back_up(tmp_path)
    (tmp_path / "offsets.db").write_bytes(b"a broken disk")

    restore(lab, backup, tmp_path)

    steps.stop(lab, "restored", take_over=True)
    plan = steps.plan(lab, operation="restored")
    assert (plan.form, plan.start, plan.problems) == (RestartForm.RESUME, lab.at(100, 100), ())
    audit = audit_history(lab.session("audit"))
    assert (audit.records, audit.unexplained_count) == (200, 0)


def test_a_backup_that_is_older_than_the_job_is_a_problem_of_the_plan_which_quotes_the_starts(
    lab: Lab, tmp_path: Path
) -> None:
    steps.start(lab)
    backup = back_up(tmp_path)
    lab.feed(50)
    lab.tick()
    steps.stop(lab)

    restore(lab, backup, tmp_path)

    steps.stop(lab, "restored", take_over=True)
    [problem] = steps.plan(lab, operation="restored").problems
    assert problem.kind is ProblemKind.STORES_DISAGREE
    _, not_in_the_output = re.findall(r"start from '([^']+)'", problem.message)

    plan = steps.plan(lab, not_in_the_output, operation="restored")
    assert (plan.problems, plan.start) == ((), lab.at(100, 100))
    steps.submit(lab, steps.apply(lab, not_in_the_output, "restored"), "restored")
    lab.tick()
    assert lab.store.position(lab.pipeline.stream) == lab.at(150, 150)
    assert audit_history(lab.session("audit")).unexplained_count == 0
