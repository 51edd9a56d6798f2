"""Everything that people can write, call or meet is documented, and what the pages show works."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
from pathlib import Path
from unittest import mock

import pytest
import yaml
from airflow.sdk import DAG

from airflow_provider_offsets import errors
from airflow_provider_offsets.core import selector
from airflow_provider_offsets.core.plan import ProblemKind, plan_restart
from airflow_provider_offsets.core.selector_text import parse_start, start_text
from airflow_provider_offsets.factories.pipelines import SCHEMA, load_pipelines
from airflow_provider_offsets.operators import PlanRestartOperator
from airflow_provider_offsets.reports import plan_json
from airflow_provider_offsets.runtime import TrackedStream
from tests.unit.core.worlds import at, live, running

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def classes_of(layer: str, ending: str) -> list[str]:
    text = (ROOT / "airflow_provider_offsets" / layer / "__init__.py").read_text()
    return sorted(set(re.findall(rf'"(\w+{ending})"', text)))


def keys_of_the_schema() -> list[str]:
    pipeline = json.loads(SCHEMA.read_text())["$defs"]["pipeline"]["properties"]
    nested = [key for one in pipeline.values() for key in one.get("properties", {})]
    return sorted({*pipeline, *nested})


def selectors() -> list[str]:
    """Return the first words of the table in the selector's own module."""
    return re.findall(r"^\| ``([a-z-]+:?)", selector.__doc__ or "", re.MULTILINE)


def make_targets() -> list[str]:
    """Return all targets except ``help``, which plain ``make`` prints."""
    return [
        f"make {name}"
        for name in re.findall(r"^([a-z0-9.-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        if name != "help"
    ]


def exceptions() -> list[str]:
    return sorted(
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.OffsetsError) and kind.__module__ == errors.__name__
    )


@pytest.mark.parametrize(
    ("kind", "names", "some"),
    [
        ("operators", classes_of("operators", "Operator"), "SubmitStreamingJobOperator"),
        ("sensors", classes_of("sensors", "Sensor"), "OffsetsReachedSensor"),
        ("keys of pipelines.yaml", keys_of_the_schema(), "signal_timeout_s"),
        ("selectors", selectors(), "shift:"),
        ("make targets", make_targets(), "make demo"),
        ("exceptions", exceptions(), "WorldChanged"),
        ("templated arguments", list(PlanRestartOperator.template_fields), "window_s"),
    ],
)
def test_it_is_in_the_docs(kind: str, names: list[str], some: str) -> None:
    assert some in names, "the test of the test: the names were found"
    text = "\n".join(page.read_text() for page in PAGES)

    missing = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]

    assert not missing, f"{kind} that no page mentions: {', '.join(missing)}"


def test_every_problem_of_a_plan_has_its_row_and_its_way_out() -> None:
    page = (ROOT / "docs" / "plan.md").read_text()
    table = page.partition("## Problems")[2].partition("\n\n**")[0]
    rows = {row[0]: row for line in table.splitlines() if len(row := re.split(r" *(?<!\\)\| *", line.strip("| "))) == 3}

    assert set(rows) - {"problem", "---"} == {kind.value for kind in ProblemKind}
    assert all(len(cell) > 1 for row in rows.values() for cell in row)


def test_every_key_of_the_plan_s_json_is_told() -> None:
    plan = plan_restart(at(40, 60), running(live((0, 100), (0, 100)), at(40, 60)))
    table = (ROOT / "docs" / "plan.md").read_text().partition("## As JSON")[2]
    given = plan_json(plan)

    assert set(re.findall(r"`(\w+)`", table)) >= {*given, *given["rows"][0], "markdown"}


@pytest.mark.parametrize("page", [page for page in PAGES], ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]

    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_list_of_decisions_has_each_page_with_its_title() -> None:
    decisions = ROOT / "docs" / "decisions"
    listed = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((\S+)\) \|", (decisions / "index.md").read_text(), re.MULTILINE)

    assert sorted(listed) == [
        (page.name[:4], page.read_text().partition("\n")[0].removeprefix("# "), page.name)
        for page in sorted(decisions.glob("0*.md"))
    ]


