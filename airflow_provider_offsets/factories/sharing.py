"""What only one pipeline may use, and the check at load that no two pipelines share it, in one file or in several."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

from airflow_provider_offsets.core.location import plain_path
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.sink.model import SinkFormat
from airflow_provider_offsets.factories.strict_yaml import YamlFile

_EXPECTED = (
    "a group id of its own for each pipeline on a topic, and a checkpoint, marker, log folder and sink of its own"
)
_SAME_BUCKETS = re.compile("^s3[an]://")
_DEFAULT_PORT = re.compile(r"^(hdfs://[^/:]+):8020(?=/)")

_loaded: WeakValueDictionary[tuple[Path, str], StreamingPipeline] = WeakValueDictionary()
"""The pipelines that this process has loaded and still uses, by file and name."""


@dataclass(frozen=True)
class _Use:
    """One use of something that has to be a pipeline's own."""

    what: str
    """The same for all spellings."""
    key: str
    """Key of ``pipelines.yaml`` that names it."""
    shown: str
    """For people."""
    is_shareable: bool = False
    """Whether another pipeline may use it too, if its own use is shareable as well."""

    def excludes(self, other: _Use) -> bool:
        """Check whether no two pipelines may use it like this."""
        return self.what == other.what and not (self.is_shareable and other.is_shareable)


def remember(file: Path, pipelines: Iterable[StreamingPipeline]) -> None:
    """Keep the pipelines of a file in mind for the files that this process loads later.

    :param file: the whole path of the file. What it had before is forgotten.
    :param pipelines: its pipelines.
    """
    for key in [key for key in _loaded if key[0] == file]:
        _loaded.pop(key, None)
    _loaded.update({(file, pipeline.name): pipeline for pipeline in pipelines})


def require_own(content: YamlFile, pipelines: list[StreamingPipeline]) -> None:
    """Note each use of what another pipeline uses, or the same one for another purpose.

    An operation refuses what two pipelines share too, but not before its first step.

    :param content: the file.
    :param pipelines: its pipelines, without the parts that have a mistake.
    """
    seen: dict[str, tuple[str, _Use]] = {}
    checkpoints = {_same(each.job.checkpoint): each.name for each in pipelines if each.job.checkpoint}
    for pipeline in pipelines:
        for use in _uses(pipeline):
            other, earlier = seen.setdefault(use.what, (pipeline.name, use))
            whose = f"pipeline {other!r}" if other != pipeline.name else "the same pipeline"
            if (other, earlier.key) != (pipeline.name, use.key) and use.excludes(earlier):
                _refuse(content, pipeline, use, f"{whose} uses the {earlier.shown} too")
            for above in _above(use.what):
                if checkpoints.get(above, pipeline.name) != pipeline.name:
                    _refuse(
                        content, pipeline, use, f"it is in the checkpoint {above} of pipeline {checkpoints[above]!r}"
                    )
    for pipeline in pipelines:
        for use, seen_there in _shared_with_files(content.path, pipeline):
            _refuse(content, pipeline, use, seen_there)


def _refuse(content: YamlFile, pipeline: StreamingPipeline, use: _Use, seen: str) -> None:
    keys = ("pipelines", pipeline.name, *filter(None, use.key.split(".")))
    do = f"give one of them another {use.key}" if use.key else "give one of them another name"
    content.refuse(keys, seen=seen, expected=_EXPECTED, do=do, line=content.line(keys, where_used=True))


def _shared_with_files(path: Path, pipeline: StreamingPipeline) -> list[tuple[_Use, str]]:
    """Return what the pipeline shares with pipelines of other files that are in use, each with a text for people.

    DAGs that were dropped live until the garbage collector finds them, so it runs before anything is reported.
    """
    if not _find_shared(path, pipeline):
        return []
    gc.collect()
    return _find_shared(path, pipeline)


def _find_shared(path: Path, pipeline: StreamingPipeline) -> list[tuple[_Use, str]]:
    own = {use.what: use for use in (*_uses(pipeline), _control_records(pipeline))}
    checkpoint = _same(pipeline.job.checkpoint) if pipeline.job.checkpoint else ""
    inside = {above: use for use in own.values() for above in _above(use.what)}
    found = []
    for (file, name), other in list(_loaded.items()):
        if file == path or not file.exists():
            continue
        whose = f"pipeline {name!r} of {file}"
        for use in (*_uses(other), _control_records(other)):
            mine = own.get(use.what)
            if mine and use.excludes(mine) and (use.key != "group_id" or _has_same_rows(pipeline, other)):
                found.append((mine, f"{whose} uses the {mine.shown} too"))
            if use.key == "job.checkpoint" and use.what in inside:
                found.append((inside[use.what], f"it is in the {use.shown} of {whose}"))
            if checkpoint in _above(use.what):
                found.append((own[checkpoint], f"it holds the {use.shown} of {whose}"))
    return found


def _has_same_rows(one: StreamingPipeline, other: StreamingPipeline) -> bool:
    """Check whether one group on one topic is the same in both: two clusters have different topics of one name."""
    return one.store_conn_id == other.store_conn_id or one.kafka_conn_id == other.kafka_conn_id


def _above(what: str) -> Iterator[str]:
    """Yield the folders that hold a location. A checkpoint is moved and removed as a whole, with all that is in it."""
    while (slash := what.rfind("/")) > 0 and what[slash - 1] != "/":
        what = what[:slash]
        yield what


def _control_records(pipeline: StreamingPipeline) -> _Use:
    """Return the use of the control records, which have the name of the pipeline. One file has each name once."""
    where = f"connection {pipeline.store_conn_id!r}" if pipeline.store_conn_id else "Airflow's folder"
    return _Use(f"{pipeline.store_conn_id} {pipeline.name}", "", f"control records of its name in {where}")


def _uses(pipeline: StreamingPipeline) -> Iterator[_Use]:
    for topic in pipeline.topics:
        shown = f"group {pipeline.group_id!r} on topic {topic!r}"
        yield _Use(shown, "group_id", shown)
    job, sink = pipeline.job, pipeline.sink
    yield replace(_use("application", "job.application", job.application), is_shareable=True)
    if job.checkpoint:
        yield _use("checkpoint", "job.checkpoint", job.checkpoint)
    if pipeline.stop.marker:
        yield _use("marker", "stop.marker", pipeline.stop.marker)
    if sink is not None and sink.format is SinkFormat.FILES:
        yield _use("sink", "sink.location", sink.location)
    # Pruning removes the versions of programs that the pipeline itself no longer needs.
    prunes = pipeline.keep.versions is not None
    kind, key = (
        "log folder, which is pruned," if prunes else "log folder",
        "job.log_dir" if job.log_dir else "job.checkpoint",
    )
    yield replace(_use(kind, key, job.folder_for_logs), is_shareable=not prunes)


def _use(kind: str, key: str, location: str) -> _Use:
    return _Use(_same(location), key, f"{kind} {plain_path(location)}")


def _same(location: str) -> str:
    """Return a location in one form for all of its spellings: ``..``, ``file:``, a slash at the end, a link."""
    plain = plain_path(location)
    if "://" not in plain:
        return os.path.realpath(plain)
    return _DEFAULT_PORT.sub(r"\1", _SAME_BUCKETS.sub("s3://", plain))
