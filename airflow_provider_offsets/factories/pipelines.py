"""Read and check ``pipelines.yaml``, and return its pipelines as ``StreamingPipeline`` values."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema

from airflow_provider_offsets.core.location import scheme_of
from airflow_provider_offsets.core.pipeline import (
    RollbackPolicy,
    Schedules,
    SparkJob,
    StopPolicy,
    StreamingPipeline,
    Subscription,
)
from airflow_provider_offsets.core.pruning import KeepPolicy
from airflow_provider_offsets.core.recovery import RecoveryPolicy
from airflow_provider_offsets.core.replay.boundary import BoundaryBy, OnOpen
from airflow_provider_offsets.core.replay.model import BackfillPolicy
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
from airflow_provider_offsets.core.selectors.parse import COMMITTED, start_text
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat
from airflow_provider_offsets.errors import InputRefused, SelectorError, UnknownPipeline
from airflow_provider_offsets.factories.schedules import interval_of, require_since, schedule_of
from airflow_provider_offsets.factories.sharing import remember, require_own
from airflow_provider_offsets.factories.strict_yaml import Keys, YamlFile

SCHEMA = Path(__file__).with_name("pipelines.schema.json")

_PATTERN = re.compile(r"[*+?^$|()\[\]{}\\]")
"""Characters of regular expressions and of globs, which no topic has."""


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

    :raises PipelineFileError: the mistakes in the file, each with file, line, key and fix. Also if a pipeline uses what
        another one uses, in this file or in another one that this process has loaded.
    """
    path = Path(file).resolve()
    content = YamlFile(path, os.environ, _is_passed_on)
    _refuse_patterns(content)
    _check(content)
    named = content.data.get("pipelines") if isinstance(content.data, dict) else None
    built = [_placed(content, name, entry) for name, entry in (named.items() if isinstance(named, dict) else ())]
    pipelines = [pipeline for pipeline in built if pipeline is not None]
    require_own(content, pipelines)
    content.require_right()
    remember(path, pipelines)
    return Pipelines(path, pipelines)


def _is_passed_on(keys: Keys) -> bool:
    """Check whether a value goes to the program or to Spark as it is."""
    return keys[2:4] in (("job", "arguments"), ("job", "conf"))


def _refuse_patterns(content: YamlFile) -> None:
    pipelines = content.data.get("pipelines") if isinstance(content.data, dict) else None
    for name, entry in pipelines.items() if isinstance(pipelines, dict) else ():
        if not isinstance(entry, dict):
            continue
        keys = [key for key in ("subscribe_pattern", "subscribePattern") if key in entry]
        if entry.get("subscription") in ("pattern", "subscribePattern"):
            keys.append("subscription")
        for key in keys:
            _refuse_pattern(content, ("pipelines", name, key), "a pattern")
        topics = entry.get("topics")
        for place, topic in enumerate(topics if isinstance(topics, list) else ()):
            if isinstance(topic, str) and _PATTERN.search(topic):
                _refuse_pattern(content, ("pipelines", name, "topics", place), f"{topic!r} is a pattern")


def _refuse_pattern(content: YamlFile, keys: Keys, seen: str) -> None:
    content.refuse(
        keys,
        seen=seen,
        expected="topics by name, because a pattern may match a new topic, or no longer match one, without a plan",
        do="list the topics under 'topics'. A topic that you add starts at its first offset, as the plan shows",
    )


def _check(content: YamlFile) -> None:
    """Note what the schema does not allow, except where a mistake is known."""
    for error in _validator().iter_errors(content.data):
        keys = list(error.absolute_path)
        unknown = _unknown_keys(error)
        if "propertyNames" in error.absolute_schema_path:
            keys = [*keys, error.instance]
        if error.validator == "required" and _is_mistyped(error):
            continue  # the key that is in the file is reported
        for key in unknown or [""]:
            where = [*keys, key] if unknown else keys
            if content.has_mistake_at(*where):
                continue
            content.refuse(
                where,
                seen=f"{key!r} is unknown" if unknown else _shown(error),
                expected=_expected(error),
                do=_fix(error, key),
            )


def _validator() -> Any:
    kind = jsonschema.Draft202012Validator
    whole = kind.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)  # JSON schema takes 60.0 too
    return jsonschema.validators.extend(kind, type_checker=whole)(json.loads(SCHEMA.read_text()))


def _is_mistyped(error: jsonschema.ValidationError) -> bool:
    """Check whether a missing key is in the file with another spelling."""
    unknown = [str(key) for key in error.instance if key not in error.schema.get("properties", {})]
    missing = [key for key in error.validator_value if key not in error.instance]
    return all(difflib.get_close_matches(key, unknown) for key in missing)


def _shown(error: jsonschema.ValidationError) -> str:
    text = str(error.message)
    return text if len(text) < 300 else f"{text[:150]} … {text[-100:]}"


def _fix(error: jsonschema.ValidationError, unknown: str) -> str:
    if unknown:
        like = difflib.get_close_matches(unknown, error.schema.get("properties", {}), n=1)
        return f"remove {unknown!r} or correct its spelling" + (f"; {like[0]!r} is similar" if like else "")
    return "add the key" if error.validator == "required" else "correct that key"


def _unknown_keys(error: jsonschema.ValidationError) -> list[str]:
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return []
    return [str(key) for key in error.instance if key not in error.schema.get("properties", {})]


