"""Read and check ``pipelines.yaml``, and return its pipelines as ``StreamingPipeline`` values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import yaml

from airflow_provider_offsets.core.pipeline import (
    RollbackPolicy,
    Schedules,
    SparkJob,
    StopPolicy,
    StreamingPipeline,
    Subscription,
    checkpoint_resource,
)
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.recovery import RecoveryPolicy
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
from airflow_provider_offsets.core.selectors.parse import COMMITTED, start_text
from airflow_provider_offsets.errors import InputRefused, PipelineFileError, SelectorError, UnknownPipeline

SCHEMA = Path(__file__).with_name("pipelines.schema.json")


class Pipelines(Mapping[str, StreamingPipeline]):
    """The pipelines of one file, by name.

    :raises UnknownPipeline: ``pipelines[name]`` does not exist; the message has the names that do.
    """

    def __init__(self, file: Path, pipelines: Iterable[StreamingPipeline]) -> None:
        self._file = file
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}

    def __getitem__(self, name: str) -> StreamingPipeline:
        if name not in self._pipelines:
            raise UnknownPipeline(
                seen=f"pipeline {name!r} is not in the file",
                expected=f"one of {', '.join(sorted(self._pipelines))} ({self._file})",
                do="correct the name, or add the pipeline to the file",
            )
        return self._pipelines[name]

    def __contains__(self, name: object) -> bool:
        return name in self._pipelines

    def __iter__(self) -> Any:
        return iter(self._pipelines)

    def __len__(self) -> int:
        return len(self._pipelines)


def load_pipelines(file: str | Path) -> Pipelines:
    """Return the pipelines of a YAML file. Relative paths in the file are relative to its directory.

    :raises PipelineFileError: the first error in the file, with file, line, key and fix.
    """
    path = Path(file).resolve()
    root, data = _read(path)
    _require_each_key_once(path, root)
    _refuse_patterns(path, root, data)
    _check(path, root, data)
    pipelines = [_placed(path, root, name, entry) for name, entry in data["pipelines"].items()]
    _require_own(path, root, pipelines)
    return Pipelines(path, pipelines)


def _read(path: Path) -> tuple[yaml.Node, Any]:
    """Return the file as YAML nodes, which have line numbers, and as plain values."""
    try:
        text = path.read_text()
        root, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except FileNotFoundError as error:
        raise PipelineFileError(
            seen=f"{path} does not exist",
            expected="a file of pipelines",
            do="create the file, or correct its path in the DAG file",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise PipelineFileError(
            seen=f"{path.name}{line}: {getattr(error, 'problem', None) or error}",
            expected="valid YAML",
            do="correct the line",
        ) from error
    if root is None:
        raise PipelineFileError(
            seen=f"{path} is empty", expected="'pipelines:' with at least one pipeline", do="add a pipeline to the file"
        )
    return root, data


def _require_each_key_once(path: Path, node: yaml.Node, where: tuple[str, ...] = ()) -> None:
    """Raise if a key occurs twice, because YAML silently uses the later one."""
    for place, item in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ()):
        _require_each_key_once(path, item, (*where, str(place)))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = (*where, str(key.value))
        if here[-1] in seen:
            raise PipelineFileError(
                seen=f"{path.name}, line {key.start_mark.line + 1}, key {'.'.join(here)}: the key appears twice",
                expected="each key once",
                do="remove or rename one of the two",
            )
        seen.add(here[-1])
        _require_each_key_once(path, value, here)


def _refuse_patterns(path: Path, root: yaml.Node, data: Any) -> None:
    pipelines = data.get("pipelines") if isinstance(data, dict) else None
    for name, entry in pipelines.items() if isinstance(pipelines, dict) else ():
        if not isinstance(entry, dict) or not ("subscribe_pattern" in entry or entry.get("subscription") == "pattern"):
            continue
        key = "subscribe_pattern" if "subscribe_pattern" in entry else "subscription"
        raise PipelineFileError(
            seen=f"{path.name}, line {_line(root, ['pipelines', name, key])}, key pipelines.{name}.{key}: a pattern",
            expected="topics by name, because a pattern may match a new topic, or no longer match one, without a plan",
            do="list the topics under 'topics'. A topic that you add starts at its first offset, as the plan shows",
        )


def _check(path: Path, root: yaml.Node, data: Any) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    errors = list(validator.iter_errors(data))
    # A mistyped key also counts as missing. Report the key that is in the file.
    unknown_key = [error for error in errors if error.validator == "additionalProperties"]
    error = jsonschema.exceptions.best_match(unknown_key or errors)
    if error is None:
        return
    keys = list(error.absolute_path)
    unknown = _unknown_keys(error)
    if unknown:
        keys = [*keys, unknown[0]]
    elif "propertyNames" in error.absolute_schema_path:
        keys = [*keys, error.instance]
    raise PipelineFileError(
        seen=f"{path.name}, line {_line(root, keys)}, key {'.'.join(map(str, keys)) or '(top)'}: {error.message}",
        expected=_expected(error),
        do=_fix(error, unknown),
    )


def _fix(error: jsonschema.ValidationError, unknown: list[str]) -> str:
    if unknown:
        return f"remove {unknown[0]!r} or correct its spelling"
    return "add the key" if error.validator == "required" else "correct that key"


def _unknown_keys(error: jsonschema.ValidationError) -> list[str]:
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return []
    return [key for key in error.instance if key not in error.schema.get("properties", {})]


def _expected(error: jsonschema.ValidationError) -> str:
    if error.validator == "required":
        return f"the keys {', '.join(error.validator_value)}"
    if error.validator == "additionalProperties":
        return f"only {', '.join(sorted(error.schema.get('properties', {})))}"
    described = error.schema.get("description", "")
    return f"{error.validator} {json.dumps(error.validator_value)}. {described}".strip()


def _line(root: yaml.Node, keys: Iterable[str | int]) -> int:
    """Return the line, from 1, of the deepest of ``keys`` that exists."""
    node, line = root, root.start_mark.line
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line
    return line + 1


def _placed(path: Path, root: yaml.Node, name: str, entry: dict[str, Any]) -> StreamingPipeline:
    """Return the pipeline; an error that only shows when all keys are combined is raised with its place in the file."""
    try:
        return _pipeline(name, entry, path.parent)
    except InputRefused as error:
        keys = ["pipelines", name, *(["start"] if isinstance(error, SelectorError) else [])]
        raise PipelineFileError(
            seen=f"{path.name}, line {_line(root, keys)}, key {'.'.join(keys)}: {error.seen}",
            expected=error.expected,
            do=error.do,
        ) from error


def _pipeline(name: str, entry: dict[str, Any], folder: Path) -> StreamingPipeline:
    plain = ("tracked", "group_id", "kafka_conn_id", "store_conn_id", "start_timeout_s", "approve", "read_committed")
    return StreamingPipeline(
        name=name,
        topics=tuple(entry["topics"]),
        subscription=Subscription(entry.get("subscription", "subscribe")),
        job=_job(entry["job"], folder),
        offsets_in=tuple(entry.get("offsets_in", ())),
        stop=StopPolicy(**_resolved_keys(entry.get("stop", {}), ("marker",), folder)),
        policy=RestartPolicy(
            entry.get("accept_lost", {}),
            entry.get("accept_skipped", {}),
            OnConflict(entry.get("on_conflict", OnConflict.REFUSE)),
        ),
        rollback=RollbackPolicy(**entry.get("rollback", {})),
        keep=KeepPolicy(**entry.get("keep", {})),
        backfill=_backfill(entry.get("backfill", {})),
        recovery=RecoveryPolicy(**entry.get("recovery", {})),
        schedules=Schedules(**entry.get("schedules", {})),
        start=start_text(entry.get("start", COMMITTED)),
        **{key: entry[key] for key in plain if key in entry},
    )


def _backfill(entry: dict[str, Any]) -> BackfillPolicy:
    return BackfillPolicy(
        **{key: value for key, value in entry.items() if key not in ("by", "on_open")},
        by=BoundaryBy(entry.get("by", BackfillPolicy.by)),
        on_open=OnOpen(entry.get("on_open", BackfillPolicy.on_open)),
    )


def _job(entry: dict[str, Any], folder: Path) -> SparkJob:
    paths = ("application", "checkpoint", "log_dir")
    lists = {key: ",".join(resolved(each, folder) for each in entry.get(key, ())) for key in ("jars", "py_files")}
    return SparkJob(
        **{key: value for key, value in _resolved_keys(entry, paths, folder).items() if key in paths},
        **lists,
        main_class=entry.get("main_class", ""),
        spark_conn_id=entry.get("spark_conn_id", "spark_default"),
        arguments=tuple(entry.get("arguments", ())),
        conf={key: _conf_text(value) for key, value in entry.get("conf", {}).items()},
        packages=",".join(entry.get("packages", ())),
    )


def _resolved_keys(entry: dict[str, Any], keys: Iterable[str], folder: Path) -> dict[str, Any]:
    return {key: resolved(value, folder) if key in keys else value for key, value in entry.items()}


def resolved(path: str, folder: Path) -> str:
    """Return a local path whole and without links, and a URL unchanged.

    :param path: a path or URL.
    :param folder: where a relative path begins.
    """
    return path if urlsplit(path).scheme else str((folder / path).resolve())


def _conf_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _require_own(path: Path, root: yaml.Node, pipelines: list[StreamingPipeline]) -> None:
    """Raise if two pipelines share a group and a topic, or a checkpoint.

    An operation refuses that too, but only when the second pipeline is used for the first time.
    """
    seen: dict[str, str] = {}
    for pipeline in pipelines:
        shared = {f"group {pipeline.group_id!r} on topic {topic!r}": "group_id" for topic in pipeline.topics}
        if pipeline.job.checkpoint:
            shared[checkpoint_resource(pipeline.job.checkpoint)] = "job.checkpoint"
        for resource, key in shared.items():
            other = seen.setdefault(resource, pipeline.name)
            if other != pipeline.name:
                where = ["pipelines", pipeline.name, *key.split(".")]
                raise PipelineFileError(
                    seen=f"{path.name}, line {_line(root, where)}, key {'.'.join(where)}: pipeline {other!r} uses the"
                    f" {resource} too",
                    expected="a group id of its own for each pipeline on a topic, and a checkpoint of its own",
                    do=f"give one of them another {key}",
                )
