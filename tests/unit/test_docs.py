"""Everything that people can write, call or meet is documented, and what the pages show works."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import pkgutil
import re
import runpy
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.sdk import DAG
from markdown.extensions.toc import slugify

from airflow_provider_offsets import errors
from airflow_provider_offsets.core.problem import ProblemKind
from airflow_provider_offsets.core.restart.planner import plan_restart
from airflow_provider_offsets.core.selectors import resolve as selector
from airflow_provider_offsets.core.selectors.parse import parse_start, start_text
from airflow_provider_offsets.factories.pipelines import SCHEMA, load_pipelines
from airflow_provider_offsets.operators import PlanRestartOperator
from airflow_provider_offsets.reports import plan_json
from airflow_provider_offsets.runtime import TrackedStream
from airflow_provider_offsets.stores.__main__ import command_parser
from tests.unit.core.observations import at, live, running

ROOT = Path(__file__).parents[2]
SCHEMA_OF_FILE = json.loads(SCHEMA.read_text())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def classes_of(layer: str, ending: str) -> list[str]:
    text = (ROOT / "airflow_provider_offsets" / layer / "__init__.py").read_text()
    return sorted(set(re.findall(rf'"(\w+{ending})"', text)))


def keys_of_the_schema(
    section: dict[str, Any] = SCHEMA_OF_FILE["$defs"]["pipeline"], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], bool]]:
    """Yield the path of each key of a pipeline, its schema, and whether it is required."""
    for key, each in section["properties"].items():
        yield (*above, key), each, key in section.get("required", ())
        if "properties" in each:
            yield from keys_of_the_schema(each, (*above, key))


KEYS = list(keys_of_the_schema())


@pytest.mark.parametrize(
    ("path", "schema", "is_required"), KEYS, ids=lambda each: ".".join(each) if isinstance(each, tuple) else ""
)
def test_each_key_has_a_description_a_unit_a_default_and_an_example(
    path: tuple[str, ...], schema: dict[str, Any], is_required: bool
) -> None:
    assert schema["description"].endswith(".")
    assert "integer" not in schema.get("type", "") or re.search(r"[Nn]umber of|seconds", schema["description"])
    assert not path[-1].endswith("_s") or "seconds" in schema["description"]
    assert is_required != (("default" in schema) != ("x-default" in schema))
    jsonschema.validate(schema["examples"][0], schema)


def test_the_defaults_in_the_schema_are_those_of_the_code(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"topics": ["orders"], "job": {"application": "a.py", "checkpoint": "c"}}
    spelled_out: dict[str, Any] = {**entry, "job": {**entry["job"]}}
    for path, schema, _ in KEYS:
        if "default" in schema:
            place = spelled_out if len(path) == 1 else spelled_out[path[0]]
            place[path[-1]] = {} if "properties" in schema else schema["default"]
    read = []
    for each in (entry, spelled_out):
        (tmp_path / "pipelines.yaml").write_text(yaml.safe_dump({"pipelines": {"orders": each}}))
        read.append(load_pipelines(tmp_path / "pipelines.yaml")["orders"])

    assert read[0] == read[1]


def test_generated_pages_are_up_to_date() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated_pages"]()

    assert {page.name for page in pages} == {
        "build-your-own-dag.md",
        "cli.md",
        "errors.md",
        "pipelines-yaml.md",
        "versions.md",
    }
    assert [page.name for page, text in pages.items() if page.read_text() != text] == [], "run `make reference`"


def commands_of(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield name
    for each in below:
        for word, one in each.choices.items():
            yield from commands_of(one, f"{name} {word}")


def test_the_options_of_each_command_are_on_the_page() -> None:
    places = re.findall(r"<!-- options of `([^`]+)`", (ROOT / "docs" / "cli.md").read_text())
    ours = next(each for each in get_parser()._actions if isinstance(each, argparse._SubParsersAction))

    assert sorted(places) == sorted(
        [
            *commands_of(ours.choices["offsets"], "airflow offsets"),
            *commands_of(command_parser(), "python -m airflow_provider_offsets.stores"),
        ]
    )


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
        ("keys of pipelines.yaml", [path[-1] for path, _, _ in KEYS], "signal_timeout_s"),
        ("selectors", selectors(), "shift:"),
        ("make targets", make_targets(), "make demo"),
        ("exceptions", exceptions(), "StateChanged"),
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
    table = page.partition("## Problems")[2].partition("\n#")[0]
    rows = {row[0]: row for line in table.splitlines() if len(row := re.split(r" *(?<!\\)\| *", line.strip("| "))) == 3}

    assert set(rows) - {"problem", "---"} == {kind.value for kind in ProblemKind}
    assert all(len(cell) > 1 for row in rows.values() for cell in row)


def test_every_key_of_the_plan_s_json_is_described() -> None:
    plan = plan_restart(at(40, 60), running(live((0, 100), (0, 100)), at(40, 60)))
    table = (ROOT / "docs" / "plan.md").read_text().partition("## As JSON")[2]
    given = plan_json(plan)

    assert set(re.findall(r"`(\w+)`", table)) >= {*given, *given["rows"][0], "markdown"}


def prose_of(page: Path) -> str:
    """Return the text of a page without its code."""
    return re.sub(r"^( *)(```+).*?^ *\2$|`[^`\n]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page that both GitHub and, for a page of the site, MkDocs give them."""
    text = re.sub(r"^( *)(```+).*?^ *\2$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = [
        re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", line).replace("`", "").replace("*", "")
        for line in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    ]
    on_github = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    is_of_site = (ROOT / "docs") in page.parents
    return on_github & {slugify(heading, "-") for heading in headings} if is_of_site else on_github


def broken_link(page: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    file = page.parent / target if target else page
    if not file.exists():
        return True
    if file.suffix == ".png":  # Material shows an image in one theme only
        return anchor not in ("only-light", "only-dark")
    # MkDocs makes the anchors of a page with ":::" from the source, and checks them itself.
    return bool(anchor) and "\n::: " not in file.read_text() and anchor not in anchors_of(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_anchors(page: Path) -> None:
    text = prose_of(page)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src|srcset)="([^"\s]+)"', text)
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]

    assert [link for link in local if broken_link(page, link)] == []


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("plan.md", False),
        ("plan.md#problems-and-what-to-do", False),
        ("plan.md#no-such-heading", True),
        ("no-such-page.md", True),
        ("assets/screenshots/audit-dark.png#only-dark", False),
        ("assets/screenshots/audit-dark.png#only-night", True),
        ("#no-such-heading", True),
    ],
)
def test_a_broken_link_is_found(link: str, is_broken: bool) -> None:
    assert broken_link(ROOT / "docs" / "cli.md", link) is is_broken


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


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks in one of the languages, without their indentation."""
    found = re.findall(rf"^( *)```(?:{'|'.join(languages)})\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_the_yaml_that_is_shown_is_valid(page: Path, tmp_path: Path) -> None:
    keys = SCHEMA_OF_FILE["$defs"]["pipeline"]["properties"]

    for block in blocks(page, "yaml"):
        shown = yaml.safe_load(block)
        if "pipelines" in shown:
            (tmp_path / "pipelines.yaml").write_text(block)
            assert load_pipelines(tmp_path / "pipelines.yaml")
            continue
        # Some keys of a pipeline, where "…" stands for others.
        for key, value in shown.items():
            given = {each: one for each, one in value.items() if each != "…"} if isinstance(value, dict) else value
            jsonschema.validate(given, {**keys[key], "required": []})


@pytest.mark.parametrize("page", ["README.md", "docs/adopt.md", "docs/maintenance.md", "docs/tutorial.md"])
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


@pytest.mark.parametrize("page", ["README.md", "docs/adopt.md", "docs/tutorial.md"])
def test_the_job_that_is_shown_calls_what_there_is(page: str) -> None:
    [shown] = [block for block in examples(page, "python") if "TrackedStream" in block]

    fake = mock.create_autospec(TrackedStream, instance=True)
    names = {"spark": None, "transform": lambda records: records, "write": lambda batch, batch_id: None}
    with mock.patch("airflow_provider_offsets.TrackedStream") as made:
        made.return_value.__enter__.return_value = fake
        exec(shown, names)  # noqa: S102  # our own page

    fake.run.assert_called_once_with(fake.read_kafka.return_value, process=names["write"])


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield page and words of each command of ours, of Airflow and of make that a page shows as typed in a shell."""
    for page in PAGES:
        for block in blocks(page, "console", "bash", "sh"):
            for line in re.findall(r"^\$ (.+)$", block.replace("\\\n", " "), re.MULTILINE):
                words = shlex.split(line, comments=True)
                end = next((place for place, word in enumerate(words) if word in (">", "|", "&&", ";")), None)
                words = words[:end]
                if words and (program := Path(words[0]).name) in ("airflow", "make", "python"):
                    yield page.name, [program, *words[1:]]


LINES = list(command_lines())


@pytest.mark.parametrize(("page", "words"), LINES, ids=lambda each: " ".join(each) if isinstance(each, list) else each)
def test_the_commands_that_are_shown_are_understood(page: str, words: list[str]) -> None:
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert [each for each in targets if f"make {each}" not in make_targets()] == []
    elif words[0] == "airflow":
        assert get_parser().parse_args(words[1:])
    elif words[1:3] == ["-m", "airflow_provider_offsets.stores"]:
        assert command_parser().parse_args(words[3:])
    else:
        assert words[1] == "-m"
        assert importlib.util.find_spec(words[2])


def test_commands_of_each_kind_are_shown() -> None:
    assert {words[0] for _, words in LINES} == {"airflow", "make", "python"}
    assert len([words for _, words in LINES if words[:2] == ["airflow", "offsets"]]) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_sentences_name_exist(page: Path) -> None:
    for named in re.findall(r"`airflow ([^`]+)`", page.read_text()):
        parser, words = get_parser(), named.split()
        while below := [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]:
            if not words:
                break
            assert words[0] in below[0].choices, named
            parser = below[0].choices[words.pop(0)]
        known = {option for each in parser._actions for option in each.option_strings}
        assert {word for word in words if word.startswith("-")} <= known, named