def test_the_tests_that_are_named_are_there() -> None:
    text = (ROOT / "docs" / "testing.md").read_text()
    named = [(file, name.split("::")) for file, name in re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", text)]
    named += [("tests/simulation/test_cases.py", [name]) for name in re.findall(r"`(test_(?:a|b)\d+_\w+)`", text)]
    found = {file: (ROOT / file).read_text() for file, _ in named}

    assert len(named) > 30, "the test of the test: the names were found"
    assert [
        (file, name)
        for file, names in named
        for name in names
        if not re.search(rf"^ *(?:def|class) {name}\b", found[file], re.MULTILINE)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dotted_names_lead_somewhere(page: Path) -> None:
    for name in re.findall(r"`(airflow_provider_offsets(?:\.\w+)+)`", page.read_text()):
        assert pkgutil.resolve_name(name) is not None


def examples(page: str, language: str) -> list[str]:
    """Return the code blocks of one language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_starts_that_are_shown_are_read() -> None:
    [texts], [block] = examples("docs/selectors.md", "start"), examples("docs/selectors.md", "yaml")

    assert len([parse_start(line) for line in texts.splitlines()]) > 5
    assert start_text(yaml.safe_load(block)["start"]) == (
        'as-of:2026-11-01T00:00:00Z | offsets:{"orders":{"0":123,"1":456}} | earliest'
    )


def test_each_selector_has_its_row() -> None:
    table = (ROOT / "docs/selectors.md").read_text().split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+:?)", table, re.MULTILINE)

    assert sorted(rows) == sorted(selectors())


def pipelines_of(page: str) -> list[str]:
    return [block for block in examples(page, "yaml") if block.startswith("pipelines:")]


@pytest.mark.parametrize("page", ["README.md", "docs/maintenance.md", "docs/tutorial.md"])
def test_the_pipelines_that_are_shown_are_read(page: str, tmp_path: Path) -> None:
    [shown] = pipelines_of(page)
    (tmp_path / "pipelines.yaml").write_text(shown)

    assert load_pipelines(tmp_path / "pipelines.yaml")["orders"].job.checkpoint == "/data/checkpoints/orders"


@pytest.mark.parametrize("page", ["docs/untouched.md", "docs/dstream.md", "docs/dstream-0-8.md"])
def test_the_untouched_pipelines_that_are_shown_are_read(page: str, tmp_path: Path) -> None:
    [shown] = pipelines_of(page)
    (tmp_path / "pipelines.yaml").write_text(shown)

    assert [each.tracked for each in load_pipelines(tmp_path / "pipelines.yaml").values()][:1] == [False]


@pytest.mark.parametrize("page", ["README.md", "docs/maintenance.md", "docs/tutorial.md"])
def test_the_dag_files_that_are_shown_make_a_dag(page: str, tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(pipelines_of("README.md")[0])
    [shown] = [block for block in examples(page, "python") if "load_pipelines" in block]
    names: dict[str, object] = {}

    exec(shown.replace("/opt/airflow/dags", str(tmp_path)), names)  # noqa: S102  # our own page

    [made] = {value.dag_id: value for value in names.values() if isinstance(value, DAG)}.values()
    assert made.dag_id == "maintenance__orders"


def test_the_file_with_all_dags_makes_them(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(pipelines_of("README.md")[0])
    [shown] = examples("docs/dags.md", "python")
    names: dict[str, object] = {}

    exec(shown.replace("/opt/airflow/dags", str(tmp_path)), names)  # noqa: S102  # our own page

    kinds = ("maintenance", "reprocess", "recovery", "rehearsal", "snapshots", "backfill", "backfill_then_live")
    assert {f"{kind}__orders" for kind in kinds} <= names.keys()


def test_the_dag_that_swaps_a_shadow_table_in_has_its_task(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(pipelines_of("README.md")[0])
    [shown] = examples("docs/backfill-howto.md", "python")
    names: dict[str, object] = {}

    exec(shown.replace("/opt/airflow/dags", str(tmp_path)), names)  # noqa: S102  # our own page

    assert names["backfill__orders"].get_task("after_audit").upstream_task_ids == {"audit_backfill"}


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_job_that_is_shown_calls_what_there_is(page: str) -> None:
    [shown] = [block for block in examples(page, "python") if "TrackedStream" in block]

    fake = mock.create_autospec(TrackedStream, instance=True)
    names = {"spark": None, "transform": lambda records: records, "write": lambda batch, batch_id: None}
    with mock.patch("airflow_provider_offsets.runtime.TrackedStream") as made:
        made.return_value.__enter__.return_value = fake
        exec(shown, names)  # noqa: S102  # our own page

    fake.run.assert_called_once_with(fake.read_kafka.return_value, process=names["write"])
