"""Write what is generated: ``pipelines-yaml.md``, ``errors.md``, tables of other pages, and the examples on them.

``make reference`` runs this file. The pages are committed, so that they can be read without a build, and a unit test
fails when a page differs from what this file writes.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from airflow.cli.cli_parser import get_parser

from airflow_provider_offsets import errors
from airflow_provider_offsets.factories.pipelines import SCHEMA
from airflow_provider_offsets.stores.__main__ import command_parser as stores_parser
from tests.versions.matrix import CELLS, Cell, Result, read_results

DOCS = Path(__file__).parent
NOTE = "<!-- Written by `make reference` from {}. Do not edit this page. -->"

OPTIONS = re.compile(r"(<!-- options of `([^`]+)`.*? -->\n).*?(<!-- end -->)", re.DOTALL)
"""A place in ``docs/cli.md`` for the options of one command."""

RESULTS = re.compile(r"(<!-- results of (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
"""A place in ``docs/versions.md`` for the results of one kind of cells."""

EXAMPLE = re.compile(r"(<!-- example `([^`]+)`.*? -->\n).*?(<!-- end -->)", re.DOTALL)
"""A place in ``docs/build-your-own-dag.md`` for a file of ``docs/examples``, which a unit test runs."""

CODE = re.compile(r"(?<!\w)'([^']+)'(?!\w)|([\w:-]+<\w+>)|\b([a-z]+(?:_[a-z]+)+)\b")
"""Quoted text, names with a placeholder, and identifiers with an underscore, which are shown as code."""

RULES = """\
## What is refused

`load_pipelines` reports all mistakes of a file at once, each with its line, its key, what is expected and what to do:

- an unknown key, a key that occurs twice, and a value of another type or unit. `010`, `1:30` and `1_000` are refused,
  because YAML reads other numbers than you see.
- a blank at an end of a text, and a no-break space, a character without width or a line break anywhere in it. Only
  `job.arguments` and the values of `job.conf` are passed on as they are. A byte order mark before the file is ignored.
- a pattern of topics, `~` at the start of a path, a template of Jinja (`{{ }}`), and a variable without a value.
- a schedule, interval or time that cannot be read.
- what another pipeline uses: its checkpoint, its marker, its log folder if one of the two has `keep.versions`, the
  folder of its `files` sink, and its group on a topic. Two spellings of a path (`..`, `file:`, a slash at the end, a
  link) are one path. Pipelines of two files are compared too, if one process loads both: there also the name, which
  the control records have. Otherwise the first operation refuses it.
- a folder or file in the checkpoint of another pipeline, because a checkpoint is moved and removed as a whole; and one
  location for two purposes, such as a marker that is the program.
- a URL without `://`, and `file:` before a relative path or a host.

## One file for development and production

`${NAME}` in a value is replaced by the environment variable, `${NAME:-default}` by the default if the variable is not
set or is empty. A variable without a value and without a default is refused. `$$` is the character `$`. Keys and other
forms, such as `$NAME`, are not replaced. A number without quotes is read as a number.

```yaml
pipelines:
  orders:
    topics: [orders]
    kafka_conn_id: ${OFFSETS_KAFKA:-kafka_default}
    store_conn_id: ${OFFSETS_STORE:-offsets_default}
    start_timeout_s: ${OFFSETS_START_TIMEOUT_S:-180}
    job:
      application: ../jobs/orders.py
      checkpoint: ${OFFSETS_CHECKPOINTS:-../.stack/checkpoints}/orders
      log_dir: ${OFFSETS_LOGS:-../.stack/logs}/orders
```

Set the variables in production only, with the same values for the DAG processor, the workers and the triggerer. Keep
addresses and passwords in Airflow's connections, which each environment has of its own.

## Times and time zones

- A time has a zone: `2026-11-01T00:00Z` or `2026-11-01T01:00+01:00`. So it is for `backfill.since`, the selectors
  `as-of:` and `timestamp:`, `--since`, and the fields of a form. Quotes are not needed. A time without a zone is
  refused.
- Cron expressions and presets in `schedules` and `backfill.interval` count in UTC, whatever `[core] default_timezone`
  of Airflow is. A cron expression has five fields.