def _expected(error: jsonschema.ValidationError) -> str:
    if error.validator == "required":
        return f"the keys {', '.join(error.validator_value)}"
    if error.validator == "additionalProperties":
        return f"only {', '.join(sorted(error.schema.get('properties', {})))}"
    described = error.schema.get("description", "")
    return f"{error.validator} {json.dumps(error.validator_value)}. {described}".strip()


def _placed(content: YamlFile, name: str, entry: Any) -> StreamingPipeline | None:
    """Return the pipeline, and note its mistakes with their places in the file.

    :returns: what is left of the pipeline without its mistakes, for the comparison with others; None if that is none.
    """
    here = ("pipelines", name)
    if not isinstance(entry, dict):
        return None
    fits_schema = not content.has_mistake_at(*here)
    for keys, location in _locations(entry):
        if isinstance(location, str) and (why := why_no_location(location, may_name=keys[0] == "sink")):
            content.refuse((*here, *keys), seen=f"{location!r} {why[0]}", expected=why[1], do=why[2])
    for keys, check in _checks(entry):
        if not content.has_mistake_at(*here, *keys):
            _note(content, (*here, *keys), check)
    if fits_schema:
        built: list[StreamingPipeline] = []
        _note(content, here, lambda: built.append(_pipeline(name, entry, content.path.parent)))
        return built[0] if built else None
    with suppress(InputRefused, KeyError, TypeError, ValueError):
        return _pipeline(name, content.right_part(here, entry), content.path.parent)
    return None


def _note(content: YamlFile, keys: Keys, check: Callable[[], object]) -> None:
    """Run a check, and note what it refuses."""
    try:
        check()
    except InputRefused as error:
        for each in error.parts or (error,):
            if not (isinstance(each, SelectorError) and content.has_mistake_at(*keys, "start")):
                content.refuse(keys, seen=each.seen, expected=each.expected, do=each.do)


def _checks(entry: dict[str, Any]) -> Iterator[tuple[Keys, Callable[[], object]]]:
    """Yield checks of single values that a schema cannot express, with their keys."""
    if isinstance(entry.get("start"), str | list):
        yield ("start",), partial(start_text, entry["start"])
    schedules, backfill = _section(entry, "schedules"), _section(entry, "backfill")
    for key in ("recovery", "rehearsal", "snapshots"):
        if isinstance(schedules.get(key), str):
            yield ("schedules", key), partial(schedule_of, f"schedules.{key}", schedules[key])
    if isinstance(backfill.get("interval"), str):
        yield ("backfill", "interval"), partial(interval_of, "backfill.interval", backfill["interval"])
    if isinstance(backfill.get("since"), str):
        policy = BackfillPolicy(automatic=backfill.get("automatic") is True, since=backfill["since"])
        yield ("backfill", "since"), partial(require_since, policy)


def _section(entry: dict[str, Any], key: str) -> dict[str, Any]:
    section = entry.get(key)
    return section if isinstance(section, dict) else {}


def _locations(entry: dict[str, Any]) -> Iterator[tuple[Keys, Any]]:
    """Yield every path of a pipeline, with its keys."""
    for section, key in (
        ("job", "application"),
        ("job", "checkpoint"),
        ("job", "log_dir"),
        ("stop", "marker"),
        ("sink", "location"),
    ):
        yield (section, key), _section(entry, section).get(key)
    for key in ("jars", "py_files"):
        listed = _section(entry, "job").get(key)
        for place, each in enumerate(listed if isinstance(listed, list) else ()):
            yield ("job", key, place), each


def why_no_location(location: str, *, may_name: bool = False) -> tuple[str, str, str] | None:
    """Return what is wrong with a path or URL, what is expected, and what to do; None if nothing is.

    :param location: the path or URL.
    :param may_name: whether it may also be the name of a table, such as ``catalog:db.table``.
    """
    if re.match(r"(file:(//[^/]*)?/*)?~", location):
        return "begins with '~', which nobody expands here", "a whole path", "write ${HOME} or the path itself"
    if re.match(r"[A-Za-z]:[\\/]", location):
        return "is a path of Windows", "a path or URL of the machine that runs Airflow", "correct the path"
    try:
        urlsplit(location)
    except ValueError as error:
        return f"cannot be read: {error}", "a path, or a URL such as hdfs://host/folder", "correct the URL"
    scheme = scheme_of(location)
    if scheme == "file" and not re.match("file:/(?!/[^/])", location):
        return "is no whole path on this machine", "'file:///' and the path", "write the path alone, without 'file:'"
    if not may_name and scheme not in ("", "file", "local") and "://" not in location:  # Spark has local:/path for jars
        return (
            "has a scheme and no '://'",
            "a path, or a URL such as hdfs://host/folder",
            "write '://' after the scheme",
        )
    return None


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
        sink=_sink(entry["sink"], folder) if "sink" in entry else None,
        start=start_text(entry.get("start", COMMITTED)),
        **{key: entry[key] for key in plain if key in entry},
    )


def _sink(entry: dict[str, Any], folder: Path) -> Sink:
    given = _resolved_keys(entry, ("location",), folder)
    return Sink(**{**given, "format": SinkFormat(entry["format"])})


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
    return path if scheme_of(path) else str((folder / path).resolve())


def _conf_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