- A duration has no zone: `PT6H`, `P1D`. A day has 24 hours.
"""

SEE = {
    errors.PipelineFileError: "[Keys of pipelines.yaml](pipelines-yaml.md)",
    errors.SelectorError: "[Start selectors](selectors.md)",
    errors.StoreLayoutError: "[Offset stores](stores.md)",
    errors.RunwayUnknown: "[The retention runway](plan.md#the-retention-runway)",
    errors.PlanRefused: "[Problems of a plan](plan.md#problems-and-what-to-do)",
    errors.StateLost: "[rename](cli.md#rename)",
    errors.StopTimedOut: "[When a job does not stop](maintenance.md#when-a-job-does-not-stop)",
    errors.LeaseHeld: "[One operation at a time](maintenance.md#one-operation-at-a-time)",
    errors.ShardFailed: "[Backfill](backfill.md#runs)",
    errors.JobUnhealthy: "[When a job is unhealthy](rollback.md#when-a-job-is-unhealthy)",
    errors.RollbackRefused: "[When a rollback is refused](rollback.md#when-a-rollback-is-refused)",
    errors.AuditFailed: "[What the audit finds](cli.md#audit)",
}
"""A page with more about an error."""


def generated_pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    return {
        DOCS / "pipelines-yaml.md": pipelines_page(json.loads(SCHEMA.read_text())),
        DOCS / "errors.md": errors_page(),
        DOCS / "build-your-own-dag.md": with_examples((DOCS / "build-your-own-dag.md").read_text()),
        DOCS / "cli.md": with_options((DOCS / "cli.md").read_text()),
        DOCS / "versions.md": with_results((DOCS / "versions.md").read_text(), CELLS, read_results()),
    }


def pipelines_page(schema: dict[str, Any]) -> str:
    """Return the page with every key of ``pipelines.yaml``, from its JSON schema."""
    [(name, file)] = schema["properties"].items()
    pipeline = schema["$defs"]["pipeline"]
    nested = {key: each for key, each in pipeline["properties"].items() if "properties" in each}
    return "\n".join(
        [
            "# Keys of pipelines.yaml\n",
            "*Every key of `pipelines.yaml`: its value and unit, its default, and an example.*\n",
            NOTE.format("its JSON schema") + "\n",
            "The shortest file has one pipeline with its topics and its job:\n",
            f"```yaml\n{yaml.safe_dump({name: file['examples'][0]}, sort_keys=False)}```\n",
            "A relative path starts at the folder of `pipelines.yaml`. A key whose name ends in `_s` is a time in",
            "whole seconds.\n",
            RULES,
            f"`{name}`: {_prose(file['description'])}\n",
            "## Keys of a pipeline\n",
            _keys(pipeline),
            *(f"## Keys of {key}\n\n{_prose(each['description'])}\n\n{_keys(each)}" for key, each in nested.items()),
        ]
    )


def _keys(section: dict[str, Any]) -> str:
    """Return the table of the keys of one section."""
    rows = [
        (
            f"`{key}`",
            _value(key, each),
            _default(key, each, section),
            _prose(each["description"]),
            f"`{_in_one_line({key: each['examples'][0]})}`",
        )
        for key, each in section["properties"].items()
    ]
    return _table(("key", "value", "default", "meaning", "example"), rows)


def _in_one_line(entry: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1000)
    return text.strip().removeprefix("{").removesuffix("}")


def _value(key: str, each: dict[str, Any]) -> str:
    """Return what a key may hold, for a reader."""
    if "properties" in each:
        return f"[keys](#keys-of-{key})"
    if "enum" in each:
        return _or([f"`{one}`" for one in each["enum"]])
    if isinstance(each["type"], list):
        return _or(["list" if one == "array" else one for one in each["type"]])
    if each["type"] == "array":
        return f"list of {each['items']['type']}s"
    if each["type"] == "boolean":
        return "`true` or `false`"
    if each["type"] == "object":
        kind = each["additionalProperties"]["type"]
        return f"mapping to {_or(kind if isinstance(kind, list) else [kind])}"
    limits = [f"{word} {each[limit]}" for limit, word in (("minimum", "≥"), ("maximum", "≤")) if limit in each]
    return ", ".join([each["type"], *limits])


def _or(names: list[str]) -> str:
    """Return the names as in ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _default(key: str, each: dict[str, Any], section: dict[str, Any]) -> str:
    if key in section.get("required", ()):
        return "**required**"
    if "properties" in each:
        return "–"
    if "x-default" in each:
        return _prose(each["x-default"])
    return f"`{each['default'] if isinstance(each['default'], str) else json.dumps(each['default'])}`"


def _prose(text: str) -> str:
    return CODE.sub(lambda found: f"`{found[1] or found[2] or found[3]}`", text)


def errors_page() -> str:
    """Return the page with every error class, from the docstrings of the classes."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.OffsetsError) and kind is not errors.OffsetsError
    ]
    direct = [kind for kind in kinds if kind.__base__ is errors.OffsetsError]
    groups = {base: [kind for kind in kinds if kind.__base__ is base] for base in direct}
    sections = [
        f"## {base.__name__}\n\n{_errors([base, *below] if _what_to_do(base) else below, base)}"
        for base, below in groups.items()
        if below
    ]
    return "\n".join(
        [
            "# Errors\n",
            "*Every error of the provider: what happened, and what to do.*\n",
            NOTE.format("the docstrings in `errors.py`") + "\n",
            "Every message has three parts: what was seen, what was expected, and what to do. If an error is",
            "*retriable*, Airflow's retries of the task may solve it. Every other error fails the task at once.\n",
            "All errors are subclasses of `OffsetsError`. Each heading is the base class of the errors in its table.\n",
            *sections,
            f"## Other errors\n\n{_errors([base for base, below in groups.items() if not below])}",
            "## Problems of a plan\n",
            "A plan with problems raises `PlanRefused`. [The plan](plan.md#problems-and-what-to-do) lists every",
            "problem, with what to do about it.\n",
        ]
    )


def _errors(kinds: Iterable[type[errors.OffsetsError]], base: type[errors.OffsetsError] | None = None) -> str:
    """Return the table of some error classes, with the sentence about a base class that is never raised itself."""
    rows = []
    for kind in kinds:
        what = (inspect.getdoc(kind) or "").partition("\n\nWhat to do:")[0]
        passing = " *Retriable.*" if kind.retriable else ""
        more = f" See: {SEE[kind]}." if kind in SEE else ""
        rows.append((f"`{kind.__name__}`", _line(what) + passing, _what_to_do(kind) + more))
    about = f"{inspect.getdoc(base)}\n\n" if base is not None and not _what_to_do(base) else ""
    return about + _table(("error", "what happened", "what to do"), rows)


def _what_to_do(kind: type[errors.OffsetsError]) -> str:
    """Return the remedy in the docstring of an error class; empty for a class that is only a base."""
    return _line((inspect.getdoc(kind) or "").partition("\n\nWhat to do:")[2].partition("\n\n")[0])


def _line(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`")


def with_examples(page: str) -> str:
    """Return the page with the code of each example that it has a place for."""
    code = {file.name: file.read_text() for file in (DOCS / "examples").glob("*.py")}
    return EXAMPLE.sub(lambda place: f"{place[1]}\n```python\n{code[place[2]]}```\n\n{place[3]}", page)


def with_options(page: str) -> str:
    """Return the page with the table of options of each command that it has a place for."""
    return OPTIONS.sub(lambda place: f"{place[1]}\n{_options(place[2])}\n{place[3]}", page)


def _options(command: str) -> str:
    """Return the table of the options of one command, from the parser that reads them.

    :param command: the command as a person types it, such as ``airflow offsets plan``.
    """
    rows = []
    for each in _actions(command):
        flags = ", ".join(f"`{flag}`" for flag in each.option_strings) or f"`{each.metavar}`"
        if each.option_strings and each.nargs != 0:
            flags = f"{flags[:-1]} {each.metavar or each.dest.upper()}`"
        choices = f" One of {', '.join(f'`{one}`' for one in each.choices)}." if each.choices else ""
        needed = " **Required.**" if each.required else ""
        rows.append((flags, f"{_sentence(each.help or '')}{choices}{needed}"))
    return _table(("option", "meaning"), rows)


def _actions(command: str) -> Iterator[argparse.Action]:
    """Yield the arguments of a command, without ``--help``."""
    names = command.split()
    is_ours = names[0] == "python"  # python -m <module> <command>
    parser = stores_parser() if is_ours else get_parser()
    for name in names[3 if is_ours else 1 :]:
        parser = next(each.choices[name] for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    yield from (each for each in parser._actions if not isinstance(each, argparse._HelpAction))


def _sentence(help_text: str) -> str:
    return f"{help_text[:1].upper()}{_prose(help_text[1:])}".rstrip(".") + "."


def with_results(page: str, cells: Sequence[Cell], results: Mapping[str, Result]) -> str:
    """Return the page with the results of each kind of cells that it has a place for.

    :param page: the page.
    :param cells: the matrix.
    :param results: what became of the cells that were run, by name.
    """

    def table(kind: str) -> str:
        mine = [cell for cell in cells if cell.kind == kind]
        not_run = Result("", "", "not run", "–", "–")
        rows = [
            (*cell.versions.values(), result.result, result.date, result.commit)
            for cell in mine
            for result in [results.get(cell.name, not_run)]
        ]
        return _table((*mine[0].versions, "result", "date", "commit"), rows)

    return RESULTS.sub(lambda place: f"{place[1]}\n{table(place[2])}\n{place[3]}", page)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows)]
    texts = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([texts[0], f"|{'---|' * len(head)}\n", *texts[1:]])


if __name__ == "__main__":
    for path, text in generated_pages().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(DOCS.parent)}")
